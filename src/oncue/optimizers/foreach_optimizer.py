"""The base of the torch optimizers written here, where Keras's arithmetic is not that of `torch.optim`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from oncue.optimizers.foreach import Rule
from oncue.shards import is_sharded, parts_of


def can_fuse(parameters: list[Tensor]) -> bool:
    """Return whether torch's fused optimizers take these parameters.

    Args:
        parameters: The parameters.

    Returns:
        True when all are real floats of one type and on one device, the CPU or CUDA.

    Example:
        >>> can_fuse([torch.zeros(2)])
        True
    """
    alike = len({(p.device, p.dtype) for p in parameters}) <= 1
    return alike and all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


class ForeachOptimizer(torch.optim.Optimizer):
    """Updates all parameters together by a rule, in `torch._foreach_*` calls.

    Args:
        groups: Parameter groups, which have the numbers of the rule as hyper-parameters.
        defaults: Hyper-parameters of groups that don't say otherwise, `lr` among them.
        slots: The name of each per-parameter state and the number that fills it at first.
        rule: What changes parameters and slots in place; see `Rule`.

    Example:
        >>> def plain(parameters, gradients, slots, numbers):
        ...     torch._foreach_add_(parameters, gradients, alpha=-numbers["lr"])
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> weight.grad = torch.tensor([2.0])
        >>> ForeachOptimizer([{"params": [weight]}], {"lr": 0.25}, {}, plain).step()
        >>> weight.data
        tensor([0.5000])
    """

    def __init__(
        self, groups: list[dict[str, Any]], defaults: dict[str, Any], slots: Mapping[str, float], rule: Rule
    ) -> None:
        super().__init__(groups, defaults)
        self._rule = rule
        # Rules compute element by element, and so on the parts that this process has.
        self._sharded = any(is_sharded(parameter) for group in self.param_groups for parameter in group["params"])
        for group in self.param_groups:
            for parameter in group["params"]:
                # A full_like keeps the memory format, which lets the foreach kernels run as one.
                self.state[parameter] = {
                    name: torch.full_like(parameter, value, requires_grad=False) for name, value in slots.items()
                }

    def __getstate__(self) -> dict[str, Any]:
        # torch's has its own attributes only.
        return {**super().__getstate__(), "_rule": self._rule, "_sharded": self._sharded}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no optimizer here takes a closure
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                states = [self.state[p] for p in parameters]
                slots = {name: [state[name] for state in states] for name in states[0]}
                gradients = [p.grad for p in parameters if p.grad is not None]
                if self._sharded:
                    parameters, gradients = parts_of(parameters), parts_of(gradients)
                    slots = {name: parts_of(slot) for name, slot in slots.items()}
                self._rule(parameters, gradients, slots, group)
