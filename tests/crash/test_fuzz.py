"""Files changed at random: every one is refused with a clean error, or loads what it holds; in bounded time and memory.

Each is loaded in a process of its own, so that a crash of a library, or an endless loop, counts as a failure of the test.
How long each test looks for failures: the seconds in ONCUE_FUZZ_SECONDS, 20 when it isn't set; of a part of the campaigns, that
part of them.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import resource
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from crash.share import SHARE
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

import oncue as keras
from helpers import cpu_only
from oncue import layers
from oncue.checkpoints import Checkpoints
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.state_file import write_state
from oncue.checkpoints.store import Store
from oncue.checkpoints.training_state import TrainingState

pytestmark = [pytest.mark.crash, cpu_only("they fork, and a process that is forked can't use CUDA")]

BUDGET = float(os.environ.get("ONCUE_FUZZ_SECONDS", "20")) * SHARE
SECONDS, MEMORY = 20, 2 << 30
# What hypothesis finds is not made smaller: each try of a file that never ends to be read would take SECONDS.
FUZZ = settings(
    max_examples=30, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def model() -> Any:
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            layers.Input((6,), dtype="int32"),
            layers.Embedding(5, 4, name="e"),
            layers.Conv1D(3, 2, name="c"),
            layers.BatchNormalization(name="n"),
            layers.LSTM(3, name="l"),
            layers.Dropout(0.5, name="o"),
            layers.Dense(2, "relu", kernel_regularizer="l2", name="d"),
        ],
        name="net",
    )
    made.compile("adam", "mse", metrics=["mae"])
    made.fit(np.ones((4, 6), "int32"), np.ones((4, 2), "float32"), verbose=0)
    return made


def graph() -> Any:
    x = layers.Input((4,), name="x")
    y = layers.Dense(3, name="a")(x)
    made = keras.Model(x, layers.Concatenate(name="c")([y, layers.Dense(2, name="b")(y)]), name="graph")
    made.compile("sgd", "mse")
    return made


def content(name: str, made: Any, folder: Path) -> bytes:
    path = folder / name
    if name.startswith("m"):
        made.save(path)
    else:
        made.save_weights(path)
    return path.read_bytes()


# How a file may end -----------------------------------------------------------------------------------------------


def explore(example: Callable[[st.DataObject], None]) -> None:
    """Try examples for so long and no longer."""
    end = time.monotonic() + BUDGET
    while time.monotonic() < end:
        seed(random.getrandbits(64))(FUZZ(given(st.data())(example)))()


def ends_well(action: Callable[[], str | None]) -> None:
    """Run an action in a process of its own; it returns what is wrong, if anything is."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        signal.alarm(SECONDS)
        try:
            found = action()
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        os.write(writer, (found or "").encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    assert not os.WIFSIGNALED(status), f"it was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    assert not said, said


def attempt(load: Callable[[], Any]) -> bool:
    """Return whether something loads; only the errors that are promised may come otherwise."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load()
        except (ValueError, OSError) as error:
            assert str(error), "an error without words"
            return False
    return True


def weights_are_right(path: Path, into: Any, only: list[Any] | None) -> str | None:
    """Load weights by every way; afterwards all of them are as before, or all are from the file."""
    ways: list[dict[str, Any]] = [{}, {"skip_mismatch": True}]
    if path.suffix == ".h5" and not path.name.endswith(".weights.h5"):
        ways.append({"by_name": True})
    for options in ways:
        before = [weight.copy() for weight in into.get_weights()]
        loaded = attempt(lambda options=options: into.load_weights(path, **options))  # type: ignore[misc]
        after = into.get_weights()
        expected = before if not loaded else only
        if expected is not None and not _same(after, expected):
            return f"loaded={loaded} with {options}, and the weights are others"
    return None


def model_is_right(path: Path, only: list[Any] | None) -> str | None:
    """Load a whole model; it has the weights that were saved, when those are known."""
    found: list[Any] = []
    if not attempt(lambda: found.append(keras.models.load_model(path))):
        return None
    return None if only is None or _same(found[0].get_weights(), only) else "a model with other weights"


def _same(first: list[Any], second: list[Any]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=True) for a, b in pairs)


# Changes ----------------------------------------------------------------------------------------------------------


@st.composite
def changed(draw: st.DrawFn, content: bytes) -> bytes:
    """Return content with some bytes changed, cut out, put in, moved, or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        # Most of a file's metadata is at its beginning and its end.
        end = draw(st.sampled_from([len(data), min(len(data), 600)]))
        place = draw(st.integers(0, end - 1))
        if draw(st.booleans()):
            place = len(data) - 1 - place
        kind = draw(st.sampled_from(["bit", "byte", "word", "cut", "insert", "copy", "end"]))
        if kind == "bit":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            data[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
        elif kind == "word":
            number = draw(
                st.sampled_from([0, 1, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1])
            )
            form = draw(st.sampled_from(["<H", "<I", "<Q"]))
            size = struct.calcsize(form)
            data[place : place + size] = struct.pack(form, number & ((1 << 8 * size) - 1))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=64))
        elif kind == "copy":
            other = draw(st.integers(0, len(data) - 1))
            piece = data[other : other + draw(st.integers(1, 64))]
            data[place : place + len(piece)] = piece
        else:
            del data[place:]
    return bytes(data)


ODD_VALUES = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 2, 1 << 31, 1 << 40, 1 << 63, 1 << 70, 0.5, -1.5, 1e308, float("nan"), float("inf"), "",
        "x", "../x", "/etc/passwd", "relu", "Dense", "Sequential", "Lambda", "float16", "mse", "a/b", "\0", "é" * 300, [],
        {}, [None], [[]], {"": {}}, [1 << 40, 1 << 40], {"class_name": "Dense"}, {"class_name": "Lambda", "config": {}},
        {"class_name": "function", "config": "relu", "module": "builtins"}, {"class_name": "__tuple__", "items": [1, 2]},
        {"class_name": "__tensor__", "config": {"value": [1], "dtype": "float32"}}, {"class_name": "__numpy__", "config": {}},
        {"$tensor": "0"}, {"$tuple": 3}, {"$dict": [[[], 1]]}, {"$float": "x"}, {"$array": "nope"}, {"$evil": 0},
    ]
)  # fmt: skip


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Return every container in JSON with every key it has."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        found.append((value, key))
        found += places_in(part)
    return found


@st.composite
def changed_json(draw: st.DrawFn, value: Any) -> Any:
    """Return JSON with some values replaced, removed, renamed, repeated, or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 4))):
        places = places_in(value)
        if not places:
            break
        holder, key = draw(st.sampled_from(range(len(places))).map(lambda index: places[index]))  # noqa: B023
        kind = draw(st.sampled_from(["odd", "odd", "remove", "rename", "repeat", "elsewhere", "deep"]))
        if kind == "odd":
            holder[key] = copy.deepcopy(draw(ODD_VALUES))
        elif kind == "remove":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(["name", "config", "units", "class_name", "x", "dtype", "module"]))] = (
                holder.pop(key)
            )
        elif kind == "repeat" and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[key]) for _ in range(draw(st.sampled_from([1, 2, 300]))))
        elif kind == "elsewhere":
            other, place = places[draw(st.integers(0, len(places) - 1))]
            try:
                holder[key] = copy.deepcopy(other[place])
            except (LookupError, TypeError):
                # It was removed, or moved with what it was in.
                continue
        elif kind == "deep":
            deep: Any = holder[key]
            for _ in range(draw(st.sampled_from([3, 90, 180]))):
                deep = [deep]
            holder[key] = deep
    return value


@st.composite
def changed_hdf5(draw: st.DrawFn, content: bytes) -> bytes:
    """Return an HDF5 file with arrays, groups, attributes or links that are others."""
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        for turn in range(draw(st.integers(1, 4))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                break
            name = draw(st.sampled_from(names))
            kind = draw(st.sampled_from(["array", "attribute", "remove", "link", "group", "hard", "more"]))
            if kind == "attribute":
                holder = draw(st.sampled_from([file, file[name]]))
                key = draw(st.sampled_from([*holder.attrs, "layer_names", "weight_names", "model_config", "name"]))
                holder.attrs[key] = draw(ATTRIBUTES)
                continue
            if kind == "more":
                file[f"more{turn}/{draw(st.integers(0, 9))}"] = np.ones(3)
                continue
            old = file[name]
            del file[name]
            if kind == "array":
                shape = draw(st.sampled_from([(), (0,), (1,), (3,), (2, 3), (4, 12), (1 << 20, 1 << 20)]))
                dtype = draw(st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i4", "u1", "S3", "?", "<c8"]))
                large = {"chunks": (1, 1), "compression": "gzip"} if shape == (1 << 20, 1 << 20) else {}
                file.create_dataset(name, shape, dtype, **large)
            elif kind == "link":
                file[name] = draw(
                    st.sampled_from([h5py.SoftLink("/x"), h5py.SoftLink("/"), h5py.ExternalLink("x.h5", "/")])
                )
            elif kind == "group":
                file.create_group(name)
            elif kind == "hard":
                file[name] = draw(
                    st.sampled_from([file, file[draw(st.sampled_from(list(file)))] if len(file) else file, old])
                )
    return buffer.getvalue()


ATTRIBUTES = st.sampled_from(
    [
        0, 1.5, b"", b"x", "text", np.array([b"a", b"b"]), np.array([b"../a", b"/"]), np.zeros(3), np.array([], "f4"), b"{}",
        b"[]", b'{"class_name": "Sequential", "config": {"layers": []}}', np.array([b"d"] * 5), np.array([[b"d"]]),
    ]
)  # fmt: skip


# Whole models and weights -----------------------------------------------------------------------------------------

NAMES = ["m.keras", "m.h5", "w.h5", "w.weights.h5", "w.safetensors"]


def check(path: Path, data: bytes, into: Any, only: list[Any] | None) -> None:
    path.write_bytes(data)

    def action() -> str | None:
        wrong = weights_are_right(path, into, only)
        if wrong is None and path.name.startswith("m"):
            wrong = model_is_right(path, only)
        return wrong

    ends_well(action)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_files_that_carry_a_checksum(name: str, tmp_path: Path) -> None:
    made = model()
    good, weights = content(name, made, tmp_path), made.get_weights()

    def example(data: st.DataObject) -> None:
        check(tmp_path / name, data.draw(changed(good)), made, weights)

    explore(example)


def bare(name: str, made: Any, folder: Path) -> bytes:
    """Return a file without a checksum, as other programs write them."""
    data = content(name, made, folder)
    if name.endswith(".safetensors"):
        from safetensors.torch import save

        return save({key: tensor.detach().contiguous() for key, tensor in made.state_dict().items()})
    return data[: data.rindex(b"\noncue-crc32:")] if name.endswith(".h5") else data


@pytest.mark.parametrize("name", NAMES[1:])
def test_bytes_of_files_without_one(name: str, tmp_path: Path) -> None:
    made = model()
    good = bare(name, made, tmp_path)

    def example(data: st.DataObject) -> None:
        check(tmp_path / name, data.draw(changed(good)), made, None)

    explore(example)


@pytest.mark.parametrize("member", ["metadata.json", "config.json", "model.weights.h5"])
def test_members_of_an_archive(member: str, tmp_path: Path) -> None:
    made = model()
    with zipfile.ZipFile(io.BytesIO(content("m.keras", made, tmp_path))) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def example(data: st.DataObject) -> None:
        if member.endswith(".json"):
            new = data.draw(changed(parts[member]))
        else:
            new = data.draw(changed_hdf5(parts[member]))
        check(tmp_path / "m.keras", packed({**parts, member: new}), made, None)

    explore(example)


def packed(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [model, graph])
@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_configurations(name: str, make: Callable[[], Any], tmp_path: Path) -> None:
    made = make()
    good = content(name, made, tmp_path)
    if name == "m.h5":
        good = good[: good.rindex(b"\noncue-crc32:")]
        with h5py.File(io.BytesIO(good)) as file:
            configs = {key: json.loads(file.attrs[key]) for key in ("model_config", "training_config")}
    else:
        with zipfile.ZipFile(io.BytesIO(good)) as archive:
            parts = {member: archive.read(member) for member in archive.namelist()}
        configs = {"config.json": json.loads(parts["config.json"])}

    def example(data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(configs)))
        text = json.dumps(data.draw(changed_json(configs[key]))).encode()
        if name == "m.keras":
            new = packed({**parts, key: text})
        elif len(text) > 60_000:
            return
        else:
            buffer = io.BytesIO(good)
            with h5py.File(buffer, "r+") as file:
                file.attrs[key] = np.bytes_(text)
            new = buffer.getvalue()
        check(tmp_path / name, new, made, None)

    explore(example)


@pytest.mark.parametrize("name", ["m.h5", "w.h5", "w.weights.h5"])
def test_what_hdf5_files_hold(name: str, tmp_path: Path) -> None:
    made = model()
    good = bare(name, made, tmp_path)

    def example(data: st.DataObject) -> None:
        check(tmp_path / name, data.draw(changed_hdf5(good)), made, None)

    explore(example)


def test_headers_of_tensors(tmp_path: Path) -> None:
    made = model()
    good = bare("w.safetensors", made, tmp_path)
    length = struct.unpack("<Q", good[:8])[0]
    header, numbers = json.loads(good[8 : 8 + length]), good[8 + length :]

    def example(data: st.DataObject) -> None:
        text = json.dumps(data.draw(changed_json(header))).encode()
        check(tmp_path / "w.safetensors", struct.pack("<Q", len(text)) + text + numbers, made, None)

    explore(example)


# What a run leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [True, False])
def test_manifests(structured: bool, tmp_path: Path) -> None:
    made = graph()
    saver = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5", monitor="loss", save_weights_only=True, keep=[2, "best 1"]
    )
    made.fit(np.ones((4, 4)), np.ones((4, 5)), epochs=3, verbose=0, callbacks=[saver])
    path = tmp_path / "epoch.weights.h5.oncue.json"
    good = path.read_bytes()
    files = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}

    def action() -> str | None:
        found: list[str] = []
        attempt(lambda: found.append(Checkpoints(path).last()))
        attempt(lambda: found.append(Checkpoints(path).best()))
        for taken in map(Path, found):
            if taken.name not in files or taken.read_bytes() != files[taken.name]:
                return f"{taken} is taken for a file that was saved"
        attempt(lambda: Checkpoints(path).verify())
        return None

    def example(data: st.DataObject) -> None:
        for entry in tmp_path.iterdir():
            entry.unlink()
        for name, kept in files.items():
            (tmp_path / name).write_bytes(kept)
        new = json.dumps(data.draw(changed_json(json.loads(good)))).encode() if structured else data.draw(changed(good))
        path.write_bytes(new)
        ends_well(action)

    explore(example)


@pytest.mark.parametrize("part", ["file", "json"])
def test_states(part: str, tmp_path: Path) -> None:
    parts = {"weights": {"a": torch.arange(6.0)}, "journal": [1, (2, 3), {4: float("nan")}, np.float32(1.5)]}
    frozen = TrainingState({"optimizer": "SGD"}, epoch=3, batch=2, parts=parts).freeze(Snapshot())
    store = Store(tmp_path)
    store.commit(frozen.write)
    path = tmp_path / "state-1.safetensors"
    good = path.read_bytes()

    def action() -> str | None:
        attempt(lambda: Store(tmp_path).newest(TrainingState.read))
        return None

    def example(data: st.DataObject) -> None:
        if part == "json":
            # With a right checksum.
            text = json.dumps(data.draw(changed_json(copy.deepcopy(frozen.plain)))).encode()
            write_state(path, [text], frozen.blocks())
        else:
            path.write_bytes(data.draw(changed(good)))
        ends_well(action)

    explore(example)
