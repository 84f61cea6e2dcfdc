"""LayerNormalization: each sample is brought to mean 0 and standard deviation 1 over its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from oncue import constraints, initializers, regularizers
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.variable import Variable


@builtin
class LayerNormalization(Layer, metaclass=Namesake):
    """Normalizes each sample over one axis or several (Ba et al., 2016).

    Args:
        axis: The axis or axes over which mean and variance are taken.
        epsilon: A small number added to the variance.
        center: Whether there is an offset, beta.
        scale: Whether there is a factor, gamma.
        beta_initializer: The initial values of beta.
        gamma_initializer: The initial values of gamma.
        beta_regularizer: A penalty on beta.
        gamma_regularizer: A penalty on gamma.
        beta_constraint: A projection of beta after each update.
        gamma_constraint: A projection of gamma after each update.
        rms_scaling: Whether the values are only divided by their standard deviation, and multiplied by gamma; `center` and
            `scale` have no effect then. `RMSNormalization` divides by the root of the mean square.
        **kwargs: `name`, `dtype`, `trainable`.

    Example:
        >>> import numpy as np
        >>> LayerNormalization()(np.array([[1.0, 3.0]])).round().tolist()
        [[-1.0, 1.0]]
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        *,
        rms_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rms_scaling = bool(rms_scaling)
        axes = plain(axis)
        if not isinstance(axes, (int, list, tuple)):
            raise TypeError(f"`axis` of LayerNormalization must be a whole number, or a list of them; got {axis!r}.")
        self.axis = [axes] if isinstance(axes, int) else list(axes)
        self.epsilon = plain(epsilon)
        self.center, self.scale = center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def build(self, input_shape: Shape) -> None:
        """Make gamma and beta."""
        self._axes = tuple(axis % len(input_shape) for axis in self.axis)
        shape = [arguments.known_size(self.name, input_shape, axis) for axis in self._axes]
        self.gamma: Variable | None = None
        self.beta: Variable | None = None
        if self.scale or self.rms_scaling:
            self.gamma = self.add_weight(
                shape,
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                name="gamma",
            )
        if self.center and not self.rms_scaling:
            self.beta = self.add_weight(
                shape,
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                name="beta",
            )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalize."""
        gamma, beta = self.stored("gamma"), self.stored("beta")
        if gamma is not None:
            inputs = arguments.like_weight(inputs, gamma)
        # torch normalizes over the last axes; where those are meant, nothing moves.
        last = tuple(range(-len(self._axes), 0))
        x = inputs.movedim(self._axes, last)
        if self.rms_scaling:
            variance = x.var(last, correction=0, keepdim=True)
            scaled: torch.Tensor = x * torch.rsqrt(variance + self.epsilon) * gamma
            return scaled.movedim(last, self._axes)
        outputs = F.layer_norm(x, x.shape[-len(last) :], gamma, beta, self.epsilon)
        return outputs.movedim(last, self._axes)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "rms_scaling": self.rms_scaling,
            **arguments.weight_config(self, "beta", "gamma"),
        }
