"""Every public name of Keras: what oncue hasn't is Keras's own, loaded when it is asked for."""

from __future__ import annotations

from oncue.keras_names.loading import check_backend, is_installed, is_of_keras, keras_if_loaded, load_keras, tell_keras
from oncue.keras_names.modules import install
from oncue.keras_names.names import beside, elsewhere, found_in_keras, names_of_keras, own_names

__all__ = [
    "beside",
    "check_backend",
    "elsewhere",
    "found_in_keras",
    "install",
    "is_installed",
    "is_of_keras",
    "keras_if_loaded",
    "load_keras",
    "names_of_keras",
    "own_names",
    "tell_keras",
]
