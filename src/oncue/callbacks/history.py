"""History: the logs of every epoch, returned by `fit`, and the account of the run."""

from __future__ import annotations

import os
import time
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.account import Ending, explain
from oncue.core.builtin import builtin
from oncue.core.journal import Journal
from oncue.core.preempted import Preempted
from oncue.core.protocols import averages_weights, step_account_of, was_stopped


@builtin
class History(Callback):
    """Keeps the logs of every epoch. `fit` adds one to every run and returns it; it is `model.history` too.

    Attributes:
        history: From each name to the list of its values, one for each epoch that had it.
        logged_in: From each name to the epochs that had it.
        epoch: The indices of the epochs.
        journal: What callbacks decided in the run, when and why.
        costs: The seconds that each callback took in each hook.

    Example:
        >>> history = History()
        >>> history.on_train_begin()
        >>> history.on_epoch_end(0, {"loss": 0.5})
        >>> history.history, history.epoch
        ({'loss': [0.5]}, [0])
    """

    makes_way = True
    state_fields = ("history", "logged_in", "epoch")

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.logged_in: dict[str, list[int]] = {}
        self.epoch: list[int] = []
        self._ending = Ending()
        self._began = time.perf_counter()
        self._seconds: float | None = None
        self._steps = ""
        # What a copy that belongs to no run reports.
        self._journal = Journal()
        self._costs: dict[str, dict[str, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_journal": self.journal, "_costs": self.costs}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self.history = {}
        self.logged_in = {}
        self.epoch = []
        self._ending = Ending()
        self._began = time.perf_counter()
        self._seconds = None
        self._steps = ""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the epoch's logs."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self.logged_in.setdefault(name, []).append(epoch)
        if self.model is not None:
            self.model.history = self

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Note that the run finished, or was asked to stop."""
        self._ending = Ending(
            "asked" if was_stopped(self.model) else "finished",
            planned=(self.params or {}).get("epochs"),
            averaged=averages_weights(self.model),
        )

    def on_exception(self, exception: BaseException) -> None:
        """Note what ended the run."""
        cause = exception.__cause__ if isinstance(exception, SystemExit) else exception
        if isinstance(cause, Preempted):
            how, text = "preempted", str(cause)
        else:
            how, text = "interrupted" if isinstance(exception, KeyboardInterrupt) else "failed", str(exception)
        error = type(exception).__name__ + (f": {text}" if text else "") if how == "failed" else text
        self._ending = Ending(how, error, epoch=None if self._run is None else self._run.progress.epoch)

    def close(self) -> None:
        """Stop the clock, and note how the steps ran."""
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._began
            self._steps = step_account_of(self.model)

    @property
    def journal(self) -> Journal:
        """What callbacks decided in the run: a list of entries, which prints readably."""
        return self._journal if self._run is None else self._run.journal

    @property
    def costs(self) -> dict[str, dict[str, float]]:
        """The seconds that each callback took in each hook, the most expensive callback first."""
        return self._costs if self._run is None else self._run.costs()

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return time.perf_counter() - self._began if self._seconds is None else self._seconds

    def explain(self) -> str:
        """Return an account of the run: why it stopped, which epoch is in the model, what was decided and what it cost.

        Example:
            >>> print(History().explain().splitlines()[1])
            It is still running.
        """
        journal = self.journal
        return explain(
            self.epoch,
            self.history,
            journal,
            self.costs,
            self._ending,
            self.seconds,
            dropped=journal.dropped,
            steps=self._steps,
        )

    def plot(self, filename: str | os.PathLike[str] | None = None, title: str | None = None) -> Any:
        """Draw the curves of the run, training beside validation, with what was decided as marked lines.

        Args:
            filename: Where to write the picture; its ending chooses the format. Not written when None.
            title: A title.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: Without matplotlib, with the name of the extra that brings it.
            ValueError: When no epoch was logged.
        """
        from oncue.plots import aligned, events_of, plot

        epochs = [epoch + 1 for epoch in self.epoch]
        logged_in = {name: [epoch + 1 for epoch in found] for name, found in self.logged_in.items()}
        figure = plot(epochs, aligned(epochs, self.history, logged_in), events_of(list(self.journal)), title)
        if filename is not None:
            figure.savefig(filename)
        return figure

    def __repr__(self) -> str:
        names = ", ".join(self.history) or "nothing yet"
        return f"<History of {len(self.epoch)} epochs: {names}>"
