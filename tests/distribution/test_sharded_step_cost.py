"""What a step does where each process has a part of the weights, beside a loop around torch's `fully_shard`, in operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distribution.test_step_cost import Operations, Twins
from torch.testing._internal.distributed.fake_pg import FakeStore

import oncue as keras
from helpers import cpu_only
from oncue.core.process import process
from oncue.training.graph import choice

pytestmark = cpu_only("a device has other operations")
ROWS, STEPS = 8, 5


class Pair(Twins):
    """Stands for two processes whose messages of shards torch's stand-in for a group takes."""

    def run(self, begin: Any, what: str, on_device: bool = False) -> None:
        begin().wait()


class Counts(keras.callbacks.Callback):
    """Counts the operations and the small messages of one step."""

    def __init__(self, group: Pair) -> None:
        super().__init__()
        self.group, self.operations, self.messages = group, Operations(), 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == STEPS - 1:
            self.messages = self.group.messages
            self.operations.__enter__()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == STEPS - 1:
            self.operations.__exit__(None, None, None)
            self.messages = self.group.messages - self.messages


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    monkeypatch.setattr(process, "group", Pair())
    for name in ("distribution", "chosen"):
        monkeypatch.setattr(process, name, getattr(process, name))
    yield
    dist.destroy_process_group()


def network() -> torch.nn.Sequential:
    hidden = [torch.nn.Linear(32, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU()]
    return torch.nn.Sequential(*hidden, torch.nn.Linear(256, 10))


def by_hand() -> list[str]:
    from torch.distributed.fsdp import fully_shard

    module = network()
    fully_shard(module[2])
    fully_shard(module)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    x, y, sums = torch.zeros(ROWS, 32), torch.zeros(ROWS, dtype=torch.int64), torch.zeros(2)
    operations = Operations()
    for step in range(STEPS):
        if step == STEPS - 1:
            operations.__enter__()
        optimizer.zero_grad()
        outputs = module(x)
        loss = torch.nn.functional.cross_entropy(outputs, y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            sums[0] += loss * ROWS
            sums[1] += (outputs.argmax(-1) == y).sum()
    operations.__exit__(None, None, None)
    return operations.seen


def test_a_step_has_one_message_more_and_few_operations() -> None:
    hand = Counter(by_hand())
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True))
    model = keras.Model(network())
    model.compile(keras.optimizers.Adam(0.001), torch.nn.CrossEntropyLoss(), metrics=["accuracy"])
    counts = Counts(process.group)
    x, y = np.zeros((2 * ROWS * STEPS, 32), "float32"), np.zeros(2 * ROWS * STEPS, "int64")
    model.fit(x, y, batch_size=2 * ROWS, shuffle=False, verbose=0, callbacks=[counts])
    found = Counter(counts.operations.seen)
    assert counts.messages == 1
    # Views cost next to nothing; all gradients are divided once more, by how many labels count.
    assert 0 < sum(found.values()) - sum(hand.values()) <= 20, found - hand
    assert sum((found - hand).values()) <= 30, found - hand


@pytest.mark.parametrize("jit_compile", [True, "auto"])
def test_steps_on_shards_run_eagerly_and_say_so(
    jit_compile: bool | str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "STEPS_WORTH_COMPILING", STEPS)
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True))
    model = keras.Model(network())
    model.compile(keras.optimizers.SGD(0.001), torch.nn.CrossEntropyLoss(), jit_compile=jit_compile)
    x, y = np.zeros((2 * ROWS * STEPS, 32), "float32"), np.zeros(2 * ROWS * STEPS, "int64")
    asked = jit_compile is True
    with (
        pytest.warns(UserWarning, match="can't compile the step of `fit`.*parts of the weights")
        if asked
        else nullcontext()
    ):
        for _ in range(2):
            model.fit(x, y, batch_size=2 * ROWS, verbose=2)
    assert "The steps ran eagerly: processes have parts of the weights" in model.step_account
    assert "Compiling" not in capsys.readouterr().out
