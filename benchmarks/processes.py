"""Times steps of several processes that train together, beside a loop around torch's DistributedDataParallel.

    python benchmarks/processes.py               two processes, gloo; both loops by turns in one run, in processor time
    python benchmarks/processes.py --sharded     the same with parts of the weights on each, beside a loop around fully_shard
    python benchmarks/processes.py --saves       saves of parts of the weights, beside torch's `distributed.checkpoint`
    python benchmarks/processes.py --simulate    messages per step and epoch, and time of the host, for up to 1000 processes
    python benchmarks/processes.py --simulate --sharded    the same with parts of the weights, and what the plan of a save takes
    python benchmarks/processes.py --overlap     one message after the backward pass, beside several that are sent during it

The loop by hand keeps the same sums: of the loss, and of how many labels are right. Each epoch of `fit` is followed by one of
that loop; its time has the sums at its end in it, but neither the beginning of `fit` nor its end.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from tables import heading
from torch.nn.parallel import DistributedDataParallel

import oncue
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.writer import Writer
from oncue.core.process import process
from oncue.core.ranks import ASKED, Ranks
from oncue.training import gradient_sum

LARGE = (32, 4096, 4)
"""A network of 200 MB of weights, which processes have parts of: rows, width, hidden layers."""
SIZES = {"MLP 32": (32, 64, 1), "MLP 1.2 M weights": (128, 1024, 2)}
"""The rows of a batch, the width of a layer, and the number of hidden layers."""
STEPS = 100
OVERLAPPED = {"4.2 M weights": (64, 1024, 5), "17 M weights": (64, 2048, 5)}
OVERLAPPED_STEPS = 10


def network(width: int, layers: int) -> torch.nn.Sequential:
    """Return a network for 32 features and 10 classes."""
    torch.manual_seed(0)
    parts: list[torch.nn.Module] = [torch.nn.Linear(32, width), torch.nn.ReLU()]
    for _ in range(layers - 1):
        parts += [torch.nn.Linear(width, width), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts, torch.nn.Linear(width, 10))


class ByTurns(oncue.callbacks.Callback):
    """Times each epoch of `fit`, and one of a loop by hand after it."""

    def __init__(
        self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, rows: int, sharded: bool = False
    ) -> None:
        super().__init__()
        self._module = by_fsdp(module) if sharded else DistributedDataParallel(module, gradient_as_bucket_view=True)
        self._optimizer = torch.optim.Adam(module.parameters(), fused=True)
        self._x, self._y, self._rows = x, y, rows
        self.ratios: list[float] = []
        self.micros: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin an epoch of `fit`."""
        dist.barrier()
        self._began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take its time, and that of the loop by hand."""
        mine = time.process_time() - self._began
        dist.barrier()
        began = time.process_time()
        self.by_hand()
        other = time.process_time() - began
        self.ratios.append(mine / other)
        self.micros.append(other / (len(self._x) // self._rows) * 1e6)

    def by_hand(self) -> None:
        """Run an epoch of the loop by hand."""
        rank, size = dist.get_rank(), dist.get_world_size()
        own = self._rows // size
        sums = torch.zeros(2, dtype=torch.float64)
        for step in range(len(self._x) // self._rows):
            low = step * self._rows + rank * own
            x, y = self._x[low : low + own], self._y[low : low + own]
            self._optimizer.zero_grad()
            outputs = self._module(x)
            loss = torch.nn.functional.cross_entropy(outputs, y)
            loss.backward()
            self._optimizer.step()
            with torch.no_grad():
                sums[0] += loss * own
                sums[1] += (outputs.argmax(-1) == y).sum()
        dist.all_reduce(sums)
        sums.tolist()


def by_fsdp(module: torch.nn.Module) -> torch.nn.Module:
    """Shard a network by torch's `fully_shard`, each large layer by itself."""
    from torch.distributed.fsdp import fully_shard

    for layer in module.children():
        if sum(one.numel() for one in layer.parameters()) >= 1 << 16:
            fully_shard(layer)
    fully_shard(module)
    return module


def sharded_worker(rounds: int, alone: str) -> None:
    """Time both with parts of the weights in this process; or run one of them alone, and tell its memory.

    Args:
        rounds: Epochs of each loop.
        alone: "oncue" or "hand" to run that loop alone; "" for both by turns.
    """
    oncue.distribution.initialize()
    oncue.distribution.set_distribution(oncue.distribution.DataParallel(shard_weights=True))
    rows, width, layers = LARGE
    steps = 4
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows * steps, 32)).astype("float32")
    y = rng.integers(0, 10, size=rows * steps)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    callbacks: list[Any] = []
    if alone != "oncue":
        callbacks = [ByTurns(network(width, layers), torch.from_numpy(x), torch.from_numpy(y), rows, sharded=True)]
    if alone == "hand":
        for _ in range(rounds):
            callbacks[0].by_hand()
    else:
        model = oncue.Model(network(width, layers))
        model.compile(oncue.optimizers.Adam(0.001), torch.nn.CrossEntropyLoss(), metrics=["accuracy"])
        model.fit(x, y, batch_size=rows, epochs=rounds + 1, shuffle=False, verbose=0, callbacks=callbacks)
    if not process.group.main:
        return
    if alone:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f"| {alone} alone: peak memory over that before the model, MB | {peak / 1024:.0f} | |", flush=True)
        return
    ratios, micros = callbacks[0].ratios[1:], callbacks[0].micros[1:]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"| MLP {width}, 200 MB | {statistics.median(micros):.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) |",
        flush=True,
    )


def sharded_model() -> Any:
    """Return a network of 200 MB that was trained for a step, of which each process has parts."""
    oncue.distribution.initialize()
    oncue.distribution.set_distribution(oncue.distribution.DataParallel(shard_weights=True))
    rows, width, layers = LARGE
    model = oncue.Model(network(width, layers))
    model.compile(oncue.optimizers.SGD(0.001), torch.nn.CrossEntropyLoss())
    model.fit(np.zeros((rows, 32), "float32"), np.zeros(rows, "int64"), batch_size=rows, verbose=0)
    return model


def saves_worker(rounds: int, folder: str) -> None:
    """Save by turns by oncue and by torch's own, to one disk, and print what each takes."""
    model = sharded_model()
    import torch.distributed.checkpoint as dcp

    # It writes over what it has written the time before.
    warnings.filterwarnings("ignore", message="Detected an existing checkpoint")
    weights: dict[str, Any] = {"model": dict(model.named_parameters())}
    snapshot, writer = Snapshot(beside=True), Writer("a save")

    def ours_later() -> Callable[[], object]:
        writer.submit(model.prepare_save(f"{folder}/later.shards", weights_only=True, snapshot=snapshot))
        return writer.wait

    def theirs_later() -> Callable[[], object]:
        future: Any = dcp.async_save(weights, checkpoint_id=f"{folder}/dcp-later")
        return future.result  # type: ignore[no-any-return]

    def at_once(save: Callable[[], object]) -> Callable[[], Callable[[], object]]:
        def call() -> Callable[[], object]:
            save()
            return lambda: None

        return call

    ways = {
        "`save_weights` of oncue": at_once(lambda: model.save_weights(f"{folder}/now.shards")),
        "`dcp.save`": at_once(lambda: dcp.save(weights, checkpoint_id=f"{folder}/dcp")),
        "`ModelCheckpoint(asynchronous=True)`": ours_later,
        "`dcp.async_save`": theirs_later,
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, save in ways.items():
            dist.barrier()
            began, processor = time.perf_counter(), time.process_time()
            wait = save()
            waited = time.perf_counter() - began
            wait()
            taken = time.perf_counter() - began, time.process_time() - processor
            found[name].append((waited, *taken))
    if process.group.main:
        for name, times in found.items():
            cells = [f"{statistics.median(column) * 1e3:.0f}" for column in zip(*times[1:], strict=True)]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def worker(rounds: int) -> None:
    """Time both in this process, one of several; the main process prints a row for each network."""
    oncue.distribution.initialize()
    for name, (rows, width, layers) in SIZES.items():
        rng = np.random.default_rng(0)
        x = rng.normal(size=(rows * STEPS, 32)).astype("float32")
        y = rng.integers(0, 10, size=rows * STEPS)
        model = oncue.Model(network(width, layers))
        model.compile(oncue.optimizers.Adam(0.001), torch.nn.CrossEntropyLoss(), metrics=["accuracy"])
        by_turns = ByTurns(network(width, layers), torch.from_numpy(x), torch.from_numpy(y), rows)
        model.fit(x, y, batch_size=rows, epochs=rounds + 1, shuffle=False, verbose=0, callbacks=[by_turns])
        if by_turns.ranks.main:
            ratios, micros = by_turns.ratios[1:], by_turns.micros[1:]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"| {name} | {statistics.median(micros):.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", flush=True)


def overlap(rounds: int) -> None:
    """Time a step with one message after the backward pass, and with buckets that torch sends while it goes on."""
    oncue.distribution.initialize()
    for name, (rows, width, layers) in OVERLAPPED.items():
        x, y = torch.randn(rows, 32), torch.randint(0, 10, (rows,))
        modules = {size: network(width, layers) for size in (None, 25.0, 1.0)}
        wholes = {
            size: module if size is None else DistributedDataParallel(module, bucket_cap_mb=size)
            for size, module in modules.items()
        }
        times: dict[float | None, list[tuple[float, float]]] = {size: [] for size in modules}
        for _ in range(rounds + 1):
            for size, module in wholes.items():
                parameters = list(module.parameters())
                dist.barrier()
                began = time.process_time(), time.perf_counter()
                for _ in range(OVERLAPPED_STEPS):
                    module.zero_grad()
                    torch.nn.functional.cross_entropy(module(x), y).backward()
                    if size is None:
                        flat = torch.cat([one.grad.reshape(-1) for one in parameters if one.grad is not None])
                        dist.all_reduce(flat)
                taken = time.process_time() - began[0], time.perf_counter() - began[1]
                times[size].append((taken[0] / OVERLAPPED_STEPS * 1e3, taken[1] / OVERLAPPED_STEPS * 1e3))
        if dist.get_rank() == 0:
            print(f"| {name} | {' | '.join(cells(found[1:]) for found in times.values())} |", flush=True)
    if dist.get_rank() == 0:
        print(
            "\n| Step of oncue: ms of processor time, ms | One message | Several, during it |\n|---|---|---|",
            flush=True,
        )
    for name, (rows, width, layers) in OVERLAPPED.items():
        for compiled in (False, True):
            x = np.random.default_rng(0).normal(size=(rows * OVERLAPPED_STEPS, 32)).astype("float32")
            y = np.zeros(rows * OVERLAPPED_STEPS, dtype="int64")
            ways: dict[bool, tuple[oncue.Model, Epochs]] = {}
            for divided in (False, True):
                model = oncue.Model(network(width, layers))
                model.compile(oncue.optimizers.SGD(0.001), torch.nn.CrossEntropyLoss(), jit_compile=compiled)
                ways[divided] = model, Epochs()
            for _ in range(rounds + 1):
                for divided, (model, epochs) in ways.items():
                    with nullcontext() if divided else mock.patch.object(gradient_sum, "_DIVIDED_FROM", 1 << 60):
                        model.fit(x, y, batch_size=rows, shuffle=False, verbose=0, callbacks=[epochs])
            if dist.get_rank() == 0:
                one, several = (cells(epochs.times[1:]) for _, epochs in ways.values())
                print(f"| {name}, {'compiled' if compiled else 'eager'} | {one} | {several} |", flush=True)


class Epochs(oncue.callbacks.Callback):
    """Times the epochs of `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[float, float]] = []
        self._began = 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin."""
        dist.barrier()
        self._began = time.process_time(), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the time of a step, in milliseconds."""
        taken = time.process_time() - self._began[0], time.perf_counter() - self._began[1]
        self.times.append((taken[0] / OVERLAPPED_STEPS * 1e3, taken[1] / OVERLAPPED_STEPS * 1e3))


def cells(times: list[tuple[float, float]]) -> str:
    """Return medians of times, as a cell of a table."""
    return f"{statistics.median(one[0] for one in times):.1f}, {statistics.median(one[1] for one in times):.1f}"


class Simulated(Ranks):
    """Stands for a group of any size, answers itself at once, and counts what it is asked."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.messages = size, 0
        self.failures, self.reason = self, None

    def running(self, place: Any) -> Any:
        """Enclose a run."""
        return nullcontext()

    def look(self) -> None:
        """Look for failures."""

    def joined_again(self) -> Simulated:
        """Return itself."""
        return self

    def together(self, what: str) -> None:
        """Agree on what comes next."""

    def questions(self) -> list[float]:
        """Return what is asked: nothing."""
        return [0.0] * len(ASKED)

    def answer(self, sums: Any, late: bool = False) -> None:
        """Take the answers."""

    def run(self, begin: Any, what: str, on_device: bool = False) -> None:
        """Count a message, which torch's stand-in for a group answers."""
        self.messages += 1
        begin().wait()

    def sum_(self, tensor: torch.Tensor, what: str = "") -> torch.Tensor:
        """Count a message."""
        self.messages += 1
        return tensor

    def begin_sum(self, tensor: torch.Tensor, what: str = "") -> Callable[[], None]:
        """Count a message."""
        self.messages += 1
        return lambda: None

    def read(self, tensor: torch.Tensor, what: str = "") -> list[float]:
        """Return the numbers of a tensor."""
        found: list[float] = tensor.tolist()
        return found

    def sum_numbers(self, numbers: Any, what: str = "") -> list[float]:
        """Count a message."""
        self.messages += 1
        return list(numbers)

    def sum_compared(self, numbers: Any, texts: Any, what: str = "") -> tuple[list[float], bool]:
        """Count a message; all have the same texts."""
        self.messages += 1
        return list(numbers), True

    def broadcast_(self, tensors: Any, what: str = "") -> None:
        """Count messages."""
        self.messages += len(list(tensors))

    def gather(self, tensor: torch.Tensor, what: str = "") -> list[torch.Tensor]:
        """Count a message, and answer for all."""
        self.messages += 1
        return [tensor] * self.size

    def gather_texts(self, text: str, what: str = "", checked: bool = True) -> list[str]:
        """Count a message, and answer for all."""
        self.messages += 1
        return [text] * self.size


class Counts(oncue.callbacks.Callback):
    """Counts messages, and takes the time of steps."""

    def __init__(self, group: Simulated) -> None:
        super().__init__()
        self._group = group
        self.steps: list[int] = []
        self.seconds: list[float] = []
        self.epochs: list[int] = []
        self._at = self._epoch = 0
        self._time = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin to count."""
        self._epoch = self._group.messages

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin to count."""
        self._at, self._time = self._group.messages, time.process_time()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take note."""
        self.seconds.append(time.process_time() - self._time)
        self.steps.append(self._group.messages - self._at)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take note."""
        self.epochs.append(self._group.messages - self._epoch - sum(self.steps[-STEPS:]))


def simulate() -> None:
    """Print messages and times of the main process of groups of several sizes, each with 16 rows a batch."""
    print("| Processes | messages per step | other messages per epoch | host, us per step |\n|---|---|---|---|")
    for size in (2, 10, 100, 1000):
        group = Simulated(size)
        process.group = group
        rng = np.random.default_rng(0)
        rows = 16 * size
        x = np.broadcast_to(rng.normal(size=(1, 32)).astype("float32"), (rows * STEPS, 32))
        y = np.zeros(rows * STEPS, dtype="int64")
        model = oncue.Model(network(64, 1))
        model.compile(oncue.optimizers.Adam(0.001), torch.nn.CrossEntropyLoss(), metrics=["accuracy"])
        counts = Counts(group)
        model.fit(x, y, batch_size=rows, epochs=4, shuffle=False, verbose=0, callbacks=[counts])
        micros = statistics.median(counts.seconds[STEPS:]) * 1e6
        print(f"| {size} | {max(counts.steps)} | {max(counts.epochs)} | {micros:.0f} |", flush=True)


def simulate_sharded() -> None:
    """Print the same where each process has parts of the weights, and the time of the plan of a save, made and used again."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    print(
        "| Processes | messages per step | other messages per epoch | host, us per step | plan of a save, ms | used again, ms |"
        "\n|---|---|---|---|---|---|"
    )
    for size in (2, 10, 100, 1000):
        dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
        group = Simulated(size)
        process.group = group
        oncue.distribution.set_distribution(oncue.distribution.DataParallel(shard_weights=True))
        rows = 4 * size
        x = np.zeros((1, 32), dtype="float32")
        y = np.zeros(rows * STEPS, dtype="int64")
        model = oncue.Model(network(512, 8))
        model.compile(oncue.optimizers.Adam(0.001), torch.nn.CrossEntropyLoss(), metrics=["accuracy"])
        counts = Counts(group)
        x = np.broadcast_to(x, (rows * STEPS, 32))
        model.fit(x, y, batch_size=rows, epochs=3, shuffle=False, verbose=0, callbacks=[counts])
        micros = statistics.median(counts.seconds[STEPS:]) * 1e6
        plans = plan_times(dict(model.named_parameters()))
        cells = [f"{max(counts.steps)}", f"{max(counts.epochs)}", f"{micros:.0f}", *(f"{one:.1f}" for one in plans)]
        print(f"| {size} | {' | '.join(cells)} |", flush=True)
        dist.destroy_process_group()


def plan_times(weights: dict[str, Any]) -> tuple[float, float]:
    """Return the milliseconds that a plan takes, of a save of weights with two numbers for each, and when it is used again."""
    from oncue.shards.planned import Plan

    tensors = {f"{slot} {name}": weight for slot in ("weight", "first", "second") for name, weight in weights.items()}
    first = again = float("inf")
    for _ in range(5):
        plan = Plan()
        began = time.process_time()
        plan.own_parts(tensors)
        planned = time.process_time()
        plan.own_parts(tensors)
        first, again = min(first, planned - began), min(again, time.process_time() - planned)
    return first * 1e3, again * 1e3


def main() -> None:
    """Read the command line, and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many")
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each loop")
    parser.add_argument("--sharded", action="store_true", help="each process with parts of the weights")
    parser.add_argument(
        "--saves", default="", metavar="FOLDER", nargs="?", const=".", help="time saves to a folder instead"
    )
    parser.add_argument(
        "--alone", default="", choices=["", "oncue", "hand"], help="with --sharded: one loop, and its memory"
    )
    parser.add_argument("--simulate", action="store_true", help="count messages instead")
    parser.add_argument("--overlap", action="store_true", help="time messages during the backward pass instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        if options.overlap:
            overlap(options.rounds)
        elif options.saves:
            saves_worker(options.rounds, options.saves)
        elif options.sharded:
            sharded_worker(options.rounds, options.alone)
        else:
            worker(options.rounds)
        return
    print(heading([], "cpu"), "\n", flush=True)
    if options.simulate:
        if options.sharded:
            simulate_sharded()
        else:
            simulate()
        return
    if options.overlap:
        print(
            "| Backward pass, gloo: ms of processor time, ms | One message | Buckets of 25 MB | Of 1 MB |", flush=True
        )
        print("|---|---|---|---|", flush=True)
        sys.exit(started_together(options, ["--overlap"]))
    if options.saves:
        print(
            "| Save of 200 MB, gloo | training waits, ms | until it is on the disk, ms | processor time, ms |",
            flush=True,
        )
        print("|---|---|---|---|", flush=True)
        with tempfile.TemporaryDirectory(dir=options.saves) as folder:
            sys.exit(started_together(options, ["--saves", folder]))
    engine = "fully_shard" if options.sharded else "DistributedDataParallel"
    print(f"| Step, gloo | {engine} by hand, us of processor time | oncue |\n|---|---|---|", flush=True)
    runs = [["--sharded"], ["--sharded", "--alone=hand"], ["--sharded", "--alone=oncue"]] if options.sharded else [[]]
    sys.exit(max(started_together(options, run) for run in runs))


def started_together(options: argparse.Namespace, run: list[str]) -> int:
    """Start the processes of a run, and return the worst of their exit statuses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    places = {"WORLD_SIZE": str(options.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--rounds", str(options.rounds), *run],
            env={**os.environ, "OMP_NUM_THREADS": "1", **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(options.processes)
    ]
    return max(one.wait() for one in started)


if __name__ == "__main__":
    main()
