"""Bidirectional: a recurrent layer and its mirror image."""

from __future__ import annotations

from typing import Any

import torch

from oncue.core.builtin import builtin
from oncue.core.suggest import unknown
from oncue.layers import deserialize, serialize
from oncue.layers.arguments import Shape
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake, is_keras_layer, layer_of_keras
from oncue.layers.rnn import RNN

_MODES = ("concat", "sum", "mul", "ave")


@builtin
class Bidirectional(Layer, metaclass=Namesake):
    """Runs a recurrent layer forwards, a copy of it backwards, and joins what comes out.

    Args:
        layer: A recurrent layer such as `LSTM(8)`; it is copied, not used itself.
        merge_mode: "concat", "sum", "mul", "ave", or None for a list of both outputs.
        weights: The first weights, as `set_weights` takes them.
        backward_layer: Another layer for the way back; it must go backwards.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: For something that isn't a recurrent layer, an unknown mode, or layers that don't match.

    Example:
        >>> from oncue.layers import LSTM
        >>> import numpy as np
        >>> Bidirectional(LSTM(4))(np.ones((2, 5, 3))).shape
        torch.Size([2, 8])
    """

    supports_masking = True
    _takes_several = True
    _makes_masks = False

    def __new__(cls, layer: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Make the object; for a recurrent layer that only Keras has, Keras's own."""
        if cls is Bidirectional and (is_keras_layer(layer) or isinstance(layer, ForeignLayer)):
            return layer_of_keras("Bidirectional", layer, *args, **kwargs)
        return super().__new__(cls, layer, *args, **kwargs)

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        for name, given in (("layer", layer), ("backward_layer", backward_layer)):
            if not isinstance(given, RNN) and (name == "layer" or given is not None):
                raise ValueError(
                    f"`{name}` of Bidirectional must be a recurrent layer such as LSTM(8); got {given!r} of type "
                    f"{type(given).__name__}."
                )
        if merge_mode is not None and merge_mode not in _MODES:
            raise unknown("`merge_mode` of Bidirectional", merge_mode, _MODES)
        super().__init__(**kwargs)
        self.merge_mode = merge_mode
        self.forward_layer = _copy(layer, "forward_", layer.go_backwards)
        if backward_layer is None:
            self.backward_layer = _copy(layer, "backward_", not layer.go_backwards)
        else:
            self.backward_layer = backward_layer
            for name in ("return_sequences", "return_state", "stateful"):
                if getattr(layer, name) != getattr(backward_layer, name):
                    raise ValueError(f"`layer` and `backward_layer` must have the same `{name}`.")
            if layer.go_backwards == backward_layer.go_backwards:
                raise ValueError("`layer` and `backward_layer` must differ in `go_backwards`.")
        self.return_sequences, self.return_state = layer.return_sequences, layer.return_state
        # A masked step has no output before it on one of the two ways, so both give zeros there, as in Keras.
        for part in (self.forward_layer, self.backward_layer):
            part.zero_output_for_mask = layer.return_sequences
        self._given = weights

    def build(self, input_shape: Shape) -> None:
        """Build both layers."""
        self.forward_layer.ensure_built(input_shape)
        self.backward_layer.ensure_built(input_shape)
        if self._given is not None:
            self.set_weights(self._given)
            self._given = None

    def call(
        self,
        sequences: torch.Tensor,
        initial_state: Any = None,
        mask: torch.Tensor | None = None,
        training: bool = False,
    ) -> Any:
        """Run both layers and join their outputs; see `RNN` for the arguments."""
        half = None if initial_state is None else len(initial_state) // 2
        ahead = self.forward_layer(
            sequences, initial_state=None if half is None else initial_state[:half], mask=mask, training=training
        )
        back = self.backward_layer(
            sequences, initial_state=None if half is None else initial_state[half:], mask=mask, training=training
        )
        states: list[torch.Tensor] = []
        if self.return_state:
            (ahead, *first), (back, *second) = ahead, back
            states = [*first, *second]
        if self.return_sequences:
            back = back.flip(1)
        outputs = self._joined(ahead, back)
        if not self.return_state:
            return outputs
        return (*outputs, *states) if isinstance(outputs, tuple) else (outputs, *states)

    def _joined(self, ahead: torch.Tensor, back: torch.Tensor) -> Any:
        if self.merge_mode == "concat":
            return torch.cat([ahead, back], -1)
        if self.merge_mode == "sum":
            return ahead + back
        if self.merge_mode == "ave":
            return (ahead + back) / 2
        return ahead * back if self.merge_mode == "mul" else (ahead, back)

    def reset_state(self) -> None:
        """Forget the states kept from the last batch."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    reset_states = reset_state

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask where all steps are returned."""
        mask = previous_mask if self.return_sequences else None
        return [mask, mask] if self.merge_mode is None else mask

    def compute_output_shape(self, input_shape: Shape) -> Any:
        """Return the shape of the output, or a list of shapes."""
        shape = self.forward_layer.compute_output_shape(input_shape)
        first = shape[0] if self.return_state else shape
        if self.merge_mode == "concat":
            outputs = [(*first[:-1], first[-1] * 2)]
        else:
            outputs = [first] if self.merge_mode is not None else [first, first]
        if self.return_state:
            return [*outputs, *shape[1:], *shape[1:]]
        return outputs[0] if len(outputs) == 1 else outputs

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "merge_mode": self.merge_mode,
            "layer": serialize(self.forward_layer),
            "backward_layer": serialize(self.backward_layer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Make a layer from what `get_config` returned."""
        parts = {
            name: deserialize(config[name]) for name in ("layer", "backward_layer") if config.get(name) is not None
        }
        return cls(**{**config, **parts})


def _copy(layer: Any, prefix: str, go_backwards: bool) -> Any:
    config = layer.get_config()
    bare = layer.name.removeprefix("forward_").removeprefix("backward_")
    return type(layer).from_config({**config, "name": prefix + bare, "go_backwards": go_backwards})
