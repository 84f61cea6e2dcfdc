"""Recordings have one pool of memory, are dropped before another takes their place, and never grow in number."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ref

import pytest
import torch

import oncue as keras
from helpers import normal, on_the_same_memory
from oncue import layers
from oncue.training.graph import traced_step
from oncue.training.graph.recorded import CudaRecorder, RecordedGraph

X, Y = normal(20, 6), normal(20, 1)


class Recorded:
    """Stands for a CUDA graph."""

    pools = 0

    def __init__(self) -> None:
        self.place: int | None = None

    def pool(self) -> int | None:
        return self.place

    def replay(self) -> None:
        """Do nothing."""


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what records kernels."""

    @contextmanager
    def graph(recorded: Recorded, pool: int | None = None) -> Iterator[None]:
        if pool is None:
            Recorded.pools += 1
        recorded.place = Recorded.pools if pool is None else pool
        yield

    monkeypatch.setattr(Recorded, "pools", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def test_recordings_have_one_pool_as_long_as_one_of_them_is_there(cuda: None) -> None:
    record = CudaRecorder()

    def recorded() -> RecordedGraph:
        return RecordedGraph(lambda x: (x + 1,), [torch.zeros(1)], [0], record)

    first, second = recorded(), recorded()
    assert Recorded.pools == 1
    del first
    gc.collect()
    third = recorded()
    assert Recorded.pools == 1
    del second, third
    gc.collect()
    # The memory of the pool is gone with the last of them.
    recorded()
    assert Recorded.pools == 2


def model_of(record: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3, "relu"), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=True)
    model._plan.graphs.record = record
    return model


def test_a_recording_on_replaced_memory_is_dropped_before_the_next(quick: None) -> None:
    held: list[Any] = []

    def record(graph: Any, memory: Any) -> Any:
        # Those of training and of evaluation.
        assert sum(one() is not None for one in held) <= 1
        replay, outputs = on_the_same_memory(graph, memory)
        held.append(ref(replay))
        return replay, outputs

    class Moves(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            for parameter in self.model.parameters():
                parameter.data = parameter.data.clone()

    model = model_of(record)
    validation = {"validation_data": (X, Y), "validation_batch_size": 4}
    model.fit(X, Y, batch_size=4, epochs=4, verbose=0, callbacks=[Moves()], **validation)
    assert len(held) == 8
    model.compile("adam", "mse")
    gc.collect()
    assert [one() for one in held] == [None] * 8


def test_batches_of_ever_other_strides_are_not_all_recorded(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_step, "_MOST_LAYOUTS", 3)
    held: list[Any] = []

    def record(graph: Any, memory: Any) -> Any:
        held.append(graph)
        return on_the_same_memory(graph, memory)

    def data() -> Any:
        for step in range(1, 10):
            yield torch.ones(4, 6 * step)[:, ::step], torch.ones(4, 1)

    model = model_of(record)
    model.fit(data(), verbose=0)
    assert len(held) == 3
    assert model._plan.graphs.steps["train"].eager_batches == 6
    assert int(model.optimizer.iterations) == 9
