"""The hooks of a `PyDataset` at the ends of epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import batches_of

X = np.linspace(-1, 1, 8, dtype="float32").reshape(4, 2)
Y = X.sum(axis=1, keepdims=True) + np.arange(4, dtype="float32")[:, None]


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("backup", [True, False])
def test_a_data_set_that_makes_its_order_when_an_epoch_begins(
    keras: Any, built: bool, backup: bool, tmp_path: Path
) -> None:
    def made(k: Any) -> Any:
        class Ordered(k.utils.PyDataset):  # type: ignore[misc, name-defined]  # the base depends on the loop
            epochs = 0

            def __len__(self) -> int:
                return 2

            def __getitem__(self, index: int) -> Any:
                return X[self.order[index * 2 : index * 2 + 2]], Y[self.order[index * 2 : index * 2 + 2]]

            def on_epoch_begin(self) -> None:
                # By its own random numbers, so that a call too many would be another order.
                self.epochs += 1
                self.order = np.random.default_rng(3).permutation(4)

        return Ordered()

    losses = []
    for k in (keras, oncue):
        model = k.Sequential([*([k.layers.Input((2,))] if built else []), k.layers.Dense(1, kernel_initializer="ones")])
        model.compile(k.optimizers.SGD(0.1), "mse")
        callbacks = [k.callbacks.BackupAndRestore(str(tmp_path / k.__name__), save_freq=1)] if backup else []
        data, validation = made(k), made(k)
        history = model.fit(data, validation_data=validation, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        losses.append([history.history["loss"], history.history["val_loss"]])
        if k is oncue:
            assert data.epochs == validation.epochs == 3
        model.evaluate(made(k), verbose=0)
        model.predict(made(k), verbose=0)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_what_a_data_set_shuffles_in_place_is_put_back_after_the_first_look() -> None:
    class Shuffled(oncue.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.order, self.names, self.drawn = np.arange(9), list("abc"), torch.arange(3)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return X[:2], Y[:2]

        def on_epoch_begin(self) -> None:
            np.random.shuffle(self.order)
            self.names.reverse()
            self.drawn += 1
            self.opened = True

    data = Shuffled()
    batches = batches_of(data)
    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # its type is a union
    batches.first()
    assert data.order.tolist() == list(range(9)) and data.names == list("abc") and data.drawn.tolist() == [0, 1, 2]
    assert not hasattr(data, "opened") and (np.random.get_state()[1] == state).all()  # type: ignore[index]
