"""PReLU: a leaky relu that learns its slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oncue import constraints, initializers, regularizers
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake


@builtin
class PReLU(Layer, metaclass=Namesake):
    """Gives x above zero and `alpha * x` below, where alpha is learned (He et al., 2015).

    Args:
        alpha_initializer: The initial values of alpha.
        alpha_regularizer: A penalty on alpha.
        alpha_constraint: A projection of alpha after each update.
        shared_axes: The axes (the batch is 0) along which one alpha serves all: [1, 2] for images.
        **kwargs: `name`, `dtype`, `trainable`.

    Example:
        >>> import numpy as np
        >>> PReLU(alpha_initializer="ones")(np.array([[-1.0, 1.0]])).tolist()
        [[-1.0, 1.0]]
    """

    supports_masking = True

    def __init__(
        self,
        alpha_initializer: Any = "Zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        axes = plain(shared_axes)
        self.shared_axes = [axes] if isinstance(axes, int) else None if axes is None else list(axes)

    def build(self, input_shape: Shape) -> None:
        """Make alpha."""
        shared = self.shared_axes or []
        shape = [
            1 if axis in shared else arguments.known_size(self.name, input_shape, axis)
            for axis in range(1, len(input_shape))
        ]
        self.alpha = self.add_weight(
            shape,
            self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
            name="alpha",
        )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        alpha: torch.Tensor = self.stored("alpha")
        inputs = arguments.like_weight(inputs, alpha)
        return inputs.clamp(min=0) + alpha * inputs.clamp(max=0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            **arguments.weight_config(self, "alpha"),
            "shared_axes": self.shared_axes,
        }
