"""Devices that aren't there: which of several is asked, and what a run on Apple's keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import oncue
from helpers import cpu_only, small_model
from oncue.callbacks import Throughput, throughput
from oncue.feeding import staging
from oncue.optimizers import deferred_overflow_check
from oncue.random_state import check_random_state, draws, random_state, rewinder, set_random_state

pytestmark = cpu_only("devices of the test's own take the place of what is there")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose streams were asked for an event, and waited for."""
    found: list[str] = []

    def stream(device: torch.device) -> Any:
        event = SimpleNamespace(synchronize=lambda: found.append(f"waits for {device}"))
        return SimpleNamespace(record_event=lambda: found.append(str(device)) or event)

    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    return found


class Elsewhere:
    """A tensor on another device than the current one."""

    device, dtype = torch.device("cuda", 1), torch.float32

    def to(self, **options: Any) -> Elsewhere:
        return self


def test_a_copy_to_the_second_gpu_is_done_when_that_one_says_so(asked: list[str]) -> None:
    buffer: Any = Elsewhere()
    _, sent = staging.send_beside(buffer, buffer.device, torch.float32)
    assert sent is not None
    sent.synchronize()
    assert asked == ["cuda:1", "waits for cuda:1"]


def test_an_overflow_on_the_second_gpu_is_read_when_that_one_is_done(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = SimpleNamespace(copy_=lambda *_, **__: None, item=lambda: 1.0)
    monkeypatch.setattr(deferred_overflow_check.torch, "empty", lambda *_, **__: copied)
    optimizer, taken = oncue.optimizers.SGD(0.1), []
    optimizer.build([torch.nn.Parameter(torch.ones(1))])
    check, found = deferred_overflow_check.DeferredOverflowCheck(optimizer), Elsewhere()
    check.defer(found, lambda: taken.append(True))  # type: ignore[arg-type]
    check.settle()
    assert asked == ["cuda:1", "waits for cuda:1"] and taken == [True]


def test_the_peak_is_that_of_the_model_s_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"cuda:0": 2**30, "cuda:1": 2**31}
    monkeypatch.setattr(throughput, "gpus_of", lambda model: ["cuda:1"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks[device])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device])
    history = small_model().fit(torch.ones(4, 2), torch.ones(4, 1), verbose=0, callbacks=[Throughput()])
    assert history.history["peak_memory_gib"] == [2.0]


def test_random_numbers_of_apple_s_device_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)

    def draw() -> float:
        return float(torch.rand((), generator=generator))

    state, rewind, since = random_state(), rewinder(), draws()
    assert since() is None
    first, put = draw(), since()
    assert put is not None
    second = draw()
    rewind()
    assert draw() == first
    put()
    assert draw() == second
    set_random_state(state)
    assert draw() == first
    assert "mps" not in random_state(cuda=False)
    with pytest.raises(ValueError, match="that of a device must be bytes"):
        check_random_state({**state, "mps": 3})
