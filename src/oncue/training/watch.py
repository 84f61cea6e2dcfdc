"""Watch: whether what the steps of a run were made from has changed, as the user's hooks may do at any time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any

from oncue import torch_private
from oncue.layers.layer import Layer

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer

_trained = attrgetter("requires_grad")
_regularizer = attrgetter("activity_regularizer")
_constraint = attrgetter("constraint")
_frozen = attrgetter("_trainable")
_assigned = methodcaller("get", "trainable")


class Watch:
    """Remembers what a model was when its steps were made, and tells whether it still is that.

    That is what was given to `compile`, the settings and methods that were assigned since, the modules and the weights,
    which of them are trained, and their penalties and constraints. `changed` may be asked at every batch: all of it is
    compared in a few passes without Python code of their own.

    Args:
        model: A built model.

    Example:
        >>> import oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> watch = Watch(model)
        >>> watch.changed()
        False
        >>> model.layers[0].trainable = False
        >>> watch.changed(), watch.what()
        (True, ['trainable'])
    """

    def __init__(self, model: Trainer) -> None:
        self._model = model
        self.look()

    def look(self) -> None:
        """Remember what the model is now."""
        model = self._model
        modules = list(model.modules())
        self._layers = [module for module in modules if isinstance(module, Layer)]
        self._variables = [variable for layer in self._layers for variable in layer._variables.values()]
        self._tables: list[dict[str, Any]] = [table for part in modules for table in torch_private.tables(part)]
        # Held, so that no other object can get the identity of one of them.
        self._held = list(_values(self._tables))
        self._identities = list(map(id, self._held))
        self._parameters = list(model.parameters())
        self._trained = list(map(_trained, self._parameters))
        self._frozen = list(map(_frozen, self._layers))
        # Those that a user gets at as layers of the model.
        held = chain.from_iterable(part.children() for part in (*self._layers, *model.children()))
        self._parts = [vars(part) for part in held if not isinstance(part, Layer)]
        self._assigned = list(map(_assigned, self._parts))
        self._regularizers = list(map(_regularizer, self._layers))
        self._penalties = [layer._regularizers for layer in self._layers]
        self._of_weights = list(_values(self._penalties))
        self._constraints = list(map(_constraint, self._variables))
        self._seen = len(model._changes)

    def changed(self) -> bool:
        """Return whether the model is something else now."""
        return (
            len(self._model._changes) != self._seen
            or list(map(_trained, self._parameters)) != self._trained
            or list(map(_frozen, self._layers)) != self._frozen
            or list(map(_assigned, self._parts)) != self._assigned
            or list(map(_regularizer, self._layers)) != self._regularizers
            or list(_values(self._penalties)) != self._of_weights
            or list(map(_constraint, self._variables)) != self._constraints
            or list(map(id, _values(self._tables))) != self._identities
        )

    def what(self) -> list[str]:
        """Return the names of what has changed."""
        names = list(dict.fromkeys(self._model._changes[self._seen :]))
        if (
            list(map(_trained, self._parameters)) != self._trained
            or list(map(_frozen, self._layers)) != self._frozen
            or list(map(_assigned, self._parts)) != self._assigned
        ):
            names.append("trainable")
        if list(map(_regularizer, self._layers)) != self._regularizers:
            names.append("activity_regularizer")
        if list(_values(self._penalties)) != self._of_weights:
            names.append("regularizer")
        if list(map(_constraint, self._variables)) != self._constraints:
            names.append("constraint")
        if list(map(id, _values(self._tables))) != self._identities:
            names.append("layers")
        return names


def _values(tables: Iterable[dict[str, Any]]) -> Iterable[Any]:
    return chain.from_iterable(map(dict.values, tables))
