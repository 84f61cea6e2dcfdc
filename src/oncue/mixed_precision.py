"""Keras's `mixed_precision`: 16-bit computations with 32-bit weights, chosen for all layers at once.

Example:
    >>> import oncue
    >>> oncue.mixed_precision.set_global_policy("mixed_bfloat16")
    >>> oncue.layers.Dense(3).compute_dtype
    'bfloat16'
    >>> oncue.mixed_precision.set_global_policy("float32")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncue.dtype_policies import DTypePolicy, dtype_policy, set_dtype_policy
from oncue.keras_names import elsewhere

if TYPE_CHECKING:
    from oncue.optimizers.loss_scale_optimizer import LossScaleOptimizer as LossScaleOptimizer

Policy = DTypePolicy
global_policy = dtype_policy
set_global_policy = set_dtype_policy
set_policy = set_dtype_policy

__all__ = [
    "DTypePolicy",
    "LossScaleOptimizer",
    "Policy",
    "dtype_policy",
    "global_policy",
    "set_dtype_policy",
    "set_global_policy",
    "set_policy",
]


def __getattr__(name: str) -> Any:
    if name == "LossScaleOptimizer":
        from oncue.optimizers.loss_scale_optimizer import LossScaleOptimizer

        return LossScaleOptimizer
    return elsewhere("oncue.mixed_precision", name)
