"""Which oncue this is, and which Keras it is like."""

from __future__ import annotations

__version__ = "0.1.0"

KERAS = "3.15.0"
"""The Keras whose names, arguments and results these are: what scripts compare `keras.__version__` with."""
