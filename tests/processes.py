"""Runs functions in several processes that train together, as torchrun starts them, and returns what each process found.

python tests/processes.py MODULE NAME... RESULT    # what each process runs, with torchrun's variables in its environment
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def variables(rank: int, size: int, port: int) -> dict[str, str]:
    """Return what torchrun puts into the environment of a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def environment() -> dict[str, str]:
    """Return the variables with which a process finds the package and the tests, and no accelerator."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "PYTHONFAULTHANDLER": "1"}


def run_bounded(
    command: list[str], seconds: float = 120.0, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that starts processes itself, for a bounded time: after it all of them are gone.

    `subprocess.run` would end the command alone, and then wait for ever for those that still hold its output.

    Args:
        command: The command.
        seconds: After how long all are killed.
        cwd: Where it runs.
        **variables: More for its environment.

    Returns:
        Its status and outputs.

    Raises:
        AssertionError: When the time is over; it says what they have printed, and where Python's processes were.
    """
    done = subprocess.Popen(
        command,
        cwd=cwd,
        env={**environment(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = done.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # Each shows the stacks of its threads.
        os.killpg(done.pid, signal.SIGABRT)
        try:
            output, errors = done.communicate(timeout=10.0)
        except subprocess.TimeoutExpired as late:
            output, errors = str(late.stdout), str(late.stderr)
        raise AssertionError(f"{command} took more than {seconds:g} s:\n{output[-2000:]}\n{errors[-8000:]}") from None
    finally:
        try:
            os.killpg(done.pid, signal.SIGKILL)
        except ProcessLookupError:
            # As it should be.
            pass
        done.wait()
    return subprocess.CompletedProcess(command, done.returncode, output, errors)


def start(command: list[str], size: int, **more: str) -> list[subprocess.Popen[str]]:
    """Start a command in several processes that find each other."""
    port = free_port()
    return [
        subprocess.Popen(
            command,
            env={**environment(), **variables(rank, size, port), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(processes: list[subprocess.Popen[str]], seconds: float = 120.0) -> list[tuple[int, str, str]]:
    """Wait for processes, and return the exit status and both outputs of each; those that take too long are killed.

    These show the stacks of their threads then, on their error outputs.
    """
    deadline, outputs = time.monotonic() + seconds, []
    try:
        for process in processes:
            try:
                outputs.append(process.communicate(timeout=max(0.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                outputs.append(process.communicate(timeout=10.0))
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def run_together(
    module: str, names: list[str], size: int, folder: Path, seconds: float = 240.0, records: bool = False
) -> list[dict[str, Any]]:
    """Run functions of a module in several processes, one after the other.

    Args:
        module: The module, on the path of the tests.
        names: The functions; each is given a folder of its own, and returns what JSON can have.
        size: How many processes.
        folder: An empty folder for results and for files of the functions.
        seconds: After how long the processes are killed.
        records: Whether each result gets the "messages" that were sent meanwhile, in their order.

    Returns:
        For each process, what each function returned, by name.
    """
    command = [sys.executable, __file__, module, *names, str(folder)]
    ended = finish(start(command, size, **({"RECORDS_MESSAGES": "1"} if records else {})), seconds)
    for rank, (status, _, errors) in enumerate(ended):
        assert status == 0, f"process {rank} of {size} ended with {status}:\n{errors[-4000:]}"
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(size)]


@contextmanager
def _recorded(messages: list[Any]) -> Iterator[None]:
    """Note each collective of torch.distributed that code in the block calls: its name, and what is sent."""
    import torch.distributed as dist

    def noting(name: str) -> Any:
        send = getattr(dist, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            sent = arguments[name == "all_gather"]
            messages.append([name, str(sent.dtype), list(sent.shape), options.get("group") is not None])
            return send(*arguments, **options)

        return mock.patch.object(dist, name, noted)

    with noting("all_reduce"), noting("all_gather"), noting("broadcast"):
        yield


def _main() -> None:
    module, *names, folder = sys.argv[1:]
    import torch

    torch.set_num_threads(1)
    functions = importlib.import_module(module)
    found = {}
    for name in names:
        own = Path(folder) / name
        own.mkdir(exist_ok=True)
        messages: list[Any] = []
        try:
            with _recorded(messages):
                found[name] = getattr(functions, name)(own)
            if "RECORDS_MESSAGES" in os.environ:
                found[name]["messages"] = messages
        except BaseException:
            print(f"in {name}:", file=sys.stderr)
            traceback.print_exc()
            raise
    (Path(folder) / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _main()
