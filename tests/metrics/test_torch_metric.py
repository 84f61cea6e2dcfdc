"""torchmetrics among ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oncue import metrics
from oncue.metrics import TorchMetric

torchmetrics = pytest.importorskip("torchmetrics")
SCORES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])


@pytest.mark.parametrize("labels", [[0, 1, 1, 2], [[0], [1], [1], [2]], [0.0, 1.0, 1.0, 2.0]])
def test_labels_in_every_shape(labels: list[float]) -> None:
    metric = metrics.get(torchmetrics.classification.MulticlassAccuracy(3, average="micro"))
    assert isinstance(metric, TorchMetric)
    metric.update_state(np.array(labels), SCORES)
    metric.update_state(np.array(labels), SCORES)
    assert metric.result().item() == 0.75
    metric.reset_state()
    assert metric.result().item() == 0.0


def test_direction_and_name() -> None:
    assert TorchMetric(torchmetrics.MeanSquaredError())._direction == "down"
    accuracy = TorchMetric(torchmetrics.classification.BinaryAccuracy())
    assert (accuracy._direction, accuracy.name) == ("up", "binary_accuracy")


def test_regression_targets_stay_floats() -> None:
    metric = TorchMetric(torchmetrics.MeanAbsoluteError(), name="mae")
    metric.update_state(torch.tensor([0.5, 1.5]), torch.tensor([[1.0], [1.0]]))
    assert metric.result().item() == 0.5


def test_metrics_for_labels_are_known_by_their_class() -> None:
    class Mine(torchmetrics.classification.BinaryAccuracy):  # type: ignore[misc]  # without types
        pass

    class Errors(torchmetrics.MeanAbsoluteError):  # type: ignore[misc]  # without types
        __module__ = "my.classification"

    targets, scores = torch.tensor([0.0, 1.0]), torch.tensor([0.9, 0.9])
    accuracy, errors = TorchMetric(Mine()), TorchMetric(Errors())
    accuracy.update_state(targets, scores)
    errors.update_state(targets + 0.5, scores)
    assert accuracy.result().item() == 0.5
    assert errors.result().item() == pytest.approx(0.5)


def test_a_collection_gives_a_dict() -> None:
    collection = torchmetrics.MetricCollection(
        {"mae": torchmetrics.MeanAbsoluteError(), "mse": torchmetrics.MeanSquaredError()}
    )
    metric = TorchMetric(collection)
    metric.update_state(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 2.0]))
    taken = metric.snapshot()
    metric.reset_state()
    assert isinstance(taken, dict)
    assert {name: (float(value), count) for name, (value, count) in taken.items()} == {
        "mae": (2.0, None),
        "mse": (4.0, None),
    }


def test_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weighted_metrics"):
        TorchMetric(torchmetrics.MeanSquaredError()).update_state(torch.zeros(2), torch.zeros(2), torch.ones(2))


def test_what_lacks_a_method_is_refused() -> None:
    with pytest.raises(TypeError, match="update, compute and reset"):
        TorchMetric(object())
