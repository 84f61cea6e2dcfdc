"""StopAtThreshold: ends a run that is good enough."""

from __future__ import annotations

from typing import Any

from oncue.callbacks.judging_callback import JudgingCallback
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.numbers import finite, whole


@builtin
class StopAtThreshold(JudgingCallback):
    """Stops training when a value has reached a threshold.

    With `validation_freq="500 steps"` a value of validation is looked at in each validation, wherever it is.

    Args:
        monitor: The name of the value in the logs.
        threshold: What is good enough: for a value that is to rise at least this, for one that is to fall at most.
        mode: "min", "max", or "auto" to take the metric's own direction.
        times: So often in a row it must be reached.
        verbose: 1 to say when it stopped.

    Attributes:
        reached: How often in a row it was reached by now.
        stopped_epoch: The index of the epoch in which it stopped; None when it didn't.

    Raises:
        ValueError: For a `threshold` that is no finite number, and `times` below 1.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> stop = StopAtThreshold("loss", 1e-3)
        >>> history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=5000, verbose=0, callbacks=[stop])
        >>> history.history["loss"][-1] <= 1e-3, stop.stopped_epoch == history.epoch[-1]
        (True, True)
    """

    state_fields = ("reached", "stopped_epoch")

    def __init__(
        self, monitor: str = "val_loss", threshold: float = 0.0, mode: str = "auto", times: int = 1, verbose: int = 0
    ) -> None:
        super().__init__(monitor, mode)
        self.threshold = finite("StopAtThreshold", "threshold", threshold)
        self.times = whole("StopAtThreshold", "times", times, least=1)
        self.verbose = verbose
        self.reached = 0
        self.stopped_epoch: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self.reached, self.stopped_epoch = 0, None

    def judge(self, value: float, epoch: int) -> None:
        """Stop when the value is good enough."""
        good = value >= self.threshold if self.watch.direction == "up" else value <= self.threshold
        self.reached = self.reached + 1 if good else 0
        if self.reached < self.times:
            return
        self.model.stop_training = True
        self.stopped_epoch = epoch
        found = {"monitor": self.monitor, "value": value, "threshold": self.threshold, "times": self.times}
        text = self._decided("stop", "threshold_reached", **found)
        if self.verbose > 0:
            print_message(f"Epoch {epoch + 1}: {text}")
