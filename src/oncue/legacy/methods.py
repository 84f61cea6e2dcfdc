"""Methods and properties under the names that older versions of Keras gave them."""

from __future__ import annotations

from typing import Any

from oncue.legacy.warning import warn_once


def fit_generator(
    model: Any, generator: Any, steps_per_epoch: int | None = None, epochs: int = 1, **kwargs: Any
) -> Any:
    """Train on what a generator gives; the name of Keras 1 and 2 for `fit`."""
    warn_once("fit_generator", "fit")
    return model.fit(generator, steps_per_epoch=steps_per_epoch, epochs=epochs, **kwargs)


def evaluate_generator(model: Any, generator: Any, steps: int | None = None, **kwargs: Any) -> Any:
    """Measure on what a generator gives; the name of Keras 1 and 2 for `evaluate`."""
    warn_once("evaluate_generator", "evaluate")
    return model.evaluate(generator, steps=steps, **kwargs)


def predict_generator(model: Any, generator: Any, steps: int | None = None, **kwargs: Any) -> Any:
    """Compute outputs for what a generator gives; the name of Keras 1 and 2 for `predict`."""
    warn_once("predict_generator", "predict")
    return model.predict(generator, steps=steps, **kwargs)


def old_property(owner: str, old: str, new: str) -> Any:
    """Return a property that reads and sets another one, and warns once.

    Args:
        owner: What the warning calls the object.
        old: The property's name.
        new: The name of the property that it stands for.

    Example:
        >>> import warnings
        >>> class Optimizer:
        ...     learning_rate = 0.5
        ...     lr = old_property("optimizer", "lr", "learning_rate")
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     Optimizer().lr
        0.5
    """

    def read(self: Any) -> Any:
        warn_once(f"{owner}.{old}", f"{owner}.{new}")
        return getattr(self, new)

    def assign(self: Any, value: Any) -> None:
        warn_once(f"{owner}.{old}", f"{owner}.{new}")
        setattr(self, new, value)

    return property(read, assign, doc=f"The name of Keras 1 and 2 for `{new}`.")
