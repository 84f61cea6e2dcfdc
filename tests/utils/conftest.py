"""A web server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest


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
