"""Pictures and texts out of folders, windows over series, and the helpers of Keras 1 and 2."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import oncue as keras
from helpers import to_numpy
from oncue.preprocessing import (
    image_dataset_from_directory,
    text_dataset_from_directory,
    timeseries_dataset_from_array,
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("cats", "dogs")):
        (tmp_path / name / "more").mkdir(parents=True)
        for at in range(5):
            shade = np.full((6, 8, 3), 20 * at + 100 * number, "uint8")
            Image.fromarray(shade).save(tmp_path / name / ("more" if at == 4 else ".") / f"{at}.png")
    (tmp_path / "cats" / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        for at in range(3):
            (tmp_path / name / f"{at}.txt").write_text(f"{name} film {at}")
    return tmp_path


def test_pictures_and_their_labels(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = image_dataset_from_directory(pictures, image_size=(4, 5), batch_size=4, shuffle=False)
    assert capsys.readouterr().out == "Found 10 files belonging to 2 classes.\n"
    assert data.class_names == ["cats", "dogs"] and len(data) == 3
    batches = list(data)
    assert [tuple(x.shape) for x, _ in batches] == [(4, 4, 5, 3), (4, 4, 5, 3), (2, 4, 5, 3)]
    assert torch.cat([y for _, y in batches]).tolist() == [0] * 5 + [1] * 5
    assert batches[0][0].dtype == torch.float32 and batches[0][1].dtype == torch.int32
    assert [float(picture.mean()) for x, _ in batches for picture in x] == [0, 20, 40, 60, 80, 100, 120, 140, 160, 180]


@pytest.mark.parametrize(
    ("mode", "first", "last"), [("binary", [0.0], [1.0]), ("categorical", [1.0, 0.0], [0.0, 1.0]), ("int", 0, 1)]
)
def test_kinds_of_labels(mode: str, first: Any, last: Any, pictures: Path) -> None:
    data = image_dataset_from_directory(pictures, label_mode=mode, shuffle=False, batch_size=None, verbose=False)
    samples = list(data)
    assert samples[0][1].tolist() == first and samples[-1][1].tolist() == last


def test_pictures_alone_in_other_colours_and_orders(pictures: Path) -> None:
    options: dict[str, Any] = {"labels": None, "verbose": False, "shuffle": False, "image_size": (4, 4)}
    (batch,) = image_dataset_from_directory(pictures, color_mode="grayscale", **options)
    assert tuple(batch.shape) == (10, 4, 4, 1)
    (batch,) = image_dataset_from_directory(pictures, color_mode="rgba", data_format="channels_first", **options)
    assert tuple(batch.shape) == (10, 4, 4, 4)


def test_proportions(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), "uint8")
    wide[:, 2:6] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    options: dict[str, Any] = {"labels": None, "verbose": False, "image_size": (4, 4), "interpolation": "nearest"}
    (cut,) = image_dataset_from_directory(tmp_path, crop_to_aspect_ratio=True, **options)
    assert float(cut.min()) == 255
    (filled,) = image_dataset_from_directory(tmp_path, pad_to_aspect_ratio=True, **options)
    assert float(filled[0, 0].max()) == 0 and float(filled[0, 1].max()) == 255


def test_two_parts_have_nothing_in_common(pictures: Path) -> None:
    train, held = image_dataset_from_directory(pictures, validation_split=0.3, subset="both", seed=1, verbose=False)
    assert (len(train.file_paths), len(held.file_paths)) == (7, 3)
    assert not set(train.file_paths) & set(held.file_paths)
    alone = image_dataset_from_directory(pictures, validation_split=0.3, subset="validation", seed=1, verbose=False)
    assert alone.file_paths == held.file_paths


def test_the_parts_are_those_of_keras(pictures: Path) -> None:
    from keras.src.utils import dataset_utils

    paths, labels, names = dataset_utils.index_directory(
        str(pictures), labels="inferred", formats=(".png",), seed=7, verbose=False
    )
    ours = image_dataset_from_directory(pictures, seed=7, verbose=False)
    assert list(ours.file_paths) == [str(Path(path)) for path in paths]
    assert ours.dataset.labels.tolist() == list(labels) and ours.class_names == names


def test_labels_of_ones_own(pictures: Path) -> None:
    data = image_dataset_from_directory(pictures, labels=[3] * 5 + [7] * 5, shuffle=False, verbose=False)
    ((_, labels),) = list(data)
    assert labels.tolist() == [3] * 5 + [7] * 5 and data.class_names == ["3", "7"]


def test_a_folder_trains(pictures: Path) -> None:
    train, held = keras.utils.image_dataset_from_directory(
        pictures, image_size=(8, 8), batch_size=4, validation_split=0.2, subset="both", seed=1, verbose=False
    )
    model = keras.Sequential(
        [keras.layers.Rescaling(1 / 255, input_shape=(8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    stopper = keras.callbacks.EarlyStopping(patience=5)
    history = model.fit(train, validation_data=held, epochs=2, verbose=0, callbacks=[stopper])
    assert len(history.history["val_accuracy"]) == 2
    cached = train.map(lambda x, y: (x / 2, y)).cache().prefetch(1)
    assert len(model.fit(cached, epochs=1, verbose=0).history["loss"]) == 1
    assert len(list(train.take(1))) == 1 and train.prefetch(1) is train
    with pytest.raises(AttributeError, match="nothing"):
        train.nothing()


def test_texts(texts: Path) -> None:
    data = text_dataset_from_directory(texts, shuffle=False, batch_size=4, max_length=6, verbose=False)
    first, labels = next(iter(data))
    assert first == ["bad fi", "bad fi", "bad fi", "good f"] and labels.tolist() == [0, 0, 0, 1]
    lengths = data.map(lambda words, y: ([len(word) for word in words], y))
    assert to_numpy(next(iter(lengths))[0]).tolist() == [6] * 4
    (alone,) = text_dataset_from_directory(texts, labels=None, shuffle=False, verbose=False)
    assert alone[-1] == "good film 2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"directory": "nowhere"}, "there is none at 'nowhere'"),
        ({"label_mode": "ints"}, "label_mode"),
        ({"color_mode": "rbg"}, "Did you mean 'rgb'"),
        ({"interpolation": "bilinaer"}, "Did you mean 'bilinear'"),
        ({"validation_split": 0.2}, "go together"),
        ({"validation_split": 2, "subset": "training"}, "below 1"),
        ({"validation_split": 0.2, "subset": "training"}, "`seed` is needed"),
        ({"labels": [1, 2]}, "a label for each of the 10 files; got 2"),
        ({"class_names": ["cats"]}, "must be the folders"),
        ({"image_size": (1, 2, 3)}, "the height and the width"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], words: str, pictures: Path) -> None:
    with pytest.raises(ValueError, match=words):
        image_dataset_from_directory(**{"directory": pictures, "verbose": False, **arguments})


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    data = image_dataset_from_directory(tmp_path, labels=None, verbose=False)
    with pytest.raises(ValueError, match=r"broken\.png is not a picture"):
        list(data)
    (tmp_path / "broken.png").unlink()
    with pytest.raises(ValueError, match="There are no files .*labels=None"):
        image_dataset_from_directory(tmp_path, verbose=False)


def test_windows_and_their_targets() -> None:
    data, targets = np.arange(20.0), np.arange(20.0) * 10
    batches = list(timeseries_dataset_from_array(data, targets, 4, sequence_stride=3, sampling_rate=2, batch_size=3))
    assert next(x.tolist() for x, _ in batches) == [[0, 2, 4, 6], [3, 5, 7, 9], [6, 8, 10, 12]]
    assert torch.cat([y for _, y in batches]).tolist() == [0, 30, 60, 90, 120]
    windows = list(timeseries_dataset_from_array(data, None, 2, start_index=10, end_index=13, batch_size=None))
    assert [window.tolist() for window in windows] == [[10, 11], [11, 12]]
    with pytest.raises(ValueError, match="`format` must be 'torch', or left out; got 'arrow'"):
        timeseries_dataset_from_array(data, None, 2, format="arrow")
    forecast = timeseries_dataset_from_array(data[:-3], data[3:], sequence_length=3, batch_size=None)
    assert all(float(aim) == float(window[-1]) + 1 for window, aim in forecast)
    order = [
        [float(x[0]) for x in timeseries_dataset_from_array(data, None, 2, batch_size=None, shuffle=True, seed=seed)]
        for seed in (1, 1, 2)
    ]
    assert order[0] == order[1] != order[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sequence_length": 30}, "longer than the series"),
        ({"sampling_rate": 20}, "below the length"),
        ({"sequence_stride": 0}, "sequence_stride"),
        ({"start_index": 5, "end_index": 3}, "in order"),
    ],
)
def test_windows_that_cant_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        timeseries_dataset_from_array(np.arange(10), None, **{"sequence_length": 3, **arguments})


# Of Keras 1 and 2 ----------------------------------------------------------------------------------------------------


def test_pictures_are_changed_and_train(pictures: Path) -> None:
    from oncue.preprocessing.image import ImageDataGenerator

    changed = ImageDataGenerator(rescale=1 / 255, rotation_range=20, horizontal_flip=True, validation_split=0.2)
    options: dict[str, Any] = {"target_size": (8, 8), "batch_size": 4, "class_mode": "binary"}
    train = changed.flow_from_directory(str(pictures), subset="training", **options)
    held = changed.flow_from_directory(str(pictures), subset="validation", **options)
    assert train.class_indices == {"cats": 0, "dogs": 1} and (train.samples, held.samples) == (8, 2)
    model = keras.Sequential([keras.layers.Flatten(input_shape=(8, 8, 3)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    history = model.fit_generator(
        train, steps_per_epoch=2, epochs=2, validation_data=held, validation_steps=1, verbose=0
    )
    assert len(history.history["val_acc"]) == 2
    arrays = changed.flow(np.random.rand(6, 8, 8, 3), np.zeros(6), batch_size=2)
    assert len(model.fit(arrays, epochs=1, verbose=0).history["loss"]) == 1
    assert next(arrays)[0].shape == (2, 8, 8, 3)


def test_frames_of_files_train(pictures: Path) -> None:
    pandas = pytest.importorskip("pandas")
    from oncue.preprocessing.image import ImageDataGenerator

    frame = pandas.DataFrame({"filename": ["cats/0.png", "dogs/0.png"], "class": ["a", "b"]})
    flow = ImageDataGenerator().flow_from_dataframe(frame, str(pictures), target_size=(4, 4), batch_size=2)
    x, y = next(flow)
    assert x.shape == (2, 4, 4, 3) and y.sum() == 2


def test_texts_become_numbers() -> None:
    from oncue.keras.preprocessing.sequence import pad_sequences
    from oncue.keras.preprocessing.text import Tokenizer, one_hot, text_to_word_sequence

    tokenizer = Tokenizer(num_words=10, oov_token="?")
    tokenizer.fit_on_texts(["the cat sat", "the dog sat down"])
    numbers = tokenizer.texts_to_sequences(["the bird sat"])
    assert numbers == [[tokenizer.word_index["the"], 1, tokenizer.word_index["sat"]]]
    assert pad_sequences(numbers, maxlen=5).tolist() == [[0, 0, *numbers[0]]]
    assert tokenizer.texts_to_matrix(["the cat"]).shape == (1, 10)
    assert text_to_word_sequence("The cat, sat!") == ["the", "cat", "sat"]
    assert len(one_hot("the cat", 50)) == 2


def test_series_become_windows() -> None:
    from oncue.preprocessing.sequence import TimeseriesGenerator

    generator = TimeseriesGenerator(np.arange(10.0), np.arange(10.0), length=3, batch_size=2)
    x, y = generator[0]
    assert x.tolist() == [[0, 1, 2], [1, 2, 3]] and y.tolist() == [3, 4]
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(3,))])
    model.compile("sgd", "mse")
    assert len(model.fit_generator(generator, verbose=0).history["loss"]) == 1


def test_old_helpers_warn_with_todays_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.legacy.warning._warned", set())
    with pytest.warns(DeprecationWarning, match="image_dataset_from_directory"):
        keras.preprocessing.image.ImageDataGenerator()


def test_what_a_helper_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from oncue.legacy import preprocessing

    monkeypatch.setattr(preprocessing, "find_spec", lambda name: None)
    for name, needed in (("ImageDataGenerator", "PIL"), ("random_rotation", "scipy")):
        with pytest.raises(ImportError, match=rf"`{name}` needs {needed}, .* `pip install 'oncue\[preprocessing\]'`"):
            getattr(preprocessing, name)


def test_importing_it_imports_no_keras() -> None:
    script = """
import sys
import oncue.preprocessing.image, oncue.preprocessing.text
assert "keras" not in sys.modules and "torch" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
