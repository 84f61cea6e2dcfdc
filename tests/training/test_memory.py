"""A run without enough memory says what had it, and the next one can begin; what a run had is in its account."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

import oncue
from helpers import batches_of, cpu_only, graphs_compiled_by, normal, on_the_same_memory
from oncue import layers
from oncue.callbacks import Callback
from oncue.feeding.arrays import ArrayBatches
from oncue.training import pace
from oncue.training.memory import is_out_of_memory

X = normal(64, 3)
Y = X.sum(axis=1, keepdims=True)


class Hungry(layers.Layer):
    """Has no room for batches of more than some rows, from some call in training on."""

    def __init__(self, error: Any, rows: int = 8, after: int = 0) -> None:
        super().__init__()
        self.error, self.rows, self.left = error, rows, after
        self.held: Any = None

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = inputs * 2
        if len(inputs) <= self.rows or not (training or self.error is never):
            return outputs
        if self.left > 0:
            self.left -= 1
            return outputs
        activations = outputs + 1
        self.held = weakref.ref(activations)
        self.error()
        return activations


def never() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def of_the_cpu() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def of_numpy() -> None:
    raise MemoryError("Unable to allocate 8.00 EiB")


def hungry_model(hungry: Hungry) -> Any:
    made = oncue.Sequential([layers.Input((3,)), hungry, layers.Dense(4), layers.Dense(1)])
    made.compile("adam", "mse", run_eagerly=True)
    return made


class Heard(Callback):
    """Keeps the account as it is in the hook of an error."""

    account = ""

    def on_exception(self, exception: BaseException) -> None:
        self.account = "\n".join(exception.__notes__)


@pytest.mark.parametrize("error", [never, of_the_cpu, of_numpy])
def test_the_error_says_what_was_in_memory_and_in_which_step(error: Any) -> None:
    hungry, heard = Hungry(error, after=3), Heard()
    made = hungry_model(hungry)
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        made.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[heard])
    note = "\n".join(caught.value.__notes__)
    # A batch is run before the first step, too.
    assert "ran out in step 4 of the training, with batches of 16: weights " in note, note
    assert "the optimizer's state " in note and "Try a smaller `batch_size` (such as 8)" in note
    assert "half done" not in note and heard.account == note
    assert "Out_of_memory" not in made.history.explain() and "ran out in step 4" in made.history.explain()


@pytest.mark.parametrize("error", [never, of_the_cpu])
def test_nothing_stays_taken_and_a_smaller_batch_trains(error: Any) -> None:
    hungry = Hungry(error)
    made = hungry_model(hungry)
    with pytest.raises(RuntimeError) as caught:
        made.fit(X, Y, batch_size=16, verbose=0)
    gc.collect()
    # As in a notebook, where the last error stays, and with it the frames of its traceback.
    assert caught.value.__traceback__ is not None and hungry.held() is None
    assert all(one.grad is None for one in made.parameters())
    assert error is of_the_cpu or "ran out before the training, with batches of 16" in caught.value.__notes__[0]
    history = made.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    assert history.epoch == [0, 1] and history.history["loss"][1] < history.history["loss"][0]


def test_compiled_steps_are_gone_with_their_memory_and_a_smaller_batch_is_compiled() -> None:
    runs: list[int] = []

    def compiler(graph: Any, inputs: Any, device: Any) -> Any:
        def run(*given: torch.Tensor) -> Any:
            runs.append(len(given[-1]))
            # It is tried before the first step.
            return never() if runs.count(16) > 3 and runs[-1] == 16 else graph(*given)

        return run

    made = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
    made.compile("adam", "mse", jit_compile=True)
    made._plan.graphs.record = on_the_same_memory
    with graphs_compiled_by(compiler):
        with pytest.raises(torch.OutOfMemoryError) as caught:
            made.fit(X, Y, batch_size=16, verbose=0)
        assert "ran out in step" in caught.value.__notes__[0] and not made._plan.graphs.steps
        made.fit(X, Y, batch_size=8, verbose=0)
    assert made.step_account.startswith("The steps ran as one compiled graph") and runs[-1] == 8


def test_evaluation_and_prediction_say_it_too() -> None:
    made = hungry_model(Hungry(never))
    made.fit(X[:8], Y[:8], verbose=0)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        made.evaluate(X, Y, batch_size=32, verbose=0)
    assert "ran out of the evaluation, with batches of 32" in caught.value.__notes__[0]
    with pytest.raises(torch.OutOfMemoryError) as caught:
        made.predict(X, batch_size=32, verbose=0)
    assert "of the prediction, with batches of 32" in caught.value.__notes__[0]


def test_a_failed_update_is_said_to_be_half_done() -> None:
    class Greedy(oncue.optimizers.SGD):
        def step(self) -> None:
            never()

    made = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
    made.compile(Greedy(), "mse", run_eagerly=True)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        made.fit(X, Y, verbose=0)
    assert "the update may be half done" in caught.value.__notes__[0]


def test_other_errors_stay_as_they_are() -> None:
    def other() -> None:
        raise RuntimeError("shapes differ")

    made = hungry_model(Hungry(other))
    with pytest.raises(RuntimeError, match="shapes differ") as caught:
        made.fit(X, Y, batch_size=16, verbose=0)
    assert not any("memory" in note for note in getattr(caught.value, "__notes__", []))
    assert not is_out_of_memory(ValueError("out of memory"))


# The account ---------------------------------------------------------------------------------------------------------


def test_the_account_says_how_fast_a_long_run_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
    made.compile("sgd", "mse")
    monkeypatch.setattr(pace, "LONG_ENOUGH", 0.0)
    history = made.fit(X[:50], Y[:50], batch_size=16, epochs=3, verbose=0)
    assert made._plan.pace.samples == 150 and "samples in a second." in history.explain()


@cpu_only("a device without memory of its own takes the place of another")
def test_data_on_a_device_are_counted_and_limited() -> None:
    batches = ArrayBatches(X, Y, device="meta")
    assert batches.resident == {torch.device("meta"): X.nbytes + Y.nbytes}
    assert batches_of(X, Y).resident == {}
    try:
        oncue.config.set_max_data_on_device(X.nbytes)
        assert ArrayBatches(X, Y, device="meta").resident == {}
        assert ArrayBatches(X, device="meta").resident == {torch.device("meta"): X.nbytes}
    finally:
        oncue.config.set_max_data_on_device(None)
    with pytest.raises(ValueError, match="`max_data_on_device` must be a number of bytes"):
        oncue.config.set_max_data_on_device(-1)


def test_a_device_has_its_number_as_tensors_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert oncue.backend.numbered(torch.device("cuda")) == torch.device("cuda", 1)
    assert oncue.backend.numbered(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert oncue.Model(torch.nn.Linear(2, 1), device="cuda").device == torch.device("cuda", 1)
    assert oncue.Model(torch.nn.Linear(2, 1), device="meta").device == torch.device("meta")
