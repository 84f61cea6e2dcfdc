"""Failures: a process that fails says why, and the others end soon, with that reason."""

from __future__ import annotations

from typing import Any


class PeerFailed(RuntimeError):
    """Another process of the run failed, was killed, or hangs; the message says which, where and why."""


class RanksDiverged(RuntimeError):
    """The processes of a run don't do the same any more; the message names what differs."""


class Failures:
    """What this process knows of the failures of others, and tells them of its own."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.waiting = False

    @classmethod
    def watch(cls, timeout: float) -> Failures:
        """Begin to watch."""
        return cls(timeout)

    def explained(self, error: RuntimeError) -> RuntimeError:
        """Return the error that says why a collective failed."""
        return PeerFailed(f"Another process of the run has ended: {error}")

    def report(self, reason: str, error: Any) -> None:
        """Tell the others that this process fails."""
