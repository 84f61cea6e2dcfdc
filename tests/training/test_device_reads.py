"""Training waits for the device only if a callback reads: a step reads nothing, whatever the number of batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import oncue
from helpers import NoWaits, normal
from oncue.callbacks import Callback

X = normal(400, 4)
Y = (X[:, :1] > 0).astype("float32")

# `item`, `float`, `int` and `bool` of a tensor all end in the operator that the dispatch mode sees; these don't.
COPIES = ("tolist", "numpy", "cpu", "__array__")


class Reads(TorchDispatchMode):
    """Counts everything that would wait for an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            self.count += 1
        if func in (torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default):
            self.count += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Reads]:
    reads = Reads()
    patch = pytest.MonkeyPatch()
    for name in COPIES:
        original = getattr(torch.Tensor, name)

        def counting(self: torch.Tensor, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            reads.count += 1
            return original(self, *args, **kwargs)

        patch.setattr(torch.Tensor, name, counting)
    try:
        with reads:
            yield reads
    finally:
        patch.undo()


class Between(Callback):
    """Counts the reads from the first batch of an epoch to its last one."""

    def __init__(self, reads: Reads, kind: str = "train") -> None:
        super().__init__()
        self.reads = reads
        self.found: list[int] = []
        self.start = 0
        setattr(self, f"on_{kind}_batch_begin", self.begin)
        setattr(self, f"on_{kind}_batch_end", self.end)

    def begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.start = self.reads.count

    def end(self, batch: int, logs: Any = None) -> None:
        self.found.append(self.reads.count - self.start)


def model(optimizer: Any = "adam", **options: Any) -> Any:
    made = oncue.Sequential(
        [
            oncue.layers.Input((4,)),
            oncue.layers.Dense(4, activation="relu"),
            oncue.layers.Dense(1, activation="sigmoid"),
        ]
    )
    made.compile(**{"optimizer": optimizer, "loss": "binary_crossentropy", "metrics": ["accuracy", "mae"], **options})
    return made


def reads_of_fit(batches: int, made: Any, callbacks: Any = None, **arguments: Any) -> int:
    rows = batches * 4
    with counted() as reads:
        options = {"batch_size": 4, "verbose": 2, "validation_data": (X[:40], Y[:40]), **arguments}
        made.fit(X[:rows], Y[:rows], callbacks=callbacks, **options)
    return reads.count


def test_the_counter_counts() -> None:
    with counted() as reads:
        tensor = torch.ones(2)
        float(tensor[0]), int(tensor[0]), bool(tensor[0]), tensor[0].item()
        tensor.tolist(), tensor.numpy(), tensor.cpu()
    assert reads.count >= 7


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: "sgd",
    "momentum": lambda: oncue.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: "adam",
    "adamw": lambda: oncue.optimizers.AdamW(weight_decay=0.01),
    "amsgrad": lambda: oncue.optimizers.Adam(amsgrad=True),
    "rmsprop": lambda: "rmsprop",
    "adagrad": lambda: "adagrad",
    "adadelta": lambda: "adadelta",
    "adamax": lambda: "adamax",
    "nadam": lambda: "nadam",
    "clipped by norm": lambda: oncue.optimizers.SGD(0.1, clipnorm=1.0),
    "clipped together": lambda: oncue.optimizers.Adam(global_clipnorm=1.0),
    "clipped by value": lambda: oncue.optimizers.Adam(clipvalue=0.5),
    "averaged": lambda: oncue.optimizers.Adam(use_ema=True),
    "accumulating": lambda: oncue.optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "a schedule": lambda: oncue.optimizers.SGD(oncue.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_reads_between_the_batches(name: str) -> None:
    with counted() as reads:
        between = Between(reads)
        model(OPTIMIZERS[name]()).fit(X, Y, batch_size=40, epochs=2, verbose=2, callbacks=[between])
    assert between.found == [0] * 20


MODES: dict[str, dict[str, Any]] = {
    "compiled": {"jit_compile": True},
    "several steps": {"steps_per_execution": 3},
    "several compiled steps": {"steps_per_execution": 3, "jit_compile": True},
    "accumulating, compiled": {"optimizer": OPTIMIZERS["accumulating"], "jit_compile": True},
    "a schedule, compiled": {"optimizer": OPTIMIZERS["a schedule"], "jit_compile": True},
    "bf16, compiled": {"precision": "bf16", "jit_compile": True},
    "run eagerly": {"run_eagerly": True},
}


@pytest.mark.parametrize("name", MODES)
def test_no_reads_between_the_batches_in_any_mode(name: str, quick: None) -> None:
    options = dict(MODES[name])
    optimizer = options.pop("optimizer", lambda: "adam")()
    with counted() as reads:
        kinds = [Between(reads, kind) for kind in ("train", "test")]
        made = model(optimizer, **{"jit_compile": False, **options})
        made.fit(X, Y, batch_size=40, epochs=2, verbose=0, validation_data=(X, Y), callbacks=kinds)
    for between in kinds:
        # In the first epoch graphs are made, which are compared with the step itself.
        second = between.found[len(between.found) // 2 :]
        assert len(second) == (4 if name.startswith("several") else 10) and not any(second)
    assert (name.count("compiled") == 1) is made.step_account.startswith("The steps ran as one compiled graph")


@pytest.mark.parametrize(
    "options",
    [
        {"metrics": None},
        {"metrics": ["auc", "precision", "recall", "accuracy"]},
        {"metrics": ["mse"], "weighted_metrics": ["accuracy"]},
        {"loss": "mse"},
        {"loss": torch.nn.BCELoss()},
        {"loss": lambda y_true, y_pred: (y_true - y_pred).square()},
    ],
    ids=["no metrics", "confusion", "weighted", "mse", "torch loss", "function"],
)
def test_no_reads_with_other_losses_and_metrics(options: dict[str, Any]) -> None:
    with counted() as reads:
        between, tested = Between(reads), Between(reads, "test")
        made = model(**options)
        made.fit(X, Y, batch_size=40, verbose=0, callbacks=[between, tested], validation_data=(X, Y))
    assert between.found == [0] * 10
    assert tested.found == [0] * 10


def test_no_reads_with_class_weights_and_a_loader() -> None:
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=40)
    with counted() as reads:
        weighted, loaded = Between(reads), Between(reads)
        model().fit(X, Y, batch_size=40, verbose=0, class_weight={0: 1.0, 1: 2.0}, callbacks=[weighted])
        model().fit(loader, verbose=0, callbacks=[loaded])
    assert weighted.found == loaded.found == [0] * 10


def test_reads_of_an_epoch_do_not_grow_with_its_batches() -> None:
    assert reads_of_fit(5, model()) == reads_of_fit(100, model())


def test_reads_of_evaluate_do_not_grow_with_its_batches() -> None:
    counts = []
    for rows in (40, 400):
        made = model()
        with counted() as reads:
            made.evaluate(X[:rows], Y[:rows], batch_size=4, verbose=1)
        counts.append(reads.count)
    assert counts[0] == counts[1]


def test_listening_without_reading_costs_nothing() -> None:
    class Listens(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            assert "loss" in logs and len(logs) == 3 and list(logs)
            logs.keys()

    silent = reads_of_fit(50, model())
    assert reads_of_fit(50, model(), [Listens()]) == silent


def test_keeping_logs_costs_no_reads() -> None:
    kept: list[Any] = []

    class Keeps(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kept.append(logs)

    silent = reads_of_fit(50, model())
    assert reads_of_fit(50, model(), [Keeps()]) == silent
    assert len(kept) == 50


@pytest.mark.parametrize("readers", [1, 3])
def test_reading_every_batch_reads_each_value_once(readers: int) -> None:
    class Reader(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            dict(logs)
            logs["loss"]

    silent = reads_of_fit(50, model())
    # At most a sum and a count for each of three values; on an accelerator they travel together.
    assert reads_of_fit(50, model(), [Reader() for _ in range(readers)]) - silent <= 50 * 6


def test_a_reader_of_every_tenth_batch_pays_for_those() -> None:
    class Reader(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch % 10 == 0:
                logs["loss"]

    silent = reads_of_fit(50, model())
    assert 0 < reads_of_fit(50, model(), [Reader()]) - silent <= 5 * 6


@pytest.mark.gpu
def test_no_waits_on_an_accelerator() -> None:
    """CUDA itself says when the host waits."""
    model().fit(X, Y, batch_size=40, epochs=2, verbose=0, callbacks=[NoWaits()])
