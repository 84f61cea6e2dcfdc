"""Layers of Keras 1 that others of today do the work of."""

from __future__ import annotations

from typing import Any


def thresholded_relu(theta: float = 1.0, **kwargs: Any) -> Any:
    """Return the layer that passes on values above `theta`, and 0 for others."""
    from oncue.layers import ReLU

    return ReLU(threshold=theta, **kwargs)


def time_distributed_dense(output_dim: int, **kwargs: Any) -> Any:
    """Return a dense layer for each step of a sequence, with the arguments of `Dense`."""
    from oncue.layers import Dense, TimeDistributed

    around = {name: kwargs.pop(name) for name in ("input_shape", "batch_input_shape", "name") if name in kwargs}
    if "input_dim" in kwargs:
        around["input_shape"] = (kwargs.pop("input_length", None), kwargs.pop("input_dim"))
    return TimeDistributed(Dense(output_dim, **kwargs), **around)


def merge(inputs: Any, mode: str = "sum", concat_axis: int = -1, dot_axes: int = -1, **kwargs: Any) -> Any:
    """Join symbolic tensors, as `merge` of Keras 1 did.

    Args:
        inputs: The tensors.
        mode: "sum", "mul", "concat", "ave", "max" or "dot".
        concat_axis: The axis to join at.
        dot_axes: The axes that a product sums over.
        **kwargs: `name`.

    Raises:
        ValueError: For another mode.
    """
    from oncue import layers

    kinds = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate", "dot": "Dot"}
    if mode not in kinds:
        raise ValueError(
            f"`merge(mode={mode!r})` of Keras 1 is not here: the modes are {', '.join(kinds)}. Write a layer of your own: a "
            "subclass of `layers.Layer` with `call`."
        )
    given = {"concat": {"axis": concat_axis}, "dot": {"axes": dot_axes}}.get(mode, {})
    named = {"name": kwargs["name"]} if kwargs.get("name") else {}
    return getattr(layers, kinds[mode])(**given, **named)(inputs)
