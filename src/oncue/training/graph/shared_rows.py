"""What a graph reads of the rows that other processes have: numbers of the batch, and sums over the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from oncue.core.process import process
from oncue.feeding.row_share import RowShare

_SUM = "oncue::sum_over_processes"


class SharedRows:
    """This process's rows of the batches that a graph runs on, as `oncue.training.parallel_step.Rows`.

    How many rows the whole batch has changes from batch to batch, so it is a tensor that is written before each step. A sum
    over the processes is an operation that torch's compiler can't look into; each gets the result of the one before, so that
    a graph sends its messages in the order of the eager step, which another process may run for the same batch.

    Args:
        device: Where the graphs run.
        dtype: The type of losses.
    """

    own = 1.0
    """A graph is for batches of which this process has rows."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._numbers = torch.ones(2, dtype=dtype, device=device)
        self._written = (1, 1)
        self._last: Tensor | None = None

    @property
    def fraction(self) -> Tensor:
        """This process's share of the batch's rows."""
        return self._numbers[0]

    @property
    def total(self) -> Tensor:
        """How many rows the batch has."""
        return self._numbers[1]

    def total_of(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        found: Tensor = torch.ops.oncue.sum_over_processes.default(values, self._last)
        self._last = found
        return found

    def begin(self) -> None:
        """Begin a step: no sum comes before its first one."""
        self._last = None

    def write(self, share: RowShare) -> None:
        """Let the next step be on a batch.

        Args:
            share: Which of its rows are this process's.
        """
        if self._written != (share.rows, share.total):
            self._written = share.rows, share.total
            self._numbers[0].fill_(share.fraction)
            self._numbers[1].fill_(share.total)


class _Messages:
    """What the operation does in this process.

    Attributes:
        tries: Whether a graph is being made, when others may not be: nothing is sent, and a sum is this process's part.
        error: What has gone wrong with a message of the step that is running: compiled code ends with an error of its own.
    """

    tries = False
    error: BaseException | None = None


_messages = _Messages()


@contextmanager
def trying() -> Iterator[None]:
    """Enclose the making of a graph, in which nothing is sent."""
    _messages.tries = True
    try:
        yield
    finally:
        _messages.tries = False


@contextmanager
def errors_of_messages() -> Iterator[None]:
    """Enclose a step that may be compiled code, so that an error of its messages is the one that is raised."""
    _messages.error = None
    try:
        yield
    except RuntimeError as error:
        found, _messages.error = _messages.error, None
        if found is None or found is error:
            raise
        raise found from None


def _sum(values: Tensor, after: Tensor | None) -> Tensor:
    copy = values.clone()
    if _messages.tries:
        return copy
    try:
        summed: Tensor = process.group.sum_(copy)
    except BaseException as error:
        _messages.error = error
        raise
    return summed


if not hasattr(torch.ops.oncue, "sum_over_processes"):
    # The tag keeps the compiler from leaving out a message that others wait for.
    torch.library.define(_SUM, "(Tensor values, Tensor? after) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
    torch.library.impl(_SUM, "CompositeExplicitAutograd", _sum)
    torch.library.register_fake(_SUM, lambda values, after: torch.empty_like(values))
