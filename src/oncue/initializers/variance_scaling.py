"""VarianceScaling and its six named variants: the spread depends on how many inputs and outputs a weight joins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from oncue.backend import torch_dtype
from oncue.core.builtin import builtin
from oncue.core.numbers import number_of
from oncue.core.suggest import unknown
from oncue.initializers.random import RandomInitializer
from oncue.seeds import SeedGenerator

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")
# The standard deviation of a standard normal distribution cut at two.
_CUT_DEVIATION = 0.87962566103423978


@builtin
class VarianceScaling(RandomInitializer):
    """Draws with the variance `scale / n`, where n counts the inputs or outputs that a weight joins.

    Source: He et al., 2015, https://arxiv.org/abs/1502.01852, and Keras's documentation of VarianceScaling.

    Args:
        scale: A positive factor on the variance.
        mode: What n is: "fan_in" (inputs), "fan_out" (outputs) or "fan_avg" (their mean).
        distribution: "truncated_normal" (also "normal"), "untruncated_normal" or "uniform".
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.
        input_axes: The axes of the shape that count as inputs; by default all but the last (the last but one, times
            the size of the window, for convolutions).
        output_axes: The axes that count as outputs.

    Raises:
        ValueError: For a scale that is not positive or an unknown mode or distribution.

    Example:
        >>> VarianceScaling(scale=2.0, seed=0)((4, 3)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | SeedGenerator | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(seed)
        factor = number_of(scale)
        if factor is None or factor <= 0:
            raise ValueError(f"`scale` must be greater than 0; got {scale!r}.")
        distribution = "truncated_normal" if distribution == "normal" else distribution
        if mode not in _MODES:
            raise unknown("mode of VarianceScaling", mode, _MODES)
        if distribution not in _DISTRIBUTIONS:
            raise unknown("distribution of VarianceScaling", distribution, _DISTRIBUTIONS)
        if (input_axes is None) != (output_axes is None):
            raise ValueError(
                f"`input_axes` and `output_axes` must be given together; got {input_axes!r} and {output_axes!r}."
            )
        self.scale, self.mode, self.distribution = factor, mode, distribution
        self.input_axes, self.output_axes = input_axes, output_axes

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Draw."""
        kind = torch_dtype(dtype)
        fan_in, fan_out = fans(shape, self.input_axes, self.output_axes)
        joined = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, joined)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return self._uniform(shape, kind, -limit, limit)
        if self.distribution == "truncated_normal":
            return self._truncated(shape, kind, 0.0, math.sqrt(variance) / _CUT_DEVIATION)
        return self._normal(shape, kind, 0.0, math.sqrt(variance))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {
            "seed": self._written_seed(),
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


class _Named(VarianceScaling):
    _settings: ClassVar[tuple[float, str, str]]

    def __init__(
        self,
        seed: int | SeedGenerator | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self._settings, seed=seed, input_axes=input_axes, output_axes=output_axes)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self._written_seed(), "input_axes": self.input_axes, "output_axes": self.output_axes}


@builtin
class GlorotUniform(_Named):
    """Uniform draws within `sqrt(6 / (fan_in + fan_out))`: the default of kernels (Glorot & Bengio, 2010).

    Args:
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.
        input_axes: See `VarianceScaling`.
        output_axes: See `VarianceScaling`.

    Example:
        >>> bool((GlorotUniform()((4, 2)).abs() <= 1).all())
        True
    """

    _settings = (1.0, "fan_avg", "uniform")


@builtin
class GlorotNormal(_Named):
    """Truncated normal draws of standard deviation `sqrt(2 / (fan_in + fan_out))`; arguments of `GlorotUniform`."""

    _settings = (1.0, "fan_avg", "truncated_normal")


@builtin
class HeNormal(_Named):
    """Truncated normal draws of standard deviation `sqrt(2 / fan_in)` (He et al., 2015); arguments of `GlorotUniform`."""

    _settings = (2.0, "fan_in", "truncated_normal")


@builtin
class HeUniform(_Named):
    """Uniform draws within `sqrt(6 / fan_in)` (He et al., 2015); arguments of `GlorotUniform`."""

    _settings = (2.0, "fan_in", "uniform")


@builtin
class LecunNormal(_Named):
    """Truncated normal draws of standard deviation `sqrt(1 / fan_in)` (LeCun et al., 1998); see `GlorotUniform`."""

    _settings = (1.0, "fan_in", "truncated_normal")


@builtin
class LecunUniform(_Named):
    """Uniform draws within `sqrt(3 / fan_in)` (LeCun et al., 1998); arguments of `GlorotUniform`."""

    _settings = (1.0, "fan_in", "uniform")


def fans(
    shape: Sequence[int], input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """Return how many inputs and how many outputs a weight of a shape joins.

    Args:
        shape: The weight's shape in Keras's order of axes: (inputs, outputs), or (*window, inputs, outputs).
        input_axes: The axes that count as inputs, to overrule that order.
        output_axes: The axes that count as outputs.

    Returns:
        The number of inputs and the number of outputs.

    Example:
        >>> fans((3, 3, 8, 16))
        (72, 144)
    """
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window
