"""The arguments of layers as Keras 1 and 2 spelled them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from oncue.legacy import warn_once

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
    "inner_activation": "recurrent_activation",
    "U_regularizer": "recurrent_regularizer",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "implementation": None,
    "consume_less": None,
    "time_major": None,
}
_WORDS: dict[str, dict[str, str | None]] = {
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
_DIM_ORDERING = {"tf": "channels_last", "th": "channels_first"}


def accepts_old_words(init: Callable[P, None]) -> Callable[P, None]:
    """Let a layer's `__init__` also take the words of older Kerases; each one warns once.

    Args:
        init: The `__init__` of one of the layers in the table above.

    Returns:
        The `__init__` that translates first.
    """
    words = _WORDS[init.__qualname__.split(".")[0]]

    @functools.wraps(init)
    def translated(*args: P.args, **kwargs: P.kwargs) -> None:
        init(*args, **(_modern(words, kwargs) if kwargs else kwargs))

    return translated


def _modern(words: dict[str, str | None], given: dict[str, Any]) -> dict[str, Any]:
    if "nb_row" in given and "nb_col" in given and "nb_filter" in words:
        given = {**given, "kernel_size": (given["nb_row"], given["nb_col"])}
        del given["nb_row"], given["nb_col"]
    modern: dict[str, Any] = {}
    for word, value in given.items():
        if word not in words:
            modern[word] = value
            continue
        new = words[word]
        if new is None:
            continue
        warn_once(word, new)
        modern[new] = _DIM_ORDERING.get(value, value) if word == "dim_ordering" else value
    return modern
