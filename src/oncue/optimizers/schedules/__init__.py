"""Learning rate schedules: the learning rate as a function of the optimizer's step, in plain Python floats."""

from __future__ import annotations

from typing import Any

from oncue.core.suggest import unknown
from oncue.keras_names import elsewhere
from oncue.optimizers.schedules.cosine_decay import CosineDecay
from oncue.optimizers.schedules.cosine_decay_restarts import CosineDecayRestarts
from oncue.optimizers.schedules.exponential_decay import ExponentialDecay
from oncue.optimizers.schedules.inverse_time_decay import InverseTimeDecay
from oncue.optimizers.schedules.learning_rate_schedule import LearningRateSchedule
from oncue.optimizers.schedules.piecewise_constant_decay import PiecewiseConstantDecay
from oncue.optimizers.schedules.polynomial_decay import PolynomialDecay

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]

_OURS = (CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay, PolynomialDecay)
_KNOWN: dict[str, type[LearningRateSchedule]] = {schedule.__name__: schedule for schedule in _OURS}


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.optimizers.schedules", name)


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict[str, Any]:
    """Return a schedule as Keras writes it down.

    Args:
        learning_rate_schedule: The schedule.

    Returns:
        A dict that goes into JSON and that Keras reads too.

    Example:
        >>> serialize(PiecewiseConstantDecay([1], [0.1, 0.01]))["class_name"]
        'PiecewiseConstantDecay'
    """
    cls = type(learning_rate_schedule)
    known = _KNOWN.get(cls.__name__) is cls
    return {
        "module": "keras.optimizers.schedules" if known else cls.__module__,
        "class_name": cls.__name__,
        "config": learning_rate_schedule.get_config(),
        "registered_name": None if known else cls.__name__,
    }


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> LearningRateSchedule:
    """Make a schedule from what `serialize` returned.

    Args:
        config: A dict with "class_name" and "config".
        custom_objects: Classes of your own by name.

    Returns:
        A new schedule.

    Raises:
        ValueError: When the class is not known.

    Example:
        >>> deserialize(serialize(ExponentialDecay(0.5, 10, 0.5)))(10)
        0.25
    """
    classes = {**_KNOWN, **(custom_objects or {})}
    name = config.get("class_name")
    cls = classes.get(str(name))
    if cls is None:
        raise unknown("learning rate schedule", name, classes)
    schedule: LearningRateSchedule = cls.from_config(dict(config["config"]))
    return schedule
