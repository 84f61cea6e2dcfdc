"""LossScale: the factor that keeps small gradients of float16 from becoming 0, and how it moves."""

# Why not `torch.amp.GradScaler`, whose two kernels do the arithmetic here: it tells whether a step was skipped only by
# `get_scale()` before and after it, for which the host waits for the device, and Keras's count of updates needs that at
# every step; it keeps the count of finite steps, which Keras's files have, to itself; it refuses gradients of float16,
# which layers of the policy "float16" have. Its part of a step with eight weights of 64 by 64 takes 3.4 times as long
# on one core (`python benchmarks/own_code.py scaling`).

from __future__ import annotations

import torch
from torch import Tensor

from oncue.torch_private import loss_scaling

_KERNELS, _OPERATIONS = loss_scaling(), loss_scaling(fused=False)


class LossScale:
    """A factor that is halved when a gradient is not finite, and doubled after `growth_steps` steps without one.

    Its numbers are on the device of the gradients and are never read here. The arithmetic is that of Keras's
    `LossScaleOptimizer`, and of torch's `GradScaler` with a first scale of its own.

    Args:
        scale: The first factor.
        growth_steps: After how many finite steps in a row it doubles.
        device: Where the gradients are.

    Attributes:
        scale: The factor, a float32 tensor.
        growth: The finite steps since it changed, an int32 tensor.

    Example:
        >>> scale = LossScale(8.0, 2000, torch.device("cpu"))
        >>> found = scale.unscale([torch.tensor([16.0, float("inf")])])
        >>> scale.update(found)
        >>> found, scale.scale
        (tensor(1.), tensor(4.))
    """

    def __init__(self, scale: float, growth_steps: int, device: torch.device) -> None:
        self.scale = torch.full((), scale, dtype=torch.float32, device=device)
        self.growth = torch.zeros((), dtype=torch.int32, device=device)
        self.growth_steps = growth_steps

    def unscale(self, gradients: list[Tensor], in_graph: bool = False) -> Tensor:
        """Divide gradients by the factor, in place.

        Args:
            gradients: Gradients of the scaled loss.
            in_graph: Whether a compiler is to fuse it with what surrounds it.

        Returns:
            1.0 when one of them is not finite, else 0.0, as a tensor on their device.
        """
        found = torch.zeros((), dtype=torch.float32, device=self.scale.device)
        inverse = self.scale.double().reciprocal().float()
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for gradient in gradients:
            by_type.setdefault(gradient.dtype, []).append(gradient)
        for alike in by_type.values():
            (_OPERATIONS if in_graph else _KERNELS)[0](alike, found, inverse)
        return found

    def update(self, found: Tensor, growth_steps: Tensor | None = None) -> None:
        """Move the factor as what `unscale` found demands.

        Args:
            found: What `unscale` returned.
            growth_steps: In a graph, where to read after how many finite steps the factor doubles; else None.
        """
        if growth_steps is None:
            _KERNELS[1](self.scale, self.growth, found, 2.0, 0.5, self.growth_steps)
        else:
            _OPERATIONS[1](self.scale, self.growth, found, 2.0, 0.5, growth_steps)
