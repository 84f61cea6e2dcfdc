"""Histograms, images, graphs, embeddings and profiles."""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import oncue as keras
from helpers import to_numpy
from oncue.callbacks import Callback, TensorBoard
from oncue.tensorboard.buckets import bucket_rows
from oncue.tensorboard.graph import graph_config
from oncue.tensorboard.trace import Trace

Read = Callable[[Path], dict[str, list[tuple[int, Any]]]]


def fit(built: Any, folder: Path, x: Any = None, y: Any = None, epochs: int = 1, **options: Any) -> Any:
    built.compile("sgd", "mse")
    x = np.ones((8, 4), "float32") if x is None else x
    y = np.zeros((8, 1), "float32") if y is None else y
    callback = TensorBoard(folder, **options)
    built.fit(x, y, epochs=epochs, batch_size=4, verbose=0, callbacks=[callback])
    return callback


def dense() -> Any:
    return keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, name="d"), keras.layers.Dense(1)], name="m"
    )


# Histograms ----------------------------------------------------------------------------------------------------------


def test_histograms_of_the_weights(tmp_path: Path, read: Read) -> None:
    built = dense()
    fit(built, tmp_path, epochs=3, histogram_freq=2)
    written = read(tmp_path / "train")
    steps = [step for step, _ in written["m/d/kernel/histogram"]]
    assert steps == [0, 2]
    rows = written["m/d/kernel/histogram"][-1][1]
    kernel = built.layers[0].get_weights()[0]
    assert rows.shape == (30, 3)
    assert rows[:, 2].sum() == 12
    assert (rows[0, 0], rows[-1, 1]) == (pytest.approx(kernel.min()), pytest.approx(kernel.max()))
    assert not [tag for tag in written if "_grad" in tag]


def test_histograms_of_the_gradients(tmp_path: Path, read: Read) -> None:
    built = dense()
    kept: list[torch.Tensor] = []

    class Keep(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            kept.append(built.layers[0].kernel.grad.clone())

    built.compile("sgd", "mse")
    callback = TensorBoard(tmp_path, histogram_freq=1, write_grads=True)
    x, y = np.ones((8, 4), "float32"), np.zeros((8, 1), "float32")
    built.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y), callbacks=[Keep(), callback])
    rows = read(tmp_path / "train")["m/d/kernel_grad/histogram"][0][1]
    assert (rows[0, 0], rows[-1, 1]) == (pytest.approx(kept[0].min().item()), pytest.approx(kept[0].max().item()))


def test_names_are_keras_s(tmp_path: Path, read: Read) -> None:
    x = keras.Input((4,))
    functional = keras.Model(x, keras.layers.Dense(1, name="last")(x))
    fit(functional, tmp_path / "f", histogram_freq=1)
    assert "last/kernel/histogram" in read(tmp_path / "f" / "train")
    wrapped = keras.Model(torch.nn.Sequential(torch.nn.Linear(4, 1)), name="w")
    fit(wrapped, tmp_path / "w", histogram_freq=1)
    assert "w/0/weight/histogram" in read(tmp_path / "w" / "train")


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_counts_are_those_of_numpy(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=dtype)
    rows = np.array(bucket_rows([tensor])[0])
    array = to_numpy(tensor.double())
    low, high = array.min(), array.max()
    assert rows[:, 2].sum() == len(values)
    if low == high:
        assert (rows[:, :2] == low).all() and rows[-1, 2] == len(values)
        return
    expected, edges = np.histogram(array, 30)
    assert rows[0, 0] == low and rows[-1, 1] == high
    assert np.allclose(rows[:, 0], edges[:-1], atol=1e-6 * (high - low))
    # A value on an edge may fall on either side of it by rounding, so sums from the left are compared.
    near = np.abs(array[:, None] - edges[None, 1:-1]).min(axis=1) < 1e-5 * (high - low)
    assert np.abs(rows[:, 2].cumsum() - expected.cumsum()).max() <= near.sum()


def test_values_that_are_not_finite_are_left_out() -> None:
    nan, inf = float("nan"), float("inf")
    some, none, wide = bucket_rows(
        [torch.tensor([1.0, nan, 2.0, inf, -inf]), torch.tensor([nan]), torch.tensor([-3e38, 0.0, 3e38])]
    )
    assert (some[0][0], some[-1][1], sum(row[2] for row in some)) == (1.0, 2.0, 2.0)
    assert sum(row[2] for row in none) == 0.0
    assert [row[2] for row in wide if row[2]] == [1.0, 1.0, 1.0]


def test_types_without_histograms_of_their_own() -> None:
    kinds = (torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.bool, torch.complex64)
    for rows in bucket_rows([torch.tensor([0, 1, 1], dtype=kind) for kind in kinds]):
        assert (rows[0][0], rows[-1][1], rows[0][2], rows[-1][2]) == (0.0, 1.0, 1.0, 2.0)
    assert bucket_rows([]) == []
    assert sum(row[2] for row in bucket_rows([torch.zeros(0)])[0]) == 0.0


def test_a_host_without_weights_gets_an_error_before_the_first_step(tmp_path: Path) -> None:
    class Host:
        stop_training = False
        optimizer = None

    for option in ("histogram_freq", "embeddings_freq"):
        callback = TensorBoard(tmp_path, **{option: 1})
        callback.set_model(Host())
        with pytest.raises(TypeError, match=f"`{option}`"):
            callback.on_train_begin()
    plain = TensorBoard(tmp_path)
    plain.set_model(Host())
    plain.on_train_begin()
    plain.close()


# Images --------------------------------------------------------------------------------------------------------------


def decoded(png: bytes) -> np.ndarray:
    """Return the pixels of an 8-bit PNG without filters, after checking every chunk's checksum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        data = png[place + 8 : place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + data)
        chunks[kind], place = data, place + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, -1)


def test_images_of_the_weights(tmp_path: Path, read: Read) -> None:
    built = keras.Sequential(
        [
            keras.layers.Input((6, 6, 3)),
            keras.layers.Conv2D(5, 2, name="colour"),
            keras.layers.Conv2D(4, 3, name="deep"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="d"),
        ],
        name="m",
    )
    fit(built, tmp_path, np.ones((8, 6, 6, 3), "float32"), histogram_freq=1, write_images=True)
    written = {tag: points[0][1] for tag, points in read(tmp_path / "train").items() if tag.endswith("/image")}
    sizes = {tag: [int(text) for text in value[:2]] for tag, value in written.items()}
    assert sizes == {
        "m/colour/kernel/image": [2, 2],
        "m/colour/bias/image": [1, 5],
        "m/deep/bias/image": [1, 4],
        "m/d/kernel/image": [1, 36],
        "m/d/bias/image": [1, 1],
    }
    assert len(written["m/colour/kernel/image"]) == 2 + 3
    pixels = decoded(written["m/d/kernel/image"][2])[:, 0, 0]
    kernel = built.layers[-1].get_weights()[0][:, 0]
    assert (pixels[kernel.argmin()], pixels[kernel.argmax()]) == (0, 255)
    colours = built.layers[0].get_weights()[0][:, :, :, 1]
    shown = decoded(written["m/colour/kernel/image"][3])
    assert np.corrcoef(shown.ravel(), colours.ravel())[0, 1] > 0.99


# The graph -----------------------------------------------------------------------------------------------------------


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        self.last = torch.nn.Linear(4, 1)
        self.seen: list[Any] = []
        self.state: Any = None

    def forward(self, x: Any) -> Any:
        self.seen.append(x)
        self.state = x
        return self.last(self.first(x) + x)


class Looks(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.ModuleDict({"one": torch.nn.Linear(4, 1)})

    def forward(self, x: Any) -> Any:
        if x.sum() > 0:
            return self.inner["one"](x)
        return self.inner["one"](-x)


def as_dashboard(config: str) -> dict[str, list[str]]:
    """Return the boxes and their sources, as TensorBoard's own plugin makes them."""
    from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def

    return {node.name: list(node.input) for node in keras_model_to_graph_def(json.loads(config)).node}


def boxes_of(module: torch.nn.Module) -> dict[str, list[str]]:
    """Return the boxes of a torch module without its own name before theirs."""
    own = type(module).__name__ + "/"
    boxes = as_dashboard(graph_config(module) or "")
    return {name.removeprefix(own): [one.removeprefix(own) for one in sources] for name, sources in boxes.items()}


def test_a_torch_modules_graph_has_its_arrows() -> None:
    module = Branches()
    assert boxes_of(module) == {
        "x": [],
        "first/0": ["x"],
        "first/1": ["first/0"],
        "add": ["first/1", "x"],
        "last": ["add"],
        "output": ["last"],
    }
    assert module.seen == [] and module.state is None


def test_a_module_that_cannot_be_traced_is_shown_as_a_tree() -> None:
    assert boxes_of(Looks()) == {"inner/one": []}


def test_a_module_called_twice_has_two_boxes() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = torch.nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.same(self.same(x))

    assert boxes_of(Twice()) == {
        "x": [],
        "same": ["x"],
        "same/same_1": ["same"],
        "output": ["same/same_1"],
    }


@pytest.mark.parametrize("make", [dense, lambda: keras.Model(Branches(), name="w"), lambda: keras.Model(Looks())])
def test_every_run_gets_a_graph(tmp_path: Path, read: Read, make: Any) -> None:
    fit(make(), tmp_path)
    (step, config) = read(tmp_path / "train")["keras"][0]
    assert step == 0
    assert as_dashboard(config.item())
    fit(make(), tmp_path / "none", write_graph=False)
    assert "keras" not in read(tmp_path / "none" / "train")


def test_a_torch_module_gets_the_graph_that_the_page_shows_first(tmp_path: Path) -> None:
    fit(keras.Model(Branches(), name="w"), tmp_path)
    events = EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    nodes = {node.name: (node.op, list(node.input)) for node in events.Graph().node}
    assert nodes["add"] == ("add", ["first/1", "x"]) and nodes["last"] == ("Linear", ["add"])


# Embeddings ----------------------------------------------------------------------------------------------------------


class Words(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(5, 3)
        self.last = torch.nn.Linear(3, 1)

    def forward(self, x: Any) -> Any:
        return self.last(self.words(x).mean(1))


def projected(folder: Path) -> Any:
    """Return what TensorBoard's projector knows of a folder: its configuration, and the table of each embedding."""
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin

    class Provider:
        def list_runs(self, *args: Any, **kwargs: Any) -> list[Any]:
            return []

    plugin = ProjectorPlugin(TBContext(data_provider=Provider(), logdir=str(folder)))
    plugin._update_configs()
    config = plugin._configs["."]
    return config, {one.tensor_name: plugin.tensor_cache.get((".", one.tensor_name)) for one in config.embeddings}


def test_the_projector_reads_the_tables(tmp_path: Path) -> None:
    built = keras.Model(Words())
    built.save_weights = lambda path: Path(path).write_text("weights")
    x = np.arange(16).reshape(8, 2) % 5
    options = {"embeddings_freq": 2, "embeddings_metadata": {"words": "labels.tsv"}}
    fit(built, tmp_path, x, epochs=3, **options)
    config, tables = projected(tmp_path)
    assert [(one.tensor_name, one.metadata_path) for one in config.embeddings] == [("words", "labels.tsv")]
    assert np.allclose(tables["words"], to_numpy(built.module.words.weight), rtol=1e-6)
    weights = sorted(path.name for path in (tmp_path / "train").glob("*.h5"))
    assert weights == ["keras_embedding.ckpt-0.weights.h5", "keras_embedding.ckpt-2.weights.h5"]


def test_keras_layers_and_one_file_for_all(tmp_path: Path) -> None:
    layers = keras.layers
    stack = [layers.Input((2,)), layers.Embedding(5, 3, name="a"), layers.Flatten(), layers.Dense(1)]
    built = keras.Sequential(stack)
    built.save_weights = lambda path: None
    x = np.arange(16).reshape(8, 2) % 5
    fit(built, tmp_path, x, embeddings_freq=1, embeddings_metadata="all.tsv")
    config, tables = projected(tmp_path)
    assert [one.metadata_path for one in config.embeddings] == ["all.tsv"]
    assert np.allclose(tables["a"], built.layers[0].get_weights()[0], rtol=1e-6)


@pytest.mark.parametrize("argument", ["embeddings_metadata", "embeddings_layer_names"])
def test_the_name_of_no_embedding_layer_is_refused(tmp_path: Path, argument: str) -> None:
    value: Any = {"word": "x.tsv"} if argument == "embeddings_metadata" else ["word"]
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=f"`{argument}` names 'word'.* Did you mean 'words'"),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)
        fit(keras.Model(Words()), tmp_path, np.zeros((8, 2), int), embeddings_freq=1, **{argument: value})


# The profiler --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile_batch", "steps"), [(2, 1), ((2, 3), 2), ("1,2", 2)])
def test_a_profile_of_some_batches(tmp_path: Path, profile_batch: Any, steps: int) -> None:
    fit(dense(), tmp_path, epochs=2, profile_batch=profile_batch)
    found = list((tmp_path / "train" / "plugins" / "profile").glob("*/*.pt.trace.json"))
    assert len(found) == 1
    events = json.loads(found[0].read_text())["traceEvents"]
    assert sum(event.get("name") == "aten::mse_loss" for event in events) == steps


def test_what_torch_says_of_cycles_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.profiler.profile.start

    def says(self: torch.profiler.profile) -> None:
        warnings.warn("Warning: Profiler clears events at the end of each cycle.", stacklevel=2)
        start(self)

    monkeypatch.setattr(torch.profiler.profile, "start", says)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Trace("TensorBoard").stop(str(tmp_path / "a.pt.trace.json"))


def test_a_profile_that_an_error_cuts_short_is_written(tmp_path: Path) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise RuntimeError("stop here")

    built = dense()
    built.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="stop here"):
        built.fit(
            np.ones((8, 4)),
            np.zeros((8, 1)),
            verbose=0,
            callbacks=[Fail(), TensorBoard(tmp_path, profile_batch=(1, 100))],
        )
    assert list((tmp_path / "train" / "plugins" / "profile").glob("*/*.pt.trace.json"))
    assert not torch.autograd._profiler_enabled()


def test_a_profiler_that_is_busy_is_a_warning(tmp_path: Path) -> None:
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]),
        pytest.warns(UserWarning, match="torch.profiler"),
    ):
        fit(dense(), tmp_path, profile_batch=1)
