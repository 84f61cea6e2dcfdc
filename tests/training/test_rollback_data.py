"""A rollback brings back the data, of training and of validation: the epoch that is done again gets the same batches."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

import oncue
from helpers import batches_of
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, TerminateOnNaN

X = np.random.default_rng(3).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
PAIRS = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))


class Spoils(Callback):
    """Makes a value NaN, once: that of a batch, or that of validation."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        super().__init__()
        self.at: Any = (epoch, batch)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch) == self.at:
            self.at, logs["loss"] = None, float("nan")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch, None) == self.at:
            self.at, logs["val_loss"] = None, float("nan")


def run(training: Any, validation: Any, *further: Any, **options: Any) -> Any:
    history, weights, undone = run_with(training, validation, *further, **options)
    assert undone == len(further)
    return history, weights


def run_with(training: Any, validation: Any, *further: Any, **options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(4), layers.Dropout(0.3), layers.Dense(1)])
    model.compile(oncue.optimizers.Adam(0.05), loss="mse")
    data = training()
    history = model.fit(
        *(data if isinstance(data, tuple) else (data,)),
        epochs=3,
        verbose=0,
        validation_data=validation(),
        callbacks=[*further, TerminateOnNaN(monitor=["loss", "val_loss"], action="rollback", factor=1.0)],
        **options,
    )
    undone = [entry for entry in history.journal if entry.kind == "rollback"]
    return history.history, [weight.tobytes() for weight in model.get_weights()], len(undone)


def comes_back(training: Any, validation: Any = lambda: (X, Y), **options: Any) -> None:
    whole = run(training, validation, **options)
    for place in ((2, 2), (1, None)):
        assert run(training, validation, Spoils(*place), **options) == whole, place


def generator() -> Iterator[Any]:
    """Fill the same arrays each time."""
    draw, x, y = np.random.default_rng(7), np.empty((6, 4), "float32"), np.empty((6, 1), "float32")
    while True:
        at = draw.permutation(24)[:6]
        x[:], y[:] = X[at], Y[at]
        yield x, y


class Again:
    """Can be read again, in another order each time, from a place that nobody can find."""

    def __init__(self) -> None:
        draw = np.random.default_rng(7)
        self._next = lambda: draw.permutation(24)

    def __iter__(self) -> Iterator[Any]:
        order = self._next()
        for start in range(0, 24, 6):
            yield X[order[start : start + 6]], Y[order[start : start + 6]]


class Samples(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for index in range(24):
            yield X[index] + torch.randn(4).tolist(), Y[index]


class Noisy(Dataset[Any]):
    def __init__(self) -> None:
        self.draw = np.random.default_rng(5)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Any:
        return X[index] * np.float32(self.draw.normal()), Y[index]


class Remembers(Sampler[int]):
    def __init__(self) -> None:
        self.draw = np.random.default_rng(5)

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Iterator[int]:
        yield from self.draw.permutation(24).tolist()


GLOBAL: dict[str, Callable[[], float]] = {
    "numpy": np.random.normal,
    "python": random.random,
    "torch": lambda: float(torch.randn(())),
}


def drawing(draw: Callable[[], float]) -> Iterator[Any]:
    """Draw from a generator that all share."""
    while True:
        yield X[:6] * np.float32(draw()), Y[:6]


class Draws:
    """Draws when a pass begins, for each batch, and when the pass ends."""

    def __iter__(self) -> Iterator[Any]:
        order = np.random.permutation(24)
        for start in range(0, 24, 6):
            yield X[order[start : start + 6]] * np.float32(random.random()), Y[order[start : start + 6]]
        np.random.normal()


def loader(data: Callable[[], Any] = lambda: PAIRS, **options: Any) -> Callable[[], Any]:
    return lambda: DataLoader(
        data(), batch_size=6, **{key: value() if callable(value) else value for key, value in options.items()}
    )


SOURCES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "generator": (generator, {"steps": 3}),
    "iterable": (Again, {}),
    "iterable, some steps": (Again, {"steps": 3}),
    "loader": (loader(shuffle=True, generator=lambda: torch.Generator().manual_seed(3)), {}),
    "sampler with a memory": (loader(sampler=Remembers), {"steps": 3}),
    "data set with a generator": (loader(Noisy, shuffle=True), {}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "iterable")) for name in SOURCES]
)
def test_training_data(name: str) -> None:
    source, options = SOURCES[name]
    comes_back(source, steps_per_epoch=options.get("steps"))


@pytest.mark.parametrize("name", GLOBAL)
def test_data_that_draw_from_a_generator_that_all_share(name: str) -> None:
    comes_back(lambda: drawing(GLOBAL[name]), steps_per_epoch=3)


@pytest.mark.parametrize("steps", [None, 3])
def test_passes_that_draw_from_generators_that_all_share(steps: int | None) -> None:
    comes_back(Draws, steps_per_epoch=steps)


def test_validation_data_that_draw_from_a_generator_that_all_share() -> None:
    comes_back(lambda: (X, Y), lambda: drawing(np.random.normal), validation_steps=3, batch_size=6)


def test_a_rollback_goes_on_as_a_resumed_run_does(tmp_path: Path) -> None:
    class Stops(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.model.optimizer.iterations == 5:
                raise KeyboardInterrupt

    def go(*further: Any) -> Any:
        return run(lambda: drawing(np.random.normal), lambda: (X, Y), *further, steps_per_epoch=3)

    def resumed(*further: Any) -> Any:
        backup = BackupAndRestore(tmp_path)
        return run_with(lambda: drawing(np.random.normal), lambda: (X, Y), backup, *further, steps_per_epoch=3)

    with pytest.raises(KeyboardInterrupt):
        resumed(Stops())
    weights = resumed()[1]
    assert go(Spoils(1, 1))[1] == weights == go()[1]


@pytest.mark.parametrize("name", ["generator", "iterable", "loader"])
def test_validation_data(name: str) -> None:
    source, options = SOURCES[name]
    comes_back(lambda: (X, Y), source, validation_steps=options.get("steps"), batch_size=6)


def test_workers_that_stay() -> None:
    source = loader(Noisy, shuffle=True, num_workers=1, persistent_workers=True)
    whole = run(source, lambda: (X, Y))
    assert run(source, lambda: (X, Y), Spoils(2, 2)) == whole


def test_what_cant_go_back_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Shuffled(oncue.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.order = np.arange(24)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            at = self.order[index * 6 : index * 6 + 6]
            return X[at], Y[at]

        def on_epoch_end(self) -> None:
            np.random.shuffle(self.order)

    class Hidden(Remembers):
        def __init__(self) -> None:
            draw = np.random.default_rng(5)
            self._next = lambda: draw.permutation(24).tolist()

        def __iter__(self) -> Iterator[int]:
            yield from self._next()

    run(Shuffled, lambda: (X, Y), Spoils(1, None))
    assert "Epoch 2 begins with other data than before: the training data (Shuffled)" in capsys.readouterr().out
    run(loader(sampler=Hidden), lambda: (X, Y), Spoils(1, 2))
    assert "The Hidden of the DataLoader may not go back" in capsys.readouterr().out
    monkeypatch.setattr("oncue.feeding.tape.LIMIT", 200)
    run(generator, lambda: (X, Y), Spoils(1, 2), steps_per_epoch=3)
    assert "The generator can't go back to where it was" in capsys.readouterr().out


def test_a_pass_that_is_given_up_is_over() -> None:
    batches = batches_of(Again())
    for number in range(3):
        begun = batches.epoch()
        next(begun)
        next(begun)
        begun.close()
        assert batches.state_dict()["passes"] == number
    assert len(list(batches.epoch())) == 4
    assert {key: batches.state_dict()[key] for key in ("passes", "in_pass")} == {"passes": 4, "in_pass": 0}


def test_a_stream_of_what_a_model_computes_goes_back_too() -> None:
    embed = torch.nn.Linear(4, 4)

    def stream() -> Iterator[Any]:
        while True:
            for start in range(0, 24, 6):
                yield embed(torch.as_tensor(X[start : start + 6])), torch.as_tensor(Y[start : start + 6])

    def once(*further: Any) -> Any:
        torch.manual_seed(0)
        embed.reset_parameters()
        return run(stream, lambda: (X, Y), *further, steps_per_epoch=4)

    assert once(Spoils(1, 2)) == once()
