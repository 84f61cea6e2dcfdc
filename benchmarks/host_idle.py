"""How long the host waits for the device, from a trace of torch's profiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ways.pace import Finished, Pace

# The blocking calls of the CUDA runtime; a copy to the host waits within its own call.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def host_idle(
    trained: Any, ask: Callable[[tuple[float, float]], int | None], settle: Callable[[], None], folder: str
) -> dict[str, float]:
    """Train under the profiler, after one epoch without it.

    Args:
        trained: A way, with its model and data.
        ask: Returns how many epochs to trace, and then None to end the run.
        settle: Waits for the device.
        folder: Where the trace is written.

    Returns:
        `idle`, the seconds that the host waited, `kernels`, the seconds that the device was busy, and `wall`, the elapsed
        seconds under the profiler.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    # Without stacks and shapes: the profiler's overhead is on the host, and shortens its waits.
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    profiler = profile(activities=activities)
    walls: list[float] = []

    def traced(taken: tuple[float, float]) -> int | None:
        if walls:
            profiler.stop()
        walls.append(taken[0])
        epochs = ask(taken)
        if epochs is not None:
            profiler.start()
        return epochs

    try:
        trained.train(Pace(traced, settle), validation=False)
    except Finished:
        pass
    path = Path(folder) / "trace.json"
    profiler.export_chrome_trace(str(path))
    return {"wall": walls[-1], **waits(json.loads(path.read_text())["traceEvents"])}


def waits(events: list[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds that the host waited and that the device was busy, according to a trace.

    Args:
        events: The events in Chrome's trace format, with times in microseconds.
    """
    idle = sum(event["dur"] for event in events if event.get("name") in WAITS and event.get("ph") == "X")
    spans = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("ph") == "X" and event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    )
    worked, reached = 0.0, float("-inf")
    for start, end in spans:
        # Kernels in different streams may overlap.
        worked += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return {"idle": idle / 1e6, "kernels": worked / 1e6}
