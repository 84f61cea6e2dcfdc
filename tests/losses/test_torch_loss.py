"""Losses of torch.nn among ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers import to_numpy
from oncue import losses
from oncue.losses import TorchLoss

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.5, 1.5, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2, 2, 1])


@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.int(), LABELS.float(), LABELS[:, None], to_numpy(LABELS), LABELS.to(torch.uint8)]
)
def test_class_labels_in_every_type(labels: Any) -> None:
    loss = losses.get(nn.CrossEntropyLoss())
    assert isinstance(loss, TorchLoss)
    expected = nn.functional.cross_entropy(LOGITS, LABELS)
    torch.testing.assert_close(loss(labels, LOGITS), expected)


def test_class_probabilities() -> None:
    target = np.eye(3)[to_numpy(LABELS)]  # float64
    torch.testing.assert_close(
        TorchLoss(nn.CrossEntropyLoss())(target, LOGITS), nn.functional.cross_entropy(LOGITS, LABELS)
    )


@pytest.mark.parametrize("target", [np.array([0, 1, 1, 0]), np.array([[0.0], [1.0], [1.0], [0.0]])])
@pytest.mark.parametrize("module", [nn.MSELoss, nn.BCEWithLogitsLoss, nn.L1Loss, nn.HuberLoss])
def test_element_by_element(module: type[nn.Module], target: Any) -> None:
    prediction = LOGITS[:, :1]
    expected = module()(prediction, torch.tensor([[0.0], [1.0], [1.0], [0.0]]))
    loss = losses.get(module)
    assert loss is not None
    torch.testing.assert_close(loss(target, prediction), expected)


@pytest.mark.parametrize(
    "module",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]), ignore_index=2),
        nn.CrossEntropyLoss(reduction="sum"),
    ],
)
def test_weights_of_one_change_nothing(module: nn.Module) -> None:
    loss = TorchLoss(module)
    torch.testing.assert_close(loss(LABELS, LOGITS, torch.ones(4)), loss(LABELS, LOGITS))


def test_sample_weights() -> None:
    loss = TorchLoss(nn.CrossEntropyLoss())
    each = nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(loss(LABELS, LOGITS, [1.0, 0.0, 2.0, 0.5]), (each * torch.tensor([1, 0, 2, 0.5])).mean())
    square = TorchLoss(nn.MSELoss())
    zeros = torch.zeros_like(LOGITS)
    expected = (LOGITS.square().mean(-1) * torch.tensor([1.0, 0.0, 2.0, 0.5])).mean()
    torch.testing.assert_close(square(zeros, LOGITS, [1.0, 0.0, 2.0, 0.5]), expected)
    assert loss.module.reduction == "mean"


def test_a_module_of_the_users_own() -> None:
    class Mine(nn.Module):
        def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            assert target.dtype == torch.int64
            return prediction.sum() - target.sum()

    loss = TorchLoss(Mine())
    assert loss.name == "mine"
    assert loss(torch.tensor([1]), torch.tensor([3.0])).item() == 2.0
    with pytest.raises(TypeError, match="sample_weight"):
        loss(torch.tensor([1]), torch.tensor([3.0]), [1.0])


@pytest.mark.parametrize("module", [nn.TripletMarginLoss(), nn.CTCLoss(), nn.GaussianNLLLoss()])
def test_losses_of_more_inputs_are_refused(module: nn.Module) -> None:
    with pytest.raises(TypeError, match="more than a prediction and a target"):
        losses.get(module)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"torch.nn.CrossEntropyLoss\(\)"):
        TorchLoss("mse")  # type: ignore[arg-type]
