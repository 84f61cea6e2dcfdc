"""Times the TensorBoard callback's histograms compared with `numpy.histogram` on the same arrays, as ratios in one run.

    python benchmarks/tensorboard_histograms.py [--rounds 9]

Each round times all of them once, in turn; the table shows the medians, and the middle half of the ratios.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time

import numpy as np
import torch

from oncue.tensorboard.buckets import BUCKETS, bucket_rows
from oncue.tensorboard.event_file import EventFile
from oncue.tensorboard.weight_summaries import weight_summaries


def wide() -> torch.nn.Module:
    """Return a network of 10 million parameters in few tensors."""
    return torch.nn.Sequential(torch.nn.Linear(2236, 2236), torch.nn.ReLU(), torch.nn.Linear(2236, 2236))


def deep() -> torch.nn.Module:
    """Return a network of 10 million parameters in 300 tensors."""
    return torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(150)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, NumPy {np.__version__}, {platform.machine()}, one thread\n")
    print("| network | parameters | way | seconds | ratio (median) | middle half |")
    print("|---|---|---|---|---|---|")
    for make in (wide, deep):
        module = make()
        arrays = [parameter.detach().numpy() for parameter in module.parameters()]
        size = sum(array.size for array in arrays)
        file = EventFile(tempfile.mkdtemp())

        def numpy_way(arrays: list[np.ndarray] = arrays) -> None:
            for array in arrays:
                np.histogram(array, BUCKETS)

        def counted(module: torch.nn.Module = module) -> None:
            bucket_rows(list(module.parameters()))

        def written(module: torch.nn.Module = module, file: EventFile = file) -> None:
            for values in weight_summaries(module, images=False, gradients=False):
                file.add(0, values)
            file.flush()

        ways = {"numpy.histogram": numpy_way, "counted": counted, "counted and written": written}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - start)
        base = times["numpy.histogram"][1:]
        for name, taken in times.items():
            ratios = [value / other for value, other in zip(taken[1:], base, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(
                f"| {make.__name__} | {size} | {name} | {statistics.median(taken[1:]):.3f} | {middle:.2f} | "
                f"{low:.2f} to {high:.2f} |"
            )
        file.close()


if __name__ == "__main__":
    main()
