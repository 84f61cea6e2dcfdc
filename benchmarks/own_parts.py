"""Measures each layer, loss, metric and initializer of oncue against Keras's own: does it earn its lines?

python benchmarks/own_parts.py layers losses metrics initializers
python benchmarks/own_parts.py files          # a hostile file of each layer that has sizes, in a process of its own
python benchmarks/own_parts.py traced         # compiled steps; needs a C++ compiler

A step is a call in training and its backward pass, of a loss a call and its backward pass, of a metric an update, of an
initializer one weight. Both take turns; each figure is the least of many, in microseconds of the process's own time. The
last two columns of layers count the wrong arguments and inputs that are refused before the first step by an error that
names the argument or the layer.
"""

from __future__ import annotations

import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch

import oncue

warnings.simplefilter("ignore")
ROUNDS, CALLS, BATCHES = 10, 10, 64
FLOATS, IMAGE, SEQUENCE = (32, 16), (8, 16, 16, 8), (8, 12, 8)
LAYERS: dict[str, tuple[dict[str, Any], Any]] = {
    "Dense": ({"units": 16}, FLOATS),
    "Conv1D": ({"filters": 8, "kernel_size": 3}, SEQUENCE),
    "Conv2D": ({"filters": 8, "kernel_size": 3}, IMAGE),
    "Embedding": ({"input_dim": 100, "output_dim": 8}, "labels"),
    "SimpleRNN": ({"units": 8}, SEQUENCE),
    "LSTM": ({"units": 8}, SEQUENCE),
    "GRU": ({"units": 8}, SEQUENCE),
    "BatchNormalization": ({}, IMAGE),
    "LayerNormalization": ({}, FLOATS),
    "Normalization": ({"mean": 0.0, "variance": 1.0}, FLOATS),
    "Dropout": ({"rate": 0.5}, FLOATS),
    "GaussianNoise": ({"stddev": 0.5}, FLOATS),
    "Activation": ({"activation": "relu"}, FLOATS),
    "ReLU": ({}, FLOATS),
    "LeakyReLU": ({}, FLOATS),
    "ELU": ({}, FLOATS),
    "PReLU": ({}, FLOATS),
    "Softmax": ({}, FLOATS),
    "MaxPooling1D": ({"pool_size": 2}, SEQUENCE),
    "MaxPooling2D": ({"pool_size": 2}, IMAGE),
    "AveragePooling1D": ({"pool_size": 2}, SEQUENCE),
    "AveragePooling2D": ({"pool_size": 2}, IMAGE),
    "GlobalMaxPooling1D": ({}, SEQUENCE),
    "GlobalMaxPooling2D": ({}, IMAGE),
    "GlobalAveragePooling1D": ({}, SEQUENCE),
    "GlobalAveragePooling2D": ({}, IMAGE),
    "ZeroPadding1D": ({}, SEQUENCE),
    "ZeroPadding2D": ({}, IMAGE),
    "Flatten": ({}, IMAGE),
    "Reshape": ({"target_shape": (4, 4)}, FLOATS),
    "Permute": ({"dims": (2, 1)}, SEQUENCE),
    "RepeatVector": ({"n": 3}, FLOATS),
    "Masking": ({}, SEQUENCE),
    "Rescaling": ({"scale": 0.5}, FLOATS),
    "Add": ({}, "two"),
    "Subtract": ({}, "two"),
    "Multiply": ({}, "two"),
    "Average": ({}, "two"),
    "Maximum": ({}, "two"),
    "Minimum": ({}, "two"),
    "Concatenate": ({}, "two"),
}
OF_ONE_RANK = {name for name in LAYERS if name.endswith(("1D", "2D"))} | {"SimpleRNN", "LSTM", "GRU", "Permute"}
LOSSES = (
    "mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "huber",
    "log_cosh", "cosine_similarity", "poisson", "kl_divergence", "hinge", "squared_hinge", "categorical_hinge",
    "binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "sparse_categorical_crossentropy", "dice", "tversky",
)  # fmt: skip
METRICS: dict[str, dict[str, Any]] = {
    "Mean": {}, "Sum": {}, "MeanSquaredError": {}, "RootMeanSquaredError": {}, "MeanAbsoluteError": {}, "R2Score": {},
    "BinaryAccuracy": {}, "CategoricalAccuracy": {}, "SparseCategoricalAccuracy": {}, "TopKCategoricalAccuracy": {},
    "Precision": {}, "Recall": {}, "AUC": {}, "TruePositives": {}, "F1Score": {}, "MeanIoU": {"num_classes": 2},
    "PrecisionAtRecall": {"recall": 0.5}, "CosineSimilarity": {}, "Hinge": {}, "LogCoshError": {},
}  # fmt: skip
INITIALIZERS = (
    "Zeros", "Ones", "Constant", "RandomNormal", "RandomUniform", "TruncatedNormal", "GlorotUniform", "GlorotNormal",
    "HeUniform", "HeNormal", "LecunUniform", "LecunNormal", "Orthogonal",
)  # fmt: skip


def tensors(kind: Any) -> Any:
    draws = torch.Generator().manual_seed(0)
    if kind == "labels":
        return torch.randint(100, (32, 8), generator=draws)
    if kind == "two":
        return [torch.rand(FLOATS, generator=draws).requires_grad_() for _ in range(2)]
    return torch.rand(kind, generator=draws).requires_grad_()


def least(actions: list[Callable[[], object]], calls: int = CALLS) -> list[float]:
    """Return the least time of each, in microseconds of the process; they take turns."""
    found = [float("inf")] * len(actions)
    for _ in range(ROUNDS):
        for place, action in enumerate(actions):
            begin = time.process_time()
            for _ in range(calls):
                action()
            found[place] = min(found[place], (time.process_time() - begin) / calls * 1e6)
    return found


def lines_of(thing: Any) -> int:
    return len(inspect.getsource(thing).splitlines())


def layer_step(k: Any, name: str) -> Callable[[], object]:
    arguments, kind = LAYERS[name]
    layer, given = getattr(k.layers, name)(**arguments), tensors(kind)

    def step() -> None:
        outputs = layer(given, training=True)
        if outputs.requires_grad:
            outputs.sum().backward()

    step()
    return step


def mistakes(k: Any, name: str) -> tuple[int, int]:
    """Return how many wrong uses are refused before the first step, and how many there are."""
    arguments, kind = LAYERS[name]
    make = getattr(k.layers, name)
    negative = [word for word in arguments if word not in ("activation", "mean")]
    missing = [word for word in ("units", "filters", "rate", "kernel_size", "n") if word in arguments]
    uses: dict[str, Callable[[], object]] = {
        "no_such_argument": lambda: make(**arguments, no_such_argument=1),
        "activity": lambda: make(**arguments, activity_regularizer="no_such_regularizer"),
        **{word: lambda word=word: make(**{**arguments, word: -1}) for word in negative},  # type: ignore[misc]
        **{f"{word}=None": lambda word=word: make(**{**arguments, word: None}) for word in missing},  # type: ignore[misc]
    }
    if name in OF_ONE_RANK:
        uses["rank"] = lambda: make(**arguments, name="own")(k.Input((8,)))
        uses["rank of data"] = lambda: make(**arguments, name="own")(np.ones((4, 8), "float32"))
    if kind == "two":
        uses["one input"] = lambda: make(**arguments, name="own")(k.Input((3,)))
        uses["shapes"] = lambda: make(**arguments, name="own")([k.Input((3, 5)), k.Input((4, 5))])
    refused = 0
    for word, use in uses.items():
        try:
            use()
        except Exception as error:
            key = word.split("=")[0].split(" ")[0]
            refused += key in str(error) or "own" in str(error) or name in str(error)
    return refused, len(uses)


def pair(name: str, make: Callable[[Any], Callable[[], object]]) -> tuple[float, float]:
    ours, theirs = least([make(oncue), make(keras)])
    return ours, theirs


def row(name: str, lines: int, ours: float, theirs: float, *more: str) -> None:
    print(
        f"| {name} | {lines} | {ours:.0f} | {theirs:.0f} | {theirs / ours:.1f} | "
        + "".join(f"{cell} | " for cell in more)
    )


def layers() -> None:
    for name in LAYERS:
        ours, theirs = pair(name, lambda k, name=name: layer_step(k, name))
        found = [mistakes(k, name) for k in (oncue, keras)]
        row(
            name,
            lines_of(getattr(oncue.layers, name)),
            ours,
            theirs,
            f"{found[0][0]} / {found[0][1]}",
            f"{found[1][0]} / {found[1][1]}",
        )


def targets(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    predicted = torch.softmax(torch.rand((64, 10), generator=torch.Generator().manual_seed(0)), -1).requires_grad_()
    if "sparse" in name.lower():
        return torch.arange(64) % 10, predicted
    return torch.eye(10)[torch.arange(64) % 10], predicted


def losses() -> None:
    for name in LOSSES:

        def make(k: Any, name: str = name) -> Callable[[], object]:
            loss, (y_true, y_pred) = k.losses.get(name), targets(name)
            return lambda: loss(y_true, y_pred).mean().backward()

        row(name, lines_of(oncue.losses.get(name)), *pair(name, make))


def metrics() -> None:
    for name, arguments in METRICS.items():

        def make(k: Any, name: str = name, arguments: dict[str, Any] = arguments) -> Callable[[], object]:
            metric, (y_true, y_pred) = getattr(k.metrics, name)(**arguments), targets(name)
            y_pred = y_pred.detach()
            if name in ("Mean", "Sum"):
                return lambda: metric.update_state(y_pred)
            if name == "MeanIoU":
                y_true, y_pred = y_true.long(), (y_pred > 0.1).long()
            return lambda: metric.update_state(y_true, y_pred)

        row(name, lines_of(getattr(oncue.metrics, name)), *pair(name, make))


def drawn(k: Any, name: str) -> Callable[[], object]:
    made = getattr(k.initializers, name)()
    return lambda: made((64, 64))


def initializers() -> None:
    for name in INITIALIZERS:
        row(name, lines_of(getattr(oncue.initializers, name)), *pair(name, lambda k, name=name: drawn(k, name)))


HOSTILE = {
    "Dense": {"units": 10**9},
    "Conv2D": {"filters": 10**8, "kernel_size": (9, 9)},
    "Embedding": {"input_dim": 10**9, "output_dim": 8},
    "LSTM": {"units": 10**6},
    "GRU": {"units": 10**6},
}
LIMIT = 8 * 2**30


def load(peer: str, path: str) -> None:
    """Load a file with 8 GiB of memory, and print the error, the seconds, and the most memory beyond the libraries', in MiB."""
    k = oncue if peer == "oncue" else keras
    k.models.Sequential([k.Input((1,)), k.layers.Dense(1)])
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        k.models.load_model(path)
        said = "loaded"
    except BaseException as error:
        said = type(error).__name__
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([said, time.perf_counter() - begin, more]))


def files() -> None:
    for name, arguments in HOSTILE.items():
        shape = {"Conv2D": (8, 8, 3), "LSTM": (4, 3), "GRU": (4, 3)}.get(name, (4,))
        small = {key: (3, 3) if isinstance(value, tuple) else 1 for key, value in arguments.items()}
        model = keras.Sequential([keras.Input(shape), getattr(keras.layers, name)(**small, name="part")])
        with tempfile.TemporaryDirectory() as folder:
            good, bad = Path(folder, "good.keras"), Path(folder, "bad.keras")
            model.save(good)
            with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
                for entry in source.namelist():
                    content = source.read(entry)
                    if entry == "config.json":
                        config = json.loads(content)
                        config["config"]["layers"][1]["config"].update(arguments)
                        content = json.dumps(config).encode()
                    target.writestr(entry, content)
            cells = []
            for peer in ("oncue", "keras"):
                command = [sys.executable, __file__, "load", peer, str(bad)]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                    said, seconds, more = json.loads(done.stdout.splitlines()[-1])
                    cells.append(f"{said}, {seconds:.1f} s, {more:.0f} MiB")
                except subprocess.TimeoutExpired:
                    cells.append("more than 120 s")
                except (IndexError, ValueError):
                    cells.append(f"the process ended with {done.returncode}")
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


def traced() -> None:
    """Time compiled steps of a layer and a Dense layer behind it; Keras's own as `oncue.Model(keras_model)`."""
    for name in ("Dense", "Conv2D", "LSTM", "BatchNormalization", "LayerNormalization", "MaxPooling2D", "Dropout"):
        ours, theirs = least([compiled(oncue, name), compiled(keras, name)], calls=1)
        row(name, lines_of(getattr(oncue.layers, name)), ours / BATCHES, theirs / BATCHES)


def compiled(k: Any, name: str) -> Callable[[], object]:
    arguments, kind = LAYERS[name]
    inputs = k.Input(kind[1:])
    model = k.Model(inputs, k.layers.Dense(1)(k.layers.Flatten()(getattr(k.layers, name)(**arguments)(inputs))))
    model = oncue.Model(model) if k is keras else model
    model.compile(oncue.optimizers.SGD(0.01), "mse", jit_compile=True)
    rows = kind[0] * BATCHES
    x, y = np.random.default_rng(0).random((rows, *kind[1:])).astype("float32"), np.zeros((rows, 1), "float32")

    def epoch() -> None:
        model.fit(x, y, batch_size=kind[0], verbose=0, shuffle=False)

    epoch()
    return epoch


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "load":
        load(*sys.argv[2:])
    else:
        parts = {
            "layers": layers,
            "losses": losses,
            "metrics": metrics,
            "initializers": initializers,
            "files": files,
            "traced": traced,
        }
        for what in sys.argv[1:] or parts:
            print(f"\n{what}\n", flush=True)
            parts[what]()
