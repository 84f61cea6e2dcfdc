"""fit: any module, callbacks in any form, logs of their own moment, and runs inside runs."""

from __future__ import annotations

import subprocess
import sys
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue.callbacks import Callback, CallbackList, History, LambdaCallback, ProgbarLogger

RNG = np.random.default_rng(3)
X = RNG.normal(size=(70, 4)).astype("float32")
Y = (X[:, :1] - X[:, 1:2] > 0).astype("float32")


def model(**options: Any) -> Any:
    made = oncue.Sequential(
        [
            oncue.layers.Input((4,)),
            oncue.layers.Dense(6, activation="tanh"),
            oncue.layers.Dense(1, activation="sigmoid"),
        ]
    )
    made.compile(
        **{"optimizer": oncue.optimizers.SGD(0.3), "loss": "binary_crossentropy", "metrics": ["accuracy"], **options}
    )
    return made


class Named(Callback):
    def __init__(self, name: str, heard: list[Any]) -> None:
        super().__init__()
        self.name = name
        self.heard = heard

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(self.name)


# Callbacks in any form -----------------------------------------------------------------------------------------------


def test_callbacks_as_one_nested_tuple_dict_or_list() -> None:
    heard: list[Any] = []
    a, b, c = (Named(name, heard) for name in "abc")
    forms: list[tuple[Any, list[str]]] = [
        (None, []),
        ([], []),
        (a, ["a"]),
        ([a, [b, (c,)]], ["a", "b", "c"]),
        ((c, a), ["c", "a"]),
        ({"y": a, "x": b}, ["b", "a"]),
        ([CallbackList([b, a]), c], ["b", "a", "c"]),
    ]
    for form, expected in forms:
        heard.clear()
        model().fit(X, Y, verbose=0, callbacks=form)
        assert heard == expected


def test_a_callback_list_is_used_as_it_is() -> None:
    heard: list[Any] = []
    made = model()
    mine = CallbackList([Named("a", heard)], add_history=True, model=made, verbose=0, epochs=9, steps=3)
    history = made.fit(X, Y, epochs=2, callbacks=mine)
    assert heard == ["a", "a"]
    assert isinstance(history, History)
    assert history in mine.callbacks
    assert mine.params == {"verbose": 0, "epochs": 9, "steps": 3}
    assert not any(isinstance(item, ProgbarLogger) for item in mine.callbacks)


def test_a_callback_list_without_a_model_gets_it() -> None:
    made = model()
    mine = CallbackList([Callback()])
    history = made.fit(X, Y, callbacks=mine, verbose=0)
    assert mine.model is made
    assert mine.callbacks[0].model is made
    assert len(history.history["loss"]) == 1


def test_a_history_of_ones_own_is_the_one_that_is_returned() -> None:
    mine = History()
    made = model()
    assert made.fit(X, Y, epochs=2, verbose=0, callbacks=[mine]) is mine
    assert made.history is mine
    assert mine.epoch == [0, 1]
    assert made.fit(X, Y, epochs=1, verbose=0, callbacks=[mine]) is mine
    assert mine.epoch == [0]


def test_runs_last_comes_last_in_the_order_of_the_list() -> None:
    heard: list[Any] = []

    class Saver(Named):
        runs_last = True

    callbacks = [Saver("s1", heard), Named("a", heard), Saver("s2", heard), Named("b", heard)]
    model().fit(X, Y, verbose=0, callbacks=callbacks)
    assert heard == ["a", "b", "s1", "s2"]


def test_schedule_names_who_runs_when() -> None:
    heard: list[Any] = []

    class Saver(Named):
        runs_last = True

        def close(self) -> None:
            pass

    class Closes(Callback):
        def close(self) -> None:
            pass

    text = CallbackList([Saver("s", heard), Named("a", heard), Closes()]).schedule()
    assert text.splitlines() == ["on_epoch_end  Named, Saver (last)", "close         Closes, Saver"]
    assert CallbackList().schedule() == ""


def test_params_and_model_of_every_callback() -> None:
    seen: list[Any] = []

    class Look(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            seen.append((self.params, self.model))

    made = model()
    made.fit(X, Y, batch_size=16, epochs=3, verbose=0, callbacks=[Look()])
    made.fit(((X, Y) for _ in range(2)), epochs=1, verbose=2, callbacks=[Look()])
    assert seen[0] == ({"verbose": 0, "epochs": 3, "steps": 5}, made)
    assert seen[1] == ({"verbose": 2, "epochs": 1, "steps": None}, made)


def test_a_callback_list_in_a_hand_written_loop() -> None:
    calls: list[Any] = []
    history = History()
    print_like = LambdaCallback(
        on_train_batch_end=lambda batch, logs: calls.append((batch, logs["loss"])),
        on_epoch_end=lambda epoch, logs: logs.update(extra=1.0),
    )
    callbacks = CallbackList([print_like], epochs=1, steps=2)
    callbacks.append(history)
    assert callbacks.listens("on_batch_end") and callbacks.listens("on_epoch_end")
    assert not callbacks.listens("on_test_end")
    with callbacks.run():
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        for batch in range(2):
            callbacks.on_train_batch_begin(batch)
            callbacks.on_train_batch_end(batch, {"loss": torch.tensor(0.5)})
        callbacks.on_epoch_end(0, {"loss": np.float32(0.25)})
        callbacks.on_train_end()
    assert calls == [(0, 0.5), (1, 0.5)]
    assert history.history == {"loss": [0.25], "extra": [1.0]}


def test_values_written_by_a_callback_are_read_by_the_next() -> None:
    class Writes(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["mine"] = epoch * 10.0

    history = model().fit(X, Y, epochs=2, verbose=0, callbacks=[Writes()])
    assert history.history["mine"] == [0.0, 10.0]


def test_stop_training_is_reset_by_the_next_fit() -> None:
    made = model()
    stop = LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(made, "stop_training", True))
    assert len(made.fit(X, Y, epochs=5, verbose=0, callbacks=[stop]).epoch) == 1
    assert made.stop_training
    assert len(made.fit(X, Y, epochs=3, verbose=0).epoch) == 3


# Logs of their own moment --------------------------------------------------------------------------------------------

KEEPERS: dict[str, Any] = {
    "the logs": lambda logs: logs,
    "a list": lambda logs: [logs],
    "a closure": lambda logs: lambda: logs,
    "the method items": lambda logs: logs.items,
    "the method get": lambda logs: logs.get,
    "a view of the keys": lambda logs: logs.keys(),
    "an iterator": lambda logs: (logs[name] for name in ("loss",)),
}
READERS: dict[str, Any] = {
    "the logs": lambda kept: kept["loss"],
    "a list": lambda kept: kept[0]["loss"],
    "a closure": lambda kept: kept()["loss"],
    "the method items": lambda kept: dict(kept())["loss"],
    "the method get": lambda kept: kept("loss"),
    "a view of the keys": lambda kept: kept.mapping["loss"],
    "an iterator": next,
}


@pytest.mark.parametrize("how", KEEPERS)
@pytest.mark.parametrize("spe", [1, 3])
def test_kept_logs_show_their_own_moment(how: str, spe: int) -> None:
    kept: list[Any] = []
    kept_tests: list[Any] = []
    read: list[float] = []
    read_tests: list[float] = []

    class Keeps(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            kept.append(KEEPERS[how](logs))

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            kept_tests.append(KEEPERS[how](logs))

    class Reads(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            read.append(logs["loss"])

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            read_tests.append(logs["loss"])

    made = model(steps_per_execution=spe)
    weights = made.get_weights()
    for callback in (Keeps(), Reads()):
        made.set_weights(weights)
        made.fit(X, Y, batch_size=10, epochs=2, shuffle=False, verbose=0, callbacks=[callback], validation_data=(X, Y))
    assert len(set(read)) == len(read) > 5
    assert [READERS[how](item) for item in kept] == read
    assert [READERS[how](item) for item in kept_tests] == read_tests


def test_unreferenced_logs_are_freed_before_the_next_step() -> None:
    gone: list[bool] = []

    class Looks(Callback):
        last: Any = None

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            gone.append(self.last is None or self.last() is None)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.last = weakref.ref(logs)

    model().fit(X, Y, batch_size=10, epochs=2, verbose=0, callbacks=[Looks()])
    assert len(gone) > 5 and all(gone)


def test_logs_that_one_callback_keeps_and_another_reads() -> None:
    kept: list[Any] = []
    read: list[Any] = []
    keeps = LambdaCallback(on_train_batch_end=lambda batch, logs: kept.append(logs))
    reads = LambdaCallback(on_train_batch_end=lambda batch, logs: read.append(dict(logs)))
    model().fit(X, Y, batch_size=10, verbose=0, callbacks=[keeps, reads])
    assert kept == read


# Runs inside runs ----------------------------------------------------------------------------------------------------

INSIDE = [
    "on_train_begin",
    "on_epoch_begin",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_begin",
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_test_end",
    "on_epoch_end",
    "on_train_end",
]


class Inside(Callback):
    """Runs the model within a hook of its own run."""

    def __init__(self, hook: str, act: Any) -> None:
        super().__init__()
        self.act = act
        self.busy = False
        self.runs = 0
        indexed = "batch" in hook or "epoch" in hook
        setattr(self, hook, (lambda index, logs=None: self.run()) if indexed else (lambda logs=None: self.run()))

    def run(self) -> None:
        if not self.busy:
            self.busy = True
            self.act(self.model)
            self.runs += 1
            self.busy = False


ACTS = {
    "evaluate": lambda made: made.evaluate(X[:30] * 3, 1 - Y[:30], batch_size=8, verbose=0),
    "predict": lambda made: made.predict(X[:30], batch_size=8, verbose=0),
    "test_on_batch": lambda made: made.test_on_batch(X[:9], 1 - Y[:9]),
    "predict_on_batch": lambda made: made.predict_on_batch(X[:9]),
}


@pytest.mark.parametrize(
    ("act", "hook"),
    [("evaluate", hook) for hook in INSIDE]
    + [(act, hook) for act in list(ACTS)[1:] for hook in ("on_train_batch_end", "on_test_batch_end")],
)
def test_a_run_inside_a_hook_changes_nothing(hook: str, act: str) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    results = []
    for callbacks in ([], [Inside(hook, ACTS[act])]):
        torch.manual_seed(1)
        made = model(metrics=["accuracy", "auc", torchmetrics.classification.BinaryF1Score()])
        made.set_weights([np.full(w.shape, 0.1, "float32") for w in made.get_weights()])
        modes: list[bool] = []
        losses: list[float] = []
        look = LambdaCallback(
            on_train_batch_end=lambda batch, logs, made=made, modes=modes, losses=losses: (
                modes.append(made.training),
                losses.append(logs["loss"]),
            )
        )
        history = made.fit(
            X,
            Y,
            batch_size=32,
            epochs=2,
            shuffle=False,
            verbose=0,
            validation_data=(X[:40], Y[:40]),
            callbacks=[*callbacks, look],
        )
        assert all(modes)
        results.append((history.history, losses))
        assert not callbacks or callbacks[0].runs
    assert results[0] == results[1]


def test_evaluate_in_a_hook_gives_what_it_gives_outside() -> None:
    found: list[Any] = []
    made = model()

    class Measures(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 6:
                found.append(made.evaluate(X, Y, verbose=0))

    made.fit(X, Y, batch_size=10, verbose=0, callbacks=[Measures()])
    assert found == [made.evaluate(X, Y, verbose=0)]


# Any module ----------------------------------------------------------------------------------------------------------


class TwoInputs(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        self.out = torch.nn.Linear(3, 1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.left(left) + self.right(right)))


def wrapped(module: torch.nn.Module, **options: Any) -> Any:
    made = oncue.Model(module)
    made.compile(**{"optimizer": oncue.optimizers.SGD(0.1), "loss": "mse", **options})
    return made


def losses_of(made: Any, x: Any, y: Any = Y, **options: Any) -> list[float]:
    values: list[float] = made.fit(x, y, epochs=8, verbose=0, **options).history["loss"]
    return values


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
def test_a_module_with_several_inputs(form: str) -> None:
    left, right = X[:, :2], X[:, 2:]
    x: Any = {"tuple": (left, right), "list": [left, right], "dict": {"right": right, "left": left}}[form]
    made = wrapped(TwoInputs())
    values = losses_of(made, x)
    assert values[-1] < values[0]
    expected = to_numpy(made.module(tensor(left), tensor(right)))
    np.testing.assert_allclose(made.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_a_lazy_module_is_built_on_the_first_batch() -> None:
    made = wrapped(torch.nn.Sequential(torch.nn.LazyLinear(3), torch.nn.ReLU(), torch.nn.LazyLinear(1)))
    values = losses_of(made, X)
    assert values[-1] < values[0]
    assert made.module[0].weight.shape == (3, 4)


def test_shared_parameters_count_and_move_once() -> None:
    shared = torch.nn.Linear(4, 4)
    made = wrapped(torch.nn.Sequential(shared, torch.nn.Tanh(), shared, torch.nn.Linear(4, 1)))
    values = losses_of(made, X)
    assert values[-1] < values[0]
    assert len(made.get_weights()) == 4


def test_frozen_parameters_stay() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    module[0].requires_grad_(False)
    before = to_numpy(module[0].weight.clone())
    values = losses_of(wrapped(module), X)
    assert values[-1] < values[0]
    np.testing.assert_array_equal(before, to_numpy(module[0].weight))


def test_a_parameter_that_gets_no_gradient() -> None:
    class Unused(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    module = Unused()
    before = to_numpy(module.unused.weight.clone())
    with pytest.warns(
        UserWarning, match=r"Gradients do not exist for variables \['unused/weight', 'unused/bias'\].*`loss`"
    ):
        wrapped(module, optimizer="sgd").fit(X, Y, epochs=1, verbose=0)
    np.testing.assert_array_equal(before, to_numpy(module.unused.weight))


def test_no_parameters_at_all() -> None:
    class Nothing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    made = wrapped(Nothing())
    with pytest.warns(UserWarning, match="no trainable weights"):
        history = made.fit(X, Y, epochs=2, verbose=0)
    np.testing.assert_allclose(history.history["loss"], np.mean((X[:, :1] - Y) ** 2), rtol=1e-5)


def test_integer_inputs_stay_integers() -> None:
    tokens = np.arange(70) % 5
    made = wrapped(torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 1)))
    values = losses_of(made, tokens)
    assert values[-1] < values[0]


def test_modes_and_running_statistics() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5))
    module.append(torch.nn.Linear(3, 1))
    modes: list[tuple[str, bool]] = []

    class Look(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            modes.append(("train", module.training))

        def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
            modes.append(("test", module[1].training))
            statistics.append(module[1].running_mean.clone())

        def on_test_end(self, logs: Any = None) -> None:
            statistics.append(module[1].running_mean.clone())

    statistics: list[torch.Tensor] = []
    made = wrapped(module)
    assert torch.equal(module[1].running_mean, torch.zeros(3))
    made.fit(X, Y, batch_size=35, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[Look()])
    assert set(modes) == {("train", True), ("test", False)}
    assert torch.equal(statistics[0], statistics[2])
    assert int(module[1].num_batches_tracked) == 4
    assert not module.training
    first = made.predict(X, verbose=0)
    np.testing.assert_array_equal(first, made.predict(X, verbose=0))


def test_a_torch_optimizer_and_a_factory() -> None:
    reference: Any = None
    for kind in ("instance", "factory"):
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 1)
        if kind == "instance":
            optimizer: Any = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        else:
            optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # noqa: E731
        values = losses_of(wrapped(module, optimizer=optimizer), X, shuffle=False)
        assert values[-1] < values[0]
        reference = reference or values
        assert values == reference


def test_the_same_steps_as_a_hand_written_loop() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    start = {name: value.clone() for name, value in module.state_dict().items()}
    made = wrapped(module, optimizer=oncue.optimizers.SGD(0.1, momentum=0.9), loss=torch.nn.MSELoss())
    made.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    ours = [parameter.detach().clone() for parameter in module.parameters()]
    module.load_state_dict(start)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for low in range(0, 70, 16):
            optimizer.zero_grad()
            x, y = tensor(X[low : low + 16]), tensor(Y[low : low + 16])
            torch.nn.functional.mse_loss(module(x), y).backward()
            optimizer.step()
    for mine, theirs in zip(ours, module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-6)


def test_a_torch_loss_is_no_layer_of_the_model() -> None:
    made = model(loss=torch.nn.BCELoss(weight=torch.ones(1)))
    assert len(made.layers) == 2
    assert all(not isinstance(module, torch.nn.BCELoss) for module in made.modules())
    assert made.fit(X, Y, verbose=0).history["loss"][0] > 0
    assert isinstance(made.loss, torch.nn.BCELoss)


def test_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    classification = torchmetrics.classification
    made = model(
        metrics=[
            "accuracy",
            classification.BinaryAccuracy(),
            torchmetrics.MetricCollection({"f1": classification.BinaryF1Score()}),
        ]
    )
    history = made.fit(X, Y, epochs=2, verbose=0, validation_data=(X, Y)).history
    np.testing.assert_allclose(history["binary_accuracy"], history["accuracy"], rtol=1e-6)
    np.testing.assert_allclose(history["val_binary_accuracy"], history["val_accuracy"], rtol=1e-6)
    assert {"f1", "val_f1"} <= set(history)
    right = (made.predict(X, verbose=0) > 0.5) == (Y > 0.5)
    measured = made.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(measured["binary_accuracy"], right.mean(), rtol=1e-6)


# Steps, epochs, orders -----------------------------------------------------------------------------------------------


def test_steps_per_execution_groups_the_batch_hooks() -> None:
    heard: list[tuple[str, int]] = []
    listener = LambdaCallback(
        on_train_batch_begin=lambda batch, logs: heard.append(("begin", batch)),
        on_train_batch_end=lambda batch, logs: heard.append(("end", batch)),
    )
    grouped = model(steps_per_execution=3)
    plain = model()
    plain.set_weights(grouped.get_weights())
    history = grouped.fit(X, Y, batch_size=10, shuffle=False, verbose=0, callbacks=[listener])
    assert heard == [("begin", 0), ("end", 2), ("begin", 3), ("end", 5), ("begin", 6), ("end", 6)]
    expected = plain.fit(X, Y, batch_size=10, shuffle=False, verbose=0)
    assert history.history == expected.history


def test_shuffling_sees_every_row_once_and_in_another_order() -> None:
    seen: list[list[int]] = []

    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen[-1].extend(int(value) for value in x[:, 0])
            return x * self.weight

    begin = LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append([]))
    rows = np.arange(50, dtype="float32")[:, None]
    wrapped(Rows()).fit(rows, rows, batch_size=8, epochs=2, verbose=0, callbacks=[begin])
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(50))
    assert seen[0] != seen[1]
    assert seen[0] != list(range(50))


def test_a_generator_is_left_open_after_a_run() -> None:
    def batches() -> Any:
        number = 0
        while True:
            taken.append(number)
            number += 1
            yield X[:10], Y[:10]

    taken: list[int] = []
    source = batches()
    made = model()
    made.fit(source, steps_per_epoch=2, epochs=2, verbose=0)
    made.evaluate(source, steps=3, verbose=0)
    next(source)
    assert taken == list(range(8))


def test_callbacks_are_imported_without_torch_and_numpy() -> None:
    code = (
        "import sys, oncue.callbacks as c; c.CallbackList([c.History()]).schedule();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_truth_values_are_targets_as_numbers_are() -> None:
    labels = np.arange(12) % 3
    x, hot = np.eye(3, dtype="float32")[labels], np.eye(3)[labels]
    found = []
    for y in (hot, hot.astype(bool), torch.tensor(hot.astype(bool))):
        oncue.utils.set_random_seed(0)
        model = oncue.Sequential([oncue.Input((3,)), oncue.layers.Dense(3, activation="softmax")])
        model.compile("sgd", "categorical_crossentropy", metrics=["accuracy", "top_k_categorical_accuracy", "auc"])
        found.append(model.fit(x, y, batch_size=4, shuffle=False, verbose=0, class_weight={0: 2.0}).history)
    assert found[0] == found[1] == found[2]
