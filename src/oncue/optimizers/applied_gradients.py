"""An optimizer step by gradients that are given rather than left in `.grad` by a backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from oncue.optimizers.built_parameters import tensor_of

if TYPE_CHECKING:
    from oncue.optimizers.optimizer import Optimizer


def apply_gradients(optimizer: Optimizer, gradients: list[Any], variables: list[Any] | None) -> None:
    """Step once by given gradients; each parameter's own `.grad` is put back afterwards.

    Args:
        optimizer: The optimizer; built for `variables` if it is not built yet.
        gradients: Tensors, arrays or None, one for each variable. An empty list does nothing.
        variables: The variables; None for those the optimizer was built for.

    Raises:
        ValueError: When there are no variables, lengths or shapes differ, or a variable is a stranger.

    Example:
        >>> from oncue.optimizers import SGD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> apply_gradients(SGD(0.5), [torch.tensor([1.0])], [weight])
        >>> weight.data
        tensor([0.5000])
    """
    if not gradients:
        return
    if variables is not None:
        if not optimizer.built:
            optimizer.build(variables)
        targets = [tensor_of(variable) for variable in variables]
    elif optimizer.built:
        targets = list(optimizer._parameters)
    else:
        raise ValueError(
            "`apply(grads)` without variables needs an optimizer that is built. Call `build(variables)` first, or "
            "`apply(grads, variables)`."
        )
    if len(gradients) != len(targets):
        raise ValueError(f"`grads` must have one gradient for each variable; got {len(gradients)} for {len(targets)}.")
    known = {id(parameter) for parameter in optimizer._parameters}
    for target in targets:
        if id(target) not in known:
            raise ValueError(
                f"Unknown variable of shape {tuple(target.shape)}: the optimizer was built for others. Make a new "
                "optimizer for a new set of variables."
            )
    given: dict[int, torch.Tensor] = {}
    for target, gradient in zip(targets, gradients, strict=True):
        if gradient is not None:
            tensor = torch.as_tensor(gradient, dtype=target.dtype, device=target.device).detach()
            if tensor.shape != target.shape:
                raise ValueError(
                    f"`grads` has a gradient of shape {tuple(tensor.shape)} for a variable of shape "
                    f"{tuple(target.shape)}."
                )
            # Clipping and unscaling work in place, on a copy so that the caller's tensors stay as they are.
            given[id(target)] = tensor if optimizer._plain else tensor.clone()
    asked = {id(target) for target in targets}
    before = [parameter.grad for parameter in optimizer._parameters]
    try:
        for parameter in optimizer._parameters:
            parameter.grad = given.get(id(parameter))
        lacking = [p for p in optimizer._parameters if p.grad is None]
        if not given or any(id(p) in asked for p in lacking):
            optimizer._report_missing([p for p in lacking if not given or id(p) in asked])
        optimizer._advance(lacking)
    finally:
        for parameter, gradient in zip(optimizer._parameters, before, strict=True):
            parameter.grad = gradient
