"""Epochs of a fixed number of steps over a source whose passes are longer, shorter, or endless."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from oncue.core.warn import warn
from oncue.feeding.batch import Batch, Batches, BatchesOver


class StepBatches(BatchesOver):
    """Epochs of `steps` batches, as `steps_per_epoch` asks for.

    An epoch continues where the last one stopped. When a pass ends within an epoch, a new pass begins. (Keras 3 ends the epoch
    early then.)

    Where epochs are measured and compared, as in validation, each begins a pass instead: there is none within it, and when the
    pass has fewer batches than there are steps, the epoch ends early with a warning. A source that can't begin again, such as
    a generator, continues in any case.

    Args:
        batches: The source.
        steps: Batches per epoch.
        continues: Whether an epoch continues where the last one stopped.

    Example:
        >>> from oncue.feeding.arrays import ArrayBatches
        >>> epochs = StepBatches(ArrayBatches([0, 1, 2], batch_size=1, device="cpu"), steps=2)
        >>> [x.item() for x, _, _ in epochs.epoch()], [x.item() for x, _, _ in epochs.epoch()]
        ([0, 1], [2, 0])
        >>> epochs = StepBatches(ArrayBatches([0, 1, 2], batch_size=1, device="cpu"), steps=2, continues=False)
        >>> [x.item() for x, _, _ in epochs.epoch()], [x.item() for x, _, _ in epochs.epoch()]
        ([0, 1], [0, 1])
    """

    def __init__(self, batches: Batches, steps: int, continues: bool = True) -> None:
        """See the class."""
        super().__init__(batches)
        self.num_batches = steps
        self._steps = steps
        self._continues = continues or not batches.restartable
        self._pass: Iterator[Batch] | None = None
        self._taken = 0

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return up to `steps - start` batches."""
        if start >= self._steps:
            # The epoch was over when the state was saved, but perhaps for the hook of the source.
            self.batches.epoch_ends()
            return
        if not self._continues:
            yield from self._pass_from_its_beginning()
            return
        self.batches.epoch_begins()
        began_here = self._pass is None and start == 0 and self._taken == 0
        if self._pass is None:
            # Without a loaded position, the epoch is taken to have begun at the first batch of a pass.
            self._taken = self._taken or start
            self._pass = self.batches.one_pass(self._taken)
        step = begun = start
        while step < self._steps:
            batch = next(self._pass, None)
            if batch is not None:
                self._taken += 1
                step += 1
                yield batch
                continue
            nothing_new = began_here and step == begun
            if nothing_new or not self.batches.restartable:
                self._warn(step)
                self._pass, self._taken = None, 0
                break
            began_here, begun = True, step
            self._pass, self._taken = self.batches.one_pass(), 0
        if self._pass is not None and self._taken == self.batches.num_batches:
            # Exhaust the source's iterator, so that its saved position says that the pass is over.
            next(self._pass, None)
            self._pass, self._taken = None, 0
        self.batches.epoch_ends()

    def _pass_from_its_beginning(self) -> Iterator[Batch]:
        self.batches.epoch_begins()
        one_pass = self.batches.one_pass()
        step, ended = 0, False
        try:
            for batch in islice(one_pass, self._steps):
                step += 1
                yield batch
            if step == self.batches.num_batches:
                # Exhaust the source's iterator, as below.
                next(one_pass, None)
            ended = step < self._steps or step == self.batches.num_batches
            if step < self._steps:
                self._warn(step)
        finally:
            if not ended:
                # Also when the run was told to stop measuring.
                del one_pass
                self.batches.give_up()
        self.batches.epoch_ends()

    def _warn(self, step: int) -> None:
        warn(
            f"Your input ran out of data after {step} of {self._steps} steps, so the epoch ends here. Make sure that it can "
            "give as many batches as there are steps in all epochs, or don't set the number of steps."
        )

    def give_up(self) -> None:
        """Have the source take its pass for over."""
        self._pass, self._taken = None, 0
        super().give_up()

    def state_dict(self) -> dict[str, Any]:
        """Return `taken`, the position in the current pass, and the state of the source."""
        return {"taken": self._taken, "batches": self.batches.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved position for the next `epoch(start)`."""
        if set(state) != {"taken", "batches"}:
            raise ValueError(f"The state of `StepBatches` has the keys ['batches', 'taken']; got {sorted(state)}.")
        self._pass, self._taken = None, 0
        self.batches.load_state_dict(state["batches"])
        self._taken = state["taken"]

    def close(self) -> None:
        """Close the source."""
        self._pass = None
        super().close()
