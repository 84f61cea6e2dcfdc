"""CutMix: pictures with a piece of another, and targets of both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from oncue.callbacks.mixing import MixingCallback, between
from oncue.core.builtin import builtin

if TYPE_CHECKING:
    import numpy as np


@builtin
class CutMix(MixingCallback):
    """Trains on pictures in which a box is that of another picture of the batch; targets are mixed by the areas.

    As in "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (Yun and others, 2019,
    https://arxiv.org/abs/1905.04899): for each batch a share is drawn from a beta distribution, and a box whose area is the
    rest of the picture; its middle may be anywhere, and what is beyond the picture's edge is cut off. Targets, and factors of
    samples, are mixed by what is left of the area.

    Targets must be numbers that can be mixed: one-hot for classes. The loss and the metrics of training are those of the
    mixtures. It changes batches on their device, before compiled steps as before eager ones, and waits for nothing. Each
    process of a run mixes its own rows.

    Args:
        alpha: Both parameters of the beta distribution; at 1, as in the paper, all shares are as likely.
        probability: With which probability a batch is mixed; the paper uses 0.5 for CIFAR and 1 for ImageNet.
        until_epoch: The index of the first epoch whose batches are left as they are; None to mix to the end.
        seed: A seed of its own; None to draw one when training begins.
        data_format: "channels_last" for pictures of the shape (rows, height, width, channels), "channels_first" for (rows,
            channels, height, width), as torch's modules take them.

    Raises:
        ValueError: For an argument that can't be; before the first step, for inputs that aren't one tensor of pictures, inputs
            or targets that are whole numbers, and in a loop whose batches it can't change.

    Example:
        >>> import numpy as np, oncue
        >>> layers = [oncue.layers.Input((4, 4, 1)), oncue.layers.Flatten(), oncue.layers.Dense(2, activation="softmax")]
        >>> model = oncue.Sequential(layers)
        >>> model.compile("sgd", loss="categorical_crossentropy")
        >>> cut = CutMix(probability=0.5)
        >>> history = model.fit(np.ones((8, 4, 4, 1)), np.eye(2)[[0, 1] * 4], batch_size=4, verbose=0, callbacks=[cut])
        >>> cut.batches
        2
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 1.0,
        until_epoch: int | None = None,
        seed: int | None = None,
        data_format: str = "channels_last",
    ) -> None:
        super().__init__(alpha, probability, until_epoch, seed)
        if data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"`data_format` of CutMix must be 'channels_last' or 'channels_first'; got {data_format!r}."
            )
        self.data_format = data_format

    def _check(self, x: Any, y: Any) -> None:
        shape = getattr(x, "shape", None)
        if shape is None or len(shape) != 4:
            found = type(x).__name__ if shape is None else f"a tensor of the shape {tuple(shape)}"
            raise ValueError(
                f"CutMix cuts pictures, one tensor of four axes; the inputs are {found}. Use MixUp for others."
            )
        super()._check(x, y)

    def _mixed(
        self, batch: tuple[Any, Any, Any], share: float, order: np.ndarray[Any, Any], draws: np.random.Generator
    ) -> tuple[Any, Any, Any]:
        x, y, weight = batch
        first = 1 if self.data_format == "channels_last" else 2
        height, width = x.shape[first], x.shape[first + 1]
        top, bottom = _side(height, share, draws)
        left, right = _side(width, share, draws)
        box = (slice(None),) * first + (slice(top, bottom), slice(left, right))
        mixed = x.clone()
        mixed[box] = x[order][box]
        kept = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, between(y, kept, order), between(weight, kept, order)


def _side(length: int, share: float, draws: np.random.Generator) -> tuple[int, int]:
    """Return where a box begins and ends on one side of a picture."""
    half = int(length * math.sqrt(1 - share)) // 2
    middle = int(draws.integers(length))
    return max(middle - half, 0), min(middle + half, length)
