"""What a graph reads of the rows that other processes have: numbers of the batch, and sums over the processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from oncue.core.process import process
from oncue.feeding.row_share import RowShare
from oncue.training.gradient_sum import GradientSum, messages_of

_SUM, _SEND = "oncue::sum_over_processes", "oncue::send_gradients"


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

    def send(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Begin to sum the gradients of parameters in all messages but the last one, after all sums of the step.

        Args:
            parameters: The parameters.
            gradients: The gradient of each.

        Returns:
            What the graph is to give back, lest the messages be left out of it.
        """
        marks = []
        for number, places in enumerate(messages_of(parameters)[:-1]):
            there = [place for place in places if gradients[place] is not None]
            given = [gradient for place in there if (gradient := gradients[place]) is not None]
            if not given:
                # Those after it follow the graph, too.
                break
            self._last = torch.ops.oncue.send_gradients.default(given, there, number, self._last)
            marks.append(self._last)
        return marks

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
        gradients: Sums the gradients of the step that is running.
    """

    tries = False
    error: BaseException | None = None
    gradients: GradientSum | None = None


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
def messages_of_step(gradients: GradientSum | None) -> Iterator[None]:
    """Enclose a step that may be compiled code, so that an error of its messages is the one that is raised.

    Args:
        gradients: Sums the gradients; None where the step sends none.
    """
    _messages.error, _messages.gradients = None, gradients
    try:
        yield
    except BaseException as error:
        found, _messages.error = _messages.error, None
        if gradients is not None:
            gradients.forget()
        if found is None or found is error or not isinstance(error, RuntimeError):
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


def _send(gradients: list[Tensor], places: list[int], number: int, after: Tensor | None) -> Tensor:
    if not _messages.tries:
        assert _messages.gradients is not None
        try:
            _messages.gradients.send(number, dict(zip(places, gradients, strict=True)))
        except BaseException as error:
            _messages.error = error
            raise
    return gradients[0].new_zeros(1)


def send_early(graph: torch.fx.Graph) -> bool:
    """Let a graph send gradients as soon as they are there, after all sums that it sends.

    Args:
        graph: A graph with its operations in the order in which they were recorded.

    Returns:
        Whether it sends any, so that the order of its operations matters.
    """
    places = {node: float(place) for place, node in enumerate(graph.nodes)}
    found = graph.find_nodes(op="call_function", target=torch.ops.oncue.send_gradients.default)
    for node in found:
        last = max(node.all_input_nodes, key=places.__getitem__)
        last.append(node)
        # Those that follow the same operation stay in their order.
        places[node] = math.nextafter(places[last], math.inf)
    return bool(found)


if not hasattr(torch.ops.oncue, "sum_over_processes"):
    # The tag keeps the compiler from leaving out a message that others wait for.
    _TAGS = (torch.Tag.nondeterministic_seeded,)
    torch.library.define(_SUM, "(Tensor values, Tensor? after) -> Tensor", tags=_TAGS)
    torch.library.impl(_SUM, "CompositeExplicitAutograd", _sum)
    torch.library.register_fake(_SUM, lambda values, after: torch.empty_like(values))
    torch.library.define(_SEND, "(Tensor[] gradients, int[] places, int number, Tensor? after) -> Tensor", tags=_TAGS)
    torch.library.impl(_SEND, "CompositeExplicitAutograd", _send)
    torch.library.register_fake(_SEND, lambda gradients, places, number, after: gradients[0].new_empty(1))
