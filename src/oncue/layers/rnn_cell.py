"""RecurrentCell: what SimpleRNNCell, LSTMCell and GRUCell share."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from oncue import activations, constraints, initializers, regularizers
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.variable import Variable


class RecurrentCell(Layer):
    """One step of a recurrent layer: from the features of a step and the states before it to the states after it.

    Kernels are kept in torch's order of axes, so that torch's fused kernels can take them as they are.
    """

    gates: ClassVar[int]
    bias_rows: int = 0

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        kind = type(self).__name__.removesuffix("Cell")
        self.units = arguments.count(kind, "units", units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.dropout = arguments.fraction(kind, "dropout", dropout)
        self.recurrent_dropout = arguments.fraction(kind, "recurrent_dropout", recurrent_dropout)
        self.seed = seed
        self.state_size: int | list[int] = self.units
        self.output_size = self.units
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(self, input_shape: Shape) -> None:
        """Make the kernel, the recurrent kernel and the bias."""
        width = self.gates * self.units
        self.features = arguments.known_size(self.name, input_shape)
        self.kernel = self.add_weight(
            (self.features, width),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
            axes=(1, 0),
        )
        self.recurrent_kernel = self.add_weight(
            (self.units, width),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            name="recurrent_kernel",
            axes=(1, 0),
        )
        self.bias: Variable | None = None
        if self.use_bias:
            self.bias = self.add_weight(
                (self.bias_rows, width) if self.bias_rows else (width,),
                self._first_bias(),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

    def _first_bias(self) -> Any:
        return self.bias_initializer

    def project(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the part of all gates that depends on the inputs only; for all steps at once."""
        return F.linear(inputs, self.stored("kernel"), self.stored("bias"))

    def step(
        self, projected: torch.Tensor, states: list[torch.Tensor], kept: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the states after a step; the first one is the output.

        Args:
            projected: What `project` gave for the step.
            states: The states before it.
            kept: The mask of recurrent dropout, or None.
        """
        raise NotImplementedError

    def fused(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
        """Run torch's own kernel over all steps, if it computes what this cell does; else return None.

        Whether it prepares for a backward pass depends on gradients being recorded, not on the mode of the layer: cuDNN
        would refuse the gradient of a layer in inference mode.
        """
        return None

    def call(self, inputs: torch.Tensor, states: Any, training: bool = False) -> tuple[torch.Tensor, Any]:
        """Compute one step: return the output and the new states."""
        before = list(states) if isinstance(states, (list, tuple)) else [states]
        inputs = arguments.like_weight(inputs, self.stored("kernel"))
        if training and self.dropout:
            inputs = F.dropout(inputs, self.dropout)
        after = self.step(self.project(inputs), before, self.recurrent_mask(before[0], training))
        return after[0], after if isinstance(states, (list, tuple)) else after[0]

    def recurrent_mask(self, state: torch.Tensor, training: bool) -> torch.Tensor | None:
        """Return which parts of the state are kept, the same for all steps; None for all."""
        if not training or not self.recurrent_dropout:
            return None
        return F.dropout(torch.ones_like(state), self.recurrent_dropout)

    def get_initial_state(self, batch_size: int) -> list[torch.Tensor]:
        """Return zeros for each state."""
        sizes = self.state_size if isinstance(self.state_size, list) else [self.state_size]
        return [self.stored("kernel").new_zeros(batch_size, size) for size in sizes]

    def own_config(self) -> dict[str, Any]:
        """Return the arguments of the cell, which are also the layer's."""
        return {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **arguments.weight_config(self, "kernel", "recurrent", "bias"),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this cell."""
        return {**super().get_config(), **self.own_config(), "seed": self.seed}


def one_chunk(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the same values as views of one block of memory on CUDA, as cuDNN requires."""
    if not parameters[0].is_cuda:
        return parameters
    parts = [parameter.reshape(-1) for parameter in parameters]
    if len(parameters) == 2:
        # cuDNN's block has room for both biases even where a layer has none: a shorter one is copied at every call.
        parts.append(parameters[0].new_zeros(2 * parameters[0].shape[0]))
    pieces = torch.split_with_sizes(torch.cat(parts), [part.numel() for part in parts])
    return [piece.view(parameter.shape) for piece, parameter in zip(pieces, parameters, strict=False)]
