"""Hostile and broken model files: every one is refused with a ValueError that names it, and nothing is changed or run."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

import oncue as keras
from oncue import layers

MEMBERS = ("metadata.json", "config.json", "model.weights.h5")


class Payload:
    """What runs when a pickle of it is opened."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["ONCUE_TEST_MARKER"],)


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "marker"
    monkeypatch.setenv("ONCUE_TEST_MARKER", str(path))
    return path


@pytest.fixture
def model() -> Any:
    parts = [layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")]
    made = keras.Sequential(parts, name="net")
    made.compile("adam", "mse")
    made.fit(np.ones((4, 4), "float32"), np.ones((4, 2), "float32"), verbose=0)
    return made


def refused(model: Any, path: Path, match: str = "was not loaded") -> None:
    """Try every way into a file; none may do anything but refuse."""
    before, modules = model.get_weights(), set(sys.modules)
    ways: list[Callable[[], Any]] = [
        lambda: model.load_weights(path),
        lambda: model.load_weights(path, skip_mismatch=True),
    ]
    if path.suffix in (".h5", ".hdf5") and not path.name.endswith(".weights.h5"):
        ways.append(lambda: model.load_weights(path, by_name=True))
    for way in ways:
        with pytest.raises(ValueError, match=match):
            way()
    models_refused(path, match)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    new = {
        name for name in set(sys.modules) - modules if not name.startswith(("torch", "oncue", "h5py", "numpy", "keras"))
    }
    assert not {name.partition(".")[0] for name in new} & {"antigravity", "this", "evil"}


def models_refused(path: Path, match: str = "was not loaded") -> None:
    if path.suffix in (".keras", ".h5", ".hdf5"):
        for options in ({}, {"safe_mode": False}, {"compile": False}):
            with pytest.raises(ValueError, match=match):
                keras.models.load_model(path, **options)


# Files that are something else -----------------------------------------------------------------------------------

NAMES = ["x.keras", "x.weights.h5", "x.h5", "x.safetensors"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", ["empty", "text", "pickle", "torch", "zeros"])
def test_other_kinds_of_files(name: str, content: str, model: Any, tmp_path: Path, marker: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(1), "x": Payload()}, buffer)
    contents = {
        "empty": b"",
        "text": b"not a model",
        "pickle": pickle.dumps(Payload()),
        "torch": buffer.getvalue(),
        "zeros": bytes(4096),
    }
    path = tmp_path / name
    path.write_bytes(contents[content])
    refused(model, path)
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_regular_file(name: str, model: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    refused(model, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(model, path)


@pytest.mark.parametrize("name", NAMES)
def test_truncated_files(name: str, model: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    if name in ("x.keras", "x.h5"):
        model.save(path)
    else:
        model.save_weights(path)
    whole = path.read_bytes()
    for part in (9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:part])
        refused(model, path)


# Archives --------------------------------------------------------------------------------------------------------


def parts_of(model: Any, tmp_path: Path) -> dict[str, bytes]:
    model.save(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as archive:
        return {name: archive.read(name) for name in MEMBERS}


def archive(path: Path, parts: list[tuple[Any, bytes]], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as made:
        for name, content in parts:
            made.writestr(name, content)
    return path


def info(name: str, mode: int = 0o100644, how: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = mode << 16
    found.compress_type = how
    return found


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "extra",
    ["config.json", "model.weights.h5", "../evil.py", "/tmp/evil", "C:\\evil", "evil.pkl", "assets/x/vocabulary.txt"],
)
def test_archives_with_more_members(extra: str, model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path)
    refused(model, archive(tmp_path / "x.keras", [*parts.items(), (extra, b"{}")]))
    assert not (tmp_path.parent / "evil.py").exists()


@pytest.mark.parametrize("missing", MEMBERS)
def test_archives_that_lack_a_member(missing: str, model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path)
    del parts[missing]
    refused(model, archive(tmp_path / "x.keras", list(parts.items())))


def test_a_member_that_is_a_link(model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path)
    rest = [(name, parts[name]) for name in MEMBERS[:2]]
    refused(model, archive(tmp_path / "x.keras", [*rest, (info(MEMBERS[2], 0o120777), b"/etc/passwd")]))


@pytest.mark.parametrize("name", MEMBERS)
def test_bombs(name: str, model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path)
    rest = [item for item in parts.items() if item[0] != name]
    bomb = (info(name, how=zipfile.ZIP_DEFLATED), bytes(20 << 20))
    refused(model, archive(tmp_path / "x.keras", [*rest, bomb]))


@pytest.mark.parametrize("name", MEMBERS)
def test_bombs_that_lie_about_their_size(name: str, model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path)
    rest = [item for item in parts.items() if item[0] != name]
    bomb = (info(name, how=zipfile.ZIP_DEFLATED), bytes(20 << 20))
    path = archive(tmp_path / "x.keras", [*rest, bomb])
    for said in (0, 100, len(parts[name])):
        content = path.read_bytes().replace(struct.pack("<I", 20 << 20), struct.pack("<I", said))
        (tmp_path / "y.keras").write_bytes(content)
        refused(model, tmp_path / "y.keras")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(how: int, model: Any, tmp_path: Path) -> None:
    refused(model, archive(tmp_path / "x.keras", list(parts_of(model, tmp_path).items()), how))


def test_a_repacked_archive_is_read(model: Any, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.keras", list(parts_of(model, tmp_path).items())[::-1], zipfile.ZIP_DEFLATED)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_something_before_the_archive_or_changed_in_it(model: Any, tmp_path: Path) -> None:
    good = archive(tmp_path / "x.keras", list(parts_of(model, tmp_path).items())).read_bytes()
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    for content in (
        struct.pack("<Q", len(header)) + header + good,
        good.replace(b'"units": 3', b'"units": 4'),
        good[:6] + b"\x01" + good[7:],
    ):
        (tmp_path / "x.keras").write_bytes(content)
        if content.startswith(b"PK\x03\x04") and b'"units": 4' not in content:
            continue  # a bit that no reader looks at
        models_refused(tmp_path / "x.keras")


# Configurations --------------------------------------------------------------------------------------------------


def config_of(model: Any, tmp_path: Path) -> Any:
    return json.loads(parts_of(model, tmp_path)["config.json"])


def written(tmp_path: Path, model: Any, config: Any) -> list[Path]:
    """Put a configuration into both kinds of files that have one."""
    text = config if isinstance(config, (str, bytes)) else json.dumps(config)
    data = text.encode() if isinstance(text, str) else text
    parts = parts_of(model, tmp_path) | {"config.json": data}
    paths = [archive(tmp_path / "x.keras", list(parts.items()))]
    model.save(tmp_path / "x.h5")
    if len(data) < 60_000:
        with h5py.File(tmp_path / "x.h5", "r+") as file:
            file.attrs["model_config"] = np.bytes_(data)
        paths.append(tmp_path / "x.h5")
    return paths


JSON: dict[str, Any] = {
    "deep": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    "very_deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a key twice": b'{"class_name": "Sequential", "class_name": "Model", "config": {}}',
    "a long number": b'{"a": ' + b"9" * 1_000_000 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"class_name": "Sequential", "config": {}}',
    "more after the end": b'{"class_name": "Sequential", "config": {}} {}',
    "a list": b"[]",
    "no keys": b"{}",
    "no text": b"\xff\xfe\x00",
    "null": b"null",
}


@pytest.mark.parametrize("name", JSON)
def test_json(name: str, model: Any, tmp_path: Path) -> None:
    for path in written(tmp_path, model, JSON[name]):
        models_refused(path)


def test_json_of_more_bytes_than_any_model_has(model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path) | {"config.json": b'{"a": "' + b"x" * (17 << 20) + b'"}'}
    models_refused(archive(tmp_path / "x.keras", list(parts.items())))


def layer(class_name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "config": config, "registered_name": class_name}


def function(module: str, name: str) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


CODE = {"class_name": "__lambda__", "config": {"value": {"code": "4wEAAA==", "defaults": None, "closure": None}}}
LAYERS: dict[str, Any] = {
    "Lambda": layer("Lambda", function=CODE, name="l"),
    "old Lambda": layer("Lambda", function=["4wEAAA==", None, None], function_type="lambda"),
    "Lambda of another package": layer("Lambda", module="keras.src.layers.core.lambda_layer"),
    "registered Lambda": {**layer("Dense", units=3), "class_name": "keras>Lambda"},
    "TorchModuleWrapper": layer("TorchModuleWrapper", module_state="gASV"),
    "TFSMLayer": layer("TFSMLayer", filepath="/tmp/evil"),
    "StringLookup": layer("StringLookup", vocabulary="/etc/passwd"),
    "a class by its path": layer("Popen", module="subprocess", args="touch evil"),
    "a function as a class": layer("system", module="os", command="touch evil"),
    "a module to import": layer("Anything", module="antigravity"),
    "a lambda as an activation": layer("Dense", units=3, activation=CODE),
    "a function of os": layer("Dense", units=3, activation=function("os", "system")),
    "a function of builtins": layer("Dense", units=3, activation=function("builtins", "eval")),
    "get_file": layer("Dense", units=3, kernel_initializer=function("keras.utils", "get_file")),
    "enable_unsafe_deserialization": layer(
        "Dense", units=3, bias_initializer=function("keras.config", "enable_unsafe_deserialization")
    ),
    "inside another": layer("TimeDistributed", layer=layer("Lambda", function=CODE)),
    "a cell by its path": layer("RNN", cell=layer("Evil", module="evil")),
    "a weight too large": layer("Dense", units=1 << 40),
    "a table too large": layer("Embedding", input_dim=1 << 40, output_dim=1 << 20),
    "no size": layer("Dense", units="4"),
    "NaN units": layer("Dense", units=float("nan")),
    "infinite units": layer("Dense", units=float("inf")),
    "a negative size": layer("Dense", units=-4),
    "a NaN rate": layer("Dropout", rate=float("nan")),
    "an unknown argument": layer("Dense", units=3, evil=1),
    "no configuration": {"class_name": "Dense"},
    "no dict": "Dense",
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    config = config_of(model, tmp_path)
    config["config"]["layers"][1] = LAYERS[name]
    for path in written(tmp_path, model, config):
        models_refused(path, ".")
    with pytest.raises(ValueError):
        keras.models.model_from_json(json.dumps(config))
    assert "evil" not in sys.modules and "antigravity" not in sys.modules


def test_samples_too_large(model: Any, tmp_path: Path) -> None:
    config = config_of(model, tmp_path)
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, 1 << 40]
    for path in written(tmp_path, model, config):
        models_refused(path, "larger than any sample")


def test_files_without_a_model(model: Any, tmp_path: Path) -> None:
    for config in (layer("Dense", units=3), function("os", "system"), layer("system", module="os")):
        for path in written(tmp_path, model, config):
            models_refused(path, ".")


COMPILED: dict[str, Any] = {
    "optimizer": layer("Popen", module="subprocess", args="touch evil"),
    "loss": function("os", "system"),
    "metrics": [CODE],
    "weighted_metrics": [layer("system", module="os")],
    "steps_per_execution": "many",
}
OPTIMIZERS: dict[str, Any] = {
    "amsgrad": 1 << 40,
    "beta_1": [0.9],
    "epsilon": "x",
    "use_ema": {"a": 1},
    "learning_rate": [],
}


@pytest.mark.parametrize("key", OPTIMIZERS)
def test_bad_optimizer_arguments(key: str, model: Any, tmp_path: Path) -> None:
    config = config_of(model, tmp_path)
    config["compile_config"]["optimizer"]["config"][key] = OPTIMIZERS[key]
    with pytest.raises(ValueError, match="can't be compiled"):
        keras.models.load_model(written(tmp_path, model, config)[0])


@pytest.mark.parametrize("key", COMPILED)
def test_bad_compile_arguments(key: str, model: Any, tmp_path: Path) -> None:
    config = config_of(model, tmp_path)
    config["compile_config"][key] = COMPILED[key]
    with pytest.raises(ValueError):
        keras.models.load_model(written(tmp_path, model, config)[0])
    model.save(tmp_path / "y.h5")
    with h5py.File(tmp_path / "y.h5", "r+") as file:
        training = json.loads(file.attrs["training_config"])
        training["optimizer_config" if key == "optimizer" else key] = COMPILED[key]
        file.attrs["training_config"] = json.dumps(training)
    with pytest.raises(ValueError):
        keras.models.load_model(tmp_path / "y.h5")


def test_graphs_that_cannot_be(tmp_path: Path) -> None:
    x = layers.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(2, name="b")(layers.Dense(3, name="a")(x)))

    def change(place: Callable[[Any], None]) -> None:
        config = config_of(model, tmp_path)
        place(config["config"])
        for path in written(tmp_path, model, config):
            models_refused(path, ".")

    def history(config: Any, layer: int) -> Any:
        return config["layers"][layer]["inbound_nodes"][0]["args"][0]["config"]["keras_history"]

    change(lambda config: history(config, 1).__setitem__(0, "b"))
    change(lambda config: history(config, 1).__setitem__(0, "nobody"))
    change(lambda config: history(config, 1).__setitem__(1, 7))
    change(lambda config: history(config, 1).__setitem__(2, 7))
    change(lambda config: config["output_layers"].__setitem__(0, "nobody"))
    change(lambda config: config.__setitem__("layers", []))
    change(lambda config: config["layers"][0].pop("name"))


# HDF5 ------------------------------------------------------------------------------------------------------------

PLACES = {"w.weights.h5": "layers/dense/vars/0", "w.h5": "a/net/a/kernel", "m.h5": "model_weights/a/net/a/kernel"}


def replace(file: Any, place: str, make: Callable[[Any, str], Any]) -> None:
    del file[place]
    group, _, name = place.rpartition("/")
    make(file[group], name)


def soft(group: Any, name: str) -> None:
    group.file["elsewhere"] = np.ones((4, 3), "float32")
    group[name] = h5py.SoftLink("/elsewhere")


def external_link(group: Any, name: str) -> None:
    with h5py.File(Path(group.file.filename).with_name("secret.h5"), "w") as secret:
        secret["x"] = np.ones((4, 3), "float32")
    group[name] = h5py.ExternalLink("secret.h5", "/x")


def external_storage(group: Any, name: str) -> None:
    secret = Path(group.file.filename).with_name("secret.bin")
    secret.write_bytes(bytes(48))
    group.create_dataset(name, (4, 3), "float32", external=[(str(secret), 0, 48)])


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout((4, 3), "float32")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (4, 3))
    group.create_virtual_dataset(name, layout)


def huge(group: Any, name: str) -> None:
    group.create_dataset(name, (1 << 20, 1 << 20), "float32", chunks=(1024, 1024), compression="gzip")


def large_chunks(group: Any, name: str) -> None:
    group.create_dataset(name, (4, 3), "float32", chunks=(1 << 14, 1 << 14), maxshape=(None, None), compression="gzip")


def text(group: Any, name: str) -> None:
    group.create_dataset(name, data=np.full((4, 3), b"x"))


def objects(group: Any, name: str) -> None:
    group.create_dataset(name, (4, 3), h5py.string_dtype())


def complex_numbers(group: Any, name: str) -> None:
    group.create_dataset(name, data=np.ones((4, 3), "complex64"))


def lzf(group: Any, name: str) -> None:
    group.create_dataset(name, data=np.ones((4, 3), "float32"), compression="lzf")


def a_group(group: Any, name: str) -> None:
    group.create_group(name)


def a_type(group: Any, name: str) -> None:
    group[name] = np.dtype("float32")


def nothing_in_it(group: Any, name: str) -> None:
    group[name] = h5py.Empty("float32")


def other_shape(group: Any, name: str) -> None:
    group[name] = np.ones((3, 4), "float32")


def missing(group: Any, name: str) -> None:
    pass


ENTRIES = [
    soft, external_link, external_storage, virtual, huge, large_chunks, text, objects, lzf, a_group,
    a_type, nothing_in_it,
]  # fmt: skip


def save_as(model: Any, path: Path) -> Path:
    if path.name.startswith("m"):
        model.save(path)
    else:
        model.save_weights(path)
    return path


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("make", ENTRIES, ids=lambda make: make.__name__)
def test_arrays(make: Any, name: str, model: Any, tmp_path: Path) -> None:
    path = save_as(model, tmp_path / name)
    with h5py.File(path, "r+") as file:
        replace(file, PLACES[name], make)
    refused(model, path, "was not loaded|don't fit")


@pytest.mark.parametrize("make", ENTRIES, ids=lambda make: make.__name__)
def test_arrays_in_an_archive(make: Any, model: Any, tmp_path: Path) -> None:
    parts = parts_of(model, tmp_path)
    (tmp_path / "w.h5").write_bytes(parts["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        replace(file, "layers/dense/vars/0", make)
    parts["model.weights.h5"] = (tmp_path / "w.h5").read_bytes()
    refused(model, archive(tmp_path / "x.keras", list(parts.items())), "was not loaded|don't fit")


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("make", [other_shape, missing, complex_numbers], ids=lambda make: make.__name__)
def test_arrays_that_do_not_fit(make: Any, name: str, model: Any, tmp_path: Path) -> None:
    path = save_as(model, tmp_path / name)
    with h5py.File(path, "r+") as file:
        replace(file, PLACES[name], make)
    before = model.get_weights()
    with pytest.raises(ValueError, match="don't fit the model; nothing was loaded"):
        model.load_weights(path)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_on_the_way(kind: str, name: str, model: Any, tmp_path: Path) -> None:
    path = save_as(model, tmp_path / name)
    group = PLACES[name].rpartition("/")[0]
    with h5py.File(tmp_path / "secret.h5", "w") as secret, h5py.File(path, "r+") as file:
        file.copy(group, secret, "x")
        file.move(group, "elsewhere")
        file[group] = h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink("secret.h5", "/x")
    refused(model, path)


@pytest.mark.parametrize("name", ["w.h5", "m.h5"])
def test_names_of_weights_that_lead_elsewhere(name: str, model: Any, tmp_path: Path) -> None:
    for weight in (b"../../b/b/kernel", b"/b/b/kernel", b"./a/kernel", b""):
        path = save_as(model, tmp_path / name)
        with h5py.File(path, "r+") as file:
            group = file["model_weights/a" if name == "m.h5" else "a"]
            group.attrs["weight_names"] = np.array([weight, b"a/bias"])
        refused(model, path, "was not loaded|don't fit")


def test_groups_that_hold_themselves(model: Any, tmp_path: Path) -> None:
    path = save_as(model, tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        file["layers/dense/again"] = file["layers"]
    refused(model, path)


def test_the_optimizer_in_a_file_is_checked_too(model: Any, tmp_path: Path) -> None:
    path = save_as(model, tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        replace(file, "optimizer/vars/2", external_link)
    refused(model, path)
    path = save_as(model, tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        first = file["optimizer_weights"].attrs["weight_names"][0].decode()
        replace(file, f"optimizer_weights/{first}", external_link)
    with pytest.raises(ValueError, match="was not loaded"):
        keras.models.load_model(path)


def test_changed_bytes_never_get_in_by_halves(model: Any, tmp_path: Path) -> None:
    path = save_as(model, tmp_path / "w.weights.h5")
    good = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        for place in draw.integers(0, len(good), 20):
            bad[place] ^= int(draw.integers(1, 256))
        path.write_bytes(bad)
        before = model.get_weights()
        try:
            model.load_weights(path)
        except ValueError:
            for one, other in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(one, other)


# safetensors -----------------------------------------------------------------------------------------------------


def tensors_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape: Any = (2, 4), first: Any = 0, last: Any = 32, dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last], **more}


BIAS = entry((2,), 32, 40)
HEADERS: dict[str, tuple[Any, int]] = {
    "overlapping": ({"weight": entry(), "bias": entry((2,), 24, 32)}, 32),
    "with a gap": ({"weight": entry(), "bias": entry((2,), 36, 44)}, 44),
    "not from the start": ({"weight": entry((2, 4), 8, 40)}, 40),
    "with bytes after the end": ({"weight": entry(), "bias": BIAS}, 41),
    "too short": ({"weight": entry(), "bias": BIAS}, 39),
    "backwards": ({"weight": entry((2, 4), 32, 0)}, 32),
    "negative": ({"weight": entry((-2, -4))}, 32),
    "too large": ({"weight": entry((1 << 61, 8), 0, 32)}, 32),
    "beyond 64 bits": ({"weight": entry((1 << 70,), 0, 32)}, 32),
    "of many axes": ({"weight": entry([1] * 1000 + [8])}, 32),
    "of an unknown type": ({"weight": entry(dtype="F33")}, 32),
    "of a type that is a list": ({"weight": entry(dtype=["F32"])}, 32),
    "of another size": ({"weight": entry((2, 3))}, 32),
    "of fractions": ({"weight": entry((2.0, 4))}, 32),
    "of NaN": ({"weight": entry((float("nan"), 4))}, 32),
    "that ends at NaN": ({"weight": entry((2, 4), 0, float("nan"))}, 32),
    "that ends at infinity": ({"weight": entry((2, 4), 0, float("inf"))}, 32),
    "of truths": ({"weight": entry((True, 8))}, 32),
    "without a name": ({"": entry()}, 32),
    "with a long name": ({"x" * 2000: entry()}, 32),
    "with more keys": ({"weight": entry(code="x")}, 32),
    "with fewer keys": ({"weight": {"dtype": "F32", "shape": [2, 4]}}, 32),
    "no dict": ({"weight": [1]}, 32),
    "a list of what is in the dict": ({"weight": ["F32", [2, 4], [0, 32]]}, 32),
    "no metadata": ({"__metadata__": None, "weight": entry(), "bias": BIAS}, 40),
    "a key twice in the metadata": (b'{"__metadata__": {"a": "1", "a": "2"}}', 0),
    "metadata": ({"__metadata__": {"a": 1}, "weight": entry(), "bias": BIAS}, 40),
    "metadata that is a list": ({"__metadata__": [], "weight": entry(), "bias": BIAS}, 40),
    "twice": (b'{"weight": %b, "weight": %b}' % ((json.dumps(entry()).encode(),) * 2), 32),
    "deep": (b'{"weight":' + b"[" * 5000 + b"]" * 5000 + b"}", 32),
    "no JSON": (b"(weight)", 32),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str, tmp_path: Path) -> None:
    header, size = HEADERS[name]
    tensors_refused(tensors_file(tmp_path / "w.safetensors", header, bytes(size)))


def tensors_refused(path: Path, match: str = "was not loaded") -> None:
    module = keras.Model(torch.nn.Linear(4, 2))
    before = module.get_weights()
    for skip_mismatch in (False, True):
        with pytest.raises(ValueError, match=match):
            module.load_weights(path, skip_mismatch=skip_mismatch)
    np.testing.assert_array_equal(before[0], module.get_weights()[0])


@pytest.mark.parametrize("length", [0, 1, 7, 10_000, 1 << 31, 1 << 63, (1 << 64) - 1])
def test_lengths_of_headers(length: int, tmp_path: Path) -> None:
    tensors_refused(tensors_file(tmp_path / "w.safetensors", {"weight": entry()}, bytes(32), length))


def test_the_sizes_are_named(tmp_path: Path) -> None:
    path = tensors_file(tmp_path / "w.safetensors", {"weight": entry()}, bytes(32))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    tensors_refused(path, f"need {len(whole)} bytes; the file has {len(whole) - 9}")
    for content in (b"", b"short", b"no safetensors file" * 40):
        path.write_bytes(content)
        tensors_refused(path, f"the file has {len(content)}\\.")


def test_very_many_tensors(tmp_path: Path) -> None:
    tensors_refused(tensors_file(tmp_path / "w.safetensors", {f"t{i}": entry((0,), 0, 0) for i in range(100_001)}))


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}))
    newer, opened = [save({"weight": torch.ones(2, 4), "bias": torch.ones(2)})], []

    def open_later(*arguments: Any, **options: Any) -> Any:
        opened.append(1)
        if newer:
            (tmp_path / "new").write_bytes(newer.pop())
            (tmp_path / "new").replace(path)
        return safe_open(*arguments, **options)

    monkeypatch.setattr("oncue.saving.guard.safetensors.safe_open", open_later)
    module = torch.nn.Linear(4, 2)
    keras.Model(module).load_weights(path)
    assert len(opened) == 2 and torch.equal(module.weight, torch.ones(2, 4))


def test_names_that_look_alike(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(save({"w\u0435ight": torch.ones(2, 4), "bias": torch.ones(2)}))
    module = keras.Model(torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="weight: missing in the file"):
        module.load_weights(tmp_path / "w.safetensors")


def test_a_wrong_order_of_tensors_is_ignored(tmp_path: Path) -> None:
    tensors = {"weight": torch.ones(2, 4), "bias": torch.ones(2)}
    for order in ("bias\nweight", "weight", "weight\nweight", "../x\n", ""):
        (tmp_path / "w.safetensors").write_bytes(save(tensors, {"order": order}))
        module = torch.nn.Linear(4, 2)
        keras.Model(module).load_weights(tmp_path / "w.safetensors")
        assert torch.equal(module.weight, tensors["weight"])
