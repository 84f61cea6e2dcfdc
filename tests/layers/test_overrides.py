"""What a class of the user's own overrides counts as in Keras, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import constraints, initializers, layers, losses, metrics, regularizers

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Own(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    """Says itself what is saved of it, and how it is built."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words, self.told = np.zeros(2), None

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(4,), trainable=False, initializer="zeros", name="shift")

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.scale + self.shift

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        store["words"] = np.array([7.0, 8.0])

    def load_own_variables(self, store: Any) -> None:
        self.words = np.array(store["words"])
        super().load_own_variables({key: value for key, value in store.items() if key != "words"})

    def get_build_config(self) -> dict[str, Any]:
        return {"width": 4, "note": "kept"}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.told = config["note"]
        self.build((None, config["width"]))


def with_own() -> Any:
    return oncue.Sequential([layers.Input((4,)), Own(), layers.Dense(1)])


@pytest.mark.parametrize("ending", ["weights.h5", "keras"])
def test_a_layer_says_itself_what_is_saved(tmp_path: Path, ending: str) -> None:
    model = with_own()
    model.layers[0].scale.assign(np.arange(4.0))
    path = tmp_path / f"model.{ending}"
    if ending == "keras":
        model.save(path)
        again = oncue.models.load_model(path, custom_objects={"Own": Own})
        assert again.layers[0].told == "kept"
    else:
        model.save_weights(path)
        again = with_own()
        again.load_weights(path)
    np.testing.assert_array_equal(again.layers[0].words, [7, 8])
    np.testing.assert_array_equal(again.get_weights()[0], np.arange(4.0))
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_array_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    class Half(Own):
        load_own_variables = layers.Layer.load_own_variables

    model = oncue.Sequential([layers.Input((4,)), Half(), layers.Dense(1)])
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match=r"2 weights of its own; the file has .*'words'.*Half.save_own_variables"):
        model.load_weights(tmp_path / "a.weights.h5")


class Compiles(oncue.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.last = layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.last(inputs)

    def get_config(self) -> dict[str, Any]:
        return {}

    def get_compile_config(self) -> dict[str, Any]:
        return {"kind": "mae"}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile("sgd", config["kind"])


def test_a_model_says_itself_how_it_is_compiled(tmp_path: Path) -> None:
    model = Compiles()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "a.keras")
    assert oncue.models.load_model(tmp_path / "a.keras", custom_objects={"Compiles": Compiles}).loss == "mae"


class Times(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    """Has an argument and no `get_config`."""

    def __init__(self, factor: Any, sizes: Any = (1, 2), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor, self.sizes = factor, sizes

    def call(self, inputs: torch.Tensor) -> Any:
        return inputs * self.factor


def test_arguments_are_noted_where_there_is_no_get_config(tmp_path: Path) -> None:
    model = oncue.Sequential([layers.Input((4,)), Times(3.0, name="by_three"), layers.Dense(1)])
    model.save(tmp_path / "a.keras")
    again = oncue.models.load_model(tmp_path / "a.keras", custom_objects={"Times": Times})
    assert (again.layers[0].factor, again.layers[0].name) == (3.0, "by_three")
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))


def test_what_can_not_be_written_down_is_said_when_it_is_saved(tmp_path: Path) -> None:
    model = oncue.Sequential([layers.Input((4,)), Times(tensor(np.ones(4, "float32"))), layers.Dense(1)])
    with pytest.raises(NotImplementedError, match=r"`factor` of Times .*Define `Times.get_config\(self\)`"):
        model.save(tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


class Twice(regularizers.Regularizer):
    def __init__(self, twice: float) -> None:
        self.twice = twice

    def __call__(self, x: Any) -> Any:
        return self.twice * (x**2).sum()


class Capped(constraints.Constraint):
    def __init__(self, cap: float) -> None:
        self.cap = cap

    def __call__(self, w: Any) -> Any:
        return w.clamp(max=self.cap)


class Filled(initializers.Initializer):
    def __init__(self, fill: float) -> None:
        self.fill = fill

    def __call__(self, shape: Any, dtype: Any = None) -> torch.Tensor:
        return torch.full(tuple(shape), self.fill)


class Weighed(losses.Loss):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.factor * (y_true - y_pred).abs().mean(-1)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"kernel_regularizer": Twice(0.1)}, "twice"),
        ({"kernel_constraint": Capped(0.1)}, "cap"),
        ({"kernel_initializer": Filled(0.1)}, "fill"),
    ],
)
def test_a_configuration_that_lacks_an_argument_is_refused(tmp_path: Path, arguments: Any, name: str) -> None:
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(1, **arguments)])
    with pytest.raises(ValueError, match=rf"it needs `{name}`, which its `get_config` doesn't return. Define"):
        model.save(tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_lacks_an_argument_is_said(tmp_path: Path) -> None:
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(1)])
    model.compile("sgd", Weighed(2.0))
    with pytest.warns(UserWarning, match=r"without the arguments of `compile`.*Weighed.*it needs `factor`"):
        model.save(tmp_path / "a.keras")


def test_methods_that_are_put_on_a_class_later() -> None:
    class Late(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def call(self, inputs: torch.Tensor) -> Any:
            return inputs * 1.0

    Late()
    Late.compute_mask = lambda self, inputs, previous_mask=None: inputs[..., 0] > 0
    assert to_numpy(Late()(tensor(np.ones((1, 2, 1), "float32")))._keras_mask).all()

    def call(self: Any, inputs: torch.Tensor, training: bool = False) -> Any:
        return inputs * (2.0 if training else 1.0)

    Late.call = call
    assert float(Late()(tensor(np.ones((1, 1), "float32")), training=True)) == 2.0


def test_the_output_as_a_symbolic_tensor() -> None:
    class Half(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def call(self, inputs: torch.Tensor) -> Any:
            return inputs[:, :2]

        def compute_output_spec(self, inputs: Any) -> Any:
            return oncue.KerasTensor((inputs.shape[0], 2), dtype=inputs.dtype)

    model = oncue.Sequential([layers.Input((4,)), Half(), layers.Dense(1)])
    assert model.layers[0].output.shape == (None, 2) and model.output_shape == (None, 1)
    assert layers.Dense(3).compute_output_spec(layers.Input((2,))).shape == (None, 3)


def test_build_is_told_the_shapes_of_several_inputs(tmp_path: Path) -> None:
    class Joined(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def build(self, left_shape: Any, right_shape: Any) -> None:
            self.told = left_shape, right_shape
            self.kernel = self.add_weight(shape=(left_shape[-1], right_shape[-1]))

        def call(self, left: Any, right: Any) -> Any:
            return left @ self.kernel + right

    left, right, layer = layers.Input((4,)), layers.Input((1,)), Joined()
    model = oncue.Model([left, right], layer(left, right=right))
    assert layer.told == ((None, 4), (None, 1))
    model.compile("sgd", "mse")
    model.fit([X, Y], Y, verbose=0)
    alone = Joined()
    alone(tensor(X), tensor(Y))
    assert alone.told == ((None, 4), (None, 1))
    model.save(tmp_path / "a.keras")
    again = oncue.models.load_model(tmp_path / "a.keras", custom_objects={"Joined": Joined})
    np.testing.assert_array_equal(again.predict([X, Y], verbose=0), model.predict([X, Y], verbose=0))


def test_metrics_of_layers_are_logged() -> None:
    class Measured(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.size = metrics.Mean(name="size")

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            self.size.update_state(inputs.detach().abs().mean())
            return inputs * 1.0

    model = oncue.Sequential([layers.Input((4,)), Measured(), layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(X, Y, batch_size=16, epochs=2, validation_data=(X, Y), verbose=0).history
    np.testing.assert_allclose([history["size"], history["val_size"]], np.abs(X).mean(), rtol=1e-5)
    assert [metric.name for metric in model.metrics] == ["loss", "size"]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("make_train_function", "train_step"),
        ("make_predict_function", "predict_step"),
        ("get_metrics_result", "compute_metrics"),
    ],
)
def test_methods_that_would_never_be_called_are_refused(name: str, instead: str) -> None:
    kind = type("Asks", (oncue.Model,), {name: lambda self: None})
    with pytest.raises(TypeError, match=rf"`Asks.{name}` would never be called here. Override `{instead}`"):
        kind()


def test_a_weight_named_as_an_attribute() -> None:
    class Scaled(layers.Layer):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale, self.inner = scale, layers.Dense(1, kernel_initializer="ones")

        def build(self, input_shape: Any) -> None:
            self.factor = self.add_weight((), "ones", name="scale")
            self.offset = self.add_weight((), "ones", name="inner")

        def call(self, x: Any) -> Any:
            return self.inner(x * self.factor * self.scale) + self.offset

    layer = Scaled(3.0)
    assert layer(tensor(np.ones((1, 1), "float32"))).tolist() == [[4.0]]
    assert layer.scale == 3.0 and [weight.name for weight in layer.weights[:2]] == ["scale", "inner"]


def test_a_mask_that_is_given_goes_on() -> None:
    class Passing(layers.Layer):
        supports_masking = True

        def call(self, x: Any, mask: Any = None) -> Any:
            return x

    mask = tensor(np.array([True, False]))
    assert Passing()(tensor(np.ones((2, 2), "float32")), mask=mask)._keras_mask is mask


def test_masks_are_nested_as_the_inputs() -> None:
    seen = []

    class Both(layers.Layer):
        def call(self, x: Any, mask: Any = None) -> Any:
            seen.append(type(mask))
            return x[0]

    masked = layers.Masking()(tensor(np.ones((2, 3, 2), "float32")))
    Both()((masked, masked))
    Both()([masked, masked])
    assert seen == [tuple, list]
