"""History: the logs of every epoch, returned by `fit`, and the account of the run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from copy import copy
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.account import Ending, explain
from oncue.core.builtin import builtin
from oncue.core.console import wrapped
from oncue.core.costs import added
from oncue.core.growing import Growing
from oncue.core.journal import Journal
from oncue.core.logs import ByLogName
from oncue.core.protocols import averages_weights, step_account_of, was_stopped


@builtin
class History(Callback):
    """Keeps the logs of every epoch. `fit` adds one to every run and returns it; it is `model.history` too.

    Attributes:
        history: From each name to the list of its values, one for each epoch that had it.
        logged_in: From each name to the epochs that had it.
        epoch: The indices of the epochs.
        validations: What each validation amid an epoch has measured, with `validation_freq="500 steps"`: dicts with `epoch`,
            `batch` and the values. The values of an epoch are those of its last one.
        journal: What callbacks decided in the run, when and why.
        costs: The seconds that each callback took in each hook; of a run that was resumed, in all its parts.

    Names of older versions of Keras find the values of today's (`history["acc"]` those of `accuracy`), without being among the
    keys.

    Example:
        >>> history = History()
        >>> history.on_train_begin()
        >>> history.on_epoch_end(0, {"loss": 0.5})
        >>> history.history, history.epoch
        ({'loss': [0.5]}, [0])
    """

    makes_way = True
    state_fields = ("history", "logged_in", "epoch")
    later_fields = ("validations",)

    def __init__(self) -> None:
        super().__init__()
        self._reset()
        # What a copy that belongs to no run reports.
        self._journal = Journal()
        self._costs: dict[str, dict[str, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        own = {"_journal": copy(self.journal), "_costs": self.costs, "_seconds": self.seconds}
        return {**super().__getstate__(), **own}

    def _reset(self) -> None:
        self.history: dict[str, list[Any]] = ByLogName()
        self.logged_in: dict[str, list[int]] = ByLogName()
        self.epoch: list[int] = Growing()
        self.validations: list[dict[str, Any]] = Growing()
        self._ending = Ending()
        self._steps = ""
        self._began = time.perf_counter()
        self._seconds: float | None = None
        # The seconds and the costs of the parts of a run before it was resumed.
        self._earlier: tuple[float, dict[str, dict[str, float]]] = 0.0, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the fields' values, and how long it took to get there."""
        return {**super().state_dict(), "seconds": self.seconds, "costs": self.costs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; the time, too, unless the run that takes it over has begun before."""
        fields = dict(state)
        # Older states have neither.
        earlier = fields.pop("seconds", 0.0), fields.pop("costs", {})
        super().load_state_dict(fields)
        self.epoch = Growing(self.epoch)
        self.validations = Growing(self.validations)
        self.history = ByLogName({name: Growing(values) for name, values in self.history.items()})
        self.logged_in = ByLogName({name: Growing(epochs) for name, epochs in self.logged_in.items()})
        if self._run is not None and self._run.progress.epoch is None:
            # Going back to an earlier state of the same run doesn't turn back the clock.
            self._earlier = earlier

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the epoch's logs."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, Growing()).append(value)
            self.logged_in.setdefault(name, Growing()).append(epoch)
        if self.model is not None:
            self.model.history = self

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep what a validation amid an epoch has measured."""
        epoch = 0 if self._run is None else self._run.progress.epoch or 0
        values = {name: value for name, value in (logs or {}).items() if name.startswith("val_")}
        self.validations.append({"epoch": epoch, "batch": batch, **values})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Note that the run finished, or was asked to stop."""
        self._seconds = time.perf_counter() - self._began
        self._ending = Ending(
            "asked" if was_stopped(self.model) else "finished",
            planned=(self.params or {}).get("epochs"),
            averaged=averages_weights(self.model),
        )

    def on_exception(self, exception: BaseException) -> None:
        """Note what ended the run."""
        self._ending = Ending.of(exception, None if self._run is None else self._run.progress.epoch)

    def close(self) -> None:
        """Note how the steps ran."""
        self._steps = step_account_of(self.model)

    @property
    def journal(self) -> Journal:
        """What callbacks decided in the run: a list of entries, which prints readably."""
        return self._journal if self._run is None else self._run.journal

    @property
    def costs(self) -> dict[str, dict[str, float]]:
        """The seconds that each callback took in each hook, the most expensive callback first."""
        return self._costs if self._run is None else added(self._earlier[1], self._run.costs())

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far; a run that was resumed, in all its parts."""
        if self._run is not None:
            return self._earlier[0] + self._run.seconds
        return time.perf_counter() - self._began if self._seconds is None else self._seconds

    def explain(self, width: int | None = None) -> str:
        """Return an account of the run: why it stopped, which epoch is in the model, what was decided and what it cost.

        Args:
            width: The most characters of a line, which is broken between words. By default the width of the terminal; where
                stdout is none, a sentence stays a line.

        Example:
            >>> print(History().explain().splitlines()[1])
            It is still running.
        """
        journal = self.journal
        account = explain(
            self.epoch,
            self.history,
            journal,
            self.costs,
            self._ending,
            self.seconds,
            dropped=journal.dropped,
            steps=self._steps,
        )
        return wrapped(account, width)

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
        from oncue.plots import plot_run

        figure = plot_run(self.epoch, self.history, self.logged_in, self.journal, title)
        if filename is not None:
            figure.savefig(filename)
        return figure

    def _repr_html_(self) -> str:
        """Return the curves, where matplotlib can draw them, and the account: what a notebook shows."""
        import base64
        import html
        import importlib.util
        import io

        account = f'<pre style="white-space: pre-wrap">{html.escape(self.explain(width=100))}</pre>'
        if not self.epoch or importlib.util.find_spec("matplotlib") is None:
            return account
        content = io.BytesIO()
        self.plot().savefig(content, format="png")
        picture = base64.b64encode(content.getvalue()).decode("ascii")
        return (
            f'<img alt="the curves of the run" style="max-width: 100%" src="data:image/png;base64,{picture}">{account}'
        )

    def __repr__(self) -> str:
        names = ", ".join(self.history) or "nothing yet"
        return f"<History of {len(self.epoch)} epochs: {names}>"
