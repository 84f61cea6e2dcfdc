"""PyDatasets as batches."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from helpers import batches_of, rows_of
from oncue.utils.py_dataset import PyDataset, Sequence


class Numbers(PyDataset):
    """Batch n holds n and its square; earlier batches take longer, so that threads would finish them last."""

    def __init__(self, number: int = 6, **options: Any) -> None:
        super().__init__(**options)
        self.number = number
        self.calls: list[str] = []

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        if index < 0 or index >= self.number:
            raise IndexError(index)
        time.sleep(0.002 * (self.number - index))
        return np.array([[float(index)]]), np.array([index**2])

    def on_epoch_begin(self) -> None:
        self.calls.append("begin")

    def on_epoch_end(self) -> None:
        self.calls.append("end")


class Endless(PyDataset):
    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, index: int) -> Any:
        return np.array([index]), np.array([index])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"workers": 0},
        {"workers": 3},
        {"workers": 3, "max_queue_size": 1},
        {"workers": 2, "use_multiprocessing": True},
    ],
    ids=str,
)
def test_workers_deliver_every_batch_once_in_order(options: dict[str, Any]) -> None:
    data = Numbers(**options)
    batches = batches_of(data)
    assert batches.num_batches == 6
    assert batches.first()[0].tolist() == [[0.0]]
    for _ in range(2):
        assert rows_of(batches) == [0, 1, 2, 3, 4, 5]
    assert data.calls == ["begin", "end"] * 2
    assert rows_of(batches, start=4) == [4, 5]
    batches.close()


def test_batches_are_shuffled_as_wholes_and_resume() -> None:
    batches = batches_of(Numbers(12, workers=2), shuffle=True)
    first, second = rows_of(batches), rows_of(batches)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(12))
    running = batches.epoch()
    next(running), next(running)
    state, expected = batches.state_dict(), [x.item() for x, _, _ in running]
    resumed = batches_of(Numbers(12), shuffle=True)
    resumed.load_state_dict(state)
    assert rows_of(resumed, start=2) == expected


def test_the_queue_is_bounded() -> None:
    started: list[int] = []

    class Counted(Numbers):
        def __getitem__(self, index: int) -> Any:
            started.append(index)
            return super().__getitem__(index)

    running = batches_of(Counted(50, workers=2, max_queue_size=3)).epoch()
    next(running)
    time.sleep(0.3)
    assert len(started) <= 4
    running.close()  # type: ignore[attr-defined]  # it is a generator


def test_close_ends_the_threads() -> None:
    batches = batches_of(Numbers(workers=4))
    next(batches.epoch())
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("oncue-data")]
    assert rows_of(batches) == [0, 1, 2, 3, 4, 5]
    batches.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_arrives(workers: int) -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise RuntimeError("disk on fire")
            return super().__getitem__(index)

    batches = batches_of(Broken(workers=workers))
    with pytest.raises(RuntimeError, match="disk on fire"):
        rows_of(batches)
    batches.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_infinite_data_set_needs_steps_and_its_epoch_hooks_run(workers: int) -> None:
    calls: list[str] = []

    class Infinite(Endless):
        def on_epoch_end(self) -> None:
            calls.append("end")

    batches = batches_of(Infinite(workers=workers), steps=3)
    assert [rows_of(batches), rows_of(batches)] == [[0, 1, 2], [3, 4, 5]]
    assert calls == ["end", "end"]
    batches.close()


def test_sequence_is_the_old_name() -> None:
    assert Sequence is PyDataset


def test_iterating_directly() -> None:
    assert [y.item() for _, y in Numbers(3)] == [0, 1, 4]


def test_a_missing_super_call_is_harmless() -> None:
    class Forgetful(Numbers):
        def __init__(self) -> None:
            self.number, self.calls = 2, []

    assert rows_of(batches_of(Forgetful())) == [0, 1]


def test_class_weight_and_targets() -> None:
    (_, _, weight), *_ = batches_of(Numbers(), class_weight={0: 5.0}).epoch()
    assert weight.tolist() == [5.0]
    with pytest.raises(ValueError, match="`y` must not be passed"):
        batches_of(Numbers(), [1])


def test_missing_parts_are_named() -> None:
    class Bare(PyDataset):
        pass

    with pytest.raises(NotImplementedError, match="__getitem__"):
        Bare()[0]
    with pytest.raises(NotImplementedError, match="num_batches"):
        batches_of(Bare())
    with pytest.raises(ValueError, match="length is 0"):
        batches_of(Numbers(0))
    with pytest.raises(ValueError, match="Batch 0 of the PyDataset"):

        class Bad(Numbers):
            def __getitem__(self, index: int) -> Any:
                return np.zeros(2), np.zeros(3)

        rows_of(batches_of(Bad()))
