"""Keras's `utils`. Each name is imported on first use, so that importing this module costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oncue.keras_names import beside, elsewhere

if TYPE_CHECKING:
    from oncue.backend import clear_session as clear_session
    from oncue.core.console import (
        disable_interactive_logging as disable_interactive_logging,
        enable_interactive_logging as enable_interactive_logging,
        is_interactive_logging_enabled as is_interactive_logging_enabled,
    )
    from oncue.core.progbar import Progbar as Progbar
    from oncue.saving.custom_objects import (
        CustomObjectScope as CustomObjectScope,
        custom_object_scope as custom_object_scope,
        get_custom_objects as get_custom_objects,
        get_registered_name as get_registered_name,
        get_registered_object as get_registered_object,
        register_keras_serializable as register_keras_serializable,
    )
    from oncue.saving.keras_objects import (
        deserialize_keras_object as deserialize_keras_object,
        serialize_keras_object as serialize_keras_object,
    )
    from oncue.utils.files import get_file as get_file
    from oncue.utils.model_picture import model_to_dot as model_to_dot, plot_model as plot_model
    from oncue.utils.numerical import normalize as normalize, to_categorical as to_categorical
    from oncue.utils.py_dataset import PyDataset as PyDataset, Sequence as Sequence
    from oncue.utils.random import set_random_seed as set_random_seed

_HOME: dict[str, str] = {
    "CustomObjectScope": "oncue.saving.custom_objects",
    "Progbar": "oncue.core.progbar",
    "PyDataset": "oncue.utils.py_dataset",
    "Sequence": "oncue.utils.py_dataset",
    "clear_session": "oncue.backend",
    "custom_object_scope": "oncue.saving.custom_objects",
    "disable_interactive_logging": "oncue.core.console",
    "enable_interactive_logging": "oncue.core.console",
    "deserialize_keras_object": "oncue.saving.keras_objects",
    "get_custom_objects": "oncue.saving.custom_objects",
    "get_file": "oncue.utils.files",
    "get_registered_name": "oncue.saving.custom_objects",
    "get_registered_object": "oncue.saving.custom_objects",
    "image_dataset_from_directory": "oncue.preprocessing.folders",
    "is_interactive_logging_enabled": "oncue.core.console",
    "model_to_dot": "oncue.utils.model_picture",
    "normalize": "oncue.utils.numerical",
    "plot_model": "oncue.utils.model_picture",
    "register_keras_serializable": "oncue.saving.custom_objects",
    "serialize_keras_object": "oncue.saving.keras_objects",
    "set_random_seed": "oncue.utils.random",
    "text_dataset_from_directory": "oncue.preprocessing.folders",
    "timeseries_dataset_from_array": "oncue.preprocessing.windows",
    "to_categorical": "oncue.utils.numerical",
}
__all__ = sorted([*_HOME, *beside("oncue.utils", _HOME)])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        return elsewhere("oncue.utils", name)
    found = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
