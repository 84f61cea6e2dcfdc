"""Operation: arithmetic between the symbolic tensors of a functional model, as a step of the model."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from oncue import naming
from oncue.core.builtin import builtin
from oncue.core.suggest import unknown
from oncue.layers.layer import Layer
from oncue.legacy import backend_function

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Absolute": operator.abs,
    "Add": operator.add,
    "FloorDivide": operator.floordiv,
    "GetItem": operator.getitem,
    "Greater": operator.gt,
    "GreaterEqual": operator.ge,
    "Less": operator.lt,
    "LessEqual": operator.le,
    "LogicalAnd": operator.and_,
    "LogicalNot": operator.invert,
    "LogicalOr": operator.or_,
    "LogicalXor": operator.xor,
    "Matmul": operator.matmul,
    "Mod": operator.mod,
    "Multiply": operator.mul,
    "Negative": operator.neg,
    "NotEqual": operator.ne,
    "Power": operator.pow,
    "Subtract": operator.sub,
    "TrueDivide": operator.truediv,
}


def is_known(kind: str) -> bool:
    """Return whether an operation of Keras's name is one of oncue's own.

    Example:
        >>> is_known("Add"), is_known("Mean")
        (True, False)
    """
    return kind in _FUNCTIONS


@builtin
class Operation(Layer):
    """A step without weights, such as the sum in `x + y`; it is shown by `summary` but is none of `model.layers`.

    Args:
        kind: Which, by Keras's name: "Add", "GetItem".
        name: A name; made from the kind by default.

    Raises:
        ValueError: For an unknown kind.

    Example:
        >>> Operation("Add")(torch.ones(2), 1)
        tensor([2., 2.])
    """

    # Its arguments may be numbers, of which no shape can be told.
    _has_begun = True

    def __init__(self, kind: str, name: str | None = None) -> None:
        old = kind.removeprefix("backend.")
        function = _FUNCTIONS.get(kind) if old == kind else backend_function(old)
        if function is None:
            raise unknown("operation", kind, _FUNCTIONS)
        super().__init__(name=naming.auto_name(naming.to_snake_case(old)) if name is None else name)
        self.kind = kind
        # As in Keras it computes in whatever types it is given.
        self.autocast = False
        self.built = True
        self._function = function

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result."""
        if any(isinstance(arg, np.ndarray) for arg in args):
            like = next(arg for arg in args if isinstance(arg, torch.Tensor))
            args = tuple(
                torch.as_tensor(arg, device=like.device) if isinstance(arg, np.ndarray) else arg for arg in args
            )
        return self._function(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of tensors, or note the step for symbolic ones."""
        if any(isinstance(arg, torch.Tensor) for arg in args):
            kwargs.pop("training", None)
            return self.call(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def again(self) -> Operation:
        """Return a new operation of the same kind and name."""
        return Operation(self.kind, self.name)

    def written(self) -> dict[str, Any]:
        """Return the configuration that Keras writes for it."""
        module = "keras.src.ops.numpy"
        return {"module": module, "class_name": self.kind, "config": {"name": self.name}, "registered_name": self.kind}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this operation."""
        return {"kind": self.kind, "name": self.name}
