"""ForeignLayer: a layer of another library among oncue's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from oncue.core.builtin import builtin
from oncue.layers.layer import Layer
from oncue.variable import Variable


@dataclass(frozen=True)
class SavedPart:
    """A part of a layer with weights of its own in a file.

    Args:
        path: Its path in the layer's group; "" for the layer itself.
        name: Its name, for messages.
        variables: Its weights, in order.
        owner: What says by itself what is saved, by `save_own_variables` and `load_own_variables`; None where the weights
            are all.
        keeper: What keeps files beside its weights, by `save_assets` and `load_assets`; None where there are none.
    """

    path: str
    name: str
    variables: list[Variable]
    owner: Any = None
    keeper: Any = None


@builtin
class ForeignLayer(Layer):
    """A layer of another library, as one of oncue's; what it is in files and copies, it says itself."""

    @property
    def kind(self) -> str:
        """The name of the class that users know."""
        raise NotImplementedError

    @property
    def inside(self) -> Any:
        """The layer itself, as the other library has it."""
        raise NotImplementedError

    def written(self) -> dict[str, Any]:
        """Return the configuration that makes it again, in Keras's form."""
        raise NotImplementedError

    def again(self) -> Any:
        """Return a new layer of the same configuration."""
        raise NotImplementedError

    def saved_parts(self) -> Iterator[SavedPart]:
        """Yield what has weights of its own in a file."""
        raise NotImplementedError

    def parts_with_settings(self) -> Iterator[tuple[str, Any]]:
        """Yield the parts of the layer that aren't modules of torch and have settings that callbacks may change."""
        raise NotImplementedError
