"""Activation, and the activations that are layers of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from oncue import activations
from oncue.core.builtin import builtin
from oncue.core.numbers import number_of, plain
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments

# What a masked number becomes, as in Keras.
_LOWEST, _LOWEST_OF_HALF = -1e9, -3e4


class _Elementwise(Layer):
    supports_masking = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@builtin
class Activation(_Elementwise, metaclass=Namesake):
    """Applies an activation.

    Args:
        activation: A name such as "relu", or a function of a tensor.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: For a name that is not known.

    Example:
        >>> Activation("relu")(torch.tensor([[-1.0, 1.0]]))
        tensor([[0., 1.]])
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        return self.activation(inputs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


@builtin
class ReLU(_Elementwise, metaclass=Namesake):
    """Rectified linear unit.

    Args:
        max_value: The largest value returned, 0 or more; None for no bound.
        negative_slope: The slope below the threshold, 0 or more.
        threshold: Where the function bends, 0 or more.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: For a negative argument.

    Example:
        >>> ReLU(max_value=1.0)(torch.tensor([[-1.0, 3.0]]))
        tensor([[0., 1.]])
    """

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else _not_negative("ReLU", "max_value", max_value)
        self.negative_slope = _not_negative("ReLU", "negative_slope", negative_slope)
        self.threshold = _not_negative("ReLU", "threshold", threshold)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


@builtin
class LeakyReLU(_Elementwise, metaclass=Namesake):
    """Gives x above zero and `negative_slope * x` below.

    Args:
        negative_slope: The slope below zero; `alpha` in Keras 2.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: For a slope that is None or negative.

    Example:
        >>> LeakyReLU()(torch.tensor([[-1.0, 1.0]]))
        tensor([[-0.3000,  1.0000]])
    """

    @accepts_old_arguments
    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = _not_negative("LeakyReLU", "negative_slope", negative_slope)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        return F.leaky_relu(inputs, self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "negative_slope": self.negative_slope}


@builtin
class ELU(_Elementwise, metaclass=Namesake):
    """Exponential linear unit: `alpha * (exp(x) - 1)` below zero (Clevert et al., 2016).

    Args:
        alpha: The factor below zero.
        **kwargs: `name` and `dtype`.

    Example:
        >>> ELU()(torch.tensor([[-1.0, 1.0]]))
        tensor([[-0.6321,  1.0000]])
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = plain(alpha)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        return F.elu(inputs, self.alpha)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "alpha": self.alpha}


@builtin
class Softmax(_Elementwise, metaclass=Namesake):
    """Turns numbers into probabilities.

    Args:
        axis: The axis (or axes) along which they sum to 1.
        **kwargs: `name` and `dtype`.

    Example:
        >>> Softmax()(torch.tensor([[0.0, 0.0]]))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, axis: int | list[int] | tuple[int, ...] = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = plain(axis)

    def call(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the output.

        Args:
            inputs: The numbers.
            mask: Where it is False (or at most 0.5) the probability is zero; of a shape that broadcasts to the input's.

        Returns:
            Probabilities; zeros alone along an axis that is masked completely.

        Raises:
            ValueError: For a mask of another shape.
        """
        axis = [self.axis] if isinstance(self.axis, int) else list(self.axis)
        if mask is not None:
            mask = self._broadcast(mask, inputs)
            inputs = inputs.masked_fill(~mask, _LOWEST_OF_HALF if inputs.dtype == torch.float16 else _LOWEST)
        if len(axis) == 1:
            outputs = torch.softmax(inputs, axis[0])
        else:
            outputs = torch.exp(inputs - torch.logsumexp(inputs, tuple(axis), keepdim=True))
        return outputs if mask is None else outputs.masked_fill(~mask, 0)

    def _broadcast(self, mask: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        pairs = zip(reversed(mask.shape), reversed(inputs.shape), strict=False)
        if mask.dim() > inputs.dim() or any(size not in (1, whole) for size, whole in pairs):
            raise ValueError(
                f"`mask` of '{self.name}' must broadcast to the input; got a mask of shape {tuple(mask.shape)} for an "
                f"input of shape {tuple(inputs.shape)}. A mask of steps needs a last axis: `mask[..., None]`."
            )
        return mask if mask.dtype == torch.bool else mask > 0.5

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "axis": self.axis}


def _not_negative(layer: str, name: str, value: Any) -> float:
    number = number_of(value)
    if number is None or number < 0:
        raise ValueError(
            f"`{name}` of {layer} must be a number of 0 or more; got {value!r} of type {type(value).__name__}."
        )
    return float(number)
