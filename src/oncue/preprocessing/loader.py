"""A DataLoader that also answers as the data sets of TensorFlow do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

CHAINED = frozenset(
    "map filter batch unbatch shuffle repeat take skip concatenate enumerate cache prefetch as_numpy_iterator "
    "cardinality element_spec".split()
)
"""What a loader does as a `tf.data.Dataset` does; all but prefetching gives another data set."""


def check_format(format: str) -> None:
    """Refuse a kind of data set that is none.

    Args:
        format: What a function of Keras would return.

    Raises:
        ValueError: For anything but "torch", and "tf" and "grain", for which the same is returned.

    Example:
        >>> check_format("tf")
    """
    if format not in ("torch", "tf", "grain"):
        raise ValueError(
            f"`format` must be 'torch', or left out; got {format!r}. What is returned is a DataLoader of torch."
        )


class FileLoader(DataLoader[Any]):
    """Batches of a torch data set, which `fit` takes; for scripts that know a `tf.data.Dataset`, its methods too.

    Args:
        dataset: A torch data set.
        batch_size: Samples in a batch; None for the samples themselves.
        shuffle: Whether each pass has another order.
        seed: The seed of the order; None goes by torch's.
        collate: Makes a batch of samples; torch's way by default.

    Attributes:
        class_names: The names of the classes, where there are any.
        file_paths: The files, where there are any.

    Example:
        >>> loader = FileLoader(torch.arange(5), batch_size=2)
        >>> [batch.tolist() for batch in loader], len(loader.take(1))
        ([[0, 1], [2, 3], [4]], 1)
    """

    class_names: Sequence[str] | None = None
    file_paths: Sequence[str] | None = None

    def __init__(
        self,
        dataset: Dataset[Any] | torch.Tensor,
        batch_size: int | None = 32,
        shuffle: bool = False,
        seed: int | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        super().__init__(
            dataset,  # type: ignore[arg-type]  # a tensor is a data set of its rows
            batch_size=batch_size,
            shuffle=shuffle,
            generator=generator,
            collate_fn=collate,
        )

    def __getattr__(self, name: str) -> Any:
        if name not in CHAINED:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute {name!r}")
        if name == "prefetch":
            # A loader has its own ways to work ahead.
            return self._itself
        from oncue.legacy.tf_data import Dataset as Chain

        return getattr(Chain(self._pass, len(self)), name)

    def _pass(self) -> Iterator[Any]:
        for batch in self:
            yield tuple(batch) if isinstance(batch, list) else batch

    def _itself(self, *args: Any, **kwargs: Any) -> FileLoader:
        return self
