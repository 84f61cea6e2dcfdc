"""BatchSizeFinder: a test of sizes that leaves nothing but a suggestion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, graphs_compiled_by, normal, same_arrays, uncompiled
from oncue import hosts, layers
from oncue.callbacks import BackupAndRestore, BatchSizeFinder, Callback, CSVLogger, EarlyStopping, ModelCheckpoint
from oncue.training.memory import is_out_of_memory

X = normal(300, 3)
Y = X.sum(axis=1, keepdims=True) + 1


class Takes(torch.nn.Module):
    """Asks for more memory than any machine has, from a number of rows on."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.seen = rows, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) >= self.rows:
            torch.empty(1 << 60, dtype=torch.uint8, device=x.device)
        return x


def network(*more: Any, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    inner = [layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.1), *more, layers.Dense(1)]
    model = oncue.Sequential([layers.Input((3,)), *inner])
    model.compile(oncue.optimizers.Adam(0.01), "mse", **options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    options = {"batch_size": 16, "epochs": 2, "verbose": 0, "validation_data": (X[:9], Y[:9]), **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def clock_by(seconds: Callable[[int], float], sizes: Callable[[], int]) -> Callable[[], float]:
    """Return a clock by which a step of so many rows takes so long."""
    now, calls = 0.0, 0

    def clock() -> float:
        nonlocal now, calls
        calls += 1
        now += seconds(sizes()) if calls % 2 == 0 else 0.0
        return now

    return clock


@pytest.mark.parametrize("jit", [False, True])
def test_everything_is_as_it_was(jit: bool, tmp_path: Path) -> None:
    finder = BatchSizeFinder(max_size=64)
    ends: list[str] = []

    class Notes(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ends.append("epoch")

        def on_train_end(self, logs: Any = None) -> None:
            ends.append("run")

    with graphs_compiled_by(uncompiled):
        model, other = network(jit_compile=jit), network(jit_compile=jit)
        oncue.utils.set_random_seed(5)
        before = model.get_weights()
        save = ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True, save_freq=1)
        stop = EarlyStopping("loss", patience=9)
        history = fit(
            model, finder, CSVLogger(tmp_path / "log.csv"), save, stop, BackupAndRestore(tmp_path / "b"), Notes()
        )
        assert same_arrays(before, model.get_weights())
        assert (history.epoch, ends, model.optimizer.iterations, stop.best) == ([], ["run"], 0, None)
        assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob("b/*"))
        # It trains as a model that was never tested, with its dropout and its order of the rows.
        trained = fit(model).history
        oncue.utils.set_random_seed(5)
        plain = fit(other).history
    assert trained == plain
    assert finder.sizes == [8, 16, 32, 64] and finder.largest == 64
    assert finder.suggestion in finder.sizes and len(finder.samples_per_second) == 4


def test_the_smallest_size_that_is_nearly_as_quick_as_the_best() -> None:
    probe = Takes(1 << 30)
    # From 32 rows on the time is that of the rows; 128 are a bit quicker.
    speeds = {8: 100.0, 16: 200.0, 32: 390.0, 64: 370.0, 128: 400.0, 256: 300.0}
    clock = clock_by(lambda rows: rows / speeds[rows], lambda: probe.seen[-1])
    finder = BatchSizeFinder(max_size=256, clock=clock)
    history = fit(network(probe), finder)
    assert finder.sizes == [8, 16, 32, 64, 128, 256]
    assert finder.samples_per_second == pytest.approx(list(speeds.values()))
    assert finder.suggestion == 32
    (entry,) = history.journal.of("stop")
    assert entry.text == (
        "a test suggests batches of 32, 390 samples in a second; 256 is the largest size that was tried and fits"
    )
    assert "It was stopped by BatchSizeFinder" in history.explain()


def test_the_first_step_of_a_size_does_not_count() -> None:
    probe = Takes(1 << 30)
    clock = clock_by(lambda rows: 100.0 if probe.seen.count(rows) == 1 else 1.0, lambda: probe.seen[-1])
    finder = BatchSizeFinder(8, 8, steps=2, clock=clock)
    fit(network(probe), finder)
    assert finder.samples_per_second == [8.0]


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=str)
def test_it_ends_where_memory_ends(options: dict[str, Any]) -> None:
    probe = Takes(64)
    model = network(probe, **options)
    before = model.get_weights()
    finder = BatchSizeFinder()
    fit(model, finder)
    assert finder.sizes == [8, 16, 32] and finder.largest == 32 and finder.suggestion is not None
    assert same_arrays(before, model.get_weights())
    assert max(probe.seen) == 64


def test_not_even_the_first_fits() -> None:
    finder = BatchSizeFinder(32)
    with pytest.warns(UserWarning, match="suggests nothing: there is no memory for a step of 32 rows"):
        history = fit(network(Takes(32)), finder)
    assert (finder.suggestion, finder.largest, history.epoch) == (None, None, [])


def test_what_is_no_lack_of_memory_is_an_error() -> None:
    class Wrong(Takes):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) >= self.rows:
                raise RuntimeError("expected something else")
            return x

    model = network(Wrong(32))
    with pytest.raises(RuntimeError, match="expected something else"):
        fit(model, finder := BatchSizeFinder())
    assert finder.suggestion is None and finder._good is None


def test_what_says_that_memory_is_exhausted() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(MemoryError) as numpy:
        np.empty(1 << 60, dtype="uint8")
    assert is_out_of_memory(numpy.value)
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(
        ValueError("DefaultCPUAllocator")
    )


def test_no_more_rows_than_there_are() -> None:
    fit(network(), finder := BatchSizeFinder())
    assert finder.sizes == [8, 16, 32, 64, 128, 256]


def test_several_inputs_and_weights() -> None:
    one, other = layers.Input((3,)), layers.Input((2,))
    model = oncue.Model({"a": one, "b": other}, layers.Dense(1)(layers.Concatenate()([one, other])))
    model.compile("sgd", "mse", metrics=["mae"])
    finder = BatchSizeFinder(2, 8)
    x = {"a": X[:9], "b": X[:9, :2]}
    model.fit(x, Y[:9], sample_weight=np.ones(9), batch_size=3, verbose=0, callbacks=[finder])
    assert finder.sizes == [2, 4, 8]


def test_a_step_of_the_user_s_own() -> None:
    class Own(oncue.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            sizes.append(len(data[0]))
            return super().train_step(data)

    sizes: list[int] = []
    model = Own([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, BatchSizeFinder(8, 16, steps=1))
    assert sizes[:4] == [8, 8, 16, 16]


def test_a_run_goes_on_as_if_it_had_not_been_tested() -> None:
    history = fit(network(), finder := BatchSizeFinder(max_size=16, go_on=True))
    assert history.history == fit(network()).history and finder.sizes == [8, 16]
    assert "It ended because all its epochs were done." in history.explain()
    assert [entry.callback for entry in history.journal.of("note")] == ["BatchSizeFinder"]


@pytest.mark.parametrize("cut", [(0, 5), (1, None), (1, 3)], ids=str)
def test_a_run_that_is_resumed_makes_no_test(cut: Any, tmp_path: Path) -> None:
    class Late(PowerCut):
        """Cuts in training, not in the test before it."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if not self._run.progress.trial:  # type: ignore[union-attr]
                super().on_train_batch_begin(batch, logs)

    def run(*more: Any) -> Any:
        made.append(BatchSizeFinder(max_size=16, go_on=True))
        return fit(network(), BackupAndRestore(tmp_path / "b", save_freq=2), made[-1], *more).history

    made: list[BatchSizeFinder] = []
    with pytest.raises(ConnectionError):
        run(Late(*cut))
    assert run() == fit(network()).history
    assert made[0].suggestion == made[1].suggestion is not None
    assert made[0].samples_per_second == made[1].samples_per_second


def test_plot(tmp_path: Path) -> None:
    finder = BatchSizeFinder(max_size=32)
    with pytest.raises(ValueError, match="BatchSizeFinder has tested nothing yet"):
        finder.plot()
    fit(network(), finder)
    figure = finder.plot(tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size > 1000
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == f"suggested: {finder.suggestion}"


def test_a_loop_of_the_user_s_own_is_refused() -> None:
    module = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    with pytest.raises(ValueError, match="makes its steps itself. Try sizes in `fit`"):
        with hosts.loop(module, optimizer, [BatchSizeFinder()], epochs=2) as run:
            next(iter(run.epochs()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BatchSizeFinder(0), "`min_size` of BatchSizeFinder must be a whole number, 1"),
        (lambda: BatchSizeFinder(16, 8), "sizes that rise: got min_size=16 and max_size=8"),
        (lambda: BatchSizeFinder(steps=0), "`steps` of BatchSizeFinder"),
    ],
)
def test_mistakes(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
