"""Normalization: features brought to mean 0 and standard deviation 1 by statistics of the data, taken once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from oncue import backend
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import old_attribute


def __getattr__(name: str) -> Any:
    return old_attribute(__name__, name)


@builtin
class Normalization(Layer, metaclass=Namesake):
    """Computes `(inputs - mean) / sqrt(variance)`, with statistics that are given or taken from data by `adapt`.

    Args:
        axis: The axis or axes each position of which has its own statistics; None for one mean and variance of all.
        mean: The mean, if it is known; a number or one for each position.
        variance: The variance, if it is known.
        invert: Whether to go the other way: from normalized numbers back.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: When only one of `mean` and `variance` is given.

    Example:
        >>> layer = Normalization()
        >>> layer.adapt(np.array([[1.0], [3.0]]))
        >>> layer(np.array([[3.0]])).tolist()
        [[1.0]]
    """

    supports_masking = True
    _given_mean: torch.Tensor
    _given_variance: torch.Tensor

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (mean is None) != (variance is None):
            raise ValueError(
                f"`mean` and `variance` of Normalization must be given together; got mean={mean!r} and "
                f"variance={variance!r}."
            )
        axes = plain(axis)
        self.axis: tuple[int, ...] = () if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
        self.input_mean, self.input_variance = mean, variance
        self.invert = invert

    def build(self, input_shape: Shape) -> None:
        """Create the statistics."""
        rank = len(input_shape)
        for axis in self.axis:
            if not -rank <= axis < rank:
                raise ValueError(f"`axis` of '{self.name}' is {self.axis}; its input has only {rank} axes.")
        kept = tuple(sorted(axis % rank for axis in self.axis))
        self._reduced = tuple(axis for axis in range(rank) if axis not in kept)
        shape = [input_shape[axis] for axis in kept]
        if any(size is None for size in shape):
            raise ValueError(
                f"'{self.name}' needs to know the size of the axes {self.axis} of its input; got {tuple(input_shape)}."
            )
        sizes = [int(size or 0) for size in shape]
        self._spread = [int(input_shape[axis] or 0) if axis in kept else 1 for axis in range(rank)]
        if self.input_mean is None:
            self.adapt_mean = self.add_weight(sizes, "zeros", trainable=False, name="mean")
            self.adapt_variance = self.add_weight(sizes, "ones", trainable=False, name="variance")
            self.count = self.add_weight((), "zeros", dtype="int32", trainable=False, name="count")
        else:
            device = self._placed() or backend.device_of_weights()
            for name, value in (("_given_mean", self.input_mean), ("_given_variance", self.input_variance)):
                given = torch.as_tensor(value, dtype=self._dtype, device=device).broadcast_to(sizes).clone()
                self.register_buffer(name, given, persistent=False)

    def adapt(self, data: Any) -> None:
        """Take the statistics from data; what was taken before is forgotten.

        Args:
            data: An array or tensor of samples, or an iterable of batches (of inputs, or tuples that begin with them).

        Raises:
            ValueError: When `mean` and `variance` were given, or there is no data.
        """
        if self.input_mean is not None:
            raise ValueError(f"'{self.name}' was given `mean` and `variance`, so it can't adapt to data.")
        total: Any = 0.0
        squares: Any = 0.0
        rows = 0
        batches: Iterable[Any] = [data] if isinstance(data, (np.ndarray, torch.Tensor)) else data
        for batch in batches:
            part = torch.as_tensor(batch[0] if isinstance(batch, (tuple, list)) else batch).double().cpu()
            self.ensure_built((None, *part.shape[1:]))
            count = part.numel() // max(1, self.stored("adapt_mean").numel())
            mean = part.mean(self._reduced)
            if mean.shape != self.stored("adapt_mean").shape:
                raise ValueError(
                    f"`data` for `adapt` of '{self.name}' must have the shape {self._built_for}; got {tuple(part.shape)}."
                )
            total = total + mean * count
            # Welford's update joins batches without the loss of digits that sums of squares bring (Chan et al., 1983).
            squares = squares + ((part - mean.view(self._spread)) ** 2).sum(self._reduced)
            if rows:
                gap = mean - (total - mean * count) / rows
                squares = squares + gap**2 * rows * count / (rows + count)
            rows += count
        if not rows:
            raise ValueError("`adapt` got no data: give it an array, or an iterable of at least one batch.")
        with torch.no_grad():
            self.stored("adapt_mean").copy_(torch.as_tensor(total / rows))
            self.stored("adapt_variance").copy_(torch.as_tensor(squares / rows))

    @property
    def mean(self) -> torch.Tensor:
        """The mean, in a shape that broadcasts over the inputs."""
        return (self.stored("adapt_mean") if self.input_mean is None else self._given_mean).view(self._spread)

    @property
    def variance(self) -> torch.Tensor:
        """The variance, in a shape that broadcasts over the inputs."""
        return (self.stored("adapt_variance") if self.input_mean is None else self._given_variance).view(self._spread)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalize, or go back."""
        deviation = self.variance.sqrt().clamp(min=1e-7)
        inputs = inputs.to(self._dtype)
        return inputs * deviation + self.mean if self.invert else (inputs - self.mean) / deviation

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the same shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        given = [
            None if value is None else np.asarray(value).tolist() for value in (self.input_mean, self.input_variance)
        ]
        return {
            **super().get_config(),
            "axis": self.axis,
            "invert": self.invert,
            "mean": given[0],
            "variance": given[1],
        }
