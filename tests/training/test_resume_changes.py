"""What hooks have made of a model comes back with a backup, or is named before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import oncue
from helpers import to_numpy
from oncue import layers, optimizers
from oncue.callbacks import BackupAndRestore, Callback, TerminateOnNaN

X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X.sum(1, keepdims=True)
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: optimizers.Adam(0.01),
    "averaged": lambda: optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3),
    "nadam": lambda: optimizers.Nadam(0.01),
    "accumulated": lambda: optimizers.SGD(0.01, momentum=0.9, gradient_accumulation_steps=3),
    "function": lambda: lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


class At(Callback):
    """Changes the model when epochs begin; ends the run when one does."""

    def __init__(self, changes: dict[int, Callable[[Any], None]], stop: int | None) -> None:
        super().__init__()
        self.changes, self.stop = changes, stop

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.stop:
            raise KeyboardInterrupt
        if epoch in self.changes:
            self.changes[epoch](self.model)


def run(make: Callable[[], Any], changes: dict[int, Any], folder: Path | None = None, stop: int | None = None) -> Any:
    oncue.utils.set_random_seed(0)
    model = make()
    backup = [] if folder is None else [BackupAndRestore(folder)]
    try:
        model.fit(X, Y, batch_size=8, epochs=5, verbose=0, callbacks=[*backup, At(changes, stop)])
    except KeyboardInterrupt:
        assert stop is not None
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_that_took_in_weights_goes_on_as_it_would_have(optimizer: str, tmp_path: Path) -> None:
    def make() -> Any:
        model = oncue.Sequential([layers.Input((3,)), *(layers.Dense(4) for _ in range(3)), layers.Dense(1)])
        model.layers[0].trainable = model.layers[2].trainable = False
        model.compile(OPTIMIZERS[optimizer](), "mse", jit_compile=False)
        return model

    # The later of the two comes first among the weights.
    changes = {
        1: lambda model: setattr(model.layers[2], "trainable", True),
        2: lambda model: setattr(model.layers[0], "trainable", True),
        3: lambda model: setattr(model.layers[2], "trainable", False),
    }
    whole = run(make, changes)
    run(make, changes, tmp_path, 4)
    resumed = run(make, changes, tmp_path)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.optimizer.iterations == resumed.optimizer.iterations


def test_a_rollback_to_fewer_trained_weights() -> None:
    def make() -> Any:
        model = oncue.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(1)])
        model.layers[0].trainable = False
        model.compile(optimizers.Adam(0.01, use_ema=True), "mse", jit_compile=False)
        return model

    class Breaks(Callback):
        done = False

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if self.model.layers[0].trainable and not self.done and batch == 2:
                self.done = True
                self.model.layers[1].set_weights([np.full((4, 1), np.nan), np.zeros(1)])

    def fit(*callbacks: Any, epochs: int) -> Any:
        oncue.utils.set_random_seed(0)
        model = make()
        model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model

    class Once(Callback):
        done = False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1 and not self.done:
                self.done = self.model.layers[0].trainable = True

    broken = fit(Breaks(), Once(), TerminateOnNaN(action="rollback", factor=1.0), epochs=3)
    assert broken.optimizer.iterations == 12 and not broken.layers[0].trainable
    for one, other in zip(broken.get_weights(), fit(epochs=3).get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_part_that_a_hook_left_in_inference_mode_stays_so_after_a_resume(tmp_path: Path) -> None:
    def make() -> Any:
        model = oncue.Model(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
        model.compile(optimizers.SGD(0.01), "mse", jit_compile=False)
        return model

    class Quiet(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self._run.progress.epoch == 1:
                self.model.module[1].eval()

    def fit(folder: Path | None, stop: int | None) -> Any:
        oncue.utils.set_random_seed(0)
        model = make()
        callbacks = [*([] if folder is None else [BackupAndRestore(folder)]), At({}, stop), Quiet()]
        try:
            model.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
        except KeyboardInterrupt:
            pass
        return to_numpy(model.module[1].running_mean)

    whole = fit(None, None)
    fit(tmp_path, 3)
    np.testing.assert_array_equal(fit(tmp_path, None), whole)
