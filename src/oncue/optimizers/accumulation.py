"""Gradient accumulation that `compile` asks for, of an optimizer that is there already."""

from __future__ import annotations

from typing import Any

from oncue.core.numbers import whole_of
from oncue.core.protocols import inner_optimizer_of


def accumulate(optimizer: Any, steps: Any) -> None:
    """Let an optimizer update once every `steps` steps, with the mean of their gradients.

    Args:
        optimizer: The optimizer; of a `LossScaleOptimizer` the inner one is meant.
        steps: How many; 1 or None to leave the optimizer as it is.

    Raises:
        ValueError: When `steps` is no whole number of 1 or more, or the optimizer was made with another number.

    Example:
        >>> from oncue.optimizers import SGD
        >>> optimizer = SGD(0.5)
        >>> accumulate(optimizer, 4)
        >>> optimizer.gradient_accumulation_steps
        4
    """
    if steps is None:
        return
    given, steps = steps, whole_of(steps)
    if steps is None or steps < 1:
        raise ValueError(
            f"`gradient_accumulation_steps` must be a whole number of 1 or more, or None; got {given!r} of type "
            f"{type(given).__name__}."
        )
    if optimizer is None:
        raise ValueError(f"`gradient_accumulation_steps={steps}` needs an optimizer, and the model has none.")
    optimizer = inner_optimizer_of(optimizer)
    own = optimizer.gradient_accumulation_steps
    if own is not None:
        if own != steps:
            raise ValueError(
                f"`gradient_accumulation_steps` is {steps} in `compile`, and {own} in the optimizer "
                f"{type(optimizer).__name__}. Give it in one place."
            )
        return
    if steps == 1:
        return
    optimizer.gradient_accumulation_steps = steps
