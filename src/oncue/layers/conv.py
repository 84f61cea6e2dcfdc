"""Conv1D and Conv2D: a window of weights slides over steps or pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from oncue import activations, constraints, initializers, regularizers
from oncue.core.builtin import builtin
from oncue.layers import arguments, windows
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments, in_order_of_keras_1
from oncue.variable import Variable


class _Conv(Layer):
    rank: ClassVar[int]
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    def _configure(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        dilation_rate: Any,
        groups: int,
        activation: Any,
        use_bias: bool,
        **weights: Any,
    ) -> None:
        kind = type(self).__name__
        self.filters = arguments.count(kind, "filters", filters)
        self.groups = arguments.count(kind, "groups", groups)
        self.kernel_size = arguments.sizes(kind, "kernel_size", kernel_size, self.rank)
        self.strides = arguments.sizes(kind, "strides", strides, self.rank)
        self.dilation_rate = arguments.sizes(kind, "dilation_rate", dilation_rate, self.rank)
        self.padding = arguments.one_of(kind, "padding", padding, self.paddings)
        self.data_format = arguments.data_format(kind, data_format)
        if self.filters % self.groups:
            raise ValueError(
                f"`filters` of {kind} must be a multiple of `groups`; got filters={filters} and groups={groups}."
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"{kind} can't have both strides and dilation; got strides={self.strides} and "
                f"dilation_rate={self.dilation_rate}."
            )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(weights["kernel_initializer"])
        self.bias_initializer = initializers.get(weights["bias_initializer"])
        self.kernel_regularizer = regularizers.get(weights["kernel_regularizer"])
        self.bias_regularizer = regularizers.get(weights["bias_regularizer"])
        self.kernel_constraint = constraints.get(weights["kernel_constraint"])
        self.bias_constraint = constraints.get(weights["bias_constraint"])
        self._extent = tuple(
            (size - 1) * rate + 1 for size, rate in zip(self.kernel_size, self.dilation_rate, strict=True)
        )

    def build(self, input_shape: Shape) -> None:
        """Make the kernel (Keras sees (*window, inputs, filters), torch (filters, inputs, *window)) and the bias."""
        arguments.check_rank(self.name, input_shape, self.rank + 2, windows.AXES[self.rank][self.data_format])
        self._channel_axis = -1 if self.data_format == "channels_last" else 1
        self._channels = arguments.known_size(self.name, input_shape, self._channel_axis)
        if self._channels % self.groups:
            raise ValueError(
                f"The channels of the input of '{self.name}' must be a multiple of groups={self.groups}; got the shape "
                f"{tuple(input_shape)}."
            )
        self.kernel = self.add_weight(
            (*self.kernel_size, self._channels // self.groups, self.filters),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
            axes=(*range(2, 2 + self.rank), 1, 0),
        )
        self.bias: Variable | None = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self.filters,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        if inputs.dim() != self.rank + 2:
            arguments.check_rank(self.name, inputs.shape, self.rank + 2, windows.AXES[self.rank][self.data_format])
        arguments.check_size(self.name, inputs.shape, self._channel_axis, self._channels)
        kernel = self.stored("kernel")
        # The view of a channels-last array is a tensor in torch's channels_last memory format: nothing is copied.
        x = windows.channels_first(arguments.like_weight(inputs, kernel), self.data_format)
        x, padding = windows.padded(x, self.padding, self._extent, self.strides)
        convolve = F.conv1d if self.rank == 1 else F.conv2d
        outputs = convolve(x, kernel, self.stored("bias"), self.strides, padding, self.dilation_rate, self.groups)
        return self.activation(windows.restored(outputs, self.data_format))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        return windows.output_shape(self, input_shape, self._extent, self.strides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "activity_regularizer": arguments.serialized(regularizers, self.activity_regularizer),
            **arguments.weight_config(self, "kernel", "bias"),
        }


@builtin
class Conv1D(_Conv, metaclass=Namesake):
    """Slides a window over the steps of sequences.

    Args:
        filters: The number of channels of the output.
        kernel_size: The length of the window, in steps.
        strides: How far the window moves.
        padding: "valid" (none), "same" (as many steps come out as go in, divided by the strides) or "causal" (no
            output depends on later steps).
        data_format: "channels_last" for (batch, steps, features), the default, or "channels_first".
        dilation_rate: The distance of the window's taps.
        groups: The number of groups into which channels are split.
        activation: A name or a function; None for none.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, of shape (kernel_size, inputs / groups, filters).
        bias_initializer: The initial values of the bias, of shape (filters,).
        kernel_regularizer: A penalty on the kernel.
        bias_regularizer: A penalty on the bias.
        activity_regularizer: A penalty on the output.
        kernel_constraint: A projection of the kernel after each update.
        bias_constraint: A projection of the bias after each update.
        **kwargs: `name`, `dtype`, `trainable`, and `input_shape` of a first layer.

    Raises:
        ValueError: For sizes that aren't positive whole numbers, or unknown names.

    Example:
        >>> import numpy as np
        >>> Conv1D(4, 3, padding="causal")(np.ones((2, 10, 3))).shape
        torch.Size([2, 10, 4])
    """

    rank = 1
    paddings = ("valid", "same", "causal")

    @accepts_old_arguments
    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self._configure(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            groups,
            activation,
            use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )


@builtin
class Conv2D(_Conv, metaclass=Namesake):
    """Slides a window over the pixels of images.

    Args:
        filters: The number of channels of the output.
        kernel_size: Height and width of the window, in pixels; one number for both.
        strides: How far the window moves, down and right.
        padding: "valid" (none) or "same" (as many pixels come out as go in, divided by the strides).
        data_format: "channels_last" for (batch, height, width, channels), the default, or "channels_first".
        dilation_rate: The distance of the window's taps.
        groups: The number of groups into which channels are split.
        activation: A name or a function; None for none.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, of shape (height, width, inputs / groups, filters).
        bias_initializer: The initial values of the bias, of shape (filters,).
        kernel_regularizer: A penalty on the kernel.
        bias_regularizer: A penalty on the bias.
        activity_regularizer: A penalty on the output.
        kernel_constraint: A projection of the kernel after each update.
        bias_constraint: A projection of the bias after each update.
        **kwargs: `name`, `dtype`, `trainable`, and `input_shape` of a first layer.

    Raises:
        ValueError: For sizes that aren't positive whole numbers, or unknown names.

    Example:
        >>> import numpy as np
        >>> Conv2D(4, 3, activation="relu")(np.ones((2, 28, 28, 1))).shape
        torch.Size([2, 26, 26, 4])
    """

    rank = 2

    @accepts_old_arguments
    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self._configure(
            filters,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            groups,
            activation,
            use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )


@builtin
class Convolution1D(Conv1D):
    """`Conv1D` by the name and with the order of arguments that it had in Keras 1.

    Args:
        *args: As for `Conv1D`, or in Keras 1's order: filters, the length of the window, the initializer, the activation.
        **kwargs: As for `Conv1D`, or by Keras 1's names.

    Raises:
        ValueError: As for `Conv1D`; for `weights` of Keras 1.

    Example:
        >>> Convolution1D(4, 3).kernel_size
        (3,)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given, named = in_order_of_keras_1("Convolution1D", args, kwargs)
        super().__init__(*given, **named)


@builtin
class Convolution2D(Conv2D):
    """`Conv2D` by the name and with the order of arguments that it had in Keras 1.

    Args:
        *args: As for `Conv2D`, or in Keras 1's order: filters, rows and columns of the window, the initializer, the
            activation.
        **kwargs: As for `Conv2D`, or by Keras 1's names.

    Raises:
        ValueError: As for `Conv2D`; for `weights` of Keras 1.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     layer = Convolution2D(4, 3, 2, border_mode="same")
        >>> layer.kernel_size, layer.strides
        ((3, 2), (1, 1))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given, named = in_order_of_keras_1("Convolution2D", args, kwargs)
        super().__init__(*given, **named)


# Files and messages know both by today's names.
Convolution1D.__name__, Convolution2D.__name__ = "Conv1D", "Conv2D"
