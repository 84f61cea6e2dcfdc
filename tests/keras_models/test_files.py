"""Files of Keras models: by Keras's own serialisation, whole or absent, opened by Keras and by oncue."""

from __future__ import annotations

import os
import signal
import threading
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from keras_models.kinds import KINDS, OPTIMIZERS, Make, averaged, compiled, sequential, subclassed
from keras_models.side_by_side import X, Y, fit, is_current, values

import oncue
from helpers import cpu_only, damage
from oncue import with_keras
from oncue.callbacks import Callback, EarlyStopping, ModelCheckpoint
from oncue.checkpoints import Checkpoints
from oncue.checkpoints.score_note import read_note

WHOLE = ["m.keras", "m.h5"]
WEIGHTS = ["m.weights.h5", "m.h5", "m.safetensors", "m.keras"]


def equal(some: Any, others: Any) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def same_model(one: Any, other: Any, optimizer: bool = True) -> None:
    """Compare all that Keras's files have: not the states of random generators."""
    equal(values(one.weights), values(other.weights))
    if optimizer:
        equal(values(one.optimizer.variables), values(other.optimizer.variables))
    equal([one.predict(X, verbose=0)], [other.predict(X, verbose=0)])


def draws_as(one: Any, other: Any) -> None:
    """Let a model's layers draw as another's."""
    for variable, value in zip(other.variables, values(one.variables), strict=True):
        variable.assign(value)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_whole_model_is_opened_by_keras_and_by_oncue(keras: ModuleType, make: Make, tmp_path: Path) -> None:
    if make is subclassed and not is_current(keras):
        pytest.skip("this release of Keras looks for assets of layers in lists under other names than it writes")
    inner = compiled(keras, make)
    model = oncue.Model(inner)
    fit(model, epochs=1)
    path = tmp_path / "m.keras"
    model.save(path)
    ours = with_keras.load_model(path)
    for one in (keras.models.load_model(path), ours.keras_model):
        assert type(one) is type(inner)
        same_model(inner, one)
        assert one.get_compile_config() == inner.get_compile_config()
    assert isinstance(ours, with_keras.KerasModel)
    assert os.listdir(tmp_path) == ["m.keras"]
    # What goes on from the file goes on as the model itself, by the same random numbers.
    draws_as(inner, ours.keras_model)
    torch.manual_seed(1)
    expected = fit(model)
    torch.manual_seed(1)
    assert fit(ours) == expected
    same_model(inner, ours.keras_model)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", WHOLE)
def test_the_optimizer_comes_along(keras: ModuleType, optimizer: Make, name: str, tmp_path: Path) -> None:
    model = oncue.Model(compiled(keras, sequential, optimizer))
    fit(model, epochs=1)
    model.save(tmp_path / name)
    loaded = with_keras.load_model(tmp_path / name)
    same_model(model.keras_model, loaded.keras_model)
    updated = loaded.keras_model.optimizer
    # Around another one, an older Keras has a count of its own, of nothing.
    assert int(getattr(updated, "inner_optimizer", updated).iterations) == 5
    draws_as(model.keras_model, loaded.keras_model)
    fit(model, epochs=1)
    fit(loaded, epochs=1)
    same_model(model.keras_model, loaded.keras_model)
    assert not with_keras.load_model(tmp_path / name, compile=False).compiled


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_come_back(keras: ModuleType, name: str, tmp_path: Path) -> None:
    inner = compiled(keras, sequential)
    model = oncue.Model(inner)
    fit(model, epochs=1)
    path = tmp_path / name
    (model.save if name == "m.keras" else model.save_weights)(path)
    saved, state = inner.get_weights(), values(inner.optimizer.variables)
    fit(model, epochs=1)
    model.load_weights(path)
    equal(inner.get_weights(), saved)
    if name in ("m.weights.h5", "m.keras"):
        equal(values(inner.optimizer.variables), state)
        assert int(model.optimizer.iterations) == 5
    if name != "m.safetensors":
        other = compiled(keras, sequential)
        other.load_weights(path)
        equal(other.get_weights(), saved)
    oncue.saving.load_weights(model, path)
    assert model.size_of_save("m.weights.h5", weights_only=True) > model.size_of_save(
        "m.safetensors", weights_only=True
    )


@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5", "m.safetensors"])
def test_a_file_that_a_hook_loads_counts_from_the_next_step(
    keras: ModuleType, name: str, tmp_path: Path, quick: None
) -> None:
    """Also in traced steps, and while the count and the moments are ours."""
    path = tmp_path / name

    class Loads(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                self.model.save_weights(path)
            if batch == 3:
                self.model.load_weights(path)
                seen.append(self.model.get_weights())

    seen: list[Any] = []
    models = [compiled(keras, sequential, averaged, jit_compile=compile) for compile in (False, True)]
    for inner in models:
        fit(oncue.Model(inner), epochs=2, callbacks=[Loads()])
        counts = name == "m.weights.h5"
        assert int(inner.optimizer.iterations) == (6 if counts else 10)
    for one, other in zip(*seen[::2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    for one, other in zip(*(values(inner.variables) for inner in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_mismatch_changes_nothing(keras: ModuleType, tmp_path: Path) -> None:
    inner = compiled(keras, sequential)
    model = oncue.Model(inner)
    fit(model, epochs=1)
    layers = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    other = keras.Sequential([keras.Input((6,)), *layers])
    before = values(inner.variables) + values(inner.optimizer.variables)
    for name in ("a.weights.h5", "a.h5", "a.safetensors"):
        oncue.Model(other).save_weights(tmp_path / name)
        with pytest.raises(ValueError):
            model.load_weights(tmp_path / name)
        equal(values(inner.variables) + values(inner.optimizer.variables), before)
    with pytest.warns(UserWarning):
        model.load_weights(tmp_path / "a.weights.h5", skip_mismatch=True)
    equal(inner.get_weights()[:2], other.get_weights()[:2])


@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5", "m.safetensors", "m.keras"])
def test_more_weights_than_the_model_has(keras: ModuleType, name: str, tmp_path: Path) -> None:
    """Keras reads those it knows and is silent about the rest."""
    inner = compiled(keras, sequential)
    larger = keras.Sequential([keras.Input((6,)), *sequential(keras).layers, keras.layers.Dense(1)])
    before = inner.get_weights()
    (oncue.Model(larger).save if name == "m.keras" else oncue.Model(larger).save_weights)(tmp_path / name)
    with pytest.raises(ValueError, match=r"no such weight|mismatch|missing"):
        oncue.Model(inner).load_weights(tmp_path / name)
    equal(inner.get_weights(), before)


def test_assets_come_along(keras: ModuleType, tmp_path: Path) -> None:
    if not is_current(keras):
        pytest.skip("this release of Keras looks for assets of layers in lists under other names than it writes")
    model = oncue.Model(compiled(keras, subclassed))
    fit(model, epochs=1)
    model.save(tmp_path / "m.keras")
    assert any(name.startswith("assets/") for name in zipfile.ZipFile(tmp_path / "m.keras").namelist())
    loaded = with_keras.load_model(tmp_path / "m.keras").keras_model
    assert loaded.parts[2].words == "one two"
    assert int(loaded.parts[2].seen.value) == 5
    with pytest.raises(ValueError, match=r"with_keras\.load_model"):
        oncue.models.load_model(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"holds only weights.*Counts.*model\.weights\.h5"):
        model.save_weights(tmp_path / "m.safetensors")


def test_a_file_of_built_in_layers_is_a_model_of_oncues_too(keras: ModuleType, tmp_path: Path) -> None:
    model = oncue.Model(compiled(keras, sequential))
    fit(model, epochs=1)
    model.save(tmp_path / "m.keras")
    loaded = oncue.models.load_model(tmp_path / "m.keras")
    assert type(loaded) is oncue.Sequential
    np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


def test_urls(keras: ModuleType) -> None:
    model = oncue.Model(compiled(keras, sequential))
    fit(model, epochs=1)
    for name in WHOLE:
        model.save(f"memory://keras/{name}")
        same_model(with_keras.load_model(f"memory://keras/{name}").keras_model, model.keras_model)
    model.save_weights("memory://keras/m.weights.h5")
    model.load_weights("memory://keras/m.weights.h5")


# Whole or absent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5", "m.h5", "m.safetensors"])
def test_a_failing_disk_leaves_the_old_file(
    keras: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = oncue.Model(compiled(keras, sequential))
    fit(model, epochs=1)
    path = tmp_path / name
    save = model.save if name == "m.keras" else model.save_weights
    save(path)
    before = path.read_bytes()
    fit(model, epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
    damage(path)
    with pytest.raises(ValueError, match="was not loaded"):
        model.load_weights(path)


@cpu_only("it forks, and a process that is forked can't use CUDA")
def test_a_kill_in_the_middle_of_a_save_leaves_a_whole_file(keras: ModuleType, tmp_path: Path) -> None:
    inner = compiled(keras, sequential)
    model = oncue.Model(inner)
    for name in (*WHOLE, "m.weights.h5"):
        save = model.save if name in WHOLE else model.save_weights
        save(tmp_path / name)
        before = (tmp_path / name).read_bytes()
        child = os.fork()
        if not child:
            inner.set_weights([weight + 1 for weight in inner.get_weights()])
            os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
            save(tmp_path / name)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert (tmp_path / name).read_bytes() == before


def test_a_folder_or_a_link_is_not_replaced(keras: ModuleType, tmp_path: Path) -> None:
    model = oncue.Model(compiled(keras, sequential))
    (tmp_path / "m.keras").mkdir()
    with pytest.raises(IsADirectoryError):
        model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="extension"):
        model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="extension"):
        model.save_weights(tmp_path / "m.weights.npz")
    model.save(tmp_path / "n.keras")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "n.keras", overwrite=False)
    with pytest.raises(ValueError, match=r"use the extension \.h5"):
        model.save(tmp_path / "n.keras", include_optimizer=False)
    model.save(tmp_path / "n.h5", include_optimizer=False)
    assert not with_keras.load_model(tmp_path / "n.h5").compiled


# Callbacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("ending", [".keras", ".h5", ".weights.h5", ".safetensors"])
def test_model_checkpoint(keras: ModuleType, ending: str, asynchronous: bool, tmp_path: Path) -> None:
    model = oncue.Model(compiled(keras, sequential))
    weights_only = ending in (".weights.h5", ".safetensors")
    seen: dict[int, Any] = {}

    class Look(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen[epoch + 1] = self.model.get_weights()

    template = str(tmp_path / f"{{epoch}}-{{val_loss:.4f}}{ending}")
    saver = ModelCheckpoint(
        template,
        monitor="val_loss",
        save_weights_only=weights_only,
        keep=[2, "best 1"],
        asynchronous=asynchronous,
    )
    fit(model, epochs=4, validation_data=(X, Y), callbacks=[Look(), saver])
    files = Checkpoints(template)
    assert all(files.verify().values())
    newest = Path(files.last())
    assert newest.name.startswith("4-")
    if weights_only:
        fit(model, epochs=1)
        model.load_weights(newest)
        equal(model.get_weights(), seen[4])
    else:
        equal(with_keras.load_model(newest).get_weights(), seen[4])


def test_the_best_file_carries_its_score(keras: ModuleType, tmp_path: Path) -> None:
    for name in ("m.keras", "m.weights.h5"):
        path = tmp_path / name
        for lowest in (None, 0.0):
            model = oncue.Model(compiled(keras, sequential))
            saver = ModelCheckpoint(
                path, "loss", save_best_only=True, save_weights_only=name != "m.keras", resume_best=lowest is not None
            )
            if lowest is not None:
                before = path.read_bytes()
                with damage_scores(model):
                    fit(model, epochs=1, callbacks=[saver])
                assert path.read_bytes() == before
            else:
                fit(model, epochs=2, callbacks=[saver])
                note = read_note(path)
                assert note is not None
                assert note.monitor == "loss"


class damage_scores:
    """Lets a model start from first values that are far off, so that no epoch is the best."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __enter__(self) -> None:
        self._model.set_weights([weight + 5 for weight in self._model.get_weights()])

    def __exit__(self, *error: object) -> None:
        return None


def test_best_weights_are_restored(keras: ModuleType) -> None:
    inner = compiled(keras, sequential)
    stop = EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    fit(oncue.Model(inner), epochs=6, callbacks=[stop])
    assert stop.stopped_epoch


def test_what_a_file_cannot_hold_is_said_before_the_first_step(keras: ModuleType, tmp_path: Path) -> None:
    class Undescribed(keras.Model):  # type: ignore[name-defined,misc]  # real Keras has no types
        def __init__(self, what: object) -> None:
            super().__init__()
            self.part = keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.part(inputs)

    inner = Undescribed(object())
    inner.compile("sgd", "mse")
    steps: list[int] = []

    class Count(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            steps.append(batch)

    if is_current(keras):
        with pytest.raises(ValueError, match=r"(?s)ModelCheckpoint can't save this model.*save_weights_only=True"):
            fit(oncue.Model(inner), callbacks=[Count(), ModelCheckpoint(tmp_path / "m.keras")])
        assert steps == []
    else:
        # An older Keras writes a file that it can't open.
        with pytest.warns(UserWarning, match=r"can't be opened again.*missing a required argument: 'what'"):
            fit(oncue.Model(inner), epochs=1, callbacks=[ModelCheckpoint(tmp_path / "m.keras")])
    fit(oncue.Model(inner), epochs=1, callbacks=[ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True)])
    assert (tmp_path / "m.weights.h5").exists()


def test_methods_of_the_models_own_are_called(keras: ModuleType, tmp_path: Path) -> None:
    class Own(keras.Sequential):  # type: ignore[name-defined,misc]  # real Keras has no types
        def save(self, filepath: Any, **options: Any) -> None:
            Path(filepath).write_text("saved")

    inner = Own([keras.Input((6,)), keras.layers.Dense(1)])
    inner.compile("sgd", "mse")
    model = oncue.Model(inner)
    fit(model, epochs=1, callbacks=[ModelCheckpoint(tmp_path / "a.keras")])
    assert (tmp_path / "a.keras").read_text() == "saved"
    with pytest.raises(ValueError, match="method of your own"):
        fit(model, epochs=1, callbacks=[ModelCheckpoint(tmp_path / "a.keras", asynchronous=True)])
    model.save_weights(tmp_path / "a.weights.h5")
    model.load_weights(tmp_path / "a.weights.h5")


# What is said ----------------------------------------------------------------------------------------------------


def test_a_lambda_is_said_when_it_is_saved(keras: ModuleType, tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(1)])
    with pytest.warns(UserWarning, match=r"lambda in it.*register_keras_serializable"):
        oncue.Model(inner).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="__lambda__, which is code"):
        with_keras.load_model(tmp_path / "m.keras")


def test_a_named_function_in_a_lambda_is_found(keras: ModuleType, tmp_path: Path) -> None:
    def double(x: Any) -> Any:
        return x * 2

    inner = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(double), keras.layers.Dense(1)])
    oncue.Model(inner).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"names double.*custom_objects"):
        with_keras.load_model(tmp_path / "m.keras")
    loaded = with_keras.load_model(tmp_path / "m.keras", custom_objects={"double": double})
    equal([loaded.predict(X, verbose=0)], [inner.predict(X, verbose=0)])


def test_a_module_of_torchs_is_not_pickled(keras: ModuleType, tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((6,)), keras.layers.TorchModuleWrapper(torch.nn.Linear(6, 1))])
    model = oncue.Model(inner)
    for name in WHOLE:
        with pytest.raises(ValueError, match=r"TorchModuleWrapper, would be a pickle.*save_weights"):
            model.save(tmp_path / name)
    model.save_weights(tmp_path / "m.weights.h5")
    before = inner.predict(X, verbose=0)
    inner.layers[0].module.weight.data.zero_()
    model.load_weights(tmp_path / "m.weights.h5")
    equal([inner.predict(X, verbose=0)], [before])


def test_a_class_that_cannot_be_made_again_is_said_when_it_is_saved(keras: ModuleType, tmp_path: Path) -> None:
    class Own(keras.Model):  # type: ignore[name-defined,misc]  # real Keras has no types
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    inner = Own()
    inner(X)
    with pytest.warns(UserWarning, match=r"Own would be made by `Own\(\*\*config\)`.*`\*\*kwargs`"):
        oncue.Model(inner).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"Own, which is no part.*custom_objects"):
        with_keras.load_model(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"Unknown layer: 'Own'.*with_keras\.load_model"):
        oncue.models.load_model(tmp_path / "m.keras")
    oncue.Model(inner).load_weights(tmp_path / "m.keras")


def test_files_of_oncues_layers_are_models_of_keras_too(keras: ModuleType, tmp_path: Path) -> None:
    model = oncue.Sequential([oncue.layers.Input((6,)), oncue.layers.Dense(3, "relu"), oncue.layers.Dense(1)])
    model.compile("adam", "mse")
    fit(model, epochs=1)
    if not is_current(keras):
        pytest.skip("the files name arguments that this release of Keras doesn't know, as Keras's newer files do")
    for name in WHOLE:
        model.save(tmp_path / name)
        loaded = with_keras.load_model(tmp_path / name)
        np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
        assert int(loaded.keras_model.optimizer.iterations) == 5


def test_what_oncue_compiled_is_not_in_the_file(keras: ModuleType, tmp_path: Path) -> None:
    model = oncue.Model(compiled(keras, sequential))
    model.compile("sgd", "mae")
    with pytest.warns(UserWarning, match="Compile the Keras model itself"):
        model.save(tmp_path / "m.keras")


def test_files_are_written_while_others_are_read(keras: ModuleType, tmp_path: Path) -> None:
    model = oncue.Model(compiled(keras, sequential))
    path, stop = tmp_path / "m.weights.h5", threading.Event()
    model.save_weights(path)
    reader, wrong = oncue.Model(compiled(keras, sequential)), list[BaseException]()

    def read() -> None:
        try:
            while not stop.is_set():
                reader.load_weights(path)
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(10):
        model.save_weights(path)
    stop.set()
    thread.join()
    assert not wrong
