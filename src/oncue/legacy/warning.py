"""The warning about an old name: once for each name and process."""

from __future__ import annotations

from oncue.core.warn import warn

_warned: set[str] = set()


def warn_once(old: str, new: str | None) -> None:
    """Warn, at the user's line, that something has a new name or none; once for each old name and process.

    Args:
        old: What the user typed.
        new: What to type instead; None for what has no successor.
    """
    if old in _warned:
        return
    _warned.add(old)
    advice = "leave it out: today's Keras does without it" if new is None else f"use `{new}` instead"
    warn(f"`{old}` is from an older Keras; {advice}.", DeprecationWarning)
