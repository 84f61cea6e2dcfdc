"""Parts that the user put in inference mode stay in it while the rest is trained; so do frozen statistics of torch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import oncue
from helpers import tensor, to_numpy
from oncue import layers
from oncue.callbacks import Callback, LambdaCallback

X = np.random.default_rng(0).normal(3.0, 2.0, size=(32, 4)).astype("float32")
Y = X[:, :1]


class Moves:
    """Tells whether the statistics of a batch normalization have moved since it was asked last."""

    def __init__(self, norm: Any) -> None:
        self.norm = norm
        self.before = self.read()

    def read(self) -> Any:
        return to_numpy(self.norm.running_mean).copy()

    def __call__(self) -> bool:
        before, self.before = self.before, self.read()
        return not np.array_equal(before, self.before)


def backbone(quiet: bool = True) -> Any:
    made = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    return made.eval() if quiet else made


class Attribute(oncue.Model):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part, self.head = part, layers.Dense(1)

    def call(self, inputs: torch.Tensor, training: bool | None = None, mask: Any = None) -> Any:
        return self.head(self.part(inputs))


def functional(part: Any) -> Any:
    inputs = layers.Input((4,))
    return oncue.Model(inputs, layers.Dense(1)(oncue.Model(nn.Sequential(part, nn.Linear(4, 4)))(inputs)))


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "module": lambda part: oncue.Model(nn.Sequential(part, nn.Linear(4, 1))),
    "sequential": lambda part: oncue.Sequential([layers.Input((4,)), part, layers.Dense(1)]),
    "unbuilt": lambda part: oncue.Sequential([part, layers.Dense(1)]),
    "attribute": Attribute,
    "functional": functional,
}


def compiled(model: Any) -> Any:
    model.compile(oncue.optimizers.SGD(0.0), "mse", jit_compile=False)
    return model


def fit(model: Any, *callbacks: Any, **arguments: Any) -> None:
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=list(callbacks), **arguments)


@pytest.mark.filterwarnings("ignore:.* stays in inference mode because")
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_part_that_came_in_inference_mode_stays_in_it(holder: str) -> None:
    part = backbone()
    model, moves = compiled(HOLDERS[holder](part)), Moves(part[1])
    for _ in range(2):
        fit(model, validation_data=(X, Y), epochs=2)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        model.train_on_batch(X, Y)
        assert not moves()


@pytest.mark.parametrize("holder", HOLDERS)
def test_all_else_is_trained_in_training_mode(holder: str) -> None:
    part = backbone(quiet=False)
    model, moves = compiled(HOLDERS[holder](part)), Moves(part[1])
    for _ in range(2):
        fit(model, validation_data=(X, Y))
        assert moves() and not any(module.training for module in model.modules())
        model.evaluate(X, Y, verbose=0)
        assert not moves()
        model.eval()
        model.train_on_batch(X, Y)
        assert moves()


def test_a_whole_that_came_in_inference_mode_is_trained_all_the_same() -> None:
    part = backbone()
    model, moves = compiled(oncue.Model(nn.Sequential(part).eval())), Moves(part[1])
    model.fit(X, X, verbose=0)
    assert moves()
    # What oncue has put in inference mode isn't the user's doing, in another model either.
    again = compiled(oncue.Sequential([layers.Input((4,)), part, layers.Dense(1)]))
    fit(again)
    assert moves()


@pytest.mark.filterwarnings("ignore:.* stays in inference mode because")
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("fitted", [False, True])
def test_copies_remember_it(copied: Callable[[Any], Any], fitted: bool) -> None:
    for quiet in (True, False):
        model = compiled(HOLDERS["sequential"](backbone(quiet)))
        if fitted:
            fit(model)
        other = copied(model)
        moves = Moves(other.layers[0][1])
        fit(other)
        assert moves() != quiet


def test_a_part_is_put_in_inference_mode_and_back_while_the_model_is_in_training_mode() -> None:
    part = backbone(quiet=False)
    model, moves = compiled(HOLDERS["sequential"](part)), Moves(part[1])
    model.train()
    part[1].eval()
    fit(model)
    assert not moves()
    fit(model)
    assert not moves()
    part[1].train()
    fit(model)
    assert moves()


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_train_batch_end"])
def test_a_hook_puts_a_part_in_inference_mode(hook: str) -> None:
    part = backbone(quiet=False)
    model, moves = compiled(HOLDERS["sequential"](part)), Moves(part[1])
    found: list[bool] = []

    class Quiet(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            found.append(moves())

    def change(self: Any, batch: int, logs: Any = None) -> None:
        moves()
        part[1].eval()

    setattr(Quiet, hook, change)
    fit(model, Quiet(), epochs=3, validation_data=(X, Y))
    assert found == [False, False, False] and not moves()


def test_a_layer_that_is_put_in_inference_mode_in_a_hook() -> None:
    norm = layers.BatchNormalization()
    model = compiled(oncue.Sequential([layers.Input((4,)), norm, layers.Dense(1)]))
    seen: list[Any] = []

    class Quiet(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(norm.get_weights()[2])
            norm.eval()

    fit(model, Quiet(), epochs=2)
    assert seen[0].any() and all(np.array_equal(seen[0], later) for later in seen)


def test_frozen_statistics_of_torch_stand_still_as_keras_ones_do() -> None:
    for freeze in (
        lambda model: model.layers[0].requires_grad_(False),
        lambda model: setattr(model.layers[0], "trainable", False),
        lambda model: setattr(model.layers[0][1], "trainable", False),
        lambda model: setattr(model, "trainable", False),
    ):
        part = backbone(quiet=False)
        model, moves = compiled(HOLDERS["sequential"](part)), Moves(part[1])
        freeze(model)
        if model.trainable:
            fit(model)
        else:
            with pytest.warns(UserWarning, match="no trainable weights"):
                fit(model)
        assert not moves()
        assert not part[1].weight.requires_grad


def test_trainable_of_a_torch_module_counts_in_hooks_and_back() -> None:
    part = backbone(quiet=False)
    model, moves = compiled(HOLDERS["sequential"](part)), Moves(part[1])
    found: list[bool] = []

    class Freeze(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            found.append(moves())
            model.layers[0].trainable = epoch % 2 == 0

    fit(model, Freeze(), epochs=4)
    found.append(moves())
    assert found == [False, True, False, True, False]
    assert model.optimizer.iterations == 16


def test_a_module_with_a_rule_of_its_own_keeps_it() -> None:
    class Careful(nn.Sequential):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self[1].eval()
            return self

    part = Careful(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model, moves = compiled(HOLDERS["module"](part)), Moves(part[1])
    fit(model, epochs=2)
    assert not moves()


def test_buffers_of_a_module_without_weights_are_where_the_model_is() -> None:
    class Shifts(oncue.Model):
        def __init__(self) -> None:
            super().__init__(device="meta")
            self.part = nn.BatchNorm1d(4, affine=False)

    model = Shifts()
    model._place()
    assert {buffer.device.type for buffer in model.buffers()} == {"meta"}


def test_a_model_that_is_called_in_a_hook_is_in_inference_mode_as_in_keras() -> None:
    model = compiled(
        oncue.Sequential([layers.Input((4,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1)])
    )
    x, found = tensor(X), []

    class Looks(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            before = model.get_weights()[2]
            found.append(torch.equal(model(x), model(x)) and np.array_equal(model.get_weights()[2], before))
            assert model.training and all(layer.training for layer in model.layers)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            found.append(not torch.equal(model(x, training=True), model(x, training=True)))
            # What trains by itself is in training mode.
            before = model.get_weights()[2]
            model.train_on_batch(X, Y)
            model.train_step((X, Y))
            found.append(not np.array_equal(model.get_weights()[2], before))

    fit(model, Looks())
    assert found == [True] * 12
    with pytest.raises(ArithmeticError):
        fit(model, LambdaCallback(on_train_batch_end=lambda batch, logs: 1 / 0))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_a_part_that_is_trained_in_inference_mode_is_named() -> None:
    class Net(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.backbone, self.head = part, nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(self.backbone(x))

    part = backbone()
    model = compiled(oncue.Model(Net(part)))
    with pytest.warns(
        UserWarning, match=r"^`backbone` stays in inference mode because of an `eval\(\)`.*`train\(\)`"
    ) as given:
        fit(model, epochs=2)
    assert len(given) == 1
    part.train()
    fit(model)
    for quiet in (backbone().requires_grad_(False), nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()):
        fit(compiled(oncue.Model(Net(quiet))))
