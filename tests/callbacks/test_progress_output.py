"""What fit, evaluate and predict print: in a pipe, on a terminal, on a closed or narrow or simple one."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import sys
import termios
import time
import types
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import ProgbarLogger
from oncue.core import console

X = np.ones((40, 2), "float32")
Y = np.ones((40, 1), "float32")
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


def test_ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    fit(epochs=2, verbose=1)
    lines = written.getvalue().decode("ascii").splitlines()
    assert lines[0] == "Epoch 1/2"
    assert lines[1].startswith("4/4 ====================")


def test_a_name_that_stdout_cannot_spell(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    write = oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update({"größe": 1.0}))
    fit(verbose=2, callbacks=[write])
    assert b"gr??e: 1.0000" in written.getvalue()


@pytest.mark.parametrize("kind", ["broken pipe", "closed file", "no stdout"])
def test_a_lost_stdout_does_not_end_training(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream: Any = None
    if kind == "broken pipe":
        read, write = os.pipe()
        os.close(read)
        stream = os.fdopen(write, "w")
    elif kind == "closed file":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    try:
        made = model()
        history = made.fit(X, Y, epochs=3, verbose=1)
        made.evaluate(X, Y, verbose=2)
    finally:
        console.enable_interactive_logging()
        if kind == "broken pipe":
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    assert history.epoch == [0, 1, 2]
    assert ("can't be written" in caplog.text) == (kind != "no stdout")


def on_terminal(
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    metrics: Any = ("mae",),
    callbacks: Any = None,
    epochs: int = 1,
    validation_data: Any = None,
    **environment: str,
) -> str:
    """Train with a pseudo-terminal as stdout, slowly enough to see a bar move, and return all that was written there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    slow = oncue.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.06))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            made = model(metrics)
            options = {"epochs": epochs, "validation_data": validation_data, "callbacks": callbacks or [slow]}
            made.fit(X, Y, batch_size=10, verbose=1, **options)
        # What was written fits into the buffer of a terminal, which hands it out in parts.
        written = b""
        while select.select([ours], [], [], 0.2)[0]:
            written += os.read(ours, 65536)
    os.close(ours)
    return written.decode()


def fit(**options: Any) -> None:
    model().fit(X, Y, batch_size=10, **options)


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


def test_a_live_bar_ends_as_the_finished_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    written = on_terminal(120, monkeypatch)
    assert written.count("\r") > 2
    assert "\x1b[32m" in written
    lines = [line for line in screen(written) if line]
    assert timeless("\n".join(lines)) == [f"4/4 {BAR} _ _/step - loss: 1.0000 - mae: 1.0000"]


def test_no_colour_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_terminal(120, monkeypatch, NO_COLOR="1")
    assert "\r" in written and "\x1b" not in written


def test_a_terminal_that_does_not_say_its_width_shows_whole_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(0, monkeypatch)).split("\r")[2]
    assert "━" * 20 in moving and "loss:" in moving


def test_a_narrow_terminal_is_never_overfilled_while_the_bar_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_terminal(20, monkeypatch)
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", written).replace("\r\n", "\n")
    drawings = plain.split("\n")[0].split("\r")[1:]
    assert len(drawings) > 2
    assert all(len(drawing) < 20 for drawing in drawings[:-1])
    assert "mae: 1.0000" in plain


def test_a_dumb_terminal_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not CONTROL.search(on_terminal(80, monkeypatch, TERM="dumb").replace("\r\n", "\n"))


def test_a_notebook_has_one_output_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutStream(io.StringIO):
        """As ipykernel's, which is no terminal."""

    shown: list[str] = []
    made: list[object] = []

    class Output:
        def update(self, content: dict[str, str], raw: bool) -> None:
            shown.append(content["text/plain"])

    def display(content: dict[str, str], raw: bool, display_id: bool) -> Output:
        made.append(Output())
        shown.append(content["text/plain"])
        return made[-1]  # type: ignore[return-value]

    kernel, shell = types.ModuleType("ipykernel.iostream"), types.ModuleType("IPython.display")
    kernel.OutStream = OutStream  # type: ignore[attr-defined]
    shell.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ipykernel.iostream", kernel)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", shell)
    cell = OutStream()
    monkeypatch.setattr(sys, "stdout", cell)
    slow = oncue.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.06))
    fit(epochs=2, verbose=1, callbacks=[slow])
    assert len(made) == 1 and len(shown) > 4 and shown[-1] == "" and "loss: 1.0000" in shown[0]
    # What stays is printed, as in a pipe.
    assert not CONTROL.search(cell.getvalue()) and len(cell.getvalue().splitlines()) == 4
    # What a cell sends elsewhere is none.
    elsewhere = io.StringIO()
    monkeypatch.setattr(sys, "stdout", elsewhere)
    fit(verbose=1)
    assert elsewhere.getvalue() and not CONTROL.search(elsewhere.getvalue()) and len(made) == 1


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_values_are_there_on_every_terminal_while_the_bar_moves(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    written = on_terminal(columns, monkeypatch, metrics=["mae", "accuracy"]).replace("\r\n", "\n")
    first = written.split("\n")[0]
    drawings = [part.rstrip() for part in first.split("\r")[1:]]
    assert len(drawings) > 2 and all(len(drawing) < columns for drawing in drawings)
    for drawing in drawings[:-1]:
        # The loss first, and all values.
        assert re.search(r" l\w*:? 1(\.0000)? .*a\w*:? 0(\.0000e\+00)? .*m\w*:? 1(\.0000)?$", drawing), drawing
    assert ("━" * 20 in drawings[0]) == (columns >= 120) and ("loss: 1.0000" in drawings[0]) == (columns > 40)


def test_validation_shows_how_far_it_is_and_the_run_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    slow = oncue.callbacks.LambdaCallback(on_test_batch_end=lambda batch, logs: time.sleep(0.06))
    written = on_terminal(120, monkeypatch, callbacks=[slow], epochs=2, validation_data=(X, Y))
    assert "validating 2 - loss: 1.0000" in written and "validating 2/4 - loss: 1.0000" in written
    assert re.search(r"0s left", written.split("Epoch 2/2")[1]) and "left" not in written.split("Epoch 2/2")[0]
    lines = [line for line in screen(written) if line]
    assert len(lines) == 4 and all("validating" not in line for line in lines)


def test_an_account_on_a_terminal_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    history = model().fit(X, Y, epochs=2, verbose=0)
    assert max(map(len, history.explain(width=40).splitlines())) <= 40
    assert history.explain(width=40).replace("\n  ", " ").split() == history.explain().split()
