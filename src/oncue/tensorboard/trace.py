"""Trace: a profile of some batches by `torch.profiler`, put where TensorBoard's profiler plugins look."""

from __future__ import annotations

import os
import socket
import time
import warnings

import torch

from oncue import torch_private
from oncue.core.warn import warn


class Trace:
    """Profiles from now until `stop`.

    A profiler that can't be started or written is a warning, never the end of the training.

    Args:
        folder: The folder of the run; the trace goes to `plugins/profile/<time>/<host>_<process>.pt.trace.json` in it.

    Example:
        >>> import tempfile
        >>> trace = Trace(tempfile.mkdtemp())
        >>> path = trace.stop()
        >>> path.endswith(".pt.trace.json")
        True
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile: torch.profiler.profile | None = torch.profiler.profile(activities=activities, record_shapes=True)
        try:
            # Torch doesn't refuse a second profiler: it silently spoils both.
            if torch_private.profiler_is_running():
                raise RuntimeError("another one is running")
            with warnings.catch_warnings():
                # Some versions of torch say at the start that the events of earlier cycles are dropped; here is only one.
                warnings.filterwarnings("ignore", message=".*Profiler clears events")
                self._profile.start()
        except Exception as error:  # whatever the profiler of this platform raises
            self._profile = None
            warn(f"TensorBoard could not start torch.profiler: {error}")

    def stop(self) -> str | None:
        """End the profile and write it.

        Returns:
            The path of the trace, or None when there is none.
        """
        profile, self._profile = self._profile, None
        if profile is None:
            return None
        try:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            profile.stop()
            run = os.path.join(self.folder, "plugins", "profile", time.strftime("%Y_%m_%d_%H_%M_%S"))
            os.makedirs(run, exist_ok=True)
            path = os.path.join(run, f"{socket.gethostname()}_{os.getpid()}.{time.time_ns()}.pt.trace.json")
            profile.export_chrome_trace(path)
        except Exception as error:  # as above
            warn(f"TensorBoard could not write the profile: {error}")
            return None
        return path
