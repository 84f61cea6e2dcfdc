"""PredictionWriter: what is predicted, in files that are whole or not there."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, normal
from oncue import hosts, layers
from oncue.callbacks import BackupAndRestore, Callback, PredictionWriter, WeightAverage

X = normal(10, 3)
Y = X.sum(axis=1, keepdims=True)


def network(units: int = 1) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(units)])
    model.compile("adam", "mse")
    return model


def several() -> Any:
    inputs = layers.Input((3,))
    outputs = {"b": layers.Dense(2)(inputs), "a": [layers.Dense(1)(inputs), layers.Reshape((3, 1))(inputs)]}
    return oncue.Model(inputs, outputs)


def read(path: Path) -> dict[str, Any]:
    """Return the columns of a file, by name."""
    if path.suffix == ".npz":
        with np.load(path) as found:
            return dict(found)
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        return {name: np.array(table[name].to_pylist(), "float32") for name in table.column_names}
    with open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    return {name: np.array([row[place] for row in rows], "float32") for place, name in enumerate(names)}


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
@pytest.mark.parametrize("units", [1, 2])
def test_the_numbers_are_those_that_predict_returns(kind: str, units: int, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"out.{kind}"
    predicted = network(units).predict(X, batch_size=4, verbose=0, callbacks=[PredictionWriter(path)])
    found = read(path)
    if kind == "csv" and units == 2:
        assert list(found) == ["output_0", "output_1"]
        found = {"output": np.stack(list(found.values()), axis=1)}
    assert list(found) == ["output"]
    np.testing.assert_array_equal(found["output"].reshape(predicted.shape), predicted)
    assert list(path.parent.iterdir()) == [path]


def test_several_outputs(tmp_path: Path) -> None:
    paths = [tmp_path / f"out.{kind}" for kind in ("csv", "npz", "parquet")]
    model = several()
    predicted = model.predict(X, batch_size=4, verbose=0, callbacks=list(map(PredictionWriter, paths)))
    arrays = {"b": predicted["b"], "a_0": predicted["a"][0], "a_1": predicted["a"][1]}
    for name, array in read(paths[1]).items():
        np.testing.assert_array_equal(array, arrays.pop(name))
    assert not arrays
    assert list(read(paths[0])) == ["b_0", "b_1", "a_0", "a_1_0", "a_1_1", "a_1_2"]
    columns = read(paths[2])
    assert {name: column.shape for name, column in columns.items()} == {"b": (10, 2), "a_0": (10,), "a_1": (10, 3)}
    np.testing.assert_array_equal(columns["a_1"], predicted["a"][1][..., 0])


def test_other_types_of_numbers(tmp_path: Path) -> None:
    class Types(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"half": x[:, 0].bfloat16(), "label": x.argmax(dim=1), "sure": x[:, 0] > 0, "double": x.double()}

    model = oncue.Model(Types())
    names = [tmp_path / f"out.{kind}" for kind in ("csv", "npz", "parquet")]
    predicted = model.predict(X, verbose=0, callbacks=list(map(PredictionWriter, names)))
    found = read(names[1])
    assert {name: array.dtype.name for name, array in found.items()} == {
        "half": "float32",
        "label": "int64",
        "sure": "bool",
        "double": "float64",
    }
    for name, array in found.items():
        np.testing.assert_array_equal(array, predicted[name])
    with open(names[0], newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert float(row["double_0"]) == predicted["double"][0, 0] and row["sure"] == str(bool(predicted["sure"][0]))


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_file_as_it_was(kind: str, error: type[BaseException], tmp_path: Path) -> None:
    class Fails(Callback):
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                raise error("now")

    path = tmp_path / f"out.{kind}"
    model = network()
    for before in (b"", b"as it was"):
        if before:
            path.write_bytes(before)
        with pytest.raises(error):
            model.predict(X, batch_size=4, verbose=0, callbacks=[PredictionWriter(path), Fails()])
        assert [one.read_bytes() for one in tmp_path.iterdir()] == [before] * bool(before)
    # The same object writes the next time.
    writer = PredictionWriter(path)
    with pytest.raises(error):
        model.predict(X, batch_size=4, verbose=0, callbacks=[writer, Fails()])
    predicted = model.predict(X, verbose=0, callbacks=[writer])
    np.testing.assert_array_equal(read(path)["output"].reshape(-1, 1), predicted)


def test_a_batch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    sizes = []

    class Looks(Callback):
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            writer._form._file.flush()  # type: ignore[union-attr]
            sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))

    writer = PredictionWriter(tmp_path / "out.csv")
    network().predict(X, batch_size=2, verbose=0, callbacks=[writer, Looks()])
    assert len(sizes) == 5 and sizes == sorted(set(sizes))


def test_validation_in_fit(tmp_path: Path) -> None:
    seen = []

    class Looks(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(self.model.predict(X[6:], verbose=0))

    writer = PredictionWriter(tmp_path / "val-{epoch:02d}.npz", every=2)
    history = network().fit(X, Y, validation_split=0.4, epochs=4, verbose=0, callbacks=[writer, Looks()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["val-02.npz", "val-04.npz"]
    for epoch in (2, 4):
        np.testing.assert_array_equal(read(tmp_path / f"val-{epoch:02d}.npz")["output"], seen[epoch - 1])
    assert [entry.epoch for entry in history.journal if entry.callback == "PredictionWriter"] == [1, 3]
    # Training is as it would be without.
    assert history.history == network().fit(X, Y, validation_split=0.4, epochs=4, verbose=0).history


def test_it_writes_what_the_average_predicts_where_that_is_validated(tmp_path: Path) -> None:
    writer, average = PredictionWriter(tmp_path / "out.npz"), WeightAverage(0.5)
    model = network()
    model.fit(X, Y, validation_data=(X, Y), epochs=3, verbose=0, callbacks=[average, writer])
    np.testing.assert_array_equal(read(tmp_path / "out.npz")["output"], model.predict(X, verbose=0))


def test_the_order_with_the_average_does_not_matter_in_an_epoch_without_validation(tmp_path: Path) -> None:
    found = []
    for turn in (1, -1):
        both = [PredictionWriter(tmp_path / "out.npz"), WeightAverage(0.5)][::turn]
        network().fit(X, Y, validation_data=(X, Y), validation_freq=2, epochs=3, verbose=0, callbacks=both)
        found.append(read(tmp_path / "out.npz")["output"])
    np.testing.assert_array_equal(*found)


def test_a_resumed_run_writes_the_same(tmp_path: Path) -> None:
    def fit(folder: str, *more: Any) -> None:
        writer, backup = PredictionWriter(tmp_path / folder / "{epoch}.csv", every=2), BackupAndRestore(tmp_path / "b")
        network().fit(X, Y, validation_split=0.4, epochs=4, verbose=0, callbacks=[writer, backup, *more])

    fit("whole")
    with pytest.raises(ConnectionError):
        fit("cut", PowerCut(3))
    fit("cut")
    for name in ("2.csv", "4.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    from oncue.core.files import machine

    left = tmp_path / f".out.csv.{machine()}-999999999-abc.tmp"
    left.write_text("half")
    network().predict(X, verbose=0, callbacks=[PredictionWriter(tmp_path / "out.csv")])
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


# Mistakes --------------------------------------------------------------------------------------------------------------


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ending of a PredictionWriter's `filename`"):
        PredictionWriter("out.json")
    with pytest.raises(ValueError, match="`every` of PredictionWriter"):
        PredictionWriter("out.csv", every=0)
    with pytest.raises(ValueError, match="epoch"):
        PredictionWriter("{loss}.csv")
    with pytest.raises(ValueError, match="has no epochs.*Leave out '{epoch}'"):
        network().predict(X, verbose=0, callbacks=[PredictionWriter(tmp_path / "{epoch}.csv")])
    with pytest.raises(ValueError, match="has none: give `validation_data` as arrays"):
        network().fit(X, Y, verbose=0, callbacks=[PredictionWriter(tmp_path / "out.csv")])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="can't write to its `filename`"):
        network().predict(X, verbose=0, callbacks=[PredictionWriter(tmp_path / "file" / "out.csv")])


def test_a_loop_without_validation_is_refused() -> None:
    module = torch.nn.Linear(3, 1)
    with pytest.raises(ValueError, match="has none: give `validation_data` as arrays"):
        with hosts.loop(module, torch.optim.SGD(module.parameters()), [PredictionWriter("out.csv")], epochs=1) as run:
            next(iter(run.epochs()))


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        PredictionWriter("out.parquet")


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
def test_rows_of_other_lengths(kind: str, tmp_path: Path) -> None:
    class Grows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, : 1 + int(len(x) < 4)]

    model = oncue.Model(Grows())
    with pytest.raises(ValueError, match="can't join rows of the shapes"):
        model.predict(X, batch_size=4, verbose=0, callbacks=[PredictionWriter(tmp_path / f"out.{kind}")])
    assert not list(tmp_path.iterdir())
