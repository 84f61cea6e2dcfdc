"""LearningRateFinder: which learning rate to train with, by a short test that is taken back."""

from __future__ import annotations

import math
from typing import Any

from oncue.callbacks.finder import Finder
from oncue.callbacks.rates import require_settable
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.numbers import finite, whole
from oncue.core.protocols import TellsState, run_state_of, steps_per_execution_of
from oncue.core.warn import warn

_SMOOTHING = 0.9
_DIVERGED = 4.0
_FEWEST = 10


@builtin
class LearningRateFinder(Finder):
    """Trains the first batches with rates that rise from step to step, suggests one, and takes all of it back.

    What the test changed is restored: weights, the optimizer, callbacks, random generators and the place in the data. Then
    training begins as it would have, with the rate that was suggested; or ends, with `apply=False`. Nothing is saved meanwhile.

    The loss of each batch is smoothed. The suggestion is the rate around which it fell fastest, by the slope of a line through
    a fifth of the losses over the logarithm of the rate, before it was least. The test ends early when the loss has risen to
    four times its least, or isn't finite. Nothing is suggested, with a warning, where the loss never falls, and where so few
    batches differ so much that its fall may be chance.

    Args:
        min_rate: The first rate.
        max_rate: The last rate.
        steps: How many batches the test takes, one for each rate; at most those of the first epoch. With
            `steps_per_execution` several are trained with each rate.
        apply: Whether to train with the rate that is suggested. If not, `fit` returns after the test with nothing trained.
        verbose: 1 to print the suggestion.

    Attributes:
        suggestion: The rate that is suggested; None before, and where there is none.
        rates: The rates that were tried.
        losses: The smoothed loss after each.

    Raises:
        ValueError: For rates that aren't above 0 and rising, fewer than 10 steps; before the first step, in a loop that can't
            go back to a state, and for an epoch with fewer than 10 batches.
        TypeError: Before the first step, where a `LearningRateSchedule` sets the rate.

    Example:
        >>> import numpy as np, oncue
        >>> oncue.utils.set_random_seed(0)
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> x = np.random.default_rng(0).normal(size=(512, 2))
        >>> finder = LearningRateFinder(min_rate=1e-4, max_rate=10.0, steps=64, apply=False)
        >>> history = model.fit(x, x[:, :1] + 1, batch_size=8, verbose=0, callbacks=[finder])
        >>> 0.001 < finder.suggestion < 1, history.epoch, model.optimizer.iterations
        (True, [], 0)
    """

    reads_batch_logs = True
    state_fields = ("tested", "suggestion", "rates", "losses")

    def __init__(
        self,
        min_rate: float = 1e-7,
        max_rate: float = 1.0,
        steps: int = 100,
        apply: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        owner = "LearningRateFinder"
        self.min_rate, self.max_rate = finite(owner, "min_rate", min_rate), finite(owner, "max_rate", max_rate)
        if not 0 < self.min_rate < self.max_rate:
            raise ValueError(
                f"LearningRateFinder needs rates that rise from above 0: got min_rate={min_rate!r} and max_rate={max_rate!r}."
            )
        self.steps = whole(owner, "steps", steps, least=_FEWEST)
        self.apply = apply
        self.verbose = verbose
        self._reset()

    def _reset(self) -> None:
        self.tested = False
        self.suggestion: float | None = None
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._single: list[float] = []
        self._testing = False
        self._planned = self.steps
        self._smooth = 0.0
        # The sum of the losses of the epoch's samples, and their number.
        self._seen = 0.0, 0.0

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop", "rate", "batch_values", "run_state")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing.

        Raises:
            ValueError: In a loop that can't go back to a state, and for an epoch that is too short.
        """
        self._reset()
        self._good = None
        self._needed_state()
        require_settable(self.model, "LearningRateFinder", "leave out the callback")
        known = (self.params or {}).get("steps")
        if known is not None:
            # Several batches may run between two hooks, with one rate.
            together = steps_per_execution_of(self.model)
            self._planned = min(self.steps, math.ceil(known / together))
            if self._planned < _FEWEST:
                less = " or `steps_per_execution`" if together > 1 else ""
                raise ValueError(
                    f"LearningRateFinder needs an epoch of {_FEWEST * together} batches or more, and this one has {known}. "
                    f"Give a smaller `batch_size`{less}."
                )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the test, unless the run has had it, or is one that goes on."""
        if self.tested or self._good is None:
            self.tested = True
            return
        self._testing = True
        self._put_trial(True)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the rate of the batch."""
        if self._testing:
            share = len(self.rates) / (self._planned - 1)
            rate = self.min_rate * (self.max_rate / self.min_rate) ** share
            self.rates.append(rate)
            self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the loss of the batch, and end the test when it is time."""
        if not self._testing or logs is None:
            return
        loss = self._loss_of(logs)
        if math.isfinite(loss):
            self._single.append(loss)
            self._smooth = _SMOOTHING * self._smooth + (1 - _SMOOTHING) * loss
            self.losses.append(self._smooth / (1 - _SMOOTHING ** (len(self.losses) + 1)))
        else:
            self.rates.pop()
        over = not math.isfinite(loss) or len(self.losses) >= self._planned
        if over or (len(self.losses) > _FEWEST and self.losses[-1] > _DIVERGED * min(self.losses)):
            self._end()

    def end_trial(self) -> None:
        """End a test that the epoch was too short for, or that something else has stopped."""
        if self._testing:
            self._end()

    # The test -------------------------------------------------------------------------------------------------------

    def _drawn(self) -> Any:
        from oncue.plots import plot_rates

        return plot_rates(self.rates, self.losses, self.suggestion) if self.losses else None

    def _loss_of(self, logs: dict[str, Any]) -> float:
        # The logs have the mean of the epoch so far. Of several processes each has that of its own rows, or none yet.
        total, count = self._seen
        now = count + float(logs["size"])
        self._seen = float(logs["loss"]) * now if now else 0.0, now
        loss, rows = self._seen[0] - total, now - count
        ranks = self.ranks
        return loss / rows if ranks.size == 1 else ranks.total(loss) / ranks.total(rows)

    def _end(self) -> None:
        good = self._good
        assert good is not None
        self._testing = False
        rates, losses = self.rates[: len(self.losses)], self.losses
        suggestion, fall, error = steepest(rates, losses), *fall_of(self._single, losses)
        # By chance the largest of many falls is about the root of their logarithm, doubled, in standard errors.
        clear = fall >= (1 + math.sqrt(2 * math.log(max(len(losses), 1)))) * error

        def then() -> None:
            self.tested, self.suggestion, self.rates, self.losses = True, suggestion if clear else None, rates, losses
            self._put_trial(False)
            self._good = None
            if suggestion is None:
                self._warn(f"between {self.min_rate:g} and {self.max_rate:g} the loss never fell", "Try other limits")
            elif not clear:
                more = "more `steps`" if self._planned == self.steps else "a smaller `batch_size` in `fit`"
                self._warn(
                    f"over {len(losses)} batches the loss fell by {fall:.3g}, give or take {error:.3g}, which may be chance",
                    f"Test more batches, by {more}",
                )
            else:
                self._tell(suggestion)
            if not self.apply:
                self.model.stop_training = True

        self._needed_state().rollback = (good.thaw(), then)
        self.model.stop_training = True
        self.ranks.ending = True

    def _warn(self, why: str, instead: str) -> None:
        rate = float(self.model.optimizer.learning_rate)
        warn(
            f"LearningRateFinder suggests nothing: {why}. The rate stays {rate:g}. {instead}, or look at `finder.plot()`."
        )

    def _tell(self, suggestion: float) -> None:
        before = float(self.model.optimizer.learning_rate)
        if self.apply:
            self.model.optimizer.learning_rate = suggestion
        kind, after = ("learning_rate", suggestion) if self.apply else ("note", before)
        found = {"optimizer": "", "before": before, "after": after, "suggestion": suggestion, "steps": len(self.losses)}
        text = self._decided(kind, "rate_found", **found)
        if self.verbose > 0:
            print_message(f"LearningRateFinder: {text}")

    def _needed_state(self) -> TellsState:
        found = run_state_of(self._run)
        if found is None:
            raise ValueError(
                f"LearningRateFinder works in `fit` of oncue's models; this loop, around a {type(self.model).__name__}, can't "
                "go back to where it was. Test the rates in `fit`, and give your loop the suggestion."
            )
        return found


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """Return the rate around which the loss fell fastest over the logarithm of the rate, before it was least.

    How fast it fell around a rate is the slope of the line through a fifth of all losses, so that the noise of a few batches
    doesn't decide.

    Args:
        rates: The rates, rising.
        losses: The smoothed losses.

    Returns:
        The rate; None where the loss never fell.

    Example:
        >>> steepest([0.001, 0.01, 0.1, 1.0], [2.0, 1.9, 1.0, 3.0])
        0.01
        >>> steepest([0.001, 0.01], [1.0, 2.0]) is None
        True
    """
    # The first means are of few batches, and the slope of a few steps is mostly noise, as at the last rates it would be.
    first, reach = _first(len(losses)), max(1, len(losses) // 10)
    least = min(range(first, len(losses)), key=losses.__getitem__, default=0)
    last = min(least, len(losses) - 1 - reach)
    around = {place: slice(max(0, place - reach), place + reach + 1) for place in range(first, last + 1)}
    slopes = {place: _slope(rates[part], losses[part]) for place, part in around.items()}
    place = min(slopes, key=slopes.__getitem__, default=None)
    return None if place is None or slopes[place] >= 0 else rates[place]


def fall_of(single: list[float], losses: list[float]) -> tuple[float, float]:
    """Return by how much the smoothed loss has fallen to its least, and the standard error of that.

    How much single losses vary is seen in how far each is from the middle of its neighbours: what they follow, the curve,
    doesn't count.

    Args:
        single: The loss of each batch.
        losses: The same, smoothed.

    Returns:
        Both, in the loss's unit; zeros for fewer than three losses.

    Example:
        >>> fall_of([3.0, 2.0, 1.0, 0.0], [3.0, 2.5, 2.0, 1.4])
        (1.1, 0.0)
    """
    bends = sorted(abs(one - 2 * two + three) for one, two, three in zip(single, single[1:], single[2:], strict=False))
    if not bends:
        return 0.0, 0.0
    # The median of what is normally distributed is so much of its deviation; a bend has six times the variance of a loss.
    deviation = bends[len(bends) // 2] / (0.6745 * math.sqrt(6))
    first = _first(len(losses))
    least = min(range(first, len(losses)), key=losses.__getitem__)
    top = max(range(first, least + 1), key=losses.__getitem__)
    return losses[top] - losses[least], deviation * math.sqrt(_left(top + 1) + _left(least + 1))


def _first(count: int) -> int:
    """Return the place of the first of so many smoothed losses that is the mean of enough batches to be looked at."""
    return max(count // 8, min(5, count // 3))


def _left(count: int) -> float:
    """Return how much of the variance of single losses is left in the smoothed loss after so many."""
    share = (1 - _SMOOTHING) / (1 + _SMOOTHING)
    return share * (1 - _SMOOTHING ** (2 * count)) / (1 - _SMOOTHING**count) ** 2


def _slope(rates: list[float], losses: list[float]) -> float:
    """Return the slope of the line that is nearest to losses over the logarithm of the rate."""
    if len(rates) < 2:
        return 0.0
    places = [math.log(rate) for rate in rates]
    middle, mean = sum(places) / len(places), sum(losses) / len(losses)
    products = [(place - middle) * (loss - mean) for place, loss in zip(places, losses, strict=True)]
    return sum(products) / sum((place - middle) ** 2 for place in places)
