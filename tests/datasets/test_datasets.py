"""The data sets, from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncue.datasets import digits, fashion_mnist, mnist
from oncue.utils.files import DownloadError


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def small_mnist(fill: int = 1) -> dict[str, Any]:
    images, labels = np.full((3, 28, 28), fill, "uint8"), np.array([1, 2, 3], "uint8")
    return {"x_train": images, "y_train": labels, "x_test": images[:1], "y_test": labels[:1]}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "datasets").mkdir()
    return tmp_path / "datasets"


def test_mnist_is_downloaded_and_checked(
    serve: Callable[[dict[str, bytes]], str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = npz(**small_mnist())
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve({"mnist.npz": content}))
    with pytest.raises(ValueError, match="the expected sha256 hash"):
        mnist.load_data()
    assert list(home.iterdir()) == []
    monkeypatch.setattr(mnist, "_SHA256", hashlib.sha256(content).hexdigest())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (x_train, y_train), (x_test, y_test) = mnist.load_data("digits.npz")
    assert (x_train.shape, x_train.dtype, y_train.tolist()) == ((3, 28, 28), np.uint8, [1, 2, 3])
    assert (x_test.shape, y_test.tolist()) == ((1, 28, 28), [1])
    assert (home / "digits.npz").read_bytes() == content


def test_another_mnist_in_the_cache_is_used_with_a_warning(home: Path) -> None:
    (home / "mnist.npz").write_bytes(npz(**small_mnist(7)))
    with pytest.warns(UserWarning, match=r"mnist\.npz is not the original MNIST \(SHA-256 .* instead of 731c5a"):
        (x_train, _), _ = mnist.load_data()
    assert x_train.max() == 7


def test_a_wrong_answer_does_not_replace_the_cache(
    serve: Callable[[dict[str, bytes]], str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mnist.npz").write_bytes(npz(**small_mnist(7)))
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve({"mnist.npz": b"<html>log in first</html>"}))
    with pytest.warns(UserWarning, match="not the original"):
        assert mnist.load_data()[0][0].max() == 7


def test_mnist_without_network_says_what_to_do(home: Path) -> None:
    with pytest.raises(DownloadError, match=r"mnist\.npz.*put it at"):
        mnist.load_data()
    with pytest.raises(ValueError, match="`fname`"):
        mnist.load_data("../mnist.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "not|pickle"),
        (npz(x_train=np.zeros(2)), "lacks the arrays"),
        (npz(**{**small_mnist(), "y_test": np.array([print], dtype=object)}), "allow_pickle"),
    ],
)
def test_a_broken_cache_is_never_trusted(content: bytes, message: str, home: Path) -> None:
    (home / "mnist.npz").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        mnist.load_data()


def test_fashion_mnist(serve: Callable[[dict[str, bytes]], str], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for part, number in (("train", 3), ("t10k", 2)):
        images = bytes(range(28)) * 28 * number
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(struct.pack(">HBB3I", 0, 8, 3, number, 28, 28) + images)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(
            struct.pack(">HBBI", 0, 8, 1, number) + bytes(range(number))
        )
    monkeypatch.setenv("ONCUE_DATASETS_ORIGIN", serve(files))
    (x_train, y_train), (x_test, y_test) = fashion_mnist.load_data()
    assert (x_train.shape, x_train.dtype, y_train.tolist()) == ((3, 28, 28), np.uint8, [0, 1, 2])
    assert (x_test.shape, y_test.tolist()) == ((2, 28, 28), [0, 1])
    assert x_train[1, 0].tolist() == list(range(28))
    (home / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="not Fashion-MNIST"):
        fashion_mnist.load_data()


def test_digits() -> None:
    pytest.importorskip("sklearn")
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert len(x_train) + len(x_test) == 1797
    assert (x_train.shape[1:], x_train.dtype, y_train.dtype) == ((8, 8), np.float32, np.int64)
    assert (x_train.min(), x_train.max()) == (0.0, 1.0)
    shares = np.bincount(y_test) / np.bincount(np.concatenate([y_train, y_test]))
    assert np.all(np.abs(shares - 0.2) < 0.01)
    assert np.array_equal(digits.load_data()[0][0], x_train)
    assert not np.array_equal(digits.load_data(seed=1)[0][0], x_train)
    both = {row.tobytes() for row in x_train} & {row.tobytes() for row in x_test}
    assert not both


@pytest.mark.parametrize("share", [0, 1, True, "a", 0.0001])
def test_digits_refuses_bad_shares(share: Any) -> None:
    with pytest.raises(ValueError, match="test_split"):
        digits.load_data(share)
