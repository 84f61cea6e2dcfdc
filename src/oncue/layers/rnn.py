"""RNN: a cell run over the steps of sequences, with masks and states; the base of SimpleRNN, LSTM and GRU."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F

from oncue import backend, layers
from oncue.core.builtin import builtin
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.layer import Layer
from oncue.layers.real_keras import is_keras_layer, layer_of_keras
from oncue.layers.rnn_cell import RecurrentCell

_OF_CELL = frozenset(
    (
        "activation",
        "recurrent_activation",
        "use_bias",
        "unit_forget_bias",
        "reset_after",
        "dropout",
        "recurrent_dropout",
        "seed",
    )
) | {
    f"{role}_{what}"
    for role in ("kernel", "recurrent", "bias")
    for what in ("initializer", "regularizer", "constraint")
}
"""What recurrent layers show of their own cell."""


@builtin
class RNN(Layer):
    """Runs a cell over the steps of sequences.

    Args:
        cell: A layer with `state_size` and `call(inputs, states)` that returns the output and the new states of a step.
        return_sequences: Whether the output of every step is returned, not only the last one's.
        return_state: Whether the last states are returned as well.
        go_backwards: Whether the steps are taken from the last to the first; so are the outputs.
        stateful: Whether a batch starts with the last states of the batch before it.
        unroll: Has no effect here; kept for Keras's sake.
        zero_output_for_mask: Whether the output of a masked step is zero, not a copy of the one before it.
        **kwargs: `name`, `dtype`, `trainable`, and `input_shape` of a first layer.

    Raises:
        ValueError: When the cell lacks `call` or `state_size`.

    Example:
        >>> from oncue.layers import GRUCell
        >>> import numpy as np
        >>> RNN(GRUCell(4), return_sequences=True)(np.ones((2, 5, 3))).shape
        torch.Size([2, 5, 4])
    """

    supports_masking = True
    _takes_several = True
    _makes_masks = False

    def __new__(cls, cell: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Make the object; for several cells, or one that only Keras has, Keras's own."""
        if cls is RNN and isinstance(cell, (list, tuple)):
            cell = layers.StackedRNNCells(cell)
        if cls is RNN and (is_keras_layer(cell) or isinstance(cell, ForeignLayer)):
            return layer_of_keras("RNN", cell, *args, **kwargs)
        return super().__new__(cls, cell, *args, **kwargs)

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not (hasattr(cell, "call") and hasattr(cell, "state_size")):
            raise ValueError(
                f"`cell` must have `call(inputs, states)` and `state_size`; got {cell!r} of type {type(cell).__name__}."
            )
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self._kept_states: list[torch.Tensor] | None = None

    @property
    def states(self) -> list[torch.Tensor] | None:
        """The states kept from the last batch of a stateful layer."""
        return self._kept_states

    def __getattr__(self, name: str) -> Any:
        # What Keras's recurrent layers say of their own cell.
        if name in _OF_CELL and isinstance(self._modules.get("cell"), RecurrentCell):
            return getattr(self.cell, name)
        return super().__getattr__(name)

    def get_initial_state(self, batch_size: int) -> list[torch.Tensor]:
        """Return the states that a batch starts from: zeros.

        Args:
            batch_size: The number of samples.
        """
        if not hasattr(self.cell, "get_initial_state"):
            sizes = self.cell.state_size if isinstance(self.cell.state_size, (list, tuple)) else [self.cell.state_size]
            return [torch.zeros(batch_size, size, dtype=self._dtype, device=backend.device()) for size in sizes]
        states = self.cell.get_initial_state(batch_size)
        return list(states) if isinstance(states, (list, tuple)) else [states]

    def build(self, input_shape: Shape) -> None:
        """Build the cell."""
        arguments.check_rank(self.name, input_shape, 3, "(batch, steps, features)")
        self.cell.ensure_built((input_shape[0], input_shape[2]))

    def call(
        self,
        sequences: torch.Tensor,
        initial_state: Any = None,
        mask: torch.Tensor | None = None,
        training: bool = False,
    ) -> Any:
        """Run the cell over all steps.

        Args:
            sequences: A tensor of shape (batch, steps, features).
            initial_state: The states to start from, each of shape (batch, units); zeros by default.
            mask: A tensor of shape (batch, steps), False at steps to be skipped.
            training: Whether to drop.

        Returns:
            The last output, of shape (batch, units), or all, of shape (batch, steps, units); with `return_state` a
            tuple of that and the last states.
        """
        arguments.check_rank(self.name, sequences.shape, 3, "(batch, steps, features)")
        states = self._first_states(sequences, initial_state)
        if self.go_backwards:
            sequences = sequences.flip(1)
            mask = None if mask is None else mask.flip(1)
        if isinstance(self.cell, RecurrentCell):
            outputs, states = self._run(self.cell, sequences, states, mask, training)
        else:
            outputs, states = self._run_any(sequences, states, mask, training)
        if self.stateful and self._kept_states is not None:
            for kept, new in zip(self._kept_states, states, strict=True):
                kept.copy_(new.detach())
        output = outputs if self.return_sequences else outputs[:, -1]
        return (output, *states) if self.return_state else output

    def _first_states(self, sequences: torch.Tensor, initial_state: Any) -> list[torch.Tensor]:
        batch = sequences.shape[0]
        if self.stateful and self._starts_anew(batch):
            # Made in inference mode, they couldn't be written in training.
            with torch.inference_mode(False):
                self._kept_states = self._zeros(sequences, batch)
        if initial_state is not None:
            return list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        if self._kept_states is None:
            return self._zeros(sequences, batch)
        # Copies, because what is kept is overwritten before the backward pass.
        return [state.clone() for state in self._kept_states]

    def _starts_anew(self, batch: int) -> bool:
        if self._kept_states is None:
            return True
        kept = self._kept_states[0].shape[0]
        if kept == batch:
            return False
        if any(bool(state.any()) for state in self._kept_states):
            raise ValueError(
                f"'{self.name}' is stateful and keeps the states of {kept} samples; got a batch of {batch}. Give batches of "
                "one size, or call `reset_state()` between."
            )
        return True

    def _zeros(self, sequences: torch.Tensor, batch: int) -> list[torch.Tensor]:
        if isinstance(self.cell, RecurrentCell):
            return self.cell.get_initial_state(batch)
        sizes = self.cell.state_size
        return [sequences.new_zeros(batch, size) for size in (sizes if isinstance(sizes, (list, tuple)) else [sizes])]

    def reset_state(self) -> None:
        """Forget the states kept from the last batch: the next one starts from zeros, and may have another size."""
        # In place, because a graph may hold them.
        for state in self._kept_states or ():
            state.zero_()

    reset_states = reset_state

    def begin(self, states: list[torch.Tensor] | None) -> None:
        """Keep these tensors from here on, and start the next batch from zeros; None makes new ones then."""
        self._kept_states = states
        self.reset_state()

    def _run(
        self,
        cell: RecurrentCell,
        x: torch.Tensor,
        states: list[torch.Tensor],
        mask: torch.Tensor | None,
        training: bool,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        arguments.check_size(self.name, x.shape, -1, cell.features)
        x = arguments.like_weight(x, cell.stored("kernel"))
        if training and cell.dropout:
            # One mask for all steps of a sample (Gal & Ghahramani, 2016).
            x = x * F.dropout(torch.ones_like(x[:, :1]), cell.dropout)
        kept = cell.recurrent_mask(states[0], training)
        if mask is None and kept is None:
            done = cell.fused(x, states)
            if done is not None:
                return done
        projected = cell.project(x).unbind(1)
        outputs: list[torch.Tensor] = []
        for step, part in enumerate(projected):
            new = cell.step(part, states, kept)
            states = self._merge(outputs, mask, step, new[0], states, new)
        return torch.stack(outputs, 1), states

    def _run_any(
        self, x: torch.Tensor, states: list[torch.Tensor], mask: torch.Tensor | None, training: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        wants = {"training": training} if "training" in inspect.signature(self.cell.call).parameters else {}
        outputs: list[torch.Tensor] = []
        for step in range(x.shape[1]):
            output, after = self.cell(x[:, step], states, **wants)
            new = list(after) if isinstance(after, (list, tuple)) else [after]
            states = self._merge(outputs, mask, step, output, states, new)
        return torch.stack(outputs, 1), states

    def _merge(
        self,
        outputs: list[torch.Tensor],
        mask: torch.Tensor | None,
        step: int,
        output: torch.Tensor,
        old: list[torch.Tensor],
        new: list[torch.Tensor],
    ) -> list[torch.Tensor]:
        """Append the output of a step and return the states, where a mask skips the step those before it."""
        if mask is None:
            outputs.append(output)
            return new
        here = mask[:, step, None].bool()
        skipped = torch.zeros_like(output) if self.zero_output_for_mask or not outputs else outputs[-1]
        outputs.append(torch.where(here, output, skipped))
        return [torch.where(here, after, before) for after, before in zip(new, old, strict=True)]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask where all steps are returned; no mask for states."""
        mask = previous_mask if self.return_sequences else None
        return [mask, None] if self.return_state else mask

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """Return the shape of the output, or a list with those of the states."""
        batch, steps = input_shape[0], input_shape[1]
        sizes = self.cell.state_size if isinstance(self.cell.state_size, (list, tuple)) else [self.cell.state_size]
        width = getattr(self.cell, "output_size", None) or sizes[0]
        output = (batch, steps, width) if self.return_sequences else (batch, width)
        return [output, *((batch, size) for size in sizes)] if self.return_state else output

    def run_config(self) -> dict[str, Any]:
        """Return the arguments that are about the run, not the cell."""
        return {
            **Layer.get_config(self),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        from oncue.layers import serialize

        return {**self.run_config(), "cell": serialize(self.cell)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """Make a layer from what `get_config` returned.

        Args:
            config: The configuration.
            custom_objects: Your own cells, by class name.
        """
        if isinstance(config.get("cell"), dict):
            from oncue.layers import deserialize

            config = {**config, "cell": deserialize(config["cell"], custom_objects)}
        return cls(**config)
