"""KerasTensor: the placeholder that `Input` gives and layers pass on, from which a functional model is traced."""

from __future__ import annotations

from itertools import count
from typing import Any

from oncue import naming
from oncue.layers.real_keras import is_symbol_of_keras, symbol_kind
from oncue.legacy import is_backend_function

_serials = count()


class KerasTensor:
    """A tensor that has a shape and a type but no values yet.

    Args:
        shape: The shape with the batch axis first; None where a size is not known.
        dtype: The type of the values, such as "float32".
        name: The name of the tensor; made up when None.
        history: The `(layer, args, kwargs)` of the call that gave it; None for an input.
        sparse: For compatibility with Keras; False.
        ragged: For compatibility with Keras; False.

    Raises:
        ValueError: If it is to be sparse or ragged.

    Example:
        >>> KerasTensor((None, 3), "float32", name="x")
        <KerasTensor shape=(None, 3), dtype=float32, name=x>
    """

    sparse = ragged = False

    # So that `array * x` comes to `__rmul__` here.
    __array_ufunc__ = None

    def __init__(
        self,
        shape: tuple[int | None, ...],
        dtype: str = "float32",
        name: str | None = None,
        history: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None,
        *,
        sparse: bool = False,
        ragged: bool = False,
    ) -> None:
        if sparse or ragged:
            raise ValueError("torch has no sparse or ragged tensors for layers: leave `sparse` and `ragged` out.")
        self.shape = tuple(shape)
        self.dtype = str(dtype).removeprefix("torch.")
        self.name = naming.auto_name("keras_tensor") if name is None else name
        self.history = history
        # Which output of the call this is, whether it is the only one, and when it was made: calls of a shared layer
        # are told apart by that.
        self.output_index = 0
        self.is_alone = True
        # How many axes a mask has that comes with the values; None where none comes.
        self.mask_ndim: int | None = None
        self.serial = next(_serials)

    # Keras's layers and functions take it for one of theirs, so that their graphs may begin with it.
    sparse = ragged = False
    record_history = True

    @property  # type: ignore[misc]  # what `isinstance` asks besides the type
    def __class__(self) -> type:
        return symbol_kind() or type(self)

    @property
    def _keras_mask(self) -> Any:
        """What Keras passes on as the mask that comes with the values; None where none comes."""
        kind = symbol_kind()
        if self.mask_ndim is None or kind is None:
            return None
        if "_mask_of_keras" not in vars(self):
            vars(self)["_mask_of_keras"] = kind(self.shape[: self.mask_ndim], "bool")
        return vars(self)["_mask_of_keras"]

    def __reduce__(self) -> Any:
        # By its own class, which `__class__` isn't.
        return _without_attributes, (), vars(self)

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

    def __getattr__(self, name: str) -> Any:
        import torch

        # The first thing that a torch module asks of what it is given.
        if hasattr(torch.Tensor, name) and not name.startswith("_"):
            raise AttributeError(f"KerasTensor has no `{name}`: {_NO_TORCH.format(self)}")
        raise AttributeError(f"KerasTensor has no attribute {name!r}")

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Note the step, for a function of Keras 2's backend; refuse others: torch can't compute without values."""
        if is_backend_function(func):
            return _operation(f"backend.{func.__name__}", *args, **(kwargs or {}))
        what = next(arg for arg in (*args, *(kwargs or {}).values(), "a KerasTensor") if not isinstance(arg, type))
        raise TypeError(f"`{getattr(func, '__name__', func)}` of torch was called on {_NO_TORCH.format(what)}")

    def __add__(self, other: Any) -> Any:
        return _operation("Add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _operation("Add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _operation("Subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _operation("Subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return _operation("Multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _operation("Multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _operation("TrueDivide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _operation("TrueDivide", other, self)

    def __pow__(self, other: Any) -> Any:
        return _operation("Power", self, other)

    def __matmul__(self, other: Any) -> Any:
        return _operation("Matmul", self, other)

    def __neg__(self) -> Any:
        return _operation("Negative", self)

    def __abs__(self) -> Any:
        return _operation("Absolute", self)

    def __rpow__(self, other: Any) -> Any:
        return _operation("Power", other, self)

    def __rmatmul__(self, other: Any) -> Any:
        return _operation("Matmul", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _operation("FloorDivide", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _operation("FloorDivide", other, self)

    def __mod__(self, other: Any) -> Any:
        return _operation("Mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return _operation("Mod", other, self)

    def __and__(self, other: Any) -> Any:
        return _operation("LogicalAnd", self, other)

    def __rand__(self, other: Any) -> Any:
        return _operation("LogicalAnd", other, self)

    def __or__(self, other: Any) -> Any:
        return _operation("LogicalOr", self, other)

    def __ror__(self, other: Any) -> Any:
        return _operation("LogicalOr", other, self)

    def __xor__(self, other: Any) -> Any:
        return _operation("LogicalXor", self, other)

    def __rxor__(self, other: Any) -> Any:
        return _operation("LogicalXor", other, self)

    def __lt__(self, other: Any) -> Any:
        return _operation("Less", self, other)

    def __le__(self, other: Any) -> Any:
        return _operation("LessEqual", self, other)

    def __gt__(self, other: Any) -> Any:
        return _operation("Greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return _operation("GreaterEqual", self, other)

    def __invert__(self) -> Any:
        return _operation("LogicalNot", self)

    def __getitem__(self, key: Any) -> Any:
        return _operation("GetItem", self, key)


def _without_attributes() -> KerasTensor:
    return KerasTensor.__new__(KerasTensor)


_NO_TORCH = (
    "{}, which has no values yet. Use oncue's layers, or wrap a torch module: `Model(module)(x)`; wrap a function of "
    "tensors in a layer with `call`."
)


def _operation(kind: str, *args: Any, **kwargs: Any) -> Any:
    from oncue.layers.operation import Operation

    return Operation(kind)(*args, **kwargs)


def symbols(shape: Any, dtype: str, history: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> Any:
    """Return the symbolic outputs of a call.

    Args:
        shape: A shape, or shapes nested in lists, tuples and dicts.
        dtype: The type of the values.
        history: The `(layer, args, kwargs)` of the call.

    Returns:
        A KerasTensor, or lists, tuples and dicts of them; numbered in the order of their leaves, dicts by sorted key.

    Example:
        >>> [tensor.output_index for tensor in symbols([(None, 1), (None, 2)], "float32", (None, (), {}))]
        [0, 1]
    """
    index = count()

    def made(part: Any) -> Any:
        if isinstance(part, dict):
            values = {key: made(part[key]) for key in sorted(part)}
            return {key: values[key] for key in part}
        if not isinstance(part, tuple) or not all(size is None or isinstance(size, int) for size in part):
            parts = [made(item) for item in part]
            return tuple(parts) if isinstance(part, tuple) else parts
        tensor = KerasTensor(part, dtype, history=history)
        tensor.output_index, tensor.is_alone = next(index), part is shape
        return tensor

    return made(shape)


def has_symbolic(value: Any) -> bool:
    """Return whether a KerasTensor, ours or Keras's, is somewhere in nested lists, tuples and dicts."""
    if isinstance(value, KerasTensor) or is_symbol_of_keras(value):
        return True
    if isinstance(value, dict):
        return any(has_symbolic(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_symbolic(item) for item in value)
    return False
