"""What a graph can't have of a step whose rows are on several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from oncue.feeding.batch import Batch
from oncue.layers.batch_normalization import masked_moments
from oncue.losses.reduction import Divisor
from oncue.training.graph.refusal import RefusalError

if TYPE_CHECKING:
    from oncue.training.plan import Plan

_NORMS = {F.batch_norm: 5, torch.native_batch_norm: 5, masked_moments: None}
"""Functions that normalize over the rows of a batch, and where the argument is that says whether they do."""


class SharedRows(TorchFunctionMode):
    """Refuses, in its block, a graph of a step that needs the rows of other processes before its gradients are there.

    Args:
        plan: The model's plan.
        kind: "train", "test" or "predict".
        batch: This process's rows of a batch.

    Raises:
        RefusalError: In the block, or on entering it.
    """

    def __init__(self, plan: Plan, kind: str, batch: Batch) -> None:
        super().__init__()
        self._plan, self._kind, self._batch = plan, kind, batch

    def __enter__(self) -> Self:
        losses, outputs = self._plan.losses, self._plan.outputs
        if self._kind != "predict" and losses is not None and outputs is not None and self._batch[1] is not None:
            divisors: list[Divisor] = []

            def note(divisor: Divisor) -> float:
                divisors.append(divisor)
                return 1.0

            _, y, weight = self._batch
            with torch.no_grad():
                losses.shared(y, self._plan.forward(self._batch[0]), weight, note)
            if any(not isinstance(divisor, str) or divisor != "rows" for divisor in divisors):
                raise RefusalError(
                    "its loss is divided by something else than the number of rows (masks, weights, a sum), which has to be "
                    "added up over the processes before the gradients"
                )
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _NORMS and self._kind == "train":
            place = _NORMS[func]
            training = kwargs.get("training", len(args) > place and args[place]) if place is not None else True
            if training:
                raise RefusalError("batch normalization takes the rows of all processes, which a graph can't wait for")
        return func(*args, **kwargs)
