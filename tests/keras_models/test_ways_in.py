"""One line, a block for all models, and what is refused."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from keras_models.side_by_side import X, Y, fit, same, same_models, twins

import oncue
from helpers import environment
from oncue.with_keras import KerasModel, accelerate


def dense(keras: Any) -> Any:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])


def plain(keras: Any) -> dict[str, Any]:
    return {"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "metrics": ["mae"]}


def test_one_line(keras: ModuleType) -> None:
    models = twins(keras, dense, plain)
    options = {"epochs": 2, "batch_size": 8, "shuffle": False, "verbose": 0}
    same(models[0].fit(X, Y, **options).history, oncue.fit(models[1], X, Y, **options).history)
    same_models(models)


def test_one_line_for_others() -> None:
    module = torch.nn.Linear(6, 1)
    with pytest.raises(
        ValueError, match=r"`fit` needs `optimizer` and `loss`, because the model isn't compiled.*oncue\.fit"
    ):
        oncue.fit(module, X, Y)
    history = oncue.fit(module, X, Y, optimizer="sgd", loss="mse", metrics=["mae"], epochs=2, verbose=0)
    assert list(history.history) == ["loss", "mae"]
    model = oncue.Sequential([oncue.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert len(oncue.fit(model, X, Y, epochs=2, verbose=0).history["loss"]) == 2
    with pytest.raises(
        TypeError, match=r"`model` must be a model of oncue or of Keras, or a torch\.nn\.Module; got 'net'"
    ):
        oncue.fit("net", X, Y)


def test_all_models_go_through_oncue_in_a_block(keras: ModuleType) -> None:
    models, before = twins(keras, dense, plain), [getattr(keras.Model, name) for name in ("fit", "evaluate", "predict")]
    found = [fit(models[0]), models[0].evaluate(X, Y, verbose=0), models[0].predict(X, verbose=0)]
    with accelerate():
        history = models[1].fit(X, Y, epochs=3, batch_size=8, shuffle=False, verbose=0)
        assert isinstance(history, oncue.callbacks.History) and models[1].history is history
        same(found, [history.history, models[1].evaluate(X, Y, verbose=0), models[1].predict(X, verbose=0)])
    assert [getattr(keras.Model, name) for name in ("fit", "evaluate", "predict")] == before
    assert not {"fit", "evaluate", "predict"} & set(vars(keras.Model))
    assert isinstance(models[1].fit(X, Y, verbose=0), keras.callbacks.History)


def test_all_models_go_through_oncue_until_it_is_stopped(keras: ModuleType) -> None:
    class Own(keras.Sequential):
        def fit(self, *args: Any, **kwargs: Any) -> Any:
            return super().fit(*args, **{**kwargs, "epochs": 2})

    model = Own([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    outer = accelerate()
    with pytest.raises(ConnectionError), accelerate():
        raise ConnectionError
    history = model.fit(X, Y, verbose=0)
    assert isinstance(history, oncue.callbacks.History) and len(history.epoch) == 2
    outer.stop()
    outer.stop()
    assert isinstance(model.fit(X, Y, verbose=0), keras.callbacks.History)


def test_a_keras_model_has_one_model(keras: ModuleType) -> None:
    inner = dense(keras)
    first = oncue.Model(inner)
    assert type(first) is KerasModel and oncue.Model(inner) is first and oncue.Model(inputs=inner) is first
    assert isinstance(first, oncue.Model) and first.keras_model is inner
    assert oncue.Model(dense(keras)) is not first


def test_it_shows_what_the_keras_model_has(keras: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    inner = dense(keras)
    model = oncue.Model(inner)
    assert model.name == inner.name and model.layers == inner.layers and model.count_params() == inner.count_params()
    assert [variable.path for variable in model.weights] == [variable.path for variable in inner.weights]
    assert model.input_shape == (None, 6) and model.output_shape == (None, 1)
    assert model.get_layer(index=0) is inner.layers[0]
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    assert float(inner.get_weights()[0].sum()) == 24
    model.beta = 3
    assert inner.beta == 3 and model.beta == 3
    with pytest.raises(AttributeError, match="gamma"):
        _ = model.gamma
    assert model(X[:2]).shape == inner(X[:2]).shape


def test_copies_have_a_keras_model_of_their_own(keras: ModuleType) -> None:
    inner = dense(keras)
    inner.compile(keras.optimizers.Adam(0.01), "mse")
    model = oncue.Model(inner)
    fit(model, epochs=1)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(made) is KerasModel and made.keras_model is not inner
        same(made.get_weights(), model.get_weights())
        assert int(made.keras_model.optimizer.iterations) == 5
    first, second = fit(copy.deepcopy(model), epochs=1), fit(model, epochs=1)
    same(first, second)
    clone = oncue.models.clone_model(model)
    assert type(clone) is KerasModel and clone.keras_model is not inner
    assert oncue.models.clone_model(inner).count_params() == inner.count_params()


def test_another_backend_is_refused_with_what_to_type(keras: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    said = r"Keras has the backend 'jax'.*before Keras is imported: `os\.environ\[\"KERAS_BACKEND\"\] = \"torch\"`"
    for refused in (lambda: oncue.Model(dense(keras)), lambda: oncue.fit(dense(keras), X, Y), accelerate):
        with pytest.raises(ValueError, match=said):
            refused()


def test_nothing_imports_keras_unasked() -> None:
    script = """
import sys, oncue
oncue.Model, oncue.fit, oncue.with_keras
import torch
oncue.Model(torch.nn.Linear(1, 1)).predict([[1.0]], verbose=0)
raise SystemExit("keras" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], env=environment(), timeout=60).returncode == 0


def test_what_a_keras_model_does_not_take(keras: ModuleType) -> None:
    inner = dense(keras)
    with pytest.raises(ValueError, match=r"`name` can't be given here: the Keras model is called"):
        oncue.Model(inner, name="other")
    with pytest.raises(ValueError, match=r"`device` is 'meta', and Keras works on .*KERAS_TORCH_DEVICE=meta"):
        oncue.Model(dense(keras), device="meta")
    with pytest.raises(ValueError, match=r"`precision` can't be given.*set_global_policy"):
        oncue.Model(inner).compile("sgd", "mse", precision="bf16")

    class Own(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    class Function(keras.Sequential):
        def make_train_function(self, force: bool = False) -> Any:
            return super().make_train_function(force)

    with pytest.raises(ValueError, match=r"Own has steps.*Compile the Keras model itself: `keras_model\.compile"):
        oncue.Model(Own([keras.layers.Dense(1)])).compile("sgd", "mse")
    with pytest.raises(
        TypeError, match=r"`Function\.make_train_function` would never be called here. Override `train_step`"
    ):
        oncue.Model(Function([keras.layers.Dense(1)]))


def test_a_layer_of_keras_is_no_part_of_a_module_of_torch(keras: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"a Dense of the real Keras, can't be a part of a module of torch"):
        oncue.Model(torch.nn.Sequential(keras.layers.Dense(3)))


def test_data_that_do_not_fit(keras: ModuleType) -> None:
    inner = dense(keras)
    inner.compile("sgd", "mse")
    with pytest.raises(ValueError, match="needs targets `y`"):
        oncue.Model(inner).fit(X, verbose=0)
    with pytest.raises(ValueError, match="incompatible with the layer"):
        oncue.Model(inner).fit(X[:, :3], Y, verbose=0)
