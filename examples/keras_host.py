"""oncue's callbacks in the `fit` of the real Keras: one line, and every end closes them."""

from __future__ import annotations

import os
import sys

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, Preemption, TerminateOnNaN


def main() -> int:
    """Train, and return the exit status: 0 when the network has learned the sum."""
    keras.utils.set_random_seed(0)
    x = np.random.normal(size=(256, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    adapter = hosts.Keras(
        EarlyStopping("loss", patience=3, restore_best_weights=True),
        CSVLogger("log.csv"),
        Preemption(),
        TerminateOnNaN(),
    )
    with adapter:
        model.fit(x, y, epochs=15, verbose=0, callbacks=adapter)
    print(adapter.history.explain())
    return 0 if min(adapter.history.history["loss"]) < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
