"""Embedding: a row of numbers for each whole number."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from oncue import constraints, initializers, regularizers
from oncue.core.builtin import builtin
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import accepts_old_arguments, sequence_length


@builtin
class Embedding(Layer, metaclass=Namesake):
    """Looks up a row of a table for each whole number of the input.

    Args:
        input_dim: The number of rows: the largest whole number that may come, plus 1.
        output_dim: The length of a row.
        embeddings_initializer: The initial values of the table, of shape (input_dim, output_dim).
        embeddings_regularizer: A penalty on the table.
        embeddings_constraint: A projection of the table after each update.
        mask_zero: Whether 0 means "nothing here", which later layers that know masks then skip.
        weights: The table's first values as an array, instead of an initializer.
        lora_rank: Not supported; must be None.
        lora_alpha: Not supported; must be None.
        quantization_config: Not supported; must be None.
        **kwargs: `name`, `dtype`, `trainable`, and `input_length`, as Keras 2 spells it.

    Raises:
        ValueError: For sizes that aren't positive whole numbers.

    Example:
        >>> import numpy as np
        >>> Embedding(10, 4)(np.array([[1, 2, 3]])).shape
        torch.Size([1, 3, 4])
    """

    @accepts_old_arguments
    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: None = None,
        lora_alpha: None = None,
        quantization_config: None = None,
        **kwargs: Any,
    ) -> None:
        sequence_length(kwargs)
        super().__init__(**kwargs)
        if not (lora_rank is None and lora_alpha is None and quantization_config is None):
            raise ValueError(
                "Embedding has no LoRA and no quantization here: leave out `lora_rank` and `quantization_config`."
            )
        self.input_dim = arguments.count("Embedding", "input_dim", input_dim)
        self.output_dim = arguments.count("Embedding", "output_dim", output_dim)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = mask_zero
        self._given = weights[0] if isinstance(weights, (list, tuple)) and len(weights) == 1 else weights
        if self._given is not None:
            self.build()
        if mask_zero:
            self.supports_masking = True
        elif type(self).compute_mask is Embedding.compute_mask:
            # Most embeddings make no mask, and take the short path of `__call__`.
            self._makes_masks = False

    def build(self, input_shape: Shape | None = None) -> None:
        """Make the table."""
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer if self._given is None else initializers.Constant(self._given),
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            name="embeddings",
        )
        self._given = None

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Look up the rows."""
        if inputs.dtype not in (torch.int32, torch.int64):
            inputs = inputs.to(torch.int64)
        return F.embedding(inputs, self.stored("embeddings"))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return where the input is not 0, if 0 means nothing."""
        return inputs != 0 if self.mask_zero else None

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape with `output_dim` at its end."""
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            **arguments.weight_config(self, "embeddings"),
            "activity_regularizer": arguments.serialized(regularizers, self.activity_regularizer),
            "mask_zero": self.mask_zero,
            "quantization_config": None,
        }
