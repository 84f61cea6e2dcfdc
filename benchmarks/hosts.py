"""What oncue's callbacks cost in other libraries' loops: the time inside the adapter, and what it reads from the device.

    python benchmarks/hosts.py                                   the loops whose libraries are installed
    .hosts/lightning-newest/bin/python benchmarks/hosts.py       those of an environment of `make hosts`

It is processor time, which other processes on the same cores lengthen less. It is taken within the adapter, around each of its
hooks, and not by comparing runs, which differ by more than it is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, Preemption, ReduceLROnPlateau

BATCH = 32


class Inside(TorchDispatchMode):
    """Takes the time in hooks, or counts the numbers that are read there from tensors."""

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.counts, self.seconds, self.reads = counts, 0.0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))

    def watch(self, owner: Any, *names: str) -> None:
        """Put watching methods in the place of an object's own."""
        for name in names:
            setattr(owner, name, partial(self._call, getattr(owner, name)))

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.counts:
            with self:
                return method(*args, **kwargs)
        began = time.process_time()
        try:
            return method(*args, **kwargs)
        finally:
            self.seconds += time.process_time() - began


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        *(
            torch.nn.Linear(784, 128),
            torch.nn.ReLU(),
            torch.nn.Linear(128, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 10),
        )
    )


def data(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps * BATCH, 784, generator=generator)
    return x, torch.randint(10, (len(x),), generator=generator)


def callbacks(folder: str) -> list[Any]:
    return [
        EarlyStopping("loss", patience=9),
        ReduceLROnPlateau("loss", patience=9),
        CSVLogger(f"{folder}/log.csv"),
        Preemption(),
    ]


def in_loop(steps: int, inside: Inside | None, folder: str, accelerator: Any = None) -> None:
    net: Any = network()
    optimizer: Any = torch.optim.Adam(net.parameters())
    loader: Any = DataLoader(TensorDataset(*data(steps)), batch_size=BATCH)
    if accelerator is not None:
        net, optimizer, loader = accelerator.prepare(net, optimizer, loader)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward() if accelerator is None else accelerator.backward(loss)
        optimizer.step()
        return loss

    if inside is None:
        for x, y in loader:
            step(x, y)
        return
    with hosts.loop(net, optimizer, callbacks(folder), epochs=1, accelerator=accelerator) as run:
        inside.watch(run, "step", "_finish_batch")
        for _ in run.epochs():
            for x, y in run.batches(loader):
                run.step(loss=step(x, y))


def in_accelerate(steps: int, inside: Inside | None, folder: str) -> None:
    from accelerate import Accelerator

    in_loop(steps, inside, folder, Accelerator(cpu=True))


def in_keras(steps: int, inside: Inside | None, folder: str) -> None:
    import keras

    relu = {"activation": "relu"}
    model = keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(128, **relu),
            keras.layers.Dense(64, **relu),
            keras.layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    adapter = hosts.Keras(*callbacks(folder)) if inside is not None else []
    if inside is not None:
        inside.watch(adapter[0], "on_train_batch_begin", "on_train_batch_end")
    x, y = data(steps)
    model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=adapter)


def in_lightning(steps: int, inside: Inside | None, folder: str) -> None:
    import lightning

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> Any:
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    adapter = None if inside is None else hosts.Lightning(*callbacks(folder))
    if inside is not None:
        inside.watch(adapter, "on_train_batch_start", "on_train_batch_end")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[] if adapter is None else [adapter],
        default_root_dir=folder,
        **quiet,
    )
    trainer.fit(Module(), DataLoader(TensorDataset(*data(steps)), batch_size=BATCH))


def in_transformers(steps: int, inside: Inside | None, folder: str) -> None:
    import transformers

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> Any:
            outputs = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(outputs, labels), "logits": outputs}

    rows: Any = [{"x": x, "labels": y} for x, y in zip(*data(steps), strict=True)]
    adapter = None if inside is None else hosts.Transformers(*callbacks(folder))
    if inside is not None:
        inside.watch(adapter, "on_step_begin", "on_step_end", "on_log")
    arguments = transformers.TrainingArguments(
        folder, num_train_epochs=1, per_device_train_batch_size=BATCH, report_to=[], disable_tqdm=True, use_cpu=True
    )
    trainer = transformers.Trainer(
        model=Net(), args=arguments, train_dataset=rows, callbacks=[] if adapter is None else [adapter]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


def in_fabric(steps: int, inside: Inside | None, folder: str) -> None:
    from lightning.fabric import Fabric

    class Prepares(Fabric):  # type: ignore[misc]
        def prepare(self, net: Any, optimizer: Any, loader: Any) -> Any:
            return *self.setup(net, optimizer), self.setup_dataloaders(loader)

    in_loop(steps, inside, folder, Prepares(accelerator="cpu", devices=1))


def in_ignite(steps: int, inside: Inside | None, folder: str) -> None:
    from ignite.engine import Engine

    net = network()
    optimizer = torch.optim.Adam(net.parameters())

    def step(engine: Any, batch: Any) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(net(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    trainer = Engine(step)
    if inside is not None:
        adapter = hosts.Ignite(*callbacks(folder))
        inside.watch(adapter._run, "begin_batch", "step", "end_batch")
        adapter.attach(trainer, net, optimizer)
    trainer.run(DataLoader(TensorDataset(*data(steps)), batch_size=BATCH))


def in_skorch(steps: int, inside: Inside | None, folder: str) -> None:
    from skorch import NeuralNet

    adapter = None if inside is None else hosts.Skorch(*callbacks(folder))
    if inside is not None:
        inside.watch(adapter, "on_batch_begin", "on_batch_end")
    net = NeuralNet(
        network(),
        torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        max_epochs=1,
        batch_size=BATCH,
        train_split=None,
        verbose=0,
        callbacks=[] if adapter is None else [adapter],
    )
    net.fit(*data(steps))


def in_poutyne(steps: int, inside: Inside | None, folder: str) -> None:
    import poutyne

    adapter = None if inside is None else hosts.Poutyne(*callbacks(folder))
    if inside is not None:
        inside.watch(adapter, "on_train_batch_begin", "on_train_batch_end")
    net = network()
    model = poutyne.Model(net, torch.optim.Adam(net.parameters()), "cross_entropy")
    loader = DataLoader(TensorDataset(*data(steps)), batch_size=BATCH)
    model.fit_generator(loader, epochs=1, verbose=False, callbacks=[] if adapter is None else [adapter])


LOOPS: dict[str, tuple[str, Callable[[int, Inside | None, str], None]]] = {
    "a loop of one's own": ("torch", in_loop),
    "Accelerate": ("accelerate", in_accelerate),
    "Fabric": ("lightning", in_fabric),
    "Keras on torch": ("keras", in_keras),
    "Ignite": ("ignite", in_ignite),
    "Lightning": ("lightning", in_lightning),
    "Poutyne": ("poutyne", in_poutyne),
    "skorch": ("skorch", in_skorch),
    "transformers": ("transformers", in_transformers),
}


def seconds(run: Callable[..., None], steps: int, inside: Inside | None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run(steps, inside, folder)
        return time.process_time() - began


def main() -> None:
    """Time every loop that is installed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="steps of a run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--loop", action="append", help="one of the loops, by its name in the table; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| loop | step without oncue's callbacks | with them | inside the adapter | reads in a step |\n|---|---|---|---|---|"
    )
    for name, (library, run) in LOOPS.items():
        if find_spec(library) is None or (options.loop and name not in options.loop):
            continue
        counting = Inside(counts=True)
        # It warms up, too.
        seconds(run, 20, counting)
        rows = []
        for _ in range(options.rounds):
            inside = Inside(counts=False)
            # What a library does once in a run isn't counted.
            first = seconds(run, 1, None)
            plain = (seconds(run, options.steps + 1, None) - first) / options.steps
            first = seconds(run, 1, Inside(counts=False))
            full = (seconds(run, options.steps + 1, inside) - first) / options.steps
            rows.append((plain, full, inside.seconds / (options.steps + 1)))
        plain, full, own = (statistics.median(column) * 1e6 for column in zip(*rows, strict=True))
        share = statistics.median(own / plain for plain, _, own in rows)
        print(
            f"| {name} | {plain:.0f} us | {full:.0f} us | {own:.1f} us, {share:.1%} | {counting.reads / 20:g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
