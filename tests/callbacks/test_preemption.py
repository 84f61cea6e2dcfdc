"""Preemption: a signal ends a run, and the same script continues where it was."""

from __future__ import annotations

import enum
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import environment, normal
from oncue.callbacks import BackupAndRestore, Callback, CallbackList, LambdaCallback, Preempted, Preemption
from oncue.checkpoints.store import Store
from oncue.core.ranks import Ranks

X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)


class Signal(Callback):
    """Sends this process a signal at one moment."""

    def __init__(self, hook: str, epoch: int, batch: int | None = None, name: str = "SIGTERM") -> None:
        super().__init__()
        self.moment, self.name, self.epoch, self.seen = (hook, epoch, batch), name, 0, []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self._at("on_epoch_begin", None)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen.append((self.epoch, batch))
        self._at("on_train_batch_begin", batch)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._at("on_test_batch_begin", batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._at("on_epoch_end", None)

    def _at(self, hook: str, batch: int | None) -> None:
        if (hook, self.epoch, batch) == self.moment:
            os.kill(os.getpid(), getattr(signal, self.name))


def fit(*callbacks: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )
    model.compile("adam", loss="mse", metrics=["mae"])
    model.fit(X, Y, batch_size=6, epochs=3, verbose=0, validation_data=(X, Y), callbacks=list(callbacks))
    return model


MOMENTS = [
    ("on_epoch_begin", 1, None),
    ("on_train_batch_begin", 0, 0),
    ("on_train_batch_begin", 1, 2),
    ("on_train_batch_begin", 1, 3),
    ("on_test_batch_begin", 0, 1),
    ("on_test_batch_begin", 2, 3),
    ("on_epoch_end", 1, None),
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("period", [{}, {"save_freq": 3}])
def test_the_same_script_resumes_and_ends_equal(moment: Any, period: dict[str, Any], tmp_path: Path) -> None:
    expected = fit(BackupAndRestore(tmp_path / "other", **period))
    sender = Signal(*moment)
    with pytest.raises(Preempted) as ended:
        # Wherever they stand in the list.
        fit(Preemption(action="raise"), sender, BackupAndRestore(tmp_path / "backup", **period))
    assert ended.value.signal == "SIGTERM" and ended.value.saved
    again = Signal("never", -1)
    model = fit(again, BackupAndRestore(tmp_path / "backup", **period), Preemption())
    for mine, its in zip(model.get_weights(), expected.get_weights(), strict=True):
        assert np.array_equal(mine, its)
    assert model.history.history == expected.history.history
    # No step is lost, and none is done twice.
    assert sender.seen + again.seen == [(epoch, batch) for epoch in range(3) for batch in range(4)]


def test_the_process_exits_as_shells_expect(tmp_path: Path) -> None:
    ended: list[Any] = []
    listener = LambdaCallback(on_exception=ended.append)
    with pytest.raises(SystemExit) as exit:
        fit(Signal("on_train_batch_begin", 0, 1, "SIGUSR1"), Preemption(), listener, BackupAndRestore(tmp_path / "b"))
    assert exit.value.code == 128 + signal.SIGUSR1 and isinstance(exit.value.__cause__, Preempted)
    assert ended == [exit.value]


def test_without_a_backup_it_says_that_nothing_was_saved() -> None:
    with pytest.raises(Preempted, match="was not saved"):
        fit(Preemption(action="raise"), Signal("on_train_batch_begin", 0, 1))


@pytest.mark.parametrize("where", ["data", "save"])
def test_a_signal_while_it_waits_for_data_or_saves(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sends: list[int] = []

    def send_signal(place: str) -> None:
        if place == where and sends and not sends.pop():
            os.kill(os.getpid(), signal.SIGTERM)

    def stream() -> Any:
        draw = np.random.default_rng(0)
        while True:
            send_signal("data")
            at = draw.integers(0, 24, 6)
            yield X[at], Y[at]

    commit = Store.commit

    def slow_commit(self: Store, write: Any, *keep: Any) -> None:
        send_signal("save")
        commit(self, write, *keep)

    monkeypatch.setattr(Store, "commit", slow_commit)

    def run(folder: Path, *callbacks: Any) -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        model.compile("adam", loss="mse")
        backup = BackupAndRestore(folder, save_freq=2)
        history = model.fit(stream(), steps_per_epoch=4, epochs=3, verbose=0, callbacks=[backup, *callbacks])
        return history.history, [weight.tobytes() for weight in model.get_weights()]

    whole = run(tmp_path / "whole")
    # Counted from the end: in the second epoch.
    sends.extend([0, *[1] * (6 if where == "data" else 3)])
    with pytest.raises(Preempted) as ended:
        run(tmp_path / "parts", Preemption(action="raise"))
    assert ended.value.saved and not sends
    assert run(tmp_path / "parts", Preemption()) == whole


def test_data_that_cannot_be_resumed_within_an_epoch_keeps_the_backup_before(tmp_path: Path) -> None:
    def run(*callbacks: Any) -> Any:
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", loss="mse")
        pairs = torch.utils.data.TensorDataset(torch.as_tensor(X[:16]), torch.as_tensor(Y[:16]))
        loader = torch.utils.data.DataLoader(pairs, batch_size=4, num_workers=1, in_order=False)
        return model.fit(loader, epochs=3, verbose=0, callbacks=list(callbacks))

    with pytest.raises(Preempted, match="was not saved"):
        run(Signal("on_train_batch_begin", 1, 2), Preemption(action="raise"), BackupAndRestore(tmp_path))
    assert run(BackupAndRestore(tmp_path)).epoch == [0, 1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_handlers_are_put_back_and_chained(fails: bool, tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        usr1 = signal.getsignal(signal.SIGUSR1)
        preemption = Preemption(action="raise")
        assert signal.getsignal(signal.SIGTERM) is mine
        if fails:
            with pytest.raises(Preempted):
                fit(preemption, Signal("on_train_batch_begin", 0, 1))
            assert heard == [signal.SIGTERM]
        else:
            fit(preemption)
        assert signal.getsignal(signal.SIGTERM) is mine and signal.getsignal(signal.SIGUSR1) == usr1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_evaluate_and_predict_end_too() -> None:
    model = fit()

    class Send(Callback):
        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        on_predict_batch_begin = on_test_batch_begin

    with pytest.raises(Preempted):
        model.evaluate(X, Y, verbose=0, callbacks=[Send(), Preemption(action="raise")])
    with pytest.raises(Preempted):
        model.predict(X, verbose=0, callbacks=[Send(), Preemption(action="raise")])


def test_only_the_main_thread_can() -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            fit(Preemption())
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread only" in str(raised[0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"signals": "SIGTREM"}, "Did you mean 'SIGTERM'|SIGTERM"),
        ({"signals": "SIGKILL"}, "can't have SIGKILL"),
        ({"signals": []}, "at least one signal"),
        ({"action": "quit"}, "must be 'exit' or 'raise'; got 'quit'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Preemption(**arguments)


LATE = """
import os, signal
import numpy as np
import oncue as keras
from oncue.callbacks import Callback, Preemption

class Late(Callback):
    def on_train_end(self, logs=None):
        os.kill(os.getpid(), signal.SIGTERM)

    def close(self):
        print("closed", flush=True)

signal.signal(signal.SIGTERM, signal.SIG_DFL)
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
model.compile("adamax", loss="mse")
model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0, callbacks=[Late(), Preemption()])
print("went on", flush=True)
"""


def test_a_signal_that_comes_after_the_last_epoch_waits_until_all_are_closed() -> None:
    heard: list[str] = []

    class Late(Callback):
        def on_train_end(self, logs: Any = None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        def close(self) -> None:
            heard.append("closed")

    done = subprocess.run([sys.executable, "-c", LATE], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "closed\n"), done.stderr
    # The same with a handler that listens instead of dying.
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        fit(Late(), Preemption())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["closed"]


def test_a_signal_that_is_named_twice() -> None:
    with pytest.raises(Preempted):
        fit(Preemption(["SIGTERM", "SIGTERM"], action="raise"), Signal("on_train_batch_begin", 0, 1))
    assert Preemption(["SIGTERM", "SIGUSR1", "SIGTERM"]).signals == ["SIGTERM", "SIGUSR1"]


def test_a_save_that_fails_changes_neither_the_code_nor_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    backup = BackupAndRestore(tmp_path)
    monkeypatch.setattr(backup, "save_now", full)
    with pytest.raises(SystemExit) as exit:
        fit(Preemption(), Signal("on_train_batch_begin", 0, 1), backup)
    assert exit.value.code == 143 and isinstance(exit.value.__cause__, Preempted)
    assert not exit.value.__cause__.saved and "No space left" in str(exit.value.__cause__.__cause__)


def test_evaluate_with_a_backup_in_the_list(tmp_path: Path) -> None:
    class Send(Callback):
        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    model = fit()
    with pytest.raises(Preempted, match="not saved"):
        model.evaluate(X, Y, verbose=0, callbacks=[Send(), BackupAndRestore(tmp_path), Preemption(action="raise")])


def test_the_account_of_the_run(tmp_path: Path) -> None:
    history = keras.callbacks.History()
    with pytest.raises(SystemExit):
        fit(history, Preemption(), Signal("on_train_batch_begin", 1, 1), BackupAndRestore(tmp_path))
    assert "was preempted in epoch 2: SIGTERM ended the run" in history.explain()
    assert keras.Preempted is Preempted


SCRIPT = """
import hashlib, os, sys, time
import numpy as np
import oncue as keras
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, ModelCheckpoint, Preemption

class Slow(Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("step", flush=True)
        time.sleep(0.02)

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
# An optimizer that torch has no part in: torch's load its compiler, a second for each process.
model.compile("adamax", loss="mse")
saver = ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True, keep=2, asynchronous=True)
callbacks = [Slow(), CSVLogger("log.csv"), saver, BackupAndRestore("backup"), Preemption()]
model.fit(x, x[:, :1], batch_size=10, epochs=4, verbose=0, callbacks=callbacks)
print(hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest())
"""


@pytest.mark.slow
def test_a_process_that_is_terminated_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))

    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "whole")
        runpy.run_path(str(tmp_path / "train.py"))
    whole = capsys.readouterr().out.split()[-1]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "train.py")],
            cwd=tmp_path / "parts",
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )

    steps, codes = 0, []
    while len(codes) < 5 and (not codes or codes[-1] != 0):
        with start() as process:
            assert process.stdout is not None
            for count, line in enumerate(process.stdout):
                steps += line == "step\n"
                if count == 8 and len(codes) < 2:
                    process.send_signal(signal.SIGTERM)
            codes.append(process.wait())
    assert codes == [143, 143, 0] and steps == 24 and line.strip() == whole
    files = {name: sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("whole", "parts")}
    assert files["whole"] == files["parts"]
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "parts/log.csv").read_text()


def test_a_second_interrupt_while_closing_leaves_no_handler() -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    last = LambdaCallback(on_epoch_begin=interrupt)
    last.close = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fit(Preemption(), last)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_a_loop_that_calls_no_close_the_handlers_go_at_the_end_of_the_outermost_run() -> None:
    before, preemption = signal.getsignal(signal.SIGTERM), Preemption()
    ours = [preemption.on_train_begin, preemption.on_test_begin, preemption.on_test_end]
    for call in ours:
        call()
        assert signal.getsignal(signal.SIGTERM) is not before
    preemption.on_train_end()
    assert signal.getsignal(signal.SIGTERM) is before
    for begin, end in ((preemption.on_test_begin, preemption.on_test_end),
                       (preemption.on_predict_begin, preemption.on_predict_end)):  # fmt: skip
        begin()
        assert signal.getsignal(signal.SIGTERM) is not before
        end()
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_nobody_answers_is_not_swallowed_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    now, heard = [0.0], list[int]()
    monkeypatch.setattr("oncue.callbacks.preemption.time.monotonic", lambda: now[0])
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        callback = Preemption()
        # A loop that fails and tells nobody.
        callback.on_train_begin()
        for now[0] in (1.0, 2.0, 50.0):
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, before)
        now[0] = 62.0
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN and not heard
    finally:
        signal.signal(signal.SIGTERM, before)


class Two(Ranks):
    """Two processes, of which the other has been told to end, too."""

    size = 2


def test_a_signal_that_comes_to_one_of_several_processes_later_than_to_others_does_nothing_more() -> None:
    # By default SIGURG does nothing, so that a test that fails ends no process.
    before = signal.signal(signal.SIGURG, signal.SIG_DFL)
    try:
        listed = CallbackList([callback := Preemption(signals="SIGURG", action="raise")])
        listed.group = Two()
        with pytest.raises(Preempted), listed.run():
            listed.on_train_begin()
            listed.group.ask("signal")
            signal.raise_signal(signal.SIGURG)
            listed.on_train_batch_end(0)
        signal.raise_signal(signal.SIGURG)
        assert signal.getsignal(signal.SIGURG) != signal.SIG_DFL
        # Another run begins, and ends by itself.
        with CallbackList([callback]).run() as again:
            again.on_train_begin()
        assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGURG, before)


def test_long_after_several_processes_have_ended_the_signal_does_what_it_did_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("oncue.callbacks.preemption.time.monotonic", lambda: now[0])
    before = signal.signal(signal.SIGURG, signal.SIG_DFL)
    try:
        listed = CallbackList([Preemption(signals="SIGURG", action="raise")])
        listed.group = Two()
        with pytest.raises(Preempted), listed.run():
            listed.on_train_begin()
            signal.raise_signal(signal.SIGURG)
            listed.on_train_batch_end(0)
        assert signal.getsignal(signal.SIGURG) != signal.SIG_DFL
        now[0] = 40.0
        signal.raise_signal(signal.SIGURG)
        assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGURG, before)


class OfWindows(enum.IntEnum):
    """The signals that Python knows on Windows."""

    CTRL_C_EVENT = 0
    CTRL_BREAK_EVENT = 1
    SIGINT = 2
    SIGILL = 4
    SIGFPE = 8
    SIGSEGV = 11
    SIGTERM = 15
    SIGBREAK = 21
    SIGABRT = 22


def test_on_windows_a_console_that_is_closed_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "Signals", OfWindows)
    assert Preemption().signals == ["SIGTERM", "SIGBREAK"]
    before = signal.getsignal(OfWindows.SIGBREAK)
    stop = LambdaCallback(on_train_batch_end=lambda batch, logs: batch == 2 and signal.raise_signal(OfWindows.SIGBREAK))
    with pytest.raises(Preempted, match="SIGBREAK ended the run; the state of that moment was saved"):
        fit(BackupAndRestore(tmp_path / "backup"), Preemption(action="raise"), stop)
    assert signal.getsignal(OfWindows.SIGBREAK) is before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SIGUSR1", "no signal of Preemption|Unknown|isn't|not known|SIGUSR1"),
        ("CTRL_C_EVENT", "a process gets it as SIGINT. Use that"),
        ("CTRL_BREAK_EVENT", "a process gets it as SIGBREAK. Use that"),
    ],
)
def test_what_no_process_can_listen_to_on_windows(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "Signals", OfWindows)
    with pytest.raises(ValueError, match=words):
        Preemption(name)
