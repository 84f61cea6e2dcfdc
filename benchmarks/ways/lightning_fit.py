"""Lightning's `Trainer.fit`."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import Workload

from ways.pace import Pace
from ways.torch_networks import module

NEVER = 10**9


class Trained(lightning.LightningModule):
    """The torch module of the hand-written loop, with loss and accuracy logged as means over the epoch."""

    def __init__(self, workload: Workload, monitor: str | None = None) -> None:
        super().__init__()
        self.network = module(workload.network)
        self.loss = nn.CrossEntropyLoss() if workload.classes else nn.MSELoss()
        self.classes, self.monitor = workload.classes, monitor

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self._measured(batch, "")

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self._measured(batch, "val_")

    def predict_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.network(batch[0])

    def _measured(self, batch: list[Tensor], prefix: str) -> Tensor:
        x, y = batch
        outputs = self.network(x)
        loss = self.loss(outputs, y)
        self.log(f"{prefix}loss", loss, on_step=False, on_epoch=True, batch_size=len(x))
        if self.classes:
            right = (outputs.argmax(1) == y).float().mean()
            self.log(f"{prefix}accuracy", right, on_step=False, on_epoch=True, batch_size=len(x))
        return loss

    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)
        if self.monitor is None:
            return adam
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, patience=NEVER)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": plateau, "monitor": self.monitor}}


class AtEpochEnd(Callback):
    """Calls the pace when an epoch is over, including its validation, callbacks and logs."""

    def __init__(self, pace: Pace) -> None:
        self.pace, self.begun = pace, False

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self.begun:
            self.pace()
        self.begun = True


class Lightning:
    """Lightning's trainer over DataLoaders, with progress bar and summary off."""

    def __init__(self, workload: Workload, device: str, folder: str, full: bool = False) -> None:
        # Lightning recommends more worker processes for the DataLoader, which would use more than one thread.
        warnings.filterwarnings("ignore", module="lightning")
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.workload, self.folder, self.full = workload, folder, full
        self.accelerator = "gpu" if device == "cuda" else "cpu"
        self.data, self.held_out = self._set(workload.data()), self._set(workload.validation_data())
        self.trained = Trained(workload)

    def train(self, pace: Pace, validation: bool) -> None:
        monitor = "val_loss" if validation else "loss"
        self.trained = Trained(self.workload, monitor if self.full else None)
        # Validation ends before the epoch's training values are available, so callbacks that monitor those run at epoch end.
        stack: list[Any] = [
            EarlyStopping(monitor, patience=NEVER, check_on_train_epoch_end=True),
            ModelCheckpoint(
                self.folder, monitor=monitor, save_top_k=1, save_weights_only=True, save_on_train_epoch_end=True
            ),
        ]
        trainer = self._trainer(
            callbacks=[*(stack if self.full else []), AtEpochEnd(pace)],
            logger=[CSVLogger(self.folder), TensorBoardLogger(self.folder)] if self.full else False,
            enable_checkpointing=self.full,
            max_epochs=NEVER,
            limit_val_batches=1.0 if validation else 0,
            num_sanity_val_steps=0,
        )
        held_out = self._loader(self.held_out) if validation else None
        trainer.fit(self.trained, self._loader(self.data, shuffle=True), held_out)

    def evaluate(self) -> None:
        self._trainer().validate(self.trained, self._loader(self.data), verbose=False)

    def predict(self) -> None:
        torch.cat(self._trainer().predict(self.trained, self._loader(self.data))).numpy()

    def _trainer(self, **options: Any) -> Any:
        options = {"logger": False, "enable_checkpointing": False, **options}
        return lightning.Trainer(
            accelerator=self.accelerator,
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )

    def _set(self, arrays: Any) -> TensorDataset:
        return TensorDataset(*(torch.from_numpy(array) for array in arrays))

    def _loader(self, data: TensorDataset, shuffle: bool = False) -> DataLoader[Any]:
        return DataLoader(data, batch_size=self.workload.batch, shuffle=shuffle)


make = Lightning
