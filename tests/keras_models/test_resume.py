"""Runs of Keras models that are interrupted, and started again, end as those that were not: to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from keras_models.kinds import (
    KINDS,
    OPTIMIZERS,
    Make,
    adam,
    averaged,
    compiled,
    functional,
    lion,
    recurrent,
    scaled,
    sequential,
    subclassed,
)
from keras_models.side_by_side import X, Y, is_current, values

import oncue
from oncue.callbacks import BackupAndRestore, Callback, EarlyStopping, ReduceLROnPlateau


class PowerCut(Exception):
    """Ends a run."""


class Cut(Callback):
    """Ends a run at a batch, counted from its beginning, or in a validation."""

    def __init__(self, at: int | None, in_validation: bool = False) -> None:
        super().__init__()
        self.at, self.in_validation, self.seen = at, in_validation, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.at and not self.in_validation:
            raise PowerCut

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.in_validation and self.at is not None and self.seen >= self.at:
            raise PowerCut


def outcome(inner: Any, history: Any) -> dict[str, Any]:
    return {
        "history": history.history,
        "epochs": history.epoch,
        "variables": values(inner.variables),
        "optimizer": values(inner.optimizer.variables),
        "metrics": np.ravel(oncue.Model(inner).evaluate(X, Y, verbose=0, batch_size=8)).tolist(),
        "draws": np.random.random(3).tolist(),
    }


def same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            same(left, right, f"{where}[{place}]")
    else:
        np.testing.assert_array_equal(one, other, err_msg=where)


def train(make: Callable[[], Any], folder: Path, cut: Cut, *further: Callback, **options: Any) -> dict[str, Any]:
    inner = make()
    backup = BackupAndRestore(folder, save_freq=2)
    arguments = {"epochs": 3, "batch_size": 8, "verbose": 0, "validation_data": (X[:16], Y[:16]), **options}
    history = oncue.Model(inner).fit(X, Y, callbacks=[*further, backup, cut], **arguments)
    return outcome(inner, history)


def resumed_as_unbroken(
    make: Callable[[], Any],
    folder: Path,
    cuts: tuple[Cut, ...] = (Cut(7),),
    further: Callable[[], list[Callback]] = list,
    **options: Any,
) -> None:
    expected = train(make, folder / "unbroken", Cut(None), *further(), **options)
    for cut in cuts:
        with pytest.raises(PowerCut):
            train(make, folder / "broken", Cut(cut.at, cut.in_validation), *further(), **options)
    assert list((folder / "broken").glob("state-*"))
    same(train(make, folder / "broken", Cut(None), *further(), **options), expected)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_model(keras: ModuleType, kind: Make, tmp_path: Path) -> None:
    resumed_as_unbroken(lambda: compiled(keras, kind), tmp_path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda make: make.__name__)
def test_every_kind_of_optimizer(keras: ModuleType, optimizer: Make, tmp_path: Path) -> None:
    resumed_as_unbroken(lambda: compiled(keras, sequential, optimizer), tmp_path)


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        (sequential, averaged),
        (functional, adam),
        pytest.param(subclassed, lion, marks=pytest.mark.slow),
        pytest.param(recurrent, scaled, marks=pytest.mark.slow),
    ],
    ids=lambda make: make.__name__,
)
def test_compiled_steps(keras: ModuleType, kind: Make, optimizer: Make, tmp_path: Path, quick: None) -> None:
    accounts: list[str] = []

    class Account(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            accounts.append(self.model.step_account)

    def make() -> Any:
        return compiled(keras, kind, optimizer, jit_compile=True)

    resumed_as_unbroken(make, tmp_path, further=lambda: [Account()], epochs=2, steps_per_epoch=4, validation_steps=1)
    assert accounts
    assert all("graph" in account for account in accounts), accounts


def test_several_cuts_also_in_a_validation(keras: ModuleType, tmp_path: Path) -> None:
    cuts = (Cut(3), Cut(2), Cut(1, in_validation=True), Cut(4))
    resumed_as_unbroken(lambda: compiled(keras, sequential), tmp_path, cuts)


def test_what_callbacks_decide_and_change(keras: ModuleType, tmp_path: Path) -> None:
    class Change(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            inner = self.model.keras_model
            if epoch == 1:
                inner.layers[0].trainable = False
                inner.layers[2].rate = 0.6
                inner.optimizer.clipnorm = 0.1
                inner.optimizer.learning_rate = 0.005

    def further() -> list[Callback]:
        return [
            Change(),
            EarlyStopping("val_loss", patience=2, restore_best_weights=True),
            ReduceLROnPlateau("val_loss", patience=1, factor=0.5, min_delta=10.0),
        ]

    def make() -> Any:
        return compiled(keras, sequential, lambda keras: keras.optimizers.Adam(0.01))

    resumed_as_unbroken(make, tmp_path, (Cut(7), Cut(4)), further, epochs=5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(keras: ModuleType, policy: str, tmp_path: Path) -> None:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        resumed_as_unbroken(lambda: compiled(keras, sequential, lambda keras: keras.optimizers.Adam(0.01)), tmp_path)
    finally:
        keras.mixed_precision.set_global_policy(before)


def test_losses_and_metrics_of_the_users_own(keras: ModuleType, tmp_path: Path) -> None:
    class Farthest(keras.metrics.Metric):  # type: ignore[name-defined,misc]  # real Keras has no types
        def __init__(self) -> None:
            super().__init__(name="farthest")
            self.value = self.add_weight(name="value", initializer="zeros")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.value.assign(keras.ops.maximum(self.value, keras.ops.max(keras.ops.abs(y_true - y_pred))))

        def result(self) -> Any:
            return self.value

    def make() -> Any:
        keras.utils.set_random_seed(5)
        model = sequential(keras)
        model.compile(
            keras.optimizers.Adam(0.01),
            lambda y, y_pred: keras.ops.mean(keras.ops.square(y - y_pred), axis=-1),
            metrics=[Farthest(), keras.metrics.MeanAbsoluteError()],
        )
        return model

    resumed_as_unbroken(make, tmp_path)


@pytest.mark.parametrize("jit", [False, True])
def test_metrics_that_gather_in_python(keras: ModuleType, jit: bool, tmp_path: Path, quick: None) -> None:
    class Gathers(keras.metrics.Metric):  # type: ignore[name-defined,misc]  # real Keras has no types
        def __init__(self) -> None:
            super().__init__(name="gathers")
            self.reset_state()

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            y_pred = y_pred.detach()
            self.worst.append(float(keras.ops.max(keras.ops.abs(y_true - y_pred))))
            self.total = self.total + keras.ops.sum(y_pred)
            self.counted["batches"] += 1

        def result(self) -> Any:
            return keras.ops.mean(keras.ops.convert_to_tensor(self.worst)) + self.total / self.counted["batches"]

        def reset_state(self) -> None:
            self.worst, self.total, self.counted = [], torch.zeros(()), {"batches": 0}

    def make() -> Any:
        keras.utils.set_random_seed(5)
        model = sequential(keras)
        model.compile(adam(keras), "mse", metrics=[Gathers()])
        oncue.Model(model).jit_compile = jit
        return model

    resumed_as_unbroken(make, tmp_path, (Cut(7), Cut(9, in_validation=True)))
    options = {"epochs": 3, "batch_size": 8, "verbose": 0, "shuffle": False, "validation_data": (X[:16], Y[:16])}
    theirs, ours = make().fit(X, Y, **options).history, oncue.Model(make()).fit(X, Y, **options).history
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_two_models_of_one_process(keras: ModuleType, tmp_path: Path) -> None:
    """Names that Keras counts up differ between the model of the state and the next one."""
    resumed_as_unbroken(lambda: compiled(keras, subclassed), tmp_path)


def test_another_model_is_refused_before_the_first_step(keras: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        train(lambda: compiled(keras, sequential), tmp_path, Cut(7))
    with pytest.raises(ValueError, match="`weights` has changed"):
        train(lambda: compiled(keras, subclassed), tmp_path, Cut(1))
    with pytest.raises(ValueError, match="`optimizer` has changed"):
        train(lambda: compiled(keras, sequential, lambda keras: keras.optimizers.SGD(0.1)), tmp_path, Cut(1))


def test_layers_that_keep_more_than_weights(keras: ModuleType, tmp_path: Path) -> None:
    """Normalization computes with numbers made from its weights."""

    def make(scale: float = 3.0) -> Any:
        keras.utils.set_random_seed(5)
        normalization = keras.layers.Normalization()
        normalization.adapt(X * scale + 1)
        model = keras.Sequential([keras.Input((6,)), normalization, keras.layers.Dense(1)])
        model.compile(adam(keras), "mean_squared_error")
        return model

    expected = train(make, tmp_path / "a", Cut(None))
    with pytest.raises(PowerCut):
        train(make, tmp_path / "b", Cut(7))
    same(train(lambda: make(1.0), tmp_path / "b", Cut(None)), expected)


def test_states_of_stateful_layers(keras: ModuleType, tmp_path: Path) -> None:
    # An older Keras can't train its own SimpleRNN so.
    kind = keras.layers.SimpleRNN if is_current(keras) else keras.layers.GRU

    def make() -> Any:
        keras.utils.set_random_seed(5)
        layers = [keras.layers.Reshape((3, 2)), kind(3, stateful=True), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((6,), batch_size=8), *layers])
        model.compile("sgd", "mean_squared_error")
        return model

    resumed_as_unbroken(make, tmp_path)


def test_what_layers_save_besides_variables(keras: ModuleType, tmp_path: Path) -> None:
    class Sums(keras.layers.Layer):  # type: ignore[name-defined,misc]  # real Keras has no types
        total = np.zeros(())

        def call(self, inputs: Any, training: bool = False) -> Any:
            if training:
                self.total = self.total + float(inputs.sum())
            return inputs * (1 + 0.001 * float(self.total))

        def save_own_variables(self, store: Any) -> None:
            super().save_own_variables(store)
            store["total"] = self.total

        def load_own_variables(self, store: Any) -> None:
            self.total = np.array(store["total"])

    def make() -> Any:
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((6,)), Sums(), keras.layers.Dense(1)])
        model.compile("sgd", "mean_squared_error")
        return model

    resumed_as_unbroken(make, tmp_path)


def test_settings_of_an_optimizer_that_is_kerass_own(keras: ModuleType, tmp_path: Path) -> None:
    class Change(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.keras_model.optimizer.beta_1 = 0.5
                self.model.optimizer.clipnorm = 0.2
                self.model.keras_model.variables[0].trainable = False

    resumed_as_unbroken(lambda: compiled(keras, sequential, lion), tmp_path, (Cut(12),), lambda: [Change()])


def test_settings_come_back_on_both_sides(keras: ModuleType, tmp_path: Path) -> None:
    """What a hook has set, once, on Keras's optimizer is there in the next process, on ours and on Keras's."""

    class Change(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.keras_model.optimizer.clipnorm = 0.1
                self.model.keras_model.optimizer.beta_1 = 0.7

    seen: list[Any] = []

    def make() -> Any:
        inner = compiled(keras, sequential, lambda keras: keras.optimizers.Adam(0.01))
        seen.append(inner)
        return inner

    resumed_as_unbroken(make, tmp_path, (Cut(12),), lambda: [Change()])
    assert [(one.optimizer.clipnorm, one.optimizer.beta_1) for one in (seen[0], seen[-1])] == [(0.1, 0.7)] * 2


def test_one_model_that_goes_on_from_epoch_to_epoch(keras: ModuleType, tmp_path: Path) -> None:
    """Files and runs together: a model is loaded from a file, trained with a backup, cut, loaded again and resumed."""
    oncue.Model(compiled(keras, sequential)).save(tmp_path / "m.keras")

    def make() -> Any:
        keras.utils.set_random_seed(3)
        inner = oncue.with_keras.load_model(tmp_path / "m.keras").keras_model
        for variable in inner.variables:
            if "seed" in variable.path:
                variable.assign([3, 0])
        return inner

    resumed_as_unbroken(make, tmp_path)


def test_what_layers_hold(keras: ModuleType, tmp_path: Path) -> None:
    """Numbers that a layer's calls change, and a random generator of NumPy's."""

    class Noise(keras.layers.Layer):  # type: ignore[name-defined,misc]  # real Keras has no types
        def __init__(self) -> None:
            super().__init__()
            self.calls, self.generator = 0, np.random.default_rng(3)

        def call(self, inputs: Any, training: bool = False) -> Any:
            self.calls += 1
            factor = self.generator.uniform(0.9, 1.1) if training else 1.0
            return inputs * float(factor + 0.01 * self.calls)

    def make() -> Any:
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((6,)), Noise(), keras.layers.Dense(1)])
        model.compile("sgd", "mean_squared_error")
        return model

    resumed_as_unbroken(make, tmp_path)


def test_another_setting_of_the_script_is_said_before_the_first_step(keras: ModuleType, tmp_path: Path) -> None:
    def make(rate: float) -> Any:
        inner = compiled(keras, sequential)
        inner.layers[2].rate = rate
        return inner

    with pytest.raises(PowerCut):
        train(lambda: make(0.3), tmp_path, Cut(7))
    with pytest.warns(UserWarning, match=r"dropout\.rate` was 0\.3, is 0\.5"):
        train(lambda: make(0.5), tmp_path, Cut(None))


def test_what_a_hook_has_replaced_is_said_before_the_first_step(keras: ModuleType, tmp_path: Path) -> None:
    class Change(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.model.keras_model.compile(self.model.keras_model.optimizer, "mean_absolute_error")

    with pytest.raises(PowerCut):
        train(lambda: compiled(keras, sequential), tmp_path, Cut(7), Change())
    with pytest.warns(UserWarning, match="had replaced.*`compile`"):
        train(lambda: compiled(keras, sequential), tmp_path, Cut(None))
