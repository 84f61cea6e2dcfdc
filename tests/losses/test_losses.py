"""Losses: what may be given, how values are reduced, and how losses are found."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import tensor
from oncue import losses


class NoReads(TorchDispatchMode):
    """Fails when a value is read from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.equal,
        ), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


class Squared(losses.Loss):
    """A loss as users write it."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return ((y_true - y_pred) ** 2).mean(-1)


def test_a_subclass_gets_floats_and_is_reduced() -> None:
    seen: list[torch.dtype] = []

    class Watched(Squared):
        def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
            seen.extend([y_true.dtype, y_pred.dtype])
            return super().call(y_true, y_pred)

    value = Watched()(np.array([[0], [1]]), torch.tensor([[2.0], [1.0]], dtype=torch.float64), [1.0, 5.0])
    assert seen == [torch.float32, torch.float32]
    assert value.item() == 2.0


def test_a_subclass_may_take_several_outputs() -> None:
    class Both(losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Tensor:
            return (y_true["a"] - y_pred["a"]).abs().sum(-1) + (y_true["b"] - y_pred["b"]).abs().sum(-1)

    ones, zeros = torch.ones(2, 3), torch.zeros(2, 3)
    assert Both()({"a": ones, "b": ones}, {"a": zeros, "b": ones}).item() == 3.0


def test_automatic_names_are_counted() -> None:
    from oncue import naming

    naming.reset()
    assert [Squared().name, Squared().name] == ["squared", "squared_1"]
    assert losses.MeanSquaredError().name == "mean_squared_error"


@pytest.mark.parametrize("reduction", ["average", "avg", 3])
def test_a_wrong_reduction_is_refused(reduction: Any) -> None:
    with pytest.raises(ValueError, match="reduction"):
        losses.MeanSquaredError(reduction=reduction)


def test_text_labels_are_refused() -> None:
    with pytest.raises(TypeError, match=r"y_true.*must hold numbers.*LabelEncoder"):
        losses.MeanSquaredError()(np.array(["cat", "dog"]), torch.zeros(2))


def test_a_vector_is_taken_for_a_column_and_never_spread_over_a_square() -> None:
    y = torch.tensor([1.0, 2.0, 3.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("mse", "mae", "huber", "log_cosh"):
            loss = losses.get(name)
            assert loss is not None
            assert loss(y, y[:, None]).abs().sum().item() == pytest.approx(0.0, abs=1e-6)
        assert losses.MeanSquaredError()(y, y[:, None]).item() == 0.0
        assert losses.BinaryCrossentropy()(torch.tensor([0.0, 1.0]), torch.tensor([[0.0], [1.0]])).item() < 1e-5


def test_a_function_that_returns_a_scalar() -> None:
    loss = losses.LossFunctionWrapper(lambda y_true, y_pred: (y_true - y_pred).abs().sum())
    assert loss(torch.ones(4), torch.zeros(4)).item() == 4.0


def test_functions_of_the_user_get_floats_wherever_they_are_defined() -> None:
    given: list[torch.dtype] = []

    def mean_squared_error(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
        given.append(y_true.dtype)
        return (y_true - y_pred).abs()

    mean_squared_error.__module__ = "oncue.losses.regression"
    loss = losses.LossFunctionWrapper(mean_squared_error)
    assert loss(torch.ones(2, 1, dtype=torch.int64), torch.full((2, 1), 3.0)).item() == 2.0
    assert given == [torch.float32]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_low_precision_predictions_are_computed_in_float32(dtype: torch.dtype) -> None:
    prediction = torch.rand(8, 3).to(dtype).requires_grad_()
    value = losses.CategoricalCrossentropy()(torch.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]], prediction)
    value.backward()
    assert value.dtype == torch.float32
    assert prediction.grad is not None and prediction.grad.dtype == dtype


def test_binary_crossentropy_inside_autocast() -> None:
    y_true, y_pred = tensor(torch.ones(4, 1)), tensor(torch.full((4, 1), 0.5))
    with torch.autocast(y_pred.device.type, dtype=torch.bfloat16):
        assert losses.BinaryCrossentropy()(y_true, y_pred).item() == pytest.approx(0.6931, abs=1e-4)


def test_a_mask_without_a_valid_entry_gives_zero() -> None:
    prediction = torch.rand(3, 2)
    prediction._keras_mask = torch.zeros(3, dtype=torch.bool)  # type: ignore[attr-defined]
    assert losses.MeanSquaredError()(torch.zeros(3, 2), prediction).item() == 0.0


EVERY = [
    ("MeanSquaredError", "float"),
    ("MeanAbsoluteError", "float"),
    ("MeanAbsolutePercentageError", "float"),
    ("MeanSquaredLogarithmicError", "float"),
    ("LogCosh", "float"),
    ("Huber", "float"),
    ("CosineSimilarity", "float"),
    ("BinaryCrossentropy", "float"),
    ("BinaryFocalCrossentropy", "float"),
    ("CategoricalCrossentropy", "float"),
    ("CategoricalFocalCrossentropy", "float"),
    ("SparseCategoricalCrossentropy", "labels"),
    ("KLDivergence", "float"),
    ("Poisson", "float"),
    ("Hinge", "float"),
    ("SquaredHinge", "float"),
    ("CategoricalHinge", "float"),
    ("Dice", "float"),
    ("Tversky", "float"),
]


@pytest.mark.parametrize(("name", "kind"), EVERY)
def test_nothing_is_read_from_the_device(name: str, kind: str) -> None:
    y_true = torch.rand(6, 3) if kind == "float" else torch.tensor([0, 1, 2, 0, 1, 2])
    y_pred = torch.rand(6, 3, requires_grad=True)
    weights = torch.rand(6)
    masked = torch.rand(6, 3, requires_grad=True)
    masked._keras_mask = torch.tensor([True, False] * 3)  # type: ignore[attr-defined]
    loss = getattr(losses, name)()
    with NoReads():
        loss(y_true, y_pred).backward()
        loss(y_true, y_pred, weights).backward()
        if name not in ("Dice", "Tversky"):
            loss(y_true, masked, weights).backward()


def test_sparse_crossentropy_makes_nothing_of_the_size_of_one_hot() -> None:
    made: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                made.append(out.numel())
            return out

    y_pred, labels = torch.rand(10, 1000), torch.arange(10)
    with Sizes():
        losses.SparseCategoricalCrossentropy()(labels, y_pred)
    assert max(made) <= 10


class TestGet:
    def test_aliases_of_all_generations(self) -> None:
        assert losses.get("mse") is losses.get("MSE") is losses.mean_squared_error
        assert losses.get("kullback_leibler_divergence") is losses.kl_divergence
        assert losses.get("cosine_proximity") is losses.cosine_similarity
        assert losses.get("logcosh") is losses.log_cosh
        assert isinstance(losses.get("Huber"), losses.Huber)
        assert isinstance(losses.get(losses.Huber), losses.Huber)
        assert losses.get(None) is None

    def test_an_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(ValueError, match=r"categorical_crosentropy.*Did you mean 'categorical_crossentropy'"):
            losses.get("categorical_crosentropy")

    @pytest.mark.parametrize("thing", [3, [1], object()])
    def test_what_is_no_loss_is_refused(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="must be a name such as 'mse'"):
            losses.get(thing)

    def test_a_description_comes_back_with_its_options(self) -> None:
        loss = losses.deserialize(losses.serialize(losses.Huber(delta=0.25, name="mine", reduction="sum")))
        assert (loss.delta, loss.name, loss.reduction) == (0.25, "mine", "sum")
        assert losses.deserialize(losses.serialize(losses.mean_absolute_error)) is losses.mean_absolute_error

    def test_custom_objects(self) -> None:
        written = losses.serialize(Squared(name="mine"))
        with pytest.raises(ValueError, match="Squared"):
            losses.deserialize(written)
        assert isinstance(losses.deserialize(written, {"Squared": Squared}), Squared)


def test_weights_have_an_axis_for_each_of_the_losses() -> None:
    # As many steps as samples: broadcasting would weigh the steps.
    y_true, y_pred = tensor([[[1.0], [0.0]], [[0.0], [0.0]]]), tensor([[[0.0], [0.0]], [[0.0], [3.0]]])
    loss = losses.MeanSquaredError()
    assert float(loss(y_true, y_pred, sample_weight=[1.0, 0.0])) == 0.25
    assert float(loss(y_true, y_pred, sample_weight=[[1.0, 0.0], [0.0, 1.0]])) == 2.5
    assert float(loss(y_true, y_pred, sample_weight=[[1.0], [0.0]])) == 0.25
    for weights in ([1.0, 2.0, 3.0], [[1.0, 2.0, 3.0]] * 2, [[[[1.0]]], [[[1.0]]]]):
        with pytest.raises(ValueError, match="`sample_weight` of shape"):
            loss(y_true, y_pred, sample_weight=weights)
