"""Forms of some functions of Keras that are quicker than its own, and that a trace can follow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from oncue.layers.quick_dropout import dropout
from oncue.training.graph.draws import generator_for
from oncue.training.graph.lstm import kernel_takes
from oncue.with_keras import keras_private


class _Exchanged:
    """Whether Keras has the other forms now, and the functions that it had before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks = 0
        self.theirs: dict[str, Callable[..., Any]] = {}


_exchanged = _Exchanged()


@contextmanager
def other_forms() -> Iterator[None]:
    """Let Keras call other forms of some functions while the block runs: random generators with a seed, dropout, and LSTMs.

    They come to the same numbers, but for dropout without a seed, which draws others; also for other threads that call Keras
    meanwhile.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "torch"
        >>> import keras
        >>> layer, x = keras.layers.LSTM(2), torch.ones(1, 3, 2)
        >>> before = layer(x)
        >>> with other_forms():
        ...     torch.allclose(layer(x), before)
        True
    """
    with _exchanged.lock:
        if _exchanged.blocks == 0:
            _exchanged.theirs = keras_private.exchange({"generator": _generator, "lstm": _lstm, "dropout": _dropout})
        _exchanged.blocks += 1
    try:
        yield
    finally:
        with _exchanged.lock:
            _exchanged.blocks -= 1
            if _exchanged.blocks == 0:
                keras_private.exchange(_exchanged.theirs)


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """Let Keras leave errors as they are while the block runs, with all lines that led to them, in this thread."""
    import keras

    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


def _generator(seed: Any) -> torch.Generator | None:
    drawn = keras_private.draw_seed(seed)
    if drawn is None:
        return None
    first, second = drawn
    return generator_for(first + second, of_process=seed is None)


def _dropout(inputs: Tensor, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    """Do as Keras's dropout; without a seed, by less random numbers than torch's."""
    import keras

    own = isinstance(seed, keras.random.SeedGenerator) and seed.get_config()["seed"] is None
    if noise_shape is None and 0 < rate < 1 and (seed is None or own) and not inputs.is_meta:
        return dropout(inputs, rate)
    return _exchanged.theirs["dropout"](inputs, rate, noise_shape, seed)


def _lstm(
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor | None,
    activation: Any,
    recurrent_activation: Any,
    return_sequences: bool,
    batch_first: bool,
) -> Any:
    """Do as Keras's LSTM without a mask, by one operation instead of one for each step where torch's kernel can."""
    import keras

    ours = activation is keras.activations.tanh and recurrent_activation is keras.activations.sigmoid
    tensors = [inputs, h, c, kernel, recurrent_kernel, *([] if bias is None else [bias])]
    if not (ours and h.ndim == 2 and kernel_takes(tensors)):
        return _exchanged.theirs["lstm"](
            *(
                inputs,
                h,
                c,
                kernel,
                recurrent_kernel,
                bias,
                activation,
                recurrent_activation,
                return_sequences,
                batch_first,
            )
        )
    weights = [kernel.T, recurrent_kernel.T]
    if bias is not None:
        weights += [bias, torch.zeros_like(bias)]
    training = torch.is_grad_enabled()
    # Keras writes the states of a stateful layer in place, before gradients are asked for.
    states = (h.clone().unsqueeze(0), c.clone().unsqueeze(0))
    outputs, h_n, c_n = torch.lstm(inputs, states, weights, bias is not None, 1, 0.0, training, False, batch_first)
    last = h_n.squeeze(0)
    return last, outputs if return_sequences else last.unsqueeze(1 if batch_first else 0), [last, c_n.squeeze(0)]
