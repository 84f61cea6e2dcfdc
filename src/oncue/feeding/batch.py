"""What a data source must offer to the training loop: `Batches`, with a position and a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

    from oncue.feeding.row_share import RowShare

Batch: TypeAlias = tuple[Any, Any, Any]
"""`(x, y, sample_weight)`: tensors on the device, or nested tuples, lists and dicts of them; None for what is absent."""


class OtherDataError(ValueError):
    """Data that were read again are not what they were."""


class Batches(ABC):
    """A source of batches that can be read in several passes and resumed within one.

    A subclass defines `epoch` and `first`, and sets the attributes that differ from the defaults below. It overrides
    `state_dict` and `load_state_dict` if `epoch(start)` needs more than `start` to resume a pass.

    Attributes:
        num_batches: Batches in one pass; None (default) if unknown.
        batch_size: Samples in a full batch; None (default) if unknown.
        num_samples: Samples in one pass; None (default) if unknown.
        restartable: False for a generator or iterator, whose second pass continues where the first stopped. Default:
            True.
        exact_position: Whether `epoch(start)` yields what an uninterrupted pass would have yielded from there. Default:
            False.
        obstacle: Why `exact_position` is False, as the second half of a sentence; None (default) for no reason.
        reads_again: Whether resuming reads the batches before the saved position again. Default: False.
        source: The object that the user passed.
        data_sets: The objects with `state_dict` and `load_state_dict` that the source reads from, and whose states are no
            part of `state_dict`; none by default.
        calls_others: Whether code that isn't oncue's or torch's runs between two batches, in this process, and so may change
            the model within a pass. Default: True.

    Example:
        >>> class Twice(Batches):
        ...     num_batches = 2
        ...     def epoch(self, start=0):
        ...         yield from [("x", "y", None)] * (2 - start)
        ...     def first(self):
        ...         return ("x", "y", None)
        >>> len(list(Twice().epoch(start=1)))
        1
    """

    num_batches: int | None = None
    batch_size: int | None = None
    num_samples: int | None = None
    restartable: bool = True
    exact_position: bool = False
    obstacle: str | None = None
    reads_again: bool = False
    source: Any = None
    data_sets: Sequence[Any] = ()
    calls_others: bool = True

    @property
    def resident(self) -> dict[torch.device, int]:
        """How many bytes of the data were copied to a device as a whole, by device; none by default."""
        return {}

    @abstractmethod
    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass, starting at batch `start`."""

    @abstractmethod
    def first(self) -> Batch:
        """Return one batch for building a model; the next pass still yields it, and no random state changes."""

    def one_pass(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass without notifying the source of epoch boundaries. Default: `epoch(start)`."""
        return self.epoch(start)

    def epoch_begins(self) -> None:  # noqa: B027  # most sources have no epoch hooks
        """Notify the source that an epoch begins, when passes come from `one_pass`."""

    def epoch_ends(self) -> None:  # noqa: B027
        """Notify the source that an epoch has ended, when passes come from `one_pass`."""

    def give_rows(self, share: RowShare | None) -> bool:
        """Give, from the next pass on, only those rows of each batch that belong to one of several processes.

        Args:
            share: Whose rows; `share.of(n)` says which of a batch of `n` rows, and is to be called right before each is given.
                None for all rows again.

        Returns:
            Whether the source can; False (default) where whole batches have to be read and cut.
        """
        return False

    def give_up(self) -> None:  # noqa: B027
        """Take the pass that was left before its end for over: a saved position is then that of the next pass's beginning."""

    def contents(self) -> dict[str, str]:
        """Return what the data are, by name: types, shapes, digests of some rows; empty for what can't be read by index.

        Another run with equal data returns equal values, but perhaps not for all names.
        """
        return {}

    def few_rows(self) -> dict[str, str]:
        """Return digests of a few rows as they are now, by name; empty for what can't be read by index."""
        return {}

    def keep_position(self) -> None:  # noqa: B027
        """Prepare for calls of `state_dict` within passes; called before the first pass."""

    def keep_batches(self) -> None:  # noqa: B027
        """Prepare for `load_state_dict` with the present state, later in this run."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue in the same order; empty if nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved pass for the next `epoch(start)`."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, so it can't load {sorted(state)}.")

    def close(self) -> None:  # noqa: B027
        """Stop worker threads and processes."""


class BatchesOver(Batches):
    """The batches of another source, given in another way; what isn't overridden is asked of that source.

    Args:
        batches: The source.

    Example:
        >>> class Nothing(Batches):
        ...     def epoch(self, start=0):
        ...         yield from ()
        ...     def first(self):
        ...         return (None, None, None)
        >>> BatchesOver(Nothing()).contents()
        {}
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.source = batches.source
        self.num_batches, self.batch_size = batches.num_batches, batches.batch_size
        self.restartable, self.exact_position = batches.restartable, batches.exact_position
        self.obstacle, self.reads_again = batches.obstacle, batches.reads_again
        self.data_sets, self.calls_others = batches.data_sets, batches.calls_others

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass of the source."""
        return self.batches.epoch(start)

    def first(self) -> Batch:
        """Return one batch of the source."""
        return self.batches.first()

    @property
    def resident(self) -> dict[torch.device, int]:
        """What the source has on a device."""
        return self.batches.resident

    def contents(self) -> dict[str, str]:
        """Return what the data of the source are."""
        return self.batches.contents()

    def few_rows(self) -> dict[str, str]:
        """Return digests of a few rows of the source."""
        return self.batches.few_rows()

    def keep_position(self) -> None:
        """Have the source record its position."""
        self.batches.keep_position()

    def keep_batches(self) -> None:
        """Have the source prepare for a way back."""
        self.batches.keep_batches()

    def give_rows(self, share: RowShare | None) -> bool:
        """Have the source give only the rows of one of several processes."""
        return self.batches.give_rows(share)

    def give_up(self) -> None:
        """Have the source take its pass for over."""
        self.batches.give_up()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the source."""
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of the source."""
        self.batches.load_state_dict(state)

    def close(self) -> None:
        """Close the source."""
        self.batches.close()


def unpack_x_y_sample_weight(data: Any) -> Batch:
    """Unpack `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        data: A tuple or list of one to three parts; anything else is `x` alone.

    Returns:
        `(x, y, sample_weight)` with None for what is absent.

    Raises:
        ValueError: If there are no parts, or more than three.

    Example:
        >>> unpack_x_y_sample_weight(([1.0], [0]))
        ([1.0], [0], None)
    """
    if not isinstance(data, (tuple, list)):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise ValueError(
            "Data must be `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`; "
            f"got a {type(data).__name__} of {len(data)} parts: {describe(data)}. "
            "Several inputs belong in one nested part: `((x1, x2), y)`."
        )
    parts = [*data, None, None]
    return parts[0], parts[1], parts[2]


def describe(data: Any, limit: int = 200) -> str:
    """Describe data in one line for an error message: types and shapes rather than values.

    Args:
        data: Anything.
        limit: Maximum number of characters.

    Returns:
        One line.

    Example:
        >>> import numpy as np
        >>> describe((np.zeros((2, 3)), [1, "a"]))
        "(ndarray float64 (2, 3), [int 1, str 'a'])"
    """
    shape, dtype = getattr(data, "shape", None), getattr(data, "dtype", None)
    if isinstance(data, dict):
        text = "{" + ", ".join(f"{key!r}: {describe(value)}" for key, value in list(data.items())[:8]) + "}"
    elif isinstance(data, (tuple, list)):
        inner = ", ".join(describe(value) for value in data[:8]) + (", ..." if len(data) > 8 else "")
        text = f"[{inner}]" if isinstance(data, list) else f"({inner})"
    elif shape is not None and isinstance(shape, tuple):
        text = f"{type(data).__name__} {dtype if dtype is not None else ''} {tuple(shape)}".replace("  ", " ")
    else:
        text = "None" if data is None else f"{type(data).__name__} {data!r}"
    return text if len(text) <= limit else text[: limit - 3] + "..."
