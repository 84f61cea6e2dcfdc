"""Time of a training step of `fit` beside the hand-written loop, as ratios in one run.

    python benchmarks/training_step.py [--rounds 15] [--seconds 0.4]

Every round times each way once, in turn, so that a slow moment of the machine hits all of them; a row shows the median
of the rounds' ratios, and the interval that holds the middle half of them.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from workloads import WORKLOADS, Workload, cnn, hand_loop, mlp

import oncue as keras
from oncue import layers

Way = Callable[[], object]


def fit_way(workload: Workload, model: keras.Model, epochs: int, callbacks: list[object] | None = None) -> Way:
    """Return a call of `fit` that does what the hand-written loop does."""
    x, y = workload.data()
    if workload.module is cnn and isinstance(model, keras.Sequential):
        x = x.permute(0, 2, 3, 1).contiguous()
    if workload.classes:
        loss: object = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
    else:
        model.compile("adam", "mse")
    return lambda: model.fit(x, y, batch_size=workload.batch, epochs=epochs, verbose=0, callbacks=callbacks)


def keras_layers(workload: Workload) -> keras.Model | None:
    """Return the same network made of Keras's layers."""
    if workload.module is mlp:
        return keras.Sequential(
            [
                layers.Input((784,)),
                layers.Dense(128, activation="relu"),
                layers.Dropout(0.2),
                layers.Dense(64, activation="relu"),
                layers.Dropout(0.2),
                layers.Dense(10),
            ]
        )
    if workload.module is cnn:
        return keras.Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Conv2D(16, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(2),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )
    return keras.Sequential([layers.Input((8,)), layers.Dense(1)])


class Listener(keras.callbacks.Callback):
    """Listens to every batch and reads nothing."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Do nothing."""


def seconds(way: Way) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def measure(workload: Workload, rounds: int, target: float) -> list[str]:
    """Return the table's rows for a workload."""
    probe = hand_loop(workload, 1)
    probe()
    epochs = max(1, round(target / seconds(probe)))
    steps = epochs * -(-len(workload.data()[0]) // workload.batch)
    ways: dict[str, Way] = {"hand-written loop": hand_loop(workload, epochs)}
    ways["oncue, the same torch module"] = fit_way(workload, keras.Model(workload.module()), epochs)
    ways["... and a callback on every batch"] = fit_way(workload, keras.Model(workload.module()), epochs, [Listener()])
    model = keras_layers(workload)
    if model is not None:
        ways["oncue, Keras's layers"] = fit_way(workload, model, epochs)
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(seconds(way) / steps * 1e6)
    hand = times["hand-written loop"]
    rows = []
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, hand, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        extra = statistics.median(value - base for value, base in zip(values, hand, strict=True))
        rows.append(
            f"| {workload.name} | {name} | {statistics.median(values):.0f} | {middle:.3f} | {low:.2f} to {high:.2f} | "
            f"{extra:+.1f} |"
        )
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.4, help="length of one timing of one way")
    parser.add_argument("--only", default="", help="part of a workload's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Units that die leave denormal numbers in Adam's means, which take a hundred times as long. They would measure how
    # long each way has trained already.
    torch.set_flush_denormal(True)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, one thread\n")
    print("| workload | way | µs per step | ratio (median) | middle half | µs more than by hand |")
    print("|---|---|---|---|---|---|")
    for workload in WORKLOADS:
        if options.only in workload.name:
            print("\n".join(measure(workload, options.rounds, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
