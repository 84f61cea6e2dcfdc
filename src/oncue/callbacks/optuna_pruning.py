"""OptunaPruning: ends the run of a trial that Optuna takes for hopeless."""

from __future__ import annotations

import warnings
from typing import Any

from oncue.callbacks.monitor_callback import MonitorCallback
from oncue.core.builtin import builtin


@builtin
class OptunaPruning(MonitorCallback):
    """Tells an Optuna trial what was measured, and ends the run when the study's pruner wants that.

    The run ends as any other that is stopped: files are finished, weights put back, the journal has the decision. Then
    `optuna.TrialPruned` is raised, out of `fit`, which tells the study.

    Values are told by their count from 0, which is the epoch where each has one; with `validation_freq="500 steps"` those of
    each validation. A run that is resumed, by the same trial or by one that tries it again, tells what the interrupted one had
    told. Of several processes that train together the main one decides; the others have its trial by Optuna's own
    `TorchDistributedTrial`, or None, and all raise.

    Args:
        trial: The trial, as the objective gets it.
        monitor: The name of the value in the logs.
        mode: "min", "max", or "auto" to take the metric's own direction, which must be the study's.

    Raises:
        ValueError: Before the first step, in a study of several objectives, and in one that isn't about such a value.
        optuna.TrialPruned: When the run has ended, because it was pruned.

    Example:
        >>> def objective(trial):  # doctest: +SKIP
        ...     model = made_with(trial.suggest_float("rate", 1e-4, 1e-1, log=True))
        ...     history = model.fit(x, y, validation_split=0.2, epochs=20, callbacks=[OptunaPruning(trial)])
        ...     return history.history["val_loss"][-1]
    """

    state_fields = ("told", "pruned")

    def __init__(self, trial: Any, monitor: str = "val_loss", mode: str = "auto") -> None:
        super().__init__(monitor, mode)
        self.trial = trial
        self.told: list[float] = []
        self.pruned = False
        self._known = 0

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing told, and look at the study.

        Raises:
            ValueError: Where it can't be told, or the other way round.
        """
        self.told, self.pruned, self._known = [], False, 0
        if self.trial is None and self.ranks.main:
            raise ValueError("OptunaPruning needs the `trial` that the objective gets; got None.")
        # A FixedTrial belongs to no study.
        study = getattr(self.trial, "study", None)
        directions = [] if study is None else [one.name.lower() for one in study.directions]
        if len(directions) > 1:
            raise ValueError(
                f"Optuna prunes trials of one objective, and this study has {len(directions)}. Leave OptunaPruning out."
            )
        wanted = {"up": "maximize", "down": "minimize"}.get(self.watch.direction or "")
        if wanted is not None and directions and directions[0] != wanted:
            raise ValueError(
                f"OptunaPruning watches `{self.monitor}`, which is to {wanted}, and the study is to {directions[0]}: its "
                f"pruner would end the best trials. Use optuna.create_study(direction='{wanted}'), or give the `monitor` that "
                "the study is about."
            )

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell what a validation amid an epoch has measured."""
        self._tell(self.watched_amid(logs))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the value, and stop when the trial is to be pruned."""
        self._tell(self.watched(logs))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """In a loop that doesn't say when all is closed, tell the study here."""
        if self._run is None:
            self.after_close()

    def after_close(self) -> None:
        """Tell the study that the trial was pruned, now that the run has ended well.

        Raises:
            optuna.TrialPruned: When it was.
        """
        if self.pruned:
            self.pruned = False
            import optuna

            raise optuna.TrialPruned(f"{self.monitor} was {self.told[-1]:g}, value {len(self.told)} of the run.")

    def _tell(self, value: float | None) -> None:
        if value is None:
            return
        self.told.append(value)
        prune = False
        if self.trial is not None:
            with warnings.catch_warnings():
                # A trial that goes on knows what it was told before.
                warnings.filterwarnings("ignore", message=".*already reported")
                for step in range(self._known, len(self.told)):
                    self.trial.report(self.told[step], step)
            self._known = len(self.told)
            prune = self.trial.should_prune()
        if self.ranks.broadcast(prune):
            self.pruned = self.model.stop_training = True
            self._decided("stop", "pruned", monitor=self.monitor, value=value, count=len(self.told))
