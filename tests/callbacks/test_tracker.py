"""Tracker: what is reported to a service, and that a service never ends a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import oncue
from helpers import PowerCut, normal
from oncue.callbacks import BackupAndRestore, EarlyStopping, ReduceLROnPlateau, Tracker
from oncue.callbacks.tracking import SERVICES

X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)


class Fake:
    """A service that keeps what it is told."""

    def __init__(self, fails: str = "") -> None:
        self.heard: list[tuple[str, Any]] = []
        self.fails = fails

    def _hear(self, what: str, *found: Any) -> None:
        self.heard.append((what, found))
        if what in self.fails.split():
            raise ConnectionError("no route to host")

    def start(self, identity: Any, config: Any) -> str:
        self._hear("start", identity, config)
        return identity or "first"

    def log(self, values: Any, step: int) -> None:
        self._hear("log", dict(values), step)

    def tell(self, decisions: Any, step: int) -> None:
        self._hear("tell", list(decisions), step)

    def keep(self, path: str) -> None:
        self._hear("keep", path)

    def finish(self, status: str) -> None:
        self._hear("finish", status)

    def of(self, what: str) -> list[Any]:
        return [found for name, found in self.heard if name == what]


def fit(*callbacks: Any, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    model.compile(oncue.optimizers.SGD(0.1), "mse")
    options = {"batch_size": 8, "epochs": 3, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def test_numbers_by_the_count_of_batches() -> None:
    fake = Fake()
    history = fit(Tracker(fake), validation_data=(X, Y), validation_freq="4 steps")
    logs = fake.of("log")
    assert [step for _, step in logs] == [3, 4, 6, 8, 9]
    assert logs[0][0] == {"epoch": 1.0, "loss": history.history["loss"][0]}
    assert logs[1][0] == {"val_loss": history.validations[0]["val_loss"]}
    assert fake.of("finish") == [("finished",)]


def test_between_epochs_too() -> None:
    fake = Fake()
    fit(Tracker(fake, every="2 steps"), epochs=2)
    assert [(sorted(values), step) for values, step in fake.of("log")] == [
        (["batch_loss"], 2), (["epoch", "loss"], 3), (["batch_loss"], 4), (["batch_loss"], 6), (["epoch", "loss"], 6),
    ]  # fmt: skip


def test_what_the_run_is_made_of() -> None:
    fake = Fake()
    fit(Tracker(fake, config={"dropout": 0.2}), EarlyStopping("loss", patience=7), EarlyStopping("loss", patience=8))
    identity, config = fake.of("start")[0]
    assert identity is None
    assert config["dropout"] == 0.2
    assert config["fit"]["epochs"] == 3
    assert config["optimizer"]["class"] == "SGD"
    assert config["optimizer"]["learning_rate"] == pytest.approx(0.1)
    assert config["loss"] == "mse"
    stops = [one["patience"] for name, one in config["callbacks"].items() if name.startswith("EarlyStopping")]
    assert stops == [7, 8]
    json.dumps(config, allow_nan=False)


def test_what_callbacks_decide() -> None:
    fake = Fake()
    fit(Tracker(fake), ReduceLROnPlateau("loss", patience=0, min_delta=9.0))
    told = fake.of("tell")[-1][0]
    assert len(told) == 2
    assert told[0].startswith("epoch 2: ReduceLROnPlateau: learning rate 0.1 to 0.01")


def test_files_are_kept_in_the_end(tmp_path: Path) -> None:
    fake = Fake()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.warns(UserWarning, match="leaves 'gone.keras' out"):
        fit(Tracker(fake, artifacts=[tmp_path / "notes.txt", "gone.keras"]))
    assert fake.of("keep") == [(str(tmp_path / "notes.txt"),)]


def test_how_a_run_ends() -> None:
    for error, status in ((OSError("disk"), "failed"), (KeyboardInterrupt(), "interrupted")):
        fake = Fake()
        cut = PowerCut(1)
        cut.on_epoch_begin = lambda epoch, logs=None, error=error: (_ for _ in ()).throw(error)  # type: ignore[method-assign]
        with pytest.raises(type(error)):
            fit(Tracker(fake), cut)
        assert fake.of("finish") in ([(status,)], []), status


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    parts = []
    for cut in ([PowerCut(1, 2)], []):
        parts.append(Fake())
        tracker = Tracker(parts[-1], every="2 steps")
        run = [tracker, BackupAndRestore(tmp_path / "state", save_freq=1), *cut]
        if cut:
            with pytest.raises(ConnectionError):
                fit(*run)
        else:
            fit(*run)
    whole = Fake()
    fit(Tracker(whole, every="2 steps"))
    assert parts[1].of("start")[0][0] == "first"
    assert [*parts[0].of("log"), *parts[1].of("log")] == whole.of("log")


@pytest.mark.parametrize("fails", ["log", "tell log keep finish", "finish"])
def test_a_service_that_fails_costs_a_warning(fails: str) -> None:
    fake = Fake(fails)
    with pytest.warns(UserWarning, match="can't report to Fake .ConnectionError: no route to host") as caught:
        history = fit(Tracker(fake), epochs=6)
    assert len(caught) == 1 or fails == "log"
    assert len(history.epoch) == 6
    if fails.startswith("tell"):
        assert len(fake.heard) == 4
        assert [one.what for one in history.journal] == ["gave_up_sending"]


def test_a_service_that_is_not_there_from_the_beginning() -> None:
    fake = Fake("start")
    with pytest.warns(UserWarning, match="can't report to Fake"):
        fit(Tracker(fake))
    assert [what for what, _ in fake.heard] == ["start"]


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Unknown service of Tracker: 'wandbb'. Did you mean 'wandb'"):
        Tracker("wandbb")
    with pytest.raises(TypeError, match="`config` of Tracker must be a dict"):
        Tracker("wandb", config=["dropout"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`every` is for a period between"):
        Tracker("wandb", every="1 epoch")
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ImportError, match=r"needs the package `wandb`: pip install 'oncue\[wandb\]'"):
        fit(Tracker("wandb"))
    with pytest.raises(TypeError, match=r"Tracker\('tensorboard'\) takes no further options; got mode"):
        SERVICES["tensorboard"]("oncue", None, "tracking", mode="online")
    assert set(SERVICES) == {"wandb", "mlflow", "trackio", "tensorboard"}


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    (tmp_path / "notes.txt").write_text("mine")

    def tracked(*further: Any) -> Any:
        tracker = Tracker(
            "tensorboard", folder=tmp_path / "tracking", artifacts=tmp_path / "notes.txt", every="2 steps"
        )
        decides = ReduceLROnPlateau("loss", patience=0, min_delta=9.0)
        return fit(tracker, decides, BackupAndRestore(tmp_path / "state"), *further)

    with pytest.raises(ConnectionError):
        tracked(PowerCut(1))
    history = tracked()
    # One run, in one folder, however often it was begun.
    (run,) = (tmp_path / "tracking" / "oncue").iterdir()
    assert (run / "artifacts" / "notes.txt").read_text() == "mine"
    events = EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    losses = [(one.step, float(make_ndarray(one.tensor_proto))) for one in events.Tensors("loss")]
    expected = [(3 * (n + 1), pytest.approx(value)) for n, value in enumerate(history.history["loss"])]
    assert losses == expected
    assert [one.step for one in events.Tensors("batch_loss")] == [2, 4, 6, 8]
    told = b"".join(make_ndarray(one.tensor_proto).item() for one in events.Tensors("decisions")).decode()
    assert "- epoch 2: ReduceLROnPlateau: learning rate 0.1 to 0.01" in told
    (made_of,) = events.Tensors("made of")
    assert "optimizer.class: SGD" in make_ndarray(made_of.tensor_proto).item().decode()
