"""What a step on several processes does besides what it does on one, counted in operations of torch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import oncue as keras
from helpers import cpu_only, graphs_compiled_by, uncompiled
from oncue import layers, torch_private
from oncue.core.process import process
from oncue.core.ranks import ASKED, Ranks

pytestmark = cpu_only("a device has other operations")


class Twins(Ranks):
    """Stands for two processes that have the same rows."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.messages = 2, 0
        self.notes: list[str] = []
        self.failures, self.reason = self, None

    def running(self, place: Any) -> Any:
        return nullcontext()

    def look(self) -> None:
        pass

    def together(self, what: str) -> None:
        pass

    def questions(self) -> list[float]:
        return [0.0] * len(ASKED)

    def answer(self, sums: Any, late: bool = False) -> None:
        pass

    def sum_(self, tensor: torch.Tensor, what: str = "") -> torch.Tensor:
        self.messages += 1
        self.notes.append("sum")
        # Past what counts operations.
        tensor.numpy()[...] *= 2
        return tensor

    def begin_sum(self, tensor: torch.Tensor, what: str = "") -> Any:
        self.messages += 1
        self.notes.append("begin")
        return lambda: tensor.numpy().__imul__(2)

    def read(self, tensor: torch.Tensor, what: str = "") -> list[float]:
        found: list[float] = tensor.tolist()
        return found

    def sum_numbers(self, numbers: Any, what: str = "") -> list[float]:
        return [2 * number for number in numbers]

    def sum_compared(self, numbers: Any, texts: Any, what: str = "") -> tuple[list[float], bool]:
        return [2 * number for number in numbers], True

    def broadcast_(self, tensors: Any, what: str = "") -> None:
        pass

    def gather_texts(self, text: str, what: str = "", checked: bool = True) -> list[str]:
        return [text] * 2


class Operations(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Counts(keras.callbacks.Callback):
    """Counts those of one step, and its messages."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.messages = Operations(), 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            self.messages = getattr(process.group, "messages", 0)
            self.operations.__enter__()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            self.operations.__exit__(None, None, None)
            self.messages = getattr(process.group, "messages", 0) - self.messages


def step(loss: Any, group: Twins | None, patch: pytest.MonkeyPatch) -> Counts:
    """Return what a step does, on sixteen rows of this process."""
    patch.setattr(process, "group", group)
    rows = 32 if group else 16
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    counts = Counts()
    model.fit(
        np.ones((5 * rows, 4)), np.zeros(5 * rows, int), batch_size=rows, shuffle=False, verbose=0, callbacks=[counts]
    )
    return counts


@pytest.mark.parametrize(
    "loss",
    [torch.nn.CrossEntropyLoss(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)],
    ids=["torch", "own"],
)
def test_a_step_has_one_message_and_few_operations_more(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, shared = step(loss, None, monkeypatch), step(loss, Twins(), monkeypatch)
    assert shared.messages == 1
    more = len(shared.operations.seen) - len(alone.operations.seen)
    # Gradients into one tensor and out of it, the share of the loss, and the labels that count.
    assert 0 < more <= 11, sorted(shared.operations.seen)


@torch.library.custom_op("tests::derived", mutates_args=())
def derived(gradient: torch.Tensor) -> torch.Tensor:
    """Notes that a backward pass has come here; in a compiled graph, too."""
    getattr(process.group, "notes", []).append("derived")
    return gradient.clone()


@derived.register_fake
def _(gradient: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(gradient)


class _Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = derived(gradient)
        return found


class Mark(torch.nn.Module):
    """Notes when the backward pass comes to the layers before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Marked.apply(x)  # type: ignore[no-untyped-call]
        return found


SIDE = 1024


def large_run(group: Twins | None, patch: pytest.MonkeyPatch, normalizes: bool, **options: Any) -> Any:
    """Train a model of more than two million weights, and return it with what happened in its last step."""
    patch.setattr(process, "group", group)
    keras.utils.set_random_seed(0)
    between: list[Any] = [torch.nn.BatchNorm1d(SIDE)] if normalizes else []
    module = torch.nn.Sequential(
        torch.nn.Linear(4, SIDE), Mark(), *between, torch.nn.Linear(SIDE, SIDE), Mark(), torch.nn.Linear(SIDE, SIDE)
    )
    model = keras.Model(module)
    model.compile(keras.optimizers.SGD(0.01), "mse", **options)
    half = np.linspace(-1.0, 1.0, 16).reshape(4, 4).astype("float32")
    # Both processes have the same rows of each batch.
    x = np.concatenate([half] * 6)
    notes: list[list[str]] = []

    def end(batch: int, logs: Any) -> None:
        if group is not None:
            notes.append(group.notes.copy())
            group.notes.clear()

    ends = keras.callbacks.LambdaCallback(on_train_batch_end=end)
    model.fit(x, np.ones((len(x), SIDE)), batch_size=8, shuffle=False, verbose=0, callbacks=[ends])
    return model, notes[-1:]


def check_large_run(patch: pytest.MonkeyPatch, *, early: bool, normalizes: bool = False, **options: Any) -> str:
    """Compare a large run with one of a process alone, look when it sends, and return how its steps ran."""
    (alone, _), (model, notes) = (large_run(group, patch, normalizes, **options) for group in (None, Twins()))
    for one, other in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    if early:
        # That of the last layer before the one before it is derived, and so on; the last one has what is asked, too.
        assert notes == [["begin", "derived", "begin", "derived", "sum"]]
    else:
        assert [note for note in notes[0] if note != "derived"] == ["sum", "sum", "sum", "begin", "begin", "sum"]
    account: str = model.step_account
    return account


def test_large_gradients_are_sent_while_the_backward_pass_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    check_large_run(monkeypatch, early=True)
    # Its own messages come first, as where another process runs a graph.
    check_large_run(monkeypatch, early=False, normalizes=True)


@pytest.mark.parametrize(
    "compiler",
    [uncompiled, pytest.param(torch_private.compile_traced, marks=pytest.mark.slow)],
    ids=["traced", "compiled"],
)
def test_graphs_send_large_gradients_while_they_run(compiler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with graphs_compiled_by(compiler):
        assert "two compiled graphs" in check_large_run(monkeypatch, early=True, jit_compile=True)
        assert "two compiled graphs" in check_large_run(monkeypatch, early=False, normalizes=True, jit_compile=True)
