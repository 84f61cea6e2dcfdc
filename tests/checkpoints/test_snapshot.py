"""Snapshot: copies are those of the last call, also after one that failed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load

from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.tensors_file import header_of


def tensors(value: float, size: int = 3) -> dict[str, torch.Tensor]:
    weight = torch.nn.Parameter(torch.full((size,), value))
    return {"count": torch.tensor(int(value)), "weight": weight, "half": weight.detach().half()}


def written(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    entries, _, blocks = snapshot.blocks()
    return load(b"".join([header_of(entries), *blocks]))


def test_copies_and_their_file_follow_each_call_and_each_layout() -> None:
    snapshot = Snapshot()
    for value, size in ((1.0, 3), (2.0, 3), (3.0, 5), (4.0, 3)):
        copies = snapshot.take(tensors(value, size))
        read = written(snapshot)
        assert list(copies) == ["count", "weight", "half"]
        for name, expected in tensors(value, size).items():
            assert torch.equal(copies[name], expected.detach())
            assert torch.equal(read[name], expected.detach())


def test_a_call_without_memory_is_made_good_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot()
    snapshot.take(tensors(1.0))

    empty = torch.empty

    def no_memory(*arguments: Any, **options: Any) -> Any:
        if options["dtype"] == torch.uint8:
            raise MemoryError
        return empty(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(torch, "empty", no_memory)
        snapshot.take({"weight": torch.ones(100_000)})
    copies = snapshot.take(tensors(2.0))
    assert copies["weight"].tolist() == [2.0, 2.0, 2.0]
    assert set(written(snapshot)) == {"count", "weight", "half"}
