"""Initializer: the initial values of a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch

from oncue.core.builtin import builtin


@builtin
class Initializer:
    """What gives a new weight its values. Subclass it and define `__call__(shape, dtype)` for one of your own.

    Example:
        >>> class Sevens(Initializer):
        ...     def __call__(self, shape, dtype=None):
        ...         return torch.full(shape, 7.0)
        >>> Sevens()((2,))
        tensor([7., 7.])
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Return a tensor of a shape (in Keras's order of axes) and a type (`floatx()` by default)."""
        raise NotImplementedError(f"{type(self).__name__} must define `__call__(self, shape, dtype=None)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this initializer."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make an initializer from what `get_config` returned."""
        return cls(**config)

    def clone(self) -> Self:
        """Return another initializer with the same arguments."""
        return type(self).from_config(self.get_config())
