"""Hostile inputs of every kind that is opened, each in a process of its own with measured memory and time.

    PYTHONPATH=src:tests python tests/security/hostile.py

prints the table of docs/files.md: what each kind of file came to, the most memory that any took beyond its own size, and the
most seconds of the processor. It exits with 1 when one was let in, ended the process, or broke a limit.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import pickle
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import h5py
import numpy as np
import torch
from security import test_model_files as files, test_states as states

import oncue as keras
from oncue import layers, with_keras
from oncue.callbacks import CSVLogger
from oncue.checkpoints import Checkpoints
from oncue.checkpoints.score_note import read_note
from oncue.checkpoints.state_file import blocks_of, write_state
from oncue.checkpoints.store import Store
from oncue.checkpoints.training_state import TrainingState
from oncue.cli import parser
from oncue.core import commands
from oncue.datasets import fashion_mnist, mnist
from oncue.plots import plot
from oncue.report.bundle import vega
from oncue.utils.archives import unpack

MEGABYTES, SECONDS = 256, 5.0
"""The most memory beyond the file's own size, and the most time of the processor."""


@dataclass(frozen=True)
class Input:
    """A file, and a way to open it.

    Attributes:
        kind: What it is taken for.
        name: What is wrong with it.
        make: Writes it into a folder, and returns its path.
        open: Opens it.
        harmless: Whether it may also be let in: when what is wrong with it concerns nothing that is read.
    """

    kind: str
    name: str
    make: Callable[[Path], Path]
    open: Callable[[Path], object]
    harmless: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of an input: "refused", "opened", or what went wrong; megabytes beyond the file; seconds."""

    what: str
    megabytes: float
    seconds: float

    @property
    def bad(self) -> bool:
        return self.what not in ("refused", "opened") or self.megabytes > MEGABYTES or self.seconds > SECONDS


def measured(one: Input, folder: Path) -> Outcome:
    """Open an input in a process of its own."""
    path = one.make(folder)
    size = 0 if not path.is_file() or path.is_fifo() else path.stat().st_size
    if path.is_dir():
        size = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        warnings.simplefilter("ignore")
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        what = "opened"
        try:
            one.open(path)
        except (ValueError, OSError, RuntimeError) as error:
            plain = str(error) and not any(
                (ord(sign) < 32 and sign != "\n") or 127 <= ord(sign) < 160 for sign in str(error)
            )
            what = "refused" if plain and type(error) is not RuntimeError else f"{type(error).__name__}: {error!s:.200}"
        except BaseException as error:
            what = f"{type(error).__name__}: {error!s:.200}\n{traceback.format_exc(limit=-2)}"
        took = time.process_time() - begin
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(writer, json.dumps([what, more, took]).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) or not said:
        return Outcome(f"ended by signal {os.WTERMSIG(status)}", 0.0, 0.0)
    what, more, took = json.loads(said)
    return Outcome(what, max(0.0, more - size / (1 << 20)), took)


# What they are made of ----------------------------------------------------------------------------------------------


def model() -> Any:
    parts = [layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")]
    made = keras.Sequential(parts, name="net")
    made.compile("adam", "mse")
    made.fit(np.ones((4, 4), "float32"), np.ones((4, 2), "float32"), verbose=0)
    return made


def real_model() -> Any:
    import keras as real

    made = real.Sequential([real.Input((4,)), real.layers.Dense(3), real.layers.Dense(2)])
    made.compile("sgd", "mse")
    return keras.Model(made)


def writes(name: str, content: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return folder / name

    return make


def fifo(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def device(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to("/dev/zero")
        return folder / name

    return make


def packed(parts: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", how) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return content.getvalue()


def hdf5(fill: Callable[[Any], None]) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill(file)
    return content.getvalue()


def layer(kind: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}


def sequential(parts: list[dict[str, Any]], shape: list[Any]) -> dict[str, Any]:
    first = layer("InputLayer", batch_shape=shape, dtype="float32", name="in")
    config = {"name": "s", "layers": [first, *parts]}
    return {"module": "keras", "class_name": "Sequential", "registered_name": "Sequential", "config": config}


def never_written(count: int, rows: int, columns: int, **how: Any) -> Callable[[Any], None]:
    def fill(file: Any) -> None:
        for place in range(count):
            group = file.create_group("layers/dense" + (f"_{place}" if place else "") + "/vars")
            group.create_dataset("0", (rows, columns), "f4", **how)
            group.create_dataset("1", (columns,), "f4", **how)

    return fill


def zeros_in_gzip(rows: int, columns: int, count: int = 1) -> Callable[[Any], None]:
    def fill(file: Any) -> None:
        for place in range(count):
            group = file.create_group("layers/dense" + (f"_{place}" if place else "") + "/vars")
            data = np.zeros((rows, columns), "f4")
            group.create_dataset("0", data=data, compression="gzip", compression_opts=1)
            group.create_dataset("1", data=np.zeros(columns, "f4"))

    return fill


# Whole models -------------------------------------------------------------------------------------------------------


def bombs(parts: dict[str, bytes]) -> Iterator[tuple[str, bytes | Callable[[], bytes], bool]]:
    """Yield `.keras` files that say to be more than they are, by name."""
    good = json.loads(parts["config.json"])
    zeros = {"class_name": "Zeros", "module": "keras.initializers", "config": {}}
    orthogonal = {"class_name": "Orthogonal", "module": "keras.initializers", "config": {}}

    def config(value: Any, weights: bytes | None = None) -> bytes:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        more = {} if weights is None else {"model.weights.h5": weights}
        return packed({**parts, "config.json": text, **more})

    def dense(count: int, units: int, initializer: Any = zeros) -> Any:
        names = ["dense" + (f"_{place}" if place else "") for place in range(count)]
        return sequential(
            [layer("Dense", units=units, name=one, kernel_initializer=initializer) for one in names], [None, units]
        )

    yield "arrays that were never written", lambda: config(dense(8, 8192), hdf5(never_written(8, 8192, 8192))), False
    yield (
        "chunks that were never written",
        lambda: config(dense(8, 8192), hdf5(never_written(8, 8192, 8192, chunks=True, compression="gzip"))),
        False,
    )
    yield (
        "small arrays that were never written",
        lambda: config(dense(60, 1024), hdf5(never_written(60, 1024, 1024))),
        False,
    )
    yield "zeros in gzip", lambda: config(dense(8, 8192), hdf5(zeros_in_gzip(4096, 8192, 2))), False
    yield "orthogonal weights", lambda: config(dense(1, 3000, orthogonal), hdf5(zeros_in_gzip(3000, 3000))), True
    for count in (4_900, 8_000, 90_000):
        flat = sequential([layer("Flatten", name=f"f{place}") for place in range(count)], [None, 4])
        yield f"{count} layers", lambda flat=flat: config(flat), False  # type: ignore[misc]
    nested = sequential(
        [sequential([layer("Flatten", name=f"f{i}_{j}") for j in range(300)], [None, 4]) for i in range(30)], [None, 4]
    )
    yield "many models in a model", lambda: config(nested), False
    for name, metric in {
        "thresholds": ("AUC", {"num_thresholds": 10**8}),
        "labels": ("AUC", {"multi_label": True, "num_labels": 10**7}),
        "thresholds of recall": ("PrecisionAtRecall", {"recall": 0.5, "num_thresholds": 10**8}),
        "classes": ("MeanIoU", {"num_classes": 20_000}),
        "no number of classes": ("MeanIoU", {"num_classes": 1e400}),
        "classes of a score": ("F1Score", {"threshold": "x"}),
    }.items():
        changed = json.loads(json.dumps(good))
        changed["compile_config"]["metrics"] = [
            {"class_name": metric[0], "module": "keras.metrics", "config": metric[1]}
        ]
        yield f"a metric with {name}", lambda changed=changed: config(changed), False  # type: ignore[misc]
    large = [None, 1 << 20]
    for name, part in {
        "a repetition": layer("RepeatVector", n=1 << 40, name="x"),
        "padding": layer("ZeroPadding1D", padding=1 << 40, name="x"),
        "upsampling": layer("UpSampling1D", size=1 << 40, name="x"),
        "a kernel": layer("Conv1D", filters=1 << 20, kernel_size=1 << 20, name="x"),
        "an embedding": layer("Embedding", input_dim=1 << 30, output_dim=1 << 10, name="x"),
        "an LSTM": layer("LSTM", units=1 << 24, name="x"),
    }.items():
        shape = [None, 4, 4] if name in ("padding", "upsampling", "a kernel", "an LSTM") else [None, 4]
        # Some of them only have a shape until data come.
        yield f"{name} without an end", lambda part=part, shape=shape: config(sequential([part], shape)), True  # type: ignore[misc]
    yield "a large sample", lambda: config(sequential([layer("Dense", units=1 << 10, name="x")], large)), False
    for name, text in {
        "16 MB of lists": b'{"a":[' + b"[]," * 5_400_000 + b"[]]}",
        "16 MB of objects": b'{"a":[' + b"{}," * 5_400_000 + b"{}]}",
        "16 MB of floats": b'{"a":[' + b"0.1," * 4_000_000 + b"0.1]}",
        "16 MB of keys": b"{" + b",".join(b'"%d":1' % place for place in range(1_400_000)) + b"}",
        "16 MB of words": b'{"a":[' + b'"ab",' * 3_300_000 + b'"ab"]}',
        "a long number": b'{"a": ' + b"9" * 15_000_000 + b"}",
        "a deep list": b'{"a":' + b"[" * 190 + b"]" * 190 + b"}",
        "a deeper list": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    }.items():
        yield f"a configuration of {name}", lambda text=text: config(text), False  # type: ignore[misc]
    for name in ("\x1b[2J\x1b[31mred", "a\nb", "x" * 5000, "\x9b31m"):
        changed = json.loads(json.dumps(good))
        changed["config"]["layers"][1]["config"]["name"] = name
        yield f"a layer named {name[:9]!r}", lambda changed=changed: config(changed), False  # type: ignore[misc]
    deflated = zipfile.ZIP_DEFLATED
    yield "300 MB of zeros in zip", lambda: packed({**parts, "model.weights.h5": bytes(300 << 20)}, deflated), False
    yield "config.json as a bomb", lambda: packed({**parts, "config.json": b" " * (100 << 20)}, deflated), False
    yield "60 000 members", lambda: packed({**parts, **{f"m{place}": b"" for place in range(60_000)}}), False


def legacy_bombs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    def names(count: int, name: Callable[[int], bytes]) -> Callable[[Any], None]:
        def fill(file: Any) -> None:
            for start in range(0, count, 4000):
                part = [name(place) for place in range(start, min(count, start + 4000))]
                file.attrs[f"layer_names{start // 4000}"] = np.array(part)
            file.create_group("a").attrs["weight_names"] = np.array([b"x"])

        return fill

    def groups(count: int, arrays: bool) -> Callable[[Any], None]:
        def fill(file: Any) -> None:
            for place in range(count):
                file.create_dataset(f"g{place}", (1,), "f4") if arrays else file.create_group(f"g{place}")

        return fill

    def loop(file: Any) -> None:
        file.create_group("layers")["again"] = file

    yield "30 000 times the same name", lambda: hdf5(names(30_000, lambda place: b"a"))
    yield "30 000 names", lambda: hdf5(names(30_000, lambda place: b"n%d" % place))
    yield "60 000 groups", lambda: hdf5(groups(60_000, False))
    yield "21 000 arrays", lambda: hdf5(groups(21_000, True))
    yield "groups in themselves", lambda: hdf5(loop)
    yield "names that a terminal carries out", lambda: hdf5(lambda file: file.create_dataset("\x1b[2J/x", (1,), "f4"))


def weights_ways(path: Path) -> None:
    model().load_weights(path)


def whole_ways(path: Path) -> None:
    made = keras.models.load_model(path)
    made.summary(print_fn=lambda line: None)


def real_ways(path: Path) -> None:
    with_keras.load_model(path)


def tensors_way(path: Path) -> None:
    keras.Model(torch.nn.Linear(4, 2)).load_weights(path)


def models() -> Iterator[Input]:
    """Yield files of models and of weights."""
    made = model()
    with tempfile.TemporaryDirectory() as folder:
        parts = files.parts_of(made, Path(folder))
        made.save(Path(folder) / "m.h5")
        made.save_weights(Path(folder) / "w.weights.h5")
        made.save_weights(Path(folder) / "w.h5")
        real_model().save(Path(folder) / "real.keras")
        good = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    with zipfile.ZipFile(io.BytesIO(good["real.keras"])) as archive:
        real_parts = {name: archive.read(name) for name in files.MEMBERS}
    for name, content, harmless in bombs(parts):
        yield Input(".keras", name, writes("x.keras", content), whole_ways, harmless)
    for name, content, harmless in bombs(real_parts):
        # Of layers that are allowed, Keras itself takes longer to make a model.
        if name != "4900 layers":
            yield Input(".keras of real Keras", name, writes("x.keras", content), real_ways, harmless)
    for name, content in legacy_bombs():
        yield Input(".h5", name, writes("x.h5", content), weights_ways)
        yield Input(".weights.h5", name, writes("x.weights.h5", content), weights_ways)
    for kind, name, way in (
        (".keras", "x.keras", whole_ways),
        (".h5", "x.h5", whole_ways),
        (".weights.h5", "x.weights.h5", weights_ways),
        (".safetensors", "x.safetensors", tensors_way),
    ):
        yield Input(kind, "a pipe", fifo(name), way)
        yield Input(kind, "a device without an end", device(name), way)
        for what, content in {
            "nothing": b"",
            "text": b"no model",
            "a pickle": pickle.dumps(print),
            "zeros": bytes(1 << 20),
            "noise": np.random.default_rng(0).bytes(1 << 20),
        }.items():
            yield Input(kind, what, writes(name, content), way)
    for what, text in files.JSON.items():
        yield Input(
            ".keras",
            f"a configuration that is {what}",
            writes("x.keras", packed({**parts, "config.json": text})),
            whole_ways,
        )
    for what, part in files.LAYERS.items():
        config = json.loads(parts["config.json"])
        config["config"]["layers"][1] = part
        content = packed({**parts, "config.json": json.dumps(config).encode()})
        yield Input(".keras", f"a layer: {what}", writes("x.keras", content), whole_ways)
        content = changed_hdf5(good["m.h5"], lambda file, config=config: put_config(file, config))
        yield Input(".h5", f"a layer: {what}", writes("x.h5", content), whole_ways)
    for place in ("w.weights.h5", "w.h5"):
        for entry in files.ENTRIES:
            make = changed_file(
                place,
                good[place],
                lambda file, entry=entry, place=place: files.replace(file, files.PLACES[place], entry),
            )
            yield Input(place[1:], f"an array that is {entry.__name__}", make, weights_ways)
    for what, (header, size) in files.HEADERS.items():
        yield Input(".safetensors", what, tensors(header, bytes(size)), tensors_way)
    for what, header in {
        "16 MB of lists": b'{"a":[' + b"[]," * 5_400_000 + b"[]]}",
        "16 MB of metadata": b'{"__metadata__":{"a":"' + b"x" * 16_000_000 + b'"}}',
        "100 000 tensors": json.dumps({f"t{place}": files.entry((0,), 0, 0) for place in range(100_000)}).encode(),
        "names that a terminal carries out": json.dumps({"\x1b[2J": files.entry()}).encode(),
    }.items():
        yield Input(".safetensors", what, tensors(header, bytes(32)), tensors_way)


def tensors(header: Any, content: bytes) -> Callable[[Path], Path]:
    return lambda folder: files.tensors_file(folder / "x.safetensors", header, content)


def put_config(file: Any, config: Any) -> None:
    file.attrs["model_config"] = np.bytes_(json.dumps(config).encode())


def changed_hdf5(content: bytes, change: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO(content[: content.rindex(b"\noncue-crc32:")])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def changed_file(name: str, content: bytes, change: Callable[[Any], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content[: content.rindex(b"\noncue-crc32:")])
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


# What runs leave ----------------------------------------------------------------------------------------------------


def backup(text: bytes | Callable[[], bytes], tensors: dict[str, torch.Tensor] | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_state(
            folder / "state-1.safetensors", [text if isinstance(text, bytes) else text()], blocks_of(tensors or {})
        )
        return folder

    return make


def long_header(length: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return files.tensors_file(folder / "state-1.safetensors", b" " * min(length, 90_000_000), b"", length).parent

    return make


def opens_backup(folder: Path) -> None:
    if Store(folder).newest(TrainingState.read) is None:
        raise ValueError("there is none")


def resumes(folder: Path) -> None:
    states.train(states.build(), folder)


def opens_marks(folder: Path) -> None:
    store = Store(folder)
    if store.marks() is None and not store.note():
        raise ValueError("there are none")


def runs() -> Iterator[Input]:
    """Yield backups, manifests, and logs."""
    head = b'{"format": 3, "fingerprint": {}, "epoch": 1, "batch": 0, "stopped": false, "redone": 0, "parts": {"a": ['
    for what, one in {
        "lists": b"[],",
        "objects": b"{},",
        "lists of one": b"[1],",
        "floats": b"0.1,",
        "words": b'"ab",',
    }.items():
        count = (64 << 20) // len(one)
        harmless = what in ("floats", "words")
        text = lambda one=one, count=count: head + one * count + one[:-1] + b"]}}"  # noqa: E731
        yield Input("backup", f"64 MB of {what}", backup(text), opens_backup, harmless)
    yield Input("backup", "a deep state", backup(head + b"[" * 100_000 + b"]" * 100_000 + b"]}}"), opens_backup)
    yield Input("backup", "a tuple of a number", backup(head + b'{"$tuple": 3}]}}'), opens_backup)
    yield Input("backup", "a key that can't be one", backup(head + b'{"$dict": [[[], 1]]}]}}'), opens_backup)
    for length in (90_000_000, 1 << 40, (1 << 64) - 1):
        yield Input("backup", f"a header of {length} bytes", long_header(length), opens_backup)
    yield Input("backup", "a pipe", lambda folder: fifo("state-1.safetensors")(folder).parent, opens_backup)
    yield Input(
        "backup",
        "a number that isn't one",
        lambda folder: writes("state-\u0663.safetensors", b"x")(folder).parent,
        opens_backup,
    )
    for name in ("beginning.json", "data.json"):
        yield Input("backup", f"{name} as a pipe", lambda folder, name=name: fifo(name)(folder).parent, opens_marks)
        yield Input(
            "backup", f"{name} of lists", lambda folder, name=name: writes(name, LISTS)(folder).parent, opens_marks
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "precious.txt").write_bytes(b"precious")
        try:
            states.train(states.build(), Path(folder), states.PowerCut(2, 1))
        except ConnectionError:
            pass
        kept = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
    for what, change in states.CHANGES.items():
        yield Input("backup", what, lambda folder, change=change: states.changed(kept, folder / "run", change), resumes)
    yield from of_processes()
    yield from manifests()
    yield from logs()
    yield from data_sets()


def of_processes() -> Iterator[Input]:
    """Yield backups of which several processes say to have parts."""
    weight, token = {"w": torch.ones(2, 3)}, "a" * 32
    part = "state-1.part-1.safetensors"
    plain = {"format": 3, "fingerprint": {}, "epoch": 1, "batch": 0, "stopped": False, "redone": 0}
    honest = {"shape": [4, 3], "dtype": "float32", "axis": 0}

    def written(save: Any, other: Any = None) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            state = {**plain, "parts": {"weights": {"$tensor": "w"}}, "processes": save}
            write_state(folder / "state-1.safetensors", [json.dumps(state).encode()], blocks_of(weight))
            said = {"format": 3, "processes": {"token": token} if other is None else other}
            write_state(folder / part, [json.dumps(said).encode()], blocks_of(weight))
            return folder

        return make

    def opens(path: Path) -> None:
        assert Store(path).newest(TrainingState.read) is not None

    def saying(**entry: Any) -> dict[str, Any]:
        return {"rank": 0, "size": 2, "token": token, "files": [part], "table": {"w": {**honest, **entry}}}

    whole = saying()
    yield Input("backup of processes", "an honest one", written(whole), opens, harmless=True)
    for what, save in {
        "a tensor of 1 TiB": saying(shape=[1 << 38, 1]),
        "a shape of many zeros": saying(shape=[0, 1 << 62, 1 << 62], axis=2),
        "a shape below zero": saying(shape=[-4, -3]),
        "a shape that is none": saying(shape="4"),
        "an axis that isn't there": saying(axis=7),
        "an axis below zero": saying(axis=-1),
        "a type that is none": saying(dtype="nn"),
        "a type that is a function": saying(dtype="load"),
        "200 axes": saying(shape=[1] * 200),
        "another name": {**whole, "table": {"v": honest}},
        "no table": {**whole, "table": []},
        "a file elsewhere": {**whole, "files": ["../state-1.part-1.safetensors"]},
        "an absolute file": {**whole, "files": ["/etc/passwd"]},
        "itself as a part": {**whole, "files": ["state-1.safetensors"]},
        "a missing part": {**whole, "files": ["state-1.part-2.safetensors"]},
        "the same part a million times": {**whole, "size": 1_000_001, "files": [part] * 1_000_000},
        "more processes than files": {**whole, "size": 1 << 40},
        "a list": [1],
        "no token": {**whole, "token": None},
    }.items():
        yield Input("backup of processes", what, written(save), opens)
    yield Input("backup of processes", "a part of another state", written(whole, {"token": "b" * 32}), opens)
    yield Input("backup of processes", "a part that is a list", written(whole, [1]), opens)

    def pipe(folder: Path) -> Path:
        written(whole)(folder)
        (folder / part).unlink()
        os.mkfifo(folder / part)
        return folder

    yield Input("backup of processes", "a part that is a pipe", pipe, opens)


def opens_manifest(path: Path) -> None:
    found = Checkpoints(path)
    found.verify()
    found.last()


def manifests() -> Iterator[Input]:
    record = {
        "file": "m.keras",
        "size": 1,
        "sha256": "0",
        "epoch": 1,
        "step": 1,
        "score": 0.5,
        "monitor": "loss",
        "run": "r",
    }

    def manifest(*records: Any, **more: Any) -> bytes:
        return json.dumps({"format": 1, "files": list(records), "announced": None, **more}).encode()

    for key, values in {
        "file": [
            "../m",
            "/etc/passwd",
            "a/./b",
            "a//b",
            "",
            ".",
            "C:\\x",
            "a\\b",
            "a\0b",
            "\x1b[2Jm",
            3,
            None,
            "x/../../y",
        ],
        "size": [True, -1, 1.5, 1 << 70, "1", None],
        "epoch": [-1, True, None],
        "step": [-1, "x", True],
        "score": [True, "x", [], 10**400],
        "run": [3, None],
        "monitor": [3],
        "sha256": [0],
    }.items():
        for value in values:
            content = manifest({**record, key: value})
            yield Input("manifest", f"{key} {str(value)[:20]!r}", writes("m.oncue.json", content), opens_manifest)
    for what, content in {
        "300 000 records": lambda: manifest(*[{**record, "file": f"{place}"} for place in range(300_000)]),
        "40 000 records": lambda: manifest(*[{**record, "file": f"{place}"} for place in range(40_000)]),
        "the same file twice": manifest(record, record),
        "a key twice": b'{"format": 1, "format": 1, "files": [], "announced": null}',
        "16 MB of lists": b'{"a":[' + b"[]," * 5_400_000 + b"[]]}",
        "100 MB": lambda: b'{"a": "' + b"x" * (100 << 20) + b'"}',
        "a deep list": b"[" * 100_000 + b"]" * 100_000,
        "no records": manifest(files={}),
        "another field": manifest({**record, "evil": 1}),
        "no text": b"\xff\xfe",
    }.items():
        yield Input("manifest", what, writes("m.oncue.json", content), opens_manifest)
    yield Input("manifest", "a pipe", fifo("m.oncue.json"), opens_manifest)
    for what, content in {
        "a note of another kind": b"\noncue-score:[1]",
        "a score without an end": b'\noncue-score:{"monitor": "a", "direction": "up", "score": 1e400}',
        "a deep note": b"\noncue-score:" + b"[" * 4000,
    }.items():
        yield Input("score", what, writes("m.weights.h5", content), opens_note)
    lists = b'{"a":[' + b"[]," * 5_200_000 + b"[]]}"
    yield Input(
        "score", "a header of lists", writes("m.safetensors", struct.pack("<Q", len(lists)) + lists), opens_note
    )


LISTS = b'{"a":[' + b"[]," * 5_200_000 + b"[]]}"


def opens_note(path: Path) -> None:
    if read_note(path) is None:
        raise ValueError("there is none")


def opens_log(path: Path) -> None:
    logger = CSVLogger(path, append=True)
    logger.on_train_begin()
    logger.close()


def logs() -> Iterator[Input]:
    rows = b"".join(b"%d,0.5\r\n" % place for place in range(500_000))
    for what, content, harmless in (
        ("500 000 rows", b"epoch,loss\r\n" + rows, True),
        ("a million columns", b"epoch" + b",x" * 1_000_000 + b"\r\n", True),
        ("a cell of 32 MB", b"epoch,loss\r\n0," + b"1" * (32 << 20), False),
        ("quotation marks without an end", b'epoch,loss\r\n0,"' + b"x\r\n" * 1_000_000, False),
        ("no text", b"\xff\xfe" * 100, False),
        ("zeros, as after a power cut", b"\0" * 1000, True),
        ("another file", b"root:x:0:0:root:/root:/bin/bash\n", False),
    ):
        yield Input("CSV", what, writes("log.csv", content), opens_log, harmless)
    yield Input("CSV", "a pipe", fifo("log.csv"), opens_log)
    yield Input("CSV", "a device without an end", device("log.csv"), opens_log)


def asked(*command: str) -> Callable[[Path], None]:
    """Return what asks a command of `oncue` about a path."""

    def ask(path: Path) -> None:
        with tempfile.TemporaryDirectory() as place, open(os.devnull, "w", encoding="utf-8") as nowhere:
            options = parser().parse_args([*(part.replace("PLACE", place) for part in command), str(path)])
            module, name = options.run_command
            with redirect_stdout(nowhere):
                getattr(importlib.import_module(f"oncue.cli.{module}"), name)(options)

    return ask


COMMANDS = {
    "explain": asked("explain"),
    "tail": asked("tail", "-n", "100000"),
    "inspect --json": asked("inspect", "--json"),
    "report": asked("report", "-o", "PLACE/report.html"),
    "compare": asked("compare", "-o", "PLACE/compare.html", "--most", "1000000"),
    "plot": asked("plot", "-o", "PLACE/curves.png"),
}
BEGUN = (
    b'{"line":"begin","format":1,"time":0.0,"epochs":3}\n{"line":"epoch","epoch":0,"time":1.0,"logs":{"loss":0.5}}\n'
)


def left_by_runs() -> Iterator[Input]:
    def folder_of(**files: bytes | Callable[[], bytes]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            for name, content in files.items():
                path = folder / name.replace("_", ".")
                path.write_bytes(content if isinstance(content, bytes) else content())
            return folder

        return make

    def lines(count: int, line: Callable[[int], str]) -> Callable[[], bytes]:
        return lambda: BEGUN + "".join(f"{line(place)}\n" for place in range(count)).encode()

    nested, quoted = b"[" * 100_000 + b"]" * 100_000, json.dumps("\x1b[2J\x9b\0</script><img src=x>")
    journals: list[tuple[str, bytes | Callable[[], bytes], bool]] = [
        ("deep JSON", BEGUN + nested + b"\n", True),
        (
            "a depth that JSON just reads",
            BEGUN + b'{"line":"epoch","epoch":1,"logs":{"a":' + b"[" * 900 + b"]" * 900 + b"}}\n",
            True,
        ),
        ("a line of 64 MB", lambda: BEGUN + b'{"line":"' + b"x" * (64 << 20) + b'"}\n', True),
        ("only a line of 64 MB", lambda: b"x" * (64 << 20), False),
        ("two million lines of nothing", lambda: BEGUN + b"{}\n" * 2_000_000, False),
        ("empty lines", lambda: BEGUN + b"\n" * 10_000_000, False),
        (
            "500 000 epochs",
            lines(500_000, lambda place: f'{{"line":"epoch","epoch":{place},"logs":{{"a":1.5,"b":2.5}}}}'),
            True,
        ),
        (
            "a million values in an epoch",
            lines(40, lambda place: '{"line":"epoch","epoch":1,"logs":{"a":[' + "1.5," * 200_000 + "0]}}"),
            False,
        ),
        (
            "a million lists in an epoch",
            lines(20, lambda place: '{"line":"epoch","epoch":1,"logs":{"a":[' + "[]," * 300_000 + "0]}}"),
            False,
        ),
        (
            "20 000 names",
            lines(
                20,
                lambda place: json.dumps(
                    {"line": "epoch", "epoch": 1, "logs": {f"{place}-{name}": 1.5 for name in range(1000)}}
                ),
            ),
            False,
        ),
        (
            "9000 names",
            lines(
                9,
                lambda place: json.dumps(
                    {"line": "epoch", "epoch": 1, "logs": {f"{place}-{name}": 1.5 for name in range(1000)}}
                ),
            ),
            True,
        ),
        (
            "9000 names in 400 000 epochs",
            lambda: (
                lines(
                    9,
                    lambda place: json.dumps(
                        {"line": "epoch", "epoch": 1, "logs": {f"{place}-{name}": 1.5 for name in range(1000)}}
                    ),
                )()
                + b'{"line":"epoch","epoch":2,"logs":{}}\n' * 400_000
            ),
            True,
        ),
        (
            "300 000 decisions",
            lines(
                300_000,
                lambda place: '{"line":"decision","text":"a","time":0,"kind":"save","epoch":1,"data":{"path":"a"}}',
            ),
            True,
        ),
        (
            "decisions of a megabyte",
            lines(60, lambda place: '{"line":"decision","time":0,"text":"' + "a" * 1_000_000 + '"}'),
            True,
        ),
        (
            "as many rates",
            lines(
                100_000,
                lambda place: (
                    f'{{"line":"decision","text":"a","time":0,"kind":"learning_rate","epoch":{place},"data":{{"before":1,"after":0.5}}}}'
                ),
            ),
            True,
        ),
        (
            "weights without an end",
            lines(
                2000,
                lambda place: json.dumps(
                    {
                        "line": "weights",
                        "epoch": place,
                        "of": ["mean", "std", "zeros", "min", "max"],
                        "weights": {f"w{name}": [0.5] * 5 for name in range(500)},
                    },
                    separators=(",", ":"),
                ),
            ),
            True,
        ),
        (
            "costs of 60 000 hooks",
            BEGUN
            + json.dumps({"line": "costs", "costs": {"A": {f"h{place}": 1.0 for place in range(60_000)}}}).encode()
            + b"\n",
            True,
        ),
        (
            "numbers of any length",
            BEGUN
            + b'{"line":"epoch","epoch":1,"time":1'
            + b"0" * 400
            + b',"logs":{"a":1'
            + b"0" * 4000
            + b',"b":1e999,"c":NaN}}\n',
            True,
        ),
        ("an epoch beyond all", BEGUN + b'{"line":"epoch","epoch":9007199254740991,"logs":{"loss":1}}\n', True),
        (
            "times that no clock has",
            BEGUN
            + b'{"line":"begin","format":1,"time":1e299}\n{"line":"epoch","epoch":1,"time":-1e299,"logs":{"loss":1}}\n',
            True,
        ),
        (
            "control characters",
            BEGUN
            + f'{{"line":"decision","time":1,"text":{quoted},"callback":{quoted},"kind":{quoted}}}\n'.encode()
            + f'{{"line":"end","how":"failed","error":{quoted}}}\n'.encode(),
            True,
        ),
        ("of a later version", b'{"line":"begin","format":2}\n', False),
        ("zeros, as after a power cut", bytes(1 << 20), False),
        ("no text", b"\xff\xfe\n" * 1000, False),
        ("nothing", b"", True),
    ]
    for what, content, harmless in journals:
        for name, ask in COMMANDS.items():
            yield Input("journal", f"{what}, {name}", folder_of(**{"journal_jsonl": content}), ask, harmless)
    tables: list[tuple[str, bytes | Callable[[], bytes], bool]] = [
        ("500 000 rows", lambda: b"epoch,loss\n" + b"".join(b"%d,0.5\n" % place for place in range(500_000)), True),
        (
            "a million columns",
            lambda: b"epoch" + b"".join(b",x%d" % place for place in range(1_000_000)) + b"\n" + b"0,1" * 1_000_000,
            False,
        ),
        (
            "ten million values",
            lambda: b"epoch" + b",x" * 10 + b"\n" + (b"0" + b",1.5" * 10 + b"\n") * 1_000_000,
            False,
        ),
        ("a cell of 32 MB", lambda: b"epoch,loss\n0," + b"1" * (32 << 20), False),
        ("a name of 32 MB", lambda: b"epoch," + b"x" * (32 << 20) + b"\n0,1\n", False),
        ("a quotation mark without an end", lambda: b'epoch,loss\n0,"' + b"x\n" * 5_000_000, False),
        ("epochs that are none", b"epoch,loss\nnan,1\ninf,1\n-1e300,1\n1e400,1\n", True),
        ("no text", b"\xff\xfe" * 1000, False),
        ("another file", b"root:x:0:0:root:/root:/bin/bash\n", False),
    ]
    for what, content, harmless in tables:
        for name, ask in COMMANDS.items():
            yield Input("log of a run", f"{what}, {name}", folder_of(**{"log_csv": content}), ask, harmless)
    lists = b'{"a": [' + b"[]," * 5_000_000 + b"0]}"
    for file in ("config", "environment", "model"):
        for what, content, harmless in (
            ("deep JSON", nested, False),
            ("a depth that JSON just reads", b'{"a":' * 180 + b"1" + b"}" * 180, True),
            ("five million lists", lists, False),
            ("100 MB", bytes(100 << 20), False),
            ("a list", b"[1]", True),
        ):
            for name in ("report", "compare", "inspect --json"):
                made = folder_of(**{"journal_jsonl": BEGUN, f"{file}_json": content})
                yield Input("document of a run", f"{file}: {what}, {name}", made, COMMANDS[name], harmless)
    yield Input(
        "document of a run",
        "a summary of 100 MB, report",
        folder_of(journal_jsonl=BEGUN, summary_txt=bytes(100 << 20)),
        COMMANDS["report"],
    )
    for name, ask in COMMANDS.items():
        for file in ("journal.jsonl", "log.csv"):
            for what, make in (("a pipe", fifo(file)), ("a device without an end", device(file))):
                yield Input("journal" if file == "journal.jsonl" else "log of a run", f"{what}, {name}", make, ask)


def data_sets() -> Iterator[Input]:
    def npz(header: str, size: int = 0, how: int = zipfile.ZIP_DEFLATED) -> bytes:
        text = header.encode().ljust(118) + b"\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(size)
        return packed({f"{name}.npy": array for name in ("x_train", "y_train", "x_test", "y_test")}, how)

    form = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }"
    for what, content in {
        "an array of 1 TiB": npz(form % (1 << 40)),
        "a bomb": lambda: npz(form % (200 << 20), 200 << 20),
        "a shape that is none": npz("{'descr': '|u1', 'fortran_order': False, 'shape': -1, }"),
        "pickled objects": npz("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8),
        "a header that is code": npz("__import__('os').system('true')"),
        "no archive": b"PK\x03\x04" + bytes(100),
    }.items():
        yield Input(".npz", what, writes("mnist.npz", content), lambda path: mnist._read(path))
    for what, content in {
        "a bomb": lambda: gzip.compress(bytes(400 << 20), 1),
        "a shape of 1 TiB": gzip.compress(struct.pack(">HBBI", 0, 8, 1, (1 << 32) - 1) + bytes(10)),
        "many axes": gzip.compress(struct.pack(">HBB", 0, 8, 255) + bytes(1020)),
        "no gzip": b"no gzip at all",
        "a cut one": gzip.compress(bytes(1000))[:-9],
        "a damaged one": gzip.compress(np.random.default_rng(0).bytes(1000))[:40] + b"\xff" * 100,
    }.items():
        yield Input("gzip", what, writes("train-images-idx3-ubyte.gz", content), opens_gzip)


def opens_gzip(path: Path) -> None:
    fashion_mnist._unpacked(path)


def archives() -> Iterator[Input]:
    """Yield what `get_file(extract=True)` may have downloaded."""

    def opens(path: Path) -> None:
        unpack(path, path.with_name("made"))
        raise AssertionError(sorted(str(one) for one in path.parent.rglob("*")))

    def tar(how: str, *members: tuple[str, bytes | int, bytes]) -> bytes:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode=f"w:{how}") as archive:  # type: ignore[call-overload]
            for name, part, kind in members:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
                info.size = part if isinstance(part, int) else len(part)
                archive.addfile(info, io.BytesIO(bytes(part) if isinstance(part, int) else part))
        return content.getvalue()

    def encrypted() -> bytes:
        content = bytearray(packed({"a": b"text"}))
        for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(mark) + place] |= 1
        return bytes(content)

    whole, file = tar("gz", ("a", os.urandom(100_000), tarfile.REGTYPE)), tarfile.REGTYPE
    for what, content in {
        "a zip bomb": lambda: packed({"a": bytes(300 << 20)}, zipfile.ZIP_DEFLATED),
        "a tar bomb": lambda: tar("gz", ("a", 300 << 20, file)),
        "a bomb of bzip2": lambda: tar("bz2", ("a", 200 << 20, file)),
        "a way out of the folder": packed({"../out": b"x"}),
        "an absolute path": packed({"/tmp/out": b"x"}),
        "a tar with a way out": tar("", ("../out", b"x", file)),
        "a link out of the folder": tar("", ("link", 0, tarfile.SYMTYPE)),
        "a hard link out of it": tar("", ("link", 0, tarfile.LNKTYPE)),
        "a device": tar("", ("null", 0, tarfile.CHRTYPE)),
        "a pipe": tar("", ("pipe", 0, tarfile.FIFOTYPE)),
        "an encrypted zip": encrypted(),
        "a cut one": whole[: len(whole) // 2],
        "a damaged one": whole[:40] + b"\xff" * 40 + whole[80:],
        "a damaged xz": tar("xz", ("a", os.urandom(1000), file))[:200] + b"\xff" * 900,
        "no archive": b"text",
    }.items():
        yield Input("archive", what, writes("data.archive", content), opens)


def commands_of_runs() -> Iterator[Input]:
    """Yield what anybody may put into the folder that a run listens to."""

    def opens(path: Path) -> None:
        if commands.read(path) is None:
            raise ValueError("it is no command")

    for what, content in {
        "another word": b'{"word": "eval", "value": "1"}',
        "a rate that is none": b'{"word": "rate", "value": "-1"}',
        "a rate without an end": b'{"word": "rate", "value": "1e999"}',
        "a rate that is a list": b'{"word": "rate", "value": [1]}',
        "a value of a word that takes none": b'{"word": "stop", "value": "now"}',
        "a list": b'["stop"]',
        "deep lists": b"[" * 4000,
        "100 MB": lambda: b'{"word": "stop", "a": "' + b"x" * (100 << 20) + b'"}',
        "no text": b"\xff\xfe",
    }.items():
        yield Input("command", what, writes("00000000000000000001-00000000.json", content), opens)
    yield Input("command", "a pipe", fifo("00000000000000000001-00000000.json"), opens)
    yield Input("command", "a device without an end", device("00000000000000000001-00000000.json"), opens)


# The table ------------------------------------------------------------------------------------------------------------


def table(found: dict[str, list[tuple[Input, Outcome]]]) -> str:
    """Return what each kind came to as lines of a table."""
    lines = ["| | inputs | refused | opened | most MB more | most seconds |", "|---|---|---|---|---|---|"]
    for kind, all_of in found.items():
        counts = [sum(outcome.what == what for _, outcome in all_of) for what in ("refused", "opened")]
        most = max(outcome.megabytes for _, outcome in all_of), max(outcome.seconds for _, outcome in all_of)
        lines.append(f"| {kind} | {len(all_of)} | {counts[0]} | {counts[1]} | {most[0]:.0f} | {most[1]:.1f} |")
    everything = [outcome for all_of in found.values() for _, outcome in all_of]
    counts = [sum(outcome.what == what for outcome in everything) for what in ("refused", "opened")]
    lines.append(f"| all | {len(everything)} | {counts[0]} | {counts[1]} | | |")
    return "\n".join(lines)


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    real_model(), model()
    found: dict[str, list[tuple[Input, Outcome]]] = {}
    wrong = 0
    # A command needs them, whatever it is asked about.
    vega(), plot([1], {"loss": [1.0]}).savefig(os.devnull, format="png")
    for make in (models, runs, left_by_runs, archives, commands_of_runs):
        for one in make():
            if names and not any(name in f"{one.kind}: {one.name}" for name in names):
                continue
            with tempfile.TemporaryDirectory() as folder:
                outcome = measured(one, Path(folder))
            found.setdefault(one.kind, []).append((one, outcome))
            if outcome.bad or (outcome.what == "opened" and not one.harmless):
                wrong += 1
                print(f"{one.kind}: {one.name}: {outcome}", file=sys.stderr)
    print(table(found))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
