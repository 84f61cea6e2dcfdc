"""How often each callback makes training wait for the device: in a step, and in an epoch beside what an epoch without it does.

    python benchmarks/host_waits.py                 on the CPU, by counting what would wait
    python benchmarks/host_waits.py --device cuda   on a GPU, by what CUDA calls a synchronizing operation

It prints the table of docs/gpu.md. An epoch without callbacks waits once, for its values.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import oncue
from oncue import callbacks as built_in
from oncue.callbacks import Callback
from oncue.checkpoints import device_copies
from oncue.training import meter

STEPS, EPOCHS = 8, 3


class Trial:
    """A trial of a search, as good as any."""

    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False


class Service:
    """A tracker that keeps nothing."""

    def start(self, identity: Any, config: Any) -> str:
        return "first"

    def log(self, values: Any, step: int) -> None:
        pass

    def tell(self, decisions: Any, step: int) -> None:
        pass

    def keep(self, path: str) -> None:
        pass

    def finish(self, status: str) -> None:
        pass


# Each with what it is used with; what reads values reads them at the end of an epoch, unless its row says otherwise.
CALLBACKS: dict[str, Callable[[Path], list[Callback]]] = {
    "BackupAndRestore": lambda folder: [built_in.BackupAndRestore(folder / "backup")],
    "BackupAndRestore, every 2 steps": lambda folder: [built_in.BackupAndRestore(folder / "backup", save_freq=2)],
    "CSVLogger": lambda folder: [built_in.CSVLogger(folder / "log.csv")],
    "Control": lambda folder: [built_in.Control(folder / "control")],
    "DeviceStats": lambda folder: [built_in.DeviceStats()],
    "EarlyStopping": lambda folder: [built_in.EarlyStopping("loss", patience=9)],
    "EarlyStopping, the best weights": lambda folder: [
        built_in.EarlyStopping("loss", patience=9, restore_best_weights=True)
    ],
    "Freeze": lambda folder: [built_in.Freeze("body", from_epoch=1)],
    "GradientNorms": lambda folder: [built_in.GradientNorms(every=1)],
    "JournalLogger": lambda folder: [built_in.JournalLogger(folder / "journal.jsonl")],
    "LearningRateScheduler": lambda folder: [built_in.LearningRateScheduler(lambda epoch, rate: rate * 0.9)],
    "ModelCheckpoint, asynchronous": lambda folder: [
        built_in.ModelCheckpoint(folder / "m.keras", asynchronous=True),
    ],
    "ModelCheckpoint": lambda folder: [built_in.ModelCheckpoint(folder / "m.keras")],
    "MixUp": lambda folder: [built_in.MixUp(0.2)],
    "OptunaPruning": lambda folder: [built_in.OptunaPruning(Trial(), "loss")],
    "Preemption": lambda folder: [built_in.Preemption()],
    "Profile, after its batches": lambda folder: [built_in.Profile((2, 4), folder / "profile")],
    "ProgbarLogger, a line for each epoch": lambda folder: [built_in.ProgbarLogger()],
    "RayTuneReport": lambda folder: [built_in.RayTuneReport(report=lambda numbers: None)],
    "ReduceLROnPlateau": lambda folder: [built_in.ReduceLROnPlateau("loss")],
    "RunFolder": lambda folder: [built_in.RunFolder(folder / "run")],
    "StopAtThreshold": lambda folder: [built_in.StopAtThreshold("loss", -1.0)],
    "SwapEMAWeights, in each epoch": lambda folder: [built_in.SwapEMAWeights(swap_on_epoch=True)],
    "TensorBoard": lambda folder: [built_in.TensorBoard(folder / "tb")],
    "TerminateOnNaN": lambda folder: [built_in.TerminateOnNaN()],
    "Throughput": lambda folder: [built_in.Throughput()],
    "TimeLimit": lambda folder: [built_in.TimeLimit("1 day")],
    "Tracker": lambda folder: [built_in.Tracker(Service())],
    "WeightAverage": lambda folder: [built_in.WeightAverage(0.9)],
}


class Waits:
    """Counts waits.

    Attributes:
        count: How many there were.
        together: Whether several values are read under way that a device gives in one transfer.
    """

    count = 0
    together = False


@contextmanager
def counted_on_cuda() -> Iterator[Waits]:
    """Count what CUDA calls a synchronizing operation."""
    waits, show = Waits(), warnings.showwarning

    def note(message: Warning | str, *arguments: Any, **options: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            waits.count += 1
        else:
            show(message, *arguments, **options)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", ".*synchronizing CUDA operation")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")


# Where tensors are the host's on a GPU, too: the seed of an order, the count of updates, the digests of arrays on the host.
HOSTS_OWN = ("order.py", "optimizer_arrays.py", "digest.py")


def is_hosts_own() -> bool:
    """Return whether what reads a tensor now reads one of the host's."""
    frame = sys._getframe(2)
    for _ in range(6):
        if frame is None:
            break
        if frame.f_code.co_filename.endswith(HOSTS_OWN):
            return True
        frame = frame.f_back  # type: ignore[assignment]  # None at the end
    return False


class Reads(TorchDispatchMode):
    """Counts operators that give the host a value or a size that it can't know."""

    OPERATORS = (
        torch.ops.aten._local_scalar_dense.default,
        torch.ops.aten.equal.default,
        torch.ops.aten.nonzero.default,
        torch.ops.aten.masked_select.default,
    )

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        known = any(getattr(one, "on_host", False) for one in tensors)
        if func in self.OPERATORS and not known and not self.waits.together and not is_hosts_own():
            self.waits.count += 1
        return func(*args, **(kwargs or {}))


class Beside:
    """Takes CUDA's place for the copies of saves: they are made at once, and the host's waits for them are counted."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits

    def free(self) -> int:
        return 1 << 40

    def page_locked(self, size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8)

    def working(self) -> Beside:
        return self

    def beside(self) -> Beside:
        return self

    def record_event(self) -> Beside:
        return self

    def wait_event(self, event: Beside) -> None:
        pass

    def synchronize(self) -> None:
        # The thread that writes may wait.
        if threading_is_main():
            self.waits.count += 1

    def copy(self, stream: Beside, copies: Any, sources: Any) -> None:
        for one, source in zip(copies, sources, strict=True):
            one.copy_(source)
            one.on_host = True


def threading_is_main() -> bool:
    """Return whether this is the thread that trains."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def counted_on_cpu() -> Iterator[Waits]:
    """Count what would wait, if the tensors of the CPU were a device's; what was read once is the host's."""
    waits = Waits()
    before = {name: getattr(torch.Tensor, name) for name in ("cpu", "tolist", "numpy", "__array__")}
    copies_of = device_copies.copies_of

    def wrapped(name: str) -> Callable[..., Any]:
        def read(self: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            known = getattr(self, "on_host", False) or waits.together
            if threading_is_main() and not known and not is_hosts_own():
                waits.count += 1
            found = before[name](self, *arguments, **options)
            if isinstance(found, torch.Tensor):
                found = found.clone()
                found.on_host = True  # type: ignore[attr-defined]  # a mark of this script's
            return found

        return read

    fetch = meter._fetch

    def fetched(parts: Any) -> list[Any]:
        if not threading_is_main():
            return fetch(parts)
        waits.count += any(isinstance(part, torch.Tensor) for part in parts)
        waits.together = True
        try:
            return fetch(parts)
        finally:
            waits.together = False

    meter._fetch = fetched
    for name in before:
        setattr(torch.Tensor, name, wrapped(name))
    beside: Any = Beside(waits)
    device_copies.copies_of = lambda device: beside
    try:
        with Reads(waits):
            yield waits
    finally:
        device_copies.copies_of, meter._fetch = copies_of, fetch
        for name, method in before.items():
            setattr(torch.Tensor, name, method)


class Between(Callback):
    """Keeps the count of waits between the first batch of an epoch and its last one, and of the whole run's epochs."""

    runs_last = True

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits
        self.steps: list[int] = []
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(self.waits.count)
        self.at = self.waits.count

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.at = self.waits.count
        elif batch == STEPS - 1:
            # The last step's own waits come after this, as those before the first do: they are the epoch's.
            self.steps.append(self.waits.count - self.at)


def waits_of(make: Callable[[Path], list[Callback]], device: str) -> tuple[float, float]:
    """Return how often a run with callbacks waits for the device in a step, and in an epoch beside its steps."""
    counted = counted_on_cuda if device == "cuda" else counted_on_cpu
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([oncue.layers.Input((4,)), oncue.layers.Dense(8, name="body"), oncue.layers.Dense(1)])
    model.compile(oncue.optimizers.Adam(use_ema=True), "mse", metrics=["mae"], jit_compile=False)
    x = np.random.default_rng(0).normal(size=(STEPS * 4, 4)).astype("float32")
    with tempfile.TemporaryDirectory() as folder, counted() as waits:
        between = Between(waits)
        callbacks = [*make(Path(folder)), between]
        verbose = 2 if any(isinstance(one, built_in.ProgbarLogger) for one in callbacks) else 0
        model.fit(x, x[:, :1], batch_size=4, epochs=EPOCHS, verbose=verbose, callbacks=callbacks)
    # The first epoch has what is done once.
    in_steps = between.steps[1]
    return in_steps / (STEPS - 1), between.epochs[2] - between.epochs[1] - in_steps


def table(device: str) -> list[str]:
    """Return the lines of the table."""
    _, base = waits_of(lambda folder: [], device)
    lines = ["| Callback | waits in a step | in an epoch, beside the one for its values |", "|---|---|---|"]
    for name, make in CALLBACKS.items():
        step, epoch = waits_of(make, device)
        callback, _, how = name.partition(", ")
        lines.append(f"| `{callback}`{', ' if how else ''}{how} | {step:.2g} | {epoch - base:g} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    oncue.backend.set_device(options.device)
    print("\n".join(table(options.device)))


if __name__ == "__main__":
    main()
