"""Compiled graphs as CUDA graphs, so that the host starts a step, or several of them, with a single call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

Graph = Callable[..., Sequence[Tensor]]
Recorder = Callable[[Graph, Sequence[Tensor]], tuple[Callable[[], None], Sequence[Tensor]]]


class Recording:
    """Replays the kernels of a graph that has run before, for one batch or for several at once, on the same memory.

    Weights, state and sums stay where they are; what a call has of its own is written to memory of the recording's before.
    What comes out is overwritten by the next replay.

    Args:
        graph: A function of tensors that changes some of them in place.
        state: The first of these tensors, which stay the same.
        batch: The others, of which each call has its own.
        record: Gets a graph and its inputs, and returns what runs it again on their memory and what it gives each time.
        of_each: The places of those among `state` that each call has of its own, too.
        count: How many calls are replayed as one.

    Raises:
        RuntimeError: When there are tensors on several devices, and whatever `record` raises.

    Example:
        >>> total = torch.zeros(1)
        >>> def record(graph, memory):
        ...     return lambda: graph(*memory), graph(*memory)
        >>> add = Recording(lambda total, x: (total.add_(x),), [total], [torch.ones(1)], record)
        >>> add(torch.full((1,), 5.0))
        (tensor([6.]),)
    """

    def __init__(
        self,
        graph: Graph,
        state: Sequence[Tensor],
        batch: Sequence[Tensor],
        record: Recorder,
        of_each: Sequence[int] = (),
        count: int = 1,
    ) -> None:
        if len({tensor.device for tensor in (*state, *batch)}) > 1:
            # A kernel gets a number of the host as it was when it was recorded, whatever it is later.
            raise RuntimeError("the step reads a tensor on another device, such as a weight of a loss: move it there")
        self.count = count
        self._addresses = [tensor.data_ptr() for tensor in state]
        # Held by tensors of its own: memory that something else replaces isn't given away while kernels may write to it.
        self._memory = [tensor.detach() for tensor in state]
        own = [*(state[place] for place in of_each), *batch]
        self._parts = [[tensor.detach().clone() for tensor in own] for _ in range(count)]

        def run(*memory: Tensor) -> Sequence[Tensor]:
            held, given = list(memory[: len(state)]), iter(memory[len(state) :])
            outputs: Sequence[Tensor] = ()
            for _ in range(count):
                for place in of_each:
                    held[place] = next(given)
                outputs = graph(*held, *[next(given) for _ in batch])
            return outputs

        self.replay, self._outputs = record(run, [*self._memory, *(tensor for part in self._parts for tensor in part)])

    def __call__(self, *own: Tensor) -> Sequence[Tensor]:
        """Make a single call, with what it has of its own."""
        self.write(0, own)
        self.replay()
        return self._outputs

    def write(self, number: int, tensors: Sequence[Tensor]) -> None:
        """Copy what a call has of its own to where it will read it."""
        for memory, tensor in zip(self._parts[number], tensors, strict=True):
            memory.copy_(tensor, non_blocking=True)

    def read(self, number: int) -> list[Tensor]:
        """Return what was written for a call."""
        return self._parts[number]

    def is_on(self, state: Sequence[Tensor]) -> bool:
        """Return whether the memory of the state is still that of the recording."""
        return [tensor.data_ptr() for tensor in state] == self._addresses


class CudaRecorder:
    """Records the kernels that graphs start as CUDA graphs, without running them.

    The recordings of one recorder on one device have one pool of memory, as they are replayed one after another: what one needs
    meanwhile, another has used before. What they return stays theirs. The device needn't be the current one.
    """

    def __init__(self) -> None:
        # By device. A pool whose recordings are all gone can't be recorded to again.
        self._recordings: dict[torch.device, WeakSet[Any]] = {}
        # Torch's own stream for that is of the device that was the first current one in the process.
        self._streams: dict[torch.device, Any] = {}

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
        device = memory[0].device
        recordings = self._recordings.setdefault(device, WeakSet())
        before = next(iter(recordings), None)
        with torch.cuda.device(device):
            if device not in self._streams:
                make: Any = torch.cuda.Stream
                self._streams[device] = make(device)
            recorded: Any = torch.cuda.CUDAGraph()
            torch.cuda.synchronize(device)
            pool = None if before is None else before.pool()
            with torch.cuda.graph(recorded, pool=pool, stream=self._streams[device]):
                outputs = graph(*memory)
        recordings.add(recorded)
        return recorded.replay, outputs
