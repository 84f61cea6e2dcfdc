"""Process: what was chosen for this process, one of several that train together or the only one."""

from __future__ import annotations

import os
from typing import Any

from oncue.core.ranks import is_launched


class Process:
    """What is known of this process, and of those that were started with it.

    Attributes:
        group: The `oncue.distribution.group.Group` that it has joined; None for a process alone.
        distribution: What `keras.distribution.set_distribution` was given.
        chosen: Whether that was called.
    """

    def __init__(self) -> None:
        self.group: Any = None
        self.distribution: Any = None
        self.chosen = False

    @property
    def is_alone(self) -> bool:
        """Whether it trains on its own, so that nothing about groups need be imported."""
        if self.chosen and self.distribution is None:
            return True
        return self.group is None and not is_launched(os.environ)


process = Process()
