"""How much of the campaigns is run: `make crash SHARE=0.1` runs a tenth of each."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable

SEED = int(os.environ.get("ONCUE_SEED", "0"))
"""What chooses moments, places and, of a part of the campaigns, scripts."""

SHARE = float(os.environ.get("ONCUE_CRASH_SHARE") or 1)
"""The part of the campaigns that is run."""


def chosen() -> list[str]:
    """Return the names of the scripts that are run: all, or a part of them."""
    from crash.variants import VARIANTS

    names = [one.name for one in VARIANTS]
    return random.Random(SEED).sample(names, math.ceil(len(names) * min(SHARE, 1)))


Counted = Callable[..., None]
"""Counts what was done to runs and saves: `counted(kills=20)`."""
