"""The losses of all outputs as one number."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch

from oncue import losses
from oncue.training.output_losses import OutputLosses

A, B = torch.ones(4, 1), torch.tensor([0, 1, 2, 0])
OUT_A, OUT_B = torch.zeros(4, 1), torch.full((4, 3), 1 / 3)
LOG3 = pytest.approx(1.0986123, rel=1e-5)


def test_one_output() -> None:
    loss = OutputLosses("mse")
    assert loss(A, OUT_A).item() == 1.0
    assert loss.metrics == []
    assert OutputLosses("mse", loss_weights=3.0)(A, OUT_A).item() == 3.0
    assert OutputLosses("mse", loss_weights=[2])(A, OUT_A).item() == 2.0
    assert OutputLosses(["mse"])(A, OUT_A, torch.tensor([1.0, 0.0, 0.0, 0.0])).item() == 0.25
    assert OutputLosses({"out": "mse"}, output_names=["out"])([A], OUT_A).item() == 1.0
    assert OutputLosses({"out": "mse"}, output_names=["out"])({"out": A}, OUT_A).item() == 1.0


def test_a_weight_that_is_a_tensor_is_read_at_every_step() -> None:
    factor = torch.tensor(3.0)
    loss, pair = OutputLosses("mse", factor), OutputLosses(["mse", "mae"], [factor, 1.0])
    assert loss(A, OUT_A).item() == 3.0 and pair(A, OUT_A).item() == 4.0
    factor.fill_(0.5)
    assert loss(A, OUT_A).item() == 0.5 and pair(A, OUT_A).item() == 1.5
    assert loss.loss_weights == 0.5 and pair.loss_weights == [0.5, 1.0]


def test_two_losses_of_one_output_are_added() -> None:
    loss = OutputLosses(["mse", "mae"], [1.0, 2.0])
    assert loss(A * 2, OUT_A).item() == 8.0
    assert [(metric.name, metric.result().item()) for metric in loss.metrics] == [("mse_loss", 4.0), ("mae_loss", 2.0)]


@pytest.mark.parametrize(
    ("y_true", "y_pred", "name"),
    [
        (A, torch.full((4, 1), 0.5), "binary_crossentropy"),
        (B, OUT_B, "sparse_categorical_crossentropy"),
        (B[:, None], OUT_B, "sparse_categorical_crossentropy"),
        (torch.eye(3)[B], OUT_B, "categorical_crossentropy"),
    ],
)
@pytest.mark.parametrize("word", ["crossentropy", "ce", "CE"])
def test_crossentropy_is_chosen_by_shapes(y_true: Any, y_pred: Any, name: str, word: str) -> None:
    assert OutputLosses(word)(y_true, y_pred).item() == pytest.approx(OutputLosses(name)(y_true, y_pred).item())


def test_trackers_are_unweighted_means_over_samples() -> None:
    loss = OutputLosses(["mse", "sparse_categorical_crossentropy"], [10.0, 1.0], ["a", "b"])
    assert loss([A, B], [OUT_A, OUT_B]).item() == pytest.approx(10 + 1.0986123, rel=1e-5)
    loss([A[:2] * 3, B[:2]], [OUT_A[:2], OUT_B[:2]])
    found = {metric.name: metric.result().item() for metric in loss.metrics}
    assert found == {"a_loss": pytest.approx((4 * 1 + 2 * 9) / 6), "b_loss": LOG3}


def test_targets_by_name_and_partly_missing() -> None:
    loss = OutputLosses([None, "crossentropy"], output_names=["a", "b"])
    assert loss([None, B], [OUT_A, OUT_B]).item() == LOG3
    assert loss([B], [OUT_A, OUT_B]).item() == LOG3
    assert loss({"b": B}, [OUT_A, OUT_B]).item() == LOG3
    assert OutputLosses({"b": "ce"})({"b": B}, {"a": OUT_A, "b": OUT_B}).item() == LOG3


def test_nested_outputs() -> None:
    loss = OutputLosses({"x": ["mse", None], "y": "crossentropy"})
    value = loss({"x": [A, None], "y": B}, {"x": [OUT_A, OUT_A], "y": OUT_B})
    assert value.item() == pytest.approx(2.0986123, rel=1e-5)
    assert [metric.name for metric in loss.metrics] == ["x/mse_loss", "y_loss"]


def test_sample_weights_for_each_output() -> None:
    loss = OutputLosses(["mse", "mse"], output_names=["a", "b"])
    zero = torch.zeros(4)
    assert loss([A, A], [OUT_A, OUT_A], [None, zero]).item() == 1.0
    assert loss([A, A], [OUT_A, OUT_A], {"a": zero}).item() == 1.0
    assert loss([A, A], [OUT_A, OUT_A], zero).item() == 0.0


@pytest.mark.parametrize(
    ("loss", "weights", "names", "message"),
    [
        (["mse"] * 3, None, ["a", "b"], r"\['a', 'b'\].*3 entries"),
        (["mse"] * 3, None, None, "2 outputs"),
        ({"a": "mse"}, None, ["a", "b"], r"keys \['a'\].*'b': ..."),
        ({"a": "mse", "c": "mse"}, None, ["a", "b"], r"keys \['a', 'c'\]"),
        ({"a": "mse", "b": "mse"}, None, None, "no names"),
        (["mse", "mse"], [1.0], ["a", "b"], "loss_weights"),
        ([None, None], None, ["a", "b"], "at least one output"),
        (losses.MeanSquaredError(reduction="none"), None, ["a", "b"], "sum_over_batch_size"),
    ],
)
def test_what_does_not_fit_the_outputs_is_refused(loss: Any, weights: Any, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutputLosses(loss, weights, names)([A, A], [OUT_A, OUT_A])


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'haed'.*Did you mean 'head'"):
        OutputLosses({"haed": "mse"})({"head": A, "tail": A}, {"head": OUT_A, "tail": OUT_A})


def test_targets_of_another_structure_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y_true.*\[a tensor of shape \(4, 1\), a tensor of shape \(4, 3\)\]"):
        OutputLosses("mse")(A, [OUT_A, OUT_B])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_a_step_compiled_by_inductor_counts_every_batch() -> None:
    loss = OutputLosses(["mse", "mse"], output_names=["a", "b"])
    step = torch.compile(lambda a: loss([A, A], [a * 1, a * 2]))
    for _ in range(3):
        step(OUT_A)
    assert [(float(metric.total), float(metric.count)) for metric in loss.metrics] == [(12.0, 12.0)] * 2


def test_bad_names_and_weights_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Did you mean 'mse'"):
        OutputLosses({"a": "msee"})
    with pytest.raises(ValueError, match="loss_weights"):
        OutputLosses("mse", loss_weights="2")


def test_check_finds_wrong_targets() -> None:
    loss = OutputLosses(["mse", "sparse_categorical_crossentropy"], output_names=["a", "b"])
    loss.check([A, B], [OUT_A, OUT_B])
    with pytest.raises(ValueError, match="from 1 to 3"):
        loss.check([A, B + 1], [OUT_A, OUT_B])


def test_what_can_not_be_taken_together_is_refused() -> None:
    outputs = {"pair": {"a": OUT_A, "b": OUT_A}, "c": OUT_A}
    targets = {"pair": {"a": A, "b": A}, "c": A}
    with pytest.raises(ValueError, match="'mse' in a place where the model returns several outputs together"):
        OutputLosses({"pair": "mse", "c": "mse"})(targets, outputs)
    together = OutputLosses({"pair": lambda y, p: (y["a"] - p["b"]).abs(), "c": "mse"}, [2.0, 1.0])
    assert together(targets, outputs).item() == 3.0
    assert together(targets, outputs, torch.tensor([1.0, 1.0, 0.0, 0.0])).item() == 1.5
    with pytest.raises(
        ValueError, match="`sample_weight` of several outputs is not for a loss that gets them together"
    ):
        together(targets, outputs, {"pair": {"a": A[:, 0], "b": A[:, 0]}, "c": A[:, 0]})
