"""`hosts.loop` with Accelerate and with Lightning's Fabric; `make hosts` runs it where they are installed."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hosts_matrix import X, Y, network, weights_of
from processes import run_bounded
from torch.utils.data import DataLoader, TensorDataset

from helpers import cpu_only
from oncue import hosts
from oncue.callbacks import BackupAndRestore, EarlyStopping, ModelCheckpoint

pytestmark = [
    cpu_only("other libraries' loops, on the CPU"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
LIBRARIES = [name for name in ("accelerate", "lightning") if find_spec(name) is not None]


class Stop(Exception):
    """The power cut."""


def prepared(library: str, module: Any, optimizer: Any, loader: Any) -> tuple[Any, Any, Any, Any]:
    if library == "accelerate":
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        return (accelerator, *accelerator.prepare(module, optimizer, loader))
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    module, optimizer = fabric.setup(module, optimizer)
    return fabric, module, optimizer, fabric.setup_dataloaders(loader)


def run(library: str, folder: Path, cut: int | None = None) -> Any:
    bare = network()
    optimizer = torch.optim.Adam(bare.parameters(), lr=0.05)
    torch.manual_seed(7)
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
    accelerator, module, optimizer, loader = prepared(library, bare, optimizer, loader)
    callbacks = [
        BackupAndRestore(folder / "backup", save_freq=1),
        ModelCheckpoint(folder / "m.safetensors", save_weights_only=True),
    ]
    done = 0
    with hosts.loop(module, optimizer, callbacks, epochs=3, accelerator=accelerator) as loop:
        for _ in loop.epochs():
            for x, y in loop.batches(loader):
                loss = torch.nn.functional.mse_loss(module(x), y)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                loop.step(loss=loss)
                done += 1
                if done == cut:
                    raise Stop
    return weights_of(bare), loop.history.history, done


@pytest.mark.parametrize("library", LIBRARIES)
def test_it_continues_to_the_bit(library: str, tmp_path: Path) -> None:
    weights, history, done = run(library, tmp_path / "whole")
    assert done == 9
    for cut in (2, 4):
        with pytest.raises(Stop):
            run(library, tmp_path / "cut", cut)
    again, other, done = run(library, tmp_path / "cut")
    assert done == 5
    assert other == history
    assert all((one == two).all() for one, two in zip(weights, again, strict=True))
    from safetensors.torch import load_file

    # The names are those of the bare module.
    assert sorted(load_file(tmp_path / "cut" / "m.safetensors")) == ["0.bias", "0.weight", "1.bias", "1.weight"]


def test_its_own_checkpoint_has_the_state_of_the_callbacks(tmp_path: Path) -> None:
    def train(library: str, resume: bool, cut: int | None = None) -> Any:
        bare = network()
        loader = DataLoader(TensorDataset(X, Y), batch_size=8)
        accelerator, module, optimizer, loader = prepared(
            library, bare, torch.optim.Adam(bare.parameters(), lr=0.05), loader
        )
        folder = str(tmp_path / library)
        callbacks = [EarlyStopping("loss", patience=1, min_delta=0.05, restore_best_weights=True)]
        with hosts.loop(module, optimizer, callbacks, epochs=30, accelerator=accelerator) as run:
            parts = {"module": module, "optimizer": optimizer, "run": run}
            if library == "accelerate":
                accelerator.register_for_checkpointing(run)
            if resume and library == "accelerate":
                accelerator.load_state(folder)
            elif resume:
                accelerator.load(folder, parts)
            for epoch in run.epochs():
                for x, y in run.batches(loader):
                    loss = torch.nn.functional.mse_loss(module(x), y)
                    optimizer.zero_grad()
                    accelerator.backward(loss)
                    optimizer.step()
                    run.step(loss=loss)
                if epoch == cut:
                    accelerator.save_state(folder) if library == "accelerate" else accelerator.save(folder, parts)
                    raise Stop
        return weights_of(bare), run.history.history

    for library in LIBRARIES:
        weights, history = train(library, resume=False)
        assert 3 < len(history["loss"]) < 30
        with pytest.raises(Stop):
            train(library, resume=False, cut=2)
        again, other = train(library, resume=True)
        assert other == history
        assert all((one == two).all() for one, two in zip(weights, again, strict=True))


PROCESSES = """
import json, sys
import torch
from pathlib import Path
from torch.utils.data import DataLoader, TensorDataset
from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, ReduceLROnPlateau

folder, library = Path(sys.argv[1]), sys.argv[2]

def train(accelerator):
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    x = torch.linspace(-1, 1, 64).reshape(32, 2)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)
    if library == "accelerate":
        net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
        rank = accelerator.process_index
    else:
        net, optimizer = accelerator.setup(net, optimizer)
        loader = accelerator.setup_dataloaders(loader)
        rank = accelerator.global_rank
    callbacks = [
        EarlyStopping("loss", patience=1, min_delta=0.01),
        ReduceLROnPlateau("loss", patience=0, min_delta=0.1),
        CSVLogger(folder / "log.csv"),
    ]
    with hosts.loop(net, optimizer, callbacks, epochs=40, accelerator=accelerator) as run:
        for epoch in run.epochs():
            for x, y in run.batches(loader):
                loss = torch.nn.functional.mse_loss(net(x), y)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                run.step(loss=loss)
    (folder / f"{rank}.json").write_text(json.dumps(run.history.history))

if __name__ == "__main__":
    if library == "accelerate":
        from accelerate import Accelerator
        train(Accelerator(cpu=True))
    else:
        from lightning.fabric import Fabric
        fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
        fabric.launch()
        train(fabric)
"""


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_two_processes_decide_the_same_and_write_one_file(library: str, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(PROCESSES, encoding="utf-8")
    command = [sys.executable, str(script), str(tmp_path), library]
    if library == "accelerate":
        command[1:1] = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29571"]
    done = run_bounded(command)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == two
    assert 2 < len(one["loss"]) < 40
    assert len((tmp_path / "log.csv").read_text().splitlines()) == len(one["loss"]) + 1
