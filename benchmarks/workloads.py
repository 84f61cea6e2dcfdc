"""What the benchmarks train: size, data and batch size of each workload, independent of any framework.

The networks are in `ways/torch_networks.py` and, for Keras and for oncue's layers, in `ways/keras_networks.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """A network, its data and its batch size.

    Args:
        name: Its name for `--workloads`.
        title: Its name in the tables.
        network: The network's name in the modules of networks.
        shape: The shape of one sample; images and sequences have channels last.
        batch: Samples in a batch.
        steps: Batches in an epoch, all of full size.
        short_steps: The same in the short form.
        classes: Number of classes of a classification with cross-entropy and accuracy; 0 for a regression to one number with
            the mean squared error.
    """

    name: str
    title: str
    network: str
    shape: tuple[int, ...]
    batch: int
    steps: int
    short_steps: int
    classes: int = 10

    def data(self) -> Arrays:
        """Return the inputs and targets of an epoch."""
        return made(self, self.steps, seed=0)

    def validation_data(self) -> Arrays:
        """Return a fifth as many samples for validation."""
        return made(self, max(1, self.steps // 5), seed=1)


def made(workload: Workload, steps: int, seed: int) -> Arrays:
    """Return random samples and their targets: the sum of each, or the largest of several fixed projections."""
    x = np.random.default_rng(seed).random((steps * workload.batch, *workload.shape), dtype=np.float32)
    rows = x.reshape(len(x), -1)
    if not workload.classes:
        return x, rows.sum(1, keepdims=True)
    projections = np.random.default_rng(7).standard_normal((rows.shape[1], workload.classes), dtype=np.float32)
    projections -= projections.mean(0)
    y = np.empty(len(x), np.int64)
    # In chunks, since a copy of the data would raise the peak memory.
    for start in range(0, len(x), 1024):
        y[start : start + 1024] = (rows[start : start + 1024] @ projections).argmax(1)
    return x, y


# In the long form an epoch of the MLP has as many samples as MNIST.
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("mlp32", "MLP, batch 32", "mlp", (784,), 32, steps=1875, short_steps=400),
        Workload("mlp128", "MLP, batch 128", "mlp", (784,), 128, steps=469, short_steps=150),
        Workload("cnn", "CNN, batch 128", "cnn", (28, 28, 1), 128, steps=50, short_steps=15),
        Workload("lstm", "LSTM, batch 64", "lstm", (64, 32), 64, steps=100, short_steps=25),
        Workload("tiny", "tiny step", "linear", (8,), 4, steps=5000, short_steps=1000, classes=0),
        Workload("transformer", "transformer, batch 8", "transformer", (64, 384), 8, steps=16, short_steps=2),
    )
}

KERAS_MODELS = {
    workload.name: workload
    for workload in (
        WORKLOADS["mlp32"],
        Workload("wide-deep", "wide and deep, batch 32", "wide_deep", (64,), 32, steps=400, short_steps=100),
        Workload(
            "bn-cnn", "CNN with BatchNormalization, batch 32", "bn_cnn", (28, 28, 1), 32, steps=60, short_steps=20
        ),
        Workload(
            "mobilenet", "MobileNetV2 (0.35, 32x32), batch 32", "mobilenet", (32, 32, 3), 32, steps=8, short_steps=3
        ),
        WORKLOADS["lstm"],
        Workload(
            "attention", "block of MultiHeadAttention, batch 32", "attention", (32, 64), 32, steps=60, short_steps=20
        ),
    )
}
"""What real Keras models are compared on."""
