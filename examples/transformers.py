"""oncue's callbacks in transformers' Trainer: one line, and its own checkpoints carry their state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

# This file has the library's name, which must not stand for it.
sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]
from transformers import Trainer, TrainingArguments

from oncue import hosts
from oncue.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint, Preemption


class Sum(torch.nn.Module):
    """Learns the sum of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss and the outputs."""
        outputs = self.net(x)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


def main() -> int:
    """Train, and return the exit status: 0 when the network has learned the sum."""
    torch.manual_seed(0)
    rows: Any = [{"x": x, "labels": x.sum(dim=0, keepdim=True)} for x in torch.randn(512, 3)]
    adapter = hosts.Transformers(
        EarlyStopping(patience=3, restore_best_weights=True),
        ModelCheckpoint("best.safetensors", save_best_only=True, save_weights_only=True),
        CSVLogger("log.csv"),
        Preemption(),
    )
    arguments = TrainingArguments(
        output_dir="trainer",
        num_train_epochs=8,
        per_device_train_batch_size=32,
        learning_rate=0.02,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=Sum(), args=arguments, train_dataset=rows, eval_dataset=rows, callbacks=[adapter])
    with adapter:  # the Trainer tells no callback of an error; this does
        trainer.train()
    print(adapter.history.explain())
    return 0 if min(adapter.history.history["val_loss"]) < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
