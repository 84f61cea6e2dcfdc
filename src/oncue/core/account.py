"""The account of a run in words: why it stopped, what is in the model, what was decided and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oncue.core.journal import Entry
from oncue.core.preempted import Preempted

_BROKEN_OFF = {
    "interrupted": "was interrupted by Ctrl-C",
    "preempted": "was preempted",
    "failed": "ended with an error",
    "killed": "was killed",
}
_TOLD = ("learning_rate", "stop", "restore", "average", "save", "best")


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        how: "running", "finished", "asked" (a callback set `stop_training`), "interrupted" (Ctrl-C), "preempted" or "failed";
            of a run that is read from its files also "forked" (it hasn't gone on yet), "killed" and "unknown".
        error: What failed, or why nothing is known, in words.
        epoch: The index of the epoch that was started last; None before the first.
        planned: How many epochs were asked for; None when not known.
        averaged: Whether the optimizer put the moving average of the weights into the model.

    Example:
        >>> Ending("finished", epoch=4, planned=5).how
        'finished'
    """

    how: str = "running"
    error: str = ""
    epoch: int | None = None
    planned: int | None = None
    averaged: bool = False

    @classmethod
    def of(cls, exception: BaseException, epoch: int | None) -> Ending:
        """Return the ending of a run that an exception ended.

        Args:
            exception: What was raised.
            epoch: The index of the epoch that was started last.

        Example:
            >>> Ending.of(ValueError("no"), 2)
            Ending(how='failed', error='ValueError: no', epoch=2, planned=None, averaged=False)
        """
        cause = exception.__cause__ if isinstance(exception, SystemExit) else exception
        if isinstance(cause, Preempted):
            return cls("preempted", str(cause), epoch)
        if isinstance(exception, KeyboardInterrupt):
            return cls("interrupted", str(exception), epoch)
        text = str(exception)
        return cls("failed", type(exception).__name__ + (f": {text}" if text else ""), epoch)


def explain(
    epochs: Sequence[int],
    history: Mapping[str, Sequence[Any]],
    entries: Sequence[Entry],
    costs: Mapping[str, Mapping[str, float]],
    ending: Ending,
    seconds: float,
    dropped: int = 0,
    steps: str = "",
) -> str:
    """Return a readable account of a run.

    Args:
        epochs: The indices of the epochs that were finished.
        history: The logged values by name.
        entries: The journal.
        costs: Seconds by callback and hook.
        ending: How the run ended.
        seconds: How long it took.
        dropped: How many entries the journal has dropped.
        steps: A sentence on how the training steps ran.

    Returns:
        Some lines of text.

    Example:
        >>> print(explain([0], {"loss": [0.5]}, [], {}, Ending("finished"), 2.0))
        1 epoch in 2.0 s; the last one logged loss 0.5.
        It ended because all its epochs were done.
        The model holds the weights of epoch 1, the last one.
        Nothing was decided by a callback.
    """
    lines = [_what(epochs, history, seconds), _why(epochs, entries, ending)]
    if ending.how not in ("killed", "unknown", "forked"):
        lines.append(_weights(epochs, entries, ending))
    if not any("not_finite" in (entry.data or {}) for entry in entries):
        lines += _not_finite(epochs, history)
    lines += [*_files(entries), *_rates(entries)]
    others = [entry for entry in entries if entry.kind not in _TOLD]
    if others:
        lines += ["Noted by callbacks:", *_listed([str(entry) for entry in others])]
    if dropped:
        lines.append(f"{_count(dropped, 'older note')} made room for later ones.")
    if not entries and ending.how != "unknown":
        lines.append("Nothing was decided by a callback.")
    cost = _cost(costs, seconds)
    if cost is not None:
        lines.append(cost)
    if steps:
        lines.append(steps)
    return "\n".join(lines)


def _what(epochs: Sequence[int], history: Mapping[str, Sequence[Any]], seconds: float) -> str:
    last = ", ".join(f"{name} {_number(values[-1])}" for name, values in history.items() if values)
    text = _count(len(epochs), "epoch") + (f" in {_seconds(seconds)}" if seconds else "")
    return f"{text}; the last one logged {last}." if last else f"{text}."


def _why(epochs: Sequence[int], entries: Sequence[Entry], ending: Ending) -> str:
    if ending.how == "running":
        return "It is still running."
    if ending.how == "forked":
        return f"It was forked, and hasn't gone on yet: {ending.error}."
    if ending.how == "unknown":
        return f"Why it ended is not known: {ending.error}."
    if ending.how in _BROKEN_OFF:
        where = "before the first epoch" if ending.epoch is None else f"in epoch {ending.epoch + 1}"
        words = _BROKEN_OFF[ending.how]
        return f"It {words} {where}" + (f": {ending.error}" if ending.error else ".")
    stop = _final_stop(entries)
    if stop is not None:
        return f"It was stopped by {stop.callback} {_at(stop)}: {stop.cited}."
    if ending.how == "asked":
        return f"It was stopped {_of(epochs, ending)}: a callback set `stop_training` and noted no reason."
    if epochs and ending.planned is not None and epochs[-1] + 1 < ending.planned:
        return f"It ended {_of(epochs, ending)}, because the data had nothing left."
    return "It ended because all its epochs were done."


def _final_stop(entries: Sequence[Entry]) -> Entry | None:
    # Of several that wanted to stop in the same epoch, the first is the one that did.
    stops = [entry for entry in entries if entry.kind == "stop"]
    return next((entry for entry in stops if entry.epoch == stops[-1].epoch), None)


def _weights(epochs: Sequence[int], entries: Sequence[Entry], ending: Ending) -> str:
    last = max([*epochs[-1:], *([] if ending.epoch is None else [ending.epoch])], default=-1)
    put_back = [entry for entry in entries if entry.kind == "restore" and (entry.epoch is None or entry.epoch >= last)]
    if put_back:
        return _restored(put_back[-1])
    averaged = [entry for entry in entries if entry.kind == "average"]
    if averaged and ending.how in ("finished", "asked"):
        return f"The model holds {averaged[-1].cited}."
    if ending.averaged and epochs:
        return f"The model holds the moving average of the weights, as of epoch {epochs[-1] + 1} (`use_ema`)."
    if ending.epoch is not None and ending.epoch not in epochs:
        after = f"; epoch {epochs[-1] + 1} was the last to be finished" if epochs else ""
        return f"The model holds what it had learnt when epoch {ending.epoch + 1} broke off{after}."
    if not epochs:
        return "No epoch was finished."
    stop = _final_stop(entries)
    text = f"The model holds the weights of epoch {epochs[-1] + 1}, the last one"
    if stop is not None and stop.epoch == epochs[-1] and "not_finite" in (stop.data or {}):
        text += ", in which a value was not finite: they are probably of no use"
    return text + "."


def _restored(entry: Entry) -> str:
    epoch = (entry.data or {}).get("epoch")
    if epoch is None:
        return f"The model holds weights that {entry.callback} put back: {entry.text}."
    if entry.what is not None:
        return f"The model holds the weights of epoch {epoch + 1}, {entry.cited}; {entry.callback} put them back."
    because = f": {entry.text}" if entry.text else ""
    return f"The model holds the weights of epoch {epoch + 1}, put back by {entry.callback}{because}."


def _not_finite(epochs: Sequence[int], history: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a sentence about the first value that was not finite, of those that every epoch has."""
    first: tuple[int, str, Any] | None = None
    for name, values in history.items():
        if len(values) != len(epochs):
            continue
        for epoch, value in zip(epochs, values, strict=True):
            if isinstance(value, float) and not math.isfinite(value):
                if first is None or epoch < first[0]:
                    first = epoch, name, value
                break
    if first is None:
        return []
    epoch, name, value = first
    return [
        f"The first value that was not finite was {name}, {value} in epoch {epoch + 1}: look for such values in the data, or "
        "lower the learning rate. TerminateOnNaN stops at the batch where it happens."
    ]


def _files(entries: Sequence[Entry]) -> list[str]:
    found: dict[tuple[str, str, str], str] = {}
    for entry in entries:
        data = entry.data or {}
        path = data.get("path")
        if path is None or entry.kind not in ("best", "save"):
            continue
        because = f": {entry.cited}" if entry.cited else ""
        words = "The best file" if entry.kind == "best" else "The last file"
        # Two that watch different values have a best file each.
        watched = str(data.get("monitor", "")) if entry.kind == "best" else ""
        found[entry.kind, entry.callback, watched] = f"{words} is {path}, saved {_at(entry)}{because}."
    return [found[key] for key in sorted(found)]


def _rates(entries: Sequence[Entry]) -> list[str]:
    rates = [entry for entry in entries if entry.kind == "learning_rate"]
    if not rates:
        return []
    header = "The learning rate changed"
    before, after = (rates[0].data or {}).get("before"), (rates[-1].data or {}).get("after")
    # Several optimizers have a rate each.
    one = not any((entry.data or {}).get("optimizer") for entry in rates)
    if one and len(rates) > 1 and before is not None and after is not None:
        header += f" {len(rates)} times, from {_number(before)} to {_number(after)}"
    lines = [f"{_when(entry)}, {entry.callback}: {entry.cited}" for entry in rates]
    return [f"{header}:", *_listed(lines)]


def _cost(costs: Mapping[str, Mapping[str, float]], seconds: float) -> str | None:
    totals = {name: sum(hooks.values()) for name, hooks in costs.items()}
    total = sum(totals.values())
    if not total or not seconds:
        return None
    parts = sorted(totals.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {_seconds(value)}" for name, value in parts[:4] if value >= 1e-4)
    return f"Callbacks took {_seconds(total)}, {total / seconds:.1%} of the run" + (f": {named}." if named else ".")


def cost_warning(costs: Mapping[str, Mapping[str, float]], seconds: float) -> str | None:
    """Return a line when callbacks took over 5 % of a run that was long enough to tell, naming the worst.

    Args:
        costs: Seconds by callback and hook.
        seconds: How long the run took.

    Returns:
        The line, or None.

    Example:
        >>> cost_warning({"Slow": {"on_epoch_end": 10.0}}, 100.0)
        'Callbacks took 10.0 s, 10.0% of the run; most of it Slow in on_epoch_end (10.0 s).'
    """
    totals = {name: sum(hooks.values()) for name, hooks in costs.items()}
    total = sum(totals.values())
    if seconds <= 10 or total <= 0.05 * seconds:
        return None
    name = max(totals, key=lambda name: totals[name])
    hook = max(costs[name], key=lambda hook: costs[name][hook])
    return (
        f"Callbacks took {_seconds(total)}, {total / seconds:.1%} of the run; most of it {name} in {hook} "
        f"({_seconds(costs[name][hook])})."
    )


def _of(epochs: Sequence[int], ending: Ending) -> str:
    if not epochs:
        return "before the end of its first epoch"
    return f"after epoch {epochs[-1] + 1}" + ("" if ending.planned is None else f" of {ending.planned}")


def _at(entry: Entry) -> str:
    if entry.epoch is None:
        return "before training"
    return f"after epoch {entry.epoch + 1}" if entry.batch is None else f"in {_when(entry)}"


def _when(entry: Entry) -> str:
    if entry.epoch is None:
        return "before training"
    return f"epoch {entry.epoch + 1}" + ("" if entry.batch is None else f", batch {entry.batch + 1}")


def _listed(lines: Sequence[str], most: int = 10) -> list[str]:
    half = most // 2
    shown = list(lines)
    if len(lines) > most:
        shown = [*lines[:half], f"... {len(lines) - most} more ...", *lines[-half:]]
    return [f"  {line}" for line in shown]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{value * 1e3:.1f} ms"
