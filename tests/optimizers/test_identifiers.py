"""`optimizers.get`: every way to say which optimizer."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
import torch

from oncue import optimizers
from oncue.optimizers import SGD, Adam, AdamW, TorchOptimizer


@pytest.mark.parametrize("name", ["adam", "Adam", "ADAM"])
def test_names_in_any_case(name: str) -> None:
    assert type(optimizers.get(name)) is Adam


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "adamw"])
def test_all_names(name: str) -> None:
    assert type(optimizers.get(name)).__name__.lower() == name


def test_objects_classes_and_none() -> None:
    optimizer = SGD()
    assert optimizers.get(optimizer) is optimizer
    assert type(optimizers.get(AdamW)) is AdamW
    assert optimizers.get(None) is None


def test_torch_optimizers_and_functions() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    for identifier in (torch.optim.Adam([weight]), torch.optim.Adam, lambda p: torch.optim.Adam(p)):
        assert type(optimizers.get(identifier)) is TorchOptimizer


def test_configs_go_through_json() -> None:
    first = SGD(optimizers.schedules.CosineDecay(0.1, 10), momentum=0.9, clipnorm=1.0)
    config = json.loads(json.dumps(optimizers.serialize(first)))
    second = optimizers.get(config)
    assert second is not None
    assert second.get_config() == first.get_config()


def test_classes_of_ones_own() -> None:
    class Mine(SGD):
        pass

    config = optimizers.serialize(Mine(0.5))
    assert type(optimizers.deserialize(config, custom_objects={"Mine": Mine})) is Mine
    with pytest.raises(ValueError, match="Unknown optimizer: 'Mine'"):
        optimizers.deserialize(config)


@pytest.mark.parametrize(("identifier", "message"), [("adm", "Did you mean 'adam'"), (3, "got 3 of type int")])
def test_refuses(identifier: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizers.get(identifier)


def test_the_legacy_address_has_the_same_classes_and_no_others() -> None:
    names: dict[str, Any] = {}
    exec("from oncue.optimizers.legacy import *", names)
    del names["__builtins__"]
    ours = ["Adadelta", "Adagrad", "Adam", "Adamax", "Nadam", "Optimizer", "RMSprop", "SGD"]
    assert sorted(names) == sorted([*ours, "Ftrl"])
    assert all(value is getattr(optimizers, name) for name, value in names.items())
    assert optimizers.legacy.Adam is Adam and optimizers.legacy.__name__ == "oncue.optimizers.legacy"
    assert not hasattr(optimizers.legacy, "AdamW") and not hasattr(optimizers.legacy, "get")
    assert importlib.import_module("oncue.keras.optimizers.legacy") is optimizers.legacy
