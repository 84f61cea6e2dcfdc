"""Train on several processes: the same script, started by torchrun, comes to the same weights.

python examples/torchrun.py                             one process
torchrun --nproc-per-node 2 examples/torchrun.py        two, each with half of each batch
"""

from __future__ import annotations

import numpy as np

import oncue as keras
from oncue import layers


def main() -> None:
    """Train a small network on made-up data, with callbacks, and print what came of it."""
    # The data are made here, so that all processes must make the same ones.
    keras.utils.set_random_seed(0)
    x = np.random.normal(size=(1000, 10)).astype("float32")
    y = (x[:, :3].sum(axis=1) > 0).astype("int64")
    model = keras.Sequential(
        [layers.Input((10,)), layers.Dense(16, activation="relu"), layers.Dense(2, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    # `batch_size` is that of all processes together.
    model.fit(x, y, batch_size=64, epochs=8, validation_split=0.2, verbose=0, callbacks=[stop])
    loss, accuracy = model.evaluate(x, y, verbose=0)
    if stop.ranks.main:
        print(f"{stop.ranks.size} processes: loss {loss:.4f}, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
