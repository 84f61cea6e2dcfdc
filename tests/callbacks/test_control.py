"""Control: a run that is spoken to while it goes on."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import oncue
from helpers import Clock, PowerCut, normal
from oncue.callbacks import BackupAndRestore, Callback, Control, LambdaCallback, RunFolder, Throughput
from oncue.cli import main
from oncue.core import commands

X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)


class Asking:
    """A clock at which it is always time to look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Says(Callback):
    """Speaks before a batch, as somebody in another terminal does."""

    def __init__(self, folder: Path, *said: tuple[int, int, str]) -> None:
        super().__init__()
        self.folder, self.said, self._epoch = folder, list(said), 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        for epoch, at, text in list(self.said):
            if (epoch, at) == (self._epoch, batch):
                self.said.remove((epoch, at, text))
                assert main(["control", str(self.folder), *text.split()]) == 0


def network(**options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(4), oncue.layers.Dense(1)])
    model.compile(options.pop("optimizer", oncue.optimizers.SGD(0.1)), "mse")
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    return model.fit(X, Y, callbacks=list(callbacks), **{"batch_size": 8, "epochs": 3, "verbose": 0, **options})


def decisions(history: Any) -> list[tuple[Any, ...]]:
    return [(one.kind, one.epoch, one.batch) for one in history.journal if one.callback == "Control"]


def test_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = fit(network(), Says(tmp_path, (1, 1, "stop")), Control(tmp_path, clock=Asking()), epochs=9)
    assert history.epoch == [0, 1]
    assert decisions(history) == [("stop", 1, 1)]
    user = Path(tmp_path, "done.json").owner() if os.name != "nt" else "somebody"
    assert f"It was stopped by Control in epoch 2, batch 2: {user} said so." in history.explain()
    assert "told" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done.json"]


def test_rates(tmp_path: Path) -> None:
    seen: list[float] = []
    note = LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(float(model.optimizer.learning_rate)))
    model = network()
    says = Says(tmp_path, (0, 0, "rate x0.5"), (0, 2, "rate 1e-3"))
    history = fit(model, note, says, Control(tmp_path, clock=Asking()), epochs=2)
    assert seen == pytest.approx([0.1, 0.05, 0.05, 1e-3, 1e-3, 1e-3])
    assert decisions(history) == [("learning_rate", 0, 0), ("learning_rate", 0, 2)]


@pytest.mark.parametrize("rate", ["\u00b2", "\u0663", "x0.\u0665", "1e-\u0664", "\uff11"])
def test_digits_of_other_scripts_are_no_rate(rate: str) -> None:
    with pytest.raises(ValueError, match="needs a number above 0"):
        commands.command_of("rate", rate)


def test_a_rate_that_a_schedule_sets(tmp_path: Path) -> None:
    model = network(optimizer=oncue.optimizers.SGD(oncue.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)))
    history = fit(model, Says(tmp_path, (0, 0, "rate 1.0")), Control(tmp_path, clock=Asking()))
    assert "said rate 1.0, but a schedule sets the rate" in str(history.journal)


def test_save(tmp_path: Path) -> None:
    saved: list[int] = []
    says = Says(tmp_path / "c", (1, 1, "save"))
    look = LambdaCallback(on_train_batch_begin=lambda batch, logs: saved.append(len(list(tmp_path.glob("state/*")))))
    backup = BackupAndRestore(tmp_path / "state", every="9 epochs")
    history = fit(network(), look, backup, says, Control(tmp_path / "c", clock=Asking()))
    assert saved[5] > saved[4]
    assert "said save: the state was saved" in str(history.journal)
    alone = fit(network(), Says(tmp_path / "d", (0, 0, "save")), Control(tmp_path / "d", clock=Asking()))
    assert "the state was not saved" in str(alone.journal)


def test_pause_and_go(tmp_path: Path) -> None:
    moments: list[float] = []

    def later() -> None:
        time.sleep(0.4)
        commands.tell(tmp_path, commands.command_of("rate", "0.01"))
        commands.tell(tmp_path, commands.command_of("go"))

    def note(batch: int, logs: Any) -> None:
        moments.append(time.monotonic())
        if len(moments) == 2:
            threading.Thread(target=later).start()

    model = network()
    says = Says(tmp_path, (0, 1, "pause"))
    control, speed = Control(tmp_path, clock=Asking()), Throughput()
    history = fit(model, LambdaCallback(on_train_batch_begin=note), says, control, speed, epochs=1)
    assert moments[2] - moments[1] > 0.3
    # What was paused doesn't count as training.
    whole = time.monotonic() - moments[0]
    assert 0 < len(moments) / history.history["steps_per_second"][0] < whole - 0.3
    assert model.optimizer.learning_rate == pytest.approx(0.01)
    assert decisions(history) == [("note", 0, 1), ("learning_rate", 0, 1), ("note", 0, 1)]


def test_nothing_else_is_understood(tmp_path: Path) -> None:
    def put(epoch: int, logs: Any) -> None:
        if epoch:
            return
        names = [f"{number:020d}-0123abcd.json" for number in range(1, 7)]
        (tmp_path / names[0]).write_text('{"word": "delete"}')
        (tmp_path / names[1]).write_text("stop")
        (tmp_path / names[2]).write_text('{"word": "rate", "value": "-1"}')
        (tmp_path / names[3]).write_text('{"word": "stop"' + " " * 5000 + "}")
        (tmp_path / "real.json").write_text('{"word": "stop"}')
        (tmp_path / names[4]).symlink_to(tmp_path / "real.json")
        (tmp_path / names[5]).write_text('["stop"]')

    history = fit(network(), LambdaCallback(on_epoch_begin=put), Control(tmp_path, clock=Asking()))
    assert history.epoch == [0, 1, 2]
    assert str(history.journal).count("is no command, and was taken away") == 6
    assert (tmp_path / "real.json").exists()


def test_the_folder_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), list[int]()
    real = commands.waiting
    tick = LambdaCallback(on_train_batch_begin=lambda batch, logs: setattr(clock, "now", clock.now + 0.1))
    control = Control(tmp_path, clock=clock)

    def count(epoch: int, logs: Any) -> None:
        monkeypatch.setattr(commands, "waiting", lambda folder: looks.append(1) or real(folder))

    fit(network(), LambdaCallback(on_epoch_begin=count), tick, control, epochs=4)
    assert len(looks) == 4


@pytest.mark.parametrize("cut", [(0, 2), (1, 0), (1, 2), (2, 1)])
def test_a_run_that_goes_on_ends_as_the_one_that_was_interrupted(tmp_path: Path, cut: tuple[int, int]) -> None:
    def run(folder: Path, said: Any, *more: Any) -> Any:
        model = network()
        says = Says(folder / "c", *said)
        backup = BackupAndRestore(folder / "state", every="4 steps")
        history = fit(model, says, backup, Control(folder / "c", clock=Asking()), *more, epochs=4)
        return history.history, decisions(history), [one.tobytes() for one in model.get_weights()]

    said = [(0, 1, "rate x0.5"), (1, 1, "rate x0.5"), (2, 2, "stop")]
    whole = run(tmp_path / "whole", said)
    assert len(whole[1]) == 3
    with pytest.raises(ConnectionError):
        run(tmp_path / "cut", said, PowerCut(*cut))
    # What was said before the interruption isn't said again, but to a run that had no state yet and begins anew.
    again = said if cut <= (1, 0) else [one for one in said if one[:2] >= cut]
    assert run(tmp_path / "cut", again) == whole


def test_a_new_run_forgets_what_another_was_told(tmp_path: Path) -> None:
    fit(network(), Says(tmp_path, (0, 1, "stop")), Control(tmp_path, clock=Asking()))
    (tmp_path / f"{1:020d}-0123abcd.json").write_text('{"word": "stop"}')
    assert fit(network(), Control(tmp_path, clock=Asking())).epoch == [0, 1, 2]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run", control=True)
    fit(
        network(),
        run,
        LambdaCallback(on_epoch_begin=lambda epoch, logs: main(["control", str(tmp_path / "run"), "stop", "--json"])),
    )
    told, _ = json.JSONDecoder().raw_decode(capsys.readouterr().out)
    assert told["told"] == {"word": "stop"}
    for arguments, words in (
        (["stop"], "No run listens in"),
        (["rate"], "`rate` needs a number above 0"),
        (["rate", "-3"], ""),
        (["stop", "now"], "`stop` takes no value"),
    ):
        try:
            status = main(["control", str(tmp_path / "run"), *arguments])
        except SystemExit as error:
            status = error.code
        assert status == 2
        assert words in capsys.readouterr().err
