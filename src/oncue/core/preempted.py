"""Preempted: the error of a run that was ended by a signal; not beside its callback, which few runs import."""

from __future__ import annotations


class Preempted(Exception):
    """A run was ended by a signal.

    Args:
        name: The signal's name.
        saved: Whether the state of that moment was saved.

    Attributes:
        signal: The signal's name, such as "SIGTERM".
        saved: Whether the state of that moment was saved; if not, an older backup may be there.
    """

    def __init__(self, name: str, saved: bool) -> None:
        self.signal = name
        self.saved = saved
        what = "the state of that moment was saved" if saved else "the state of that moment was not saved"
        super().__init__(f"{name} ended the run; {what}.")


def is_agreed(error: BaseException | None) -> bool:
    """Return whether an error is the end of a run by a signal, which all of its processes have agreed on.

    Args:
        error: The error; None for none.

    Example:
        >>> is_agreed(Preempted("SIGTERM", saved=True)), is_agreed(ValueError())
        (True, False)
    """
    return isinstance(error, Preempted) or (error is not None and isinstance(error.__cause__, Preempted))
