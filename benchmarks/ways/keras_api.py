"""Keras's `fit`: the same code for Keras, on torch or JAX, and for oncue."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from workloads import Workload

from ways.pace import Pace

NEVER = 10**9


class KerasApi:
    """A model that is compiled once and trained by one call of `fit`.

    Args:
        workload: The workload.
        device: The device for oncue; Keras chooses its own.
        folder: Where the full stack writes.
        library: "oncue" or "keras".
        layers: Whether the network is made of Keras's layers; otherwise oncue trains the torch module of the hand-written loop.
        full: Whether the full stack of callbacks runs.
        listens: Whether a callback is called after every batch, without reading its logs.
        loader: Whether batches come from a DataLoader.
        by_oncue: Whether oncue trains the model of Keras.
        settings: Further arguments of `compile`.
    """

    def __init__(
        self,
        workload: Workload,
        device: str,
        folder: str,
        library: str,
        layers: bool = True,
        full: bool = False,
        listens: bool = False,
        loader: bool = False,
        by_oncue: bool = False,
        **settings: Any,
    ) -> None:
        self.keras = keras = importlib.import_module(library)
        self.workload, self.folder, self.full, self.listens = workload, folder, full, listens
        keras.utils.set_random_seed(0)
        if layers:
            networks = importlib.import_module("ways.keras_networks")
            self.model = networks.NETWORKS[workload.network](keras)
        else:
            self.model = keras.Model(importlib.import_module("ways.torch_networks").module(workload.network).to(device))
        if workload.classes:
            loss: Any = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.model.compile("adam", loss, metrics=["accuracy"], **settings)
        else:
            self.model.compile("adam", "mse", **settings)
        if by_oncue:
            self.model = importlib.import_module("oncue").Model(self.model)
        x, y = workload.data()
        self.held_out: Any = workload.validation_data()
        if loader:
            from torch import from_numpy
            from torch.utils.data import DataLoader, TensorDataset

            data = TensorDataset(from_numpy(x), from_numpy(y))
            self.fed: dict[str, Any] = {"x": DataLoader(data, batch_size=workload.batch, shuffle=True)}
            self.measured: dict[str, Any] = {"x": DataLoader(data, batch_size=workload.batch)}
            return
        if device != "cpu":
            from torch import from_numpy

            x, y = from_numpy(x).to(device), from_numpy(y).to(device)
            self.held_out = tuple(from_numpy(array).to(device) for array in self.held_out)
        self.fed = self.measured = {"x": x, "y": y, "batch_size": workload.batch}

    def train(self, pace: Pace, validation: bool) -> None:
        options: dict[str, Any] = dict(self.fed)
        if validation:
            options |= {"validation_data": self.held_out, "validation_batch_size": self.workload.batch}
        callbacks = self._stack("val_loss" if validation else "loss") if self.full else []
        if self.listens:
            callbacks.append(self._listener())
        self.model.fit(**options, epochs=NEVER, verbose=0, callbacks=[*callbacks, self._at_epoch_end(pace)])

    def evaluate(self) -> None:
        self.model.evaluate(**self.measured, verbose=0)

    def predict(self) -> None:
        fed = {name: value for name, value in self.measured.items() if name != "y"}
        np.asarray(self.model.predict(**fed, verbose=0))

    def _at_epoch_end(self, pace: Pace) -> Any:
        class AtEpochEnd(self.keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                pace()

        return AtEpochEnd()

    def _listener(self) -> Any:
        class Listener(self.keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                pass

        return Listener()

    def _stack(self, monitor: str) -> list[Any]:
        callbacks = self.keras.callbacks
        stack = [
            callbacks.EarlyStopping(monitor, patience=NEVER),
            callbacks.ModelCheckpoint(
                f"{self.folder}/best.weights.h5", monitor, save_best_only=True, save_weights_only=True, verbose=0
            ),
            callbacks.ReduceLROnPlateau(monitor, patience=NEVER),
            callbacks.CSVLogger(f"{self.folder}/log.csv"),
        ]
        # Keras's own TensorBoard callback needs TensorFlow.
        if self.keras.__name__ == "oncue":
            stack.append(callbacks.TensorBoard(f"{self.folder}/logs", write_graph=False))
        return stack


def make(workload: Workload, device: str, folder: str, **settings: Any) -> KerasApi:
    """Return the way."""
    return KerasApi(workload, device, folder, **settings)
