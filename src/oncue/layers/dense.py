"""Dense: every output is a weighted sum of every input."""

from __future__ import annotations

from typing import Any

import torch

from oncue import activations, constraints, initializers, regularizers
from oncue.core.builtin import builtin
from oncue.layers import arguments
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments
from oncue.variable import Variable


@builtin
class Dense(Layer, metaclass=Namesake):
    """Computes `activation(inputs @ kernel + bias)` over the last axis.

    Args:
        units: The size of the last axis of the output.
        activation: A name or a function; None for none.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, of shape (inputs, units).
        bias_initializer: The initial values of the bias, of shape (units,).
        kernel_regularizer: A penalty on the kernel.
        bias_regularizer: A penalty on the bias.
        activity_regularizer: A penalty on the output.
        kernel_constraint: A projection of the kernel after each update.
        bias_constraint: A projection of the bias after each update.
        lora_rank: Not supported; must be None.
        lora_alpha: Not supported; must be None.
        quantization_config: Not supported; must be None.
        **kwargs: `name`, `dtype`, `trainable`, and `input_shape` or `input_dim` of a first layer.

    Raises:
        ValueError: For `units` that isn't a positive whole number, or unknown names.

    Example:
        >>> import numpy as np
        >>> Dense(2, activation="relu")(np.ones((4, 3))).shape
        torch.Size([4, 2])
    """

    supports_masking = True

    @accepts_old_arguments
    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: None = None,
        lora_alpha: None = None,
        quantization_config: None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        if not (lora_rank is None and lora_alpha is None and quantization_config is None):
            raise ValueError(
                "Dense has no LoRA and no quantization here: leave out `lora_rank`, `quantization_config`."
            )
        self.units = arguments.count("Dense", "units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(self, input_shape: arguments.Shape) -> None:
        """Make the kernel and the bias."""
        if len(input_shape) < 2:
            raise ValueError(
                f"'{self.name}' expects an input of 2 axes or more, the first for the batch; got the shape "
                f"{tuple(input_shape)}."
            )
        self.inputs = arguments.known_size(self.name, input_shape)
        self.kernel = self.add_weight(
            (self.inputs, self.units),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias: Variable | None = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self.units,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        kernel, bias = self.stored("kernel"), self.stored("bias")
        arguments.check_size(self.name, inputs.shape, -1, self.inputs)
        inputs = arguments.like_weight(inputs, kernel)
        if bias is None:
            outputs = inputs @ kernel
        elif inputs.dim() == 2:
            outputs = torch.addmm(bias, inputs, kernel)
        else:
            outputs = torch.matmul(inputs, kernel) + bias
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: arguments.Shape) -> arguments.Shape:
        """Return the input's shape with `units` at its end."""
        if self.built and input_shape[-1] is not None:
            arguments.check_size(self.name, input_shape, -1, self.inputs)
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **arguments.weight_config(self, "kernel", "bias"),
            "quantization_config": None,
        }
