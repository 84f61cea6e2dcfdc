"""DeviceStats: memory and use of the device, in the logs of each epoch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from helpers import cpu_only, small_model
from oncue.callbacks import DeviceStats
from oncue.callbacks.device_stats import CudaProbe

X = np.ones((12, 2), "float32")
Y = np.ones((12, 1), "float32")


def fit(stats: DeviceStats, **options: Any) -> Any:
    return small_model().fit(X, Y, batch_size=4, verbose=0, callbacks=[stats], **options)


@cpu_only("on an accelerator the logs have its memory")
def test_on_the_cpu_it_is_the_memory_of_the_process() -> None:
    held = [np.ones(2**27)]
    history = fit(DeviceStats(), epochs=2).history
    assert all(1.0 < value < 1000 for value in history["process_memory_gib"]) and len(held) == 1
    assert not any(name.startswith("device") for name in history)


@pytest.mark.parametrize(("every", "looks"), [("1 step", 4), ("2 steps", 2), ("1 epoch", 1)])
def test_peaks_are_the_largest_and_others_the_mean(every: str, looks: int) -> None:
    calls: list[int] = []

    def probe() -> Mapping[str, float]:
        calls.append(len(calls))
        return {"some_gib": 10.0 - len(calls), "load": float(len(calls))}

    history = fit(DeviceStats(every, probe=probe)).history
    assert len(calls) == looks
    assert history["some_gib"] == [9.0] and history["load"] == [sum(range(1, looks + 1)) / looks]


def cuda_without_nvml(patch: pytest.MonkeyPatch, nvml: bool) -> None:
    def missing(device: Any) -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    patch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**30)
    patch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**31)
    patch.setattr(torch.cuda, "utilization", (lambda device: 50) if nvml else missing)
    patch.setattr(torch.cuda, "power_draw", (lambda device: 300_000) if nvml else missing)
    patch.setattr(torch.cuda, "temperature", (lambda device: 60) if nvml else missing)


def test_what_a_gpu_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_without_nvml(monkeypatch, nvml=True)
    history = fit(DeviceStats(probe=CudaProbe("cuda:0"))).history
    assert (history["device_memory_gib"], history["device_reserved_gib"]) == ([1.0], [2.0])
    assert (history["device_utilization"], history["device_power_watts"]) == ([0.5], [300.0])
    assert history["device_temperature"] == [60.0]


def test_without_nvml_there_is_a_note_and_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_without_nvml(monkeypatch, nvml=False)
    monkeypatch.setattr(
        "oncue.core.protocols.tensors_of", lambda model: {"a": torch.empty(0, device="meta"), "b": OnCuda()}
    )
    history = fit(DeviceStats())
    assert set(history.history) == {"loss", "device_memory_gib", "device_reserved_gib"}
    assert "doesn't tell all of the device, because NVML can't be asked (ModuleNotFoundError" in history.explain()


class OnCuda:
    """Says that it is on a GPU."""

    device = torch.device("cuda:0")


def test_a_period_that_is_none_is_refused_and_a_copy_looks_for_itself() -> None:
    with pytest.raises(ValueError, match="Unknown unit of `every`"):
        DeviceStats("often")
    stats = DeviceStats()
    fit(stats)
    assert copy.deepcopy(stats)._probe is None
