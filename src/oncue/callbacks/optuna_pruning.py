"""OptunaPruning: ends the run of a trial that Optuna takes for hopeless."""

from __future__ import annotations

import warnings
from typing import Any

from oncue.callbacks.judging_callback import JudgingCallback
from oncue.core.builtin import builtin
from oncue.core.extras import needed


@builtin
class OptunaPruning(JudgingCallback):
    """Tells an Optuna trial each value, by its count from 0, and ends the run, well, when the study's pruner wants that.

    Args:
        trial: The trial, as the objective gets it; in processes beside the main one its `TorchDistributedTrial`, or None.
        monitor: The name of the value in the logs.
        mode: "min", "max", or "auto" to take the metric's own direction, which must be the study's.

    Raises:
        ValueError: Before the first step, where the study isn't about this value alone.
        optuna.TrialPruned: When the run has ended.
    """

    state_fields = ("told", "pruned")

    def __init__(self, trial: Any, monitor: str = "val_loss", mode: str = "auto") -> None:
        super().__init__(monitor, mode)
        self.trial, self.told, self.pruned, self._known = trial, list[float](), False, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing told; refuse a study of something else."""
        self.told, self.pruned, self._known = [], False, 0
        study = getattr(self.trial, "study", None)  # a FixedTrial has none
        goals = [] if study is None else [one.name.lower() for one in study.directions]
        want = {"up": "maximize", "down": "minimize"}.get(self.watch.direction or "", (goals or ["minimize"])[0])
        if goals not in ([], [want]) or (self.trial is None and self.ranks.main):
            what = f"a `trial` of optuna.create_study(direction='{want}') for `{self.monitor}` alone"
            raise ValueError(f"OptunaPruning needs {what}; got {' and '.join(goals) or self.trial}.")

    def judge(self, value: float, epoch: int) -> None:
        """Tell the value, and stop when the trial is to be pruned."""
        self.told.append(value)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*already reported")  # to a trial that goes on
            for step in range(self._known, len(self.told) if self.trial is not None else 0):
                self.trial.report(self.told[step], step)
        self._known = len(self.told)
        if self.ranks.broadcast(self.trial is not None and self.trial.should_prune()):
            self.pruned = self.model.stop_training = True
            self._decided("stop", "pruned", monitor=self.monitor, value=value, count=len(self.told))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Let the study be told, when everything is closed."""
        if self.pruned:
            why = f"{self.monitor} was {self.told[-1]:g}, value {len(self.told)} of the run."
            self._raise_at_end(needed("optuna", "OptunaPruning").TrialPruned(why))
