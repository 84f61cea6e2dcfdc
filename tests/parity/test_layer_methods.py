"""What layers of either library can be asked: specifications of inputs, calls without state, configurations, arrays."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy


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
        class Own(k.layers.Layer):  # type: ignore[misc]  # of either library
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
        tensors = [torch.from_numpy(value).requires_grad_() for value in trained]
        rest = [*rest, *[v.value for v in model.non_trainable_variables[len(rest) :]]]
        outputs, after, losses = model.stateless_call(tensors, rest, x, training=True, return_losses=True)
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        gradients = torch.autograd.grad(outputs.sum() + losses[0], tensors)
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
        class Inner(k.layers.Layer):  # type: ignore[misc]  # of either library
            def __init__(self) -> None:
                super().__init__()
                self.inner = k.metrics.Mean(name="inner")

        class Outer(k.layers.Layer):  # type: ignore[misc]  # as above
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
        class Own(k.Model):  # type: ignore[misc]  # of either library
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
        class Own(k.layers.Layer):  # type: ignore[misc]  # of either library
            supports_masking = True

            def call(self, inputs: Any, mask: Any = None) -> Any:
                self.seen = mask
                return inputs[0] + inputs[1]

            def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
                return mask[0]

        one = k.layers.Masking()(tensor([[[0.0], [1.0]]]))
        layer = Own()
        outputs = layer([one, tensor(np.ones((1, 2, 1)), torch.float32)])
        return [to_numpy(layer.seen[0]).tolist(), layer.seen[1], to_numpy(outputs._keras_mask).tolist()]

    theirs, ours = both(keras, seen)
    assert ours == theirs


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    "mask", [np.array([[True, False], [True, True]]), np.array([[True], [False]])], ids=["whole", "wide"]
)
def test_normalization_under_a_mask_along_any_axis(axis: int, mask: Any, keras: ModuleType) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 3)).astype("float32")

    def normalized(k: Any) -> list[Any]:
        layer = k.layers.BatchNormalization(axis=axis, momentum=0.5)
        return [to_numpy(layer(x, training=True, mask=mask)), *layer.get_weights()]

    for expected, found in zip(*both(keras, normalized), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_masks_by_the_names_of_arguments(keras: ModuleType) -> None:
    def seen(k: Any) -> Any:
        class Own(k.layers.Layer):  # type: ignore[misc]  # of either library
            def call(self, query: Any, value: Any, query_mask: Any = None, value_mask: Any = None) -> Any:
                self.seen = [query_mask, value_mask]
                return query + value

        masked = k.layers.Masking()(torch.tensor([[[0.0], [1.0]]]))
        layer, found = Own(), []
        for arguments in ((masked, torch.ones(1, 2, 1)), (torch.ones(1, 2, 1), masked)):
            layer(*arguments)
            found.append([None if mask is None else to_numpy(mask).tolist() for mask in layer.seen])
        return found

    theirs, ours = both(keras, seen)
    assert ours == theirs == [[[[False, True]], None], [None, [[False, True]]]]


REFUSED: dict[str, Any] = {
    "TimeDistributed rank": lambda k: k.layers.TimeDistributed(k.layers.Dense(1))(
        np.ones((2, 3, 4)), mask=np.ones(2, bool)
    ),
    "TimeDistributed steps": lambda k: k.layers.TimeDistributed(k.layers.Dense(1))(
        np.ones((2, 3, 4)), mask=np.ones((2, 2), bool)
    ),
    "noise_shape": lambda k: k.layers.Dropout(0.5, noise_shape=(1, 0)),
    "noise_shape text": lambda k: k.layers.Dropout(0.5, noise_shape="1"),
    "trainable": lambda k: k.layers.Dense(1, trainable="no"),
    "logits": lambda k: k.random.categorical(np.ones(3), 2),
    "whole numbers": lambda k: k.random.uniform((2,), dtype="int32"),
    "floats": lambda k: k.random.randint((2,), 0, 3, dtype="float32"),
    "symbolic size": lambda k: [layer(k.Input((size,))) for layer in [k.layers.Dense(1)] for size in (2, 3)],
    "rank to order": lambda k: k.layers.Permute((2, 1))(np.ones((4, 8))),
    "sizes to join": lambda k: k.layers.Concatenate()([np.ones((1, 2, 1)), np.ones((1, 3, 1))]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_both_refuse(case: str, keras: ModuleType) -> None:
    for k in (keras, oncue):
        with pytest.raises(ValueError):
            REFUSED[case](k)


HELD: dict[str, Any] = {
    "built without weights": lambda k: [k.layers.ReLU().built, k.layers.Dropout(0.5).built, k.layers.Dense(1).built],
    "built with weights given": lambda k: k.layers.Embedding(2, 1, weights=[np.ones((2, 1))]).get_weights()[0].tolist(),
    "a constraint": lambda k: [
        [type(weight.constraint).__name__, type(weight.regularizer).__name__]
        for layer in [k.layers.Conv1D(2, 2, kernel_constraint="non_neg", kernel_regularizer="l1")]
        for weight in [layer.build((None, 4, 3)), *layer.weights][1:]
    ],
    "of a cell": lambda k: [
        k.layers.GRU(3).units,
        k.layers.GRU(3, dropout=0.5).dropout,
        k.layers.LSTM(3).unit_forget_bias,
    ],
    "whole numbers": lambda k: to_numpy(k.layers.Layer().add_weight((2,), dtype="int32", trainable=False)).tolist(),
    "dropped wholly": lambda k: to_numpy(k.random.dropout(torch.ones(2, 2), 1.0)).tolist(),
    "dropped by row": lambda k: tuple(k.random.dropout(torch.ones(3, 2), 0.5, noise_shape=(None, 1), seed=1).shape),
    "in half": lambda k: str(k.random.gamma((2,), 1.0, dtype="float16", seed=1).dtype),
}


@pytest.mark.parametrize("case", HELD)
def test_what_both_have(case: str, keras: ModuleType) -> None:
    theirs, ours = both(keras, HELD[case])
    assert ours == theirs


@pytest.mark.parametrize("name", ["ZeroPadding1D", "ZeroPadding2D", "MaxPooling1D", "Conv2D", "LSTM", "Permute"])
def test_a_symbolic_input_of_another_rank(name: str) -> None:
    given = {"Conv2D": (1, 1), "LSTM": (1,), "Permute": ((2, 1),), "MaxPooling1D": (2,)}
    with pytest.raises(ValueError, match="'own' .*axes"):
        getattr(oncue.layers, name)(*given.get(name, ()), name="own")(oncue.Input((8,)))
