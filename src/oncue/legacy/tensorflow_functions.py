"""What scripts call of TensorFlow beside Keras, and the names of its types."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

float16, float32, float64, string = "float16", "float32", "float64", "string"
int8, int16, int32, int64, uint8 = "int8", "int16", "int32", "int64", "uint8"


class PhysicalDevice(NamedTuple):
    """A device that there is.

    Args:
        name: Its name.
        device_type: "CPU" or "GPU".
    """

    name: str
    device_type: str


def list_physical_devices(device_type: str | None = None) -> list[PhysicalDevice]:
    """Return the devices of a type, "CPU" or "GPU"; all of them by default."""
    import torch

    found = [PhysicalDevice("/physical_device:CPU:0", "CPU")]
    found += [PhysicalDevice(f"/physical_device:GPU:{index}", "GPU") for index in range(torch.cuda.device_count())]
    return [device for device in found if device_type is None or device.device_type == device_type]


def is_gpu_available(*_: Any, **__: Any) -> bool:
    """Return whether there is a GPU."""
    return bool(list_physical_devices("GPU"))


def is_built_with_cuda() -> bool:
    """Return whether torch was built with CUDA."""
    import torch

    return torch.version.cuda is not None


def gpu_device_name() -> str:
    """Return the name of the first GPU; empty where there is none."""
    return "/device:GPU:0" if is_gpu_available() else ""


def set_memory_growth(device: Any, enable: bool) -> None:
    """Do nothing: torch takes memory of a GPU as it needs it."""


def executing_eagerly() -> bool:
    """Return True: there are no graphs to fill."""
    return True


def run_functions_eagerly(run_eagerly: bool) -> None:
    """Do nothing: functions run as they are written."""


def get_logger() -> logging.Logger:
    """Return the logger of that name, which nobody here writes to."""
    return logging.getLogger("tensorflow")
