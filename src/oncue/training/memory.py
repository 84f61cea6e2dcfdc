"""What of a run is in memory, and what is said when there isn't enough of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from oncue.callbacks import CallbackList
from oncue.core.phrases import line
from oncue.feeding.batch import Batches
from oncue.optimizers import Optimizer

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer

# Neither MPS nor the CPU has an error class of its own for it, nor have libraries that CUDA brings.
_WORDS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there isn't enough memory, of a device or of the host.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


@contextmanager
def told_of_memory(
    model: Trainer, kind: str, batches: Batches, callbacks: CallbackList | None = None
) -> Iterator[None]:
    """Enclose a run, or what comes before it: an error for want of memory says what had it, and leaves none of it taken.

    Args:
        model: A prepared model.
        kind: "train", "test" or "predict".
        batches: The data.
        callbacks: The list of the run; None before it.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            _tell(error, model, kind, batches, callbacks)
            release(error, model)
        raise


def parts_of(model: Trainer, device: torch.device, batches: Batches | None) -> dict[str, int]:
    """Return the bytes on a device of what lasts from step to step, by name.

    Args:
        model: A built model.
        device: The device.
        batches: The data; those that were copied there as a whole count.
    """
    optimizer = model.optimizer if isinstance(model.optimizer, Optimizer) and model.optimizer.built else None
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    found = {
        "weights": _size((*model.parameters(), *model.buffers()), device),
        "gradients": _size(gradients, device),
        "the optimizer's state": 0 if optimizer is None else _size(optimizer.state_tensors(), device),
        "the data": 0 if batches is None else batches.resident.get(device, 0),
    }
    return {name: size for name, size in found.items() if size}


def process_memory() -> int:
    """Return the bytes of memory that this process has; 0 where the system doesn't say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _tell(error: Exception, model: Trainer, kind: str, batches: Batches, callbacks: CallbackList | None) -> None:
    device = model.device
    parts = parts_of(model, device, batches)
    on_host = device.type == "cpu"
    total = torch.cuda.memory_allocated(device) if device.type == "cuda" else process_memory() if on_host else 0
    rest = total - sum(parts.values())
    if rest > 0:
        parts["the rest of the process" if on_host else "activations and the rest"] = rest
    trained = all(one.grad is not None for one in model.parameters() if one.requires_grad)
    data: dict[str, Any] = {
        "kind": kind,
        "before": callbacks is None,
        "step": None if callbacks is None else _step(model, kind),
        "batch_size": batches.batch_size,
        "device": str(device),
        "parts": parts,
        "half_updated": kind == "train" and trained and "gradients" in parts,
    }
    words = line("out_of_memory", data)
    error.add_note(words[:1].upper() + words[1:])
    if callbacks is not None:
        who = {"train": "fit", "test": "evaluate", "predict": "predict"}[kind]
        callbacks.journal.write(who, what="out_of_memory", epoch=callbacks.progress.epoch, data=data)


def _step(model: Trainer, kind: str) -> int | None:
    """Return which step of training it was, counted from 1; None in other passes, and where nobody counts."""
    optimizer = model.optimizer
    if kind != "train" or not isinstance(optimizer, Optimizer):
        return None
    return int(optimizer.iterations) + 1


def release(error: BaseException, model: Trainer) -> None:
    """Free what a failed step holds; the traceback stays, but for the values of the variables in it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__
    model.zero_grad(set_to_none=True)
    # Recorded graphs hold the memory of a batch of the size that there was no room for.
    model._plan.graphs.steps.clear()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's, without types
        torch.cuda.empty_cache()


def _size(tensors: Iterable[torch.Tensor], device: torch.device) -> int:
    # Several names may be of the same memory.
    found = {one.data_ptr(): one.nbytes for one in tensors if one.device == device}
    return sum(found.values())
