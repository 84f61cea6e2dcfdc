"""GradientSum: the gradients of all processes, summed in few messages, with what processes ask of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oncue.distribution.group import Group


class GradientSum:
    """Sums the gradients of parameters over processes, each as one flat tensor of its type.

    Afterwards each `.grad` is a part of that tensor, so that nothing is copied back. A parameter that got no gradient on any
    process has none afterwards; one that got it on some has their sum.

    torch's `DistributedDataParallel` isn't used: it takes means where one process wouldn't (sums, masks, weights, fewer rows
    at the end), wants a forward pass through itself, which a `train_step` of the user's doesn't make, and has no place for
    what processes ask of each other.

    Args:
        parameters: The parameters.
        extra: How many numbers ride along.
        group: The processes.
    """

    def __init__(self, parameters: Sequence[Tensor], extra: int, group: Group) -> None:
        self._parameters, self._group, self._extra = list(parameters), group, extra
        self._flats: list[Tensor] = []
        self._views: list[Tensor] = []
        kinds = list(dict.fromkeys((p.dtype, p.device) for p in self._parameters))
        views: dict[int, Tensor] = {}
        for number, (dtype, device) in enumerate(kinds):
            mine = [p for p in self._parameters if (p.dtype, p.device) == (dtype, device)]
            # What rides along follows the gradients of the first type: the numbers, the divisor, and how many are missing.
            length = sum(p.numel() for p in mine) + (extra + 2 if number == 0 else 0)
            flat = torch.zeros(length, dtype=dtype, device=device)
            place = 0
            for parameter in mine:
                view = flat[place : place + parameter.numel()]
                # As the parameter lies in memory: the kernels of some optimizers go by that.
                views[id(parameter)] = torch.as_strided(
                    view, parameter.shape, _dense_strides(parameter), view.storage_offset()
                )
                place += parameter.numel()
            self._flats.append(flat)
        self._views = [views[id(p)] for p in self._parameters]
        self._tail = self._flats[0][-(extra + 2) :] if self._flats else torch.zeros(extra + 2)
        on_host = self._tail.device.type == "cpu" and self._tail.dtype in (torch.float32, torch.float64)
        # A write through NumPy's view costs a tenth of one through torch.
        self._written = self._tail.numpy() if on_host else None

    def suits(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether it was made for these parameters, as they are."""
        mine = self._parameters
        return len(parameters) == len(mine) and all(
            a is b and a.dtype == v.dtype and a.device == v.device
            for a, b, v in zip(parameters, mine, self._views, strict=True)
        )

    @torch.no_grad()
    def __call__(
        self, numbers: Sequence[float], scale: float = 1.0, divisor: Tensor | None = None
    ) -> tuple[list[float], float]:
        """Sum the gradients, in place of each `.grad`.

        Args:
            numbers: The numbers of this process that ride along.
            scale: What its gradients are multiplied with before.
            divisor: This process's part of what the sums are divided by; None for nothing.

        Returns:
            The sums of the numbers, and of the divisors.
        """
        gradients = [parameter.grad for parameter in self._parameters]
        # Not by `count`, which would compare each tensor with None by torch's `==`.
        missing = sum([gradient is None for gradient in gradients])
        views, given = self._views, gradients
        if missing:
            pairs = list(zip(views, gradients, strict=True))
            torch._foreach_zero_([view for view, gradient in pairs if gradient is None])
            views = [view for view, gradient in pairs if gradient is not None]
            given = [gradient for gradient in gradients if gradient is not None]
        if given:
            torch._foreach_copy_(views, [_dense(gradient) for gradient in given if gradient is not None])
            if scale != 1.0:
                torch._foreach_mul_(views, scale)
        self._write([*numbers, 0.0, float(missing)], divisor)
        for flat in self._flats:
            self._group.sum_(flat)
        if not self._flats:
            self._group.sum_(self._tail)
        *sums, divided, lacking = self._group.read(self._tail)
        if divisor is not None and divided:
            for flat in self._flats:
                flat.div_(divided)
        if lacking:
            # Rare: a layer that some batch doesn't use. All processes know that some gradient is missing somewhere.
            have = torch.tensor([gradient is not None for gradient in gradients], dtype=torch.float32)
            gets = self._group.sum_(have).bool().tolist()
            for parameter, view, one in zip(self._parameters, self._views, gets, strict=True):
                parameter.grad = view if one else None
        else:
            for parameter, view in zip(self._parameters, self._views, strict=True):
                parameter.grad = view
        return sums, divided

    def _write(self, numbers: list[float], divisor: Tensor | None) -> None:
        if self._written is not None:
            self._written[:] = numbers
        else:
            self._tail.copy_(torch.tensor(numbers))
        if divisor is not None:
            self._tail[-2:-1].copy_(divisor.reshape(1))


def _dense(gradient: Tensor) -> Tensor:
    return gradient.to_dense() if gradient.is_sparse else gradient


def _dense_strides(tensor: Tensor) -> tuple[int, ...]:
    """Return strides in the order of the tensor's own, without gaps."""
    order = sorted(range(tensor.ndim), key=lambda axis: (tensor.stride(axis), -axis))
    strides, step = [0] * tensor.ndim, 1
    for axis in order:
        strides[axis] = step
        step *= tensor.shape[axis]
    return tuple(strides)
