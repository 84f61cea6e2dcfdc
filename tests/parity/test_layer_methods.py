"""What layers of either library can be asked: specifications of inputs, calls without state, configurations, arrays."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import to_numpy


def both(keras: ModuleType, make: Any) -> list[Any]:
    return [make(keras), make(oncue)]


SPECS: dict[str, tuple[dict[str, Any], Any]] = {
    "axes": ({"min_ndim": 2, "axes": {-1: 3}}, np.ones((2, 4), "float32")),
    "rank": ({"ndim": 3}, np.ones((2, 4), "float32")),
    "least rank": ({"min_ndim": 3}, np.ones((2, 4), "float32")),
    "most rank": ({"max_ndim": 1}, np.ones((2, 4), "float32")),
    "shape": ({"shape": (None, 3)}, np.ones((2, 4), "float32")),
    "type": ({"dtype": "int32"}, np.ones((2, 4), "float32")),
    "fits": ({"shape": (None, 4), "dtype": "float32"}, np.ones((2, 4), "float32")),
    "last axis": ({"shape": (None, 4, 1), "allow_last_axis_squeeze": True}, np.ones((2, 4), "float32")),
    "several": ({"ndim": 2}, [np.ones((2, 4), "float32"), np.ones((2, 4), "float32")]),
}


@pytest.mark.parametrize("case", SPECS)
def test_specifications_of_inputs(case: str, keras: ModuleType) -> None:
    arguments, given = SPECS[case]

    def called(k: Any) -> str:
        class Own(k.layers.Layer):  # type: ignore[misc, name-defined]  # of either library
            def __init__(self) -> None:
                super().__init__(name="own")
                self.input_spec = k.layers.InputSpec(**arguments)

            def call(self, inputs: Any) -> Any:
                return inputs

        layer = Own()
        for _ in range(2):
            try:
                layer(given)
            except ValueError as error:
                return str(error).split("Inputs received")[0].strip()
        return "taken"

    theirs, ours = both(keras, called)
    assert ours == theirs and repr(oncue.layers.InputSpec(**arguments)) == repr(keras.layers.InputSpec(**arguments))


def test_a_call_without_state(keras: ModuleType) -> None:
    def called(k: Any) -> list[Any]:
        model = k.Sequential(
            [
                k.Input((5, 3)),
                k.layers.Conv1D(2, 2, kernel_regularizer="l2"),
                k.layers.BatchNormalization(),
                k.layers.LSTM(2),
            ]
        )
        draws = np.random.default_rng(0)
        trained, rest = (
            [draws.normal(size=tuple(weight.shape)).astype("float32") ** 2 for weight in weights]
            for weights in (model.trainable_variables, model.non_trainable_weights)
        )
        before = model.get_weights()
        x = draws.normal(size=(4, 5, 3)).astype("float32")
        trained = [torch.from_numpy(value).requires_grad_() for value in trained]
        rest = [*rest, *[v.value for v in model.non_trainable_variables[len(rest) :]]]
        outputs, after, losses = model.stateless_call(trained, rest, x, training=True, return_losses=True)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        gradients = torch.autograd.grad(outputs.sum() + losses[0], trained)
        return [to_numpy(outputs), *map(to_numpy, after[:2]), *map(to_numpy, gradients), float(losses[0].detach())]

    for expected, found in zip(*both(keras, called), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_call_without_state_needs_as_many_values_as_weights() -> None:
    layer = oncue.layers.Dense(1)
    with pytest.raises(ValueError, match="no weights yet"):
        layer.stateless_call([], [], np.ones((1, 2)))
    layer.build((None, 2))
    with pytest.raises(ValueError, match="`trainable_variables` of .* must have 2 values; got 1"):
        layer.stateless_call([np.ones((2, 1))], [], np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"must have the shape \(2, 1\); got \(3, 1\)"):
        layer.stateless_call([np.ones((3, 1)), np.zeros(1)], [], np.ones((1, 2)))


def test_metrics_of_layers(keras: ModuleType) -> None:
    def listed(k: Any) -> list[str]:
        class Inner(k.layers.Layer):  # type: ignore[misc, name-defined]  # of either library
            def __init__(self) -> None:
                super().__init__()
                self.inner = k.metrics.Mean(name="inner")

        class Outer(k.layers.Layer):  # type: ignore[misc, name-defined]  # as above
            def __init__(self) -> None:
                super().__init__()
                self.outer, self.part = k.metrics.Mean(name="outer"), Inner()

        return [metric.name for metric in Outer().metrics]

    theirs, ours = both(keras, listed)
    assert ours == theirs == ["outer", "inner"]


@pytest.mark.parametrize("name", ["quantize", "enable_lora"])
def test_what_layers_refuse(name: str) -> None:
    with pytest.raises(NotImplementedError, match="'own'.*Keras"):
        getattr(oncue.layers.Dense(2, name="own"), name)("int8")


def test_configurations_by_the_arguments(keras: ModuleType, tmp_path: Path) -> None:
    x = np.ones((3, 4))

    def saved(k: Any) -> list[Any]:
        class Own(k.Model):  # type: ignore[misc, name-defined]  # of either library
            def __init__(self, units: int = 2, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.dense = k.layers.Dense(units)

            def call(self, inputs: Any) -> Any:
                return self.dense(inputs)

        model = Own()
        model.compile("sgd", "mse")
        checkpoint = k.callbacks.ModelCheckpoint(str(tmp_path / "own.keras"))
        model.fit(x, np.ones((3, 2)), epochs=2, verbose=0, callbacks=[checkpoint])
        again = k.models.load_model(tmp_path / "own.keras", custom_objects={"Own": Own})
        np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
        return [type(again).__name__, again.compiled]

    assert saved(oncue) == saved(keras)


def test_arguments_that_an_init_does_not_pass_on() -> None:
    class Plain(oncue.Model):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.dense = oncue.layers.Dense(units)

    model = Plain(3)
    assert model.get_config() == {"units": 3}
    model.trainable = False
    # It would be lost in silence, and is refused by the `__init__` instead.
    assert model.get_config() == {"units": 3, "trainable": False}
    with pytest.raises(NotImplementedError, match="`units` of Plain is .*Define `Plain.get_config"):
        Plain.get_config(_with_object(Plain))


def _with_object(kind: Any) -> Any:
    model = kind.__new__(kind, object())
    oncue.Model.__init__(model)
    return model


ON_ARRAYS: dict[str, Any] = {
    "relu": lambda k: k.activations.relu(np.array([-1.0, 2.0])),
    "softmax": lambda k: k.activations.softmax(np.array([[1.0, 2.0]], "float32")),
    "softmax of two axes": lambda k: k.activations.softmax(torch.arange(12.0).reshape(2, 2, 3), axis=(1, 2)),
    "softmax of axes apart": lambda k: k.activations.softmax(torch.arange(12.0).reshape(2, 2, 3), axis=(0, 2)),
    "tanh of a list": lambda k: k.activations.tanh([0.5]),
    "MaxNorm": lambda k: k.constraints.MaxNorm(1.0)(np.ones((2, 2), "float32")),
    "NonNeg": lambda k: k.constraints.NonNeg()(np.array([-1.0, 1.0], "float32")),
    "L1L2": lambda k: k.regularizers.L1L2(0.1, 0.2)(np.array([-1.0, 1.0], "float32")),
    "orthogonal": lambda k: k.regularizers.OrthogonalRegularizer(0.1)(np.ones((2, 2), "float32")),
    "LSTM with a mask": lambda k: k.layers.LSTM(2, kernel_initializer="ones", recurrent_initializer="ones")(
        np.ones((2, 3, 4), "float32"), mask=np.array([[True, True, False]] * 2)
    ),
    "GRU with a state": lambda k: k.layers.GRU(2, kernel_initializer="ones", recurrent_initializer="ones")(
        np.ones((2, 3, 4), "float32"), initial_state=np.ones((2, 2), "float32")
    ),
    "BatchNormalization": lambda k: k.layers.BatchNormalization()(
        np.arange(24, dtype="float32").reshape(2, 3, 4), training=True, mask=np.array([[True, True, False]] * 2)
    ),
    "a seeded initializer": lambda k: k.initializers.GlorotUniform(seed=k.random.SeedGenerator(3))((3, 2)),
    "truncated_normal": lambda k: k.random.truncated_normal((3, 2), seed=1),
    "categorical": lambda k: k.random.categorical(np.log([[0.2, 0.8]]), 5, seed=1),
    "gamma": lambda k: k.random.gamma((3,), np.array([1.0, 2.0, 3.0], "float32"), seed=1),
}


@pytest.mark.parametrize("case", ON_ARRAYS)
def test_arrays_where_tensors_go(case: str, keras: ModuleType) -> None:
    theirs, ours = both(keras, ON_ARRAYS[case])
    assert theirs.dtype == ours.dtype
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-6)


def test_draws_of_binomial_and_beta(keras: ModuleType) -> None:
    for k in (keras, oncue):
        ones = to_numpy(k.random.binomial((2000,), np.array(10.0, "float32"), np.array(0.3, "float32"), seed=1))
        shares = to_numpy(k.random.beta((2000,), np.array(2.0, "float32"), np.array(3.0, "float32"), seed=1))
        assert abs(ones.mean() - 3) < 0.15 and abs(shares.mean() - 0.4) < 0.02 and 0 < shares.min() <= shares.max() < 1


def test_a_metric_whose_weight_begins_with_draws() -> None:
    class Own(oncue.metrics.Metric):
        def __init__(self) -> None:
            super().__init__()
            self.a = self.add_weight(shape=(2,), initializer="random_normal", name="a")

    assert to_numpy(Own().a.value).shape == (2,) and bool(Own().a.value.any())


def test_masks_given_to_compute_mask(keras: ModuleType) -> None:
    x, masks = [np.ones((1, 3, 2), "float32")] * 2, [np.array([[True, False, False]]), np.array([[False, False, True]])]
    for name in ("Add", "Maximum", "Concatenate"):
        theirs, ours = both(keras, lambda k, name=name: getattr(k.layers, name)().compute_mask(x, masks))
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
    with pytest.raises(ValueError, match="same length"):
        oncue.layers.Add().compute_mask(x, masks[:1])


def test_masks_of_several_inputs_of_a_layer_of_the_users_own(keras: ModuleType) -> None:
    def seen(k: Any) -> Any:
        class Own(k.layers.Layer):  # type: ignore[misc, name-defined]  # of either library
            supports_masking = True

            def call(self, inputs: Any, mask: Any = None) -> Any:
                self.seen = mask
                return inputs[0] + inputs[1]

            def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
                return mask[0]

        one = k.layers.Masking()(torch.tensor([[[0.0], [1.0]]]))
        layer = Own()
        outputs = layer([one, torch.ones(1, 2, 1)])
        return [to_numpy(layer.seen[0]).tolist(), layer.seen[1], to_numpy(outputs._keras_mask).tolist()]

    theirs, ours = both(keras, seen)
    assert ours == theirs
