"""RemoteMonitor against real servers on loopback."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import urllib.parse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import oncue as keras
from oncue.callbacks import CallbackList, RemoteMonitor


class Server(http.server.ThreadingHTTPServer):
    got: list[dict[str, Any]]
    status = 200
    location = ""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append({"path": self.path, "headers": dict(self.headers), "body": body})
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.got = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def root(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def fit(monitor: RemoteMonitor, epochs: int = 2) -> None:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=epochs, verbose=0, callbacks=[monitor])


def test_form(server: Server) -> None:
    fit(RemoteMonitor(root(server), headers={"X-Token": "t"}))
    assert [item["path"] for item in server.got] == ["/publish/epoch/end/"] * 2
    sent = [json.loads(urllib.parse.parse_qs(item["body"])["data"][0]) for item in server.got]
    assert [item["epoch"] for item in sent] == [0, 1]
    assert isinstance(sent[0]["loss"], float)
    assert server.got[0]["headers"]["X-Token"] == "t"


def test_json(server: Server) -> None:
    fit(RemoteMonitor(root(server), path="/here", send_as_json=True), epochs=1)
    assert server.got[0]["headers"]["Content-Type"] == "application/json"
    assert set(json.loads(server.got[0]["body"])) == {"epoch", "loss"}


def test_a_server_that_answers_with_an_error_is_no_failure(server: Server) -> None:
    server.status = 500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(RemoteMonitor(root(server)), epochs=5)
    assert len(server.got) == 5


def test_redirects_are_not_followed(server: Server) -> None:
    server.status, server.location = 302, root(server) + "/elsewhere"
    fit(RemoteMonitor(root(server)), epochs=1)
    assert [item["path"] for item in server.got] == ["/publish/epoch/end/"]


def test_a_dead_server_costs_one_warning() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.warns(UserWarning, match="Could not reach RemoteMonitor root server") as caught:
        fit(RemoteMonitor(f"http://127.0.0.1:{port}"), epochs=6)
    assert len(caught) == 1


def test_a_silent_server_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        callbacks = CallbackList([RemoteMonitor(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)])
        with pytest.warns(UserWarning) as caught:
            callbacks.on_train_begin()
            for epoch in range(8):
                callbacks.on_epoch_begin(epoch)
                callbacks.on_epoch_end(epoch, {"loss": 1.0})
    assert len(caught) == 1
    assert [entry.epoch for entry in callbacks.journal] == [2]


def test_the_address_is_checked() -> None:
    with pytest.raises(ValueError, match="http"):
        RemoteMonitor("localhost:9000")
