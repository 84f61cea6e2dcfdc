"""WorkerProcess: the client of `worker.py`, with a time limit for answers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from environments import FOLDER, HERE, Environment
from ways import Way

CACHE = FOLDER / "cache"


class Failed(Exception):
    """A way that can't be timed, and why."""


class WorkerProcess:
    """A process that trains in one way.

    Args:
        way: The way.
        environment: The environment whose interpreter runs it.
        device: "cpu" or "cuda".
        cache: Where compiled code is cached between runs.

    Raises:
        Failed: If its libraries can't be imported.
    """

    def __init__(self, way: Way, environment: Environment, device: str = "cpu", cache: Path = CACHE) -> None:
        if environment.python is None:
            raise Failed(f"not installed: {environment.reason}")
        self.way = way
        log = FOLDER / "logs" / f"{way.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.begun = time.perf_counter()
        # Otherwise libraries would use a GPU if there is one.
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(environment.python), str(HERE / "worker.py"), way.name, "--device", device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=os.environ | one_thread() | caches(cache) | hidden | way.environ,
                cwd=FOLDER,
            )
        self.hear(300)

    def ask(self, limit: float = 600, **order: Any) -> dict[str, Any]:
        """Send a request and return the answer."""
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            raise Failed(f"its process ended with {self.process.wait()}") from None
        return self.hear(limit)

    def hear(self, limit: float) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            Failed: If it is an error, if it doesn't come within `limit` seconds, or if the process has ended.
        """
        if not select.select([self.process.stdout], [], [], limit)[0]:
            self.close()
            raise Failed(f"no answer in {limit:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"its process ended with {self.process.wait()}; see .bench/logs/{self.way.name}.log")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def one_thread() -> dict[str, str]:
    """Return the environment variables that limit each library's arithmetic to one thread."""
    return {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # XLA uses one thread per processor unless this is set.
        "NPROC": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def caches(folder: Path) -> dict[str, str]:
    """Return the environment variables that set where compiled code is cached."""
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
