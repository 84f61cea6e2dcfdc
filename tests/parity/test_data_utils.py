"""Data, as the real Keras feeds it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from helpers import batches_of
from oncue.feeding.batches import class_weight_to_sample_weights, split_validation
from oncue.utils.numerical import normalize, to_categorical
from oncue.utils.py_dataset import PyDataset


@pytest.fixture
def seen(keras: ModuleType) -> Any:
    """Return what the real Keras hands to `train_step`: a function of the arguments of `fit`."""

    class Spy(keras.Model):  # type: ignore[misc,name-defined]  # Keras is not typed
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[Any] = []

        def call(self, x: Any) -> Any:
            return x

        def train_step(self, data: Any) -> dict[str, Any]:
            self.batches.append(keras.utils.unpack_x_y_sample_weight(data))
            return {}

        def compute_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {}

    def fit(*args: Any, **options: Any) -> list[Any]:
        model = Spy()
        model.compile(optimizer="sgd", run_eagerly=True)
        model.built = True
        model.fit(*args, verbose=0, **options)
        return [[None if part is None else part.tolist() for part in batch] for batch in model.batches]

    return fit


def ours(*args: Any, epochs: int = 1, **options: Any) -> list[Any]:
    batches = batches_of(*args, **options)
    return [
        [None if part is None else part.tolist() for part in batch] for _ in range(epochs) for batch in batches.epoch()
    ]


X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10) % 3


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 4},
        {"batch_size": 3, "epochs": 2},
        {"steps_per_epoch": 4},
        {"steps_per_epoch": 3},
        {"batch_size": 2, "steps_per_epoch": 5},
        {"class_weight": {0: 0.5, 2: 3.0}},
        {"sample_weight": np.linspace(0.1, 1, 10)},
    ],
    ids=str,
)
def test_arrays(seen: Any, options: dict[str, Any]) -> None:
    translated = {{"steps_per_epoch": "steps"}.get(name, name): value for name, value in options.items()}
    assert ours(X, Y, **translated) == seen(X, Y, shuffle=False, **options)


def test_steps_that_divide_the_pass(seen: Any) -> None:
    theirs = seen(X, Y, shuffle=False, batch_size=1, steps_per_epoch=5, epochs=4)
    assert ours(X, Y, batch_size=1, steps=5, epochs=4) == theirs


def test_shuffling_visits_the_same_rows(seen: Any) -> None:
    theirs, mine = seen(X, Y, batch_size=4), ours(X, Y, batch_size=4, shuffle=True)
    assert [len(x) for x, _, _ in theirs] == [len(x) for x, _, _ in mine]
    assert sorted(row for x, _, _ in theirs for row in x) == sorted(row for x, _, _ in mine for row in x)


def test_a_generator(seen: Any) -> None:
    def generate() -> Any:
        for n in range(6):
            yield X[n : n + 2], Y[n : n + 2]

    assert ours(generate(), steps=3, epochs=2) == seen(generate(), steps_per_epoch=3, epochs=2)


def test_a_data_set_of_keras_and_ours_in_both(keras: ModuleType, seen: Any) -> None:
    def numbers(base: type) -> Any:
        class Numbers(base):  # type: ignore[misc,valid-type]  # a base chosen at run time
            def __len__(self) -> int:
                return 5

            def __getitem__(self, index: int) -> Any:
                return X[2 * index : 2 * index + 2], Y[2 * index : 2 * index + 2]

        return Numbers

    theirs = numbers(keras.utils.PyDataset)
    expected = seen(theirs(), shuffle=False)
    assert ours(theirs()) == ours(theirs(workers=2)) == ours(numbers(PyDataset)()) == expected
    shuffled = ours(theirs(workers=2, use_multiprocessing=False), shuffle=True)
    assert sorted(map(str, shuffled)) == sorted(map(str, expected))


@pytest.mark.parametrize("samples", [3, 7, 10, 24, 99])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 1 / 3, 0.5, 0.9])
def test_validation_split(keras: ModuleType, samples: int, share: float) -> None:
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    x = np.arange(samples)
    try:
        (train, _), (held_out, _) = train_validation_split((x, x), share)
    except ValueError:
        with pytest.raises(ValueError, match="validation_split"):
            split_validation(x, x, validation_split=share)
        return
    got_train, got_held_out = split_validation(x, x, validation_split=share)
    assert got_train[0].tolist() == np.asarray(train).tolist()
    assert got_held_out[0].tolist() == np.asarray(held_out).tolist()


@pytest.mark.parametrize(
    "y", [[0, 1, 2, 5], [[0], [1], [2], [5]], [0.0, 0.9, 2.2, 5.0], np.eye(6)[[0, 1, 2, 5]], [-1, 0, 1, 2]], ids=str
)
def test_class_weights(keras: ModuleType, y: Any) -> None:
    from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights as theirs

    weights = {0: 0.5, 1: 2.0, 5: 3.0, 4: 7.0}
    assert class_weight_to_sample_weights(y, weights).tolist() == theirs(np.asarray(y), weights).tolist()


@pytest.mark.parametrize("labels", [[0, 1, 2], [[0], [2]], [[0, 1], [2, 3]], 3, [[[1]]]], ids=str)
@pytest.mark.parametrize("classes", [None, 5])
def test_to_categorical(keras: ModuleType, labels: Any, classes: int | None) -> None:
    expected, got = keras.utils.to_categorical(labels, classes), to_categorical(labels, classes)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize(("axis", "order"), [(-1, 2), (1, 1), (-1, np.inf), (1, 3)])
def test_normalize(keras: ModuleType, axis: int, order: float) -> None:
    x = np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 2.0]])
    assert np.allclose(normalize(x, axis, order), keras.utils.normalize(x, axis, order))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((X, Y[:4]), {}),
        ((X, Y), {"class_weight": {0: 1.0}, "sample_weight": np.ones(10)}),
        ((X, (Y, Y)), {"class_weight": {0: 1.0}}),
        ((iter([]),), {}),
        ((object(),), {}),
    ],
)
def test_both_refuse(seen: Any, arguments: Any, options: Any) -> None:
    with pytest.raises(ValueError):  # the texts differ
        seen(*arguments, **options)
    with pytest.raises(ValueError):
        ours(*arguments, **options)
