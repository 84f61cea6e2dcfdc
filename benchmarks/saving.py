"""Times saving: a large module's weights compared with plain writing, background saves with a plain copy, and backups.

python benchmarks/saving.py --parameters 100000000 --rounds 5

A save computes checksums on a second core while it writes, so results are only valid on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

import oncue
from oncue.checkpoints.snapshot import Snapshot


def network(parameters: int) -> torch.nn.Module:
    width = int((parameters / 8) ** 0.5)
    return torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(8)))


def seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def table(title: str, reference: str, ways: dict[str, Callable[[], float]], rounds: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    print(f"\n{title}\n\n| way | seconds | ratio (median) | least to most |\n|---|---|---|---|")
    for name, times in taken.items():
        ratios = [one / other for one, other in zip(times, taken[reference], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| {name} | {statistics.median(times):.3f} | {statistics.median(ratios):.2f} | {spread} |")


def synchronous(module: torch.nn.Module, folder: Path, rounds: int) -> None:
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    wrapped = oncue.Model(module)

    def synced(path: Path, write: Callable[[Any], object]) -> float:
        def action() -> None:
            with open(path, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())

        return seconds(action)

    def plain(file: Any) -> None:
        for tensor in tensors.values():
            file.write(memoryview(tensor.numpy()).cast("B"))

    def library() -> None:
        save_file(tensors, folder / "library.safetensors")
        with open(folder / "library.safetensors", "rb") as file:
            os.fsync(file.fileno())

    def distributed() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(tensors, checkpoint_id=folder / "dcp", no_dist=True)

    ways = {
        "plain sequential write, fsync": lambda: synced(folder / "plain.bin", plain),
        "oncue, save_weights('.safetensors')": lambda: seconds(lambda: wrapped.save_weights(folder / "a.safetensors")),
        "safetensors.save_file, fsync": lambda: seconds(library),
        "torch.save, fsync": lambda: synced(folder / "torch.pt", lambda file: torch.save(tensors, file)),
        "torch.distributed.checkpoint.save": lambda: seconds(distributed),
    }
    table("A synchronous save", "plain sequential write, fsync", ways, rounds)


def asynchronous(module: torch.nn.Module, folder: Path, rounds: int) -> None:
    optimizer = torch.optim.Adam(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    for place, state in enumerate(optimizer.state.values()):
        tensors |= {f"{place}.{name}": state[name] for name in ("exp_avg", "exp_avg_sq")}
    snapshot = Snapshot()

    def in_background() -> float:
        from oncue.checkpoints.tensors_file import write_tensors
        from oncue.checkpoints.writer import Writer

        writer = Writer("the benchmark")

        def blocking() -> None:
            copies = snapshot.take(tensors)
            writer.submit(lambda: write_tensors(folder / "b.safetensors", copies))

        taken = seconds(blocking)
        writer.wait()
        return taken

    def distributed() -> float:
        pending: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            taken = seconds(lambda: pending.append(dcp.async_save(tensors, checkpoint_id=folder / "dcp", no_dist=True)))
            pending[0].result()
        return taken

    ways = {
        "plain copy: clone of every tensor": lambda: seconds(lambda: [tensor.clone() for tensor in tensors.values()]),
        "oncue, in the background": in_background,
        "torch.distributed.checkpoint.async_save": distributed,
        "torch.save": lambda: seconds(lambda: torch.save(tensors, folder / "torch.pt")),
        "safetensors.save_file": lambda: seconds(lambda: save_file(tensors, folder / "c.safetensors")),
    }
    table("Time that training waits: weights and Adam's state", "plain copy: clone of every tensor", ways, rounds)


def keras_files(folder: Path, rounds: int) -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    def made(framework: Any) -> Any:
        layers = [framework.layers.Dense(1500, activation="relu") for _ in range(4)]
        model = framework.Sequential([framework.layers.Input((1500,)), *layers, framework.layers.Dense(10)])
        model.compile("adam", "mse")
        model.fit(np.ones((2, 1500), "float32"), np.ones((2, 10), "float32"), verbose=0)
        return model

    ours, theirs = made(oncue), made(keras)
    for title, ending, method in (("`.keras`", ".keras", "save"), ("`.weights.h5`", ".weights.h5", "save_weights")):
        ways: dict[str, Callable[[], float]] = {
            "Keras": lambda e=ending, m=method: seconds(lambda: getattr(theirs, m)(folder / f"k{e}")),  # type: ignore[misc]
            "oncue": lambda e=ending, m=method: seconds(lambda: getattr(ours, m)(folder / f"o{e}")),  # type: ignore[misc]
        }
        table(
            f"{title}, 9 million weights with Adam's state (oncue reaches the disk, Keras doesn't)",
            "Keras",
            ways,
            rounds,
        )


class Clock(oncue.callbacks.Callback):
    """Measures the time of every epoch, from its first hook to its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(time.perf_counter() - self._began)


class Steps(oncue.callbacks.Callback):
    """Records the time at the end of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.ended.append(time.perf_counter())


def perceptron(callbacks: list[Any], epochs: int, steps: int) -> float:
    x = np.random.default_rng(0).normal(size=(32 * steps, 784)).astype("float32")
    y = np.random.default_rng(1).integers(0, 10, len(x))
    layers = oncue.layers
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(128, "relu"),
            layers.Dropout(0.2),
            layers.Dense(64, "relu"),
            layers.Dense(10),
        ]
    )
    model.compile("adam", oncue.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return seconds(lambda: model.fit(x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks))


def backups(folder: Path, rounds: int, epochs: int = 3, steps: int = 600) -> None:
    def trained(save_freq: Any) -> tuple[float, float]:
        """Return the seconds within epochs, and those before, between and after them."""
        clock = Clock()
        callbacks: list[Any] = [clock]
        if save_freq is not None:
            callbacks.append(oncue.callbacks.BackupAndRestore(folder / "backup", save_freq=save_freq))
        whole = perceptron(callbacks, epochs, steps)
        return sum(clock.epochs), whole - sum(clock.epochs)

    ways = {"no backup": None, "never due (every 10**9 steps)": 10**9, "every 100 steps": 100, "every epoch": "epoch"}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    trained(None)
    trained(100)
    for number in range(rounds):
        names = list(ways)
        # In alternating order, so that each way comes first as often as last.
        for name in names if number % 2 else reversed(names):
            taken[name].append(trained(ways[name]))
    print(f"\n{epochs} epochs of {steps} steps of the MLP 784-128-64-10, batch 32, in {rounds} rounds\n")
    print("| backup | seconds in epochs | ratio (median) | middle half | ms outside epochs, more than without |")
    print("|---|---|---|---|---|")
    plain = taken["no backup"]
    for name, times in taken.items():
        ratios = sorted(one[0] / other[0] for one, other in zip(times, plain, strict=True))
        more = statistics.median(1e3 * (one[1] - other[1]) for one, other in zip(times, plain, strict=True))
        quarter = len(ratios) // 4
        spread = f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
        inside = statistics.median(one[0] for one in times)
        print(f"| {name} | {inside:.3f} | {statistics.median(ratios):.3f} | {spread} | {more:.1f} |")


def steady_backups(folder: Path, rounds: int, steps: int = 5000, every: int = 100) -> None:
    """Print what a save adds to the steps after it, compared with the steps of the same run that no save affects."""
    print(f"\n{steps} steps in one run, a backup every {every}: medians over the saves, in {rounds} runs\n")
    print("| ms of a step | ms more at the step that saves | ms more in the 39 steps after | of 100 steps |")
    print("|---|---|---|---|")
    for _ in range(rounds):
        clock = Steps()
        perceptron([clock, oncue.callbacks.BackupAndRestore(folder / "steady", save_freq=every)], 1, steps)
        # A row begins with the step that is followed by a save.
        rows = np.diff(clock.ended)[every - 1 :]
        rows = rows[: len(rows) // every * every].reshape(-1, every)[1:]
        step = float(np.median(rows[:, 40:]))
        more = np.median(rows, axis=0) - step
        print(f"| {step * 1e3:.3f} | {more[0] * 1e3:.2f} | {more[1:40].sum() * 1e3:.2f} | ", end="")
        print(f"{more[:40].sum() / (step * every):.1%} |")


def epoch_backups(parameters: int, folder: Path, epochs: int = 8) -> None:
    width = int((parameters / 4) ** 0.5)
    x = np.ones((8, width), "float32")

    def waited(callback: Any) -> float:
        """Return the median of the seconds that training waits at the end of an epoch, without the first epoch."""
        times: list[float] = []

        class Timed(type(callback)):  # type: ignore[misc]
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                before = time.perf_counter()
                super().on_epoch_end(epoch, logs)
                times.append(time.perf_counter() - before)

        callback.__class__ = Timed
        oncue.utils.set_random_seed(0)
        layers = [oncue.layers.Dense(width, use_bias=False) for _ in range(4)]
        model = oncue.Sequential([oncue.layers.Input((width,)), *layers])
        model.compile("adam", "mse")

        def settle(epoch: int, logs: Any) -> None:
            # Gives a background save time to finish before the next epoch ends, as in long epochs.
            time.sleep(max(0.5, parameters / 2e7))

        pause = oncue.callbacks.LambdaCallback(on_epoch_begin=settle)
        model.fit(x, x, epochs=epochs, verbose=0, callbacks=[pause, callback])
        return statistics.median(times[1:])

    ways = {
        "ModelCheckpoint(asynchronous=True), `.keras`": lambda: waited(
            oncue.callbacks.ModelCheckpoint(folder / "m.keras", asynchronous=True)
        ),
        "BackupAndRestore": lambda: waited(oncue.callbacks.BackupAndRestore(folder / "epochs")),
    }
    table("Time that training waits at the end of an epoch: weights and Adam's state", next(iter(ways)), ways, 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backups", action="store_true", help="only the benchmarks of backups")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, one thread, {options.parameters} parameters; {load} before it began")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        if not options.backups:
            module = network(options.parameters)
            synchronous(module, folder, options.rounds)
            asynchronous(module, folder, options.rounds)
            keras_files(folder, options.rounds)
        backups(folder, max(options.rounds, 5))
        steady_backups(folder, options.rounds)
        epoch_backups(options.parameters, folder)


if __name__ == "__main__":
    main()
