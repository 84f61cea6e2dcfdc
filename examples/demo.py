"""Train a small network on handwritten digits until it is good enough. Takes seconds; nothing is downloaded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import oncue as keras
from oncue import layers
from oncue.cli import main as report

NEEDED_ACCURACY = 0.95
RUN = Path("runs") / "demo"


class StopWhenGood(keras.callbacks.Callback):
    """Stops training when the validation accuracy has reached a target."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.reached: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare the epoch's validation accuracy with the target."""
        if logs is not None and logs["val_accuracy"] >= self.target:
            self.reached = epoch
            self.note(f"val_accuracy {logs['val_accuracy']:.4f} reached {self.target}", kind="stop")
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Print the result."""
        when = "not reached" if self.reached is None else f"reached in epoch {self.reached + 1}"
        print(f"A validation accuracy of {self.target} was {when}.")


def main() -> int:
    """Train, measure, and return the exit status: 0 when the test accuracy is high enough."""
    keras.utils.set_random_seed(0)

    (x_train, y_train), (x_test, y_test) = keras.datasets.digits.load_data()
    x_train, x_test = x_train.reshape(-1, 64), x_test.reshape(-1, 64)
    y_train, y_test = keras.utils.to_categorical(y_train, 10), keras.utils.to_categorical(y_test, 10)

    model = keras.Sequential(
        [
            layers.Input((64,)),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.summary()

    shutil.rmtree(RUN, ignore_errors=True)
    history = model.fit(
        x_train,
        y_train,
        batch_size=16,
        epochs=60,
        validation_split=0.2,
        callbacks=[
            StopWhenGood(target=0.99),
            keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True, verbose=1),
            keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=3, verbose=1),
            keras.callbacks.RunFolder(RUN, best="val_loss"),
            keras.callbacks.TensorBoard(RUN / "tensorboard", histogram_freq=5),
        ],
    )

    print(f"\n{history.explain()}\n")
    _, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"Test accuracy: {accuracy:.4f}")
    again = keras.models.load_model(RUN / "best.keras").evaluate(x_test, y_test, verbose=0)
    print(f"Test accuracy of best.keras: {again[1]:.4f}")
    if again[1] != accuracy:
        print("The saved model differs from the one in memory: something is wrong.", file=sys.stderr)
        return 1
    if accuracy < NEEDED_ACCURACY:
        print(f"That is below {NEEDED_ACCURACY}: something is wrong.", file=sys.stderr)
        return 1
    print(f"{RUN} has log.csv, curves.png, best.keras, and files for `tensorboard --logdir {RUN / 'tensorboard'}`.")
    return report(["report", str(RUN), "-o", str(RUN / "report.html")])


if __name__ == "__main__":
    sys.exit(main())
