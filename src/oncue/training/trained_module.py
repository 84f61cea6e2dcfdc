"""TrainedModule: what training asks of a module: its device, its weights, its penalties and its mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue import backend
from oncue.layers.layer import Layer
from oncue.training.precision import Precision, in_float32


class TrainedModule(Layer):
    """A layer that can be placed on a device, built on data, and asked for its outputs and penalties.

    Example:
        >>> class Double(TrainedModule):
        ...     def call(self, inputs):
        ...         return inputs * 2
        >>> Double().device.type in ("cpu", "cuda", "mps")
        True
    """

    _holds_layers = True
    _chosen_device: torch.device | None = None
    _optimized: list[Any]
    # What `compile(precision=...)` asked for; None for 32 bits.
    _precision: Precision | None = None
    # Whether a model is being run: models inside it must not begin a pass of their own.
    _in_pass: ClassVar[bool] = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; what layers inside add to the loss belongs to this pass alone."""
        if self._precision is not None and not self._precision.is_on(device_type := self._device_type):
            with self._precision.autocast(device_type):
                outputs = self(*args, **kwargs)
            return in_float32(outputs)
        if not Layer.losses_in_use or TrainedModule._in_pass:
            return super().__call__(*args, **kwargs)
        self._forget_added_losses()
        TrainedModule._in_pass = True
        try:
            return super().__call__(*args, **kwargs)
        finally:
            TrainedModule._in_pass = False

    def _forward(self, x: Any) -> Any:
        return self(x)

    def _overrides(self, name: str) -> bool:
        """Return whether a subclass of the user's has its own method or property of a name."""
        owner = next(kind for kind in type(self).__mro__ if name in kind.__dict__)
        return not owner.__module__.startswith("oncue.training.")

    # Devices and building ----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device that the model trains on."""
        if self._chosen_device is not None:
            return self._chosen_device
        placed = next((tensor.device for tensor in self.parameters() if tensor.device.type != "cpu"), None)
        return backend.device() if placed is None else placed

    @property
    def _device_type(self) -> str:
        return (self._placed() or self.device).type

    def _place(self) -> torch.device:
        device = self.device
        if any(tensor.device != device for tensor in self.parameters() if not is_unready(tensor)):
            self.to(device)
        for module in self.modules():
            if isinstance(module, Layer):
                module._device = device
        return device

    def _build_on(self, x: Any) -> None:
        """Make the weights by running the model once, where they are not there yet."""
        if not self._all_built():
            with torch.no_grad(), self._mode(False):
                self(x)
            self._place()

    def _all_built(self) -> bool:
        return self.built and all(module.built for module in self.modules() if isinstance(module, Layer))

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Return the torch parameters that training updates."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    # Penalties ---------------------------------------------------------------------------------------------------

    def _has_penalties(self) -> bool:
        return any(isinstance(module, Layer) and module._regularizers for module in self.modules())

    def _may_add_losses(self) -> bool:
        return any(
            isinstance(module, Layer)
            and (module.activity_regularizer is not None or not type(module).__module__.startswith("oncue."))
            for module in self.modules()
        )

    def _penalty(self) -> torch.Tensor:
        terms = self.losses
        self._forget_added_losses()
        if terms:
            return torch.stack([term.sum() for term in terms]).sum()
        # Looking for a device is nothing that a compiled step can do.
        return torch.zeros((), device=self._device_hint or self.device)

    def _forget_added_losses(self) -> None:
        for module in self.modules():
            if isinstance(module, Layer):
                module._added_losses.clear()

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        before = self.training
        # A torch module inside may be in another mode than the model.
        if any(part.training != training for part in self.modules()):
            self.train(training)
        try:
            yield
        finally:
            if self.training != before:
                self.train(before)


def is_unready(tensor: torch.Tensor) -> bool:
    """Return whether a tensor of a lazy torch module has no values yet."""
    return isinstance(tensor, (UninitializedParameter, UninitializedBuffer))
