"""The limits that `config.set_max_epochs` and `config.set_max_steps_per_epoch` put on runs, to try a script out quickly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oncue import backend
from oncue.core.warn import warn
from oncue.feeding.batch import Batches


def limited_epochs(epochs: int) -> int:
    """Return the number of epochs, or the limit where that is less.

    Example:
        >>> limited_epochs(3)
        3
    """
    limit = backend.max_epochs()
    if limit is None or epochs <= limit:
        return epochs
    warn(f"`config.set_max_epochs` limits `epochs` to {limit}; {epochs} were asked for.")
    return limit


def limited_batches(make: Callable[..., Batches], *data: Any, steps: int | None = None, **options: Any) -> Batches:
    """Return the batches of a pass, no more than the limit.

    Args:
        make: `as_batches`.
        *data: Its data.
        steps: The number of batches that was asked for; None for all.
        **options: Its other arguments.
    """
    batches, limit = make(*data, steps=steps, **options), backend.max_steps_per_epoch()
    if limit is None or (batches.num_batches is not None and batches.num_batches <= limit):
        return batches
    warn(f"`config.set_max_steps_per_epoch` limits a pass to {limit} batches.")
    return make(*data, steps=limit, **options)
