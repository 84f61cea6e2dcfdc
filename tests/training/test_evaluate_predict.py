"""evaluate and predict: what they return, for any form of data and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import oncue
from oncue.callbacks import LambdaCallback

RNG = np.random.default_rng(5)
X = RNG.normal(size=(25, 3)).astype("float32")
Y = RNG.normal(size=(25, 1)).astype("float32")


def model(**options: Any) -> Any:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    made.compile(**{"optimizer": "sgd", "loss": "mse", **options})
    return made


def by_hand(made: Any, x: Any = X) -> Any:
    kernel, bias = made.get_weights()
    return x @ kernel + bias


def test_evaluate_without_metrics_is_a_float() -> None:
    made = model()
    value = made.evaluate(X, Y, verbose=0)
    assert type(value) is float
    np.testing.assert_allclose(value, np.mean((by_hand(made) - Y) ** 2), rtol=1e-5)


def test_evaluate_with_metrics_is_a_list_with_the_loss_first() -> None:
    made = model(metrics=["mae", "mse"])
    values = made.evaluate(X, Y, verbose=0)
    difference = by_hand(made) - Y
    expected = [np.mean(difference**2), np.mean(np.abs(difference)), np.mean(difference**2)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert made.metrics_names == ["loss", "mae", "mse"]
    named = made.evaluate(X, Y, verbose=0, return_dict=True)
    assert named == dict(zip(made.metrics_names, values, strict=True))


def test_means_do_not_depend_on_the_batch_size() -> None:
    made = model(metrics=["mae"])
    for size in (1, 7, 25, 100):
        np.testing.assert_allclose(
            made.evaluate(X, Y, batch_size=size, verbose=0), made.evaluate(X, Y, verbose=0), rtol=1e-5
        )


def test_sample_weights() -> None:
    made = model(weighted_metrics=["mae"])
    weight = np.linspace(0, 2, 25)
    loss, mae = made.evaluate(X, Y, sample_weight=weight, verbose=0)
    difference = (by_hand(made) - Y)[:, 0]
    np.testing.assert_allclose(loss, np.mean(weight * difference**2), rtol=1e-5)
    np.testing.assert_allclose(mae, np.sum(weight * np.abs(difference)) / weight.sum(), rtol=1e-5)


def test_steps_take_only_so_many_batches() -> None:
    made = model()
    some = made.evaluate(X, Y, batch_size=5, steps=2, verbose=0)
    np.testing.assert_allclose(some, np.mean((by_hand(made)[:10] - Y[:10]) ** 2), rtol=1e-5)
    assert made.predict(X, batch_size=5, steps=3, verbose=0).shape == (15, 1)


def test_evaluate_changes_nothing() -> None:
    made = model()
    before = made.get_weights()
    made.train()
    made.evaluate(X, Y, verbose=0)
    assert made.training
    for old, new in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_predict_is_the_output_of_all_samples_in_order() -> None:
    made = model()
    predicted = made.predict(X, batch_size=4, verbose=0)
    assert type(predicted) is np.ndarray and predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, by_hand(made), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.predict_on_batch(X), predicted, rtol=1e-6)


@pytest.mark.parametrize("form", ["list", "tensor", "loader", "generator"])
def test_predict_of_any_data(form: str) -> None:
    made = model()
    x = {
        "list": lambda: X.tolist(),
        "tensor": lambda: torch.from_numpy(X),
        "loader": lambda: torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.from_numpy(X)), batch_size=4
        ),
        "generator": lambda: (X[low : low + 10] for low in range(0, 25, 10)),
    }[form]()
    np.testing.assert_allclose(made.predict(x, verbose=0), by_hand(made), rtol=1e-5, atol=1e-6)


class Outputs(torch.nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> Any:
        a, b = x * self.scale, x[:, 0]
        return {
            "tuple": (a, b),
            "list": [a, b],
            "dict": {"z": a, "b": b},
            "nested": {"z": a, "rest": [b, (b, a)]},
        }[self.form]


@pytest.mark.parametrize("form", ["tuple", "list", "dict", "nested"])
def test_predict_keeps_the_form_of_the_outputs(form: str) -> None:
    predicted = oncue.Model(Outputs(form)).predict(X, batch_size=10, verbose=0)
    if form in ("tuple", "list"):
        assert type(predicted).__name__ == form
        found = list(predicted)
    elif form == "dict":
        assert list(predicted) == ["z", "b"]
        found = [predicted["z"], predicted["b"]]
    else:
        assert list(predicted) == ["z", "rest"]
        np.testing.assert_array_equal(predicted["rest"][1][1], X)
        np.testing.assert_array_equal(predicted["rest"][1][0], X[:, 0])
        found = [predicted["z"], predicted["rest"][0]]
    np.testing.assert_array_equal(found[0], X)
    np.testing.assert_array_equal(found[1], X[:, 0])


def test_predict_keeps_no_graph_and_computes_no_gradient() -> None:
    seen: list[bool] = []
    listener = LambdaCallback(on_predict_batch_end=lambda batch, logs: seen.append(logs["outputs"].requires_grad))
    model().predict(X, verbose=0, callbacks=[listener])
    assert seen == [False]


def test_bfloat16_outputs_arrive_as_float32() -> None:
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.bfloat16()

    assert oncue.Model(Half()).predict(X, verbose=0).dtype == np.float32


def test_an_overridden_predict_step_and_test_step() -> None:
    class Mine(oncue.Sequential):
        def predict_step(self, data: Any) -> Any:
            return self(data) * 0 + 5

        def test_step(self, data: Any) -> dict[str, Any]:
            x, y = data
            return {"rows": float(len(x)), "right": torch.tensor(1.0)}

    made = Mine([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    made.compile(optimizer="sgd", loss="mse")
    assert (made.predict(X, verbose=0) == 5).all()
    assert made.evaluate(X, Y, batch_size=25, verbose=0, return_dict=True) == {"right": 1.0, "rows": 25.0}


def test_stopping_early_returns_what_was_done() -> None:
    made = model()
    stop_test = LambdaCallback(on_test_batch_end=lambda batch, logs: setattr(made, "stop_evaluating", batch == 1))
    some = made.evaluate(X, Y, batch_size=5, verbose=0, callbacks=[stop_test])
    np.testing.assert_allclose(some, np.mean((by_hand(made)[:10] - Y[:10]) ** 2), rtol=1e-5)
    np.testing.assert_allclose(made.evaluate(X, Y, verbose=0), np.mean((by_hand(made) - Y) ** 2), rtol=1e-5)
    stop_predict = LambdaCallback(on_predict_batch_end=lambda batch, logs: setattr(made, "stop_predicting", True))
    assert made.predict(X, batch_size=5, verbose=0, callbacks=[stop_predict]).shape == (5, 1)
    assert made.predict(X, batch_size=5, verbose=0).shape == (25, 1)
