"""The hand-written loops: what a careful engineer would write without a library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import Workload

from ways.compiled_step import CompiledStep
from ways.pace import Pace
from ways.torch_networks import module

Batches = Iterator[tuple[Tensor, Tensor]]


class Hand:
    """A loop over tensors in memory, with fused Adam, and sums that stay on the device and are read once per epoch.

    Args:
        workload: The workload.
        device: The device.
        folder: Not used: this loop writes no files.
        loader: Whether batches come from a DataLoader.
        compiled: Whether the whole step is compiled.
        mode: The mode of `torch.compile`.
    """

    def __init__(
        self,
        workload: Workload,
        device: str,
        folder: str,
        loader: bool = False,
        compiled: bool = False,
        mode: str | None = None,
    ) -> None:
        self.workload, self.device, self.loader = workload, torch.device(device), loader
        self.module = module(workload.network).to(self.device)
        self.loss = nn.CrossEntropyLoss() if workload.classes else nn.MSELoss()
        self.training, self.held_out = self._tensors(workload.data()), self._tensors(workload.validation_data())
        self.step = CompiledStep(self.module, self.loss, bool(workload.classes), mode) if compiled else self._step
        self.forward = torch.compile(self.module) if compiled else self.module
        self.optimizer = None if compiled else torch.optim.Adam(self.module.parameters(), lr=1e-3, fused=True)

    def train(self, pace: Pace, validation: bool) -> None:
        samples = len(self.training[0])
        while True:
            self.module.train()
            total = torch.zeros((), device=self.device)
            right = torch.zeros((), dtype=torch.int64, device=self.device)
            for x, y in self._shuffled():
                self.step(x, y, total, right)
            history = {"loss": total.item() / samples, "accuracy": right.item() / samples}
            if validation:
                history |= {f"val_{name}": value for name, value in self.measured(*self.held_out).items()}
            pace()

    def evaluate(self) -> None:
        self.measured(*self.training)

    def predict(self) -> None:
        self.module.eval()
        with torch.no_grad():
            outputs = torch.cat([self.forward(x) for x, _ in self._in_order(*self.training)])
        outputs.cpu().numpy()

    def measured(self, x: Tensor, y: Tensor) -> dict[str, float]:
        self.module.eval()
        total = torch.zeros((), device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        with torch.no_grad():
            for inputs, targets in self._in_order(x, y):
                outputs = self.forward(inputs)
                total += self.loss(outputs, targets) * len(inputs)
                if self.workload.classes:
                    right += (outputs.argmax(1) == targets).sum()
        return {"loss": total.item() / len(x), "accuracy": right.item() / len(x)}

    def _step(self, x: Tensor, y: Tensor, total: Tensor, right: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        outputs = self.module(x)
        loss = self.loss(outputs, y)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            total += loss * len(x)
            if self.workload.classes:
                right += (outputs.argmax(1) == y).sum()

    def _shuffled(self) -> Batches:
        x, y = self.training
        if self.loader:
            loader = DataLoader(TensorDataset(x, y), batch_size=self.workload.batch, shuffle=True)
            for inputs, targets in loader:
                yield inputs.to(self.device), targets.to(self.device)
            return
        order = torch.randperm(len(x), device=self.device)
        for start in range(0, len(x), self.workload.batch):
            index = order[start : start + self.workload.batch]
            yield x[index], y[index]

    def _in_order(self, x: Tensor, y: Tensor) -> Batches:
        if self.loader:
            for inputs, targets in DataLoader(TensorDataset(x, y), batch_size=self.workload.batch):
                yield inputs.to(self.device), targets.to(self.device)
            return
        for start in range(0, len(x), self.workload.batch):
            yield x[start : start + self.workload.batch], y[start : start + self.workload.batch]

    def _tensors(self, arrays: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
        x, y = (torch.from_numpy(array) for array in arrays)
        return (x, y) if self.loader else (x.to(self.device), y.to(self.device))


make = Hand
