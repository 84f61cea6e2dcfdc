"""The plan of a model: completed for a run, shared by no copy, and held no longer than it is needed."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor
from oncue import layers
from oncue.callbacks import Callback

X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X[:, :1] * 2


def network() -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Custom(oncue.Sequential):
    """Has a step of its own around the one that all models have."""

    def train_step(self, data: Any) -> dict[str, Any]:
        return {**super().train_step(data), "mine": 1.0}


def custom() -> Any:
    oncue.utils.set_random_seed(0)
    model = Custom([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model(tensor(torch.ones(1, 3))),
        lambda model: model.predict(X, verbose=0),
        lambda model: model.predict_on_batch(X),
    ],
    ids=["call", "predict", "predict_on_batch"],
)
def test_a_model_that_nobody_needs_is_freed_at_once(use: Callable[[Any], Any]) -> None:
    model = network()
    gone = weakref.ref(model)
    gc.disable()
    try:
        use(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("make", "copied"),
    [
        (network, copy.deepcopy),
        (network, lambda model: pickle.loads(pickle.dumps(model))),
        (custom, copy.deepcopy),
    ],
    ids=["copy", "pickle", "copy of one with a step of its own"],
)
def test_a_copy_of_a_trained_model_is_trained_alike_and_apart(make: Callable[[], Any], copied: Any) -> None:
    model = make()
    model.fit(X, Y, verbose=0)
    other = copied(model)
    first, second = (one.fit(X, Y, shuffle=False, verbose=0).history for one in (other, model))
    assert first == second


def test_a_copy_takes_single_steps() -> None:
    model = custom()
    model.fit(X, Y, verbose=0)
    other = copy.deepcopy(model)
    data = tensor(X), tensor(Y)
    before = model.get_weights()
    assert set(other.train_step(data)) == {"loss", "mae", "mine"}
    assert not np.array_equal(other.get_weights()[0], before[0])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.parametrize("make", [network, custom])
def test_an_optimizer_that_is_assigned_trains_from_the_next_run_on(make: Callable[[], Any]) -> None:
    model = make()
    model.fit(X, Y, verbose=0)
    model.optimizer = oncue.optimizers.SGD(0.0)
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert model.optimizer.iterations == 1


def test_data_and_callbacks_may_use_the_model_while_it_is_trained() -> None:
    model = network()

    class Uses(Callback):
        def set_model(self, used: Any) -> None:
            super().set_model(used)
            used.predict(X, verbose=0)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            model.evaluate(X, Y, verbose=0)
            model.train_on_batch(X, Y)

    def batches() -> Iterator[Any]:
        for start in range(0, 32, 8):
            model.predict(X, verbose=0)
            yield X[start : start + 8], Y[start : start + 8]

    history = model.fit(batches(), validation_data=(X, Y), verbose=0, callbacks=[Uses()]).history
    assert set(history) == {"loss", "mae", "val_loss", "val_mae"}
    assert model.optimizer.iterations == 8


def test_a_method_of_the_class_is_used_from_the_next_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(oncue.Sequential):
        pass

    model = Mine([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    monkeypatch.setattr(Mine, "train_step", lambda self, data: {"mine": 2.0}, raising=False)
    assert model.fit(X, Y, verbose=0).history == {"mine": [2.0]}


def in_a_thread(work: Callable[[], Any]) -> BaseException | None:
    """Run a function in another thread, to its end; return what it raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return errors[0] if errors else None


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "train_on_batch", "predict_on_batch"])
def test_another_thread_does_not_use_a_model_that_is_being_trained(method: str) -> None:
    model, other = network(), network()
    refused: list[Any] = []

    def use() -> Any:
        options = {} if "on_batch" in method else {"verbose": 0}
        return getattr(model, method)(*([X] if "predict" in method else [X, Y]), **options)

    class Uses(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            refused.append(in_a_thread(use))

    history = model.fit(X, Y, shuffle=False, batch_size=16, verbose=0, callbacks=Uses()).history
    assert [type(error) for error in refused] == [RuntimeError, RuntimeError]
    assert "`fit` runs in another thread" in str(refused[0]) and "clone_model" in str(refused[0])
    assert history == other.fit(X, Y, shuffle=False, batch_size=16, verbose=0).history
    assert in_a_thread(use) is None


def test_two_threads_predict_with_one_model() -> None:
    model = network()
    results: list[Any] = []

    class Nested(Callback):
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            assert in_a_thread(lambda: results.append(model.predict(X, verbose=0))) is None

    results.append(model.predict(X, batch_size=32, verbose=0, callbacks=Nested()))
    np.testing.assert_array_equal(results[0], results[1])


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end", "on_test_batch_end", "on_train_begin"])
def test_a_fit_inside_a_hook_leaves_the_run_around_it_as_it_was(hook: str) -> None:
    def run(nested: bool) -> Any:
        oncue.utils.set_random_seed(0)
        model = oncue.Sequential(
            [layers.Input((3,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1)]
        )
        model.compile(oncue.optimizers.SGD(0.0), "mse", metrics=["mae"])
        inner: list[Any] = []

        class Stop(Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                model.stop_training = True

        class Fits(Callback):
            pass

        def fit(self: Any, *arguments: Any, **named: Any) -> None:
            if nested:
                weights, state = model.get_weights(), torch.get_rng_state()
                inner.append(model.fit(X, Y, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[Stop()]))
                model.set_weights(weights)
                torch.set_rng_state(state)

        setattr(Fits, hook, fit)
        history = model.fit(X, Y, epochs=2, verbose=0, shuffle=False, validation_data=(X, Y), callbacks=[Fits()])
        assert model.history is history and all(len(one.epoch) == 1 and one is not history for one in inner)
        return history.history

    assert run(True) == run(False)


@pytest.mark.parametrize("make", [network, custom])
@pytest.mark.parametrize("built", [False, True])
def test_steps_are_called_by_name_before_any_run(make: Callable[[], Any], built: bool) -> None:
    model, other = make(), make()
    if not built:
        model = type(model)([layers.Dense(4, activation="relu"), layers.Dense(1)])
        model(tensor(X))
        model.set_weights(other.get_weights())
        model.compile("adam", "mse", metrics=["mae"])
    assert model.predict_step((X, Y)).shape == (32, 1)
    first = {name: float(value) for name, value in model.test_step((X, Y)).items()}
    assert first == pytest.approx(other.evaluate(X, Y, verbose=0, return_dict=True), rel=1e-5)
    model.reset_metrics()
    one = [{name: float(value) for name, value in model.train_step((X, Y)).items()} for _ in range(3)]
    two = [other.train_on_batch(X, Y, return_dict=True) for _ in range(3)]
    assert model.optimizer.iterations == 3
    assert one[-1]["loss"] == pytest.approx(np.mean([logs["loss"] for logs in two]), rel=1e-5)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not any(module.training for module in model.modules())


def test_a_step_that_is_called_by_name_trains_in_training_mode() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_step((X, Y))
    moved = model.layers[0].get_weights()[2]
    assert moved.any()
    model.test_step((X, Y))
    np.testing.assert_array_equal(model.layers[0].get_weights()[2], moved)
    with pytest.raises(ValueError, match="Call `compile` before `train_step`"):
        oncue.Sequential([layers.Dense(1)]).train_step((X, Y))
