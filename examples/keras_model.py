"""Train a model of the real Keras by its own `fit` and by oncue, and compare. Needs Keras; takes seconds."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import oncue

EPOCHS = 10


def make(keras: Any) -> Any:
    """Return a compiled Keras model, always with the same first weights."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Reshape((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2, seed=1),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def main() -> int:
    """Train both ways, print what each took, and return the exit status: 0 when both learned the same."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    (x, y), (x_test, y_test) = oncue.datasets.digits.load_data()
    accuracies = []
    for name in ("keras", "oncue"):
        model = make(keras)
        options: dict[str, Any] = {"epochs": EPOCHS, "shuffle": False, "verbose": 0}
        began = time.process_time()
        history = model.fit(x, y, **options) if name == "keras" else oncue.fit(model, x, y, **options)
        seconds = time.process_time() - began
        # By Keras's own method: the weights are the model's.
        accuracies.append(float(model.evaluate(x_test, y_test, verbose=0)[1]))
        losses = " ".join(f"{value:.4f}" for value in history.history["loss"])
        print(f"{name}: {seconds:.1f} s, losses {losses}, test accuracy {accuracies[-1]:.3f}")
    return 0 if abs(accuracies[0] - accuracies[1]) < 0.02 else 1


if __name__ == "__main__":
    sys.exit(main())
