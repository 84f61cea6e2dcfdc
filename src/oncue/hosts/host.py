"""Host: a module, its optimizer and its scheduler, as callbacks see a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from oncue import torch_private
from oncue.core.warn import warn
from oncue.optimizers.learning_rate import checked_rate
from oncue.saving import formats


class Host:
    """Carries the seven members of `oncue.core.contract.TrainedModel` for a model that another loop trains.

    Weights are all parameters and buffers. Files of them are `.safetensors`, which every library reads.

    Args:
        module: The module whose weights callbacks keep and save.
        optimizers: Its torch optimizers; none in a loop that has none.
        schedulers: What the loop sets their learning rates by.

    Attributes:
        stop_training: Set by callbacks to end the run.
        optimizer: Reads and sets the learning rate; None without optimizers. Of several, an object with `optimizers`.
        scheduled: Whether the loop has schedulers.

    Example:
        >>> net = torch.nn.Linear(2, 1)
        >>> host = Host(net, [torch.optim.SGD(net.parameters(), lr=0.5)])
        >>> kept = host.get_weights()
        >>> _ = net.weight.data.zero_()
        >>> host.set_weights(kept)
        >>> bool(net.weight.any()), host.optimizer.learning_rate
        (True, 0.5)
    """

    def __init__(self, module: torch.nn.Module, optimizers: Sequence[Any] = (), schedulers: Iterable[Any] = ()) -> None:
        self.module = module
        self.stop_training = False
        schedulers = list(schedulers)
        self.scheduled = bool(schedulers)
        rates = [HostRate(one, schedulers, f"optimizer_{place}") for place, one in enumerate(optimizers)]
        self.optimizer: Any = SimpleNamespace(optimizers=rates) if rates else None
        if len(rates) == 1:
            self.optimizer, rates[0].name = rates[0], ""

    @property
    def device(self) -> torch.device:
        """Where the first tensor of the module is; the CPU without any."""
        return next((one.device for one in self.tensors().values()), torch.device("cpu"))

    def is_spread(self) -> bool:
        """Return whether this process has parts of the weights only, as with `fully_shard` and tensor parallelism."""
        from torch.distributed.fsdp import FullyShardedDataParallel
        from torch.distributed.tensor import DTensor

        wrapped = any(isinstance(one, FullyShardedDataParallel) for one in self.module.modules())
        return wrapped or any(isinstance(one, DTensor) for one in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers by name, not copied."""
        return {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}

    def get_weights(self) -> dict[str, Tensor]:
        """Return copies of all parameters and buffers, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors().items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what `get_weights` returned.

        Raises:
            ValueError: When the module has other tensors now.
        """
        own = self.tensors()
        if set(own) != set(weights):
            other = sorted(set(own) ^ set(weights))
            raise ValueError(f"The module has other tensors than when its weights were kept: {', '.join(other)}.")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])

    def save_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Write the weights into a `.safetensors` file."""
        formats.save_weights(self.module, filepath)

    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Read the weights from a `.safetensors` file."""
        formats.load_weights(self.module, filepath)

    def save(self, filepath: str | os.PathLike[str]) -> None:
        """Refuse: how a module is made again is known to its own program only.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"'{os.fspath(filepath)}' can't have the whole {type(self.module).__name__}: oncue doesn't know how to make one. "
            "Save its weights, as `save_weights('model.safetensors')`."
        )

    def prepare_save(
        self,
        filepath: str | os.PathLike[str],
        *,
        weights_only: bool = False,
        snapshot: Any = None,
        note: str | None = None,
    ) -> Callable[[], None]:
        """Take the weights, and return a function that writes them; see `oncue.saving.formats.prepare_save`."""
        if not weights_only:
            self.save(filepath)
        return formats.prepare_save(self.module, filepath, weights_only=True, snapshot=snapshot, note=note)

    def size_of_save(self, filepath: str | os.PathLike[str], *, weights_only: bool = False) -> int:
        """Return about how many bytes a file of the weights takes."""
        return formats.size_of_save(self.module, filepath, weights_only=True)


class HostRate:
    """The learning rate of a torch optimizer that the loop's own schedulers may set as well.

    Reads the first parameter group. Setting it sets the first group, and scales the others, and what schedulers compute the
    next rates from, by the same factor: a rate that a callback lowers stays lowered at the scheduler's next step.

    Args:
        optimizer: The optimizer.
        schedulers: The schedulers of the loop; those of other optimizers are ignored.
        name: How the rate is called where there are several.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> sgd = torch.optim.SGD([weight], lr=1.0)
        >>> decay = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: 0.5**step)
        >>> rate = HostRate(sgd, [decay])
        >>> rate.learning_rate = 0.1
        >>> sgd.step(), decay.step()
        (None, None)
        >>> rate.learning_rate
        0.05
    """

    def __init__(self, optimizer: Any, schedulers: Iterable[Any] = (), name: str = "") -> None:
        self.name = name
        self._optimizer = optimizer
        inner = {id(optimizer), id(getattr(optimizer, "optimizer", None))}
        self._schedulers = [
            one for one in map(unwrapped, schedulers) if id(getattr(one, "optimizer", optimizer)) in inner
        ]
        self._used: float | Tensor | None = None

    @property
    def key(self) -> str:
        """The name of the rate in logs."""
        return f"learning_rate_{self.name}" if self.name else "learning_rate"

    @property
    def learning_rate(self) -> float:
        """The rate of now; setting it scales all groups and the schedulers."""
        return checked_rate(self._optimizer.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        after, before = checked_rate(value), self.learning_rate
        if after == before:
            return
        if before == 0 and self._schedulers:
            raise ValueError(
                f"The learning rate can't be set to {after}: {type(self._schedulers[0]).__name__} has it at 0 now, so that "
                "nothing tells how its next rates are to change. Train without a scheduler, or with a constant one; or set the "
                "rate in an epoch in which it isn't 0."
            )
        for scheduler in self._schedulers:
            _scale_scheduler(scheduler, after / before)
        for group in self._optimizer.param_groups:
            share = checked_rate(group["lr"]) / before if before else 1.0
            _put(group, "lr", after * share)
            for name in ("initial_lr", "max_lr", "min_lr"):
                if self._schedulers and name in group:
                    _put(group, name, checked_rate(group[name]) * after / before)

    def note_used(self) -> None:
        """Keep the rate of the update that is made now; a scheduler may change it before the epoch ends."""
        rate = self._optimizer.param_groups[0]["lr"]
        self._used = rate.clone() if isinstance(rate, Tensor) else rate

    @property
    def used(self) -> float:
        """The rate that the last update was made with; that of now before any."""
        return self.learning_rate if self._used is None else checked_rate(self._used)

    @used.setter
    def used(self, value: float) -> None:
        self._used = value

    def check_settable(self, owner: str) -> None:
        """Refuse a callback that sets the rate beside a scheduler that decides for itself.

        Args:
            owner: The callback's class.

        Raises:
            ValueError: For a scheduler that watches a value, or has no `base_lrs` to scale.
        """
        if not self._schedulers and "initial_lr" in self._optimizer.param_groups[0]:
            warn(
                f"{owner} sets the learning rate, and the {type(self._optimizer).__name__} has had a scheduler, which this "
                "loop was not told of and which would undo it. Name it, as `scheduler=scheduler`."
            )
        for scheduler in self._schedulers:
            if any(not hasattr(part, "base_lrs") for part in torch_private.parts_of_scheduler(scheduler)):
                raise ValueError(
                    f"{owner} sets the learning rate, and so does the loop's own {type(scheduler).__name__}, which can't be "
                    f"told: one would undo what the other does. Leave out one of them."
                )


def rates_of(host: Host) -> list[HostRate]:
    """Return the learning rates of a host, none without an optimizer."""
    found = host.optimizer
    return [] if found is None else [found] if isinstance(found, HostRate) else list(found.optimizers)


def unwrapped(scheduler: Any) -> Any:
    """Return the scheduler that Accelerate's, Lightning's or transformers' own object stands for.

    Example:
        >>> unwrapped(SimpleNamespace(scheduler="inner"))
        'inner'
    """
    return getattr(scheduler, "scheduler", scheduler)


def _scale_scheduler(scheduler: Any, factor: float) -> None:
    for part in torch_private.parts_of_scheduler(scheduler):
        for name in ("base_lrs", "max_lrs"):
            if hasattr(part, name):
                setattr(part, name, [rate * factor for rate in getattr(part, name)])


def _put(group: dict[str, Any], name: str, value: float) -> None:
    if isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value
