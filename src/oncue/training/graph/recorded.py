"""RecordedGraph: a compiled graph as one CUDA graph, so that the host starts a step with a single call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Graph = Callable[..., Sequence[Tensor]]
Recorder = Callable[[Callable[[], Sequence[Tensor]]], tuple[Callable[[], None], Sequence[Tensor]]]


class RecordedGraph:
    """Replays the kernels of a graph that was run once, on the same memory.

    Weights, state and sums stay where they are; the tensors of a batch are copied to the memory of the recorded batch.
    What comes out is overwritten by the next replay.

    Args:
        graph: A function of tensors that changes some of them in place, and that has run before.
        inputs: The tensors it was called with.
        changing: The places among them that hold the batch.
        record: Records what a function does; by default as a CUDA graph.

    Example:
        >>> total = torch.zeros(1)
        >>> def record(run):
        ...     return run, run()
        >>> add = RecordedGraph(lambda total, x: (total.add_(x),), [total, torch.ones(1)], [1], record)
        >>> add(total, torch.full((1,), 5.0))
        (tensor([6.]),)
    """

    def __init__(
        self, graph: Graph, inputs: Sequence[Tensor], changing: Iterable[int], record: Recorder | None = None
    ) -> None:
        if len({tensor.device for tensor in inputs}) > 1:
            # A kernel gets a number of the host as it was when it was recorded, whatever it is later.
            raise RuntimeError("the step reads a tensor on another device, such as a weight of a loss: move it there")
        self._graph = graph
        self._addresses = [tensor.data_ptr() for tensor in inputs]
        self._changing = list(changing)
        memory = list(inputs)
        for place in self._changing:
            memory[place] = inputs[place].clone()
        self._memory = memory
        self._replay, self._outputs = (record or record_cuda)(lambda: graph(*memory))

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


def record_cuda(run: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], None], Sequence[Tensor]]:
    """Record the kernels that a function starts, without running them.

    Args:
        run: The function; it must not wait for the device.

    Returns:
        What replays them, and what the function returned.

    Raises:
        RuntimeError: When it waits for the device, or does what can't be recorded.
    """
    recorded: Any = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(recorded):
        outputs = run()
    return recorded.replay, outputs
