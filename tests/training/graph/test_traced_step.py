"""Compiled steps give what eager ones give, notice what changes, and say why where they can't."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import oncue as keras
from helpers import cpu_only, normal, to_numpy
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, LambdaCallback, LearningRateScheduler

X = normal(72, 6)
Y = ((X[:, 0] > 0).astype(int) + (X[:, 1] > 0)).astype("int64")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="relu", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def trained(
    make: Callable[[], Any], optimizer: Callable[[Any], Any], jit: bool, callbacks: Any = (), **fit: Any
) -> tuple[Any, dict[str, Any]]:
    made = make()
    model = made if isinstance(made, keras.Model) else keras.Model(made)
    model.compile(optimizer(made), LOSS, metrics=["accuracy"], jit_compile=jit)
    keras.utils.set_random_seed(1)
    arguments = {"batch_size": 16, "epochs": 3, "verbose": 0, "validation_data": (X[:32], Y[:32]), **fit}
    history = model.fit(X, Y, callbacks=list(callbacks), **arguments)
    return model, history.history


def assert_same(
    make: Callable[[], Any], optimizer: Callable[[Any], Any], callbacks: Callable[[], Any] = tuple, **fit: Any
) -> Any:
    eager, expected = trained(make, optimizer, False, callbacks(), **fit)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compiled, got = trained(make, optimizer, True, callbacks(), **fit)
    assert set(got) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    for one, other in zip(eager.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    assert int(compiled.optimizer.iterations) == int(eager.optimizer.iterations)
    for one, other in zip(eager.optimizer.state_tensors(), compiled.optimizer.state_tensors(), strict=True):
        np.testing.assert_allclose(to_numpy(other), to_numpy(one), rtol=1e-3, atol=1e-5)
    return compiled


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda made: keras.optimizers.SGD(0.05),
    "momentum": lambda made: keras.optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda made: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda made: keras.optimizers.Adam(0.01),
    "rmsprop, all options": lambda made: keras.optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "clipnorm": lambda made: keras.optimizers.Adam(0.01, clipnorm=0.1),
}


def of_torch(made: Any) -> Any:
    return torch.optim.Adam(made.parameters(), lr=0.01)


def test_numbers_of_the_optimizer_that_a_callback_sets_need_no_other_graph(quick: None) -> None:
    class Betas(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            optimizer = self.model.optimizer
            optimizer.beta_1, optimizer.clipnorm = 0.9 - batch / 20, 0.1 + batch / 20

    model = assert_same(network, OPTIMIZERS["clipnorm"], lambda: [Betas()], validation_data=None)
    assert model._plan.graphs.steps["train"].graphs == 1
    assert "as one compiled graph" in model.step_account


@pytest.mark.parametrize("name", ["momentum", "nesterov", "rmsprop, all options"])
def test_a_momentum_of_0_that_a_callback_sets_needs_another_graph(name: str, quick: None) -> None:
    class Momentum(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.momentum = (0.9, 0.0, 0.5)[epoch]

    model = assert_same(network, OPTIMIZERS[name], lambda: [Momentum()], validation_data=None)
    assert model._plan.graphs.steps["train"].graphs == 2
    assert "as one compiled graph" in model.step_account


def test_an_optimizer_that_keeps_needing_other_operations_runs_eagerly(quick: None) -> None:
    class Scales(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.optimizer.loss_scale_factor = 2.0**batch

    model = network()
    model.compile(keras.optimizers.SGD(0.05, loss_scale_factor=8.0), LOSS, jit_compile=True)
    with pytest.warns(UserWarning, match="what it depends on kept changing"):
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[Scales()])
    assert "ran eagerly" in model.step_account


def test_a_constraint_that_a_callback_changes_counts_from_the_next_step(quick: None) -> None:
    class Tightens(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                self.model.layers[0].kernel_constraint.max_value = 0.5

    def constrained() -> Any:
        keras.utils.set_random_seed(0)
        rule = keras.constraints.MaxNorm(0.9)
        return keras.Sequential([layers.Input((6,)), layers.Dense(3, kernel_constraint=rule)])

    model = assert_same(constrained, OPTIMIZERS["sgd"], lambda: [Tightens()], validation_data=None, epochs=1)
    assert "as one compiled graph" in model.step_account
    assert model._plan.graphs.steps["train"]._update._constraints
    assert 0.4 < np.linalg.norm(model.get_weights()[0], axis=0).max() < 0.501


def test_a_scale_of_the_loss_that_a_callback_sets_counts_where_the_update_follows(quick: None) -> None:
    class Own(keras.optimizers.SGD):
        """Not compiled: it might compute anything."""

        def step(self) -> None:
            super().step()

    class Scales(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.loss_scale_factor = 8.0 / (1 + epoch)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                self.model.optimizer.loss_scale_factor = 64.0

    model = assert_same(
        network, lambda made: Own(0.05, loss_scale_factor=2.0), lambda: [Scales()], validation_data=None
    )
    assert "a compiled graph, with the rest after it" in model.step_account


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs a C++ compiler")
def test_the_real_compiler_gives_what_the_eager_step_gives() -> None:
    model = assert_same(network, OPTIMIZERS["adam"])
    steps = model._plan.graphs.steps
    assert (steps["train"].graphs, steps["test"].graphs) == (1, 1)
    eager, _ = trained(network, OPTIMIZERS["adam"], False)
    np.testing.assert_allclose(model.predict(X, batch_size=24, verbose=0), eager.predict(X, verbose=0), atol=1e-4)
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), eager.evaluate(X, Y, verbose=0), atol=1e-4)
    assert steps["predict"].graphs == 1


def test_one_graph_serves_all_epochs_rates_and_fits(quick: None) -> None:
    model, _ = trained(network, OPTIMIZERS["adam"], True, [LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))])
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    step = model._plan.graphs.steps["train"]
    assert step.graphs == 1
    assert step.eager_batches == 1  # 72 samples: the last batch of an epoch has eight


@pytest.mark.parametrize(("make", "optimizer"), [(network, OPTIMIZERS["adam"]), (module, of_torch)])
def test_a_killed_run_resumes_bit_for_bit(make: Any, optimizer: Any, tmp_path: Path, quick: None) -> None:
    class Power(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 2:
                raise SystemError("power cut")

    def run(folder: str, cut: bool) -> Any:
        backup = BackupAndRestore(tmp_path / folder, save_freq=1, delete_checkpoint=False)
        return trained(make, optimizer, True, [backup, *([Power()] if cut else [])], epochs=2, validation_data=None)

    model, history = run("whole", False)
    with pytest.raises(SystemError):
        run("cut", True)
    again, resumed = run("cut", False)
    assert resumed == history
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class OwnNoise(layers.Layer):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x: torch.Tensor, training: bool = False) -> torch.Tensor:
        return keras.random.dropout(x, 0.25, seed=self.seeds) if training else x


def seeded() -> Any:
    keras.utils.set_random_seed(0)
    twice = layers.Dropout(0.5, seed=3)
    inputs = keras.Input((6,))
    hidden = twice(layers.Dense(8, activation="relu")(inputs))
    hidden = OwnNoise()(twice(layers.Dense(8)(hidden)))
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.1, noise_shape=(None, 1), seed=3)(hidden)))


@cpu_only("on an accelerator layers with seeds of their own are not part of the graph")
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_layers_with_seeds_draw_as_they_do_eagerly(backend: str, request: pytest.FixtureRequest) -> None:
    if backend == "eager":
        request.getfixturevalue("quick")
    model = assert_same(seeded, lambda made: "adam")
    steps = 3 * -(-len(X) // 16)
    draws = {
        value._draws
        for layer in model.layers
        for value in vars(layer).values()
        if isinstance(value, keras.random.SeedGenerator)
    }
    assert draws == {steps, 2 * steps}
    # A copy, whose layers have seeds of their own, is another graph.
    copied = copy.deepcopy(model)
    copied.fit(X, Y, batch_size=16, verbose=0)
    assert model.layers[2].seed_generator._draws == 2 * steps == copied.layers[2].seed_generator._draws - 2 * steps // 3


@pytest.mark.parametrize("make", [network, module])
def test_a_state_loaded_between_fits_is_used(make: Any, quick: None) -> None:
    weights = []
    for jit in (False, True):
        model, _ = trained(make, of_torch, jit, validation_data=None)
        kept, values = copy.deepcopy(model.optimizer.state_dict()), model.get_weights()
        model.fit(X, Y, batch_size=24, epochs=2, verbose=0)
        model.optimizer.load_state_dict(kept)
        model.set_weights(values)
        keras.utils.set_random_seed(2)
        model.fit(X, Y, batch_size=24, epochs=2, verbose=0)
        assert int(model.optimizer.iterations) == 15 + 6
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_what_a_callback_changes_between_batches_is_seen(quick: None) -> None:
    def without_dropout() -> Any:
        def change(batch: int, logs: Any = None) -> None:
            if batch == 2:
                watcher.model.layers[2].rate = 0.0

        watcher = LambdaCallback(on_train_batch_end=change)
        return [watcher]

    model = assert_same(network, OPTIMIZERS["sgd"], without_dropout)
    assert model._plan.graphs.steps["train"].graphs == 2


def test_weights_that_are_frozen_between_epochs_stay(quick: None) -> None:
    def freezing() -> Any:
        def freeze(epoch: int, logs: Any = None) -> None:
            watcher.model.layers[0].trainable = False

        watcher = LambdaCallback(on_epoch_end=freeze)
        return [watcher]

    compiled, _ = trained(network, OPTIMIZERS["sgd"], True, freezing())
    assert "as one compiled graph" in compiled.step_account
    eager, _ = trained(network, OPTIMIZERS["sgd"], False, freezing())
    for one, other in zip(eager.get_weights(), compiled.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_weights_that_are_frozen_and_thawed_have_two_graphs(quick: None) -> None:
    def turning() -> Any:
        def turn(epoch: int, logs: Any = None) -> None:
            watcher.model.layers[0].trainable = epoch % 2 == 0

        watcher = LambdaCallback(on_epoch_begin=turn)
        return [watcher]

    # Validation, which notices the change too, leaves the graph of training alone.
    model = assert_same(network, OPTIMIZERS["sgd"], turning, epochs=6)
    assert "as one compiled graph" in model.step_account
    assert model._plan.graphs.steps["train"].graphs == 2


def test_what_evaluates_is_one_graph_whichever_weights_are_trained(quick: None) -> None:
    def freezing() -> Any:
        def freeze(epoch: int, logs: Any = None) -> None:
            next(iter(watcher.model.parameters())).requires_grad_(False)

        watcher = LambdaCallback(on_epoch_end=freeze)
        return [watcher]

    model = assert_same(module, OPTIMIZERS["adam"], freezing)
    assert {kind: step.graphs for kind, step in model._plan.graphs.steps.items()} == {"train": 2, "test": 1}


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = module()
        self.seen: list[str] = []

    def forward(self, x: torch.Tensor) -> Any:
        if self.training:
            self.seen.append("batch")
        return self.inner(x)


def test_python_values_that_a_step_changes_are_changed_at_every_step(quick: None) -> None:
    with pytest.warns(UserWarning, match=r"each step changes Counting\.seen, which a graph would change once"):
        model, _ = trained(Counting, OPTIMIZERS["sgd"], True, validation_data=None)
    # Each of 15 batches once; what tries before that changed is put back.
    assert len(next(m for m in model.modules() if isinstance(m, Counting)).seen) == 15
    assert "ran eagerly: each step changes" in model.step_account


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = module()

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x if x.sum() > 0 else -x)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = module()
        self.spare = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = module()
        self.shortcut = [self.inner[0].weight]

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x) + (self.shortcut[0] ** 2).mean()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = kind(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(self.cell(x.reshape(-1, 3, 2))[0][:, -1])


def keras_recurrent(*recurrent: Any) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input((6,)), layers.Reshape((3, 2)), *recurrent, layers.Dense(3)])


LSTMS: dict[str, Callable[[], Any]] = {
    "torch": Recurrent,
    "keras": lambda: keras_recurrent(layers.LSTM(4)),
    "dropout": lambda: keras_recurrent(layers.LSTM(4, dropout=0.3, return_sequences=True), layers.Flatten()),
    "both ways": lambda: keras_recurrent(layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.LSTM(3)),
    "backwards": lambda: keras_recurrent(layers.LSTM(4, go_backwards=True, use_bias=False)),
}


@cpu_only("on an accelerator a step with an LSTM runs eagerly: torch's compiler would unroll it")
@pytest.mark.parametrize("name", LSTMS)
def test_an_lstm_is_part_of_the_graph(name: str, quick: None) -> None:
    model = assert_same(LSTMS[name], OPTIMIZERS["adam"])
    assert model.step_account.startswith("The steps ran as one compiled graph;")


@cpu_only("on an accelerator Triton takes the place of the C++ compiler")
def test_without_a_compiler_steps_run_eagerly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch._inductor.config as settings

    # An empty cache: what another test has compiled needs no compiler.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    eager, expected = trained(module, OPTIMIZERS["sgd"], False, validation_data=None)
    with settings.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False}):
        with pytest.warns(UserWarning, match="which runs eagerly instead: .*[Cc]ompiler"):
            compiled, got = trained(module, OPTIMIZERS["sgd"], True, validation_data=None)
    assert got == expected


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Branching, r"Python code reads the value of a tensor.*if x\.sum\(\) > 0"),
        (lambda: Recurrent(nn.GRU), "`torch.gru` would be unrolled over all steps"),
    ],
)
def test_a_step_that_cannot_be_compiled_runs_eagerly_with_one_warning(make: Any, reason: str, quick: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eager, expected = trained(make, OPTIMIZERS["adam"], False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled, got = trained(make, OPTIMIZERS["adam"], True)
        compiled.predict(X, verbose=0)
    texts = [str(one.message) for one in caught if "`jit_compile` can't" in str(one.message)]
    assert len(texts) == 1
    assert re.search(reason, texts[0]), texts[0]
    assert got == expected
    assert "ran eagerly" in compiled.step_account


def test_a_step_of_the_users_own_is_not_replaced(quick: None) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)
            self.calls = 0

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            self.calls += 1
            return super().train_step(data)

    with pytest.warns(UserWarning, match="the model has a `train_step` of its own"):
        model, _ = trained(Own, OPTIMIZERS["sgd"], True)
    assert model.calls == 15


class Reading(keras.metrics.Metric):
    """Prints, which no graph can."""

    def __init__(self) -> None:
        super().__init__(name="reading")
        self.hits = 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        print(end="")
        self.hits += int((y_pred.argmax(-1) == y_true).sum())

    def result(self) -> Any:
        return torch.tensor(float(self.hits))

    def reset_state(self) -> None:
        self.hits = 0


def test_metrics_that_cant_be_compiled_follow(quick: None) -> None:
    values = []
    for jit in (False, True):
        model = network()
        model.compile(keras.optimizers.SGD(0.05), LOSS, metrics=["accuracy", Reading()], jit_compile=jit)
        keras.utils.set_random_seed(1)
        values.append(model.fit(X, Y, batch_size=16, epochs=2, verbose=0).history)
    assert values[0]["reading"] == values[1]["reading"]
    np.testing.assert_allclose(values[0]["loss"], values[1]["loss"], rtol=1e-5)
    assert "with the rest after it" in model.step_account


def test_weights_of_samples_several_inputs_and_outputs(quick: None) -> None:
    def make() -> Any:
        keras.utils.set_random_seed(0)
        a, b = layers.Input((6,), name="a"), layers.Input((6,), name="b")
        joined = layers.Concatenate()([a, b])
        return keras.Model({"a": a, "b": b}, {"first": layers.Dense(3)(joined), "second": layers.Dense(1)(joined)})

    results = []
    for jit in (False, True):
        model = make()
        model.compile(
            "adam",
            {"first": LOSS, "second": "mse"},
            metrics={"first": ["accuracy"], "second": ["mae"]},
            jit_compile=jit,
        )
        keras.utils.set_random_seed(1)
        y = {"first": Y, "second": X[:, :1]}
        weights = {"first": np.linspace(0, 1, 72), "second": np.ones(72)}
        history = model.fit({"a": X, "b": -X}, y, sample_weight=weights, batch_size=24, epochs=2, verbose=0)
        results.append((history.history, model.predict({"a": X, "b": -X}, verbose=0, batch_size=24)))
    for name, values in results[0][0].items():
        np.testing.assert_allclose(results[1][0][name], values, rtol=1e-4, atol=1e-6)
    for name, value in results[0][1].items():
        np.testing.assert_allclose(results[1][1][name], value, rtol=1e-4, atol=1e-5)
    assert "as one compiled graph" in model.step_account


class Doubled(layers.Layer):
    def call(self, x: Any) -> Any:
        return x, x * 2


def test_a_mask_that_ends_at_a_layer_of_two_outputs(quick: None) -> None:
    def make() -> Any:
        keras.utils.set_random_seed(0)
        inputs = layers.Input((6,))
        steps = layers.Masking()(layers.Reshape((3, 2))(inputs))
        joined = layers.Concatenate()(list(Doubled()(steps)))
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(joined)))

    compiled = assert_same(make, OPTIMIZERS["adam"], batch_size=24)
    assert "as one compiled graph" in compiled.step_account


def test_single_batches(quick: None) -> None:
    values = []
    for jit in (False, True):
        model = network()
        model.compile("adam", LOSS, metrics=["accuracy"], jit_compile=jit)
        keras.utils.set_random_seed(1)
        values.append([model.train_on_batch(X[:8], Y[:8]) for _ in range(4)] + [model.test_on_batch(X[:8], Y[:8])])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=1e-5)


def test_copies_and_pickles_leave_the_graphs_behind(quick: None) -> None:
    model, _ = trained(network, OPTIMIZERS["adam"], True)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other._plan.graphs.steps == {}
        np.testing.assert_allclose(other.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5)


def test_batches_of_many_shapes_are_warned_of(quick: None) -> None:
    model = network()
    model.compile("sgd", LOSS, jit_compile=True)
    batches = [(X[: 4 + size % 9], Y[: 4 + size % 9]) for size in range(30)]
    with pytest.warns(UserWarning, match="26 of this pass had others, and ran eagerly"):
        model.fit(batches_of(batches), verbose=0)


def batches_of(batches: list[Any]) -> Any:
    yield from batches


def test_parts_of_a_batch_are_not_mixed_up(quick: None) -> None:
    class OnlyPenalties(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(6, kernel_regularizer="l2")

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **_: Any
        ) -> Any:
            return (y_pred**2).mean() if y is None else (y_pred - y).abs().mean()

    values = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = OnlyPenalties()
        model.compile("sgd", "mse", jit_compile=jit)
        one = model.fit(X, X, batch_size=24, shuffle=False, verbose=0).history["loss"]
        two = model.fit(X, None, batch_size=24, sample_weight=X, shuffle=False, verbose=0).history["loss"]
        values.append(one + two)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)


def test_weight_decay_that_is_switched_on_later_decays(quick: None) -> None:
    weights = []
    for jit in (False, True):
        model, _ = trained(network, OPTIMIZERS["sgd"], jit, validation_data=None)
        model.optimizer.weight_decay = 0.5
        keras.utils.set_random_seed(2)
        model.fit(X, Y, batch_size=24, verbose=0)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_auto_compiles_long_runs_and_says_so(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    model.compile("sgd", LOSS, metrics=["accuracy"])
    history = model.fit(X, Y, batch_size=16, verbose=2)
    assert "The steps" not in history.explain()
    monkeypatch.setattr("oncue.training.graph.choice._STEPS_WORTH_MENTIONING", 5)
    history = model.fit(X, Y, batch_size=16, verbose=2)
    assert "The steps ran eagerly: compiling them is worth it from 200,000 steps on" in history.explain()
    monkeypatch.setattr("oncue.training.graph.choice.STEPS_WORTH_COMPILING", 10)
    history = model.fit(X, Y, batch_size=16, epochs=2, verbose=2)
    assert 'Compiling the training step, because 10 steps lie ahead (jit_compile="auto").' in capsys.readouterr().out
    assert "The steps ran as one compiled graph" in history.explain()


def test_no_value_is_read_from_the_device_per_batch(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = trained(network, OPTIMIZERS["adam"], True)
    reads: list[str] = []
    for name in ("item", "tolist", "numpy", "cpu"):
        original = getattr(torch.Tensor, name)

        def reading(self: Any, *args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            reads.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, reading)
    counts = []
    for count in (16, 64):
        reads.clear()
        model.fit(X[:count], Y[:count], batch_size=16, verbose=0)
        counts.append(len(reads))
    assert counts[0] == counts[1]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("jit", [False, True])
def test_a_weight_of_the_loss_that_a_callback_fills_counts_from_the_next_step(jit: bool) -> None:
    factor, losses = torch.tensor(1.0), []
    model = network()
    model.compile("sgd", LOSS, loss_weights=factor, jit_compile=jit)

    def change(batch: int, logs: Any) -> None:
        losses.append(logs["loss"] * (batch + 1) - sum(losses))
        if batch == 1:
            factor.fill_(0.0)

    penalty = LambdaCallback(on_train_batch_end=change)
    model.layers[0].kernel_regularizer = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(X[:64], Y[:64], batch_size=16, verbose=0, callbacks=[penalty])
    assert min(losses[:2]) > 0.5 > 0.2 > max(losses[2:])


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
def test_a_scheduler_that_a_callback_steps_does_not_come_first(hook: str, quick: None) -> None:
    def rates(jit: bool) -> list[float]:
        model = keras.Sequential([layers.Input((6,)), layers.Dense(1)])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        model.compile(optimizer, "mse", jit_compile=jit)
        seen = []

        def step(index: int, logs: Any) -> None:
            scheduler.step()
            seen.append(optimizer.param_groups[0]["lr"])

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.fit(
                X, normal(len(X), 1), batch_size=8, epochs=2, verbose=0, callbacks=[LambdaCallback(**{hook: step})]
            )
        assert not jit or model.step_account.startswith("The steps ran as one compiled graph")
        return seen

    assert rates(True) == rates(False)
