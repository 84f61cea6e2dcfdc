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

    @property
    def shards_weights(self) -> bool:
        """Whether each of several processes is to have a part of each weight of the models that are trained from now on."""
        if self.is_alone or self.group is None or self.group.size == 1:
            return False
        return self.distribution is not None and bool(self.distribution.shard_weights)

    @property
    def speaks(self) -> bool:
        """Whether it warns: alone, and of several that train together the main one, for whose eyes the others have the same."""
        if self.is_alone:
            return True
        # Before the first run no group has been joined.
        return self.group.main if self.group is not None else os.environ["RANK"] == "0"


process = Process()
