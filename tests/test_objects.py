"""Which classes are oncue's own is said by the classes, not by where their files are."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest
import torch

from helpers import tensor
from oncue import constraints, initializers, layers, losses, metrics, regularizers
from oncue.core.builtin import is_builtin
from oncue.keras_names import own_names
from oncue.models import Model, Sequential
from oncue.objects import to_config


@pytest.mark.parametrize("package", [constraints, initializers, layers, losses, metrics, regularizers])
def test_all_classes_of_a_package_are_marked(package: ModuleType) -> None:
    # `Initializer`, `Constraint` and `Regularizer` are there to be derived from and never written.
    bases = {"Constraint", "Initializer", "Regularizer"}
    names = own_names(package.__name__, getattr(package, "__all__", None) or dir(package))
    found = [getattr(package, name) for name in names if name not in bases and not name.startswith("_")]
    classes = [thing for thing in found if inspect.isclass(thing) and hasattr(thing, "get_config")]
    assert len(classes) > 3
    assert [cls.__name__ for cls in classes if not is_builtin(cls)] == []


def test_models_are_marked_and_what_is_derived_from_them_is_not() -> None:
    class Mine(Sequential):
        pass

    assert is_builtin(Model) and is_builtin(Sequential) and not is_builtin(Mine)


def test_a_configuration_does_not_depend_on_the_file_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(layers.Dense):  # type: ignore[misc]  # imported when first asked for
        pass

    before = to_config(layers.Dense(1, name="a"), "keras.layers"), to_config(Mine(1, name="a"), "keras.layers")
    monkeypatch.setattr(layers.Dense, "__module__", "elsewhere")
    monkeypatch.setattr(Mine, "__module__", "oncue.layers.dense")
    after = to_config(layers.Dense(1, name="a"), "keras.layers"), to_config(Mine(1, name="a"), "keras.layers")
    assert before[0] == after[0]
    assert before[1]["registered_name"] == after[1]["registered_name"] == "Mine"


def test_weights_of_layers_of_the_user_can_be_assigned_to() -> None:
    class Counts(layers.Layer):  # type: ignore[misc]  # as above
        def build(self, input_shape: Any) -> None:
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            self.seen.assign_add(1.0)
            return inputs

    layer = Counts()
    layer(tensor(torch.ones(1, 1)))
    layer(tensor(torch.ones(1, 1)))
    assert float(layer.seen) == 2.0
