"""What a step on several processes does besides what it does on one, counted in operations of torch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import oncue as keras
from helpers import cpu_only
from oncue import layers
from oncue.core.process import process
from oncue.core.ranks import ASKED, Ranks

pytestmark = cpu_only("a device has other operations")


class Twins(Ranks):
    """Stands for two processes that have the same rows."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.messages = 2, 0
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
        # Past what counts operations.
        tensor.numpy()[...] *= 2
        return tensor

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
