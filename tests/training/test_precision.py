"""`compile(precision=...)`: what is computed in 16 bits, what stays in 32, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import NoWaits, PowerCut, normal, same_arrays, tensor, to_numpy
from oncue.callbacks import BackupAndRestore, Callback
from oncue.optimizers import SGD, Adam, LossScaleOptimizer

X = normal(64, 4)
Y = X.sum(1, keepdims=True)
# "cpu", "cuda": what torch calls the kind of device.
KIND = oncue.backend.device().type
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Watched(torch.nn.Module):
    """Two linear maps that note the type they computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu()
        self.seen.append(hidden.dtype)
        return self.second(hidden)


def sequential() -> Any:
    return oncue.Sequential([oncue.layers.Input((4,)), oncue.layers.Dense(8, activation="relu"), oncue.layers.Dense(1)])


def module() -> Any:
    oncue.utils.set_random_seed(0)
    return oncue.Model(Watched())


class Subclassed(oncue.Model):
    """A user's model."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = oncue.layers.Dense(8, activation="relu"), torch.nn.Linear(8, 1)

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))


MODELS = {"sequential": sequential, "module": module, "subclassed": Subclassed}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("precision", HALF)
def test_forward_in_16_bits_all_else_in_32(kind: str, precision: str) -> None:
    oncue.utils.set_random_seed(0)
    model = MODELS[kind]()
    given: list[tuple[torch.dtype, torch.dtype, bool]] = []

    def loss(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
        given.append((y_true.dtype, y_pred.dtype, torch.is_autocast_enabled(KIND)))
        return (y_true - y_pred).square().mean(-1)

    def distance(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
        given.append((y_true.dtype, y_pred.dtype, torch.is_autocast_enabled(KIND)))
        return (y_true - y_pred).abs().mean(-1)

    model.compile(Adam(0.05), loss, metrics=[distance], precision=precision)
    history = model.fit(X, Y, epochs=8, verbose=0, validation_data=(X, Y)).history
    assert history["val_loss"][-1] < 0.8 * history["loss"][0]
    assert set(given) == {(torch.float32, torch.float32, False)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {slot.dtype for slots in model.optimizer.slots().values() for slot in slots} == {torch.float32}
    assert model.predict(X, verbose=0).dtype == model.predict_on_batch(X).dtype == np.float32
    if kind == "module":
        assert set(model.module.seen) == {HALF[precision]}


@pytest.mark.parametrize("kind", MODELS)
def test_the_outputs_are_those_of_autocast(kind: str) -> None:
    model = MODELS[kind]()
    model.compile("sgd", "mse")
    exact = model.predict(X, batch_size=len(X), verbose=0)
    model.compile("sgd", "mse", precision="bf16")
    half = model.predict(X, batch_size=len(X), verbose=0)
    assert 0 < np.abs(half - exact).max() < 0.1
    with torch.autocast(KIND, torch.bfloat16), torch.no_grad():
        by_hand = to_numpy((model.module if kind == "module" else model)(tensor(X)).float())
    np.testing.assert_array_equal(half, by_hand)
    model.compile("sgd", "mse", precision="fp32")
    np.testing.assert_array_equal(model.predict(X, batch_size=len(X), verbose=0), exact)


def test_a_step_equals_that_of_a_hand_written_loop() -> None:
    oncue.utils.set_random_seed(0)
    ours, theirs = Watched(), Watched()
    theirs.load_state_dict(ours.state_dict())
    theirs.to(oncue.backend.device())
    model = oncue.Model(ours)
    model.compile(LossScaleOptimizer(SGD(0.05), initial_scale=256.0, dynamic_growth_steps=4), "mse", precision="fp16")
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler(KIND, init_scale=256.0, growth_interval=4)
    for _ in range(2):
        for start in range(0, 64, 8):
            x, y = tensor(X[start : start + 8]), tensor(Y[start : start + 8])
            optimizer.zero_grad()
            with torch.autocast(KIND, torch.float16):
                y_pred = theirs(x)
            scaler.scale(torch.nn.functional.mse_loss(y_pred.float(), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert float(model.optimizer.dynamic_scale) == scaler.get_scale() == 256.0 * 2**4
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_a_step_with_infinite_gradients_is_skipped_and_not_counted() -> None:
    model = module()
    model.compile(LossScaleOptimizer(Adam(0.01), initial_scale=2.0**40), "mse", precision="fp16")
    before = model.get_weights()
    counts = []

    class Count(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            counts.append((int(self.model.optimizer.iterations), float(self.model.optimizer.dynamic_scale)))
            if counts[-1][0] == 0:
                assert same_arrays(before, self.model.get_weights())

    model.fit(X, Y, batch_size=2, verbose=0, callbacks=[Count()])
    skipped = sum(1 for count, _ in counts if count == 0)
    assert 0 < skipped < 32
    # Halved by each step that is skipped, and by no other.
    done = [count for count, _ in counts]
    assert all(scale == 2.0 ** (40 - (number - count)) for number, (count, scale) in enumerate(counts, 1))
    assert done[-1] == 32 - round(40 - np.log2(counts[-1][1]))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_schedule_does_not_advance_in_skipped_steps() -> None:
    model = module()
    rate = oncue.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.01, 0.001])
    model.compile(LossScaleOptimizer(SGD(rate), initial_scale=2.0**40), "mse", precision="fp16")
    seen = {}

    class Rates(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen[int(self.model.optimizer.iterations)] = float(self.model.optimizer.learning_rate)

    model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[Rates()])
    assert [seen[count] for count in range(7)] == [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]


WORDS = {
    "bf16": ["bf16", "bfloat16", "mixed_bfloat16", "bf16-mixed", torch.bfloat16],
    "fp16": ["fp16", "float16", "mixed_float16", "16-mixed", 16, torch.float16],
    None: ["fp32", "float32", "32", "32-true", 32, torch.float32, None],
}


@pytest.mark.parametrize(("meaning", "word"), [(name, word) for name, words in WORDS.items() for word in words])
def test_words(meaning: str | None, word: Any) -> None:
    model = sequential()
    model.compile("sgd", "mse", precision=word)
    assert (model.predict(X, batch_size=len(X), verbose=0) != in_float32(model)).any() == (meaning is not None)
    assert isinstance(model.optimizer, LossScaleOptimizer) == (meaning == "fp16")


def in_float32(model: Any) -> Any:
    with torch.no_grad():
        hidden = tensor(X)
        for layer in model.layers:
            hidden = layer(hidden)
        return to_numpy(hidden)


@pytest.mark.parametrize("value", ["bf61", "int8", 8, True, "", "64"])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`precision` must be 'bf16', 'fp16' or 'fp32'.*got " + repr(value)):
        sequential().compile("sgd", "mse", precision=value)


def test_a_near_miss_is_named() -> None:
    with pytest.raises(ValueError, match="Did you mean 'bf16'"):
        sequential().compile("sgd", "mse", precision="bf_16")


def test_auto_scale_loss_can_be_declined() -> None:
    model = sequential()
    model.compile("sgd", "mse", precision="fp16", auto_scale_loss=False)
    assert type(model.optimizer) is SGD
    model.compile(LossScaleOptimizer("sgd", initial_scale=8), "mse", precision="fp16")
    assert model.optimizer.initial_scale == 8 and type(model.optimizer.inner_optimizer) is SGD


def test_a_step_of_the_users_own() -> None:
    seen = []

    class Own(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = oncue.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            outputs = self.dense(inputs)
            seen.append(outputs.dtype)
            return outputs

        def train_step(self, data: Any) -> Any:
            x, y = data
            self.zero_grad()
            y_pred = self(x)
            seen.append(y_pred.dtype)
            loss = self.compute_loss(y=y, y_pred=y_pred)
            self.optimizer.scale_loss(loss).backward()
            self.optimizer.step()
            return {"loss": loss}

    model = Own()
    model.compile(LossScaleOptimizer(SGD(0.01), initial_scale=256), "mse", precision="fp16")
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, epochs=5, verbose=0)
    assert seen[-2:] == [torch.float16, torch.float32]
    assert model.optimizer.iterations == 10 and model.evaluate(X, Y, verbose=0) < before
    seen.clear()
    model(tensor(X))
    assert seen == [torch.float16]


@pytest.mark.parametrize("precision", [*HALF, None])
def test_resuming_is_exact(tmp_path: Path, precision: str | None) -> None:
    def run(folder: str, *further: Callback) -> Any:
        oncue.utils.set_random_seed(1)
        model = sequential()
        optimizer = Adam(0.01, gradient_accumulation_steps=2)
        if precision == "fp16":
            optimizer = LossScaleOptimizer(optimizer, initial_scale=2.0**22, dynamic_growth_steps=5)
        model.compile(optimizer, "mse", precision=precision)
        callbacks = [BackupAndRestore(tmp_path / folder, save_freq=1), *further]
        history = model.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks).history
        scale = getattr(model.optimizer, "dynamic_scale", None)
        growth = getattr(model.optimizer, "step_counter", None)
        numbers = [None if tensor is None else float(tensor) for tensor in (scale, growth)]
        return history, [weight.tobytes() for weight in model.get_weights()], model.optimizer.iterations, numbers

    whole = run("a")
    with pytest.raises(ConnectionError):
        run("b", PowerCut(1, 4))
    assert run("b") == whole
    if precision == "fp16":
        assert whole[2] < 12, "steps were skipped"


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
@pytest.mark.parametrize("precision", HALF)
def test_files_keep_it(tmp_path: Path, name: str, precision: str) -> None:
    model = sequential()
    model.compile("adam", "mse", precision=precision)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / name)
    loaded = oncue.models.load_model(tmp_path / name)
    assert type(loaded.optimizer) is type(model.optimizer)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    again = [part.fit(X, Y, shuffle=False, verbose=0).history for part in (model, loaded)]
    assert again[0] == again[1]


@pytest.mark.parametrize("precision", [*HALF, None])
def test_the_configuration_of_compile(precision: str | None) -> None:
    model, other = sequential(), sequential()
    model.compile(Adam(0.5), "mse", metrics=["mae"], precision=precision, gradient_accumulation_steps=2)
    config = json.loads(json.dumps(model.get_compile_config()))
    assert config.get("precision") == precision
    other.compile_from_config(config)
    again = other.get_compile_config()
    assert all(again[key] == config[key] for key in ("optimizer", "loss", "metrics")) and again.keys() == config.keys()
    assert again.get("precision") == precision
    assert other.optimizer.learning_rate == 0.5 and type(other.optimizer) is type(model.optimizer)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fused_optimizers_on_an_accelerator_never_synchronize(optimizer: str) -> None:
    """Skipped steps are counted right though nothing is read in the step that is skipped."""
    model = module()
    inner = oncue.optimizers.get(optimizer)
    model.compile(LossScaleOptimizer(inner, initial_scale=2.0**40), "mse", precision="fp16")
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=[NoWaits()])
    assert model.optimizer.iterations == 32 - round(40 - np.log2(float(model.optimizer.dynamic_scale))) > 0
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_model_that_is_compiled_again_forgets_it() -> None:
    model = module()
    model.compile("sgd", "mse", precision="bf16")
    model.fit(X, Y, verbose=0)
    model.module.seen.clear()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert set(model.module.seen) == {torch.float32}


def test_nothing_is_around_the_forward_pass_in_32_bits() -> None:
    model = module()
    model.compile("sgd", "mse", precision="fp32")
    plan = model._resolve()
    assert plan.forward == model._forward == model._predict_forward()
