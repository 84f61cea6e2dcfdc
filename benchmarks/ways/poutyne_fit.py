"""Poutyne's `Model.fit`."""

from __future__ import annotations

from typing import Any

import poutyne
import torch
from torch.utils.tensorboard import SummaryWriter
from workloads import Workload

from ways.pace import Pace
from ways.torch_networks import module

NEVER = 10**9


class AtEpochEnd(poutyne.Callback):
    """Calls the pace at the end of each epoch."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self.pace = pace

    def on_epoch_end(self, epoch_number: int, logs: dict[str, Any]) -> None:
        self.pace()


class Poutyne:
    """The torch module and fused Adam of the hand-written loop in Poutyne's loop over arrays."""

    def __init__(self, workload: Workload, device: str, folder: str, full: bool = False) -> None:
        self.workload, self.folder, self.full = workload, folder, full
        network = module(workload.network)
        adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
        loss, metrics = ("cross_entropy", ["accuracy"]) if workload.classes else ("mse", None)
        self.model = poutyne.Model(network, adam, loss, batch_metrics=metrics, device=device)
        self.x, self.y = workload.data()

    def train(self, pace: Pace, validation: bool) -> None:
        held_out = self.workload.validation_data() if validation else None
        callbacks = self._stack("val_loss" if validation else "loss") if self.full else []
        self.model.fit(
            self.x,
            self.y,
            validation_data=held_out,
            batch_size=self.workload.batch,
            epochs=NEVER,
            verbose=False,
            callbacks=[*callbacks, AtEpochEnd(pace)],
        )

    def evaluate(self) -> None:
        self.model.evaluate(self.x, self.y, batch_size=self.workload.batch, verbose=False)

    def predict(self) -> None:
        self.model.predict(self.x, batch_size=self.workload.batch, verbose=False)

    def _stack(self, monitor: str) -> list[Any]:
        return [
            poutyne.EarlyStopping(monitor=monitor, patience=NEVER),
            poutyne.ModelCheckpoint(f"{self.folder}/best.pt", monitor=monitor, save_best_only=True),
            poutyne.ReduceLROnPlateau(monitor=monitor, patience=NEVER),
            poutyne.CSVLogger(f"{self.folder}/log.csv"),
            poutyne.TensorBoardLogger(SummaryWriter(f"{self.folder}/logs")),
        ]


make = Poutyne
