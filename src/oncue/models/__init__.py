"""Models: `Model`, `Sequential`, and what makes them again."""

from oncue.layers.input_layer import Input
from oncue.models.clone import clone_model
from oncue.models.model import Model
from oncue.models.saved import model_from_json
from oncue.models.sequential import Sequential
from oncue.saving.formats import load_model, save_model

__all__ = ["Input", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]
