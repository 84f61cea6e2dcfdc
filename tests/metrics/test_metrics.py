"""Metrics: state on the device, snapshots, and metrics as users write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import oncue
from oncue import losses, metrics, naming
from oncue.metrics import Mean, Metric


class Log(TorchDispatchMode):
    """Remembers every torch operation, and fails when a value is read from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "equal"), f"{name} waits for the device"
        self.operations.append(name)
        return func(*args, **(kwargs or {}))


class Hits(Metric):
    """A metric as Keras's guide writes it."""

    def __init__(self, name: str = "hits", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.seen = self.add_variable(shape=(), initializer="zeros", name="seen")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add((y_true == y_pred).sum())
        self.seen.assign(self.seen + y_true.shape[0])

    def result(self) -> Any:
        return self.total / self.seen


class TestMean:
    def test_the_path_of_the_loss_is_one_operation(self) -> None:
        mean, loss = Mean(), torch.tensor(0.5)
        mean.update_state(loss, sample_weight=4)
        with Log() as log:
            mean.update_state(loss, sample_weight=2)
        assert log.operations == ["add_"]
        assert mean.result().item() == 0.5
        assert mean.snapshot()[1] == 6

    def test_no_graph_is_kept(self) -> None:
        mean = Mean()
        mean.update_state(torch.tensor(1.0, requires_grad=True) * 2, sample_weight=3)
        total, _ = mean.snapshot()
        assert isinstance(total, Tensor) and not total.requires_grad
        assert not mean.result().requires_grad

    def test_a_snapshot_is_not_changed_by_what_comes_later(self) -> None:
        mean = Mean()
        mean.update_state(torch.tensor(1.0), sample_weight=2)
        taken = mean.snapshot()
        mean.update_state(torch.tensor(9.0), sample_weight=2)
        mean.reset_state()
        assert (float(taken[0]), taken[1]) == (2.0, 2)

    def test_reset_keeps_the_tensor(self) -> None:
        mean = Mean()
        mean.update_state(torch.tensor(1.0))
        before = mean.total.value.data_ptr()
        mean.reset_state()
        mean.update_state(torch.tensor(4.0))
        assert mean.total.value.data_ptr() == before
        assert mean.result().item() == 4.0

    def test_nothing_seen_gives_zero(self) -> None:
        assert Mean().result().item() == 0.0
        mean = Mean()
        mean.update_state(torch.tensor([1.0]), sample_weight=torch.tensor([0.0]))
        assert mean.result().item() == 0.0

    def test_millions_of_small_values_are_not_lost(self) -> None:
        mean = Mean()
        mean.update_state(torch.tensor(1.0), sample_weight=2**25)
        for _ in range(64):
            mean.update_state(torch.tensor(1.0))
        assert float(mean.total) == 2**25 + 64
        assert mean.result().dtype == torch.float32

    def test_weights_as_tensors_and_numbers_mix(self) -> None:
        mean = Mean()
        mean.update_state(torch.tensor([1.0, 3.0]))
        mean.update_state(torch.tensor([5.0, 7.0]), sample_weight=torch.tensor([1.0, 0.0]))
        mean.update_state(2.0, sample_weight=3)
        assert mean.result().item() == pytest.approx((1 + 3 + 5 + 6) / (2 + 1 + 3))

    def test_state_made_in_inference_mode_can_be_used_outside(self) -> None:
        mean, auc = Mean(), metrics.AUC()
        with torch.inference_mode():
            mean.update_state(torch.tensor(1.0))
            auc.update_state(torch.tensor([0.0, 1.0]), torch.tensor([0.2, 0.7]))
        mean.reset_state()
        mean.update_state(torch.tensor(3.0))
        auc.reset_state()
        auc.update_state(torch.tensor([0.0, 1.0]), torch.tensor([0.2, 0.7]))
        assert mean.result().item() == 3.0
        assert auc.result().item() == pytest.approx(1.0)


class TestUserMetrics:
    def test_a_metric_of_the_guide(self) -> None:
        metric = Hits()
        assert metric(torch.tensor([1, 2]), torch.tensor([1, 3])).item() == 0.5
        metric.update_state(torch.tensor([1, 2]), torch.tensor([1, 2]))
        assert float(metric.result()) == 0.75
        assert [variable.name for variable in metric.variables] == ["total", "seen"]
        metric.reset_state()
        assert [float(variable) for variable in metric.variables] == [0.0, 0.0]
        assert not isinstance(metric, nn.Module)

    def test_reset_states_of_keras_2_is_honoured(self) -> None:
        class Old(Hits):
            def reset_states(self) -> None:
                super().reset_states()
                self.total.assign(10.0)

        metric = Old()
        metric.update_state(torch.tensor([1]), torch.tensor([1]))
        metric.reset_state()
        assert float(metric.total) == 10.0 and float(metric.seen) == 0.0
        Hits().reset_states()

    def test_reset_state_is_honoured_by_the_old_name(self) -> None:
        class New(Hits):
            def reset_state(self) -> None:
                super().reset_state()
                self.total.assign(10.0)

        metric = New()
        metric.reset_states()
        assert float(metric.total) == 10.0

    def test_a_metric_of_metrics_shows_their_variables(self) -> None:
        class Pair(Metric):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.others = Mean(), [Mean(), Mean()]

        assert len(Pair().variables) == 6

    def test_arrays_with_arithmetic(self) -> None:
        class Confusion(Metric):
            def __init__(self) -> None:
                super().__init__()
                self.matrix = self.add_weight(shape=(2, 2), name="matrix", dtype="int32")

            def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
                self.matrix.assign_add(torch.bincount(y_true * 2 + y_pred, minlength=4).view(2, 2))

            def result(self) -> Any:
                return torch.trace(self.matrix) / torch.sum(self.matrix)

        metric = Confusion()
        assert metric(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0])).item() == 0.75
        assert metric.matrix.dtype == "int32"
        assert np.asarray(metric.matrix).tolist() == [[2, 0], [1, 1]]
        assert (metric.matrix + 1)[0, 1].item() == 1
        assert (4 - metric.matrix)[0, 0].item() == 2
        assert (4 / (metric.matrix + 1)).sum().item() == pytest.approx(4 / 3 + 4 + 2 + 2)
        with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
            metric.matrix.assign([1, 2])

    def test_a_missing_super_call_is_reported(self) -> None:
        class Forgot(Metric):
            def __init__(self) -> None:
                self.total = self.add_weight(name="total")

        with pytest.raises(RuntimeError, match=r"super\(\).__init__"):
            Forgot()

    def test_missing_methods_are_reported(self) -> None:
        with pytest.raises(NotImplementedError, match="update_state"):
            Metric().update_state(1, 2)
        with pytest.raises(NotImplementedError, match="result"):
            Metric().result()

    def test_a_dict_as_result(self) -> None:
        class Two(Hits):
            def result(self) -> Any:
                return {"hits": self.total.value, "seen": self.seen.value}

        metric = Two()
        metric.update_state(torch.tensor([1, 2]), torch.tensor([1, 2]))
        taken = metric.snapshot()
        metric.reset_state()
        assert isinstance(taken, dict)
        assert {key: (float(value), count) for key, (value, count) in taken.items()} == {
            "hits": (2.0, None),
            "seen": (2.0, None),
        }

    def test_automatic_names(self) -> None:
        naming.reset()
        names = [metrics.Precision().name, metrics.Precision().name, metrics.Recall().name, metrics.AUC().name]
        assert names == ["precision", "precision_1", "recall", "auc"]

    def test_a_wrong_initializer_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"zeros"):
            Hits().add_weight(initializer="zeroes")


EVERY = [
    (metrics.BinaryAccuracy(), "column"),
    (metrics.CategoricalAccuracy(), "one_hot"),
    (metrics.SparseCategoricalAccuracy(), "labels"),
    (metrics.TopKCategoricalAccuracy(k=2), "one_hot"),
    (metrics.SparseTopKCategoricalAccuracy(k=2), "labels"),
    (metrics.MeanSquaredError(), "one_hot"),
    (metrics.RootMeanSquaredError(), "one_hot"),
    (metrics.R2Score(num_regressors=1), "one_hot"),
    (metrics.CosineSimilarity(), "one_hot"),
    (metrics.Hinge(), "one_hot"),
    (metrics.SparseCategoricalCrossentropy(ignore_class=1), "labels"),
    (metrics.F1Score(average="weighted"), "one_hot"),
    (metrics.Precision(), "one_hot"),
    (metrics.Precision(thresholds=[0.2, 0.6]), "one_hot"),
    (metrics.Recall(top_k=1, class_id=1), "one_hot"),
    (metrics.AUC(), "one_hot"),
    (metrics.AUC(multi_label=True, curve="PR"), "one_hot"),
    (metrics.PrecisionAtRecall(0.5), "one_hot"),
    (metrics.OneHotMeanIoU(3), "one_hot"),
    (metrics.MeanMetricWrapper(losses.MeanSquaredError()), "one_hot"),
]


@pytest.mark.filterwarnings("ignore:.sample_weight. has the type float")
@pytest.mark.parametrize(("metric", "kind"), EVERY, ids=lambda value: getattr(value, "name", value))
def test_the_device_is_not_read_and_results_are_owned(metric: Metric, kind: str) -> None:
    y_pred = torch.rand(6, 1 if kind == "column" else 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    y_true = {"column": torch.tensor([[0.0], [1.0]] * 3), "labels": labels, "one_hot": torch.eye(3)[labels]}[kind]
    weights = torch.rand(6)
    with Log():
        metric.update_state(y_true, y_pred)
        metric.update_state(y_true, y_pred, sample_weight=weights)
        taken = metric.snapshot()
        metric.result()
    assert not isinstance(taken, dict)
    numerator, denominator = (None if part is None else torch.as_tensor(part).clone() for part in taken)
    metric.update_state(y_true, y_pred)
    metric.reset_state()
    for part, then in zip(taken, (numerator, denominator), strict=True):
        if part is not None and then is not None:
            torch.testing.assert_close(torch.as_tensor(part), then)


def test_lists_and_numbers_are_taken() -> None:
    accuracy = metrics.BinaryAccuracy()
    accuracy.update_state([[1], [0]], [[0.9], [0.8]])
    accuracy.update_state(np.array([[1.0]]), torch.tensor([[0.9]]))
    assert float(accuracy.result()) == pytest.approx(2 / 3)


class TestGet:
    def test_names_classes_and_objects(self) -> None:
        assert isinstance(metrics.get("mae"), metrics.MeanAbsoluteError)
        assert isinstance(metrics.get("AUC"), metrics.AUC)
        assert isinstance(metrics.get("accuracy"), metrics.Accuracy)
        assert isinstance(metrics.get("huber"), type(losses.huber))
        assert isinstance(metrics.get(metrics.Recall), metrics.Recall)
        mine = Hits()
        assert metrics.get(mine) is mine and metrics.get(None) is None

    def test_an_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(ValueError, match=r"acuracy.*Did you mean 'accuracy'"):
            metrics.get("acuracy")

    def test_a_metric_that_needs_arguments_says_which(self) -> None:
        with pytest.raises(ValueError, match=r"MeanIoU\(num_classes=...\)"):
            metrics.get("MeanIoU")

    def test_what_is_no_metric_is_refused(self) -> None:
        with pytest.raises(TypeError, match="accuracy"):
            metrics.get(3)

    def test_descriptions(self) -> None:
        wrapper = metrics.MeanMetricWrapper(losses.huber, name="h", delta=0.5)
        again = metrics.deserialize(metrics.serialize(wrapper))
        y_true, y_pred = torch.zeros(2, 1), torch.ones(2, 1)
        assert again.name == "h" and again(y_true, y_pred).item() == wrapper(y_true, y_pred).item() == 0.375
        assert metrics.deserialize(metrics.serialize(losses.mean_squared_error)) is losses.mean_squared_error


BAD: list[tuple[type[Metric], dict[str, Any], str]] = [
    (metrics.Precision, {"thresholds": 1.5}, "0 to 1"),
    (metrics.AUC, {"curve": "RCO"}, "Did you mean 'ROC'"),
    (metrics.AUC, {"summation_method": "minor"}, "Did you mean 'minoring'"),
    (metrics.AUC, {"num_thresholds": 1}, "above 1"),
    (metrics.AUC, {"num_labels": 3}, "multi_label"),
    (metrics.FBetaScore, {"beta": 0.0}, "above 0"),
    (metrics.F1Score, {"average": "mean"}, "micro"),
    (metrics.F1Score, {"threshold": 2.0}, "at most 1"),
    (metrics.R2Score, {"class_aggregation": "sum"}, "uniform_average"),
    (metrics.IoU, {"num_classes": 2, "target_class_ids": [2]}, "0 to 1"),
    (metrics.PrecisionAtRecall, {"recall": 2.0}, "recall"),
]


@pytest.mark.parametrize(("cls", "options", "message"), BAD)
def test_bad_arguments_are_refused(cls: type[Metric], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_a_function_of_the_whole_batch_cannot_be_weighed() -> None:
    metric = metrics.MeanMetricWrapper(lambda y_true, y_pred: y_pred.sum())
    metric.update_state(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match="one value for each sample"):
        metric.update_state(torch.ones(3), torch.ones(3), torch.ones(3))


def test_class_labels_for_a_metric_of_one_hot_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="to_categorical"):
        metrics.F1Score().update_state(torch.tensor([0, 1]), torch.rand(2, 3))
    with pytest.raises(ValueError, match="to_categorical"):
        metrics.AUC().update_state(torch.tensor([0, 1]), torch.rand(2, 3))


def test_numbers_go_into_the_tensor_once_there_is_to_be_one() -> None:
    count = metrics.Metric(name="of").add_variable(shape=(), initializer="zeros", name="count")
    count.assign_add(3)
    assert count.peek() == 3 and not isinstance(count.peek(), Tensor)
    count.materialize(torch.device("cpu"))
    held = count.peek()
    for change, value in [
        (lambda: None, 3.0),
        (lambda: count.assign_add(4), 7.0),
        (lambda: count.assign_sub(2), 5.0),
        (lambda: count.assign(2.5), 2.5),
        (count.zero, 0.0),
    ]:
        change()
        assert isinstance(held, Tensor) and float(held) == float(count) == value
    assert count.peek().data_ptr() == held.data_ptr()


def test_variables_in_lists_and_dicts_of_a_metric_are_its_own_and_are_reset() -> None:
    metric = metrics.Mean()
    metric.more = {"parts": [metrics.Mean(), metrics.Sum()], "free": [oncue.Variable(2.0, trainable=False)]}
    assert len(metric.variables) == 6
    kept = metric.get_state()
    metric.reset_state()
    assert float(metric.more["free"][0]) == 0.0
    metric.set_state(kept)
    assert float(metric.more["free"][0]) == 2.0


def test_stateless_methods_leave_the_metric_as_it_is() -> None:
    metric = metrics.Mean()
    metric.update_state([4.0])
    values = metric.stateless_update_state([0.0, 0.0], [1.0, 3.0])
    assert [float(value) for value in values] == [4.0, 2.0]
    assert float(metric.stateless_result(values)) == 2.0
    assert [float(value) for value in metric.stateless_reset_state()] == [0.0, 0.0]
    assert float(metric.result()) == 4.0
    with pytest.raises(ValueError, match="each of the 2 variables"):
        metric.stateless_result([1.0])


def test_fractions_of_weights_that_whole_counts_lose_are_warned_of() -> None:
    metric = metrics.MeanIoU(num_classes=2)
    with pytest.warns(UserWarning, match=r'counts in int32.*dtype="float32"'):
        metric.update_state([0, 1], [0, 1], sample_weight=[0.5, 1.5])


def test_an_area_for_each_label_of_transposed_targets() -> None:
    area = metrics.AUC(multi_label=True)
    targets = np.array([[0, 0, 1, 1], [0, 1, 1, 0]], "float32").T
    area.update_state(targets, np.array([[0, 0.5, 0.3, 0.9], [0.1, 0.2, 0.3, 0.4]], "float32").T)
    assert round(float(area.result()), 4) == 0.625
