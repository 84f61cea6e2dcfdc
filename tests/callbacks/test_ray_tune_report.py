"""RayTuneReport: what Ray Tune is told, and how a run ends that it stops; tests/search has the real package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import PowerCut, small_model
from oncue.callbacks import BackupAndRestore, LambdaCallback, RayTuneReport

X = np.ones((8, 2), "float32")
Y = np.ones((8, 1), "float32")


def fit(*callbacks: Any, model: Any = None) -> Any:
    return (model or small_model()).fit(X, Y, epochs=3, verbose=0, callbacks=list(callbacks))


def a_ray(monkeypatch: pytest.MonkeyPatch, trial: str | None) -> list[Any]:
    told: list[Any] = []
    ray: Any = ModuleType("ray")
    tune = SimpleNamespace(report=told.append, get_context=lambda: SimpleNamespace(get_trial_id=lambda: trial))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.tune", tune)
    return told


def test_the_numbers_of_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    told = a_ray(monkeypatch, "a1")
    adds = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(found=epoch / 2, word="no number"))
    history = fit(adds, RayTuneReport())
    assert told == [{"epoch": n + 1, "loss": history.history["loss"][n], "found": n / 2} for n in range(3)]


def test_a_trial_that_is_stopped_is_closed(tmp_path: Path) -> None:
    def report(numbers: Any) -> None:
        if numbers["epoch"] == 2:
            sys.exit(0)

    model = small_model()
    with pytest.raises(SystemExit) as ended:
        fit(RayTuneReport(report), model=model)
    assert ended.value.code == 0
    account = model.history.explain()
    assert "It was preempted in epoch 2: Ray Tune ended the run" in account
    assert "stopped: Ray Tune ended the trial when it heard of epoch 2" in str(model.history.journal)


def test_a_trial_that_is_begun_again_goes_on(tmp_path: Path) -> None:
    parts: list[list[Any]] = [[], []]
    with pytest.raises(ConnectionError):
        fit(RayTuneReport(parts[0].append), BackupAndRestore(tmp_path), PowerCut(2))
    fit(RayTuneReport(parts[1].append), BackupAndRestore(tmp_path))
    assert [[one["epoch"] for one in part] for part in parts] == [[1, 2], [3]]


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    a_ray(monkeypatch, None)
    with pytest.raises(ValueError, match="this run is in none: call `fit` in the function that `ray.tune.Tuner` gets"):
        fit(RayTuneReport())
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    with pytest.raises(ImportError, match=r"RayTuneReport needs the package `ray`: pip install 'oncue\[ray\]'"):
        fit(RayTuneReport())
