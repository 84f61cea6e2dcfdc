"""Masking: steps that hold nothing are skipped by the layers after."""

from __future__ import annotations

from typing import Any

import torch

from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake


@builtin
class Masking(Layer, metaclass=Namesake):
    """Marks the steps all of whose features equal a value, so that layers that know masks skip them.

    Args:
        mask_value: The value that means "nothing here".
        **kwargs: `name` and `dtype`.

    Example:
        >>> Masking().compute_mask(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), None)
        tensor([[False,  True]])
    """

    supports_masking = True

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mask_value: float = plain(mask_value)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs, with zeros in the skipped steps."""
        return inputs * (inputs != self.mask_value).any(-1, keepdim=True)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return which steps hold something."""
        return (inputs != self.mask_value).any(-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "mask_value": self.mask_value}
