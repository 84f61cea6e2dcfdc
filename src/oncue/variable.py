"""Variable: one weight of a model, as Keras shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oncue.backend import floatx


class Variable:
    """One weight of a layer: a view of a torch parameter or buffer under Keras's names, order of axes and methods.

    The tensor itself stays where torch wants it (`layer.kernel` is a `torch.nn.Parameter`), so optimizers and compiled
    steps see plain torch. Convolution kernels are kept in torch's order of axes and shown in Keras's.

    Args:
        module: The module that owns the tensor.
        attribute: The name of the parameter or buffer in that module.
        axes: The permutation that turns the stored tensor into Keras's order of axes, or None when both are the same.
        name: The name to show; the attribute's name by default.
        path: `layer/weight`, the name in the whole model; the name by default.

    Example:
        >>> linear = torch.nn.Linear(2, 1)
        >>> bias = Variable(linear, "bias")
        >>> bias.assign([0.5])
        >>> bias.shape, bias.numpy()
        ((1,), array([0.5], dtype=float32))
    """

    def __init__(
        self,
        module: torch.nn.Module,
        attribute: str,
        *,
        axes: tuple[int, ...] | None = None,
        name: str | None = None,
        path: str | None = None,
    ) -> None:
        self._module = module
        self._attribute = attribute
        self._axes = axes
        self.name = attribute if name is None else name
        self.path = self.name if path is None else path
        self.constraint: Callable[[torch.Tensor], torch.Tensor] | None = None
        """The projection that the optimizer applies to the stored tensor after each update."""

    @property
    def value(self) -> torch.Tensor:
        """The stored tensor (a `torch.nn.Parameter` where the weight is trained), in torch's order of axes."""
        tensor: torch.Tensor = getattr(self._module, self._attribute)
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in Keras's order of axes."""
        shape = tuple(self.value.shape)
        return shape if self._axes is None else tuple(shape[axis] for axis in self._axes)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.value.ndim

    @property
    def dtype(self) -> str:
        """The dtype, as Keras names it: "float32", "int64"."""
        return str(self.value.dtype).removeprefix("torch.")

    @property
    def trainable(self) -> bool:
        """Whether the optimizer updates this weight."""
        return self.value.requires_grad

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.value.requires_grad_(bool(value))

    def to_keras(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor laid out as this weight is stored (a gradient, an optimizer's slot) in Keras's order."""
        return tensor if self._axes is None else tensor.permute(self._axes)

    @property
    def axes(self) -> tuple[int, ...] | None:
        """The order of the stored axes that is Keras's; None where they are in that order."""
        return self._axes

    def from_keras(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor in Keras's order of axes laid out as this weight is stored."""
        if self._axes is None:
            return tensor
        inverse = sorted(range(len(self._axes)), key=self._axes.__getitem__)
        return tensor.permute(inverse)

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the value as a NumPy array, in Keras's order of axes."""
        tensor = self.to_keras(self.value.detach())
        return np.array(tensor.to(numpy_kind(tensor.dtype, self.path)).cpu().numpy(), order="C")

    def assign(self, value: Any) -> None:
        """Set the value in place.

        Args:
            value: An array, tensor or nested list of this weight's shape (in Keras's order of axes).

        Raises:
            ValueError: When the shape is another, or it has no numbers that this weight can hold.
        """
        with torch.no_grad():
            self.value.copy_(self.converted(value))

    def converted(self, value: Any) -> torch.Tensor:
        """Return a value laid out as this weight is stored; what it returns can be copied into the weight.

        Args:
            value: As for `assign`.

        Raises:
            ValueError: As `assign`.
        """
        if isinstance(value, Variable):
            value = value.to_keras(value.value)
        if not isinstance(value, torch.Tensor):
            array = np.asarray(value)
            try:
                value = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
            except TypeError:
                raise ValueError(
                    f"`value` for the weight '{self.path}' must be an array of numbers; got one of {array.dtype}."
                ) from None
        if tuple(value.shape) != self.shape:
            raise ValueError(
                f"`value` for the weight '{self.path}' must have the shape {self.shape}; got {tuple(value.shape)}."
            )
        if value.is_complex() and not self.value.is_complex():
            raise ValueError(
                f"`value` for the weight '{self.path}' is complex; the weight is of the type {self.dtype}."
            )
        return self.from_keras(value.detach())

    def assign_add(self, value: Any) -> None:
        """Add to the value in place."""
        self.assign(self.to_keras(self.value.detach()) + torch.as_tensor(value, device=self.value.device))

    def assign_sub(self, value: Any) -> None:
        """Subtract from the value in place."""
        self.assign(self.to_keras(self.value.detach()) - torch.as_tensor(value, device=self.value.device))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # torch.norm(variable) and the like work on the tensor, as Keras's variables do on its torch backend.
        def unwrap(item: Any) -> Any:
            if isinstance(item, Variable):
                return item.to_keras(item.value)
            if isinstance(item, (list, tuple)):
                return type(item)(unwrap(part) for part in item)
            return item

        return func(*unwrap(args), **{key: unwrap(item) for key, item in (kwargs or {}).items()})


def numpy_kind(kind: torch.dtype, name: str) -> torch.dtype:
    """Return the type of numbers that holds those of a type exactly, and that NumPy and HDF5 have.

    Args:
        kind: The type of a weight.
        name: The weight, for the message.

    Raises:
        ValueError: For a type whose numbers no such type holds, as the packed ones of quantized weights.

    Example:
        >>> numpy_kind(torch.bfloat16, "kernel")
        torch.float32
    """
    if kind in _EXACT:
        return kind
    if kind not in _WIDER:
        raise ValueError(
            f"The weight '{name}' is of the type {kind}, which neither NumPy nor a file of weights has. Keep it in another "
            "type: the bits as uint8, or the values as int8 or float32; or, if it isn't to be kept, register it with "
            "`register_buffer(..., persistent=False)`."
        )
    return _WIDER[kind]


_EXACT = {
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128,
}  # fmt: skip
_WIDER = {
    torch.complex32: torch.complex64,
    **dict.fromkeys(
        (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        torch.float32,
    ),
    torch.float8_e8m0fnu: torch.float32,
}


def torch_dtype(name: str | torch.dtype | None) -> torch.dtype:
    """Return torch's type for a name such as "float32"; `floatx()` for None.

    Raises:
        ValueError: For a name that isn't a torch type.

    Example:
        >>> torch_dtype("int32")
        torch.int32
    """
    if isinstance(name, torch.dtype):
        return name
    found = getattr(torch, floatx() if name is None else str(name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"`dtype` must be the name of a dtype such as 'float32'; got {name!r}.")
    return found
