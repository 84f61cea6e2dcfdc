"""BatchNormalization: each channel is brought to mean 0 and standard deviation 1 over the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import handle_torch_function, has_torch_function_variadic

from oncue import backend, constraints, initializers, regularizers
from oncue.core.builtin import builtin
from oncue.core.numbers import plain, whole_of
from oncue.core.suggest import unknown
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments
from oncue.variable import Variable


@builtin
class BatchNormalization(Layer, metaclass=Namesake):
    """Normalizes each channel over the batch in training, and by moving statistics otherwise (Ioffe & Szegedy, 2015).

    The moving statistics follow `moving = moving * momentum + batch * (1 - momentum)`, with the variance of the batch
    itself (divided by n, not n - 1), as Keras does and torch's own layer doesn't. With `trainable = False` the layer
    is in inference mode, also in training.

    Args:
        axis: The axis of the channels.
        momentum: How slowly the moving statistics move.
        epsilon: A small number added to the variance.
        center: Whether there is an offset, beta.
        scale: Whether there is a factor, gamma.
        beta_initializer: The initial values of beta.
        gamma_initializer: The initial values of gamma.
        moving_mean_initializer: The initial values of the moving mean.
        moving_variance_initializer: The initial values of the moving variance.
        beta_regularizer: A penalty on beta.
        gamma_regularizer: A penalty on gamma.
        beta_constraint: A projection of beta after each update.
        gamma_constraint: A projection of gamma after each update.
        renorm: Whether training normalizes nearly as inference does (Ioffe, 2017): the batch's statistics are corrected
            towards moving ones, for batches that are small or that aren't alike.
        renorm_clipping: How far the correction goes, with `renorm`: "rmin" and "rmax" for its factor, "dmax" for its
            offset; without bounds by default.
        renorm_momentum: How slowly the statistics of the correction move.
        synchronized: Keras's argument. Statistics are taken over all processes in any case.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: For bounds of `renorm_clipping` that can't be.

    Example:
        >>> import numpy as np
        >>> BatchNormalization()(np.ones((4, 3))).shape
        torch.Size([4, 3])
    """

    supports_masking = True

    @accepts_old_arguments
    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        axis = axis[0] if isinstance(axis, (list, tuple)) else axis
        whole = whole_of(axis)
        if whole is None:
            raise ValueError(
                f"`axis` of BatchNormalization must be a whole number; got {axis!r} of type {type(axis).__name__}."
            )
        self.axis = whole
        self.momentum = arguments.fraction("BatchNormalization", "momentum", momentum)
        self.epsilon = plain(epsilon)
        self.center, self.scale, self.synchronized = center, scale, synchronized
        self.renorm = bool(renorm)
        self.renorm_clipping = _checked_bounds(renorm_clipping) if renorm else renorm_clipping
        self.renorm_momentum = arguments.fraction("BatchNormalization", "renorm_momentum", renorm_momentum)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def build(self, input_shape: Shape) -> None:
        """Make gamma, beta and the moving statistics."""
        shape = (arguments.known_size(self.name, input_shape, self.axis),)
        self.gamma: Variable | None = None
        self.beta: Variable | None = None
        if self.scale:
            self.gamma = self.add_weight(
                shape,
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                name="gamma",
            )
        if self.center:
            self.beta = self.add_weight(
                shape,
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                name="beta",
            )
        self.moving_mean = self.add_weight(shape, self.moving_mean_initializer, trainable=False, name="moving_mean")
        self.moving_variance = self.add_weight(
            shape, self.moving_variance_initializer, trainable=False, name="moving_variance"
        )
        if self.renorm:
            for name, first in (
                ("moving_stddev", self._first_deviation),
                ("renorm_mean", self.moving_mean_initializer),
                ("renorm_stddev", self._first_deviation),
            ):
                self.add_weight(shape, first, trainable=False, name=name)

    def _first_deviation(self, shape: Shape, dtype: Any = None) -> torch.Tensor:
        first: torch.Tensor = self.moving_variance_initializer(shape, dtype=dtype)
        return first.sqrt()

    def call(self, inputs: torch.Tensor, training: bool = False, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Normalize; in training also move the statistics."""
        moving_mean, gamma, beta = self.stored("moving_mean"), self.stored("gamma"), self.stored("beta")
        x = arguments.like_weight(inputs, moving_mean).movedim(self.axis, 1)
        if not (training and self.trainable):
            outputs = F.batch_norm(x, moving_mean, self.stored("moving_variance"), gamma, beta, eps=self.epsilon)
        elif self.renorm:
            outputs = self._renormalized(x, None if mask is None else self._mask_for(mask, inputs), gamma, beta)
        elif mask is None:
            # Gives the batch's statistics along with the output, so that the data is read once.
            outputs, mean, deviation = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, self.epsilon)
            self._move(mean, deviation.detach() ** -2 - self.epsilon)
        else:
            mean, variance = masked_moments(x, self._mask_for(mask, inputs))
            self._move(mean, variance)
            shape = (1, -1, *(1,) * (x.dim() - 2))
            outputs = (x - mean.view(shape)) * torch.rsqrt(variance.view(shape) + self.epsilon)
            if gamma is not None:
                outputs = outputs * gamma.view(shape)
            if beta is not None:
                outputs = outputs + beta.view(shape)
        return outputs.movedim(1, self.axis)

    def _renormalized(self, x: torch.Tensor, mask: Any, gamma: Any, beta: Any) -> torch.Tensor:
        shape = (1, -1, *(1,) * (x.dim() - 2))
        if mask is None:
            outputs, mean, inverse = torch.native_batch_norm(x, None, None, None, None, True, 0.0, self.epsilon)
            deviation = 1.0 / inverse
        else:
            mean, variance = masked_moments(x, mask)
            deviation = torch.sqrt(variance + self.epsilon)
            outputs = (x - mean.view(shape)) / deviation.view(shape)
        with torch.no_grad():
            least = torch.clamp(self.stored("renorm_stddev"), min=self.epsilon**0.5)
            bounds = self.renorm_clipping or {}
            factor, offset = deviation / least, (mean - self.stored("renorm_mean")) / least
            if "rmin" in bounds or "rmax" in bounds:
                factor = factor.clamp(bounds.get("rmin"), bounds.get("rmax"))
            if "dmax" in bounds:
                offset = offset.clamp(-bounds["dmax"], bounds["dmax"])
            for name, statistic, momentum in (
                ("renorm_mean", mean, self.renorm_momentum),
                ("renorm_stddev", deviation, self.renorm_momentum),
                ("moving_mean", mean, self.momentum),
                ("moving_stddev", deviation, self.momentum),
            ):
                moving = self.stored(name)
                moving.lerp_(statistic.to(moving.dtype), 1.0 - momentum)
            self.stored("moving_variance").copy_((self.stored("moving_stddev") ** 2 - self.epsilon).relu())
        corrected: torch.Tensor = outputs * factor.view(shape) + offset.view(shape)
        if gamma is not None:
            corrected = corrected * gamma.view(shape)
        return corrected if beta is None else corrected + beta.view(shape)

    def _mask_for(self, mask: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return a mask, which has no last axis, as `masked_moments` wants it."""
        if mask.dim() != inputs.dim() - 1:
            raise ValueError(
                f"`mask` must have one axis less than the inputs; got shapes {tuple(mask.shape)} and {tuple(inputs.shape)}."
            )
        if self.axis in (-1, inputs.dim() - 1):
            return mask.expand(inputs.shape[:-1])
        return mask.unsqueeze(-1).expand(inputs.shape).movedim(self.axis, 1)

    def _move(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        with torch.no_grad():
            for name, statistic in (("moving_mean", mean), ("moving_variance", variance)):
                moving = self.stored(name)
                moving.lerp_(statistic.to(moving.dtype), 1.0 - self.momentum)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **arguments.weight_config(self, "beta", "gamma"),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "synchronized": self.synchronized,
            "renorm": self.renorm,
            "renorm_clipping": self.renorm_clipping,
            "renorm_momentum": self.renorm_momentum,
        }


def _checked_bounds(bounds: Any) -> dict[str, float]:
    given = {name: plain(value) for name, value in (bounds or {}).items()}
    wrong = next((name for name in given if name not in ("rmin", "rmax", "dmax")), None)
    if wrong is not None:
        raise unknown("bound in `renorm_clipping`", wrong, ("rmin", "rmax", "dmax"))
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("rmax", math.inf) < given.get("rmin", -math.inf) or given.get("dmax", 0) < 0:
        raise ValueError(
            f"`renorm_clipping` of BatchNormalization must have `rmax` of `rmin` or more and `dmax` of 0 or more; got {bounds}."
        )
    return given


def masked_moments(
    x: torch.Tensor, mask: torch.Tensor, summed: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of each channel (axis 1) over the places that a mask lets through.

    Args:
        x: Values, shape (batch, channels, ...).
        mask: True, or 1, where a place counts; shape (batch, ...), or (batch, channels, ...) where channels differ.
        summed: What to do with each sum over the batch, where there are rows elsewhere.
    """
    if has_torch_function_variadic(x, mask) and summed is None:
        found: tuple[torch.Tensor, torch.Tensor] = handle_torch_function(masked_moments, (x, mask), x, mask)
        return found
    axes = [axis for axis in range(x.dim()) if axis != 1]
    weights = mask.to(x.dtype)
    weights = weights if mask.dim() == x.dim() else weights.unsqueeze(1)
    parts = [weights.sum(axes), (x * weights).sum(axes)]
    if summed is not None:
        joined = summed(torch.cat(parts))
        parts = [joined[: len(parts[0])], joined[len(parts[0]) :]]
    total = parts[0] + backend.epsilon()
    mean = parts[1] / total
    second = ((x - mean.view(1, -1, *(1,) * (x.dim() - 2))) ** 2 * weights).sum(axes)
    return mean, (second if summed is None else summed(second)) / total
