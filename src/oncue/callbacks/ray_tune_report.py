"""RayTuneReport: tells Ray Tune what the run of a trial logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.extras import needed
from oncue.core.monitor import as_number
from oncue.core.preempted import Preempted


@builtin
class RayTuneReport(Callback):
    """Tells Ray Tune all numbers of the logs of each epoch, and `epoch`, counted from 1.

    It stands in the function that Tune runs for each trial. When a scheduler stops the trial, Ray ends that function here: the
    run is closed, and the journal says so. A trial that is begun again goes on with `BackupAndRestore` in the trial's folder.

    Args:
        report: Is called with the numbers; Ray Tune's own `report` by default.

    Raises:
        ImportError: Before the first step, without Ray, with what to type.
        ValueError: Before the first step, outside a trial.

    Example:
        >>> RayTuneReport(report=print).on_epoch_end(0, {"loss": 0.5, "word": "no number"})
        {'epoch': 1, 'loss': 0.5}
    """

    makes_way = True
    main_process_only = True

    def __init__(self, report: Callable[[dict[str, float]], Any] | None = None) -> None:
        super().__init__()
        self.report = report

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """See whether there is a trial."""
        if self.report is None and needed("ray.tune", "RayTuneReport").get_context().get_trial_id() is None:
            raise ValueError(
                "RayTuneReport tells a trial of Ray Tune, and this run is in none: call `fit` in the function that "
                "`ray.tune.Tuner` gets, or leave it out."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the logs of the epoch; Ray may end the process here."""
        numbers = {name: number for name, value in (logs or {}).items() if (number := as_number(value)) is not None}
        try:
            (self.report or needed("ray.tune", "RayTuneReport").report)({"epoch": epoch + 1, **numbers})
        except SystemExit as ended:
            self._decided("stop", "ended_by_tune", epochs=epoch + 1)
            raise ended from Preempted("Ray Tune", saved=False)
