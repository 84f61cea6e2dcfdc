"""oncue's callbacks in a loop with Accelerate; the main process writes, and all of them decide the same."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

# This file has the library's name, which must not stand for it.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]
from accelerate import Accelerator

from oncue import hosts
from oncue.callbacks import BackupAndRestore, CSVLogger, EarlyStopping, ModelCheckpoint


def main() -> int:
    """Train, and return the exit status: 0 when the network has learned the sum."""
    torch.manual_seed(0)
    x = torch.randn(512, 3)
    loader = DataLoader(TensorDataset(x, x.sum(dim=1, keepdim=True)), batch_size=32, shuffle=True)
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    accelerator = Accelerator(cpu=True)
    module, optimizer, loader = accelerator.prepare(net, torch.optim.Adam(net.parameters(), lr=0.02), loader)
    callbacks = [
        EarlyStopping("loss", patience=3, restore_best_weights=True),
        ModelCheckpoint("best.safetensors", monitor="loss", save_best_only=True, save_weights_only=True),
        CSVLogger("log.csv"),
        BackupAndRestore("backup"),
    ]
    with hosts.loop(module, optimizer, callbacks, epochs=8, accelerator=accelerator) as run:
        for _ in run.epochs():
            for inputs, targets in run.batches(loader):
                loss = torch.nn.functional.mse_loss(module(inputs), targets)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                run.step(loss=loss)
    print(run.history.explain())
    return 0 if min(run.history.history["loss"]) < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
