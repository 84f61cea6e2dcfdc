"""Hostile and broken files of Keras models: each is refused with a ValueError that names it, and nothing is run or changed."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from keras_models.kinds import compiled, sequential
from keras_models.side_by_side import fit, values

import oncue
from oncue import with_keras


class Payload:
    """What runs when a pickle of it is opened."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["ONCUE_TEST_MARKER"],)


@pytest.fixture(autouse=True)
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "marker"
    monkeypatch.setenv("ONCUE_TEST_MARKER", str(path))
    yield
    assert not path.exists()


@pytest.fixture(scope="module")
def model(keras: ModuleType) -> Any:
    made = oncue.Model(compiled(keras, sequential))
    fit(made, epochs=1)
    return made


@pytest.fixture(scope="module")
def saved(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.save_weights(folder / "m.weights.h5")
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def archive(saved: dict[str, bytes], **changed: Any) -> bytes:
    """Return a `.keras` file with other members; None leaves one out."""
    members: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(saved["m.keras"])) as found:
        members = {name: found.read(name) for name in found.namelist()}
    for name, content in changed.items():
        members[name] = content
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, member in members.items():
            if member is not None:
                made.writestr(name, member)
    return content.getvalue()


def config_of(saved: dict[str, bytes]) -> Any:
    with zipfile.ZipFile(io.BytesIO(saved["m.keras"])) as found:
        return json.loads(found.read("config.json"))


def with_layer(saved: dict[str, bytes], layer: Any) -> bytes:
    config = config_of(saved)
    config["config"]["layers"].append(layer)
    return archive(saved, **{"config.json": json.dumps(config).encode()})


def refused(path: Path, content: bytes, match: str, model: Any = None) -> None:
    """Try every way into a file; none may do anything but refuse."""
    path.write_bytes(content)
    modules = set(sys.modules)
    ways: list[Callable[[], Any]] = []
    if not path.name.endswith(".weights.h5"):
        ways += [lambda: with_keras.load_model(path), lambda: with_keras.load_model(path, compile=False)]
    if model is not None:
        ways += [lambda: model.load_weights(path), lambda: model.load_weights(path, skip_mismatch=True)]
        before = values(model.keras_model.variables) + values(model.keras_model.optimizer.variables)
    for way in ways:
        with pytest.raises(ValueError, match=match) as caught:
            way()
        assert path.name in str(caught.value)
    if model is not None:
        after = values(model.keras_model.variables) + values(model.keras_model.optimizer.variables)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not {name.partition(".")[0] for name in set(sys.modules) - modules} & {"antigravity", "this", "evil"}


@pytest.mark.parametrize("name", ["x.keras", "x.h5", "x.weights.h5", "x.safetensors"])
@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "torch", "zeros", "cut", "changed"])
def test_other_content(name: str, kind: str, model: Any, saved: dict[str, bytes], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(1), "x": Payload()}, buffer)
    whole = saved.get(name.replace("x", "m", 1), saved["m.keras"])
    middle = len(whole) // 2
    contents = {
        "empty": b"",
        "text": b"not a model",
        "pickle": pickle.dumps(Payload()),
        "torch": buffer.getvalue(),
        "zeros": bytes(4096),
        "cut": whole[:middle],
        "changed": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }
    if name == "x.safetensors":
        with pytest.raises(ValueError, match="was not loaded"):
            (tmp_path / name).write_bytes(contents[kind])
            model.load_weights(tmp_path / name)
        return
    refused(tmp_path / name, contents[kind], "was not loaded", model)


def test_pipes_devices_and_folders(model: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.keras")
    (tmp_path / "b.keras").symlink_to("/dev/zero")
    (tmp_path / "c.keras").mkdir()
    for name in ("a.keras", "b.keras"):
        with pytest.raises(ValueError, match="not a regular file"):
            with_keras.load_model(tmp_path / name)
        with pytest.raises(ValueError, match="not a regular file"):
            model.load_weights(tmp_path / name)
    with pytest.raises((ValueError, IsADirectoryError)):
        with_keras.load_model(tmp_path / "c.keras")
    with pytest.raises(FileNotFoundError):
        with_keras.load_model(tmp_path / "d.keras")
    with pytest.raises(ValueError, match="extension"):
        with_keras.load_model(tmp_path / "saved_model")


# Members -----------------------------------------------------------------------------------------------------------


def test_members_of_the_archive(model: Any, saved: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    refused(path, archive(saved, **{"model.weights.h5": None}), "has the members", model)
    refused(path, archive(saved, **{"model.weights.h5": None, "model.weights.npz": b"x"}), "has the members", model)
    refused(path, archive(saved, **{"evil.py": b"import os"}), "has the members", model)
    for name in ("assets/../../evil", "assets//x", "assets/./x", "assets/a\\b", "assets/c:x"):
        refused(path, archive(saved, **{name: b"x"}), "no plain path", model)
    refused(path, b"#!/bin/sh\n" + archive(saved), "something before the archive", model)


def test_links_and_bombs_in_the_archive(model: Any, saved: dict[str, bytes], tmp_path: Path) -> None:
    path, content = tmp_path / "x.keras", io.BytesIO(archive(saved))
    with zipfile.ZipFile(content, "a") as made:
        link = zipfile.ZipInfo("assets/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, "/etc/passwd")
    refused(path, content.getvalue(), "is a link", model)
    for name in ("model.weights.h5", "assets/x"):
        content = io.BytesIO(archive(saved, **{name: None}))
        with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as made:
            made.writestr(name, bytes(64 << 20))
        refused(path, content.getvalue(), "unpacks to more", model)


# What it is made of --------------------------------------------------------------------------------------------------

LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None, "closure": None}}


def layer(name: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": {"name": "x", **config}, "registered_name": None}


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (layer("Lambda", function=LAMBDA), "__lambda__, which is code"),
        (layer("Lambda", function=["4wEAAAA=", None, None], function_type="lambda"), "Lambda is code"),
        (layer("Lambda", function="f", function_type="lambda"), "Lambda is code"),
        (layer("Lambda", function="f", output_shape=["4wEAAAA=", None, None]), "`output_shape` of its Lambda is code"),
        (layer("TorchModuleWrapper", module="gASV"), "TorchModuleWrapper, which is a pickle"),
        (layer("custom>TorchModuleWrapper", module="gASV"), "TorchModuleWrapper, which is a pickle"),
        (layer("TFSMLayer", filepath="/tmp/x"), "reads and runs another file"),
        (layer("JaxLayer", call_fn=None), "JaxLayer"),
        (layer("FlaxLayer"), "FlaxLayer"),
        (layer("TextVectorization", vocabulary="/etc/passwd"), "path of another file"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "path of another file"),
        (layer("TextVectorization", idf_weights="/etc/passwd"), "path of another file"),
        (layer("Popen", "subprocess"), r"subprocess\.Popen, which is no part of Keras"),
        (layer("antigravity", "antigravity"), "no part of Keras"),
        (layer("Thing", "evil.module"), r"evil\.module\.Thing"),
        (layer("get_file", "keras.utils"), r"keras\.utils\.get_file"),
        (layer("importlib", "keras.src.saving.serialization_lib"), "no part of Keras"),
        (layer("Path", "keras.src.utils.file_utils"), "no part of Keras"),
        (layer("Dense", activation={"class_name": "function", "module": "os", "config": "system"}), r"os\.system"),
        (layer("Dense", activation={"class_name": "function", "module": "builtins", "config": "eval"}), "names eval"),
        (
            layer("Dense", activation={"class_name": "function", "module": "keras.utils", "config": "get_file"}),
            "get_file",
        ),
        (layer("Mine", "mine", registered_name="mine>Mine"), "custom_objects"),
        (
            layer("Dense", units=3, build={"class_name": "__typespec__", "module": "os", "spec_name": "system"}),
            "typespec",
        ),
        (layer("Reshape", target_shape=[1 << 20, 1 << 20]), "larger than any sample"),
        (layer("Dense", units=1 << 40), "asks for"),
        (layer("Embedding", input_dim=1 << 40, output_dim=8), "asks for|can't make"),
        (layer("Dense", units="many"), "was not loaded"),
        (layer("Dense", unit=3), "was not loaded"),
        (layer("NoLayer"), "no part of Keras"),
    ],
    ids=lambda value: value["class_name"] if isinstance(value, dict) else value[:20],
)
def test_layers(part: Any, match: str, model: Any, saved: dict[str, bytes], tmp_path: Path) -> None:
    refused(tmp_path / "x.keras", with_layer(saved, part), match)
    # Keras 1 and 2 had another form.
    content = io.BytesIO(saved["m.h5"])
    with h5py.File(content, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].append({key: part[key] for key in ("class_name", "config", "module")})
        file.attrs["model_config"] = json.dumps(config)
    refused(tmp_path / "x.h5", content.getvalue(), "was not loaded")


def test_the_process_cannot_allow_code(keras: ModuleType, saved: dict[str, bytes], tmp_path: Path) -> None:
    from keras.src.saving import serialization_lib

    keras.config.enable_unsafe_deserialization()
    try:
        refused(tmp_path / "x.keras", with_layer(saved, layer("Lambda", function=LAMBDA)), "is code")
        refused(tmp_path / "x.keras", with_layer(saved, layer("TorchModuleWrapper", module="gASV")), "is a pickle")
        assert serialization_lib.in_safe_mode() is False
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


def test_an_optimizer_or_a_loss_by_path(saved: dict[str, bytes], tmp_path: Path) -> None:
    for key in ("optimizer", "loss", "metrics"):
        config = config_of(saved)
        config["compile_config"][key] = layer("system", "os")
        refused(tmp_path / "x.keras", archive(saved, **{"config.json": json.dumps(config).encode()}), r"os\.system")


@pytest.mark.parametrize("text", [b"[]", b"{", b'{"a": 1, "a": 2}', b"[" * 100_000, b"{}", b'{"class_name": "Model"}'])
def test_broken_configurations(text: bytes, saved: dict[str, bytes], tmp_path: Path) -> None:
    refused(tmp_path / "x.keras", archive(saved, **{"config.json": text}), "was not loaded")


# Arrays --------------------------------------------------------------------------------------------------------------


def changed_weights(saved: dict[str, bytes], change: Callable[[Any], Any]) -> bytes:
    content = io.BytesIO(saved["m.weights.h5"])
    with h5py.File(content, "r+") as file:
        change(file)
    # A program that changes a file cuts the checksum off.
    whole = content.getvalue()
    return whole[: whole.rindex(b"\noncue-crc32:")] if b"\noncue-crc32:" in whole else whole


def external(file: Any) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (6, 5), "f4", external=[("/etc/passwd", 0, 120)])


def external_link(file: Any) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink("/tmp/other.h5", "/x")


def soft_link(file: Any) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers/dense_1/vars/0")


def virtual(file: Any) -> None:
    del file["layers/dense/vars/0"]
    layout = h5py.VirtualLayout((6, 5), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (6, 5))
    file["layers/dense/vars"].create_virtual_dataset("0", layout)


def enormous(file: Any) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(64, 64))


def objects(file: Any) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", data=[b"one"], dtype=h5py.string_dtype())


def beside(file: Any) -> None:
    file["more"] = h5py.ExternalLink("/tmp/other.h5", "/x")


@pytest.mark.parametrize(
    "change",
    [external, external_link, soft_link, virtual, enormous, objects, beside],
    ids=lambda change: change.__name__,
)
def test_arrays(change: Callable[[Any], Any], model: Any, saved: dict[str, bytes], tmp_path: Path) -> None:
    weights = changed_weights(saved, change)
    refused(tmp_path / "x.weights.h5", weights, "was not loaded", model)
    refused(tmp_path / "x.keras", archive(saved, **{"model.weights.h5": weights}), "was not loaded", model)


def test_weights_that_do_not_fit(model: Any, saved: dict[str, bytes], tmp_path: Path) -> None:
    def other_shape(file: Any) -> None:
        del file["layers/dense_1/vars/0"]
        file["layers/dense_1/vars/0"] = np.zeros((1, 1), "float32")

    path = tmp_path / "x.weights.h5"
    path.write_bytes(changed_weights(saved, other_shape))
    before = values(model.keras_model.variables)
    with pytest.raises(ValueError, match="could not be loaded"):
        model.load_weights(path)
    for one, other in zip(before, values(model.keras_model.variables), strict=True):
        np.testing.assert_array_equal(one, other)
