"""The real packages of trackers: each in an environment of its own, by `make trackers`."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import oncue
from helpers import PowerCut, cpu_only, normal
from oncue.callbacks import BackupAndRestore, ReduceLROnPlateau, Tracker

# Their threads and files are of no concern to others.
pytestmark = [
    cpu_only("a tracker sees numbers only"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)


def fit(*callbacks: Any, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    model.compile(oncue.optimizers.SGD(0.1), "mse")
    options = {"batch_size": 8, "epochs": 3, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=[*callbacks, ReduceLROnPlateau("loss", patience=0, min_delta=9.0)], **options)


def in_two_parts(folder: Path, make: Callable[[], Tracker]) -> tuple[Any, list[Tracker]]:
    """Train with an interruption; return the history and the trackers."""
    parts = [make(), make()]
    with pytest.raises(ConnectionError):
        fit(parts[0], BackupAndRestore(folder / "state"), PowerCut(1, 1))
    return fit(parts[1], BackupAndRestore(folder / "state")), parts


def dead_address() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


if find_spec("wandb") is not None:

    def records(folder: Path) -> list[Any]:
        import wandb
        from wandb.proto import wandb_internal_pb2

        # Its own process writes the files.
        wandb.teardown()
        found = []
        for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
            for data in pieces(path.read_bytes()):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data)
                found.append(record)
        return found

    def pieces(content: bytes) -> list[bytes]:
        """Return the records of LevelDB's log format: blocks of 32 KiB, in which each piece has its length and its kind."""
        found, parts, place = [], b"", 7
        while place + 7 <= len(content):
            left = 32768 - place % 32768
            if left < 7:
                place += left
                continue
            length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
            parts += content[place + 7 : place + 7 + length]
            place += 7 + length
            # Whole, or the last of several.
            if kind in (1, 4):
                found.append(parts)
                parts = b""
        return found

    def test_wandb(tmp_path: Path) -> None:
        import json

        (tmp_path / "notes.txt").write_text("mine")
        history, parts = in_two_parts(
            tmp_path,
            lambda: Tracker(
                "wandb", "demo", config={"dropout": 0.2}, folder=tmp_path, artifacts=tmp_path / "notes.txt"
            ),
        )
        assert parts[0].identity == parts[1].identity
        assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2
        found = records(tmp_path)
        runs = [one.run for one in found if one.HasField("run")]
        assert {run.run_id for run in runs} == {parts[0].identity}
        config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
        assert config["dropout"] == 0.2
        rows = [
            {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in one.history.item}
            for one in found
            if one.HasField("history")
        ]
        losses = {row["_step"]: row["loss"] for row in rows if "loss" in row}
        assert losses == {3 * (epoch + 1): loss for epoch, loss in enumerate(history.history["loss"])}
        assert any("ReduceLROnPlateau" in str(row.get("decisions")) for row in rows)

    def test_wandb_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", dead_address())
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        import wandb

        settings = wandb.Settings(silent=True, console="off", init_timeout=5)
        with pytest.warns(UserWarning, match="Tracker can't report to wandb"):
            history = fit(Tracker("wandb", folder=tmp_path, mode="online", settings=settings))
        assert history.epoch == [0, 1, 2]


if find_spec("mlflow") is not None:

    def test_mlflow(tmp_path: Path) -> None:
        from mlflow import MlflowClient

        (tmp_path / "notes.txt").write_text("mine")
        history, parts = in_two_parts(
            tmp_path,
            lambda: Tracker(
                "mlflow", "demo", "mine", config={"dropout": 0.2}, folder=tmp_path, artifacts=tmp_path / "notes.txt"
            ),
        )
        assert parts[0].identity == parts[1].identity
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        run = client.get_run(parts[0].identity)
        assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
        assert run.data.params["dropout"] == "0.2"
        assert run.data.params["optimizer.class"] == "SGD"
        losses = {one.step: one.value for one in client.get_metric_history(parts[0].identity, "loss")}
        assert losses == {3 * (epoch + 1): loss for epoch, loss in enumerate(history.history["loss"])}
        assert {one.path for one in client.list_artifacts(parts[0].identity)} == {"decisions.txt", "notes.txt"}

    def test_mlflow_after_an_error(tmp_path: Path) -> None:
        from mlflow import MlflowClient

        with pytest.raises(ConnectionError):
            fit(tracker := Tracker("mlflow", folder=tmp_path), PowerCut(1))
        run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(tracker.identity)
        assert run.info.status == "FAILED"

    def test_mlflow_without_a_server() -> None:
        with pytest.warns(UserWarning, match="Tracker can't report to mlflow"):
            history = fit(Tracker("mlflow", tracking_uri=dead_address()))
        assert history.epoch == [0, 1, 2]


if find_spec("trackio") is not None:
    # It reads this when it is imported.
    os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp())

    def test_trackio(tmp_path: Path) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        (tmp_path / "notes.txt").write_text("mine")
        history, parts = in_two_parts(
            tmp_path,
            lambda: Tracker("trackio", PROJECT, config={"dropout": 0.2}, artifacts=tmp_path / "notes.txt", embed=False),
        )
        assert parts[0].identity == parts[1].identity
        rows = SQLiteStorage.get_logs(PROJECT, parts[0].identity)
        losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
        assert losses == {3 * (epoch + 1): loss for epoch, loss in enumerate(history.history["loss"])}
        assert any("ReduceLROnPlateau" in str(row.get("decisions")) for row in rows)
        assert SQLiteStorage.get_run_config(PROJECT, parts[0].identity)["dropout"] == 0.2

    PROJECT = "oncue-tests"


def test_a_package_that_is_not_there_says_what_to_type() -> None:
    for name in ("wandb", "mlflow", "trackio"):
        if find_spec(name) is None:
            with pytest.raises(ImportError, match=rf"pip install 'oncue\[{name}\]'"):
                fit(Tracker(name))
