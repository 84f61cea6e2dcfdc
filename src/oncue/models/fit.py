"""fit: train a model in one line."""

from __future__ import annotations

from typing import Any

import torch

from oncue.layers.real_keras import is_keras_model
from oncue.models.model import Model
from oncue.training.trainer import Trainer

_OF_COMPILE = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "jit_compile")


def fit(model: Any, x: Any = None, y: Any = None, **options: Any) -> Any:
    """Train a model of oncue, of the real Keras, or a torch module, in oncue's loop.

    Args:
        model: The model. One of Keras is trained as it was compiled there.
        x: Inputs, as for `Model.fit`.
        y: Targets.
        **options: Further arguments of `Model.fit`; and of `Model.compile`: `optimizer`, `loss`, `loss_weights`, `metrics`,
            `weighted_metrics` and `jit_compile`. A torch module needs `optimizer` and `loss`.

    Returns:
        The `History`.

    Raises:
        TypeError: When `model` is none of these, or an argument doesn't exist.
        ValueError: When it isn't compiled, and `optimizer` or `loss` is missing.

    Example:
        >>> module = torch.nn.Linear(2, 1)
        >>> history = fit(module, torch.ones(8, 2), torch.ones(8, 1), optimizer="sgd", loss="mse", epochs=2, verbose=0)
        >>> len(history.history["loss"])
        2
    """
    if not isinstance(model, torch.nn.Module) and not is_keras_model(model):
        raise TypeError(
            f"`model` must be a model of oncue or of Keras, or a torch.nn.Module; got {model!r:.200} of type "
            f"{type(model).__name__}."
        )
    trained = model if isinstance(model, Trainer) else Model(model)
    given = {name: options.pop(name) for name in _OF_COMPILE if name in options}
    if set(given) == {"jit_compile"} and trained.compiled:
        trained.jit_compile = given.pop("jit_compile")
    if given or not trained.compiled:
        missing = [f"`{name}`" for name in ("optimizer", "loss") if name not in given]
        if missing:
            raise ValueError(
                f"`fit` needs {' and '.join(missing)}, because the model isn't compiled: `oncue.fit(model, x, y, "
                'optimizer="adam", loss="mse")`. Or compile it first, by its `compile`.'
            )
        trained.compile(**given)
    return trained.fit(x, y, **options)
