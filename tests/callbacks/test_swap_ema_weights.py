"""SwapEMAWeights: the average where something is measured, the trained weights everywhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oncue
from helpers import to_numpy
from oncue.callbacks import Callback, EarlyStopping, SwapEMAWeights

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)

Weights = list[np.ndarray]


def model(momentum: float = 0.8, use_ema: bool = True) -> Any:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    made.set_weights([np.full((3, 1), 0.2), np.zeros(1)])
    made.compile(oncue.optimizers.SGD(0.2, use_ema=use_ema, ema_momentum=momentum), loss="mse")
    return made


def same(one: Weights, other: Weights) -> bool:
    return all(np.allclose(a, b, atol=1e-7) for a, b in zip(one, other, strict=True))


class ByHand(Callback):
    """Computes the average itself, and keeps the weights as it finds them at each hook."""

    def __init__(self, momentum: float = 0.8) -> None:
        super().__init__()
        self.momentum = momentum
        self.average: Weights = []
        self.trained: Weights = []
        self.seen: list[tuple[str, bool, bool]] = []

    def look(self, hook: str) -> None:
        now = self.model.get_weights()
        self.seen.append((hook, same(now, self.trained), same(now, self.average)))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.trained = self.model.get_weights()
        if not self.average:
            self.average = self.trained
        self.average = [
            self.momentum * a + (1 - self.momentum) * w for a, w in zip(self.average, self.trained, strict=True)
        ]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.trained:
            self.look("epoch_begin")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.look("test")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.look("epoch_end")


TRAINED, AVERAGE = (True, False), (False, True)


def fit(made: Any, swap: Any, by_hand: ByHand, epochs: int = 3, **options: Any) -> None:
    made.fit(
        X, Y, batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=[swap, by_hand],
        **{"validation_data": (X, Y), **options},
    )  # fmt: skip


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_what_the_model_has_at_each_moment(swap_on_epoch: bool) -> None:
    made, by_hand = model(), ByHand()
    fit(made, SwapEMAWeights(swap_on_epoch), by_hand)
    at_end = AVERAGE if swap_on_epoch else TRAINED
    one_epoch = [("test", *AVERAGE), ("epoch_end", *at_end), ("epoch_begin", *TRAINED)]
    assert by_hand.seen == (one_epoch * 3)[:-1]
    assert same(made.get_weights(), by_hand.average)
    assert not made.optimizer.average_in_model


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_a_run_that_is_stopped_ends_with_the_average_too(swap_on_epoch: bool) -> None:
    class Stop(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    made, by_hand = model(), ByHand()
    callbacks = [SwapEMAWeights(swap_on_epoch), by_hand, Stop()]
    made.fit(X, Y, batch_size=8, epochs=5, verbose=0, shuffle=False, callbacks=callbacks)
    assert same(made.get_weights(), by_hand.average)


def test_training_is_the_same_with_it_and_without() -> None:
    class Losses(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.losses: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.losses.append(logs["loss"])

    found = []
    for callbacks in ([], [SwapEMAWeights()], [SwapEMAWeights(swap_on_epoch=True)]):
        losses, made = Losses(), model()
        made.fit(
            X,
            Y,
            batch_size=8,
            epochs=3,
            verbose=0,
            shuffle=False,
            validation_data=(X, Y),
            callbacks=[losses, *callbacks],
        )
        found.append((losses.losses, [weight.tolist() for weight in made.get_weights()]))
    assert found[0] == found[1] == found[2]


def test_evaluate_and_predict_measure_the_average_and_give_the_weights_back() -> None:
    made = model()
    made.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    # After `fit` the weights are the average; train another batch, so that they differ.
    made.train_on_batch(X, Y)
    trained = made.get_weights()
    average = [to_numpy(tensor).copy() for tensor in made.optimizer.ema_variables]
    average[0] = average[0].reshape(trained[0].shape)
    assert not same(trained, average)

    with_average = model()
    with_average.set_weights(average)
    assert made.evaluate(X, Y, verbose=0, callbacks=[SwapEMAWeights()]) == pytest.approx(
        with_average.evaluate(X, Y, verbose=0)
    )
    assert same(made.get_weights(), trained)
    np.testing.assert_allclose(
        made.predict(X, verbose=0, callbacks=[SwapEMAWeights()]), with_average.predict(X, verbose=0), atol=1e-6
    )
    assert same(made.get_weights(), trained)


@pytest.mark.parametrize("method", ["evaluate", "predict", "fit", "fit_swapped"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_trained_weights_are_back_after_an_error(method: str, error: type[BaseException]) -> None:
    class Fail(Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            if method != "fit_swapped":
                raise error

        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
            raise error

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if method == "fit_swapped":
                raise error

    made, by_hand, swap = model(), ByHand(), SwapEMAWeights(swap_on_epoch=True)
    if method.startswith("fit"):
        with pytest.raises(error):
            made.fit(
                X, Y, batch_size=8, verbose=0, shuffle=False, validation_data=(X, Y), callbacks=[swap, by_hand, Fail()]
            )
        trained = by_hand.trained
    else:
        made.train_on_batch(X, Y)
        made.train_on_batch(X, Y)
        trained = made.get_weights()
        with pytest.raises(error):
            getattr(made, method)(*((X, Y) if method == "evaluate" else (X,)), verbose=0, callbacks=[swap, Fail()])
    assert same(made.get_weights(), trained)
    assert not made.optimizer.average_in_model


@pytest.mark.parametrize("swap_first", [True, False])
def test_the_best_weights_are_there_after_an_error_in_validation(swap_first: bool) -> None:
    class Fail(Callback):
        def on_test_begin(self, logs: Any = None) -> None:
            if kept:
                raise RuntimeError("broke")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            kept.append(self.model.get_weights())

    kept: list[Weights] = []
    made, swap = model(), SwapEMAWeights()
    stop = EarlyStopping(restore_best_weights=True)
    pair = [swap, stop] if swap_first else [stop, swap]
    with pytest.raises(RuntimeError, match="broke"):
        made.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[*pair, Fail()])
    assert same(made.get_weights(), kept[0])


def test_before_the_first_update_there_is_no_average_to_show() -> None:
    made = model()
    before = made.evaluate(X, Y, verbose=0)
    assert made.evaluate(X, Y, verbose=0, callbacks=[SwapEMAWeights()]) == before


def test_a_resumed_run_knows_that_the_saved_weights_are_the_average() -> None:
    saved: dict[str, Any] = {}
    swap = SwapEMAWeights(swap_on_epoch=True)

    class Save(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                saved["weights"] = self.model.get_weights()
                saved["ema"] = [tensor.clone() for tensor in self.model.optimizer.ema_variables]
                saved["iterations"] = int(self.model.optimizer.iterations)
                saved["swap"] = swap.state_dict()

    whole, by_hand = model(), ByHand()
    whole.fit(X, Y, batch_size=8, epochs=4, verbose=0, shuffle=False, callbacks=[swap, by_hand, Save()])
    assert saved["swap"] == {"average_in_model": True}

    again = SwapEMAWeights(swap_on_epoch=True)

    class Load(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.model.set_weights(saved["weights"])
            for tensor, value in zip(self.model.optimizer.ema_variables, saved["ema"], strict=True):
                tensor.copy_(value)
            self.model.optimizer.iterations = saved["iterations"]
            again.load_state_dict(saved["swap"])

    resumed = model()
    resumed.fit(X, Y, batch_size=8, epochs=4, initial_epoch=2, verbose=0, shuffle=False, callbacks=[again, Load()])
    assert same(resumed.get_weights(), whole.get_weights())


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_an_optimizer_without_an_average_is_refused(method: str) -> None:
    made = model(use_ema=False)
    before = made.get_weights()
    with pytest.raises(ValueError, match=r"SwapEMAWeights.*use_ema=True"):
        getattr(made, method)(*((X,) if method == "predict" else (X, Y)), verbose=0, callbacks=[SwapEMAWeights()])
    assert same(made.get_weights(), before)


def test_a_host_without_an_average_is_refused() -> None:
    class Host:
        optimizer = object()

    swap = SwapEMAWeights()
    swap.set_model(Host())
    with pytest.raises(ValueError, match=r"use_ema=True.*object has no moving average"):
        swap.on_test_begin()
    swap.close()
