"""The overhead of callbacks: dispatch compared with direct method calls, and import time.

python benchmarks/dispatch.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import timeit
from collections.abc import Callable
from typing import Any

from oncue.callbacks import Callback, CallbackList
from oncue.core.logs import Logs


class Nothing(Callback):
    """Overrides no hook."""


class OneHook(Callback):
    """Overrides the hook at the end of a batch with an empty one."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Do nothing."""


def microseconds(call: Callable[[], object], number: int = 20_000, rounds: int = 7) -> float:
    """Return the time of one call in microseconds, the best of several rounds."""
    return min(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def dispatch_rows(rounds: int) -> list[str]:
    """Return the table rows for dispatch to ten callbacks."""
    logs = Logs({"loss": 0.5})
    nothing = CallbackList([Nothing() for _ in range(10)])
    ten = [OneHook() for _ in range(10)]
    listening = CallbackList(ten)

    def direct() -> None:
        for callback in ten:
            callback.on_train_batch_end(0, logs)

    none = microseconds(lambda: nothing.on_train_batch_end(0, logs), rounds=rounds)
    one = microseconds(lambda: listening.on_train_batch_end(0, logs), rounds=rounds)
    direct_calls = microseconds(direct, rounds=rounds)
    return [
        f"| ten callbacks that override nothing | {none:.2f} µs per batch |",
        f"| ten that override one batch hook | {one:.2f} µs, {one / direct_calls:.2f} times ten direct calls |",
    ]


def import_row(rounds: int) -> str:
    """Return the table row for importing the callbacks in new processes."""
    code = "import time; start = time.perf_counter(); import oncue.callbacks; print(time.perf_counter() - start)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(rounds)
    ]
    return f"| `import oncue.callbacks` | {statistics.median(times) * 1e3:.0f} ms |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print("| what | cost |\n|---|---|")
    print("\n".join([*dispatch_rows(options.rounds), import_row(options.rounds)]))


if __name__ == "__main__":
    main()
