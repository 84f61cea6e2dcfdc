"""Rescaling: a factor and an offset that are given, not learned."""

from __future__ import annotations

from typing import Any

import torch

from oncue import backend
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake


@builtin
class Rescaling(Layer, metaclass=Namesake):
    """Computes `inputs * scale + offset`, such as pixels of 0 to 255 as 0 to 1.

    Args:
        scale: A number, or one for each channel.
        offset: A number, or one for each channel.
        **kwargs: `name` and `dtype`.

    Example:
        >>> Rescaling(1 / 255)(torch.tensor([[0, 255]]))
        tensor([[0., 1.]])
    """

    supports_masking = True

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = plain(scale), plain(offset)

    def build(self, input_shape: Shape) -> None:
        """Put lists of factors and offsets where the layer works; they are no weights, so no file shows them."""
        device = self._placed() or backend.device_of_weights()
        for name, value in (("_scale", self.scale), ("_offset", self.offset)):
            self.register_buffer(name, torch.tensor(value, dtype=self._dtype, device=device), persistent=False)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        scale: Any = self._scale if isinstance(self.scale, list) else self.scale
        offset: Any = self._offset if isinstance(self.offset, list) else self.offset
        if backend.image_data_format() == "channels_first":
            scale, offset = (
                value.reshape(-1, 1, 1) if isinstance(value, torch.Tensor) and value.dim() == 1 else value
                for value in (scale, offset)
            )
        outputs: torch.Tensor = inputs.to(self._dtype) * scale + offset
        return outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}
