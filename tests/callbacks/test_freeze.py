"""Freeze: layers whose weights stand still for some epochs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, graphs_compiled_by, normal, same_arrays, uncompiled
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, Freeze, LambdaCallback

X = normal(16, 3)
Y = X.sum(axis=1, keepdims=True)


def network(**options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    body = oncue.Sequential(
        [layers.Input((3,)), layers.Dense(4, name="first"), layers.BatchNormalization(name="norm")], name="body"
    )
    model = oncue.Sequential([layers.Input((3,)), body, layers.Dense(1, name="head")])
    model.compile(oncue.optimizers.AdamW(0.05), "mse", **options)
    return model


class Epochs(Callback):
    """Keeps the weights of layers at the ends of epochs."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names, self.kept = names, {name: [] for name in names}

    def on_train_begin(self, logs: Any = None) -> None:
        self.on_epoch_end(-1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, kept in self.kept.items():
            kept.append(self.model.get_layer(name).get_weights())

    def still(self, name: str) -> list[bool]:
        kept = self.kept[name]
        return [same_arrays(one, other) for one, other in pairwise(kept)]


def fit(model: Any, *callbacks: Any, epochs: int = 4) -> Any:
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize("jit", [False, True])
def test_layers_stand_still_for_some_epochs(jit: bool) -> None:
    seen = Epochs("body", "head")
    with graphs_compiled_by(uncompiled):
        history = fit(network(jit_compile=jit), Freeze("body", from_epoch=1, until_epoch=3), seen)
    assert seen.still("body") == [False, True, True, False]
    assert seen.still("head") == [False] * 4
    assert [(one.epoch, one.text) for one in history.journal.of("freeze")] == [
        (1, "froze body: 24 numbers in 4 weights stand still"),
        (3, "body is trained again: 24 numbers in 4 weights"),
    ]


def test_what_was_frozen_before_stays_so() -> None:
    model = network()
    model.get_layer("body").get_layer("first").trainable = False
    seen = Epochs("body")
    fit(model, Freeze("body", until_epoch=2), seen)
    assert model.get_layer("body").get_layer("first").trainable is False
    assert model.get_layer("body").get_layer("norm").trainable is True
    first = [one[0] for one in seen.kept["body"]]
    assert all(np.array_equal(one, first[0]) for one in first)
    assert seen.still("body") == [True, True, False, False]


def test_names_with_a_star_and_modules_of_torch() -> None:
    module = torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 4)), torch.nn.Linear(4, 1)
    )
    model = oncue.Model(module)
    model.compile("sgd", "mse")
    seen: list[list[bool]] = []
    look = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append([p.requires_grad for p in module.parameters()]))
    fit(model, Freeze(["0.*"]), look, epochs=1)
    assert seen == [[False] * 4 + [True] * 2]


@pytest.mark.parametrize("fails", [False, True])
def test_after_the_run_all_is_as_it_was(fails: bool) -> None:
    model, freeze, seen = network(), Freeze("body", until_epoch=3), Epochs("body")
    model.get_layer("body").get_layer("norm").trainable = False
    if fails:
        with pytest.raises(ConnectionError):
            fit(model, freeze, PowerCut(1, 1), epochs=2)
    else:
        fit(model, freeze, epochs=2)
    assert [one.trainable for one in model.get_layer("body").layers] == [True, False]
    assert model.get_layer("body").trainable and model.get_layer("body").get_layer("first").kernel.requires_grad
    # The same object in a second run, which goes on from there.
    history = model.fit(X, Y, epochs=5, initial_epoch=2, batch_size=4, verbose=0, callbacks=[freeze, seen])
    assert seen.still("body") == [True, False, False]
    assert [one.epoch for one in history.journal.of("freeze")] == [2, 3]


def test_in_keras_s_own_loop_too() -> None:
    import keras

    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(1)])
    made.compile("adam", "mse")
    before = made.layers[0].get_weights()
    made.fit(X, Y, verbose=0, callbacks=[Freeze("body")])
    assert same_arrays(before, made.layers[0].get_weights()) and made.layers[0].trainable


def test_of_a_real_keras_model() -> None:
    import keras

    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(1)])
    made.compile("adam", "mse")
    kept = [made.layers[0].get_weights()]
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(made.layers[0].get_weights()))
    model = oncue.Model(made)
    fit(model, Freeze("body", until_epoch=1), keep, epochs=2)
    assert same_arrays(kept[0], kept[1])
    assert not same_arrays(kept[1], kept[2])
    assert made.layers[0].trainable


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Freeze([]), "`layers` of Freeze must be the name of a layer"),
        (lambda: Freeze("body", until_epoch=1, from_epoch=1), "must come after `from_epoch`=1; got 1"),
        (lambda: fit(network(), Freeze("boddy")), "no layer 'boddy'.*Did you mean 'body'"),
    ],
)
def test_mistakes(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_resumed_run_ends_with_the_same(tmp_path: Path, save_freq: Any) -> None:
    def run(folder: Path, *more: Any) -> Any:
        model = network()
        history = fit(
            model, Freeze("body", from_epoch=1, until_epoch=3), BackupAndRestore(folder, save_freq=save_freq), *more
        )
        texts = [one.text for one in history.journal if one.callback == "Freeze"]
        return history.history, texts, [one.tobytes() for one in model.get_weights()]

    whole = run(tmp_path / "whole")
    for epoch in range(4):
        with pytest.raises(ConnectionError):
            run(tmp_path / str(epoch), PowerCut(epoch, 2))
        assert run(tmp_path / str(epoch)) == whole, epoch
