"""Files as Keras 1 and 2 wrote them, made here from scratch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oncue as keras

ZEROS, ONES = {"class_name": "Zeros", "config": {}}, {"class_name": "Ones", "config": {}}
GLOROT = {"class_name": "GlorotUniform", "config": {"seed": None}}
NO_RULES = {f"{part}_{rule}": None for part in ("kernel", "bias") for rule in ("regularizer", "constraint")} | {
    "activity_regularizer": None
}
WEIGHTS = {"use_bias": True, "kernel_initializer": GLOROT, "bias_initializer": ZEROS, **NO_RULES}


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, "trainable": True, "dtype": "float32", **config}}


CONV = layer(
    "Conv2D", "conv", batch_input_shape=[None, 8, 8, 1], filters=2, kernel_size=[3, 3], strides=[1, 1], padding="valid",
    data_format="channels_last", dilation_rate=[1, 1], groups=1, activation="relu", **WEIGHTS,
)  # fmt: skip
NORMAL = layer(
    "BatchNormalization", "norm", axis=[3], momentum=0.99, epsilon=0.001, center=True, scale=True, beta_initializer=ZEROS,
    gamma_initializer=ONES, moving_mean_initializer=ZEROS, moving_variance_initializer=ONES, beta_regularizer=None,
    gamma_regularizer=None, beta_constraint=None, gamma_constraint=None,
)  # fmt: skip
REST = [
    layer("MaxPooling2D", "pool", pool_size=[2, 2], padding="valid", strides=[2, 2], data_format="channels_last"),
    layer("Flatten", "flat", data_format="channels_last"),
    layer("Dropout", "drop", rate=0.5, noise_shape=None, seed=None),
    layer("Dense", "dense", units=3, activation="softmax", **WEIGHTS),
]
ENTRY = {
    "class_name": "InputLayer",
    "config": {
        "batch_input_shape": [None, 8, 8, 1],
        "dtype": "float32",
        "sparse": False,
        "ragged": False,
        "name": "in",
    },
}
SHAPES = {
    "conv": {"conv/kernel:0": (3, 3, 1, 2), "conv/bias:0": (2,)},
    "norm": {f"norm/{name}:0": (2,) for name in ("gamma", "beta", "moving_mean", "moving_variance")},
    **{name: {} for name in ("pool", "flat", "drop")},
    "dense": {"dense/kernel:0": (18, 3), "dense/bias:0": (3,)},
}
TRAINING = {
    "loss": "categorical_crossentropy",
    "metrics": [
        [
            {
                "class_name": "MeanMetricWrapper",
                "config": {"name": "accuracy", "dtype": "float32", "fn": "categorical_accuracy"},
            }
        ]
    ],
    "weighted_metrics": None,
    "loss_weights": None,
    "optimizer_config": {
        "class_name": "Adam",
        "config": {
            "name": "Adam",
            "learning_rate": 0.01,
            "decay": 0.0,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "amsgrad": False,
        },
    },
}


def write(path: Path, config: Any, shapes: Any, training: Any = None) -> Path:
    draw = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.10.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        if training is not None:
            file.attrs["training_config"] = json.dumps(training)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in shapes]
        for name, weights in shapes.items():
            part = group.create_group(name)
            part.attrs["weight_names"] = [weight.encode() for weight in weights] or np.array([], "S1")
            for weight, shape in weights.items():
                part[weight] = draw.uniform(0.1, 0.9, shape).astype("float32")
    return path


def test_a_sequential_of_keras_2(tmp_path: Path) -> None:
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": [ENTRY, CONV, NORMAL, *REST]}}
    model = keras.models.load_model(write(tmp_path / "m.h5", config, SHAPES, TRAINING))
    assert model.name == "net" and model.optimizer.learning_rate == 0.01
    x, y = np.ones((2, 8, 8, 1), "float32"), np.eye(3, dtype="float32")[:2]
    assert sorted(model.evaluate(x, y, verbose=0, return_dict=True)) == ["accuracy", "loss"]
    model.fit(x, y, verbose=0)


def test_a_sequential_of_keras_1(tmp_path: Path) -> None:
    config = {"class_name": "Sequential", "config": [CONV, NORMAL, *REST]}
    model = keras.models.load_model(write(tmp_path / "m.h5", config, SHAPES))
    assert model.output_shape == (None, 3)


@pytest.mark.parametrize("class_name", ["Functional", "Model"])
def test_a_functional_model_of_keras_2(class_name: str, tmp_path: Path) -> None:
    def node(made: dict[str, Any], *sources: str) -> dict[str, Any]:
        inbound = [[[source, 0, 0, {}] for source in sources]] if sources else []
        return {**made, "name": made["config"]["name"], "inbound_nodes": inbound}

    entry = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 5], "dtype": "int32", "name": "x"}}
    table = layer("Embedding", "table", input_dim=9, output_dim=2, mask_zero=False, input_length=None)
    lstm = layer(
        "LSTM", "lstm", units=3, activation="tanh", recurrent_activation="sigmoid", time_major=False, implementation=2,
        unit_forget_bias=True, recurrent_initializer={"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None}},
        **WEIGHTS,
    )  # fmt: skip
    head = layer("Dense", "head", units=3, activation="linear", **WEIGHTS)
    nodes = [
        node(entry),
        node(table, "x"),
        node(lstm, "table"),
        node(head, "lstm"),
        node(layer("Add", "add"), "lstm", "head"),
    ]
    config = {"name": "net", "layers": nodes, "input_layers": [["x", 0, 0]], "output_layers": [["add", 0, 0]]}
    shapes = {
        "x": {},
        "table": {"table/embeddings:0": (9, 2)},
        "lstm": {f"lstm/lstm_cell/{n}:0": s for n, s in (("kernel", (2, 12)), ("recurrent", (3, 12)), ("bias", (12,)))},
        "head": {"head/kernel:0": (3, 3), "head/bias:0": (3,)},
        "add": {},
    }
    path = write(tmp_path / "m.h5", {"class_name": class_name, "config": config}, shapes)
    model = keras.models.load_model(path)
    assert model.predict(np.ones((2, 5), "int32"), verbose=0).shape == (2, 3)
    other = keras.models.clone_model(model)
    other.load_weights(path)
    np.testing.assert_array_equal(other.get_weights()[2], model.get_weights()[2])


def test_a_file_with_weights_only_says_so(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.save_weights(tmp_path / "w.h5")
    with pytest.raises(ValueError, match="only weights: make the model"):
        keras.models.load_model(tmp_path / "w.h5")
