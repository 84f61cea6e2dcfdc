"""Finder: a test that a run begins with, and that is taken back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from oncue.callbacks.callback import Callback
from oncue.core.protocols import TellsState

if TYPE_CHECKING:
    from oncue.checkpoints.training_state import FrozenState


class Finder(Callback):
    """Keeps the state that a run begins with until its test is over; the base of callbacks that test something.

    Attributes:
        tested: Whether the run has had its test.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tested = False
        self._good: FrozenState | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no state of a run to go back to.
        return {**super().__getstate__(), "_good": None}

    def keep_state(self) -> None:
        """Take the state that the run begins with; the loop calls it before the first epoch, and after each."""
        if not self.tested and self._good is None:
            from oncue.checkpoints.snapshot import Snapshot

            self._good = self._needed_state().capture(returns=True).freeze(Snapshot())

    def end_trial(self) -> None:
        """End a test that the epoch was too short for, or that something else has stopped; the loop calls it then."""

    def on_exception(self, exception: BaseException) -> None:
        """Forget the state to go back to."""
        self.close()

    def close(self) -> None:
        """Forget the state to go back to."""
        self._good = None
        self._put_trial(False)

    def plot(self, filename: str | os.PathLike[str] | None = None) -> Any:
        """Draw what was tested, with the suggestion.

        Args:
            filename: Where to write the picture; its ending chooses the format. Not written when None.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: Without matplotlib, with the name of the extra that brings it.
            ValueError: Before the test.
        """
        figure = self._drawn()
        if figure is None:
            raise ValueError(f"{type(self).__name__} has tested nothing yet: call `fit` with it.")
        if filename is not None:
            figure.savefig(filename)
        return figure

    def _drawn(self) -> Any:
        """Return the figure; None before the test."""
        raise NotImplementedError

    def _needed_state(self) -> TellsState:
        """Return what takes and restores the state of the run, or refuse a loop that can't."""
        raise NotImplementedError

    def _put_trial(self, trial: bool) -> None:
        if self._run is not None:
            self._run.progress.trial = trial
