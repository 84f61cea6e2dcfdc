"""What the tables of old words are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

KERAS_1, KERAS_2, TF_KERAS, TENSORFLOW = "Keras 1", "Keras 2", "tf.keras", "TensorFlow"
"""The generations that an old word comes from: the first that had it."""


class Old(NamedTuple):
    """An old word that still works.

    Args:
        new: What to type instead; None for what is to be left out.
        since: The generation it comes from.
        home: Where it is found, when that isn't what to type instead.
    """

    new: str | None
    since: str
    home: str | None = None


class Refused(NamedTuple):
    """An old word that can't be honoured.

    Args:
        since: The generation it comes from.
        reason: Why not.
        way: What to do today.
    """

    since: str
    reason: str
    way: str

    def text(self, name: str) -> str:
        """Return the error's text.

        Example:
            >>> Refused("Keras 1", "it was taken out", "Use functional models.").text("Graph")
            '`Graph` is from Keras 1 and is not here: it was taken out. Use functional models.'
        """
        return f"`{name}` is from {self.since} and is not here: {self.reason}. {self.way}"


def since(generation: str, words: Mapping[str, str | None], home: str | None = None) -> dict[str, Old]:
    """Return a part of a table whose words come from one generation.

    Args:
        generation: The generation.
        words: From the old word to the new one.
        home: The module that has them under their old names, when they aren't found at the new ones.

    Example:
        >>> since("Keras 1", {"nb_epoch": "epochs"})
        {'nb_epoch': Old(new='epochs', since='Keras 1', home=None)}
    """
    return {
        old: Old(new, generation, None if home is None else f"{home}.{old.rpartition('.')[2]}")
        for old, new in words.items()
    }
