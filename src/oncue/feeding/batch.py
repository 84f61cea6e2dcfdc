"""What the loop reads: batches, and where in them it stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeAlias

Batch: TypeAlias = tuple[Any, Any, Any]
"""`(x, y, sample_weight)`: tensors on the device, or nested tuples, lists and dicts of them; None where absent."""


class Batches(ABC):
    """A source of batches, one pass after another.

    Attributes:
        num_batches: Batches in one pass, or None when nobody knows.
        batch_size: Samples in a full batch, or None when nobody knows.
        exact_position: Whether `epoch(start)` gives the batches an uninterrupted pass would have given from there.
        obstacle: Why it doesn't, in words that end a sentence; None where nothing more can be said.
        reads_again: Whether batches that are done are read once more to come to a saved place.
        restartable: False for a generator or iterator, whose second pass goes on where the first one stopped.
        source: The object that was fed.

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
    restartable: bool = True
    exact_position: bool = False
    obstacle: str | None = None
    reads_again: bool = False
    source: Any = None

    @abstractmethod
    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass, beginning with batch `start`."""

    @abstractmethod
    def first(self) -> Batch:
        """Return one batch to build a model on; the next pass still gives it, and random states stay as they were."""

    def one_pass(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass without telling the source that an epoch begins and ends; by default the same as `epoch`."""
        return self.epoch(start)

    def epoch_begins(self) -> None:  # noqa: B027  # most sources have nothing to tell
        """Tell the source that an epoch begins, where `one_pass` is used."""

    def epoch_ends(self) -> None:  # noqa: B027
        """Tell the source that an epoch is over, where `one_pass` is used."""

    def keep_position(self) -> None:  # noqa: B027
        """Be told, before the first pass, that `state_dict` will be asked for within passes."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on with the same order; empty where there is nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the order of a saved pass, for the next `epoch(start)`."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, so it can't take {sorted(state)}.")

    def close(self) -> None:  # noqa: B027
        """Release worker threads and processes."""


def unpack_x_y_sample_weight(data: Any) -> Batch:
    """Unpack `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.

    Args:
        data: A tuple or list of one to three parts; anything else is `x` alone.

    Returns:
        `(x, y, sample_weight)` with None for what is absent.

    Raises:
        ValueError: When there are no parts, or more than three.

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
    """Return a short text about data for an error: types and shapes rather than values.

    Args:
        data: Anything.
        limit: The most characters to return.

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
