"""MetricVariable: one running number (or array) of a metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oncue import initializers
from oncue.core.allowance import count_numbers
from oncue.variable import torch_dtype

Number = int | float


class MetricVariable:
    """A number or array that a metric adds to, on the device of what is added first.

    A scalar to which only Python numbers are added (a count of samples) stays a Python number: it costs the device
    nothing. Tensors are added in place and detached, so that no graph is kept alive.

    Args:
        shape: The shape; () is a scalar.
        initializer: "zeros", "ones", or a function called with (shape, dtype=...).
        dtype: The type of the values, "float32" by default. "float64" becomes float32 on devices without it (MPS).
        name: The name to show.

    Example:
        >>> total = MetricVariable(name="total")
        >>> total.assign_add(2.0)
        >>> total.assign_add(torch.tensor(3.0))
        >>> float(total), total / 2
        (5.0, tensor(2.5000))
    """

    def __init__(self, shape: Any = (), initializer: Any = "zeros", dtype: Any = None, name: str = "variable") -> None:
        self.shape: tuple[int, ...] = (shape,) if isinstance(shape, int) else tuple(shape)
        count_numbers(self.shape)
        self.name = self.path = name
        self.aggregation: str | None = "sum"
        """How the values of several processes become one: "sum", "mean", or that of the first."""
        self._dtype = torch_dtype("int32" if dtype == "int" else dtype)
        self._number: Number = 0
        self._tensor: Tensor | None = None
        self._numbers_too = False
        initial = _initial(initializer, self.shape, self._dtype)
        if isinstance(initial, Tensor) or self.shape:
            self._tensor = self._place(initial, torch.device("cpu"))
        else:
            self._number = initial

    @property
    def dtype(self) -> str:
        """The dtype, as Keras names it."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def value(self) -> Tensor:
        """The value as a tensor; a copy for a scalar that is a Python number so far."""
        if self._tensor is None:
            return torch.tensor(self._number, dtype=self._dtype)
        return self._shown() + self._number if self._number else self._shown()

    def owned(self) -> Tensor | Number:
        """Return the value as it is now, unaffected by later updates: a Python number where no tensor was ever added."""
        if self._tensor is None:
            return self._number
        return self._shown() + self._number if self._number else self._shown().clone()

    def peek(self) -> Tensor | Number:
        """Return the value for immediate use: like `owned`, but later updates may change it."""
        if self._tensor is None:
            return self._number
        return self._shown() + self._number if self._number else self._tensor

    def assign(self, value: Any) -> None:
        """Set the value in place.

        Args:
            value: A number, array or tensor of this variable's shape.

        Raises:
            ValueError: When the shape is another.
        """
        if isinstance(value, (int, float)) and not self.shape:
            if self._numbers_too and self._tensor is not None:
                self._tensor.fill_(value)
                return
            if self._tensor is not None:
                self._tensor.zero_()
            self._number = value
            return
        source = self._source(value)
        if tuple(source.shape) != self.shape:
            raise ValueError(f"`{self.name}` has the shape {self.shape}; got a value of shape {tuple(source.shape)}.")
        if self._tensor is None or (self._tensor.device.type == "cpu" and source.device.type != "cpu"):
            self._tensor = self._place(source, source.device)
        else:
            self._tensor.copy_(source)
        self._number = 0

    def assign_add(self, value: Any, scale: Number = 1) -> None:
        """Add to the value in place.

        Args:
            value: A number, array or tensor that broadcasts to this variable's shape.
            scale: A number to multiply it with, at no cost.
        """
        if isinstance(value, (int, float)) and not self.shape:
            if self._numbers_too and self._tensor is not None:
                self._tensor.add_(value * scale)
            else:
                self._number += value * scale
            return
        source = self._source(value)
        tensor = self._tensor
        if tensor is None:
            tensor = self._tensor = self._place(torch.zeros(self.shape, device=source.device), source.device)
        elif tensor.device != source.device:
            if tensor.device.type == "cpu":
                tensor = self._tensor = self._place(tensor, source.device)
            else:
                source = source.to(tensor.device)
        if source.dtype.is_floating_point and not tensor.dtype.is_floating_point:
            source = source.to(tensor.dtype)
        tensor.add_(source, alpha=scale)

    def assign_sub(self, value: Any) -> None:
        """Subtract from the value in place."""
        self.assign_add(value, -1)

    def materialize(self, device: torch.device) -> None:
        """Keep the value in a tensor from here on, Python numbers too, as a graph needs it; what was added so far stays.

        Args:
            device: Where.
        """
        self._numbers_too = True
        if self._tensor is None:
            self._tensor = self._place(torch.zeros(self.shape, device=device), device)
        elif self._tensor.device.type != device.type:
            # A state that was restored came from the host.
            self._tensor = self._place(self._tensor, device)
        if self._number:
            self._tensor.add_(self._number)
            self._number = 0

    def take(self, value: Tensor) -> None:
        """Replace the value by what all processes have, of one axis; a Python number stays one.

        Args:
            value: The numbers, on the host.
        """
        if self._tensor is None:
            self._number = value.item()
        else:
            self._tensor.copy_(value.reshape(self._tensor.shape))
            self._number = 0

    def zero(self) -> None:
        """Set everything to zero in place."""
        self._number = 0
        if self._tensor is not None:
            self._tensor.zero_()

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the value as a NumPy array; this waits for the device."""
        return np.array(self.value.cpu().numpy())

    def _shown(self) -> Tensor:
        assert self._tensor is not None
        return self._tensor if self.shape else self._tensor.view(())

    def _source(self, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach() if value.requires_grad else value
        if isinstance(value, MetricVariable):
            return value.value
        return torch.as_tensor(np.asarray(value))

    def _place(self, value: Tensor, device: torch.device) -> Tensor:
        # Made outside inference mode: a tensor made inside couldn't be updated in training afterwards.
        with torch.inference_mode(False):
            if self._dtype == torch.float64 and device.type == "mps":
                self._dtype = torch.float32
            # One element, not a scalar: torch 2.13's inductor takes a float64 scalar on the CPU for a Python number, and
            # what a compiled step adds to it is lost.
            tensor = torch.empty(self.shape or (1,), dtype=self._dtype, device=device)
        # The host must not wait: from its memory, CUDA takes what it copies before the call returns.
        return tensor.copy_(value.detach(), non_blocking=device.type == "cuda" and not value.is_cuda)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.value[index]

    def __add__(self, other: Any) -> Any:
        return self.value + _operand(other)

    def __sub__(self, other: Any) -> Any:
        return self.value - _operand(other)

    def __mul__(self, other: Any) -> Any:
        return self.value * _operand(other)

    def __truediv__(self, other: Any) -> Any:
        return self.value / _operand(other)

    def __pow__(self, other: Any) -> Any:
        return self.value ** _operand(other)

    def __radd__(self, other: Any) -> Any:
        return self.value + other

    def __rsub__(self, other: Any) -> Any:
        return -self.value + other

    def __rmul__(self, other: Any) -> Any:
        return self.value * other

    def __rtruediv__(self, other: Any) -> Any:
        return self.value.reciprocal() * other

    def __neg__(self) -> Any:
        return -self.value

    def __lt__(self, other: Any) -> Any:
        return self.value < _operand(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= _operand(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > _operand(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= _operand(other)

    def __repr__(self) -> str:
        return f"<MetricVariable name={self.name}, shape={self.shape}, dtype={self.dtype}>"

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # torch.sqrt(self.total), torch.stack([self.a, self.b]): functions of torch see the tensor.
        return func(*_operand(args), **{key: _operand(item) for key, item in (kwargs or {}).items()})


def _operand(item: Any) -> Any:
    if isinstance(item, MetricVariable):
        return item.value
    if isinstance(item, (list, tuple)):
        return type(item)(_operand(part) for part in item)
    return item


def _initial(initializer: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    if initializer is None:
        initializer = "zeros"
    name = initializer.lower() if isinstance(initializer, str) else type(initializer).__name__.lower()
    if name in ("zeros", "ones"):
        number = 1 if name == "ones" else 0
        return torch.full(shape, float(number)) if shape else number
    return torch.as_tensor(initializers.get(initializer)(shape, dtype=str(dtype).removeprefix("torch.")))
