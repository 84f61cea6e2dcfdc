"""A backup belongs to its data: other data are an error that names the way out, equal data in another form are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, SubsetRandomSampler, TensorDataset

import oncue
from helpers import PowerCut, batches_of, to_numpy
from oncue import layers
from oncue.callbacks import BackupAndRestore, LambdaCallback
from oncue.feeding.rows import spread

X = np.random.default_rng(3).normal(size=(40, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True) > 0
Y = Y.astype("float32")
PAIRS = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let as many rows be looked at on a busy machine as on another."""
    monkeypatch.setattr("oncue.feeding.rows._SECONDS", 60.0)
    monkeypatch.setattr("oncue.feeding.rows._SLOW", 60.0)


class Whole(oncue.utils.PyDataset):
    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        at = slice(index * 8, index * 8 + 8)
        return self.x[at], self.y[at]


def run(folder: Path, data: Any, *further: Any, backup: Any = None, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(1)])
    model.compile(oncue.optimizers.SGD(0.05), loss="mse")
    callbacks = [BackupAndRestore(folder, **(backup or {})), *further]
    arguments = {"epochs": 2, "batch_size": 8, "verbose": 0, **options}
    if isinstance(data, (DataLoader, Whole)):
        del arguments["batch_size"]
    return model.fit(*(data if isinstance(data, tuple) else (data,)), callbacks=callbacks, **arguments)


def interrupted(folder: Path, data: Any, **options: Any) -> None:
    with pytest.raises(ConnectionError):
        run(folder, data, PowerCut(1), **options)


def fold(number: int, size: int = 8) -> list[int]:
    return [row for row in range(48) if row // size != number and row < 40]


FORMS: dict[str, Any] = {
    "arrays": lambda rows: (X[rows], Y[rows]),
    "data set": lambda rows: Subset(PAIRS, rows),
    "loader": lambda rows: DataLoader(Subset(PAIRS, rows), batch_size=8, shuffle=True),
    "loader of tensors": lambda rows: DataLoader(TensorDataset(*PAIRS[rows]), batch_size=8),
    "loader with a sampler": lambda rows: DataLoader(PAIRS, batch_size=8, sampler=SubsetRandomSampler(rows)),
    "loader of parts": lambda rows: DataLoader(ConcatDataset([Subset(PAIRS, rows)]), batch_size=8),
    "PyDataset": lambda rows: Whole(X[rows], Y[rows]),
}


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("form", FORMS)
def test_one_folder_for_several_folds_is_an_error_before_the_first_step(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    interrupted(folder, FORMS[form](fold(1)))
    steps: list[int] = []
    count = LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    for number in (0, 2):
        with pytest.raises(ValueError, match=r"training data have changed.*backup_dir='.*backup/fold_1'.*on_mismatch"):
            run(folder, FORMS[form](fold(number)), count)
    assert not steps
    assert run(folder, FORMS[form](fold(1))).epoch == [0, 1]


@pytest.mark.usefixtures("_patient")
def test_each_fold_in_a_folder_of_its_own(tmp_path: Path) -> None:
    def script(cut: int | None) -> list[float]:
        losses = []
        for number in range(3):
            data, further = FORMS["arrays"](fold(number)), [PowerCut(1)] if number == cut else []
            losses.append(run(tmp_path / f"fold_{number}", data, *further).history["loss"][-1])
        return losses

    whole = script(None)
    with pytest.raises(ConnectionError):
        script(1)
    assert script(None) == whole


OTHER: dict[str, tuple[Any, dict[str, Any], str]] = {
    "targets": ((X, 1 - Y), {}, "`y`"),
    "shape": ((X, np.hstack([Y, Y])[:, :1].reshape(40)), {}, "`y`"),
    "type of targets": ((X, Y.astype("int64")), {}, "`y`"),
    "weights of samples": ((X, Y), {"sample_weight": np.linspace(0, 1, 40)}, "`sample_weight`"),
    "weights of classes": ((X, Y), {"class_weight": {0: 1.0, 1: 3.0}}, "`sample_weight`"),
    "validation": ((X, Y), {"validation_data": (X, 1 - Y)}, "validation data have changed.*`y`"),
}


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("name", OTHER)
def test_what_differs_is_named(name: str, tmp_path: Path) -> None:
    data, options, wanted = OTHER[name]
    before = {
        "sample_weight": {"sample_weight": np.ones(40)},
        "class_weight": {"class_weight": {0: 1.0, 1: 2.0}},
        "validation_data": {"validation_data": (X, Y)},
    }
    interrupted(tmp_path, (X, Y), **before.get(next(iter(options), ""), {}))
    with pytest.raises(ValueError, match=wanted):
        run(tmp_path, data, **options)


@pytest.mark.usefixtures("_patient")
def test_class_weights_of_a_loader(tmp_path: Path) -> None:
    interrupted(tmp_path, DataLoader(PAIRS, batch_size=8), class_weight={0: 1.0, 1: 2.0})
    with pytest.raises(ValueError, match=r"`class_weight` is \{0: 1.0, 1: 2.0\}, now it is \{0: 2.0, 1: 1.0\}"):
        run(tmp_path, DataLoader(PAIRS, batch_size=8), class_weight={1: 1.0, 0: 2.0})


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("equal", ["list", "copy", "tensor", "doubles", "other order", "validation added"])
def test_equal_data_are_no_error(equal: str, tmp_path: Path) -> None:
    x = X.copy()
    x[0] = np.nan
    interrupted(tmp_path, (x, Y), backup={"save_freq": 3})
    data, options = {
        "list": ((x.tolist(), Y.tolist()), {}),
        "copy": ((x.copy(), Y.copy()), {}),
        "tensor": ((torch.as_tensor(x), torch.as_tensor(Y)), {}),
        "doubles": ((x.astype("float64"), Y), {}),
        "other order": ((x, Y), {"shuffle": False}),
        "validation added": ((x, Y), {"validation_data": (X, Y)}),
    }[equal]
    assert run(tmp_path, data, backup={"save_freq": 3}, **options).epoch == [0, 1]


@pytest.mark.usefixtures("_patient")
def test_an_augmented_data_set_without_a_seed_is_the_same_one(tmp_path: Path) -> None:
    class Augmented(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self.draw = np.random.default_rng()

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            return X[index] + np.float32(self.draw.normal()) + to_numpy(torch.rand(4)), Y[index]

    interrupted(tmp_path, Augmented())
    assert run(tmp_path, Augmented()).epoch == [0, 1]


@pytest.mark.usefixtures("_patient")
def test_restart_and_adopt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for choice in ("restart", "adopt"):
        interrupted(tmp_path / choice, (X, Y), validation_data=(X, Y))
        begun: list[int] = []
        begins = LambdaCallback(on_epoch_begin=lambda epoch, logs, begun=begun: begun.append(epoch))  # type: ignore[misc]
        further = {"validation_data": (X, 1 - Y), "backup": {"on_mismatch": choice}}
        run(tmp_path / choice, (X, 1 - Y), begins, **further)
        assert begun == ([0, 1] if choice == "restart" else [1])
    said = capsys.readouterr().out
    assert "the setup has changed (`data`, `validation_data`), so training starts from scratch" in said
    assert "Not taken over: the place in the validation data; the place in the data" in said


def test_a_data_set_that_takes_long_is_read_in_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("oncue.feeding.rows.time.perf_counter", lambda: now[0])

    class Slow(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> Any:
            now[0] += 0.03
            return torch.zeros(2), index

    assert list(batches_of(Slow()).contents()) == ["samples", "row 0", "row 999"]


def test_rows_are_spread() -> None:
    assert spread(1) == [0] and spread(2) == [0, 1] and spread(3) == [0, 2, 1]
    assert sorted(spread(1000)) == [round(place * 999 / 17) for place in range(18)]
    assert spread(1000)[:2] == [0, 999]
