"""LSTM: a recurrent layer with a memory that is written to through gates."""

from __future__ import annotations

from collections.abc import Sequence
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
class LSTMCell(RecurrentCell):
    """One step of `LSTM`; the gates come in the order in, forget, new, out.

    Args:
        units: The size of the output and of each state.
        activation: The activation of the output; a name, a function, or None for none.
        recurrent_activation: The activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, which acts on inputs, of shape (features, 4 * units).
        recurrent_initializer: The initial values of the recurrent kernel, of shape (units, 4 * units).
        bias_initializer: The initial values of the bias.
        unit_forget_bias: Whether the forget gate's bias starts at 1 (Jozefowicz et al., 2015).
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
        >>> cell = LSTMCell(4)
        >>> cell.build((None, 3))
        >>> output, states = cell(np.ones((2, 3)), cell.get_initial_state(2))
        >>> output.shape
        torch.Size([2, 4])
    """

    gates = 4

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
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
        self.unit_forget_bias = unit_forget_bias
        self.state_size = [self.units, self.units]

    def _first_bias(self) -> Any:
        if not self.unit_forget_bias:
            return self.bias_initializer

        def forget_gate_at_one(shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
            gates = [self.bias_initializer((size,), dtype=dtype) for size in (self.units, 2 * self.units)]
            return torch.cat([gates[0], torch.ones_like(gates[0]), gates[1]])

        return forget_gate_at_one

    def step(
        self, projected: torch.Tensor, states: list[torch.Tensor], kept: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return output and memory after a step."""
        before = states[0] if kept is None else states[0] * kept
        gates = projected + F.linear(before, self.stored("recurrent_kernel"))
        let_in, forget, new, out = gates.chunk(4, 1)
        gate = self.recurrent_activation
        memory = gate(forget) * states[1] + gate(let_in) * self.activation(new)
        return [gate(out) * self.activation(memory), memory]

    @property
    def can_be_fused(self) -> bool:
        """Whether the activations are those of torch's kernel."""
        return self.activation is activations.tanh and self.recurrent_activation is activations.sigmoid

    def fused(self, inputs: torch.Tensor, states: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]] | None:
        """Run torch's kernel where the activations are the default ones; its gates have the same order."""
        if not self.can_be_fused:
            return None
        if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16:
            # The CPU has no such kernel for float16.
            return None
        parameters = [self.stored("kernel"), self.stored("recurrent_kernel")]
        bias = self.stored("bias")
        if bias is not None:
            parameters += [bias, torch.zeros_like(bias)]
        outputs, last, memory = torch.lstm(
            inputs,
            [state[None] for state in states],
            one_chunk(parameters),
            self.use_bias,
            1,
            0.0,
            torch.is_grad_enabled(),
            False,
            True,
        )
        return outputs, [last[0], memory[0]]

    def own_config(self) -> dict[str, Any]:
        """Return the arguments of the cell, which are also the layer's."""
        return {
            **super().own_config(),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
            "unit_forget_bias": self.unit_forget_bias,
        }


@builtin
class LSTM(RNN, metaclass=Namesake):
    """Long short-term memory: gates decide what is let in, forgotten and given out.

    Source: Hochreiter & Schmidhuber, 1997. Where the activations are the default ones and there is neither a mask nor
    recurrent dropout, torch's fused kernel runs all steps; otherwise a loop does.

    Args:
        units: The size of the output and of each state.
        activation: The activation of the output; a name, a function, or None for none.
        recurrent_activation: The activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: The initial values of the kernel, which acts on inputs, of shape (features, 4 * units).
        recurrent_initializer: The initial values of the recurrent kernel, of shape (units, 4 * units).
        bias_initializer: The initial values of the bias.
        unit_forget_bias: Whether the forget gate's bias starts at 1 (Jozefowicz et al., 2015).
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
        use_cudnn: Has no effect here: torch's fused kernels are taken where they fit.
        **kwargs: `name`, `dtype`, `trainable`, `zero_output_for_mask`, and `input_shape` of a first layer.

    Raises:
        ValueError: For sizes that aren't positive whole numbers, fractions outside [0, 1], or unknown names.

    Example:
        >>> import numpy as np
        >>> LSTM(4, return_sequences=True)(np.ones((2, 5, 3))).shape
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
        unit_forget_bias: bool = True,
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
        use_cudnn: str | bool = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            LSTMCell(
                units,
                activation=activation,
                recurrent_activation=recurrent_activation,
                use_bias=use_bias,
                kernel_initializer=kernel_initializer,
                recurrent_initializer=recurrent_initializer,
                bias_initializer=bias_initializer,
                unit_forget_bias=unit_forget_bias,
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
                name="lstm_cell",
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
