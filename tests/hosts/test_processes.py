"""`hosts.loop` in several processes that the user has started, with torch's own DistributedDataParallel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import run_bounded

from helpers import cpu_only

pytestmark = [cpu_only("processes of gloo"), pytest.mark.slow]

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from oncue import hosts
from oncue.callbacks import BackupAndRestore, CSVLogger, EarlyStopping, LambdaCallback, Preemption, ReduceLROnPlateau

folder, cut, how = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
torch.manual_seed(rank)
module = torch.nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
x = torch.linspace(-1, 1, 64).reshape(32, 2)
data = TensorDataset(x, x.sum(1, keepdim=True))
sampler = DistributedSampler(data, seed=3)
loader = DataLoader(data, batch_size=4, sampler=sampler)
done = 0
callbacks = [
    EarlyStopping("loss", patience=9, restore_best_weights=True),
    ReduceLROnPlateau("loss", patience=0, min_delta=0.3),
    CSVLogger(folder / "log.csv"),
    BackupAndRestore(folder / "backup", save_freq=1),
    Preemption(action="raise"),
]

class Cut(Exception):
    pass

try:
    with hosts.loop(module, optimizer, callbacks, epochs=3) as run:
        for epoch in run.epochs():
            sampler.set_epoch(epoch)
            module.train()
            for inputs, targets in run.batches(loader):
                loss = torch.nn.functional.mse_loss(module(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
                done += 1
                if done == cut and how == "error":
                    raise Cut
                if done == cut and how == "signal" and rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
except Exception as error:
    ended = type(error).__name__
else:
    ended = "well"
weights = [one.tolist() for one in net.parameters()]
found = {"history": run.history.history, "weights": weights, "done": done, "ended": ended}
(folder / f"{rank}.json").write_text(json.dumps(found))
dist.destroy_process_group()
"""


def run(folder: Path, cut: int = 0, how: str = "") -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    script = folder / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29573"]
    command = [sys.executable, *launch, str(script), str(folder), str(cut), how]
    done = run_bounded(command, 200.0)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(tmp_path_factory.mktemp("whole") / "run")


def test_they_have_one_history_and_one_file(whole: list[dict[str, Any]]) -> None:
    one, two = whole
    assert one == two
    assert one["done"] == 12
    assert one["ended"] == "well"


@pytest.mark.parametrize(("how", "ended", "left"), [("error", "Cut", 7), ("signal", "Preempted", 4)])
def test_they_go_on_to_the_bit(how: str, ended: str, left: int, whole: list[dict[str, Any]], tmp_path: Path) -> None:
    first = run(tmp_path / "run", 6, how)
    # An error is that of every process here; a signal came to one, and both end with the epoch.
    assert [one["ended"] for one in first] == [ended, ended]
    again = run(tmp_path / "run")
    assert [one["done"] for one in again] == [left, left]
    for one, other in zip(again, whole, strict=True):
        assert one["history"] == other["history"]
        assert one["weights"] == other["weights"]
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 4
