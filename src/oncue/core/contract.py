"""The contract: all that a callback may ask of the model it watches. A real Keras model already satisfies it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasLearningRate(Protocol):
    """An optimizer, as callbacks see it."""

    @property
    def learning_rate(self) -> Any:
        """The learning rate; reads as a float."""
        ...

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None: ...


@runtime_checkable
class TrainedModel(Protocol):
    """The model that callbacks watch: seven members, and a test that counts them.

    A callback that needs more (gradients, activations, a whole training state) asks for a wider Protocol by type and
    documents which hosts lack it.
    """

    stop_training: bool
    optimizer: Any

    def get_weights(self) -> Any:
        """Return something that `set_weights` understands; callbacks don't look into it."""
        ...

    def set_weights(self, weights: Any) -> None:
        """Put weights back that `get_weights` returned."""
        ...

    def save_weights(self, filepath: Any) -> None:
        """Write the weights to a file."""
        ...

    def load_weights(self, filepath: Any) -> None:
        """Read the weights from a file."""
        ...

    def save(self, filepath: Any) -> None:
        """Write the whole model to a file."""
        ...
