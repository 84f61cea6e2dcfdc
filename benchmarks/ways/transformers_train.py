"""`transformers.Trainer`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, TrainerCallback, TrainingArguments
from workloads import Workload

from ways.pace import Pace
from ways.torch_networks import module

NEVER = 10**6


class WithLoss(nn.Module):
    """The torch module of the hand-written loop in the form that the trainer expects: it returns the loss and the outputs."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.network = module(workload.network)
        self.loss = nn.CrossEntropyLoss() if workload.classes else nn.MSELoss()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.network(x)
        return {"loss": self.loss(outputs, labels), "logits": outputs}


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Samples as dicts."""

    def __init__(self, arrays: tuple[np.ndarray, np.ndarray]) -> None:
        self.x, self.y = (torch.from_numpy(array) for array in arrays)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.y[index]}


class AtEpochEnd(TrainerCallback):
    """Calls the pace when an epoch is over, including its validation, saves and logs."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.begun = pace, False

    def on_epoch_begin(self, *arguments: Any, **others: Any) -> None:
        if self.begun:
            self.pace()
        self.begun = True


def collated(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Collate rows into one batch."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def accuracy(predicted: Any) -> dict[str, float]:
    """Return the accuracy of an evaluation."""
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


class Transformers:
    """The trainer with fused AdamW without weight decay, which is Adam; no gradient clipping, a constant learning rate.

    It doesn't measure accuracy in training. Early stopping and the best checkpoint depend on an evaluation, so without
    validation the full stack is only saving, logging and TensorBoard.
    """

    def __init__(self, workload: Workload, device: str, folder: str, full: bool = False) -> None:
        self.workload, self.device, self.folder, self.full = workload, device, folder, full
        self.data, self.held_out = Rows(workload.data()), Rows(workload.validation_data())
        self.model = WithLoss(workload)
        self.measuring = self._trainer(self.model)

    def train(self, pace: Pace, validation: bool) -> None:
        options: dict[str, Any] = {}
        callbacks: list[Any] = [AtEpochEnd(pace)]
        if validation:
            options["eval_strategy"] = "epoch"
        if self.full:
            options |= {
                "logging_strategy": "epoch",
                "report_to": "tensorboard",
                "save_strategy": "best" if validation else "epoch",
                "save_only_model": True,
                "save_total_limit": 1,
            }
        if self.full and validation:
            options |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
            options["load_best_model_at_end"] = True
            callbacks.append(EarlyStoppingCallback(NEVER))
        self._trainer(WithLoss(self.workload), callbacks, **options).train()

    def evaluate(self) -> None:
        self.measuring.evaluate(self.data)

    def predict(self) -> None:
        self.measuring.predict(self.data)

    def _trainer(self, model: nn.Module, callbacks: list[Any] | None = None, **options: Any) -> transformers.Trainer:
        defaults = {"logging_strategy": "no", "report_to": "none", "save_strategy": "no"}
        arguments = TrainingArguments(
            self.folder,
            num_train_epochs=NEVER,
            per_device_train_batch_size=self.workload.batch,
            per_device_eval_batch_size=self.workload.batch,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            weight_decay=0.0,
            max_grad_norm=0.0,
            disable_tqdm=True,
            use_cpu=self.device == "cpu",
            dataloader_pin_memory=self.device != "cpu",
            remove_unused_columns=False,
            label_names=["labels"],
            **defaults | options,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            data_collator=collated,
            train_dataset=self.data,
            eval_dataset=self.held_out,
            compute_metrics=accuracy if self.workload.classes else None,
            callbacks=callbacks,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer


make = Transformers
