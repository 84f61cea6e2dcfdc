"""Train in a loop of your own with oncue's callbacks; start it again after a kill, and it continues where it was."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from oncue import hosts
from oncue.callbacks import BackupAndRestore, CSVLogger, EarlyStopping, ModelCheckpoint

RUN = Path("runs") / "loop"


def main() -> int:
    """Train, and return the exit status: 0 when the network has learned the sum."""
    torch.manual_seed(0)
    x = torch.randn(512, 3)
    y = x.sum(dim=1, keepdim=True)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    RUN.mkdir(parents=True, exist_ok=True)
    callbacks = [
        EarlyStopping("loss", patience=3, restore_best_weights=True),
        ModelCheckpoint(RUN / "best.safetensors", monitor="loss", save_best_only=True, save_weights_only=True),
        CSVLogger(RUN / "log.csv", append=True),
        BackupAndRestore(RUN / "backup"),
    ]
    with hosts.loop(net, optimizer, callbacks, epochs=10, scheduler=scheduler, logs=["loss"]) as run:
        for _ in run.epochs():
            for inputs, targets in run.batches(loader):
                loss = torch.nn.functional.mse_loss(net(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
            scheduler.step()
    print(run.history.explain())
    return 0 if min(run.history.history["loss"]) < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
