"""Lists of callbacks in whole runs: what both leave behind and print, in the order in which both print it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue

X = np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4)
Y = X.sum(axis=1, keepdims=True)
START = [np.full((4, 1), 0.3, "float32"), np.zeros(1, "float32")]
SERIES = [5, 4, 4.5, 4.2, 3.9, 4.1, 4.3, 4.0, 4.4, 4.4]
VALIDATE = {"validation_data": (X, Y)}
SAVE = {"save_weights_only": True, "verbose": 1}


def scripted(k: Any) -> Any:
    class Scripted(k.callbacks.Callback):  # type: ignore[misc, name-defined]  # the base depends on the loop
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["v"] = float(SERIES[epoch])

    return Scripted()


def early(k: Any, **options: Any) -> Any:
    return k.callbacks.EarlyStopping("v", **{"mode": "min", "verbose": 1, **options})


def plateau(k: Any, **options: Any) -> Any:
    return k.callbacks.ReduceLROnPlateau("v", **{"mode": "min", "verbose": 1, "factor": 0.5, **options})


def saver(k: Any, path: str = "{epoch:02d}.weights.h5", **options: Any) -> Any:
    return k.callbacks.ModelCheckpoint(path, **{**SAVE, "monitor": "v", "mode": "min", **options})


CASES: dict[str, tuple[Callable[[Any], list[Any]], dict[str, Any]]] = {
    "baseline that is never met": (lambda k: [early(k, patience=2, baseline=1.0, restore_best_weights=True)], {}),
    "start later": (lambda k: [early(k, patience=1, start_from_epoch=3, restore_best_weights=True)], {}),
    "start never": (lambda k: [early(k, start_from_epoch=30, restore_best_weights=True)], {}),
    "sign of min_delta": (lambda k: [early(k, patience=1, min_delta=-0.5)], {}),
    "cooldown": (lambda k: [plateau(k, patience=1, cooldown=2)], {}),
    "smallest rate": (lambda k: [plateau(k, patience=1, min_lr=0.04)], {}),
    "largest is best": (lambda k: [plateau(k, patience=0, mode="max"), saver(k, save_best_only=True, mode="max")], {}),
    "threshold": (lambda k: [saver(k, save_best_only=True, initial_value_threshold=4.1)], {"verbose": 2}),
    "threshold never met": (lambda k: [saver(k, save_best_only=True, initial_value_threshold=0.1)], {}),
    "every third batch": (lambda k: [saver(k, save_freq=3, save_best_only=True, monitor="loss")], {"epochs": 4}),
    "names": (lambda k: [saver(k, "{epoch}-{val_loss:.2f}-{v:.1f}.weights.h5")], {"epochs": 2, **VALIDATE}),
    "names of batches": (lambda k: [saver(k, "{epoch}-{batch:02d}-{loss:.1f}.weights.h5", save_freq=1)], {"epochs": 2}),
    "stop, restore and save": (
        lambda k: [early(k, patience=1, restore_best_weights=True), saver(k, "b.weights.h5", save_best_only=True)],
        {"verbose": 2},
    ),
    "no epoch": (lambda k: [saver(k), k.callbacks.CSVLogger("log.csv"), early(k, restore_best_weights=True)], {"epochs": 0}),
    "from the third": (
        lambda k: [
            k.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5, verbose=1),
            saver(k),
            k.callbacks.CSVLogger("log.csv", separator=";"),
        ],
        {"epochs": 5, "initial_epoch": 3, "verbose": 2, **VALIDATE},
    ),
    "validation in some epochs": (
        lambda k: [k.callbacks.CSVLogger("log.csv")],
        {"epochs": 4, "validation_freq": [1, 3], "verbose": 2, **VALIDATE},
    ),
    "a user's callback between": (
        lambda k: [k.callbacks.CSVLogger("before.csv"), scripted(k), k.callbacks.CSVLogger("after.csv")],
        {"epochs": 2, "verbose": 2},
    ),
}  # fmt: skip


def run(k: Any, case: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    build, options = CASES[case]
    model = k.Sequential([k.Input((4,)), k.layers.Dense(1)])
    model.compile(k.optimizers.SGD(0.1), "mse")
    model.set_weights(START)
    callbacks = build(k) if "between" in case else [scripted(k), *build(k)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"epochs": 10, "verbose": 0, "shuffle": False, "batch_size": 4, **options}
        history = model.fit(X, Y, callbacks=callbacks, **options)
    said = re.sub(r"\d+[mu]?s\b", "_", capsys.readouterr().out)
    # Keras's rates have 32 bits.
    said = re.sub(r"rate to (\S+)\.", lambda found: f"rate to {float(found[1]):.6g}", said)
    files: dict[str, Any] = {}
    for path in sorted(Path().iterdir()):
        if path.suffix == ".csv":
            files[path.name] = re.sub(r"\d\.\d+", lambda found: f"{float(found[0]):.4f}", path.read_text())
        else:
            model.load_weights(path)
            files[path.name] = np.concatenate([np.ravel(weight) for weight in model.get_weights()]).round(5).tolist()
        path.unlink()
    return {"said": said, "files": files, "epochs": history.epoch, "names": list(history.history)}


@pytest.mark.parametrize("case", CASES)
def test_both_do_the_same(
    case: str, keras: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = run(keras, case, capsys), run(oncue, case, capsys)
    assert ours == theirs


def test_callbacks_get_the_model_before_the_parameters(keras: ModuleType) -> None:
    def heard(k: Any) -> list[str]:
        found: list[str] = []

        class Listens(k.callbacks.Callback):  # type: ignore[misc, name-defined]  # the base depends on the loop
            def set_model(self, model: Any) -> None:
                found.append("model")

            def set_params(self, params: Any) -> None:
                found.append("params")

        model = k.Sequential([k.Input((4,)), k.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(X, Y, verbose=0, callbacks=[Listens()])
        return found

    assert heard(oncue) == heard(keras) == ["model", "params"]


@pytest.mark.parametrize("what", ["train", "test", "predict"])
def test_an_end_needs_a_beginning(what: str, keras: ModuleType) -> None:
    for k in (keras, oncue):
        callbacks = k.callbacks.CallbackList([k.callbacks.History()])
        with pytest.raises(ValueError, match="without"):
            getattr(callbacks, f"on_{what}_end")()
        callbacks = k.callbacks.CallbackList([k.callbacks.Callback()])
        getattr(callbacks, f"on_{what}_begin")()
        getattr(callbacks, f"on_{what}_end")()
        with pytest.raises(ValueError, match="without"):
            getattr(callbacks, f"on_{what}_end")()


def test_an_unknown_argument_of_evaluate_is_the_error_of_either(keras: ModuleType) -> None:
    for k in (keras, oncue):
        model = k.Sequential([k.Input((4,)), k.layers.Dense(1)])
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="batchsize"):
            model.evaluate(X, Y, batchsize=2)
    with pytest.raises(TypeError, match="Did you mean `batch_size`"):
        model.evaluate(X, Y, batchsize=2)
