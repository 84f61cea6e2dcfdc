"""Keras's applications: their models come ready to be trained by oncue."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from oncue.layers.real_keras import is_keras_model


def application(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `keras.applications` that gives oncue's model of the model that Keras's gives.

    Args:
        function: Keras's. What isn't a model is returned as it is.
    """

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> Any:
        from oncue.with_keras.model import KerasModel

        result = function(*args, **kwargs)
        return KerasModel.of(result) if is_keras_model(result) else result

    return made
