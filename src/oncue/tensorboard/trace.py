"""Trace: a profile of some batches by `torch.profiler`, as a file that TensorBoard, Perfetto and chrome://tracing show."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from oncue import torch_private
from oncue.core.files import replace_file
from oncue.core.warn import warn

_LONGEST_NAME = 100
_ROWS = 40


class Cost(NamedTuple):
    """What an operation took in a profile, without those that it called.

    Args:
        name: The operation, or the kernel.
        calls: How often it was called.
        milliseconds: The time of all calls; on a GPU the GPU's.
        share: The part of the time of all operations.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


class Trace:
    """Profiles from now until `stop`.

    A profiler that can't be started or written is a warning, never the end of the training.

    Args:
        whose: The callback that profiles.
        memory: Whether to note who allocates memory of CUDA devices, too.
        gpus: The devices of CUDA whose work is waited for at the end.

    Attributes:
        runs: Whether it profiles.
        costs: What operations took, the most costly first, when `stop` was asked for a table of them.

    Example:
        >>> import tempfile
        >>> trace = Trace("TensorBoard")
        >>> trace.runs, trace.stop(os.path.join(tempfile.mkdtemp(), "a.pt.trace.json")), trace.runs
        (True, True, False)
    """

    def __init__(self, whose: str, memory: bool = False, gpus: Sequence[str] = ()) -> None:
        self.costs: list[Cost] = []
        self._whose, self._gpus = whose, gpus
        self._notes_memory = memory and torch_private.record_memory(True)
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        profile = torch.profiler.profile(activities=activities, record_shapes=True)
        self._profile: torch.profiler.profile | None = None
        try:
            # Torch doesn't refuse a second profiler: it silently spoils both.
            if torch_private.profiler_is_running():
                raise RuntimeError("another one is running")
            with warnings.catch_warnings():
                # Some versions of torch say at the start that the events of earlier cycles are dropped; here is only one.
                warnings.filterwarnings("ignore", message=".*Profiler clears events")
                profile.start()
            self._profile = profile
        except Exception as error:  # whatever the profiler of this platform raises
            warn(f"{whose} could not start torch.profiler: {error}")

    @property
    def runs(self) -> bool:
        """Whether it profiles."""
        return self._profile is not None

    def stop(self, path: str, table: str | None = None, memory: str | None = None) -> bool:
        """End the profile and write it.

        Args:
            path: The file; its folder is made.
            table: A file for the most costly operations, as lines of text.
            memory: A file for what the memory of CUDA devices is used for.

        Returns:
            Whether it was written.
        """
        profile, self._profile = self._profile, None
        if memory is not None:
            self._write_memory(memory)
        if profile is None:
            return False
        try:
            for gpu in self._gpus:
                torch.cuda.synchronize(gpu)
            profile.stop()
            os.makedirs(os.path.dirname(path), exist_ok=True)
            profile.export_chrome_trace(path)
            if table is not None:
                self.costs = costs_of(profile.key_averages())
                replace_file(table, table_of(self.costs).encode("utf-8"))
        except Exception as error:  # as above
            warn(f"{self._whose} could not write the profile: {error}")
            return False
        return True

    def _write_memory(self, path: str) -> None:
        try:
            torch_private.write_memory(path)
        except (OSError, RuntimeError) as error:
            warn(f"{self._whose} could not write the snapshot of memory: {error}")
        finally:
            if self._notes_memory:
                self._notes_memory = torch_private.record_memory(False)


def costs_of(events: Iterable[Any]) -> list[Cost]:
    """Return what each operation of a profile took, the most costly first.

    Args:
        events: What `key_averages` of the profile returns.
    """
    events = list(events)
    on_host = [one for one in events if one.device_type.name == "CPU"]
    kernels = [one for one in events if one.device_type.name != "CPU"]
    by_kernel = _costs((one.key, one.count, one.self_device_time_total) for one in kernels)
    if not by_kernel:
        return _costs((one.key, one.count, one.self_cpu_time_total) for one in on_host)
    by_operation = _costs((one.key, one.count, one.self_device_time_total) for one in on_host)
    # What a graph runs on a GPU belongs to no operation.
    return by_operation if 2 * _total(by_operation) >= _total(by_kernel) else by_kernel


def profile_path(folder: str) -> str:
    """Return the path of a trace where TensorBoard's profiler plugins look.

    Args:
        folder: The folder of the run.

    Example:
        >>> profile_path("logs/train").endswith(".pt.trace.json")
        True
    """
    name = f"{socket.gethostname()}_{os.getpid()}.{time.time_ns()}.pt.trace.json"
    return os.path.join(folder, "plugins", "profile", time.strftime("%Y_%m_%d_%H_%M_%S"), name)


def table_of(costs: Sequence[Cost]) -> str:
    r"""Return the most costly operations as lines of text.

    Example:
        >>> table_of([Cost("aten::mm", 4, 1.5, 0.75)]).splitlines()
        [' share          ms   calls  operation', '  75 %       1.500       4  aten::mm']
    """
    lines = [" share          ms   calls  operation"]
    lines += [f"{100 * one.share:4.0f} %{one.milliseconds:12.3f}{one.calls:8}  {one.name}" for one in costs[:_ROWS]]
    return "\n".join(lines) + "\n"


def _costs(found: Iterable[tuple[str, int, float]]) -> list[Cost]:
    # torch counts microseconds.
    rows = [(name, calls, microseconds / 1000) for name, calls, microseconds in found if microseconds > 0]
    total = sum(taken for _, _, taken in rows)
    rows.sort(key=lambda row: -row[2])
    return [Cost(name[:_LONGEST_NAME], calls, taken, taken / total) for name, calls, taken in rows]


def _total(costs: Sequence[Cost]) -> float:
    return sum(one.milliseconds for one in costs)
