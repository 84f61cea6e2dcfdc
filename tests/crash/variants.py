"""Training scripts of many kinds, as people write them, for the campaign that kills them.

Each is a function of a folder that trains from scratch, or goes on where a killed run was, and returns what it came to. Nothing
in them knows of kills.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras as real_keras
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

import oncue as keras
from oncue import layers, optimizers
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
)
from oncue.with_keras import KerasModel

Result = dict[str, Any]

ROWS, BATCH = 48, 6
X = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 0.1 * X[:, :1] ** 2
XV, YV = X[::4].copy(), Y[::4].copy()


@dataclass(frozen=True)
class Variant:
    """A script, and how its killed runs may end.

    Attributes:
        run: Trains in a folder and returns what it came to.
        refused: A part of the message with which a killed run may refuse to go on; None where it must go on.
    """

    run: Callable[[Path], Result]
    refused: str | None = None

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.run.__name__


VARIANTS: list[Variant] = []


def variant(function: Callable[[Path], Result]) -> Callable[[Path], Result]:
    """Add a script to the table."""
    VARIANTS.append(Variant(function))
    return function


def refused(message: str) -> Callable[[Callable[[Path], Result]], Callable[[Path], Result]]:
    """Add a script whose killed runs may refuse to go on, with a message."""

    def add(function: Callable[[Path], Result]) -> Callable[[Path], Result]:
        VARIANTS.append(Variant(function, message))
        return function

    return add


# What the scripts share ---------------------------------------------------------------------------------------------


class Slow(Callback):
    """Gives a kill the time to come in the middle of things."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.003)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.001)


class At(Callback):
    """Changes the model when some epoch begins, or some batch of it."""

    def __init__(self, changes: dict[int, Callable[[Any], Any]], batch: int | None = None) -> None:
        super().__init__()
        self.changes, self.batch, self.epoch = changes, batch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if self.batch is None and epoch in self.changes:
            self.changes[epoch](self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.batch and self.epoch in self.changes:
            self.changes[self.epoch](self.model)


def network(optimizer: Any = None, dropout: float = 0.2) -> Any:
    """Return a small compiled network with dropout."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((3,), name="in"),
            layers.Dense(6, activation="tanh", name="a"),
            layers.Dropout(dropout, name="d"),
            layers.Dense(1, name="b"),
        ],
        name="m",
    )
    model.compile(optimizer or optimizers.Adam(0.03), "mse", metrics=["mae"])
    return model


def torch_network() -> nn.Sequential:
    """Return a small torch module."""
    keras.utils.set_random_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 1))


def fit(
    model: Any, folder: Path, *callbacks: Callback, data: Any = None, save_freq: Any = 3, **arguments: Any
) -> Result:
    """Train a model with a backup, and return all that it came to."""
    arguments = {"epochs": 5, "verbose": 0, **arguments}
    if data is None:
        arguments.setdefault("batch_size", BATCH)
        given: tuple[Any, ...] = (X, Y)
    else:
        given = data if isinstance(data, tuple) else (data,)
    backup = BackupAndRestore(folder / "backup", save_freq=save_freq, delete_checkpoint=False)
    log = CSVLogger(folder / "log.csv", append=True)
    history = model.fit(*given, callbacks=[Slow(), backup, *callbacks, log], **arguments)
    return result(model, history)


def result(model: Any, history: Any) -> Result:
    """Return what a run came to."""
    notes = [(entry.epoch, entry.batch, entry.kind, Path(entry.text).name) for entry in history.journal]
    found: Result = {
        "history": history.history,
        "epochs": history.epoch,
        "journal": [note for note in notes if note[2] != "resume"],
        "weights": [weight.copy() for weight in model.get_weights()],
    }
    if isinstance(model, KerasModel):
        inner = model.keras_model
        variables = [*inner.variables, *inner.optimizer.variables]
        found["variables"] = [np.array(variable.value.detach().cpu()) for variable in variables]
    elif isinstance(model.optimizer, optimizers.Optimizer):
        found["optimizer"] = [np.array(tensor.detach().cpu()) for tensor in model.optimizer.variables]
    return found


# Data to train on ---------------------------------------------------------------------------------------------------


def stream(seed: int, x: Any = X, y: Any = Y) -> Iterator[tuple[Any, Any]]:
    """Give batches without end, drawn by a generator that nobody else sees."""
    own = np.random.default_rng(seed)
    while True:
        rows = own.integers(0, len(x), BATCH)
        yield x[rows], y[rows]


@variant
def everything(folder: Path) -> Result:
    """All callbacks that leave something behind."""
    model = network()
    stop = EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    best = folder / "best-{val_loss:.5f}.weights.h5"
    found = fit(
        model,
        folder,
        TerminateOnNaN(),
        stop,
        ReduceLROnPlateau("val_loss", patience=1, factor=0.7),
        ModelCheckpoint(folder / "{epoch:02d}.safetensors", save_weights_only=True, keep=2, asynchronous=True),
        ModelCheckpoint(best, save_best_only=True, save_weights_only=True, keep="best 1"),
        TensorBoard(folder / "events", update_freq=4),
        validation_split=0.2,
        epochs=12,
    )
    return {**found, "stopped": (stop.stopped_epoch, stop.best_epoch)}


@variant
def arrays(folder: Path) -> Result:
    """Shuffled arrays."""
    return fit(network(), folder, validation_data=(XV, YV))


@variant
def arrays_over_several_passes(folder: Path) -> Result:
    """Epochs that are longer, and others that are shorter, than a pass."""
    return fit(network(), folder, steps_per_epoch=11, epochs=4)


@variant
def arrays_with_weights(folder: Path) -> Result:
    """Sample weights, and targets of classes with class weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    classes = (Y[:, 0] > 0).astype("int64")
    return fit(model, folder, data=(X, classes), batch_size=BATCH, class_weight={0: 1.0, 1: 3.0}, validation_split=0.25)


@variant
def generator(folder: Path) -> Result:
    """A generator with a seed, read again."""
    return fit(network(), folder, data=stream(3), steps_per_epoch=7)


@refused("is not what it was")
def generator_without_seed(folder: Path) -> Result:
    """A generator that gives other batches in every process: it can't be continued, and that must be said."""
    own = np.random.default_rng(int(time.time_ns()))

    def batches() -> Iterator[Any]:
        while True:
            rows = own.integers(0, ROWS, BATCH)
            yield X[rows] + own.normal(size=(BATCH, 3)).astype("float32"), Y[rows]

    fit(network(), folder, data=batches(), steps_per_epoch=7)
    # No two runs are equal, killed or not.
    (folder / "log.csv").unlink()
    return {}


@variant
def loader_with_its_own_generator(folder: Path) -> Result:
    """A DataLoader that shuffles by a generator of its own."""
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = DataLoader(pairs, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(5))
    return fit(network(), folder, data=loader)


class Augmented(Dataset[Any]):
    """Rows with noise of torch's generator."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return torch.tensor(X[index]) + 0.1 * torch.randn(3), torch.tensor(Y[index])


@variant
def loader_with_workers(folder: Path) -> Result:
    """Worker processes that augment, and stay from epoch to epoch."""
    loader = DataLoader(Augmented(), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    return fit(network(), folder, data=loader, epochs=3)


class Shuffled(keras.utils.PyDataset):  # type: ignore[misc]
    """The usual data set of Keras: an order of its own, drawn from NumPy's generator when an epoch has ended."""

    def __init__(self, x: Any = X, y: Any = Y) -> None:
        super().__init__()
        self.x, self.y, self.order = x, y, np.arange(len(x))
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.x) // BATCH

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


class Counting(Shuffled):
    """One whose order follows from how many epochs were done."""

    def __init__(self) -> None:
        self.epoch = 0
        super().__init__()

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = np.random.default_rng(self.epoch).permutation(ROWS)


class Remembering(Shuffled):
    """One with a state."""

    def state_dict(self) -> Any:
        return {"order": self.order.tolist()}

    def load_state_dict(self, state: Any) -> None:
        self.order = np.array(state["order"])


@refused("is not what it was")
def py_dataset_that_shuffles_itself(folder: Path) -> Result:
    """Without a state: continued exactly, or refused."""
    return fit(network(), folder, data=Shuffled())


@refused("is not what it was")
def py_dataset_that_counts_epochs(folder: Path) -> Result:
    """Without a state: continued exactly, or refused."""
    return fit(network(), folder, data=Counting())


@variant
def py_dataset_with_a_state(folder: Path) -> Result:
    """It is asked for its state."""
    return fit(network(), folder, data=Remembering())


class Permuted(Dataset[Any]):
    """A torch data set in an order that callbacks change, with a state."""

    def __init__(self) -> None:
        self.order = np.arange(ROWS)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        row = int(self.order[index])
        return torch.tensor(X[row]), torch.tensor(Y[row])

    def state_dict(self) -> Any:
        return {"order": self.order.tolist()}

    def load_state_dict(self, state: Any) -> None:
        self.order = np.array(state["order"])


@variant
def dataset_that_a_callback_shuffles(folder: Path) -> Result:
    """A map-style data set with a state, changed between epochs."""
    data = Permuted()

    class Shuffle(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            np.random.shuffle(data.order)

    return fit(network(), folder, Shuffle(), data=DataLoader(data, batch_size=BATCH))


class Rows(IterableDataset[Any]):
    """A stream of rows."""

    def __iter__(self) -> Iterator[Any]:
        for row in range(ROWS):
            yield torch.tensor(X[row]), torch.tensor(Y[row])


@variant
def iterable_dataset(folder: Path) -> Result:
    """Read again in each epoch."""
    return fit(network(), folder, data=DataLoader(Rows(), batch_size=BATCH))


class Remembered(Sampler[int]):
    """A sampler that remembers what it gave before."""

    def __init__(self, length: int = ROWS) -> None:
        self.passes, self.length = 0, length

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(np.random.default_rng(self.passes).permutation(self.length).tolist())

    def __len__(self) -> int:
        return self.length


@variant
def sampler_with_memory(folder: Path) -> Result:
    """It gives the indices of earlier epochs once more."""
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    return fit(network(), folder, data=DataLoader(pairs, batch_size=BATCH, sampler=Remembered()))


# Data to validate on ------------------------------------------------------------------------------------------------


def validated(folder: Path, validation: Any, **arguments: Any) -> Result:
    """Train with decisions that follow from validation."""
    deciders = [
        EarlyStopping("val_loss", patience=9, restore_best_weights=True),
        ReduceLROnPlateau("val_loss", patience=1),
    ]
    best = ModelCheckpoint(folder / "best.weights.h5", monitor="val_loss", save_best_only=True, save_weights_only=True)
    return fit(network(), folder, *deciders, best, validation_data=validation, **arguments)


@variant
def validation_generator(folder: Path) -> Result:
    """A stream that goes on from epoch to epoch."""
    return validated(folder, stream(11, XV, YV), validation_steps=2)


@variant
def validation_every_second_epoch(folder: Path) -> Result:
    """The same, not in every epoch."""
    return validated(folder, stream(12, XV, YV), validation_steps=3, validation_freq=2)


@variant
def validation_loader_that_shuffles(folder: Path) -> Result:
    """Some batches of a pass in an order of its own generator."""
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = DataLoader(pairs, batch_size=BATCH, shuffle=True, generator=torch.Generator().manual_seed(8))
    return validated(folder, loader, validation_steps=3)


@variant
def validation_sampler_with_a_generator(folder: Path) -> Result:
    """A sampler that draws with replacement."""
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    sampler = RandomSampler(pairs, replacement=True, num_samples=12, generator=torch.Generator().manual_seed(9))
    return validated(folder, DataLoader(pairs, batch_size=BATCH, sampler=sampler))


@variant
def validation_sampler_with_memory(folder: Path) -> Result:
    """A sampler that remembers what it gave before."""
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    return validated(folder, DataLoader(pairs, batch_size=BATCH, sampler=Remembered()), validation_steps=3)


class Stateful:
    """A loader that gives other batches in each pass, and has a state."""

    def __init__(self) -> None:
        self.passes = self.place = 0

    def __iter__(self) -> Iterator[Any]:
        order = np.random.default_rng(100 + self.passes).permutation(ROWS)
        while self.place < 3:
            rows = order[self.place * BATCH : (self.place + 1) * BATCH]
            self.place += 1
            yield torch.tensor(X[rows]), torch.tensor(Y[rows])
        self.passes, self.place = self.passes + 1, 0

    def state_dict(self) -> Any:
        return {"passes": self.passes, "place": self.place}

    def load_state_dict(self, state: Any) -> None:
        self.passes, self.place = state["passes"], state["place"]


@variant
def validation_loader_with_a_state(folder: Path) -> Result:
    """It is asked for its state."""
    return validated(folder, Stateful())


@variant
def validation_with_workers(folder: Path) -> Result:
    """Worker processes that augment, and stay from epoch to epoch."""
    loader = DataLoader(Augmented(), batch_size=12, num_workers=1, persistent_workers=True)
    return validated(folder, loader, epochs=3)


@refused("is not what it was")
def validation_py_dataset_that_shuffles_itself(folder: Path) -> Result:
    """Without a state: continued exactly, or refused."""
    return validated(folder, Shuffled(), validation_steps=2)


# What hooks change --------------------------------------------------------------------------------------------------


def _freeze(index: int, trainable: bool) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.layers[index].trainable = trainable

    return change


@variant
def layers_frozen_and_unfrozen(folder: Path) -> Result:
    """`trainable` of layers, both ways, when epochs begin."""
    return fit(network(), folder, At({1: _freeze(0, False), 2: _freeze(-1, False), 3: _freeze(0, True)}))


@variant
def layer_that_thaws(folder: Path) -> Result:
    """A layer that was frozen from the beginning, in the middle of an epoch."""
    model = network()
    model.layers[0].trainable = False
    return fit(model, folder, At({2: _freeze(0, True)}, batch=4))


@variant
def requires_grad_of_a_module(folder: Path) -> Result:
    """The same with torch's words."""
    module = torch_network()
    model = keras.Model(module)
    model.compile(torch.optim.Adam(module.parameters(), lr=0.03), nn.MSELoss())
    first = module[0]
    return fit(model, folder, At({1: lambda _: first.requires_grad_(False), 3: lambda _: first.requires_grad_(True)}))


def _set(**values: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in values.items():
            setattr(model.optimizer, name, value)

    return change


@variant
def settings_of_adam(folder: Path) -> Result:
    """Rates, betas, decay."""
    changes = {1: _set(beta_1=0.5, learning_rate=0.02), 2: _set(weight_decay=0.2), 3: _set(beta_2=0.9, epsilon=1e-3)}
    return fit(network(optimizers.AdamW(0.03)), folder, At(changes))


@variant
def settings_of_clipping(folder: Path) -> Result:
    """Clips that are set, changed and taken away."""
    changes = {1: _set(clipnorm=0.01), 2: _set(clipnorm=0.5), 4: _set(clipnorm=None)}
    return fit(network(optimizers.SGD(0.05, momentum=0.9)), folder, At(changes, batch=2))


@variant
def settings_of_averages(folder: Path) -> Result:
    """The momentum of averaged weights, which validation sees."""
    optimizer = optimizers.Adam(0.03, use_ema=True, ema_momentum=0.9)
    swap = SwapEMAWeights(swap_on_epoch=True)
    return fit(network(optimizer), folder, At({2: _set(ema_momentum=0.5)}), swap, validation_data=(XV, YV))


@variant
def groups_of_a_torch_optimizer(folder: Path) -> Result:
    """What a callback writes into `param_groups`."""
    module = torch_network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    model = keras.Model(module)
    model.compile(optimizer, nn.MSELoss())
    return fit(model, folder, At({1: lambda _: optimizer.param_groups[0].update(momentum=0.8, weight_decay=0.1)}))


def _rate(value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.layers[1].rate = value

    return change


@variant
def rate_of_dropout(folder: Path) -> Result:
    """A setting of a layer, in the middle of an epoch."""
    return fit(network(), folder, At({1: _rate(0.5), 3: _rate(0.05)}, batch=3))


@variant
def weight_of_a_loss(folder: Path) -> Result:
    """A variable that a callback anneals, as variational autoencoders have it."""

    class Annealed(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = layers.Dense(4, activation="tanh", name="a"), layers.Dense(1, name="b")
            self.beta = keras.Variable(0.0, trainable=False, name="beta")

        def call(self, inputs: Any) -> Any:
            hidden = self.a(inputs)
            self.add_loss(self.beta * (hidden**2).mean())
            return self.b(hidden)

    keras.utils.set_random_seed(0)
    model = Annealed()
    model.compile(optimizers.Adam(0.03), "mse")
    rise = {epoch: (lambda m, value=epoch / 4: m.beta.assign(value)) for epoch in range(5)}
    return fit(model, folder, At(rise))


@variant
def torch_scheduler_in_a_closure(folder: Path) -> Result:
    """A scheduler of torch that a callback steps."""
    module = torch_network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    model = keras.Model(module)
    model.compile(optimizer, nn.MSELoss())

    class Step(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            scheduler.step()
            if logs is not None:
                logs["rate"] = optimizer.param_groups[0]["lr"]

    return fit(model, folder, Step())


@variant
def torch_scheduler_per_batch(folder: Path) -> Result:
    """One cycle, stepped after every batch."""
    module = torch_network()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)
    model = keras.Model(module)
    model.compile(optimizer, nn.MSELoss())

    class Step(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.scheduler = scheduler

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.scheduler.step()

    return fit(model, folder, Step())


@variant
def schedule_that_multiplies(folder: Path) -> Result:
    """A schedule of the rate before, whose journal must say what is so."""
    schedule = LearningRateScheduler(lambda epoch, rate: rate * 0.7)
    return fit(network(), folder, schedule, ReduceLROnPlateau("loss", patience=1, min_delta=10.0))


# Other loops and ends -----------------------------------------------------------------------------------------------


@variant
def rollback_that_unfreezes(folder: Path) -> Result:
    """An epoch that is undone, with what was changed in it."""

    class Poison(Callback):
        """Breaks the epoch that begins with the first rate, which the rollback lowers."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.breaks = epoch == 2 and self.model.optimizer.learning_rate > 0.02

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 3 and self.breaks:
                self.model.layers[0].trainable = False
                kernel, bias = self.model.layers[-1].get_weights()
                self.model.layers[-1].set_weights([kernel, bias * np.nan])

    return fit(network(), folder, TerminateOnNaN(action="rollback", factor=0.5), Poison(), save_freq="epoch")


@variant
def two_optimizers(folder: Path) -> Result:
    """A model with a train_step and a second optimizer of its own, as GANs have them."""

    class Game(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = layers.Dense(3, name="left"), layers.Dense(1, name="right")
            self.second = optimizers.Adam(0.02)

        def call(self, inputs: Any) -> Any:
            return self.right(self.left(inputs))

        def train_step(self, data: Any) -> Any:
            x, y = data
            for optimizer, part in ((self.optimizer, self.left), (self.second, self.right)):
                self.zero_grad()
                loss = ((self(x) - y) ** 2).mean()
                loss.backward()
                parameters = part.trainable_weights
                optimizer.apply([weight.value.grad for weight in parameters], parameters)
            return {"loss": loss}

    keras.utils.set_random_seed(0)
    model = Game()
    model.compile(optimizers.Adam(0.05), "mse")
    return fit(model, folder)


@variant
def accumulated_gradients(folder: Path) -> Result:
    """Updates at every third batch."""
    model = network(optimizers.Adam(0.05, gradient_accumulation_steps=3))
    return fit(model, folder, save_freq=1)


@variant
def stateful_recurrent(folder: Path) -> Result:
    """A recurrent layer that keeps its state from batch to batch."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [layers.Input(batch_shape=(BATCH, 3, 1)), layers.LSTM(4, stateful=True), layers.Dense(1)],
    )
    model.compile("adam", "mse")
    return fit(model, folder, data=(X[..., None], Y), batch_size=BATCH, shuffle=False)


@variant
def batch_normalization(folder: Path) -> Result:
    """Moving statistics, and two inputs and outputs."""
    keras.utils.set_random_seed(0)
    one, two = layers.Input((3,), name="one"), layers.Input((3,), name="two")
    joined = layers.BatchNormalization()(layers.Concatenate()([one, two]))
    model = keras.Model([one, two], [layers.Dense(1, name="p")(joined), layers.Dense(1, name="q")(joined)])
    model.compile("adam", ["mse", "mae"], loss_weights=[1.0, 0.5])
    return fit(model, folder, data=([X, X**2], [Y, -Y]), batch_size=BATCH, validation_data=([XV, XV**2], [YV, -YV]))


@variant
def folds_in_folders_of_their_own(folder: Path) -> Result:
    """Cross-validation as it must be written: a folder for each fold."""
    parts: Result = {}
    for fold in range(3):
        keras.utils.set_random_seed(fold)
        rows = np.roll(np.arange(ROWS), fold * 16)[:32]
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        for name, value in fit(
            network(), folder / f"fold_{fold}", data=(X[rows], Y[rows]), batch_size=8, epochs=3
        ).items():
            parts[f"{name} {fold}"] = value
    return parts


@refused("fold")
def folds_in_one_folder(folder: Path) -> Result:
    """Cross-validation with one folder for all: right, or refused."""
    parts: Result = {}
    for fold in range(3):
        keras.utils.set_random_seed(fold)
        rows = np.roll(np.arange(ROWS), fold * 16)[:32]
        backup = BackupAndRestore(folder / "backup", save_freq=2)
        model = network()
        history = model.fit(X[rows], Y[rows], batch_size=8, epochs=3, verbose=0, callbacks=[Slow(), backup])
        parts[f"history {fold}"], parts[f"weights {fold}"] = history.history, model.get_weights()
    return parts


@variant
def killed_before_the_first_state(folder: Path) -> Result:
    """States that come late, and files that are appended to."""
    model = network()
    board = TensorBoard(folder / "events", update_freq="epoch")
    keep = ModelCheckpoint(folder / "{epoch:02d}.weights.h5", save_weights_only=True, keep=2)
    return fit(model, folder, board, keep, save_freq=24, epochs=6)


# Models of the real Keras ---------------------------------------------------------------------------------------------


def real_layers() -> list[Any]:
    """Return layers of the real Keras that draw, and that gather statistics."""
    kinds = real_keras.layers
    return [
        *(kinds.Dense(6, activation="tanh", kernel_regularizer="l2"), kinds.BatchNormalization()),
        *(kinds.Dropout(0.2, seed=3), kinds.Dropout(0.2), kinds.Dense(1)),
    ]


def compiled(model: Any, optimizer: Any, **options: Any) -> Any:
    """Return oncue's model for one of Keras's, compiled."""
    metrics = ["mae", real_keras.metrics.RootMeanSquaredError()]
    model.compile(optimizer, "mse", metrics=metrics, **options)
    return keras.Model(model)


def left_alone(graph: Any, inputs: Any, device: Any) -> Any:
    """Leave a traced graph as it is, as the compiler takes too long for runs that are killed again and again."""
    return graph


@variant
def keras_sequential(folder: Path) -> Result:
    """A model of Keras's with everything that is built in, and files of its own."""
    real_keras.utils.set_random_seed(0)
    model = compiled(real_keras.Sequential([real_keras.Input((3,)), *real_layers()]), "adam")
    stop = EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    best = folder / "best-{val_loss:.5f}.weights.h5"
    found = fit(
        model,
        folder,
        stop,
        ReduceLROnPlateau("val_loss", patience=1, factor=0.7),
        ModelCheckpoint(folder / "{epoch:02d}.h5", keep=2, asynchronous=True),
        ModelCheckpoint(best, save_best_only=True, save_weights_only=True, keep="best 1"),
        validation_data=(XV, YV),
        epochs=8,
    )
    return {**found, "stopped": (stop.stopped_epoch, stop.best_epoch)}


@variant
def keras_settings(folder: Path) -> Result:
    """An optimizer of Keras's own, and hooks that change it and the layers, once."""
    real_keras.utils.set_random_seed(0)
    model = compiled(real_keras.Sequential([real_keras.Input((3,)), *real_layers()]), real_keras.optimizers.Lion(0.01))

    def change(model: Any) -> None:
        inner = model.keras_model
        inner.layers[0].trainable, inner.layers[2].rate = False, 0.5
        inner.optimizer.learning_rate, inner.optimizer.beta_1 = 0.003, 0.5

    return fit(
        model, folder, At({2: change}), At({3: lambda model: setattr(model.optimizer, "clipnorm", 0.1)}, batch=4)
    )


@variant
def keras_own_steps(folder: Path) -> Result:
    """A model of Keras's with a step of its own and a layer that counts."""

    class Counts(real_keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def build(self, shape: Any) -> None:
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs: Any, training: bool = False) -> Any:
            if training:
                self.seen.assign_add(1.0)
            return inputs * (1 + 0.01 * self.seen)

    class Own(real_keras.Sequential):  # type: ignore[misc]  # Keras has no types
        def train_step(self, data: Any) -> Any:
            logs = super().train_step(data)
            return {**logs, "seen": self.layers[0].seen.value.detach().clone()}

    real_keras.utils.set_random_seed(0)
    model = Own([real_keras.Input((3,)), Counts(), *real_layers()])
    rate = real_keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.9)
    return fit(compiled(model, real_keras.optimizers.Adam(rate)), folder, validation_data=(XV, YV))


@variant
def keras_traced(folder: Path) -> Result:
    """A model of Keras's in traced steps, with scaled losses and an average of the weights."""
    real_keras.utils.set_random_seed(0)
    optimizer = real_keras.optimizers.SGD(0.02, momentum=0.9, use_ema=True, ema_momentum=0.9)
    model = compiled(real_keras.Sequential([real_keras.Input((3,)), *real_layers()]), optimizer, jit_compile=True)
    model._plan.graphs.compiler = left_alone
    return fit(model, folder, validation_data=(XV, YV))
