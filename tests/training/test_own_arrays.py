"""What a layer's own `save_own_variables` says is kept wherever weights are: in backups, rollbacks and as best weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import to_numpy
from oncue import callbacks, layers

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Means(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    """Subtracts a mean that it keeps as an array, and takes from what it sees in training."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean, self.seen = np.zeros(4, "float32"), 0

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")

    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        if training:
            self.mean = 0.9 * self.mean + 0.1 * to_numpy(inputs.detach().mean(0))
            self.seen += 1
        return (inputs - torch.as_tensor(self.mean, device=inputs.device)) * self.scale

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["mean"], store["seen"] = self.mean, self.seen

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables({"0": store["0"]})
        assert isinstance(store["0"], np.ndarray)
        self.mean, self.seen = store["mean"], int(store["seen"])


def made() -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((4,)), Means(), layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    return model


def fit(model: Any, *others: Any, epochs: int = 4, **kwargs: Any) -> Any:
    return model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=list(others), **kwargs)


def state(model: Any) -> list[Any]:
    means = model.layers[0]
    return [means.mean.tolist(), means.seen, *(weight.tolist() for weight in model.get_weights())]


class Interrupt(callbacks.Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("batch", [0, 2])
def test_a_backup_has_it(tmp_path: Path, batch: int) -> None:
    whole = made()
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(made(), callbacks.BackupAndRestore(tmp_path, save_freq=1), Interrupt(2, batch))
    second = made()
    fit(second, callbacks.BackupAndRestore(tmp_path, save_freq=1))
    assert state(second) == state(whole)


class Spoil(callbacks.Callback):
    """Makes the loss of a batch no number, once."""

    def __init__(self) -> None:
        super().__init__()
        self.done, self.kept = False, Any

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2 and not self.done:
            self.kept = state(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        means = self.model.layers[0]
        if means.seen == 10 and not self.done:
            self.done, means.mean = True, means.mean * np.nan


def test_a_rollback_has_it() -> None:
    model, spoil = made(), Spoil()
    fit(model, spoil, callbacks.TerminateOnNaN(action="rollback", factor=1.0))
    whole = made()
    fit(whole)
    assert spoil.done and state(model) == state(whole)


def test_best_weights_have_it() -> None:
    class Note(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["value"] = float(abs(epoch - 1))
            if epoch == 1:
                self.best = state(self.model)

    model, note = made(), Note()
    stopping = callbacks.EarlyStopping("value", mode="min", patience=2, restore_best_weights=True)
    fit(model, note, stopping, epochs=6)
    assert model.layers[0].seen == 8
    assert state(model) == note.best


def test_best_weights_survive_an_interruption(tmp_path: Path) -> None:
    class Note(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["value"] = float(epoch)

    def run(model: Any, *others: Any) -> None:
        stopping = callbacks.EarlyStopping("value", mode="min", patience=9, restore_best_weights=True)
        fit(model, Note(), stopping, callbacks.BackupAndRestore(tmp_path), *others)

    model = made()
    with pytest.raises(KeyboardInterrupt):
        run(made(), Interrupt(2, 1))
    run(model)
    assert model.layers[0].seen == 4


@pytest.mark.parametrize(("name", "weights_only"), [("a.safetensors", True), ("a.h5", True), ("b.h5", False)])
def test_other_files_refuse_it_before_training(tmp_path: Path, name: str, weights_only: bool) -> None:
    model = made()
    wanted = (
        r"'means\w*' can't be kept in a \.\w+ file.*`Means.save_own_variables` also saves 'mean', 'seen'.*weights.h5"
    )
    with pytest.raises(ValueError, match=wanted):
        (model.save_weights if weights_only else model.save)(tmp_path / name)
    with pytest.raises(ValueError, match=wanted):
        fit(model, callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=weights_only))
    assert model.layers[0].seen == 0
    assert not list(tmp_path.iterdir())


def test_what_no_backup_can_hold_is_said_before_training(tmp_path: Path) -> None:
    class Odd(Means):
        def save_own_variables(self, store: Any) -> None:
            super().save_own_variables(store)
            store["odd"] = {"a set"}

    model = oncue.Sequential([layers.Input((4,)), Odd(), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match=r"`save_own_variables`\['1'\]\['odd'\] is of type"):
        fit(model, callbacks.BackupAndRestore(tmp_path))
    assert model.layers[0].seen == 0


def test_one_that_saves_only_its_weights_is_kept_in_any_file(tmp_path: Path) -> None:
    class Renamed(layers.Dense):  # type: ignore[misc]  # imported when first asked for
        def save_own_variables(self, store: Any) -> None:
            store["w"], store["b"] = self.kernel, self.bias

        def load_own_variables(self, store: Any) -> None:
            super().load_own_variables({"0": store["w"], "1": store["b"]})

    model = oncue.Sequential([layers.Input((4,)), Renamed(1)])
    for name in ("a.safetensors", "a.h5", "a.weights.h5"):
        model.save_weights(tmp_path / name)
        model.load_weights(tmp_path / name)
    assert model.get_own_arrays() == {}


def test_what_a_layer_refuses_leaves_all_weights_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = made(), made()
    fit(model, epochs=1)
    model.save_weights(tmp_path / "m.weights.h5")
    other.optimizer.build(other.trainable_variables)
    before, load = state(other), Means.load_own_variables

    def refuse(self: Means, store: Any) -> None:
        load(self, store)
        if int(store["seen"]) > 2:
            raise LookupError("seen too much")

    monkeypatch.setattr(Means, "load_own_variables", refuse)
    with pytest.raises(LookupError, match="seen too much"):
        other.load_weights(tmp_path / "m.weights.h5")
    assert state(other) == before and other.optimizer.iterations == 0
