"""Profile: which batches are profiled, what is written of them, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, cpu_only, small_model
from oncue.callbacks import BackupAndRestore, Callback, Profile, RunFolder
from oncue.cli import main
from oncue.tensorboard.trace import costs_of

X = np.ones((10, 2), "float32")
Y = np.ones((10, 1), "float32")


def fit(*callbacks: Any, epochs: int = 2) -> Any:
    """Train four batches in each epoch."""
    return small_model().fit(X[:8], Y[:8], batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks))


def steps_in(path: Path) -> int:
    """Return how many training steps a trace has."""
    return sum(event.get("name") == "aten::mse_loss" for event in json.loads(path.read_text())["traceEvents"])


def test_the_batches_of_the_whole_run_that_were_asked_for(tmp_path: Path) -> None:
    history = fit(Profile((3, 6), tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batches-3-6.pt.trace.json", "batches-3-6.txt"]
    assert steps_in(tmp_path / "batches-3-6.pt.trace.json") == 4
    (entry,) = history.journal
    assert (entry.epoch, entry.batch, entry.callback) == (1, 1, "Profile")
    assert entry.text.startswith(
        f"profiled batches 3 to 6: {tmp_path / 'batches-3-6.pt.trace.json'}; most of the time took"
    )
    data = entry.data
    assert len(data["operations"]) == 10
    shares = [one["share"] for one in data["operations"]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-6
    first = data["operations"][0]
    lines = (tmp_path / "batches-3-6.txt").read_text().splitlines()
    assert lines[1].endswith(f"  {first['name']}") and f" {first['calls']} " in lines[1]


def test_one_batch_and_a_second_fit_with_the_same_object(tmp_path: Path) -> None:
    profile = Profile(2, tmp_path)
    for _ in range(2):
        fit(profile)
        (path,) = tmp_path.glob("*.json")
        assert path.name == "batches-2-2.pt.trace.json" and steps_in(path) == 1
        path.unlink()


def test_several_steps_between_hooks(tmp_path: Path) -> None:
    model = small_model()
    model.compile("sgd", "mse", steps_per_execution=4)
    model.fit(X[:8], Y[:8], batch_size=1, epochs=1, verbose=0, callbacks=[Profile((6, 7), tmp_path)])
    assert steps_in(tmp_path / "batches-5-8.pt.trace.json") == 4


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_run_that_ends_amid_the_batches_leaves_what_it_has(tmp_path: Path, error: BaseException) -> None:
    class Fail(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 3:
                raise error

    with pytest.raises(type(error)):
        fit(Fail(), Profile((2, 9), tmp_path), epochs=3)
    assert steps_in(tmp_path / "batches-2-3.pt.trace.json") == 2
    assert not torch.autograd._profiler_enabled()


@pytest.mark.parametrize(
    ("batches", "names"),
    [((2, 3), []), ((5, 7), ["batches-6-7"]), ((8, 9), ["batches-8-9"])],
    ids=["before it", "amid", "after"],
)
def test_a_resumed_run_profiles_what_is_left(tmp_path: Path, batches: Any, names: list[str]) -> None:
    with pytest.raises(ConnectionError):
        fit(
            Profile(batches, tmp_path / "first"),
            BackupAndRestore(tmp_path / "state", save_freq=1),
            PowerCut(1, 1),
            epochs=3,
        )
    fit(Profile(batches, tmp_path / "then"), BackupAndRestore(tmp_path / "state", save_freq=1), epochs=3)
    assert sorted(path.stem for path in (tmp_path / "then").glob("*.txt")) == names


def test_a_run_that_is_too_short(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"`batches` begins with 9, and the run has 8 batches. Give batches=\(4, 8\)"):
        history = fit(Profile((9, 12), tmp_path))
    assert "profiled nothing: the run had 8 batches, and 9 was to be the first" in str(history.journal)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:LearningRateFinder suggests nothing")
def test_a_test_that_is_taken_back_is_not_profiled(tmp_path: Path) -> None:
    finder = oncue.callbacks.LearningRateFinder(1e-4, 1e-2, steps=10)
    x = np.random.default_rng(0).normal(size=(48, 2)).astype("float32")
    small_model().fit(x, x[:, :1], batch_size=4, verbose=0, callbacks=[finder, Profile((2, 3), tmp_path)])
    assert steps_in(tmp_path / "batches-2-3.pt.trace.json") == 2


def test_in_the_folder_of_a_run_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(RunFolder(tmp_path / "run", profile=(2, 3)))
    assert (tmp_path / "run/profile/batches-2-3.txt").is_file()
    assert main(["report", str(tmp_path / "run"), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "What took the time of batches 2 to 3" in page and "<td>aten::mse_loss</td>" in page


def test_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with oncue.hosts.loop(net, optimizer, [Profile((2, 3), tmp_path)], epochs=1) as run:
        for _ in run.epochs():
            for x, y in run.batches([(torch.ones(2, 2), torch.ones(2, 1))] * 4):
                loss = torch.nn.functional.mse_loss(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
    assert steps_in(tmp_path / "batches-2-3.pt.trace.json") == 2


def test_the_costs_are_those_of_the_device() -> None:
    class Event:
        count = 2

        def __init__(self, key: str, kind: Any, host: float, device: float) -> None:
            self.key, self.device_type, self.self_cpu_time_total, self.self_device_time_total = key, kind, host, device

    kinds = torch.autograd.DeviceType
    operator, launch = Event("aten::mm", kinds.CPU, 9000.0, 3000.0), Event("cudaLaunchKernel", kinds.CPU, 5000.0, 0.0)
    kernel, other = Event("sgemm", kinds.CUDA, 0.0, 3000.0), Event("of a graph", kinds.CUDA, 0.0, 9000.0)
    assert [tuple(one) for one in costs_of([operator, launch, kernel])] == [("aten::mm", 2, 3.0, 1.0)]
    assert [tuple(one) for one in costs_of([operator, kernel, other])] == [
        ("of a graph", 2, 9.0, 0.75),
        ("sgemm", 2, 3.0, 0.25),
    ]
    assert [one.name for one in costs_of([operator, launch])] == ["aten::mm", "cudaLaunchKernel"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batches": 0}, "`batches` of Profile are counted from 1; got 0"),
        ({"batches": (20, 10)}, r"`batches` must be .* Use `batches=2`, or `batches=\(10, 20\)`"),
        ({"folder": "memory://profile"}, "`folder` of Profile must be on this machine"),
    ],
)
def test_mistakes(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Profile(**arguments)


def test_what_is_known_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="Profile can't write to its `folder`"):
        fit(Profile(2, tmp_path / "file"))


@cpu_only("what is refused there")
def test_a_snapshot_needs_cuda(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"`memory=True` of Profile takes a snapshot .* the model is on cpu. Leave it out"
    ):
        fit(Profile((2, 3), tmp_path, memory=True))


@pytest.mark.gpu
def test_a_snapshot_of_memory(tmp_path: Path) -> None:
    history = fit(Profile((2, 3), tmp_path, memory=True))
    path = tmp_path / "batches-2-3.memory.pickle"
    assert path.stat().st_size > 0 and str(path) in str(history.journal)
