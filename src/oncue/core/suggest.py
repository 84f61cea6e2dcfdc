"""Error messages that name the nearest known word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST = 20
"""So many names are listed; of more, the nearest five."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `name`, or None when none is like it.

    Args:
        name: What the user typed.
        known: The names that would have been right.

    Returns:
        The nearest name, compared without regard to case.

    Example:
        >>> nearest("adm", ["sgd", "adam"])
        'adam'
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Make the error for a name that is not known.

    Args:
        kind: What the name should have named, e.g. "optimizer".
        name: What came.
        known: The names that are known.

    Returns:
        A ValueError to be raised by the caller.

    Example:
        >>> raise unknown("loss", "msee", ["mse", "mae"])
        Traceback (most recent call last):
        ...
        ValueError: Unknown loss: 'msee'. Did you mean 'mse'? Known: mae, mse.
    """
    names = sorted(set(known))
    guess = nearest(name, names) if isinstance(name, str) else None
    hint = f" Did you mean {guess!r}?" if guess is not None else ""
    if len(names) <= _MOST:
        return ValueError(f"Unknown {kind}: {name!r}.{hint} Known: {', '.join(names)}.")
    by_lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=5, cutoff=0.0)
    return ValueError(
        f"Unknown {kind}: {name!r}.{hint} The nearest of {len(names)}: {', '.join(by_lower[one] for one in near)}."
    )
