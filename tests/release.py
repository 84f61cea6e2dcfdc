"""What somebody does first with an oncue that was just installed, in an environment that has nothing else.

    BIN/python -I tests/release.py FILE

runs the command, a model that is trained, interrupted, continued and saved, what the run left, and asks for what isn't
installed. It is run by the environment's own interpreter, in an empty folder, and reads nothing of the repository.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

COMMAND = Path(sys.executable).with_name("oncue")


def said(*arguments: str) -> str:
    """Return what the command says.

    Raises:
        RuntimeError: When it fails; the message has what it said.
    """
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"oncue {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def installed(version: str) -> None:
    """Look that this is the wheel, alone, and that its data came along."""
    import oncue

    found = Path(oncue.__file__).resolve()
    assert found.is_relative_to(Path(sys.prefix).resolve()), f"{found} isn't of this environment"
    assert metadata.version("oncue") == version, metadata.version("oncue")
    assert version in said("--version"), said("--version")
    files = metadata.files("oncue") or []
    assert any(file.name == "py.typed" for file in files)
    strangers = {file.parts[0] for file in files} - {"oncue", f"oncue-{version}.dist-info", ".."}
    assert not strangers, f"the wheel has {strangers}"
    extras = [name for name in ("keras", "pandas", "pytest", "sklearn", "matplotlib") if find_spec(name)]
    assert not extras, f"the environment isn't bare: it has {extras}"


def first_run() -> None:
    """Train, be interrupted, go on, save, and look at what was left."""
    import numpy as np

    import oncue as keras

    class Cut(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # type: ignore[no-untyped-def]
            if epoch == 2:
                raise ConnectionError

    x = np.random.default_rng(0).random((64, 3))

    def train(*further: keras.callbacks.Callback) -> keras.callbacks.History:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        model.compile("adam", loss="mse", metrics=["mae"])
        callbacks = [
            keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True),
            keras.callbacks.RunFolder("runs/first", best="val_loss", resume=True),
            keras.callbacks.TensorBoard("runs/events"),
            *further,
        ]
        history = model.fit(x, x.sum(axis=1), epochs=4, validation_split=0.25, callbacks=callbacks, verbose=0)
        for name in ("model.keras", "model.h5", "model.safetensors"):
            save = model.save_weights if name.endswith("safetensors") else model.save
            save(name)
        loaded = keras.models.load_model("model.keras")
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
        return history

    try:
        train(Cut())
    except ConnectionError:
        history = train()
    assert history.epoch == [0, 1, 2, 3], history.epoch
    assert "saved after epoch" in said("explain", "runs/first")
    assert "4" in said("tail", "runs/first")
    assert "dense" in said("inspect", "model.keras")


def what_is_missing() -> None:
    """Ask for what an extra brings: the message says which."""
    import oncue as keras

    for name in ("Conv3D", "RandomRotation"):
        try:
            getattr(keras.layers, name)
        except (ImportError, AttributeError) as error:
            assert "oncue[keras]" in str(error), f"{name}: {error}"
        else:
            raise AssertionError(f"layers.{name} is there without Keras")
    done = subprocess.run([COMMAND, "report", "runs/first"], capture_output=True, text=True)
    assert done.returncode and "oncue[report]" in done.stderr, done.stdout + done.stderr


if __name__ == "__main__":
    name, version = re.match(r"(\w+)-([^-]+?)(?:-py3-none-any\.whl|\.tar\.gz)$", Path(sys.argv[1]).name).groups()  # type: ignore[union-attr]
    assert name == "oncue", name
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        installed(version)
        first_run()
        what_is_missing()
        os.chdir("/")
    print(f"{sys.argv[1]}: installed, first run done, by Python {sys.version.split()[0]}")
