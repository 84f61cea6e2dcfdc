"""The benchmarks run, and measure what they claim; no times are asserted."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import oncue
from helpers import cpu_only

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the scripts import each other, and drop them afterwards: their names are generic. They measure without denormals."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    torch.set_flush_denormal(False)


def small(name: str, steps: int = 2) -> Any:
    return dataclasses.replace(importlib.import_module("workloads").WORKLOADS[name], steps=steps)


def a_bench(*arguments: str) -> Any:
    training = importlib.import_module("training")
    parser = training.argparse.ArgumentParser()
    training.add_options(parser)
    return training.Bench(parser.parse_args(arguments))


@pytest.mark.slow
def test_the_one_command(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    options = "--tables training --no-peers --workloads tiny --ways oncue --rounds 2 --seconds 0.001"
    command = [sys.executable, str(FOLDER / "run.py"), *options.split(), "--measures", "step,epoch,evaluate,predict"]
    done = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert results["missing"] == []
    measured = {(row["measure"], row["way"]): row["values"] for row in results["rows"]}
    # The hand-written loop is always timed, as the base of all ratios.
    for measure in ("step", "epoch", "evaluate", "predict"):
        assert all(len(measured[measure, way]) == 2 for way in ("hand", "oncue"))
    assert all(value > 0 for values in measured.values() for value in values)
    assert "| oncue |" in done.stdout and "On a GPU: not measured." in done.stdout


@pytest.mark.slow
def test_new_processes_measure_the_first_step_and_memory() -> None:
    bench, way = a_bench("--workloads", "tiny"), importlib.import_module("ways").WAYS["oncue-full"]
    bench.fresh(way, importlib.import_module("workloads").WORKLOADS["tiny"], memory=True)
    assert bench.results.missing == {}
    first, again, memory = (
        bench.results.of("tiny", kind)["oncue-full"] for kind in ("first", "first, again", "memory")
    )
    assert len(first) == len(again) == len(memory) == 1
    assert first[0] > bench.results.of("tiny", "first, after imports")["oncue-full"][0] > 0
    # The peak may have been reached when importing torch, since the network is so small.
    assert 0 <= memory[0] < 4096


@pytest.mark.slow
def test_the_models_of_keras() -> None:
    options = "--models mlp32 --ways keras-oncue --rounds 2 --seconds 0.001"
    command = [sys.executable, str(FOLDER / "keras_models.py"), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| MLP, batch 32 |")]
    assert len(rows) == 2
    assert re.fullmatch(r"\| MLP, batch 32 \| \d+ \| \d\.\d\d \(\d\.\d\d\) \|", rows[0])
    assert re.fullmatch(r"\| MLP, batch 32( \| \d+\.\d; \d+\.\d){2} \|", rows[1])


def test_the_networks_of_keras_have_their_layers() -> None:
    keras = pytest.importorskip("keras")
    networks, workloads = importlib.import_module("ways.keras_networks"), importlib.import_module("workloads")
    for workload in workloads.KERAS_MODELS.values():
        model = networks.NETWORKS[workload.network](keras)
        assert model.input_shape == (None, *workload.shape) and model.output_shape == (None, workload.classes)


def test_a_way_that_is_not_installed_is_listed_in_the_table() -> None:
    environments, tables = importlib.import_module("environments"), importlib.import_module("tables")
    workloads = importlib.import_module("workloads")
    bench = a_bench("--ways", "poutyne", "--measures", "step", "--rounds", "1")
    bench.environments = {
        None: environments.Environment(None, "gone"),
        "poutyne": environments.Environment(None, "why"),
    }
    bench.measure(workloads.WORKLOADS["tiny"])
    assert "| Poutyne | | not installed: why |" in tables.details(bench.results, workloads.WORKLOADS["tiny"])


def test_every_way_has_its_peer_and_its_bare_way() -> None:
    ways, peers = importlib.import_module("ways").WAYS, importlib.import_module("environments").peers()
    assert {way.peer for way in ways.values()} - {None} == set(peers)
    assert {way.bare for way in ways.values()} - {None} <= set(ways)
    assert all((FOLDER / "ways" / f"{way.module}.py").exists() for way in ways.values())


@pytest.mark.parametrize("name", ["mlp32", "mlp128", "cnn", "lstm", "tiny", "transformer"])
def test_the_networks_are_the_same_under_every_library(name: str) -> None:
    workload = small(name)
    module = importlib.import_module("ways.torch_networks").module(workload.network)
    torch_count = sum(parameter.numel() for parameter in module.parameters())
    outputs = oncue.Model(module).predict(workload.data()[0], verbose=0)
    assert outputs.shape == (2 * workload.batch, workload.classes or 1)
    if name == "transformer":
        assert 10.0e6 < torch_count < 11.0e6
    try:
        ours = importlib.import_module("ways.keras_networks").NETWORKS[workload.network](oncue)
    except NotImplementedError:
        assert not hasattr(oncue.layers, "MultiHeadAttention")
        return
    ours.build((None, *workload.shape))
    # torch's LSTM has two biases for each gate.
    assert ours.count_params() == torch_count - (4 * 64 if name == "lstm" else 0)


def test_batches_are_whole_and_classes_are_balanced() -> None:
    for name, workload in importlib.import_module("workloads").WORKLOADS.items():
        x, y = small(name, steps=4).data()
        assert len(x) == len(y) == 4 * workload.batch
        assert x.dtype == "float32"
    _, y = small("mlp32", steps=100).data()
    assert all(0.02 < (y == label).mean() < 0.4 for label in range(10))


def test_pace_holds_a_run_at_the_end_of_its_epochs() -> None:
    pace_module = importlib.import_module("ways.pace")
    asked: list[Any] = []
    answers = iter([1, 3, None])

    def ask(taken: Any) -> Any:
        asked.append(epochs)
        return next(answers)

    epochs = 0
    pace = pace_module.Pace(ask, lambda: None)
    with pytest.raises(pace_module.Finished):
        while True:
            epochs += 1
            pace()
    assert asked == [1, 2, 5]


def test_waiting_is_read_from_a_trace() -> None:
    host_idle = importlib.import_module("host_idle")
    events = [
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaStreamSynchronize", "ts": 0, "dur": 30},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 40, "dur": 5},
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 10, "dur": 20},
        {"ph": "X", "cat": "kernel", "name": "add", "ts": 20, "dur": 20},
        {"ph": "i", "name": "cudaStreamSynchronize", "ts": 3},
    ]
    assert host_idle.waits(events) == pytest.approx({"idle": 30e-6, "kernels": 30e-6})


@cpu_only("it shows that there are no kernels in the trace of a run without an accelerator")
def test_a_run_is_traced(tmp_path: Path) -> None:
    host_idle, hand = importlib.import_module("host_idle"), importlib.import_module("ways.hand")
    turns = iter([1, None])
    traced = host_idle.host_idle(hand.make(small("tiny"), "cpu", ""), lambda taken: next(turns), lambda: None, tmp_path)
    assert traced["wall"] > 0 and traced["idle"] == traced["kernels"] == 0


def test_the_parts_of_a_step_run() -> None:
    for call in importlib.import_module("limits").parts(4).values():
        call()


def test_growth_counts_its_steps() -> None:
    growth = importlib.import_module("growth")
    assert [row.split(" | ")[0] for row in growth.run(1000, one_epoch=False)] == ["| 1000"]


def test_hand_written_loops_are_timed_along_with_libraries(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_code = importlib.import_module("own_code")
    own_code.progress()
    assert capsys.readouterr().out.count("| on a terminal |") == 1
    own_code.writes(megabytes=1)
    assert "| written, with a checksum |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    own_code.background()
    assert "| the first |" in capsys.readouterr().out
    pytest.importorskip("optree")
    own_code.trees()
    assert "| paths of nested |" in capsys.readouterr().out
