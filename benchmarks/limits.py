"""The unavoidable parts of a training step of the MLP, each timed alone.

    python benchmarks/limits.py [--batch 32] [--rounds 15]

The parts are timed in turn, round by round, on existing tensors; the table shows medians of the processor time. The last row
is the whole step of the hand-written loop, which also pays for what is between the parts: Python, dispatch, autograd's graph,
memory allocation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

SIZES = ((784, 128), (128, 64), (64, 10))
SAMPLES = 12800


def products(batch: int) -> Callable[[], None]:
    """Return the matrix products of a step: for each layer one in the forward pass and one or two in the backward pass."""
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for at, (rows, columns) in enumerate(SIZES):
        x, weight, gradient = torch.rand(batch, rows), torch.rand(columns, rows), torch.rand(batch, columns)
        calls.append((x, weight.t(), torch.empty(batch, columns)))
        calls.append((gradient.t(), x, torch.empty(columns, rows)))
        if at:
            calls.append((gradient, weight, torch.empty(batch, rows)))

    def run() -> None:
        for left, right, out in calls:
            torch.mm(left, right, out=out)

    return run


def parameters() -> list[torch.Tensor]:
    """Return weights and biases with gradients."""
    made = [torch.rand(shape) for rows, columns in SIZES for shape in ((columns, rows), (columns,))]
    for tensor in made:
        tensor.requires_grad_().grad = torch.rand_like(tensor)
    return made


def dropouts(batch: int) -> Callable[[], None]:
    """Return the two dropouts, forward and backward."""
    inputs = [torch.rand(batch, columns, requires_grad=True) for _, columns in SIZES[:2]]
    gradients = [torch.rand_like(x) for x in inputs]

    def run() -> None:
        for x, gradient in zip(inputs, gradients, strict=True):
            F.dropout(x, 0.2).backward(gradient)
            x.grad = None

    return run


def loss(batch: int) -> Callable[[], None]:
    """Return the cross-entropy, forward and backward."""
    outputs = torch.rand(batch, 10, requires_grad=True)
    targets = torch.randint(0, 10, (batch,))

    def run() -> None:
        F.cross_entropy(outputs, targets).backward()
        outputs.grad = None

    return run


def traffic() -> tuple[Callable[[], None], str]:
    """Return a copy of as many bytes as Adam must read and write: four tensors read, three written."""
    count = sum(rows * columns + columns for rows, columns in SIZES)
    # A copy reads and writes each byte.
    source, target = torch.rand(count * 7 // 2), torch.rand(count * 7 // 2)
    return lambda: target.copy_(source), f"a copy that moves Adam's {count * 7 * 4 / 1e6:.1f} MB"


def parts(batch: int) -> dict[str, Callable[[], Any]]:
    """Return the functions to time, by name."""
    adam = torch.optim.Adam(parameters(), lr=1e-3, fused=True)
    copy, moved = traffic()
    data, order = torch.rand(SAMPLES, 784), torch.randperm(SAMPLES)
    index = order[:batch]
    return {
        "matrix products, forward and backward": products(batch),
        "Adam, fused": adam.step,
        "two dropouts, forward and backward": dropouts(batch),
        "cross-entropy, forward and backward": loss(batch),
        "batch by `x[index]`": lambda: data[index],
        "batch by `x.index_select(0, index)`": lambda: data.index_select(0, index),
        moved: copy,
        "hand-written: the whole step": whole_step(batch),
    }


def whole_step(batch: int) -> Callable[[], None]:
    """Return a step of the hand-written loop, always on the same batch."""
    layers = [torch.nn.Linear(*size) for size in SIZES]
    relu, dropout = torch.nn.ReLU(), torch.nn.Dropout(0.2)
    module = torch.nn.Sequential(layers[0], relu, dropout, layers[1], relu, dropout, layers[2])
    adam = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    data, labels, index = torch.rand(SAMPLES, 784), torch.randint(0, 10, (SAMPLES,)), torch.randperm(SAMPLES)[:batch]
    total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)

    def run() -> None:
        x, y = data[index], labels[index]
        adam.zero_grad(set_to_none=True)
        outputs = module(x)
        value = F.cross_entropy(outputs, y)
        value.backward()
        adam.step()
        with torch.no_grad():
            total.add_(value * len(x))
            right.add_((outputs.argmax(1) == y).sum())

    return run


def microseconds(call: Callable[[], Any], number: int) -> float:
    """Return the processor time of one call in microseconds; everything runs in this thread."""
    start = time.process_time()
    for _ in range(number):
        call()
    return (time.process_time() - start) / number * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    timed = parts(options.batch)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(options.rounds + 1):
        for name, call in timed.items():
            taken = microseconds(call, 50)
            if number:
                times[name].append(taken)
    whole = times["hand-written: the whole step"]
    print(f"MLP 784-128-64-10, batch {options.batch}, torch {torch.__version__}, one thread\n")
    print("| part | µs | share of the hand-written step |\n|---|---|---|")
    for name, values in times.items():
        share = statistics.median(value / step for value, step in zip(values, whole, strict=True))
        print(f"| {name} | {statistics.median(values):.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
