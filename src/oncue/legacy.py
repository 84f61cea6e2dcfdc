"""Names of older Keras generations, translated here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oncue.core.logs import Logs
from oncue.core.warn import warn

LOG_NAMES: dict[str, tuple[str, ...]] = {
    "acc": (
        "accuracy",
        "categorical_accuracy",
        "sparse_categorical_accuracy",
        "binary_accuracy",
    ),
    "accuracy": ("acc",),
    "lr": ("learning_rate",),
    "learning_rate": ("lr",),
    "mean_absolute_error": ("mae",),
    "mae": ("mean_absolute_error",),
    "mean_squared_error": ("mse",),
    "mse": ("mean_squared_error",),
}
"""From a name that code of one Keras generation asks the logs for, to the names of the others."""

_KERNEL = {
    "init": "kernel_initializer",
    "bias": "use_bias",
    "W_regularizer": "kernel_regularizer",
    "b_regularizer": "bias_regularizer",
    "W_constraint": "kernel_constraint",
    "b_constraint": "bias_constraint",
}
_CONV = {
    **_KERNEL,
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
    "dim_ordering": "data_format",
}
_POOL = {
    "pool_length": "pool_size",
    "stride": "strides",
    "border_mode": "padding",
    "dim_ordering": "data_format",
}
_RECURRENT = {
    **_KERNEL,
    "output_dim": "units",
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "U_regularizer": "recurrent_regularizer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "implementation": None,
    "consume_less": None,
    "time_major": None,
}
LAYER_WORDS: dict[str, dict[str, str | None]] = {
    "Dense": {**_KERNEL, "output_dim": "units"},
    "Dropout": {"p": "rate"},
    "LeakyReLU": {"alpha": "negative_slope"},
    "Embedding": {"init": "embeddings_initializer", "W_regularizer": "embeddings_regularizer"},
    "BatchNormalization": {"gamma_init": "gamma_initializer", "beta_init": "beta_initializer", "mode": None},
    "Conv1D": {**_CONV},
    "Conv2D": {**_CONV},
    "MaxPooling1D": {**_POOL},
    "MaxPooling2D": {**_POOL},
    "AveragePooling1D": {**_POOL},
    "AveragePooling2D": {**_POOL},
    "SimpleRNN": {**_RECURRENT},
    "LSTM": {**_RECURRENT},
    "GRU": {**_RECURRENT},
}
"""From the arguments of layers in Keras 1 and 2 to today's; None for one that no longer does anything."""

FIT_WORDS: dict[str, str] = {"nb_epoch": "epochs", "show_accuracy": ""}
"""From the arguments of `fit` in Keras 1 to today's; "" for one that no longer does anything."""

LOADER_WORDS = ("max_queue_size", "workers", "use_multiprocessing")
"""Arguments of `fit` in Keras 2 that today belong to the data set; they are taken and left."""

OPTIMIZER_WORDS = ("jit_compile", "is_legacy_optimizer")
"""Arguments of optimizers in Keras 2 that no longer do anything."""

OLD_MODULES: dict[str, str] = {
    **dict.fromkeys(("oncue.engine", "oncue.engine.topology", "oncue.engine.base_layer"), "oncue.layers"),
    **dict.fromkeys(
        (
            "oncue.layers.advanced_activations",
            "oncue.layers.convolutional",
            "oncue.layers.core",
            "oncue.layers.embeddings",
            "oncue.layers.noise",
            "oncue.layers.recurrent",
            "oncue.layers.wrappers",
        ),
        "oncue.layers",
    ),
    **dict.fromkeys(("oncue.utils.data_utils", "oncue.utils.generic_utils", "oncue.utils.np_utils"), "oncue.utils"),
    "oncue.engine.training": "oncue.models",
    "oncue.initializations": "oncue.initializers",
    "oncue.objectives": "oncue.losses",
}
"""From modules of Keras 1 and 2 to those that have their content today."""

_warned: set[str] = set()


def log_names(key: str) -> Iterable[str]:
    """Return the names that may stand for an old name of a logged value.

    Example:
        >>> list(log_names("val_acc"))[0]
        'val_accuracy'
    """
    prefix, plain = ("val_", key[4:]) if isinstance(key, str) and key.startswith("val_") else ("", key)
    return [prefix + name for name in LOG_NAMES.get(plain, ())]


def model_ends(inputs: Any, outputs: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return a model's inputs and outputs, under the names of Keras 1 too; those are taken out of `kwargs`.

    Example:
        >>> model_ends("x", "y", {})
        ('x', 'y')
    """
    for old in ("input", "output"):
        if old in kwargs:
            warn_once(f"Model({old}=...)", f"Model({old}s=...)")
    return kwargs.pop("input", inputs), kwargs.pop("output", outputs)


def old_log_names(names: Sequence[str]) -> dict[str, str]:
    """Return the old names that stand for names in a run's logs.

    Args:
        names: The names that the run logs.

    Returns:
        From each old name that is not itself logged to the logged name.

    Example:
        >>> old_log_names(["loss", "val_accuracy"])
        {'val_acc': 'val_accuracy'}
    """
    found: dict[str, str] = {}
    for prefix in ("", "val_"):
        for old, new_names in LOG_NAMES.items():
            new = next((prefix + name for name in new_names if prefix + name in names), None)
            if new is not None and prefix + old not in names:
                found[prefix + old] = new
    return found


def translate_optimizer_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's further arguments with the words of Keras 1 and 2 replaced by today's.

    Args:
        kwargs: What an optimizer got besides its named arguments.

    Returns:
        A new dict: `lr` has become `learning_rate`; `decay` stays when it is a positive number, as the optimizer
        carries it out; what no longer does anything is gone.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     translate_optimizer_arguments({"lr": 0.1})
        {'learning_rate': 0.1}
    """
    new = {name: value for name, value in kwargs.items() if name not in OPTIMIZER_WORDS}
    if "lr" in new:
        new["learning_rate"] = new.pop("lr")
        warn_once("lr=", "learning_rate=")
    if not new.get("decay", 1):
        del new["decay"]
    elif "decay" in new:
        warn_once(
            "decay=",
            "learning_rate=schedules.InverseTimeDecay(learning_rate, decay_steps=1, decay_rate=decay)",
        )
    return new


def warn_once(old: str, new: str) -> None:
    """Warn that an old word has a new one; once for each word and process, at the user's line.

    Args:
        old: The old word, as the user typed it.
        new: What to type instead.
    """
    if old in _warned:
        return
    _warned.add(old)
    warn(f"`{old}` is the word of an older Keras; type `{new}` instead.", DeprecationWarning)


Logs.old_names = staticmethod(log_names)
