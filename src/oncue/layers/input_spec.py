"""InputSpec: what a layer says of the inputs that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from oncue.backend import torch_dtype
from oncue.core.builtin import builtin
from oncue.nested import flatten


@builtin
class InputSpec:
    """What an input of a layer must be like; `layer.input_spec = InputSpec(...)` has it checked in every call.

    Args:
        dtype: The type of the values, such as "float32"; None for any.
        shape: The shape, the batch axis first, with None for sizes that may differ.
        ndim: The number of axes.
        max_ndim: The most axes there may be.
        min_ndim: The least.
        axes: Sizes by the number of the axis, such as `{-1: 3}`.
        allow_last_axis_squeeze: Whether a last axis of size 1 may be missing, or be there besides `shape`.
        name: The key of this input in a dict of inputs.
        optional: Whether None may be given instead.

    Raises:
        TypeError: If a key of `axes` is no whole number.
        ValueError: If `axes` has an axis beyond `ndim` or `max_ndim`.

    Example:
        >>> InputSpec(min_ndim=2, axes={-1: 3})
        InputSpec(min_ndim=2, axes={-1: 3})
    """

    def __init__(
        self,
        dtype: Any = None,
        shape: Sequence[int | None] | None = None,
        ndim: int | None = None,
        max_ndim: int | None = None,
        min_ndim: int | None = None,
        axes: Mapping[int, int | None] | None = None,
        allow_last_axis_squeeze: bool = False,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.dtype = None if dtype is None else str(torch_dtype(dtype)).removeprefix("torch.")
        self.shape = None if shape is None else tuple(shape)
        self.ndim = ndim if shape is None else len(shape)
        self.max_ndim, self.min_ndim = max_ndim, min_ndim
        self.allow_last_axis_squeeze, self.name, self.optional = allow_last_axis_squeeze, name, optional
        try:
            self.axes = {int(axis): size for axis, size in dict(axes or {}).items()}
        except (TypeError, ValueError):
            raise TypeError(f"Argument `axes` must be a dict with integer keys; got {axes!r}.") from None
        most = self.ndim if self.ndim is not None else max_ndim
        if self.axes and most is not None and max(self.axes) > most - 1:
            raise ValueError(f"Axis {max(self.axes)} is greater than the maximum allowed value: {most - 1}.")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this object."""
        names = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes", "optional")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make one from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        names = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes")
        return f"InputSpec({', '.join(f'{name}={getattr(self, name)}' for name in names if getattr(self, name))})"

    def problem(self, shape: tuple[int | None, ...], dtype: str) -> str | None:
        """Return what is wrong with an input, or None.

        Args:
            shape: Its shape.
            dtype: The type of its values.
        """
        rank = len(shape)
        if self.ndim is not None and rank != self.ndim and not self.allow_last_axis_squeeze:
            return f"expected ndim={self.ndim}, found ndim={rank}. Full shape received: {shape}"
        if self.max_ndim is not None and rank > self.max_ndim:
            return f"expected max_ndim={self.max_ndim}, found ndim={rank}"
        if self.min_ndim is not None and rank < self.min_ndim:
            return f"expected min_ndim={self.min_ndim}, found ndim={rank}. Full shape received: {shape}"
        if self.dtype is not None and dtype != self.dtype:
            return f"expected dtype={self.dtype}, found dtype={dtype}"
        for axis, size in self.axes.items():
            if size is not None and shape[axis] not in (size, None):
                return (
                    f"expected axis {axis} of input shape to have value {size}, but received input with shape {shape}"
                )
        if self.shape is not None:
            wanted, found = self.shape, shape
            if self.allow_last_axis_squeeze:
                wanted, found = (part[:-1] if part and part[-1] == 1 else part for part in (wanted, found))
            if any(None not in (one, other) and one != other for one, other in zip(wanted, found, strict=False)):
                return f"expected shape={self.shape}, found shape={shape}"
        return None


def check_inputs(specs: Any, inputs: Any, layer: str) -> None:
    """Refuse inputs that aren't what a layer says that it takes.

    Args:
        specs: An `InputSpec`, or several, nested as the inputs are; None for an input of which nothing is said. Those of
            the real Keras do too.
        inputs: Tensors or symbolic tensors.
        layer: The name of the layer.

    Raises:
        ValueError: For another number of inputs, and for one that doesn't fit.
    """
    wanted: list[Any] = flatten(specs)
    names = [getattr(spec, "name", None) for spec in wanted]
    if isinstance(inputs, Mapping) and all(names):
        missing = next((name for name in names if name not in inputs), None)
        if missing is not None:
            raise ValueError(
                f'Missing data for input "{missing}". You passed a data dictionary with keys {list(inputs)}. Expected the '
                f"following keys: {names}"
            )
        given = [inputs[name] for name in names]
    else:
        given = flatten(inputs)
    if len(given) != len(wanted):
        raise ValueError(
            f'Layer "{layer}" expects {len(wanted)} input(s), but it received {len(given)} input tensors. Inputs received: '
            f"{inputs}"
        )
    for index, (value, spec) in enumerate(zip(given, wanted, strict=True)):
        if spec is None or (value is None and spec.optional):
            continue
        if not hasattr(value, "shape"):
            raise ValueError(
                f"Inputs to a layer should be tensors. Got '{value}' (of type {type(value)}) as input for layer '{layer}'."
            )
        own = spec if isinstance(spec, InputSpec) else InputSpec(**spec.get_config())
        wrong = own.problem(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        if wrong is not None:
            raise ValueError(
                f"Input {index} with name '{spec.name}' of layer '{layer}' is incompatible with the layer: {wrong}"
            )
