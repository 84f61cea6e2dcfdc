"""The metrics of compile and their names in the logs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import oncue
from oncue import metrics
from oncue.training.output_metrics import OutputMetrics

LABELS = torch.tensor([0, 1, 2, 0])
SCORES = torch.eye(3)[[0, 1, 1, 0]] + 0.1
COLUMN, CHANCES = torch.tensor([[0.0], [1.0], [1.0], [0.0]]), torch.tensor([[0.1], [0.9], [0.2], [0.3]])


def values(measured: OutputMetrics) -> dict[str, float]:
    return {name: float(metric.result()) for name, metric in measured.names_and_metrics()}


@pytest.mark.parametrize(
    ("y_true", "y_pred", "kind"),
    [
        (COLUMN, CHANCES, metrics.BinaryAccuracy),
        (LABELS, SCORES, metrics.SparseCategoricalAccuracy),
        (LABELS[:, None], SCORES, metrics.SparseCategoricalAccuracy),
        (torch.eye(3)[LABELS], SCORES, metrics.CategoricalAccuracy),
    ],
)
@pytest.mark.parametrize("word", ["accuracy", "acc", "Accuracy"])
def test_accuracy_is_chosen_by_shapes_and_keeps_its_name(y_true: Any, y_pred: Any, kind: type, word: str) -> None:
    measured = OutputMetrics([word])
    measured.update_state(y_true, y_pred)
    assert type(measured.metrics[0]) is kind
    assert values(measured) == {word: 0.75}


def test_crossentropy_is_chosen_by_shapes() -> None:
    measured = OutputMetrics(["ce"])
    measured.update_state(LABELS, SCORES)
    assert type(measured.metrics[0]) is metrics.SparseCategoricalCrossentropy
    assert list(values(measured)) == ["ce"]


def test_only_weighted_metrics_get_weights() -> None:
    measured = OutputMetrics(["acc"], ["acc"])
    measured.update_state(COLUMN, CHANCES, torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert values(measured) == {"acc": 0.75, "weighted_acc": 0.0}


def test_reset() -> None:
    measured = OutputMetrics(["acc"])
    measured.reset_state()
    measured.update_state(COLUMN, CHANCES)
    measured.reset_state()
    measured.update_state(COLUMN[:2], CHANCES[:2])
    assert values(measured) == {"acc": 1.0}


def test_no_gradients_are_recorded() -> None:
    seen: list[bool] = []

    def watched(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
        seen.append((y_pred * 2).requires_grad)
        return y_pred

    OutputMetrics([watched]).update_state(COLUMN, CHANCES.clone().requires_grad_())
    assert seen == [False]


def test_several_outputs() -> None:
    measured = OutputMetrics({"b": ["acc", "acc"], "a": "mae"}, output_names=["a", "b"])
    measured.update_state([COLUMN, LABELS], [CHANCES, SCORES])
    assert list(values(measured)) == ["a_mae", "b_acc", "b_acc_1"]


def test_one_metric_for_each_output() -> None:
    measured = OutputMetrics(["mae", "accuracy"], output_names=["a", "b"])
    measured.update_state({"a": COLUMN, "b": LABELS}, [CHANCES, SCORES])
    assert list(values(measured)) == ["a_mae", "b_accuracy"]


@pytest.mark.parametrize("given", ["accuracy", metrics.AUC(), lambda y_true, y_pred: y_pred])
def test_what_is_no_list_is_refused_with_the_fix(given: Any) -> None:
    with pytest.raises(ValueError, match=r"`metrics` must be a list.*Use metrics=\["):
        OutputMetrics(given)


def test_an_unknown_name_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Did you mean 'accuracy'"):
        OutputMetrics([["acuracy"]])


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        ({"q": "acc"}, ["a", "b"], r"keys \['q'\]"),
        (["acc"], ["a", "b"], r"\['a', 'b'\]"),
        (["acc"] * 3, None, "2 outputs"),
    ],
)
def test_what_does_not_fit_the_outputs_is_refused(given: Any, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutputMetrics(given, output_names=names).update_state([COLUMN, LABELS], [CHANCES, SCORES])


def test_empty_lists_mean_no_metrics() -> None:
    measured = OutputMetrics([], {})
    measured.update_state(COLUMN, CHANCES)
    assert (measured.metrics, measured.names_and_metrics()) == ([], [])


def test_masks_count_for_metrics_while_a_model_is_trained() -> None:
    layers = oncue.layers
    model = oncue.Sequential([layers.Input((4,)), layers.Embedding(5, 3, mask_zero=True), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[lambda y_true, y_pred: y_true[..., 0]])
    model.optimizer.learning_rate = 0.0
    y = np.arange(4, dtype="float32").reshape(1, 4, 1)
    # Of the targets 0 to 3 the first is masked.
    assert model.train_on_batch([[0, 1, 2, 3]], y)[1] == model.test_on_batch([[0, 1, 2, 3]], y)[1] == 2.0
