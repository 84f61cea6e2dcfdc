"""KerasTensor: the placeholder that `Input` gives and layers pass on, from which a functional model is traced."""

from __future__ import annotations

from typing import Any

from oncue import naming


class KerasTensor:
    """A tensor that has a shape and a type but no values yet.

    Args:
        shape: The shape with the batch axis first; None where a size is not known.
        dtype: The type of the numbers, such as "float32".
        name: The name of the tensor; made up when None.
        history: The `(layer, args, kwargs)` of the call that gave it; None for an input.

    Example:
        >>> KerasTensor((None, 3), "float32", name="x")
        <KerasTensor shape=(None, 3), dtype=float32, name=x>
    """

    def __init__(
        self,
        shape: tuple[int | None, ...],
        dtype: str = "float32",
        name: str | None = None,
        history: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.name = naming.auto_name("keras_tensor") if name is None else name
        self.history = history

    @property
    def ndim(self) -> int:
        """The number of axes, the batch axis counted."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<KerasTensor shape={self.shape}, dtype={self.dtype}, name={self.name}>"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError(f"{self!r} has no values: it stands for the input of a functional model being built.")

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no values, so it is neither true nor false.")

    def __iter__(self) -> Any:
        raise TypeError(f"{self!r} has no values to iterate over.")


def has_symbolic(value: Any) -> bool:
    """Return whether a KerasTensor is somewhere in nested lists, tuples and dicts."""
    if isinstance(value, KerasTensor):
        return True
    if isinstance(value, dict):
        return any(has_symbolic(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_symbolic(item) for item in value)
    return False
