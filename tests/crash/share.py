"""How much of the campaigns is run: `make crash SHARE=0.1` runs a tenth of each."""

from __future__ import annotations

import os
from collections.abc import Callable

SHARE = float(os.environ.get("ONCUE_CRASH_SHARE") or 1)
"""The part of the campaigns that is run."""

Counted = Callable[..., None]
"""Counts what was done to runs and saves: `counted(kills=20)`."""
