"""Arrays and tensors as batches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from helpers import batches_of, rows_of
from oncue import backend
from oncue.feeding.batches import Batches, class_weight_to_sample_weights, unpack_x_y_sample_weight
from oncue.feeding.converter import BatchConverter
from oncue.feeding.staging import StagingBuffers


@given(samples=st.integers(1, 60), size=st.integers(1, 70), shuffle=st.sampled_from([False, True, "batch"]))
@settings(max_examples=60, deadline=None)
def test_a_pass_visits_every_row_once_with_its_target(samples: int, size: int, shuffle: Any) -> None:
    x = np.arange(samples)
    batches = batches_of(x, x * 2, x * 3.0, batch_size=size, shuffle=shuffle)
    seen = list(batches.epoch())
    assert len(seen) == batches.num_batches == -(-samples // size)
    assert all(len(a) == size for a, _, _ in seen[:-1])
    assert sorted(rows_of(batches)) == list(range(samples))
    for a, b, weight in seen:
        assert torch.equal(a * 2, b)
        assert torch.equal(a * 3.0, weight)
        assert weight.dtype == torch.float32


@given(samples=st.integers(1, 40), size=st.integers(1, 9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_pass_continues_from_a_saved_position(samples: int, size: int, data: Any) -> None:
    shuffle = data.draw(st.sampled_from([False, True, "batch"]))
    batches = batches_of(np.arange(samples), batch_size=size, shuffle=shuffle)
    rows_of(batches)
    stop = data.draw(st.integers(0, batches.num_batches or 0))
    running, seen, state = batches.epoch(), [], batches.state_dict()
    for _ in range(stop):
        seen += next(running)[0].tolist()
        state = batches.state_dict()
    whole = seen + [row for x, _, _ in running for row in x.tolist()]
    resumed = batches_of(np.arange(samples), batch_size=size, shuffle=shuffle)
    resumed.load_state_dict(state)
    if 0 < stop:
        rest = [row for x, _, _ in resumed.epoch(stop) for row in x.tolist()]
        assert seen + rest == whole
    assert sorted(whole) == list(range(samples))


def test_shuffling_draws_a_new_order_per_epoch_and_follows_the_seed() -> None:
    x = np.arange(100)
    torch.manual_seed(3)
    batches = batches_of(x, shuffle=True)
    first, second = rows_of(batches), rows_of(batches)
    torch.manual_seed(3)
    assert rows_of(batches_of(x, shuffle=True)) == first
    assert first != second
    assert sorted(first) == sorted(second) == list(range(100))


def test_batch_order_keeps_neighbours_together_and_the_partial_batch_last() -> None:
    torch.manual_seed(0)
    parts = [x.tolist() for x, _, _ in batches_of(np.arange(22), batch_size=4, shuffle="batch").epoch()]
    assert all(part == list(range(part[0], part[0] + len(part))) for part in parts)
    assert parts[-1] == [20, 21]
    assert [part[0] for part in parts[:-1]] != sorted(part[0] for part in parts[:-1])


def test_first_changes_neither_random_state_nor_order() -> None:
    batches = batches_of(np.arange(50), shuffle=True, batch_size=7)
    before = torch.get_rng_state()
    assert batches.first()[0].tolist() == list(range(7))
    assert torch.equal(before, torch.get_rng_state())


def test_no_second_copy_of_the_data() -> None:
    x = np.zeros((10, 3), "float32")
    batch = next(batches_of(x).epoch())[0]
    batch[0, 0] = 5.0
    assert x[0, 0] == 5.0


def test_float64_is_cast_batch_by_batch() -> None:
    x = np.arange(40.0)
    batches = batches_of(x, batch_size=8, shuffle=True)
    held = batches._data[0]  # type: ignore[attr-defined]  # there is no public access to it
    assert held.data_ptr() == x.__array_interface__["data"][0]
    assert {part.dtype for part, _, _ in batches.epoch()} == {torch.float32}
    assert sorted(rows_of(batches)) == x.tolist()


def test_floats_become_floatx_and_other_types_stay() -> None:
    data = {"half": np.zeros(4, "float16"), "byte": np.zeros(4, "uint8"), "flag": np.zeros(4, bool), "n": [1, 2, 3, 4]}
    kinds = {name: part.dtype for name, part in batches_of(data).first()[0].items()}
    assert kinds == {"half": torch.float32, "byte": torch.uint8, "flag": torch.bool, "n": torch.int64}
    backend.set_floatx("float64")
    try:
        assert batches_of(np.zeros(4, "float32")).first()[0].dtype == torch.float64
    finally:
        backend.set_floatx("float32")


@pytest.mark.parametrize(
    "x",
    [
        np.arange(6.0)[::-1],
        np.arange(12.0).reshape(6, 2).T[0],
        np.arange(6, dtype=">f4"),
        np.arange(6, dtype="uint16"),
        np.arange(6, dtype="uint32"),
        np.arange(6, dtype="longdouble"),
        list(range(6)),
        tuple(float(n) for n in range(6)),
        [np.float32(n) for n in range(6)],
        [torch.tensor(n) for n in range(6)],
        pd.Series(range(6)),
        pd.Series(range(6), dtype="Int64"),
        pd.DataFrame({"a": range(6)}),
        torch.arange(6.0, requires_grad=True),
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}",
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_of_every_kind(x: Any, shuffle: bool) -> None:
    expected = [float(n) for n in np.asarray(x.detach() if isinstance(x, torch.Tensor) else x).reshape(-1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = [float(n) for n in rows_of(batches_of(x, batch_size=4, shuffle=shuffle))]
    assert (sorted(got) == sorted(expected)) if shuffle else (got == expected)


def test_read_only_arrays_do_not_warn() -> None:
    x = np.arange(5.0)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_of(batches_of(x)) == [0, 1, 2, 3, 4]


def test_pandas_frames_become_matrices() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": [True, False]})
    got = batches_of(frame, pd.Series([0, 1])).first()
    assert got[0].dtype == torch.float32
    assert got[0][0].tolist() == [1.0, 0.5, 1.0]
    assert got[0][1].isnan().tolist() == [False, True, False]
    nullable = pd.DataFrame({"a": pd.array([1, None], dtype="Int64")})
    with pytest.raises(ValueError, match=r"missing values \(NA\) in 'a'; fill them.*fillna.*astype"):
        batches_of(nullable)
    with pytest.raises(ValueError, match=r"`x` is a pandas Series with missing values \(NA\); fill"):
        batches_of(nullable["a"])
    assert batches_of(nullable.astype("float32")).first()[0].isnan().tolist() == [[False], [True]]
    with pytest.raises(ValueError, match=r"'city'.*get_dummies"):
        batches_of(pd.DataFrame({"city": ["Bern", "Ulm"], "n": [1, 2]}))


def test_pandas_indexes_and_arrays() -> None:
    assert batches_of(pd.Index([1, 2])).first()[0].tolist() == [1, 2]
    assert batches_of(pd.array([1, 2]).to_numpy()).first()[0].tolist() == [1, 2]


def test_nested_inputs_and_outputs_keep_their_structure() -> None:
    x = {"left": np.arange(6), "right": [np.ones((6, 2)), np.zeros(6)]}
    y = (np.arange(6), np.arange(6) * 2)
    batch = list(batches_of(x, y, np.arange(6), batch_size=4).epoch())[1]
    assert batch[0]["left"].tolist() == [4, 5]
    assert [part.shape[0] for part in batch[0]["right"]] == [2, 2]
    assert isinstance(batch[1], tuple)
    # One weight per sample holds for every output, as in Keras.
    assert [part.tolist() for part in batch[2]] == [[4, 5], [4, 5]]


def test_steps_without_batch_size_divides_the_samples() -> None:
    assert batches_of(np.zeros(100), steps=8).batch_size == 13
    assert batches_of(np.zeros(100)).batch_size == 32
    assert batches_of(np.zeros(100), steps=8, batch_size=10).batch_size == 10


def test_epochs_of_steps_continue_where_the_last_one_stopped() -> None:
    batches = batches_of(np.arange(10), batch_size=2, steps=3)
    assert batches.num_batches == 3
    assert [rows_of(batches) for _ in range(3)] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 1], [2, 3, 4, 5, 6, 7]]


def test_epochs_of_steps_resume_exactly() -> None:
    def make() -> Batches:
        return batches_of(np.arange(20), batch_size=2, steps=4, shuffle=True)

    batches = make()
    rows_of(batches)
    running = batches.epoch()
    next(running), next(running)
    state, expected = batches.state_dict(), [x.tolist() for x, _, _ in running]
    resumed = make()
    resumed.load_state_dict(state)
    assert [x.tolist() for x, _, _ in resumed.epoch(2)] == expected


def test_more_steps_than_batches_go_on_with_the_next_pass() -> None:
    batches = batches_of(np.arange(4), batch_size=2, steps=5)
    assert rows_of(batches) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert rows_of(batches) == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("method", ["validation", "evaluate", "predict"])
def test_where_samples_would_count_twice_the_epoch_ends_with_a_warning(method: str) -> None:
    batches = batches_of(np.arange(4), batch_size=2, steps=5, method=method)
    for _ in range(2):
        with pytest.warns(UserWarning, match="ran out of data after 2 of 5 steps"):
            assert rows_of(batches) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, r"`x` \(3, 2\), `y` \(4,\)"),
        ({"x": np.zeros(3), "sample_weight": np.zeros(2)}, r"`sample_weight` \(2,\)"),
        ({"x": np.zeros((0, 2))}, "no samples"),
        ({"x": []}, "no arrays"),
        ({"x": None}, "`x` is None"),
        ({"x": np.float32(3)}, "batch axis"),
        ({"x": torch.tensor(3.0)}, "batch axis"),
        ({"x": np.zeros(3), "batch_size": 0}, "`batch_size`.*got 0"),
        ({"x": np.zeros(3), "batch_size": -2}, "`batch_size`"),
        ({"x": np.zeros(3), "batch_size": True}, "`batch_size`.*True"),
        ({"x": np.zeros(3), "batch_size": 2.5}, "`batch_size`.*2.5"),
        ({"x": np.zeros(3), "steps": 0}, "`steps`"),
        ({"x": np.zeros(3), "shuffle": "yes"}, "`shuffle`"),
        ({"x": np.array(["a", "b"])}, "encode them"),
        ({"x": np.array([1, "a"], dtype=object)}, "dtype object"),
        ({"x": ["a", "b"]}, "Encode text"),
        ({"x": "data.csv"}, "Encode text"),
        ({"x": np.array(["2020-01-01"], dtype="datetime64[D]")}, "dtype datetime64"),
        ({"x": {"a": np.zeros(3), "b": print}}, r"`x\['b'\]`.*call it"),
        ({"x": object()}, "of type object"),
        ({"x": [[1, 2], [3]]}, "different lengths"),
        ({"x": np.zeros(3), "y": iter([1])}, "`y`"),
        ({"x": torch.eye(3).to_sparse()}, "to_dense"),
        ({"x": [np.zeros(3), np.zeros(2)]}, r"`x\[0\]` \(3,\), `x\[1\]` \(2,\)"),
        ({"x": np.zeros(3), "y": (np.zeros(3), np.zeros(3)), "sample_weight": (np.zeros(3),)}, "one array per output"),
        (
            {"x": np.zeros(3), "y": (np.zeros(3), np.zeros(3)), "sample_weight": np.zeros((3, 2))},
            "one number per sample",
        ),
    ],
)
def test_bad_data_is_refused_with_names_and_shapes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches_of(**arguments)


def test_sparse_matrices_are_refused_with_advice() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for matrix in (sparse.eye(3, format="csr"), sparse.csr_array(np.eye(3))):
        with pytest.raises(ValueError, match="toarray"):
            batches_of(matrix)


def test_class_weights() -> None:
    weights = {0: 2.0, 2: 0.5}
    expected = [2.0, 1.0, 0.5, 0.5]
    for y in (
        [0, 1, 2, 2],
        [[0], [1], [2], [2]],
        [0.0, 1.0, 2.0, 2.0],
        np.eye(3)[[0, 1, 2, 2]],
        np.eye(3, dtype=bool)[[0, 1, 2, 2]],
    ):
        assert class_weight_to_sample_weights(y, weights).tolist() == expected
    batches = batches_of(np.zeros((4, 2)), [0, 1, 2, 2], class_weight=weights, batch_size=3)
    assert [weight.tolist() for _, _, weight in batches.epoch()] == [expected[:3], expected[3:]]
    assert class_weight_to_sample_weights([-1, 1], {-1: 3.0}).tolist() == [3.0, 1.0]
    assert class_weight_to_sample_weights([0, 1], {}).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weight": {0: 1.0}, "sample_weight": [1, 1]}, "can't be given together"),
        ({"class_weight": {"cat": 1.0}}, "'cat'"),
        ({"class_weight": {True: 1.0}}, "True"),
        ({"class_weight": {0: -1.0}}, "-1.0"),
        ({"class_weight": {0: float("nan")}}, "nan"),
        ({"class_weight": {0: "heavy"}}, "heavy"),
        ({"class_weight": {5: 1.0}, "y": np.eye(2)}, "class 5"),
        ({"class_weight": {-1: 1.0}, "y": np.eye(2)}, "class -1"),
        ({"class_weight": {0: 1.0}, "y": ([0, 1], np.zeros((2, 3)))}, "single output"),
        ({"class_weight": {0: 1.0}, "y": None}, "targets"),
        ({"class_weight": {0: 1.0}, "y": np.zeros((2, 3, 4))}, "sample_weight"),
    ],
)
def test_bad_class_weights_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches_of(np.zeros(2), **{"y": [0, 1], **arguments})


def test_class_weight_must_be_a_dict() -> None:
    with pytest.raises(TypeError, match="enumerate"):
        batches_of(np.zeros(2), [0, 1], class_weight=[1.0, 2.0])


def test_unpacking() -> None:
    assert unpack_x_y_sample_weight("x") == ("x", None, None)
    assert unpack_x_y_sample_weight(("x",)) == ("x", None, None)
    assert unpack_x_y_sample_weight(["x", "y", "w"]) == ("x", "y", "w")
    for bad in ((), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="parts"):
            unpack_x_y_sample_weight(bad)


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="order_seed"):
        batches_of(np.zeros(3)).load_state_dict({"seed": 1})


def test_a_start_beyond_the_pass_yields_nothing_and_draws_nothing() -> None:
    batches = batches_of(np.zeros(4), shuffle=True)
    before = torch.get_rng_state()
    assert list(batches.epoch(1)) == []
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("pinned", [False, True])
def test_batches_go_to_a_gpu_through_page_locked_memory(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[str, Any]] = []

    def pin(self: torch.Tensor) -> torch.Tensor:
        moves.append(("pin", tuple(self.shape)))
        return self.clone()

    def to(self: torch.Tensor, device: Any, dtype: Any, non_blocking: bool) -> torch.Tensor:
        moves.append((str(device), non_blocking))
        return self

    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: pinned)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    convert = BatchConverter("DataLoader", torch.device("cuda", 0))
    convert((torch.ones(4, 2), torch.ones(4)), 0)
    convert(({"a": torch.ones(3, 2)}, None), 0)
    sent = [("pin", (4, 2)), ("cuda:0", True), ("pin", (4,)), ("cuda:0", True), ("pin", (3, 2)), ("cuda:0", True)]
    assert moves == [one for one in sent if not (pinned and one[0] == "pin")]


class LateCopy:
    """A copy that a device makes when it must: when the host waits for it, or the device gets to it."""

    def __init__(self, buffer: torch.Tensor, device: torch.device, dtype: torch.dtype) -> None:
        self.buffer, self.there = buffer, torch.full(buffer.shape, 77).to(dtype)
        self.done = False

    def synchronize(self) -> None:
        if not self.done:
            self.done = True
            self.there.copy_(self.buffer)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_buffer_is_filled_again_only_when_its_copy_is_done(shuffled: bool) -> None:
    copies: list[LateCopy] = []

    def send(*arguments: Any) -> tuple[torch.Tensor, LateCopy]:
        copies.append(LateCopy(*arguments))
        return copies[-1].there, copies[-1]

    rows, order = torch.arange(10.0), torch.randperm(10)
    staging = StagingBuffers(torch.device("cpu"), torch.float32, pinned=False, send=send)
    batches = [slice(low, low + 3) for low in (0, 3, 6, 9)]
    got = [staging.send(rows, order[batch] if shuffled else batch) for batch in batches]
    # Two are under way at most, so that the host is ahead of the device.
    assert [copy.done for copy in copies] == [True, True, False, False]
    for copy in copies:
        copy.synchronize()
    assert torch.equal(torch.cat(got), rows[order] if shuffled else rows)
