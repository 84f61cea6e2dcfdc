"""LearningRateFinder: a test of rates that leaves nothing but a suggestion."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, graphs_compiled_by, normal, same_arrays, tensor, uncompiled
from oncue import hosts, layers
from oncue.callbacks import (
    BackupAndRestore,
    BatchSizeFinder,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateFinder,
    ModelCheckpoint,
    TerminateOnNaN,
    TimeLimit,
)
from oncue.callbacks.learning_rate_finder import fall_of, steepest

X = normal(320, 3)
Y = X.sum(axis=1, keepdims=True) + 1


def network(**options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dropout(0.1), layers.Dense(1)])
    model.compile(options.pop("optimizer", None) or oncue.optimizers.SGD(0.01, momentum=0.5), "mse", **options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, "validation_data": (X[:9], Y[:9]), **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


class FromHere(Callback):
    """Sets a rate when training begins."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self.rate


@pytest.mark.parametrize("jit", [False, True])
def test_training_is_as_with_the_rate_from_the_beginning(jit: bool, tmp_path: Path) -> None:
    finder, log = LearningRateFinder(1e-4, 10.0, steps=30), CSVLogger(tmp_path / "log.csv")
    stop = EarlyStopping(patience=9, restore_best_weights=True)
    with graphs_compiled_by(uncompiled):
        history = fit(found := network(jit_compile=jit), finder, log, stop)
        plain = fit(known := network(jit_compile=jit), FromHere(finder.suggestion or 0.0))
    assert finder.suggestion is not None
    assert 1e-4 < finder.suggestion < 1.0
    assert history.history["loss"] == plain.history["loss"]
    assert found.optimizer.learning_rate == known.optimizer.learning_rate == pytest.approx(finder.suggestion)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    assert [(one.callback, one.epoch) for one in history.journal.of("learning_rate")] == [("LearningRateFinder", 0)]


def test_the_test_alone_leaves_everything_as_it_was() -> None:
    model = network()
    before = model.get_weights()
    ends: list[str] = []
    tell = LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append("epoch"), on_train_end=lambda logs: ends.append("run")
    )
    history = fit(model, finder := LearningRateFinder(1e-4, 10.0, steps=30, apply=False), tell)
    assert same_arrays(before, model.get_weights())
    assert (history.epoch, ends, model.optimizer.iterations) == ([], ["run"], 0)
    assert model.optimizer.learning_rate == pytest.approx(0.01)
    assert finder.suggestion is not None
    assert "a test of" in history.explain()


def test_the_rates_and_the_losses_of_batches() -> None:
    class ByHand(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.losses: list[float] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.model.reset_metrics()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.losses.append(logs["loss"])

    finder = LearningRateFinder(1e-3, 1.0, steps=20, apply=False)
    fit(network(), finder, shuffle=False)
    assert np.allclose(finder.rates, np.geomspace(1e-3, 1.0, 20))
    by_hand = ByHand()
    rates = LambdaCallback(
        on_train_batch_begin=lambda batch, logs: setattr(rates.model.optimizer, "learning_rate", finder.rates[batch])
    )
    fit(network(), rates, by_hand, shuffle=False, epochs=1, steps_per_epoch=20)
    smooth, expected = 0.0, []
    for count, loss in enumerate(by_hand.losses, 1):
        smooth = 0.9 * smooth + 0.1 * loss
        expected.append(smooth / (1 - 0.9**count))
    np.testing.assert_allclose(finder.losses, expected, rtol=1e-4)


def test_it_ends_when_the_loss_diverges() -> None:
    finder = LearningRateFinder(1e-4, 1e3, steps=40, apply=False)
    x = np.tile(X[:8], (40, 1))
    network().fit(x, x.sum(axis=1, keepdims=True) + 1, batch_size=8, verbose=0, callbacks=[finder])
    assert len(finder.losses) < 40
    assert np.isfinite(finder.losses).all()
    assert finder.suggestion is not None


def test_where_the_loss_never_falls() -> None:
    with pytest.warns(UserWarning, match="suggests nothing.*the loss never fell. The rate stays 0.01"):
        history = network().fit(X, np.full_like(Y, np.nan), batch_size=8, verbose=0, callbacks=[LearningRateFinder()])
    assert history.epoch == [0]


def test_nothing_is_saved_meanwhile(tmp_path: Path) -> None:
    saved: list[tuple[int, int]] = []

    class Notes(ModelCheckpoint):
        def _save(self, *arguments: Any) -> None:
            saved.append((self._run.progress.epoch, self._run.progress.batch))  # type: ignore[union-attr, arg-type]

    save = Notes(tmp_path / "{epoch}-{batch}.weights.h5", save_weights_only=True, every="5 steps")
    fit(network(), LearningRateFinder(1e-4, 10.0, steps=30), save, epochs=1)
    assert saved == [(0, batch) for batch in range(4, 40, 5)]


@pytest.mark.parametrize("cut", [(0, 12), (0, 35), (1, 3)])
def test_a_run_that_was_interrupted(tmp_path: Path, cut: tuple[int, int]) -> None:
    def run(folder: Path, *more: Any) -> Any:
        model = network()
        finder = LearningRateFinder(1e-4, 10.0, steps=30)
        history = fit(model, finder, BackupAndRestore(folder, save_freq=3), *more)
        return history.history, finder.suggestion, finder.losses, [one.tobytes() for one in model.get_weights()]

    class Late(PowerCut):
        """Cuts in training, not in the test before it."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch > 30 or not self._run.progress.trial or cut == (0, 12):  # type: ignore[union-attr]
                super().on_train_batch_begin(batch, logs)

    whole = run(tmp_path / "whole")
    with pytest.raises(ConnectionError):
        run(tmp_path / "cut", Late(*cut))
    assert run(tmp_path / "cut") == whole


class Unknown:
    """Batches whose number isn't known before they end."""

    def __iter__(self) -> Any:
        for at in range(0, 320, 8):
            yield X[at : at + 8], Y[at : at + 8]


@pytest.mark.parametrize("frequency", [1, "7 steps"])
def test_nothing_is_measured_and_no_epoch_ends_in_the_test(frequency: Any) -> None:
    heard: list[Any] = []
    tell = LambdaCallback(
        on_epoch_begin=lambda epoch, logs: heard.append("epoch"),
        on_epoch_end=lambda epoch, logs: heard.append(epoch),
    )
    tell.on_test_begin = lambda logs=None: heard.append("test")  # type: ignore[method-assign]
    finder = LearningRateFinder(1e-4, 1e4, steps=100)
    model = network()
    # In whatever order they stand; the test ends because the batches do.
    held = (X[:9], Y[:9])
    model.fit(Unknown(), epochs=1, verbose=0, validation_data=held, validation_freq=frequency, callbacks=[tell, finder])
    assert len(finder.losses) == 40 and finder.suggestion is not None
    assert heard == ["epoch", "epoch", *["test"] * (1 if frequency == 1 else 5), 0]


@pytest.mark.parametrize("action", ["stop", "raise", "rollback"])
@pytest.mark.parametrize("first", [True, False])
def test_a_test_may_diverge(action: str, first: bool) -> None:
    finder = LearningRateFinder(1e-4, 1e30, steps=40)
    both = [TerminateOnNaN(action=action), finder]
    with pytest.warns(UserWarning, match="suggests nothing"):
        history = fit(network(), *(both if first else both[::-1]))
    assert history.epoch == [0, 1] and finder.tested
    assert not history.journal.of("stop") and not history.journal.of("rollback")


def test_a_limit_of_time_that_is_reached_in_the_test() -> None:
    limit = TimeLimit(10.0, clock=itertools.count(0.0).__next__)
    history = fit(network(), LearningRateFinder(1e-4, 10.0, steps=30), limit, epochs=4)
    assert history.epoch == [0]
    assert [(one.callback, one.batch) for one in history.journal.of("stop")] == [("TimeLimit", 0)]


def test_several_batches_with_one_rate() -> None:
    finder = LearningRateFinder(1e-4, 10.0, steps=30, apply=False)
    x = np.tile(X[:8], (40, 1))
    network(steps_per_execution=2).fit(x, x.sum(axis=1, keepdims=True), batch_size=8, verbose=0, callbacks=[finder])
    np.testing.assert_allclose(finder.rates, np.geomspace(1e-4, 10.0, 20)[: len(finder.rates)])
    assert len(finder.rates) > 12
    with pytest.raises(ValueError, match="an epoch of 80 batches or more.*has 40.*`steps_per_execution`"):
        fit(network(steps_per_execution=8), LearningRateFinder())


def test_one_test_at_a_time() -> None:
    model = network()
    before = model.get_weights()
    with pytest.raises(
        ValueError, match="BatchSizeFinder and LearningRateFinder each test something.*size of batches first"
    ):
        fit(model, BatchSizeFinder(go_on=True), LearningRateFinder())
    assert same_arrays(before, model.get_weights())


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_the_suggestion_is_where_the_loss_falls_fastest(noise: float) -> None:
    rates = np.geomspace(1e-6, 10.0, 100)
    drawn = np.random.default_rng(0).normal(size=100)
    losses = 2 - 1 / (1 + np.exp(-3 * np.log10(rates / 1e-3))) + (rates / 3) ** 2 + noise * drawn
    found = steepest(list(rates), list(losses))
    assert found is not None
    assert 3e-4 < found < 3e-3


def smoothed(single: Any) -> list[float]:
    mean, found = 0.0, []
    for place, loss in enumerate(single):
        mean = 0.9 * mean + 0.1 * loss
        found.append(mean / (1 - 0.9 ** (place + 1)))
    return found


def noisy_test(count: int, seed: int) -> tuple[list[float], Any]:
    """Return the rates of a test and the loss at each, with noise: it falls fastest at 0.003, and diverges from 0.5 on."""
    rates = np.geomspace(1e-7, 1.0, count)
    falls = 2.3 - 1.5 / (1 + np.exp(-3 * np.log10(rates / 3e-3))) + np.exp(4 * np.log10(rates / 0.5))
    return list(rates), falls + 0.3 * np.random.default_rng(seed).normal(size=count)


@pytest.mark.parametrize("count", [50, 100, 400])
def test_noise_of_single_batches_does_not_decide(count: int) -> None:
    suggested = []
    for seed in range(20):
        rates, noisy = noisy_test(count, seed)
        suggested.append(steepest(rates, smoothed(noisy)) or 1e-9)
    assert 1e-3 < min(suggested) < max(suggested) < 0.1
    assert np.std(np.log10(suggested)) < 0.21


@pytest.mark.parametrize("batches", [10, 14])
def test_a_few_batches_of_noise_suggest_nothing(batches: int) -> None:
    for seed in range(8):
        oncue.utils.set_random_seed(seed)
        model = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
        model.compile("sgd", "mse")
        noise = np.random.default_rng(seed).normal(size=(4 * batches, 4)).astype("float32")
        finder = LearningRateFinder(1e-7, 1e-3, apply=False)
        with pytest.warns(UserWarning, match="LearningRateFinder suggests nothing") as said:
            model.fit(noise[:, :3], noise[:, 3:], batch_size=4, verbose=0, callbacks=[finder])
        assert finder.suggestion is None and len(finder.losses) == batches
        if "chance" in (text := str(said[0].message)):
            assert f"over {batches} batches the loss fell by" in text and "a smaller `batch_size` in `fit`" in text


def test_a_few_batches_whose_loss_falls_clearly() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.tile(X[:8], (10, 1))
    finder = LearningRateFinder(1e-5, 1.0, steps=10, apply=False)
    model.fit(x, x.sum(axis=1, keepdims=True) + 1, batch_size=8, shuffle=False, verbose=0, callbacks=[finder])
    assert finder.suggestion is not None and 1e-3 < finder.suggestion < finder.rates[-1]


@pytest.mark.parametrize("count", [10, 20, 50])
def test_what_is_suggested_in_spite_of_noise_is_near(count: int) -> None:
    suggested = []
    for seed in range(60):
        rates, noisy = noisy_test(count, seed)
        losses = smoothed(noisy)
        fall, error = fall_of(list(noisy), losses)
        if fall >= (1 + np.sqrt(2 * np.log(count))) * error:
            suggested.append(steepest(rates, losses) or 1e-9)
    assert len(suggested) > {10: 10, 20: 45, 50: 55}[count]
    assert 1e-3 < min(suggested) <= max(suggested) < 0.1


def test_a_first_batch_that_is_easy_is_not_the_least() -> None:
    # Of a run: the mean of one batch is below all that follow, which fall clearly.
    losses = [
        2.9,
        5.1,
        5.3,
        5.6,
        5.4,
        5.6,
        5.1,
        5.7,
        5.3,
        5.8,
        5.7,
        5.8,
        5.2,
        4.8,
        4.7,
        4.6,
        4.3,
        4.3,
        4.6,
        4.6,
        4.3,
        4.0,
        3.8,
    ]
    losses += [3.4, 3.3, 3.4, 3.8, 4.5, 17.0]
    rates = list(np.geomspace(1e-4, 1.0, len(losses)))
    found = steepest(rates, losses)
    assert found is not None and rates[8] < found < rates[24]
    assert fall_of(losses, losses)[0] == pytest.approx(2.5)


def test_plot(tmp_path: Path) -> None:
    finder = LearningRateFinder(1e-4, 10.0, steps=30, apply=False)
    with pytest.raises(ValueError, match="LearningRateFinder has tested nothing yet"):
        finder.plot()
    fit(network(), finder)
    figure = finder.plot(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 1000
    assert figure.axes[0].get_legend().get_texts()[0].get_text().startswith("suggested: ")


def test_in_a_loop_of_one_s_own() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1).to(oncue.backend.device())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    x, y = tensor(X), tensor(Y)
    seen: list[tuple[int, float]] = []
    finder = LearningRateFinder(1e-4, 10.0, steps=20)
    with hosts.loop(module, optimizer, [finder], epochs=2) as run:
        for epoch in run.epochs():
            for rows in run.batches(torch.arange(320).split(16)):
                seen.append((epoch, optimizer.param_groups[0]["lr"]))
                loss = torch.nn.functional.mse_loss(module(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
    assert finder.suggestion is not None
    assert [rate for _, rate in seen[: len(finder.rates)]] == pytest.approx(finder.rates)
    assert seen[-40:] == [(epoch, pytest.approx(finder.suggestion)) for epoch in (0, 1) for _ in range(20)]
    assert run.history.epoch == [0, 1]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LearningRateFinder(0.0), ValueError, "rates that rise from above 0: got min_rate=0.0"),
        (lambda: LearningRateFinder(1.0, 0.1), ValueError, "min_rate=1.0 and max_rate=0.1"),
        (lambda: LearningRateFinder(steps=3), ValueError, "`steps` of LearningRateFinder must be a whole number, 10"),
        (
            lambda: fit(network(), LearningRateFinder(), batch_size=100),
            ValueError,
            "needs an epoch of 10 batches or more, and this one has 4",
        ),
        (
            lambda: fit(
                network(optimizer=oncue.optimizers.SGD(oncue.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))),
                LearningRateFinder(),
            ),
            TypeError,
            "LearningRateFinder sets the learning rate, but a LearningRateSchedule",
        ),
    ],
)
def test_mistakes(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
