"""How long the host waits for the device, from a trace of torch's profiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ways.pace import Finished, Pace

# The calls of the CUDA runtime that return only when the device is done; a copy to the host waits within its own call.
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def host_idle(
    trained: Any, ask: Callable[[tuple[float, float]], int | None], settle: Callable[[], None], folder: str
) -> dict[str, float]:
    """Train under the profiler, after one epoch without it.

    Args:
        trained: A way that was made.
        ask: Says how many epochs to trace, and then that the run is to end.
        settle: Waits for the device.
        folder: Where the trace may be written.

    Returns:
        `idle`, the seconds that the host waited, `kernels`, the seconds in which the device worked, and `wall`, how long it
        took under the profiler.
    """
    from torch.profiler import ProfilerActivity, profile, supported_activities

    # Without stacks and shapes; what the profiler adds lies on the host, and shortens its waits.
    activities = [ProfilerActivity.CPU, *({ProfilerActivity.CUDA} & supported_activities())]
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
    """Return the host's waiting and the device's working seconds in the events of a trace.

    Args:
        events: As Chrome's trace format has them, with times in microseconds.
    """
    idle = sum(event["dur"] for event in events if event.get("name") in WAITS and event.get("ph") == "X")
    spans = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("ph") == "X" and event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    )
    worked, reached = 0.0, float("-inf")
    for start, end in spans:
        # Kernels of several streams may overlap.
        worked += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return {"idle": idle / 1e6, "kernels": worked / 1e6}
