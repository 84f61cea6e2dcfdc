"""Models of the real Keras, trained by its own `fit` and in oncue's loop, side by side."""

from __future__ import annotations

import os
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Return the real Keras on its torch backend."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    module: ModuleType = pytest.importorskip("keras")
    if module.backend.backend() != "torch":
        pytest.skip("real Keras runs on another backend")
    module.config.disable_traceback_filtering()
    return module
