"""Loaders, data sets, generators and iterables as batches."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from helpers import batches_of, rows_of
from oncue.feeding.batches import Batches
from oncue.feeding.huggingface import is_huggingface

X = np.arange(10)
PAIRS = TensorDataset(torch.arange(10.0, dtype=torch.float64), torch.arange(10))


def pairs(number: int = 3) -> Iterator[Any]:
    for n in range(number):
        yield np.array([n, n]), np.array([0, 1])


class Squares(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return {"n": np.float64(index), "noise": random.random()}, index**2


class Numbers(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return ((torch.tensor(float(n)), n) for n in range(5))


# --- DataLoader -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_is_read_from_its_beginning_in_every_epoch(workers: int) -> None:
    loader = DataLoader(PAIRS, batch_size=4, num_workers=workers)
    batches = batches_of(loader)
    assert (batches.num_batches, batches.batch_size, batches.source) == (3, 4, loader)
    assert batches.exact_position
    for _ in range(2):
        assert rows_of(batches) == list(range(10))
    x, y, weight = batches.first()
    assert (x.dtype, y.dtype, weight) == (torch.float32, torch.int64, None)
    assert rows_of(batches, start=2) == [8, 9]


def test_peeking_at_a_loader_changes_no_random_state() -> None:
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(Squares(), batch_size=4, shuffle=True, generator=generator)
    before = (torch.get_rng_state(), generator.get_state(), random.getstate())
    first = batches_of(loader).first()
    assert first[0]["n"].shape == (4,)
    assert torch.equal(before[0], torch.get_rng_state())
    assert torch.equal(before[1], generator.get_state())
    assert before[2] == random.getstate()


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_shuffled_loader_resumes_in_the_same_order(own_generator: bool) -> None:
    def make() -> Batches:
        generator = torch.Generator().manual_seed(5) if own_generator else None
        return batches_of(DataLoader(PAIRS, batch_size=2, shuffle=True, generator=generator))

    batches = make()
    rows_of(batches)
    running = batches.epoch()
    next(running), next(running)
    state, expected = batches.state_dict(), [x.tolist() for x, _, _ in running]
    resumed = make()
    torch.rand(7)
    resumed.load_state_dict(state)
    before = torch.get_rng_state()
    assert [x.tolist() for x, _, _ in resumed.epoch(2)] == expected
    assert torch.equal(before, torch.get_rng_state())
    assert sorted(rows_of(resumed)) == list(range(10))


def test_samplers_get_the_epoch() -> None:
    epochs: list[int] = []

    class Sampler(torch.utils.data.Sampler[int]):
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)

        def __iter__(self) -> Iterator[int]:
            return iter(range(10))

        def __len__(self) -> int:
            return 10

    loader = DataLoader(PAIRS, batch_size=5, sampler=Sampler())
    batches = batches_of(loader)
    rows_of(batches)
    running = batches.epoch()
    next(running)
    resumed = batches_of(loader)
    resumed.load_state_dict(batches.state_dict())
    rows_of(resumed, start=1)
    rows_of(resumed)
    assert epochs == [0, 1, 1, 2]


def test_a_loader_without_automatic_batching() -> None:
    whole = [(torch.ones(2), torch.zeros(2)), (torch.ones(3), torch.zeros(3))]
    batches = batches_of(DataLoader(whole, batch_size=None))  # type: ignore[arg-type]  # a list is a data set to torch
    assert [len(x) for x, _, _ in batches.epoch()] == [2, 3]
    assert len(batches.first()[0]) == 2


def test_a_loader_over_a_stream() -> None:
    batches = batches_of(DataLoader(Numbers(), batch_size=2))
    assert (batches.num_batches, batches.exact_position) == (None, True)
    assert batches.first()[0].tolist() == [0, 1]
    assert rows_of(batches) == rows_of(batches) == [0, 1, 2, 3, 4]


def test_an_empty_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="no batches"):
        batches_of(DataLoader(TensorDataset(torch.ones(0)))).first()


# --- torch Dataset ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [PAIRS, Squares(), torch.utils.data.Subset(PAIRS, range(10))])
def test_map_style_data_sets_are_batched_and_shuffled(dataset: Dataset[Any]) -> None:
    batches = batches_of(dataset, batch_size=4, shuffle=True)
    assert (batches.num_batches, batches.batch_size) == (3, 4)
    targets = [[n for _, y, _ in batches.epoch() for n in y.tolist()] for _ in range(2)]
    assert targets[0] != targets[1]
    assert sorted(targets[0]) == sorted(targets[1])
    running = batches.epoch()
    next(running)
    resumed = batches_of(dataset, batch_size=4, shuffle=True)
    resumed.load_state_dict(batches.state_dict())
    expected = [y.tolist() for _, y, _ in running]
    assert [y.tolist() for _, y, _ in resumed.epoch(1)] == expected


def test_iterable_data_sets() -> None:
    assert [len(x) for x, _, _ in batches_of(Numbers(), batch_size=3).epoch()] == [3, 2]


def test_data_sets_without_length_or_samples_are_refused() -> None:
    class Endless(Dataset[Any]):
        def __getitem__(self, index: int) -> Any:
            return index

    with pytest.raises(ValueError, match="__len__"):
        batches_of(Endless())
    with pytest.raises(ValueError, match="no samples"):
        batches_of(TensorDataset(torch.ones(0)))


# --- generators and iterables -----------------------------------------------------------------------------------


def test_peeking_at_a_generator_loses_nothing_and_epochs_continue() -> None:
    batches = batches_of(pairs(5), steps=2)
    assert batches.first()[0].tolist() == batches.first()[0].tolist() == [0, 0]
    assert (batches.num_batches, batches.restartable, batches.reads_again) == (2, False, True)
    assert rows_of(batches) == [0, 0, 1, 1]
    assert rows_of(batches) == [2, 2, 3, 3]
    with pytest.warns(UserWarning, match="ran out of data after 1 of 2 steps"):
        assert rows_of(batches) == [4, 4]


def test_a_finished_generator_warns_instead_of_training_on_nothing() -> None:
    batches = batches_of(pairs(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_of(batches) == [0, 0, 1, 1]
    with pytest.warns(UserWarning, match="ran out of data: epoch 2"):
        assert rows_of(batches) == []


@pytest.mark.parametrize("read", [lambda b: b.first(), lambda b: list(b.epoch())])
def test_an_empty_generator_is_refused(read: Any) -> None:
    with pytest.raises(ValueError, match="no batch at all"):
        read(batches_of(pairs(0)))


def test_everything_a_generator_may_yield() -> None:
    given = [
        X,
        (X,),
        (X, X),
        [torch.as_tensor(X), X],
        (X, X, X),
        ({"a": X, "b": (X, X)}, [X, X]),
        ([[1.0, 2.0]] * 10, None),
        {"a": X},
    ]
    got = list(batches_of(iter(given)).epoch())
    assert [y is None for _, y, _ in got] == [True, True, False, False, False, False, True, True]
    assert got[4][2].tolist() == X.tolist()
    assert got[5][0]["b"][1].tolist() == X.tolist()
    assert got[6][0].shape == (10, 2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((X, X, X, X), "4 parts"),
        ((), "0 parts"),
        (None, "no inputs"),
        ((X, X[:3]), r"`y` \(3,\)"),
        ((X, "label"), "text"),
        (3.0, "batch axis"),
        (X[:0], "no samples"),
    ],
)
def test_a_malformed_batch_is_named(bad: Any, message: str) -> None:
    batches = batches_of(iter([(X, X), bad]))
    with pytest.raises(ValueError, match=f"(?s)Batch 1 of the generator.*{message}"):
        list(batches.epoch())


def test_an_iterable_starts_from_its_beginning() -> None:
    class Source:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[Any]:
            return pairs()

    batches = batches_of(Source())
    assert (batches.num_batches, batches.restartable) == (3, True)
    batches.first()
    assert rows_of(batches) == rows_of(batches) == [0, 0, 1, 1, 2, 2]
    assert rows_of(batches, start=1) == [1, 1, 2, 2]


def test_tensors_of_other_libraries_are_read_through_numpy() -> None:
    class Foreign:
        def numpy(self) -> Any:
            return X

    assert rows_of(batches_of(iter([(Foreign(), Foreign())]))) == X.tolist()


def test_class_weights_reach_streams_and_loaders() -> None:
    for source in (pairs(1), DataLoader(TensorDataset(torch.ones(2), torch.tensor([0, 1])), batch_size=2)):
        (_, _, weight), *_ = batches_of(source, class_weight={1: 4.0}).epoch()
        assert weight.tolist() == [1.0, 4.0]
    with pytest.raises(ValueError, match="sample weights of its own"):
        list(batches_of(iter([(X, X, X)]), class_weight={1: 4.0}).epoch())


@pytest.mark.parametrize("source", [DataLoader(PAIRS), PAIRS, pairs(), Numbers()], ids=lambda s: type(s).__name__)
def test_targets_given_besides_a_source_are_refused(source: Any) -> None:
    with pytest.raises(ValueError, match="`y` must not be passed to `evaluate`"):
        batches_of(source, X, method="evaluate")
    with pytest.raises(ValueError, match="`sample_weight` must not"):
        batches_of(source, sample_weight=X)


def test_batch_size_for_whole_batches_warns_once_and_not_for_validation() -> None:
    with pytest.warns(UserWarning, match="`batch_size=8` is ignored: `x` is a DataLoader"):
        batches_of(DataLoader(PAIRS), batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches_of(DataLoader(PAIRS), batch_size=8, method="validation")
        batches_of(PAIRS, batch_size=8)


def test_batches_pass_through() -> None:
    batches = batches_of(X)
    assert batches_of(batches) is batches
    with pytest.raises(ValueError, match="must not be passed"):
        batches_of(batches, X)


# --- Hugging Face -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("datasets")


def table(hub: Any, **columns: Any) -> Any:
    return hub.Dataset.from_dict(columns)


def test_a_module_of_the_user_called_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dataset(torch.utils.data.Dataset[Any]):
        column_names: tuple[str, ...] = ()

    module = ModuleType("datasets")
    module.Dataset = Dataset  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert not is_huggingface(Dataset()) and not is_huggingface(X)
    monkeypatch.setitem(sys.modules, "datasets", ModuleType("datasets"))
    assert not is_huggingface(Dataset())


def test_hugging_face_splits_are_named(hub: Any) -> None:
    with pytest.raises(ValueError, match=r"several splits: \['train'\]"):
        batches_of(hub.DatasetDict(train=table(hub, a=[1, 2])))


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
def test_hugging_face_columns(hub: Any, form: str | None) -> None:
    data = table(hub, pixels=[[n, n + 0.5] for n in range(10)], label=list(range(10))).with_format(form)
    batches = batches_of(data, batch_size=4, shuffle=True)
    assert (batches.num_batches, batches.source) == (3, data)
    seen = list(batches.epoch())
    assert {x.dtype for x, _, _ in seen} == {torch.float32}
    assert sorted(n for _, y, _ in seen for n in y.tolist()) == list(range(10))
    assert all(torch.equal(x[:, 0], y.float()) for x, y, _ in seen)


def test_hugging_face_with_several_columns_or_no_target(hub: Any) -> None:
    x, y, _ = batches_of(table(hub, a=[1, 2], b=[3, 4], labels=[0, 1])).first()
    assert {name: part.tolist() for name, part in x.items()} == {"a": [1, 2], "b": [3, 4]}
    assert y.tolist() == [0, 1]
    assert batches_of(table(hub, a=[1, 2])).first()[1] is None
    shown = table(hub, a=[1, 2], name=["p", "q"], label=[0, 1]).with_format("torch", columns=["a", "label"])
    assert batches_of(shown).first()[0].tolist() == [1, 2]


def test_hugging_face_transforms_are_kept(hub: Any) -> None:
    data = table(hub, word=["a", "bbb"], label=[0, 1])
    data.set_transform(lambda batch: {"size": [len(word) for word in batch["word"]], "label": batch["label"]})
    assert batches_of(data).first()[0].tolist() == [1, 3]


def test_hugging_face_streams(hub: Any) -> None:
    stream = table(hub, n=list(range(10)), label=list(range(10))).to_iterable_dataset()
    batches = batches_of(stream, batch_size=4)
    assert batches.restartable
    batches.first()
    assert rows_of(batches) == rows_of(batches) == list(range(10))
    shuffled = batches_of(stream.shuffle(seed=1, buffer_size=10), batch_size=4)
    assert rows_of(shuffled) != rows_of(shuffled)


def test_hugging_face_in_a_loader(hub: Any) -> None:
    data = table(hub, n=list(range(4)), label=list(range(4))).with_format("torch")
    seen = list(batches_of(DataLoader(data, batch_size=2)).epoch())
    assert [y.tolist() for _, y, _ in seen] == [[0, 1], [2, 3]]


def test_hugging_face_mistakes(hub: Any) -> None:
    with pytest.raises(ValueError, match=r"\['word'\].*remove_columns"):
        batches_of(table(hub, word=["a"], label=[0]))
    with pytest.raises(ValueError, match="inputs are missing"):
        batches_of(table(hub, label=[0]))
    with pytest.raises(ValueError, match=r"x\['test'\]"):
        batches_of(hub.DatasetDict({"train": table(hub, n=[1]), "test": table(hub, n=[1])}))
    with pytest.raises(ValueError, match="different"):
        list(batches_of(table(hub, n=[[1], [1, 2]], label=[0, 1])).epoch())


# What runs between batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (PAIRS, False),
        (torch.utils.data.Subset(PAIRS, [0, 2]), False),
        ([(np.zeros(2), np.zeros(2))], False),
        (DataLoader(PAIRS, batch_size=2, shuffle=True), False),
        (DataLoader(Squares(), batch_size=2, num_workers=1), False),
        (DataLoader(PAIRS, batch_size=2, collate_fn=lambda samples: torch.zeros(2)), True),
        (DataLoader(Squares(), batch_size=2), True),
        (Squares(), True),
        (pairs(), True),
    ],
)
def test_who_runs_between_batches(source: Any, expected: bool) -> None:
    assert batches_of(source).calls_others is expected


def test_nobody_runs_between_batches_of_arrays() -> None:
    assert not batches_of(np.zeros((4, 2)), np.zeros(4)).calls_others
    assert not batches_of(np.zeros((4, 2)), np.zeros(4), steps=2).calls_others
