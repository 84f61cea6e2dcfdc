"""Models: `Model`, `Sequential`, and what makes them again."""

from oncue.layers.input_layer import Input
from oncue.models.clone import clone_model
from oncue.models.model import Model
from oncue.models.sequential import Sequential

__all__ = ["Input", "Model", "Sequential", "clone_model"]
