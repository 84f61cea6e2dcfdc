"""Initializers without random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from oncue.backend import torch_dtype
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.initializers.initializer import Initializer


@builtin
class Zeros(Initializer):
    """All zeros.

    Example:
        >>> Zeros()((2,))
        tensor([0., 0.])
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Return zeros of the shape."""
        return torch.zeros(tuple(shape), dtype=torch_dtype(dtype))


@builtin
class Ones(Initializer):
    """All ones.

    Example:
        >>> Ones()((2,))
        tensor([1., 1.])
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Return ones of the shape."""
        return torch.ones(tuple(shape), dtype=torch_dtype(dtype))


@builtin
class Constant(Initializer):
    """One value everywhere, or given values.

    Args:
        value: A number, or an array that broadcasts to the weight's shape.

    Example:
        >>> Constant(0.5)((2,))
        tensor([0.5000, 0.5000])
    """

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Return the value, broadcast to the shape."""
        values = self.value if isinstance(self.value, torch.Tensor) else torch.as_tensor(np.asarray(self.value))
        return values.detach().to(torch_dtype(dtype)).broadcast_to(tuple(shape)).clone()

    def get_config(self) -> dict[str, Any]:
        """Return the value; arrays as nested lists."""
        return {"value": plain(self.value)}


@builtin
class Identity(Initializer):
    """The identity matrix, for weights of two axes.

    Args:
        gain: The number on the diagonal.

    Raises:
        ValueError: When called for a shape that has not two axes.

    Example:
        >>> Identity()((2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """

    def __init__(self, gain: float = 1.0) -> None:
        self.gain: float = plain(gain)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Return the matrix."""
        if len(shape) != 2:
            raise ValueError(f"Identity makes matrices, so `shape` must have 2 axes; got {tuple(shape)}.")
        return self.gain * torch.eye(*shape, dtype=torch_dtype(dtype))

    def get_config(self) -> dict[str, Any]:
        """Return the gain where it is not 1 (Keras writes no configuration here)."""
        return {} if self.gain == 1.0 else {"gain": self.gain}
