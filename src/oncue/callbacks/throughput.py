"""Throughput: how fast a run trains, in the logs of each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.numbers import number_of
from oncue.core.protocols import gpus_of


@builtin
class Throughput(Callback):
    """Adds to the logs of each epoch how fast it was trained: steps, samples and tokens in a second, memory, and utilization.

    The logs get `steps_per_second`; `samples_per_second`, where the loop tells how many samples a batch has; with
    `tokens_per_sample` also `tokens_per_second`; with `flops_per_sample` and `peak_flops` `mfu`, the share of what the devices
    could compute; and on CUDA `peak_memory_gib`, the most memory that tensors have had since the run began.

    Only training counts: neither validation, nor what callbacks do when an epoch ends, nor a pause by `Control`. The values of
    an epoch are read from the device before its time is taken, so nothing waits for it more than without this callback. The
    first epoch has the compiling of steps in it, and a run that was resumed measures what it trained itself.

    Args:
        tokens_per_sample: How many tokens a sample has.
        flops_per_sample: The floating-point operations of a training step for a sample: for a transformer about six for each
            parameter and token.
        peak_flops: How many of them the devices of all processes could do in a second.
        verbose: 1 to print a line for each epoch, with the time that is left.

    Attributes:
        seconds_left: How long the rest of the run takes at the speed of the last epoch, without validation; None before.

    Raises:
        ValueError: For a number that isn't above 0, and one of `flops_per_sample` and `peak_flops` without the other.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> history = model.fit(x, y, verbose=0, callbacks=[Throughput(tokens_per_sample=2)])
        >>> sorted(history.history)
        ['loss', 'samples_per_second', 'steps_per_second', 'tokens_per_second']
    """

    def __init__(
        self,
        tokens_per_sample: float | None = None,
        flops_per_sample: float | None = None,
        peak_flops: float | None = None,
        verbose: int = 0,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        given = {"tokens_per_sample": tokens_per_sample, "flops_per_sample": flops_per_sample, "peak_flops": peak_flops}
        for name, value in given.items():
            number = number_of(value)
            if value is not None and not (number is not None and 0 < number < float("inf")):
                raise ValueError(f"`{name}` of Throughput must be a number above 0, or None; got {value!r}.")
        if (flops_per_sample is None) != (peak_flops is None):
            raise ValueError(
                "Throughput needs `flops_per_sample` and `peak_flops` together: their quotient is the utilization."
            )
        self.tokens_per_sample = tokens_per_sample
        self.flops_per_sample = flops_per_sample
        self.peak_flops = peak_flops
        self.verbose = verbose
        self.seconds_left: float | None = None
        self._clock = clock
        self._trains = False
        self._gpus: list[str] = []
        self._begin()

    def _begin(self) -> None:
        # Since when it trains, None while it doesn't; and what has been trained in the epoch.
        self._since: float | None = None
        self._paused = 0.0
        self._seconds = 0.0
        self._steps = self._samples = 0
        self._last: int | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Let the peak of memory begin."""
        self._trains, self.seconds_left = True, None
        self._gpus = gpus_of(self.model)
        for gpu in self._gpus:
            import torch

            torch.cuda.reset_peak_memory_stats(gpu)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin an epoch's account."""
        self._begin()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Let time count."""
        if self._since is None:
            self._since, self._paused = self._clock(), self._paused_so_far()
            self._last = batch - 1 if self._last is None else self._last

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the steps since the hook before, and their samples."""
        done = batch - (-1 if self._last is None else self._last)
        self._last = batch
        self._steps += done
        self._samples += done * _size(logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stop the time while the model is validated."""
        self._pause()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put what was measured into the logs."""
        self._pause()
        ranks = self.ranks
        # The clock of the main process is that of all.
        seconds = ranks.broadcast(self._seconds)
        samples = ranks.total(self._samples)
        if logs is None or not self._steps or seconds <= 0:
            return
        found = {"steps_per_second": self._steps / seconds}
        if samples:
            found["samples_per_second"] = each = samples / seconds
            if self.tokens_per_sample is not None:
                found["tokens_per_second"] = each * self.tokens_per_sample
            if self.flops_per_sample is not None and self.peak_flops is not None:
                found["mfu"] = each * self.flops_per_sample / self.peak_flops
        if self._gpus:
            import torch

            peak = max(torch.cuda.max_memory_allocated(gpu) for gpu in self._gpus)
            found["peak_memory_gib"] = ranks.largest(peak / 2**30)
        logs.update(found)
        epochs = (self.params or {}).get("epochs")
        self.seconds_left = None if epochs is None else max(epochs - epoch - 1, 0) * seconds
        if self.verbose > 0 and ranks.main:
            words = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items()]
            left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s of training left"
            print_message(f"\nEpoch {epoch + 1}: {', '.join(words)}{left}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Be deaf to an `evaluate` that follows."""
        self._trains = False

    def _pause(self) -> None:
        if self._since is not None:
            self._seconds += self._clock() - self._since - (self._paused_so_far() - self._paused)
            self._since = None

    def _paused_so_far(self) -> float:
        return 0.0 if self._run is None else self._run.progress.paused


def _size(logs: Any) -> int:
    try:
        return int(logs["size"])
    except (KeyError, TypeError):
        # Not every loop tells what a batch has.
        return 0
