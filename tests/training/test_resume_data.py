"""The position in the data: every source resumes at the next batch, without reading again what can be skipped."""

from __future__ import annotations

import gc
import multiprocessing
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

import oncue
from helpers import PowerCut, batches_of
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, LambdaCallback
from oncue.feeding.rows import Rows

X = torch.as_tensor(np.random.default_rng(3).normal(size=(24, 4)).astype("float32"))
Y = X.sum(dim=1, keepdim=True)
PAIRS = list(zip(X, Y, strict=True))


@pytest.fixture(autouse=True)
def _no_garbage() -> None:
    """Collect what earlier tests left on an accelerator: a worker process that would collect it is aborted."""
    if torch.cuda.is_initialized():
        gc.collect()


def run(folder: Path, make: Callable[[], Any], cut: PowerCut | None = None, save_freq: Any = 1, **more: Any) -> Any:
    """Train as a script does that is started; every weight says which batches there were, in which order."""
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential(
        [layers.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dropout(0.3), layers.Dense(1)]
    )
    model.compile(oncue.optimizers.Adam(0.05), loss="mse")
    backup = BackupAndRestore(folder, save_freq=save_freq, **more.pop("backup", {}))
    callbacks = [backup, *more.pop("callbacks", []), *([] if cut is None else [cut])]
    history = model.fit(make(), epochs=3, verbose=0, callbacks=callbacks, **more)
    return history.history, [weight.tobytes() for weight in model.get_weights()]


def survives(tmp_path: Path, make: Callable[[], Any], cuts: list[PowerCut], **options: Any) -> None:
    whole = run(tmp_path / "a", make, **options)
    for cut in cuts:
        with pytest.raises(ConnectionError):
            run(tmp_path / "b", make, cut, **options)
    assert run(tmp_path / "b", make, **options) == whole


CUTS = [(0, 1), (0, 4), (1, None), (1, 3), (2, None), (2, 2), (2, 5)]


def cuts() -> list[PowerCut]:
    return [PowerCut(*place) for place in CUTS]


# By index ---------------------------------------------------------------------------------------------------------


class Counting(Dataset[Any]):
    """Counts the samples that are read, in every process."""

    def __init__(self, number: int, draws: bool = False) -> None:
        self.number = number
        self.read = multiprocessing.Value("l", 0)
        self.draws = draws

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        with self.read.get_lock():
            self.read.value += 1
        x, y = PAIRS[index % len(PAIRS)]
        if self.draws and index % 3:
            # Augmentation that draws from every generator, and not for every sample.
            x = x + 0.1 * torch.randn(4) + float(np.random.normal()) * 0.1 + random.random() * 0.1
        return x, y


def many(kind: str) -> tuple[Any, Any]:
    """Return an epoch of a million batches of one sample, and what counts the samples that are read."""
    dataset = Counting(1_000_000)
    if kind == "dataset":
        return batches_of(dataset, batch_size=1, shuffle=True), dataset
    if kind == "steps":
        return batches_of(dataset, batch_size=1, shuffle=True, steps=999_999), dataset
    sampler = {
        "loader": None,
        "weighted loader": WeightedRandomSampler([1.0, 2.0] * 500_000, 1_000_000),
        "subset loader": SubsetRandomSampler(range(1_000_000)),
    }[kind.removesuffix(" with workers")]
    loader = DataLoader(
        dataset, batch_size=1, shuffle=sampler is None, sampler=sampler, num_workers=2 * kind.endswith("workers")
    )
    return batches_of(loader), dataset


@pytest.mark.parametrize(
    "kind", ["dataset", "steps", "loader", "loader with workers", "weighted loader", "subset loader"]
)
def test_an_epoch_of_a_million_batches_resumes_without_reading_earlier_ones(kind: str) -> None:
    at = 999_990
    torch.manual_seed(0)
    first, _ = many(kind)
    first.keep_position()
    begun = iter(first.epoch())
    next(begun)
    state = first.state_dict()
    begun.close()
    second, dataset = many(kind)
    second.keep_position()
    if kind == "steps":
        state["taken"] = at
    if "last" in state:
        # There was no such batch in this test.
        state["last"] = None
    second.load_state_dict(state)
    rest = list(second.epoch(at))
    left = {"steps": 9}.get(kind, 10)
    assert len(rest) == left
    assert left <= dataset.read.value <= left + 1


@pytest.mark.parametrize("shuffle", [True, "batch", False])
def test_arrays_resume_without_touching_earlier_batches(shuffle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    x = torch.arange(1_000_000.0)
    batches = batches_of(x, x, x, batch_size=1, shuffle=shuffle)
    batch = type(batches)._batch
    monkeypatch.setattr(type(batches), "_batch", lambda self, at: (rows.append(1), batch(self, at))[1])
    batches.load_state_dict({"order_seed": 5 if shuffle else None, "position": 999_990})
    assert len(list(batches.epoch(999_990))) == len(rows) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_fit_reads_the_samples_that_are_left(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those that are read to see whether the data are the same are the same few for any position.
    monkeypatch.setattr(Rows, "contents", lambda self: {})
    datasets: list[Counting] = []

    def make() -> Any:
        datasets.append(Counting(24))
        return DataLoader(datasets[-1], batch_size=1, shuffle=True, num_workers=workers)

    with pytest.raises(ConnectionError):
        run(tmp_path, make, PowerCut(2, 20))
    run(tmp_path, make)
    # The model is built on one; workers begin with a batch that each of them has to do next.
    assert 4 <= datasets[-1].read.value - 1 <= 4 + max(workers - 1, 0)


def of_loader(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        torch_generator = torch.Generator().manual_seed(9)
        made = {key: value(torch_generator) if callable(value) else value for key, value in options.items()}
        return DataLoader(Counting(24, draws=True), **{"batch_size": 4, **made})

    return make


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("save_freq", ["epoch", 1, 2])
def test_samples_that_draw_random_numbers(tmp_path: Path, workers: int, save_freq: Any) -> None:
    survives(tmp_path, of_loader(shuffle=True, num_workers=workers), cuts(), save_freq=save_freq)


@pytest.mark.parametrize(
    "options",
    [
        {"persistent_workers": True, "num_workers": 2, "shuffle": True},
        {"num_workers": 2, "shuffle": True, "generator": lambda generator: generator},
        {"sampler": lambda generator: RandomSampler(PAIRS, generator=generator)},
        {"sampler": lambda generator: RandomSampler(PAIRS, replacement=True, num_samples=24, generator=generator)},
        {"sampler": lambda generator: WeightedRandomSampler([1.0, 3.0] * 12, 24, generator=generator)},
        {
            "batch_size": 1,
            "batch_sampler": lambda generator: BatchSampler(RandomSampler(PAIRS, generator=generator), 4, False),
        },
        {"num_workers": 2, "shuffle": True, "prefetch_factor": 4, "worker_init_fn": lambda _: torch.manual_seed},
    ],
    ids=lambda options: "-".join(options),
)
def test_loaders(tmp_path: Path, options: dict[str, Any]) -> None:
    survives(tmp_path, of_loader(**options), cuts())


def test_epochs_of_steps_over_a_loader_with_workers(tmp_path: Path) -> None:
    make = of_loader(shuffle=True, num_workers=2)
    survives(tmp_path, make, [PowerCut(0, 3), PowerCut(1, None), PowerCut(1, 2), PowerCut(2, 3)], steps_per_epoch=4)


class OwnOrder(Sampler[int]):
    """Draws from a generator of its own, in every pass where the last one stopped."""

    def __init__(self, seed: int | None = 5) -> None:
        self._draw = np.random.default_rng(seed)

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Iterator[int]:
        yield from self._draw.permutation(24).tolist()


class HiddenOrder(OwnOrder):
    """Draws from a generator that nobody else can find."""

    def __init__(self, seed: int | None = 5) -> None:
        draw = np.random.default_rng(seed)
        self._next = lambda: draw.permutation(24).tolist()

    def __iter__(self) -> Iterator[int]:
        yield from self._next()


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("arrays", 8), ("data set", 8), ("loader", 8), ("PyDataset", 8), ("iterable", 8), ("arrays", 14)],
)
def test_epochs_of_more_steps_than_a_pass_has(tmp_path: Path, kind: str, steps: int) -> None:
    class Whole(oncue.utils.PyDataset):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            return X[index * 4 : index * 4 + 4], Y[index * 4 : index * 4 + 4]

    make: Any = {
        "arrays": lambda: X,
        "data set": lambda: TensorDataset(X, Y),
        "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True),
        "PyDataset": Whole,
        "iterable": lambda: Again(own=True),
    }[kind]
    options = {"y": Y, "batch_size": 4} if kind == "arrays" else {"batch_size": 4} if kind == "data set" else {}
    options |= {"steps_per_epoch": steps, "save_freq": 3}
    done: list[int] = []
    count = LambdaCallback(on_train_batch_end=lambda batch, logs: done.append(batch))
    whole = run(tmp_path / "a", make, callbacks=[count], **options)
    assert done == [*range(steps)] * 3
    for cut in (PowerCut(1, 7), PowerCut(2, None)):
        with pytest.raises(ConnectionError):
            run(tmp_path / "b", make, cut, **options)
    assert run(tmp_path / "b", make, **options) == whole


class Reversed(DataLoader[Any]):
    """Iterates in its own way."""

    def __iter__(self) -> Any:
        yield from reversed(list(super().__iter__()))


def test_a_loader_with_an_iter_of_its_own_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survives(tmp_path, lambda: Reversed(TensorDataset(X, Y), batch_size=4, shuffle=True), [PowerCut(1, 3)], save_freq=2)
    assert "is read again" in capsys.readouterr().out


def test_batches_in_any_order_can_be_resumed_at_the_beginning_of_an_epoch_only(tmp_path: Path) -> None:
    make = of_loader(num_workers=1, in_order=False)
    with pytest.raises(ValueError, match=r"in_order=False.*resume='epoch'"):
        run(tmp_path, make)
    run(tmp_path, make, save_freq="epoch")


def test_an_error_in_a_generator_is_the_users_own_and_the_run_goes_on(tmp_path: Path) -> None:
    def make(fails: bool) -> Callable[[], Any]:
        def batches() -> Iterator[Any]:
            for number, batch in enumerate(generator()):
                if fails and number == 9:
                    raise FileNotFoundError("shard 9")
                yield batch

        return batches

    whole = run(tmp_path / "a", make(False), steps_per_epoch=6)
    with pytest.raises(FileNotFoundError, match="^shard 9$"):
        run(tmp_path / "b", make(True), steps_per_epoch=6)
    assert run(tmp_path / "b", make(False), steps_per_epoch=6) == whole


def test_one_iterator_is_not_for_training_and_validation(tmp_path: Path) -> None:
    batches = generator()
    with pytest.raises(ValueError, match="`x` and `validation_data` are the same generator"):
        run(tmp_path, lambda: batches, steps_per_epoch=2, validation_data=batches, validation_steps=2)


@pytest.mark.parametrize(("sampler", "workers"), [(OwnOrder, 0), (OwnOrder, 2), (HiddenOrder, 0)])
def test_a_sampler_that_remembers_earlier_passes(tmp_path: Path, sampler: Any, workers: int) -> None:
    # Each start of worker processes takes a while, and places within and between epochs are interrupted without them, too.
    places = [PowerCut(1, 3)] if workers else cuts()
    survives(tmp_path, of_loader(sampler=lambda _: sampler(), num_workers=workers), places)


def test_a_sampler_that_does_not_repeat_its_order_is_reported(tmp_path: Path) -> None:
    make = of_loader(sampler=lambda _: HiddenOrder(seed=None))
    with pytest.raises(ConnectionError):
        run(tmp_path, make, PowerCut(1, 3))
    with pytest.raises(ValueError, match=r"batch 2 of the epoch had the samples.*HiddenOrder.*resume='epoch'"):
        run(tmp_path, make)
    run(tmp_path, make, backup={"resume": "epoch"})


def test_the_loader_is_as_it_was_afterwards(tmp_path: Path) -> None:
    loaders: list[Any] = []

    def make() -> Any:
        loaders.append(of_loader(shuffle=True, num_workers=1, persistent_workers=True)())
        return loaders[-1]

    run(tmp_path, make)
    x, y = next(iter(loaders[-1]))
    assert x.shape == (4, 4) and y.shape == (4, 1)


# Streams ----------------------------------------------------------------------------------------------------------


def generator() -> Iterator[Any]:
    """Draw from a generator of its own, and from the global ones."""
    own = np.random.default_rng(7)
    while True:
        at = own.permutation(24)[:4]
        yield X[at] + 0.1 * torch.randn(4, 4), Y[at] + float(np.random.normal()) + random.random()


class Again:
    """Can be read again, in another order each time."""

    def __init__(self, own: bool) -> None:
        self._own = np.random.default_rng(7) if own else None

    def __iter__(self) -> Iterator[Any]:
        order = np.random.permutation(24) if self._own is None else self._own.permutation(24)
        for start in range(0, 24, 4):
            at = order[start : start + 4]
            yield X[at] + 0.1 * torch.randn(4, 4), Y[at]


class Streamed(IterableDataset[Any]):
    """A stream of samples, split between workers, each of which draws."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for index in range(first, 24, step):
            yield X[index] + 0.1 * torch.randn(4), Y[index]


class Placed:
    """A generator-like object that can tell and take its place."""

    read = 0

    def __init__(self) -> None:
        self.place = 0

    def __iter__(self) -> Placed:
        return self

    def __next__(self) -> Any:
        Placed.read += 1
        self.place += 1
        at = np.random.default_rng(self.place).permutation(24)[:4]
        return X[at], Y[at]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


STREAMS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "generator": (generator, {"steps_per_epoch": 6}),
    "iterator": (lambda: iter([(X[i : i + 4], Y[i : i + 4]) for i in range(0, 24, 4)] * 3), {"steps_per_epoch": 6}),
    "iterable": (lambda: Again(own=False), {}),
    "iterable with a generator of its own": (lambda: Again(own=True), {}),
    "iterable, epochs of steps": (lambda: Again(own=True), {"steps_per_epoch": 6}),
    "iterable, epochs of fewer steps than a pass": (lambda: Again(own=True), {"steps_per_epoch": 5}),
    "stream in a loader": (lambda: DataLoader(Streamed(), batch_size=4), {}),
    "stream in a loader with workers": (lambda: DataLoader(Streamed(), batch_size=4, num_workers=2), {}),
    "stream": (Streamed, {"batch_size": 4}),
    "with a place": (Placed, {"steps_per_epoch": 6}),
}


@pytest.mark.parametrize("save_freq", ["epoch", 1, 4])
@pytest.mark.parametrize("name", STREAMS)
def test_streams(tmp_path: Path, name: str, save_freq: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make, options = STREAMS[name]
    at = [
        PowerCut(0, 1),
        PowerCut(0, 4),
        PowerCut(1, None),
        PowerCut(1, 3),
        PowerCut(2, None),
        PowerCut(2, 2),
        PowerCut(2, 4),
    ]
    survives(tmp_path, make, at, save_freq=save_freq, **options)
    said = [line for line in capsys.readouterr().out.splitlines() if "is read again" in line]
    assert (said == []) == (name == "with a place")


def test_a_source_that_has_a_place_is_not_read_again(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        run(tmp_path, Placed, PowerCut(2, 4), steps_per_epoch=6)
    Placed.read = 0
    run(tmp_path, Placed, steps_per_epoch=6)
    assert Placed.read == 1 + 2


def test_a_stateful_loader(tmp_path: Path) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make() -> Any:
        return stateful.StatefulDataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True, num_workers=0)

    survives(tmp_path, make, cuts())
    survives(tmp_path / "steps", make, [PowerCut(0, 2), PowerCut(1, None), PowerCut(2, 3)], steps_per_epoch=4)


def test_a_streamed_hugging_face_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")

    def make() -> Any:
        rows = datasets.Dataset.from_dict({"x": X.tolist(), "label": Y.tolist()})
        return rows.to_iterable_dataset(num_shards=3).shuffle(seed=3, buffer_size=10)

    survives(tmp_path, make, cuts(), batch_size=4)


def unseeded() -> Iterator[Any]:
    own = np.random.default_rng()
    while True:
        at = own.permutation(24)[:4]
        yield X[at], Y[at]


@pytest.mark.parametrize("cut", [(0, 4), (2, None)])
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_stream_without_a_seed_is_never_repeated_silently(tmp_path: Path, cut: Any, save_freq: Any) -> None:
    if save_freq == "epoch" and cut == (0, 4):
        return
    with pytest.raises(ConnectionError):
        run(tmp_path, unseeded, PowerCut(*cut), save_freq, steps_per_epoch=6)
    begun: list[int] = []

    class Begins(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            begun.append(1)

    with pytest.raises(ValueError, match=r"generator, can't be resumed.*is not what it was.*resume='epoch'"):
        run(tmp_path, unseeded, save_freq=save_freq, steps_per_epoch=6, callbacks=[Begins()])
    assert not begun, "nothing was applied"
    history, _ = run(tmp_path, unseeded, save_freq=save_freq, steps_per_epoch=6, backup={"resume": "epoch"})
    assert len(history["loss"]) == 3


def test_a_stream_that_ends_earlier_than_before_is_reported(tmp_path: Path) -> None:
    def of(batches: int) -> Callable[[], Any]:
        return lambda: iter([(X[:4], Y[:4])] * batches)

    with pytest.raises(ConnectionError):
        run(tmp_path, of(18), PowerCut(2, 4), steps_per_epoch=6)
    with pytest.raises(ValueError, match="it ended after 9 batches"):
        run(tmp_path, of(9), steps_per_epoch=6)


def test_an_epoch_that_is_started_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Places(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, int]] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append((self.epoch, batch))

    options: dict[str, Any] = {"steps_per_epoch": 6, "backup": {"resume": "epoch"}}
    with pytest.raises(ConnectionError):
        run(tmp_path, unseeded, PowerCut(1, 4), **dict(options))
    places = Places()
    run(tmp_path, unseeded, callbacks=[places], **options)
    assert places.seen == [(epoch, batch) for epoch in (1, 2) for batch in range(6)]
    assert "is read again" not in capsys.readouterr().out
