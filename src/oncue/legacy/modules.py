"""Where older versions of Keras had what is elsewhere today."""

from __future__ import annotations

import importlib
from typing import Any

from oncue.legacy.warning import warn_once

MODULES: dict[str, str] = {
    **dict.fromkeys(("oncue.engine", "oncue.engine.topology", "oncue.engine.base_layer"), "oncue.layers"),
    **dict.fromkeys(
        (
            "oncue.layers.advanced_activations",
            "oncue.layers.convolutional",
            "oncue.layers.core",
            "oncue.layers.embeddings",
            "oncue.layers.noise",
            "oncue.layers.recurrent",
            "oncue.layers.wrappers",
        ),
        "oncue.layers",
    ),
    **dict.fromkeys(("oncue.utils.data_utils", "oncue.utils.generic_utils", "oncue.utils.np_utils"), "oncue.utils"),
    "oncue.engine.training": "oncue.models",
    "oncue.initializations": "oncue.initializers",
    "oncue.objectives": "oncue.losses",
}
"""From modules of Keras 1 and 2 to those that have their content today."""

SILENT_MODULES: dict[str, str] = {
    "oncue.mixed_precision.experimental": "oncue.mixed_precision",
}
"""The same for modules whose names already say that they are old, so that there is no warning."""

PARTS: dict[str, tuple[str, ...]] = {
    "oncue.optimizers.legacy": (
        "SGD",
        "Adadelta",
        "Adagrad",
        "Adam",
        "Adamax",
        "Ftrl",
        "Nadam",
        "Optimizer",
        "RMSprop",
    ),
}
"""From modules that had only a part of what the package around them has today to the names in it; no warning either."""

ATTRIBUTES: dict[str, str] = {
    "oncue.layers.normalization.BatchNormalization": "oncue.layers.BatchNormalization",
}
"""From what a module had that still has its name to where it is today."""


def old_attribute(module: str, name: str) -> Any:
    """Return what an older Keras had as `name` in a module, and warn once; for the module's own `__getattr__`.

    Args:
        module: The full name of a module of today.
        name: A name that it doesn't have.

    Raises:
        AttributeError: When no version had it there.

    Example:
        >>> old_attribute("oncue.optimizers", "legacy").__name__
        'oncue.optimizers.legacy'
    """
    old = f"{module}.{name}"
    if old in PARTS:
        return importlib.import_module(old)
    if old in SILENT_MODULES:
        return importlib.import_module(SILENT_MODULES[old])
    if old in MODULES:
        warn_once(old, MODULES[old])
        return importlib.import_module(MODULES[old])
    if old in ATTRIBUTES:
        warn_once(old, ATTRIBUTES[old])
        home, _, found = ATTRIBUTES[old].rpartition(".")
        return getattr(importlib.import_module(home), found)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
