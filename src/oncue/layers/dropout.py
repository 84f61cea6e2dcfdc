"""Dropout and GaussianNoise: noise in training, nothing otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oncue.core.builtin import builtin
from oncue.core.numbers import number_of, plain
from oncue.layers import arguments
from oncue.layers.layer import Layer
from oncue.layers.quick_dropout import dropout
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments
from oncue.random import SeedGenerator
from oncue.seeded_mask import seeded_mask


@builtin
class Dropout(Layer, metaclass=Namesake):
    """Sets a random fraction of the inputs to zero in training and scales the rest up, so that the sum stays.

    Source: Srivastava et al., 2014.

    Args:
        rate: The fraction that is dropped, from 0 to 1.
        noise_shape: The shape of the mask, which is then broadcast over the inputs; None in it takes the input's size:
            (None, 1, None) drops the same features at each step of a sequence.
        seed: A whole number for masks that don't depend on torch's generator, or None.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: For a rate outside [0, 1].

    Example:
        >>> Dropout(0.5)(torch.ones(1, 3))
        tensor([[1., 1., 1.]])
    """

    supports_masking = True

    @accepts_old_arguments
    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rate = arguments.fraction("Dropout", "rate", rate)
        self.noise_shape = None if noise_shape is None else arguments.noise_shape(noise_shape)
        self.seed = plain(seed)
        self.seed_generator = None if seed is None else SeedGenerator(self.seed)

    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Drop in training."""
        if not training or self.rate == 0:
            return inputs
        if self.noise_shape is None and self.seed is None:
            return dropout(inputs, self.rate)
        if self.rate == 1:
            return torch.zeros_like(inputs)
        return inputs * self._mask(inputs)

    def _mask(self, inputs: torch.Tensor) -> torch.Tensor:
        shape = list(inputs.shape)
        if self.noise_shape is not None:
            shape = [have if size is None else size for have, size in zip(shape, self.noise_shape, strict=True)]
        keep = 1.0 - self.rate
        if self.seed_generator is not None:
            by_row = self.noise_shape is None or self.noise_shape[0] != 1
            return seeded_mask(self.seed_generator, shape, keep, inputs, by_row) / keep
        return torch.bernoulli(torch.full(shape, keep, device=inputs.device, dtype=inputs.dtype)) / keep

    def compute_output_shape(self, input_shape: arguments.Shape) -> arguments.Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}


@builtin
class GaussianNoise(Layer, metaclass=Namesake):
    """Adds normal noise in training.

    Args:
        stddev: The standard deviation of the noise.
        seed: Kept for the configuration; the noise comes from torch's generator.
        **kwargs: `name` and `dtype`.

    Example:
        >>> GaussianNoise(0.1)(torch.ones(1, 2))
        tensor([[1., 1.]])
    """

    supports_masking = True

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        spread = number_of(stddev)
        if spread is None or spread < 0:
            raise ValueError(f"`stddev` of GaussianNoise must be 0 or more; got {stddev!r}.")
        self.stddev, self.seed = spread, plain(seed)

    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        """Add noise in training."""
        return inputs + self.stddev * torch.randn_like(inputs) if training else inputs

    def compute_output_shape(self, input_shape: arguments.Shape) -> arguments.Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}
