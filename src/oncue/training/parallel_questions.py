"""Questions: what the processes of a run ask of each other, in numbers that ride along with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from oncue.core.ranks import ASKED

if TYPE_CHECKING:
    from oncue.distribution.group import Group
    from oncue.training.trainer import Trainer


class Questions:
    """What the processes of a run ask of each other: to stop, and what `oncue.core.ranks.ASKED` names.

    Args:
        model: The model, whose `stop_training` any process may set.
        group: The processes.
    """

    count = 1 + len(ASKED)
    """How many numbers they are."""

    def __init__(self, model: Trainer, group: Group) -> None:
        self._model, self._group = model, group
        self._stops = False

    def begin_epoch(self) -> None:
        """Forget what ended the epoch before."""
        self._stops, self._group.ending = False, False

    def numbers(self) -> list[float]:
        """Return what this process asks, to be summed over the processes and given to `answer`."""
        return [float(bool(self._model.stop_training)), *self._group.questions()]

    def answer(self, sums: Sequence[float], late: bool = False) -> None:
        """Take the sums of what all processes ask.

        Args:
            sums: The sums.
            late: Whether they are those of the step before.
        """
        if sums[0]:
            self._model.stop_training = True
        self._group.answer(sums[1:], late)
        self._stops = bool(sums[0])

    def ask_all(self) -> None:
        """Learn what any process asks for, in a message of its own."""
        self.answer(self._group.sum_numbers(self.numbers(), "the end of a step or an epoch"))

    def ends(self, kind: str) -> Callable[[], bool]:
        """Return the function that says after a batch whether the pass ends there, the same on all processes.

        Args:
            kind: "train", "test" or "predict".
        """
        model, flag = self._model, {"test": "stop_evaluating", "predict": "stop_predicting"}.get(kind)
        if flag is None:
            return lambda: self._stops or self._group.ending

        def ends() -> bool:
            asked, *answers = self._group.sum_numbers(
                [float(bool(getattr(model, flag))), *self.numbers()], f"a batch of `{kind}`"
            )
            self.answer(answers)
            if asked:
                setattr(model, flag, True)
            return bool(asked)

        return ends
