"""`validation_steps`: each validation begins where the last one began, so that epochs are compared on the same samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import oncue

X = np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4)
Y = X.sum(axis=1, keepdims=True)
# Each pair of samples is much further from what is learnt than the pair before.
X_VAL = np.linspace(-1, 1, 48, dtype="float32").reshape(12, 4)
Y_VAL = X_VAL.sum(axis=1, keepdims=True) + np.repeat([0, 3, -2, 6, 1, 9], 2)[:, None].astype("float32")


def batches(k: Any) -> Any:
    class Batches(k.utils.PyDataset):  # type: ignore[misc, name-defined]  # the base depends on the loop
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            return X_VAL[index * 2 : index * 2 + 2], Y_VAL[index * 2 : index * 2 + 2]

    return Batches()


def loader(k: Any) -> Any:
    return DataLoader(TensorDataset(torch.as_tensor(X_VAL), torch.as_tensor(Y_VAL)), batch_size=2)


SOURCES: dict[str, Callable[[Any], Any]] = {
    "arrays": lambda k: (X_VAL, Y_VAL),
    "tensors": lambda k: (torch.as_tensor(X_VAL), torch.as_tensor(Y_VAL)),
    "PyDataset": batches,
    "DataLoader": loader,
}


def run(k: Any, validation: Any, **options: Any) -> dict[str, list[float]]:
    model = k.Sequential([k.layers.Input((4,)), k.layers.Dense(1)])
    model.compile(k.optimizers.SGD(0.1), "mse")
    model.set_weights([np.full((4, 1), 0.3, "float32"), np.zeros(1, "float32")])
    arguments = {"epochs": 6, "batch_size": 4, "validation_batch_size": 2, "shuffle": False, "verbose": 0, **options}
    history = model.fit(X, Y, validation_data=validation, **arguments)
    return {name: [float(value) for value in values] for name, values in history.history.items()}


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("name", SOURCES)
def test_values_and_decisions_of_each_epoch(keras: Any, name: str, steps: int) -> None:
    found = []
    for k in (keras, oncue):
        stop = k.callbacks.EarlyStopping(patience=1, min_delta=0.02)
        found.append((run(k, SOURCES[name](k), validation_steps=steps, callbacks=[stop]), stop.stopped_epoch))
    (theirs, stopped), (ours, when) = found
    assert when == stopped
    for key, values in theirs.items():
        np.testing.assert_allclose(ours[key], values, rtol=1e-4, err_msg=key)


def test_more_steps_than_a_pass_has(keras: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [run(k, (X_VAL, Y_VAL), validation_steps=8)["val_loss"] for k in (keras, oncue)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    assert [str(one.message) for one in caught if "ran out of data after 6 of 8 steps" in str(one.message)]


def test_a_model_of_keras_in_our_loop(keras: Any) -> None:
    histories = []
    for ours in (False, True):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        fit = oncue.Model(model).fit if ours else model.fit
        options = {"epochs": 4, "validation_batch_size": 2, "validation_steps": 2, "shuffle": False, "verbose": 0}
        histories.append(fit(X, Y, validation_data=(X_VAL, Y_VAL), **options).history["val_loss"])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-4)


def test_a_list_of_batches_begins_again_too_and_a_generator_goes_on() -> None:
    pairs = [(X_VAL[at : at + 2], Y_VAL[at : at + 2]) for at in range(0, 12, 2)]

    def endless() -> Iterator[Any]:
        while True:
            yield from pairs

    whole = run(oncue, (X_VAL, Y_VAL), validation_steps=2)
    assert run(oncue, pairs, validation_steps=2) == whole
    assert run(oncue, iter([*pairs, *pairs]), validation_steps=2) == run(oncue, endless(), validation_steps=2)
    assert run(oncue, endless(), validation_steps=2)["val_loss"][0] == whole["val_loss"][0]
    assert run(oncue, endless(), validation_steps=2)["val_loss"][1] != whole["val_loss"][1]


def test_a_validation_that_is_told_to_stop_begins_again_too() -> None:
    class Stops(oncue.callbacks.Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_evaluating = batch == 1

    data = (X_VAL, Y_VAL)
    assert run(oncue, data, validation_steps=4, callbacks=[Stops()]) == run(oncue, data, validation_steps=2)


def test_training_with_steps_goes_on_through_the_data(keras: Any) -> None:
    found = [run(k, None, batch_size=2, steps_per_epoch=2, epochs=4) for k in (keras, oncue)]
    np.testing.assert_allclose(found[1]["loss"], found[0]["loss"], rtol=1e-4)
