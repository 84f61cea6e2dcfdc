"""TimeDistributed: one layer applied to each step."""

from __future__ import annotations

from typing import Any

import torch

from oncue.core.builtin import builtin, is_builtin
from oncue.layers import deserialize, serialize
from oncue.layers.arguments import Shape
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake, adopted


@builtin
class TimeDistributed(Layer, metaclass=Namesake):
    """Applies a layer to each step of a sequence, with the same weights.

    Args:
        layer: The layer.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: When `layer` is no layer.

    Example:
        >>> from oncue.layers import Dense
        >>> import numpy as np
        >>> TimeDistributed(Dense(4))(np.ones((2, 5, 3))).shape
        torch.Size([2, 5, 4])
    """

    supports_masking = True

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        layer = adopted(layer)
        if not isinstance(layer, Layer):
            raise ValueError(
                f"`layer` of TimeDistributed must be a layer; got {layer!r} of type {type(layer).__name__}."
            )
        self.layer = layer

    def build(self, input_shape: Shape) -> None:
        """Build the layer for one step."""
        if len(input_shape) < 3:
            raise ValueError(
                f"'{self.name}' expects (batch, steps, ...), 3 axes or more; got the shape {tuple(input_shape)}."
            )
        self.layer.ensure_built((input_shape[0], *input_shape[2:]))

    def call(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the layer to all steps at once, as if they were samples.

        Args:
            inputs: A tensor of shape (batch, steps, ...).
            mask: A mask of shape (batch, steps, ...), which the layer gets the part of each step of, if it takes one.

        Raises:
            ValueError: For a mask of another shape.
        """
        options: dict[str, Any] = {}
        if mask is not None:
            if mask.dim() < 2:
                raise ValueError(
                    f"`mask` of '{self.name}' must be at least 2D: (batch, steps); got {tuple(mask.shape)}."
                )
            if mask.shape[:2] != inputs.shape[:2]:
                raise ValueError(
                    f"`mask` of '{self.name}' has a shape {tuple(mask.shape)} that is incompatible with the input shape "
                    f"{tuple(inputs.shape)}: the first two must match."
                )
            # A mask of steps alone is none that a recurrent layer could use.
            if self.layer._accepts_mask and (mask.dim() > 2 or not is_builtin(type(self.layer))):
                options["mask"] = mask.flatten(0, 1)
        samples = inputs.flatten(0, 1)
        if mask is not None and isinstance(self.layer, ForeignLayer):
            samples._keras_mask = mask.flatten(0, 1)  # type: ignore[attr-defined]  # travels with the tensor, as in Keras
        outputs: torch.Tensor = self.layer(samples, **options)
        return outputs.view(*inputs.shape[:2], *outputs.shape[1:])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the layer's shape with the axis of steps."""
        inner = self.layer.compute_output_shape((input_shape[0], *input_shape[2:]))
        return (inner[0], input_shape[1], *inner[1:])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "layer": serialize(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a layer from what `get_config` returned."""
        return cls(**{**config, "layer": deserialize(config["layer"])})
