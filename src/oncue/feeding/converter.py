"""What a loader, generator or data set yields, as a checked batch on the device."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from oncue.feeding.arrays import common_length, move
from oncue.feeding.batch import Batch, describe, unpack_x_y_sample_weight
from oncue.feeding.class_weights import ClassWeights
from oncue.feeding.tensors import Floats, to_tensors
from oncue.nested import first_leaf, map_leaves


class BatchConverter:
    """Turns what a source yields into a batch: unpacked, converted, checked, moved, weighted.

    Args:
        kind: The name of the source in error messages, such as "generator".
        device: Where batches go.
        class_weights: Class weights that become sample weights, or None.
        floats: The float types that the model takes; floatx by default.

    Example:
        >>> BatchConverter("generator", torch.device("cpu"))(([[1.0]], [0]), 0)
        (tensor([[1.]]), tensor([0]), None)
    """

    def __init__(
        self,
        kind: str,
        device: torch.device,
        class_weights: ClassWeights | None = None,
        floats: Floats | None = None,
    ) -> None:
        """See the class."""
        self.kind = kind
        self.device = device
        self.class_weights = class_weights
        self.floats = Floats.of() if floats is None else floats

    def __call__(self, data: Any, index: int) -> Batch:
        """Return the batch.

        Args:
            data: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, of arrays or nested arrays.
            index: The batch's index in the pass, for error messages.

        Returns:
            `(x, y, sample_weight)` on the device.

        Raises:
            ValueError: If there are other parts than these, they differ in length, or they are not numeric.
        """
        if type(data) in (tuple, list) and len(data) == 2 and self.class_weights is None:
            x, y = data
            if type(x) is torch.Tensor and type(y) is torch.Tensor and x.ndim and x.shape[0:1] == y.shape[0:1]:
                inputs, targets = self.floats.inputs, self.floats.targets
                return self._moved(x, inputs), self._moved(y, targets), None
        try:
            return self._to_batch(data)
        except ValueError as error:
            raise ValueError(
                f"Batch {index} of the {self.kind} can't be used: {error} It was {describe(data)}."
            ) from error

    def contents(self) -> dict[str, str]:
        """Return what is added to the source's own data: the class weights, if any."""
        return (
            {}
            if self.class_weights is None
            else {"class_weight": str(dict(sorted(self.class_weights.by_class.items())))}
        )

    def _moved(self, tensor: torch.Tensor, floats: torch.dtype) -> torch.Tensor:
        if self.device.type == "cuda" and tensor.device.type == "cpu" and not tensor.is_pinned():
            # The GPU copies from there by itself, while the host goes on; torch uses that memory again.
            tensor = tensor.pin_memory()
        return move(tensor, self.device, floats)

    def _to_batch(self, data: Any) -> Batch:
        parts = unpack_x_y_sample_weight(data)
        if first_leaf(parts[0]) is None:
            raise ValueError("it has no inputs.")
        names = ("x", "y", "sample_weight")
        tensors = [
            map_leaves(partial(self._moved, floats=floats), to_tensors(_with_numpy(part), name))
            for part, name, floats in zip(parts, names, self.floats.parts, strict=True)
        ]
        batch = (tensors[0], tensors[1], tensors[2])
        common_length(batch)
        if self.class_weights is None:
            return batch
        if batch[2] is not None:
            raise ValueError("it has sample weights of its own, so `class_weight` can't be given as well.")
        return (batch[0], batch[1], self.class_weights(batch[1]))


def _with_numpy(part: Any) -> Any:
    """Convert objects that are arrays only through `.numpy()`, such as tensors of older TensorFlow versions."""

    def read(leaf: Any) -> Any:
        foreign = not isinstance(leaf, torch.Tensor) and not hasattr(leaf, "__array__") and hasattr(leaf, "numpy")
        return leaf.numpy() if foreign else leaf

    return map_leaves(read, part)
