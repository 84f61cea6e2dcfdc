"""What fit, evaluate and predict print: in a pipe, on a terminal, on a closed or narrow or simple one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import ProgbarLogger

SOURCE = str(Path(oncue.__file__).parents[1])
X = np.ones((40, 2), "float32")
Y = np.ones((40, 1), "float32")
PREPARE = """
import numpy as np, oncue
X, Y = np.ones((40, 2), "float32"), np.ones((40, 1), "float32")
model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, kernel_initializer="zeros")])
model.compile(optimizer=oncue.optimizers.SGD(0.0), loss="mse", metrics=["mae"])
"""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def model(metrics: Any = ("mae",)) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, kernel_initializer="zeros")])
    made.compile(optimizer=oncue.optimizers.SGD(0.0), loss="mse", metrics=list(metrics))
    return made


def timeless(text: str) -> list[str]:
    """Return the lines with the times taken out."""
    return [re.sub(r"\d+(s|ms|us)\b", "_", line) for line in text.splitlines()]


BAR = "━" * 20


def test_lines_of_verbose_1_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(X, Y, batch_size=10, epochs=2, verbose=1, validation_data=(X, Y))
    line = f"4/4 {BAR} _ _/step - loss: 1.0000 - mae: 1.0000 - val_loss: 1.0000 - val_mae: 1.0000"
    out = capsys.readouterr().out
    assert timeless(out) == ["Epoch 1/2", line, "Epoch 2/2", line]
    assert not CONTROL.search(out)


def test_lines_of_verbose_2(capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(X, Y, batch_size=10, epochs=2, verbose=2)
    line = "4/4 - _ - _/step - loss: 1.0000 - mae: 1.0000"
    out = capsys.readouterr().out
    assert timeless(out) == ["Epoch 1/2", line, "Epoch 2/2", line]
    assert not CONTROL.search(out)


def test_verbose_0_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    made = model()
    made.fit(X, Y, epochs=2, verbose=0, validation_data=(X, Y))
    made.evaluate(X, Y, verbose=0)
    made.predict(X, verbose=0)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_evaluate_and_predict(capsys: pytest.CaptureFixture[str]) -> None:
    made = model()
    made.evaluate(X, Y, batch_size=10)
    made.predict(X, batch_size=10)
    made.evaluate(X, Y, batch_size=10, verbose=2)
    assert timeless(capsys.readouterr().out) == [
        f"4/4 {BAR} _ _/step - loss: 1.0000 - mae: 1.0000",
        f"4/4 {BAR} _ _/step",
        "4/4 - _ - _/step - loss: 1.0000 - mae: 1.0000",
    ]


def test_one_epoch_has_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(X, Y, verbose=2)
    assert "Epoch" not in capsys.readouterr().out


def test_a_length_that_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(((X, Y) for _ in range(3)), verbose=1)
    assert timeless(capsys.readouterr().out)[-1].startswith(f"3/3 {BAR}")


def test_a_progbar_of_ones_own_is_the_only_one(capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(X, Y, verbose=1, callbacks=[ProgbarLogger()])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_a_callback_wrote_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write = oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(mine=0.25))
    model().fit(X, Y, verbose=2, callbacks=[write])
    assert "mine: 0.2500" in capsys.readouterr().out


def test_small_and_missing_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    write = oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(s=1.25e-7, n=float("nan")))
    model().fit(X, Y, verbose=2, callbacks=[write])
    out = capsys.readouterr().out
    assert "s: 1.2500e-07" in out and "n: nan" in out


def test_names_with_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    def metric(y_true: Any, y_pred: Any) -> Any:
        return y_pred

    metric.__name__ = "bad\x1b[31m\r\nname"
    made = model([metric])
    made.fit(X, Y, verbose=1)
    made.evaluate(X, Y, verbose=2)
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    assert len(out.splitlines()) == 2


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1", **more}


def run(code: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    given = environment(**options.pop("env", {}))
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREPARE + textwrap.dedent(code)], env=given, timeout=120, **options
    )


def test_ascii_only() -> None:
    done = run(
        "model.fit(X, Y, batch_size=10, verbose=1)\nprint('done')",
        env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"4/4 ====================") and done.stdout.endswith(b"done\n")


def test_a_closed_pipe_does_not_end_training(tmp_path: Path) -> None:
    marker = tmp_path / "done"
    code = f"""
    import sys, time
    print("ready", flush=True)
    time.sleep(0.3)
    for _ in range(3):
        model.fit(X, Y, epochs=3, verbose=1)
    model.evaluate(X, Y, verbose=2)
    open({str(marker)!r}, "w").close()
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PREPARE + textwrap.dedent(code)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    process.wait(timeout=120)
    assert marker.exists(), errors
    assert "can't be written" in errors


def on_terminal(code: str, columns: int, **env: str) -> str:
    """Run code on a pseudo-terminal and return all that it wrote there."""
    ours, theirs = pty.openpty()
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PREPARE + textwrap.dedent(code)],
            env=environment(TERM="xterm", **env),
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        theirs = -1
        written = b""
        while True:
            ready, _, _ = select.select([ours], [], [], 120)
            try:
                part = os.read(ours, 65536) if ready else b""
            except OSError:
                break
            if not part:
                break
            written += part
        process.wait(timeout=10)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    return written.decode()


SLOW = """
import time
slow = oncue.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.06))
model.fit(X, Y, batch_size=10, epochs=1, verbose=1, callbacks=[slow])
"""


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows in the end."""
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", written)
    lines = []
    for line in plain.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_a_live_bar_ends_as_the_finished_line() -> None:
    written = on_terminal(SLOW, columns=120)
    assert written.count("\r") > 2
    assert "\x1b[32m" in written
    lines = [line for line in screen(written) if line]
    assert timeless("\n".join(lines)) == [f"4/4 {BAR} _ _/step - loss: 1.0000 - mae: 1.0000"]


def test_no_colour_when_asked() -> None:
    written = on_terminal(SLOW, columns=120, NO_COLOR="1")
    assert "\r" in written and "\x1b" not in written


def test_a_narrow_terminal_is_never_overfilled_while_the_bar_moves() -> None:
    written = on_terminal(SLOW, columns=20)
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", written).replace("\r\n", "\n")
    drawings = plain.split("\n")[0].split("\r")[1:]
    assert len(drawings) > 2
    assert all(len(drawing) < 20 for drawing in drawings[:-1])
    assert "mae: 1.0000" in plain


def test_a_dumb_terminal_is_a_pipe() -> None:
    code = "import os; os.environ['TERM'] = 'dumb'\n" + SLOW
    written = on_terminal(code, columns=80)
    assert not CONTROL.search(written.replace("\r\n", "\n"))
