"""Recordings have one pool of memory, are dropped before another takes their place, and never grow in number."""

from __future__ import annotations

import gc
import linecache
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import cpu_only, normal, on_the_same_memory, to_numpy
from oncue import layers, optimizers
from oncue.training.graph import traced_graph, traced_step
from oncue.training.graph.recorded import CudaRecorder, Recording

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

    current = [torch.device("cuda", 0)]

    @contextmanager
    def device(place: torch.device) -> Iterator[None]:
        before, current[0] = current[0], place
        yield
        current[0] = before

    @contextmanager
    def graph(recorded: Recorded, pool: int | None = None, stream: Any = None) -> Iterator[None]:
        # What runs on another device than the stream's isn't recorded.
        assert stream == current[0]
        if pool is None:
            Recorded.pools += 1
        recorded.place = Recorded.pools if pool is None else pool
        yield

    monkeypatch.setattr(Recorded, "pools", 0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda place: place)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: None)


def test_recordings_have_one_pool_as_long_as_one_of_them_is_there(cuda: None) -> None:
    record = CudaRecorder()

    def recorded() -> Recording:
        return Recording(lambda x: (x + 1,), [], [torch.zeros(1)], record)

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


def test_a_recording_is_of_the_device_that_its_tensors_are_on(cuda: None) -> None:
    record = CudaRecorder()
    kept = []
    for number in (1, 0, 1):
        memory: Any = [SimpleNamespace(device=torch.device("cuda", number))]
        kept.append(record(lambda *memory: memory, memory))
    # Each device has a pool of its own.
    assert [replay.__self__.place for replay, _ in kept] == [1, 2, 1]


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


@pytest.mark.parametrize(("precision", "said"), [("high", "in TF32, as torch is set"), ("highest", "lets it be TF32")])
def test_the_account_says_how_matrices_are_multiplied(precision: str, said: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert said in traced_step._of_products(torch.device("cuda"))
        assert traced_step._of_products(torch.device("cpu")) == ""
        settings = traced_graph._settings(torch.device("cuda"))
        torch.set_float32_matmul_precision("medium" if precision == "highest" else "highest")
        assert traced_graph._settings(torch.device("cuda")) != settings
    finally:
        torch.set_float32_matmul_precision(before)


# Several steps as one -----------------------------------------------------------------------------------------------


class Counted:
    """Records on the same memory, and counts what is run how often."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def __call__(self, graph: Any, memory: Any) -> Any:
        replay, outputs = on_the_same_memory(graph, memory)
        place = len(self.runs)
        self.runs.append(0)

        def counted() -> None:
            self.runs[place] += 1
            replay()

        return counted, outputs


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "Adam on a schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), clipnorm=0.1),
    "an average": lambda: optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5),
    "of torch": lambda: optimizers.TorchOptimizer(torch.optim.NAdam),
}
BETWEEN: dict[str, Callable[[], Any]] = {
    "an average that is put in": lambda: optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=3),
    "accumulation": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "overflowing": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), initial_scale=2.0**127),
}


def compared(make: Callable[[], Any], together: int, rows: int = 92, **fit: Any) -> Counted:
    """Train eagerly, and with several steps in a recording; both come to the same."""
    x, y, record = normal(rows, 6, seed=3), normal(rows, 1, seed=4), Counted()
    models, histories = [], []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        parts = [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(1)]
        model = keras.Sequential([layers.Input((6,)), *parts])
        model.compile(make(), "mse", metrics=["mae"], jit_compile=jit, steps_per_execution=together)
        model._plan.graphs.record = record
        keras.utils.set_random_seed(1)
        made = {name: value() if name == "callbacks" else value for name, value in fit.items()}
        history = model.fit(
            x, y, batch_size=4, epochs=3, verbose=0, validation_data=(x, y), validation_batch_size=4, **made
        )
        models.append(model)
        histories.append(history.history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    for one, other in zip(*[model.get_weights() for model in models], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    for one, other in zip(*[model.optimizer.state_tensors() for model in models], strict=True):
        np.testing.assert_allclose(to_numpy(other), to_numpy(one), rtol=1e-4, atol=1e-5)
    assert models[1].step_account.startswith("The steps ran as one compiled graph")
    return record


@pytest.mark.parametrize("name", OPTIMIZERS)
@cpu_only("random numbers are drawn in another order there")
def test_steps_that_nobody_listens_to_are_one_recording(name: str, quick: None) -> None:
    # 23 batches: 5 groups of 4, and 3 more. In the first group the step runs by itself, and is recorded.
    record = compared(OPTIMIZERS[name], together=4)
    single, several, *validation = record.runs
    assert several == 4 + 5 + 5
    assert single == 3 + 3 + 3 + 3
    assert validation == [single, several]


@pytest.mark.parametrize("name", BETWEEN)
@cpu_only("random numbers are drawn in another order there")
def test_steps_with_something_between_them_are_single(name: str, quick: None) -> None:
    record = compared(BETWEEN[name], together=4)
    *training, single, several = record.runs
    assert (single, several) == (12, 14)
    assert sum(training) + len(training) == 3 * 23


@cpu_only("random numbers are drawn in another order there")
def test_a_callback_of_the_users_looks_at_weights_after_each_group(quick: None) -> None:
    seen: list[list[float]] = []

    def looking() -> Any:
        values: list[float] = []
        seen.append(values)

        def look(batch: int, logs: Any = None) -> None:
            values.append(float(abs(watcher.model.get_weights()[0]).sum()) + logs["loss"])

        watcher = keras.callbacks.LambdaCallback(on_train_batch_end=look)
        return [watcher]

    compared(OPTIMIZERS["of torch"], together=4, callbacks=looking)
    assert len(seen[0]) == 18
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-4)


@cpu_only("random numbers are drawn in another order there")
def test_a_batch_of_another_shape_comes_after_those_that_were_gathered(quick: None) -> None:
    record = compared(OPTIMIZERS["an average"], together=4, rows=90)
    # Of 23 batches the last one is smaller.
    assert record.runs[:2] == [3 + 2 + 2 + 2, 4 + 5 + 5]


@cpu_only("random numbers are drawn in another order there")
def test_what_breaks_off_a_group_leaves_the_steps_that_were_made(quick: None) -> None:
    weights = []
    for jit in (False, True):

        def data() -> Any:
            for step in range(11):
                if step == 10:
                    raise OSError("the disk is gone")
                yield torch.full((4, 6), float(step)), torch.ones(4, 1)

        model = model_of(on_the_same_memory)
        model.compile("adam", "mse", jit_compile=jit, steps_per_execution=4)
        model._plan.graphs.record = on_the_same_memory
        with pytest.raises(OSError, match="the disk is gone"):
            model.fit(data(), verbose=0)
        assert int(model.optimizer.iterations) == 10
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def test_a_model_that_is_gone_leaves_no_code_of_its_graphs_behind(quick: None) -> None:
    def kept() -> int:
        model = keras.Sequential([layers.Input((6,)), layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=True)
        model._plan.graphs.record = on_the_same_memory
        model.fit(X, Y, batch_size=4, verbose=0)
        (graph,) = model._plan.graphs.steps["train"]._graphs.values()
        left = ref(graph)
        del model, graph
        gc.collect()
        assert left() is None
        return len(torch.fx.graph_module._loader.eval_cache) + len(linecache.cache)

    first = kept()
    assert kept() == first
