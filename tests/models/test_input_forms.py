"""One array, several, nested or named: every method of a model takes them as Keras does, or says what to pass instead."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import oncue as keras
from helpers import normal, tensor
from oncue import layers as L
from oncue.nested import map_leaves

X, V = normal(16, 4), normal(16, 2, seed=1)
Y = X.sum(axis=1, keepdims=True) + V[:, :1]


def sequential() -> Any:
    return keras.Sequential([keras.Input((4,), name="u"), L.Dense(1)])


def joining() -> Any:
    return keras.Sequential([L.Concatenate(), L.Dense(1)])


def single() -> Any:
    u = keras.Input((4,), name="u")
    return keras.Model(u, L.Dense(1)(u))


def pair(form: Callable[[Any, Any], Any]) -> Any:
    u, v = keras.Input((4,), name="u"), keras.Input((2,), name="v")
    return keras.Model(form(u, v), L.Dense(1)(L.Concatenate()([u, v])))


class Added(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 1), nn.Linear(2, 1)


class TakesTwo(Added):
    def forward(self, u: torch.Tensor, v: torch.Tensor | None = None) -> torch.Tensor:
        return self.a(u) + self.b(u[:, :2] if v is None else v)


class TakesDict(Added):
    def forward(self, batch: dict[str, torch.Tensor], scale: float = 1.0) -> torch.Tensor:
        return (self.a(batch["u"]) + self.b(batch["v"])) * scale


class TakesList(Added):
    def forward(self, parts: list[torch.Tensor]) -> torch.Tensor:
        assert isinstance(parts, (list, tuple))
        return self.a(parts[0]) + self.b(parts[1])


class TakesAny(Added):
    def forward(self, *parts: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        u, v = parts or (named["u"], named["v"])
        return self.a(u) + self.b(v)


def wrapped(module: Callable[[], nn.Module]) -> Callable[[], Any]:
    return lambda: keras.Model(module())


RIGHT: dict[str, tuple[Callable[[], Any], Any]] = {
    "sequential, list": (sequential, [X]),
    "sequential, tuple": (sequential, (X,)),
    "sequential, dict": (sequential, {"u": X}),
    "sequential, dict with more": (sequential, {"v": V, "u": X}),
    "a first layer that joins": (joining, [X, V]),
    "a first layer that joins one": (joining, (X,)),
    "functional, list": (single, [X]),
    "functional, dict": (single, {"u": X}),
    "two, list": (lambda: pair(lambda u, v: [u, v]), [X, V]),
    "two, tuple": (lambda: pair(lambda u, v: [u, v]), (X, V)),
    "two, dict by names": (lambda: pair(lambda u, v: [u, v]), {"v": V, "u": X}),
    "dict": (lambda: pair(lambda u, v: {"a": u, "b": v}), {"b": V, "a": X}),
    "nested": (lambda: pair(lambda u, v: [u, {"k": v}]), [X, {"k": V}]),
    "module, tensor": (wrapped(TakesTwo), X),
    "module, list of one": (wrapped(TakesTwo), [X]),
    "module, list": (wrapped(TakesTwo), [X, V]),
    "module, keywords": (wrapped(TakesTwo), {"v": V, "u": X}),
    "module, dict": (wrapped(TakesDict), {"v": V, "u": X}),
    "module, whole list": (wrapped(TakesList), [X, V]),
    "module, whole tuple": (wrapped(TakesList), (X, V)),
    "module, *args": (wrapped(TakesAny), (X, V)),
    "module, **kwargs": (wrapped(TakesAny), {"v": V, "u": X}),
    "module in DataParallel, whole list": (wrapped(lambda: nn.DataParallel(TakesList())), [X, V]),
}


@pytest.mark.filterwarnings("ignore:The model takes .* is left out")
@pytest.mark.parametrize("case", RIGHT)
def test_every_method_takes_it(case: str) -> None:
    make, x = RIGHT[case]
    model = make()
    expected = model.predict(x, verbose=0)
    assert expected.shape == (16, 1)
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-5, atol=1e-6)
    called = model(map_leaves(tensor, x)).detach()
    np.testing.assert_allclose(np.asarray(called.cpu()), expected, rtol=1e-5, atol=1e-6)
    model.compile("sgd", "mse")
    loss = float(((expected - Y) ** 2).mean())
    assert model.evaluate(x, Y, verbose=0) == pytest.approx(loss, rel=1e-4)
    assert model.test_on_batch(x, Y) == pytest.approx(loss, rel=1e-4)
    assert model.train_on_batch(x, Y) == pytest.approx(loss, rel=1e-4)
    batches = DataLoader(
        [(map_leaves(lambda part, row=row: torch.tensor(part[row]), x), Y[row]) for row in range(16)], 8
    )  # type: ignore[var-annotated,arg-type]
    model.fit(x, Y, validation_data=(x, Y), verbose=0)
    model.fit(batches, validation_data=batches, verbose=0)


def test_what_torch_compiles_is_called_as_the_module_inside() -> None:
    model = keras.Model(torch.compile(TakesDict(), backend="eager"))
    assert model.predict({"v": V, "u": X}, verbose=0).shape == (16, 1)


WRONG: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "sequential, two": (sequential, [X, X], r"takes 1 input \(u\); got 2"),
    "sequential, wrong key": (
        sequential,
        {"w": X},
        r"'u' is missing.*'w'.*Pass what 'w' holds alone, without a dict, or name",
    ),
    "sequential, nothing": (sequential, [], "`x` holds no arrays"),
    "sequential, empty dict": (sequential, {}, "`x` holds no arrays"),
    "sequential, None in a dict": (sequential, {"u": None}, "`x` holds no arrays"),
    "a dense layer first, two": (
        lambda: keras.Sequential([L.Dense(1)]),
        [X, V],
        r"takes one tensor; got several.*Concatenate",
    ),
    "a dense layer first, dict": (
        lambda: keras.Sequential([L.Dense(1)]),
        {"u": X},
        "takes one tensor; got several, or one",
    ),
    "functional, one of two": (lambda: pair(lambda u, v: [u, v]), [X], r"takes 2 inputs \(u, v\); got 1"),
    "functional, wrong order": (lambda: pair(lambda u, v: [u, v]), [V, X], r"'u' expects the shape \(None, 4\)"),
    "module, a key too many": (
        wrapped(TakesTwo),
        {"u": X, "w": V},
        r"takes u, v; got a dict of 'u', 'w', of which 'w' can't",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(case: str) -> None:
    make, x, message = WRONG[case]
    for method in ("fit", "evaluate", "predict", "train_on_batch", "predict_on_batch"):
        model = make()
        model.compile("sgd", "mse")
        silent = {} if method.endswith("batch") else {"verbose": 0}
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(x, **({} if method.startswith("predict") else {"y": Y}), **silent)


def test_a_sequential_model_of_several_inputs_can_be_copied_and_saved(tmp_path: Any) -> None:
    model = joining()
    expected = model.predict([X, V], verbose=0)
    assert model.input_shape == [(None, 4), (None, 2)] and len(model.inputs) == 2
    model.save(tmp_path / "a.keras")
    for other in (copy.deepcopy(model), keras.models.load_model(tmp_path / "a.keras")):
        np.testing.assert_array_equal(other.predict([X, V], verbose=0), expected)
    copy.deepcopy(joining())


# Lists of batches -------------------------------------------------------------------------------------------------


BATCHES = [(X[:8], Y[:8]), (X[8:], Y[8:])]


def fresh() -> Any:
    keras.utils.set_random_seed(3)
    model = sequential()
    model.compile("sgd", "mse")
    return model


def test_a_list_of_batches_trains_as_a_loader_does() -> None:
    class Both(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return BATCHES[index]

    expected = fresh().fit(DataLoader(Both(), batch_size=None), epochs=3, verbose=0).history["loss"]
    weighted = [(x, y, np.ones(8, "float32")) for x, y in BATCHES]
    for batches in (BATCHES, weighted):
        assert fresh().fit(batches, epochs=3, verbose=0).history["loss"] == pytest.approx(expected)
    history = fresh().fit(BATCHES, epochs=1, verbose=0, validation_data=BATCHES).history
    assert history["loss"] == pytest.approx(expected[:1])
    assert fresh().fit(X, Y, verbose=0, validation_data=[BATCHES[0]] * 5).history["val_loss"]
    model = fresh()
    whole = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(BATCHES, verbose=0) == pytest.approx(whole)


def test_a_list_with_targets_beside_it_is_a_list_of_inputs() -> None:
    model = keras.Model(TakesTwo())
    model.compile("sgd", "mse")
    model.fit([X, V], Y, verbose=0)
    with pytest.raises(ValueError, match="`fit` needs targets `y`"):
        model.fit([X, V], verbose=0)
    with pytest.raises(ValueError, match="`validation_split` needs arrays; got `x` as a list of batches"):
        model.fit(BATCHES, validation_split=0.5, verbose=0)


def test_batches_of_dicts_say_how_to_give_targets() -> None:
    rows = [{"inputs": torch.tensor(X[row]), "labels": torch.tensor(Y[row])} for row in range(16)]

    def stream() -> Iterator[Any]:
        yield {"inputs": X, "labels": Y}

    for make in (lambda: DataLoader(rows, batch_size=8), stream):  # type: ignore[arg-type]  # a list is a data set
        for method in ("fit", "evaluate"):
            data = make()
            with pytest.raises(
                ValueError, match=r"needs targets.*\('inputs', 'labels'\).*\(inputs, batch\['labels'\]\)"
            ):
                getattr(fresh(), method)(data, verbose=0)
    with pytest.raises(ValueError, match=r"`validation_data` needs targets.*'labels'"):
        fresh().fit(X, Y, validation_data=DataLoader(rows, batch_size=8), verbose=0)  # type: ignore[arg-type]
