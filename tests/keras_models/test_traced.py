"""Real Keras models train in a traced step as they do eagerly, or are refused by name and stay as they are."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from cudnn_on_the_cpu import Cudnn
from keras_models.side_by_side import is_current
from torch._subclasses.fake_tensor import FakeTensor

import oncue
from helpers import cpu_only, normal, to_numpy
from oncue.training.graph.draws import GraphGenerator
from oncue.training.graph.operations import Finding
from oncue.with_keras.quick_layers import quick_call
from oncue.with_keras.tracing import traceable

keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("real Keras runs on another backend", allow_module_level=True)
layers, ops = keras.layers, keras.ops
CURRENT = is_current(keras)

X = normal(20, 12, seed=1)
Y = np.concatenate([X[:, :1] * X[:, 1:2], X[:, 2:3]], 1)
IDS = np.sort(np.abs(X[:, :6] * 3).astype("int64") % 7, axis=1)[:, ::-1].copy()
SEQUENCE, IMAGE = (6, 2), (4, 4, 3)


def of(shape: tuple[int, ...], *parts: Any) -> Any:
    """Return a model that shows its inputs in a shape to the layers."""
    first = [keras.Input((12,)), layers.Dense(int(np.prod(shape))), layers.Reshape(shape)]
    return keras.Sequential([*first, *parts, layers.Flatten(), layers.Dense(2)])


class Counting(layers.Layer):
    """Counts its calls in a weight, and scales by it."""

    def build(self, shape: Any) -> None:
        self.counter = self.add_weight(shape=(), initializer="zeros", trainable=False, name="counter")

    def call(self, x: Any) -> Any:
        self.counter.assign_add(1.0)
        return x * (1.0 + 0.1 * self.counter)


class Adding(layers.Layer):
    """Adds to the loss, and measures in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.add_loss(0.1 * ops.mean(ops.square(x)))
        self.seen.update_state(ops.mean(x))
        return x


class Drawing(layers.Layer):
    """Draws in every way that has a form for graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(4)

    def call(self, x: Any) -> Any:
        whole = keras.random.randint((1,), 0, 3, seed=self.seeds) + keras.random.categorical(
            ops.ones((1, 3)), 1, seed=self.seeds
        )
        order = keras.random.shuffle(ops.arange(12.0), seed=self.seeds)
        fixed = keras.random.normal((12,), seed=3) + keras.random.truncated_normal((12,), seed=self.seeds)
        return x + 0.1 * fixed + 0.01 * (order + ops.cast(whole, "float32"))


class Subclassed(keras.Model):
    """A model with a list of layers and a `training` argument."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [layers.Dense(4, "relu"), layers.BatchNormalization()]
        self.rest = layers.Dense(2)
        self.dropout = layers.Dropout(0.3)

    def call(self, x: Any, training: bool = False) -> Any:
        for part in self.parts:
            x = part(x)
        return self.rest(self.dropout(x, training=training))


class Distance(keras.metrics.Metric):
    """A metric of the user's own."""

    def __init__(self) -> None:
        super().__init__(name="distance")
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(ops.sum(ops.abs(y_true - y_pred)))
        self.count.assign_add(ops.cast(ops.shape(y_true)[0], "float32"))

    def result(self) -> Any:
        return self.total / self.count


class Wide(keras.losses.Loss):
    """A loss of the user's own."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


class Halved(keras.optimizers.SGD):
    """An optimizer of the user's own."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        variable.assign(variable - 0.5 * learning_rate * gradient)


class EverySecond(Halved):
    """Decides by a value."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.iterations % 2 == 0:
            super().update_step(gradient, variable, learning_rate)


def attention() -> Any:
    inputs = keras.Input((12,))
    hidden = layers.Reshape(SEQUENCE)(layers.Dense(12)(inputs))
    hidden = hidden + layers.MultiHeadAttention(2, 2, dropout=0.1, seed=3)(hidden, hidden, use_causal_mask=True)
    if CURRENT:
        hidden = layers.GroupQueryAttention(2, 2, 1)(layers.LayerNormalization()(hidden), hidden)
    hidden = layers.Attention()([hidden, hidden]) + layers.AdditiveAttention()([hidden, hidden])
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden)))


def masked(*parts: Any) -> Any:
    first = [keras.Input((6,), dtype="int64"), layers.Embedding(7, 4, mask_zero=True)]
    return keras.Sequential([*first, *parts, layers.Dense(2)])


def several() -> Any:
    inputs = {name: keras.Input((6,), name=name) for name in "ab"}
    one, other = (layers.Dense(3)(inputs[name]) for name in "ab")
    merged = [layers.Add()([one, other]), layers.Maximum()([one, other]), layers.Multiply()([one, other])]
    hidden = layers.Concatenate()([*merged, layers.Dot(1)([one, other])])
    return keras.Model(inputs, {"y": layers.Dense(2, name="y")(hidden), "z": layers.Dense(2, name="z")(hidden)})


def application(kind: Callable[..., Any], **options: Any) -> Any:
    inputs = keras.Input((12,))
    images = layers.Reshape((32, 32, 3))(layers.Dense(32 * 32 * 3)(inputs))
    base = kind(include_top=False, weights=None, input_shape=(32, 32, 3), **options)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(base(images))))


def frozen() -> Any:
    model = of((12,), layers.Dense(4), layers.BatchNormalization(trainable=False))
    model.layers[0].trainable = False
    return model


def mixed(policy: str) -> Any:
    parts = [layers.Dense(8, "relu", dtype=policy), layers.LSTM(3, dtype=policy), layers.Dense(4, dtype=policy)]
    return of(SEQUENCE, *parts, layers.Activation("linear", dtype="float32"))


MODELS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "dense, with penalties and constraints": (
        lambda: of(
            (12,),
            layers.Dense(5, "relu", kernel_regularizer="l2", kernel_constraint="unit_norm", activity_regularizer="l1"),
            layers.ActivityRegularization(l2=0.1),
            layers.Dense(5, "tanh", bias_regularizer="l1", bias_constraint="non_neg"),
            layers.Normalization(mean=0.5, variance=2.0),
        ),
        {},
    ),
    "activations": (
        lambda: of(
            (12,),
            *[layers.LeakyReLU(), layers.PReLU(), layers.ELU(), layers.Softmax(), layers.Activation("gelu")],
            *[layers.ReLU(max_value=1.0), layers.Rescaling(3.0), layers.UnitNormalization()],
            *([layers.RMSNormalization()] if CURRENT else []),
        ),
        {},
    ),
    "convolutions": (
        lambda: of(
            IMAGE,
            *[layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.MaxPooling2D(2, padding="same")],
            # An older one repeats by a tensor, which has a shape that isn't known before.
            *([layers.UpSampling2D(2), layers.Resizing(5, 5)] if CURRENT else []),
            *[layers.SeparableConv2D(4, 2, padding="same"), layers.GroupNormalization(2)],
            *[layers.DepthwiseConv2D(2), layers.Conv2DTranspose(3, 2), layers.ZeroPadding2D(1), layers.Cropping2D(1)],
            *[layers.AveragePooling2D(2)],
        ),
        {},
    ),
    "sequences": (
        lambda: of(
            SEQUENCE,
            *[layers.Conv1D(3, 2, padding="causal"), layers.TimeDistributed(layers.Dense(3)), layers.MaxPooling1D(2)],
            *[
                layers.EinsumDense("abc,cd->abd", (3, 4), bias_axes="d"),
                layers.Permute((2, 1)),
                layers.Conv1DTranspose(2, 2),
            ],
        ),
        {},
    ),
    "dropout and noise": (
        lambda: of(
            SEQUENCE,
            *[layers.Dropout(0.3), layers.Dropout(0.2, seed=3), layers.Dropout(0.2, noise_shape=(None, 1, None))],
            *[layers.SpatialDropout1D(0.2), layers.GaussianNoise(0.2), layers.GaussianDropout(0.2, seed=5)],
            *[layers.AlphaDropout(0.2, seed=6)],
        ),
        {},
    ),
    "augmentation": (
        lambda: of(IMAGE, layers.RandomFlip(seed=3), layers.RandomContrast(0.2), layers.RandomTranslation(0.1, 0.1)),
        {},
    ),
    "draws of a layer's own": (lambda: of((12,), Drawing()), {}),
    "LSTM": (
        lambda: of(
            SEQUENCE,
            layers.LSTM(3, return_sequences=True, go_backwards=True, dropout=0.2, seed=2),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            layers.LSTM(3),
        ),
        {},
    ),
    "other recurrent layers": (
        lambda: of(
            SEQUENCE,
            *[layers.GRU(3, return_sequences=True), layers.SimpleRNN(2, return_sequences=True)],
            *[layers.LSTM(2, "relu", recurrent_dropout=0.2, seed=2, return_sequences=True)],
            *[layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])],
        ),
        {},
    ),
    "stateful": (
        lambda: keras.Sequential([keras.Input(batch_shape=(4, 6, 2)), layers.LSTM(3, stateful=True), layers.Dense(2)]),
        {"x": X.reshape(20, 6, 2)},
    ),
    "masked steps": (
        lambda: masked(layers.LSTM(3, return_sequences=True), layers.TimeDistributed(layers.Dense(2)), layers.GRU(3)),
        {"x": IDS},
    ),
    "attention": (attention, {}),
    "state, losses and metrics of layers": (
        lambda: of((12,), Counting(), Adding(), layers.Lambda(lambda x: x * 2)),
        {},
    ),
    "subclassed": (Subclassed, {"metrics": lambda: [Distance()], "loss": Wide}),
    "several inputs and outputs": (several, {"x": {"a": X[:, :6], "b": X[:, 6:]}, "y": {"y": Y, "z": Y}}),
    "frozen": (frozen, {}),
    "an optimizer of the user's": (lambda: of((12,)), {"optimizer": lambda: Halved(0.05)}),
    "an optimizer of Keras's that oncue hasn't": (
        lambda: of((12,)),
        {
            "optimizer": lambda: keras.optimizers.Lion(
                keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5), clipnorm=1.0
            )
        },
    ),
    "bfloat16": (lambda: mixed("mixed_bfloat16"), {}),
    "float16": (lambda: mixed("mixed_float16"), {"optimizer": lambda: keras.optimizers.LossScaleOptimizer(_sgd())}),
    # The first gradients overflow, and the factor grows again after two steps.
    "accumulation within loss scaling": (
        lambda: of((12,)),
        {
            "y": 8 * Y,
            "optimizer": lambda: keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(0.02, gradient_accumulation_steps=2), 2.0**127, dynamic_growth_steps=2
            ),
            "fit": {"epochs": 2},
        },
    ),
    "accumulation, an average that is put in": (
        lambda: of((12,)),
        {
            "optimizer": lambda: keras.optimizers.Lion(
                0.01, use_ema=True, ema_overwrite_frequency=3, gradient_accumulation_steps=2
            )
        },
    ),
    "average of weights, clipping, schedule": (
        lambda: of((12,)),
        {
            "optimizer": lambda: keras.optimizers.AdamW(
                keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5),
                use_ema=True,
                ema_overwrite_frequency=2,
                global_clipnorm=0.5,
            )
        },
    ),
    "labels, weighted": (
        lambda: keras.Sequential([keras.Input((12,)), layers.Dense(3, "softmax")]),
        {
            "y": np.arange(20) % 3,
            "loss": lambda: "sparse_categorical_crossentropy",
            "metrics": lambda: ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
            "fit": {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
        },
    ),
}
# Whose update is Keras's own, after the graph.
IN_PARTS = {
    "an optimizer of the user's that decides by its count": (
        lambda: of((12,)),
        {"optimizer": lambda: EverySecond(0.05)},
    ),
}


class Branching(layers.Layer):
    """Decides by a value, after it has kept what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = layers.LSTM(3, recurrent_dropout=0.2, seed=2)
        self.kept: list[Any] = []

    def call(self, x: Any, training: bool = False) -> Any:
        y = self.cell(x, training=training)
        self.add_loss(ops.mean(y))
        self.kept[:] = [y]
        return y if ops.max(y) < 100.0 else -y


class Keeping(layers.Layer):
    """Keeps its last outputs."""

    def call(self, x: Any) -> Any:
        self.last = x * 0.5
        return self.last


class Numbering(layers.Layer):
    """Counts its calls in Python."""

    calls = 0

    def call(self, x: Any) -> Any:
        self.calls += 1
        return x


class Unseeded(layers.Layer):
    """Draws from the generator of the process."""

    def call(self, x: Any) -> Any:
        return x + 0.1 * keras.random.normal((12,))


class Gamma(layers.Layer):
    """Draws what has no form for graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(4)

    def call(self, x: Any) -> Any:
        return x + 0.1 * keras.random.gamma((12,), 1.0, seed=self.seeds)


class Losing(keras.Model):
    """Has a loss of its own, and no step."""

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **options: Any) -> Any:
        return ops.mean(ops.square(y - y_pred))


def losing() -> Any:
    inputs = keras.Input((12,))
    return Losing(inputs, layers.Dense(2)(inputs))


class Stepping(keras.Model):
    """Has a step of its own."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


def stepping() -> Any:
    inputs = keras.Input((12,))
    return Stepping(inputs, layers.Dense(2)(inputs))


def hooked() -> Any:
    model = of((12,))
    model.layers[0].register_forward_hook(lambda layer, inputs, outputs: outputs)
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a branch": (lambda: of(SEQUENCE, Branching()), r"each step changes Branching\.kept|reads the value of a tensor"),
    "what a layer keeps": (lambda: of((12,), Keeping()), r"each step changes Keeping\.last"),
    "a count": (lambda: of((12,), Numbering()), r"each step changes Numbering\.calls"),
    "draws without a seed": (
        lambda: of((12,), Unseeded()),
        r"the global seed generator of Keras" + (r".*`return x \+ 0\.1" if CURRENT else ""),
    ),
    "draws without a form": (
        lambda: of((12,), Gamma()),
        r"reads the value of a tensor" + (r".*keras\.random\.gamma" if CURRENT else ""),
    ),
    "a weight that the layer changes": (
        lambda: of((12,), layers.SpectralNormalization(layers.Dense(4))),
        r"the forward pass itself changes the weight `.*kernel`",
    ),
    "a layer without a form": (
        lambda: of(IMAGE, layers.RandomElasticTransform()),
        r"reads the value of a tensor",
    ),
    "a loss of its own": (losing, r"has a `compute_loss` of its own\."),
    "a step of its own": (stepping, r"has a `train_step` of its own"),
    "hooks": (hooked, r"`Dense` has hooks"),
}
if not CURRENT:
    # An older one has no such layer, and can't see what shapes a recurrent layer with dropout within another layer gives.
    del REFUSED["a layer without a form"], REFUSED["a branch"]


def _sgd() -> Any:
    return keras.optimizers.SGD(0.02, momentum=0.9)


def trained(make: Callable[[], Any], jit: bool, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Train a model for five batches of four; return oncue's, and all that is left."""
    options = {"x": X, "y": Y, "loss": lambda: "mse", "optimizer": _sgd, "metrics": list, "fit": {}, **options}
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(5)
    theirs = make()
    theirs.compile(options["optimizer"](), options["loss"](), metrics=options["metrics"](), jit_compile=False)
    model = oncue.Model(theirs)
    model.jit_compile = jit
    keras.utils.set_random_seed(6)
    history = model.fit(options["x"], options["y"], batch_size=4, shuffle=False, verbose=0, **options["fit"]).history
    left = {f"{name} of the history": np.array(values) for name, values in history.items()}
    left |= {f"{place} {one.path}": to_numpy(one.value.double()) for place, one in enumerate(theirs.variables)}
    left |= {
        f"{place} {one.path} of the optimizer": to_numpy(one.value.double())
        for place, one in enumerate(theirs.optimizer.variables)
    }
    left["torch's generator"] = to_numpy(torch.get_rng_state())
    return model, left


def assert_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Compare what is left."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def stand_ins(model: Any) -> list[str]:
    """Return the paths of all stand-ins for tensors that a trace left in the layers and variables of a Keras model."""
    found: list[str] = []
    seen: dict[int, Any] = {}

    def look(value: Any, path: str) -> None:
        if id(value) in seen or isinstance(value, (str, int, float, type(None), type)):
            return
        seen[id(value)] = value
        if isinstance(value, FakeTensor):
            found.append(path)
        elif isinstance(value, dict):
            for key, item in list(value.items()):
                look(item, f"{path}.{key}")
        elif isinstance(value, (list, tuple, set)):
            for place, item in enumerate(value):
                look(item, f"{path}[{place}]")
        elif not isinstance(value, (torch.Tensor, ModuleType)) and isinstance(getattr(value, "__dict__", None), dict):
            look(vars(value), path)

    look(model, model.name)
    assert any(isinstance(value, torch.nn.Parameter) for value in seen.values())
    return found


@pytest.mark.parametrize("name", [*MODELS, *IN_PARTS])
@cpu_only("there an LSTM and draws from seeds are not part of a graph")
def test_a_model_in_a_traced_step(name: str, quick: None) -> None:
    make, options = {**MODELS, **IN_PARTS}[name]
    _, expected = trained(make, False, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="`jit_compile`")
        model, found = trained(make, True, **options)
    kind = "one compiled graph" if name in MODELS else "a compiled graph, with the rest after it"
    assert model.step_account.startswith(f"The steps ran as {kind};"), model.step_account
    assert model._plan.graphs.steps["train"].eager_batches == 0
    assert_close(found, expected, 1e-2 if "float16" in name else 1e-5)
    assert stand_ins(model.keras_model) == []


def two_outputs() -> Any:
    inputs = keras.Input((12,))
    return keras.Model(inputs, [layers.Dense(2, name="one")(inputs), layers.Dense(2, name="other")(inputs)])


@pytest.mark.parametrize("jit", [False, True])
def test_weights_without_a_gradient_are_named_in_a_graph_too(jit: bool, quick: None) -> None:
    said = r"variables \['other/kernel', 'other/bias'\] when minimizing the loss\. .*did you forget to provide a `loss`"
    with pytest.warns(UserWarning, match=said) as caught:
        model, _ = trained(two_outputs, jit, y=[Y, Y], loss=lambda: ["mse", None])
    assert model.step_account.startswith("The steps ran as one compiled graph") == jit
    if jit:
        assert len([one for one in caught if "Gradients do not exist" in str(one.message)]) == 1


@pytest.mark.parametrize("jit", [False, True])
def test_no_weight_with_a_gradient_is_an_error(jit: bool, quick: None) -> None:
    def make() -> Any:
        inputs = keras.Input((12,))
        return keras.Model(inputs, ops.stop_gradient(layers.Dense(2)(inputs)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, RuntimeError), match="No gradients provided|does not require grad"):
            trained(make, jit)


@pytest.mark.parametrize("name", REFUSED)
@cpu_only("draws from seeds are refused first there")
def test_what_is_refused_stays_as_it_is(name: str, quick: None) -> None:
    make, reason = REFUSED[name]
    _, expected = trained(make, False)
    with pytest.warns(UserWarning, match=f"`jit_compile` can't compile the step of `fit`.*({reason})") as caught:
        model, found = trained(make, True)
    assert [str(one.message) for one in caught if "jit_compile" in str(one.message)][1:] == []
    assert model.step_account.startswith("The steps ran eagerly"), model.step_account
    assert_close(found, expected, 0.0)
    assert stand_ins(model.keras_model) == []


@cpu_only("there an LSTM is refused")
def test_evaluate_and_predict_are_traced(quick: None) -> None:
    def make() -> Any:
        return of(SEQUENCE, layers.LSTM(3), layers.BatchNormalization(), layers.Dropout(0.5, seed=1), Counting())

    results = []
    for jit in (False, True):
        model, left = trained(make, jit, metrics=lambda: [Distance(), "mae"], fit={"validation_data": (X[:8], Y[:8])})
        results.append([left, model.evaluate(X, Y, batch_size=4, verbose=0), model.predict(X, batch_size=4, verbose=0)])
        steps = model._plan.graphs.steps
        assert [kind for kind in steps if steps[kind].refusal is None] == (["train", "test", "predict"] if jit else [])
    (eager, *expected), (traced, *found) = results
    assert_close(traced, eager, 1e-5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_what_changes_between_fits_is_traced_again(quick: None) -> None:
    def run(jit: bool) -> tuple[Any, list[Any]]:
        model, _ = trained(lambda: of((12,), layers.Dropout(0.2, seed=1), layers.Dense(3)), jit)
        theirs = model.keras_model
        left = []
        for change in (
            lambda: setattr(theirs.layers[2], "rate", 0.4),
            lambda: setattr(theirs.layers[-1], "trainable", False),
        ):
            change()
            model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
            left += [to_numpy(one.value.double()) for one in theirs.variables]
        return model, left

    _, expected = run(False)
    model, found = run(True)
    assert model.step_account.startswith("The steps ran as one compiled graph"), model.step_account
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_second_fit_makes_no_new_graph(quick: None) -> None:
    model, _ = trained(lambda: of((12,), layers.BatchNormalization(), Adding()), True)
    step = model._plan.graphs.steps["train"]
    before = list(step._graphs.values())
    model.fit(X, Y, batch_size=4, verbose=0)
    assert [one is other for one, other in zip(before, step._graphs.values(), strict=True)] == [True]


def test_one_operation_for_an_lstm(quick: None) -> None:
    model, _ = trained(lambda: of(SEQUENCE, layers.Bidirectional(layers.LSTM(3))), True)
    (graph,) = model._plan.graphs.steps["train"]._graphs.values()
    targets = [str(node.target) for node in graph._graph.graph.nodes]
    assert targets.count("oncue.lstm.default") == targets.count("oncue.lstm_backward.default") == 2


@cpu_only("something on the CPU stands for cuDNN")
def test_one_operation_for_a_gru_where_there_is_cudnn(quick: None) -> None:
    with Cudnn().installed():
        _, expected = trained(lambda: of(SEQUENCE, layers.Bidirectional(layers.GRU(3))), False)
        model, found = trained(lambda: of(SEQUENCE, layers.Bidirectional(layers.GRU(3))), True)
    (graph,) = model._plan.graphs.steps["train"]._graphs.values()
    targets = [str(node.target) for node in graph._graph.graph.nodes]
    assert targets.count("oncue.cudnn_rnn.default") == targets.count("oncue.cudnn_rnn_backward.default") == 2
    assert_close(found, expected, 1e-5)


class InTraining(keras.Model):
    """Calls layers in training only, as many models call their dropout."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        self.first, self.last = layers.Dense(4, "relu"), layers.Dense(2)
        self.dropout, self.extra = layers.Dropout(0.3, seed=3), layers.Dense(4) if extra else None

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.first(x)
        if training:
            x = self.dropout(x, training=training)
            x = x if self.extra is None else self.extra(x)
        return self.last(x)


@pytest.mark.parametrize("extra", [False, True])
@cpu_only("there draws from seeds are not part of a graph")
def test_layers_that_are_called_in_training_only(extra: bool, quick: None) -> None:
    _, expected = trained(lambda: InTraining(extra), False)
    model, found = trained(lambda: InTraining(extra), True)
    assert model.step_account.startswith("The steps ran as one compiled graph;"), model.step_account
    assert_close(found, expected, 1e-5)


def test_only_the_thread_that_traces_draws_for_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.backend.torch import random

    asked: list[Any] = []
    made = random.torch_seed_generator

    def noted(seed: Any) -> Any:
        asked.append(seed)
        return made(seed)

    monkeypatch.setattr(random, "torch_seed_generator", noted)
    seed = keras.random.SeedGenerator(1)
    with traceable():
        within = random.torch_seed_generator
        with traceable():
            pass
        assert random.torch_seed_generator is within is not noted
        with Finding([]):
            assert type(within(seed)) is GraphGenerator
        assert asked == []
        thread = threading.Thread(target=within, args=(3,))
        thread.start()
        thread.join()
        assert asked == [3]
    assert random.torch_seed_generator is noted
    with pytest.raises(ZeroDivisionError), traceable():
        raise ZeroDivisionError
    assert random.torch_seed_generator is noted


def test_nothing_of_keras_is_exchanged_in_eager_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.backend.torch import random

    before, seen = random.torch_seed_generator, []

    class Looking(layers.Layer):
        def call(self, x: Any) -> Any:
            seen.append(random.torch_seed_generator is before)
            return x

    trained(lambda: of((12,), Looking(), layers.Dropout(0.3, seed=1), layers.Dropout(0.3)), False)
    assert len(seen) > 4 and all(seen)


@cpu_only("the quick form is for the CPU")
def test_dropout_without_a_seed_is_quick_and_fair() -> None:
    layer, x = layers.Dropout(0.25), torch.ones(100, 1000)
    before = to_numpy(layer.seed_generator.state.value)
    call = quick_call(layer)
    dropped = call(x, training=True)
    assert torch.equal(call(x, training=False), x)
    assert sorted(set(dropped.flatten().tolist())) == [0.0, pytest.approx(1 / 0.75)]
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.01
    np.testing.assert_array_equal(to_numpy(layer.seed_generator.state.value), before)
    for other in (layers.Dropout(0.25, seed=3), layers.Dropout(0.25, noise_shape=(1, None)), layers.Dropout(0.0)):
        assert quick_call(other) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetV2B0"])
@cpu_only("compared with the CPU's numbers")
def test_an_application(name: str, quick: None) -> None:
    options: dict[str, Any] = {"alpha": 0.35} if name == "MobileNetV2" else {}

    def make() -> Any:
        return application(getattr(keras.applications, name), **options)

    # After one step: normalized over four images, whose last features are a single pixel, it makes large differences of the
    # smallest.
    one = {"x": X[:4], "y": Y[:4], "optimizer": lambda: keras.optimizers.SGD(1e-4)}
    _, expected = trained(make, False, **one)
    model, found = trained(make, True, **one)
    assert model.step_account.startswith("The steps ran as one compiled graph;"), model.step_account
    assert_close(found, expected, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolutions", "LSTM", "dropout and noise"])
@cpu_only("compiled for the CPU")
def test_a_compiled_model(name: str) -> None:
    make, options = MODELS[name]
    _, expected = trained(make, False, **options)
    model, found = trained(make, True, **options)
    assert model.step_account.startswith("The steps ran as one compiled graph;"), model.step_account
    assert_close(found, expected, 1e-4)
