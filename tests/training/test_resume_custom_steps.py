"""A run with a `train_step` of its own, or with a metric that can't be saved, is resumed as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger
from oncue.core.protocols import save_run

X = np.random.default_rng(3).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class Own(oncue.Model):
    def train_step(self, data: Any) -> Any:
        x, y = data
        y_pred = self(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics if metric.name != "compile_metrics"} | {
            "error": (loss * 2).detach()
        }


class Unsavable(oncue.metrics.Mean):
    """Has a state that a backup can't keep."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(y_pred)

    def get_state(self) -> Any:
        return {"mean": super().get_state(), "other": object()}

    def set_state(self, state: Any) -> None:
        super().set_state(state["mean"])


class InValidation(Callback):
    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._run is not None and self._run.progress.epoch == 1:
            assert save_run(self._run, None)
            raise ConnectionError("power cut")


def run(folder: Path, own: bool, metrics: Any, *further: Any, save_freq: Any = 1) -> Any:
    oncue.utils.set_random_seed(1)
    inputs = oncue.Input((4,))
    outputs = layers.Dense(1)(layers.Dropout(0.3)(inputs))
    model = (Own if own else oncue.Model)(inputs, outputs)
    model.compile(oncue.optimizers.Adam(0.05), loss="mse", metrics=metrics)
    callbacks = [BackupAndRestore(folder / "backup", save_freq=save_freq), CSVLogger(folder / "log.csv"), *further]
    history = model.fit(X, Y, batch_size=6, epochs=3, verbose=0, validation_split=0.25, callbacks=callbacks)
    return history.history, [weight.tobytes() for weight in model.get_weights()], (folder / "log.csv").read_text()


@pytest.mark.parametrize("cut", [PowerCut(1, 2), InValidation(), PowerCut(2)], ids=["batch", "validation", "epoch"])
def test_a_train_step_of_its_own(cut: Any, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    whole = run(tmp_path / "a", True, ["mae"])
    with pytest.raises(ConnectionError):
        run(tmp_path / "b", True, ["mae"], cut)
    assert run(tmp_path / "b", True, ["mae"]) == whole


def test_a_metric_that_cant_be_saved_doesnt_keep_a_state_from_being_saved_in_validation(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    whole = run(tmp_path / "a", False, [Unsavable("own")], save_freq="epoch")
    with pytest.raises(ConnectionError):
        run(tmp_path / "b", False, [Unsavable("own")], InValidation(), save_freq="epoch")
    assert run(tmp_path / "b", False, [Unsavable("own")], save_freq="epoch") == whole


def test_single_losses_that_the_first_batch_makes(tmp_path: Path) -> None:
    class Two(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = layers.Dense(1), layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.a(inputs), self.b(inputs)

        def train_step(self, data: Any) -> Any:
            x, y = data
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return {"total": torch.zeros(()) + loss.detach(), **self.compute_metrics(x, y, y_pred)}

    def once(folder: Path, *further: Any) -> Any:
        oncue.utils.set_random_seed(1)
        model = Two()
        model.compile(oncue.optimizers.Adam(0.05), loss="mse", metrics=[["mae"], ["mae"]])
        callbacks = [BackupAndRestore(folder, save_freq=1), *further]
        return model.fit(X, (Y, Y), batch_size=6, epochs=3, verbose=0, callbacks=callbacks).history

    whole = once(tmp_path / "a")
    with pytest.raises(ConnectionError):
        once(tmp_path / "b", PowerCut(1, 2))
    assert once(tmp_path / "b") == whole
