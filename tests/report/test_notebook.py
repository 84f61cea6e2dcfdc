"""A notebook that a program executes: the bar is one output, the history shows its curves, and so does its plot."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEPT = os.environ.get("ONCUE_SCREENSHOTS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("nbconvert", "ipykernel")),
        reason="needs nbconvert and ipykernel",
    ),
]

CELLS = [
    """
import time, numpy as np, oncue
oncue.utils.set_random_seed(0)
x = np.random.rand(256, 4).astype("float32")
model = oncue.Sequential([oncue.layers.Input((4,)), oncue.layers.Dense(8, "relu"), oncue.layers.Dense(1)])
model.compile("adam", "mse", metrics=["mae"])
""",
    """
slow = oncue.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.03))
history = model.fit(x, x.sum(1), epochs=6, validation_split=0.25, callbacks=[slow])
""",
    "history",
    "history.plot()",
    "model.evaluate(x, x.sum(1))",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import nbformat
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    ExecutePreprocessor(timeout=120, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(folder)}})
    return notebook


def outputs(notebook: Any, cell: int) -> list[Any]:
    return list(notebook.cells[cell].outputs)


def test_the_bar_is_one_output_and_epochs_are_lines(executed: Any) -> None:
    found = outputs(executed, 1)
    shown = [one for one in found if one.output_type == "display_data"]
    assert len(shown) == 1
    printed = "".join(one.text for one in found if one.output_type == "stream").splitlines()
    assert len(printed) == 12 and not any("\r" in line for line in printed)
    assert printed[0] == "Epoch 1/6" and "val_mae:" in printed[1]


def test_a_history_shows_curves_and_account(executed: Any) -> None:
    (found,) = outputs(executed, 2)
    assert (
        "data:image/png" in found.data["text/html"]
        and "It ended because all its epochs were done." in found.data["text/html"]
    )


def test_a_plot_shows_its_picture(executed: Any) -> None:
    (found,) = outputs(executed, 3)
    assert len(found.data["image/png"]) > 10_000


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright")
def test_its_page(executed: Any, tmp_path: Path) -> None:
    from nbconvert import HTMLExporter
    from playwright.sync_api import sync_playwright

    page, _ = HTMLExporter().from_notebook_node(executed)
    (tmp_path / "notebook.html").write_text(page, encoding="utf-8")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shown = opened.new_page(viewport={"width": 1100, "height": 900})
        # The page of nbconvert asks the network for fonts and formulas.
        shown.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
        shown.goto((tmp_path / "notebook.html").as_uri(), wait_until="domcontentloaded")
        assert shown.locator("img").count() == 2 and shown.inner_text("body").count("6/6") >= 6
        if KEPT:
            shown.screenshot(path=Path(KEPT, "notebook.png"), full_page=True)
        opened.close()
