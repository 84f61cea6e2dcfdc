"""Findings: what a run's curves say in plain words, each with the numbers that it rests on, and only when they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from oncue.core.account import cost_warning
from oncue.report.run import Run

_KEPT = ". Better weights were put back."
_NOT_KEPT = "; EarlyStopping(restore_best_weights=True) would have kept the best weights."
_DROPOUT = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "AlphaDropout")


@dataclass(frozen=True)
class Finding:
    """What is worth knowing of a run.

    Args:
        kind: "not_finite", "overfitting", "plateau", "rate", "validation" or "cost".
        title: It in a few words.
        text: The numbers that it rests on, and what to try.
        epoch: The index of the epoch since which it holds; None for the whole run.
    """

    kind: str
    title: str
    text: str
    epoch: int | None = None


def findings(run: Run) -> list[Finding]:
    """Return what is worth knowing of a run.

    Args:
        run: The run.

    Example:
        >>> from pathlib import Path
        >>> from oncue.core.run_record import RunRecord
        >>> rising = [0.5, 0.4, 0.5, 0.6, 0.7, 0.8]
        >>> history = {"loss": [0.5, 0.4, 0.3, 0.2, 0.1, 0.05], "val_loss": rising}
        >>> record = RunRecord(Path("x"), list(range(6)), history, dict.fromkeys(history, list(range(6))))
        >>> [one.title for one in findings(Run(Path("x"), record))]
        ['Overfitting since epoch 3']
    """
    return [one for find in FINDINGS for one in find(run)]


def _series(run: Run, name: str) -> list[tuple[int, float]]:
    record = run.record
    pairs = zip(record.logged_in.get(name, ()), record.history.get(name, ()), strict=False)
    return [(epoch, float(value)) for epoch, value in pairs if isinstance(value, (int, float)) and math.isfinite(value)]


def _not_finite(run: Run) -> Iterator[Finding]:
    for name, values in run.record.history.items():
        for epoch, value in zip(run.record.logged_in[name], values, strict=False):
            if isinstance(value, float) and not math.isfinite(value):
                yield Finding(
                    "not_finite",
                    f"{name} was not a finite number in epoch {epoch + 1}",
                    f"That was the first time: {name} was {value}. Look at the data of that epoch for values that are not "
                    "finite, try a lower learning rate or `clipnorm=1.0`; `TerminateOnNaN` stops at the batch where it "
                    "happens.",
                    epoch,
                )
                return
    spoilt = [
        (epoch, name)
        for name, noted in run.record.weights.items()
        for epoch, values in noted.items()
        if not all(map(math.isfinite, values))
    ]
    if spoilt:
        epoch, name = min(spoilt, key=lambda found: found[0])
        yield Finding(
            "not_finite",
            f"{name} had numbers that are not finite after epoch {epoch + 1}",
            f"That was the first time that one of {len(run.record.weights)} weights had. All logged values were finite: look "
            "at what a metric or a loss leaves out, and at layers whose output isn't used.",
            epoch,
        )


def _overfitting(run: Run) -> Iterator[Finding]:
    train, validation = dict(_series(run, "loss")), _series(run, "val_loss")
    if len(validation) < 5:
        return
    place = min(range(len(validation)), key=lambda index: validation[index][1])
    best_epoch, best = validation[place]
    after = validation[place + 1 :]
    end = median(value for _, value in after[-3:]) if len(after) >= 3 else best
    last = [train[epoch] for epoch, _ in after[-3:] if epoch in train]
    if best_epoch not in train or not last or end <= best + 0.05 * abs(best):
        return
    before, now = train[best_epoch], median(last)
    if now < before - 0.02 * abs(before):
        kept = any(entry.kind == "restore" for entry in run.record.entries)
        yield Finding(
            "overfitting",
            f"Overfitting since epoch {best_epoch + 2}",
            f"val_loss was best in epoch {best_epoch + 1} ({best:.4g}) and has risen to {end:.4g}, while loss fell from "
            f"{before:.4g} to {now:.4g}. More data, dropout or weight decay may help"
            f"{_KEPT if kept else _NOT_KEPT}",
            best_epoch + 1,
        )


def _plateau(run: Run) -> Iterator[Finding]:
    losses = _series(run, "loss")
    if len(losses) < 12:
        return
    values = [value for _, value in losses]
    # The best so far, before and at each epoch.
    best, moved = values[0], 0
    for index, value in enumerate(values):
        if value < best - 2e-3 * abs(best):
            best, moved = value, index
    still = len(values) - 1 - moved
    if still >= max(8, len(values) // 4):
        recent = values[moved:]
        yield Finding(
            "plateau",
            f"No progress since epoch {losses[moved][0] + 1}",
            f"For {still} epochs loss has not fallen more than 0.2 % below {best:.4g}; it was between {min(recent):.4g} and "
            f"{max(recent):.4g}. `ReduceLROnPlateau` lowers the learning rate there; or the run can be shorter.",
            losses[moved][0],
        )


def _rate(run: Run) -> Iterator[Finding]:
    losses = _series(run, "loss")
    if len(losses) < 4:
        return
    steps = [(now[0], now[1] / before[1]) for before, now in pairwise(losses) if before[1] > 0]
    risen = [(epoch, ratio) for epoch, ratio in steps if ratio > 1]
    jumps = [(epoch, ratio) for epoch, ratio in steps if ratio > 1.3]
    worse = losses[0][1] > 0 and losses[-1][1] > 1.1 * losses[0][1]
    if not steps or not (worse or len(jumps) >= max(2, 0.2 * len(steps))):
        return
    epoch, ratio = max(steps, key=lambda step: step[1])
    rates = dict(_series(run, "learning_rate"))
    at = f", at the learning rate {rates[epoch]:g}" if epoch in rates else ""
    end = f" It is {losses[-1][1]:.4g} now, and was {losses[0][1]:.4g} after the first epoch." if worse else ""
    yield Finding(
        "rate",
        "The learning rate may be too high",
        f"loss rose in {len(risen)} of {len(steps)} epochs, most in epoch {epoch + 1}, to {ratio:.2f} times what it was"
        f"{at}.{end} Try a tenth of the rate, or a larger batch.",
        epoch,
    )


def _validation(run: Run) -> Iterator[Finding]:
    train = dict(_series(run, "loss"))
    pairs = [(epoch, train[epoch], value) for epoch, value in _series(run, "val_loss") if epoch in train]
    better = [pair for pair in pairs if pair[2] < pair[1] - 0.02 * abs(pair[1])]
    if len(pairs) < 3 or len(better) < 0.8 * len(pairs) or pairs[-1] not in better:
        return
    epoch, loss, value = pairs[-1]
    layers = _count_of(run.documents.get("model"), _DROPOUT)
    if layers:
        why = (
            f"That is to be expected: the model has {layers} layer{'' if layers == 1 else 's'} of dropout, which "
            f"work{'s' if layers == 1 else ''} in training only."
        )
    else:
        why = (
            "loss is the mean over the epoch, while the weights were still changing, and what works in training only, "
            "such as dropout, augmentation and penalties, adds to it; if the model has none, look for rows that are in both "
            "sets."
        )
    yield Finding(
        "validation",
        "Validation is better than training",
        f"In {len(better)} of {len(pairs)} epochs val_loss was below loss; in epoch {epoch + 1} {value:.4g} against "
        f"{loss:.4g}. {why}",
    )


def _cost(run: Run) -> Iterator[Finding]:
    text = cost_warning(run.record.costs, run.record.seconds)
    if text is not None:
        yield Finding("cost", "Callbacks took long", text)


def _count_of(config: Any, names: Sequence[str], depth: int = 0) -> int:
    if depth > 50:
        return 0
    if isinstance(config, dict):
        own = config.get("class_name") in names
        return int(own) + sum(_count_of(part, names, depth + 1) for part in config.values())
    return sum(_count_of(part, names, depth + 1) for part in config) if isinstance(config, list) else 0


FINDINGS: tuple[Callable[[Run], Iterator[Finding]], ...] = (
    _not_finite,
    _overfitting,
    _plateau,
    _rate,
    _validation,
    _cost,
)
"""What looks for findings, in the order in which the page has them."""
