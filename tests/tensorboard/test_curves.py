"""The TensorBoard callback: curves, steps, endings, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from oncue.callbacks import Callback, CallbackList, LearningRateScheduler, TensorBoard
from oncue.core.logs import Logs

Curves = Callable[[Path], dict[str, list[tuple[int, float]]]]


def data(n: int = 24) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 4)).astype("float32"), rng.normal(size=(n, 1)).astype("float32")


def model(rate: float = 0.125) -> Any:
    built = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    built.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    return built


def fit(folder: Path, others: tuple[Any, ...] = (), validation: bool = False, epochs: int = 2, **options: Any) -> Any:
    arguments = {"validation_data": data(8)} if validation else {}
    callback = TensorBoard(folder, **options)
    return model().fit(
        *data(), epochs=epochs, batch_size=8, shuffle=False, verbose=0, callbacks=[*others, callback], **arguments
    )


def test_epochs_are_written_as_history_has_them(tmp_path: Path, scalars: Curves) -> None:
    history = fit(tmp_path, validation=True).history
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    assert set(train) == {"epoch_loss", "epoch_mae", "epoch_learning_rate"}
    assert train["epoch_loss"] == [(epoch, pytest.approx(value)) for epoch, value in enumerate(history["loss"])]
    assert train["epoch_learning_rate"] == [(0, 0.125), (1, 0.125)]
    assert validation["epoch_mae"] == [(epoch, pytest.approx(value)) for epoch, value in enumerate(history["val_mae"])]
    assert [step for step, _ in validation["evaluation_loss_vs_iterations"]] == [3, 6]


@pytest.mark.parametrize(("update_freq", "steps"), [("batch", [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (4, [4])])
def test_batches_are_written_when_due(tmp_path: Path, update_freq: Any, steps: list[int], scalars: Curves) -> None:
    fit(tmp_path, update_freq=update_freq)
    written = scalars(tmp_path / "train")
    assert [step for step, _ in written["batch_loss"]] == steps
    assert [step for step, _ in written["epoch_loss"]] == [0, 1]


def test_steps_count_batches_when_hooks_come_for_groups(tmp_path: Path, scalars: Curves) -> None:
    built = model()
    built.steps_per_execution = 2
    built.fit(*data(), epochs=2, batch_size=8, verbose=0, callbacks=[TensorBoard(tmp_path, update_freq="batch")])
    assert [step for step, _ in scalars(tmp_path / "train")["batch_loss"]] == [2, 3, 5, 6]


def test_only_due_batches_read_the_device(tmp_path: Path) -> None:
    class Source:
        names = ("loss",)
        reads = 0

        def read(self) -> list[float]:
            Source.reads += 1
            return [1.0]

        def snapshot(self) -> Source:
            return self

    callbacks = CallbackList([TensorBoard(tmp_path, update_freq=10, write_graph=False)], model=model())
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for batch in range(40):
        callbacks.on_train_batch_end(batch, Logs(source=Source()))
    callbacks.close()
    assert Source.reads == 4


def test_batches_are_not_listened_to_without_need(tmp_path: Path) -> None:
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_test_batch_end", "on_epoch_begin")
    quiet = CallbackList([TensorBoard(tmp_path)], model=model())
    assert [quiet.listens(hook) for hook in hooks] == [False] * 4
    profiling = CallbackList([TensorBoard(tmp_path, profile_batch=2)], model=model())
    assert [profiling.listens(hook) for hook in hooks] == [True, True, False, False]


def test_the_rate_that_the_epoch_trained_with(tmp_path: Path, scalars: Curves) -> None:
    class Halve(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)
            self.model.optimizer.learning_rate = logs["learning_rate"] / 2

    fit(tmp_path, (Halve(),))
    assert scalars(tmp_path / "train")["epoch_learning_rate"] == [(0, 0.125), (1, 0.0625)]


def test_it_runs_after_those_that_change_the_rate(tmp_path: Path, scalars: Curves) -> None:
    fit(tmp_path, (LearningRateScheduler(lambda epoch: 0.25 * (epoch + 1)),))
    assert scalars(tmp_path / "train")["epoch_learning_rate"] == [(0, 0.25), (1, 0.5)]


def test_steps_per_second(tmp_path: Path, scalars: Curves) -> None:
    fit(tmp_path, write_steps_per_second=True, update_freq=1, validation=True)
    written = scalars(tmp_path / "train")
    assert [step for step, _ in written["batch_steps_per_second"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in written["epoch_steps_per_second"]] == [0, 1]
    assert all(value > 0 for tag in written if tag.endswith("per_second") for _, value in written[tag])


def test_evaluate_alone(tmp_path: Path, scalars: Curves) -> None:
    built = model()
    built.evaluate(*data(), verbose=0, callbacks=[TensorBoard(tmp_path)])
    assert [step for step, _ in scalars(tmp_path / "validation")["evaluation_mae_vs_iterations"]] == [0]
    assert not (tmp_path / "train").exists()


def test_a_second_fit_starts_from_scratch(tmp_path: Path, scalars: Curves) -> None:
    callback = TensorBoard(tmp_path, update_freq="batch", write_graph=False)
    built = model()
    for _ in range(2):
        built.fit(*data(), batch_size=8, verbose=0, callbacks=[callback])
    assert len(list((tmp_path / "train").iterdir())) == 2
    assert sorted(step for step, _ in scalars(tmp_path / "train")["batch_loss"]) == [1, 1, 2, 2, 3, 3]


def test_the_step_continues_from_a_restored_state(tmp_path: Path, scalars: Curves) -> None:
    first = TensorBoard(tmp_path / "first", update_freq="batch", write_graph=False)
    model().fit(*data(), batch_size=8, verbose=0, callbacks=[first])
    state = first.state_dict()
    assert state["global_step"] == 3

    class GiveBack(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            second.load_state_dict(state)

    second = TensorBoard(tmp_path / "second", update_freq="batch", write_graph=False)
    model().fit(*data(), batch_size=8, verbose=0, callbacks=[second, GiveBack()])
    assert [step for step, _ in scalars(tmp_path / "second" / "train")["batch_loss"]] == [4, 5, 6]


def test_files_are_whole_at_every_epochs_end(tmp_path: Path, scalars: Curves) -> None:
    seen = []

    class Look(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(len(scalars(tmp_path / "train")["epoch_loss"]))

    model().fit(*data(), epochs=3, verbose=0, callbacks=[TensorBoard(tmp_path), Look()])
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_files_are_whole_after_an_error(tmp_path: Path, error: BaseException, scalars: Curves) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self._run.progress.epoch == 1 and batch == 2:  # type: ignore[union-attr]
                raise error

    with pytest.raises(type(error)):
        fit(tmp_path, (Fail(),), update_freq="batch")
    written = scalars(tmp_path / "train")
    assert [step for step, _ in written["batch_loss"]] == [1, 2, 3, 4, 5]
    assert [step for step, _ in written["epoch_loss"]] == [0]


def test_values_that_are_no_numbers_are_left_out_with_one_warning(tmp_path: Path, scalars: Curves) -> None:
    class Add(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs.update(word="hello", tensor=torch.tensor(2.5), whole=3, bad=float("nan"))

    with pytest.warns(UserWarning, match="leaves `word` out") as caught:
        fit(tmp_path, (Add(),))
    assert len([one for one in caught if "word" in str(one.message)]) == 1
    written = scalars(tmp_path / "train")
    assert written["epoch_tensor"] == [(0, 2.5), (1, 2.5)] and written["epoch_whole"] == [(0, 3.0), (1, 3.0)]
    assert np.isnan([value for _, value in written["epoch_bad"]]).all()
    assert "epoch_word" not in written


def test_several_optimizers(tmp_path: Path, scalars: Curves) -> None:
    class Part:
        def __init__(self, name: str, rate: float) -> None:
            self.name, self.learning_rate = name, rate

    class Host:
        stop_training = False
        optimizer = type("Both", (), {"optimizers": [Part("a", 0.5), Part("b", 0.25)]})()

    callback = TensorBoard(tmp_path)
    callback.set_model(Host())
    callback.on_train_begin()
    callback.on_epoch_end(0, {"loss": 1.0})
    callback.on_train_end()
    written = scalars(tmp_path / "train")
    assert written["epoch_learning_rate_a"] == [(0, 0.5)] and written["epoch_learning_rate_b"] == [(0, 0.25)]


# What is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update_freq": "epochs"}, "`update_freq` must be .* Did you mean 'epoch'"),
        ({"update_freq": 0}, "`update_freq`"),
        ({"update_freq": 2.5}, "`update_freq`"),
        ({"profile_batch": -1}, "`profile_batch` must be a non-negative integer"),
        ({"profile_batch": (5, 3)}, "`profile_batch`"),
        ({"profile_batch": (1, 2, 3)}, "`profile_batch`"),
        ({"profile_batch": "2,x"}, "`profile_batch`"),
        ({"profile_batch": 1.5}, "`profile_batch`"),
        ({"histogram_freq": -1}, "`histogram_freq`"),
        ({"embeddings_freq": "often"}, "`embeddings_freq`"),
    ],
)
def test_bad_values_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorBoard(**options)


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"`histogram_frequency`.* Did you mean `histogram_freq`"):
        TensorBoard(histogram_frequency=1)


def test_a_folder_that_cannot_be_written_ends_fit_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    built = model()
    before = built.get_weights()[0].copy()
    with pytest.raises(OSError, match="`log_dir`"):
        built.fit(*data(), verbose=0, callbacks=[TensorBoard(tmp_path / "file")])
    assert (built.get_weights()[0] == before).all()


def test_old_arguments(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="batch_size"):
        TensorBoard(tmp_path, batch_size=32, write_grads=False, embeddings_layer_names=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorBoard(tmp_path, batch_size=32)


def test_no_tensorflow_is_imported(tmp_path: Path, scalars: Curves) -> None:
    script = f"""
import sys
sys.modules["tensorflow"] = None  # an import of it fails
import numpy as np, oncue as keras
model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
callback = keras.callbacks.TensorBoard({str(tmp_path)!r}, histogram_freq=1, write_images=True, embeddings_freq=0)
model.fit(np.ones((8, 4), "float32"), np.ones((8, 1), "float32"), verbose=0, callbacks=[callback])
heavy = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras") and sys.modules[name]]
raise SystemExit(f"it imported {{heavy}}" if heavy else 0)
"""
    assert _python(script).returncode == 0
    assert "epoch_loss" in scalars(tmp_path / "train")


def test_without_the_package_the_error_says_what_to_type() -> None:
    script = """
import sys
sys.modules["tensorboard"] = None
from oncue.callbacks import TensorBoard
try:
    TensorBoard()
except ImportError as error:
    assert "pip install tensorboard" in str(error), error
else:
    raise SystemExit("no error")
"""
    result = _python(script)
    assert result.returncode == 0, result.stderr


def _python(script: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(keras.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": source},
    )
