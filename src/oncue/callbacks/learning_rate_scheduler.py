"""LearningRateScheduler: the learning rate of each epoch, by a function."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.callbacks.rates import log_rates, same_rate
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.contract import HasLearningRate
from oncue.core.protocols import optimizers_of


@builtin
class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of every epoch.

    The epoch's logs get `learning_rate`, the rate that the epoch trained with. Where another callback sets the rate
    too, the journal says what was overwritten.

    Args:
        schedule: A function `(epoch, learning_rate) -> learning_rate`, or `(epoch) -> learning_rate` as in Keras 1.
            `epoch` counts from 0, `learning_rate` is the rate of now.
        verbose: 1 to print each setting.

    Raises:
        TypeError: For a `schedule` that isn't a function. In the first epoch, for an optimizer that was made with a
            `LearningRateSchedule`, whose rate can't be set.
        ValueError: In the epoch in which the schedule gives NaN, infinity, a negative number or no float.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile(oncue.optimizers.SGD(0.5), loss="mse")
        >>> halve = LearningRateScheduler(lambda epoch, rate: rate if epoch == 0 else rate / 2)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[halve])
        >>> history.history["learning_rate"]
        [0.5, 0.25, 0.125]
    """

    later_fields = ("_set",)
    writes_learning_rate = True

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                f"`schedule` must be a function of (epoch, learning_rate); got {schedule!r} of type "
                f"{type(schedule).__name__}."
            )
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = _takes_two(schedule)
        self._set: dict[str, float] = {}

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("rate",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the rates of another run."""
        self._set = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ask the schedule, and set what it says."""
        for name, optimizer in optimizers_of(self.model):
            if not isinstance(optimizer, HasLearningRate):
                raise ValueError("`LearningRateScheduler` needs an optimizer that has a `learning_rate`.")
            before = float(optimizer.learning_rate)
            after = _checked(self.schedule(epoch, before) if self._takes_rate else self.schedule(epoch), epoch)
            optimizer.learning_rate = after
            self._tell(epoch, name, before, after)
            self._set[name] = after

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the rate that the epoch trained with."""
        log_rates(self.model, logs)

    def _tell(self, epoch: int, name: str, before: float, after: float) -> None:
        whose = f"{name} learning rate" if name else "learning rate"
        if self.verbose > 0:
            print_message(f"\nEpoch {epoch + 1}: LearningRateScheduler setting {whose} to {after}.")
        if same_rate(before, after):
            return
        last = self._set.get(name)
        overwritten = None if last is None or same_rate(before, last) else last
        self._decided("learning_rate", "schedule", optimizer=name, before=before, after=after, last_set=overwritten)


def _checked(answer: Any, epoch: int) -> float:
    words = isinstance(answer, (str, bytes, numbers.Integral)) or getattr(answer, "ndim", 0) != 0
    try:
        rate = None if words else float(answer)
    except (TypeError, ValueError):
        rate = None
    if rate is None:
        raise ValueError(
            f"The `schedule` of LearningRateScheduler must return a float; in epoch {epoch} it returned {answer!r} of "
            f"type {type(answer).__name__}. Use `return float(...)` in it."
        )
    if not math.isfinite(rate) or rate < 0:
        raise ValueError(
            f"The `schedule` of LearningRateScheduler must return a finite float, 0 or more; in epoch {epoch} it "
            f"returned {rate}."
        )
    return rate


def _takes_two(schedule: Callable[..., float]) -> bool:
    # Checked in advance, so that a TypeError raised inside the schedule isn't taken for a wrong call.
    try:
        inspect.signature(schedule).bind(0, 0.1)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
