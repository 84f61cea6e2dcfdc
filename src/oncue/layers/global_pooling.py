"""GlobalAveragePooling and GlobalMaxPooling: one number for each channel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from oncue.core.builtin import builtin
from oncue.layers import arguments, windows
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake


class _GlobalPooling(Layer):
    rank: ClassVar[int]

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = arguments.data_format(type(self).__name__, data_format)
        self.keepdims = keepdims
        first = 1 if self.data_format == "channels_last" else 2
        self._axes = tuple(range(first, first + self.rank))

    def _check(self, shape: Any) -> None:
        arguments.check_rank(self.name, shape, self.rank + 2, windows.AXES[self.rank][self.data_format])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (batch, channels), with ones between where `keepdims`."""
        self._check(input_shape)
        if self.keepdims:
            return tuple(1 if axis in self._axes else size for axis, size in enumerate(input_shape))
        return tuple(size for axis, size in enumerate(input_shape) if axis not in self._axes)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


@builtin
class GlobalAveragePooling1D(_GlobalPooling, metaclass=Namesake):
    """The mean over all steps; over those that a mask lets through, if there is one.

    Args:
        data_format: "channels_last" for (batch, steps, features), the default, or "channels_first".
        keepdims: Whether the axis of steps stays, with size 1.
        **kwargs: `name` and `dtype`.

    Example:
        >>> GlobalAveragePooling1D()(torch.ones(1, 6, 3)).shape
        torch.Size([1, 3])
    """

    rank = 1
    supports_masking = True

    def call(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the output."""
        self._check(inputs.shape)
        if mask is None:
            return inputs.mean(self._axes, keepdim=self.keepdims)
        weights = mask.to(inputs.dtype).unsqueeze(2 if self.data_format == "channels_last" else 1)
        total = (inputs * weights).sum(self._axes, keepdim=self.keepdims)
        return total / weights.sum(self._axes, keepdim=self.keepdims)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Return None: the masked axis is gone."""


@builtin
class GlobalAveragePooling2D(_GlobalPooling, metaclass=Namesake):
    """The mean over all pixels.

    Args:
        data_format: "channels_last" for (batch, height, width, channels), the default, or "channels_first".
        keepdims: Whether the axes of height and width stay, with size 1.
        **kwargs: `name` and `dtype`.

    Example:
        >>> GlobalAveragePooling2D(keepdims=True)(torch.ones(1, 6, 6, 3)).shape
        torch.Size([1, 1, 1, 3])
    """

    rank = 2

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        self._check(inputs.shape)
        return inputs.mean(self._axes, keepdim=self.keepdims)


@builtin
class GlobalMaxPooling1D(_GlobalPooling, metaclass=Namesake):
    """The largest value over all steps.

    Args:
        data_format: "channels_last" for (batch, steps, features), the default, or "channels_first".
        keepdims: Whether the axis of steps stays, with size 1.
        **kwargs: `name` and `dtype`.

    Example:
        >>> GlobalMaxPooling1D()(torch.ones(1, 6, 3)).shape
        torch.Size([1, 3])
    """

    rank = 1

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        self._check(inputs.shape)
        return inputs.amax(self._axes, keepdim=self.keepdims)


@builtin
class GlobalMaxPooling2D(_GlobalPooling, metaclass=Namesake):
    """The largest value over all pixels.

    Args:
        data_format: "channels_last" for (batch, height, width, channels), the default, or "channels_first".
        keepdims: Whether the axes of height and width stay, with size 1.
        **kwargs: `name` and `dtype`.

    Example:
        >>> GlobalMaxPooling2D()(torch.ones(1, 6, 6, 3)).shape
        torch.Size([1, 3])
    """

    rank = 2

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        self._check(inputs.shape)
        return inputs.amax(self._axes, keepdim=self.keepdims)
