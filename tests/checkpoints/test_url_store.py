"""Backups and checkpoints at URLs: what a run saves there, is continued from, and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import oncue as keras
from oncue import layers
from oncue.callbacks import BackupAndRestore, LambdaCallback, ModelCheckpoint
from oncue.checkpoints import Checkpoints
from oncue.checkpoints.url_store import UrlStore

URL = "memory://runs/backup"


@pytest.fixture(autouse=True)
def store(memory_store: Any) -> Any:
    return memory_store


def names(store: Any) -> list[str]:
    return sorted(path.rsplit("/", 1)[-1] for path in store.find("/"))


def fit(interrupt: int = -1, where: str = URL, *more: Any, **options: Any) -> list[Any]:
    def cut(epoch: int, logs: Any) -> None:
        if epoch == interrupt:
            raise KeyboardInterrupt

    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2), layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.arange(24).reshape(8, 3).astype("float32")
    callbacks = [BackupAndRestore(where, **options), LambdaCallback(on_epoch_begin=cut), *more]
    history = model.fit(x, x[:, :1], batch_size=4, epochs=4, verbose=0, callbacks=callbacks)
    return [history.history, *(one.tolist() for one in model.get_weights())]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_run_goes_on_from_a_url_to_the_bit(kind: str, store: Any, tmp_path: Path) -> None:
    url = URL if kind == "memory" else (tmp_path / "backup").as_uri()
    with pytest.raises(KeyboardInterrupt):
        fit(2, url)
    there = names(store) if kind == "memory" else sorted(path.name for path in (tmp_path / "backup").iterdir())
    assert [name for name in there if name.startswith("state")] == ["state-1.safetensors", "state-2.safetensors"]
    assert fit(where=url) == fit(where=str(tmp_path / "another"))
    assert names(store) == [] and not (tmp_path / "backup").exists()


def test_states_at_a_url_are_kept(store: Any) -> None:
    fit(keep="every 2")
    assert names(store) == ["state-epoch-2.safetensors", "state-epoch-4.safetensors"]
    fit(keep=1)
    assert names(store) == ["state-epoch-4.safetensors"]


def test_a_damaged_state_at_a_url_is_not_used(store: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(3)
    store.pipe_file("/runs/backup/state-3.safetensors", b"damaged")
    with pytest.warns(
        UserWarning, match="state-3.safetensors' is damaged.*'memory://runs/backup/state-2.safetensors' is used"
    ):
        assert fit() == fit()


def test_a_state_that_cannot_be_fetched_is_no_reason_for_an_older_one(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(3)
    before, opens = names(store), MemoryFileSystem._open

    def fails(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "rb":
            raise TimeoutError("the store is away")
        return opens(self, path, mode, **options)

    monkeypatch.setattr(MemoryFileSystem, "_open", fails)
    with pytest.raises(RuntimeError, match="state-3.safetensors' can't be fetched: the store is away"):
        fit()
    assert names(store) == before


def test_a_store_that_takes_nothing_is_reported_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **options: Any) -> NoReturn:
        raise PermissionError("not yours")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails)
    with pytest.raises(OSError, match="training doesn't begin.*memory://runs/backup"):
        fit()
    with pytest.raises(ValueError, match="unknown://"):
        fit(where="unknown://a/b")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_files_at_a_url_are_kept_and_go(asynchronous: bool, store: Any) -> None:
    def saver() -> ModelCheckpoint:
        path = "memory://runs/{epoch}.weights.h5"
        rules = [2, "best 1"]
        return ModelCheckpoint(path, "loss", save_weights_only=True, keep=rules, asynchronous=asynchronous)

    with pytest.raises(KeyboardInterrupt):
        fit(2, URL, saver())
    # A file that another program has put in the place of one stays.
    store.pipe_file("/runs/1.weights.h5", b"another")
    fit(-1, URL, saver())
    assert names(store) == ["1.weights.h5", "3.weights.h5", "4.weights.h5", "epoch.weights.h5.oncue.json"]
    with pytest.raises(ValueError, match="files on a disk"):
        Checkpoints("memory://runs/{epoch}.weights.h5")


def test_a_run_goes_on_from_the_best_file_at_a_url(store: Any) -> None:
    def saver(**options: Any) -> ModelCheckpoint:
        return ModelCheckpoint("memory://runs/best.keras", "loss", save_best_only=True, **options)

    first = saver()
    fit(-1, URL, first)
    # The file says its score itself; afterwards its record does.
    for _ in range(2):
        again = saver(resume_best=True)
        fit(-1, URL, again)
        assert again.best == first.best
    store.pipe_file("/runs/best.keras", b"another")
    with pytest.raises(ValueError, match="doesn't know the loss of 'memory://runs/best.keras'"):
        fit(-1, URL, saver(resume_best=True))


def test_of_two_runs_that_save_to_a_url_the_first_ends(store: Any) -> None:
    second: list[Any] = []

    def begin(epoch: int, logs: Any) -> None:
        if epoch == 2:
            second.append(UrlStore(URL))
            second[0].prepare()

    with pytest.raises(
        RuntimeError, match="Another run has begun to save to 'memory://runs/backup' while this one does"
    ):
        fit(-1, URL, LambdaCallback(on_epoch_end=begin))
    there = names(store)
    assert "owner.json" in there and [name for name in there if "state" in name][-1] == "state-2.safetensors"
    # The second is killed; what it has left doesn't keep a third from going on.
    assert fit() == fit(where="memory://another")
    assert names(store) == []


def test_a_run_leaves_the_states_of_another_that_has_begun_since(store: Any) -> None:
    first, second = UrlStore(URL), UrlStore(URL)
    first.prepare()
    first.commit(lambda path: path.write_text("first"))
    second.prepare()
    second.commit(lambda path: path.write_text("second"))
    first.clear()
    assert second.newest(Path.read_text) == "second"
    with pytest.raises(RuntimeError, match="It has the folder now"):
        first.commit_part("state-3.part-1.safetensors", lambda path: path.write_text("part"))
    second.clear()
    assert names(store) == []
