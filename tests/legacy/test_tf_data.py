"""The modest `tf.data.Dataset`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import oncue as tf
from helpers import to_numpy


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def numbers(data: Any) -> list[Any]:
    return [to_numpy(element).tolist() for element in data]


def test_a_pipeline_trains_and_measures() -> None:
    x, y = np.random.rand(50, 4).astype("float32"), np.arange(50) % 3
    train = (
        tf.data.Dataset.from_tensor_slices((x, y))
        .cache()
        .shuffle(50, seed=3)
        .map(lambda x, y: (x * 2.0, y), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(16)
        .prefetch(tf.data.experimental.AUTOTUNE)
    )
    assert len(train) == 4
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, activation="softmax", input_shape=(4,))])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    seen = []
    counter = tf.keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    history = model.fit(train, epochs=2, validation_data=train.take(2), verbose=0, callbacks=[counter])
    assert seen == [0, 1, 2, 3] * 2
    assert len(history.history["val_accuracy"]) == 2
    assert model.predict(train.map(lambda x, y: x), verbose=0).shape == (50, 3)


def test_without_an_end_the_steps_are_told() -> None:
    data = tf.data.Dataset.from_tensor_slices((np.ones((6, 2), "float32"), np.ones(6, "float32"))).repeat().batch(4)
    model = tf.keras.Sequential([tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    assert len(model.fit(data, steps_per_epoch=3, epochs=2, verbose=0).history["loss"]) == 2


def test_slices_ranges_and_generators() -> None:
    from oncue.data import Dataset

    assert numbers(Dataset.from_tensor_slices([1, 2, 3])) == [1, 2, 3]
    assert numbers(Dataset.range(2, 8, 3)) == [2, 5]
    made = Dataset.from_generator(lambda: iter([(1, 2), (3, 4)]), output_types=(tf.float32, tf.int64))
    kinds = [(x.dtype, y.dtype) for x, y in made]
    assert kinds == [(torch.float32, torch.int64)] * 2
    (element,) = Dataset.from_tensor_slices({"a": [1.0], "b": ([2], [3])})
    assert (float(element["a"]), int(element["b"][1])) == (1.0, 3)
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        Dataset.from_tensor_slices(([1, 2], [1, 2, 3]))
    files = Dataset.from_tensor_slices((["a", "bcd"], [0, 1])).map(lambda path, label: (len(path), label)).batch(2)
    assert [(sizes.tolist(), labels.tolist()) for sizes, labels in files] == [([1, 3], [0, 1])]
    with pytest.raises(ValueError, match="numbers or text"):
        Dataset.from_tensor_slices([None, None])


def test_steps_and_their_lengths() -> None:
    data = tf.data.Dataset.range(7)
    for made, expected in (
        (data.batch(3), [[0, 1, 2], [3, 4, 5], [6]]),
        (data.batch(3, drop_remainder=True), [[0, 1, 2], [3, 4, 5]]),
        (data.take(2), [0, 1]),
        (data.skip(5), [5, 6]),
        (data.take(2).repeat(2), [0, 1, 0, 1]),
        (data.repeat().take(8), [0, 1, 2, 3, 4, 5, 6, 0]),
        (data.take(1).concatenate(data.skip(6)), [0, 6]),
        (data.map(lambda x: x + 1), [1, 2, 3, 4, 5, 6, 7]),
    ):
        assert numbers(made) == expected
        assert len(made) == len(expected)
    assert numbers(data.filter(lambda x: x % 2 == 0)) == [0, 2, 4, 6]
    assert numbers(data.batch(2).unbatch()) == list(range(7))
    assert [(int(x), int(y)) for x, y in tf.data.Dataset.zip((data, data.skip(5)))] == [(0, 5), (1, 6)]
    assert [int(at) for at, _ in data.enumerate(3)][:2] == [3, 4]
    assert data.repeat().cardinality() == -1
    assert data.filter(lambda x: True).cardinality() == -2
    with pytest.raises(TypeError, match="no end"):
        len(data.repeat())


def test_shuffling_is_by_a_buffer_and_a_seed() -> None:
    data = tf.data.Dataset.range(20)
    shuffled = data.shuffle(20, seed=1)
    first, second = numbers(shuffled), numbers(shuffled)
    assert sorted(first) == list(range(20)) and first != list(range(20)) and first != second
    again = data.shuffle(20, seed=1)
    assert numbers(again) == first
    same = data.shuffle(20, reshuffle_each_iteration=False)
    assert numbers(same) == numbers(same)
    assert numbers(data.shuffle(2))[0] in (0, 1)
    tf.random.set_seed(5)
    unseeded = numbers(data.shuffle(20))
    tf.random.set_seed(5)
    assert numbers(data.shuffle(20)) == unseeded
    with pytest.raises(ValueError, match="buffer_size"):
        data.shuffle(0)


def test_a_cache_reads_once() -> None:
    reads = []
    data = tf.data.Dataset.range(3).map(lambda x: reads.append(1) or x).cache()
    assert numbers(data) == numbers(data) == [0, 1, 2]
    assert len(reads) == 3
    with pytest.raises(ValueError, match="memory only"):
        data.cache("file")


def test_what_is_not_here_is_named() -> None:
    data = tf.data.Dataset.range(3)
    with pytest.raises(AttributeError, match="timeseries_dataset_from_array"):
        data.window(2)
    with pytest.raises(AttributeError, match="nothing_such"):
        data.nothing_such()
    with pytest.raises(ValueError, match="can't stack"):
        list(data.map(lambda x: torch.ones(int(x) + 1)).batch(2))
