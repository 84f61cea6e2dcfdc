"""docs/architecture.md says what is so: rooms, journeys in the order of the calls, and the files of one step."""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from test_imports import LOOKS_BELOW, ROOMS

import oncue as keras
from helpers import on_the_same_memory
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, ReduceLROnPlateau
from oncue.checkpoints.writer import Writer

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", TEXT, re.MULTILINE))
JOURNEYS = [title for title in SECTIONS if title.startswith("How a ")]
PLACE = re.compile(r"`(src/oncue/[\w/]+\.py)(?::([\w.]+))?`")
# What a user chooses for a model; each has its own arithmetic.
PARTS = ("models/", "layers/", "activations/", "losses/", "metrics/", "optimizers/adam.py")


def _defined(path: str) -> set[str]:
    def names(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield prefix + child.name
                yield from names(child, f"{prefix}{child.name}.")
            else:
                yield from names(child, prefix)

    return set(names(ast.parse((ROOT / path).read_text(encoding="utf-8")), ""))


@contextmanager
def _watched(called: list[str]) -> Iterator[None]:
    """Note every call of a function of oncue, on the thread that writes in the background, too."""
    source = str(ROOT / "src" / "oncue") + "/"

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(source):
            name = code.co_qualname.replace("<locals>.", "")
            called.append(f"src/oncue/{code.co_filename.removeprefix(source)}:{name}")

    serve = Writer._serve

    def watched_serve(self: Writer) -> None:
        sys.setprofile(watch)
        serve(self)

    Writer._serve = watched_serve  # type: ignore[method-assign]
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        Writer._serve = serve  # type: ignore[method-assign]


def test_the_table_of_rooms_is_the_one_that_is_tested() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ?([\w ]*?) ?\|$", SECTIONS["The rooms"], re.MULTILINE)
    assert dict(rows) == ROOMS
    below = re.findall(r"^- `(\w+)` into `(\w+)`: (.+)$", SECTIONS["The rooms"], re.MULTILINE)
    assert {(room, other): reason for room, other, reason in below} == LOOKS_BELOW


@pytest.mark.parametrize("title", SECTIONS)
def test_what_is_named_is_there(title: str) -> None:
    for path, name in PLACE.findall(SECTIONS[title]):
        assert (ROOT / path).exists(), path
        assert not name or name in _defined(path), f"{path}:{name}"


class KeepsLogs(Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.kept = logs
        if batch == 0:
            assert logs["loss"] >= 0


class PowerCut(Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 3:
            raise ConnectionError


def _train(*further: Callback, jit: bool = False) -> None:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.1), loss="mse", metrics=["mae"], jit_compile=jit)
    model._plan.graphs.record = on_the_same_memory if jit else None
    callbacks = [
        BackupAndRestore("backup", save_freq=3),
        ReduceLROnPlateau("loss", patience=1, min_delta=10),
        CSVLogger("log.csv"),
        KeepsLogs(),
        *further,
    ]
    model.fit(x, y, validation_split=0.25, batch_size=8, epochs=5, verbose=0, callbacks=callbacks)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """The calls of a run that is interrupted, in order, and of the one that continues it."""
    first: list[str] = []
    second: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        with _watched(first), pytest.raises(ConnectionError):
            _train(PowerCut())
        with _watched(second):
            _train()
    return first, second


@pytest.fixture(scope="module")
def calls_of_a_graph(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The calls of a run whose steps are graphs, without the C++ compiler."""
    called: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("graph"))
        patch.setattr("torch._inductor.compile_fx.compile_fx", _given_back)
        with _watched(called):
            _train(jit=True)
    return called


def _given_back(graph: Any, inputs: Any, **options: Any) -> Any:
    return graph


@pytest.mark.parametrize("title", JOURNEYS)
def test_a_journey_is_the_order_of_the_calls(
    title: str, calls: tuple[list[str], list[str]], calls_of_a_graph: list[str]
) -> None:
    places = [f"{path}:{name}" for path, name in PLACE.findall(SECTIONS[title])]
    assert len(places) >= 10
    # A backup travels from one run to the next, everything else within one.
    of = {"How a backup travels": [*calls[0], *calls[1]], "How a step becomes a graph": calls_of_a_graph}
    rest = iter(of.get(title, calls[0]))
    for place in places:
        assert place in rest, f"{place} is not called after what stands before it"


def test_the_journeys_are_five() -> None:
    assert len(JOURNEYS) == 5


@pytest.mark.parametrize("kind", ["layers", "torch"])
def test_one_eager_step_is_in_ten_files(kind: str) -> None:
    listed = [path for path, _ in PLACE.findall(SECTIONS["Reading one eager training step"])]
    assert 0 < len(listed) <= 10

    def per_run(batches: int) -> Counter[str]:
        keras.utils.set_random_seed(0)
        x = np.random.default_rng(0).normal(size=(batches * 4, 8)).astype("float32")
        y = np.arange(len(x)) % 3
        if kind == "torch":
            module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
            model = keras.Model(module)
        else:
            model = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss=loss, metrics=["accuracy"])
        called: list[str] = []
        with _watched(called):
            model.fit(x, y, batch_size=4, verbose=0)
        return Counter(called)

    more = per_run(50)
    more.subtract(per_run(10))
    files = {place.partition(":")[0] for place, count in more.items() if count >= 40}
    # The loop, and what makes the step, run once for all batches.
    assert {"src/oncue/training/step.py", "src/oncue/optimizers/optimizer.py", "src/oncue/feeding/arrays.py"} <= files
    parts = tuple(f"src/oncue/{part}" for part in PARTS)
    assert {path for path in files if not path.startswith(parts)} <= set(listed)
