"""A plugin for pytest: collects Keras's test files through the shim, and writes what became of each test as a line of JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peers import shim

from helpers import graphs_compiled_by, uncompiled

SECONDS = 120


class PeerModule(pytest.Module):
    """A test file of Keras's."""

    def _getobj(self) -> ModuleType:
        return shim.load(self.path)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Load the file through the shim."""
    return PeerModule.from_parent(parent, path=module_path)


def pytest_configure(config: pytest.Config) -> None:
    """Know the marks of Keras's test suite."""
    for mark in ("requires_trainable_backend", "multi_device", "skip"):
        config.addinivalue_line("markers", f"{mark}: of Keras's suite")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Begin each test alike, and end one that hangs."""

    def late(*args: Any) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    shim.fresh()
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with graphs_compiled_by(uncompiled):
            return (yield)
    finally:
        signal.alarm(0)


def _write(test: str, outcome: str, text: str, seconds: float) -> None:
    with open(os.environ["PEER_RESULTS"], "a") as file:
        file.write(json.dumps({"test": test, "outcome": outcome, "text": text, "seconds": round(seconds, 2)}) + "\n")


def test_name(nodeid: str) -> str:
    """Return the name of a test: its file, its class and itself."""
    path, _, rest = nodeid.partition("::")
    return path.rpartition("keras/src/")[2] + ("::" + rest if rest else "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write what became of a test. A worker's reports come to the controller."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return
    if report.when == "call" or report.outcome != "passed":
        text = "" if report.outcome == "passed" else str(report.longrepr)
        crash = getattr(report.longrepr, "reprcrash", None)
        last = crash.message if crash is not None else text[-600:]
        _write(test_name(report.nodeid), report.outcome, last[:1200], report.duration)
        if os.environ.get("PEER_TRACES") and report.failed:
            with open(os.environ["PEER_TRACES"], "a") as file:
                file.write(f"##### {test_name(report.nodeid)}\n{text}\n")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Write that a file couldn't be run at all."""
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        _write(test_name(report.nodeid), "failed", str(report.longrepr)[-1200:], 0.0)
