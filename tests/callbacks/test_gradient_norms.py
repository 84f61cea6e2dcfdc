"""GradientNorms: how large gradients are, by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import normal, tensor
from oncue import hosts, layers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, GradientNorms, LambdaCallback

X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)


def network(optimizer: Any = None, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4, name="one"), layers.Dense(1, name="two")])
    model.compile(optimizer or oncue.optimizers.SGD(0.05), "mse", **options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


class ByHand(Callback):
    """Computes the norms itself."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        squares = [float((one.grad.double() ** 2).sum()) for one in self.model.parameters()]
        self.found.append(float(np.sqrt(sum(squares))))


def test_the_mean_and_the_largest_of_an_epoch(tmp_path: Path) -> None:
    by_hand, log = ByHand(), CSVLogger(tmp_path / "log.csv")
    history = fit(network(), log, by_hand, GradientNorms(every=1)).history
    for epoch in range(2):
        found = by_hand.found[3 * epoch : 3 * epoch + 3]
        assert history["gradient_norm"][epoch] == pytest.approx(np.mean(found), rel=1e-5)
        assert history["gradient_norm_max"][epoch] == pytest.approx(max(found), rel=1e-5)
    assert "gradient_norm_max" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_so_many_batches_over_the_ends_of_epochs() -> None:
    by_hand = ByHand()
    history = fit(network(), by_hand, GradientNorms(every=2), epochs=2).history
    # Batches 0, 2 and 4 of six.
    assert history["gradient_norm"][0] == pytest.approx(np.mean([by_hand.found[0], by_hand.found[2]]), rel=1e-5)
    assert history["gradient_norm"][1] == pytest.approx(by_hand.found[4], rel=1e-5)


def test_by_weight() -> None:
    history = fit(network(), GradientNorms(every=1, by_weight=True), epochs=1, batch_size=24).history
    parts = [history[f"gradient_norm_{name}"][0] for name in ("one.kernel", "one.bias", "two.kernel", "two.bias")]
    assert np.sqrt(np.sum(np.square(parts))) == pytest.approx(history["gradient_norm"][0], rel=1e-5)


def test_they_are_those_that_the_optimizer_used() -> None:
    history = fit(network(oncue.optimizers.SGD(0.05, global_clipnorm=0.01)), GradientNorms(every=1)).history
    assert history["gradient_norm_max"] == pytest.approx([0.01, 0.01], rel=1e-4)


def test_a_scaled_loss_does_not_count_where_keras_leaves_the_gradients_so() -> None:
    import keras

    def norms(optimizer: Any) -> Any:
        keras.utils.set_random_seed(1)
        made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
        made.compile(optimizer, "mse")
        history = fit(oncue.Model(made), GradientNorms(every=1, by_weight=True), shuffle=False)
        return [values for name, values in sorted(history.history.items()) if name.startswith("gradient_norm")]

    # The factor changes within the epoch: after two finite steps it is twice as large.
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), dynamic_growth_steps=2)
    np.testing.assert_allclose(norms(scaled), norms(keras.optimizers.SGD(0.01)), rtol=1e-5)


def test_one_that_is_not_finite_is_noted() -> None:
    model = network()
    history = model.fit(X * np.inf, Y, epochs=1, verbose=0, callbacks=[GradientNorms()])
    assert [one.text for one in history.journal] == ["the norm of the gradients was nan"]


def test_compiled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="compiled steps keep none.*jit_compile=False"):
        fit(network(jit_compile=True), GradientNorms())
    model, seen = network(jit_compile="auto"), list[Any]()
    monkeypatch.setattr("oncue.training.graph.choice.STEPS_WORTH_COMPILING", 6)
    look = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((model.run_eagerly, model.compiles_steps)))
    history = fit(model, GradientNorms(), look)
    assert (seen, model.run_eagerly) == ([(True, False)] * 2, False)
    assert history.history["gradient_norm"][0] > 0


def test_a_loop_that_drops_gradients() -> None:
    module = torch.nn.Linear(3, 1).to(oncue.backend.device())
    with (
        pytest.raises(ValueError, match=r"finds no gradients after a step.*zero_grad\(\)` before `backward"),
        hosts.loop(module, None, [GradientNorms()], epochs=1) as run,
    ):
        for _ in run.epochs():
            for x in run.batches([tensor(X)]):
                run.step(loss=module(x).sum())


def test_a_resumed_epoch_has_the_same_mean(tmp_path: Path) -> None:
    def run(folder: Path, *more: Any) -> Any:
        backup = BackupAndRestore(folder, save_freq=1)
        return fit(network(), GradientNorms(every=2, by_weight=True), backup, *more, shuffle=True).history

    def cut(batch: int, logs: Any) -> None:
        if batch == 2 and stop.model.history.epoch == [0]:
            raise ConnectionError("power cut")

    whole, stop = run(tmp_path / "whole"), LambdaCallback(on_train_batch_begin=cut)
    with pytest.raises(ConnectionError):
        run(tmp_path / "cut", stop)
    assert run(tmp_path / "cut") == whole


def test_a_resumed_epoch_of_another_object_of_the_model(tmp_path: Path) -> None:
    def run(folder: Path, *more: Any) -> Any:
        oncue.utils.set_random_seed(1)
        # Whose layers get the next names.
        model = oncue.Sequential([layers.Input((3,)), layers.Dense(2), layers.Dense(1)])
        model.compile("sgd", "mse")
        backup = BackupAndRestore(folder, save_freq=1)
        history = fit(model, GradientNorms(every=1, by_weight=True), backup, *more, epochs=1).history
        return [values for name, values in history.items() if name.startswith("gradient_norm")]

    def cut(batch: int, logs: Any) -> None:
        if batch == 2:
            raise ConnectionError("power cut")

    whole = run(tmp_path / "whole")
    with pytest.raises(ConnectionError):
        run(tmp_path / "cut", LambdaCallback(on_train_batch_begin=cut))
    assert run(tmp_path / "cut") == whole
