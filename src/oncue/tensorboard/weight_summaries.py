"""The weights of a model as TensorBoard shows them: histograms, images, and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from oncue.named_weights import as_array, weights_of
from oncue.shards import whole
from oncue.tensorboard.buckets import bucket_rows
from oncue.tensorboard.images import pictures
from oncue.tensorboard.summaries import histogram


def weight_summaries(model: Any, *, images: bool, gradients: bool) -> Iterator[list[Any]]:
    """Yield the summaries of each weight: its histogram, its images, and the histogram of its gradient.

    Where processes have parts of the weights all must call it, to the end.

    Args:
        model: As for `weights_of`.
        images: Whether to make images.
        gradients: Whether to look at the gradients of the last batch, where there are any.

    Yields:
        Values for an event file.
    """
    weights = weights_of(model, "TensorBoard's `histogram_freq`")
    shown = [(f"{weight.name}/histogram", weight.value) for weight in weights]
    if gradients:
        shown += [
            (f"{weight.name}_grad/histogram", weight.gradient) for weight in weights if weight.gradient is not None
        ]
    for (tag, _), rows in zip(shown, bucket_rows([value for _, value in shown]), strict=True):
        yield [histogram(tag, rows)]
    if images:
        for weight in weights:
            # One by one, so that no more of them are whole than one.
            found = pictures(f"{weight.name}/image", as_array(whole(weight.value, "images of weights")))
            if found is not None:
                yield [found]
