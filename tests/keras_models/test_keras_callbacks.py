"""Callbacks of Keras's in oncue's loop: what `self.model` is, what they read, and what they change."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from keras_models.side_by_side import X, Y, both, fit, same, same_models, twins, values

import oncue


def dense(keras: Any) -> Any:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])


def compiled(keras: Any) -> dict[str, Any]:
    metrics = ["mae", keras.metrics.R2Score(name="fits")]
    return {"optimizer": keras.optimizers.Adam(0.02), "loss": "mse", "metrics": metrics}


@pytest.mark.parametrize("monitor", ["val_mae", "mae"])
def test_monitors_know_whether_a_metric_should_fall(keras: ModuleType, monitor: str, tmp_path: Path) -> None:
    models = twins(keras, dense, compiled)
    stopping: list[Any] = []

    def run(model: Any) -> Any:
        kinds = keras.callbacks
        saved = tmp_path / f"{len(stopping)}.weights.h5"
        stopping.append(kinds.EarlyStopping(monitor, patience=3, min_delta=0.2, restore_best_weights=True))
        reduce = kinds.ReduceLROnPlateau(monitor, patience=1, factor=0.5, min_delta=0.2)
        save = kinds.ModelCheckpoint(str(saved), monitor=monitor, save_best_only=True, save_weights_only=True)
        return fit(model, validation_data=(X, Y), epochs=12, callbacks=[reduce, save, stopping[-1]])

    histories = both(models, run)
    same(*histories)
    assert 3 < len(histories[1]["loss"]) < 12 and histories[1]["learning_rate"][-1] < 0.02
    assert stopping[0].stopped_epoch == stopping[1].stopped_epoch > 0
    same_models(models)
    for model, number in zip(models, (0, 1), strict=True):
        model.load_weights(tmp_path / f"{number}.weights.h5")
    same_models(models)


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_averages_are_swapped(keras: ModuleType, swap_on_epoch: bool) -> None:
    def averaged(keras: Any) -> dict[str, Any]:
        return {"optimizer": keras.optimizers.SGD(0.05, momentum=0.5, use_ema=True, ema_momentum=0.9), "loss": "mse"}

    models = twins(keras, dense, averaged)
    swap = lambda model: fit(  # noqa: E731  # one for each model
        model, validation_data=(X, Y), callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch)]
    )
    same(*both(models, swap))
    same_models(models)
    again = both(models, lambda model: model.evaluate(X, Y, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights()]))
    same(*again)
    same_models(models)


def test_callbacks_of_keras_have_the_keras_model(keras: ModuleType, tmp_path: Path) -> None:
    class Looks(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def on_train_begin(self, logs: Any = None) -> None:
            assert isinstance(self.model, keras.Model)
            self.seen.append([variable.path.split("_")[0] for variable in self.model.optimizer.variables])
            self.note()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.note()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note()
            path = tmp_path / "saved.keras"
            keras.models.save_model(self.model, path, overwrite=True)
            self.seen.append(values(keras.models.load_model(path).optimizer.variables))
            self.seen.append(len(keras.models.clone_model(self.model).weights))

        def note(self) -> None:
            optimizer = self.model.optimizer
            self.seen.append([int(optimizer.iterations), float(optimizer.learning_rate)])
            self.seen.append(values(optimizer.variables))

    models, looking = twins(keras, dense, compiled), [Looks(), Looks()]
    places = iter(looking)
    both(models, lambda model: fit(model, epochs=2, callbacks=[next(places)]))
    assert looking[0].seen.pop(0) == looking[1].seen.pop(0)
    same(looking[0].seen, looking[1].seen)


def test_metrics_of_the_keras_model_have_their_values(keras: ModuleType) -> None:
    def two_outputs(keras: Any) -> Any:
        inputs = keras.Input((6,))
        return keras.Model(inputs, [keras.layers.Dense(1, name=name)(inputs) for name in ("second", "first")])

    def measured(keras: Any) -> dict[str, Any]:
        held.append(keras.metrics.R2Score())
        metrics = {"first": ["mae", held[-1]], "second": ["mae"]}
        return {"optimizer": "sgd", "loss": ["mse", "mae"], "metrics": metrics}

    class Looks(keras.callbacks.Callback):
        def look(self, *ignored: Any, **named: Any) -> None:
            result = self.model.get_metrics_result()
            seen.append({name: float(value) for name, value in result.items()})
            seen[-1]["held"] = float(held[-1].result())

        on_train_batch_end = on_epoch_end = on_test_batch_end = on_test_end = look

    found = []
    for model in range(2):
        held: list[Any] = []
        seen: list[Any] = []
        inner = twins(keras, two_outputs, measured)[0]
        held = held[:1]
        fit(oncue.Model(inner) if model else inner, y=[Y, 2 * Y], validation_data=(X, [Y, 2 * Y]), callbacks=[Looks()])
        found.append(seen)
    assert len(found[1]) > 20 and found[1][0]["first_mae"] != found[1][0]["second_mae"] > 0
    same(*found)


def test_what_they_change_counts_at_once(keras: ModuleType) -> None:
    class Changes(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rate = self.model.optimizer.learning_rate
            self.model.optimizer.learning_rate = float(rate) * 0.9
            if batch == 2:
                self.model.optimizer.clipnorm = 0.1
            if batch == 3:
                self.model.optimizer.beta_1 = 0.5

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if int(self.model.optimizer.iterations) == 8:
                self.model.optimizer = keras.optimizers.SGD(0.05)
                self.model.optimizer.build(self.model.trainable_variables)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.layers[0].bias.assign(self.model.layers[0].bias + 0.1)

        def on_test_end(self, logs: Any = None) -> None:
            self.model.optimizer.learning_rate.assign(0.04)

    models = twins(keras, dense, compiled)
    same(*both(models, lambda model: fit(model, validation_data=(X, Y), callbacks=[Changes()])))
    same_models(models)


def test_hooks_of_batches_read_nothing_of_the_device(keras: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listens(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            hooks.append(batch)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            hooks.append(batch)

    def noted(original: Any) -> Any:
        def read(*args: Any) -> Any:
            reads.append(original)
            return original(*args)

        return read

    hooks: list[int] = []
    reads: list[Any] = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, noted(getattr(torch.Tensor, name)))
    found = []
    for batch_size in (20, 2):
        (_, inner) = twins(keras, dense, compiled)
        hooks.clear()
        reads.clear()
        fit(oncue.Model(inner), batch_size=batch_size, epochs=1, callbacks=[Listens()])
        found.append((len(hooks), len(reads)))
    assert found[0][0] == 4 and found[1][0] == 40 and found[0][1] == found[1][1] > 0


def test_both_kinds_of_callbacks_see_what_the_other_did(keras: ModuleType) -> None:
    rates: list[float] = []
    (_, inner) = twins(keras, dense, compiled)
    model = oncue.Model(inner)

    class Halves(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2

    class Adds(oncue.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert self.model is model
            rates.append(float(self.model.optimizer.learning_rate))
            self.model.optimizer.learning_rate = rates[-1] + 1.0

    fit(model, epochs=2, callbacks=[Halves(), Adds(), Halves()])
    np.testing.assert_allclose(rates, [0.01, 0.2525], rtol=1e-6)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.62625, rtol=1e-6)


def test_a_backup_of_keras_goes_on(keras: ModuleType, tmp_path: Path) -> None:
    def run(model: Any) -> Any:
        inner = getattr(model, "keras_model", model)
        folder = tmp_path / str(model is inner)

        def cut(epoch: int, logs: Any) -> None:
            if epoch == 2 and cuts:
                cuts.pop()
                raise ConnectionError

        cuts = [True]
        callbacks = [keras.callbacks.BackupAndRestore(folder), keras.callbacks.LambdaCallback(on_epoch_begin=cut)]
        with pytest.raises(ConnectionError):
            fit(model, epochs=4, callbacks=callbacks)
        inner.set_weights([np.zeros_like(value) for value in inner.get_weights()])
        return fit(model, epochs=4, callbacks=callbacks)

    models = twins(keras, dense, compiled)
    found = both(models, run)
    assert len(found[1]["loss"]) == 2
    same(*found)
    same_models(models)


def test_a_model_that_is_not_compiled_predicts_with_callbacks(keras: ModuleType) -> None:
    class Counts(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append((batch, isinstance(self.model, keras.Model)))

    seen: list[Any] = []
    both(twins(keras, dense, None), lambda model: model.predict(X, batch_size=20, verbose=0, callbacks=[Counts()]))
    assert seen == [(0, True), (1, True)] * 2


def test_a_model_that_is_compiled_for_oncue_alone_is_given_itself(keras: ModuleType) -> None:
    (_, inner) = twins(keras, dense, None)
    model = oncue.Model(inner)
    model.compile("sgd", "mse")
    seen = []

    class Sets(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(self.model)
            self.model.optimizer.learning_rate = 0.5

    fit(model, epochs=1, callbacks=[Sets()])
    assert seen == [model] and float(model.optimizer.learning_rate) == 0.5


@pytest.mark.parametrize("trained_before", [False, True])
@pytest.mark.parametrize("name", ["Adam", "Nadam", "Lion", "accumulating"])
@pytest.mark.parametrize("kind", ["Keras's", "oncue's", "own", "function"])
def test_a_schedule_that_is_set_on_the_optimizer(
    keras: ModuleType, kind: str, name: str, trained_before: bool, recwarn: pytest.WarningsRecorder
) -> None:
    class Own(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 0.05 / (keras.ops.cast(step, "float32") + 1.0)

    def compiled(keras: Any) -> dict[str, Any]:
        accumulating = {"gradient_accumulation_steps": 2} if name == "accumulating" else {}
        kind = getattr(keras.optimizers, "Adam" if accumulating else name)
        return {"optimizer": kind(0.01, **accumulating), "loss": "mse"}

    def run(model: Any) -> Any:
        found = [fit(model, epochs=1)] if trained_before else []
        ours = kind == "oncue's" and isinstance(model, oncue.Model)
        home = (oncue if ours else keras).optimizers.schedules
        rates: dict[str, Any] = {"own": Own(), "function": lambda: 0.02}
        model.optimizer.learning_rate = rates.get(kind) or home.ExponentialDecay(0.05, 3, 0.5)
        found += [float(model.optimizer.learning_rate), fit(model, epochs=1), fit(model, epochs=2)]
        model.optimizer.learning_rate = home.PolynomialDecay(0.05, 30)
        return [*found, fit(model, epochs=2), model.optimizer.learning_rate * 1.0]

    models = twins(keras, dense, compiled)
    theirs, ours = both(models, run)
    same(theirs[:-1], ours[:-1])
    np.testing.assert_allclose(float(ours[-1]), float(theirs[-1]), rtol=1e-5)
    same_models(models)
    assert not [warning for warning in recwarn if "built for" in str(warning.message)]
    with pytest.raises(TypeError, match=r"settable|can't be set"):
        oncue.Model(models[1]).optimizer.learning_rate = 0.5


def test_a_schedule_that_keras_can_not_have(keras: ModuleType) -> None:
    class Mine(oncue.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> float:
            return 0.1

    for optimizer in ("adam", "lion"):
        (_, inner) = twins(keras, dense, lambda keras, optimizer=optimizer: {"optimizer": optimizer, "loss": "mse"})
        with pytest.raises(TypeError, match=r"got a Mine, .*Derive the class from `keras\.optimizers"):
            oncue.Model(inner).optimizer.learning_rate = Mine()


def test_an_optimizer_that_is_set_here_is_trained_with(keras: ModuleType) -> None:
    models = twins(keras, dense, compiled)

    def run(model: Any) -> Any:
        model.optimizer = keras.optimizers.SGD(0.1)
        return fit(model, callbacks=[keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=9.0)])

    same(*both(models, run))
    same_models(models)
