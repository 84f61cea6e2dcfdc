"""Ranks: which of the processes of a run this one is, and what they agree on. One process is the usual case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED = ("signal", "time", "save", "not_finite", "validate", "control")
"""What any process may ask of all: to end the run because of a signal, or because its time is over, to save its state, to do
what is to be done about a value that is not finite, to validate, or to do what the run was told. To stop training, set
`model.stop_training`."""


class Ranks:
    """The processes of a run as a callback sees them: `self.ranks`. This class is a run of one process.

    Each process runs the same callbacks in the same order, with the same logs at the end of an epoch. What only one of them
    knows (a signal, the time, a file) becomes the same everywhere by `agree` and `broadcast`. Every process must come to the
    same call: never call them where only some do.

    Attributes:
        rank: The number of this process, from 0.
        size: How many processes there are.

    Example:
        >>> ranks = Ranks()
        >>> ranks.main, ranks.agree(False), ranks.broadcast(0.5)
        (True, False, 0.5)
    """

    rank: int = 0
    size: int = 1

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self.ending = False
        """Set to True, by all processes after the same step, to end the pass there: `stop_training`, which one of them may set
        alone, counts after the step that follows."""

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and prints for all."""
        return self.rank == 0

    def agree(self, flag: bool) -> bool:
        """Return whether any process says so; all must ask.

        Args:
            flag: What this process says.
        """
        return bool(flag)

    def broadcast(self, value: Any) -> Any:
        """Return what the main process says; all must ask.

        Args:
            value: What this process would say: anything that JSON can have.

        Raises:
            TypeError: When JSON can't have it.
        """
        return value

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Return the main process's bytes; all must ask.

        Args:
            data: The bytes; those of other processes don't count.
        """
        return data

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the bytes of all processes, by rank; all must ask.

        Args:
            data: This process's.
        """
        return [data]

    def largest(self, number: float) -> float:
        """Return the largest of all processes' numbers; all must ask.

        Args:
            number: This process's.
        """
        return number

    def total(self, number: float) -> float:
        """Return the sum of all processes' numbers; all must ask.

        Args:
            number: This process's.
        """
        return number

    def ask(self, what: str) -> None:
        """Ask something of all processes; they see it after the next step of training or batch of validation.

        Unlike `agree` it can be called by one process alone, at any time.

        Args:
            what: One of `ASKED`.
        """
        self._asked.add(what)

    def asked(self, what: str) -> bool:
        """Return whether any process has asked for something, the same on all of them after the same step.

        Args:
            what: One of `ASKED`.
        """
        return what in self._asked

    def tell(self, what: str) -> None:
        """Tell the other processes that something is done; it waits for nobody, and may be called in another thread.

        Args:
            what: What is done, a text that is used once.
        """

    def wait_until_told(self, what: str, count: int) -> None:
        """Wait until so many processes have told that something is done; may be called in another thread.

        Args:
            what: What is done.
            count: How many.

        Raises:
            RuntimeError: When a process fails meanwhile.
        """

    def failed(self, error: BaseException) -> None:
        """Tell the other processes that this one fails, so that they end, too. It waits for nobody.

        Args:
            error: Why.
        """

    def settled(self, what: str) -> None:
        """Take note that what was asked for is done.

        Args:
            what: One of `ASKED`.
        """
        self._asked.discard(what)


def is_launched(environment: Mapping[str, str]) -> bool:
    """Return whether torchrun, or anything that sets the same variables, has started this process as one of several.

    Args:
        environment: The variables of the environment.

    Example:
        >>> is_launched({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
        True
        >>> is_launched({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
        False
    """
    named = all(environment.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return named and environment["WORLD_SIZE"] != "1"
