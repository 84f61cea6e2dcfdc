"""What callbacks do for a run beside their hooks: found once, by name, in one place."""

from __future__ import annotations

import ast
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    History,
    LearningRateScheduler,
    ModelCheckpoint,
    Preemption,
    ReduceLROnPlateau,
    TerminateOnNaN,
    TimeLimit,
)
from oncue.core import protocols

SOURCE = Path(oncue.__file__).parent
ROLES = {
    protocols.TakesParams,
    protocols.TakesModel,
    protocols.TakesRun,
    protocols.ExpectsLogs,
    protocols.ChoosesHooks,
    protocols.HasPlace,
    protocols.WritesLearningRate,
    protocols.ReadsBatchLogs,
    protocols.HasState,
    protocols.ResumesRun,
    protocols.SavesRun,
    protocols.KeepsState,
}


def fit(callbacks: Any, **options: Any) -> Any:
    model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=callbacks, **options)
    return model


def test_oncue_s_own_are_sorted(tmp_path: Path) -> None:
    early, nan, rate, plateau = EarlyStopping(), TerminateOnNaN(), LearningRateScheduler(abs), ReduceLROnPlateau()
    backup, saver, csv = BackupAndRestore(tmp_path / "b"), ModelCheckpoint("m.keras"), CSVLogger(tmp_path / "log.csv")
    preemption, history = Preemption(), History()
    callbacks = CallbackList([preemption, backup, saver, csv, early, nan, rate, plateau, history])
    roles = callbacks.roles
    assert roles.expecting == [saver, early, nan, plateau]
    assert roles.resuming == callbacks.savers == [backup]
    assert roles.keeping == [nan]
    assert roles.setting_rate == [rate, plateau]
    assert list(roles.stateful.values()) == [backup, saver, csv, early, nan, rate, plateau, history]
    assert roles.marking == [backup] and list(roles.adding) == ["ModelCheckpoint", "CSVLogger"]


class Foreign:
    """Has what a callback may have, and no parent of oncue's."""

    state_fields = ("seen",)
    runs_last = saves_run = True
    writes_learning_rate = True
    seconds = 0.0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def set_params(self, params: Any) -> None:
        self.seen.append(f"params {params['epochs']}")

    def set_model(self, model: Any) -> None:
        self.seen.append(f"model {type(model).__name__}")

    def set_run(self, run: Any) -> None:
        self.seen.append(f"run {type(run).__name__}")

    def expect(self, logged: Any) -> None:
        self.seen.append(f"expect {','.join(logged.names)}")

    def pending_state(self) -> None:
        self.seen.append("pending_state")

    def save_now(self, logs: Any = None) -> bool:
        self.seen.append("save_now")
        return True

    def keep_state(self) -> None:
        self.seen.append("keep_state")

    def listens_to(self, hook: str) -> bool:
        return hook != "on_train_batch_end"

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen.append("on_train_begin")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise AssertionError("it was not to be called")


def test_a_foreign_object_takes_part_in_all() -> None:
    times = iter([0.0, 0.0, 0.0, 100.0])
    foreign = Foreign()
    fit([foreign, TimeLimit(50.0, clock=lambda: next(times, 200.0))], epochs=2)
    assert list(dict.fromkeys(foreign.seen)) == [
        "model Sequential",
        "run CallbackList",
        "params 2",
        "expect loss,learning_rate",
        "pending_state",
        "on_train_begin",
        "keep_state",
        "save_now",
    ]


def test_a_foreign_object_keeps_states() -> None:
    foreign = Foreign()
    fit([foreign], epochs=2)
    assert foreign.seen.count("keep_state") == 3 and "save_now" not in foreign.seen


class OnlyHooks:
    seen = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1


@pytest.mark.parametrize("callback", [OnlyHooks(), unittest.mock.MagicMock()], ids=["hooks", "a mock"])
def test_what_has_none_or_all_of_it_is_called(callback: Any, tmp_path: Path) -> None:
    fit([callback, BackupAndRestore(tmp_path / "b")], epochs=3)
    assert callback.seen == 3 if isinstance(callback, OnlyHooks) else callback.on_epoch_end.call_count == 3


def test_a_callback_that_is_added_is_sorted_too() -> None:
    callbacks = CallbackList([EarlyStopping()])
    added = EarlyStopping()
    callbacks.append(added)
    assert callbacks.roles.expecting[-1] is added and list(callbacks.roles.stateful) == [
        "EarlyStopping",
        "EarlyStopping#2",
    ]


def _members(protocol: type) -> set[str]:
    return {
        name
        for name in {**protocol.__annotations__, **vars(protocol)}
        if not name.startswith("_") and name not in ("__annotations__",)
    }


def test_members_are_looked_up_by_name_in_one_place_only() -> None:
    members = set().union(*(_members(protocol) for protocol in ROLES))
    assert {"save_now", "pending_state", "set_run", "runs_last", "listens_to", "expect"} <= members
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                name = node.args[1]
                if isinstance(name, ast.Constant) and name.value in members:
                    found.add((path.name, name.value))
    assert {file for file, _ in found} <= {"roles.py"}


def test_the_base_class_has_the_members_that_every_callback_of_oncue_s_has() -> None:
    for protocol in ROLES - {
        protocols.ExpectsLogs,
        protocols.ResumesRun,
        protocols.SavesRun,
        protocols.KeepsState,
    }:
        assert all(hasattr(Callback, name) for name in _members(protocol)), protocol
