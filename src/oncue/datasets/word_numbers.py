"""What the data sets of texts have in common: each text is a list of the numbers of its words, by how frequent they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from oncue.datasets.arrays_file import broken
from oncue.datasets.origin import Array, url_of
from oncue.utils.files import get_file

Texts = list[list[int]]


def shuffled(texts: Array, labels: Array, random: np.random.RandomState) -> tuple[Array, Array]:
    """Return texts and labels in a random order.

    Args:
        texts: An array of lists.
        labels: An array.
        random: Keras's generator, so that the order is the same.
    """
    order = np.arange(len(texts))
    random.shuffle(order)
    return texts[order], labels[order]


def begun(texts: Iterable[Any], start_char: int | None, index_from: int | None) -> Texts:
    """Return texts whose words are counted from a number, after the number that begins a text.

    Example:
        >>> begun([[1, 5]], 1, 3), begun([[1, 5]], None, 3), begun([[1, 5]], None, 0)
        ([[1, 4, 8]], [[4, 8]], [[1, 5]])
    """
    more = index_from or 0
    first = [] if start_char is None else [start_char]
    return [[*first, *(int(word) + more for word in text)] for text in texts]


def shorter(texts: Texts, labels: Array, maxlen: int | None) -> tuple[Texts, Array]:
    """Return the texts that have fewer words than `maxlen`, and their labels; all for None.

    Raises:
        ValueError: When none is left.

    Example:
        >>> shorter([[1, 2, 3], [4]], np.array([0, 1]), 3)
        ([[4]], array([1]))
    """
    if not maxlen:
        return texts, labels
    kept = [at for at, text in enumerate(texts) if len(text) < maxlen]
    if not kept:
        raise ValueError(f"No text has fewer words than `maxlen={maxlen}`. Make it larger.")
    return [texts[at] for at in kept], labels[kept]


def limited(texts: Texts, num_words: int | None, skip_top: int, oov_char: int | None) -> Texts:
    """Return texts whose words outside of a range are replaced by a number, or left out for None.

    Example:
        >>> limited([[1, 5, 9]], 6, 2, 2), limited([[1, 5, 9]], 6, 2, None)
        ([[2, 5, 2]], [[5]])
    """
    most = num_words or max(max(text, default=0) for text in texts)
    if oov_char is None:
        return [[word for word in text if skip_top <= word < most] for text in texts]
    return [[word if skip_top <= word < most else oov_char for word in text] for text in texts]


def as_array(texts: Texts) -> Array:
    """Return an array of lists, also where all are of one length.

    Example:
        >>> as_array([[1, 2], [3, 4]]).shape
        (2,)
    """
    made = np.empty(len(texts), dtype=object)
    for at, text in enumerate(texts):
        made[at] = text
    return made


def word_index(path: str, archive: str, md5: str) -> dict[str, int]:
    """Return the number of each word, from a file that is downloaded once.

    Args:
        path: The file's name in the cache.
        archive: Its name where it is downloaded.
        md5: Its hash.

    Raises:
        DownloadError: If the file is missing and can't be downloaded.
        ValueError: If it is not valid.
    """
    found = get_file(path, url_of(archive), file_hash=md5)
    try:
        with open(found, encoding="utf-8") as file:
            words: dict[str, int] = json.load(file)
    except ValueError as error:
        raise broken(found, error) from error
    return words
