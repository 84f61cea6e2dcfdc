"""Arguments under the names that older versions of Keras gave them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec

from oncue.core.numbers import sizes_of
from oncue.core.suggest import nearest
from oncue.legacy.warning import warn_once
from oncue.legacy.words import KERAS_1, Refused

P = ParamSpec("P")

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
    "U_regularizer": "recurrent_regularizer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "implementation": None,
    "consume_less": None,
    "time_major": None,
}
_GATED = {**_RECURRENT, "inner_activation": "recurrent_activation"}
_QUEUE = {"max_q_size": None, "nb_worker": None, "pickle_safe": None}
ARGUMENTS: dict[str, dict[str, str | None]] = {
    # Layers.
    "Dense": {**_KERNEL, "output_dim": "units"},
    "Dropout": {"p": "rate"},
    "LeakyReLU": {"alpha": "negative_slope"},
    "Embedding": {"init": "embeddings_initializer", "W_regularizer": "embeddings_regularizer"},
    "BatchNormalization": {"gamma_init": "gamma_initializer", "beta_init": "beta_initializer"},
    "Conv1D": {**_CONV},
    "Conv2D": {**_CONV},
    "MaxPooling1D": {**_POOL},
    "MaxPooling2D": {**_POOL},
    "AveragePooling1D": {**_POOL},
    "AveragePooling2D": {**_POOL},
    "SimpleRNN": {**_RECURRENT},
    "LSTM": {**_GATED},
    "GRU": {**_GATED},
    "InputLayer": {"input_shape": "shape", "batch_input_shape": "batch_shape"},
    # Models and their methods.
    "Model": {"input": "inputs", "output": "outputs"},
    "fit": {"nb_epoch": "epochs", "show_accuracy": None, **_QUEUE},
    "evaluate": {"show_accuracy": None, **_QUEUE},
    "predict": {**_QUEUE},
    "load_data": {"nb_words": "num_words"},
    # Optimizers and callbacks.
    "Optimizer": {"lr": "learning_rate"},
    "ReduceLROnPlateau": {"epsilon": "min_delta"},
    "TensorBoard": {"batch_size": None, "embeddings_data": None, "embeddings_layer_names": None},
}
"""By class or method, from arguments of Keras 1 and 2 to those of today; None for one that no longer does anything."""

ARGUMENTS_REFUSED: dict[str, dict[str, Refused]] = {
    "Embedding": {
        "dropout": Refused(KERAS_1, "Keras 2 took it out", "Put `layers.SpatialDropout1D(rate)` behind the layer."),
    },
    "BatchNormalization": {
        "mode": Refused(
            KERAS_1,
            "only mode 0 is left, which normalizes each feature, by the moving statistics in inference",
            "Leave it out.",
        ),
    },
}
"""By class, arguments of older versions of Keras that can't be honoured, unless they are 0."""

OF_KERAS_2 = frozenset(
    {
        *(("LeakyReLU", "alpha"), ("InputLayer", "input_shape"), ("InputLayer", "batch_input_shape")),
        *(("TensorBoard", "embeddings_layer_names"), ("TensorBoard", "batch_size")),
        *((owner, "implementation") for owner in ("SimpleRNN", "LSTM", "GRU")),
    }
)
"""Those that Keras 1 didn't have."""

OF_TF_KERAS = frozenset(
    {("TensorBoard", "embeddings_data"), *((owner, "time_major") for owner in ("SimpleRNN", "LSTM", "GRU"))}
)
"""Those that only Keras in TensorFlow had."""

_OF_THE_DATA = ("max_queue_size", "workers", "use_multiprocessing")

IGNORED: dict[str, tuple[str, ...]] = {
    # Arguments of the data set today.
    "evaluate": _OF_THE_DATA,
    "fit": _OF_THE_DATA,
    "predict": _OF_THE_DATA,
    # In the configurations that Keras 2 wrote.
    "Optimizer": ("jit_compile", "is_legacy_optimizer"),
    # The name of the file says it today.
    "save": ("save_format",),
}
"""By class or method, arguments of Keras 2 that are taken and left without a warning."""

_DIM_ORDERING = {"tf": "channels_last", "th": "channels_first"}


def take_ignored(owner: str, given: dict[str, Any]) -> None:
    """Take the arguments that no longer do anything out of what a class or a method got.

    Args:
        owner: The class or method, as in `IGNORED`.
        given: Its further arguments, changed in place.
    """
    for name in IGNORED[owner]:
        given.pop(name, None)


def renamed(owner: str, given: dict[str, Any], warns: bool = True) -> dict[str, Any]:
    """Take the arguments with old names out of what a class got, and return them under today's names.

    Args:
        owner: The class, as in `ARGUMENTS`.
        given: Its further arguments, changed in place.
        warns: Whether to warn once for each.

    Example:
        >>> given = {"input_shape": (3,), "name": "entry"}
        >>> renamed("InputLayer", given, warns=False), given
        ({'shape': (3,)}, {'name': 'entry'})
    """
    found: dict[str, Any] = {}
    for old, new in ARGUMENTS[owner].items():
        if old in given and new is not None:
            if warns:
                warn_once(f"{owner}({old}=...)", f"{owner}({new}=...)")
            found[new] = given.pop(old)
    return found


class UnknownArgumentError(TypeError, ValueError):
    """A method has no such argument: a TypeError, as everywhere, and the ValueError that Keras's `evaluate` raises."""


def take_old_arguments(method: str, known: Collection[str], given: dict[str, Any]) -> dict[str, Any]:
    """Translate the old arguments among a method's further ones, and refuse those that no version had.

    Args:
        method: The method's name.
        known: The arguments that it has.
        given: What came besides them.

    Returns:
        The values under today's names.

    Raises:
        UnknownArgumentError: For an unknown argument, with the nearest known one.

    Example:
        >>> take_old_arguments("fit", ["epochs"], {"workers": 2})
        {}
    """
    table, ignored = ARGUMENTS.get(method, {}), IGNORED.get(method, ())
    taken: dict[str, Any] = {}
    for name, value in given.items():
        if name in ignored:
            continue
        if name not in table:
            guess = nearest(name, known)
            hint = f" Did you mean `{guess}`?" if guess is not None else f" It takes: {', '.join(known)}."
            raise UnknownArgumentError(f"`{method}` has no argument `{name}`.{hint}")
        new = table[name]
        warn_once(name, new)
        if new:
            taken[new] = value
    return taken


def translate_optimizer_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's further arguments under today's names.

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
    new = {name: value for name, value in kwargs.items() if name not in IGNORED["Optimizer"]}
    for old, name in ARGUMENTS["Optimizer"].items():
        if old in new and name is not None:
            new[name] = new.pop(old)
            warn_once(f"{old}=", f"{name}=")
    if not new.get("decay", 1):
        del new["decay"]
    elif "decay" in new:
        warn_once(
            "decay=",
            "learning_rate=schedules.InverseTimeDecay(learning_rate, decay_steps=1, decay_rate=decay)",
        )
    return new


# Layers --------------------------------------------------------------------------------------------------------------


def accepts_old_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Let a layer's `__init__` also take the arguments of older versions of Keras; each one warns once.

    Args:
        init: The `__init__` of one of the layers in `ARGUMENTS`.

    Returns:
        The `__init__` that translates first.
    """
    owner = init.__qualname__.split(".")[0]

    @functools.wraps(init)
    def translated(*args: P.args, **kwargs: P.kwargs) -> None:
        init(*args, **(_modern(owner, kwargs) if kwargs else kwargs))

    return translated


_OF_KERAS_1: dict[str, tuple[str, ...]] = {
    "Convolution1D": (
        *("nb_filter", "filter_length", "init", "activation", "weights", "border_mode", "subsample_length"),
        *("W_regularizer", "b_regularizer", "activity_regularizer", "W_constraint", "b_constraint", "bias"),
    ),
    "Convolution2D": (
        *("nb_filter", "nb_row", "nb_col", "init", "activation", "weights", "border_mode", "subsample", "dim_ordering"),
        *("W_regularizer", "b_regularizer", "activity_regularizer", "W_constraint", "b_constraint", "bias"),
    ),
}
"""The order of the arguments in Keras 1, of classes that still go by the name which they had there."""


def in_order_of_keras_1(
    owner: str, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a class under its name in Keras 1, where their order is that of Keras 1, by their names.

    Keras 1 had the two sizes of a window as two arguments: `Convolution2D(32, 3, 3)`. Under today's name the third one is
    `strides`.

    Args:
        owner: The name in Keras 1.
        given: The arguments without names.
        named: Those with names.

    Returns:
        Both, for the class as it is today.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     in_order_of_keras_1("Convolution2D", (32, 3, 3), {})
        ((32,), {'kernel_size': (3, 3)})
        >>> in_order_of_keras_1("Convolution2D", (32, (3, 3), (2, 2)), {})
        ((32, (3, 3), (2, 2)), {})
    """
    if not _is_of_keras_1(owner, given, named):
        return given, named
    named = {**dict(zip(_OF_KERAS_1[owner], given, strict=False)), **named}
    if named.pop("weights", None) is not None:
        raise ValueError(
            f"`weights` of {owner} is no argument today. Call `layer.set_weights(weights)` once it is built."
        )
    filters = (named.pop("nb_filter"),) if "nb_filter" in named else ()
    if {"nb_row", "nb_col"} <= set(named):
        named["kernel_size"] = named.pop("nb_row"), named.pop("nb_col")
        warn_once("Convolution2D(filters, rows, columns)", "Conv2D(filters, (rows, columns))")
    return filters, named


def _is_of_keras_1(owner: str, given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    if owner == "Convolution1D":
        # The third was the initializer, and is `strides` today.
        return len(given) > 2 and (isinstance(given[2], str) or callable(given[2]))
    if "nb_row" in named or "nb_col" in named:
        return True
    return len(given) > 2 and all(hasattr(size, "__index__") for size in given[1:3])


def _modern(owner: str, given: dict[str, Any]) -> dict[str, Any]:
    table, refused = ARGUMENTS[owner], ARGUMENTS_REFUSED.get(owner, {})
    if "nb_row" in given and "nb_col" in given and "nb_filter" in table:
        given = {**given, "kernel_size": (given["nb_row"], given["nb_col"])}
        del given["nb_row"], given["nb_col"]
    modern: dict[str, Any] = {}
    for name, value in given.items():
        if name in refused:
            if value:
                raise ValueError(refused[name].text(f"{owner}({name}={value!r})"))
            continue
        if name not in table:
            modern[name] = value
            continue
        new = table[name]
        if new is None:
            continue
        warn_once(name, new)
        modern[new] = _DIM_ORDERING.get(value, value) if name == "dim_ordering" else value
    return modern


def first_layer_shape(given: dict[str, Any]) -> tuple[int | None, ...] | None:
    """Return the shape of a model's input, including the batch axis, from the arguments of its first layer, or None.

    Keras 1 and 2 had no `Input` in a Sequential: the first layer took `input_shape`, `input_dim`, `input_length` or
    `batch_input_shape`, which is still common.

    Args:
        given: A layer's further arguments; those about the input are taken out.

    Example:
        >>> first_layer_shape({"input_dim": 3}), first_layer_shape({"batch_input_shape": (8, 3)})
        ((None, 3), (8, 3))
    """
    batch_shape, size = given.pop("batch_input_shape", given.pop("batch_shape", None)), given.pop("batch_size", None)
    shape, dim = given.pop("input_shape", None), given.pop("input_dim", None)
    length = given.pop("input_length", None)
    if batch_shape is not None:
        return tuple(batch_shape)
    if shape is not None:
        return (size, *sizes_of(shape))
    if dim is not None:
        return (size, dim) if length is None else (size, length, dim)
    return None


def sequence_length(given: dict[str, Any]) -> None:
    """Turn the `input_length` of an Embedding, whose `input_dim` means something else, into its `input_shape`.

    Args:
        given: The layer's further arguments, changed in place.
    """
    length = given.pop("input_length", None)
    if length is not None:
        given.setdefault("input_shape", sizes_of(length))
