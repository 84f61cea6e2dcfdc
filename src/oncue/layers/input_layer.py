"""Input and InputLayer: where data comes into a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oncue.core.builtin import builtin
from oncue.core.numbers import sizes_of, whole_of
from oncue.layers.keras_tensor import KerasTensor
from oncue.layers.layer import Layer
from oncue.legacy import renamed


@builtin
class InputLayer(Layer):
    """The layer that stands for an input of a model; it passes on what it gets.

    Args:
        shape: The shape of one sample, None where a size varies.
        batch_size: The number of samples in every batch, if it is fixed.
        dtype: The type of the values; "float32" by default.
        sparse: Not supported; must be False or None.
        ragged: Not supported; must be False or None.
        batch_shape: The shape with the batch axis, instead of `shape` and `batch_size`.
        input_tensor: Not supported; must be None.
        optional: Whether None may be fed.
        name: The layer's name, under which a dict of inputs is fed.
        **kwargs: `input_shape` and `batch_input_shape`, the names of Keras 2.

    Raises:
        ValueError: Without a shape, with two, or for an argument that is not supported.

    Example:
        >>> InputLayer(shape=(3,)).output.shape
        (None, 3)
    """

    def __init__(
        self,
        shape: Sequence[int | None] | int | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Sequence[int | None] | None = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        old = renamed("InputLayer", kwargs, warns=False)
        shape = old.get("shape") if shape is None else shape
        batch_shape = old.get("batch_shape") if batch_shape is None else batch_shape
        for argument, value in (("sparse", sparse), ("ragged", ragged), ("input_tensor", input_tensor)):
            if value is not None and value is not False:
                raise ValueError(f"`{argument}` of InputLayer is not supported here; got {value!r}. Leave it out.")
        if (shape is None) == (batch_shape is None):
            raise ValueError(
                f"`Input` needs either `shape` (of one sample) or `batch_shape`; got shape={shape!r} and "
                f"batch_shape={batch_shape!r}. Use `Input(shape=(...))`."
            )
        if batch_shape is not None and batch_size is not None:
            raise ValueError(
                f"`Input` needs `batch_size` with `shape` alone; got batch_size={batch_size!r} and batch_shape={batch_shape!r}."
            )
        kwargs.pop("trainable", None)
        super().__init__(dtype=dtype, name=name, **kwargs)
        if shape is not None:
            self.batch_shape: tuple[int | None, ...] = sizes_of((batch_size, *sizes_of(shape)))
        else:
            self.batch_shape = sizes_of(batch_shape or ())
        for size in self.batch_shape:
            if size is not None and (whole_of(size) is None or size < 0):
                raise ValueError(
                    f"`shape` must hold whole numbers, or None where a size varies; got {self.batch_shape!r}."
                )
        self.optional, self.sparse, self.ragged = optional, False, False
        self.built = True
        self.output: KerasTensor = KerasTensor(self.batch_shape, self.dtype, name=self.name)
        # How models know an input's tensor, and its layer, when they are traced.
        self.output.input_layer = self  # type: ignore[attr-defined]  # only the tensors of inputs have it

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs."""
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {
            "batch_shape": self.batch_shape,
            "dtype": self.dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }


def Input(
    shape: Sequence[int | None] | int | None = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
) -> KerasTensor:
    """Return the symbolic tensor with which a functional model begins; also the first item of a `Sequential`.

    Args:
        shape: The shape of one sample, None where a size varies: (28, 28, 1).
        batch_size: The number of samples in every batch, if it is fixed.
        dtype: The type of the values; "float32" by default.
        sparse: Not supported; must be False or None.
        ragged: Not supported; must be False or None.
        batch_shape: The shape with the batch axis, instead of `shape` and `batch_size`.
        name: The input's name, under which a dict of inputs is fed.
        tensor: Not supported; must be None.
        optional: Whether None may be fed.

    Returns:
        A KerasTensor; its `input_layer` is the InputLayer made for it.

    Raises:
        ValueError: Without a shape, with two, or for an argument that is not supported.

    Example:
        >>> Input((3,), name="x")
        <KerasTensor shape=(None, 3), dtype=float32, name=x>
    """
    layer = InputLayer(shape, batch_size, dtype, sparse, ragged, batch_shape, tensor, optional, name)
    return layer.output
