"""The contract: it can't grow unseen, and our models satisfy it."""

from __future__ import annotations

import torch

import oncue
from oncue.core.contract import HasLearningRate, TrainedModel

MEMBERS = {"stop_training", "optimizer", "get_weights", "set_weights", "save_weights", "load_weights", "save"}


def test_the_contract_has_seven_members() -> None:
    declared = set(TrainedModel.__annotations__) | {name for name in vars(TrainedModel) if not name.startswith("_")}
    assert declared == MEMBERS


def test_our_models_satisfy_it() -> None:
    model = oncue.Model(torch.nn.Linear(2, 1))
    model.compile("sgd", "mse")
    assert isinstance(model, TrainedModel)
    assert isinstance(model.optimizer, HasLearningRate)
