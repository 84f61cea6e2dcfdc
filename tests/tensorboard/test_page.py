"""What the real TensorBoard shows: asked over HTTP, and looked at in a browser where there is one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue as keras

BROWSER = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[float]]]:
    """Return a folder of logs, and the history of the run that wrote them."""
    folder = tmp_path_factory.mktemp("logs")
    layers = keras.layers
    stack = [layers.Input((3,)), layers.Embedding(10, 3, name="words"), layers.Flatten(), layers.Dense(1, name="last")]
    built = keras.Sequential(stack, name="m")
    built.save_weights = lambda path: None
    built.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 10, (24, 3)), rng.normal(size=(24, 1)).astype("float32")
    callback = keras.callbacks.TensorBoard(
        folder,
        histogram_freq=1,
        write_images=True,
        update_freq="batch",
        embeddings_freq=1,
        embeddings_metadata="words.tsv",
    )
    history = built.fit(x, y, epochs=3, batch_size=8, verbose=0, validation_data=(x[:8], y[:8]), callbacks=[callback])
    return folder, history.history


@pytest.fixture(scope="module")
def server(logs: tuple[Path, Any]) -> Iterator[str]:
    """Return the address of a TensorBoard that shows the logs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs[0]), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--load_fast", "false", "--reload_interval", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                if set(get(address, "/data/runs")) == {"train", "validation"}:
                    break
            except OSError:
                pass
            assert process.poll() is None and time.monotonic() < deadline, "TensorBoard did not start"
            time.sleep(0.3)
        yield address
    finally:
        process.kill()
        process.wait()


def get(address: str, path: str) -> Any:
    with urllib.request.urlopen(address + path, timeout=30) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers["Content-Type"].startswith("application/json") else text


@pytest.mark.slow
def test_the_dashboards_get_what_was_written(server: str, logs: tuple[Path, dict[str, list[float]]]) -> None:
    history = logs[1]
    tags = get(server, "/data/plugin/scalars/tags")
    assert set(tags["train"]) == {"epoch_loss", "epoch_learning_rate", "batch_loss"}
    assert set(tags["validation"]) == {"epoch_loss", "evaluation_loss_vs_iterations"}

    def curve(run: str, tag: str) -> list[list[float]]:
        return [point[1:] for point in get(server, f"/data/plugin/scalars/scalars?run={run}&tag={tag}")]

    assert curve("train", "epoch_loss") == [
        [epoch, pytest.approx(value)] for epoch, value in enumerate(history["loss"])
    ]
    assert curve("validation", "epoch_loss") == [
        [e, pytest.approx(value)] for e, value in enumerate(history["val_loss"])
    ]
    assert [step for step, _ in curve("train", "batch_loss")] == list(range(1, 10))
    assert [step for step, _ in curve("validation", "evaluation_loss_vs_iterations")] == [3, 6, 9]

    histograms = get(server, "/data/plugin/histograms/histograms?run=train&tag=m/last/kernel/histogram")
    assert [step for _, step, _ in histograms] == [0, 1, 2] and len(histograms[0][2]) == 30
    assert "m/words/embeddings/image" in get(server, "/data/plugin/images/tags")["train"]
    pictures = get(server, "/data/plugin/images/images?run=train&tag=m/last/kernel/image&sample=0")
    assert [one["step"] for one in pictures] == [0, 1, 2]
    address = f"{server}/data/plugin/images/individualImage?{pictures[0]['query']}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "image/png" and answer.read()[1:4] == b"PNG"
    assert get(server, "/data/plugin/graphs/info")["train"]["tags"]["keras"]["conceptual_graph"]
    graph = get(server, "/data/plugin/graphs/graph?run=train&tag=keras&conceptual=true")
    assert 'name: "m/last"' in graph
    # The page opens on the graph of operations.
    assert get(server, "/data/plugin/graphs/info")["train"]["run_graph"]
    assert 'name: "last"' in get(server, "/data/plugin/graphs/graph?run=train&conceptual=false")
    config = get(server, "/data/plugin/projector/info?run=.")
    assert [one["tensorName"] for one in config["embeddings"]] == ["words"]
    assert config["embeddings"][0]["tensorShape"] == [10, 3]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_shows_the_curves(server: str, tmp_path: Path) -> None:
    assert BROWSER is not None
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
    ]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--window-size=1400,1600"]
    page = subprocess.run(
        [*command, "--dump-dom", f"{server}/#timeseries"], capture_output=True, text=True, timeout=120
    ).stdout
    for name in ("epoch_loss", "batch_loss", "evaluation_loss_vs_iterations"):
        assert name in page
