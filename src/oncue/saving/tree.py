"""Tree: the content of an HDF5 file, taken from a model before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oncue.checkpoints.snapshot import Snapshot
from oncue.shards import follows, is_sharded, whole
from oncue.variable import numpy_kind


@dataclass
class Stored:
    """A tensor that becomes an array in the file.

    Args:
        tensor: The tensor, in the order of axes in which the model keeps it.
        axes: The order of axes in the file; None for the same.
        name: What it is, for the message.

    Raises:
        ValueError: For a type of numbers that the file can't hold.
    """

    tensor: torch.Tensor
    axes: tuple[int, ...] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        numpy_kind(self.tensor.dtype, self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        shape = tuple(self.tensor.shape)
        return shape if self.axes is None else tuple(shape[axis] for axis in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype; for types that NumPy and HDF5 don't have, such as bfloat16, one that holds them exactly."""
        found: np.dtype[Any] = torch.empty(0, dtype=numpy_kind(self.tensor.dtype, self.name)).numpy().dtype
        return found

    @property
    def nbytes(self) -> int:
        """The array's bytes."""
        return self.tensor.numel() * self.dtype.itemsize

    def array(self) -> NDArray[Any]:
        """Return the array, contiguous; without a copy if the tensor already is."""
        tensor = whole(self.tensor.detach(), f"a save of {self.name or 'weights'}")
        tensor = tensor.to(numpy_kind(tensor.dtype, self.name))
        ordered = tensor if self.axes is None else tensor.permute(self.axes)
        return ordered.cpu().contiguous().numpy()


class Tree:
    """Groups, attributes and arrays, created as in h5py and written later.

    To write it on another thread while the model is trained, call `freeze` first, which copies the tensors.

    Attributes:
        attrs: The attributes of this group.
        members: Its groups and arrays by name; a name may be a path.

    Example:
        >>> tree = Tree()
        >>> tree.create_group("layers")["0"] = Stored(torch.ones(2, 3), (1, 0))
        >>> tree.members["layers"].members["0"].shape
        (3, 2)
    """

    def __init__(self) -> None:
        self.attrs: dict[str, Any] = {}
        self.members: dict[str, Tree | Stored] = {}

    def create_group(self, name: str) -> Tree:
        """Add a group."""
        group = Tree()
        self.members[name] = group
        return group

    def __setitem__(self, name: str, value: Stored) -> None:
        self.members[name] = value

    @property
    def follows(self) -> bool:
        """Whether this process only brings its parts of the tensors, which the main process writes."""
        return follows(one.tensor for one in self._stored())

    def freeze(self, snapshot: Snapshot) -> None:
        """Replace the tensors by copies; those of which processes have parts, on the main process, by the whole."""
        gathered = [one for one in self._stored() if is_sharded(one.tensor)]
        for one in gathered:
            # Not on another thread, while other processes wait for something else.
            found = whole(one.tensor, f"a save of {one.name or 'weights'}")
            if not follows([one.tensor]):
                one.tensor = found.cpu()
        there = set(map(id, gathered))
        stored = {number: one for number, one in enumerate(self._stored()) if id(one) not in there}
        copies = snapshot.take({str(number): one.tensor for number, one in stored.items()})
        for number, one in stored.items():
            one.tensor = copies[str(number)]

    def _stored(self) -> list[Stored]:
        found: list[Stored] = []
        for member in self.members.values():
            found += member._stored() if isinstance(member, Tree) else [member]
        return found
