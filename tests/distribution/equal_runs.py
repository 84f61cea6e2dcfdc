"""Runs that come out the same on any number of processes: each function trains something, and returns what came of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torchmetrics

import oncue as keras
from helpers import RemoteService, graphs_compiled_by, uncompiled
from oncue import layers
from oncue.core import commands
from oncue.core.process import process
from oncue.training.parallel_questions import Questions
from oncue.training.trainer import Trainer

ROWS = 53
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 6)).astype("float32")
Y = RNG.normal(size=(ROWS, 1)).astype("float32")
LABELS = RNG.integers(0, 3, size=ROWS)
WEIGHTS = RNG.uniform(0.1, 2.0, size=ROWS).astype("float32")


def mlp(outputs: int = 1, activation: str | None = None, **options: Any) -> keras.Sequential:
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, activation="tanh", **options),
            layers.Dense(outputs, activation=activation),
        ]
    )


def trained(model: Any, x: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """Train a compiled model, and return its history and weights."""
    options = {"epochs": 2, "verbose": 0, **options}
    if not any(name in options for name in ("steps_per_epoch", "batch_size")) and y is not None:
        options["batch_size"] = 8
    history = model.fit(x, y, **options)
    return {"history": history.history, **state_of(model)}


def state_of(model: Any) -> dict[str, Any]:
    """Return a model's weights."""
    return {"weights": [weight.tolist() for weight in model.get_weights()]}


def arrays(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"])
    found = trained(model, X, Y, validation_split=0.2, epochs=3)
    found["predicted"] = model.predict(X, batch_size=7, verbose=0).tolist()
    found["measured"] = model.evaluate(X, Y, batch_size=7, verbose=0, return_dict=True)
    return found


def few_rows(folder: Path) -> dict[str, Any]:
    """Batches with fewer rows than there are processes."""
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    found = trained(model, X[:5], Y[:5], batch_size=2, validation_data=(X[:1], Y[:1]))
    found["predicted"] = model.predict(X[:3], batch_size=2, verbose=0).tolist()
    return found


def sample_weights(folder: Path) -> dict[str, Any]:
    model = mlp(3, "softmax")
    model.compile(
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return trained(model, X, LABELS, sample_weight=WEIGHTS)


def class_weights(folder: Path) -> dict[str, Any]:
    model = mlp(3, "softmax")
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return trained(model, X, LABELS, class_weight={0: 1.0, 1: 5.0, 2: 0.2})


def mean_by_weights(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    return trained(model, X, Y, sample_weight=WEIGHTS)


def summed_losses(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.SGD(0.01), keras.losses.MeanSquaredError(reduction="sum"), metrics=["mae"])
    return trained(model, X, Y)


def ignored_classes(folder: Path) -> dict[str, Any]:
    model = mlp(3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return trained(model, X, LABELS)


def torch_losses(folder: Path) -> dict[str, Any]:
    """The mean of this one divides by the weights of the labels."""
    model = mlp(3)
    model.compile(
        keras.optimizers.SGD(0.1), torch.nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), ignore_index=1)
    )
    return trained(model, X, LABELS)


def masks(folder: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    tokens = np.random.default_rng(1).integers(1, 9, size=(ROWS, 7))
    tokens[np.arange(7)[None] >= np.random.default_rng(2).integers(1, 8, size=ROWS)[:, None]] = 0
    model = keras.Sequential(
        [layers.Embedding(9, 4, mask_zero=True), layers.LSTM(5, return_sequences=True), layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"], weighted_metrics=["mse"])
    return trained(model, tokens, np.sin(tokens)[..., None].astype("float32"))


def penalties(folder: Path) -> dict[str, Any]:
    model = mlp(
        kernel_regularizer="l2", activity_regularizer=keras.regularizers.L1(0.01), kernel_constraint="unit_norm"
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return trained(model, X, Y)


def several_outputs(folder: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,), name="features")
    hidden = layers.Dense(5, activation="tanh")(inputs)
    model = keras.Model(inputs, {"a": layers.Dense(1, name="a")(hidden), "b": layers.Dense(3, name="b")(hidden)})
    model.compile(
        keras.optimizers.SGD(0.05),
        {"a": "mse", "b": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        loss_weights={"a": 0.3, "b": 2.0},
        metrics={"a": ["mae"], "b": ["accuracy"]},
    )
    found = trained(model, {"features": X}, {"a": Y, "b": LABELS})
    found["predicted"] = {name: one.tolist() for name, one in model.predict({"features": X}, verbose=0).items()}
    return found


def clipped(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.AdamW(0.01, global_clipnorm=0.1), "mse")
    return trained(model, X, Y)


def averaged(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3), "mse")
    return trained(model, X, Y)


def accumulated(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3, clipnorm=0.5), "mse")
    return trained(model, X, Y)


def scheduled(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.5)), "mse")
    return trained(model, X, Y)


def scaled_losses(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=64.0), "mse")
    return trained(model, X, Y)


def batch_normalization(folder: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return trained(model, X, Y, validation_split=0.2)


def torch_batch_normalization(folder: Path) -> dict[str, Any]:
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    model = keras.Model(module)
    model.compile(torch.optim.SGD(module.parameters(), 0.05), "mse")
    return {**trained(model, X, Y), "buffers": [one.tolist() for one in module.buffers()]}


def masked_normalization(folder: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    tokens = np.random.default_rng(1).integers(0, 9, size=(ROWS, 7))
    model = keras.Sequential([layers.Embedding(9, 4, mask_zero=True), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return trained(model, tokens, np.sin(tokens)[..., None].astype("float32"))


def seeded_masks(folder: Path) -> dict[str, Any]:
    """Masks that follow from a seed are those that one process draws for the same rows."""

    class JoinedAxes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = layers.Dropout(0.2, seed=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            joined = x.flatten(0, 1)
            return self.drop(joined, training=self.training).reshape(x.shape)

    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            layers.Input((6, 3)),
            layers.Dropout(0.4, seed=5),
            layers.Dense(4),
            JoinedAxes(),
            layers.Dropout(0.3, noise_shape=(None, 1, None), seed=7),
            layers.Dropout(0.5, noise_shape=(1, None, None), seed=1),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.005), "mse")
    return trained(model, np.repeat(X[..., None], 3, -1), Y, validation_split=0.2)


def many_metrics(folder: Path) -> dict[str, Any]:
    model = mlp(1, "sigmoid")
    names = [
        "AUC",
        "Precision",
        "Recall",
        "BinaryAccuracy",
        "MeanSquaredError",
        "R2Score",
        "F1Score",
    ]
    model.compile(
        keras.optimizers.SGD(0.1),
        "binary_crossentropy",
        metrics=[getattr(keras.metrics, name)(name=name) for name in names],
    )
    return trained(model, X, (LABELS > 0).astype("float32")[:, None], validation_split=0.3)


def metrics_of_ones_own(folder: Path) -> dict[str, Any]:
    """A number for a batch, a metric with variables, and one of torchmetrics."""

    class Largest(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="mean_of_largest")
            self.total = self.add_weight(name="total")
            self.rows = self.add_weight(name="rows")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.total.assign_add(y_pred.amax(-1).sum())
            self.rows.assign_add(float(len(y_pred)))

        def result(self) -> Any:
            return self.total.value / self.rows.value

    def error(y_true: Any, y_pred: Any) -> Any:
        return (y_true - y_pred).abs().mean()

    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=[error, Largest(), torchmetrics.MeanSquaredError()])
    return trained(model, X, Y, validation_split=0.2, batch_size=9)


def indexed_data(folder: Path) -> dict[str, Any]:
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return trained(model, data, batch_size=8)


def loaders(folder: Path) -> dict[str, Any]:
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return trained(model, torch.utils.data.DataLoader(data, 8, shuffle=True), validation_data=(X[:9], Y[:9]))


class Counting(torch.utils.data.Dataset[Any]):
    """Counts the rows that are read in this process, and adds noise if it is to."""

    def __init__(self, noisy: bool) -> None:
        self.noisy, self.read = noisy, 0

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        self.read += 1
        return X[index] + (np.random.rand(6).astype("float32") if self.noisy else 0.0), Y[index]


PLACE = (("WORLD_SIZE", "1"), ("RANK", "0"))


def rows_of_data_sets(folder: Path) -> dict[str, Any]:
    """Of data sets each process reads its rows alone, unless it draws random numbers for them."""
    found: dict[str, Any] = {}
    for noisy in (False, True):
        for name, options in {
            "indexed": None,
            "loader": {"shuffle": True},
            "workers": {"shuffle": True, "num_workers": 2},
            "stays": {"num_workers": 1, "persistent_workers": True},
        }.items():
            if noisy and name in ("workers", "stays"):
                continue
            data = Counting(noisy)
            model = mlp()
            model.compile(keras.optimizers.SGD(0.05), "mse")
            source = data if options is None else torch.utils.data.DataLoader(data, 8, **options)
            begun = keras.callbacks.LambdaCallback(on_train_begin=lambda logs, data=data: setattr(data, "read", 0))
            more = {"batch_size": 8, "shuffle": True} if options is None else {}
            result = trained(model, source, epochs=3, callbacks=[begun], **more)
            found[f"{name} {noisy}"] = result["history"]["loss"], float(torch.rand(())), float(np.random.rand())
            if name in ("indexed", "loader"):
                parts, rank = (1, 0) if noisy else (int(os.environ.get(key, one)) for key, one in PLACE)
                batches = [8] * (ROWS // 8) + [ROWS % 8]
                own = sum(rows * (rank + 1) // parts - rows * rank // parts for rows in batches)
                found[f"{name} {noisy} reads"] = abs(data.read - 3 * own) <= 3
    return found


def generators(folder: Path) -> dict[str, Any]:
    def batches() -> Any:
        while True:
            for at in range(0, ROWS, 8):
                yield X[at : at + 8], Y[at : at + 8]

    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return trained(model, batches(), steps_per_epoch=5)


def own_batches(folder: Path) -> dict[str, Any]:
    """Each process brings its part of each batch itself, in unequal parts."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    class Part(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            rows = [row for row in range(index * 9, index * 9 + 9) if row % size == rank]
            return X[rows], Y[rows]

    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    try:
        return trained(model, Part())
    finally:
        process.chosen, process.distribution = False, None


class Doubled(keras.Sequential):
    def train_step(self, data: Any) -> Any:
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(x, y, y_pred) * 2.0
        loss.backward()
        variables = self.trainable_variables
        self.optimizer.apply([variable.grad for variable in variables], variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=len(x))
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


def own_steps(folder: Path) -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    model = Doubled([layers.Input((6,)), layers.Dense(5, kernel_regularizer="l2"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    # What processes ask of each other rides with the gradients, without a message of its own.
    with mock.patch.object(Questions, "ask_all", side_effect=AssertionError):
        return trained(model, X, Y)


def single_batches(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    losses = [model.train_on_batch(X[at : at + 8], Y[at : at + 8], reset_metrics=at == 0) for at in range(0, 40, 8)]
    return {
        **state_of(model),
        "losses": losses,
        "measured": model.test_on_batch(X[:9], Y[:9]),
        "predicted": model.predict_on_batch(X[:3]).tolist(),
    }


def validations_amid(folder: Path) -> dict[str, Any]:
    """Callbacks decide by each validation, also where one process alone saves."""
    model = mlp()
    model.compile(keras.optimizers.SGD(0.3), "mse", metrics=["mae"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    save = keras.callbacks.ModelCheckpoint(folder / "amid.keras", save_best_only=True)
    reduce = keras.callbacks.ReduceLROnPlateau("val_loss", patience=1)
    options = {"epochs": 12, "validation_split": 0.3, "validation_freq": "2 steps"}
    found = trained(model, X, Y, callbacks=[reduce, stop, save], **options)
    decided = [(one.epoch, one.batch, one.kind) for one in model.history.journal.of("stop", "learning_rate")]
    return {**found, "validations": list(model.history.validations), "decided": decided}


def frozen_and_measured(folder: Path) -> dict[str, Any]:
    """Gradients are those of all processes, and so are the samples that are counted."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, name="body"), layers.Dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    callbacks = [
        keras.callbacks.Freeze("body", until_epoch=1),
        keras.callbacks.GradientNorms(every=1),
        keras.callbacks.WeightAverage(0.5),
        keras.callbacks.Throughput(),
        keras.callbacks.StopAtThreshold("loss", 0.0),
    ]
    found = trained(model, X, Y, epochs=3, callbacks=callbacks)
    history = found["history"]
    samples, steps = (history.pop(f"{name}_per_second") for name in ("samples", "steps"))
    return {**found, "samples": [round(one / other * 7) for one, other in zip(samples, steps, strict=True)]}


class Heard(RemoteService):
    """Keeps what a `Tracker` says of epochs."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def log(self, values: Any, step: int) -> None:
        self.values.append([step, dict(values)])


def found_rate(folder: Path) -> dict[str, Any]:
    """The loss of each tested rate is that of the whole batch; of the last one a process has no row."""
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    finder = keras.callbacks.LearningRateFinder(1e-3, 1.0, steps=14)
    heard = Heard()
    callbacks = [
        finder,
        keras.callbacks.Throughput(),
        keras.callbacks.Tracker(heard, folder=folder),
        keras.callbacks.StopAtThreshold("loss", 0.06),
    ]
    # No chance that the loss falls by chance.
    found = trained(model, 0.1 * X, 0.05 * Y + 1, batch_size=4, epochs=30, callbacks=callbacks)
    history = found["history"]
    speeds = [history.pop(f"{name}_per_second") for name in ("samples", "steps")]
    samples = [round(one / other * 14) for one, other in zip(*speeds, strict=True)]
    told = finder.ranks.broadcast(heard.values)
    for _, values in told:
        del values["samples_per_second"], values["steps_per_second"]
    return {**found, "suggestion": finder.suggestion, "losses": finder.losses, "samples": samples, "told": told}


def told(folder: Path) -> dict[str, Any]:
    """The main process listens, and all do what it is told after the same step; with several that is one step later."""

    class Says(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            place = (self._run.progress.epoch, batch)
            if self.ranks.main and place in ((0, 2), (2, 1)):
                word = ("rate", "x0.5") if place == (0, 2) else ("stop",)
                commands.tell(folder / "control", commands.command_of(*word))

    model = mlp()
    model.compile(keras.optimizers.SGD(0.25), "mse")
    seconds = iter(range(1 << 30))
    listens = keras.callbacks.Control(folder / "control", clock=lambda: float(next(seconds)))
    model.fit(X, Y, batch_size=8, epochs=9, verbose=0, callbacks=[Says(), listens])
    decided = [(one.kind, one.epoch) for one in model.history.journal if one.callback == "Control"]
    return {"rate": float(model.optimizer.learning_rate), "decided": decided, "epochs": list(model.history.epoch)}


def decisions(folder: Path) -> dict[str, Any]:
    """Callbacks decide the same everywhere, and one process writes."""
    model = mlp()
    model.compile(keras.optimizers.SGD(0.3), "mse")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    found = trained(
        model,
        X,
        Y,
        epochs=12,
        validation_split=0.3,
        callbacks=[
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1),
            stop,
            keras.callbacks.CSVLogger(folder / "log.csv"),
            keras.callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True),
            keras.callbacks.TensorBoard(folder / "events"),
            keras.callbacks.Profile((2, 3), folder / "profile"),
        ],
    )
    return {
        **found,
        "best": stop.best,
        "stopped": stop.stopped_epoch,
        "decided": [
            (entry.epoch, entry.kind) for entry in model.history.journal if entry.kind in ("stop", "learning_rate")
        ],
    }


def one_more_model(folder: Path) -> dict[str, Any]:
    """The main process has made another model before, so that automatic names differ."""
    if os.environ.get("RANK", "0") == "0":
        keras.Sequential([layers.Input((2,)), layers.Dense(2), layers.BatchNormalization()])
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(5, activation="tanh")(inputs))
    model = keras.Model(inputs, [layers.Dense(1)(hidden), layers.Dense(1)(hidden)])
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            layer.set_weights([np.full(one.shape, 0.1, "float32") for one in layer.get_weights()])
    model.compile(keras.optimizers.Adam(0.01), ["mse", "mae"])
    backup, stop = keras.callbacks.BackupAndRestore(folder), keras.callbacks.EarlyStopping("loss")
    history = model.fit(X, [Y, Y], batch_size=8, epochs=2, verbose=0, callbacks=[backup, stop])
    return {"loss": history.history["loss"], **state_of(model)}


def compiled(folder: Path) -> dict[str, Any]:
    model = mlp()
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.5), "mse", metrics=["mae"], jit_compile=True)
    with graphs_compiled_by(uncompiled):
        found = trained(model, X, Y, validation_split=0.3, epochs=3)
    alone = "as one compiled graph" in model.step_account
    return {**found, "compiled": alone or "as two compiled graphs" in model.step_account}


class Slowing(keras.optimizers.Optimizer):
    """Follows a mean of gradients, as Keras's documentation says to write an optimizer."""

    power = 1.0

    def build(self, variables: Any) -> None:
        if not self.built:
            super().build(variables)
            self.means = self.add_optimizer_variables(variables, ["mean"])[0]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        mean = self.means[self._get_variable_index(variable)]
        self.assign_add(mean, 0.2 * (gradient - mean))
        self.assign_sub(variable, learning_rate / (1 + self.iterations) ** self.power * mean)


class Deciding(Slowing):
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.iterations % 2 == 0:
            super().update_step(gradient, variable, learning_rate)


def compiled_own_updates(folder: Path) -> dict[str, Any]:
    """An update of the user's is a graph, too, and another one after a hook that changes what it reads."""
    found = {}
    for kind in (Slowing, Deciding):
        model = mlp()
        model.compile(kind(0.5, clipnorm=1.0), "mse", metrics=["mae"], jit_compile=True)
        slower = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, model=model: setattr(model.optimizer, "power", 2.0 if batch else 1.0)
        )
        with graphs_compiled_by(uncompiled):
            result = trained(model, X, Y, callbacks=[slower])
        alone = "as one compiled graph" in model.step_account
        whole = alone or "as two compiled graphs" in model.step_account
        found[kind.__name__] = {**result, "whole": whole}
    return found


def compiled_few_rows(folder: Path) -> dict[str, Any]:
    """A row that only runs along looks like the batches that are compiled for."""
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"], jit_compile=True)
    with graphs_compiled_by(uncompiled):
        return trained(model, X[:9], Y[:9], batch_size=4, validation_data=(X[:5], Y[:5]))


def large(folder: Path, normalizes: bool = False) -> dict[str, Any]:
    """So many gradients are sent in several messages, the first ones while the backward pass goes on."""
    keras.utils.set_random_seed(3)
    first, *wide = [layers.Dense(1024, activation="tanh") for _ in range(3)]
    between = [layers.BatchNormalization()] if normalizes else []
    model = keras.Sequential([layers.Input((6,)), first, *between, *wide, layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-4 if normalizes else 0.01), "mse", metrics=["mae"])
    found = trained(model, X, Y)
    weights = [np.asarray(weight, "float64") for weight in found.pop("weights")]
    # Sums of squares are to the last bit as the weights are, and some of these.
    return {
        **found,
        "squares": [float((weight * weight).sum()) for weight in weights],
        "some": [weight.ravel()[::50_021].tolist() for weight in weights],
    }


def large_normalized(folder: Path) -> dict[str, Any]:
    return large(folder, normalizes=True)


def in_graphs(run: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """Return a run whose models are compiled, with what couldn't be."""
    compile_it = Trainer.compile

    def compiled(self: Any, *arguments: Any, **options: Any) -> None:
        compile_it(self, *arguments, **{"jit_compile": True, **options})

    def run_in_graphs(folder: Path) -> dict[str, Any]:
        with (
            mock.patch.object(Trainer, "compile", compiled),
            graphs_compiled_by(uncompiled),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            found = run(folder)
        said = [str(one.message) for one in caught]
        return {**found, "refused": [text for text in said if "can't compile" in text]}

    run_in_graphs.__name__ = f"graphs_of_{run.__name__}"
    return run_in_graphs


IN_GRAPHS = [in_graphs(run) for run in (masks, batch_normalization, several_outputs, accumulated, few_rows, large)]
MORE_IN_GRAPHS = [
    in_graphs(run)
    for run in (
        large_normalized,
        arrays,
        sample_weights,
        class_weights,
        mean_by_weights,
        summed_losses,
        ignored_classes,
        torch_losses,
        penalties,
        clipped,
        averaged,
        scheduled,
        scaled_losses,
        torch_batch_normalization,
        masked_normalization,
        many_metrics,
        metrics_of_ones_own,
        seeded_masks,
        loaders,
        single_batches,
        decisions,
    )
]
globals().update({run.__name__: run for run in (*IN_GRAPHS, *MORE_IN_GRAPHS)})

RUNS = [
    one_more_model,
    compiled,
    compiled_own_updates,
    compiled_few_rows,
    arrays,
    few_rows,
    sample_weights,
    class_weights,
    mean_by_weights,
    summed_losses,
    ignored_classes,
    torch_losses,
    masks,
    penalties,
    several_outputs,
    clipped,
    averaged,
    accumulated,
    scheduled,
    scaled_losses,
    batch_normalization,
    torch_batch_normalization,
    many_metrics,
    metrics_of_ones_own,
    indexed_data,
    loaders,
    rows_of_data_sets,
    generators,
    own_batches,
    own_steps,
    single_batches,
    large,
    decisions,
    validations_amid,
    masked_normalization,
    frozen_and_measured,
    found_rate,
    told,
    seeded_masks,
    *IN_GRAPHS,
]
