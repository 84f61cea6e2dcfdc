"""Reuters: 11 228 items of news, of 46 topics."""

from __future__ import annotations

from typing import Any

import numpy as np

from oncue.core.numbers import number_of
from oncue.datasets import word_numbers
from oncue.datasets.arrays_file import read_npz
from oncue.datasets.origin import Split, url_of
from oncue.legacy import take_old_arguments
from oncue.utils.files import get_file

_SHA256 = "d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916"
_INDEX_MD5 = "4d44cc38712099c9e383dc6e5f11a921"
_TOPICS = (
    "cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade reserves ship cotton carcass crude "
    "nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold tin strategic-metal livestock retail ipi iron-steel "
    "rubber heat jobs lei bop zinc orange pet-chem dlr gas silver wpi hog lead"
)


def load_data(
    path: str = "reuters.npz",
    num_words: int | None = None,
    skip_top: int = 0,
    maxlen: int | None = None,
    test_split: float = 0.2,
    seed: int = 113,
    start_char: int | None = 1,
    oov_char: int | None = 2,
    index_from: int | None = 3,
    **kwargs: Any,
) -> Split:
    """Return the news as lists of numbers of words, downloaded once to Keras's cache folder.

    Args:
        path: The file's name in the folder `datasets` of the cache. Default: "reuters.npz".
        num_words: Words of this number or more, which are rarer, are replaced by `oov_char`; None for none.
        skip_top: Words below this number, which are more frequent, are replaced too.
        maxlen: Only texts with fewer words count; None for all.
        test_split: The share for testing, from 0 to 1. Default: 0.2.
        seed: The seed of the order. Default: 113.
        start_char: What begins each text, or None.
        oov_char: What stands for words that are left out; None to leave nothing in their place.
        index_from: What is added to the numbers of words.
        **kwargs: `nb_words`, the name of `num_words` in Keras 1.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: arrays of lists, and labels from 0 to 45.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: For another `test_split`, if no text is as short as `maxlen`, or the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data(num_words=10000)  # doctest: +SKIP
    """
    share = number_of(test_split)
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"`test_split` must be a number from 0 to 1; got {test_split!r}.")
    num_words = take_old_arguments("load_data", ("num_words", "skip_top", "maxlen"), kwargs).get("num_words", num_words)
    texts, labels = read_npz(get_file(path, url_of("reuters.npz"), file_hash=_SHA256), "x", "y")
    texts, labels = word_numbers.shuffled(texts, labels, np.random.RandomState(seed))
    kept, labels = word_numbers.shorter(word_numbers.begun(texts, start_char, index_from), labels, maxlen)
    kept = word_numbers.limited(kept, num_words, skip_top, oov_char)
    trained = int(len(kept) * (1 - share))
    x_train, x_test = (word_numbers.as_array(part) for part in (kept[:trained], kept[trained:]))
    return (x_train, labels[:trained]), (x_test, labels[trained:])


def get_word_index(path: str = "reuters_word_index.json") -> dict[str, int]:
    """Return the number of each word; those in the texts are larger by `index_from`.

    Args:
        path: The file's name in the folder `datasets` of the cache.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.

    Example:
        >>> numbers = get_word_index()  # doctest: +SKIP
    """
    return word_numbers.word_index(path, "reuters_word_index.json", _INDEX_MD5)


def get_label_names() -> tuple[str, ...]:
    """Return the topics, in the order of the labels.

    Example:
        >>> get_label_names()[3]
        'earn'
    """
    return tuple(_TOPICS.split())
