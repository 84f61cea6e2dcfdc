"""Names of Keras for what can't exist on torch."""

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


def impossible(place: str) -> Any:
    """Return the class that stands for what can't exist on torch; None for all else.

    Args:
        place: A name with its module, without "keras.".

    Example:
        >>> impossible("layers.JaxLayer")()
        Traceback (most recent call last):
        ...
        NotImplementedError: `JaxLayer` can't work on torch. It runs a function of JAX. Write it in a layer's `call`.
    """
    advice = _ADVICE.get(place)
    if advice is None:
        return None
    name = place.rpartition(".")[2]

    def __init__(self: object, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"`{name}` can't work on torch. {advice}")

    return type(name, (), {"__init__": __init__, "__doc__": advice})
