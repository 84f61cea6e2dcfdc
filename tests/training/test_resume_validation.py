"""The data of validation have a position and a state, as those of training have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler, Subset, TensorDataset

import oncue
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, EarlyStopping, ReduceLROnPlateau
from oncue.core.protocols import save_run

X = np.random.default_rng(3).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1
PAIRS = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))


class Cut(Callback):
    """Ends a run before an epoch; in an epoch after a batch of training; or in its validation, where the state is saved."""

    def __init__(self, epoch: int, batch: int | None = None, measured: int | None = None) -> None:
        super().__init__()
        self.at = (epoch, batch, measured)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._end(None, None)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._end(batch, None)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.at == (self._epoch, None, batch):
            assert save_run(self._run, None)
        self._end(None, batch)

    def _end(self, batch: int | None, measured: int | None) -> None:
        if self.at == (self._epoch, batch, measured):
            raise ConnectionError("power cut")


CUTS = [(1, 3), (2, None, 0)]


def run(folder: Path, validation: Any, cut: Cut | None = None, further: Any = (), **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential(
        [layers.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dropout(0.3), layers.Dense(1)]
    )
    model.compile(oncue.optimizers.Adam(0.05), loss="mse")
    callbacks = [
        BackupAndRestore(folder, save_freq=options.pop("save_freq", 2), **options.pop("backup", {})),
        # What follows from validation changes training, too.
        *([ReduceLROnPlateau(patience=1, factor=0.7)] if options.pop("decides", True) else []),
        EarlyStopping(patience=9, restore_best_weights=True),
        *further,
        *([] if cut is None else [cut]),
    ]
    x, y = options.pop("data", (X, Y))
    history = model.fit(
        x, y, batch_size=6, epochs=3, verbose=0, validation_data=validation(), callbacks=callbacks, **options
    )
    return history.history, [weight.tobytes() for weight in model.get_weights()]


def survives(tmp_path: Path, validation: Any, cuts: Any = CUTS, **options: Any) -> None:
    whole = run(tmp_path / "a", validation, **options)
    assert len(set(whole[0]["val_loss"])) == len(whole[0]["val_loss"]) > 1
    for cut in cuts:
        with pytest.raises(ConnectionError):
            run(tmp_path / "b", validation, Cut(*cut), **options)
    assert run(tmp_path / "b", validation, **options) == whole


def generator() -> Iterator[Any]:
    own = np.random.default_rng(7)
    while True:
        at = own.permutation(24)[:6]
        yield X[at] + float(np.random.normal()), Y[at]


class Placed:
    """Can tell and take its place."""

    def __init__(self) -> None:
        self.place = 0

    def __iter__(self) -> Placed:
        return self

    def __next__(self) -> Any:
        self.place += 1
        return X[self.place % 20 :][:4], Y[self.place % 20 :][:4]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


class Again:
    """Can be read again, in another order each time."""

    def __init__(self) -> None:
        draw = np.random.default_rng(7)
        self._next = lambda: draw.permutation(24)

    def __iter__(self) -> Iterator[Any]:
        order = self._next()
        for at in (order[:6], order[6:12]):
            yield X[at], Y[at]


class Endless(Again):
    """Can be read again, and never ends."""

    def __iter__(self) -> Iterator[Any]:
        order = self._next()
        while True:
            for at in (order[:6], order[6:12], order[12:18]):
                yield X[at], Y[at]


class PlacedPasses(Placed):
    """Goes on in a pass when it was told its place; else it begins another pass, elsewhere in the data."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0
        self._told = False

    def __iter__(self) -> Any:
        if not self._told:
            self.passes, self.place = self.passes + 1, 0
        self._told = False
        return self._numbers()

    def _numbers(self) -> Iterator[Any]:
        while self.place < 6:
            self.place += 1
            at = (self.place + 3 * self.passes) % 20
            yield X[at:][:4], Y[at:][:4]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place, self.passes, self._told = state["place"], state["passes"], True


class Remembers(Sampler[int]):
    """Goes on in each pass where the last one stopped."""

    def __init__(self) -> None:
        draw = np.random.default_rng(5)
        self._next = lambda: draw.permutation(24).tolist()

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Iterator[int]:
        yield from self._next()


class WithState(Sampler[int]):
    """Counts its passes, and says so."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        yield from np.random.default_rng(self.passes).permutation(24)[:12].tolist()

    def state_dict(self) -> dict[str, Any]:
        return {"passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.passes = state["passes"]


class Noisy(Dataset[Any]):
    """Draws from a generator of its own."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        noise = torch.randn(4, generator=self.draw) if isinstance(self.draw, torch.Generator) else self.draw.normal()
        return torch.as_tensor(X[index]) + noise, Y[index]


class Counting(Noisy):
    """Gives each sample otherwise than the last, and says how many it has given."""

    def __init__(self) -> None:
        self.given = 0

    def __getitem__(self, index: int) -> Any:
        self.given += 1
        return X[index] + np.float32(self.given % 7), Y[index]

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given = state["given"]


class Reordered(oncue.utils.PyDataset):
    """Shuffles itself when an epoch ends, and can tell its order."""

    def __init__(self) -> None:
        super().__init__()
        self.order = np.arange(24)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        at = self.order[index * 6 : index * 6 + 6]
        return X[at], Y[at]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = np.array(state["order"])


class PlacedSamples(IterableDataset[Any]):
    """A stream of samples that can tell and take its place."""

    def __init__(self) -> None:
        self.place = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.place += 1
            yield X[self.place % 24], Y[self.place % 24]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def of_loader(data: Any = PAIRS, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        made = {key: value() if callable(value) else value for key, value in options.items()}
        return DataLoader(data() if callable(data) else data, **{"batch_size": 6, **made})

    return make


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(9)


SOURCES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "generator": (generator, {"validation_steps": 2}),
    "generator, some epochs": (generator, {"validation_steps": 2, "validation_freq": [1, 3]}),
    "with a place": (Placed, {"validation_steps": 2}),
    "iterable": (Again, {}),
    "iterable, some steps": (Again, {"validation_steps": 1}),
    "endless iterable": (Endless, {"validation_steps": 2}),
    "passes with a place": (PlacedPasses, {"validation_steps": 2}),
    "arrays, some steps": (lambda: (X, Y), {"validation_steps": 3, "validation_batch_size": 5}),
    "data set, some steps": (lambda: PAIRS, {"validation_steps": 3, "validation_batch_size": 5}),
    "loader that shuffles": (of_loader(shuffle=True, drop_last=True, batch_size=7), {}),
    "loader with a generator": (of_loader(shuffle=True, drop_last=True, batch_size=7, generator=seeded), {}),
    "loader, some steps": (of_loader(shuffle=True, generator=seeded), {"validation_steps": 3}),
    "sampler with a memory": (of_loader(sampler=Remembers, batch_size=7, drop_last=True), {}),
    "sampler with a memory, some steps": (of_loader(sampler=Remembers), {"validation_steps": 3}),
    "sampler with a state": (of_loader(sampler=WithState), {}),
    "sampler with a state, some steps": (of_loader(sampler=WithState), {"validation_steps": 1}),
    "data set with a generator": (lambda: Noisy(np.random.default_rng(4)), {"validation_batch_size": 6}),
    "loader of one": (of_loader(lambda: Noisy(seeded())), {}),
    "data set with a state": (Counting, {"validation_batch_size": 6}),
    "loader of some": (of_loader(lambda: ConcatDataset([Subset(Counting(), [1, 2, 3]), Counting()])), {}),
    "PyDataset with a state": (Reordered, {}),
    "stream with a state": (of_loader(PlacedSamples), {"validation_steps": 2}),
}


# What other tests here reach by other ways.
SLOW = (
    "generator, some epochs",
    "iterable",
    "data set, some steps",
    "loader that shuffles",
    "sampler with a memory",
    "sampler with a state",
    "loader of one",
    "data set with a state",
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in SOURCES])
def test_a_run_goes_on_with_the_validation_data_that_come_next(name: str, tmp_path: Path) -> None:
    validation, options = SOURCES[name]
    survives(tmp_path, validation, **options)


@pytest.mark.parametrize("name", ["generator", "sampler with a memory"])
def test_a_backup_of_each_epoch(name: str, tmp_path: Path) -> None:
    validation, options = SOURCES[name]
    survives(tmp_path, validation, [(1,), (2, 1)], save_freq="epoch", **options)


def test_worker_processes_that_stay(tmp_path: Path) -> None:
    draws = lambda: Noisy(np.random.default_rng(4))  # noqa: E731
    survives(tmp_path, of_loader(draws, num_workers=1, persistent_workers=True), [(2, 1)])


@pytest.mark.parametrize("endless", [True, False])
def test_a_stream_without_a_seed_is_a_warning_before_training_goes_on_as_it_was(endless: bool, tmp_path: Path) -> None:
    def unseeded() -> Iterator[Any]:
        own = np.random.default_rng()
        while True:
            at = own.permutation(24)[:6]
            yield X[at], Y[at]

    class Passes:
        def __iter__(self) -> Iterator[Any]:
            return islice(unseeded(), 2)

    def once(folder: Path, *cut: Any, **options: Any) -> Any:
        steps = {"validation_steps": 2} if endless else {}
        return run(folder, unseeded if endless else Passes, *cut, decides=False, **steps, **options)[0]

    whole = once(tmp_path / "a")
    with pytest.raises(ConnectionError):
        once(tmp_path / "b", Cut(2))
    with pytest.warns(UserWarning, match="Validation data: .*is not what it was.*batches of training are"):
        history = once(tmp_path / "b")
    assert history["loss"] == whole["loss"] and len(history["val_loss"]) == 3
    with pytest.raises(ConnectionError):
        once(tmp_path / "c", Cut(2))
    assert len(once(tmp_path / "c", backup={"resume": "epoch"})["val_loss"]) == 3


def test_one_epoch_restarted_keeps_the_place_of_validation_data_that_need_not_be_read_again(tmp_path: Path) -> None:
    whole = run(tmp_path / "a", Placed, validation_steps=2)
    options: dict[str, Any] = {"validation_steps": 2, "backup": {"resume": "epoch"}}
    with pytest.raises(ConnectionError):
        run(tmp_path / "b", Placed, Cut(2), **dict(options))
    assert run(tmp_path / "b", Placed, **dict(options)) == whole
