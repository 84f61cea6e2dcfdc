"""oncue's callbacks in Lightning's Trainer: one line, and Lightning's own checkpoints carry their state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

# This file has the library's name, which must not stand for it.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]
import lightning

from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau


class Sum(lightning.LightningModule):  # type: ignore[misc]
    """Learns the sum of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        """Measure a batch."""
        self.log("val_loss", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=0.02)


def main() -> int:
    """Train, and return the exit status: 0 when the network has learned the sum."""
    lightning.seed_everything(0, verbose=False)
    x = torch.randn(512, 3)
    data = TensorDataset(x, x.sum(dim=1, keepdim=True))
    adapter = hosts.Lightning(
        EarlyStopping(patience=3, restore_best_weights=True),
        ReduceLROnPlateau(patience=2),
        ModelCheckpoint("best.safetensors", save_best_only=True, save_weights_only=True),
        CSVLogger("log.csv"),
    )
    trainer = lightning.Trainer(
        max_epochs=10, callbacks=[adapter], accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(Sum(), DataLoader(data, batch_size=32, shuffle=True), DataLoader(data, batch_size=256))
    print(adapter.history.explain())
    return 0 if min(adapter.history.history["val_loss"]) < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
