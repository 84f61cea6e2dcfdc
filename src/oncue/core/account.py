"""The account of a run in words: why it stopped, what is in the model, what was decided and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oncue.core.journal import Entry


def explain(
    epochs: Sequence[int],
    history: Mapping[str, Sequence[Any]],
    entries: Sequence[Entry],
    costs: Mapping[str, Mapping[str, float]],
    ending: str,
    seconds: float,
) -> str:
    """Return a readable account of a run.

    Args:
        epochs: The indices of the epochs that were finished.
        history: The logged values by name.
        entries: The journal.
        costs: Seconds by callback and hook.
        ending: How the run ended: "finished", "running", or the error.
        seconds: How long it took.

    Returns:
        Some lines of text.

    Example:
        >>> print(explain([0], {"loss": [0.5]}, [], {}, "finished", 2.0))
        1 epoch in 2.0 s; the last one logged loss 0.5.
        It ended because all its epochs were done.
        The model holds the weights of epoch 1, the last one.
        Nothing was decided by a callback.
    """
    lines = [_what(epochs, history, seconds), _why(entries, ending), _weights(epochs, entries)]
    lines += _files(entries)
    rates = [entry for entry in entries if entry.kind == "learning_rate"]
    if rates:
        lines.append("The learning rate changed:")
        lines += _listed([f"{_when(entry)}: {entry.text}" for entry in rates])
    told = ("learning_rate", "stop", "restore", "save", "best")
    others = [entry for entry in entries if entry.kind not in told]
    if others:
        lines.append("Noted by callbacks:")
        lines += _listed([str(entry) for entry in others])
    if not entries:
        lines.append("Nothing was decided by a callback.")
    dear = _cost(costs, seconds)
    if dear is not None:
        lines.append(dear)
    return "\n".join(lines)


def _what(epochs: Sequence[int], history: Mapping[str, Sequence[Any]], seconds: float) -> str:
    count = len(epochs)
    last = ", ".join(f"{name} {_number(values[-1])}" for name, values in history.items() if values)
    text = f"{count} epoch{'s' if count != 1 else ''} in {seconds:.1f} s"
    return f"{text}; the last one logged {last}." if last else f"{text}."


def _why(entries: Sequence[Entry], ending: str) -> str:
    stops = [entry for entry in entries if entry.kind == "stop"]
    if ending == "running":
        return "It is still running."
    if ending != "finished":
        return f"It ended with an error: {ending}"
    if stops:
        return f"It was stopped by {stops[-1].callback} ({_when(stops[-1])}): {stops[-1].text}."
    return "It ended because all its epochs were done."


def _weights(epochs: Sequence[int], entries: Sequence[Entry]) -> str:
    restored = [entry for entry in entries if entry.kind == "restore"]
    if restored:
        epoch = (restored[-1].data or {}).get("epoch")
        where = f"epoch {epoch + 1}" if epoch is not None else "an earlier epoch"
        return f"The model holds the weights of {where}, restored by {restored[-1].callback}: {restored[-1].text}."
    if not epochs:
        return "No epoch was finished."
    return f"The model holds the weights of epoch {epochs[-1] + 1}, the last one."


def _files(entries: Sequence[Entry]) -> list[str]:
    lines = []
    for kind, words in (("best", "The best file"), ("save", "The last file")):
        written = [entry for entry in entries if entry.kind == kind and (entry.data or {}).get("path")]
        if written:
            last = written[-1]
            lines.append(f"{words} is {(last.data or {})['path']}, written in {_when(last)}: {last.text}.")
    return lines


def _cost(costs: Mapping[str, Mapping[str, float]], seconds: float) -> str | None:
    totals = {name: sum(hooks.values()) for name, hooks in costs.items()}
    spent = sum(totals.values())
    if not spent or not seconds:
        return None
    parts = sorted(totals.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {_seconds(value)}" for name, value in parts[:4] if value > 0)
    return f"Callbacks took {_seconds(spent)}, {spent / seconds:.1%} of the run: {named}."


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
    spent = sum(sum(hooks.values()) for hooks in costs.values())
    if seconds < 10 or spent <= 0.05 * seconds:
        return None
    value, name, hook = max((value, name, hook) for name, hooks in costs.items() for hook, value in hooks.items())
    return (
        f"Callbacks took {_seconds(spent)}, {spent / seconds:.1%} of the run; most of it {name} in {hook} "
        f"({_seconds(value)})."
    )


def _when(entry: Entry) -> str:
    if entry.epoch is None:
        return "before training"
    return f"epoch {entry.epoch + 1}" + ("" if entry.batch is None else f", batch {entry.batch + 1}")


def _listed(lines: Sequence[str], most: int = 20) -> list[str]:
    half = most // 2
    shown = list(lines)
    if len(lines) > most:
        shown = [*lines[:half], f"... {len(lines) - most} more ...", *lines[-half:]]
    return [f"  {line}" for line in shown]


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 0.1 else f"{value * 1e3:.1f} ms"
