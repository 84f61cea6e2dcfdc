"""Sums over processes inside a graph."""

from __future__ import annotations

import pytest
import torch

from helpers import cpu_only
from oncue.core.process import process
from oncue.core.ranks import Ranks
from oncue.training.graph.shared_rows import SharedRows, messages_of_step, trying

pytestmark = cpu_only("nothing here depends on the device")


class Doubling(Ranks):
    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        return tensor.mul_(2)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Doubling:
    made = Doubling()
    monkeypatch.setattr(process, "group", made)
    return made


def test_nothing_is_sent_while_a_graph_is_made(group: Doubling) -> None:
    rows, values = SharedRows(torch.device("cpu"), torch.float32), torch.ones(2)
    with trying():
        assert rows.total_of(values).tolist() == [1.0, 1.0]
    assert rows.total_of(values).tolist() == [2.0, 2.0]
    assert values.tolist() == [1.0, 1.0]


def test_the_error_of_a_message_is_the_one_that_is_raised(group: Doubling) -> None:
    rows, group.error = SharedRows(torch.device("cpu"), torch.float32), KeyError("process 1")
    with pytest.raises(KeyError, match="process 1"), messages_of_step(None):
        try:
            rows.total_of(torch.ones(2))
        except KeyError:
            # As compiled code in C++ says it.
            raise RuntimeError("API call failed") from None
    with pytest.raises(RuntimeError, match="other"), messages_of_step(None):
        raise RuntimeError("other")
