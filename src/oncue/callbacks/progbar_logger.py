"""ProgbarLogger: the progress bar of fit, evaluate and predict."""

from __future__ import annotations

import time
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.console import LiveLine, can_redraw, is_interactive_logging_enabled, print_message
from oncue.core.progbar import Progbar, clock


@builtin
class ProgbarLogger(Callback):
    """Shows progress and metrics on stdout. `fit`, `evaluate` and `predict` add one unless `verbose=0`.

    On a terminal or in a notebook it draws a live bar: the loss first, the time that the epoch still takes, and from the second
    epoch on that of the run; then how far validation is. Where a line is too short, the bar gives way before names do, and
    names before values. In a pipe or a log file it prints only the lines that are left in the end, as Keras writes them,
    without colours or control characters, and takes no time during the epoch.

    Args:
        count_mode: "steps"; kept from Keras 2, where "samples" was the other choice.
        stateful_metrics: Kept from Keras 2; every value is shown as it was logged.

    Raises:
        ValueError: For another `count_mode`.

    Example:
        >>> bar = ProgbarLogger()
        >>> bar.set_params({"verbose": 2, "epochs": 3, "steps": 5})
        >>> bar.on_epoch_begin(0)
        Epoch 1/3
    """

    makes_way = True
    main_process_only = True

    def __init__(self, count_mode: str = "steps", stateful_metrics: Any = None) -> None:
        super().__init__()
        if count_mode not in ("steps", "samples"):
            raise ValueError(f"`count_mode` must be 'steps' or 'samples'; got {count_mode!r}.")
        self.verbose = 1
        self.epochs: int = 1
        self.target: int | None = None
        self.seen = 0
        self.progbar: Progbar | None = None
        self._in_fit = False
        self._line = LiveLine()
        # When the first epoch of this run began, and which it was.
        self._began: tuple[float, int] | None = None
        self._validated = self._validation_steps = 0
        self._epoch, self._epoch_began = 0, 0.0

    def set_params(self, params: dict[str, Any]) -> None:
        """Take the verbosity, and how many epochs and steps there are."""
        self.params = params
        verbose = params.get("verbose", 1)
        if verbose == "auto":
            verbose = 1 if is_interactive_logging_enabled() else 2
        self.verbose = int(verbose)
        self.epochs = params.get("epochs") or 1
        self.target = params.get("steps")

    def listens_to(self, hook: str) -> bool:
        """Want batches only to draw a live bar, or to count steps whose number is not known."""
        if "_batch_" in hook:
            return (self.verbose == 1 and (can_redraw() or self.target is None)) or self.target is None
        return True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Keep silent in validation, which `fit` reports at the end of the epoch."""
        self._in_fit = True
        self._line, self._began, self._validation_steps = LiveLine(), None, 0

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Be ready for a run of `evaluate`."""
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Name the epoch and start its bar."""
        self._start()
        if self._began is None:
            self._began = time.perf_counter(), epoch
        self._epoch, self._epoch_began = epoch, time.perf_counter()
        if self.verbose and self.epochs > 1:
            print_message(f"Epoch {epoch + 1}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar."""
        self._move(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Leave the finished line."""
        self._finish(logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start a bar for `evaluate`."""
        if not self._in_fit:
            self._start()
        self._validated = 0

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar of `evaluate`, or say how far the validation of `fit` is."""
        if not self._in_fit:
            self._move(batch, logs)
            return
        self._validated = batch + 1
        bar = self.progbar
        if bar is not None and self.verbose == 1 and bar.is_due():
            of = f"/{self._validation_steps}" if self._validation_steps >= self._validated else ""
            bar.remark = self._left()
            bar.say(f"validating {self._validated}{of}", f"val {self._validated}{of}")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the finished line of `evaluate`."""
        if not self._in_fit:
            self._finish(logs)
        self._validation_steps = self._validated

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start a bar for `predict`."""
        self._start()

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move the bar of `predict`."""
        self._move(batch, None)

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the finished line of `predict`."""
        self._finish(None)

    def on_exception(self, exception: BaseException) -> None:
        """End the line, so that the error starts on one of its own."""
        if self.progbar is not None:
            self.progbar.break_line()

    def close(self) -> None:
        """Forget the bar."""
        self.progbar = None
        self._in_fit = False

    def _start(self) -> None:
        self.seen = 0
        self.progbar = Progbar(self.target, verbose=self.verbose, stateless_metrics=())
        self.progbar.line = self._line

    def _move(self, batch: int, logs: dict[str, Any] | None) -> None:
        self.seen = batch + 1
        bar = self.progbar
        if bar is not None and self.verbose == 1 and bar.is_due():
            bar.remark = self._left()
            bar.update(self.seen, list(logs.items()) if logs else [], finalize=False)

    def _left(self) -> str:
        """Return the time that is left for the run, judged by the epochs that are done; empty in the first."""
        if self._began is None or not self._in_fit:
            return ""
        began, first = self._began
        done, left = self._epoch - first, self.epochs - self._epoch
        if done < 1 or left < 1:
            return ""
        now = time.perf_counter()
        each = (self._epoch_began - began) / done
        return f"{clock(max(left * each - (now - self._epoch_began), 0.0))} left"

    def _finish(self, logs: dict[str, Any] | None) -> None:
        bar = self.progbar
        if bar is None:
            return
        if self.target is None:
            self.target = bar.target = self.seen
        bar.update(self.target, list(logs.items()) if logs else [], finalize=True)
