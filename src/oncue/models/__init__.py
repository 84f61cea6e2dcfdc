"""Models: `Model`, `Sequential`, and functions that clone, save and load them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncue.keras_names import elsewhere
from oncue.layers.input_layer import Input
from oncue.models.clone import clone_model
from oncue.models.model import Model, model_from_json
from oncue.models.sequential import Sequential

if TYPE_CHECKING:
    from oncue.saving.formats import load_model, save_model

__all__ = ["Input", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]


def __getattr__(name: str) -> Any:
    if name in ("load_model", "save_model"):
        from oncue.saving import formats

        return getattr(formats, name)
    return elsewhere("oncue.models", name)


def __dir__() -> list[str]:
    return __all__
