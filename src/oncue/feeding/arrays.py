"""Arrays and tensors as batches: converted once, sliced or gathered per batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

from oncue import backend
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.class_weights import ClassWeights
from oncue.feeding.digest import batch_digest
from oncue.feeding.order import BatchOrder, Shuffle
from oncue.feeding.row_share import RowShare
from oncue.feeding.rows import spread
from oncue.feeding.staging import StagingBuffers
from oncue.feeding.tensors import Floats, to_tensors, wanted_dtype
from oncue.nested import first_leaf, is_nested, map_leaves, named_leaves

_DEFAULT_BATCH_SIZE = 32
_SHARE_OF_FREE_MEMORY = 0.5


class ArrayBatches(Batches):
    """Batches of arrays held in memory.

    On the CPU, memory is shared with the arrays. For another device the data is moved once if it fits in half of the
    free memory, and `config.set_max_data_on_device` allows it; batch by batch otherwise. Floats become `floats`; other types
    stay as they are.

    Args:
        x: Inputs: arrays of shape `(samples, ...)`, or nested lists, tuples and dicts of them.
        y: Targets, in the same forms, or None.
        sample_weight: Weights `(samples,)`, or one array per output.
        batch_size: Samples per batch. Default: 32, or the size that gives `steps` batches if `steps` is given.
        shuffle: False, True for a new random order per pass, or "batch" to shuffle whole batches.
        steps: Batches per epoch; only sets the default of `batch_size`, as in Keras 3.
        class_weight: Weight per class index, for a single output without `sample_weight`.
        device: Where batches go.
        floats: The float types that the model takes; floatx by default.

    Raises:
        ValueError: If lengths differ, there are no samples, or an array is not numeric.

    Example:
        >>> import numpy as np
        >>> batches = ArrayBatches(np.zeros((5, 2)), [0, 1, 0, 1, 0], batch_size=2, device="cpu")
        >>> [(x.shape[0], y.tolist()) for x, y, _ in batches.epoch()]
        [(2, [0, 1]), (2, [0, 1]), (1, [0])]
    """

    restartable = True
    exact_position = True
    calls_others = False
    _share: RowShare | None = None

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        shuffle: Shuffle = False,
        steps: int | None = None,
        class_weight: Mapping[int, float] | None = None,
        device: torch.device | str,
        floats: Floats | None = None,
    ) -> None:
        """See the class."""
        if class_weight is not None and sample_weight is not None:
            raise ValueError(
                "`class_weight` and `sample_weight` can't be given together; multiply the class weights into "
                "`sample_weight` with `class_weight_to_sample_weights(y, class_weight)`."
            )
        self.source = x
        if first_leaf(x) is None:
            raise ValueError("`x` holds no arrays; pass an array of shape (samples, ...).")
        x, y = to_tensors(x, "x"), to_tensors(y, "y")
        sample_weight = _per_output(y, to_tensors(sample_weight, "sample_weight"))
        _check_finite(sample_weight)
        if class_weight is not None:
            sample_weight = ClassWeights(class_weight)(y)
        self._data: Batch = (x, y, sample_weight)
        self.num_samples: int = common_length(self._data)
        if batch_size is None:
            batch_size = -(-self.num_samples // steps) if steps is not None else _DEFAULT_BATCH_SIZE
        self.batch_size: int = batch_size
        self._device = torch.device(device)
        self._floats = Floats.of() if floats is None else floats
        self._resident = 0
        self._staging: dict[tuple[int, torch.dtype], StagingBuffers] = {}
        self._place()
        devices = {leaf.device for _, leaf in named_leaves(self._data, "data")}
        order_device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        self._order = BatchOrder(self.num_samples, batch_size, shuffle, order_device)
        self.num_batches: int = self._order.num_batches

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass from batch `start`: from 0 in a new order, from a later batch in the current pass's order."""
        return self._walk(start, self._order.begin(start))

    def first(self) -> Batch:
        """Return the first samples, unshuffled."""
        return self._batch(slice(0, self.batch_size))

    def give_rows(self, share: RowShare | None) -> bool:
        """Give only the rows of one of several processes."""
        self._share = share
        return True

    def give_up(self) -> None:
        """Take the pass for over."""
        self._order.give_up()

    def state_dict(self) -> dict[str, Any]:
        """Return `order_seed` and `position` of the current pass."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the order of a saved pass for the next `epoch(position)`."""
        self._order.load_state_dict(state)

    @property
    def resident(self) -> dict[torch.device, int]:
        """How many bytes of the data were copied to the device."""
        return {self._device: self._resident} if self._resident else {}

    def contents(self) -> dict[str, str]:
        """Return type, shape and a digest of some rows of each array."""
        return {name: self._described(leaf, spread(self.num_samples)) for name, leaf in self._named()}

    def few_rows(self) -> dict[str, str]:
        """Return digests of a few rows of each array; empty for copies on a device, which nobody else can change."""
        rows = spread(self.num_samples, 3)
        return {name: self._described(leaf, rows) for name, leaf in self._named() if leaf.device.type == "cpu"}

    def _named(self) -> list[tuple[str, torch.Tensor]]:
        parts = zip(("x", "y", "sample_weight"), self._data, strict=True)
        return [pair for name, part in parts for pair in named_leaves(part, name)]

    def _described(self, leaf: torch.Tensor, rows: list[int]) -> str:
        some = move(leaf.index_select(0, torch.tensor(rows, device=leaf.device)), torch.device("cpu"))
        kind = str(some.dtype).removeprefix("torch.")
        return f"{kind} {tuple(leaf.shape)}, with rows of the digest {batch_digest(some)}"

    def _walk(self, start: int, order: torch.Tensor | None) -> Iterator[Batch]:
        size, progress = self.batch_size, self._order
        x, y, weight = self._data
        simple = isinstance(x, torch.Tensor) and weight is None and (y is None or isinstance(y, torch.Tensor))
        plain = self._ready and simple
        for index in range(start, self.num_batches):
            low = index * size
            high = low + size
            progress.position = index + 1
            if self._share is not None:
                own = self._share.of(min(high, self.num_samples) - low)
                low, high = low + own.start, low + own.stop
            rows: slice | torch.Tensor = slice(low, high) if order is None else order[low:high]
            if not plain:
                yield self._batch(rows)
            elif isinstance(rows, slice):
                yield x[rows], None if y is None else y[rows], None
            else:
                yield x.index_select(0, rows), None if y is None else y.index_select(0, rows), None

    def _batch(self, rows: slice | torch.Tensor) -> Batch:
        def take(leaf: torch.Tensor, floats: torch.dtype) -> torch.Tensor:
            if self._device.type == "cuda" and leaf.device.type == "cpu":
                dtype = wanted_dtype(leaf.dtype, floats)
                staging = self._staging.setdefault((id(leaf), dtype), StagingBuffers(self._device, dtype))
                return staging.send(leaf, rows)
            if isinstance(rows, slice):
                part = leaf[rows]
            else:
                part = leaf.index_select(0, rows if rows.device == leaf.device else rows.to(leaf.device))
            return part if self._ready else move(part, self._device, floats)

        x, y, weight = self._map(take)
        return x, y, weight

    def _place(self) -> None:
        leaves = [leaf for _, leaf in named_leaves(self._data, "data")]
        away = [leaf for leaf in leaves if leaf.device != self._device]
        if away and self._fits(away):
            self._data = self._map(lambda leaf, floats: move(leaf, self._device, floats))
            self._resident = sum(leaf.nbytes for _, leaf in named_leaves(self._data, "data"))
        ready = self._map(
            lambda leaf, floats: leaf.device == self._device and leaf.dtype == wanted_dtype(leaf.dtype, floats)
        )
        self._ready = all(fits for _, fits in named_leaves(ready, "data"))

    def _map(self, function: Callable[..., Any]) -> Batch:
        """Apply a function to every tensor and the float type that the model takes there."""
        x, y, weight = (
            map_leaves(partial(function, floats=floats), part)
            for part, floats in zip(self._data, self._floats.parts, strict=True)
        )
        return x, y, weight

    def _fits(self, leaves: list[torch.Tensor]) -> bool:
        size, most = sum(leaf.nbytes for leaf in leaves), backend.max_data_on_device()
        if most is not None and size > most:
            return False
        if self._device.type != "cuda":
            return True
        free, _ = torch.cuda.mem_get_info(self._device)
        return size <= free * _SHARE_OF_FREE_MEMORY


def move(tensor: torch.Tensor, device: torch.device, floats: torch.dtype | None = None) -> torch.Tensor:
    """Return the tensor on the device, floats as `floats` (floatx by default); the tensor itself if it already is."""
    dtype = wanted_dtype(tensor.dtype, floats)
    if tensor.dtype == dtype and tensor.device == device:
        return tensor
    # MPS has no float64, so the cast comes before the move; elsewhere it comes after, which saves the host a copy.
    if device.type == "mps":
        tensor = tensor.to(dtype)
    # Copies to the CPU must block: reading the result doesn't wait for an asynchronous copy to finish.
    return tensor.to(device=device, dtype=dtype, non_blocking=device.type != "cpu")


def common_length(data: Batch) -> int:
    """Return the length of the first axis that all tensors share.

    Args:
        data: `(x, y, sample_weight)` of tensors, nested or None.

    Returns:
        The number of samples.

    Raises:
        ValueError: If the tensors differ in length or are empty; the message lists every shape.

    Example:
        >>> common_length((torch.zeros(3, 2), torch.zeros(3), None))
        3
    """
    named = [
        pair for part, name in zip(data, ("x", "y", "sample_weight"), strict=True) for pair in named_leaves(part, name)
    ]
    if not named:
        raise ValueError("`x` holds no arrays; pass an array of shape (samples, ...).")
    lengths = {leaf.shape[0] for _, leaf in named}
    shapes = ", ".join(f"`{name}` {tuple(leaf.shape)}" for name, leaf in named)
    if len(lengths) > 1:
        raise ValueError(f"All arrays must have the same number of samples (first axis); got {shapes}.")
    length = lengths.pop()
    if length == 0:
        raise ValueError(f"The data has no samples: {shapes}.")
    return int(length)


def _check_finite(sample_weight: Any) -> None:
    for name, weights in named_leaves(sample_weight, "sample_weight"):
        bad = ~torch.isfinite(weights)
        if bool(bad.any()):
            row = int(bad.reshape(len(weights), -1).any(dim=1).nonzero()[0])
            raise ValueError(
                f"`{name}` must hold finite numbers: NaN and infinity spread to every weight of the model. Row {row} "
                f"is {weights[row].tolist()}. To leave a sample out, weigh it 0."
            )


def _per_output(y: Any, sample_weight: Any) -> Any:
    """Give every output of `y` its weights, as Keras does: one array per output, or one array for all outputs."""
    if sample_weight is None or not is_nested(y):
        return sample_weight
    if is_nested(sample_weight):
        outputs = [name for name, _ in named_leaves(y, "")]
        given = [name for name, _ in named_leaves(sample_weight, "")]
        if outputs != given:
            raise ValueError(
                "`sample_weight` must have one array per output of `y`; "
                f"y has {[f'y{name}' for name in outputs]}, got {[f'sample_weight{name}' for name in given]}."
            )
        return sample_weight
    if sample_weight.ndim > 2 or (sample_weight.ndim == 2 and sample_weight.shape[1] != 1):
        raise ValueError(
            "One `sample_weight` for several outputs must have one number per sample, shape (samples,); "
            f"got shape {tuple(sample_weight.shape)}. Pass one array per output instead."
        )
    return map_leaves(lambda _: sample_weight, y)
