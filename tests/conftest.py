"""One thread, fixed seeds, a cache folder that is thrown away, and no network."""

from __future__ import annotations

import atexit
import gc
import os
import random
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

_home = Path(tempfile.mkdtemp(prefix="oncue-tests-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ["KERAS_HOME"] = str(_home / "keras")
os.environ["HF_HOME"] = str(_home / "huggingface")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# These read the environment when they are imported.
import fsspec  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from helpers import graphs_compiled_by, uncompiled  # noqa: E402
from oncue.legacy import warning as legacy_warning  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("oncue", deadline=None, derandomize=True)
settings.load_profile("oncue")

_connect = socket.socket.connect


def _connect_here(self: socket.socket, address: Any) -> None:
    host = address[0] if isinstance(address, tuple) else "localhost"
    if host not in ("localhost", "127.0.0.1", "::1"):
        raise OSError(f"tests use no network; something wanted to connect to {host}")
    _connect(self, address)


def pytest_configure() -> None:
    """Let sockets reach this machine only."""
    socket.socket.connect = _connect_here  # type: ignore[method-assign]  # for the whole run


def pytest_unconfigure() -> None:
    """Give the sockets back."""
    socket.socket.connect = _connect  # type: ignore[method-assign]  # as it was


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the parity tests by where they lie, skip what needs an accelerator that isn't there, and let campaigns take long."""
    no_gpu = pytest.mark.skip(reason="needs an accelerator")
    for item in items:
        if item.get_closest_marker("crash") is not None or item.get_closest_marker("processes") is not None:
            item.add_marker(pytest.mark.timeout(0))
        if "parity" in item.path.parts:
            item.add_marker(pytest.mark.parity)
        if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
            item.add_marker(no_gpu)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After each file, look no more for garbage in what is there to stay, such as modules: that takes seconds in the end."""
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _float32() -> None:
    """Let cuDNN compute in float32: its recurrent kernels and convolutions round to TF32's 10 bits by default."""
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="session")
def keras() -> ModuleType:
    """Return the real Keras on its torch backend."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    module: ModuleType = pytest.importorskip("keras")
    if module.backend.backend() != "torch":
        pytest.skip("real Keras runs on another backend")
    module.config.disable_traceback_filtering()
    return module


@pytest.fixture
def memory_store() -> Iterator[Any]:
    """Return fsspec's store behind `memory://`, empty before and after."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


@pytest.fixture
def quick() -> Iterator[None]:
    """Leave traced graphs as they are: the C++ compiler takes seconds for each."""
    with graphs_compiled_by(uncompiled):
        yield


@pytest.fixture(autouse=True)
def _fresh() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    legacy_warning._warned.clear()


@pytest.fixture(autouse=True)
def _cpu_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show no accelerator to the tests that `helpers.cpu_only` marks."""
    if request.node.get_closest_marker("cpu_only") is not None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


class _Answer(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    missing = 0

    def do_GET(self) -> None:
        content = self.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + self.missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _start(files: dict[str, bytes], missing: int) -> ThreadingHTTPServer:
    answer = type("Answer", (_Answer,), {"files": files, "missing": missing})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answer)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, bytes]], str]]:
    """Serve files by name; returns the base URL."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(files: dict[str, bytes], missing: int = 0) -> str:
        servers.append(_start(files, missing))
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def broken_server(serve: Callable[..., str]) -> str:
    """A server that promises more bytes than it sends."""
    return serve({"a.bin": b"half"}, missing=100)
