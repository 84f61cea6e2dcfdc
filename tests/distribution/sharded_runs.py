"""Runs in which each process has a part of each weight: what they come to is compared with one process, which has all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distribution import equal_runs
from distribution.equal_runs import X, Y, mlp, state_of, trained
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import oncue as keras
from helpers import to_numpy
from oncue import layers
from oncue.core.process import process
from oncue.shards import is_sharded


def sharded(run: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    """Return a run with sharded weights; in a process alone it is as it is."""

    def run_sharded(folder: Path) -> dict[str, Any]:
        if not process.is_alone:
            # Each layer of these small models is gathered by itself.
            keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True, min_shard_size=0))
        return run(folder)

    run_sharded.__name__ = run.__name__
    return run_sharded


def checked(model: Any) -> Any:
    """Return a model whose weights are sharded, where there are several processes."""
    assert process.is_alone or all(is_sharded(one) for one in model.parameters() if one.ndim)
    return model


def optimizers(folder: Path) -> dict[str, Any]:
    found = {}
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam"):
        model = mlp()
        model.compile(getattr(keras.optimizers, name)(0.02, weight_decay=0.01), "mse")
        found[name] = trained(model, X, Y, epochs=1)
        checked(model)
    for name, options in {
        "velocity": {"momentum": 0.9},
        "nesterov": {"momentum": 0.9, "nesterov": True},
        "value": {"clipvalue": 0.05},
        "norm": {"clipnorm": 0.05},
        "global": {"global_clipnorm": 0.1},
        "ema": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    }.items():
        model = mlp()
        model.compile(keras.optimizers.SGD(0.05, **options), "mse")
        found[name] = trained(model, X, Y, epochs=1)
    model = mlp()
    model.compile(keras.optimizers.Adam(0.02, amsgrad=True), "mse")
    found["amsgrad"] = trained(model, X, Y, epochs=1)
    model = mlp()
    model.compile(lambda parameters: torch.optim.RAdam(parameters, 0.02), "mse")
    found["of torch"] = trained(model, X, Y, epochs=1)
    return found


def weights_of_shards(folder: Path) -> dict[str, Any]:
    """Weights that are read, set, averaged and put back."""
    model = mlp()
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    found: dict[str, Any] = {}

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            found[f"epoch {epoch}"] = state_of(self.model)
            if epoch == 1:
                self.model.set_weights([np.full(one.shape, 0.25, "float32") for one in self.model.get_weights()])

    stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    swap, average = keras.callbacks.SwapEMAWeights(), keras.callbacks.WeightAverage(decay=0.5)
    found["stopped"] = trained(model, X, Y, epochs=6, validation_split=0.2, callbacks=[Look(), stop, swap])
    model.compile("sgd", "mse")
    found["averaged"] = trained(model, X, Y, epochs=2, validation_split=0.2, callbacks=[average])
    text: list[str] = []
    checked(model).summary(print_fn=text.append, line_length=80)
    found["parameters"] = [line for line in "\n".join(text).splitlines() if "params" in line]
    found["predicted"] = model.predict(X, batch_size=5, verbose=0).tolist()
    found["measured"] = model.evaluate(X, Y, batch_size=5, verbose=0, return_dict=True)
    model.layers[0].kernel.assign(np.ones((6, 5)))
    found["assigned"] = state_of(model)
    return found


def looked_at(folder: Path) -> dict[str, Any]:
    """Histograms, images, tables of embeddings and statistics of weights, which the main process writes."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4)(inputs)
    x = layers.Conv1D(3, 2, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    names = {"embedding": "names.tsv"}
    callbacks = [
        keras.callbacks.TensorBoard(
            folder / "logs", 2, write_images=True, write_grads=True, embeddings_freq=2, embeddings_metadata=names
        ),
        keras.callbacks.JournalLogger(folder / "journal.jsonl", weights_freq=2),
        keras.callbacks.ModelCheckpoint(folder / "whole.keras"),
    ]
    rows = np.random.default_rng(4).integers(0, 7, (26, 5))
    trained(model, rows, rows.mean(1, keepdims=True), batch_size=8, epochs=3, callbacks=callbacks)
    # The main process has written all when another comes here.
    checked(model).predict(rows, verbose=0)
    events = EventAccumulator(str(folder / "logs" / "train"), size_guidance={"tensors": 0})
    events.Reload()
    values: dict[str, Any] = {}
    for tag in (one for one in events.Tags()["tensors"] if "graph" not in one):
        points = [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        # The weights stand still, so that theirs are equal to the bit.
        shown = [(step, value.shape if "_grad/" in tag else str(value.tolist())) for step, value in points]
        values[tag] = [step for step, _ in points] if tag.startswith("epoch_") else shown
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return {
        "tags": values,
        "statistics": [one for one in lines if one["line"] == "weights"],
        "embeddings": (folder / "logs" / "train" / "embedding_embedding.tsv").read_text().split(),
        "names": sorted(path.name for path in (folder / "logs" / "train").glob("keras_*")),
    }


def norms_of_gradients(folder: Path) -> dict[str, Any]:
    # The logs have the names of layers.
    keras.backend.clear_session()
    model = mlp()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return trained(model, X, Y, callbacks=[keras.callbacks.GradientNorms(by_weight=True)])


def convolutions(folder: Path) -> dict[str, Any]:
    """Weights that are kept in another order of axes than Keras's, and a weight that layers share."""
    keras.utils.set_random_seed(3)
    images = np.random.default_rng(4).normal(size=(26, 6, 6, 3)).astype("float32")
    inputs = keras.Input((6, 6, 3))
    shared = layers.Dense(5, activation="tanh")
    x = layers.Conv2D(4, 3, activation="relu", name="convolution")(inputs)
    x = layers.BatchNormalization()(x)
    x = shared(shared(layers.Dense(5)(layers.Flatten()(x))))
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    found = trained(model, images, np.ones((26, 1), "float32"), batch_size=8)
    found["kernel"] = to_numpy(model.get_layer("convolution").kernel).tolist()
    checked(model)
    # A second run has the weights as they are.
    model.fit(images, np.ones((26, 1), "float32"), batch_size=8, verbose=0)
    return {**found, "again": state_of(model)}


def types_of_numbers(folder: Path) -> dict[str, Any]:
    """Layers whose weights are of another type than the others'."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, activation="tanh"),
            layers.Dense(4, dtype="float64"),
            layers.Dense(3, activation="tanh"),
            layers.Dense(1),
        ]
    )
    if not process.is_alone:
        # Those of the usual type are gathered together.
        keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True))
    model.compile(keras.optimizers.Adam(0.02, global_clipnorm=0.5, use_ema=True), "mse")
    found = trained(model, X, Y)
    checked(model).save_weights(folder / "all.shards")
    model.set_weights([one * 0 for one in model.get_weights()])
    model.load_weights(folder / "all.shards")
    return {**found, "loaded": state_of(model), "types": [str(one.dtype) for one in model.parameters()]}


def trained_whole_before(folder: Path) -> dict[str, Any]:
    """Weights that are sharded when they were trained already, with their optimizer."""
    chosen = keras.distribution.distribution()
    keras.distribution.set_distribution(None if process.is_alone else keras.distribution.DataParallel())
    model = mlp()
    model.compile(keras.optimizers.Adam(0.02, use_ema=True), "mse")
    first = trained(model, X, Y)
    if chosen is not None:
        keras.distribution.set_distribution(chosen)
    second = trained(model, X, Y)
    checked(model)
    return {"first": first, "second": second}


def blocks(folder: Path) -> dict[str, Any]:
    """A torch module of blocks, one of which reads the weights of a part of its own without calling it."""
    torch.manual_seed(3)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(1.5))
            self.blocks = torch.nn.ModuleList(
                torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(2)
            )
            self.head = torch.nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1)) * self.scale

    model = keras.Model(Net())
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    x = np.random.default_rng(5).normal(size=(20, 3, 8)).astype("float32")
    return trained(model, x, x.mean((1, 2))[:, None], batch_size=8)


def sharded_by_the_user(folder: Path) -> dict[str, Any]:
    """A module that was sharded before `fit`, without a word to `set_distribution`."""
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    if not process.is_alone:
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        from torch.distributed.fsdp import fully_shard

        fully_shard(module[2])
        fully_shard(module)
    model = keras.Model(module)
    model.compile(keras.optimizers.Adam(0.02, global_clipnorm=0.1), "mse", metrics=["mae"])
    found = trained(model, X, Y, validation_split=0.2)
    return {**found, "predicted": checked(model).predict(X, verbose=0).tolist()}


def checkpoints(folder: Path) -> dict[str, Any]:
    """Whole files, which the main process writes from the parts of all."""
    group = process.group
    own = folder / f"files of {0 if group is None else group.rank}"
    own.mkdir()
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 3))
    x = layers.BatchNormalization()(layers.Conv2D(7, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(40)(layers.Flatten()(x))))
    model.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse", metrics=["mae"])
    images = np.random.default_rng(4).normal(size=(26, 6, 6, 3)).astype("float32")
    targets = images.mean((1, 2, 3))[:, None]
    checkpoint, url = keras.callbacks.ModelCheckpoint, (folder / "at_url").as_uri()
    best: dict[str, Any] = {"save_weights_only": True, "monitor": "loss", "save_best_only": True, "resume_best": True}
    at_url = checkpoint(f"{url}/best.safetensors", **best)
    callbacks = [
        at_url,
        checkpoint(f"{url}/{{epoch}}.weights.h5", save_weights_only=True, keep=2),
        checkpoint(own / "whole.keras"),
        checkpoint(own / "later.weights.h5", save_weights_only=True, asynchronous=True),
        checkpoint(own / "weights.safetensors", save_weights_only=True),
        checkpoint(own / "old.h5", save_best_only=True, monitor="loss", resume_best=True),
        checkpoint(own / "kept {epoch}-{batch}.safetensors", every="2 steps", keep=2, save_weights_only=True),
        checkpoint(
            own / "best {loss:.3f}.weights.h5",
            every="3 steps",
            save_best_only=True,
            monitor="loss",
            save_weights_only=True,
        ),
    ]
    history = model.fit(images, targets, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)
    model.save(own / "saved.keras")
    # The main process has written all when it comes here.
    predicted = model.predict(images, verbose=0).tolist()
    if group is not None and not group.main:
        assert not any(own.iterdir())
    own = folder / "files of 0"
    resumed = checkpoint(f"{url}/best.safetensors", **best)
    found_at_url = [sorted(path.name for path in (folder / "at_url").iterdir()), at_url.best]
    # Amid an epoch the best is by the rows of the main process.
    names = sorted(path.name for path in own.iterdir() if not path.name.startswith("best"))
    found: dict[str, Any] = {"loss": history.history["loss"], "names": names, **state_of(model)}
    chosen = keras.distribution.distribution()
    for name in ("whole.keras", "saved.keras", "old.h5"):
        again = keras.models.load_model(own / name)
        found[name] = [one.tolist() for one in again.get_weights()]
        if name != "old.h5":
            assert int(again.optimizer.iterations) == 12
            found[f"optimizer of {name}"] = [to_numpy(one).tolist() for one in again.optimizer.variables[2:]]
    for name in ("later.weights.h5", "weights.safetensors"):
        again = keras.models.clone_model(model)
        again.load_weights(own / name)
        found[name] = [one.tolist() for one in again.get_weights()]
    # Into shards.
    model.set_weights([one * 0 for one in model.get_weights()])
    model.load_weights(own / "weights.safetensors")
    found["into parts"] = state_of(model)
    model.load_weights(own / "whole.keras")
    found["of a model into parts"] = state_of(model)
    model.load_weights(f"{url}/best.safetensors")
    found["of a url into parts"] = state_of(model)
    keras.distribution.set_distribution(chosen)
    found["predicted"] = predicted
    model.fit(images, targets, batch_size=8, verbose=0, callbacks=[resumed])
    return {**found, "at a url": [*found_at_url, resumed.best]}


def folders_of_parts(folder: Path) -> dict[str, Any]:
    """Folders in which each process writes its parts, read into parts and into whole weights."""
    model = mlp()
    model.compile(keras.optimizers.Adam(0.05), "mse")
    options: Any = {"sharded": True, "save_weights_only": True, "monitor": "loss"}
    checkpoint = keras.callbacks.ModelCheckpoint
    callbacks = [
        checkpoint(folder / "{epoch}.shards", keep=2, **options),
        checkpoint(folder / "best.shards", save_best_only=True, resume_best=True, **options),
        checkpoint(folder / "later.shards", asynchronous=True, every="2 steps", **options),
    ]
    found = trained(model, X, Y, epochs=3, callbacks=callbacks)
    again = checkpoint(folder / "best.shards", save_best_only=True, resume_best=True, **options)
    model.fit(X, Y, verbose=0, callbacks=[again])
    found["best"] = again.best
    names = ["2.shards", "3.shards", "best.shards", "later.shards"]
    found["names"] = sorted(path.name for path in folder.glob("*.shards"))
    whole = mlp()
    for name in names:
        checked(model).load_weights(folder / name)
        whole.load_weights(folder / name)
        found[name] = state_of(model), state_of(whole)
    model.save_weights(folder / "saved.shards")
    model.set_weights([one * 0 for one in model.get_weights()])
    whole.load_weights(folder / "saved.shards")
    found["saved"] = state_of(whole)
    if process.group is None or process.group.main:
        whole.save_weights(folder / "of one.shards")
        for path in (folder / "3.shards").glob("*part-1*"):
            path.unlink()
    # The main process comes here when it has written.
    model.evaluate(X, Y, verbose=0)
    model.load_weights(folder / "of one.shards")
    found["of one"] = state_of(model)
    try:
        model.load_weights(folder / "3.shards")
    except ValueError as error:
        assert "its part 'state-1.part-1.safetensors' is missing" in str(error)
    else:
        assert process.is_alone
    return found


def parts_of_others(folder: Path) -> dict[str, Any]:
    """What some processes have saved is read by others."""
    model = mlp()
    model.compile(keras.optimizers.Adam(0.05), "mse")
    if (folder / "saved.shards").exists():
        model.fit(X, Y, verbose=0)
        checked(model).load_weights(folder / "saved.shards")
        return state_of(model)
    found = trained(model, X, Y)
    checked(model).save_weights(folder / "saved.shards")
    return {"weights": found["weights"]}


sharded_parts_of_others = sharded(parts_of_others)
OWN = [
    checkpoints,
    folders_of_parts,
    looked_at,
    types_of_numbers,
    optimizers,
    weights_of_shards,
    norms_of_gradients,
    convolutions,
    trained_whole_before,
    blocks,
    sharded_by_the_user,
]
FEW = [equal_runs.arrays, equal_runs.penalties, equal_runs.own_steps, equal_runs.scaled_losses]
"""Of those of `equal_runs`, the ones that are always run."""
MORE = [
    run
    for run in equal_runs.RUNS
    # Compiled steps are none with shards.
    if run not in FEW and "compiled" not in run.__name__ and "graphs" not in run.__name__
]
RUNS = {f"sharded_{run.__name__}": sharded(run) for run in (*OWN, *FEW, *MORE)}
globals().update(RUNS)
