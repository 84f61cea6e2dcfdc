"""Data sets that change between epochs: brought back where they can be, and never gone on with silently where they can't."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import oncue
from helpers import PowerCut, cpu_only, to_numpy
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, LambdaCallback
from oncue.core.protocols import save_run

X = np.random.default_rng(3).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1
CUTS = [PowerCut(1), PowerCut(2, 2)]


def run(folder: Path, data: Any, further: Any = (), **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(4), layers.Dropout(0.3), layers.Dense(1)])
    model.compile(oncue.optimizers.Adam(0.05), loss="mse")
    backup = BackupAndRestore(folder, save_freq=options.pop("save_freq", 2), **options.pop("backup", {}))
    arguments = {"epochs": 3, "batch_size": 6, **options}
    if isinstance(data, (DataLoader, oncue.utils.PyDataset)):
        del arguments["batch_size"]
    history = model.fit(
        *(data if isinstance(data, tuple) else (data,)), verbose=0, callbacks=[backup, *further], **arguments
    )
    return history, [weight.tobytes() for weight in model.get_weights()]


def survives(tmp_path: Path, make: Callable[[], Any], further: Any = lambda data: (), **options: Any) -> None:
    """Compare a run that is cut at several places with one that isn't; `further` makes callbacks for data."""

    def once(folder: Path, *cut: Any) -> Any:
        data = make()
        history, weights = run(folder, data, [*further(data), *cut], **options)
        return history.history, weights

    whole = once(tmp_path / "a")
    for cut in CUTS:
        with pytest.raises(ConnectionError):
            once(tmp_path / "b", cut)
    assert once(tmp_path / "b") == whole


# A PyDataset that changes in its hooks ------------------------------------------------------------------------------


class Shuffled(oncue.utils.PyDataset):
    """Shuffles itself with NumPy's global generator when an epoch ends, and draws from it for each batch."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.order = np.arange(24)
        self.draw = np.random.default_rng(2)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        at = self.order[index * 6 : index * 6 + 6]
        return X[at] + np.float32(np.random.normal()), Y[at]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


class ByTorch(Shuffled):
    def on_epoch_end(self) -> None:
        self.order = self.order[to_numpy(torch.randperm(24))]


class ByPython(Shuffled):
    def on_epoch_end(self) -> None:
        random.shuffle(self.order)


class ByItself(Shuffled):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x * np.float32(self.draw.normal()), y

    def on_epoch_end(self) -> None:
        self.draw.shuffle(self.order)


class AtBegin(Shuffled):
    def on_epoch_begin(self) -> None:
        np.random.shuffle(self.order)

    def on_epoch_end(self) -> None:
        pass


class Counts(Shuffled):
    epoch = 0

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = np.random.default_rng(self.epoch).permutation(24)


PY_DATASETS = [Shuffled, ByTorch, ByPython, ByItself, AtBegin, Counts]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in (ByPython, Counts))) for kind in PY_DATASETS]
)
def test_hooks_are_called_again_as_they_were(kind: Any, tmp_path: Path) -> None:
    survives(tmp_path, kind)


def test_hooks_are_called_again_with_a_backup_of_each_epoch(tmp_path: Path) -> None:
    survives(tmp_path, Shuffled, save_freq="epoch")


def test_epochs_of_steps_call_the_hooks_too(tmp_path: Path) -> None:
    survives(tmp_path, ByItself, steps_per_epoch=3)


def test_hooks_of_validation_are_called_again(tmp_path: Path) -> None:
    def once(folder: Path, *cut: Any) -> Any:
        history, weights = run(folder, (X, Y), cut, validation_data=Shuffled())
        return history.history, weights

    whole = once(tmp_path / "a")
    for cut in CUTS:
        with pytest.raises(ConnectionError):
            once(tmp_path / "b", cut)
    assert once(tmp_path / "b") == whole


@pytest.mark.parametrize("batch", [2, 3])
def test_a_state_saved_by_the_last_batch_leaves_its_hook_to_be_called(batch: int, tmp_path: Path) -> None:
    class Stops(Callback):
        def on_train_batch_end(self, at: int, logs: Any = None) -> None:
            if at == batch and self._run is not None and self._run.progress.epoch == 1:
                assert save_run(self._run, logs)
                raise ConnectionError

    whole = run(tmp_path / "a", Counts())
    with pytest.raises(ConnectionError):
        run(tmp_path / "b", Counts(), [Stops()], save_freq=100)
    again = run(tmp_path / "b", Counts(), save_freq=100)
    assert (again[0].history, again[1]) == (whole[0].history, whole[1])


# A data set that others change ----------------------------------------------------------------------------------------


class Samples(Dataset[Any]):
    def __init__(self) -> None:
        self.order = np.arange(24)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return X[self.order[index]], Y[self.order[index]]

    def shuffle(self) -> None:
        np.random.shuffle(self.order)


class Kept(Samples):
    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order = np.array(state["order"])


class Numbered(Samples):
    def set_epoch(self, epoch: int) -> None:
        self.order = np.random.default_rng(epoch).permutation(24)


def loader(kind: Any, **options: Any) -> Callable[[], Any]:
    return lambda: DataLoader(kind(), batch_size=6, shuffle=True, **options)


def shuffles(hook: str) -> Callable[[Any], list[Any]]:
    def make(data: Any) -> list[Any]:
        data_set = data.dataset if isinstance(data, DataLoader) else data
        return [LambdaCallback(**{hook: lambda epoch, logs: data_set.shuffle()})]

    return make


@pytest.mark.parametrize(
    ("make", "hook"), [(Kept, "on_epoch_begin"), (loader(Kept), "on_epoch_end")], ids=["data set", "loader"]
)
def test_a_data_set_with_a_state_is_asked_for_it(make: Any, hook: str, tmp_path: Path) -> None:
    survives(tmp_path, make, shuffles(hook))


def test_a_data_set_in_worker_processes_is_asked_where_they_get_it_from(tmp_path: Path) -> None:
    survives(tmp_path, loader(lambda: Subset(Kept(), range(24)), num_workers=1), lambda data: [
        LambdaCallback(on_epoch_end=lambda epoch, logs: data.dataset.dataset.shuffle())
    ])  # fmt: skip


@pytest.mark.parametrize("cut", [PowerCut(1), PowerCut(1, 3)], ids=["epoch", "batch"])
@pytest.mark.parametrize(
    ("make", "hook"), [(Samples, "on_epoch_begin"), (loader(Samples), "on_epoch_end")], ids=["data set", "loader"]
)
def test_one_without_is_never_gone_on_with_silently(
    make: Any, hook: str, cut: PowerCut, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make()
    with pytest.raises(ConnectionError):
        run(tmp_path, data, [*shuffles(hook)(data), cut])
    data, steps = make(), list[int]()
    counts = LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    wanted = r"training data \((Samples|DataLoader)\) are not what they were.*`state_dict`.*resume='epoch'"
    with pytest.raises(ValueError, match=wanted):
        run(tmp_path, data, [*shuffles(hook)(data), counts])
    assert not steps
    data = make()
    history, _ = run(tmp_path, data, shuffles(hook)(data), backup={"resume": "epoch"})
    assert history.epoch == [0, 1, 2]
    assert "begins with other data than before" in capsys.readouterr().out
    (resumed,) = [entry for entry in history.journal if entry.kind == "resume"]
    assert "are not what they were" in resumed.text


def test_arrays_that_a_callback_changes_are_noticed(tmp_path: Path) -> None:
    def once(*cut: Any) -> Any:
        x = X.copy()
        add = LambdaCallback(on_epoch_end=lambda epoch, logs: np.add(x, 1, out=x))
        return run(tmp_path, (x, Y), [add, *cut])

    with pytest.raises(ConnectionError):
        once(PowerCut(1))
    if oncue.backend.device().type == "cpu":
        with pytest.raises(ValueError, match="ndarray.*are not what they were"):
            once()
    else:
        once()


class Arranged(Callback):
    """Changes an array of the training data in place when an epoch begins, by the epoch's number alone or from its content."""

    def __init__(self, x: Any, cumulative: bool) -> None:
        super().__init__()
        self.x, self.cumulative = x, cumulative

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.x[:] = (self.x if self.cumulative else X) * (epoch + 2)


@cpu_only("arrays that are changed on the host are on a GPU already")
@pytest.mark.parametrize("cut", [PowerCut(1, 0), PowerCut(1, 3), PowerCut(2, 0)], ids=["1", "1-3", "2"])
@pytest.mark.parametrize("save_freq", ["epoch", 2])
@pytest.mark.parametrize("which", ["training", "validation"])
def test_arrays_that_are_arranged_by_the_epochs_number_are_gone_on_with(
    which: str, save_freq: Any, cut: PowerCut, tmp_path: Path
) -> None:
    def once(folder: Path, *cuts: Any, cumulative: bool = False) -> Any:
        x, val_x = X.copy(), X.copy()
        arranged = Arranged(x if which == "training" else val_x, cumulative)
        history, weights = run(folder, (x, Y), [arranged, *cuts], validation_data=(val_x, Y), save_freq=save_freq)
        return history.history, weights

    whole = once(tmp_path / "a")
    with pytest.raises(ConnectionError):
        once(tmp_path / "b", cut)
    assert once(tmp_path / "b") == whole
    assert not (tmp_path / "b").exists()
    with pytest.raises(ConnectionError):
        once(tmp_path / "c", cut, cumulative=True)
    steps: list[int] = []
    counts = LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    with pytest.raises(ValueError, match=rf"{which} data \(.*\) are not what they were"):
        once(tmp_path / "c", counts, cumulative=True)
    assert not steps


@cpu_only("arrays that are changed on the host are on a GPU already")
def test_what_was_noted_of_another_state_is_not_gone_by(tmp_path: Path) -> None:
    def once(*cuts: Any) -> Any:
        x = X.copy()
        return run(tmp_path, (x, Y), [Arranged(x, False), *cuts], save_freq="epoch")

    with pytest.raises(ConnectionError):
        once(PowerCut(1, 0))
    note = json.loads((tmp_path / "data.json").read_text())
    assert list(note) == ["1"]
    for damaged in ({"2": note["1"]}, {"1": {**note["1"], "before": {}}}, {"1": None}, [], None):
        (tmp_path / "data.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match="training data .* are not what they were"):
            once()
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(ValueError, match="training data .* are not what they were"):
        once()


def test_nothing_is_noted_of_data_that_stay_what_they_are(tmp_path: Path) -> None:
    for kind in (Samples, Shuffled):
        with pytest.raises(ConnectionError):
            run(tmp_path / kind.__name__, kind(), [PowerCut(2, 1)])
    assert not list(tmp_path.glob("*/data.json"))


def test_one_with_set_epoch_depends_on_the_epoch_alone(tmp_path: Path) -> None:
    survives(
        tmp_path, Numbered, lambda data: [LambdaCallback(on_epoch_begin=lambda epoch, logs: data.set_epoch(epoch))]
    )


def test_one_that_draws_where_nobody_can_look_is_pointed_out(tmp_path: Path) -> None:
    def hidden() -> Iterator[float]:
        draw = np.random.default_rng(0)
        while True:
            yield draw.normal()

    class Hidden(Samples):
        def __init__(self) -> None:
            super().__init__()
            self.noise = hidden()

        def __getitem__(self, index: int) -> Any:
            return X[index] * np.float32(next(self.noise)), Y[index]

    with pytest.warns(UserWarning, match="torch Dataset Hidden gives another row 0 when it is read twice"):
        run(tmp_path, Hidden())


def test_rows_are_read_without_a_trace(tmp_path: Path) -> None:
    class Draws(Samples):
        def __init__(self) -> None:
            super().__init__()
            self.draw = np.random.default_rng(0)

        def __getitem__(self, index: int) -> Any:
            return X[index] * np.float32(self.draw.normal() + np.random.normal() + random.random()), Y[index]

    def without(data: Any) -> Any:
        oncue.utils.set_random_seed(1)
        model = oncue.Sequential([layers.Input((4,)), layers.Dense(4), layers.Dropout(0.3), layers.Dense(1)])
        model.compile(oncue.optimizers.Adam(0.05), loss="mse")
        return model.fit(data, verbose=0, epochs=3, batch_size=6).history

    assert run(tmp_path, Draws())[0].history == without(Draws())
