"""RayTuneReport: tells Ray Tune what the run of a trial logs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.monitor import as_number
from oncue.core.preempted import Preempted


@builtin
class RayTuneReport(Callback):
    """Tells Ray Tune the logs of each epoch, by which its schedulers stop trials, and its searches choose.

    It stands in the function that Tune runs for each trial. Told are all numbers of the logs, those of other callbacks too, and
    `epoch`, counted from 1. When a scheduler stops the trial, Ray ends its function here: the run is closed, and the journal
    says so.

    A trial that Ray begins again, after a failure or a pause, goes on where it was with a `BackupAndRestore` in the folder of
    the trial: `BackupAndRestore(Path(ray.tune.get_context().get_trial_dir(), "backup"))`.

    Args:
        report: Is called with the numbers; Ray Tune's own `report` by default.

    Raises:
        ImportError: Before the first step, without Ray, with what to type.
        ValueError: Before the first step, outside a trial.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> told = []
        >>> tell = RayTuneReport(report=told.append)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=[tell])
        >>> [sorted(one) for one in told]
        [['epoch', 'loss'], ['epoch', 'loss']]
    """

    makes_way = True
    main_process_only = True

    def __init__(self, report: Callable[[dict[str, float]], Any] | None = None) -> None:
        super().__init__()
        self.report = report

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """See whether there is a trial.

        Raises:
            ImportError: Without Ray.
            ValueError: Outside a trial.
        """
        if self.report is None and _tune().get_context().get_trial_id() is None:
            raise ValueError(
                "RayTuneReport tells a trial of Ray Tune, and this run is in none: call `fit` in the function that "
                "`ray.tune.Tuner` gets, or leave it out."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the logs of the epoch; Ray may end the process here."""
        numbers = {name: number for name, value in (logs or {}).items() if (number := as_number(value)) is not None}
        try:
            (self.report or _tune().report)({"epoch": epoch + 1, **numbers})
        except SystemExit as ended:
            self._decided("stop", "ended_by_tune", epochs=epoch + 1)
            raise ended from Preempted("Ray Tune", saved=False)


def _tune() -> Any:
    try:
        from ray import tune
    except ImportError as error:
        raise ImportError("RayTuneReport needs Ray Tune: pip install 'oncue[ray]'.", name="ray") from error
    return tune
