"""Quicker calls of some of Keras's layers: the same arithmetic by one operation of torch, in the layout that is stored.

On torch, Keras copies images to and fro between two layouts around each convolution and pooling, takes fifteen operations for a
batch normalization, and hundreds for an LSTM. All that is here is compared with Keras's own call in the tests.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oncue.layers.quick_dropout import dropout
from oncue.layers.rnn_cell import one_chunk
from oncue.training.graph.cudnn_rnn import cudnn_takes
from oncue.training.graph.replaced import being_traced
from oncue.with_keras import keras_private

Call = Callable[..., Any]


def quick_call(layer: Any) -> Call | None:
    """Return what computes the same as a layer's own call, quicker; None where there is no such thing.

    Args:
        layer: A built layer of one of Keras's own classes, in float32.
    """
    make = _makers().get(type(layer))
    return None if make is None else make(layer)


@functools.cache
def _makers() -> dict[type, Callable[[Any], Call | None]]:
    from keras import layers

    return {
        layers.Conv2D: _conv,
        layers.DepthwiseConv2D: _depthwise_conv,
        layers.SeparableConv2D: _separable_conv,
        layers.MaxPooling2D: _max_pooling,
        layers.AveragePooling2D: _average_pooling,
        layers.BatchNormalization: _batch_normalization,
        layers.LSTM: _lstm,
        layers.GRU: _gru,
        layers.Dropout: _dropout,
        layers.MultiHeadAttention: _attention,
    }


def _conv(layer: Any) -> Call | None:
    if layer.data_format != "channels_last":
        return None

    def call(inputs: Tensor) -> Any:
        return _finished(layer, _convolved(layer, inputs, layer.kernel.value, layer.bias, layer.groups))

    return call


def _depthwise_conv(layer: Any) -> Call | None:
    if layer.data_format != "channels_last":
        return None

    def call(inputs: Tensor) -> Any:
        kernel = layer.kernel.value
        return _finished(layer, _convolved(layer, inputs, _for_each_channel(kernel), layer.bias, kernel.shape[2]))

    return call


def _separable_conv(layer: Any) -> Call | None:
    if layer.data_format != "channels_last" or layer.dilation_rate not in (1, (1, 1)):
        return None

    def call(inputs: Tensor) -> Any:
        kernel = layer.depthwise_kernel.value
        apart = _convolved(layer, inputs, _for_each_channel(kernel), None, kernel.shape[2])
        bias = None if layer.bias is None else layer.bias.value
        whole = F.conv2d(_first(apart), layer.pointwise_kernel.value.permute(3, 2, 0, 1), bias)
        return _finished(layer, _last(whole))

    return call


_FEW_PIXELS = 1024
"""Up to how many pixels of a batch a 1 by 1 convolution is a matrix product: of more, torch's convolution is quicker."""


def _for_each_channel(kernel: Tensor) -> Tensor:
    return kernel.reshape(*kernel.shape[:2], 1, -1)


def _convolved(layer: Any, inputs: Tensor, kernel: Tensor, bias: Any, groups: int) -> Tensor:
    x, padding = _first(inputs), [0, 0]
    if layer.padding == "same":
        x, padding = _padded(x, kernel.shape[:2], layer.strides, layer.dilation_rate, "constant")
    value = None if bias is None else bias.value
    if (
        kernel.shape[:2] == (1, 1)
        and groups == 1
        and max(layer.strides) == 1
        and inputs.shape[:3].numel() <= _FEW_PIXELS
    ):
        return F.linear(inputs, kernel[0, 0].t(), value)
    weight = kernel.permute(3, 2, 0, 1)
    if kernel.shape[2] == 1 and groups == 1:
        # Of a single channel torch's kernels don't see in which order it is stored, and take another way.
        weight = weight.contiguous()
    return _last(F.conv2d(x, weight, value, layer.strides, padding, layer.dilation_rate, groups))


def _finished(layer: Any, outputs: Tensor) -> Any:
    return outputs if layer.activation is None else layer.activation(outputs)


def _pooling(layer: Any, pool: Callable[..., Tensor]) -> Call | None:
    if layer.data_format != "channels_last":
        return None

    def call(inputs: Tensor) -> Tensor:
        x, padding = _first(inputs), [0, 0]
        if layer.padding == "same":
            x, padding = _padded(x, layer.pool_size, layer.strides, (1, 1), "replicate")
        return _last(pool(x, layer.pool_size, layer.strides, padding))

    return call


def _max_pooling(layer: Any) -> Call | None:
    return _pooling(layer, F.max_pool2d)


def _average_pooling(layer: Any) -> Call | None:
    return _pooling(layer, partial(F.avg_pool2d, count_include_pad=False))


def _first(images: Tensor) -> Tensor:
    """Show images with their channels first; they stay where they are in memory."""
    return images.permute(0, 3, 1, 2)


def _last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def _padded(x: Tensor, size: Any, strides: Any, dilation: Any, mode: str) -> tuple[Tensor, list[int]]:
    """Return images and the padding for torch that make as many outputs as there are strides, as Keras pads."""
    both = []
    for length, span, stride, step in zip(x.shape[2:], size, strides, dilation, strict=True):
        total = max(0, step * (span - 1) - (length - 1) % stride)
        both.append((total // 2, total - total // 2))
    if all(before == after for before, after in both):
        return x, [before for before, _ in both]
    return F.pad(x, [*both[1], *both[0]], mode=mode), [0, 0]


def _batch_normalization(layer: Any) -> Call | None:
    if vars(layer).get("renorm"):
        # Keras before 3.14 has no such argument.
        return None

    def call(inputs: Tensor, training: bool = False, mask: Any = None) -> Any:
        if mask is not None:
            return _own(layer)(inputs, training=training, mask=mask)
        x = inputs.movedim(layer.axis, 1)
        gamma = None if layer.gamma is None else layer.gamma.value
        beta = None if layer.beta is None else layer.beta.value
        moving_mean, moving_variance = layer.moving_mean.value, layer.moving_variance.value
        if not (training and layer.trainable):
            outputs = F.batch_norm(x, moving_mean, moving_variance, gamma, beta, eps=layer.epsilon)
            return outputs.movedim(1, layer.axis)
        # Gives the batch's statistics along with the output, so that the data is read once.
        outputs, mean, deviation = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, layer.epsilon)
        with torch.no_grad():
            moving_mean.lerp_(mean, 1.0 - layer.momentum)
            moving_variance.lerp_(deviation.detach() ** -2 - layer.epsilon, 1.0 - layer.momentum)
        return outputs.movedim(1, layer.axis)

    return call


def _own(layer: Any) -> Call:
    """Return the call of a layer's class, whatever stands in its place at present."""
    return partial(type(layer).call, layer)


def _dropout(layer: Any) -> Call | None:
    if not 0 < layer.rate < 1 or layer.noise_shape is not None or layer.seed_generator.get_config()["seed"] is not None:
        return None

    def call(inputs: Tensor, training: bool = False) -> Tensor:
        return dropout(inputs, layer.rate) if training else inputs

    return call


def _attention(layer: Any) -> Call | None:
    parts = [layer.query_dense, layer.key_dense, layer.value_dense, layer.output_dense]
    if not keras_private.is_usual_attention(layer) or not all(
        keras_private.is_called_plainly(part) and part.activity_regularizer is None for part in parts
    ):
        return None

    def call(
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        attention_mask: Any = None,
        training: bool = False,
        use_causal_mask: bool = False,
        **others: Any,
    ) -> Any:
        memory = value if key is None else key
        tensors = [query, value, memory]
        others = {name: other for name, other in others.items() if other is not None and other is not False}
        left = others or attention_mask is not None or (training and layer.dropout)
        if left or any(one.ndim != 3 or keras_private.mask_of(one) is not None for one in tensors):
            given = {"attention_mask": attention_mask, "training": training, "use_causal_mask": use_causal_mask}
            return _own(layer)(query, value, key, **given, **others)
        if query is value is memory:
            projected = _projected(query, parts[:3])
        else:
            projected = [
                _projected(one, [part])[0] for one, part in zip([query, memory, value], parts[:3], strict=True)
            ]
        # From (samples, steps, numbers) to (samples, heads, steps, numbers of a head).
        q, k, v = [one.view(*one.shape[:2], layer.num_heads, -1).transpose(1, 2) for one in projected]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=use_causal_mask, scale=layer.key_dim**-0.5)
        out = layer.output_dense
        together = attended.transpose(1, 2).flatten(2)
        outputs = F.linear(together, out.kernel.value.flatten(0, 1).flatten(1).t(), _flat_bias(out))
        return outputs.view(*outputs.shape[:2], *out.kernel.shape[2:])

    return call


def _projected(inputs: Tensor, parts: list[Any]) -> list[Tensor]:
    """Return the projections of a tensor, of shape (samples, steps, numbers of all heads), by one product."""
    kernels = [part.kernel.value.flatten(1) for part in parts]
    biases = [bias for part in parts if (bias := _flat_bias(part)) is not None]
    outputs = F.linear(inputs, torch.cat(kernels, 1).t(), torch.cat(biases) if biases else None)
    return list(torch.split(outputs, [one.shape[1] for one in kernels], 2))


def _flat_bias(part: Any) -> Tensor | None:
    return None if part.bias is None else part.bias.value.flatten()


Run = Callable[[Tensor, list[Tensor] | None], tuple[Tensor, list[Tensor]]]
"""From a batch of sequences, and the states before it, to the outputs of all steps and the states after the last one."""


def _lstm(layer: Any) -> Call | None:
    cell = layer.cell

    def run(inputs: Tensor, before: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        if before is None:
            states = [inputs.new_zeros(1, inputs.shape[0], cell.units) for _ in range(2)]
        else:
            states = [state.unsqueeze(0) for state in before]
        parameters = [cell.kernel.value.t().contiguous(), cell.recurrent_kernel.value.t().contiguous()]
        if cell.use_bias:
            parameters += [cell.bias.value, torch.zeros_like(cell.bias.value)]
        outputs, last, memory = torch.lstm(
            inputs, states, one_chunk(parameters), cell.use_bias, 1, 0.0, torch.is_grad_enabled(), False, True
        )
        return outputs, [last[0], memory[0]]

    return _recurrent(layer, run)


def _gru(layer: Any) -> Call | None:
    cell = layer.cell

    def run(inputs: Tensor, before: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        state = inputs.new_zeros(1, inputs.shape[0], cell.units) if before is None else before[0].unsqueeze(0)
        parameters = [_reset_first(cell.kernel.value.t()), _reset_first(cell.recurrent_kernel.value.t())]
        if cell.use_bias:
            parameters += [_reset_first(bias) for bias in cell.bias.value]
        outputs, last = torch.gru(
            inputs, state, one_chunk(parameters), cell.use_bias, 1, 0.0, torch.is_grad_enabled(), False, True
        )
        return outputs, [last[0]]

    return _recurrent(layer, run, in_graphs=False) if cell.reset_after else None


def _reset_first(gates: Tensor) -> Tensor:
    """Put the gates in torch's order: Keras has that of the update first."""
    update, reset, new = gates.chunk(3)
    return torch.cat([reset, update, new])


def _recurrent(layer: Any, run: Run, in_graphs: bool = True) -> Call | None:
    """Return the call of a recurrent layer of which torch has one operation for all steps; None where it hasn't.

    A trace would have to unroll an operation that has no form for graphs, into more than Keras's own loop has.
    """
    import keras

    cell = layer.cell

    def unrolled(sequences: Tensor) -> bool:
        return being_traced(sequences) and not in_graphs and not cudnn_takes([sequences, cell.kernel.value])

    usual = cell.activation is keras.activations.tanh and cell.recurrent_activation is keras.activations.sigmoid
    if not usual or cell.recurrent_dropout:
        return None

    def call(sequences: Tensor, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        before = _states_before(layer, sequences, initial_state)
        masked = mask is not None
        by_steps = (
            unrolled(sequences) or before == [] or (masked and (before is not None or not _is_at_the_end(mask, layer)))
        )
        if by_steps:
            return _own(layer)(sequences, initial_state=initial_state, mask=mask, training=training)
        if cell.dropout:
            # Drawn in inference, too, which leaves the seed where Keras leaves it.
            kept = cell.get_dropout_mask(sequences[:, 0])
            cell.reset_dropout_mask()
            sequences = sequences * kept.unsqueeze(1) if training else sequences
        if masked:
            outputs, states = _masked(run, sequences, mask, layer.go_backwards, layer.zero_output_for_mask)
        else:
            outputs, states = run(sequences.flip(1) if layer.go_backwards else sequences, before)
        if layer.stateful:
            for variable, state in zip(layer.states, states, strict=True):
                variable.assign(state.detach())
        found = outputs if layer.return_sequences else states[0]
        return (found, *states) if layer.return_state else found

    return call


def _states_before(layer: Any, sequences: Tensor, given: Any) -> list[Tensor] | None:
    """Return the states that sequences begin with: None for zeros, an empty list for what is left to Keras."""
    if given is None and not layer.stateful:
        return None
    if given is not None:
        states = list(given) if isinstance(given, (list, tuple)) else [given]
    else:
        # They are written while gradients may still be asked for.
        states = [variable.value.clone() for variable in layer.states]
    shape = (sequences.shape[0], layer.cell.units)
    fit = all(isinstance(state, Tensor) and state.shape == shape and state.dtype is sequences.dtype for state in states)
    return states if fit else []


def _is_at_the_end(mask: Any, layer: Any) -> bool:
    """Return whether a mask leaves out nothing but steps at the end of sequences, and that can be seen at no cost."""
    if layer.return_state or layer.unroll or not mask.is_cpu or mask.ndim != 2 or being_traced(mask):
        return False
    steps = mask.bool()
    return bool((steps[:, 1:] <= steps[:, :-1]).all())


def _masked(run: Run, sequences: Tensor, mask: Tensor, backwards: bool, zeros: bool) -> tuple[Tensor, list[Tensor]]:
    """Run sequences that end early: those of their steps that there are not repeat the last one, or give zeros.

    Sequences that are gone through from their ends begin late instead, with zeros before.
    """
    count = sequences.shape[1]
    lengths = mask.sum(1, keepdim=True)
    steps = torch.arange(count)
    if backwards:
        sequences = _steps_of(sequences, (lengths - 1 - steps).clamp(min=0))
        wanted = steps - (count - lengths)
    else:
        wanted = torch.where(steps < lengths, steps, -1) if zeros else torch.minimum(steps, lengths - 1)
    outputs = _steps_of(run(sequences, None)[0], wanted.clamp(min=0)) * (wanted >= 0).unsqueeze(-1)
    return outputs, [outputs[:, -1]]


def _steps_of(sequences: Tensor, places: Tensor) -> Tensor:
    return sequences.gather(1, places.unsqueeze(-1).expand(-1, -1, sequences.shape[-1]))
