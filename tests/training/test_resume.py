"""A run that was interrupted and started again ends bit for bit as one that was not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import oncue
from helpers import PowerCut, environment, to_numpy
from oncue import layers
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    History,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TerminateOnNaN,
)

SAMPLES, BATCH = 22, 5
STEPS = 4  # of training, after a validation_split of 0.2


class Draws(Callback):
    """Draws from every generator, as augmentation does, and keeps what it drew."""

    state_fields = ("drawn",)

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._draw()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._draw()

    def _draw(self) -> None:
        self.drawn += [random.random(), float(np.random.normal()), float(torch.rand(()))]


def data() -> tuple[Any, Any]:
    generator = np.random.default_rng(3)
    x = generator.normal(size=(SAMPLES, 4)).astype("float32")
    return x, (x.sum(axis=1, keepdims=True) + 0.5 * generator.normal(size=(SAMPLES, 1))).astype("float32")


def make_model(**options: Any) -> Any:
    model = oncue.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dropout(0.2, seed=5),
            layers.Dense(1),
        ]
    )
    model.compile(oncue.optimizers.Adam(0.05, **options), loss="mse", metrics=["mae"])
    return model


def stack(folder: Path, append: bool) -> list[Any]:
    return [
        CSVLogger(folder / "log.csv", append=append),
        EarlyStopping(patience=2, min_delta=0.02, restore_best_weights=True),
        EarlyStopping(monitor="loss", patience=50),
        ReduceLROnPlateau(patience=1, factor=0.5, min_delta=0.02, monitor="loss"),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, save_best_only=True),
        TerminateOnNaN(),
        Draws(),
    ]


def train(folder: Path, cut: PowerCut | None = None, save_freq: Any = "epoch", append: bool = False, **fit: Any) -> Any:
    """Train as a script does that is started, and return all that can be compared."""
    oncue.utils.set_random_seed(1)
    options = fit.pop("optimizer", {})
    model = make_model(**options)
    x, y = data()
    callbacks = [BackupAndRestore(folder / "backup", save_freq=save_freq), *stack(folder, append)]
    callbacks += fit.pop("further", lambda: [])()
    callbacks += [] if cut is None else [cut]
    arguments = {"epochs": 7, "batch_size": BATCH, "validation_split": 0.2, "verbose": 0, **fit}
    history = model.fit(x, y, callbacks=callbacks, **arguments)
    return {
        "weights": [np.array(weight) for weight in model.get_weights()],
        "optimizer": [to_numpy(tensor).copy() for tensor in model.optimizer.variables],
        "history": history.history,
        "epochs": history.epoch,
        "stopped": callbacks[2].stopped_epoch,
        "best": callbacks[2].best,
        "csv": (folder / "log.csv").read_bytes(),
        "files": sorted(path.name for path in folder.glob("*.weights.h5")),
        "drawn": callbacks[7].drawn,
        "rate": float(model.optimizer.learning_rate),
        "random": [random.random(), float(np.random.normal()), float(torch.rand(()))],
    }


def same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name in one:
        if name in ("weights", "optimizer"):
            assert [a.tobytes() for a in one[name]] == [b.tobytes() for b in other[name]], name
        else:
            assert one[name] == other[name], name


def interrupted(folder: Path, cuts: list[PowerCut], **options: Any) -> Any:
    for cut in cuts:
        with pytest.raises(ConnectionError):
            train(folder, cut, **options)
        assert (folder / "backup").is_dir()
    result = train(folder, **options)
    assert not (folder / "backup").exists()
    return result


def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("at_begin", [True, False])
def test_an_exception_at_every_epoch(tmp_path: Path, at_begin: bool, append: bool) -> None:
    straight, folder = folders(tmp_path)
    whole = train(straight, append=append)
    assert 2 < len(whole["epochs"]) and len(set(whole["history"]["learning_rate"])) > 1, "the decisions are tested"
    cuts = [PowerCut(epoch, None if at_begin else STEPS - 1) for epoch in range(len(whole["epochs"]))]
    same(interrupted(folder, cuts, append=append), whole)


@pytest.mark.parametrize("save_freq", [1, 3])
def test_an_exception_at_every_batch(tmp_path: Path, save_freq: int) -> None:
    straight, folder = folders(tmp_path)
    whole = train(straight, epochs=4)
    cuts = [PowerCut(epoch, batch) for epoch in range(4) for batch in range(STEPS) if (epoch, batch) >= (0, 1)]
    same(interrupted(folder, cuts, save_freq=save_freq, epochs=4), whole)


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": "batch"},
        {"shuffle": False},
        {"steps_per_epoch": 3},
        {"optimizer": {"use_ema": True, "ema_momentum": 0.5}, "further": lambda: [SwapEMAWeights(swap_on_epoch=True)]},
        {"optimizer": {"gradient_accumulation_steps": 3}},
        {"validation_freq": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_other_setups(tmp_path: Path, options: dict[str, Any]) -> None:
    straight, folder = folders(tmp_path)
    whole = train(straight, epochs=3, **dict(options))
    cuts = [PowerCut(0, 2), PowerCut(1, None), PowerCut(1, 1), PowerCut(2, 2)]
    same(interrupted(folder, cuts, save_freq=2, epochs=3, **dict(options)), whole)


def test_several_batches_between_two_hooks(tmp_path: Path) -> None:
    def run(folder: Path, cut: PowerCut | None) -> Any:
        oncue.utils.set_random_seed(1)
        model = make_model()
        model.compile("adam", loss="mse", steps_per_execution=2)
        x, y = data()
        callbacks = [BackupAndRestore(folder, save_freq=2), *([cut] if cut else [])]
        history = model.fit(x, y, batch_size=3, epochs=3, verbose=0, callbacks=callbacks)
        return history.history, [weight.tobytes() for weight in model.get_weights()]

    whole = run(tmp_path / "a", None)
    for cut in (PowerCut(0, 4), PowerCut(1, 2), PowerCut(2, 6)):
        with pytest.raises(ConnectionError):
            run(tmp_path / "b", cut)
    assert run(tmp_path / "b", None) == whole


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("save_freq", ["epoch", 2])
def test_a_shuffled_loader(tmp_path: Path, save_freq: Any, own_generator: bool) -> None:
    def run(folder: Path, cut: PowerCut | None) -> Any:
        oncue.utils.set_random_seed(1)
        model = make_model()
        generator = torch.Generator().manual_seed(9) if own_generator else None
        pairs = TensorDataset(*map(torch.as_tensor, data()))
        loader = DataLoader(pairs, batch_size=4, shuffle=True, generator=generator)
        callbacks = [BackupAndRestore(folder, save_freq=save_freq), *([cut] if cut else [])]
        history = model.fit(loader, epochs=3, verbose=0, callbacks=callbacks)
        return history.history, [weight.tobytes() for weight in model.get_weights()]

    whole = run(tmp_path / "a", None)
    for cut in (PowerCut(0, 4), PowerCut(1, 3), PowerCut(2, None), PowerCut(2, 5)):
        with pytest.raises(ConnectionError):
            run(tmp_path / "b", cut)
    assert run(tmp_path / "b", None) == whole


def test_a_stateful_layer_keeps_its_states(tmp_path: Path) -> None:
    def run(folder: Path, cut: PowerCut | None) -> Any:
        oncue.utils.set_random_seed(1)
        model = oncue.Sequential([layers.Input((3, 2)), layers.LSTM(3, stateful=True), layers.Dense(1)])
        model.compile("sgd", loss="mse")
        x = np.random.default_rng(0).normal(size=(16, 3, 2)).astype("float32")
        callbacks = [BackupAndRestore(folder, save_freq=1), *([cut] if cut else [])]
        model.fit(x, x[:, 0, :1], batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
        return [weight.tobytes() for weight in model.get_weights()]

    whole = run(tmp_path / "a", None)
    with pytest.raises(ConnectionError):
        run(tmp_path / "b", PowerCut(1, 2))
    assert run(tmp_path / "b", None) == whole


def test_a_schedule_that_multiplies_the_rate_is_applied_once(tmp_path: Path) -> None:
    def run(folder: Path, cut: PowerCut | None) -> Any:
        oncue.utils.set_random_seed(1)
        model = make_model()
        schedule = LearningRateScheduler(lambda epoch, rate: rate * 0.5)
        callbacks = [BackupAndRestore(folder, save_freq=1), schedule, *([cut] if cut else [])]
        return model.fit(*data(), batch_size=BATCH, epochs=3, verbose=0, callbacks=callbacks).history

    whole = run(tmp_path / "a", None)
    with pytest.raises(ConnectionError):
        run(tmp_path / "b", PowerCut(1, 2))
    assert run(tmp_path / "b", None) == whole


def test_a_model_of_torch_and_its_optimizer(tmp_path: Path) -> None:
    def run(folder: Path, cut: PowerCut | None) -> Any:
        oncue.utils.set_random_seed(1)
        module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
        model = oncue.Model(module)
        model.compile(torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9), loss=torch.nn.MSELoss())
        callbacks = [BackupAndRestore(folder, save_freq=1), *([cut] if cut else [])]
        history = model.fit(*data(), batch_size=BATCH, epochs=3, verbose=0, callbacks=callbacks)
        return history.history, [to_numpy(tensor).tobytes() for tensor in module.state_dict().values()]

    whole = run(tmp_path / "a", None)
    for cut in (PowerCut(0, 0), PowerCut(0, 1), PowerCut(1, 2), PowerCut(2, None)):
        with pytest.raises(ConnectionError):
            run(tmp_path / "b", cut)
    assert run(tmp_path / "b", None) == whole


def test_a_train_step_of_the_users_own(tmp_path: Path) -> None:
    class Own(oncue.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

        def train_step(self, data: Any) -> Any:
            x, y = data
            loss = ((self(x) - y) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return {"loss": loss}

    def run(folder: Path, cut: PowerCut | None, save_freq: Any = 1) -> Any:
        oncue.utils.set_random_seed(1)
        model = Own()
        model.compile("adam")
        callbacks = [BackupAndRestore(folder, save_freq=save_freq), *([cut] if cut else [])]
        history = model.fit(*data(), batch_size=BATCH, epochs=3, verbose=0, callbacks=callbacks)
        return history.history, [weight.tobytes() for weight in model.get_weights()]

    whole = run(tmp_path / "a", None)
    for save_freq in (1, "epoch"):
        with pytest.raises(ConnectionError):
            run(tmp_path / str(save_freq), PowerCut(1, 2), save_freq)
        assert run(tmp_path / str(save_freq), None, save_freq) == whole


SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_resume

def start(folder):
    child = os.fork()
    if child:
        return child
    try:
        result = test_resume.train(folder, save_freq=2, epochs=30, further=lambda: [test_resume.Slow()])
        arrays = [*result["weights"], *result["optimizer"], np.array(result["history"]["loss"])]
        np.savez(folder / "result.npz", *arrays)
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

straight, folder = Path(sys.argv[2]), Path(sys.argv[3])
chance = random.Random(0)
for _ in range(10):
    child = start(folder)
    time.sleep(chance.uniform(0.1, 0.7))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    if (folder / "result.npz").exists():
        break
for where in (folder, straight):
    assert os.waitpid(start(where), 0)[1] == 0
"""


class Slow(Callback):
    """Gives a kill the time to come in the middle of things."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks, to spare each run the imports")
def test_kills_at_random_moments(tmp_path: Path) -> None:
    straight, folder = folders(tmp_path)
    arguments = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(straight), str(folder)]
    done = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (folder / "log.csv").read_bytes() == (straight / "log.csv").read_bytes()
    one, other = np.load(straight / "result.npz"), np.load(folder / "result.npz")
    assert one.files == other.files
    assert all(one[name].tobytes() == other[name].tobytes() for name in one.files)


def test_the_history_keeps_no_data(tmp_path: Path) -> None:
    model = make_model()
    history = model.fit(*data(), verbose=0, callbacks=[BackupAndRestore(tmp_path / "backup")])
    assert isinstance(history, History) and history._run.run_state is None


def _events(folder: Path) -> dict[str, list[Any]]:
    """Return all events of the runs in a folder, file after file, without their times."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    found: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*tfevents*")):
        reader = PyRecordReader_New(str(path))
        while True:
            try:
                reader.GetNext()
            except Exception as error:
                assert type(error).__name__ == "OutOfRangeError", error
                break
            event = Event.FromString(reader.record())
            event.wall_time = 0.0
            found.setdefault(path.parent.name, []).append(event.SerializeToString(deterministic=True))
    return found


def _steps(folder: Path) -> dict[str, list[int]]:
    """Return the steps of every curve, in the order in which they are in the files."""
    from tensorboard.compat.proto.event_pb2 import Event

    found: dict[str, list[int]] = {}
    for name, events in _events(folder).items():
        for event in map(Event.FromString, events):
            for value in event.summary.value:
                found.setdefault(f"{name} {value.tag}", []).append(event.step)
    assert found
    return found


@pytest.mark.parametrize(
    ("epoch", "batch"), [(0, 2), (0, 3), (1, None), (1, 0), (1, 1), (1, 2), (1, 3), (2, None), (2, 1), (2, 3)]
)
def test_event_files_hold_every_event_once(epoch: int, batch: int | None, tmp_path: Path) -> None:
    def run(name: str, *further: Any) -> None:
        board = oncue.callbacks.TensorBoard(tmp_path / name, update_freq=2)
        oncue.utils.set_random_seed(0)
        made = oncue.Sequential(
            [layers.Input((3,), name="x"), layers.Dense(2, name="a"), layers.Dense(1, name="b")], name="m"
        )
        made.compile("adam", "mse")
        x = np.random.default_rng(0).normal(size=(SAMPLES, 3))
        backup = BackupAndRestore(tmp_path / f"{name}-backup", save_freq=2)
        made.fit(
            x,
            x[:, :1],
            batch_size=BATCH,
            epochs=3,
            validation_split=0.2,
            verbose=0,
            callbacks=[board, backup, *further],
        )

    run("whole")
    with pytest.raises(ConnectionError):
        run("parts", PowerCut(epoch, batch))
    run("parts")
    whole, parts = _events(tmp_path / "whole"), _events(tmp_path / "parts")
    assert whole == parts and set(whole) == {"train", "validation"}
    for name, steps in _steps(tmp_path / "parts").items():
        assert steps == sorted(set(steps)), name


@pytest.mark.parametrize("options", [{"keep": 2}, {"keep": "best 1", "monitor": "loss"}, {"keep": [2, "every 2"]}])
@pytest.mark.parametrize("cut", [(1, 2), (2, None), (3, 1), (4, 3)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_checkpoint_files_are_those_of_an_unbroken_run(
    options: dict[str, Any], cut: tuple[int, int | None], asynchronous: bool, tmp_path: Path
) -> None:
    def run(name: str, *further: Any) -> dict[str, bytes]:
        oncue.utils.set_random_seed(0)
        made = oncue.Sequential(
            [layers.Input((3,), name="x"), layers.Dense(2, name="a"), layers.Dense(1, name="b")], name="m"
        )
        made.compile(oncue.optimizers.Adam(0.3), "mse")
        x = np.random.default_rng(0).normal(size=(SAMPLES, 3))
        folder = tmp_path / name
        saver = ModelCheckpoint(
            folder / "{epoch}-{loss:.6f}.safetensors", save_weights_only=True, asynchronous=asynchronous, **options
        )
        backup = BackupAndRestore(tmp_path / f"{name}-backup", every="2 epochs")
        made.fit(x, x[:, :1], batch_size=BATCH, epochs=6, verbose=0, callbacks=[saver, backup, *further])
        notes = [(entry.epoch, entry.text.split("/")[-1]) for entry in made.history.journal if entry.kind != "resume"]
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".safetensors"}
        return {**files, "journal": repr(notes).encode()}

    whole = run("whole")
    with pytest.raises(ConnectionError):
        run("parts", PowerCut(*cut))
    assert run("parts") == whole
