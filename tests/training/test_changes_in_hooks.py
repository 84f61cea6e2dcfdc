"""What a hook changes on the model counts from the next step, in whatever hook, eagerly and compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import layers, optimizers
from oncue.callbacks import Callback

X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X.sum(1, keepdims=True)
HOOKS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_epoch_end",
    "on_test_end",
)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def jit(request: pytest.FixtureRequest, quick: None) -> bool:
    return bool(request.param)


def network(optimizer: Any = None, jit: bool = False, **options: Any) -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile(optimizer or optimizers.SGD(0.05), "mse", jit_compile=jit, **options)
    return model


class At(Callback):
    """Changes the model in one call of one hook."""

    def __init__(self, hook: str, index: int, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.index, self.change, self.calls = index, change, 0
        setattr(self, hook, self.count)

    def count(self, *arguments: Any, **named: Any) -> None:
        if self.calls == self.index:
            self.change(self.model)
        self.calls += 1


class Losses(Callback):
    """Keeps the loss of each batch alone: the running mean begins anew with each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.found.append(logs["loss"])
        self.model.reset_metrics()


def fit(model: Any, *callbacks: Any, epochs: int = 3, **arguments: Any) -> dict[str, list[float]]:
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    history: dict[str, list[float]] = model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **arguments).history
    return history


def weights(model: Any) -> list[Any]:
    return [array.copy() for array in model.get_weights()]


def assert_equal(one: list[Any], other: list[Any]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("how", ["compile", "optimizer"])
def test_another_optimizer_updates_from_the_next_step_on(hook: str, how: str, jit: bool) -> None:
    def change(model: Any) -> None:
        if how == "compile":
            model.compile(optimizers.Adam(0.01), "mse", jit_compile=jit)
        else:
            model.optimizer = optimizers.Adam(0.01)

    index = 1 if "batch" in hook or "epoch" in hook else 0
    model = network(jit=jit)
    fit(model, At(hook, index, change), epochs=2, validation_data=(X, Y))

    # By hand: the steps before the change with one optimizer, those after it with the other.
    before = {"on_train_begin": 0, "on_epoch_begin": 4, "on_train_batch_begin": 1, "on_train_batch_end": 2}
    steps = before.get(hook, 8 if hook == "on_epoch_end" else 4)
    other = network()
    for step in range(8):
        if step == steps:
            other.compile(optimizers.Adam(0.01), "mse")
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        other.train_on_batch(X[rows], Y[rows])
    assert model.optimizer.iterations == 8 - steps
    assert_equal(weights(model), weights(other))


def test_an_optimizer_may_be_assigned_by_name_and_takes_what_compile_said_of_it() -> None:
    model = network(gradient_accumulation_steps=2)
    fit(model, At("on_epoch_begin", 1, lambda model: setattr(model, "optimizer", "adam")), epochs=2)
    assert isinstance(model.optimizer, optimizers.Adam)
    assert model.optimizer.gradient_accumulation_steps == 2 and model.optimizer.iterations == 2


def test_logs_do_not_mix_two_losses(jit: bool) -> None:
    found: list[float] = []

    class Look(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            found.append(logs["loss"])

    change = At("on_train_batch_end", 1, lambda model: model.compile(optimizers.SGD(0.0), "mae", jit_compile=jit))
    model = network(optimizers.SGD(0.0), jit)
    history = fit(model, change, Look(), epochs=2)
    error = np.abs(model.predict(X, verbose=0) - Y)
    assert found[0] == pytest.approx(float((error[:8] ** 2).mean()), rel=1e-5)
    assert found[2] == pytest.approx(float(error[16:24].mean()), rel=1e-5)
    assert history["loss"] == pytest.approx([float(error[16:].mean()), float(error.mean())], rel=1e-5)


def test_a_loss_that_is_assigned_counts(jit: bool) -> None:
    model = network(optimizers.SGD(0.0), jit, metrics=["mae"], loss_weights=2.0)
    history = fit(model, At("on_epoch_end", 0, lambda model: setattr(model, "loss", torch.nn.L1Loss())), epochs=2)
    error = np.abs(model.predict(X, verbose=0) - Y)
    assert history["loss"] == pytest.approx([2 * float((error**2).mean()), 2 * float(error.mean())], rel=1e-5)
    assert history["mae"] == pytest.approx([float(error.mean())] * 2, rel=1e-5)
    assert not any(isinstance(part, torch.nn.L1Loss) for part in model.modules())


def test_metrics_that_are_compiled_in_a_hook_are_logged_and_the_old_ones_no_longer() -> None:
    seen: list[list[str]] = []

    class Look(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(sorted(logs))

    model = network(metrics=["mae"])
    change = At("on_train_batch_end", 1, lambda model: model.compile("sgd", "mse", metrics=["mse", "mape"]))
    fit(model, change, Look(), epochs=2, validation_data=(X, Y))
    names = ["loss", "mape", "mse", "val_loss", "val_mape", "val_mse"]
    assert seen == [names, names]


@pytest.mark.parametrize("name", ["train_step", "test_step", "compute_loss", "compute_metrics"])
@pytest.mark.parametrize("where", ["before", "on_epoch_begin", "on_train_batch_begin", "on_test_batch_begin"])
def test_a_method_that_is_assigned_to_the_model_runs(name: str, where: str) -> None:
    calls: list[str] = []

    def method(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if name == "compute_loss":
            return named["y_pred"].mean()
        return {"loss": torch.tensor(7.0), "mine": torch.tensor(3.0)}

    model = network()
    if where == "before":
        setattr(model, name, method)
        history = fit(model, epochs=1, validation_data=(X, Y))
    else:
        history = fit(model, At(where, 0, lambda model: setattr(model, name, method)), epochs=1, validation_data=(X, Y))
    trains = where != "on_test_batch_begin"
    expected = {"train_step": 4 * trains, "test_step": 4}.get(name, 4 * trains + 4)
    assert len(calls) == expected
    if name != "compute_loss":
        assert ("mine" in history) == (trains and name != "test_step")
        assert ("val_mine" in history) == (name != "train_step")


def test_a_method_that_is_taken_away_again_no_longer_runs() -> None:
    model = network()
    model.train_step = lambda data: {"mine": torch.tensor(1.0)}
    history = fit(model, At("on_epoch_end", 0, lambda model: delattr(model, "train_step")), epochs=2)
    assert model.optimizer.iterations == 4 and history["mine"] == [1.0] and len(history["loss"]) == 1


def test_steps_per_execution_counts_from_the_next_batch() -> None:
    batches: list[int] = []

    class Look(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            batches.append(batch)

    model = network()
    fit(model, Look(), At("on_train_batch_end", 0, lambda model: setattr(model, "steps_per_execution", 2)), epochs=2)
    assert batches == [0, 2, 3, 1, 3]
    with pytest.raises(ValueError, match="`steps_per_execution` must be"):
        model.steps_per_execution = 0


def test_compiling_is_turned_on_and_off_in_a_hook(quick: None) -> None:
    model = network()
    fit(model, At("on_epoch_end", 0, lambda model: setattr(model, "jit_compile", True)), epochs=3)
    assert "as one compiled graph" in model.step_account
    model.run_eagerly = True
    fit(model)
    assert model.step_account == ""
    with pytest.raises(ValueError, match="`jit_compile` must be"):
        model.jit_compile = "sometimes"


def test_the_journal_says_what_a_hook_changed() -> None:
    journals: list[Any] = []

    class Look(Callback):
        def on_train_end(self, logs: Any = None) -> None:
            journals.extend(self._run.journal)

    def change(model: Any) -> None:
        model.compile(optimizers.SGD(0.1), "mae")
        model.layers[0].trainable = False

    fit(network(), At("on_epoch_begin", 1, change), Look())
    assert [entry.text for entry in journals] == [
        "a hook changed compile, trainable, which counts from this step of the training on"
    ]


# Which weights are trained ----------------------------------------------------------------------------------------------


def freeze(model: Any, trainable: bool = False) -> None:
    model.layers[0].trainable = trainable


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_epoch_end"])
@pytest.mark.parametrize("how", ["trainable", "requires_grad_"])
def test_a_layer_that_a_hook_unfreezes_is_trained_from_the_next_step(hook: str, how: str, jit: bool) -> None:
    def unfreeze(model: Any) -> None:
        if how == "trainable":
            model.layers[0].trainable = True
        else:
            model.layers[0].requires_grad_(True)

    found: list[Any] = []

    class Look(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            found.append(weights(self.model))

    model = network(optimizers.SGD(0.05, momentum=0.9), jit)
    freeze(model)
    model.compile(optimizers.SGD(0.05, momentum=0.9), "mse", jit_compile=jit)
    start = weights(model)
    fit(model, Look(), At(hook, 0, unfreeze), epochs=2)
    steps = {"on_train_batch_end": 1, "on_epoch_end": 4}.get(hook, 0)

    # In torch's own way, whose optimizer has all weights from the start.
    other = network()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    freeze(other)
    for step, after in enumerate(found):
        if step == steps:
            freeze(other, True)
        rows = slice(step % 4 * 8, step % 4 * 8 + 8)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(other(tensor(X[rows])), tensor(Y[rows])).backward()
        optimizer.step()
        assert_equal(after, weights(other))
        assert (step < steps) == np.array_equal(after[0], start[0])


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "nadam", "adagrad", "adadelta", "rmsprop"])
def test_a_weight_that_joins_later_is_updated_as_by_an_optimizer_that_begins(name: str) -> None:
    make = {
        "adam": lambda: optimizers.Adam(0.1, amsgrad=True),
        "adamw": lambda: optimizers.AdamW(0.1, weight_decay=0.1),
        "adamax": lambda: optimizers.Adamax(0.1),
        "nadam": lambda: optimizers.Nadam(0.1),
        "adagrad": lambda: optimizers.Adagrad(0.1),
        "adadelta": lambda: optimizers.Adadelta(0.1),
        "rmsprop": lambda: optimizers.RMSprop(0.1, momentum=0.9, centered=True),
    }[name]
    first, late, alone = (torch.nn.Parameter(tensor([1.0, -2.0])) for _ in range(3))
    optimizer, other = make(), make()
    optimizer.build([first])
    other.build([alone])
    gradients = np.random.default_rng(1).normal(size=(12, 2)).astype("float32")
    for gradient in gradients[:5]:
        optimizer.apply([gradient])
    state = optimizer.state_dict()["state"]
    kept = {key: [part.clone() for part in parts] for key, parts in state.items()}
    optimizer.build([late, first])
    for key, parts in optimizer.slots().items():
        assert torch.equal(parts[1], kept[key][0])
    for step, gradient in enumerate(gradients[5:]):
        optimizer.apply([gradient, gradient])
        other.apply([gradient])
        np.testing.assert_allclose(to_numpy(late), to_numpy(alone), rtol=1e-6)
        if step == 3:
            # A second object that is built for both from the start goes on from the state of the first.
            again = make()
            again.build([late, first])
            again.load_state_dict(optimizer.state_dict())
            optimizer = again
    assert optimizer.iterations == 12


def test_an_optimizer_is_not_used_for_other_weights() -> None:
    model = network()
    fit(model)
    other = network()
    other.optimizer = model.optimizer
    with pytest.raises(ValueError, match="was built for 4 other parameters"):
        fit(other)


def test_layers_are_unfrozen_between_two_runs_without_compiling_again() -> None:
    model = network()
    freeze(model)
    model.compile(optimizers.Adam(0.01), "mse")
    fit(model)
    start = weights(model)
    freeze(model, True)
    fit(model)
    assert not any(np.array_equal(a, b) for a, b in zip(weights(model), start, strict=True))
    assert model.optimizer.iterations == 24


@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_end", "on_epoch_begin"])
@pytest.mark.filterwarnings("ignore:.jit_compile. can't compile:UserWarning")
def test_a_layer_that_a_hook_freezes_stands_still(hook: str, jit: bool) -> None:
    start: list[Any] = []

    def change(model: Any) -> None:
        freeze(model)
        start.extend(weights(model))

    options = {"weight_decay": 0.1, "momentum": 0.9, "use_ema": True, "ema_overwrite_frequency": 3}
    model = network(optimizers.SGD(0.05, **options), jit)
    model.layers[0].weights[0].constraint = lambda kernel: kernel * 0.5
    fit(model, At(hook, 1 if "batch" in hook else 0, change))
    assert_equal(weights(model)[:2], start[:2])
    assert not np.allclose(weights(model)[2], start[2])


def test_a_whole_model_that_is_frozen_and_then_not() -> None:
    model = network()
    model.trainable = False
    with pytest.warns(UserWarning, match="no trainable weights"):
        fit(model, At("on_epoch_end", 0, lambda model: setattr(model, "trainable", True)), epochs=2)
    assert model.optimizer.iterations == 4


def test_a_torch_optimizer_that_lacks_what_is_unfrozen_says_so() -> None:
    model = network()
    freeze(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.compile(torch.optim.SGD(trained, lr=0.1), "mse")
    with pytest.raises(ValueError, match="add_param_group"):
        fit(model, At("on_epoch_end", 0, lambda model: freeze(model, True)))

    def add(model: Any) -> None:
        freeze(model, True)
        model.optimizer.torch_optimizer.add_param_group({"params": list(model.layers[0].parameters())})

    freeze(model)
    before = weights(model)
    fit(model, At("on_epoch_end", 0, add))
    assert not np.array_equal(weights(model)[0], before[0])


def test_a_function_that_makes_a_torch_optimizer_makes_one_for_all() -> None:
    model = network()
    freeze(model)
    model.compile(lambda parameters: torch.optim.Adam(parameters, lr=0.01), "mse")
    before = weights(model)

    def change(model: Any) -> None:
        freeze(model, True)
        model.optimizer.learning_rate = 0.02

    fit(model, At("on_epoch_end", 0, change))
    assert not np.array_equal(weights(model)[0], before[0]) and model.optimizer.learning_rate == pytest.approx(0.02)
    inner = model.optimizer.torch_optimizer
    assert [int(inner.state[p]["step"]) for p in model.parameters()] == [8, 8, 12, 12]


# Layers -----------------------------------------------------------------------------------------------------------------


def test_a_layer_that_a_hook_adds_is_trained() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile(optimizers.Adam(0.01), "mse")
    added = layers.Dense(1)

    def change(model: Any) -> None:
        model.add(added)

    start: list[Any] = []
    fit(model, At("on_train_batch_end", 1, change), At("on_train_batch_end", 2, lambda m: start.extend(weights(added))))
    assert not np.array_equal(added.get_weights()[0], start[0])


def test_a_torch_module_that_a_hook_puts_in_is_trained() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 1))
    model = oncue.Model(module)
    model.compile(optimizers.SGD(0.1), "mse")
    added = torch.nn.Linear(1, 1)
    start = added.weight.detach().clone()
    fit(model, At("on_train_batch_end", 1, lambda model: module.append(added.to(module[0].weight.device))))
    assert not torch.equal(added.weight.cpu(), start)


def test_a_regularizer_that_a_batch_hook_gives_counts_from_the_next_step(jit: bool) -> None:
    model = network(optimizers.SGD(0.0), jit)
    found = Losses()

    def change(model: Any) -> None:
        model.layers[1].activity_regularizer = oncue.regularizers.L2(1.0)

    fit(model, found, At("on_train_batch_end", 1, change), epochs=1)
    outputs = model.predict(X, verbose=0)
    mse = ((outputs - Y) ** 2).reshape(4, 8).mean(1)
    penalty = (outputs**2).reshape(4, 8).mean(1)
    assert found.found == pytest.approx([*mse[:2], *(mse + penalty)[2:]], rel=1e-5)


def test_a_constraint_that_a_hook_gives_counts_from_the_next_step(jit: bool) -> None:
    model = network(jit=jit)
    kernel = model.layers[1].weights[0]
    fit(model, At("on_train_batch_end", 1, lambda model: setattr(kernel, "constraint", torch.relu)), epochs=1)
    assert to_numpy(kernel.value).min() >= 0.0


def test_weights_that_a_hook_assigns_are_those_of_the_next_step(jit: bool) -> None:
    model = network(optimizers.SGD(0.0), jit)
    found = Losses()
    zeros = [np.zeros_like(array) for array in model.get_weights()]
    fit(model, found, At("on_train_batch_end", 1, lambda model: model.set_weights(zeros)), epochs=1)
    assert found.found[2:] == pytest.approx((Y**2).reshape(4, 8).mean(1)[2:], rel=1e-5)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_end"])
def test_penalties_and_constraints_of_weights_that_a_hook_gives_count(hook: str) -> None:
    model, other = network(optimizers.SGD(0.0)), network(optimizers.SGD(0.0))
    found, plain = Losses(), Losses()

    def change(model: Any) -> None:
        model.layers[0].kernel_regularizer = "l2"
        model.layers[1].kernel_constraint = "non_neg"

    fit(model, found, At(hook, 0, change), epochs=1)
    fit(other, plain, epochs=1)
    penalty = 0.01 * float((weights(other)[0] ** 2).sum())
    before = [] if hook == "on_train_begin" else [0.0]
    assert found.found[:1] == pytest.approx([plain.found[0] + (before or [penalty])[0]], rel=1e-5)
    assert weights(model)[2].min() >= 0.0 > weights(other)[2].min()
    assert len(model.losses) == 1 and model.layers[0].get_config()["kernel_regularizer"] is not None
    model.layers[0].kernel_regularizer = None
    assert not model.losses


def test_a_penalty_on_a_weight_that_a_layer_does_not_have_is_refused() -> None:
    layer = layers.LSTM(2)
    layer(tensor(np.ones((1, 2, 3), "float32")))
    with pytest.raises(AttributeError, match="`layer.cell.kernel_regularizer`"):
        layer.kernel_regularizer = "l2"
    layer.cell.kernel_regularizer = layer.cell.recurrent_regularizer = "l2"
    assert len(layer.losses) == 2


def test_a_file_says_that_it_cannot_hold_the_counts_of_weights_that_joined_later(tmp_path: Path) -> None:
    for optimizer, told in ((optimizers.Adam(0.01), True), (optimizers.SGD(0.01, momentum=0.9), False)):
        model = network()
        freeze(model)
        model.compile(optimizer, "mse")
        fit(model, At("on_epoch_end", 0, lambda model: freeze(model, True)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.save(tmp_path / "model.keras")
        assert any("one count of updates" in str(one.message) for one in caught) == told
        assert len(oncue.models.load_model(tmp_path / "model.keras").optimizer.variables) == len(
            model.optimizer.variables
        )


@pytest.mark.parametrize(
    ("hook", "index", "steps", "epoch", "batch"),
    [
        ("on_train_batch_end", 5, "train", 1, 2),
        ("on_epoch_end", 0, "train", 1, 0),
        ("on_train_batch_begin", 4, "train", 1, 0),
        ("on_test_begin", 1, "test", 1, None),
    ],
)
def test_the_journal_says_when_a_change_counts(
    hook: str, index: int, steps: str, epoch: int, batch: int | None
) -> None:
    model = network()

    def freeze(model: Any) -> None:
        model.layers[0].trainable = False

    history = model.fit(
        X, Y, batch_size=8, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[At(hook, index, freeze)]
    )
    found = [(entry.data["steps"], entry.epoch, entry.batch) for entry in history.journal if entry.kind == "change"]
    assert (steps, epoch, batch) in found
