"""StateVariable: one of an optimizer's numbers or slots, as Keras shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oncue.variable import Variable


class StateVariable(Variable):
    """One of an optimizer's `variables`: its count, its rate, a moving average, or the slot of a parameter.

    A slot shows the tensor that the optimizer uses. A number is a copy, and is written back when it is assigned.

    Args:
        tensor: The tensor.
        path: The optimizer's name and the variable's.
        write: Sets the optimizer's number; None where the tensor is its own.

    Example:
        >>> from oncue.optimizers import SGD
        >>> optimizer = SGD(0.5, name="sgd")
        >>> rate = optimizer.variables[1]
        >>> rate.path, float(rate.assign(0.25)), optimizer.learning_rate
        ('sgd/learning_rate', 0.25, 0.25)
    """

    def __init__(self, tensor: torch.Tensor, path: str, write: Callable[[torch.Tensor], None] | None = None) -> None:
        holder = torch.nn.Module()
        holder.register_buffer("value", tensor)
        self._show(holder, "value", None, path.rpartition("/")[2], path)
        self._write = write

    def assign(self, value: Any) -> torch.Tensor:
        """Set the value, in the optimizer too; see `Variable.assign`."""
        shown = super().assign(value)
        if self._write is not None:
            self._write(self.value)
        return shown

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as the value and its path, without the optimizer behind it."""
        return StateVariable, (self.value.detach().clone(), self.path)
