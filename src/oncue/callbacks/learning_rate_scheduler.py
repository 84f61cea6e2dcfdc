"""LearningRateScheduler: the learning rate of each epoch, by a function."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.console import print_message


class LearningRateScheduler(Callback):
    """Sets the learning rate at the start of every epoch.

    Args:
        schedule: A function `(epoch, learning_rate) -> learning_rate`, or `(epoch) -> learning_rate` as in Keras 1.
            `epoch` counts from 0.
        verbose: 1 to print each setting.

    Raises:
        ValueError: When the schedule gives NaN, infinity, a negative number or no number; it names the epoch.

    Example:
        >>> halve = LearningRateScheduler(lambda epoch, lr: lr / 2)
    """

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

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ask the schedule, and set what it says."""
        if not hasattr(self.model.optimizer, "learning_rate"):
            raise ValueError("`LearningRateScheduler` needs an optimizer that has a `learning_rate`.")
        before = float(self.model.optimizer.learning_rate)
        answer = self.schedule(epoch, before) if self._takes_rate else self.schedule(epoch)
        rate = self._checked(answer, epoch)
        self.model.optimizer.learning_rate = rate
        if self.verbose > 0:
            print_message(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the epoch's learning rate."""
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)

    def _checked(self, answer: Any, epoch: int) -> float:
        try:
            rate = float(answer)
        except (TypeError, ValueError):
            raise ValueError(
                f"The `schedule` of LearningRateScheduler must return a number; in epoch {epoch} it returned {answer!r} of "
                f"type {type(answer).__name__}."
            ) from None
        if not math.isfinite(rate) or rate < 0:
            raise ValueError(
                f"The `schedule` of LearningRateScheduler must return a finite number, 0 or more; in epoch {epoch} it "
                f"returned {rate}."
            )
        return rate


def _takes_two(schedule: Callable[..., float]) -> bool:
    # Found out beforehand, so that a TypeError raised inside the schedule is not taken for a wrong call.
    try:
        inspect.signature(schedule).bind(0, 0.1)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
