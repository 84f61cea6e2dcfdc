"""What a Keras model is compiled with: built-in objects of every kind, the user's own, and what is changed between runs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from keras_models.side_by_side import LABELS, X, Y, both, fit, is_current, made_of, same, same_models, twins, values

import oncue
from helpers import normal, tensor, to_numpy
from oncue.with_keras.measures import KerasLoss, KerasMetric, translated_losses, translated_metrics
from oncue.with_keras.optimizers import KerasOptimizer


def dense(keras: Any) -> Any:
    constraint = keras.constraints.MaxNorm(0.7)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, activation="tanh", kernel_constraint=constraint),
            keras.layers.Dense(1),
        ]
    )


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "nesterov": True, "clipnorm": 0.5},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adam": {"amsgrad": True, "gradient_accumulation_steps": 2},
    "AdamW": {"weight_decay": 0.1, "global_clipnorm": 0.5},
    "Adamax": {"use_ema": True, "ema_momentum": 0.8},
    "Nadam": {"clipvalue": 0.1},
    "Adagrad": {},
    "Adadelta": {"use_ema": True, "ema_overwrite_frequency": 3},
    "Lion": {},
    "Lamb": {},
    "Ftrl": {},
    "Adafactor": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_goes_on_where_it_was(keras: ModuleType, name: str) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        rate = 1.0 if name == "Adadelta" else 0.01
        return {"optimizer": getattr(keras.optimizers, name)(learning_rate=rate, **OPTIMIZERS[name]), "loss": "mse"}

    models = twins(keras, dense, compiled)
    first = both(models, lambda model: fit(model, epochs=1))
    same_models(models)
    # Keras's own loop, then ours once more, on one state.
    models[1].fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    models[0].fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    models[0].optimizer.learning_rate = models[1].optimizer.learning_rate = 0.005
    second = both(models, lambda model: fit(model, epochs=2))
    same(first[0], first[1])
    same(second[0], second[1])
    same_models(models)
    ours = oncue.Model(models[1]).optimizer
    # An older Nadam has its state in another order.
    kept = ("Lion", "Lamb", "Ftrl", "Adafactor", *([] if is_current(keras) else ["Nadam"]))
    assert isinstance(ours, KerasOptimizer) is (name in kept)


def test_schedules_and_excluded_weights(keras: ModuleType) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        rate = keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)
        optimizer = keras.optimizers.AdamW(rate, weight_decay=0.2)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return {"optimizer": optimizer, "loss": "mse"}

    models = twins(keras, dense, compiled)
    same(*both(models, fit))
    same_models(models)
    assert not isinstance(oncue.Model(models[1]).optimizer, KerasOptimizer)


@pytest.mark.parametrize("name", ["CosineDecay", "PiecewiseConstantDecay", "function", "own", "accumulated"])
def test_where_rates_come_from(keras: ModuleType, name: str) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        schedules = keras.optimizers.schedules

        class Own(schedules.LearningRateSchedule):
            def __call__(self, step: Any) -> Any:
                return 0.05 / (keras.ops.cast(step, "float32") + 1.0)

        rates: dict[str, Any] = {
            "CosineDecay": schedules.CosineDecay(0.01, 10, warmup_target=0.05, warmup_steps=3),
            "PiecewiseConstantDecay": schedules.PiecewiseConstantDecay([3, 7], [0.1, 0.05, 0.01]),
            "function": lambda: 0.05,
            "own": Own(),
            "accumulated": schedules.ExponentialDecay(0.05, 3, 0.5),
        }
        options = {"gradient_accumulation_steps": 2} if name == "accumulated" else {}
        return {"optimizer": keras.optimizers.SGD(rates[name], **options), "loss": "mse"}

    models = twins(keras, dense, compiled)
    same(*both(models, fit))
    same_models(models)
    # Where oncue would take another rate, or none, Keras's own arithmetic is used.
    kept = isinstance(oncue.Model(models[1]).optimizer, KerasOptimizer)
    assert kept is (name in ("function", "own", "accumulated"))


def test_objects_of_the_users_own_are_used_as_they_are(keras: ModuleType) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        class Cubed(keras.losses.Loss):
            def call(self, y_true: Any, y_pred: Any) -> Any:
                return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)

        class Largest(keras.metrics.Metric):
            def __init__(self) -> None:
                super().__init__(name="largest")
                self.value = self.add_weight(name="value", initializer="zeros")

            def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
                self.value.assign(keras.ops.maximum(self.value, keras.ops.max(y_pred)))

            def result(self) -> Any:
                return self.value

        class Signs(keras.optimizers.SGD):
            def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
                self.assign_sub(variable, keras.ops.sign(gradient) * learning_rate)

        def off(y_true: Any, y_pred: Any) -> Any:
            return keras.ops.mean(y_true - y_pred, axis=-1)

        return {
            "optimizer": Signs(0.01),
            "loss": Cubed(),
            "metrics": [Largest(), off, keras.metrics.mean_absolute_error],
            "weighted_metrics": [keras.metrics.MeanSquaredError(name="squared")],
        }

    models = twins(keras, dense, compiled)
    same(*both(models, lambda model: fit(model, sample_weight=np.linspace(0.0, 1.0, 40))))
    same_models(models)


def test_a_metric_that_the_user_holds_has_its_value(keras: ModuleType) -> None:
    held: list[Any] = []

    def compiled(keras: Any) -> dict[str, Any]:
        held.append(keras.metrics.MeanAbsoluteError())
        return {"optimizer": "sgd", "loss": "mse", "metrics": [held[-1]]}

    both(twins(keras, dense, compiled), lambda model: model.evaluate(X, Y, verbose=0))
    same(*[float(metric.result()) for metric in held])
    assert float(held[1].result()) > 0


def _made(home: Any, name: str) -> Any:
    arguments = {
        "IoU": {"num_classes": 2, "target_class_ids": [1]},
        "MeanIoU": {"num_classes": 2},
        "OneHotIoU": {"num_classes": 2, "target_class_ids": [1]},
        "OneHotMeanIoU": {"num_classes": 2},
        "BinaryIoU": {"target_class_ids": [1]},
        **{kind: {rest: 0.5} for kind, rest in [("PrecisionAtRecall", "recall"), ("RecallAtPrecision", "precision")]},
        **{kind: {"k": 2} for kind in ("TopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy")},
        **{"SensitivityAtSpecificity": {"specificity": 0.5}, "SpecificityAtSensitivity": {"sensitivity": 0.5}},
    }
    return getattr(home, name)(**arguments.get(name, {}))


def test_every_built_in_loss_and_metric_is_known_for_what_it_is(keras: ModuleType) -> None:
    """Each becomes one of ours with its arguments, or stays Keras's own; none is refused, and none is another."""

    def of(home: Any, base: type) -> list[str]:
        kinds = [
            kind
            for kind in vars(home).values()
            if isinstance(kind, type) and issubclass(kind, base) and kind is not base
        ]
        return sorted({kind.__name__ for kind in kinds} - {"MeanMetricWrapper"})

    losses = {name: translated_losses(_made(keras.losses, name)) for name in of(keras.losses, keras.losses.Loss)}
    kept = [name for name, loss in losses.items() if isinstance(loss, KerasLoss)]
    assert len(losses) > 15 and set(kept) <= {"CTC", "CategoricalGeneralizedCrossEntropy", "Circle"}
    y_true, y_pred = np.abs(normal(8, 3, seed=4)) > 0.5, np.abs(normal(8, 3, seed=5)) / 5 + 0.01
    for name, loss in losses.items():
        of_labels = name.startswith(("Sparse", "Circle", "CategoricalGen"))
        theirs, target = _made(keras.losses, name), LABELS[:8] if of_labels else y_true.astype("float32")
        if name != "CTC":
            same(float(theirs(target, y_pred)), float(loss(target, y_pred)))
    metrics = {
        name: translated_metrics(_made(keras.metrics, name), []) for name in of(keras.metrics, keras.metrics.Metric)
    }
    kept = [name for name, metric in metrics.items() if isinstance(metric, KerasMetric)]
    assert len(metrics) > 35 and kept == []
    for name, metric in metrics.items():
        target = LABELS[:8] if name.startswith("Sparse") else y_true.astype("float32")
        if "IoU" in name and not is_current(keras):
            # It takes labels of two classes for labels of three.
            continue
        if name in ("IoU", "MeanIoU"):
            data: Any = (y_true[:, 0].astype("int64"), (y_pred[:, 0] > 0.2).astype("int64"))
        else:
            data = (y_pred[:, 0],) if name in ("Mean", "Sum") else (target, y_pred)
        weight = None if "IoU" in name else np.linspace(0.1, 1.0, 8).astype("float32")
        theirs = _made(keras.metrics, name)
        for one in (theirs, metric):
            one.update_state(*[tensor(part) for part in data], sample_weight=None if weight is None else tensor(weight))
        same(to_numpy(theirs.result()), to_numpy(metric.result()))


LOSSES_WITH_ARGUMENTS: dict[str, dict[str, Any]] = {
    "BinaryCrossentropy": {"from_logits": True, "label_smoothing": 0.2, "axis": 0},
    "BinaryFocalCrossentropy": {"apply_class_balancing": True, "alpha": 0.4, "gamma": 3.0, "label_smoothing": 0.1},
    "CTC": {"reduction": "sum"},
    "CategoricalCrossentropy": {"label_smoothing": 0.2, "axis": 0},
    "CategoricalFocalCrossentropy": {"alpha": 0.4, "gamma": 3.0, "from_logits": True, "axis": 1},
    "CategoricalGeneralizedCrossEntropy": {"q": 0.8},
    "CategoricalHinge": {"reduction": "sum"},
    "Circle": {"gamma": 8.0, "margin": 0.2, "remove_diagonal": False},
    "CosineSimilarity": {"axis": 0},
    "Dice": {"axis": (1,)},
    "Hinge": {"reduction": "none"},
    "Huber": {"delta": 0.1},
    "KLDivergence": {"reduction": "mean_with_sample_weight"},
    "LogCosh": {"dtype": "float64"},
    "MeanAbsoluteError": {"reduction": "none"},
    "MeanAbsolutePercentageError": {"reduction": "sum"},
    "MeanSquaredError": {"dtype": "bfloat16"},
    "MeanSquaredLogarithmicError": {"reduction": "mean"},
    "Poisson": {"reduction": None},
    "SparseCategoricalCrossentropy": {"from_logits": True, "ignore_class": 1},
    "SquaredHinge": {"reduction": "sum"},
    "Tversky": {"alpha": 0.2, "beta": 0.7, "axis": (1,)},
}

_IOU: dict[str, Any] = {"ignore_class": 1, "sparse_y_pred": False}
METRICS_WITH_ARGUMENTS: dict[str, dict[str, Any]] = {
    "AUC": {
        **{"multi_label": True, "num_labels": 3, "label_weights": [1.0, 3.0, 0.5], "curve": "PR", "num_thresholds": 7},
        **{"summation_method": "majoring", "from_logits": True},
    },
    "BinaryAccuracy": {"threshold": 0.1},
    "BinaryCrossentropy": {"from_logits": True, "label_smoothing": 0.2},
    "BinaryIoU": {"target_class_ids": [1], "threshold": 0.1},
    "CategoricalCrossentropy": {"from_logits": True, "label_smoothing": 0.2, "axis": 0},
    "ConcordanceCorrelation": {"axis": 0},
    "CosineSimilarity": {"axis": 0},
    "F1Score": {"average": "weighted", "threshold": 0.1},
    "FBetaScore": {"average": "macro", "beta": 2.0, "threshold": 0.1},
    **{
        f"{what}{sign}": {"thresholds": [0.05, 0.2]}
        for what in ("True", "False")
        for sign in ("Positives", "Negatives")
    },
    "IoU": {"num_classes": 3, "target_class_ids": [0, 2], "sparse_y_true": False, **_IOU},
    "MeanIoU": {"num_classes": 3, "sparse_y_true": False, **_IOU},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [2], **_IOU},
    "OneHotMeanIoU": {"num_classes": 3, **_IOU},
    "MeanSquaredError": {"dtype": "float64"},
    "PearsonCorrelation": {"axis": 0},
    "Precision": {"top_k": 2, "class_id": 1},
    "PrecisionAtRecall": {"recall": 0.3, "num_thresholds": 7, "class_id": 1},
    "R2Score": {"class_aggregation": "variance_weighted_average", "num_regressors": 1},
    "Recall": {"thresholds": 0.1, "class_id": 2},
    "RecallAtPrecision": {"precision": 0.3, "num_thresholds": 7, "class_id": 1},
    "SensitivityAtSpecificity": {"specificity": 0.3, "num_thresholds": 7, "class_id": 1},
    "SparseCategoricalCrossentropy": {"from_logits": True, "ignore_class": 1},
    "SparseTopKCategoricalAccuracy": {"k": 1, "from_sorted_ids": True},
    "SpecificityAtSensitivity": {"sensitivity": 0.3, "num_thresholds": 7, "class_id": 1},
    "TopKCategoricalAccuracy": {"k": 2},
}

MANY = np.eye(3, dtype="float32")[LABELS[:8]]
"""Targets that fit the predictions below for each class."""
GIVEN = (np.abs(normal(8, 3, seed=5)) / 5 + 0.01).astype("float32")


def _targets(name: str) -> Any:
    return LABELS[:8] if name.startswith(("Sparse", "Circle", "CategoricalGen")) else MANY


@pytest.mark.parametrize("name", LOSSES_WITH_ARGUMENTS)
def test_losses_keep_their_arguments(keras: ModuleType, name: str) -> None:
    def made() -> Any:
        return made_of(getattr(keras.losses, name), {**LOSSES_WITH_ARGUMENTS[name], "name": "called"})

    if not hasattr(keras.losses, name):
        pytest.skip("this release of Keras has no such loss")

    loss = translated_losses(made())
    assert loss.name == "called" and loss.reduction == made().reduction
    if name == "CTC":
        assert isinstance(loss, KerasLoss)
        return
    values = [tensor(_targets(name)), tensor(GIVEN)]
    theirs, ours = to_numpy(made()(*values).double()), to_numpy(loss(*values).double())
    tolerance = 1e-2 if LOSSES_WITH_ARGUMENTS[name].get("dtype") == "bfloat16" else 1e-5
    np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    if not {"reduction", "dtype"} >= LOSSES_WITH_ARGUMENTS[name].keys():
        # The arguments are such that they can be told from the defaults.
        assert not np.allclose(theirs, to_numpy(getattr(keras.losses, name)()(*values)), rtol=1e-3)


def test_an_axis_that_keras_does_not_tell_is_kept(keras: ModuleType) -> None:
    labels, values = tensor(LABELS[:8].reshape(2, 4)), tensor(np.abs(normal(2, 3, 4, seed=6)) + 0.1)
    kind = keras.losses.SparseCategoricalCrossentropy
    for loss in (made_of(kind, {"axis": 1}), made_of(kind, {"axis": 1, "ignore_class": 1})):
        same(float(loss(labels, values)), float(translated_losses(loss)(labels, values)))
    metric = keras.metrics.SparseCategoricalCrossentropy(axis=1)
    ours = translated_metrics(metric, [])
    for one in (metric, ours):
        one.update_state(labels, values)
    same(float(metric.result()), float(ours.result()))


@pytest.mark.parametrize("name", METRICS_WITH_ARGUMENTS)
def test_metrics_keep_their_arguments(keras: ModuleType, name: str) -> None:
    def made() -> Any:
        return made_of(getattr(keras.metrics, name), {**METRICS_WITH_ARGUMENTS[name], "name": "called"})

    metrics = [made(), translated_metrics(made(), [])]
    assert metrics[1].name == "called"
    for metric in metrics:
        metric.update_state(tensor(_targets(name)), tensor(GIVEN))
    same(to_numpy(metrics[0].result()), to_numpy(metrics[1].result()))


def test_losses_and_metrics_with_attributes_that_were_changed_stay_what_they_are(keras: ModuleType) -> None:
    loss, metric = keras.losses.BinaryCrossentropy(), keras.metrics.Recall()
    loss.call = lambda y_true, y_pred: y_pred[:, 0] - y_true[:, 0]
    metric.update_state = lambda *given, **named: None
    assert isinstance(translated_losses(loss), KerasLoss)
    assert isinstance(translated_metrics(metric, []), KerasMetric)


def test_training_by_a_loss_with_arguments(keras: ModuleType) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        metric = keras.metrics.CosineSimilarity(axis=0)
        return {"optimizer": "sgd", "loss": keras.losses.Huber(0.2), "metrics": [metric]}

    models = twins(keras, dense, compiled)
    same(*both(models, fit))
    same_models(models)


def test_names_that_keras_alone_has(keras: ModuleType) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        return {"optimizer": "sgd", "loss": "MSE", "metrics": ["MSE", "mape"]}

    same(*both(twins(keras, dense, compiled), fit))


def test_what_is_changed_between_runs_counts(keras: ModuleType) -> None:
    models = twins(keras, dense, lambda keras: {"optimizer": keras.optimizers.Adam(0.01), "loss": "mse"})

    def run(model: Any) -> Any:
        inner = getattr(model, "keras_model", model)
        found = [fit(model, epochs=1)]
        inner.layers[0].trainable = False
        found.append(fit(model, epochs=1))
        inner.optimizer.beta_1 = 0.5
        found.append(fit(model, epochs=1))
        inner.compile(keras.optimizers.SGD(0.1), "mae", metrics=["mse"])
        found.append(fit(model, epochs=1))
        # The metrics stay those of the call before.
        inner.compile(keras.optimizers.SGD(0.1), "mae")
        found.append(fit(model, epochs=1))
        inner.optimizer = keras.optimizers.SGD(0.02)
        return [*found, fit(model, epochs=1)]

    same(*both(models, run))
    same_models(models)


def test_what_oncue_compiles_counts_until_keras_compiles_again(keras: ModuleType) -> None:
    theirs, ours = twins(keras, dense, None)
    model = oncue.Model(ours)
    with pytest.raises(ValueError, match=r"Compile the Keras model before `fit`.*keras_model\.compile"):
        model.fit(X, Y, verbose=0)
    model.compile("sgd", "mse", metrics=["mae"])
    theirs.compile("sgd", "mse", metrics=["mae"])
    same(fit(theirs), fit(model))
    assert getattr(ours, "optimizer", None) is None
    for one in (theirs, ours):
        one.compile("adam", keras.losses.Huber(), metrics=["mae"])
    same(fit(theirs), fit(model))
    model.compile(keras.optimizers.Adam(0.05), keras.losses.Huber(), metrics=["mae"])
    theirs.compile(keras.optimizers.Adam(0.05), keras.losses.Huber())
    same(fit(theirs), fit(model))
    same(values(theirs.variables), values(ours.variables))


def test_the_rate_is_set_from_both_sides(keras: ModuleType) -> None:
    (_, inner) = twins(keras, dense, lambda keras: {"optimizer": keras.optimizers.SGD(0.5), "loss": "mse"})
    model = oncue.Model(inner)
    model.optimizer.learning_rate = 0.25
    fit(model, epochs=1)
    assert float(model.optimizer.learning_rate) == float(inner.optimizer.learning_rate.value) == 0.25
    inner.optimizer.learning_rate = 0.125
    fit(model, epochs=1)
    assert float(model.optimizer.learning_rate) == 0.125
    model.optimizer.learning_rate = 0.5
    fit(model, epochs=1)
    assert float(inner.optimizer.learning_rate.value) == 0.5
