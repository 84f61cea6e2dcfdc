"""WeightAverage: an average of the weights where something is measured or saved, and in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import Ends, graphs_compiled_by, normal, same_arrays, tensor, to_numpy, uncompiled
from oncue import hosts, layers
from oncue.callbacks import BackupAndRestore, Callback, EarlyStopping, LambdaCallback, ModelCheckpoint, WeightAverage

X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)
HELD = {"validation_data": (X[:6], Y[:6])}


def network(**options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential(
        [layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(1)]
    )
    model.compile(oncue.optimizers.Adam(0.05), "mse", **options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    return model.fit(X, Y, callbacks=list(callbacks), **{"batch_size": 8, "epochs": 3, "verbose": 0, **HELD, **options})


class Steps(Callback):
    """Keeps the weights after each step, and those at other hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Any] = []
        self.tested: list[Any] = []
        self.begun: list[Any] = []
        self.ended: list[Any] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begun.append(self.model.get_weights())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps.append(self.model.get_weights())

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.tested.append(self.model.get_weights())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ended.append(self.model.get_weights())


def close(one: Any, other: Any) -> None:
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def moving(steps: list[Any], decay: float) -> list[Any]:
    found = [steps[0]]
    for step in steps[1:]:
        found.append([decay * a + (1 - decay) * w for a, w in zip(found[-1], step, strict=True)])
    return found


@pytest.mark.parametrize("jit", [False, True])
def test_a_moving_average(jit: bool) -> None:
    seen = Steps()
    with graphs_compiled_by(uncompiled):
        model = network(jit_compile=jit)
        history = fit(model, average := WeightAverage(0.7), seen)
    expected = moving(seen.steps, 0.7)
    assert average.count == len(seen.steps) == 9
    for epoch in range(3):
        close(seen.tested[epoch], expected[3 * epoch + 2])
        close(seen.ended[epoch], expected[3 * epoch + 2])
    for step in range(1, 9):
        assert same_arrays(seen.begun[step], seen.steps[step - 1])
    close(model.get_weights(), expected[-1])
    assert "the moving average of the weights, which was updated 9 times with a decay of 0.7" in history.explain()


def test_training_is_the_same_with_it() -> None:
    plain, averaged = Steps(), Steps()
    fit(network(), plain)
    fit(network(), WeightAverage(0.5), averaged, validation_freq="2 steps")
    assert all(same_arrays(one, other) for one, other in zip(plain.steps, averaged.steps, strict=True))


def test_the_mean_of_epochs_from_one_on() -> None:
    seen = Steps()
    model = network()
    fit(model, WeightAverage(None, every="1 epoch", start_from_epoch=1), seen, epochs=4)
    ends = [seen.steps[3 * epoch + 2] for epoch in range(4)]
    assert same_arrays(seen.tested[0], ends[0])
    close(seen.tested[2], [(a + b) / 2 for a, b in zip(ends[1], ends[2], strict=True)])
    close(model.get_weights(), [sum(parts) / 3 for parts in zip(*ends[1:], strict=True)])


def test_amid_epochs_too() -> None:
    seen = Steps()
    fit(network(), WeightAverage(0.7), seen, validation_freq="2 steps", epochs=1)
    close(seen.tested[0], moving(seen.steps, 0.7)[1])
    assert same_arrays(seen.begun[2], seen.steps[1])


def test_what_was_measured_is_saved_and_put_back(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "best.weights.h5"
    stop = EarlyStopping(patience=9, restore_best_weights=True)
    save = ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
    # In whatever order they stand.
    history = fit(model, save, stop, WeightAverage(0.7), epochs=5)
    best = min(history.history["val_loss"])
    assert model.evaluate(*HELD["validation_data"], batch_size=8, verbose=0) == pytest.approx(best, rel=1e-5)
    other = oncue.models.clone_model(model)
    other.load_weights(path)
    assert same_arrays(other.get_weights(), model.get_weights())


def test_after_an_error_the_model_has_the_trained_weights() -> None:
    def fail(epoch: int, logs: Any) -> None:
        raise OSError("disk gone")

    seen, ends = Steps(), Ends()
    model = network()
    with pytest.raises(OSError, match="disk gone"):
        fit(model, WeightAverage(0.7), seen, ends, LambdaCallback(on_epoch_end=fail))
    assert same_arrays(model.get_weights(), seen.steps[-1])


def test_evaluate_of_its_own_changes_nothing() -> None:
    model = network()
    fit(model, average := WeightAverage(0.7))
    before = model.get_weights()
    model.evaluate(X, Y, verbose=0, callbacks=[average])
    assert same_arrays(before, model.get_weights())


def test_a_run_that_ends_too_early() -> None:
    with pytest.warns(UserWarning, match="WeightAverage has averaged nothing.*start_from_epoch=9"):
        fit(network(), WeightAverage(start_from_epoch=9))


@pytest.mark.parametrize("decay", [1.0, -0.1, "0.9", float("nan")])
def test_what_is_no_decay(decay: Any) -> None:
    with pytest.raises(ValueError, match="`decay` of WeightAverage must be a number from 0 to below 1"):
        WeightAverage(decay)


def test_what_is_no_period() -> None:
    with pytest.raises(ValueError, match="must be a period of steps or epochs.*'5 minutes'"):
        WeightAverage(every="5 minutes")
    with pytest.raises(ValueError, match="must know how many steps an epoch has.*steps_per_epoch"):
        network().fit(((X, Y) for _ in range(2)), verbose=0, callbacks=[WeightAverage(every="1 epoch")])


class Cut(Callback):
    """Ends a run before a batch, or in the validation of an epoch."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        super().__init__()
        self.at, self._epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.at == (self._epoch, batch):
            raise ConnectionError("power cut")

    def on_test_begin(self, logs: Any = None) -> None:
        if self.at == (self._epoch, None):
            raise ConnectionError("power cut")


@pytest.mark.parametrize("options", [{"decay": 0.7}, {"decay": None, "every": "1 epoch"}, {"every": "2 steps"}])
@pytest.mark.parametrize("freq", [1, "2 steps"])
def test_a_resumed_run_ends_with_the_same(tmp_path: Path, options: Any, freq: Any) -> None:
    def run(folder: Path, *more: Any) -> Any:
        model = network()
        backup = BackupAndRestore(folder, save_freq=1)
        history = fit(model, WeightAverage(**options), EarlyStopping(patience=9), backup, *more, validation_freq=freq)
        return history.history, [one.tobytes() for one in model.get_weights()]

    whole = run(tmp_path / "whole")
    for cut in [(0, 2), (1, 0), (1, 1), (1, None), (2, 2)]:
        with pytest.raises(ConnectionError):
            run(tmp_path / str(cut), Cut(*cut))
        assert run(tmp_path / str(cut)) == whole, cut


def test_in_a_loop_of_one_s_own() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1).to(oncue.backend.device())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x, y = tensor(X), tensor(Y)
    steps: list[Any] = []
    measured: list[Any] = []

    def measure() -> dict[str, float]:
        measured.append([to_numpy(one).copy() for one in module.parameters()])
        return {"mae": 0.5}

    with hosts.loop(module, optimizer, [WeightAverage(0.5)], epochs=2, validation=measure) as run:
        for _ in run.epochs():
            for rows in run.batches(torch.arange(24).split(8)):
                loss = torch.nn.functional.mse_loss(module(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
                steps.append([to_numpy(one).copy() for one in module.parameters()])
    expected = moving(steps, 0.5)
    close(measured[1], expected[5])
    close([to_numpy(one) for one in module.parameters()], expected[-1])
