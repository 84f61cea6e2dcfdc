"""Where older versions of Keras had what is elsewhere today, and what is nowhere."""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

from oncue.legacy.backend_names import BACKEND, BACKEND_REFUSED, TENSORFLOW_NAMES, TENSORFLOW_REFUSED
from oncue.legacy.preprocessing_names import PREPROCESSING
from oncue.legacy.warning import warn_once
from oncue.legacy.words import KERAS_1, KERAS_2, TF_KERAS, Old, Refused, since

_LAYERS = (
    "advanced_activations convolutional convolutional_recurrent core embeddings local noise recurrent wrappers"
).split()

MODULES: dict[str, Old] = {
    **since(KERAS_1, dict.fromkeys(("oncue.engine", "oncue.engine.topology"), "oncue.layers")),
    **since(KERAS_1, {f"oncue.layers.{name}": "oncue.layers" for name in _LAYERS}),
    **since(KERAS_2, dict.fromkeys(("oncue.engine.base_layer", "oncue.layers.cudnn_recurrent"), "oncue.layers")),
    **since(
        KERAS_1,
        {
            f"oncue.utils.{name}": "oncue.utils"
            for name in ("data_utils", "generic_utils", "layer_utils", "np_utils", "visualize_util")
        },
    ),
    **since(KERAS_2, {"oncue.utils.vis_utils": "oncue.utils"}),
    **since(
        KERAS_1,
        {
            "oncue.engine.training": "oncue.models",
            "oncue.initializations": "oncue.initializers",
            "oncue.objectives": "oncue.losses",
        },
    ),
    **since(
        TF_KERAS,
        {
            f"oncue.optimizers.{name}_v2": f"oncue.optimizers.{name}"
            for name in ("adadelta", "adagrad", "adam", "adamax", "nadam", "rmsprop")
        },
    ),
    **since(TF_KERAS, {"oncue.optimizers.gradient_descent_v2": "oncue.optimizers.sgd"}),
}
"""From modules of Keras 1 and 2 to those that have their content today."""

SILENT_MODULES: dict[str, str] = {
    "oncue.mixed_precision.experimental": "oncue.mixed_precision",
    "oncue.layers.experimental": "oncue.layers",
    "oncue.layers.experimental.preprocessing": "oncue.layers",
    "oncue.layers.preprocessing": "oncue.layers",
    "oncue.optimizers.experimental": "oncue.optimizers",
    "oncue.python": "oncue",
}
"""The same for modules whose names already say that they are old, or private, so that there is no warning."""

PARTS: dict[str, tuple[str, ...]] = {
    "oncue.optimizers.legacy": (
        "SGD",
        "Adadelta",
        "Adagrad",
        "Adam",
        "Adamax",
        "Ftrl",
        "Nadam",
        "Optimizer",
        "RMSprop",
    ),
}
"""From modules that had only a part of what the package around them has today to the names in it; no warning either."""

ATTRIBUTES: dict[str, Old] = {
    **since(KERAS_1, {"oncue.layers.normalization.BatchNormalization": "oncue.layers.BatchNormalization"}),
    **since(
        KERAS_1,
        {
            "oncue.layers.AtrousConvolution1D": "oncue.layers.Conv1D",
            "oncue.layers.AtrousConvolution2D": "oncue.layers.Conv2D",
            "oncue.layers.Convolution3D": "oncue.layers.Conv3D",
            "oncue.layers.Deconvolution2D": "oncue.layers.Conv2DTranspose",
            "oncue.layers.SeparableConvolution2D": "oncue.layers.SeparableConv2D",
            "oncue.models.Container": "oncue.models.Model",
            "oncue.layers.Container": "oncue.models.Model",
            "oncue.regularizers.WeightRegularizer": "oncue.regularizers.L1L2",
            "oncue.regularizers.activity_l1": "oncue.regularizers.l1",
            "oncue.regularizers.activity_l1l2": "oncue.regularizers.l1_l2",
            "oncue.regularizers.activity_l2": "oncue.regularizers.l2",
            "oncue.regularizers.l1l2": "oncue.regularizers.l1_l2",
            "oncue.utils.plot": "oncue.utils.plot_model",
        },
    ),
    **since(
        KERAS_2,
        {
            "oncue.layers.CuDNNGRU": "oncue.layers.GRU",
            "oncue.layers.CuDNNLSTM": "oncue.layers.LSTM",
        },
    ),
    **since(
        TF_KERAS,
        {
            f"oncue.experimental.{name}": f"oncue.optimizers.schedules.{name}"
            for name in ("CosineDecay", "CosineDecayRestarts")
        },
    ),
    "oncue.layers.ThresholdedReLU": Old(
        "oncue.layers.ReLU(threshold=theta)", KERAS_1, "oncue.legacy.layers.thresholded_relu"
    ),
    "oncue.layers.TimeDistributedDense": Old(
        "oncue.layers.TimeDistributed(Dense(units))", KERAS_1, "oncue.legacy.layers.time_distributed_dense"
    ),
    **{
        f"oncue.backend.{name}": Old(
            word.new and f"oncue.{word.new}", word.since, f"oncue.legacy.backend_functions.{name}"
        )
        for name, word in BACKEND.items()
    },
    **PREPROCESSING,
    **TENSORFLOW_NAMES,
}
"""From a name in a module to where it is today."""

CALLED: dict[str, Old] = {
    **since(
        KERAS_1,
        {
            f"oncue.optimizers.{name.lower()}": f"oncue.optimizers.{name}"
            for name in ("SGD", "Adadelta", "Adagrad", "Adam", "Adamax", "Nadam", "RMSprop")
        },
    ),
    "oncue.layers.merge": Old("oncue.layers.concatenate", KERAS_1, "oncue.legacy.layers.merge"),
}
"""From modules of today whose names were those of classes or functions to what is called by them."""

_SUBCLASS = "Write a layer of your own: a subclass of `layers.Layer` with `build` and `call`."
_ENQUEUERS = Refused(KERAS_2, "data sets load in the background by themselves", "Use `utils.PyDataset(workers=...)`.")
_OLD_METRIC = "as a mean over batches it was wrong, and Keras 2 took it out"

REFUSED: dict[str, Refused] = {
    "oncue.layers.Highway": Refused(KERAS_1, "Keras 2 took it out", _SUBCLASS),
    "oncue.layers.MaxoutDense": Refused(KERAS_1, "Keras 2 took it out", _SUBCLASS),
    "oncue.layers.SReLU": Refused(KERAS_1, "Keras 2 took it out", _SUBCLASS),
    "oncue.layers.ParametricSoftplus": Refused(KERAS_1, "Keras 2 took it out", _SUBCLASS),
    "oncue.layers.LocallyConnected1D": Refused(KERAS_1, "Keras 3 took it out", _SUBCLASS),
    "oncue.layers.LocallyConnected2D": Refused(KERAS_1, "Keras 3 took it out", _SUBCLASS),
    "oncue.layers.Merge": Refused(
        KERAS_1,
        "it joined whole models",
        "Join tensors: `x = layers.concatenate([left.output, right.output])` and `Model([left.input, right.input], x)`.",
    ),
    "oncue.models.Graph": Refused(
        KERAS_1,
        "it was the first form of functional models",
        "Use `Input`, layers called on tensors, and `Model(inputs, outputs)`.",
    ),
    "oncue.models.model_from_yaml": Refused(
        KERAS_1,
        "reading YAML could run code",
        "Save the model as .keras, or use `model.to_json()` and `model_from_json`.",
    ),
    **{
        f"oncue.metrics.{name}": Refused(KERAS_1, _OLD_METRIC, f"Use `metrics.{today}`.")
        for name, today in {
            "precision": "Precision()",
            "recall": "Recall()",
            "fbeta_score": "FBetaScore()",
            "fmeasure": "F1Score()",
            "matthews_correlation": "BinaryAccuracy(), or a function of your own",
        }.items()
    },
    "oncue.utils.multi_gpu_model": Refused(
        KERAS_2,
        "a process trains on one GPU",
        "Start the script by `torchrun`, a process for each: docs/many_processes.md.",
    ),
    "oncue.utils.HDF5Matrix": Refused(
        KERAS_1, "h5py reads such files", "Use `h5py.File(path)[name]` in a `utils.PyDataset`."
    ),
    "oncue.utils.io_utils": Refused(
        KERAS_1, "h5py reads such files", "Use `h5py.File(path)[name]` in a `utils.PyDataset`."
    ),
    **{f"oncue.utils.{name}": _ENQUEUERS for name in ("GeneratorEnqueuer", "OrderedEnqueuer", "SequenceEnqueuer")},
    "oncue.utils.convert_all_kernels_in_model": Refused(
        KERAS_1,
        "it turned kernels of Theano's",
        "Load the weights in Keras 2 with Theano's order, and save them again.",
    ),
    "oncue.optimizers.TFOptimizer": Refused(
        KERAS_1, "optimizers are not TensorFlow's", "Pass a `torch.optim` optimizer to `compile`."
    ),
    "oncue.wrappers.scikit_learn": Refused(
        KERAS_1,
        "its place is scikit-learn's today",
        "Use `wrappers.SKLearnClassifier` or `wrappers.SKLearnRegressor`, or the package scikeras.",
    ),
    **{
        f"oncue.experimental.{name}": Refused(TF_KERAS, "Keras 3 took it out", "Make a functional `Model` of layers.")
        for name in ("LinearModel", "WideDeepModel")
    },
    **{f"oncue.backend.{name}": refused for name, refused in BACKEND_REFUSED.items()},
    **TENSORFLOW_REFUSED,
}
"""Names that can't be honoured."""

METHODS_REFUSED: dict[str, Refused] = {
    "to_yaml": Refused(KERAS_1, "reading YAML could run code", "Use `model.to_json()`, or save the model as .keras."),
    "add_metric": Refused(
        TF_KERAS,
        "metrics are objects of their layer or model",
        "Make `self.m = keras.metrics.Mean(name=...)` in `__init__`, and call `self.m.update_state(value)` in `call`.",
    ),
    "add_update": Refused(KERAS_1, "nothing waits in a graph", "Change weights in `call`: `self.count.assign_add(1)`."),
    "get_input_mask_at": Refused(KERAS_1, "masks travel with tensors", "Use `layer.compute_mask`."),
    "uses_learning_phase": Refused(KERAS_1, "layers are told", "Use the argument `training` of `call`."),
    "train_function": Refused(TF_KERAS, "steps are made by `fit`", "Override `train_step`."),
    "predict_function": Refused(TF_KERAS, "steps are made by `predict`", "Use `model(x)` or `model.predict_on_batch`."),
    "get_updates": Refused(KERAS_1, "nothing waits in a graph", "Use `optimizer.apply(gradients, variables)`."),
    "get_gradients": Refused(KERAS_1, "gradients are torch's", "Use `torch.autograd.grad`."),
    "compute_gradients": Refused(TF_KERAS, "gradients are torch's", "Use `torch.autograd.grad`."),
    "minimize": Refused(TF_KERAS, "gradients are torch's", "Use `loss.backward()`, then `optimizer.apply`."),
    "model_to_estimator": Refused(TF_KERAS, "TensorFlow has taken estimators out too", "Use the model."),
}
"""Methods and attributes of layers, models and optimizers that can't be honoured."""

SPACES = (
    "oncue.config.experimental",
    "oncue.data",
    "oncue.data.experimental",
    "oncue.experimental",
    "oncue.math",
    "oncue.nn",
    "oncue.test",
)
"""Modules that are there for old names only."""


def refusal(name: str) -> str | None:
    """Return why a full name can't be honoured; None for one that isn't refused.

    Example:
        >>> refusal("oncue.GradientTape")[:44]
        '`GradientTape` is from TensorFlow and is not'
    """
    word = REFUSED.get(name)
    return None if word is None else word.text(name.partition(".")[2])


def fill(module: ModuleType) -> None:
    """Let a module that is there for old names only look them up."""
    module.__getattr__ = functools.partial(found, module.__name__)  # type: ignore[method-assign]  # a module's own
    module.__path__ = []


def _space(name: str) -> ModuleType:
    if name not in sys.modules:
        module = ModuleType(name, "Old names only.")
        fill(module)
        sys.modules[name] = module
    return sys.modules[name]


def found(module: str, name: str) -> Any:
    """Return what an older Keras had as `name` in a module; see `oncue.legacy.lookup.old_attribute`."""
    old = f"{module}.{name}"
    if old in PARTS:
        return importlib.import_module(old)
    if old in SILENT_MODULES:
        return importlib.import_module(SILENT_MODULES[old])
    if old in MODULES:
        warn_once(old, MODULES[old].new)
        return importlib.import_module(MODULES[old].new or "oncue")
    if old in ATTRIBUTES:
        word = ATTRIBUTES[old]
        warn_once(old, word.new)
        home, _, own = (word.home or word.new or "").rpartition(".")
        return getattr(importlib.import_module(home), own)
    if old in CALLED:
        return importlib.import_module(old)
    if old in SPACES:
        return _space(old)
    raise AttributeError(refusal(old) or f"module {module!r} has no attribute {name!r}")
