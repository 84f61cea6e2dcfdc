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
