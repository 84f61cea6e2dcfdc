"""accelerate: `keras.Model.fit`, `evaluate` and `predict` of every Keras model, run by oncue."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

from oncue.keras_names import check_backend
from oncue.with_keras.model import KerasModel

_METHODS = ("fit", "evaluate", "predict")


class Acceleration:
    """That the methods of `keras.Model` are run by oncue; `accelerate()` makes one.

    In a `with` statement it ends with the block, and otherwise when `stop` is called.
    """

    def __init__(self) -> None:
        import keras

        self._before = {name: vars(keras.Model).get(name) for name in _METHODS}
        for name in _METHODS:
            setattr(keras.Model, name, _run_by_oncue(name))
        self._running = True

    def stop(self) -> None:
        """Put the methods back that `keras.Model` had."""
        import keras

        if not self._running:
            return
        self._running = False
        for name, method in self._before.items():
            if method is None:
                # It had inherited the method.
                delattr(keras.Model, name)
            else:
                setattr(keras.Model, name, method)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def accelerate() -> Acceleration:
    """Let `fit`, `evaluate` and `predict` of all Keras models go through oncue from now on.

    Returns:
        An object that puts Keras's methods back: at the end of a `with` block, or by its `stop()`.

    Raises:
        ValueError: When Keras has another backend than torch.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "torch"
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> with accelerate():
        ...     model.predict([[1.0, 2.0]], verbose=0).shape
        (1, 1)
    """
    check_backend()
    return Acceleration()


def _run_by_oncue(name: str) -> Callable[..., Any]:
    import keras

    @functools.wraps(getattr(keras.Model, name))
    def method(model: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(KerasModel.of(model), name)(*args, **kwargs)

    return method
