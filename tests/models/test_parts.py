"""What torch's own ways of looking into a module tell of a model."""

from __future__ import annotations

from typing import Any

import torch

from oncue import Sequential, layers


def test_modules_parameters_and_buffers_are_those_of_torch_in_its_order() -> None:
    shared = torch.nn.Linear(2, 2)
    model: Any = Sequential([layers.Input((2,)), layers.BatchNormalization(), shared, torch.nn.Sequential(shared)])
    model.add(layers.Dense(2))
    model.again = torch.nn.BatchNorm1d(2)
    model.again.other = model.again.weight
    model.register_buffer("nothing", None)
    for recurse in (True, False):
        for name in ("parameters", "buffers"):
            plain = list(getattr(torch.nn.Module, name)(model, recurse))
            found = list(getattr(model, name)(recurse=recurse))
            assert [id(one) for one in found] == [id(one) for one in plain]
    assert list(model.modules()) == list(torch.nn.Module.modules(model))
    assert list(model.modules(remove_duplicate=False)).count(shared) == 2
    # Those of a module around the model.
    assert len(list(torch.nn.Sequential(model).parameters())) == len(list(model.parameters()))


def test_modules_may_be_added_while_they_are_gone_through() -> None:
    model: Any = Sequential([layers.Input((2,)), layers.Dense(2)])
    for module in model.modules():
        module.late = torch.nn.Identity()
    assert sum(isinstance(module, torch.nn.Identity) for module in model.modules()) == 2
