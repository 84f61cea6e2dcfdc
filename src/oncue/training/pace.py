"""Pace: how fast a run has trained, and what it had on its device, for its account."""

from __future__ import annotations

from time import perf_counter

import torch

from oncue.core.numbers import bytes_in_words
from oncue.feeding.batch import Batches

LONG_ENOUGH = 10.0
"""Seconds of training from which on a run on the CPU says how fast it was."""


class Pace:
    """Counts samples and seconds of training by two looks at the clock in an epoch, without validation and hooks of epochs.

    Args:
        device: Where the model is.
        batches: The training data.

    Attributes:
        device: Where the model is.

    Example:
        >>> class Nothing(Batches):
        ...     batch_size = 32
        ...     def epoch(self, start=0):
        ...         yield from ()
        ...     def first(self):
        ...         return (None, None, None)
        >>> pace = Pace(torch.device("cpu"), Nothing())
        >>> pace.samples, pace.account()
        (0, '')
    """

    def __init__(self, device: torch.device, batches: Batches) -> None:
        self.samples, self.seconds = 0, 0.0
        self.device = device
        self._sizes = batches.batch_size, batches.num_batches, batches.num_samples
        self._resident = sum(batches.resident.values())
        self._since = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def begin(self) -> None:
        """Let time count."""
        self._since = perf_counter()

    def end(self, start: int, done: int) -> None:
        """Count the batches of an epoch whose values have been read.

        Args:
            start: The index of its first batch.
            done: How many of the epoch's batches are done.
        """
        self.seconds += perf_counter() - self._since
        size, number, samples = self._sizes
        if size is not None:
            whole = number is not None and samples is not None and done == number
            # The last batch may be smaller.
            end = samples if whole and samples is not None and samples <= size * done else size * done
            self.samples += end - size * start

    def account(self) -> str:
        """Return it in sentences; empty for what is short and on the CPU."""
        on_cpu, parts = self.device.type == "cpu", []
        if self.samples and self.seconds and (not on_cpu or self.seconds >= LONG_ENOUGH):
            parts.append(f"Training took {self.samples / self.seconds:,.0f} samples in a second.")
        if self._resident:
            parts.append(f"The training data, {bytes_in_words(self._resident)}, were on {self.device} as a whole.")
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            parts.append(f"Tensors took {bytes_in_words(peak)} there at most.")
        return " ".join(parts)
