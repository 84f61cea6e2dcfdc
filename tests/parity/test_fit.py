"""fit, evaluate, predict and the *_on_batch methods give the numbers of real Keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue

RNG = np.random.default_rng(11)
X = RNG.normal(size=(24, 5)).astype("float32")
REAL = (X @ RNG.normal(size=(5, 2))).astype("float32")
BINARY = (REAL[:, :1] > 0).astype("float32")
LABELS = RNG.integers(0, 3, size=(24,))
ONE_HOT = np.eye(3, dtype="float32")[LABELS]
WEIGHT = np.linspace(0.0, 2.0, 24)


def dense(k: Any, units: int, activation: str | None = None) -> Any:
    return k.Sequential(
        [k.layers.Input((5,)), k.layers.Dense(6, activation="tanh"), k.layers.Dense(units, activation=activation)]
    )


def pair(keras: ModuleType, make: Callable[[Any], Any], **options: Any) -> tuple[Any, Any]:
    """Return the same model under both, with the same weights, compiled alike."""
    models = [make(k) for k in (keras, oncue)]
    for k, model in zip((keras, oncue), models, strict=True):
        chosen = {name: value(k) if callable(value) else value for name, value in options.items()}
        model.compile(**{"optimizer": k.optimizers.SGD(0.2), **chosen})
    models[1].set_weights(models[0].get_weights())
    return models[0], models[1]


def compare(theirs: Any, ours: Any) -> None:
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for name in theirs:
            compare(theirs[name], ours[name])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(theirs, ours, strict=True):
            compare(a, b)
    else:
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


def in_order(outputs: Any) -> Any:
    """Return outputs without the order of their names, which is the model's own under oncue and sorted under Keras."""
    return {name: outputs[name] for name in sorted(outputs)} if isinstance(outputs, dict) else outputs


PROBLEMS: dict[str, tuple[Callable[[Any], Any], Any, dict[str, Any]]] = {
    "regression": (lambda k: dense(k, 2), REAL, {"loss": "mse", "metrics": ["mae", "mse"]}),
    "binary": (
        lambda k: dense(k, 1, "sigmoid"), BINARY, {"loss": "binary_crossentropy", "metrics": ["accuracy", "auc"]}
    ),
    "binary, flat targets": (
        lambda k: dense(k, 1, "sigmoid"), BINARY[:, 0], {"loss": "binary_crossentropy", "metrics": ["acc"]}
    ),
    "sparse": (
        lambda k: dense(k, 3, "softmax"), LABELS, {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    ),
    "sparse, a column": (
        lambda k: dense(k, 3, "softmax"), LABELS[:, None],
        {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy", "sparse_categorical_accuracy"]},
    ),
    "categorical": (
        lambda k: dense(k, 3, "softmax"), ONE_HOT, {"loss": "categorical_crossentropy", "metrics": ["accuracy", "acc"]}
    ),
    "from logits": (
        lambda k: dense(k, 3), LABELS,
        {"loss": lambda k: k.losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"]},
    ),
    "by shape": (lambda k: dense(k, 3, "softmax"), ONE_HOT, {"loss": "crossentropy", "metrics": ["accuracy"]}),
    "objects": (
        lambda k: dense(k, 2), REAL,
        {
            "loss": lambda k: k.losses.Huber(delta=0.5),
            "metrics": lambda k: [k.metrics.MeanAbsoluteError(name="distance"), k.metrics.RootMeanSquaredError()],
        },
    ),
    "regularized": (
        lambda k: k.Sequential(
            [
                k.layers.Input((5,)),
                k.layers.Dense(4, kernel_regularizer="l2", bias_regularizer=k.regularizers.L1(0.01)),
                k.layers.Dense(2, activity_regularizer=k.regularizers.L2(0.01)),
            ]
        ),
        REAL, {"loss": "mse"},
    ),
    "batch normalization": (
        lambda k: k.Sequential(
            [k.layers.Input((5,)), k.layers.Dense(4), k.layers.BatchNormalization(momentum=0.5), k.layers.Dense(2)]
        ),
        REAL, {"loss": "mse", "metrics": ["mae"]},
    ),
    "loss weights": (lambda k: dense(k, 2), REAL, {"loss": "mse", "loss_weights": 0.5, "metrics": ["mse"]}),
}  # fmt: skip


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_fit_evaluate_predict(keras: ModuleType, problem: str, weighted: bool) -> None:
    make, y, options = PROBLEMS[problem]
    if weighted:
        options = {**options, "weighted_metrics": options.get("metrics") or ["mae"]}
        if callable(options["weighted_metrics"]):
            pytest.skip("metric objects are made once for each list")
    weight = WEIGHT if weighted else None
    results = []
    for model in pair(keras, make, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = model.fit(
                X,
                y,
                batch_size=7,
                epochs=2,
                shuffle=False,
                verbose=0,
                sample_weight=weight,
                validation_data=(X[:10], y[:10]),
            ).history
        results.append(
            {
                "history": history,
                # Keras lists the values of two metrics of one name twice.
                "evaluate": model.evaluate(X, y, batch_size=9, verbose=0, sample_weight=weight, return_dict=weighted),
                "dict": model.evaluate(X, y, batch_size=9, verbose=0, return_dict=True),
                "predict": model.predict(X, batch_size=9, verbose=0),
                "weights": model.get_weights(),
            }
        )
    compare(*results)


@pytest.mark.parametrize("problem", ["regression", "binary", "sparse", "by shape", "batch normalization"])
def test_single_batches(keras: ModuleType, problem: str) -> None:
    make, y, options = PROBLEMS[problem]
    results = []
    for model in pair(keras, make, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(
                [
                    model.train_on_batch(X[:8], y[:8]),
                    model.train_on_batch(X[8:], y[8:], return_dict=True),
                    model.train_on_batch(X[:8], y[:8], sample_weight=WEIGHT[:8]),
                    model.test_on_batch(X[:8], y[:8]),
                    model.test_on_batch(X[:8], y[:8], sample_weight=WEIGHT[:8], return_dict=True),
                    model.predict_on_batch(X[:5]),
                    model.get_weights(),
                ]
            )
    compare(*results)


def test_class_weights(keras: ModuleType) -> None:
    for problem in ("sparse", "categorical"):
        make, y, options = PROBLEMS[problem]
        results = []
        for model in pair(keras, make, **options):
            weights = {0: 0.2, 1: 3.0, 2: 1.0}
            history = model.fit(X, y, batch_size=7, epochs=2, shuffle=False, verbose=0, class_weight=weights).history
            results.append([history, model.train_on_batch(X, y, class_weight=weights), model.get_weights()])
        compare(*results)


def two_outputs(k: Any, form: str) -> Any:
    inputs = k.Input((5,))
    hidden = k.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    real = k.layers.Dense(2, name="real")(hidden)
    kind = k.layers.Dense(3, activation="softmax", name="kind")(hidden)
    return k.Model(inputs, {"real": real, "kind": kind} if form == "dict" else [real, kind])


MANY: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "one loss": ("list", [REAL, ONE_HOT[:, :3]], {"loss": "mse"}),
    "a list": ("list", [REAL, LABELS], {"loss": ["mse", "sparse_categorical_crossentropy"]}),
    "a list with metrics": (
        "list", [REAL, LABELS],
        {"loss": ["mse", "sparse_categorical_crossentropy"], "metrics": [["mae"], ["accuracy"]]},
    ),
    "a list with weights": (
        "list", [REAL, LABELS], {"loss": ["mse", "sparse_categorical_crossentropy"], "loss_weights": [0.3, 2.0]}
    ),
    "by name": (
        "list", [REAL, LABELS],
        {
            "loss": {"real": "mse", "kind": "sparse_categorical_crossentropy"},
            "metrics": {"kind": ["accuracy"]},
            "loss_weights": {"real": 0.5, "kind": 1.0},
        },
    ),
    "a dict": (
        "dict", {"real": REAL, "kind": LABELS},
        {
            "loss": {"real": "mse", "kind": "sparse_categorical_crossentropy"},
            "metrics": {"real": ["mae", "mse"], "kind": "accuracy"},
        },
    ),
    "a dict with weighted metrics": (
        "dict", {"real": REAL, "kind": LABELS},
        {
            "loss": {"real": "mse", "kind": "sparse_categorical_crossentropy"},
            "weighted_metrics": {"kind": ["accuracy"]},
        },
    ),
    "one loss missing": (
        "list", [REAL, LABELS], {"loss": [None, "sparse_categorical_crossentropy"], "metrics": [["mae"], None]}
    ),
}  # fmt: skip


# One case has an output without loss.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables .'real/kernel', 'real/bias'.:UserWarning")
@pytest.mark.parametrize("case", MANY)
def test_several_outputs(keras: ModuleType, case: str) -> None:
    pytest.importorskip("oncue.models.functional")
    form, y, options = MANY[case]
    results = []
    for model in pair(keras, lambda k: two_outputs(k, form), **options):
        history = model.fit(
            X, y, batch_size=7, epochs=2, shuffle=False, verbose=0, validation_data=(X, y), sample_weight=None
        ).history
        results.append(
            {
                "history": history,
                "evaluate": model.evaluate(X, y, verbose=0),
                "dict": model.evaluate(X, y, verbose=0, return_dict=True),
                "predict": in_order(model.predict(X, verbose=0)),
                "batch": model.train_on_batch(X, y),
                "weights": model.get_weights(),
            }
        )
    compare(*results)


def test_several_inputs(keras: ModuleType) -> None:
    pytest.importorskip("oncue.models.functional")

    def make(k: Any) -> Any:
        a, b = k.Input((2,), name="a"), k.Input((3,), name="b")
        return k.Model({"a": a, "b": b}, k.layers.Dense(2)(k.layers.Concatenate()([a, b])))

    x = {"b": X[:, 2:], "a": X[:, :2]}
    results = []
    for model in pair(keras, make, loss="mse"):
        results.append(
            [
                model.fit(x, REAL, batch_size=7, epochs=2, shuffle=False, verbose=0, validation_split=0.25).history,
                model.predict(x, verbose=0),
            ]
        )
    compare(*results)


def guide_model(k: Any) -> Any:
    """Return the model of Keras's guide to a custom `train_step` with torch: own metrics, own loss."""
    import torch

    class Guided(k.Sequential):  # type: ignore[misc, name-defined]  # a base chosen at run time
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.loss_tracker = k.metrics.Mean(name="loss")
            self.mae_metric = k.metrics.MeanAbsoluteError(name="mae")
            self.loss_fn = k.losses.MeanSquaredError()

        def train_step(self, data: Any) -> Any:
            x, y = data
            self.zero_grad()
            y_pred = self(x, training=True)
            loss = self.loss_fn(y, y_pred)
            loss.backward()
            trainable_weights = list(self.trainable_weights)
            gradients = [v.value.grad for v in trainable_weights]
            with torch.no_grad():
                self.optimizer.apply(gradients, trainable_weights)
            self.loss_tracker.update_state(loss)
            self.mae_metric.update_state(y, y_pred)
            return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

        @property
        def metrics(self) -> list[Any]:
            return [self.loss_tracker, self.mae_metric]

    return Guided([k.layers.Input((5,)), k.layers.Dense(2)])


def test_a_train_step_with_metrics_of_its_own(keras: ModuleType) -> None:
    results = []
    for model in pair(keras, guide_model):
        history = model.fit(X, REAL, batch_size=7, epochs=3, shuffle=False, verbose=0).history
        results.append([history, model.get_weights()])
    compare(*results)


def low_level_model(k: Any) -> Any:
    """Return the model of the guide that overrides `train_step` and `test_step` around the compiled loss."""
    import torch

    class LowLevel(k.Sequential):  # type: ignore[misc, name-defined]  # a base chosen at run time
        def train_step(self, data: Any) -> Any:
            if len(data) == 3:
                x, y, sample_weight = data
            else:
                (x, y), sample_weight = data, None
            self.zero_grad()
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=sample_weight)
            loss.backward()
            trainable_weights = list(self.trainable_weights)
            gradients = [v.value.grad for v in trainable_weights]
            with torch.no_grad():
                self.optimizer.apply(gradients, trainable_weights)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
                else:
                    metric.update_state(y, y_pred, sample_weight=sample_weight)
            return {m.name: m.result() for m in self.metrics}

        def test_step(self, data: Any) -> Any:
            x, y = data
            y_pred = self(x, training=False)
            loss = self.compute_loss(y=y, y_pred=y_pred)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
                else:
                    metric.update_state(y, y_pred)
            return {m.name: m.result() for m in self.metrics}

    return LowLevel([k.layers.Input((5,)), k.layers.Dense(2)])


def test_a_train_step_around_the_compiled_loss(keras: ModuleType) -> None:
    results = []
    for model in pair(keras, low_level_model, loss="mse"):
        history = model.fit(
            X, REAL, batch_size=8, epochs=2, shuffle=False, verbose=0, validation_data=(X, REAL)
        ).history
        weighted = model.fit(X, REAL, batch_size=8, shuffle=False, verbose=0, sample_weight=WEIGHT).history
        results.append([history, weighted, model.evaluate(X, REAL, verbose=0), model.get_weights()])
    compare(*results)
