"""A compiled region skips checks only where nothing can have changed, and can replay a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import on_the_same_memory
from oncue import torch_private
from oncue.training.graph.compiled_region import CompiledRegion
from oncue.training.graph.recorded import Graph, RecordedGraph

pytestmark = pytest.mark.usefixtures("quick")


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 2.0
        self.register_buffer("total", torch.zeros(1))
        self.total: Tensor

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.total.add_(x.sum() + y.sum())
        return x * self.factor


def region_of(module: Scale, **arguments: Any) -> CompiledRegion:
    return CompiledRegion(lambda x, y: (module(x, y),), {}, [module], **arguments)


def ones(value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((2,), value), torch.full((2,), value)


def test_the_third_call_goes_to_the_graph_itself() -> None:
    module = Scale()
    region = region_of(module)
    for count in range(1, 6):
        (result,) = region(*ones(count))
        assert result.tolist() == [2.0 * count, 2.0 * count]
        assert region.direct_calls == max(0, count - 2)
    assert module.total.item() == 4.0 * (1 + 2 + 3 + 4 + 5)


def test_a_changed_attribute_is_seen_at_once_unless_the_region_is_alone() -> None:
    module = Scale()
    region = region_of(module)
    for _ in range(3):
        region(*ones())
    module.factor = 3.0
    assert region(*ones())[0].tolist() == [3.0, 3.0]
    for _ in range(3):
        region(*ones())
    region.alone = True
    module.factor = 5.0
    assert region(*ones())[0].tolist() == [3.0, 3.0]
    region.renew()
    assert region(*ones())[0].tolist() == [5.0, 5.0]
    assert region.graphs in (2, 3)  # a float that changed once may have become an argument of the graph


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor can't flush denormal numbers")
@pytest.mark.parametrize("flushes", [False, True])
def test_small_numbers_stay_what_they_were(flushes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_graph = torch_private.compile_graph

    def loading(*arguments: Any) -> Any:
        # As shared libraries do that a C++ compiler has linked with `-ffast-math`.
        torch.set_flush_denormal(True)
        return compile_graph(*arguments)

    monkeypatch.setattr(torch_private, "compile_graph", loading)
    try:
        torch.set_flush_denormal(flushes)
        region_of(Scale())(*ones())
        assert (math.ulp(0.0) * 1.0 == 0.0) is flushes
    finally:
        torch.set_flush_denormal(False)


def test_one_tensor_for_two_parts_of_a_batch_is_not_learnt_from() -> None:
    module = Scale()
    region = region_of(module)
    for _ in range(4):
        x, _ = ones()
        region(x, x)
    assert region.direct_calls == 0
    x, y = ones()
    region(x, y * 0)
    assert module.total.item() == 4 * 4.0 + 2.0


def test_recordings_are_replayed_on_the_memory_that_was_recorded() -> None:
    runs = []

    def record(graph: Graph, memory: Sequence[Tensor]) -> Any:
        runs.append(graph)
        return on_the_same_memory(graph, memory)

    module = Scale()
    region = region_of(module, record=record)
    for count in range(1, 6):
        (result,) = region(*ones(count))
        assert result.tolist() == [2.0 * count, 2.0 * count]
    region.renew()
    for count in range(6, 9):
        (result,) = region(*ones(count))
        assert result.tolist() == [2.0 * count, 2.0 * count]
    assert module.total.item() == 4.0 * sum(range(1, 9))
    assert len(runs) == 1


def test_a_step_that_cannot_be_recorded_runs_without_recording() -> None:
    def record(graph: Graph, memory: Sequence[Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    region = region_of(Scale(), record=record)
    region(*ones())
    with pytest.warns(UserWarning, match="runs without CUDA graphs: operation not permitted"):
        region(*ones())
    assert region(*ones(3.0))[0].tolist() == [6.0, 6.0]
    assert region.direct_calls == 1


def test_a_step_that_reads_a_number_of_another_device_is_not_recorded() -> None:
    # The kernels of a recording would go on with the number as it was.
    def record(graph: Graph, memory: Sequence[Tensor]) -> Any:
        return lambda: graph(*memory), graph(*memory)

    there = torch.ones(2, device="meta")
    with pytest.raises(RuntimeError, match="a tensor on another device"):
        RecordedGraph(lambda factor, x: (x * factor,), [torch.tensor(2.0), there], [1], record)
    assert RecordedGraph(lambda factor, x: (x * factor,), [there, there], [1], record)(there, there)
