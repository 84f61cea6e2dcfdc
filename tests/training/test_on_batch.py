"""train_on_batch, test_on_batch, predict_on_batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor

RNG = np.random.default_rng(5)
X = RNG.normal(size=(8, 3)).astype("float32")
Y = RNG.normal(size=(8, 1)).astype("float32")


def model(**options: Any) -> Any:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dropout(0.5), oncue.layers.Dense(1)])
    made.compile(**{"optimizer": "sgd", "loss": "mse", "metrics": ["mae"], **options})
    return made


def test_results_are_floats() -> None:
    made = model(metrics=None)
    assert type(made.train_on_batch(X, Y)) is float
    assert type(made.test_on_batch(X, Y)) is float
    assert list(made.train_on_batch(X, Y, return_dict=True)) == ["loss"]


def test_results_with_metrics() -> None:
    made = model()
    loss, mae = made.test_on_batch(X, Y)
    assert made.test_on_batch(X, Y, return_dict=True) == {"loss": loss, "mae": mae}
    difference = made.predict_on_batch(X) - Y
    np.testing.assert_allclose([loss, mae], [np.mean(difference**2), np.mean(np.abs(difference))], rtol=1e-5)


def test_only_train_on_batch_changes_weights() -> None:
    made = model()
    before = [np.array(weight) for weight in made.get_weights()]
    made.test_on_batch(X, Y)
    made.predict_on_batch(X)
    np.testing.assert_array_equal(before[0], made.get_weights()[0])
    made.train_on_batch(X, Y)
    assert not np.array_equal(before[0], made.get_weights()[0])


def test_the_model_is_left_in_inference_mode() -> None:
    made = model()
    made.train_on_batch(X, Y)
    x = tensor(X)
    torch.testing.assert_close(made(x), made(x))


def test_each_call_measures_its_own_batch() -> None:
    made = model()
    first = made.test_on_batch(X[:4], Y[:4])
    second = made.test_on_batch(X[4:], Y[4:])
    assert made.test_on_batch(X[:4], Y[:4]) == first != second


def test_metrics_run_on_when_asked() -> None:
    made = model(loss="mae", metrics=["mae"])
    first = made.test_on_batch(X[:4], Y[:4])
    second = made.test_on_batch(X[4:], Y[4:])
    made.test_on_batch(X[:4], Y[:4])
    both = made.test_on_batch(X[4:], Y[4:], reset_metrics=False)
    np.testing.assert_allclose(both, (np.array(first) + np.array(second)) / 2, rtol=1e-5)


def test_the_first_call_does_not_count_a_batch_twice() -> None:
    made, other = model(), model()
    other.set_weights(made.get_weights())
    other.test_on_batch(X, Y)
    np.testing.assert_allclose(made.test_on_batch(X, Y, reset_metrics=False), other.test_on_batch(X, Y), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 8])
def test_a_batch_is_one_step_whatever_its_size(rows: int) -> None:
    made = model()
    made.train_on_batch(np.repeat(X, 10, axis=0)[:rows], np.repeat(Y, 10, axis=0)[:rows])
    assert int(made.optimizer.iterations) == 1


def test_more_rows_than_a_default_batch() -> None:
    made = model()
    made.train_on_batch(np.repeat(X, 20, axis=0), np.repeat(Y, 20, axis=0))
    assert int(made.optimizer.iterations) == 1
    assert made.predict_on_batch(np.repeat(X, 20, axis=0)).shape == (160, 1)


def test_weights_of_samples_and_classes() -> None:
    made = model(loss="mse", metrics=None)
    weighted = made.test_on_batch(X, Y, sample_weight=np.arange(8))
    difference = (made.predict_on_batch(X) - Y)[:, 0]
    np.testing.assert_allclose(weighted, np.mean(np.arange(8) * difference**2), rtol=1e-5)
    with pytest.raises(ValueError, match="class_weight"):
        made.train_on_batch(X, Y, sample_weight=np.ones(8), class_weight={0: 1.0})
