"""The last part of the training data, set aside for validation."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.numbers import number_of
from oncue.feeding.arrays import common_length
from oncue.feeding.batch import Batch
from oncue.feeding.tensors import is_arrays, is_batch_list, to_tensors
from oncue.nested import map_leaves


def split_validation(
    x: Any, y: Any = None, sample_weight: Any = None, validation_split: float = 0.0
) -> tuple[Batch, Batch]:
    """Split arrays into training and validation data: the last samples, before any shuffling, as views.

    The training part has `floor(samples * (1 - validation_split))` samples, as in Keras.

    Args:
        x: Inputs: arrays, or nested lists, tuples and dicts of them.
        y: Targets, or None.
        sample_weight: Weights, or None.
        validation_split: The fraction of samples for validation, between 0 and 1.

    Returns:
        `((x, y, sample_weight), (x, y, sample_weight))` for training and for validation, as tensors.

    Raises:
        ValueError: If the fraction is not between 0 and 1 or leaves one part empty, or the data is not arrays.

    Example:
        >>> (x, _, _), (x_val, _, _) = split_validation([1, 2, 3, 4, 5], validation_split=0.4)
        >>> x.tolist(), x_val.tolist()
        ([1, 2, 3], [4, 5])
    """
    fraction = number_of(validation_split)
    if fraction is None or not 0 < fraction < 1:
        raise ValueError(f"`validation_split` must be a number between 0 and 1; got {validation_split!r}.")
    if y is None and is_batch_list(x):
        raise ValueError(
            "`validation_split` needs arrays; got `x` as a list of batches. Pass some of them as `validation_data=`."
        )
    for name, part in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        if not is_arrays(part):
            raise ValueError(
                f"`validation_split` needs arrays; got `{name}` of type {type(part).__name__}. Split the data "
                "yourself and pass `validation_data=`."
            )
    data = (to_tensors(x, "x"), to_tensors(y, "y"), to_tensors(sample_weight, "sample_weight"))
    samples = common_length(data)
    at = math.floor(samples * (1.0 - fraction))
    if at in (0, samples):
        raise ValueError(
            f"`validation_split={validation_split}` of {samples} samples leaves {at} for training and {samples - at} "
            "for validation; pass more data or another fraction."
        )
    train = tuple(map_leaves(lambda leaf: leaf[:at], part) for part in data)
    held_out = tuple(map_leaves(lambda leaf: leaf[at:], part) for part in data)
    return (train[0], train[1], train[2]), (held_out[0], held_out[1], held_out[2])
