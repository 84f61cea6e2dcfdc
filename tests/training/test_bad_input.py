"""Bad input is refused before the first step, by an error that says what came and what to type instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from oncue.callbacks import Callback

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4)).astype("float32")
REAL = RNG.normal(size=(12, 1)).astype("float32")
BINARY = (REAL > 0).astype("float32")
LABELS = np.arange(12) % 3
ONE_HOT = np.eye(3, dtype="float32")[LABELS]


def network(units: int = 1, activation: str | None = None) -> Any:
    return oncue.Sequential([oncue.layers.Input((4,)), oncue.layers.Dense(units, activation=activation)])


def compiled(loss: Any = "mse", units: int = 1, activation: str | None = None, **options: Any) -> Any:
    made = network(units, activation)
    made.compile(**{"optimizer": "sgd", "loss": loss, **options})
    return made


COMPILE: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "optimizer misspelt": ({"optimizer": "adm"}, ValueError, ["optimizer", "'adm'", "'adam'"]),
    "optimizer of another kind": ({"optimizer": 3}, (TypeError, ValueError), ["optimizer", "3"]),
    "loss misspelt": ({"loss": "msee"}, ValueError, ["loss", "'msee'", "'mse'"]),
    "loss of another kind": ({"loss": 3}, (TypeError, ValueError), ["loss", "3"]),
    "metric misspelt": ({"metrics": ["accurcy"]}, ValueError, ["metric", "'accurcy'", "'accuracy'"]),
    "metrics as a string": ({"metrics": "accuracy"}, ValueError, ["`metrics`", "list", "metrics=['accuracy']"]),
    "a metric of another kind": ({"metrics": [3]}, (TypeError, ValueError), ["metric", "3"]),
    "weighted metrics as a string": ({"weighted_metrics": "acc"}, ValueError, ["`weighted_metrics`", "list"]),
    "loss_weights as text": ({"loss_weights": ["a"]}, ValueError, ["`loss_weights`", "'a'"]),
    "unknown argument": ({"metric": ["mae"]}, TypeError, ["`compile`", "`metric`", "`metrics`"]),
    "another unknown argument": ({"optimiser": "sgd"}, TypeError, ["`optimiser`", "`optimizer`"]),
    "steps_per_execution of 0": ({"steps_per_execution": 0}, ValueError, ["`steps_per_execution`", "0"]),
    "jit_compile as text": ({"jit_compile": "yes"}, ValueError, ["`jit_compile`", "'yes'"]),
}


@pytest.mark.parametrize("case", COMPILE)
def test_compile_refuses(case: str) -> None:
    options, error, words = COMPILE[case]
    with pytest.raises(error) as caught:
        network().compile(**{"loss": "mse", **options})
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_an_unknown_activation() -> None:
    with pytest.raises(ValueError, match="'relux'.*'relu'"):
        network(activation="relux")


def generator() -> Any:
    yield X, REAL


FIT: dict[str, tuple[Callable[[], Any], tuple[Any, ...], dict[str, Any], Any, list[str]]] = {
    "lengths differ": (compiled, (X, REAL[:10]), {}, ValueError, ["`x` (12, 4)", "`y` (10, 1)"]),
    "weights of another length": (
        compiled,
        (X, REAL),
        {"sample_weight": np.ones(5)},
        ValueError,
        ["`sample_weight` (5,)"],
    ),
    "no samples": (compiled, (X[:0], REAL[:0]), {}, ValueError, ["no samples", "(0, 4)"]),
    "no x": (compiled, (None, None), {}, ValueError, ["`x` is None"]),
    "text as x": (compiled, (["a", "b"], [0, 1]), {}, ValueError, ["x", "text"]),
    "a path as x": (compiled, ("data.csv", None), {}, ValueError, ["`x`", "'data.csv'"]),
    "objects as x": (compiled, (np.array([{}, {}]), [0, 1]), {}, ValueError, ["`x`", "numbers"]),
    "ragged x": (compiled, ([[1.0, 2.0], [1.0]], [0, 1]), {}, ValueError, ["`x`", "lengths"]),
    "a scalar x": (compiled, (np.float32(1), np.float32(1)), {}, ValueError, ["`x`", "batch axis"]),
    "a function as x": (compiled, (generator, None), {}, ValueError, ["`x`", "generator()"]),
    "too few columns": (compiled, (X[:, :3], REAL), {}, ValueError, ["(12, 3)", "4"]),
    "too many axes": (compiled, (X[:, None, None], REAL), {}, ValueError, ["(12, 1, 1, 4)", "(None, 4)"]),
    "y of another width": (lambda: compiled("mse", 2), (X, np.ones((12, 3))), {}, ValueError, ["(12, 3)", "2)"]),
    "y with the generator": (compiled, (generator(), REAL), {}, ValueError, ["`y`", "generator"]),
    "no y": (compiled, (X,), {}, ValueError, ["`y`"]),
    "labels out of range": (
        lambda: compiled("sparse_categorical_crossentropy", 3, "softmax"),
        (X, LABELS + 1),
        {},
        ValueError,
        ["0 to 2", "1 to 3", "4 units"],
    ),
    "negative labels": (
        lambda: compiled("sparse_categorical_crossentropy", 3, "softmax"),
        (X, LABELS - 1),
        {},
        ValueError,
        ["0 to 2", "-1 to 1", "ignore_class"],
    ),
    "labels with fractions": (
        lambda: compiled("sparse_categorical_crossentropy", 3, "softmax"),
        (X, LABELS + 0.5),
        {},
        ValueError,
        ["whole numbers"],
    ),
    "one-hot for sparse": (
        lambda: compiled("sparse_categorical_crossentropy", 3, "softmax"),
        (X, ONE_HOT),
        {},
        ValueError,
        ["one-hot", "categorical_crossentropy"],
    ),
    "labels for categorical": (
        lambda: compiled("categorical_crossentropy", 3, "softmax"),
        (X, LABELS),
        {},
        ValueError,
        ["class labels", "sparse_categorical_crossentropy", "to_categorical"],
    ),
    "class labels for binary": (
        lambda: compiled("binary_crossentropy", 1, "sigmoid"),
        (X, LABELS),
        {},
        ValueError,
        ["from 0 to 1", "0 to 2", "sparse_categorical_crossentropy"],
    ),
    "signs for binary": (
        lambda: compiled("binary_crossentropy", 1, "sigmoid"),
        (X, BINARY * 2 - 1),
        {},
        ValueError,
        ["-1", "hinge"],
    ),
    "labels for torch's loss": (
        lambda: compiled(torch.nn.CrossEntropyLoss(), 3),
        (X, LABELS + 2),
        {},
        ValueError,
        ["0 to 2", "2 to 4"],
    ),
    "categorical with one output": (
        lambda: compiled("categorical_crossentropy", 1, "sigmoid"),
        (X, BINARY),
        {},
        ValueError,
        ["binary_crossentropy"],
    ),
    "NaN in y of a binary loss": (
        lambda: compiled("binary_crossentropy", 1, "sigmoid"),
        (X, np.full((12, 1), np.nan)),
        {},
        ValueError,
        ["nan"],
    ),
    "NaN in sample_weight": (
        compiled,
        (X, REAL),
        {"sample_weight": np.full(12, np.nan)},
        ValueError,
        ["`sample_weight`", "NaN"],
    ),
    "infinite sample_weight": (
        compiled,
        (X, REAL),
        {"sample_weight": np.full(12, np.inf)},
        ValueError,
        ["`sample_weight`"],
    ),
    "NaN in class_weight": (
        compiled,
        (X, BINARY),
        {"class_weight": {0: float("nan")}},
        ValueError,
        ["`class_weight[0]`", "nan"],
    ),
    "class_weight as a list": (compiled, (X, BINARY), {"class_weight": [1, 2]}, TypeError, ["`class_weight`", "dict"]),
    "both weights": (
        compiled,
        (X, BINARY),
        {"class_weight": {0: 1.0}, "sample_weight": np.ones(12)},
        ValueError,
        ["`class_weight`", "`sample_weight`"],
    ),
    "batch_size 0": (compiled, (X, REAL), {"batch_size": 0}, ValueError, ["`batch_size`", "0"]),
    "batch_size negative": (compiled, (X, REAL), {"batch_size": -4}, ValueError, ["`batch_size`", "-4"]),
    "batch_size a float": (compiled, (X, REAL), {"batch_size": 4.5}, ValueError, ["`batch_size`", "4.5"]),
    "batch_size text": (compiled, (X, REAL), {"batch_size": "4"}, ValueError, ["`batch_size`", "'4'"]),
    "epochs negative": (compiled, (X, REAL), {"epochs": -1}, ValueError, ["`epochs`", "-1"]),
    "epochs a float": (compiled, (X, REAL), {"epochs": 1.5}, ValueError, ["`epochs`", "1.5"]),
    "epochs None": (compiled, (X, REAL), {"epochs": None}, ValueError, ["`epochs`", "None"]),
    "epochs True": (compiled, (X, REAL), {"epochs": True}, ValueError, ["`epochs`", "True"]),
    "initial_epoch negative": (compiled, (X, REAL), {"initial_epoch": -2}, ValueError, ["`initial_epoch`", "-2"]),
    "verbose 3": (compiled, (X, REAL), {"verbose": 3}, ValueError, ["`verbose`", "3"]),
    "verbose text": (compiled, (X, REAL), {"verbose": "no"}, ValueError, ["`verbose`", "'no'"]),
    "verbose None": (compiled, (X, REAL), {"verbose": None}, ValueError, ["`verbose`", "None"]),
    "shuffle text": (compiled, (X, REAL), {"shuffle": "yes"}, ValueError, ["`shuffle`", "'yes'"]),
    "steps_per_epoch 0": (compiled, (X, REAL), {"steps_per_epoch": 0}, ValueError, ["steps", "0"]),
    "validation_freq 0": (
        compiled,
        (X, REAL),
        {"validation_freq": 0, "validation_data": (X, REAL)},
        ValueError,
        ["`validation_freq`", "0"],
    ),
    "validation_freq text": (
        compiled,
        (X, REAL),
        {"validation_freq": "2", "validation_data": (X, REAL)},
        ValueError,
        ["`validation_freq`"],
    ),
    "validation_split 1": (compiled, (X, REAL), {"validation_split": 1.0}, ValueError, ["`validation_split`", "1.0"]),
    "validation_split negative": (
        compiled,
        (X, REAL),
        {"validation_split": -0.1},
        ValueError,
        ["`validation_split`", "-0.1"],
    ),
    "validation_split leaves nothing": (
        compiled,
        (X[:1], REAL[:1]),
        {"validation_split": 0.1},
        ValueError,
        ["`validation_split=0.1`", "1 samples"],
    ),
    "validation_split of a generator": (
        compiled,
        (generator(),),
        {"validation_split": 0.5},
        ValueError,
        ["`validation_split`", "validation_data"],
    ),
    "validation_data of four": (
        compiled,
        (X, REAL),
        {"validation_data": (X, REAL, REAL, REAL)},
        ValueError,
        ["`validation_data`", "4"],
    ),
    "validation_data without y": (compiled, (X, REAL), {"validation_data": X}, ValueError, ["y"]),
    "validation lengths differ": (
        compiled,
        (X, REAL),
        {"validation_data": (X, REAL[:3])},
        ValueError,
        ["(12, 4)", "(3, 1)"],
    ),
    "validation labels out of range": (
        lambda: compiled("sparse_categorical_crossentropy", 3, "softmax"),
        (X, LABELS),
        {"validation_data": (X, LABELS + 1)},
        ValueError,
        ["0 to 2", "1 to 3"],
    ),
    "validation columns": (compiled, (X, REAL), {"validation_data": (X[:, :2], REAL)}, ValueError, ["(12, 2)"]),
    "an unknown argument": (compiled, (X, REAL), {"epoch": 3}, TypeError, ["`fit`", "`epoch`", "`epochs`"]),
    "an argument of another method": (compiled, (X, REAL), {"callback": []}, TypeError, ["`callback`", "`callbacks`"]),
    "masked entries": (
        compiled,
        (np.ma.masked_less(X, 0), REAL),
        {},
        ValueError,
        ["`x` is a masked array", "`x.filled(0)`"],
    ),
    "complex x": (compiled, (X + 1j, REAL), {}, ValueError, ["complex", "view_as_real"]),
    "complex y": (compiled, (X, REAL + 1j), {}, ValueError, ["`y_true` holds complex", "view_as_real"]),
    "nested tensor": (
        compiled,
        (torch.nested.nested_tensor([torch.zeros(4), torch.zeros(3)], layout=torch.jagged), REAL),
        {},
        ValueError,
        ["`x` is a nested tensor", "to_padded_tensor"],
    ),
    "text as weights": (
        compiled,
        (X, REAL),
        {"sample_weight": ["a"] * 12},
        ValueError,
        ["`sample_weight[0]`", "'a'", "`fit`"],
    ),
    "weights of an axis too many": (
        compiled,
        (X, REAL),
        {"sample_weight": np.ones((12, 4))},
        ValueError,
        ["`sample_weight` of shape (12, 4)", "(samples,)"],
    ),
    "weights of two axes too many": (
        compiled,
        (X, REAL),
        {"sample_weight": np.ones((12, 1, 1))},
        ValueError,
        ["`sample_weight` of shape (12, 1, 1)"],
    ),
    "validation text": (
        compiled,
        (X, REAL),
        {"validation_data": "x"},
        ValueError,
        ["`validation_data`", "`fit`", "'x'"],
    ),
    "validation lengths": (
        compiled,
        (X, REAL),
        {"validation_data": (X, REAL[:3])},
        ValueError,
        ["`validation_data` can't be used", "(12, 4)", "(3, 1)"],
    ),
    "not compiled": (network, (X, REAL), {}, ValueError, ["compile", "`fit`", "optimizer="]),
    "no loss": (lambda: compiled(None), (X, REAL), {}, ValueError, ["loss", "compile"]),
}


@pytest.mark.parametrize("case", FIT)
def test_fit_refuses_before_the_first_step(case: str) -> None:
    make, data, options, error, words = FIT[case]
    made = make()
    before = [np.array(weight) for weight in made.get_weights()]
    steps: list[int] = []

    class Steps(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            steps.append(batch)

    with pytest.raises(error) as caught:
        made.fit(*data, **{"verbose": 0, "callbacks": [Steps()], **options})
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert steps == []
    for old, new in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


OTHERS: dict[str, tuple[Callable[[Any], Any], Any, list[str]]] = {
    "evaluate unknown argument": (
        lambda m: m.evaluate(X, REAL, batchsize=3),
        TypeError,
        ["`evaluate`", "`batch_size`"],
    ),
    "predict unknown argument": (lambda m: m.predict(X, batchsize=3), TypeError, ["`predict`", "`batch_size`"]),
    "evaluate lengths": (lambda m: m.evaluate(X, REAL[:2]), ValueError, ["(12, 4)", "(2, 1)"]),
    "evaluate without y": (lambda m: m.evaluate(X), ValueError, ["`y`"]),
    "evaluate nothing": (lambda m: m.evaluate(), ValueError, ["`evaluate`", "`x` is None"]),
    "evaluate batch_size": (lambda m: m.evaluate(X, REAL, batch_size=0), ValueError, ["`batch_size`", "0"]),
    "evaluate verbose": (lambda m: m.evaluate(X, REAL, verbose=5), ValueError, ["`verbose`", "5"]),
    "evaluate weights": (
        lambda m: m.evaluate(X, REAL, sample_weight=np.full(12, np.nan)),
        ValueError,
        ["`sample_weight`", "NaN"],
    ),
    "predict nothing": (lambda m: m.predict(None), ValueError, ["`predict`", "`x` is None"]),
    "predict no samples": (lambda m: m.predict(X[:0]), ValueError, ["no samples"]),
    "predict text": (lambda m: m.predict("x.csv"), ValueError, ["`x`", "'x.csv'"]),
    "predict batch_size": (lambda m: m.predict(X, batch_size=1.5), ValueError, ["`batch_size`", "1.5"]),
    "predict columns": (lambda m: m.predict(X[:, :1]), ValueError, ["(12, 1)", "4"]),
    "train_on_batch lengths": (lambda m: m.train_on_batch(X, REAL[:2]), ValueError, ["(12, 4)", "(2, 1)"]),
    "train_on_batch nothing": (lambda m: m.train_on_batch(X[:0], REAL[:0]), ValueError, ["no samples"]),
    "test_on_batch width": (lambda m: m.test_on_batch(X, np.ones((12, 5, 2))), ValueError, ["(12, 5, 2)"]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_methods_refuse(case: str) -> None:
    act, error, words = OTHERS[case]
    with pytest.raises(error) as caught:
        act(compiled())
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("method", ["evaluate", "train_on_batch", "test_on_batch"])
def test_methods_that_need_compile(method: str) -> None:
    with pytest.raises(ValueError, match=rf"compile.*`{method}`"):
        getattr(network(), method)(X, REAL)


def test_predict_works_without_compile() -> None:
    assert network().predict(X, verbose=0).shape == (12, 1)
    assert network().predict_on_batch(X).shape == (12, 1)


SET_WEIGHTS: dict[str, tuple[Any, list[str]]] = {
    "too few": ([np.ones((4, 1))], ["1", "2"]),
    "another shape": ([np.ones((1, 4)), np.ones(1)], ["(1, 4)", "(4, 1)"]),
}


@pytest.mark.parametrize("case", SET_WEIGHTS)
def test_set_weights_refuses(case: str) -> None:
    weights, words = SET_WEIGHTS[case]
    made = network()
    before = made.get_weights()
    with pytest.raises(ValueError) as caught:
        made.set_weights(weights)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    for old, new in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_generator_that_runs_dry_ends_the_run_cleanly() -> None:
    def twice() -> Any:
        yield X[:6], REAL[:6]
        yield X[6:], REAL[6:]

    epochs: list[int] = []
    count = oncue.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch), on_epoch_end=lambda epoch, logs: epochs.append(epoch)
    )
    with pytest.warns(UserWarning, match="ran out of data"):
        history = compiled().fit(twice(), epochs=4, verbose=0, callbacks=[count])
    assert history.epoch == [0]
    assert epochs == [0, 0]


def test_fewer_batches_than_steps() -> None:
    with (
        pytest.warns(UserWarning, match="ran out of data after 3 of 5 steps"),
        pytest.warns(UserWarning, match="epoch 2 got no batch"),
        pytest.warns(UserWarning, match="ran out of data after 0 of 5 steps"),
    ):
        history = compiled().fit(((X[:4], REAL[:4]) for _ in range(3)), steps_per_epoch=5, epochs=3, verbose=0)
    assert history.epoch == [0]


def test_an_empty_generator() -> None:
    with pytest.raises(ValueError, match="no batch"):
        compiled().fit(iter(()), verbose=0)


def test_a_bad_batch_in_the_middle_says_which() -> None:
    def batches() -> Any:
        yield X, REAL
        yield X, REAL[:3]

    with pytest.raises(ValueError, match=r"Batch 1 of the generator.*\(3, 1\)"):
        compiled().fit(batches(), verbose=0)


def test_batch_size_for_a_generator_is_ignored_aloud() -> None:
    with pytest.warns(UserWarning, match="`batch_size=3` is ignored"):
        compiled().fit(generator(), batch_size=3, verbose=0)


def test_good_input_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = compiled(metrics=["mae"])
        made.fit(X, REAL, epochs=np.int64(2), batch_size=np.int32(5), verbose=0, validation_split=0.25)
        made.evaluate(X.tolist(), REAL.tolist(), verbose=0)
        made.predict(torch.from_numpy(X), verbose=0)


@pytest.mark.parametrize("kind", [torch.nn.Embedding, torch.nn.EmbeddingBag])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "loss_scale"])
def test_sparse_gradients_are_for_optimizers_of_torch(kind: Any, optimizer: Any) -> None:
    def embedding() -> Any:
        parts = [kind(5, 3, sparse=True), torch.nn.Flatten(), torch.nn.LazyLinear(1)]
        return oncue.Model(torch.nn.Sequential(*parts))

    tokens = np.arange(24).reshape(12, 2) % 5
    model = embedding()
    scaling = oncue.optimizers.LossScaleOptimizer("adam")
    model.compile(scaling if optimizer == "loss_scale" else optimizer, loss="mse")
    with pytest.raises(
        ValueError, match=rf"{kind.__name__}\(sparse=True\) at 'module.0'.*leave out `sparse=True`, or give"
    ):
        model.fit(tokens, REAL, verbose=0)
    model = embedding()
    model(tokens)
    model.compile(torch.optim.SGD(model.parameters()), loss="mse")
    assert np.isfinite(model.fit(tokens, REAL, verbose=0).history["loss"]).all()
