"""SimpleRNN: each step's output is an input of the next."""

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
class SimpleRNNCell(RecurrentCell):
    """One step of `SimpleRNN`: `activation(inputs @ kernel + state @ recurrent_kernel + bias)`.

    Args:
        units: The size of the output and of each state.
        activation: The activation of the output; a name, a function, or None for none.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, which acts on inputs, of shape (features, units).
        recurrent_initializer: The initial values of the recurrent kernel, of shape (units, units).
        bias_initializer: The initial values of the bias.
        kernel_regularizer: A penalty on the kernel.
        recurrent_regularizer: A penalty on the recurrent kernel.
        bias_regularizer: A penalty on the bias.
        kernel_constraint: A projection of the kernel after each update.
        recurrent_constraint: A projection of the recurrent kernel after each update.
        bias_constraint: A projection of the bias after each update.
        dropout: The fraction of the inputs dropped in training, the same ones at all steps.
        recurrent_dropout: The fraction of the state dropped in training; leaves torch's fused kernel unused.
        seed: Kept for the configuration; masks come from torch's generator.
        **kwargs: `name`, `dtype`, `trainable`.

    Example:
        >>> import numpy as np
        >>> cell = SimpleRNNCell(4)
        >>> cell.build((None, 3))
        >>> output, states = cell(np.ones((2, 3)), cell.get_initial_state(2))
        >>> output.shape
        torch.Size([2, 4])
    """

    gates = 1

    def step(
        self, projected: torch.Tensor, states: list[torch.Tensor], kept: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return the state after a step."""
        before = states[0] if kept is None else states[0] * kept
        return [self.activation(projected + F.linear(before, self.stored("recurrent_kernel")))]

    def fused(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
        """Run torch's kernel where the activation is tanh or relu."""
        run = {activations.tanh: torch.rnn_tanh, activations.relu: torch.rnn_relu}.get(self.activation)
        if run is None:
            return None
        parameters = [self.stored("kernel"), self.stored("recurrent_kernel")]
        bias = self.stored("bias")
        if bias is not None:
            parameters += [bias, torch.zeros_like(bias)]
        outputs, last = run(
            inputs, states[0][None], one_chunk(parameters), self.use_bias, 1, 0.0, torch.is_grad_enabled(), False, True
        )
        return outputs, [last[0]]


@builtin
class SimpleRNN(RNN, metaclass=Namesake):
    """The simplest recurrent layer: the output of a step is its state.

    Source: Elman, 1990. Where the activations are the default ones and there is neither a mask nor
    recurrent dropout, torch's fused kernel runs all steps; otherwise a loop does.

    Args:
        units: The size of the output and of each state.
        activation: The activation of the output; a name, a function, or None for none.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, which acts on inputs, of shape (features, units).
        recurrent_initializer: The initial values of the recurrent kernel, of shape (units, units).
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
        return_sequences: Whether the output of every step is returned, not only the last one's.
        return_state: Whether the last states are returned as well.
        go_backwards: Whether the steps are taken from the last to the first.
        stateful: Whether a batch starts with the last states of the batch before it.
        unroll: Has no effect here.
        seed: Kept for the configuration; masks come from torch's generator.
        **kwargs: `name`, `dtype`, `trainable`, `zero_output_for_mask`, and `input_shape` of a first layer.

    Raises:
        ValueError: For sizes that aren't positive whole numbers, fractions outside [0, 1], or unknown names.

    Example:
        >>> import numpy as np
        >>> SimpleRNN(4, return_sequences=True)(np.ones((2, 5, 3))).shape
        torch.Size([2, 5, 4])
    """

    @accepts_old_arguments
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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            SimpleRNNCell(
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
                dtype=kwargs.get("dtype"),
                trainable=kwargs.get("trainable", True),
                name="simple_rnn_cell",
            ),
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.units = self.cell.units

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **self.run_config(),
            **self.cell.own_config(),
            "activity_regularizer": arguments.serialized(regularizers, self.activity_regularizer),
        }
