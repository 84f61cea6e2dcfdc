"""BatchSizeFinder: which batch size to train with, by a short test that is taken back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from oncue.callbacks.finder import Finder
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.numbers import whole
from oncue.core.protocols import TellsState, run_state_of
from oncue.core.warn import warn

_NEARLY = 0.95


@builtin
class BatchSizeFinder(Finder):
    """Tries training steps with batches that double in size, suggests a size, and takes all of it back.

    The batches have the rows of the first one, again and again. The test ends at the first size for which there is no memory,
    by the error of whoever allocates it; at `max_size`; or at the number of rows that the data have. Suggested is the smallest
    size that trains nearly as many samples in a second (95 %) as the best: larger ones cost memory, and updates of the weights
    in each epoch, for nothing.

    What the test changed is restored: weights, the optimizer, callbacks, random generators and the place in the data. `fit`
    returns then with nothing trained, because the size of its batches is its own argument: give it `finder.suggestion`. Where
    memory is short, on the CPU, some systems end a process rather than refuse it memory: mind `max_size` there. A run that is
    resumed makes no test.

    Args:
        min_size: The first size.
        max_size: The largest size.
        steps: How many steps of each size are timed, after one that isn't; the quickest counts.
        go_on: Whether to train after the test as if it hadn't been, with batches of the size that `fit` was given.
        verbose: 1 to print the suggestion.

    Attributes:
        suggestion: The size that is suggested; None before, and where not even the first one fits.
        largest: The largest size that was tried and fits.
        sizes: The sizes that fit.
        samples_per_second: How many samples a second steps of each of them train.

    Raises:
        ValueError: For sizes that aren't 1 or more and rising; before the first step, in a loop whose steps it doesn't know,
            and on several processes.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> finder = BatchSizeFinder(max_size=64)
        >>> history = model.fit(np.ones((40, 2)), np.ones((40, 1)), verbose=0, callbacks=[finder])
        >>> finder.sizes, history.epoch, model.optimizer.iterations
        ([8, 16, 32], [], 0)
        >>> history = model.fit(np.ones((40, 2)), np.ones((40, 1)), batch_size=finder.suggestion, verbose=0)
    """

    state_fields = ("tested", "suggestion", "sizes", "samples_per_second")

    def __init__(
        self,
        min_size: int = 8,
        max_size: int = 8192,
        steps: int = 3,
        go_on: bool = False,
        verbose: int = 0,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        owner = "BatchSizeFinder"
        self.min_size = whole(owner, "min_size", min_size, least=1)
        self.max_size = whole(owner, "max_size", max_size, least=1)
        if self.max_size < self.min_size:
            raise ValueError(
                f"BatchSizeFinder needs sizes that rise: got min_size={min_size!r} and max_size={max_size!r}."
            )
        self.steps = whole(owner, "steps", steps, least=1)
        self.go_on = go_on
        self.verbose = verbose
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self.tested = False
        self.suggestion: int | None = None
        self.sizes: list[int] = []
        self.samples_per_second: list[float] = []

    @property
    def largest(self) -> int | None:
        """The largest size that was tried and fits; None before."""
        return max(self.sizes, default=None)

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop", "run_state")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing.

        Raises:
            ValueError: In a loop whose steps it doesn't know, and on several processes.
        """
        self._reset()
        self._good = None
        self._needed_state()
        if self.ranks.size > 1:
            raise ValueError(
                f"BatchSizeFinder tests the memory of one device, and this run is on {self.ranks.size} processes. Start the "
                f"script as one process, and give `fit` on all of them {self.ranks.size} times the size that is suggested."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Make the test, unless the run is one that goes on, which has had it."""
        good, self._good = self._good, None
        if self.tested or good is None:
            self.tested = True
            return
        state = self._needed_state()
        self._put_trial(True)
        tried = self._tried(state)
        best = max(tried.values(), default=0.0)
        suggestion = next((size for size, speed in tried.items() if speed >= _NEARLY * best), None)

        def then() -> None:
            self.tested, self.suggestion = True, suggestion
            self.sizes, self.samples_per_second = list(tried), list(tried.values())
            self._put_trial(False)
            self._tell()
            self.model.stop_training = not self.go_on

        state.rollback = (good.thaw(), then)
        self.model.stop_training = True

    # The test -------------------------------------------------------------------------------------------------------

    def _drawn(self) -> Any:
        from oncue.plots import plot_batch_sizes

        return plot_batch_sizes(self.sizes, self.samples_per_second, self.suggestion) if self.sizes else None

    def _tried(self, state: TellsState) -> Mapping[int, float]:
        """Return the samples in a second by size, of all sizes that fit."""
        trial = state.trial_steps()
        found: dict[int, float] = {}
        most = self.max_size if trial.most is None else min(self.max_size, max(trial.most, self.min_size))
        size = self.min_size
        while size <= most:
            seconds = trial.train(size, self.steps + 1, self._clock)
            if seconds is None:
                break
            found[size] = size / max(min(seconds[1:]), 1e-9)
            size *= 2
        return found

    def _tell(self) -> None:
        if self.suggestion is None:
            warn(
                f"BatchSizeFinder suggests nothing: there is no memory for a step of {self.min_size} rows. Give a smaller "
                "`min_size`, or a smaller model."
            )
            return
        speed = self.samples_per_second[self.sizes.index(self.suggestion)]
        found = {"suggestion": self.suggestion, "samples_per_second": speed, "largest": self.largest}
        text = self._decided("note" if self.go_on else "stop", "batch_size_found", **found)
        if self.verbose > 0:
            print_message(f"BatchSizeFinder: {text}")

    def _needed_state(self) -> TellsState:
        found = run_state_of(self._run)
        if found is None or not found.has_trial_steps:
            raise ValueError(
                f"BatchSizeFinder works in `fit` of oncue's models; this loop, around a {type(self.model).__name__}, makes its "
                "steps itself. Try sizes in `fit`, and give your loop the suggestion."
            )
        return found
