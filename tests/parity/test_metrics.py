"""Metrics give real Keras's numbers, over several batches, with and without weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import metrics
from oncue.training.output_losses import OutputLosses
from oncue.training.output_metrics import OutputMetrics

pytestmark = pytest.mark.parity
N, K = 9, 5


def batches(kind: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    random = np.random.default_rng(4)
    found = []
    for size in (N, N, 4):
        logits = random.normal(size=(size, K)).astype("float32")
        scores = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype("float32")
        labels = random.integers(0, K, size=(size,))
        chances = random.random((size, K)).astype("float32")
        chances[0, :3] = 0.0, 1.0, 0.5
        targets = random.integers(0, 2, size=(size, K)).astype("float32")
        y_true, y_pred = {
            "regression": (random.normal(size=(size, K)).astype("float32"), logits),
            "column": (random.normal(size=(size,)).astype("float32"), logits[:, :1]),
            "positive": (random.poisson(2.0, (size, K)).astype("float32"), np.abs(logits)),
            "signs": (targets * 2 - 1, logits),
            "binary": (targets, chances),
            "binary_column": (targets[:, 0], chances[:, :1]),
            "one_hot": (np.eye(K, dtype="float32")[labels], scores),
            "labels": (labels, scores),
            "labels_column": (labels[:, None], scores),
            "equal": (labels, random.integers(0, K, size=(size,))),
            "sequence": (random.integers(0, K, (size, 3)), random.random((size, 3, K)).astype("float32")),
        }[kind]
        found.append((y_true, y_pred, random.random(size).astype("float32")))
    return found


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("Accuracy", "equal", {}),
    ("BinaryAccuracy", "binary", {}),
    ("BinaryAccuracy", "binary_column", {"threshold": 0.3}),
    ("CategoricalAccuracy", "one_hot", {}),
    ("SparseCategoricalAccuracy", "labels", {}),
    ("SparseCategoricalAccuracy", "labels_column", {}),
    ("SparseCategoricalAccuracy", "sequence", {}),
    ("TopKCategoricalAccuracy", "one_hot", {"k": 2}),
    ("SparseTopKCategoricalAccuracy", "labels", {"k": 3}),
    ("SparseTopKCategoricalAccuracy", "sequence", {"k": 2}),
    ("MeanSquaredError", "regression", {}),
    ("MeanSquaredError", "column", {}),
    ("RootMeanSquaredError", "regression", {}),
    ("RootMeanSquaredError", "column", {}),
    ("MeanAbsoluteError", "regression", {}),
    ("MeanAbsolutePercentageError", "regression", {}),
    ("MeanSquaredLogarithmicError", "positive", {}),
    ("CosineSimilarity", "regression", {}),
    ("LogCoshError", "regression", {}),
    ("R2Score", "regression", {}),
    ("R2Score", "regression", {"class_aggregation": None}),
    ("R2Score", "regression", {"class_aggregation": "variance_weighted_average", "num_regressors": 3}),
    ("BinaryCrossentropy", "binary", {"label_smoothing": 0.1}),
    ("BinaryCrossentropy", "signs", {"from_logits": True}),
    ("CategoricalCrossentropy", "one_hot", {}),
    ("SparseCategoricalCrossentropy", "labels", {}),
    ("SparseCategoricalCrossentropy", "labels", {"ignore_class": 2}),
    ("SparseCategoricalCrossentropy", "labels", {"from_logits": True}),
    ("KLDivergence", "one_hot", {}),
    ("Poisson", "positive", {}),
    ("Hinge", "signs", {}),
    ("SquaredHinge", "binary", {}),
    ("CategoricalHinge", "one_hot", {}),
    ("PearsonCorrelation", "regression", {}),
    ("ConcordanceCorrelation", "regression", {}),
    ("F1Score", "binary", {"threshold": 0.4}),
    ("F1Score", "one_hot", {"average": "macro"}),
    ("FBetaScore", "one_hot", {"average": "weighted", "beta": 2.0}),
    ("FBetaScore", "one_hot", {"average": "micro", "beta": 0.5}),
    *((name, "binary", {}) for name in ("TruePositives", "TrueNegatives", "FalsePositives", "FalseNegatives")),
    *((name, "binary", {"thresholds": [0.2, 0.7]}) for name in ("TruePositives", "TrueNegatives")),
    *((name, "binary", {"thresholds": [0.0, 0.5, 1.0]}) for name in ("FalsePositives", "FalseNegatives")),
    *(
        (name, "binary", options)
        for name in ("Precision", "Recall")
        for options in (
            {},
            {"thresholds": 0.3},
            {"thresholds": [0.1, 0.9]},
            {"top_k": 2},
            {"class_id": 1},
            {"top_k": 3, "class_id": 2},
        )
    ),
    ("Precision", "binary_column", {}),
    *(
        ("AUC", "binary", {"curve": curve, "summation_method": method})
        for curve in ("ROC", "PR", "PRGAIN")
        for method in ("interpolation", "minoring", "majoring")
    ),
    ("AUC", "binary_column", {"num_thresholds": 7}),
    ("AUC", "binary", {"thresholds": [0.3, 0.4, 0.9]}),
    ("AUC", "signs", {"from_logits": True}),
    ("AUC", "binary", {"multi_label": True}),
    ("AUC", "binary", {"multi_label": True, "num_labels": K, "label_weights": [0.1, 0.2, 0.3, 0.4, 0.5]}),
    ("AUC", "binary", {"multi_label": True, "curve": "PR", "thresholds": [0.2, 0.6]}),
    ("SensitivityAtSpecificity", "binary", {"specificity": 0.4}),
    ("SpecificityAtSensitivity", "binary", {"sensitivity": 0.4, "num_thresholds": 1}),
    ("PrecisionAtRecall", "binary", {"recall": 0.5, "class_id": 1}),
    ("RecallAtPrecision", "binary", {"precision": 0.5}),
    ("MeanIoU", "equal", {"num_classes": K, "dtype": "float32"}),
    ("IoU", "equal", {"num_classes": K, "target_class_ids": [0, 2], "ignore_class": 1, "dtype": "float32"}),
    ("OneHotIoU", "one_hot", {"num_classes": K, "target_class_ids": [1], "dtype": "float32"}),
    ("OneHotMeanIoU", "one_hot", {"num_classes": K, "dtype": "float32"}),
]
IDS = [f"{name}-{kind}-{'-'.join(map(str, options.values()))}" for name, kind, options in CASES]


def can_weigh(name: str, kind: str, options: dict[str, Any]) -> bool:
    # Keras itself fails on weights of shape (batch,) here.
    return not (options.get("multi_label") and "thresholds" in options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=IDS)
def test_values_over_batches(keras: ModuleType, name: str, kind: str, options: dict[str, Any], weighted: bool) -> None:
    if weighted and not can_weigh(name, kind, options):
        pytest.skip("Keras can't weigh here")
    # On the CPU: AUC with thresholds of the caller's can't read its own from an accelerator.
    with keras.device("cpu"):
        theirs = getattr(keras.metrics, name)(**options)
    ours = getattr(metrics, name)(**options)
    assert getattr(ours, "_direction", None) == getattr(theirs, "_direction", None) or ours._direction == "down"
    for part in (batches(kind), batches(kind)[2:]):
        with keras.device("cpu"):
            theirs.reset_state()
        ours.reset_state()
        for y_true, y_pred, weight in part:
            sample_weight = weight if weighted else None
            with keras.device("cpu"):
                theirs.update_state(y_true, y_pred, sample_weight=sample_weight)
            ours.update_state(tensor(y_true), tensor(y_pred), sample_weight=sample_weight)
        with keras.device("cpu"):
            expected = to_numpy(theirs.result())
        np.testing.assert_allclose(to_numpy(ours.result()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=IDS)
def test_descriptions_are_read_by_keras_and_back(
    keras: ModuleType, name: str, kind: str, options: dict[str, Any]
) -> None:
    ours = getattr(metrics, name)(name="mine", **options)
    with keras.device("cpu"):
        theirs = keras.metrics.deserialize(metrics.serialize(ours))
    again = metrics.deserialize(keras.metrics.serialize(getattr(keras.metrics, name)(name="mine", **options)))
    assert again.name == theirs.name == "mine"
    y_true, y_pred, _ = batches(kind)[0]
    with keras.device("cpu"):
        expected = to_numpy(theirs(y_true, y_pred))
    np.testing.assert_allclose(to_numpy(again(y_true, y_pred)), expected, rtol=1e-5, atol=1e-6)


def test_default_and_automatic_names(keras: ModuleType) -> None:
    from oncue import naming

    keras.backend.clear_session()
    naming.reset()
    arguments: dict[str, list[Any]] = {
        "MeanIoU": [2],
        "IoU": [2, [0]],
        "OneHotIoU": [2, [0]],
        "OneHotMeanIoU": [2],
        "SensitivityAtSpecificity": [0.5],
        "SpecificityAtSensitivity": [0.5],
        "PrecisionAtRecall": [0.5],
        "RecallAtPrecision": [0.5],
    }
    names = sorted({name for name, _, _ in CASES} | {"Mean", "Sum", "BinaryIoU"})
    for name in [*names, *names]:
        given = arguments.get(name, [])
        assert getattr(metrics, name)(*given).name == getattr(keras.metrics, name)(*given).name


def test_every_name_of_keras_is_known(keras: ModuleType) -> None:
    from keras.src.metrics import ALL_OBJECTS_DICT

    needs_arguments = {"IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU", "MeanMetricWrapper", "Metric"}
    for name, cls in ALL_OBJECTS_DICT.items():
        if cls.__name__ not in needs_arguments and "At" not in cls.__name__:
            assert metrics.get(name).name


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 3, 2)])
@pytest.mark.parametrize("weight_shape", [None, (), (6,), (6, 1), (6, 3)])
@pytest.mark.parametrize("name", ["Mean", "Sum"])
def test_mean_and_sum(
    keras: ModuleType, name: str, shape: tuple[int, ...], weight_shape: tuple[int, ...] | None
) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=shape).astype("float32")
    weights = None if weight_shape is None else random.random(weight_shape).astype("float32")
    theirs, ours = getattr(keras.metrics, name)(), getattr(metrics, name)()
    try:
        for _ in range(2):
            theirs.update_state(values, sample_weight=weights)
    except Exception:
        pytest.skip("Keras can't broadcast these")
    for _ in range(2):
        ours.update_state(values, sample_weight=weights)
    np.testing.assert_allclose(to_numpy(ours.result()), to_numpy(theirs.result()), rtol=1e-5, atol=1e-6)


def test_masked_predictions(keras: ModuleType) -> None:
    random = np.random.default_rng(0)
    y_true, y_pred = random.integers(0, K, (N, 3)), random.random((N, 3, K)).astype("float32")
    mask = torch.as_tensor(random.random((N, 3)) > 0.5)
    results = []
    for module in (keras.metrics, metrics):
        prediction = torch.as_tensor(y_pred)
        prediction._keras_mask = mask  # type: ignore[attr-defined]
        metric = module.SparseCategoricalAccuracy()
        metric.update_state(torch.as_tensor(y_true), prediction)
        results.append(to_numpy(metric.result()))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


def outputs() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    random = np.random.default_rng(1)
    y_pred = [random.random((N, 1)), random.random((N, 3)) + 0.1]
    y_true = [random.integers(0, 2, (N, 1)), random.integers(0, 3, (N,))]
    return [torch.tensor(y, dtype=torch.float32) for y in y_true], [
        torch.tensor(y, dtype=torch.float32) for y in y_pred
    ]


def as_dict(values: list[Any]) -> dict[str, Any]:
    return dict(zip("ab", values, strict=True))


SPECS: list[tuple[bool, list[str] | None, Any, Any, Any]] = [
    (False, ["a", "b"], ["mse", "crossentropy"], None, None),
    (False, ["a", "b"], ["mse", None], None, [["mae"], ["acc"]]),
    (False, ["a", "b"], {"a": "mse", "b": "ce"}, {"a": 0.5, "b": 2.0}, {"b": ["acc", "acc"]}),
    (False, ["a", "b"], ["crossentropy", "sparse_categorical_crossentropy"], [1.0, 3.0], ["mae", "accuracy"]),
    (False, None, ["mse", "sparse_categorical_crossentropy"], None, [["mae"], ["accuracy"]]),
    (True, ["x", "y"], {"a": "mse", "b": "crossentropy"}, None, {"b": "acc"}),
    (True, None, {"a": "mse"}, None, [["mae", "mse"], ["accuracy"]]),
    (True, None, ["mse", "crossentropy"], [1.0, 2.0], {"a": ["mae"]}),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("by_name", "names", "loss", "loss_weights", "specs"), SPECS)
def test_several_outputs(
    keras: ModuleType, by_name: bool, names: Any, loss: Any, loss_weights: Any, specs: Any, weighted: bool
) -> None:
    from keras.src.trainers.compile_utils import CompileLoss, CompileMetrics

    y_true, y_pred = outputs()
    targets, predictions = (as_dict(y_true), as_dict(y_pred)) if by_name else (y_true, y_pred)
    weight = torch.linspace(0.1, 1.0, N) if weighted else None
    theirs = CompileLoss(loss, loss_weights, output_names=names)
    ours = OutputLosses(loss, loss_weights, output_names=names)
    for _ in range(2):
        expected = theirs(targets, predictions, weight)
        np.testing.assert_allclose(to_numpy(ours(targets, predictions, weight)), to_numpy(expected), rtol=1e-5)
    assert [m.name for m in ours.metrics] == [m.name for m in theirs.metrics]
    for mine, other in zip(ours.metrics, theirs.metrics, strict=True):
        np.testing.assert_allclose(to_numpy(mine.result()), to_numpy(other.result()), rtol=1e-5)
    if specs is None:
        return
    compiled, reference = OutputMetrics(specs, specs, names), CompileMetrics(specs, specs, output_names=names)
    for _ in range(2):
        compiled.update_state(targets, predictions, weight)
        reference.update_state(targets, predictions, weight)
    got = {name: to_numpy(metric.result()) for name, metric in compiled.names_and_metrics()}
    wanted = {name: to_numpy(value) for name, value in reference.result().items()}
    assert list(got) == list(wanted)
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-5)


SINGLE: list[tuple[list[Any], list[Any]]] = [
    (["acc", "Accuracy", "mse", "MSE"], []),
    (["mae", "mae"], ["mae", "mse", "mae"]),
    (["AUC", "bce", "binary_accuracy"], ["accuracy"]),
    ([["mae"]], []),
]


@pytest.mark.parametrize(("plain", "weighted"), SINGLE)
def test_one_output(keras: ModuleType, plain: list[Any], weighted: list[Any]) -> None:
    from keras.src.trainers.compile_utils import CompileMetrics

    (y_true, _), (y_pred, _) = outputs()
    weight = torch.linspace(0.1, 1.0, N)
    ours, theirs = OutputMetrics(plain, weighted), CompileMetrics(plain, weighted)
    for _ in range(2):
        ours.update_state(y_true, y_pred, weight)
        theirs.update_state(y_true, y_pred, weight)
    wanted = theirs.result()
    assert list(wanted) == [name for name, _ in ours.names_and_metrics()]
    for name, metric in ours.names_and_metrics():
        np.testing.assert_allclose(to_numpy(metric.result()), to_numpy(wanted[name]), rtol=1e-5)


def test_names_of_functions_classes_and_objects(keras: ModuleType) -> None:
    from keras.src.trainers.compile_utils import CompileMetrics

    from oncue import losses, naming

    def MyOwnError(y_true: Any, y_pred: Any) -> Any:
        return abs(y_true - y_pred)

    (y_true, _), (y_pred, _) = outputs()
    keras.backend.clear_session()
    naming.reset()
    names = []
    for metric_module, loss_module, compiled in (
        (keras.metrics, keras.losses, CompileMetrics),
        (metrics, losses, OutputMetrics),
    ):
        given = [
            MyOwnError,
            lambda y_true, y_pred: y_true - y_pred,
            loss_module.mean_absolute_error,
            loss_module.MeanSquaredError(),
            metric_module.Precision,
            metric_module.Precision(),
        ]
        made = compiled(given, None)
        made.update_state(y_true, y_pred)
        names.append([m.name for m in made.metrics])

    assert names[0] == names[1]


@pytest.mark.parametrize("nested", [True, False])
def test_names_of_metrics_of_nested_outputs(keras: ModuleType, nested: bool) -> None:
    def names(peer: Any) -> list[str]:
        inputs = peer.Input((3,))
        one, two = (peer.layers.Dense(1, name=name)(inputs) for name in ("y1", "y2"))
        outputs = {"a": {"b": one, "c": two}} if nested else {"a": one, "b": two}
        measured = {"a": {"b": ["mae"], "c": ["mse"]}} if nested else {"a": ["mae"], "b": ["mse"]}
        model = peer.Model(inputs, outputs)
        model.compile("sgd", "mse", metrics=measured)
        y = np.zeros((4, 1))
        targets = {"a": {"b": y, "c": y}} if nested else {"a": y, "b": y}
        return sorted(model.fit(np.zeros((4, 3)), targets, verbose=0).history)

    assert names(oncue) == names(keras)
