"""Training the same network in each loop, with the same callbacks, data and ends; for tests/hosts/test_matrix.py."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import oncue
from helpers import Ends, to_numpy
from oncue import hosts
from oncue.callbacks import BackupAndRestore

X = torch.linspace(-1, 1, 72).reshape(24, 3)
Y = X.sum(dim=1, keepdim=True)
BATCH, RATE = 8, 0.1


class Bomb(Exception):
    """The error that only the loop knows of."""


class BothEnds(Ends):
    """Keeps what it hears of the beginning of a run, too."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.heard.append("begin")


@dataclass
class Outcome:
    """What a run left behind."""

    history: Any
    weights: list[np.ndarray[Any, Any]]
    ends: list[str]
    error: str | None = None
    handlers: bool = True
    threads: list[str] = field(default_factory=list)

    @property
    def decisions(self) -> list[tuple[str, str, int | None]]:
        """The kind, the callback and the epoch of each."""
        return [
            (one.kind, one.callback, one.epoch)
            for one in self.history.journal
            # That a hook changed the model is said by oncue's own loop alone.
            if one.kind not in ("note", "resume", "change")
        ]


@dataclass
class Plan:
    """What a run is to do.

    Args:
        callbacks: Makes the callbacks.
        folder: Where they write.
        epochs: How many epochs.
        cut: The update, counted over all epochs from 0, before which it ends; None for the end.
        error: How it ends there.
        checkpoints: Whether the loop saves what it needs to continue.
        resume: Whether it continues.
    """

    callbacks: Callable[[Path], list[Any]]
    folder: Path
    epochs: int = 6
    cut: int | None = None
    error: type[BaseException] = Bomb
    checkpoints: bool = False
    resume: bool = False


def network(plan: Plan | None = None) -> torch.nn.Module:
    """Return the network, which ends the run before an update if that is planned."""
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    if plan is not None and plan.cut is not None:
        left = [plan.cut]

        def count(inside: torch.nn.Module, inputs: Any) -> None:
            if inside.training and torch.is_grad_enabled():
                left[0] -= 1
                if left[0] < 0:
                    raise plan.error

        module.register_forward_pre_hook(count)
    return module


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), batch_size=BATCH)


def weights_of(module: torch.nn.Module) -> list[np.ndarray[Any, Any]]:
    return [to_numpy(one).copy() for one in module.parameters()]


# The loops: each trains by a plan, fills in the history, and returns the weights' owner ----------------------------------

Kept = dict[str, Any]


def in_fit(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    module = kept["module"] = network(plan)
    model = oncue.Model(module)
    model.compile(oncue.optimizers.TorchOptimizer(lambda p: torch.optim.SGD(p, lr=RATE)), loss="mse", jit_compile=False)
    backup = [BackupAndRestore(plan.folder / "state")] if plan.checkpoints else []
    try:
        model.fit(loader(), validation_data=loader(), epochs=plan.epochs, verbose=0, callbacks=[*callbacks, *backup])
    finally:
        kept["history"] = model.history


def in_loop(plan: Plan, callbacks: list[Any], kept: Kept, accelerator: Any = None) -> None:
    module = kept["module"] = network(plan)
    optimizer: Any = torch.optim.SGD(module.parameters(), lr=RATE)
    data: Any = loader()
    if accelerator is not None:
        module, optimizer, data = accelerator.prepare(module, optimizer, data)
    backup = [BackupAndRestore(plan.folder / "state")] if plan.checkpoints else []

    def measure() -> dict[str, torch.Tensor]:
        module.eval()
        with torch.no_grad():
            return {"loss": torch.nn.functional.mse_loss(module(X), Y)}

    options = {"epochs": plan.epochs, "accelerator": accelerator, "validation": measure}
    block = hosts.loop(module, optimizer, [*callbacks, *backup], **options)
    with block as run:
        kept["history"] = run.history
        for _ in run.epochs():
            module.train()
            for x, y in run.batches(data):
                loss = torch.nn.functional.mse_loss(module(x), y)
                optimizer.zero_grad()
                loss.backward() if accelerator is None else accelerator.backward(loss)
                optimizer.step()
                run.step(loss=loss)


def in_accelerate(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    from accelerate import Accelerator

    in_loop(plan, callbacks, kept, Accelerator(cpu=True))


def in_keras(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    import keras

    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4, name="layer0"), keras.layers.Dense(1, name="layer1")]
    )
    model.set_weights([one.T if one.ndim == 2 else one for one in weights_of(network())])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    left = [plan.cut]

    class Cut(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise plan.error

    backup = [keras.callbacks.BackupAndRestore(plan.folder / "state")] if plan.checkpoints else []
    adapter = hosts.Keras(callbacks, backup)
    kept["history"], kept["keras"] = adapter.history, model
    data = {"validation_data": (to_numpy(X), to_numpy(Y)), "batch_size": BATCH, "shuffle": False, "verbose": 0}
    with adapter:
        model.fit(to_numpy(X), to_numpy(Y), epochs=plan.epochs, callbacks=[*adapter, Cut()], **data)


def in_lightning(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = network(plan)

        def training_step(self, batch: Any, index: int) -> Any:
            loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(batch[0]))
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            value = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
            self.log("val_loss", value, batch_size=len(batch[0]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    module = Module()
    kept["module"] = module.net
    adapter = hosts.Lightning(*callbacks)
    kept["history"] = adapter.history
    saver = [ModelCheckpoint(plan.folder / "ckpt", save_last=True)] if plan.checkpoints else []
    trainer = lightning.Trainer(
        max_epochs=plan.epochs,
        callbacks=[*saver, adapter],
        logger=False,
        enable_checkpointing=bool(saver),
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=plan.folder,
    )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loader(), loader(), ckpt_path=plan.folder / "ckpt" / "last.ckpt" if plan.resume else None)
    finally:
        # Lightning ignores Ctrl-C once it has come.
        signal.signal(signal.SIGINT, interrupt)


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, row: int) -> Any:
        return {"x": X[row], "labels": Y[row]}


class WithLoss(torch.nn.Module):
    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.net = network(plan)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        outputs = self.net(x)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


def in_transformers(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    import transformers

    class InOrder(transformers.Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = WithLoss(plan)
    kept["module"] = model.net
    adapter = hosts.Transformers(*callbacks)
    kept["history"] = adapter.history
    arguments = transformers.TrainingArguments(
        output_dir=str(plan.folder / "trainer"),
        num_train_epochs=plan.epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        eval_strategy="epoch",
        save_strategy="epoch" if plan.checkpoints else "no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = InOrder(model=model, args=arguments, train_dataset=Rows(), eval_dataset=Rows(), callbacks=[adapter])
    trainer.remove_callback(transformers.PrinterCallback)
    with adapter:
        trainer.train(resume_from_checkpoint=True if plan.resume else None)


def in_ignite(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver
    from ignite.metrics import Loss

    module = kept["module"] = network(plan)
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)

    def train_step(engine: Any, batch: Any) -> torch.Tensor:
        module.train()
        loss = torch.nn.functional.mse_loss(module(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def measure(engine: Any, batch: Any) -> Any:
        module.eval()
        with torch.no_grad():
            return module(batch[0]), batch[1]

    trainer, evaluator = Engine(train_step), Engine(measure)
    Loss(torch.nn.functional.mse_loss).attach(evaluator, "loss")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(loader()))
    adapter = hosts.Ignite(*callbacks)
    adapter.attach(trainer, module, optimizer, evaluator=evaluator)
    kept["history"] = adapter.history
    parts = {"trainer": trainer, "module": module, "optimizer": optimizer, "callbacks": adapter}
    if plan.checkpoints:
        saver = Checkpoint(parts, DiskSaver(str(plan.folder / "ckpt"), require_empty=False), filename_pattern="last.pt")
        trainer.add_event_handler(Events.EPOCH_COMPLETED, saver)
    if plan.resume:
        Checkpoint.load_objects(parts, torch.load(plan.folder / "ckpt" / "last.pt"))
    trainer.run(loader(), max_epochs=plan.epochs)


def in_skorch(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    from skorch import NeuralNetRegressor
    from skorch.helper import predefined_split

    module = kept["module"] = network(plan)
    adapter = hosts.Skorch(*callbacks)
    kept["history"] = adapter.history
    net = NeuralNetRegressor(
        module,
        max_epochs=plan.epochs,
        lr=RATE,
        batch_size=BATCH,
        train_split=predefined_split(TensorDataset(X, Y)),
        callbacks=[adapter],
        verbose=0,
    )
    with adapter:
        net.fit(X, Y)


def in_poutyne(plan: Plan, callbacks: list[Any], kept: Kept) -> None:
    import poutyne

    module = kept["module"] = network(plan)
    adapter = hosts.Poutyne(*callbacks)
    kept["history"] = adapter.history
    model = poutyne.Model(module, torch.optim.SGD(module.parameters(), lr=RATE), "mse")
    with adapter:
        model.fit_generator(loader(), loader(), epochs=plan.epochs, callbacks=[adapter], verbose=False)


Drive = Callable[[Plan, list[Any], Kept], None]
_ALL: dict[str, tuple[str, Drive]] = {
    "loop": ("torch", in_loop),
    "keras": ("keras", in_keras),
    "accelerate": ("accelerate", in_accelerate),
    "ignite": ("ignite", in_ignite),
    "lightning": ("lightning", in_lightning),
    "poutyne": ("poutyne", in_poutyne),
    "skorch": ("skorch", in_skorch),
    "transformers": ("transformers", in_transformers),
}
# The libraries that aren't here are in the environments of `make hosts`.
HOSTS: dict[str, Drive] = {name: drive for name, (library, drive) in _ALL.items() if find_spec(library) is not None}


def train(drive: Drive, plan: Plan) -> Outcome:
    """Train in a loop, and return what that left behind."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    ends, kept = BothEnds(), dict[str, Any]()
    before, running = _handlers(), set(threading.enumerate())
    error = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(plan.folder))
        try:
            drive(plan, [ends, *plan.callbacks(plan.folder)], kept)
        except (Bomb, KeyboardInterrupt, SystemExit) as found:
            error = type(found).__name__
    module = kept.get("module")
    if module is None:
        weights = [one.T if one.ndim == 2 else one for one in kept["keras"].get_weights()]
    else:
        weights = weights_of(module)
    # Keras leaves its own threads behind when it is interrupted.
    left = [one.name for one in set(threading.enumerate()) - running if not one.name.startswith("ThreadPoolExecutor")]
    return Outcome(kept["history"], weights, ends.heard, error, _handlers() == before, left)


def _handlers() -> list[Any]:
    return [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]


def files_in(folder: Path) -> Iterator[str]:
    """Give the names of the files of callbacks, event files by their folder."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name.split("/")[0] not in ("state", "ckpt", "trainer"):
            yield name if "tfevents" not in name else str(path.relative_to(folder).parent)
