"""What torch's own ways of looking into a module tell of a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oncue import Model, Sequential, layers


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


@pytest.mark.parametrize("dtype", ["float64", torch.bfloat16, "float16"])
def test_a_type_that_a_module_does_not_have_is_refused(dtype: Any) -> None:
    with pytest.raises(
        ValueError, match=r"got .*float.*, and `weight` has torch.float32.*`Model\(module.to\(torch\..*float"
    ):
        Model(torch.nn.Linear(2, 1), dtype=dtype)


def test_types_that_a_module_has_and_mixed_ones_are_taken() -> None:
    for dtype in ("float32", torch.float32, "mixed_bfloat16", None):
        assert Model(torch.nn.Linear(2, 1), dtype=dtype).dtype == "float32"
    model: Any = Model(torch.nn.Linear(2, 1).double(), dtype="float64")
    assert model.predict([[1.0, 2.0]], verbose=0).dtype == "float64"


def test_modules_may_be_added_while_they_are_gone_through() -> None:
    model: Any = Sequential([layers.Input((2,)), layers.Dense(2)])
    for module in model.modules():
        module.late = torch.nn.Identity()
    assert sum(isinstance(module, torch.nn.Identity) for module in model.modules()) == 2
