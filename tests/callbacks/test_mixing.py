"""Batches that callbacks change before a step: `change_batch`, and MixUp and CutMix, which are made so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, graphs_compiled_by, normal, same_arrays, tensor, to_numpy, uncompiled
from oncue import hosts, layers
from oncue.callbacks import BackupAndRestore, Callback, CutMix, MixUp

X = normal(24, 6, 4, 2)
Y = np.eye(3, dtype="float32")[np.arange(24) % 3]


def network(**options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    inner = [layers.Flatten(), layers.Dropout(0.1), layers.Dense(3, activation="softmax")]
    model = oncue.Sequential([layers.Input((6, 4, 2)), *inner])
    model.compile(oncue.optimizers.SGD(0.05), "categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    return model.fit(X, Y, **{"batch_size": 6, "epochs": 3, "verbose": 0, **options}, callbacks=list(callbacks))


class Keeps(Callback):
    """Keeps what it is asked to change."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
        self.seen.append(tuple(None if part is None else to_numpy(part).copy() for part in (x, y, sample_weight)))
        return x, y, sample_weight


def around(callback: Any, **options: Any) -> list[tuple[Any, Any]]:
    """Return each batch before and after a callback has changed it."""
    before, after = Keeps(), Keeps()
    fit(network(), before, callback, after, **options)
    return list(zip(before.seen, after.seen, strict=True))


# change_batch ----------------------------------------------------------------------------------------------------------


class Doubles(Callback):
    def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
        return x * 2, y, sample_weight


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("together", [1, 2])
def test_steps_train_on_what_it_returns(jit: bool, together: int) -> None:
    with graphs_compiled_by(uncompiled):
        options = {"jit_compile": jit, "steps_per_execution": together}
        changed = fit(network(**options), Doubles())
        plain = network(**options)
        expected = plain.fit(2 * X, Y, batch_size=6, epochs=3, verbose=0)
    assert changed.history == expected.history
    assert same_arrays(changed.model.get_weights(), plain.get_weights())


def test_a_step_of_the_user_s_own_gets_the_changed_batch() -> None:
    class Own(oncue.Sequential):
        def train_step(self, data: Any) -> Any:
            sums.append(float(data[0].sum()))
            return super().train_step(data)

    sums: list[float] = []
    model = Own([layers.Input((6, 4, 2)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    fit(model, Doubles(), shuffle=False, epochs=1)
    np.testing.assert_allclose(sums, [2 * X[at : at + 6].sum() for at in range(0, 24, 6)], rtol=1e-4)


def test_several_are_asked_in_the_order_of_the_list_and_validation_is_not() -> None:
    class Adds(Callback):
        def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
            return x + 1, y, sample_weight

    first, last = Keeps(), Keeps()
    history = fit(network(), first, Adds(), Doubles(), last, shuffle=False, epochs=1, validation_data=(X, Y))
    assert len(first.seen) == len(last.seen) == 4
    np.testing.assert_allclose(last.seen[0][0], (X[:6] + 1) * 2, rtol=1e-6)
    assert history.history["val_loss"] == pytest.approx([history.model.evaluate(X, Y, verbose=0)[0]])


def test_what_it_may_return() -> None:
    class Wrong(Callback):
        def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
            return wrong(x, y)

    def wrong(x: Any, y: Any) -> Any:
        return x, y

    with pytest.raises(TypeError, match=r"`Wrong.change_batch` must return \(x, y, sample_weight\)"):
        fit(network(), Wrong())

    def wrong(x: Any, y: Any) -> Any:  # type: ignore[no-redef]  # noqa: F811
        return x[:3], y[:3], None

    with pytest.raises(ValueError, match="must leave the number of rows: of 6 rows it returned 3"):
        fit(network(), Wrong())


def test_what_it_changes_of_the_model_counts_from_the_next_step() -> None:
    class Freezes(Callback):
        def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
            kernels.append(to_numpy(self.model.layers[-1].kernel).copy())
            if len(kernels) == 2:
                self.model.layers[-1].trainable = False
            return x, y, sample_weight

    kernels: list[Any] = []
    with pytest.warns(UserWarning, match="no trainable weights"):
        fit(network(), Freezes(), epochs=1)
    assert [bool((one != other).any()) for one, other in pairwise(kernels)] == [True, False, False]


@pytest.mark.parametrize("made", [Doubles, MixUp, CutMix])
def test_other_loops_refuse_it(made: Any) -> None:
    module = torch.nn.Linear(3, 1)
    name = made.__name__
    with pytest.raises(ValueError, match=f"{name} needs batches that it can change.*Change each batch yourself"):
        with hosts.loop(module, torch.optim.SGD(module.parameters()), [made()], epochs=1) as run:
            next(iter(run.epochs()))
    if made is not Doubles:
        import keras

        model = keras.Sequential([keras.layers.Input((6, 4, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match=f"{name} works in `fit` of oncue's models"):
            model.fit(X, Y, verbose=0, callbacks=[made()])
        with pytest.raises(ValueError, match="Keras's own loop lacks"):
            model.fit(X, Y, verbose=0, callbacks=[hosts.Keras(made())])


# MixUp -----------------------------------------------------------------------------------------------------------------


def test_mixup_is_a_share_of_each_sample_and_the_rest_of_another() -> None:
    shares = []
    for (x, y, _), (mixed, targets, _) in around(MixUp(1.0, seed=3)):
        share, order = solved(x, mixed)
        np.testing.assert_allclose(mixed, share * x + (1 - share) * x[order], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(targets, share * y + (1 - share) * y[order], rtol=1e-4, atol=1e-6)
        shares.append(share)
    assert len(shares) == 12 and len({round(share, 6) for share in shares}) == 12


def solved(x: Any, mixed: Any) -> tuple[float, list[int]]:
    """Return the share and the order by which a batch was mixed."""
    flat, found = x.reshape(len(x), -1), mixed.reshape(len(x), -1)
    share, order = 1.0, []
    for row in range(len(x)):
        fits = []
        for other in range(len(x)):
            along = flat[row] - flat[other]
            part = 1.0 if other == row else float((found[row] - flat[other]) @ along / (along @ along))
            fits.append((np.abs(part * flat[row] + (1 - part) * flat[other] - found[row]).max(), other, part))
        _, other, part = min(fits)
        # One that stays as it is can be any other's share of 1.
        order.append(other if part < 1 - 1e-5 else row)
        share = min(share, part)
    return share, order


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_shares_are_those_of_the_beta_distribution(alpha: float) -> None:
    mix = MixUp(alpha, seed=0)
    fit(network(), mix, epochs=1)
    x, y = tensor(np.array([[0.0], [1.0]])), tensor(np.eye(2))
    shares = []
    for _ in range(2000):
        _, targets, _ = mix.change_batch(x, y, None)
        shares.append(float(targets[0, 0]))
    drawn = np.array([share for share in shares if share != 1.0])
    # Half of the orders leave both where they are.
    assert len(drawn) == pytest.approx(1000, abs=100)
    assert drawn.mean() == pytest.approx(0.5, abs=0.05)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_factors_of_samples_nested_inputs_and_data_without_them() -> None:
    mix = MixUp(1.0, seed=3)
    fit(network(), mix, epochs=1)
    x = {"a": tensor(np.arange(4.0)[:, None]), "b": [tensor(np.arange(4.0)[:, None] * 10)]}
    weight = tensor(np.arange(4.0))
    mixed, targets, factors = mix.change_batch(x, tensor(np.arange(4.0)[:, None]), weight)
    expected = to_numpy(mixed["a"])
    np.testing.assert_allclose(to_numpy(mixed["b"][0]), expected * 10, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(targets), expected, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(factors), expected[:, 0], rtol=1e-6)


# CutMix ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_cutmix_puts_a_box_of_another_picture_into_each(data_format: str) -> None:
    cut = CutMix(seed=3, data_format=data_format)
    fit(network(), cut, epochs=1)
    rows = 5
    pictures = np.arange(1.0, rows + 1)[:, None, None, None] * np.ones((1, 8, 6, 2))
    if data_format == "channels_first":
        pictures = pictures.transpose(0, 3, 1, 2)
    kept = []
    for _ in range(50):
        mixed, targets, weight = cut.change_batch(tensor(pictures), tensor(np.eye(rows)), tensor(np.arange(rows)))
        found = to_numpy(mixed)
        found = found.transpose(0, 2, 3, 1) if data_format == "channels_first" else found
        own = np.arange(1.0, rows + 1)[:, None, None]
        assert (found[..., 0] == found[..., 1]).all()
        strange = found[..., 0] != own
        for row in range(rows):
            if not strange[row].any():
                continue
            down, across = np.flatnonzero(strange[row].any(axis=1)), np.flatnonzero(strange[row].any(axis=0))
            box = strange[row][down[0] : down[-1] + 1, across[0] : across[-1] + 1]
            assert box.all() and len(np.unique(found[row, ..., 0][strange[row]])) == 1
            other = int(found[row, ..., 0][strange[row]][0]) - 1
            area = 1 - strange[row].mean()
            np.testing.assert_allclose(to_numpy(targets)[row, [row, other]], [area, 1 - area], atol=1e-6)
            assert to_numpy(weight)[row] == pytest.approx(area * row + (1 - area) * other, abs=1e-5)
            kept.append(area)
    # What is beyond the edge is cut off, so that more than half is kept.
    assert 0.5 < np.mean(kept) < 0.85 and min(kept) <= 0.5


def test_the_boxes_are_as_large_as_the_share_says() -> None:
    from oncue.callbacks.cut_mix import _side

    draws = np.random.default_rng(0)
    sides = [_side(100, 0.75, draws) for _ in range(500)]
    # The side of a box with a quarter of the area is half of the picture's.
    assert max(end - begin for begin, end in sides) == 50
    assert {begin for begin, _ in sides} >= {0} and {end for _, end in sides} >= {100}
    assert all(end - begin == 50 for begin, end in sides if begin > 0 and end < 100)


# Both ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [MixUp, CutMix])
def test_probability_and_the_last_epoch(made: Any) -> None:
    mixed = [(before[0] != after[0]).any() for before, after in around(made(1.0, 0.5, seed=1), epochs=10)]
    assert 8 < sum(mixed) < 32
    history = fit(network(), made(seed=1, until_epoch=2))
    (entry,) = [entry for entry in history.journal if entry.callback == made.__name__]
    assert (entry.epoch, entry.text) == (2, "batches are left as they are from here on, after 2 epochs")
    changed = [(before[0] != after[0]).any() for before, after in around(made(1.0, seed=1, until_epoch=2))]
    assert any(changed[:8]) and not any(changed[8:])


@pytest.mark.parametrize("made", [MixUp, CutMix])
@pytest.mark.parametrize("jit", [False, True])
def test_compiled_steps_train_on_the_same_mixtures(made: Any, jit: bool) -> None:
    with graphs_compiled_by(uncompiled):
        first = fit(network(jit_compile=jit), made(1.0, seed=5))
    keeps = Keeps()
    second = fit(network(jit_compile=False), made(1.0, seed=5), keeps)
    np.testing.assert_allclose(first.history["loss"], second.history["loss"], rtol=1e-5)
    assert first.history["loss"] != fit(network(jit_compile=False)).history["loss"]


@pytest.mark.parametrize("made", [MixUp, CutMix])
@pytest.mark.parametrize("cut", [(1, None), (1, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("seed", [None, 7])
def test_a_resumed_run_mixes_as_it_would_have(made: Any, cut: Any, seed: Any, tmp_path: Path) -> None:
    def run(folder: str, *more: Any) -> Any:
        history = fit(network(), made(1.0, 0.7, 2, seed), BackupAndRestore(tmp_path / folder, save_freq=1), *more)
        return history.history, [one.tobytes() for one in history.model.get_weights()]

    whole = run("whole")
    with pytest.raises(ConnectionError):
        run("cut", PowerCut(*cut))
    assert run("cut") == whole


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MixUp(0.0), "`alpha` of MixUp must be a number above 0; got 0.0"),
        (lambda: CutMix(probability=0.0), "`probability` of CutMix must be above 0 and at most 1; got 0.0"),
        (lambda: MixUp(probability=1.5), "`probability` of MixUp"),
        (lambda: MixUp(until_epoch=0), "`until_epoch` of MixUp must be a whole number, 1"),
        (lambda: CutMix(data_format="last"), "'channels_last' or 'channels_first'; got 'last'"),
    ],
)
def test_arguments_that_can_t_be(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_data_that_can_t_be_mixed_are_refused_before_the_first_step() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    x, labels = normal(8, 3), np.arange(8) % 3
    with pytest.raises(ValueError, match=r"MixUp mixes targets.*these are torch.int.*Give one-hot targets"):
        model.fit(x, labels, verbose=0, callbacks=[MixUp()])
    with pytest.raises(ValueError, match=r"one tensor of four axes; the inputs are a tensor of the shape \(8, 3\)"):
        model.fit(x, labels, verbose=0, callbacks=[CutMix()])
    assert same_arrays(before, model.get_weights())
