"""Each row of docs/differences.md, in its order: what the real Keras does, and what oncue does."""

# Rows that need no Keras beside them are tested further in tests/callbacks/test_checks.py (hooks, twins),
# tests/training/test_endings.py (errors), tests/callbacks/test_progress_output.py (pipes), tests/callbacks/test_order.py
# (order, objects used again), tests/training/test_device_reads.py (reading), tests/training/test_bad_input.py
# (arguments), tests/callbacks/test_csv_logger.py (columns) and tests/optimizers/test_torch_optimizer.py.

from __future__ import annotations

import contextlib
import io
import math
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import oncue
from helpers import to_numpy

X = np.linspace(-1, 1, 16, dtype="float32").reshape(8, 2)
Y = X.sum(axis=1, keepdims=True)
PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
TESTED: list[str] = []

pytestmark = pytest.mark.filterwarnings("ignore")


def row(title: str) -> Callable[[Any], Any]:
    """Say which row of the page a test is about."""
    TESTED.append(title)
    return lambda test: test


def model(k: Any) -> Any:
    made = k.Sequential([k.Input((2,)), k.layers.Dense(1)])
    made.compile(optimizer=k.optimizers.SGD(0.1), loss="mse")
    return made


def fit(k: Any, callbacks: Any = (), made: Any = None, **kwargs: Any) -> Any:
    made = model(k) if made is None else made
    return made.fit(X, Y, verbose=0, callbacks=list(callbacks), **{"epochs": 1, **kwargs})


def writes(k: Any, *values: float) -> Any:
    """Return a callback that puts `v` into the logs, one value for each epoch."""

    class Writes(k.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["v"] = values[epoch]

    return Writes()


def said(run: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(item.message) for item in caught if issubclass(item.category, UserWarning)]


@row("A monitor that this run can't log")
def test_monitor(keras: Any, tmp_path: Path) -> None:
    stop = keras.callbacks.EarlyStopping(monitor="val_los", mode="min")
    assert any("not available" in text for text in said(lambda: fit(keras, [stop], validation_split=0.5)))
    with pytest.raises(ValueError, match="monitor=val_los"):
        fit(keras, [keras.callbacks.EarlyStopping(monitor="val_los")], validation_split=0.5)
    path, made = tmp_path / "log.csv", model(oncue)
    before = made.get_weights()
    stop = oncue.callbacks.EarlyStopping(monitor="val_los", mode="min")
    with pytest.raises(ValueError, match="Did you mean `val_loss`"):
        fit(oncue, [stop, oncue.callbacks.CSVLogger(path)], made, validation_split=0.5)
    np.testing.assert_array_equal(made.get_weights()[0], before[0])
    assert not path.exists()
    stop = oncue.callbacks.EarlyStopping()
    assert any("has no validation data" in text for text in said(lambda: fit(oncue, [stop])))


@row("`save_best_only` when the value isn't logged")
def test_best_without_value(keras: Any, tmp_path: Path) -> None:
    found = {}
    for k in (keras, oncue):
        path = str(tmp_path / f"{k.__name__}{{epoch}}.weights.h5")

        def saver() -> Any:
            return k.callbacks.ModelCheckpoint(path, save_best_only=True, save_weights_only=True)  # noqa: B023

        def saved(**options: Any) -> str:
            fit(k, [saver()], epochs=4, **options)  # noqa: B023
            names = sorted(one.name for one in tmp_path.iterdir())
            for one in tmp_path.iterdir():
                one.unlink()
            return "".join(re.findall(r"(\d)\.weights", " ".join(names)))

        text = said(saved)
        assert len([line for line in text if "the best" in line or "best model" in line]) == (4 if k is keras else 1)
        found[k] = saved(), saved(validation_split=0.5, validation_freq=2)
    assert found == {keras: ("1234", "1234"), oncue: ("1234", "24")}


@row("NaN and infinity")
def test_not_finite(keras: Any) -> None:
    best = []
    for k in (keras, oncue):
        stop = k.callbacks.EarlyStopping(monitor="v", mode="min", patience=5)
        fit(k, [writes(k, math.nan, 2.0, 1.0), stop], epochs=3)
        best.append(stop.best)
    assert math.isnan(best[0]) and best[1] == 1.0


@row("An epoch without validation (`validation_freq=2`)")
def test_validation_freq(keras: Any) -> None:
    for k in (keras, oncue):
        stop = k.callbacks.EarlyStopping(patience=1)
        text = said(lambda: fit(k, [stop], epochs=3, validation_split=0.5, validation_freq=2))  # noqa: B023
        assert any("not available" in line for line in text) is (k is keras)


@row("Two callbacks that set the learning rate")
def test_two_writers(keras: Any) -> None:
    for k in (keras, oncue):
        two = [
            k.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1),
            k.callbacks.ReduceLROnPlateau(monitor="loss"),
        ]
        text = said(lambda: fit(k, two))  # noqa: B023
        assert any("both set the learning rate" in line for line in text) is (k is oncue)


@row("A schedule that returns NaN, infinity or a negative number")
@pytest.mark.parametrize("rate", [math.nan, math.inf, -1.0])
def test_schedule(keras: Any, rate: float) -> None:
    fit(keras, [keras.callbacks.LearningRateScheduler(lambda epoch: rate)])
    with pytest.raises(ValueError, match="in epoch 0 it returned"):
        fit(oncue, [oncue.callbacks.LearningRateScheduler(lambda epoch: rate)])


@row("`restore_best_weights` after an error or Ctrl-C")
def test_restore(keras: Any) -> None:
    for k in (keras, oncue):
        seen: list[Any] = []

        class Stops(k.callbacks.Callback):  # type: ignore[name-defined, misc]  # the base depends on the loop
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                seen.append(self.model.get_weights()[0].copy())  # noqa: B023
                if epoch == 2:
                    raise KeyboardInterrupt

        made = model(k)
        stop = k.callbacks.EarlyStopping(monitor="v", mode="min", patience=9, restore_best_weights=True)
        with pytest.raises(KeyboardInterrupt):
            fit(k, [writes(k, 1.0, 2.0, 3.0), stop, Stops()], made, epochs=5)
        kept = 2 if k is keras else 0
        np.testing.assert_array_equal(made.get_weights()[0], seen[kept])


@row("What `BackupAndRestore` brings back")
def test_backup(keras: Any, tmp_path: Path) -> None:
    def interrupted(k: Any, folder: Path) -> list[int]:
        """Return the epochs in the history of a run that was interrupted in its third epoch and started again."""
        starts = iter([True, False])

        def run() -> Any:
            class Boom(k.callbacks.Callback):
                fails = next(starts)

                def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                    if self.fails and epoch == 2:
                        raise KeyboardInterrupt

            return fit(k, [k.callbacks.BackupAndRestore(str(folder)), Boom()], epochs=4, shuffle=False)

        with pytest.raises(KeyboardInterrupt):
            run()
        return list(run().epoch)

    assert interrupted(keras, tmp_path / "keras") == [2, 3]
    assert interrupted(oncue, tmp_path / "oncue") == [0, 1, 2, 3]


@row("The same callback object in a second `fit`")
def test_again(keras: Any) -> None:
    lengths = []
    for k in (keras, oncue):
        history = k.callbacks.History()
        fit(k, [history], epochs=2)
        fit(k, [history], epochs=1)
        lengths.append((len(history.history["loss"]), len(history.epoch)))
    assert lengths == [(3, 1), (1, 1)]


@row("The order of the list")
def test_order(keras: Any, tmp_path: Path) -> None:
    for k in (keras, oncue):
        path = tmp_path / "log.csv"
        fit(k, [k.callbacks.CSVLogger(str(path)), k.callbacks.ReduceLROnPlateau(monitor="loss")])
        assert ("learning_rate" in path.read_text().splitlines()[0]) is (k is oncue)


@row("A list of tuples `(x, y)`, passed without `y` to `fit` or `evaluate`")
def test_lists_of_batches(keras: Any) -> None:
    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    for run in (lambda k: model(k).fit(batches, verbose=0), lambda k: model(k).evaluate(batches, verbose=0)):
        with pytest.raises(ValueError, match="dtype"):
            run(keras)
        run(oncue)
    made = model(oncue)
    assert made.evaluate(batches, verbose=0) == pytest.approx(made.evaluate(X, Y, batch_size=4, verbose=0))


class TakesOne(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(2, 1)

    def forward(self, batch: Any) -> Any:
        parts = batch.values() if isinstance(batch, dict) else batch
        return self.inner(sum(parts))


@row("A torch module that takes one dict or one list")
def test_modules_of_one_argument(keras: Any) -> None:
    with pytest.raises(TypeError, match="argument"):
        keras.Model(TakesOne())
    around = keras.Sequential([keras.layers.TorchModuleWrapper(TakesOne())])
    assert around.predict([X, X], verbose=0).shape == (8, 1)
    for x in ({"a": X, "b": X}, [X, X]):
        assert oncue.Model(TakesOne()).predict(x, verbose=0).shape == (8, 1)


@row("The type of floating inputs")
def test_types_of_inputs(keras: Any) -> None:
    types: list[Any] = []

    class Double(torch.nn.Linear):
        def forward(self, x: Any) -> Any:
            types.append(x.dtype)
            return super().forward(x)

    for x in (X, X.astype("float64")):
        around = keras.Sequential([keras.layers.TorchModuleWrapper(Double(2, 1, dtype=torch.float64))])
        with pytest.raises(RuntimeError, match="must have the same dtype"):
            around.predict(x, verbose=0)
        assert oncue.Model(Double(2, 1, dtype=torch.float64)).predict(x, verbose=0).dtype == "float64"
    assert types == [torch.float32, torch.float64] * 2
    for k in (keras, oncue):
        assert model(k).predict(X.astype("float64"), verbose=0).dtype == "float32"


@row("What `torch.jit` or `torch.export` made")
def test_scripted_modules(keras: Any) -> None:
    scripted = torch.jit.trace(torch.nn.Linear(2, 1), torch.zeros(1, 2))
    around = keras.Sequential([keras.layers.TorchModuleWrapper(scripted)])
    assert around.predict(X, verbose=0).shape == (8, 1)
    exported = torch.export.export(torch.nn.Linear(2, 1), (torch.zeros(8, 2),)).module()
    for made in (scripted, exported):
        with pytest.raises(TypeError, match="Pass the module that it was made from"):
            oncue.Model(made)


@row(
    "Data that would be read as something else: masked entries of a masked array, complex numbers for a real model or loss, "
    "missing values of pandas' nullable types, `sample_weight` with other axes than the losses"
)
def test_data_with_two_readings(keras: Any) -> None:
    frame = pd.DataFrame({"a": pd.array([1.0, None] * 4, dtype="Float64"), "b": pd.array([1.0] * 8, dtype="Float64")})
    masked = np.ma.masked_array(X, X > 0.5)
    loss = model(keras).evaluate(masked, Y, verbose=0), model(keras).evaluate(X * (1 + 2j), Y * (1 + 2j), verbose=0)
    assert np.isfinite(loss).all()
    with pytest.raises(ValueError, match="dtype"):
        model(keras).evaluate(frame, Y, verbose=0)
    for x, y, word in (
        (masked, Y, r"x.filled\(0\)"),
        (X, np.ma.masked_array(Y, Y > 0.5), r"y.filled\(0\)"),
        (X * (1 + 2j), Y, "real part"),
        (X, Y * (1 + 2j), "real part"),
        (frame, Y, "missing values"),
    ):
        with pytest.raises(ValueError, match=word):
            model(oncue).evaluate(x, y, verbose=0)
    # Three samples of three steps, of which one sample counts: for Keras, one step of each.
    steps = np.arange(9.0).reshape(3, 3, 1)
    losses = {}
    for k in (keras, oncue):
        made = k.Sequential([k.Input((3, 1)), k.layers.Dense(1, kernel_initializer="ones", use_bias=False)])
        made.compile("sgd", "mse")
        losses[k] = made.evaluate(steps, 0 * steps, sample_weight=np.array([1.0, 0, 0]), verbose=0)
    assert losses == pytest.approx({keras: (0 + 9 + 36) / 9, oncue: (0 + 1 + 4) / 9})
    with pytest.raises(ValueError, match="one weight for each sample"):
        made.evaluate(steps, 0 * steps, sample_weight=np.ones((3, 2)), verbose=0)


@row("Several inputs for a `Sequential` model with one")
def test_too_many_inputs(keras: Any) -> None:
    made = model(keras)
    np.testing.assert_array_equal(made.predict([X, X + 1], verbose=0), made.predict(X, verbose=0))
    with pytest.raises(ValueError, match="takes 1 input .*got 2"):
        model(oncue).predict([X, X + 1], verbose=0)


@row("An argument that must be a whole number")
def test_whole_numbers(keras: Any) -> None:
    def patient(k: Any, number: Any) -> Any:
        return k.callbacks.EarlyStopping("loss", patience=number)

    fit(keras, [patient(keras, 2.0)])
    with pytest.raises(TypeError, match="interpreted as an integer"):
        fit(keras, epochs=2.0)
    assert len(fit(keras, epochs=True).epoch) == 1
    for number in (2.0, np.float32(2), np.int8(2), np.array(2), torch.tensor(2.0)):
        assert len(fit(oncue, [patient(oncue, number)], epochs=number).epoch) == 2
    with pytest.raises(ValueError, match="`epochs` must be a whole number.*True"):
        fit(oncue, epochs=True)


@row("`steps_per_epoch` when a pass over the data ends within an epoch")
def test_steps(keras: Any) -> None:
    for k in (keras, oncue):
        batches: list[int] = []
        count = k.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))  # noqa: B023
        fit(k, [count], epochs=2, batch_size=3, steps_per_epoch=2)
        assert batches == ([0, 1, 0] if k is keras else [0, 1, 0, 1])


@row("A generator that has run dry")
def test_dry(keras: Any) -> None:
    for k in (keras, oncue):
        history = model(k).fit(iter([(X, Y)] * 2) if k is oncue else _twice(), epochs=5, steps_per_epoch=2, verbose=0)
        assert len(history.epoch) == (5 if k is keras else 1)


def _twice() -> Any:
    for _ in range(2):
        yield X, Y


@row("Progress on a pipe or in a log file")
def test_pipe(keras: Any) -> None:
    for k in (keras, oncue):
        pipe = io.StringIO()
        with contextlib.redirect_stdout(pipe):
            model(k).fit(X, Y, batch_size=2, verbose=1)
        control = re.search(r"[\x08\x1b]", pipe.getvalue()) is not None
        assert "loss" in pipe.getvalue() and control is (k is keras)


@row("`optimizer.learning_rate`")
def test_rate(keras: Any) -> None:
    rates = [model(k).optimizer.learning_rate for k in (keras, oncue)]
    assert not isinstance(rates[0], float) and float(rates[0]) != 0.1
    assert isinstance(rates[1], float) and rates[1] == 0.1


@row("The same callback object twice in a list")
def test_twins(keras: Any) -> None:
    heard: list[int] = []
    twin = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append(epoch))
    fit(keras, [twin, twin])
    assert heard == [0, 0]
    twin = oncue.callbacks.History()
    with pytest.raises(ValueError, match="the same History object"):
        fit(oncue, [twin, twin])


@row("A misspelt hook, such as `on_bach_end`")
def test_misspelt_hook(keras: Any) -> None:
    def misspelt(k: Any) -> Any:
        return type("Misspelt", (k.callbacks.Callback,), {"on_bach_end": lambda self, batch, logs=None: 1 / 0})()

    fit(keras, [misspelt(keras)])
    with pytest.raises(TypeError, match="Did you mean `on_batch_end`"):
        fit(oncue, [misspelt(oncue)])


@row("A hook with the wrong arguments")
def test_wrong_arguments(keras: Any) -> None:
    for k in (keras, oncue):
        heard: list[int] = []
        batches = k.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: heard.append(batch))  # noqa: B023
        wrong = type("Wrong", (k.callbacks.Callback,), {"on_train_end": lambda self: None})()
        with pytest.raises(TypeError, match="on_train_end|argument"):
            fit(k, [batches, wrong])
        assert bool(heard) is (k is keras)


def once(k: Any, change: Callable[[], Any]) -> Any:
    """Return a callback that changes the model when the second epoch begins."""
    return k.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: change() if epoch == 1 else None)


@row("`compile` in a hook")
def test_compile_in_a_hook(keras: Any) -> None:
    def run(k: Any) -> Any:
        made = model(k)
        again = once(k, lambda: made.compile(k.optimizers.SGD(0.0), "mae"))
        return fit(k, [again], made, epochs=3).history["loss"]

    with pytest.raises(TypeError, match="NoneType"):
        run(keras)
    losses = run(oncue)
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)


@row("Unfreezing layers after `compile`, or `model.loss = ...`")
def test_unfreezing(keras: Any) -> None:
    def frozen(k: Any) -> Any:
        made = k.Sequential([k.Input((2,)), k.layers.Dense(2), k.layers.Dense(1)])
        made.layers[0].trainable = False
        made.compile(k.optimizers.SGD(0.1), "mse")
        return made

    made = frozen(keras)
    with pytest.raises(ValueError, match="Unknown variable"):
        fit(keras, [once(keras, lambda: setattr(made.layers[0], "trainable", True))], made, epochs=2)
    made = frozen(oncue)
    before = made.get_weights()[0]
    fit(oncue, [once(oncue, lambda: setattr(made.layers[0], "trainable", True))], made, epochs=2)
    assert not np.array_equal(made.get_weights()[0], before)
    for k, counts in ((keras, False), (oncue, True)):
        made = model(k)
        made.compile(k.optimizers.SGD(0.0), "mse")
        first = fit(k, made=made).history["loss"]
        made.loss = "mae"
        assert (fit(k, made=made).history["loss"] != first) == counts


@row("The `path` of a weight of a Sequential or subclassed model")
def test_paths(keras: Any) -> None:
    def paths(k: Any) -> list[str]:
        inputs = k.Input((2,))
        models = (
            k.Sequential([inputs, k.layers.Dense(1, name="d")], name="s"),
            k.Model(inputs, k.layers.Dense(1, name="d")(inputs)),
        )
        return [made.weights[0].path for made in models]

    assert paths(keras) == ["s/d/kernel", "d/kernel"]
    assert paths(oncue) == ["d/kernel", "d/kernel"]


@row("The class of a functional model")
def test_class_of_functional_models(keras: Any) -> None:
    def made(k: Any) -> Any:
        inputs = k.Input((2,))
        return k.Model(inputs, k.layers.Dense(1)(inputs))

    assert (type(made(keras)).__name__, type(made(oncue)).__name__) == ("Functional", "Model")
    assert isinstance(made(keras), keras.Model)


@row("`.value` of the kernel of a convolution or of a recurrent cell")
def test_the_value_of_a_kernel(keras: Any) -> None:
    kernels = []
    for k in (keras, oncue):
        layer = k.layers.Conv1D(4, 3)
        layer(np.ones((1, 5, 2), "float32")).sum().backward()
        kernels.append(layer.kernel.value)
    theirs, ours = kernels
    assert theirs.shape == ours.shape == theirs.grad.shape == ours.grad.shape == (3, 2, 4)
    assert isinstance(theirs, torch.nn.Parameter) and not ours.is_leaf
    assert layer.stored("kernel").shape == (4, 2, 3) and layer.stored("kernel") is next(layer.parameters())


@row("The shapes that `build` is told when a layer is called on data")
def test_shapes_for_build(keras: Any) -> None:
    for k, batch in ((keras, 2), (oncue, None)):

        class Two(k.layers.Layer):  # type: ignore[misc, name-defined]  # of either library
            def build(self, a_shape: Any, b_shape: Any) -> None:
                self.told = a_shape, b_shape

            def call(self, a: Any, b: Any) -> Any:
                return a + b

        layer = Two()
        layer(np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
        assert layer.told == ((batch, 3), (batch, 3))


@row("`training=True` in the call of a layer of a functional model")
def test_a_mode_in_a_functional_model(keras: Any) -> None:
    for k, dropped in ((keras, False), (oncue, True)):
        inputs = k.Input((200,))
        made = k.Model(inputs, k.layers.Dropout(0.5)(inputs, training=True))
        assert bool((made.predict(np.ones((1, 200)), verbose=0) == 0).any()) == dropped


@row('Targets whose axes are repeated to fit the outputs: `y` of shape (n, 1), two outputs, "mse"')
@pytest.mark.filterwarnings("default")
def test_targets_that_are_repeated(keras: Any) -> None:
    losses = []
    for k, warnings_given in ((keras, 0), (oncue, 1)):
        made = k.Sequential([k.Input((2,)), k.layers.Dense(2, kernel_initializer="ones")])
        made.compile(k.optimizers.SGD(0.1), "mse")
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            losses.append(fit(k, made=made, epochs=2).history["loss"])
        assert len([one for one in given if "(8, 1)" in str(one.message)]) == warnings_given
    np.testing.assert_allclose(*losses, rtol=1e-5)


@row("A plain tensor that is assigned to a weight's attribute, `layer.w = tensor`")
def test_a_tensor_at_the_attribute_of_a_weight(keras: Any) -> None:
    for k in (keras, oncue):
        layer = k.layers.BatchNormalization()
        layer.build((None, 2))
        layer.moving_mean = layer.moving_mean + 1.0
        assert to_numpy(layer.moving_mean).tolist() == [1.0, 1.0]
        assert layer.get_weights()[2].tolist() == ([0.0, 0.0] if k is keras else [1.0, 1.0])
    with pytest.raises(TypeError, match=r"layer.gamma.assign\(tensor\)"):
        layer.gamma = layer.gamma + 1.0


@row("`layer.kernel_regularizer = ...`, or a constraint, after the layer is built")
def test_penalties_of_built_layers(keras: Any) -> None:
    for k, counts in ((keras, 0), (oncue, 1)):
        made = model(k)
        made.layers[0].kernel_regularizer = k.regularizers.L2(0.1)
        assert len(made.losses) == counts


@row('A `train_step` that returns `{"loss": ...}` and updates no metric')
def test_steps_without_metrics(keras: Any) -> None:
    for k, logged in ((keras, 0.0), (oncue, 7.0)):
        made = model(k)
        made.train_step = lambda data: {"loss": torch.tensor(7.0)}
        assert fit(k, made=made).history["loss"] == [logged]


@row("A layer or model of the real Keras as a part of a `torch.nn.Module`")
def test_real_layers(keras: Any) -> None:
    class Holds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model(keras)

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    keras.layers.TorchModuleWrapper(Holds())
    with pytest.raises(TypeError, match=r"of the real Keras.*oncue\.Model"):
        oncue.Model(Holds())


@row("`eval()` on a part of a model before `fit`")
def test_parts_in_inference_mode(keras: Any) -> None:
    norm = keras.layers.BatchNormalization()
    made = keras.Sequential([keras.Input((2,)), norm, keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    norm.eval()
    fit(keras, made=made)
    assert np.asarray(norm.get_weights()[3])[0] != 1.0
    part = torch.nn.BatchNorm1d(2).eval()
    made = oncue.Sequential([oncue.Input((2,)), part, oncue.layers.Dense(1)])
    made.compile("sgd", "mse")
    fit(oncue, made=made)
    assert torch.equal(part.running_var, torch.ones_like(part.running_var))


@row("A batch normalization of torch with frozen weights")
def test_frozen_statistics() -> None:
    part = torch.nn.BatchNorm1d(2).requires_grad_(False)
    part(torch.as_tensor(X, device=part.running_var.device))
    before = part.running_var.clone()
    assert not torch.equal(before, torch.ones_like(before))
    made = oncue.Sequential([oncue.Input((2,)), part, oncue.layers.Dense(1)])
    made.compile("sgd", "mse")
    fit(oncue, made=made)
    assert torch.equal(part.running_var.to(before.device), before)


@row("`fit`, `evaluate` or `predict` of a model that is being trained in another thread")
def test_another_thread(keras: Any) -> None:
    for k, refused in ((keras, False), (oncue, True)):
        made, errors = model(k), []

        def predict(made: Any = made, errors: list[Any] = errors) -> None:
            try:
                made.predict(X, verbose=0)
            except RuntimeError as error:
                errors.append(error)

        def begin(predict: Callable[[], None] = predict) -> None:
            thread = threading.Thread(target=predict)
            thread.start()
            thread.join()

        fit(k, [once(k, begin)], made, epochs=2)
        assert bool(errors) == refused


@row("Columns of `CSVLogger`")
def test_columns(keras: Any, tmp_path: Path) -> None:
    for k in (keras, oncue):
        path = tmp_path / "log.csv"

        class Later(k.callbacks.Callback):  # type: ignore[name-defined, misc]  # the base depends on the loop
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                if epoch == 1:
                    logs["extra"] = 7

        fit(k, [Later(), k.callbacks.CSVLogger(str(path))], epochs=2)
        assert ("extra" in path.read_text().splitlines()[0]) is (k is oncue)


@row("A folder that isn't there, for `CSVLogger`")
def test_csv_folder(keras: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fit(keras, [keras.callbacks.CSVLogger(str(tmp_path / "new" / "log.csv"))])
    fit(oncue, [oncue.callbacks.CSVLogger(tmp_path / "new" / "log.csv")])
    assert (tmp_path / "new" / "log.csv").exists()


@row("A loss and an end of the model that don't go together: softmax with `from_logits=True`, no softmax without")
def test_pairings(keras: Any) -> None:
    labels = np.arange(8) % 3
    for k in (keras, oncue):
        ends = [
            (3, "softmax", k.losses.SparseCategoricalCrossentropy(from_logits=True), labels),
            (3, None, "sparse_categorical_crossentropy", labels),
        ]
        for units, activation, loss, y in ends:
            made = k.Sequential([k.Input((2,)), k.layers.Dense(units, activation=activation)])
            made.compile("sgd", loss=loss)
            assert bool(said(lambda made=made, y=y: made.fit(X, y, verbose=0))) is (k is oncue)


@row("An error or Ctrl-C in `fit`")
def test_endings(keras: Any) -> None:
    for k in (keras, oncue):
        heard: list[str] = []
        ends = {
            "on_epoch_end": lambda self, epoch, logs=None: (_ for _ in ()).throw(KeyboardInterrupt),
            "on_train_end": lambda self, logs=None: heard.append("end"),  # noqa: B023
            "on_exception": lambda self, exception: heard.append("exception"),  # noqa: B023
            "close": lambda self: heard.append("close"),  # noqa: B023
        }
        with pytest.raises(KeyboardInterrupt):
            fit(k, [type("Ends", (k.callbacks.Callback,), ends)()])
        assert heard == ([] if k is keras else ["exception", "close"])


@row("A misspelt argument of `fit` or `compile`")
def test_arguments(keras: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword"):
        fit(keras, epoch=2)
    with pytest.raises(TypeError, match="`epochs`"):
        fit(oncue, epoch=2)
    assert len(fit(oncue, nb_epoch=3).epoch) == 3


@row("Metrics in the logs of a batch")
def test_reading() -> None:
    from oncue.core.logs import Logs

    reads = []

    class Source:
        names = ("loss",)

        def read(self) -> list[float]:
            reads.append(1)
            return [0.5]

    logs = Logs(source=Source())  # type: ignore[arg-type]  # as much of a source as is needed here
    assert "loss" in logs and list(logs) == ["loss"] and not reads
    assert logs["loss"] == 0.5 and len(reads) == 1


@row("A schedule with `gradient_accumulation_steps`")
def test_accumulation(keras: Any) -> None:
    def rates(k: Any) -> list[float]:
        schedule = k.optimizers.schedules.InverseTimeDecay(1.0, 1, 1.0)
        made = model(k)
        made.compile(k.optimizers.SGD(schedule, gradient_accumulation_steps=2), "mse")
        found = []
        for _ in range(4):
            found.append(float(made.optimizer.learning_rate))
            made.train_on_batch(np.zeros((4, 2)), np.zeros((4, 1)))
        return found

    assert rates(keras) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert rates(oncue) == pytest.approx([1, 1, 1 / 2, 1 / 2])


@row('`predict` under "mixed_bfloat16"')
def test_bfloat16(keras: Any) -> None:
    found = []
    for k in (keras, oncue):
        made = k.Sequential([k.Input((2,)), k.layers.Dense(1, dtype="mixed_bfloat16")])
        found.append(str(made.predict(np.zeros((4, 2)), verbose=0).dtype))
    assert found == ["bfloat16", "float32"]


@row("Tensors of another float type that are handed to a layer or model of float32")
def test_other_floats(keras: Any) -> None:
    x, found = torch.ones(2, 3, device=oncue.backend.device()), []
    for k in (keras, oncue):
        layer = k.layers.Activation("relu")
        layer(x)
        behind = k.Sequential([k.Input((3,)), k.layers.Dense(3, dtype="float16"), k.layers.Activation("relu")])
        found.append([layer(x.double()).dtype, behind(x).dtype])
    assert found == [[torch.float32, torch.float32], [torch.float64, torch.float32]]


@row('Whole numbers of int64 for an `Input(dtype="int32")`')
def test_large_whole_numbers(keras: Any) -> None:
    found = []
    for k in (keras, oncue):
        inputs = k.Input((1,), dtype="int32")
        made = k.Model(inputs, k.layers.Reshape((1, 1))(inputs))
        found.append(np.asarray(made.predict(np.array([[2**40 + 1]]), verbose=0)).ravel().tolist())
    assert found == [[1], [2**40 + 1]]


@row("The file of a model whose optimizer `compile` has wrapped to scale the loss")
def test_scaled(keras: Any, tmp_path: Path) -> None:
    counts = []
    for k in (keras, oncue):
        k.config.set_dtype_policy("mixed_float16")
        made = k.Sequential([k.Input((2,)), k.layers.Dense(1)])
        k.config.set_dtype_policy("float32")
        made.compile("adam", "mse")
        made.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=1, verbose=0)
        made.save(tmp_path / "model.keras")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = keras.models.load_model(tmp_path / "model.keras")
        counts.append((int(made.optimizer.iterations), int(loaded.optimizer.iterations)))
    oncue.config.set_dtype_policy(None)
    assert counts[0][0] > 0 and counts[0][1] == 0
    assert counts[1][0] > 0 and counts[1][1] == counts[1][0]


@row("What a layer of your own does in `call` besides computing, while a model is built and before the first step")
def test_side_effects_of_building(keras: Any) -> None:
    found = []
    for k in (keras, oncue):

        class Counts(k.layers.Layer):  # type: ignore[name-defined, misc]  # the base depends on the loop
            calls = 0

            def build(self, shape: Any) -> None:
                self.number = self.add_weight(shape=(), initializer="zeros", trainable=False)

            def call(self, inputs: Any) -> Any:
                self.calls += 1
                self.number.assign_add(1.0)
                return inputs

        layer = Counts()
        made = k.Sequential([k.Input((2,)), layer, k.layers.Dense(1)])
        made.compile("sgd", "mse")
        built = layer.calls, float(layer.number)
        fit(k, made=made, batch_size=4)
        found.append((*built, layer.calls - built[0], float(layer.number)))
    assert found[0][0] > 0 and found[0][1] == 0 and found[0][2] > 2 == found[0][3]
    assert found[1] == (0, 0, 2, 2)


@row("`TensorBoard`'s pictures of a `Conv2D` kernel")
def test_pictures() -> None:
    # Keras writes pictures by TensorFlow, which isn't here.
    from oncue.tensorboard.images import pictures

    width, height, *found = pictures("kernel/image", np.ones((2, 5, 3, 2))).tensor.string_val
    assert (int(width), int(height), len(found)) == (5, 2, 2)


@row("Overriding `make_train_function`, `make_test_function`, `make_predict_function`, or `get_metrics_result` alone")
def test_overrides_that_nothing_calls(keras: Any) -> None:
    for name, instead in (
        ("make_train_function", "train_step"),
        ("make_test_function", "test_step"),
        ("make_predict_function", "predict_step"),
        ("get_metrics_result", "compute_metrics"),
    ):
        called: list[str] = []

        def made(k: Any, name: str = name, called: list[str] = called) -> Any:
            def override(self: Any, *args: Any) -> Any:
                called.append(name)
                return getattr(k.Sequential, name)(self, *args)

            kind = type("Mine", (k.Sequential,), {name: override})
            return kind([k.Input((2,)), k.layers.Dense(1)])

        theirs = made(keras)
        theirs.compile("sgd", "mse")
        theirs.fit(X, Y, validation_data=(X, Y), verbose=0)
        theirs.predict(X, verbose=0)
        assert called
        with pytest.raises(TypeError, match=f"`Mine.{name}` would never be called here. Override `{instead}`"):
            made(oncue)


def own(k: Any, base: Any) -> Any:
    """Return a loss, regularizer, constraint or initializer with an argument that its configuration lacks."""

    class Own(base):  # type: ignore[misc]  # the base depends on the caller
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def __call__(self, given: Any, *others: Any, **options: Any) -> Any:
            if base is k.losses.Loss:
                return super().__call__(given, *others, **options)
            if base is k.initializers.Initializer:
                return k.initializers.Ones()(given, *others, **options)
            return given if base is k.constraints.Constraint else (given * given).sum()

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return ((y_true - y_pred) ** 2).mean(-1)

        def get_config(self) -> dict[str, Any]:
            return {}

    return Own


@row("A loss, regularizer, constraint or initializer of your own whose `get_config` lacks an argument")
def test_configurations_that_lack_an_argument(keras: Any, tmp_path: Path) -> None:
    for argument in ("kernel_regularizer", "kernel_constraint", "kernel_initializer", "loss"):
        for k in (keras, oncue):
            kind = argument.removeprefix("kernel_")
            home = {"loss": k.losses, "regularizer": k.regularizers, "constraint": k.constraints}.get(
                kind, k.initializers
            )
            part = own(k, getattr(home, kind.title()))
            layer = k.layers.Dense(1, **({} if kind == "loss" else {argument: part(2.0)}))
            made, path = k.Sequential([k.Input((2,)), layer]), tmp_path / f"{k.__name__}.keras"
            made.compile("sgd", part(2.0) if kind == "loss" else "mse")
            if k is keras:
                made.save(path)
                with pytest.raises(TypeError, match="could not be deserialized"):
                    keras.models.load_model(path, custom_objects={"Own": part})
            elif kind == "loss":
                assert any("needs `factor`" in text for text in said(lambda: made.save(path)))  # noqa: B023
                assert oncue.models.load_model(path).loss is None
            else:
                with pytest.raises(ValueError, match="needs `factor`, which its `get_config` doesn't return"):
                    made.save(path)


@row("The optimizer")
def test_torch_optimizer(keras: Any) -> None:
    module = torch.nn.Linear(2, 1)
    made = oncue.Model(module)
    made.compile(optimizer=torch.optim.SGD(module.parameters(), lr=0.1), loss="mse")
    assert len(fit(oncue, made=made).epoch) == 1
    with pytest.raises(Exception, match="optimizer|Optimizer"):
        model(keras).compile(optimizer=torch.optim.SGD(module.parameters(), lr=0.1), loss="mse")


def trained(k: Any, optimizer: Any) -> Any:
    made = model(k)
    made.compile(optimizer=optimizer, loss="mse")
    fit(k, made=made)
    return made


@row("A setting of the optimizer that is set after the first step")
def test_settings(keras: Any) -> None:
    for name, kinds in (("amsgrad", "Adam"), ("momentum", "RMSprop")):
        theirs, ours = (
            trained(keras, getattr(keras.optimizers, kinds)()),
            trained(oncue, getattr(oncue.optimizers, kinds)()),
        )
        setattr(theirs.optimizer, name, True if name == "amsgrad" else 0.5)
        with pytest.raises(Exception, match="has no|index|object"):
            theirs.fit(X, Y, verbose=0)
        with pytest.raises(ValueError, match=f"`{name}` of {kinds} can't be set"):
            setattr(ours.optimizer, name, True if name == "amsgrad" else 0.5)


@row("A method of an optimizer class that isn't called any more, such as `get_updates` of Keras 1")
def test_old_methods(keras: Any) -> None:
    methods = {"get_updates": lambda *_: 1 / 0}
    trained(keras, type("Mine", (keras.optimizers.SGD,), methods)())
    with pytest.raises(TypeError, match="`Mine.get_updates` would never be called: override `update_step"):
        type("Mine", (oncue.optimizers.SGD,), methods)


def test_every_row_of_the_page_is_tested_here() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|.*\|.*\|.*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == TESTED
