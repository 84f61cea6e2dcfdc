"""The compiled step without a compiler."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from oncue.training.graph import compiled_region


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of the way but the C++ compiler, which takes seconds for each graph."""
    monkeypatch.setattr(compiled_region, "BACKEND", "eager")
    yield
    torch._dynamo.reset()
