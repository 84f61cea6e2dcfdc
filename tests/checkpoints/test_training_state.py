"""TrainingState: what is written is what is read, and nothing in it can run code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import load_file, save_file

from helpers import to_numpy
from oncue.checkpoints.encoding import decode, encode
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.state_file import TensorBlocks, blocks_of, write_state
from oncue.checkpoints.tensors_file import write_tensors
from oncue.checkpoints.training_state import TrainingState

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.booleans(), inner)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_values_come_back(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value, {}), allow_nan=False)), {})
    assert back == value and repr(back) == repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_tensors_come_back(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (
        torch.arange(math.prod(shape)).reshape(shape).to(dtype).t() if len(shape) == 2 else torch.ones(shape).to(dtype)
    )
    shared = [tensor, tensor, to_numpy(tensor)] if dtype != torch.bfloat16 else [tensor, tensor]
    TrainingState({}, parts={"tensors": shared}).write(tmp_path / "state")
    back = TrainingState.read(tmp_path / "state").parts["tensors"]
    assert back[0].dtype == dtype and back[0].shape == tensor.shape and torch.equal(back[1], tensor)
    if dtype != torch.bfloat16:
        assert isinstance(back[2], np.ndarray) and back[2].dtype == to_numpy(tensor).dtype


def test_numbers_of_numpy_and_those_that_are_not_finite(tmp_path: Path) -> None:
    parts = {"best": [math.nan, -math.inf, np.float32(0.1), np.int64(3)]}
    TrainingState({}, parts=parts).write(tmp_path / "state")
    nan, infinity, small, three = TrainingState.read(tmp_path / "state").parts["best"]
    assert math.isnan(nan) and infinity == -math.inf
    assert type(small) is np.float32 and small == np.float32(0.1)
    assert type(three) is np.int64 and three == 3


def test_a_state_keeps_its_tensors_when_training_continues(tmp_path: Path) -> None:
    weight = torch.ones(2)
    seen = [1]
    frozen = TrainingState({}, parts={"weights": {"weight": weight}, "seen": seen}).freeze(Snapshot())
    weight.zero_()
    seen.append(2)
    parts = frozen.thaw().parts
    assert parts["weights"]["weight"].tolist() == [1.0, 1.0] and parts["seen"] == [1]


def test_what_cannot_be_kept_is_named() -> None:
    with pytest.raises(TypeError, match=r"`callbacks`\['Own'\]\[0\] is of type object"):
        TrainingState({}, parts={"callbacks": {"Own": [object()]}}).write(".")


def tensors(weight: torch.Tensor) -> TensorBlocks:
    return blocks_of({"0": weight})


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"format": 9}', '{"format": 2}', '{"format": 2, "parts": {"a": {"$tensor": "7"}}}', "[" * 100_000],
)
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, text: str) -> None:
    write_state(tmp_path / "state", [text.encode()], tensors(torch.ones(2)))
    with pytest.raises(ValueError, match="can't be read as the state of a run"):
        TrainingState.read(tmp_path / "state")


def test_a_file_of_tensors_alone_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="checksum"):
        TrainingState.read(tmp_path / "foreign")
    write_tensors(tmp_path / "weights", {"weight": torch.ones(2)})
    with pytest.raises(ValueError, match=r"it has no 'state.json'"):
        TrainingState.read(tmp_path / "weights")


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    TrainingState({"optimizer": "SGD"}, epoch=3, parts={"weights": [torch.arange(5.0)]}).write(tmp_path / "state")
    good = (tmp_path / "state").read_bytes()
    for place in range(len(good)):
        (tmp_path / "state").write_bytes(good[:place] + bytes([good[place] ^ 1 << place % 8]) + good[place + 1 :])
        with pytest.raises(ValueError, match="can't be read as the state of a run"):
            TrainingState.read(tmp_path / "state")
        (tmp_path / "state").write_bytes(good[:place])
        with pytest.raises(ValueError, match="can't be read as the state of a run"):
            TrainingState.read(tmp_path / "state")


@pytest.mark.parametrize("size", [10, 2_000_000], ids=["small", "large"])
def test_other_programs_can_read_it(tmp_path: Path, size: int) -> None:
    TrainingState({}, epoch=3, parts={"weights": [torch.arange(size), torch.ones(0)]}).write(tmp_path / "state")
    found = load_file(tmp_path / "state")
    assert torch.equal(found.pop("0"), torch.arange(size))
    assert json.loads(to_numpy(found["state.json"]).tobytes())["epoch"] == 3


def test_an_unknown_mark_is_refused(tmp_path: Path) -> None:
    text = b'{"format": 2, "fingerprint": {}, "parts": {"a": {"$call": 1}}}'
    write_state(tmp_path / "state", [text], tensors(torch.ones(2)))
    with pytest.raises(ValueError, match=r"\$call"):
        TrainingState.read(tmp_path / "state")


def test_a_changed_setup_is_refused_with_both_values() -> None:
    state = TrainingState({"weights": [["a", [2]], ["b", [3]]], "optimizer": "SGD"})
    state.check({"weights": [["a", [2]], ["b", [3]]], "optimizer": "SGD"}, "runs")
    with pytest.raises(ValueError, match=r"`optimizer` has changed: in the backup it is 'SGD', now it is 'Adam'"):
        state.check({**state.fingerprint, "optimizer": "Adam"}, "runs")
    with pytest.raises(ValueError, match=r"it is \['b', \[3\]\], now it is \['b', \[4\]\].*delete the folder"):
        state.check({**state.fingerprint, "weights": [["a", [2]], ["b", [4]]]}, "runs")
