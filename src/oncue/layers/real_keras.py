"""Layers of the real Keras, which are modules of torch where torch is its backend, and can't be parts of oncue's."""

from __future__ import annotations

import sys

import torch


def refuse_real_keras(part: torch.nn.Module) -> None:
    """Refuse a layer of the real Keras.

    As a module it works, but for what Keras's own `fit` does with it: it isn't told that it is being trained, so that dropout
    and batch normalization would be off, and its regularizers and constraints would count for nothing.

    Args:
        part: A module that is to become a part of a model.

    Raises:
        TypeError: When it is such a layer, or has one inside.

    Example:
        >>> refuse_real_keras(torch.nn.Linear(2, 1))
    """
    keras = sys.modules.get("keras")
    kind = getattr(keras, "Layer", None)
    if not isinstance(kind, type):
        return
    found = next((module for module in part.modules() if isinstance(module, kind)), None)
    if found is not None:
        raise TypeError(
            f"{found.name!r}, a {type(found).__name__} of the real Keras, can't be trained in a model of oncue: dropout and "
            "batch normalization would not be told that it is trained, and regularizers and constraints would "
            "not count. Train it by its own `fit`, which takes oncue's callbacks, as in `model.fit(x, y, callbacks=["
            'oncue.callbacks.EarlyStopping()])`; or save it, and load it as a model of oncue: `model.save("model.keras")`, '
            'then `oncue.models.load_model("model.keras")`.'
        )
