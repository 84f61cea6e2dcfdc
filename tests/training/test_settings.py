"""What callbacks changed on a model and its optimizer comes back at a resume and at a rollback."""

from __future__ import annotations

import json
import random
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import oncue
from helpers import PowerCut, to_numpy
from oncue import layers, optimizers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, TerminateOnNaN
from oncue.training.settings import Settings

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class At(Callback):
    """Calls a function with the model when an epoch begins."""

    def __init__(self, epoch: int, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.at, self.change = epoch, change

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.at:
            self.change(self.model)


class KL(layers.Layer):
    """A layer of a user's own, with settings that callbacks change and a counter that its calls change."""

    def __init__(self) -> None:
        super().__init__()
        self.strength, self.schedule = 0.5, (0.1, 0.2)
        self._hidden = 1.0

    @property
    def hidden(self) -> float:
        return self._hidden

    @hidden.setter
    def hidden(self, value: float) -> None:
        self._hidden = value

    def call(self, inputs: Any) -> Any:
        return inputs * self.strength * self.schedule[1] * self.hidden


def keras_model(optimizer: Any = None) -> Any:
    oncue.utils.set_random_seed(0)
    inner = oncue.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.LeakyReLU(0.1)], name="inner")
    model = oncue.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(4, kernel_regularizer="l2"),
            inner,
            KL(),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )
    loss = oncue.losses.Huber(delta=1.0)
    model.compile(optimizers.Adam(0.05) if optimizer is None else optimizer, loss=loss)
    return model


def torch_model() -> Any:
    oncue.utils.set_random_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.Dropout(0.5), nn.Linear(4, 1))
    model = oncue.Model(module)
    model.compile(torch.optim.AdamW(module.parameters(), lr=0.05), nn.MSELoss())
    return model


def of_layers(model: Any) -> None:
    first, inner, own, dropout, _ = model.layers
    inner.trainable = False
    inner.layers[0].bias.requires_grad_(True)
    inner.layers[1].momentum = 0.1
    first.kernel_regularizer.l2 = 1.0
    own.strength, own.hidden, own.schedule = 0.9, 0.2, (0.1, 0.7)
    dropout.rate = 0.1


def of_modules(model: Any) -> None:
    module = model.module
    module[0].requires_grad_(False)
    module[1].momentum, module[2].negative_slope, module[3].p = 0.5, 0.5, 0.1
    model.optimizer.torch_optimizer.param_groups[0].update(betas=(0.1, 0.5), weight_decay=0.5)


def of_optimizer(model: Any) -> None:
    model.optimizer.learning_rate, model.optimizer.beta_1, model.optimizer.weight_decay = 0.001, 0.1, 0.5


def behind_optimizer(model: Any) -> None:
    model.optimizer.torch_optimizer.param_groups[0].update(lr=0.001)


def schedule(model: Any) -> None:
    model.optimizer.learning_rate = optimizers.schedules.ExponentialDecay(0.05, 2, 0.1)


def scheduled() -> Any:
    return keras_model(optimizers.SGD(optimizers.schedules.ExponentialDecay(0.05, 2, 0.9)))


def some_frozen() -> Any:
    model = keras_model(optimizers.Adam(0.05, use_ema=True, gradient_accumulation_steps=2))
    model.layers[0].trainable = model.layers[1].trainable = False
    model.compile(model.optimizer, "mse")
    return model


def unfrozen(model: Any) -> None:
    model.layers[1].trainable = True


def torch_frozen() -> Any:
    model = torch_model()
    model.module[0].requires_grad_(False)
    return model


def torch_unfrozen(model: Any) -> None:
    model.module[0].requires_grad_(True)


def accumulating() -> Any:
    model = keras_model()
    optimizer = optimizers.SGD(0.1, clipvalue=0.01, gradient_accumulation_steps=2)
    model.compile(optimizer, "mse")
    return model


def the_other_clip_and_more_steps(model: Any) -> None:
    # Either is refused while the other is there, and 3 gathered gradients are too many for 2 steps.
    model.optimizer.clipvalue = None
    model.optimizer.clipnorm = 0.01
    model.optimizer.gradient_accumulation_steps = 7


CHANGES: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
    (keras_model, of_layers),
    (torch_model, of_modules),
    (keras_model, of_optimizer),
    (keras_model, behind_optimizer),
    (keras_model, schedule),
    (some_frozen, unfrozen),
    (torch_frozen, torch_unfrozen),
    (scheduled, schedule),
    (accumulating, the_other_clip_and_more_steps),
]
changes = pytest.mark.parametrize(("build", "change"), CHANGES, ids=lambda function: function.__name__)


def train(build: Callable[[], Any], *callbacks: Any, epochs: int = 3) -> Any:
    model = build()
    history = model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, callbacks=list(callbacks))
    settings = json.loads(Settings(model).state()["begin"])
    weights = [to_numpy(tensor).tolist() for tensor in (*model.state_dict().values(), *model.optimizer.variables)]
    journal = [
        (entry.epoch, entry.text) for entry in history.journal if entry.kind not in ("resume", "stop", "rollback")
    ]
    return list(settings.values()), history.history["loss"], weights, journal


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@changes
def test_a_changed_setting_comes_back(build: Any, change: Any, tmp_path: Path) -> None:
    whole = train(build, At(1, change))
    for cut in (PowerCut(2), PowerCut(1, 2)):
        folder = tmp_path / str(cut.at)
        with pytest.raises(ConnectionError):
            train(build, BackupAndRestore(folder, save_freq=1), At(1, change), cut)
        # A run that is taken up in its second epoch changes nothing by itself.
        assert train(build, BackupAndRestore(folder, save_freq=1)) == whole


class Diverges(Callback):
    """Makes an epoch fail once."""

    done = False

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at, self.epoch = epoch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.epoch == self.at and batch == 1 and not self.done:
            self.done = True
            next(self.model.parameters()).data.fill_(float("nan"))


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@changes
def test_a_setting_that_was_changed_in_an_epoch_that_is_undone_is_as_before(build: Any, change: Any) -> None:
    class Once(At):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)
            self.at = -1 if epoch == self.at else self.at

    back = TerminateOnNaN(action="rollback", factor=1.0)
    assert train(build, back, Once(1, change), Diverges(1), epochs=2) == train(build, epochs=2)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def compiled(model: Any) -> None:
    model.compile(optimizers.SGD(0.01), "mae")


@pytest.mark.parametrize("again", [compiled, lambda model: setattr(model, "loss", oncue.losses.MeanSquaredError())])
def test_what_a_hook_replaced_in_an_epoch_that_is_undone_is_as_before(again: Any) -> None:
    def build() -> Any:
        return keras_model(optimizers.SGD(0.05))

    class Once(At):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_begin(epoch, logs)
            self.at = -1 if epoch == self.at else self.at

    back = TerminateOnNaN(action="rollback", factor=1.0)
    assert train(build, back, Once(1, again), Diverges(1), epochs=2) == train(build, epochs=2)


def test_what_a_hook_replaced_is_said_when_the_run_resumes(tmp_path: Path) -> None:
    loss = At(1, lambda model: setattr(model, "loss", oncue.losses.MeanSquaredError()))
    for name, change in (("loss", loss), ("optimizer", At(1, compiled))):
        with pytest.raises(ConnectionError):
            train(keras_model, BackupAndRestore(tmp_path / name), change, PowerCut(2))
    with pytest.warns(UserWarning, match="had replaced `loss` of the model, which a backup can't keep"):
        train(keras_model, BackupAndRestore(tmp_path / "loss"))
    with pytest.raises(ValueError, match="had replaced the optimizer by SGD, and the script's is Adam"):
        train(keras_model, BackupAndRestore(tmp_path / "optimizer"))


def test_the_name_of_a_loss_is_a_setting(tmp_path: Path) -> None:
    def build() -> Any:
        model = keras_model()
        model.compile(optimizers.SGD(0.05), "mse")
        return model

    change = At(1, lambda model: setattr(model, "loss", "mae"))
    whole = train(build, change)
    with pytest.raises(ConnectionError):
        train(build, BackupAndRestore(tmp_path / "backup"), change, PowerCut(2))
    assert train(build, BackupAndRestore(tmp_path / "backup")) == whole


def test_what_hooks_gather_is_no_setting() -> None:
    model = keras_model()
    model.layers[2].table, model.step_losses = {"mean": 0.0}, []

    class Gathers(Callback):
        sizes: list[int] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.step_losses.append(logs["loss"])
            self.model.layers[2].table[str(len(self.model.step_losses))] = 0.1
            self.sizes.append(len(str(self._run.run_state.capture().parts["settings"])))

    model.fit(X, Y, epochs=30, batch_size=8, verbose=0, callbacks=[Gathers()])
    assert len(model.step_losses) == len(model.layers[2].table) - 1 == 90
    # The epsilon of torch's Adam is another in each step.
    assert max(Gathers.sizes) - min(Gathers.sizes) < 100


def test_what_was_no_setting_any_more_when_an_epoch_began_stays() -> None:
    def gather(model: Any) -> None:
        model.layers[2].strength = [0.3]

    def build() -> Any:
        model = keras_model()
        model.layers[2].call = lambda inputs: inputs
        return model

    models: list[Any] = []
    for diverges in (1, 2):
        models.append(build())
        back = TerminateOnNaN(action="rollback", factor=1.0)
        hooks = [back, At(1, gather), Diverges(diverges)]
        models[-1].fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=hooks)
        assert models[-1].layers[2].strength == [0.3]


class Odd(layers.Layer):
    """A layer with properties that can't be read, or can't be set any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self._level, self.sealed = (error,), 1.0, {"is": False}

    @property
    def unset(self) -> float:
        raise self.error[0]

    @unset.setter
    def unset(self, value: float) -> None: ...

    @property
    def level(self) -> float:
        return self._level

    @level.setter
    def level(self, value: float) -> None:
        if self.sealed["is"]:
            raise OSError("it is sealed")
        self._level = value

    def call(self, inputs: Any) -> Any:
        return inputs * self.level


def odd(error: Exception) -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((4,)), Odd(error), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("error", [KeyError("rate"), TypeError(), AssertionError(), ZeroDivisionError()])
def test_a_property_that_cannot_be_read_is_passed(error: Exception, tmp_path: Path) -> None:
    whole = train(lambda: odd(error))
    with pytest.raises(ConnectionError):
        train(lambda: odd(error), BackupAndRestore(tmp_path), PowerCut(1))
    assert train(lambda: odd(error), BackupAndRestore(tmp_path)) == whole


def test_a_property_that_cannot_be_set_is_named(tmp_path: Path) -> None:
    def build(sealed: bool) -> Any:
        model = odd(KeyError())
        model.layers[0].sealed["is"] = sealed
        return model

    change = At(0, lambda model: setattr(model.layers[0], "level", 0.5))
    with pytest.raises(ConnectionError):
        train(lambda: build(False), BackupAndRestore(tmp_path), change, PowerCut(1))
    with pytest.warns(UserWarning, match="`odd.level` can't be set back to 0.5: OSError: it is sealed"):
        train(lambda: build(True), BackupAndRestore(tmp_path))


class Made(layers.Layer):
    """Notes when and where it was made, beside its settings."""

    def __init__(self, folder: str, strength: float = 1.0) -> None:
        super().__init__()
        self.folder, self.strength, self.made, self.process = folder, strength, time.time(), random.random()

    def call(self, inputs: Any) -> Any:
        return inputs * self.strength


class MadeOfTorch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only, self.drop, self.made = nn.Linear(4, 1), nn.Dropout(0.5), time.time()

    def forward(self, inputs: Any) -> Any:
        return self.drop(self.only(inputs))


@pytest.mark.parametrize("kind", [Made, MadeOfTorch])
def test_when_and_where_something_was_made_is_no_setting(kind: type, tmp_path: Path) -> None:
    def build(number: float = 1.0) -> Any:
        oncue.utils.set_random_seed(0)
        if kind is Made:
            made = Made(str(time.time()), number)
            model: Any = oncue.Sequential([layers.Input((4,)), made, layers.Dense(1)])
        else:
            module: Any = MadeOfTorch()
            model, module.drop.p = oncue.Model(module), number / 2
        model.compile("sgd", "mse")
        model.started, model.log_path = time.time(), f"runs/{time.time()}"
        return model

    started: list[Any] = []
    change = At(1, lambda model: setattr(model, "started", 5.0))
    look = At(2, lambda model: started.append(model.started))
    with pytest.raises(ConnectionError):
        train(build, BackupAndRestore(tmp_path / "backup"), change, PowerCut(2))
    shutil.copytree(tmp_path / "backup", tmp_path / "again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(build, BackupAndRestore(tmp_path / "backup"), look)
    # A hook had changed it.
    assert started == [5.0]
    with pytest.warns(
        UserWarning, match="other settings than the interrupted run began with: `[^`]*(drop.p|strength)` was [^`]*$"
    ):
        train(lambda: build(0.5), BackupAndRestore(tmp_path / "again"))


def test_an_edited_script_is_told_which_value_counts(tmp_path: Path) -> None:
    def build(rate: float, dropped: float) -> Any:
        model = keras_model(optimizers.Adam(rate))
        model.layers[3].rate = dropped
        return model

    change = At(1, lambda model: setattr(model.layers[1].layers[1], "momentum", 0.1))
    with pytest.raises(ConnectionError):
        train(lambda: build(0.05, 0.5), BackupAndRestore(tmp_path / "backup"), change, PowerCut(2))
    models: list[Any] = []

    def edited() -> Any:
        models.append(build(0.01, 0.25))
        models[0].layers[1].layers[1].momentum = 0.3
        return models[0]

    with pytest.warns(UserWarning, match="other settings than the interrupted run began with") as caught:
        train(edited, BackupAndRestore(tmp_path / "backup"))
    said = str(next(one.message for one in caught if "other settings" in str(one.message)))
    assert "`dropout.rate` was 0.5, is 0.25 (the script's counts)" in said
    assert "`optimizer.learning_rate` was 0.05, is 0.01 (0.05 of the backup counts)" in said
    assert "momentum` was 0.99, is 0.3 (0.1 of the backup counts, which a callback had set)" in said
    found = models[0].layers
    assert (found[3].rate, found[1].layers[1].momentum) == (0.25, 0.1)


def test_other_weights_of_losses_are_named(tmp_path: Path) -> None:
    def build(weights: Any) -> Any:
        model = keras_model()
        model.compile("sgd", ["mse"], loss_weights=weights)
        return model

    with pytest.raises(ConnectionError):
        train(lambda: build([0.5]), BackupAndRestore(tmp_path / "backup"), PowerCut(1))
    with pytest.warns(
        UserWarning, match=r"began with: `loss_weights` was \[0.5\], is \[0.7\] \(the script's counts\)\. To"
    ):
        train(lambda: build([0.7]), BackupAndRestore(tmp_path / "backup"))


def test_the_same_script_is_told_nothing(tmp_path: Path) -> None:
    for cut in ([PowerCut(1)], []):
        # A second model of a process has other names.
        model = keras_model()
        model.summary(print_fn=lambda line: None)
        callbacks = [BackupAndRestore(tmp_path / "backup"), *cut]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
            except ConnectionError:
                assert cut


def test_a_rate_that_no_backup_can_keep_is_an_error_before_training(tmp_path: Path) -> None:
    change = At(1, lambda model: setattr(model.optimizer, "learning_rate", lambda: 0.01))
    with pytest.raises(ConnectionError):
        train(keras_model, BackupAndRestore(tmp_path / "backup"), change, PowerCut(2))
    began: list[int] = []
    with pytest.raises(ValueError, match="had set `learning_rate` of the optimizer to a function"):
        train(keras_model, BackupAndRestore(tmp_path / "backup"), At(2, lambda model: began.append(2)))
    assert not began


def test_another_optimizer_adopts_what_belongs_to_layers(tmp_path: Path) -> None:
    change = At(1, lambda model: setattr(model.layers[3], "rate", 0.1))
    with pytest.raises(ConnectionError):
        train(keras_model, BackupAndRestore(tmp_path / "backup"), change, PowerCut(2))
    model = keras_model(optimizers.SGD(0.01))
    backup = BackupAndRestore(tmp_path / "backup", on_mismatch="adopt")
    model.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[backup, CSVLogger(tmp_path / "log.csv")])
    assert model.layers[3].rate == 0.1 and float(model.optimizer.learning_rate) == 0.01
