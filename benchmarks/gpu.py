"""What a GPU says, in one command of less than eight minutes: `make gpu`.

    python benchmarks/gpu.py                        on the GPU; skips itself where there is none; writes benchmarks/gpu.md
    python benchmarks/gpu.py --device cpu           every part in small on the CPU, to try the script out; prints only
    python benchmarks/gpu.py --parts saves,resume   some parts

Each part is a process of its own, which is ended when its time is over; what it has measured by then is written. Ratios are
of one process, one machine and one moment: rounds in turn, the median.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import gc
import io
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import oncue
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, ModelCheckpoint

HERE = Path(__file__).parent
# Those of the suite that say most of a device, in the time that there is.
TESTS = (
    "tests/training/test_device_reads.py",
    "tests/training/test_precision.py",
    "tests/training/test_fit.py",
    "tests/training/test_resume.py",
    "tests/training/test_memory.py",
    "tests/checkpoints",
    "tests/callbacks/test_asynchronous_checkpoint.py",
    "tests/callbacks/test_early_stopping.py",
    "tests/layers/test_inputs_from_the_cpu.py",
    "tests/feeding/test_arrays.py",
)


_PATIENCE = 30.0
"""How many seconds longer than its time a part may take, which begins with its imports."""


class Options(argparse.Namespace):
    """The command line."""

    device: str
    parts: list[str]
    part: str | None
    minutes: float
    output: Path | None

    @property
    def small(self) -> bool:
        """Whether sizes are those to try the script out."""
        return self.device == "cpu"


def settle(options: Options) -> None:
    """Wait for the device."""
    if options.device == "cuda":
        torch.cuda.synchronize()


def clock(options: Options) -> float:
    """Return the time when the device has done its work."""
    settle(options)
    return time.perf_counter()


def ran(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Run a command in the root of the repository, for so long at most; then end it with all that it has started.

    Returns:
        What it ended with, None when there was no time for its end; what it printed, and what it complained of.
    """
    paths = os.pathsep.join([str(HERE.parent / "src"), *sys.path[1:]])
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=complained,
            env={**os.environ, "PYTHONPATH": paths},
            cwd=HERE.parent,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for file in (said, complained):
            file.seek(0)
            texts.append(file.read().strip())
    return code, texts[0], texts[1]


# The suite -----------------------------------------------------------------------------------------------------------


def tests(options: Options, seconds: float) -> Iterator[str]:
    """Run the device part of the suite."""
    files = ["tests/checkpoints/test_snapshot_beside.py"] if options.small else list(TESTS)
    code, said, complained = ran([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], seconds)
    lines = said.splitlines()
    failed = [f"- {line}" for line in lines if line.startswith("FAILED")]
    yield f"`{(lines or [complained[-200:]])[-1].strip('= ')}`{'' if code is not None else ', when its time was over'}"
    yield from ["", *failed[:20]] if failed else []


# Steps -----------------------------------------------------------------------------------------------------------------


def steps(options: Options, seconds: float) -> Iterator[str]:
    """Time steps beside loops by hand, eager and compiled, with what a trace says of waits and of the idle device."""
    began = time.perf_counter()
    chosen = "tiny" if options.small else "mlp32,cnn,lstm"
    wanted = "oncue" if options.small else "hand-compiled,hand-graphs,oncue,oncue-jit"
    _, known, _ = ran(
        [sys.executable, "-c", "import sys; sys.path.insert(0, 'benchmarks'); import ways; print(*ways.WAYS)"], 60
    )
    ways = ",".join(way for way in wanted.split(",") if way in known.split())
    rounds = ["--rounds", "2", "--seconds", "0.001"] if options.small else ["--rounds", "5", "--seconds", "0.2"]
    script = [sys.executable, str(HERE / "training.py"), "--no-peers", "--device", options.device, "--measures", "step"]
    workloads = chosen.split(",")
    for place, workload in enumerate(workloads):
        # One that takes long leaves the others their share.
        left = (seconds - (time.perf_counter() - began)) / (len(workloads) - place)
        code, said, complained = ran([*script, "--workloads", workload, "--ways", ways, *rounds], left)
        yield from said.splitlines()
        if code != 0:
            why = "no end in its time" if code is None else f"it ended with {code}"
            yield f"\n`{workload}`: {why}: {complained[-300:]}\n"


class Attention(torch.nn.Module):
    """A block of a transformer: attention, then a wide layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.wide, self.narrow = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        query, key, value = self.qkv(self.norm(x)).view(batch, tokens, 3, -1, min(64, width)).permute(2, 0, 3, 1, 4)
        found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(found.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.narrow(torch.nn.functional.gelu(self.wide(self.second(x))))


class Head(torch.nn.Module):
    """The mean over tokens or pixels, and a layer of ten."""

    def __init__(self, width: int, channels_first: bool) -> None:
        super().__init__()
        self.dims, self.layer = ((2, 3) if channels_first else (1,)), torch.nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.mean(self.dims))


def network(kind: str, small: bool) -> tuple[torch.nn.Module, np.ndarray]:
    """Return a network and the inputs of a batch."""
    random = np.random.default_rng(0)
    if kind == "transformer":
        width, blocks, shape = (64, 1, (2, 8, 64)) if small else (768, 6, (16, 512, 768))
        return torch.nn.Sequential(*(Attention(width) for _ in range(blocks)), Head(width, False)), random.normal(
            size=shape
        ).astype("float32")
    width, blocks, shape = (8, 1, (2, 3, 8, 8)) if small else (128, 4, (128, 3, 64, 64))
    convolutions: list[torch.nn.Module] = [torch.nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(blocks):
        convolutions += [torch.nn.BatchNorm2d(width), torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3, padding=1)]
    return torch.nn.Sequential(*convolutions, Head(width, True)), random.normal(size=shape).astype("float32")


class Turns(Callback):
    """Times epochs of oncue's and of another loop in turn."""

    def __init__(self, options: Options, other: Callable[[], None], rounds: int) -> None:
        super().__init__()
        self.options, self.other, self.rounds = options, other, rounds
        self.ratios: list[float] = []
        self.at = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.at = clock(self.options)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        own = clock(self.options) - self.at
        began = time.perf_counter()
        self.other()
        # The first has what is done once.
        if epoch:
            self.ratios.append(own / (clock(self.options) - began))


def bf16(options: Options, seconds: float) -> Iterator[str]:
    """Time eager steps with autocast beside the same by hand."""
    yield from ("| eager bf16, ratio to the loop by hand | median of 7 | all |", "|---|---|---|")
    count, rounds = (2, 2) if options.small else (20, 7)
    for kind in ("transformer", "convolutions"):
        net, x = network(kind, options.small)
        y = np.arange(len(x)) % 10
        hand = copy.deepcopy(net).to(options.device)
        optimizer = torch.optim.Adam(hand.parameters())
        inputs, targets = torch.as_tensor(x, device=options.device), torch.as_tensor(y, device=options.device)

        def by_hand(hand: Any = hand, optimizer: Any = optimizer, inputs: Any = inputs, targets: Any = targets) -> None:
            total = torch.zeros((), device=options.device)
            for _ in range(count):
                optimizer.zero_grad()
                with torch.autocast(options.device, torch.bfloat16):
                    loss = torch.nn.functional.cross_entropy(hand(inputs), targets)
                loss.backward()
                optimizer.step()
                total += loss.detach()
            total.item()

        model = oncue.Model(net)
        loss = oncue.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(torch.optim.Adam(net.parameters()), loss, jit_compile=False, precision="bf16")
        turns = Turns(options, by_hand, rounds)
        data = np.concatenate([x] * count), np.concatenate([y] * count)
        model.fit(*data, batch_size=len(x), epochs=rounds + 1, shuffle=False, verbose=0, callbacks=[turns])
        ratios = sorted(turns.ratios)
        yield f"| {kind} | {statistics.median(ratios):.3f} | {', '.join(f'{one:.3f}' for one in ratios)} |"


# Saves ---------------------------------------------------------------------------------------------------------------


def large_model(options: Options) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return a model whose weights and Adam's state are 1.44 GB, in small 14 kB, and a batch."""
    width, blocks = (16, 2) if options.small else (4096, 7)
    oncue.utils.set_random_seed(0)
    parts = [layers.Dense(width, activation="relu") for _ in range(blocks)]
    model = oncue.Sequential([layers.Input((width,)), *parts, layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(8 if options.small else 1024, width)).astype("float32")
    return model, x, x[:, :1]


class Timed(Callback):
    """Notes the time of each step's end, as the host sees it."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.begun = self.ended = 0.0
        self.times: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.times = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.begun = clock(self.options)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.times.append(time.perf_counter())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.ended = clock(self.options)


def saves(options: Options, seconds: float) -> Iterator[str]:
    """Measure what training waits for a save, beside plain copies of the same bytes."""
    model, x, y = large_model(options)

    def trained(number: int, *callbacks: Callback, epochs: int = 2) -> Timed:
        timed = Timed(options)
        # The first epoch has what is done once; the second is timed as a whole, with the device's work.
        options_of_fit = {"batch_size": len(x), "steps_per_epoch": number, "epochs": epochs, "verbose": 0}
        model.fit(x, y, callbacks=[*callbacks, timed], **options_of_fit)
        return timed

    with tempfile.TemporaryDirectory(dir=HERE.parent) as folder:
        short = trained(12)
        step = (short.ended - short.begun) / 12
        first = BackupAndRestore(f"{folder}/first", 6)
        gaps = np.diff(trained(12, first, epochs=1).times)
        # So many steps that a save has landed long before the next one is due.
        number = 12 if options.small else min(400, max(48, int(3 * first.seconds / step)))
        every = number * 3 // 4
        plain = min(timed.ended - timed.begun for timed in (trained(number), trained(number)))
        tensors = [*model.parameters(), *model.optimizer.state_tensors()]
        size = sum(one.nbytes for one in tensors)
        yield (
            f"State of {size / 1e9:.3g} GB, steps of {plain / number * 1e3:.3g} ms, a disk that takes "
            f"{_disk_speed(folder, options):.2g} GB in a second; a save takes {first.seconds * 1e3:.0f} ms until it is there."
        )
        yield from ("", "| | training waits for each, ms |", "|---|---|")
        for name, pinned in (("plain copy to page-locked memory", True), ("plain copy to ordinary memory", False)):
            yield f"| {name} | {_copy_time(tensors, pinned and not options.small, options) * 1e3:.3g} |"
        yield f"| the first save of a run, as the host sees it | {max(gaps[4:7]) * 1e3:.3g} |"
        # What is due with the last step of an epoch comes after it, and isn't counted.
        many = max(number // 6 - 1, 1)
        best = oncue.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
        options_of = {"save_weights_only": True, "save_freq": every, "asynchronous": True}
        for place, (name, times, callback) in enumerate(
            (
                ("`BackupAndRestore`, the one before has landed", 1, lambda path: BackupAndRestore(path, every)),
                ("`BackupAndRestore`, every 6 steps", many, lambda path: BackupAndRestore(path, 6)),
                (
                    '`BackupAndRestore`, every 6 steps, `when_busy="skip"`, for each that is due',
                    many,
                    lambda path: BackupAndRestore(path, 6, when_busy="skip"),
                ),
                (
                    "`ModelCheckpoint(asynchronous=True)`, weights alone",
                    1,
                    lambda path: ModelCheckpoint(path + "{batch}.safetensors", **options_of),
                ),
                ("`EarlyStopping(restore_best_weights=True)`, in an epoch", 1, lambda path: best),
            )
        ):
            timed = trained(number, callback(f"{folder}/{place}"))
            yield f"| {name} | {(timed.ended - timed.begun - plain) / times * 1e3:.3g} |"


def _copy_time(tensors: list[torch.Tensor], pinned: bool, options: Options) -> float:
    copies = [torch.empty(one.shape, dtype=one.dtype, pin_memory=pinned) for one in tensors]
    times = []
    for _ in range(4):
        began = clock(options)
        for one, source in zip(copies, tensors, strict=True):
            one.copy_(source.detach(), non_blocking=pinned)
        times.append(clock(options) - began)
    return min(times)


def _disk_speed(folder: str, options: Options) -> float:
    block, number = bytes(1 << 20), 4 if options.small else 512
    began = time.perf_counter()
    with open(Path(folder) / "speed", "wb") as file:
        for _ in range(number):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return number * len(block) / (time.perf_counter() - began) / 1e9


# Resume --------------------------------------------------------------------------------------------------------------


class Cut(Callback):
    """Ends a run in the middle of an epoch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._run is not None and (self._run.progress.epoch, batch) == (2, 5):
            raise KeyboardInterrupt


def resume(options: Options, seconds: float) -> Iterator[str]:
    """Compare a run that was interrupted, and resumed, with one that was not, to the bit."""
    yield from ("| resumed in the middle of an epoch | logs | weights |", "|---|---|---|")
    x = np.random.default_rng(0).normal(size=(320, 8)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("int64")
    for title, options_of in (("eager", {"jit_compile": False}), ("compiled", {"jit_compile": True})):

        def made(options_of: dict[str, Any] = options_of) -> Any:
            oncue.utils.set_random_seed(0)
            parts = [
                layers.Dense(16, activation="relu"),
                layers.BatchNormalization(),
                layers.Dropout(0.2),
                layers.Dense(2),
            ]
            model = oncue.Sequential([layers.Input((8,)), *parts])
            loss = oncue.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile("adam", loss, metrics=["accuracy"], **options_of)
            return model

        def train(model: Any, callbacks: list[Callback]) -> Any:
            return model.fit(
                x, y, validation_data=(x[:64], y[:64]), batch_size=32, epochs=4, verbose=0, callbacks=callbacks
            )

        with tempfile.TemporaryDirectory() as folder:
            whole, resumed = made(), made()
            expected = train(whole, []).history
            try:
                train(made(), [BackupAndRestore(folder + "/backup", 3), Cut()])
            except KeyboardInterrupt:
                pass
            found = train(resumed, [BackupAndRestore(folder + "/backup", 3), Callback()]).history
        same = all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True))
        yield f"| {title} | {'equal' if found == expected else 'DIFFERENT'} | {'equal' if same else 'DIFFERENT'} |"


# Recurrent networks --------------------------------------------------------------------------------------------------


class Sequences(torch.nn.Module):
    """torch's LSTM in two layers and both directions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = torch.nn.LSTM(8, width, num_layers=2, bidirectional=True, batch_first=True)
        self.out = torch.nn.Linear(2 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cell(x)[0][:, -1])


def recurrent(options: Options, seconds: float) -> Iterator[str]:
    """Compare steps of recurrent networks, eager and compiled: on a GPU cuDNN's operation is one of the graph."""
    width = 4 if options.small else 64
    x = np.random.default_rng(0).normal(size=(256, 12, 8)).astype("float32")

    def of_layer(layer: Any) -> Any:
        return oncue.Sequential([layers.Input((12, 8)), layer, layers.Dense(1)])

    kinds: dict[str, tuple[Callable[[], Any], str | None]] = {
        "`torch.nn.LSTM`, two layers, both ways": (lambda: oncue.Model(Sequences(width)), None),
        "`layers.LSTM`, bf16": (lambda: of_layer(layers.LSTM(width)), "bf16"),
        "`layers.GRU`": (lambda: of_layer(layers.GRU(width)), None),
    }
    yield from ("| network | steps | largest difference of weights after 16 steps |", "|---|---|---|")
    for name, (make, precision) in kinds.items():
        left, account = [], ""
        for compiled in (False, True):
            oncue.utils.set_random_seed(0)
            model = make()
            model.compile(oncue.optimizers.SGD(0.05), "mse", jit_compile=compiled, precision=precision)
            model.fit(x, x.mean((1, 2))[:, None], batch_size=16, shuffle=False, verbose=0)
            left.append(model.get_weights())
            account = model.step_account.split(";")[0].rstrip(".")
        largest = max(float(np.abs(one - other).max()) for one, other in zip(*left, strict=True))
        yield f"| {name} | {account} | {largest:.1g} |"


# Fits ----------------------------------------------------------------------------------------------------------------


def fits(options: Options, seconds: float) -> Iterator[str]:
    """Fit 200 times, as a search does overnight, and look at what memory grows."""
    number = 20 if options.small else 200
    x = np.random.default_rng(0).normal(size=(256, 32)).astype("float32")
    yield from ("| after | process, MB | tensors on the device, MB | kept by torch, MB |", "|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1, number + 1):
            model = oncue.Sequential([layers.Input((32,)), layers.Dense(64, activation="relu"), layers.Dense(1)])
            model.compile("adam", "mse", jit_compile=False)
            callbacks = [
                BackupAndRestore(f"{folder}/backup"),
                ModelCheckpoint(f"{folder}/m.keras", asynchronous=True),
                oncue.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True),
            ]
            model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=callbacks)
            del model, callbacks
            if turn in (number // 10, number):
                gc.collect()
                used, kept = _on_device(options)
                yield f"| {turn} fits | {_resident():.0f} | {used:.2f} | {kept:.1f} |"


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _on_device(options: Options) -> tuple[float, float]:
    if options.device == "cpu":
        return 0.0, 0.0
    return torch.cuda.memory_allocated() / 1e6, torch.cuda.memory_reserved() / 1e6


def waits(options: Options, seconds: float) -> Iterator[str]:
    """Count what waits for the device, callback by callback."""
    import host_waits

    with contextlib.redirect_stdout(io.StringIO()):
        lines = host_waits.table(options.device)
    yield from lines


# In the order of what matters most, should there be no time for all.
PARTS: dict[str, tuple[str, Callable[[Options, float], Iterator[str]], float]] = {
    "saves": ("Saves beside training", saves, 100),
    "resume": ("A run that was interrupted", resume, 60),
    "waits": ("What waits for the device", waits, 30),
    "bf16": ("Eager steps in bf16", bf16, 60),
    "recurrent": ("Recurrent networks in a graph", recurrent, 60),
    "fits": ("Many fits", fits, 60),
    "steps": ("Steps beside loops by hand", steps, 150),
    "tests": ("The suite's device part", tests, 120),
}
"""By name the heading, what measures, and how many seconds it may take."""


def heading(options: Options) -> list[str]:
    """Return when and on what this was measured."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"the CPU ({platform.machine()}), in small"
    versions = f"oncue {oncue.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    cuda = f", CUDA {torch.version.cuda}" if options.device == "cuda" else ""
    return ["# What a GPU says", "", f"{datetime.date.today()}, {name}, {versions}{cuda}; `make gpu`.", ""]


def main() -> int:
    """Measure part by part, and write what there is after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=7.5, help="no part begins after so long")
    parser.add_argument("--output", type=Path, help="default: gpu.md beside this script; on the CPU none")
    options = parser.parse_args(namespace=Options())
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "There is no GPU, so nothing is measured. `python benchmarks/gpu.py --device cpu` tries every part on the CPU."
        )
        return 0
    if options.part is not None:
        return measured(options, options.part)
    output = options.output or (HERE / "gpu.md" if options.device == "cuda" else None)
    began, lines, failed = time.perf_counter(), heading(options), 0
    for name in options.parts:
        title, _, most = PARTS[name]
        left = options.minutes * 60 - (time.perf_counter() - began)
        section = [f"## {title}", ""]
        if left > 5:
            seconds = min(most, left)
            limits = ["--minutes", str(seconds / 60), "--device", options.device]
            # It ends by itself, and what it has started, too, unless something hangs.
            code, said, complained = ran([sys.executable, __file__, "--part", name, *limits], seconds + _PATIENCE)
            section += said.splitlines()
            if code != 0:
                # The other parts are worth having; the exit status tells.
                failed += 1
                why = f"it ended with {code}" if code is not None else f"no end after {seconds:.0f} s"
                section += ["", f"FAILED: {why}. {' '.join(complained[-500:].split())}"]
        else:
            section.append("Not measured: there was no time left.")
        lines += [*section, ""]
        print("\n".join([*section, ""]), flush=True)
        if output is not None:
            taken = (time.perf_counter() - began) / 60
            output.write_text("\n".join([*lines, f"Taken in {taken:.1f} minutes."]) + "\n")
    return 1 if failed else 0


def measured(options: Options, part: str) -> int:
    """Measure one part in this process, and print each line when it is known."""
    oncue.backend.set_device(options.device)
    sys.path.insert(0, str(HERE))
    began = time.perf_counter()
    for line in PARTS[part][1](options, options.minutes * 60):
        print(line, flush=True)
        if time.perf_counter() - began > options.minutes * 60:
            print("\nThere was no time for the rest.", flush=True)
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
