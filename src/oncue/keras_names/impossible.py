"""Names of Keras for what can't exist on torch, or has no effect on oncue's loop."""

from __future__ import annotations

from typing import Any

_ADVICE: dict[str, str] = {
    "callbacks.OrbaxCheckpoint": (
        "Orbax keeps arrays of JAX. Use `ModelCheckpoint` to keep models or weights, and `BackupAndRestore` to go on with a "
        "run."
    ),
    "layers.FlaxLayer": "It runs a module of Flax, on JAX. Write the module in torch, and wrap it: `keras.Model(module)`.",
    "layers.JaxLayer": "It runs a function of JAX. Write it in a layer's `call`.",
    "layers.TFSMLayer": (
        "It runs a SavedModel of TensorFlow. Load the model with its own TensorFlow, save it as a `.keras` file, and load that "
        "with `keras.models.load_model`."
    ),
}


_UNASKED: dict[str, str] = {
    "config.set_max_epochs": "Give `epochs` to `fit`.",
    "config.set_max_steps_per_epoch": "Give `steps_per_epoch` to `fit`.",
}
"""What Keras's own loop asks for and oncue's doesn't, and what to do instead."""


def impossible(place: str) -> Any:
    """Return what stands for a name that would have no effect, and says so when it is called; None for all others.

    Args:
        place: A name with its module, without "keras.".

    Example:
        >>> impossible("layers.JaxLayer")()
        Traceback (most recent call last):
        ...
        NotImplementedError: `JaxLayer` can't work on torch. It runs a function of JAX. Write it in a layer's `call`.
    """
    name = place.rpartition(".")[2]
    if place in _UNASKED:
        return _Unasked(name, _UNASKED[place])
    advice = _ADVICE.get(place)
    if advice is None:
        return None

    def __init__(self: object, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"`{name}` can't work on torch. {advice}")

    return type(name, (), {"__init__": __init__, "__doc__": advice})


class _Unasked:
    """A function that would set what nothing asks for."""

    def __init__(self, name: str, advice: str) -> None:
        self.__name__, self.__doc__ = name, advice

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"`{self.__name__}` would have no effect on oncue's loop. {self.__doc__}")
