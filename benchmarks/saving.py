"""Time saves: of a large module's weights beside plain writing, in the background beside a plain copy, and backups.

python benchmarks/saving.py --parameters 100000000 --rounds 5

A save uses a second core while it writes, for the checksum; on a machine that is busy otherwise it has none.
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
    table("A save that is waited for", "plain sequential write, fsync", ways, rounds)


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
    table("What training waits for: weights and Adam's state", "plain copy: clone of every tensor", ways, rounds)


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


def backups(folder: Path, rounds: int) -> None:
    x = np.random.default_rng(0).normal(size=(32 * 600, 784)).astype("float32")
    y = np.random.default_rng(1).integers(0, 10, len(x))

    def trained(period: int | None) -> float:
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
        callbacks = []
        if period is not None:
            callbacks.append(oncue.callbacks.BackupAndRestore(folder / "backup", save_freq=period))
        return seconds(lambda: model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks))

    ways = {"no backup": lambda: trained(None), "a backup every 100 steps": lambda: trained(100)}
    table("600 steps of the MLP 784-128-64-10, batch 32", "no backup", ways, rounds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, one thread, {options.parameters} parameters; {load} before it began")
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        module = network(options.parameters)
        synchronous(module, folder, options.rounds)
        asynchronous(module, folder, options.rounds)
        keras_files(folder, options.rounds)
        backups(folder, max(options.rounds, 5))


if __name__ == "__main__":
    main()
