"""MaxPooling and AveragePooling: a window slides, its largest or mean value stays."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from oncue.core.builtin import builtin
from oncue.layers import arguments, windows
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments


class _Pooling(Layer):
    rank: ClassVar[int]

    def _configure(self, pool_size: Any, strides: Any, padding: str, data_format: str | None) -> None:
        kind = type(self).__name__
        self.pool_size = arguments.sizes(kind, "pool_size", pool_size, self.rank)
        self.strides = arguments.sizes(kind, "strides", self.pool_size if strides is None else strides, self.rank)
        self.padding = arguments.one_of(kind, "padding", padding, ("valid", "same"))
        self.data_format = arguments.data_format(kind, data_format)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        arguments.check_rank(self.name, inputs.shape, self.rank + 2, windows.AXES[self.rank][self.data_format])
        return windows.restored(self._pool(windows.channels_first(inputs, self.data_format)), self.data_format)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        return windows.output_shape(self, input_shape, self.pool_size, self.strides, None)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "padding": self.padding,
            "strides": self.strides,
            "data_format": self.data_format,
        }


class _MaxPooling(_Pooling):
    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = windows.padded(x, self.padding, self.pool_size, self.strides, float("-inf"), symmetric=False)
        pool = F.max_pool1d if self.rank == 1 else F.max_pool2d
        return pool(x, self.pool_size, self.strides)


class _AveragePooling(_Pooling):
    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.padding == "same":
            # Only real numbers count in the mean, as under TensorFlow (Keras's torch backend repeats the edge instead).
            # Ones, padded alike, tell how many there are in each window.
            whole = x.new_ones((1, 1, *x.shape[2:]))
            x, _ = windows.padded(x, "same", self.pool_size, self.strides, symmetric=False)
            whole, _ = windows.padded(whole, "same", self.pool_size, self.strides, symmetric=False)
            return self._mean(x) / self._mean(whole)
        return self._mean(x)

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        if self.rank == 1:
            return F.avg_pool1d(x, self.pool_size, self.strides)
        return F.avg_pool2d(x, self.pool_size, self.strides)


@builtin
class MaxPooling1D(_MaxPooling, metaclass=Namesake):
    """Keeps the largest value of each window of steps.

    Args:
        pool_size: The length of the window, in steps.
        strides: How far it moves; `pool_size` by default.
        padding: "valid" (none) or "same".
        data_format: "channels_last" for (batch, steps, features), the default, or "channels_first".
        name: The layer's name.
        **kwargs: `dtype`.

    Example:
        >>> MaxPooling1D(2)(torch.ones(1, 6, 3)).shape
        torch.Size([1, 3, 3])
    """

    rank = 1

    @accepts_old_arguments
    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._configure(pool_size, strides, padding, data_format)


@builtin
class MaxPooling2D(_MaxPooling, metaclass=Namesake):
    """Keeps the largest value of each window of pixels.

    Args:
        pool_size: Height and width of the window; one number for both.
        strides: How far it moves; `pool_size` by default.
        padding: "valid" (none) or "same".
        data_format: "channels_last" for (batch, height, width, channels), the default, or "channels_first".
        name: The layer's name.
        **kwargs: `dtype`.

    Example:
        >>> MaxPooling2D()(torch.ones(1, 6, 6, 3)).shape
        torch.Size([1, 3, 3, 3])
    """

    rank = 2

    @accepts_old_arguments
    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._configure(pool_size, strides, padding, data_format)


@builtin
class AveragePooling1D(_AveragePooling, metaclass=Namesake):
    """Keeps the mean of each window of steps.

    Args:
        pool_size: The length of the window, in steps.
        strides: How far it moves; `pool_size` by default.
        padding: "valid" (none) or "same".
        data_format: "channels_last" for (batch, steps, features), the default, or "channels_first".
        name: The layer's name.
        **kwargs: `dtype`.

    Example:
        >>> AveragePooling1D(2)(torch.ones(1, 6, 3)).shape
        torch.Size([1, 3, 3])
    """

    rank = 1

    @accepts_old_arguments
    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._configure(pool_size, strides, padding, data_format)


@builtin
class AveragePooling2D(_AveragePooling, metaclass=Namesake):
    """Keeps the mean of each window of pixels.

    Args:
        pool_size: Height and width of the window; one number for both.
        strides: How far it moves; `pool_size` by default.
        padding: "valid" (none) or "same".
        data_format: "channels_last" for (batch, height, width, channels), the default, or "channels_first".
        name: The layer's name.
        **kwargs: `dtype`.

    Example:
        >>> AveragePooling2D()(torch.ones(1, 6, 6, 3)).shape
        torch.Size([1, 3, 3, 3])
    """

    rank = 2

    @accepts_old_arguments
    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._configure(pool_size, strides, padding, data_format)
