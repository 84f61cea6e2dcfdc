"""Losses give real Keras's numbers."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import losses

pytestmark = pytest.mark.parity
RANDOM = np.random.default_rng(0)
N, K = 12, 5


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype("float32")


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions of one kind, with some values beyond the clipping."""
    random = np.random.default_rng(3)
    logits = random.normal(size=(N, K)).astype("float32") * 3
    labels = random.integers(0, K, size=(N,))
    if kind == "regression":
        return random.normal(size=(N, K)).astype("float32"), logits
    if kind == "column":
        return random.normal(size=(N,)).astype("float32"), logits[:, :1]
    if kind == "positive":
        return random.poisson(2.0, size=(N, K)).astype("float32"), np.abs(logits)
    if kind == "binary":
        probabilities = 1 / (1 + np.exp(-logits))
        probabilities[0, :2] = 0.0, 1.0
        return random.integers(0, 2, size=(N, K)).astype("float32"), probabilities
    if kind == "binary_logits":
        return random.integers(0, 2, size=(N, K)).astype("float32"), logits
    if kind == "signs":
        return random.choice([-1.0, 1.0], size=(N, K)).astype("float32"), logits
    if kind == "one_hot":
        return np.eye(K, dtype="float32")[labels], softmax(logits)
    if kind == "unnormalised":
        return np.eye(K, dtype="float32")[labels], softmax(logits) * 3 + 0.01
    if kind == "one_hot_logits":
        return np.eye(K, dtype="float32")[labels], logits
    if kind == "labels":
        return labels, softmax(logits)
    if kind == "labels_column":
        return labels[:, None], softmax(logits)
    if kind == "labels_logits":
        return labels, logits
    if kind == "distributions":
        return softmax(random.normal(size=(N, K))), softmax(logits)
    if kind == "sequence":
        sequence = random.normal(size=(N, 4, K)).astype("float32")
        return random.integers(0, K, size=(N, 4)), softmax(sequence)
    assert kind == "sequence_logits"
    return random.integers(0, K, size=(N, 4)), random.normal(size=(N, 4, K)).astype("float32")


CASES: list[tuple[str, str, dict[str, Any]]] = [
    *(
        (name, kind, {})
        for name in ("MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "LogCosh", "Huber")
        for kind in ("regression", "column")
    ),
    ("Huber", "regression", {"delta": 0.3}),
    ("MeanSquaredLogarithmicError", "positive", {}),
    ("MeanSquaredLogarithmicError", "regression", {}),
    ("CosineSimilarity", "regression", {}),
    ("CosineSimilarity", "regression", {"axis": 0}),
    ("BinaryCrossentropy", "binary", {}),
    ("BinaryCrossentropy", "binary", {"label_smoothing": 0.2}),
    ("BinaryCrossentropy", "binary_logits", {"from_logits": True}),
    ("BinaryCrossentropy", "binary_logits", {"from_logits": True, "label_smoothing": 0.1}),
    ("BinaryFocalCrossentropy", "binary", {}),
    ("BinaryFocalCrossentropy", "binary", {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5}),
    ("BinaryFocalCrossentropy", "binary_logits", {"from_logits": True, "label_smoothing": 0.1}),
    ("CategoricalCrossentropy", "one_hot", {}),
    ("CategoricalCrossentropy", "unnormalised", {}),
    ("CategoricalCrossentropy", "one_hot", {"label_smoothing": 0.3}),
    ("CategoricalCrossentropy", "one_hot_logits", {"from_logits": True}),
    ("CategoricalCrossentropy", "one_hot_logits", {"from_logits": True, "label_smoothing": 0.3}),
    ("CategoricalFocalCrossentropy", "one_hot", {}),
    ("CategoricalFocalCrossentropy", "one_hot_logits", {"from_logits": True, "alpha": 0.5, "gamma": 1.0}),
    ("SparseCategoricalCrossentropy", "labels", {}),
    ("SparseCategoricalCrossentropy", "labels_column", {}),
    ("SparseCategoricalCrossentropy", "labels_logits", {"from_logits": True}),
    ("SparseCategoricalCrossentropy", "labels", {"ignore_class": 1}),
    ("SparseCategoricalCrossentropy", "labels_logits", {"from_logits": True, "ignore_class": 1}),
    ("SparseCategoricalCrossentropy", "sequence", {}),
    ("SparseCategoricalCrossentropy", "sequence_logits", {"from_logits": True, "ignore_class": 0}),
    ("KLDivergence", "distributions", {}),
    ("Poisson", "positive", {}),
    ("Hinge", "signs", {}),
    ("Hinge", "binary_logits", {}),
    ("SquaredHinge", "signs", {}),
    ("SquaredHinge", "binary_logits", {}),
    ("CategoricalHinge", "one_hot", {}),
    ("Dice", "binary", {}),
    ("Tversky", "binary", {"alpha": 0.3, "beta": 0.7}),
]
IDS = [f"{name}-{kind}-{'-'.join(map(str, options.values()))}" for name, kind, options in CASES]


REDUCED = [(*case, "sum_over_batch_size", weights) for case in CASES for weights in (None, "sample")] + [
    (*case, reduction, weights)
    for case in CASES[::6]
    for weights in (None, "sample")
    for reduction in ("sum", "mean", "mean_with_sample_weight", "none", None)
]


@pytest.mark.parametrize(("name", "kind", "options", "reduction", "weights"), REDUCED)
def test_classes(
    keras: ModuleType, name: str, kind: str, options: dict[str, Any], reduction: str | None, weights: str | None
) -> None:
    y_true, y_pred = data(kind)
    sample_weight = None if weights is None else RANDOM.random(N).astype("float32")
    if weights is not None and y_pred.ndim == 3:
        sample_weight = RANDOM.random((N, 4)).astype("float32")
    if weights is not None and options.get("axis") == 0:
        sample_weight = RANDOM.random(K).astype("float32")
    theirs = getattr(keras.losses, name)(reduction=reduction, **options)
    ours = getattr(losses, name)(reduction=reduction, **options)
    expected = theirs(y_true, y_pred, sample_weight=sample_weight)
    for given in ((y_true, y_pred), (tensor(y_true), tensor(y_pred))):
        got = ours(*given, sample_weight=sample_weight)
        np.testing.assert_allclose(to_numpy(got), to_numpy(expected), rtol=1e-5, atol=1e-6)
    assert ours.name == theirs.name


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=IDS)
def test_gradients(keras: ModuleType, name: str, kind: str, options: dict[str, Any]) -> None:
    y_true, y_pred = data(kind)
    y_pred = y_pred + np.float32(1e-3)  # away from the points where Keras's own gradients are not numbers

    def gradient(loss: Any) -> np.ndarray:
        prediction = tensor(y_pred, requires_grad=True)
        loss(tensor(y_true), prediction).backward()
        assert prediction.grad is not None
        return to_numpy(prediction.grad)

    theirs = gradient(getattr(keras.losses, name)(**options))
    ours = gradient(getattr(losses, name)(**options))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask_kind", ["some", "none"])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_masks(keras: ModuleType, reduction: str, mask_kind: str) -> None:
    y_true, y_pred = data("sequence")
    mask = tensor(RANDOM.random((N, 4)) > 0.4) if mask_kind == "some" else tensor(torch.zeros(N, 4, dtype=torch.bool))
    results = []
    for module in (keras.losses, losses):
        prediction = tensor(y_pred)
        prediction._keras_mask = mask  # type: ignore[attr-defined]
        loss = module.SparseCategoricalCrossentropy(reduction=reduction)
        results.append(to_numpy(loss(tensor(y_true), prediction)))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


NAMES = [
    ("mse", "regression"),
    ("MAE", "regression"),
    ("mape", "regression"),
    ("msle", "positive"),
    ("log_cosh", "regression"),
    ("huber", "regression"),
    ("cosine_similarity", "regression"),
    ("bce", "binary"),
    ("binary_focal_crossentropy", "binary"),
    ("categorical_crossentropy", "one_hot"),
    ("categorical_focal_crossentropy", "one_hot"),
    ("sparse_categorical_crossentropy", "labels"),
    ("kld", "distributions"),
    ("poisson", "positive"),
    ("hinge", "signs"),
    ("squared_hinge", "signs"),
    ("categorical_hinge", "one_hot"),
    ("dice", "binary"),
    ("tversky", "binary"),
]


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_functions(keras: ModuleType, name: str, kind: str) -> None:
    y_true, y_pred = data(kind)
    theirs, ours = keras.losses.get(name), losses.get(name)
    assert ours is not None and ours.__name__ == theirs.__name__  # type: ignore[union-attr]
    expected = theirs(tensor(y_true), tensor(y_pred))
    np.testing.assert_allclose(to_numpy(ours(y_true, y_pred)), to_numpy(expected), rtol=1e-5, atol=1e-6)


def test_every_name_of_keras_is_known(keras: ModuleType) -> None:
    from keras.src.losses import ALL_OBJECTS_DICT

    left_out = {"Circle", "CTC", "circle", "ctc", "Loss", "LossFunctionWrapper"}
    for name in set(ALL_OBJECTS_DICT) - left_out:
        assert losses.get(name) is not None


@pytest.mark.parametrize(("name", "kind", "options"), CASES, ids=IDS)
def test_descriptions_are_read_by_keras_and_back(
    keras: ModuleType, name: str, kind: str, options: dict[str, Any]
) -> None:
    ours = getattr(losses, name)(name="mine", **options)
    written = losses.serialize(ours)
    theirs = keras.losses.deserialize(written)
    y_true, y_pred = data(kind)
    expected = to_numpy(theirs(y_true, y_pred))
    again = losses.deserialize(keras.losses.serialize(getattr(keras.losses, name)(name="mine")))
    assert again.name == "mine"
    np.testing.assert_allclose(to_numpy(losses.deserialize(written)(y_true, y_pred)), expected, rtol=1e-5, atol=1e-6)


def _distance(y_true: Any, y_pred: Any) -> Any:
    """The sum of the mean distances of nested outputs."""
    if isinstance(y_pred, dict):
        return sum(_distance(y_true[key], y_pred[key]) for key in y_pred)
    if isinstance(y_pred, (list, tuple)):
        return sum(map(_distance, y_true, y_pred))
    return (y_true - y_pred).abs().mean()


def _in_two(d: list[Any]) -> Any:
    return {"a": (d[0], d[1]), "d": d[2]}


def _listed(d: list[Any]) -> Any:
    return [[d[0], d[1]], d[2]]


@pytest.mark.parametrize(
    ("nested", "loss", "weights"),
    [
        (_in_two, {"a": _distance, "d": "mse"}, None),
        (_in_two, {"a": "mse", "d": "mse"}, None),
        (_in_two, {"a": [_distance, (None, _distance)], "d": _distance}, {"a": [0.5, (1.0, 2.0)], "d": 3.0}),
        (_in_two, {"a": [_distance, (None, _distance)], "d": _distance}, [0.5, 1.0, 2.0, 3.0]),
        pytest.param(
            *(_in_two, {"a": _distance}, None), marks=pytest.mark.filterwarnings("ignore:Gradients do not exist")
        ),
        (tuple, [_distance, (_distance, "mse")], None),
        (lambda d: {"a": d[0], "b": d[1], "c": d[2]}, [_distance, {"a": "mse", "b": "mae"}], None),
        (lambda d: {"a": d[0], "b": d[1], "c": d[2]}, [_distance], None),
        (_listed, [_distance, "mse"], None),
        (_listed, ["mse", "mse"], None),
    ],
)
def test_a_loss_gets_several_outputs_together(keras: ModuleType, nested: Any, loss: Any, weights: Any) -> None:
    def trained(peer: Any) -> dict[str, Any]:
        inputs = peer.Input((3,))
        # What `tuple` stands for are two outputs.
        ends = [
            peer.layers.Dense(1, kernel_initializer="ones", name=f"y{index}")(inputs * (index + 1))
            for index in range(2 if nested is tuple else 3)
        ]
        model = peer.Model(inputs, nested(ends))
        model.compile("sgd", loss, loss_weights=weights)
        x = np.arange(12.0).reshape(4, 3) / 10
        y = nested([np.full((4, 1), float(index)) for index in range(len(ends))])
        history: dict[str, Any] = model.fit(x, y, batch_size=2, shuffle=False, verbose=0).history
        return history

    ours, theirs = trained(oncue), trained(keras)
    assert sorted(ours) == sorted(theirs)
    assert all(ours[name] == pytest.approx(theirs[name], rel=1e-5) for name in ours)
