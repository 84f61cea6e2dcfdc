"""What a backup looks at in the data never ends a run that would have gone well, and leaves no trace in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, RandomSampler, Subset

import oncue
from helpers import PowerCut
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, LambdaCallback, TerminateOnNaN
from oncue.feeding.digest import batch_digest

X = np.random.default_rng(3).normal(size=(24, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class Samples(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: Any) -> Any:
        return X[index], Y[index]


class Tagged(Samples):
    def __getitem__(self, index: Any) -> Any:
        mosaic, row = index
        return super().__getitem__(row)


class Gaps(Samples):
    def __getitem__(self, index: Any) -> Any:
        if index % 2:
            raise FileNotFoundError(f"{index}.png")
        return super().__getitem__(index)


class ManyOnly(Dataset[Any]):
    def __len__(self) -> int:
        return 24

    def __getitems__(self, rows: list[int]) -> Any:
        return [(X[row], Y[row]) for row in rows]


class Tags(BatchSampler):
    def __iter__(self) -> Iterator[Any]:
        for rows in super().__iter__():
            yield [(True, row) for row in rows]


class Doubles(BatchSampler):
    def __iter__(self) -> Iterator[Any]:
        for rows in super().__iter__():
            yield [row * 2 for row in rows]


class Evens(RandomSampler):
    def __iter__(self) -> Iterator[int]:
        return (row - row % 2 for row in super().__iter__())


class Aug:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)

    def __call__(self, x: Any) -> Any:
        return x * np.float32(self.rng.normal())


class Composed:
    def __init__(self) -> None:
        self.transforms = [Aug()]


class Augmented(Samples):
    def __init__(self) -> None:
        self.transform = Composed()

    def __getitem__(self, index: Any) -> Any:
        return self.transform.transforms[0](X[index]), Y[index]


def train(folder: Path, data: Any, *further: Any, backup: bool = True, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dropout(0.3), layers.Dense(1)])
    model.compile(oncue.optimizers.Adam(0.05), loss="mse")
    callbacks = [BackupAndRestore(folder, save_freq=2)] if backup else []
    options = {"epochs": 3, "verbose": 0, **options}
    return model.fit(data, callbacks=[*callbacks, *further], **options).history


DATA: dict[str, Any] = {
    "pairs as indices": lambda: DataLoader(Tagged(), batch_sampler=Tags(RandomSampler(range(24)), 6, False)),
    "indices of its own": lambda: DataLoader(Gaps(), batch_sampler=Doubles(RandomSampler(range(12)), 3, False)),
    "a sampler of its own": lambda: DataLoader(Gaps(), batch_size=6, sampler=Evens(range(24))),
    "only many at once": lambda: DataLoader(ManyOnly(), batch_size=6, shuffle=True),
    "a generator in a transform": lambda: DataLoader(Augmented(), batch_size=6, shuffle=True),
}


@pytest.mark.parametrize("name", DATA)
def test_a_backup_changes_nothing_and_resumes(name: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "none", DATA[name](), backup=False)
    assert train(tmp_path / "a", DATA[name]()) == whole
    with pytest.raises(ConnectionError):
        train(tmp_path / "b", DATA[name](), PowerCut(1, 2))
    assert train(tmp_path / "b", DATA[name]()) == whole


def test_rows_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    class Short(Samples):
        def __getitem__(self, index: Any) -> Any:
            if index > 20:
                raise FileNotFoundError(f"{index}.png")
            return super().__getitem__(index)

    # No epoch gets to them.
    loader = DataLoader(Short(), batch_size=6)
    assert len(train(tmp_path, loader, steps_per_epoch=1)["loss"]) == 3
    with pytest.raises(FileNotFoundError, match=r"21\.png"):
        train(tmp_path, loader)


def test_what_a_data_set_keeps_of_random_numbers_is_pointed_out(tmp_path: Path) -> None:
    class Cached(Samples):
        def __init__(self) -> None:
            self.kept: dict[int, Any] = {}

        def __getitem__(self, index: Any) -> Any:
            if index not in self.kept:
                self.kept[index] = X[index] + np.float32(np.random.normal())
            return self.kept[index], Y[index]

    with pytest.warns(UserWarning, match="keeps what it has drawn"):
        train(tmp_path, DataLoader(Cached(), batch_size=6))


def test_the_order_of_keys_is_no_difference() -> None:
    assert batch_digest({"a": [1], "b": {2: 3}}) == batch_digest({"b": {2: 3}, "a": [1]})
    assert batch_digest({"a": 1, "b": 2}) != batch_digest({"a": 2, "b": 1})


# Attributes that callbacks set -----------------------------------------------------------------------------------------


class Leveled(Samples):
    level = 0.0

    def __getitem__(self, index: Any) -> Any:
        return X[index] * np.float32(1 - self.level), Y[index]


class LeveledBatches(oncue.utils.PyDataset):
    level = 0.0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        at = slice(index * 6, index * 6 + 6)
        return X[at] * np.float32(1 - self.level), Y[at]


def levels(data_set: Any, hook: str, more: bool) -> LambdaCallback:
    """Set the level from the epoch, or from the level before."""

    def hooked(epoch: int, logs: Any) -> None:
        data_set.level = data_set.level + 0.1 if more else 0.1 * epoch

    return LambdaCallback(**{hook: hooked})


SETS: dict[str, Any] = {
    "loader": lambda one: DataLoader(Subset(one, range(24)), batch_size=6, shuffle=True),
    "workers": lambda one: DataLoader(ConcatDataset([one]), batch_size=6, num_workers=1),
    "PyDataset": lambda one: one,
}


@pytest.mark.parametrize("cut", [PowerCut(2), PowerCut(2, 2)], ids=["epoch", "batch"])
@pytest.mark.parametrize(
    ("name", "hook", "more"),
    [
        ("loader", "on_epoch_begin", False),
        ("loader", "on_epoch_end", True),
        pytest.param("workers", "on_epoch_begin", True, marks=pytest.mark.slow),
        ("PyDataset", "on_epoch_begin", True),
    ],
)
def test_what_a_callback_sets_is_set_again(name: str, hook: str, more: bool, cut: PowerCut, tmp_path: Path) -> None:
    def once(folder: Path, *further: Any) -> Any:
        one: Any = LeveledBatches() if name == "PyDataset" else Leveled()
        measured = Leveled()
        validation = DataLoader(measured, batch_size=12)
        further = (levels(one, hook, more), levels(measured, "on_epoch_end", more), *further)
        return train(folder, SETS[name](one), *further, validation_data=validation)

    whole = once(tmp_path / "a")
    with pytest.raises(ConnectionError):
        once(tmp_path / "b", cut)
    assert once(tmp_path / "b") == whole


def test_a_rollback_sets_it_back(tmp_path: Path) -> None:
    one, seen = Leveled(), list[float]()
    look = LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(round(one.level, 3)))
    further = levels(one, "on_epoch_begin", True), look, Spoils(), TerminateOnNaN(action="rollback", factor=1.0)
    train(tmp_path, DataLoader(one, batch_size=6), *further, backup=False)
    assert seen == [0.1, 0.2, 0.2, 0.3]


class Spoils(Callback):
    done = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._run is not None and self._run.progress.epoch == 1 and not self.done:
            self.done, logs["loss"] = True, float("nan")


def test_what_a_data_set_notes_while_it_is_read_stays_its_own(tmp_path: Path) -> None:
    class Shards(Samples):
        """Has one file open at a time, and knows by a number which."""

        def __init__(self) -> None:
            self.shard, self.rows = 0, X[:6]

        def __getitem__(self, index: Any) -> Any:
            if index // 6 != self.shard:
                self.shard, self.rows = index // 6, X[index // 6 * 6 :][:6]
            return self.rows[index % 6], Y[index]

    whole = train(tmp_path / "a", DataLoader(Shards(), batch_size=6))
    for number in range(1, 3):
        with pytest.raises(ConnectionError):
            train(tmp_path / f"b{number}", DataLoader(Shards(), batch_size=6), PowerCut(1, number))
        assert train(tmp_path / f"b{number}", DataLoader(Shards(), batch_size=6)) == whole


# What others than the epoch decide -------------------------------------------------------------------------------------


def test_hooks_that_use_the_model_are_refused_rather_than_repeated(tmp_path: Path) -> None:
    class Hardest(oncue.utils.PyDataset):
        """Sorts samples by what the model makes of them, but none in the batches that are looked at."""

        model: Any = None

        def __init__(self) -> None:
            super().__init__()
            self.order = np.arange(30) % 24

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            rows = self.order[index * 6 : index * 6 + 6]
            return X[rows], Y[rows]

        def on_epoch_end(self) -> None:
            errors = np.abs(self.model.predict(X, verbose=0) - Y)[:, 0]
            self.order[6:12] = np.argsort(errors)[-6:]

    class Gives(Callback):
        def set_model(self, model: Any) -> None:
            super().set_model(model)
            data.model = model

    data = Hardest()
    with pytest.raises(ConnectionError):
        train(tmp_path, data, Gives(), PowerCut(2))
    data = Hardest()
    with pytest.raises(ValueError, match=r"training data .* are not what they were.*`order` is another.*`state_dict`"):
        train(tmp_path, data, Gives())
    data = Hardest()
    assert len(train(tmp_path, data, Gives(), BackupAndRestore(tmp_path, resume="epoch"), backup=False)["loss"]) == 3


def test_hooks_that_note_the_time_are_no_difference(tmp_path: Path) -> None:
    class Timed(LeveledBatches):
        def __init__(self) -> None:
            super().__init__()
            self.seconds = [0.0]

        def on_epoch_end(self) -> None:
            self.seconds.append(time.perf_counter())
            self.ended = time.time()

    whole = train(tmp_path / "a", Timed())
    with pytest.raises(ConnectionError):
        train(tmp_path / "b", Timed(), PowerCut(1))
    assert train(tmp_path / "b", Timed()) == whole


def test_arrays_that_a_callback_sets_in_place_by_the_epoch_go_on_with_resume_epoch(tmp_path: Path) -> None:
    def once(folder: Path, *further: Any, resume: str = "exact") -> Any:
        x = X.copy()

        def arrange(epoch: int, logs: Any) -> None:
            x[:] = X + 0.01 * epoch

        backup = BackupAndRestore(folder, resume=resume)
        callbacks = (backup, LambdaCallback(on_epoch_begin=arrange), *further)
        return train(folder, x, *callbacks, backup=False, y=Y, batch_size=6)

    whole = once(tmp_path / "a")
    with pytest.raises(ConnectionError):
        once(tmp_path / "b", PowerCut(2))
    if oncue.backend.device().type == "cpu":
        with pytest.raises(ValueError, match="x is another.*resume='epoch'"):
            once(tmp_path / "b")
    assert once(tmp_path / "b", resume="epoch") == whole
