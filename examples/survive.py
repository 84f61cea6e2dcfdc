"""Kill a training run in the middle of an epoch, restart it, and compare it with an uninterrupted run.

python examples/survive.py            does all of this
python examples/survive.py FOLDER     only trains, for you to kill and restart, and prints a hash at the end
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import oncue as keras
from oncue import layers

RUN = Path("runs") / "survive"
EPOCHS = 8


class PrintBatch(keras.callbacks.Callback):
    """Prints the position of the run, so that it can be killed at a given moment."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the epoch."""
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Print the position."""
        print(f"epoch {self.epoch} batch {batch}", flush=True)


def train(folder: Path, *further: keras.callbacks.Callback) -> tuple[list[float], list[bytes]]:
    """Train as any script does; all that is needed to survive a kill is `BackupAndRestore`.

    Args:
        folder: Where the backup and the log go.
        *further: More callbacks.

    Returns:
        The losses of all epochs and the bytes of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    (x_train, y_train), _ = keras.datasets.digits.load_data()
    model = keras.Sequential(
        [layers.Flatten(), layers.Dense(32, activation="relu"), layers.Dropout(0.2), layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=loss, metrics=["accuracy"])
    history = model.fit(
        x_train,
        y_train,
        epochs=EPOCHS,
        validation_split=0.2,
        verbose=0,
        callbacks=[
            keras.callbacks.BackupAndRestore(folder / "backup", save_freq=10),
            keras.callbacks.ReduceLROnPlateau(patience=1),
            keras.callbacks.CSVLogger(folder / "log.csv"),
            *further,
        ],
    )
    return history.history["loss"], [weight.tobytes() for weight in model.get_weights()]


def final_hash(losses: list[float], weights: list[bytes]) -> str:
    """Return a digest of a run's losses and final weights."""
    return hashlib.sha256(repr(losses).encode() + b"".join(weights)).hexdigest()[:16]


def killed_at(folder: Path, moment: str) -> None:
    """Train in another process, and kill it as soon as it prints the given moment."""
    process = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == moment:
            process.kill()
            break
    process.wait()
    print(f"killed at {moment}")


def main() -> int:
    """Return 0 if both runs ended with the same bits."""
    if len(sys.argv) > 1:
        print(f"final hash {final_hash(*train(Path(sys.argv[1]), PrintBatch()))}")
        return 0
    killed_at(RUN / "killed", "epoch 4 batch 17")
    losses, weights = train(RUN / "killed")
    straight_losses, straight_weights = train(RUN / "straight")
    same = losses == straight_losses and weights == straight_weights
    same = same and (RUN / "killed" / "log.csv").read_bytes() == (RUN / "straight" / "log.csv").read_bytes()
    print(f"{len(losses)} epochs, last loss {losses[-1]:.6f}; without a kill {straight_losses[-1]:.6f}")
    print(f"final hash {final_hash(losses, weights)}; without a kill {final_hash(straight_losses, straight_weights)}")
    print("The killed run ended bit for bit like the uninterrupted one." if same else "The two runs differ.")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
