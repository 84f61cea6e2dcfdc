"""Steps of one's own, written as Keras's guide for torch writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import oncue
import oncue as keras
from oncue.callbacks import LambdaCallback

RNG = np.random.default_rng(5)
X = RNG.normal(size=(20, 3)).astype("float32")
Y = RNG.normal(size=(20, 1)).astype("float32")


def build(kind: type) -> Any:
    return kind([keras.layers.Input((3,)), keras.layers.Dense(1)])


def reference(**fit: Any) -> tuple[dict[str, list[float]], list[Any]]:
    """Return what the built-in step gives, from weights of 0.1."""
    made = start(build(keras.Sequential))
    made.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0, **fit)
    return history.history, made.get_weights()


def start(made: Any) -> Any:
    made.set_weights([np.full(weight.shape, 0.1, "float32") for weight in made.get_weights()])
    return made


def same(made: Any, history: Any, **fit: Any) -> None:
    expected, weights = reference(**fit)
    assert list(history.history) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-4)
    for mine, theirs in zip(made.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4)


def update(model: Any, loss: torch.Tensor) -> None:
    loss.backward()
    weights = list(model.trainable_weights)
    gradients = [variable.value.grad for variable in weights]
    with torch.no_grad():
        model.optimizer.apply(gradients, weights)


class WithCompiledLoss(keras.Sequential):
    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        update(self, loss)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=x.shape[0])
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=x.shape[0])
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def test_the_loss_and_metrics_of_compile() -> None:
    made = start(build(WithCompiledLoss))
    made.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0, validation_data=(X, Y))
    same(made, history, validation_data=(X, Y))
    loss, mae = made.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(
        [loss, mae], [history.history["val_loss"][-1], history.history["val_mae"][-1]], rtol=1e-5
    )


@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_end"])
def test_evaluate_in_a_hook_of_a_run_with_own_steps(hook: str) -> None:
    made = start(build(WithCompiledLoss))
    made.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    inside = LambdaCallback(**{hook: lambda *_: made.evaluate(X * 3, 1 - Y, verbose=0)})
    same(made, made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0, callbacks=[inside]))


class WithOwnMetrics(keras.Sequential):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.mae_metric = keras.metrics.MeanAbsoluteError(name="mae")
        self.loss_fn = keras.losses.MeanSquaredError()

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.loss_fn(y, y_pred)
        update(self, loss)
        self.loss_tracker.update_state(loss, sample_weight=len(x))
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_tracker, self.mae_metric]


def test_metrics_of_the_models_own() -> None:
    made = start(build(WithOwnMetrics))
    made.compile(optimizer=keras.optimizers.SGD(0.1))
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0)
    same(made, history)


def test_own_metrics_are_reset_in_every_epoch() -> None:
    class Counts(keras.Sequential):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.rows = keras.metrics.Sum(name="rows")

        def train_step(self, data: Any) -> dict[str, Any]:
            self.rows.update_state(float(len(data[0])))
            return {"rows": self.rows.result()}

    made = build(Counts)
    made.compile(optimizer="sgd")
    assert made.fit(X, Y, batch_size=6, epochs=3, verbose=0).history["rows"] == [20.0] * 3


def test_values_of_the_last_batch_when_they_are_no_metrics() -> None:
    class Plain(keras.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, _ = data
            return {"rows": len(x), "first": x[0, 0], "number": np.float32(0.5), "inner": {"deep": torch.tensor([2.0])}}

    seen: list[dict[str, Any]] = []
    listener = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))
    made = build(Plain)
    made.compile(optimizer="sgd", loss="mse")
    history = made.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[listener]).history
    assert {name: values[0] for name, values in history.items()} == {
        "deep": 2.0,
        "first": pytest.approx(float(X[16, 0])),
        "number": 0.5,
        "rows": 4.0,
    }
    assert [logs["rows"] for logs in seen] == [16.0, 4.0]
    assert all(type(value) is float for logs in seen for value in logs.values())


@pytest.mark.parametrize("value", [None, 3.0, [1.0], "loss"])
def test_a_step_that_returns_no_dict(value: Any) -> None:
    class Wrong(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return value

    made = build(Wrong)
    made.compile(optimizer="sgd", loss="mse")
    with pytest.raises(TypeError, match=r"Wrong\.train_step.*dict"):
        made.fit(X, Y, verbose=0)


def test_an_overridden_compute_loss() -> None:
    class Scaled(keras.Sequential):
        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> torch.Tensor:
            assert x is not None
            return 0.5 * torch.mean((y_pred - y) ** 2)

    made = start(build(Scaled))
    made.compile(optimizer=keras.optimizers.SGD(0.2), loss="mse", metrics=["mae"])
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0).history
    expected, weights = reference()
    np.testing.assert_allclose(np.array(history["loss"]) * 2, expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(history["mae"], expected["mae"], rtol=1e-4)
    np.testing.assert_allclose(made.get_weights()[0], weights[0], rtol=1e-4)


def test_compute_loss_needs_no_loss_in_compile() -> None:
    class Own(keras.Sequential):
        def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, **_: Any) -> torch.Tensor:
            return torch.mean((y_pred - y) ** 2)

    made = start(build(Own))
    made.compile(optimizer=keras.optimizers.SGD(0.1))
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"], reference()[0]["loss"], rtol=1e-4)


def test_super_steps_can_be_called() -> None:
    class Around(keras.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            return {**super().train_step(data), "extra": 1.0}

        def test_step(self, data: Any) -> dict[str, Any]:
            return super().test_step(data)

    made = start(build(Around))
    made.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0, validation_data=(X, Y)).history
    assert history.pop("extra") == [1.0, 1.0]
    expected, _ = reference(validation_data=(X, Y))
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4)


def test_a_subclass_with_call_and_layers_of_its_own() -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = keras.layers.Dense(4, activation="relu")
            self.drop = keras.layers.Dropout(0.5)
            self.out = keras.layers.Dense(1)

        def call(self, inputs: Any, training: bool = False) -> Any:
            modes.append(training)
            return self.out(self.drop(self.hidden(inputs), training=training))

    modes: list[bool] = []
    made = Net()
    made.compile(optimizer="adam", loss="mse")
    history = made.fit(X, Y, epochs=3, verbose=0).history
    assert len(history["loss"]) == 3
    assert True in modes
    modes.clear()
    first = made.predict(X, verbose=0)
    assert not any(modes)
    np.testing.assert_array_equal(first, made.predict(X, verbose=0))


def test_losses_that_layers_add_count_once_in_a_step() -> None:
    class Adds(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            self.add_loss(inputs.sum() * 0 + 3.0)
            return inputs

    made = start(keras.Sequential([keras.layers.Input((3,)), Adds(), keras.layers.Dense(1)]))
    made.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    made.predict(X, verbose=0)
    history = made.fit(X, Y, batch_size=6, epochs=2, shuffle=False, verbose=0, validation_data=(X, Y)).history
    expected, _ = reference(validation_data=(X, Y))
    np.testing.assert_allclose(np.array(history["loss"]) - 3, expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(np.array(history["val_loss"]) - 3, expected["val_loss"], rtol=1e-4)


def test_the_losses_of_a_model_in_a_step_of_its_own() -> None:
    class Own(keras.Sequential):
        def train_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            self.zero_grad()
            y_pred = self(x, training=True)
            loss = torch.mean((y_pred - y) ** 2) + sum(self.losses)
            update(self, loss)
            return {"loss": loss, "number": float(len(self.losses))}

    made = Own([keras.layers.Input((3,)), keras.layers.Dense(1, activity_regularizer="l2", kernel_regularizer="l2")])
    made.compile(optimizer="sgd")
    assert made.fit(X, Y, batch_size=5, epochs=2, verbose=0).history["number"] == [2.0, 2.0]


def test_an_own_compute_metrics_is_asked_in_every_step() -> None:
    class Twice(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.last = keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.last(inputs)

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
            results = super().compute_metrics(x, y, y_pred, sample_weight)
            return {**results, "twice": 2 * results["loss"]}

    made = Twice()
    made.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    history = made.fit(x, y, batch_size=4, epochs=2, validation_data=(x, y), verbose=0).history
    for prefix in ("", "val_"):
        assert history[f"{prefix}twice"] == pytest.approx([2 * loss for loss in history[f"{prefix}loss"]])
        assert len(history[f"{prefix}mae"]) == 2
    assert set(made.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "mae", "twice"}
    assert set(made.train_on_batch(x, y, return_dict=True)) == {"loss", "mae", "twice"}


class Bare(oncue.Sequential):
    """Trains in its own way, and leaves the loss and the metrics given to `compile` alone."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        self.optimizer.zero_grad()
        loss = self.compute_loss(y=y, y_pred=self(x))
        loss.backward()
        self.optimizer.step()
        return {"loss": loss}


def test_metrics_are_measured_beside_a_train_step_that_leaves_them_alone() -> None:
    def bare() -> Any:
        oncue.utils.set_random_seed(0)
        model = Bare([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=["mae"])
        return model

    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    y = x.sum(1, keepdims=True)
    model = bare()
    first = model.evaluate(x, y, verbose=0, return_dict=True)
    assert set(first) == {"loss", "mae"}
    history = bare().fit(x, y, epochs=2, verbose=0, validation_data=(x, y), batch_size=16).history
    assert list(history) == ["loss", "val_loss", "val_mae"]
    assert history["loss"] == pytest.approx([first["loss"], history["val_loss"][0]], rel=1e-5)


def test_a_loss_that_a_step_returns_is_logged_where_no_metric_was_given_it() -> None:
    model = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_step = lambda data: {"loss": torch.tensor(7.0)}
    assert model.fit(np.ones((4, 3)), np.ones((4, 1)), epochs=2, verbose=0).history == {"loss": [7.0, 7.0]}


@pytest.mark.parametrize("eager", [True, False])
def test_an_own_loss_is_told_whether_it_trains_and_sees_the_losses_of_layers(eager: bool, quick: None) -> None:
    seen: list[Any] = []

    class Mine(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = oncue.layers.Dense(1, activity_regularizer="l2")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
        ) -> Any:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            seen.append((training, len(self.losses)))
            return loss

    model = Mine()
    model.compile("sgd", "mse", run_eagerly=eager)
    data = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    model.fit(*data, verbose=0)
    assert seen[-1] == (True, 1)
    model.evaluate(*data, verbose=0)
    assert seen[-1] == (False, 1)
    assert not model.losses
