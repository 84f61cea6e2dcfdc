"""The same files, best values and messages as the real Keras."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import oncue

SERIES = {
    "falls": [5.0, 4.0, 3.0, 2.0, 1.0],
    "rises": [0.1, 0.2, 0.3, 0.4, 0.5],
    "wavers": [3.0, 4.0, 2.0, 2.0, 1.5],
    "ties": [1.0, 1.0, 1.0, 0.5, 0.5],
}
NAMES = ["m.keras", "{epoch:02d}.keras", "run{epoch}/m-{val_loss:.2f}.h5"]


class Standin:
    """What the callbacks of both ask of a model."""

    stop_training = False
    optimizer: Any = None
    metrics: tuple[Any, ...] = ()
    trained = ""

    def save(self, filepath: str, overwrite: bool = True) -> None:
        Path(filepath).write_text(self.trained)

    save_weights = save


def _run(module: ModuleType, folder: Path, values: list[float], options: dict[str, Any]) -> dict[str, Any]:
    saver = module.callbacks.ModelCheckpoint(os.path.join(folder, options.pop("name")), **options)
    model = Standin()
    for repeat in range(2):
        callbacks = module.callbacks.CallbackList([saver], model=model, verbose=0, epochs=len(values), steps=3)
        callbacks.on_train_begin()
        for epoch, value in enumerate(values):
            callbacks.on_epoch_begin(epoch)
            for batch in range(3):
                model.trained = f"{repeat} {epoch} {batch}"
                callbacks.on_train_batch_end(batch, {"loss": value})
            callbacks.on_epoch_end(epoch, {"loss": value, "val_loss": value})
        callbacks.on_train_end()
    found = (path for path in folder.rglob("*") if path.is_file())
    return {"files": {path.relative_to(folder).as_posix(): path.read_text() for path in found}, "best": saver.best}


def _both(keras: ModuleType, tmp_path: Path, values: list[float], options: dict[str, Any]) -> None:
    results = []
    for module in (keras, oncue):
        folder = tmp_path / module.__name__
        folder.mkdir()
        results.append(_run(module, folder, values, dict(options)))
    assert results[1] == results[0]
    assert results[0]["files"] or options.get("initial_value_threshold") is not None


@pytest.mark.parametrize(
    ("series", "name", "mode", "threshold", "best_only"),
    list(itertools.product(SERIES, NAMES, ["auto", "min", "max"], [None, 0.25], [True, False])),
)
def test_files_of_epochs(
    keras: ModuleType,
    tmp_path: Path,
    series: str,
    name: str,
    mode: str,
    threshold: float | None,
    best_only: bool,
) -> None:
    options = {"name": name, "mode": mode, "initial_value_threshold": threshold, "save_best_only": best_only}
    _both(keras, tmp_path, SERIES[series], options)


@pytest.mark.parametrize("frequency", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("weights_only", [True, False])
def test_files_of_batches(keras: ModuleType, tmp_path: Path, frequency: int, weights_only: bool) -> None:
    ending = ".weights.h5" if weights_only else ".keras"
    options = {"name": "e{epoch}b{batch}" + ending, "save_freq": frequency, "save_weights_only": weights_only}
    _both(keras, tmp_path, SERIES["falls"], options)


@pytest.mark.parametrize("best_only", [True, False])
def test_messages(keras: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], best_only: bool) -> None:
    said = []
    for module in (keras, oncue):
        folder = tmp_path / module.__name__
        folder.mkdir()
        _run(module, folder, SERIES["wavers"], {"name": "m.keras", "verbose": 1, "save_best_only": best_only})
        said.append(capsys.readouterr().out.replace(str(folder), "<folder>"))
    assert said[1] == said[0]
    assert "saving model to <folder>" in said[0]


@pytest.mark.parametrize(
    "options",
    [
        {"filepath": "m.txt"},
        {"filepath": "m.keras", "save_weights_only": True},
        {"filepath": "m.keras", "save_freq": "batch"},
        {"filepath": "m.keras", "save_freq": 2.5},
    ],
)
def test_what_both_refuse(keras: ModuleType, options: dict[str, Any]) -> None:
    for module in (keras, oncue):
        with pytest.raises(ValueError):
            module.callbacks.ModelCheckpoint(**options)


def test_a_placeholder_that_nothing_fills_is_a_key_error_in_both(keras: ModuleType, tmp_path: Path) -> None:
    for module in (keras, oncue):
        with pytest.raises(KeyError, match="nope"):
            _run(module, tmp_path, [1.0], {"name": "{nope}.keras"})


def test_in_the_loop_of_the_real_keras(keras: ModuleType, tmp_path: Path) -> None:
    import numpy as np

    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    path = os.path.join(tmp_path, "m_{epoch}.keras")
    saver = oncue.callbacks.ModelCheckpoint(path, save_best_only=True, keep=2, resume_best=True)
    model.fit(x, y, validation_data=(x, y), epochs=4, verbose=0, callbacks=[saver])
    assert sorted(os.listdir(tmp_path)) == ["m_3.keras", "m_4.keras", "m_epoch.keras.oncue.json"]
    assert keras.models.load_model(tmp_path / "m_4.keras").evaluate(x, y, verbose=0) == saver.best
