"""Keras's own `quantizers`, looked up when it is used."""

from typing import Any

def __getattr__(name: str) -> Any: ...
