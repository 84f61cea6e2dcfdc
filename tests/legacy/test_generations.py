"""Short programs as each generation of Keras wrote them; oncue runs them, and names today's words once."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.core.logs import Logs
from oncue.legacy.modules import MODULES

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in [*sys.modules]:
        if module in MODULES:
            monkeypatch.delitem(sys.modules, module)


def words_of(program: Callable[[], Any]) -> list[str]:
    """Run a program; return the old names that it was warned about, in order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program()
    warned = [item for item in caught if issubclass(item.category, DeprecationWarning)]
    assert {Path(item.filename).name for item in warned} <= {Path(__file__).name}, "a warning points at the user's line"
    return [str(item.message).split("`")[1] for item in warned]


def keras_1() -> None:
    from oncue.layers.core import Flatten
    from oncue.utils.np_utils import to_categorical

    from oncue.callbacks import Callback, EarlyStopping, ModelCheckpoint
    from oncue.layers import Activation, Dense, Dropout
    from oncue.layers.normalization import BatchNormalization
    from oncue.models import Sequential
    from oncue.optimizers import SGD

    class LossHistory(Callback):
        def on_train_begin(self, logs={}):  # noqa: B006
            self.losses = []

        def on_batch_end(self, batch, logs={}):  # noqa: B006
            self.losses.append((logs.get("loss"), logs.get("acc"), logs["size"]))

    X_train = np.random.rand(40, 8)
    Y_train = to_categorical(np.arange(40) % 3, 3)
    assert Y_train.shape == (40, 3)

    model = Sequential()
    model.add(Flatten(input_shape=(4, 2)))
    model.add(Dense(output_dim=16, init="uniform"))
    model.add(Activation("relu"))
    model.add(BatchNormalization())
    model.add(Dropout(p=0.2))
    model.add(Dense(3, W_regularizer="l2"))
    model.add(Activation("softmax"))
    sgd = SGD(lr=0.1, decay=1e-6, momentum=0.9, nesterov=True)
    model.compile(loss="categorical_crossentropy", optimizer=sgd, metrics=["accuracy"])

    losses = LossHistory()
    stopper = EarlyStopping(monitor="val_acc", patience=3, mode="max")
    saver = ModelCheckpoint("weights.{epoch:02d}-{val_acc:.2f}.hdf5", monitor="val_acc", save_best_only=True)
    hist = model.fit(
        X_train.reshape(40, 4, 2),
        Y_train,
        batch_size=10,
        nb_epoch=2,
        verbose=0,
        validation_split=0.25,
        callbacks=[losses, stopper, saver],
    )
    assert len(hist.history["loss"]) == 2
    assert len(losses.losses) == 6
    assert all(size == 10 and 0 <= acc <= 1 for _, acc, size in losses.losses)
    best = hist.history["val_accuracy"][0]
    assert Path(f"weights.01-{best:.2f}.hdf5").exists()


def test_keras_1() -> None:
    # Formatters don't agree on the order of imports of modules that aren't there.
    assert sorted(words_of(keras_1)) == sorted(
        [
            "oncue.layers.core",
            "oncue.layers.normalization.BatchNormalization",
            "oncue.utils.np_utils",
            "output_dim",
            "init",
            "p",
            "W_regularizer",
            "lr=",
            "decay=",
            "nb_epoch",
        ]
    )
    assert words_of(keras_1) == [], "each word is told once"


def keras_1_graph() -> None:
    from oncue.engine.topology import Layer
    from oncue.objectives import mean_squared_error

    from oncue.layers import Dense, Input, merge
    from oncue.models import Model

    assert issubclass(Dense, Layer)
    a = Input(shape=(3,))
    b = Input(shape=(3,))
    together = merge.concatenate([Dense(2)(a), Dense(2)(b)])
    model = Model(input=[a, b], output=Dense(1)(together))
    model.compile(loss=mean_squared_error, optimizer="rmsprop")
    data = np.random.rand(8, 3)
    model.fit([data, data], data[:, 0], nb_epoch=1, verbose=0)


def test_keras_1_with_several_inputs() -> None:
    assert words_of(keras_1_graph) == [
        "oncue.engine",
        "oncue.engine.topology",
        "oncue.objectives",
        "Model(input=...)",
        "Model(output=...)",
        "nb_epoch",
    ]


def keras_2() -> None:
    import oncue as keras
    from oncue import backend as K
    from oncue.callbacks import LambdaCallback, LearningRateScheduler, ReduceLROnPlateau
    from oncue.layers import Dense, Input
    from oncue.models import Model, load_model
    from oncue.optimizers import Adam

    inputs = Input(shape=(8,))
    x = Dense(4, activation="relu", kernel_initializer="uniform")(inputs)
    outputs = Dense(1, activation="sigmoid", kernel_regularizer=keras.regularizers.l2(0.01))(x)
    model = Model(inputs=inputs, outputs=outputs)
    model.compile(optimizer=Adam(lr=0.01), loss="binary_crossentropy", metrics=["acc"])

    def generator():
        while True:
            yield np.random.rand(4, 8), np.random.randint(0, 2, (4, 1))

    rates = []

    class Halve(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            lr = K.get_value(self.model.optimizer.lr)
            K.set_value(self.model.optimizer.lr, lr * 0.5)
            rates.append(lr)

    hist = model.fit_generator(
        generator(),
        steps_per_epoch=3,
        epochs=2,
        verbose=0,
        validation_data=generator(),
        validation_steps=2,
        max_queue_size=10,
        workers=1,
        use_multiprocessing=False,
        callbacks=[Halve(), LambdaCallback(on_epoch_end=lambda epoch, logs: rates.append(logs["val_acc"]))],
    )
    assert sorted(hist.history) == ["acc", "loss", "val_acc", "val_loss"]
    assert rates[0::2] == pytest.approx([0.01, 0.005])
    assert K.get_value(model.optimizer.lr) == pytest.approx(0.0025)

    model.fit(
        np.random.rand(8, 8),
        np.zeros(8),
        verbose=0,
        validation_split=0.5,
        callbacks=[
            LearningRateScheduler(lambda epoch: 0.125),
            keras.callbacks.ModelCheckpoint("last.h5", period=1),
            ReduceLROnPlateau(epsilon=0.01),
        ],
    )
    assert model.optimizer.learning_rate == 0.125
    again = load_model("last.h5")
    data = np.random.rand(3, 8)
    np.testing.assert_allclose(again.predict(data, verbose=0), model.predict(data, verbose=0), rtol=1e-6)


def test_keras_2() -> None:
    assert words_of(keras_2) == ["lr=", "fit_generator", "optimizer.lr", "period", "ReduceLROnPlateau(epsilon=...)"]


def tensorflow_2() -> None:
    from oncue.keras import layers
    from oncue.keras.callbacks import EarlyStopping, ModelCheckpoint
    from oncue.keras.utils import to_categorical

    import oncue as tf

    model = tf.keras.models.Sequential(
        [tf.keras.layers.Dense(4, activation="relu", input_shape=(8,)), layers.Dense(3, activation="softmax")]
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adam(learning_rate=1e-3),
        loss=tf.keras.losses.CategoricalCrossentropy(),
        metrics=[tf.keras.metrics.CategoricalAccuracy()],
    )
    callbacks = [
        EarlyStopping(monitor="val_categorical_accuracy", patience=1, restore_best_weights=True),
        ModelCheckpoint("best.weights.h5", save_weights_only=True, save_best_only=True),
        tf.keras.callbacks.CSVLogger("log.csv"),
    ]
    x, y = np.random.rand(20, 8), to_categorical(np.arange(20) % 3)
    history = model.fit(x, y, epochs=2, validation_split=0.25, callbacks=callbacks, verbose=0)
    assert "val_categorical_accuracy" in history.history
    assert Path("best.weights.h5").exists() and Path("log.csv").exists()
    tf.keras.backend.clear_session()


def test_tensorflow_2() -> None:
    assert words_of(tensorflow_2) == []


def keras_3() -> None:
    import oncue as keras
    from oncue import layers

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.AdamW(learning_rate=1e-3), loss="mse", metrics=["mae"])

    class Rate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.5

    saver = keras.callbacks.ModelCheckpoint("best.keras", monitor="val_loss", save_best_only=True)
    x = np.random.rand(20, 8)
    model.fit(x, x.sum(axis=1), epochs=2, validation_split=0.25, verbose=0, callbacks=[Rate(), saver])
    assert float(model.optimizer.learning_rate) == 0.5
    assert keras.saving.load_model("best.keras").predict(x, verbose=0).shape == (20, 1)


def test_keras_3() -> None:
    assert words_of(keras_3) == []


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(ImportError, match="nothing_such"):
        from oncue.keras import nothing_such  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"oncue\.nothing"):
        __import__("oncue.keras.nothing")


@pytest.mark.parametrize("module", [name for name in oncue.__all__ if name in oncue._MODULES])
def test_oncue_keras_has_the_same_modules(module: str) -> None:
    imported = __import__(f"oncue.keras.{module}", fromlist=["x"])
    assert imported is getattr(oncue, module)
    assert imported.__name__ == imported.__spec__.name == f"oncue.{module}"


def test_classes_are_the_same_whichever_way_they_are_imported() -> None:
    import oncue.keras.layers as deep
    from oncue.keras.callbacks import ModelCheckpoint
    from oncue.keras.datasets import mnist
    from oncue.keras.models import Sequential

    assert ModelCheckpoint is oncue.callbacks.ModelCheckpoint
    assert Sequential is oncue.Sequential
    assert deep.Dense is oncue.layers.Dense
    assert mnist is oncue.datasets.mnist
    assert oncue.keras is oncue
    assert oncue.keras.keras is oncue
    assert ModelCheckpoint.__module__.startswith("oncue.callbacks")


def test_oncue_keras_imports_no_torch() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from oncue.keras.callbacks import EarlyStopping
import oncue.keras as keras
assert keras.callbacks.EarlyStopping is EarlyStopping
assert "torch" not in sys.modules and "numpy" not in sys.modules
from oncue.keras.layers import Dense
assert keras.layers.Dense is Dense
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("old", sorted(MODULES))
def test_every_old_module_has_a_home(old: str) -> None:
    with pytest.warns(DeprecationWarning) as caught:
        module = __import__(old, fromlist=["x"])
    # A module inside an old package is reached through the package, which is an old name itself.
    assert {str(warning.message).split("`")[1] for warning in caught} <= {old, old.rpartition(".")[0]}
    assert f"`{old}` is from an older Keras" in str(caught[-1].message)
    assert module.__name__ == MODULES[old].new


def test_an_unknown_name_is_not_an_old_name() -> None:
    model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    with pytest.raises(TypeError, match="epochs"):
        model.fit(np.ones((4, 2)), np.ones(4), epoch=2)


def test_the_other_name_of_today_is_not_called_old() -> None:
    logs = Logs({"acc": 0.5})
    assert words_of(lambda: logs["accuracy"]) == []


def test_what_has_no_successor_is_to_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.legacy.warning._warned", set())
    model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    with pytest.warns(DeprecationWarning, match="`show_accuracy` is from an older Keras; leave it out"):
        model.fit(np.ones((4, 2)), np.ones(4), verbose=0, show_accuracy=True)
    with pytest.warns(
        DeprecationWarning, match=r"`TensorBoard\(batch_size=...\)` is from an older Keras; leave it out"
    ):
        oncue.callbacks.TensorBoard(tmp_path, batch_size=32)
