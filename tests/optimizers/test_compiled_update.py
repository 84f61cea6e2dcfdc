"""Which optimizers may be part of a compiled step: those whose own class says what an update does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oncue import optimizers
from oncue.optimizers import SGD, Adam, AdamW, LossScaleOptimizer, Optimizer, TorchOptimizer
from oncue.optimizers.compiled_update import KerasUpdate, TorchUpdate, compiled_update

OURS = ("SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop")


def _built(optimizer: Optimizer) -> Optimizer:
    optimizer.build([torch.nn.Parameter(torch.ones(2))])
    return optimizer


@pytest.mark.parametrize("name", OURS)
def test_the_optimizers_of_keras_are_compiled(name: str) -> None:
    assert isinstance(compiled_update(_built(getattr(optimizers, name)())), KerasUpdate)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_usual_ones_of_torch_are_compiled(kind: Any) -> None:
    assert isinstance(compiled_update(_built(TorchOptimizer(kind))), TorchUpdate)


def test_loss_scaling_is_not_compiled() -> None:
    assert compiled_update(_built(LossScaleOptimizer(SGD()))) is None


class Renamed(Adam):
    """Adds nothing."""


class Halved(AdamW):
    def compiled_numbers(self, rate: float) -> tuple[float, ...]:
        return super().compiled_numbers(rate / 2)


class OtherArithmetic(SGD):
    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=learning_rate)


class OwnStep(SGD):
    has_compiled_rule = True

    def step(self) -> None:
        super().step()


class OwnTorch(TorchOptimizer):
    def _update(self, inner: torch.optim.Optimizer, missing: list[torch.Tensor]) -> None:
        super()._update(inner, missing)


@pytest.mark.parametrize(
    "optimizer", [Renamed(), Halved(), OtherArithmetic(), OwnStep(), OwnTorch(torch.optim.SGD)], ids=repr
)
def test_a_subclass_is_not_compiled_by_the_rule_of_its_parent(optimizer: Optimizer) -> None:
    assert compiled_update(_built(optimizer)) is None


@pytest.mark.parametrize("kind", [Renamed, OtherArithmetic])
def test_where_a_class_is_defined_decides_nothing(kind: type[Optimizer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "__module__", "oncue.optimizers.adam")
    monkeypatch.setattr(Adam, "__module__", "elsewhere")
    assert compiled_update(_built(kind())) is None
    assert isinstance(compiled_update(_built(Adam())), KerasUpdate)
