"""The words of the journal decide nothing: with others, a run does the same, tells it in the same places, and resumes."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import ScriptedLosses
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from oncue.core import phrases

SOURCE = Path(oncue.__file__).parent
X = np.random.default_rng(5).normal(size=(24, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5]], dtype="float32")
BAD = Y.copy()
BAD[20] = np.nan


def reword(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say everything backwards."""

    def other(words: phrases.Words) -> phrases.Words:
        return lambda data: words(data)[::-1].upper()

    table = {name: phrases.Phrase(other(old.line), other(old.cited)) for name, old in phrases.PHRASES.items()}
    monkeypatch.setattr(phrases, "PHRASES", table)


def model() -> Any:
    oncue.backend.clear_session(free_memory=False)
    oncue.utils.set_random_seed(3)
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(0.2), loss="mse")
    return made


class Interrupts(Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 3:
            raise KeyboardInterrupt


def early(folder: Path) -> list[Callback]:
    return [
        ScriptedLosses(0.5, 0.25, 0.75, 0.4, 0.3, 0.2),
        ReduceLROnPlateau(patience=1, factor=0.5),
        EarlyStopping(patience=3, restore_best_weights=True),
        ModelCheckpoint(folder / "best.weights.h5", save_best_only=True, save_weights_only=True),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True),
        CSVLogger(folder / "log.csv"),
    ]


def poisoned(folder: Path) -> list[Callback]:
    return [
        TerminateOnNaN(),
        EarlyStopping(monitor="loss", restore_best_weights=True),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True),
        BackupAndRestore(folder / "backup"),
    ]


def scheduled(folder: Path) -> list[Callback]:
    return [
        TerminateOnNaN(action="rollback", limit=2),
        LearningRateScheduler(lambda epoch, rate: 0.1 / (epoch + 1)),
        BackupAndRestore(folder / "backup"),
    ]


def train(made: Any, callbacks: list[Callback], y: Any = Y) -> Any:
    return made.fit(X, y, batch_size=4, epochs=6, verbose=0, validation_data=(X, Y), callbacks=callbacks)


def outcome(made: Any, folder: Path) -> dict[str, Any]:
    history = made.history
    account = "\n".join(history.explain().splitlines()[1:-1])
    words = {part for entry in history.journal for part in (entry.text, entry.cited) if part}
    for part in sorted(words, key=len, reverse=True):
        account = account.replace(part, "...")
    return {
        "weights": [weight.tobytes() for weight in made.get_weights()],
        "rate": float(made.optimizer.learning_rate),
        "history": repr(history.history),
        "stopped": made.stop_training,
        # A state also has the times of the journal's entries.
        "files": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.suffix else ""
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "backup" not in path.parts
        },
        "backup": sorted(path.name for path in (folder / "backup").glob("*")),
        "journal": repr([(one.epoch, one.batch, one.callback, one.kind, one.data) for one in history.journal]),
        "account": account,
    }


@pytest.mark.parametrize(
    ("callbacks", "y"),
    [(early, Y), (poisoned, BAD), (scheduled, Y), (scheduled, BAD)],
    ids=["early", "not finite", "scheduled", "rolled back"],
)
def test_other_phrases_change_nothing_else(
    callbacks: Any, y: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("run")
    outcomes, texts = [], []
    for number in range(2):
        folder.mkdir()
        made = model()
        train(made, callbacks(folder), y)
        outcomes.append(outcome(made, folder))
        texts.append([entry.text for entry in made.history.journal])
        folder.rename(f"run{number}")
        reword(monkeypatch)
    assert outcomes[0] == outcomes[1]
    assert "..." in outcomes[0]["account"]
    assert len(texts[0]) > 0 and all(one != other for one, other in zip(*texts, strict=True))


def test_a_run_resumes_with_other_phrases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = []
    for name in ("whole", "parts"):
        folder = Path(name)
        folder.mkdir()
        monkeypatch.chdir(folder)
        made = model()
        if name == "parts":
            with pytest.raises(KeyboardInterrupt):
                train(made, [*early(Path()), BackupAndRestore("backup"), Interrupts()])
            reword(monkeypatch)
            made = model()
        train(made, [*early(Path()), BackupAndRestore("backup"), Callback()])
        assert len(made.history.journal.of("resume")) == (name == "parts")
        made.history.journal[:] = [entry for entry in made.history.journal if entry.kind != "resume"]
        outcomes.append(outcome(made, Path()))
        monkeypatch.chdir(tmp_path)
    assert outcomes[0] == outcomes[1]


def test_every_phrase_is_used_and_every_one_used_is_there() -> None:
    used: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                named = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "what"]
                used |= {part.value for part in named if isinstance(part, ast.Constant)}
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named = [keyword.value for keyword in node.keywords if keyword.arg == "what"]
            found = node.args[1:2] if called == "_decided" else named if called in ("write", "Entry") else []
            used |= {part.value for part in found if isinstance(part, ast.Constant)}
    assert used == set(phrases.PHRASES)
