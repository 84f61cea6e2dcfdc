"""Short names and names of older versions of Keras, by the kind of thing that they name."""

from __future__ import annotations

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
