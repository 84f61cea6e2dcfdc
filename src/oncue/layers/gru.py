"""GRU: a recurrent layer whose state is replaced through gates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from oncue import activations, regularizers
from oncue.core.builtin import builtin
from oncue.layers import arguments
from oncue.layers.real_keras import Namesake
from oncue.layers.rnn import RNN
from oncue.layers.rnn_cell import RecurrentCell, one_chunk
from oncue.legacy import accepts_old_arguments


@builtin
class GRUCell(RecurrentCell):
    """One step of `GRU`; the gates come in the order update, reset, new.

    Args:
        units: The size of the output and of each state.
        activation: The activation of the output; a name, a function, or None for none.
        recurrent_activation: The activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, which acts on inputs, of shape (features, 3 * units).
        recurrent_initializer: The initial values of the recurrent kernel, of shape (units, 3 * units).
        bias_initializer: The initial values of the bias.
        kernel_regularizer: A penalty on the kernel.
        recurrent_regularizer: A penalty on the recurrent kernel.
        bias_regularizer: A penalty on the bias.
        kernel_constraint: A projection of the kernel after each update.
        recurrent_constraint: A projection of the recurrent kernel after each update.
        bias_constraint: A projection of the bias after each update.
        dropout: The fraction of the inputs dropped in training, the same ones at all steps.
        recurrent_dropout: The fraction of the state dropped in training; leaves torch's fused kernel unused.
        reset_after: Whether the reset gate acts after the recurrent product (as in cuDNN), not before it.
        seed: Kept for the configuration; masks come from torch's generator.
        **kwargs: `name`, `dtype`, `trainable`.

    Example:
        >>> import numpy as np
        >>> cell = GRUCell(4)
        >>> cell.build((None, 3))
        >>> output, states = cell(np.ones((2, 3)), cell.get_initial_state(2))
        >>> output.shape
        torch.Size([2, 4])
    """

    gates = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
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
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            **kwargs,
        )
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after
        # Keras keeps one bias for the inputs and one for the state where they can't be joined.
        self.bias_rows = 2 if reset_after else 0

    def project(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the part of all gates that depends on the inputs only; for all steps at once."""
        bias = self.stored("bias")
        if bias is not None and self.reset_after:
            bias = bias[0]
        return F.linear(inputs, self.stored("kernel"), bias)

    def step(
        self, projected: torch.Tensor, states: list[torch.Tensor], kept: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the state after a step."""
        before = states[0] if kept is None else states[0] * kept
        units = self.units
        if self.reset_after:
            bias = self.stored("bias")
            bias = None if bias is None else bias[1]
            product = F.linear(before, self.stored("recurrent_kernel"), bias)
            gates, new = product[:, : 2 * units], product[:, 2 * units :]
        else:
            gates = F.linear(before, self.stored("recurrent_kernel")[: 2 * units])
        update, reset = self.recurrent_activation(projected[:, : 2 * units] + gates).chunk(2, 1)
        if self.reset_after:
            new = reset * new
        else:
            new = F.linear(reset * before, self.stored("recurrent_kernel")[2 * units :])
        new = self.activation(projected[:, 2 * units :] + new)
        return [update * states[0] + (1 - update) * new]

    def fused(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
        """Run torch's kernel where it computes the same; it wants reset before update."""
        if (
            not self.reset_after
            or self.activation is not activations.tanh
            or self.recurrent_activation is not activations.sigmoid
        ):
            return None
        parameters = [self.stored("kernel"), self.stored("recurrent_kernel")]
        bias = self.stored("bias")
        if bias is not None:
            parameters += [bias[0], bias[1]]
        swapped = []
        for parameter in parameters:
            update, reset, new = parameter.chunk(3)
            swapped.append(torch.cat([reset, update, new]))
        outputs, last = torch.gru(
            inputs, states[0][None], one_chunk(swapped), self.use_bias, 1, 0.0, torch.is_grad_enabled(), False, True
        )
        return outputs, [last[0]]

    def own_config(self) -> dict[str, Any]:
        """Return the arguments of the cell, which are also the layer's."""
        return {
            **super().own_config(),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
            "reset_after": self.reset_after,
        }


@builtin
class GRU(RNN, metaclass=Namesake):
    """Gated recurrent unit: gates decide what of the state is reset and what is replaced.

    Source: Cho et al., 2014. Where the activations are the default ones and there is neither a mask nor
    recurrent dropout, torch's fused kernel runs all steps; otherwise a loop does.

    Args:
        units: The size of the output and of each state.
        activation: The activation of the output; a name, a function, or None for none.
        recurrent_activation: The activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, which acts on inputs, of shape (features, 3 * units).
        recurrent_initializer: The initial values of the recurrent kernel, of shape (units, 3 * units).
        bias_initializer: The initial values of the bias.
        kernel_regularizer: A penalty on the kernel.
        recurrent_regularizer: A penalty on the recurrent kernel.
        bias_regularizer: A penalty on the bias.
        activity_regularizer: A penalty on the output.
        kernel_constraint: A projection of the kernel after each update.
        recurrent_constraint: A projection of the recurrent kernel after each update.
        bias_constraint: A projection of the bias after each update.
        dropout: The fraction of the inputs dropped in training, the same ones at all steps.
        recurrent_dropout: The fraction of the state dropped in training; leaves torch's fused kernel unused.
        seed: Kept for the configuration; masks come from torch's generator.
        return_sequences: Whether the output of every step is returned, not only the last one's.
        return_state: Whether the last states are returned as well.
        go_backwards: Whether the steps are taken from the last to the first.
        stateful: Whether a batch starts with the last states of the batch before it.
        unroll: Has no effect here.
        reset_after: Whether the reset gate acts after the recurrent product (as in cuDNN), not before it.
        use_cudnn: Has no effect here: torch's fused kernels are taken where they fit.
        **kwargs: `name`, `dtype`, `trainable`, `zero_output_for_mask`, and `input_shape` of a first layer.

    Raises:
        ValueError: For sizes that aren't positive whole numbers, fractions outside [0, 1], or unknown names.

    Example:
        >>> import numpy as np
        >>> GRU(4, return_sequences=True)(np.ones((2, 5, 3))).shape
        torch.Size([2, 5, 4])
    """

    @accepts_old_arguments
    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: str | bool = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            GRUCell(
                units,
                activation=activation,
                recurrent_activation=recurrent_activation,
                use_bias=use_bias,
                kernel_initializer=kernel_initializer,
                recurrent_initializer=recurrent_initializer,
                bias_initializer=bias_initializer,
                kernel_regularizer=kernel_regularizer,
                recurrent_regularizer=recurrent_regularizer,
                bias_regularizer=bias_regularizer,
                kernel_constraint=kernel_constraint,
                recurrent_constraint=recurrent_constraint,
                bias_constraint=bias_constraint,
                dropout=dropout,
                recurrent_dropout=recurrent_dropout,
                reset_after=reset_after,
                seed=seed,
                dtype=kwargs.get("dtype"),
                trainable=kwargs.get("trainable", True),
                name="gru_cell",
            ),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.units, self.use_cudnn = self.cell.units, use_cudnn

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **self.run_config(),
            **self.cell.own_config(),
            "activity_regularizer": arguments.serialized(regularizers, self.activity_regularizer),
            "seed": self.cell.seed,
        }
