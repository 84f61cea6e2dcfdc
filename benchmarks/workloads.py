"""The networks and data that the benchmarks train, and the loop a careful engineer writes by hand for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Workload:
    """A network, its data and its batch size.

    Args:
        name: The row's name.
        module: Makes the torch module.
        data: Makes inputs and targets.
        batch: Samples in a batch.
        classes: Whether it classifies (cross-entropy and accuracy) or regresses (mean squared error).
    """

    name: str
    module: Callable[[], nn.Module]
    data: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    batch: int
    classes: bool = True

    def loss(self) -> nn.Module:
        """Return torch's loss for it."""
        return nn.CrossEntropyLoss() if self.classes else nn.MSELoss()


def mlp() -> nn.Module:
    """Return the network of the tutorials: 784, 128, dropout, 64, dropout, 10."""
    return nn.Sequential(
        nn.Linear(784, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


def cnn() -> nn.Module:
    """Return a small convolutional network for 28x28 images of one channel, channels first."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 10),
    )


def images(count: int, *shape: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Return a maker of random samples of a shape, labelled by the largest of ten random projections."""

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(count, *shape, generator=generator)
        flat = x.flatten(1)
        return x, ((flat - 0.5) @ torch.randn(flat.shape[1], 10, generator=generator)).argmax(1)

    return make


def points() -> tuple[torch.Tensor, torch.Tensor]:
    """Return samples of eight numbers, and their sum."""
    x = torch.rand(4000, 8, generator=torch.Generator().manual_seed(0))
    return x, x.sum(1, keepdim=True)


WORKLOADS = (
    Workload("MLP, batch 128", mlp, images(12800, 784), 128),
    Workload("MLP, batch 32", mlp, images(6400, 784), 32),
    Workload("CNN, batch 128", cnn, images(1280, 1, 28, 28), 128),
    Workload("tiny step: Linear(8, 1), batch 4", lambda: nn.Linear(8, 1), points, 4, classes=False),
)


def hand_loop(workload: Workload, epochs: int) -> Callable[[], list[dict[str, float]]]:
    """Return the loop that a careful engineer writes: tensors in memory, fused Adam, sums kept on the device."""
    module, loss_function = workload.module(), workload.loss()
    x, y = workload.data()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def run() -> list[dict[str, float]]:
        history = []
        module.train()
        for _ in range(epochs):
            order = torch.randperm(len(x))
            total = torch.zeros(())
            right = torch.zeros((), dtype=torch.int64)
            for start in range(0, len(x), workload.batch):
                index = order[start : start + workload.batch]
                inputs, targets = x[index], y[index]
                optimizer.zero_grad(set_to_none=True)
                outputs = module(inputs)
                loss = loss_function(outputs, targets)
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    total += loss * len(index)
                    if workload.classes:
                        right += (outputs.argmax(1) == targets).sum()
            history.append({"loss": total.item() / len(x), "accuracy": right.item() / len(x)})
        return history

    return run
