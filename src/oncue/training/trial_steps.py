"""TrialSteps: training steps of a run with batches of any size, to find out what fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from oncue.callbacks import CallbackList
from oncue.feeding.batch import Batch, Batches
from oncue.layers.modes import switch_on
from oncue.nested import map_leaves
from oncue.training.memory import is_out_of_memory, release
from oncue.training.steps import Steps

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer


class TrialSteps:
    """Trains as the run does, with batches that are made by repeating the rows of one; who asks for it takes that back.

    Args:
        model: A prepared model.
        callbacks: The list of the run.
        batches: Its data.
    """

    def __init__(self, model: Trainer, callbacks: CallbackList, batches: Batches) -> None:
        self._model, self._callbacks, self._batches = model, callbacks, batches
        self._first = batches.first()

    @property
    def most(self) -> int | None:
        """How many rows the data have; None when that isn't known."""
        return self._batches.num_samples

    def train(self, rows: int, times: int, clock: Callable[[], float]) -> list[float] | None:
        """Train some steps, and wait after each until the device has done it.

        Args:
            rows: How many rows the batch has.
            times: How many steps.
            clock: Returns seconds.

        Returns:
            The seconds of each; None when there was no memory for one.
        """
        found: list[float] = []
        fits = True
        try:
            self._train(rows, times, clock, found)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release(error, self._model)
            fits = False
        # What steps of one size keep.
        self._model._plan.graphs.drop("train")
        return found if fits else None

    def _train(self, rows: int, times: int, clock: Callable[[], float], found: list[float]) -> None:
        model = self._model
        with Steps(model, "train", self._callbacks, self._batches) as steps, torch.enable_grad():
            batch = repeated(self._first, rows)
            step = steps.make(batch, 0)
            switch_on(model)
            for _ in range(times):
                before = clock()
                step(batch).read()
                found.append(clock() - before)


def repeated(batch: Batch, rows: int) -> Batch:
    """Return a batch of so many rows, which are those of another, again and again.

    Args:
        batch: `(x, y, sample_weight)`.
        rows: How many.

    Example:
        >>> repeated((torch.tensor([[1], [2]]), torch.tensor([3, 4]), None), 3)
        (tensor([[1],
                [2],
                [1]]), tensor([3, 4, 3]), None)
    """

    def longer(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.ndim:
            return leaf
        return leaf[torch.arange(rows, device=leaf.device) % len(leaf)]

    x, y, weight = (None if part is None else map_leaves(longer, part) for part in batch)
    return x, y, weight
