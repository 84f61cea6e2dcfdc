"""Compiled graphs as CUDA graphs, so that the host starts a step, or several of them, with a single call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

Graph = Callable[..., Sequence[Tensor]]
Recorder = Callable[[Graph, Sequence[Tensor]], tuple[Callable[[], None], Sequence[Tensor]]]


class RecordedGraph:
    """Replays the kernels of a graph that was run once, on the same memory.

    Weights, state and sums stay where they are; the tensors of a batch are copied to the memory of the recorded batch.
    What comes out is overwritten by the next replay.

    Args:
        graph: A function of tensors that changes some of them in place, and that has run before.
        inputs: The tensors it was called with.
        changing: The places among them that hold the batch.
        record: Gets a graph and its inputs, and returns what runs it again on their memory and what it gives each time.

    Example:
        >>> total = torch.zeros(1)
        >>> def record(graph, memory):
        ...     return lambda: graph(*memory), graph(*memory)
        >>> add = RecordedGraph(lambda total, x: (total.add_(x),), [total, torch.ones(1)], [1], record)
        >>> add(total, torch.full((1,), 5.0))
        (tensor([6.]),)
    """

    def __init__(self, graph: Graph, inputs: Sequence[Tensor], changing: Iterable[int], record: Recorder) -> None:
        if len({tensor.device for tensor in inputs}) > 1:
            # A kernel gets a number of the host as it was when it was recorded, whatever it is later.
            raise RuntimeError("the step reads a tensor on another device, such as a weight of a loss: move it there")
        self._graph = graph
        self._addresses = [tensor.data_ptr() for tensor in inputs]
        self._changing = list(changing)
        # Held by tensors of its own: memory that something else replaces isn't given away while kernels may write to it.
        self._memory = [tensor.detach() for tensor in inputs]
        for place in self._changing:
            self._memory[place] = inputs[place].detach().clone()
        self._replay, self._outputs = record(graph, self._memory)

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """Run the graph on another batch."""
        for place in self._changing:
            self._memory[place].copy_(inputs[place], non_blocking=True)
        self._replay()
        return self._outputs

    def is_for(self, graph: Graph, inputs: Sequence[Tensor], changing: Iterable[int]) -> bool:
        """Return whether it is a recording of this graph on this memory."""
        changing = list(changing)
        lasting = set(range(len(self._addresses))) - set(changing)
        return (
            graph is self._graph
            and changing == self._changing
            and len(inputs) == len(self._addresses)
            and all(inputs[place].data_ptr() == self._addresses[place] for place in lasting)
        )


class RecordedSteps:
    """Replays several calls of a graph as one, each on a batch of its own.

    Args:
        graph: As for `RecordedGraph`; what it returns is of no use.
        state: The tensors that all calls are given.
        batch: The tensors that each call has of its own.
        of_each: The places of those among `state` that each call has of its own, too.
        count: How many calls.
        record: As for `RecordedGraph`.

    Example:
        >>> total = torch.zeros(1)
        >>> def record(graph, memory):
        ...     return lambda: graph(*memory), graph(*memory)
        >>> steps = RecordedSteps(lambda total, x: (total.add_(x),), [total], [torch.zeros(1)], [], 2, record)
        >>> for number in range(2):
        ...     steps.write(number, [torch.full((1,), 5.0)])
        >>> _ = steps.replay()
        >>> total
        tensor([10.])
    """

    def __init__(
        self,
        graph: Graph,
        state: Sequence[Tensor],
        batch: Sequence[Tensor],
        of_each: Sequence[int],
        count: int,
        record: Recorder,
    ) -> None:
        own = [*(state[place] for place in of_each), *batch]
        self.count = count
        self._parts = [[tensor.detach().clone() for tensor in own] for _ in range(count)]

        def run(*memory: Tensor) -> Sequence[Tensor]:
            held = list(memory[: len(state)])
            for number in range(count):
                part = memory[len(state) + number * len(own) :][: len(own)]
                for place, tensor in zip(of_each, part, strict=False):
                    held[place] = tensor
                graph(*held, *part[len(of_each) :])
            return ()

        memory = [tensor.detach() for tensor in state]
        self.replay = record(run, [*memory, *(tensor for part in self._parts for tensor in part)])[0]
        """Makes all calls."""

    def write(self, number: int, tensors: Sequence[Tensor]) -> None:
        """Copy what a call has of its own to where it will read it."""
        for memory, tensor in zip(self._parts[number], tensors, strict=True):
            memory.copy_(tensor, non_blocking=True)

    def read(self, number: int) -> list[Tensor]:
        """Return what was written for a call."""
        return self._parts[number]


class CudaRecorder:
    """Records the kernels that graphs start as CUDA graphs, without running them.

    The recordings of one recorder have one pool of memory, as they are replayed one after another: what one needs meanwhile,
    another has used before. What they return stays theirs.
    """

    def __init__(self) -> None:
        # A pool whose recordings are all gone can't be recorded to again.
        self._recordings: WeakSet[Any] = WeakSet()

    def __reduce__(self) -> tuple[Any, ...]:
        # Neither copies nor files can have recordings.
        return CudaRecorder, ()

    def __call__(self, graph: Graph, memory: Sequence[Tensor]) -> tuple[Callable[[], None], Sequence[Tensor]]:
        """Record a graph; see `Recorder`.

        Args:
            graph: The graph; it must not wait for the device.
            memory: Its inputs.

        Raises:
            RuntimeError: When it waits for the device, or does what can't be recorded.
        """
        before = next(iter(self._recordings), None)
        recorded: Any = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(recorded, pool=None if before is None else before.pool()):
            outputs = graph(*memory)
        self._recordings.add(recorded)
        return recorded.replay, outputs
