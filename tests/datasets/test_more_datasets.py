"""CIFAR, the texts and the prices of houses: small files from a server on this machine, beside Keras's own loaders."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncue import backend
from oncue.datasets import boston_housing, california_housing, cifar10, cifar100, imdb, reuters
from oncue.utils.files import DownloadError

Serve = Callable[[dict[str, bytes]], str]
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "datasets"


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def lists(*texts: list[int]) -> Any:
    made = np.empty(len(texts), dtype=object)
    for at, text in enumerate(texts):
        made[at] = text
    return made


def tar(files: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else pickle.dumps(content)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


TEXTS = [RANDOM.integers(1, 40, size=size).tolist() for size in (3, 9, 5, 4, 12, 7, 6, 8, 2, 10)]
FILES: dict[str, bytes] = {
    "imdb.npz": npz(
        x_train=lists(*TEXTS[:6]), y_train=np.arange(6) % 2, x_test=lists(*TEXTS[6:]), y_test=np.arange(4) % 2
    ),
    "reuters.npz": npz(x=lists(*TEXTS), y=np.arange(10)),
    "boston_housing.npz": npz(x=RANDOM.random((11, 13)), y=np.arange(11.0)),
    "california_housing.npz": npz(x=RANDOM.random((700, 8)).astype("float32"), y=np.arange(700.0)),
}
LOADERS: dict[str, Any] = {
    "imdb": imdb,
    "reuters": reuters,
    "boston_housing": boston_housing,
    "california_housing": california_housing,
}


def serve_known(serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Serve a small file in place of the real one, with its hash."""
    module = LOADERS[name]
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve(FILES))
    monkeypatch.setattr(module, "_SHA256", hashlib.sha256(FILES[f"{name}.npz"]).hexdigest())
    return module


CASES = [
    ("imdb", {}),
    ("imdb", {"num_words": 20}),
    ("imdb", {"num_words": 20, "skip_top": 5, "oov_char": None}),
    ("imdb", {"maxlen": 9, "seed": 7}),
    ("imdb", {"start_char": None, "index_from": 0}),
    ("reuters", {}),
    ("reuters", {"num_words": 15, "test_split": 0.4}),
    ("reuters", {"maxlen": 8, "start_char": None}),
    ("boston_housing", {}),
    ("boston_housing", {"test_split": 0.5, "seed": 3}),
    ("california_housing", {}),
    ("california_housing", {"version": "small"}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_the_same_as_keras(
    name: str, arguments: dict[str, Any], serve: Serve, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = serve_known(serve, monkeypatch, name).load_data(**arguments)
    theirs = importlib.import_module(f"keras.src.datasets.{name}")
    monkeypatch.setattr(theirs, "get_file", lambda *args, **kwargs: str(home / f"{name}.npz"))
    for (x, y), (expected_x, expected_y) in zip(ours, theirs.load_data(**arguments), strict=True):
        assert x.shape == expected_x.shape and x.dtype == expected_x.dtype
        assert x.tolist() == expected_x.tolist()
        np.testing.assert_array_equal(y, expected_y)
    assert (home / f"{name}.npz").read_bytes() == FILES[f"{name}.npz"], "it is in Keras's cache"


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_another_file_is_not_kept(name: str, serve: Serve, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve(FILES))
    with pytest.raises(ValueError, match="the expected sha256 hash"):
        LOADERS[name].load_data()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("module", [*LOADERS.values(), cifar10, cifar100])
def test_without_network_it_is_said_where_the_file_goes(module: Any) -> None:
    with pytest.raises(DownloadError, match="put it at"):
        module.load_data()


def batch(count: int, labels: str, start: int = 0) -> dict[bytes, Any]:
    pixels = (np.arange(count * 3072) + start).astype("uint8").reshape(count, 3072)
    return {b"data": pixels, labels.encode(): [(start + at) % 7 for at in range(count)]}


def test_cifar_10(serve: Serve, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "cifar-10-batches-py"
    parts = {f"{folder}/data_batch_{part}": batch(2, "labels", part) for part in range(1, 6)}
    content = tar({**parts, f"{folder}/test_batch": batch(1, "labels", 9)})
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve({"cifar-10-python.tar.gz": content}))
    monkeypatch.setattr(cifar10, "_SHA256", hashlib.sha256(content).hexdigest())
    (x_train, y_train), (x_test, y_test) = cifar10.load_data()
    assert (x_train.shape, x_train.dtype, y_train.shape, y_train.dtype) == ((10, 32, 32, 3), "uint8", (10, 1), "uint8")
    assert y_train[:, 0].tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6] and y_test.tolist() == [[2]]
    expected = parts[f"{folder}/data_batch_1"][b"data"][1].reshape(3, 32, 32)
    np.testing.assert_array_equal(x_train[1, 3, 5], expected[:, 3, 5])
    assert x_test.shape == (1, 32, 32, 3)
    try:
        backend.set_image_data_format("channels_first")
        assert cifar10.load_data()[0][0].shape == (10, 3, 32, 32)
    finally:
        backend.set_image_data_format("channels_last")
    assert [path.name for path in home.iterdir()] == ["cifar-10-batches-py-target"], "nothing is unpacked"


@pytest.mark.parametrize("mode", ["fine", "coarse"])
def test_cifar_100(mode: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {f"cifar-100-python/{name}": batch(3, f"{mode}_labels", 2) for name in ("train", "test")}
    content = tar(parts)
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve({"cifar-100-python.tar.gz": content}))
    monkeypatch.setattr(cifar100, "_SHA256", hashlib.sha256(content).hexdigest())
    (x_train, y_train), _ = cifar100.load_data(mode)
    assert x_train.shape == (3, 32, 32, 3) and y_train[:, 0].tolist() == [2, 3, 4]
    with pytest.raises(ValueError, match='"fine" or "coarse"'):
        cifar100.load_data("rough")


class Harmful:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("harmed"),)


def test_nothing_in_a_file_is_run(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harmful = np.empty(1, dtype=object)
    harmful[0] = Harmful()
    files = {
        "reuters.npz": npz(x=harmful, y=np.zeros(1)),
        "cifar-100-python.tar.gz": tar({"cifar-100-python/train": Harmful(), "cifar-100-python/test": b""}),
    }
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve(files))
    for module, name in ((reuters, "reuters.npz"), (cifar100, "cifar-100-python.tar.gz")):
        monkeypatch.setattr(module, "_SHA256", hashlib.sha256(files[name]).hexdigest())
        with pytest.raises(ValueError, match="which is no array"):
            module.load_data()
    assert not Path("harmed").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", npz(z=np.zeros(1)), npz(x=np.zeros(1))])
def test_a_damaged_file_is_said(content: bytes, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve({"reuters.npz": content}))
    monkeypatch.setattr(reuters, "_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match="Delete it to download it again"):
        reuters.load_data()


def test_words_by_their_numbers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"on": 1, "cue": 2}).encode()
    names = ("imdb_word_index.json", "reuters_word_index.json")
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve(dict.fromkeys(names, content)))
    for module in (imdb, reuters):
        monkeypatch.setattr(module, "_INDEX_MD5", hashlib.md5(content).hexdigest())
        assert module.get_word_index() == {"on": 1, "cue": 2}
    assert len(reuters.get_label_names()) == 46


@pytest.mark.parametrize(
    ("load", "arguments", "words"),
    [
        (imdb.load_data, {"maxlen": 1}, "Make it larger"),
        (reuters.load_data, {"test_split": 2}, "from 0 to 1"),
        (boston_housing.load_data, {"test_split": 1.0}, "below 1"),
        (california_housing.load_data, {"version": "huge"}, '"large" or "small"'),
    ],
)
def test_arguments_are_checked(
    load: Any, arguments: dict[str, Any], words: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_known(serve, monkeypatch, "imdb")
    with pytest.raises(ValueError, match=words):
        load(**arguments)


def test_the_argument_of_keras_1(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    module = serve_known(serve, monkeypatch, "imdb")
    with pytest.warns(DeprecationWarning, match="`nb_words` is from an older Keras; use `num_words`"):
        (texts, _), _ = module.load_data(nb_words=10)
    assert max(map(max, texts)) < 10
    with pytest.raises(TypeError, match="Did you mean `num_words`"):
        module.load_data(num_word=10)
