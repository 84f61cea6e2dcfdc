"""Variables of the user's own: as attributes of layers, in losses, compiled steps, files, copies and resumed runs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import samples, tensor, to_numpy
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback


class Annealed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1)
        self.beta = keras.Variable(0.0, trainable=False, name="beta")
        self.scale = keras.Variable([1.5], name="scale")
        self.calls = keras.Variable(0, dtype="int32", trainable=False, name="calls")

    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        outputs: torch.Tensor = self.dense(inputs) * self.scale
        if training:
            self.calls.assign_add(1)
        self.add_loss(self.beta * (outputs**2).mean())
        return outputs


class Anneal(Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.beta.assign_add(0.25)


def made(**compiled: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = Annealed()
    model.compile(keras.optimizers.SGD(0.02), "mse", **compiled)
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 4) -> Any:
    options = {"epochs": epochs, "batch_size": 4, "shuffle": False, "verbose": 0}
    return model.fit(samples(4), samples(1), callbacks=[Anneal(), *callbacks], **options)


def values(model: Any) -> list[Any]:
    return [float(model.beta), to_numpy(model.scale).tolist(), int(model.calls), model.dense.kernel.tolist()]


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_annealing_the_weight_of_a_term_of_the_loss(jit: bool) -> None:
    model = made(jit_compile=jit)
    losses = fit(model).history["loss"]
    assert float(model.beta) == 1.0 and int(model.calls) == 8
    assert float(to_numpy(model.scale)[0]) != 1.5
    # By hand, with plain tensors.
    torch.manual_seed(0)
    twin = made()
    twin(samples(4)[:1])
    weights = [p.detach().clone().requires_grad_() for p in (twin.dense.kernel, twin.dense.bias, twin.scale.value)]
    kernel, bias, scale = weights
    x, y = (torch.as_tensor(samples(size)).to(kernel.device) for size in (4, 1))
    expected = []
    for epoch in range(4):
        total = 0.0
        for start in (0, 4):
            outputs = (x[start : start + 4] @ kernel + bias) * scale
            loss = ((outputs - y[start : start + 4]) ** 2).mean() + 0.25 * epoch * (outputs**2).mean()
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= 0.02 * gradient
            total += float(loss.detach())
        expected.append(total / 2)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_it_is_a_weight() -> None:
    model = made()
    fit(model, epochs=1)
    assert [weight.name for weight in model.weights] == ["scale", "beta", "calls", "kernel", "bias"]
    assert model.beta in model.non_trainable_variables and model.scale is model.trainable_variables[0]
    assert sorted(model.state_dict()) == ["beta", "calls", "dense.bias", "dense.kernel", "scale"]
    model.set_weights([weight * 0 for weight in model.get_weights()])
    assert values(model)[:3] == [0.0, [0.0], 0]


@pytest.mark.parametrize("name", ["w.weights.h5", "w.h5", "w.safetensors"])
def test_in_files_of_weights(name: str, tmp_path: Path) -> None:
    one, other = made(), made()
    for model in (one, other):
        fit(model, epochs=1)
    one.beta.assign(0.75)
    one.calls.assign(2**30)
    one.save_weights(tmp_path / name)
    other.load_weights(tmp_path / name)
    assert values(other) == values(one)


class Tempered(layers.Layer):
    def __init__(self, start: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.temperature = keras.Variable(start)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs / self.temperature

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start}


def test_in_a_model_file(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3), Tempered()])
    model.compile("adam", "mse")
    model.fit(samples(4), samples(3), epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", custom_objects={"Tempered": Tempered})
    assert float(again.layers[-1].temperature) == float(model.layers[-1].temperature) != 2.0
    x = samples(4)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    # The optimizer's state came along.
    for one in (model, again):
        one.fit(samples(4), samples(3), epochs=1, verbose=0, shuffle=False)
    assert float(again.layers[-1].temperature) == float(model.layers[-1].temperature)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_in_a_resumed_run(jit: bool, tmp_path: Path) -> None:
    class Cut(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 1 and int(self.model.calls) == 5:
                raise ConnectionError

    whole = made(jit_compile=jit)
    expected = fit(whole).history["loss"]
    with pytest.raises(ConnectionError):
        fit(made(jit_compile=jit), BackupAndRestore(tmp_path, save_freq=1), Cut())
    resumed = made(jit_compile=jit)
    found = fit(resumed, BackupAndRestore(tmp_path, save_freq=1)).history["loss"]
    assert found == expected and values(resumed) == values(whole)


@pytest.mark.parametrize("held", ["callback", "loss"])
def test_one_that_belongs_to_no_layer_in_a_resumed_run(held: str, tmp_path: Path) -> None:
    def run(cut: bool, folder: Path) -> Any:
        weight = keras.Variable(1.0, trainable=False)

        class Decays(Callback):
            def __init__(self) -> None:
                super().__init__()
                if held == "callback":
                    self.weight = weight

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                if cut and epoch == 2:
                    raise ConnectionError

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                weight.assign(weight * 0.5)

        def loss(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
            return weight * (y_pred - y_true) ** 2

        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.Input((4,)), layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.02), loss)
        backup = BackupAndRestore(folder)
        history = model.fit(samples(4), samples(1), epochs=4, verbose=0, callbacks=[Decays(), backup])
        return history.history["loss"], float(weight)

    expected = run(False, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        run(True, tmp_path / "cut")
    assert run(False, tmp_path / "cut") == expected and expected[1] == 1 / 16


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))], ids=["copy", "pickle"]
)
def test_copies_have_their_own(again: Callable[[Any], Any]) -> None:
    layer = Tempered()
    twin = again(layer)
    twin.temperature.assign(5.0)
    assert (float(layer.temperature), float(twin.temperature)) == (2.0, 5.0)
    assert twin.weights[0] is twin.temperature and to_numpy(twin(np.ones(1, "float32")))[0] == pytest.approx(0.2)
    alone = again(keras.Variable([1.0, 2.0], name="pair"))
    assert alone.name == "pair" and to_numpy(alone).tolist() == [1.0, 2.0]


def test_a_second_one_takes_its_place() -> None:
    layer = Tempered()
    layer.temperature = keras.Variable(3.0)
    assert [float(weight) for weight in layer.weights] == [3.0] and to_numpy(layer(tensor([1.0])))[0] == pytest.approx(
        1 / 3
    )
    layer.temperature = 4.0
    assert layer.weights == [] and layer.temperature == 4.0 and not layer.state_dict()


def test_one_that_two_layers_share() -> None:
    shared = keras.Variable(2.0)

    class Uses(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.factor = shared

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * self.factor

    model = keras.Sequential([layers.Input((1,)), Uses(), Uses()])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    assert len(model.weights) == 1
    model.fit(np.ones((1, 1), "float32"), np.zeros((1, 1), "float32"), verbose=0)
    # The error is factor ** 4, and its derivative 32.
    assert float(shared) == pytest.approx(2.0 - 0.1 * 32)
    model.to(torch.float64)
    assert shared.dtype == "float64"


def test_in_a_list() -> None:
    class Listed(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.factors = [keras.Variable(2.0), keras.Variable(3.0, trainable=False)]

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * self.factors[0] * self.factors[1]

    layer = Listed()
    assert to_numpy(layer(tensor([1.0])))[0] == 6.0
    assert [float(weight) for weight in layer.weights] == [2.0, 3.0] and len(layer.trainable_weights) == 1


def test_freezing() -> None:
    layer = Tempered(trainable=False)
    assert not layer.temperature.trainable and layer.trainable_weights == []
    layer.trainable = True
    assert layer.temperature.trainable
    switch = keras.Variable(1.0, trainable=False)
    layer.switch = switch
    switch.trainable = True
    assert layer.switch is switch and len(list(layer.parameters())) == 2 and not list(layer.buffers())


def test_before_the_parents_constructor() -> None:
    class Early(layers.Layer):
        def __init__(self) -> None:
            self.factor = keras.Variable(1.0)
            super().__init__()

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Early()


def test_arithmetic() -> None:
    v, x = keras.Variable([2.0, 3.0]), np.array([4.0, 5.0], "float32")
    other = keras.Variable(x)
    for right in (x, other, torch.as_tensor(x).to(v.value.device), [4.0, 5.0]):
        for found, expected in [
            (v + right, [6, 8]), (right + v if not isinstance(right, list) else v + right, [6, 8]),
            (v - right, [-2, -2]), (v * right, [8, 15]), (v / right, [0.5, 0.6]), (v**right, [16, 243]),
            (v < right, [1, 1]), (v == right, [0, 0]), (v != right, [1, 1]), (v >= right, [0, 0]), (v @ right, 23),
        ]:  # fmt: skip
            assert isinstance(found, torch.Tensor)
            np.testing.assert_allclose(to_numpy(found), np.float32(expected), rtol=1e-6)
    for found, expected in [
        (x - v, [2, 2]), (x * v, [8, 15]), (x / v, [2, 5 / 3]), (10 - v, [8, 7]), (6 // v, [3, 2]), (7 % v, [1, 1]),
        (2**v, [4, 8]), (-v, [-2, -3]), (abs(-1 * v), [2, 3]), (v[1], 3), (torch.square(v), [4, 9]), (round(v), [2, 3]),
    ]:  # fmt: skip
        np.testing.assert_allclose(to_numpy(found), np.float32(expected), rtol=1e-6)
    assert len(v) == 2 and float(v[0].detach()) == 2.0 and int(keras.Variable(3)) == 3 and bool(keras.Variable(True))
    assert f"{keras.Variable(0.25):.1f}" == "0.2" and {v: 1}[v] == 1
    assert to_numpy(v.assign(other)).tolist() == [4.0, 5.0] and to_numpy(v).tolist() == [4.0, 5.0]
    v.assign_sub(other)
    assert not np.asarray(v).any()
    with pytest.raises(ValueError, match="must have the shape"):
        v.assign(1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"initializer": "zeros"}, "needs a `shape`"),
        ({"initializer": [1.0, 2.0], "shape": (3,)}, r"has the shape \(2,\)"),
        ({"initializer": ["a"]}, "must be a number"),
        ({"initializer": 1.0, "name": "a/b"}, "without '/'"),
        ({"initializer": 1.0, "dtype": "float31"}, "dtype"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        keras.Variable(**given)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_constraint_goes_with_a_copy(again: Callable[[Any], Any]) -> None:
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2, kernel_constraint=keras.constraints.MaxNorm(0.5))])
    copied = again(model)
    copied.layers[0].kernel_constraint.max_value = 0.25
    for one, norm in ((copied, 0.25), (model, 0.5)):
        one.compile("sgd", "mse")
        one.fit(samples(4), samples(2), verbose=0)
        assert np.linalg.norm(one.get_weights()[0], axis=0).max() <= norm + 1e-3


def test_functions_of_numpy_take_it_as_an_array() -> None:
    variable = keras.Variable([[1.0, 4.0], [2.0, 3.0]])
    assert np.min(variable) == 1.0 and np.mean(variable, axis=0).tolist() == [1.5, 3.5]
    assert np.allclose(np.concatenate([variable, variable]), np.concatenate([variable.numpy()] * 2))
