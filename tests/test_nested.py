"""Nested containers: what counts as one, in which order its leaves come, and what is made of it."""

from __future__ import annotations

from collections import OrderedDict, UserDict, deque, namedtuple
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from oncue.nested import first_leaf, flatten, map_leaves, map_named, named_leaves

Pair = namedtuple("Pair", ["first", "second"])


class Items(list[Any]):
    pass


@pytest.mark.parametrize(
    ("value", "leaves", "mapped"),
    [
        (1, [1], 2),
        ([1, (2, [3])], [1, 2, 3], [2, (3, [4])]),
        ({"b": 1, "a": 2}, [2, 1], {"b": 2, "a": 3}),
        (OrderedDict(b=1, a=2), [2, 1], {"b": 2, "a": 3}),
        (UserDict(b=1, a=2), [2, 1], {"b": 2, "a": 3}),
        (MappingProxyType({"a": 1}), [1], {"a": 2}),
        (Items([1, 2]), [1, 2], [2, 3]),
        (Pair(1, 2), [1, 2], Pair(2, 3)),
        (torch.Size([2, 3]), [2, 3], (3, 4)),
        ([], [], []),
        ({}, [], {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers(value: Any, leaves: list[int], mapped: Any) -> None:
    assert flatten(value) == leaves
    result = map_leaves(lambda leaf: leaf + 1, value)
    assert result == mapped and type(result) is type(mapped)
    if isinstance(mapped, dict):
        assert list(result) == list(mapped)


def test_what_is_no_container() -> None:
    for value in (deque([1]), {1}, "text", np.ones(2)):
        assert flatten(value)[0] is value
        assert map_leaves(lambda leaf: leaf, value) is value


def test_none_is_a_leaf_in_order_and_left_alone_otherwise() -> None:
    value = {"a": None, "b": [1, None]}
    assert flatten(value) == [None, 1, None]
    assert map_leaves(lambda leaf: leaf + 1, value) == {"a": None, "b": [2, None]}
    assert map_leaves(str, None) is None
    assert list(named_leaves(value, "x")) == [("x['b'][0]", 1)]
    assert first_leaf(value) == 1 and first_leaf([None]) is None


def test_paths_are_those_of_the_leaves_that_a_function_gets() -> None:
    value = {"b": Pair(1, [2]), "a": UserDict(c=3)}
    assert map_named(lambda path, leaf: f"{path}={leaf}", value, "y") == {
        "b": Pair("y['b'][0]=1", ["y['b'][1][0]=2"]),
        "a": {"c": "y['a']['c']=3"},
    }


def test_mappings_of_other_libraries_are_trained_on() -> None:
    class TwoHeads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out, self.aux = torch.nn.Linear(2, 1), torch.nn.Linear(2, 3)

        def forward(self, ids: torch.Tensor) -> Any:
            # As torchvision's models for segmentation.
            return OrderedDict(out=self.out(ids), aux=self.aux(ids))

    # As the output of Hugging Face's tokenizers.
    x = UserDict(ids=np.ones((8, 2), "float32"))
    y = {"out": np.ones((8, 1), "float32"), "aux": np.ones((8, 3), "float32")}
    made = oncue.Model(TwoHeads())
    made.compile("sgd", loss={"out": "mse", "aux": "mae"})
    history = made.fit(x, y, batch_size=4, verbose=0).history
    assert set(history) == {"loss", "out_loss", "aux_loss"}
    predicted = made.predict(x, batch_size=4, verbose=0)
    assert {name: part.shape for name, part in predicted.items()} == {"out": (8, 1), "aux": (8, 3)}
