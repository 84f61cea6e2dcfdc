"""Short names and names of older versions of Keras, by the kind of thing that they name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from oncue.legacy.warning import warn_once

_SHORT = {
    "bce": "binary_crossentropy",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
_SHORT = {**_SHORT, **{name.upper(): new for name, new in _SHORT.items()}}

NAMES: dict[str, dict[str, str]] = {
    "loss": {
        **_SHORT,
        "kld": "kl_divergence",
        "KLD": "kl_divergence",
        "kullback_leibler_divergence": "kl_divergence",
        "cosine": "cosine_similarity",
        "cosine_proximity": "cosine_similarity",
        "logcosh": "log_cosh",
        "huber_loss": "huber",
    },
    "metric": {
        **_SHORT,
        "acc": "accuracy",
        "rmse": "root_mean_squared_error",
        "RMSE": "root_mean_squared_error",
        "kld": "kl_divergence",
        "KLD": "kl_divergence",
        "kullback_leibler_divergence": "kl_divergence",
        "cosine": "cosine_similarity",
        "cosine_proximity": "cosine_similarity",
        "logcosh": "log_cosh_error",
        "log_cosh": "log_cosh_error",
    },
    "initializer": {
        "normal": "RandomNormal",
        "uniform": "RandomUniform",
        "one": "Ones",
        "zero": "Zeros",
        "IdentityInitializer": "Identity",
        "OrthogonalInitializer": "Orthogonal",
    },
    "layer": {
        "AvgPool1D": "AveragePooling1D",
        "AvgPool2D": "AveragePooling2D",
        "GlobalAvgPool1D": "GlobalAveragePooling1D",
        "GlobalAvgPool2D": "GlobalAveragePooling2D",
        "GlobalMaxPool1D": "GlobalMaxPooling1D",
        "GlobalMaxPool2D": "GlobalMaxPooling2D",
        "MaxPool1D": "MaxPooling1D",
        "MaxPool2D": "MaxPooling2D",
    },
}
"""From another name of a thing to the name under which its kind knows it."""

LAYER_NAMES: dict[str, str] = {
    **{f"convolution{rank}d": f"conv{rank}d" for rank in (1, 2, 3)},
    **{f"{kind}pooling{rank}d": f"{kind}_pooling{rank}d" for kind in ("max", "average") for rank in (1, 2, 3)},
    **{
        f"global{kind}pooling{rank}d": f"global_{kind}_pooling{rank}d"
        for kind in ("max", "average")
        for rank in (1, 2, 3)
    },
    **{f"zeropadding{rank}d": f"zero_padding{rank}d" for rank in (1, 2, 3)},
    **{f"upsampling{rank}d": f"up_sampling{rank}d" for rank in (1, 2, 3)},
    "batchnormalization": "batch_normalization",
    "repeatvector": "repeat_vector",
    "simplernn": "simple_rnn",
    "timedistributed": "time_distributed",
}
"""From how automatic names of layers began in Keras 1, where they counted from 1, to how they begin today."""


def layer_of_keras_1(name: str, names: Sequence[str]) -> str | None:
    """Return today's name of the layer that Keras 1 named so, and warn once; None when it can't have.

    Args:
        name: What a layer is asked for by.
        names: The names of the layers that there are, in order.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     layer_of_keras_1("convolution2d_2", ["conv2d_4", "flatten", "conv2d_5"])
        'conv2d_5'
    """
    kind, _, number = str(name).rpartition("_")
    if kind not in LAYER_NAMES or not number.isdigit() or int(number) == 0:
        return None
    same = [one for one in names if re.fullmatch(rf"{LAYER_NAMES[kind]}(_\d+)?", one)]
    if int(number) > len(same):
        return None
    found = same[int(number) - 1]
    warn_once(f"get_layer({name!r})", f"get_layer({found!r})")
    return found
