"""DeviceStats: what a run takes of its device, in the logs of each epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.every import Every
from oncue.core.protocols import gpus_of

Probe = Callable[[], Mapping[str, float]]
_GIB = 2**30


@builtin
class DeviceStats(Callback):
    """Adds to the logs of each epoch what the model's devices are used for: memory and, where NVML tells it, the rest.

    On a GPU the logs get `device_memory_gib`, the most memory that tensors have had since the run began, and
    `device_reserved_gib`, the most that torch has kept for them; with the package `nvidia-ml-py` also
    `device_utilization`, the mean share of the time in which the GPU computed anything, `device_power_watts` and
    `device_temperature`, the means of what it drew and how warm it was. Of several devices, and several processes, it is
    the largest. On the CPU the logs get `process_memory_gib`, the most that the process had when it was looked at.

    Nothing waits for the device. Utilization and the like are looked at between two batches, as often as `every` says, and
    at the end of the epoch.

    Args:
        every: How often to look within an epoch: "1 second", "100 steps"; "1 epoch" for only at its end.
        probe: Returns values by name, in place of those above; names that end in `_gib` are kept at their largest, others are
            averaged.

    Raises:
        ValueError: For an `every` that is no period.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> values = iter([{"fan": 1.0}, {"fan": 2.0}, {"fan": 6.0}])
        >>> stats = DeviceStats("1 step", probe=lambda: next(values))
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=2, verbose=0, callbacks=[stats])
        >>> history.history["fan"]
        [3.0]
    """

    def __init__(self, every: str | Every = "1 second", *, probe: Probe | None = None) -> None:
        super().__init__()
        self.every = Every(every, "DeviceStats")
        self._given = probe
        self._probe: Probe | None = probe
        self._seen: list[Mapping[str, float]] = []

    def __getstate__(self) -> dict[str, Any]:
        # What looks at a device is made when a run begins.
        return {**super().__getstate__(), "_probe": self._given, "_seen": [], "every": Every(self.every)}

    def listens_to(self, hook: str) -> bool:
        """Skip the batches when the period is one of epochs."""
        return self.every.unit != "epoch" if hook == "on_train_batch_end" else True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find out what can be looked at, and let the peaks begin."""
        self.every = Every(self.every)
        self.every.begin()
        self._probe = self._given or self._found_probe()

    def _found_probe(self) -> Probe:
        devices = gpus_of(self.model)
        if not devices:
            return process_memory
        probes = [CudaProbe(device) for device in devices]
        lacking = next((probe.lacks for probe in probes if probe.lacks), None)
        if lacking is not None:
            self._decided("note", "no_utilization", error=lacking)
        return probes[0] if len(probes) == 1 else lambda: largest([probe() for probe in probes])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin an epoch's account."""
        self._seen = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look, when that is due."""
        if self.every.after_batch(batch):
            self._look()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look once more, and put what was seen into the logs."""
        self._look()
        if logs is None:
            return
        for name in self._seen[-1] if self._seen else ():
            values = [seen[name] for seen in self._seen if name in seen]
            found = max(values) if name.endswith("_gib") else sum(values) / len(values)
            logs[name] = self.ranks.largest(found)

    def _look(self) -> None:
        if self._probe is not None:
            self._seen.append(dict(self._probe()))


class CudaProbe:
    """Tells what a GPU is used for.

    Args:
        device: Its name, such as "cuda:0".

    Attributes:
        lacks: Why something beside memory can't be told; None when all can.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self.lacks: str | None = None
        torch.cuda.reset_peak_memory_stats(self._device)
        self._told: dict[str, Callable[[], float]] = {}
        asked: dict[str, Callable[[], float]] = {
            "device_utilization": lambda: torch.cuda.utilization(self._device) / 100,
            "device_power_watts": lambda: torch.cuda.power_draw(self._device) / 1000,
            "device_temperature": lambda: float(torch.cuda.temperature(self._device)),
        }
        for name, ask in asked.items():
            try:
                ask()
                self._told[name] = ask
            except Exception as error:
                # The package or the driver is missing, or this card doesn't tell; NVML's errors are of their own class.
                self.lacks = self.lacks or f"{type(error).__name__}: {error}"

    def __call__(self) -> dict[str, float]:
        """Return the values of this moment."""
        import torch

        return {
            "device_memory_gib": torch.cuda.max_memory_allocated(self._device) / _GIB,
            "device_reserved_gib": torch.cuda.max_memory_reserved(self._device) / _GIB,
            **{name: ask() for name, ask in self._told.items()},
        }


def largest(found: list[dict[str, float]]) -> dict[str, float]:
    """Return the largest of each value.

    Example:
        >>> largest([{"a": 1.0}, {"a": 3.0, "b": 2.0}])
        {'a': 3.0, 'b': 2.0}
    """
    names = dict.fromkeys(name for one in found for name in one)
    return {name: max(one[name] for one in found if name in one) for name in names}


def process_memory() -> dict[str, float]:
    """Return the memory of this process; where the system tells only the most that it ever had, that."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return {"process_memory_gib": int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _GIB}
    except OSError:
        # No such file but on Linux.
        return _most_memory()


def _most_memory() -> dict[str, float]:
    import sys

    try:
        import resource
    except ImportError:
        # Windows has none of this.
        return {}
    # In KiB, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return {"process_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB}
