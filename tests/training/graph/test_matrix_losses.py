"""Every loss and every metric is part of a traced step, with weights of samples and classes, and gives the same as eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import oncue as keras
from helpers import normal, to_numpy
from oncue import layers, losses, metrics
from oncue.keras_names import own_names

X = normal(20, 6)
WEIGHTS = np.linspace(0.0, 2.0, 20, dtype="float32")
CLASSES = np.argmax(X[:, :3], 1).astype("int64")
Targets = dict[str, Any]
# The activation of the last layer, its width, and the targets.
KINDS: dict[str, tuple[str | None, int, Any]] = {
    "numbers": (None, 3, X[:, 3:] * X[:, :3]),
    "above zero": ("softplus", 3, np.abs(X[:, 3:])),
    "signs": ("tanh", 1, np.sign(X[:, :1])),
    "yes or no": ("sigmoid", 1, (X[:, :1] > 0).astype("float32")),
    "labels": ("sigmoid", 3, (X[:, 3:] > 0).astype("float32")),
    "one-hot": ("softmax", 3, np.eye(3, dtype="float32")[CLASSES]),
    "classes": ("softmax", 3, CLASSES),
    "of each step": ("softmax", 3, None),
}
LOSSES: dict[str, tuple[str, Callable[[], Any]]] = {
    "BinaryCrossentropy": ("yes or no", lambda: losses.BinaryCrossentropy(label_smoothing=0.1)),
    "BinaryFocalCrossentropy": ("labels", lambda: losses.BinaryFocalCrossentropy(apply_class_balancing=True)),
    "CategoricalCrossentropy": ("one-hot", lambda: losses.CategoricalCrossentropy(label_smoothing=0.1)),
    "CategoricalFocalCrossentropy": ("one-hot", lambda: losses.CategoricalFocalCrossentropy()),
    "CategoricalHinge": ("one-hot", lambda: losses.CategoricalHinge()),
    "CosineSimilarity": ("numbers", lambda: losses.CosineSimilarity()),
    "Dice": ("labels", lambda: losses.Dice()),
    "Hinge": ("signs", lambda: losses.Hinge()),
    "Huber": ("numbers", lambda: losses.Huber(0.5, reduction="sum")),
    "KLDivergence": ("one-hot", lambda: losses.KLDivergence()),
    "LogCosh": ("numbers", lambda: losses.LogCosh()),
    "Loss": ("numbers", lambda: Own()),
    "LossFunctionWrapper": ("numbers", lambda: losses.LossFunctionWrapper(quartic, factor=2.0)),
    "MeanAbsoluteError": ("numbers", lambda: losses.MeanAbsoluteError()),
    "MeanAbsolutePercentageError": ("numbers", lambda: losses.MeanAbsolutePercentageError()),
    "MeanSquaredError": ("numbers", lambda: losses.MeanSquaredError()),
    "MeanSquaredLogarithmicError": ("above zero", lambda: losses.MeanSquaredLogarithmicError()),
    "Poisson": ("above zero", lambda: losses.Poisson()),
    "SparseCategoricalCrossentropy": ("classes", lambda: losses.SparseCategoricalCrossentropy(ignore_class=1)),
    "SquaredHinge": ("signs", lambda: losses.SquaredHinge()),
    "TorchLoss": ("numbers", lambda: losses.TorchLoss(torch.nn.SmoothL1Loss(reduction="none"))),
    "Tversky": ("labels", lambda: losses.Tversky(alpha=0.3, beta=0.7)),
}
METRICS: dict[str, dict[str, Callable[[], Any]]] = {
    "numbers": {
        "ConcordanceCorrelation": lambda: metrics.ConcordanceCorrelation(),
        "CosineSimilarity": lambda: metrics.CosineSimilarity(),
        "LogCoshError": lambda: metrics.LogCoshError(),
        "MeanAbsoluteError": lambda: metrics.MeanAbsoluteError(),
        "MeanAbsolutePercentageError": lambda: metrics.MeanAbsolutePercentageError(),
        "MeanMetricWrapper": lambda: metrics.MeanMetricWrapper(quartic, name="wrapper", factor=2.0),
        "MeanSquaredError": lambda: metrics.MeanSquaredError(),
        "Metric": lambda: Counted(),
        "PearsonCorrelation": lambda: metrics.PearsonCorrelation(),
        "R2Score": lambda: metrics.R2Score(class_aggregation="variance_weighted_average"),
        "RootMeanSquaredError": lambda: metrics.RootMeanSquaredError(),
    },
    "above zero": {
        "MeanSquaredLogarithmicError": lambda: metrics.MeanSquaredLogarithmicError(),
        "Poisson": lambda: metrics.Poisson(),
    },
    "signs": {"Hinge": lambda: metrics.Hinge(), "SquaredHinge": lambda: metrics.SquaredHinge()},
    "yes or no": {
        "AUC": lambda: metrics.AUC(num_thresholds=20),
        "BinaryAccuracy": lambda: metrics.BinaryAccuracy(),
        "BinaryCrossentropy": lambda: metrics.BinaryCrossentropy(),
        "BinaryIoU": lambda: metrics.BinaryIoU(target_class_ids=[0, 1], threshold=0.4, dtype="float32"),
        "FalseNegatives": lambda: metrics.FalseNegatives(),
        "FalsePositives": lambda: metrics.FalsePositives(thresholds=[0.3, 0.6]),
        "Precision": lambda: metrics.Precision(),
        "PrecisionAtRecall": lambda: metrics.PrecisionAtRecall(0.5),
        "Recall": lambda: metrics.Recall(),
        "RecallAtPrecision": lambda: metrics.RecallAtPrecision(0.5),
        "SensitivityAtSpecificity": lambda: metrics.SensitivityAtSpecificity(0.5),
        "SpecificityAtSensitivity": lambda: metrics.SpecificityAtSensitivity(0.5),
        "TrueNegatives": lambda: metrics.TrueNegatives(),
        "TruePositives": lambda: metrics.TruePositives(),
    },
    "labels": {
        "AUC": lambda: metrics.AUC(num_thresholds=20, multi_label=True, curve="PR"),
        "FBetaScore": lambda: metrics.FBetaScore(average="macro", beta=2.0, threshold=0.5),
        "Accuracy": lambda: metrics.Accuracy(),
    },
    "one-hot": {
        "CategoricalAccuracy": lambda: metrics.CategoricalAccuracy(),
        "CategoricalCrossentropy": lambda: metrics.CategoricalCrossentropy(),
        "CategoricalHinge": lambda: metrics.CategoricalHinge(),
        "F1Score": lambda: metrics.F1Score(average="weighted"),
        "KLDivergence": lambda: metrics.KLDivergence(),
        "OneHotIoU": lambda: metrics.OneHotIoU(3, target_class_ids=[0, 2], dtype="float32"),
        "OneHotMeanIoU": lambda: metrics.OneHotMeanIoU(3, dtype="float32"),
        "Precision": lambda: metrics.Precision(top_k=2, class_id=1),
        "TopKCategoricalAccuracy": lambda: metrics.TopKCategoricalAccuracy(2),
    },
    "classes": {
        "IoU": lambda: metrics.IoU(3, [0], sparse_y_pred=False, dtype="float32"),
        "MeanIoU": lambda: metrics.MeanIoU(3, sparse_y_pred=False, dtype="float32"),
        "SparseCategoricalAccuracy": lambda: metrics.SparseCategoricalAccuracy(),
        "SparseCategoricalCrossentropy": lambda: metrics.SparseCategoricalCrossentropy(),
        "SparseTopKCategoricalAccuracy": lambda: metrics.SparseTopKCategoricalAccuracy(2),
    },
}
# They take no targets, or have tests of their own.
NO_METRICS_OF_TARGETS = {"Mean", "Sum", "MetricVariable", "TorchMetric"}


def quartic(y_true: Tensor, y_pred: Tensor, factor: float = 1.0) -> Tensor:
    return ((y_true - y_pred) ** 4).mean(-1) * factor


class Own(losses.Loss):
    """A loss as users write it."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return torch.where(y_pred > y_true, (y_pred - y_true) ** 2, (y_true - y_pred).abs())


class Counted(metrics.Metric):
    """A metric as users write it."""

    def __init__(self) -> None:
        super().__init__(name="counted")
        self.total = self.add_weight(name="total", initializer="zeros")
        self.seen = self.add_variable(shape=(), initializer="zeros", name="seen")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        self.total.assign_add((y_true > y_pred).sum())
        self.seen.assign(self.seen + y_true.shape[0])

    def result(self) -> Any:
        return self.total / self.seen


def classes_of(package: Any) -> set[str]:
    ours = own_names(package.__name__, package.__all__)
    return {getattr(package, name).__name__ for name in ours if isinstance(getattr(package, name), type)}


def test_every_loss_and_metric_is_here() -> None:
    assert set(LOSSES) == classes_of(losses)
    assert {name for kind in METRICS.values() for name in kind} == classes_of(metrics) - NO_METRICS_OF_TARGETS


def network(kind: str) -> Callable[[], Any]:
    activation, width, _ = KINDS[kind]
    return lambda: keras.Sequential([layers.Input((6,)), layers.Dense(8, "relu"), layers.Dense(width, activation)])


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss(name: str, side_by_side: Any) -> None:
    kind, loss = LOSSES[name]
    side_by_side(network(kind), X, KINDS[kind][2], loss=loss, fit={"sample_weight": WEIGHTS})


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("weighed", [False, True], ids=["plain", "weighted"])
def test_metrics(kind: str, weighed: bool, side_by_side: Any) -> None:
    fit = {"sample_weight": WEIGHTS} if weighed else {}
    made = list(METRICS[kind].values())
    given = {"weighted_metrics" if weighed else "metrics": lambda: [one() for one in made]}
    loss = "sparse_categorical_crossentropy" if kind == "classes" else "mse"
    side_by_side(network(kind), X, KINDS[kind][2], loss=loss, fit=fit, **given)


def test_a_metric_of_torchmetrics_follows_the_graph(side_by_side: Any) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    side_by_side(
        network("numbers"), X, KINDS["numbers"][2], whole=False, metrics=lambda: [torchmetrics.MeanSquaredError()]
    )


def test_metrics_of_no_targets(side_by_side: Any) -> None:
    class Noted(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)
            self.mean, self.sum = metrics.Mean(name="mean"), metrics.Sum(name="sum")

        def call(self, x: Tensor) -> Tensor:
            found: Tensor = self.dense(x)
            self.mean.update_state(found)
            self.sum.update_state(found.abs())
            return found

    side_by_side(Noted, X, KINDS["numbers"][2])


@pytest.mark.parametrize("weights", [{"class_weight": {0: 0.5, 1: 2.0, 2: 0.0}}, {"sample_weight": WEIGHTS}])
def test_weights_of_classes_and_samples(weights: dict[str, Any], side_by_side: Any) -> None:
    side_by_side(
        network("classes"),
        X,
        CLASSES,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
        fit=weights,
    )


def test_a_loss_and_metrics_of_each_step_with_a_mask(side_by_side: Any) -> None:
    def make() -> Any:
        first = [layers.Input((3, 2)), layers.Masking()]
        return keras.Sequential([*first, layers.LSTM(4, return_sequences=True), layers.Dense(3, "softmax")])

    x = X.reshape(20, 3, 2) * (np.arange(3) < (np.arange(20) % 4)[:, None])[:, :, None]
    y = np.stack([CLASSES, np.roll(CLASSES, 1), np.roll(CLASSES, 2)], 1)
    side_by_side(make, x, y, loss="sparse_categorical_crossentropy", weighted_metrics=["accuracy"])


def test_several_inputs_and_outputs(side_by_side: Any) -> None:
    def make() -> Any:
        a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
        joined = layers.Concatenate()([a, b])
        outputs = {
            "first": layers.Dense(3, "softmax", name="first")(joined),
            "second": layers.Dense(1, name="second")(joined),
        }
        return keras.Model({"a": a, "b": b}, outputs)

    model = side_by_side(
        make,
        {"a": X[:, :3], "b": X[:, 3:]},
        {"first": CLASSES, "second": X[:, :1]},
        loss=lambda: {"first": losses.SparseCategoricalCrossentropy(), "second": losses.Huber()},
        loss_weights=lambda: {"first": 0.5, "second": 2.0},
        metrics=lambda: {"first": ["accuracy"], "second": ["mae", metrics.MeanSquaredError()]},
        fit={"sample_weight": {"first": WEIGHTS, "second": np.ones(20)}},
    )
    assert set(model.predict({"a": X[:, :3], "b": X[:, 3:]}, batch_size=4, verbose=0)) == {"first", "second"}


def test_losses_of_layers_and_models(side_by_side: Any) -> None:
    class Penal(layers.Layer):
        def call(self, x: Tensor, training: bool = False) -> Tensor:
            self.add_loss(x.square().mean() * 0.1)
            return x

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.penal, self.two = layers.Dense(4, activity_regularizer="l1"), Penal(), layers.Dense(3)

        def call(self, x: Tensor, training: bool = False) -> Tensor:
            found: Tensor = self.two(self.penal(self.one(x), training=training))
            return found

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **options: Any
        ) -> Any:
            return super().compute_loss(x, y, y_pred, sample_weight, **options) + self.two.kernel.square().sum()

    side_by_side(Own, X, KINDS["numbers"][2])


def test_predictions_are_those_of_the_eager_step(side_by_side: Any) -> None:
    model = side_by_side(network("numbers"), X, KINDS["numbers"][2])
    traced = model.predict(X, batch_size=4, verbose=0)
    assert "predict" in model._plan.graphs.steps and model._plan.graphs.steps["predict"].refusal is None
    np.testing.assert_allclose(traced, to_numpy(model(X)), rtol=1e-5, atol=1e-6)
