"""IMDB: 50 000 reviews of films, of people who liked the film or didn't."""

from __future__ import annotations

from typing import Any

import numpy as np

from oncue.datasets import word_numbers
from oncue.datasets.arrays_file import read_npz
from oncue.datasets.origin import Split, url_of
from oncue.legacy import take_old_arguments
from oncue.utils.files import get_file

_SHA256 = "69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f"
_INDEX_MD5 = "bfafd718b763782e994055a2d397834f"


def load_data(
    path: str = "imdb.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
    **kwargs: Any,
) -> Split:
    """Return the reviews as lists of numbers of words, downloaded once to Keras's cache folder.

    0 is no word: texts are filled up with it.

    Args:
        path: The file's name in the folder `datasets` of the cache. Default: "imdb.npz".
        num_words: Words of this number or more, which are rarer, are replaced by `oov_char`; None for none.
        skip_top: Words below this number, which are more frequent, are replaced too.
        maxlen: Only texts with fewer words count; None for all.
        seed: The seed of the order. Default: 113.
        start_char: What begins each text, or None.
        oov_char: What stands for words that are left out; None to leave nothing in their place.
        index_from: What is added to the numbers of words.
        **kwargs: `nb_words`, the name of `num_words` in Keras 1.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: arrays of lists, and labels: 1 for those who liked the film, else 0.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: If no text is as short as `maxlen`, or the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data(num_words=10000)  # doctest: +SKIP
    """
    num_words = take_old_arguments("load_data", ("num_words", "skip_top", "maxlen"), kwargs).get("num_words", num_words)
    found = get_file(path, url_of("imdb.npz"), file_hash=_SHA256)
    x_train, y_train, x_test, y_test = read_npz(found, "x_train", "y_train", "x_test", "y_test")
    random = np.random.RandomState(seed)
    parts = []
    for texts, labels in ((x_train, y_train), (x_test, y_test)):
        texts, labels = word_numbers.shuffled(texts, labels, random)
        parts.append(word_numbers.shorter(word_numbers.begun(texts, start_char, index_from), labels, maxlen))
    (train, y_train), (test, y_test) = parts
    # The most frequent word of both parts counts.
    both = word_numbers.limited([*train, *test], num_words, skip_top, oov_char)
    x_train, x_test = (word_numbers.as_array(texts) for texts in (both[: len(train)], both[len(train) :]))
    return (x_train, y_train), (x_test, y_test)


def get_word_index(path: str = "imdb_word_index.json") -> dict[str, int]:
    """Return the number of each word; those in the texts are larger by `index_from`.

    Args:
        path: The file's name in the folder `datasets` of the cache.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.

    Example:
        >>> numbers = get_word_index()  # doctest: +SKIP
    """
    return word_numbers.word_index(path, "imdb_word_index.json", _INDEX_MD5)
