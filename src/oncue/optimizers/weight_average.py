"""The exponential moving average of a model's weights (`use_ema`)."""

from __future__ import annotations

import torch
from torch import Tensor

from oncue.optimizers.foreach import lerp_
from oncue.shards import parts_of


class WeightAverage:
    """Averages parameters over updates: `average = momentum * average + (1 - momentum) * parameter`.

    The first update copies the parameters, as in Keras (`use_ema`).

    Args:
        parameters: The parameters to average.
        momentum: The share of the old average that is kept, in [0, 1].
        overwrite_frequency: Put the average in place of the parameters every that many updates; None for never.

    Example:
        >>> parameter = torch.nn.Parameter(torch.tensor([1.0]))
        >>> average = WeightAverage([parameter], momentum=0.5, overwrite_frequency=None)
        >>> average.update(0)
        >>> parameter.data.fill_(3.0)
        tensor([3.])
        >>> average.update(1)
        >>> average.values
        [tensor([2.])]
    """

    def __init__(self, parameters: list[Tensor], momentum: float, overwrite_frequency: int | None) -> None:
        self.values = [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters]
        self.parameters = parameters
        self.momentum = momentum
        self.overwrite_frequency = overwrite_frequency
        # Whether `values` has the trained parameters for now, and the parameters have the average.
        self.swapped = False

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take the parameters in after the update number `iteration`, counted from 0."""
        values, parameters = self._moving()
        if values:
            lerp_(values, parameters, self.share(iteration))
        if self.overwrites(iteration):
            self.overwrite()

    def share(self, iteration: int) -> float:
        """Return how far the average moves towards the parameters after the update number `iteration`, counted from 0."""
        return 1.0 if iteration == 0 else 1.0 - self.momentum

    def overwrites(self, iteration: int) -> bool:
        """Return whether the average takes the place of the parameters after the update number `iteration`."""
        return self.overwrite_frequency is not None and (iteration + 1) % self.overwrite_frequency == 0

    def _moving(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the averages and the parameters that are not frozen; of those that are sharded, this process's parts."""
        pairs = [pair for pair in zip(self.values, self.parameters, strict=True) if pair[1].requires_grad]
        return parts_of([value for value, _ in pairs]), parts_of([parameter for _, parameter in pairs])

    @torch.no_grad()
    def overwrite(self) -> None:
        """Put the average in place of the parameters; those that are frozen stay."""
        if self.swapped:
            torch._foreach_copy_(parts_of(self.values), parts_of(self.parameters))
            self.swapped = False
        else:
            values, parameters = self._moving()
            if values:
                torch._foreach_copy_(parameters, values)

    @torch.no_grad()
    def swap(self) -> None:
        """Swap the average and the parameters in place, so that all references to the tensors see it."""
        for parameter, value in zip(parts_of(self.parameters), parts_of(self.values), strict=True):
            trained = parameter.clone()
            parameter.copy_(value)
            value.copy_(trained)
        self.swapped = not self.swapped
