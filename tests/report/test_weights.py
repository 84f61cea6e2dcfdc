"""Statistics of the weights: noted in the journal, exact over interruptions, and shown in the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import normal
from oncue import hosts, layers
from oncue.callbacks import BackupAndRestore, Callback, JournalLogger, LambdaCallback, RunFolder, TensorBoard
from oncue.cli import main
from oncue.core.run_record import STATISTICS, RunRecord, line_of, weight_lines
from oncue.report import find_run
from oncue.report.charts import MOST_WEIGHTS, of_weights
from oncue.report.findings import findings
from oncue.report.page import page

X = normal(16, 3)
Y = X[:, :1]


def model() -> Any:
    oncue.utils.set_random_seed(0)
    made = oncue.Sequential([layers.Input((3,)), layers.Dense(4, name="wide"), layers.Dense(1, name="out")], name="m")
    made.compile("sgd", "mse")
    return made


def told(array: Any) -> list[float]:
    return [array.mean(), array.std(), (array == 0).mean(), array.min(), array.max()]


def test_the_journal_has_the_numbers_of_each_weight(tmp_path: Path) -> None:
    made, seen = model(), dict[int, list[Any]]()
    look = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.update({epoch: made.get_weights()}))
    made.fit(X, Y, epochs=5, verbose=0, callbacks=[RunFolder(tmp_path / "run", weights_freq=2), look])
    record = find_run(tmp_path / "run").record
    assert list(record.weights) == ["m/wide/kernel", "m/wide/bias", "m/out/kernel", "m/out/bias"]
    for place, noted in enumerate(record.weights.values()):
        assert list(noted) == [0, 2, 4]
        for epoch, values in noted.items():
            np.testing.assert_allclose(values, told(seen[epoch][place]), rtol=1e-4, atol=1e-6)
    assert record.damaged == 0 and record.epochs == [0, 1, 2, 3, 4]


def test_nothing_is_looked_at_by_default(tmp_path: Path) -> None:
    model().fit(X, Y, epochs=2, verbose=0, callbacks=[RunFolder(tmp_path)])
    assert find_run(tmp_path).record.weights == {} and "<h2>Weights</h2>" not in page(find_run(tmp_path))


def test_a_resumed_run_has_the_lines_of_an_unbroken_one(tmp_path: Path) -> None:
    class Breaks(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3 and broken:
                raise KeyboardInterrupt

    def train(folder: Path) -> None:
        callbacks = [
            JournalLogger(folder / "journal.jsonl", weights_freq=1),
            BackupAndRestore(folder / "backup"),
            Breaks(),
        ]
        model().fit(X, Y, epochs=5, verbose=0, callbacks=callbacks)

    broken = True
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "one")
    broken = False
    train(tmp_path / "one")
    train(tmp_path / "other")
    assert find_run(tmp_path / "one").record.weights == find_run(tmp_path / "other").record.weights
    assert len(find_run(tmp_path / "one").record.weights["m/out/bias"]) == 5


def test_in_other_loops_and_models(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with hosts.loop(net, None, [JournalLogger(tmp_path / "loop.jsonl", 1), TensorBoard(tmp_path, 1)], epochs=1) as loop:
        for _ in loop.epochs():
            loop.end_epoch()
    # The count of batches is no number that is trained.
    names = ["0/weight", "0/bias", "1/weight", "1/bias", "1/running_mean", "1/running_var"]
    assert list(RunRecord.read(tmp_path / "loop.jsonl").weights) == names
    keras = pytest.importorskip("keras")
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="d")])
    made.compile("sgd", "mse")
    made.fit(X, Y, verbose=0, callbacks=hosts.Keras(JournalLogger(tmp_path / "keras.jsonl", 1)))
    noted = RunRecord.read(tmp_path / "keras.jsonl").weights
    (kernel,) = (rows[0] for name, rows in noted.items() if name.endswith("kernel"))
    np.testing.assert_allclose(kernel, told(np.array(made.get_weights()[0])), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 1.5, "each", True, None])
def test_what_is_no_number_of_epochs(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`weights_freq` of JournalLogger must be a whole number, 0 or more; got"):
        JournalLogger(tmp_path / "a", wrong)
    with pytest.raises(ValueError, match="`weights_freq` of RunFolder must be"):
        RunFolder(tmp_path / "a", weights_freq=wrong)


def test_a_model_without_weights_is_refused_before_the_first_step(tmp_path: Path) -> None:
    logger = JournalLogger(tmp_path / "journal.jsonl", 1)
    logger.set_model(object())
    with pytest.raises(TypeError, match="`weights_freq` needs a model with `weights`.*got object. Leave it at 0"):
        logger.on_train_begin()
    logger.close()


def record_of(**weights: Any) -> RunRecord:
    return RunRecord(Path("x"), [0, 1, 2], {"loss": [3.0, 2.0, 1.0]}, {"loss": [0, 1, 2]}, weights=weights)


def test_the_charts() -> None:
    still = {epoch: [0.5, 0.1, 0.0, -1.0, 1.0] for epoch in range(3)}
    charts = of_weights(record_of(a=still))
    assert [chart.name for chart in charts] == ["a"]
    assert charts[0].spec["data"]["values"][0] == {
        "e": 1,
        "m": 0.5,
        "s": 0.1,
        "a": 0.4,
        "b": 0.6,
        "z": 0,
        "n": -1,
        "x": 1,
    }
    zeros = {0: [0.0, 0.1, 0.5, 0.0, 1.0], 1: [0.0, 0.2, 0.75, 0.0, 1.0]}
    charts = of_weights(record_of(a=still, b=zeros))
    assert [row["t"] for row in charts[-1].spec["data"]["values"]] == [0.5, 0.75]


def test_of_many_weights_those_that_changed_most_are_drawn() -> None:
    noted = {f"w{place}": {0: [0.0, 1.0, 0.0, -1.0, 1.0], 9: [0.0, 1.0 + place, 0.0, -9.0, 9.0]} for place in range(50)}
    charts = of_weights(record_of(**noted))
    assert [chart.name for chart in charts] == [f"w{place}" for place in range(50 - MOST_WEIGHTS, 50)]
    long = {"w": {epoch: [float(epoch), 1.0, 0.0, 0.0, 1.0] for epoch in range(30_000)}}
    rows = of_weights(record_of(**long))[0].spec["data"]["values"]
    assert len(rows) <= 100 and rows[-1]["e"] == 30_000


def test_the_page(tmp_path: Path) -> None:
    noted = {f"m/w{place}": {0: [0.0, 1.0, 0.25, -1.0, 1.0], 4: [0.5, 2.0, 0.5, -9.0, math.nan]} for place in range(20)}
    lines = [line_of("begin", {"format": 1, "time": 0.0}), line_of("epoch", {"epoch": 0, "logs": {"loss": 1.0}})]
    lines += [
        line for epoch in (0, 4) for line in weight_lines(epoch, {name: rows[epoch] for name, rows in noted.items()})
    ]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    text = page(find_run(tmp_path)).partition("window.vegaEmbed")[0]
    assert "Of 20 weights the 12 are drawn whose standard deviation changed most" in text
    assert text.count("50 %") == 20 and "m/<wbr>w0" in text
    (found,) = findings(find_run(tmp_path))
    assert found.title == "m/w0 had numbers that are not finite after epoch 5" and found.epoch == 4
    assert main(["explain", str(tmp_path), "--json"]) == 0


def test_many_weights_are_several_lines() -> None:
    lines = list(weight_lines(3, {f"w{place}": [0.0] * 5 for place in range(1001)}))
    assert [len(json.loads(line)["weights"]) for line in lines] == [500, 500, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"of": ["mean"], "weights": {"w": [0.5]}},
        {"of": STATISTICS, "weights": {"w": [0.5]}},
        {"of": STATISTICS, "weights": {"w": [0.5, 0.5, 0.5, 0.5, "a"]}},
        {"of": STATISTICS, "weights": {"w": [0.5, 0.5, 0.5, 0.5, 10**400]}},
        {"of": STATISTICS, "weights": [1]},
        {"weights": {}},
    ],
)
def test_lines_that_are_none(fields: Any, tmp_path: Path) -> None:
    begin = line_of("begin", {"format": 1, "time": 0.0})
    (tmp_path / "journal.jsonl").write_bytes(
        begin + json.dumps({"line": "weights", "epoch": 0, **fields}).encode() + b"\n"
    )
    record = RunRecord.read(tmp_path / "journal.jsonl")
    assert record.weights == {} and record.damaged == 1
