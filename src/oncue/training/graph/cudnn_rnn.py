"""cuDNN's LSTM and GRU as two opaque operations, forward and backward, so that a traced graph keeps their steps together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oncue import torch_private

_FORWARD = "oncue::cudnn_rnn"
_BACKWARD = "oncue::cudnn_rnn_backward"
_HAS_OPERATIONS = torch_private.has_cudnn_rnn()


def cudnn_takes(tensors: Sequence[Tensor]) -> bool:
    """Return whether torch runs recurrent networks on some tensors by cuDNN, as far as can be known beforehand.

    Args:
        tensors: Inputs, states and weights, the weights last.

    Example:
        >>> cudnn_takes([torch.ones(2), torch.ones(2)])
        False
    """
    first, *_, weight = tensors
    cudnn: Any = torch.backends.cudnn
    if not _HAS_OPERATIONS or torch.version.hip is not None or not cudnn.is_acceptable(weight):
        return False
    if first.numel() == 0 or len({tensor.device for tensor in tensors}) > 1:
        return False
    kinds = {tensor.dtype for tensor in tensors}
    # Autocast makes all of one type but those of 64 bits.
    return torch.float64 not in kinds if torch.is_autocast_enabled(weight.device.type) else len(kinds) == 1


def cudnn_rnn(
    input: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    """Do as `torch.lstm` or `torch.gru` by cuDNN, with all layers and directions as one operation of a graph.

    Args:
        input: Sequences of shape (steps, batch, features), or (batch, steps, features) with `batch_first`.
        states: The first states and, of an LSTM, the first cells, of shape (layers times directions, batch, units) each.
        params: The weights, and the biases where there are some, of every layer and direction in turn.
        has_biases: Whether there are biases.
        num_layers: How many layers are stacked.
        dropout: The share that is dropped between layers in training.
        train: Whether to drop.
        bidirectional: Whether each layer also goes from the last step to the first.
        batch_first: Where the axis of samples is.

    Returns:
        The outputs of the last layer, laid out as the inputs, and the last states.

    Raises:
        RuntimeError: With dropout between layers, which cuDNN draws from a state of its own.
    """
    if dropout and train and num_layers > 1:
        raise RuntimeError(
            "cuDNN itself draws what is dropped between the layers of a recurrent network (stack networks of one layer, with "
            "`Dropout` between them)"
        )
    x = _cast(input.transpose(0, 1) if batch_first else input)
    weights, before = [_cast(one) for one in params], [_cast(one) for one in states]
    y, last, _, _ = torch.ops.oncue.cudnn_rnn.default(
        x, weights, before, num_layers, bidirectional, torch.is_grad_enabled()
    )
    return [y.transpose(0, 1) if batch_first else y, *last]


def _cast(tensor: Tensor) -> Tensor:
    # Autocast knows torch's operations, not ours; for cuDNN it takes float16, whatever type it is set to.
    return tensor.to(torch.float16) if torch.is_autocast_enabled(tensor.device.type) else tensor


def _forward(x: Tensor, weights: list[Tensor], states: list[Tensor], *form: Any) -> tuple[Any, ...]:
    return torch_private.cudnn_rnn(x.contiguous(), weights, _in_order(states), *form)


def _backward(
    x: Tensor, weights: list[Tensor], states: list[Tensor], layers: int, both_ways: bool, *given: Any
) -> tuple[Any, ...]:
    y, noted, block, of_y, of_states = given
    return torch_private.cudnn_rnn_backward(
        x.contiguous(), weights, _in_order(states), layers, both_ways,
        y.contiguous(), noted, block, of_y.contiguous(), _in_order(of_states),
    )  # fmt: skip


def _in_order(tensors: Sequence[Tensor]) -> list[Tensor]:
    # Here and not in the graph: a compiler may lay out what it makes in another way than the trace did.
    return [tensor.contiguous() for tensor in tensors]


def _forward_shapes(
    x: Tensor, weights: list[Tensor], states: list[Tensor], layers: int, both_ways: bool, notes: bool
) -> tuple[Any, ...]:
    y = x.new_empty((*x.shape[:2], states[0].shape[-1] * (2 if both_ways else 1)))
    # How large what only cuDNN reads is, only cuDNN knows; nothing else asks.
    noted, block = x.new_empty((0,), dtype=torch.uint8), x.new_empty((0,))
    return y, [one.new_empty(one.shape) for one in states], noted, block


def _backward_shapes(x: Tensor, weights: list[Tensor], states: list[Tensor], *given: Any) -> tuple[Any, ...]:
    return x.new_empty(x.shape), *[[one.new_empty(one.shape) for one in of] for of in (weights, states)]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, weights, states, ctx.layers, ctx.both_ways, _ = inputs
    y, _, noted, block = output
    ctx.counts = [len(weights), len(states)]
    ctx.save_for_backward(x, *weights, *states, y, noted, block)
    ctx.mark_non_differentiable(noted, block)


def _gradients(ctx: Any, of_y: Tensor, of_states: list[Tensor], *others: Any) -> Any:
    x, *rest = ctx.saved_tensors
    weights, states = rest[: ctx.counts[0]], rest[ctx.counts[0] : sum(ctx.counts)]
    form = ctx.layers, ctx.both_ways
    found = torch.ops.oncue.cudnn_rnn_backward.default(
        x, weights, states, *form, *rest[sum(ctx.counts) :], of_y, of_states
    )
    return *found, None, None, None


def _no_second_gradients(ctx: Any, *gradients: Any) -> Any:
    raise RuntimeError("cuDNN's recurrent networks have no gradient of their gradient")


# A notebook that reads this file again finds the operations there.
if not hasattr(torch.ops.oncue, "cudnn_rnn"):
    _given = "Tensor x, Tensor[] weights, Tensor[] states, int layers, bool both_ways"
    torch.library.define(_FORWARD, f"({_given}, bool notes) -> (Tensor, Tensor[], Tensor, Tensor)")
    torch.library.define(
        _BACKWARD,
        f"({_given}, Tensor y, Tensor noted, Tensor block, Tensor of_y, Tensor[] of_states)"
        " -> (Tensor, Tensor[], Tensor[])",
    )
    # For any device: which one cuDNN has is asked before.
    torch.library.impl(_FORWARD, "default", _forward)
    torch.library.impl(_BACKWARD, "default", _backward)
    torch.library.register_fake(_FORWARD, _forward_shapes)
    torch.library.register_fake(_BACKWARD, _backward_shapes)
    torch.library.register_autograd(_FORWARD, _gradients, setup_context=_keep)
    torch.library.register_autograd(_BACKWARD, _no_second_gradients)
