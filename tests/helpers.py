"""Helpers shared by test files: values on the machine's device, interrupted runs, damaged files.

Tests must also pass on a machine with an accelerator, where models and layers are placed. So a test passes its inputs through
`tensor`, and what it compares with NumPy through `to_numpy`. Only `cpu_only` restricts a test to the CPU, and requires a
reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import oncue
from oncue.callbacks import Callback
from oncue.feeding.batches import Batches, as_batches
from oncue.training.graph.choice import GraphChoice
from oncue.training.graph.traced_graph import Compiler


def tensor(values: Any, dtype: torch.dtype | None = None, requires_grad: bool = False) -> torch.Tensor:
    """Return a copy of values where oncue places layers.

    Random ones are drawn by the caller, on the CPU, so that they are the same on every machine.
    """
    copied = torch.as_tensor(values, dtype=dtype).to(oncue.backend.device(), copy=True)
    return copied.requires_grad_() if requires_grad else copied


def parameter(values: Any) -> torch.nn.Parameter:
    """Return a parameter where oncue places layers."""
    return torch.nn.Parameter(tensor(values))


def to_numpy(value: Any) -> NDArray[Any]:
    """Return the values of a tensor of any device, or of what has some (a weight, an array, a list), as an array."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def cpu_only(reason: str) -> pytest.MarkDecorator:
    """Bind a test to the CPU where there is an accelerator, too: oncue finds none while it runs.

    Args:
        reason: Why the test is about nothing that an accelerator has a part in: it forks, it counts what only the CPU does.
    """
    if not reason:
        raise ValueError("a test that leaves the accelerator out says why")
    return pytest.mark.cpu_only(reason=reason)


class Ends(Callback):
    """Keeps what it hears of the end of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def on_train_end(self, logs: Any = None) -> None:
        self.heard.append("end")

    def on_exception(self, exception: BaseException) -> None:
        self.heard.append(type(exception).__name__)

    def close(self) -> None:
        self.heard.append("close")


class PowerCut(Callback):
    """Ends a run with a ConnectionError before a batch, or before the first one of an epoch."""

    def __init__(self, epoch: int, batch: int | None = None) -> None:
        super().__init__()
        self.at = (epoch, batch)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        if self.at == (epoch, None):
            raise ConnectionError("power cut")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.at == (self._epoch, batch):
            raise ConnectionError("power cut")


class ScriptedLosses(Callback):
    """Puts values into the logs as `val_loss`, one for each epoch."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = self.values[epoch]


class NoWaits(Callback):
    """Lets CUDA refuse whatever waits for the device between the beginning of a batch and its end."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def close(self) -> None:
        # However the run ended, the tests after it may wait.
        torch.cuda.set_sync_debug_mode("default")


class HopefulTrial:
    """A trial of Optuna's, which is never pruned."""

    def report(self, value: float, step: int) -> None:
        pass

    def should_prune(self) -> bool:
        return False


class Clock:
    """A clock that the test moves, for whatever asks one by calling it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


class RemoteService:
    """A service that a `Tracker` may report to, which keeps nothing."""

    def start(self, identity: Any, config: Any) -> str:
        return identity or "first"

    def log(self, values: Any, step: int) -> None:
        pass

    def tell(self, decisions: Any, step: int) -> None:
        pass

    def keep(self, path: str) -> None:
        pass

    def finish(self, status: str) -> None:
        pass


def uncompiled(graph: Any, inputs: Any, device: Any) -> Any:
    """Take the place of the compiler: the graph runs operation by operation, as eager code does."""
    return graph


@contextmanager
def graphs_compiled_by(compiler: Compiler) -> Iterator[None]:
    """Send traced graphs to another compiler: the C++ compiler takes seconds for each."""
    with pytest.MonkeyPatch.context() as patch:
        # A static method that is read from its class and set again would be bound: the patch puts back what was there.
        patch.setattr(GraphChoice, "compiler", staticmethod(compiler))
        yield


def on_the_same_memory(graph: Any, memory: Any) -> Any:
    """Record a graph as CUDA does: nothing runs meanwhile, and each replay works on the memory of the recording."""
    before, random = [one.clone() for one in memory], torch.get_rng_state()
    outputs = graph(*memory)
    for one, value in zip(memory, before, strict=True):
        one.copy_(value)
    torch.set_rng_state(random)

    def replay() -> None:
        for output, value in zip(outputs, graph(*memory), strict=True):
            output.copy_(value)

    return replay, outputs


def batches_of(*data: Any, **options: Any) -> Batches:
    """Return what `fit` would make of data; on the CPU, as feeding is looked at here without a model."""
    return as_batches(*data, device="cpu", **options)


def rows_of(batches: Batches, start: int = 0) -> list[Any]:
    """Return the numbers of `x` that one pass over batches gives."""
    return [number for x, _, _ in batches.epoch(start) for number in x.flatten().tolist()]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return random numbers around 0, the same at every call."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def environment() -> dict[str, str]:
    """Return the environment of a process that imports what this one does, and in a `cpu_only` test sees no accelerator."""
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return found if torch.cuda.is_available() else {**found, "CUDA_VISIBLE_DEVICES": ""}


def samples(*shape: int) -> NDArray[np.float32]:
    """Return eight samples of a shape."""
    return normal(8, *shape, seed=3)


def small_model() -> Any:
    """Return a compiled model of one layer."""
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(optimizer="sgd", loss="mse")
    return made


def damage(path: Path) -> None:
    """Turn one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def same_arrays(first: list[Any], second: list[Any]) -> bool:
    """Whether two lists of arrays are equal to the bit."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
