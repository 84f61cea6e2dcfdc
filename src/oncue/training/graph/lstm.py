"""torch's LSTM and GRU in a traced graph, with their steps together; on the CPU the LSTM alone, as two opaque operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oncue import torch_private
from oncue.training.graph.cudnn_rnn import cudnn_rnn, cudnn_takes

_FORWARD = "oncue::lstm"
_BACKWARD = "oncue::lstm_backward"
_HAS_KERNEL = torch_private.has_lstm_kernel()
_KINDS = {torch.float32, torch.bfloat16}


def lstm(
    input: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do as `torch.lstm`, with operations that a trace records as they are: on CUDA one, on the CPU one for each direction.

    Under `torch.autocast` all tensors are cast, as torch's own kernels do it.

    Args:
        input: Sequences of shape (steps, batch, features), or (batch, steps, features) with `batch_first`.
        hx: The first states, of shape (layers times directions, batch, units) each.
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
        RuntimeError: Where torch's kernels don't take these tensors; see `kernel_takes`, `cudnn_takes` and `cudnn_rnn`.

    Example:
        >>> module = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> x, state = torch.ones(5, 2, 3), torch.zeros(4, 2, 4)
        >>> found = lstm(x, (state, state), list(module.parameters()), True, 2, 0.0, False, True, False)[0]
        >>> torch.equal(found, module(x)[0])
        True
    """
    same = hx[0].shape == hx[1].shape
    if same and cudnn_takes([input, *hx, *params]):
        y, h, c = cudnn_rnn(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
        return y, h, c
    if not (same and kernel_takes([input, *hx, *params])):
        raise RuntimeError("`torch.lstm` would be unrolled over all steps of its sequences")
    directions = 2 if bidirectional else 1
    width = 4 if has_biases else 2
    x = input.transpose(0, 1) if batch_first else input
    last: list[Tensor] = []
    memory: list[Tensor] = []
    # What the backward pass needs is a seventh of the forward pass.
    notes = torch.is_grad_enabled()
    for layer in range(num_layers):
        outputs = []
        for place in range(layer * directions, (layer + 1) * directions):
            own = list(params[place * width : (place + 1) * width])
            if not has_biases:
                zeros = torch.zeros_like(own[0][:, 0])
                own += [zeros, zeros]
            given = [_cast(tensor) for tensor in (x, *own, *[state[place : place + 1] for state in hx])]
            y, h, c, _ = torch.ops.oncue.lstm.default(*given, place % directions == 1, notes)
            outputs.append(y)
            last.append(h)
            memory.append(c)
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout and train and layer < num_layers - 1:
            x = F.dropout(x, dropout)
    return x.transpose(0, 1) if batch_first else x, torch.cat(last), torch.cat(memory)


def gru(input: Tensor, hx: Tensor, params: Sequence[Tensor], *form: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """Do as `torch.gru`, with an operation that a trace records as it is, which there is on CUDA alone.

    Args:
        input: Sequences, as `lstm` takes them.
        hx: The first states, of shape (layers times directions, batch, units).
        params: The weights and biases, as `lstm` takes them.
        *form: The other arguments of `lstm`, in order.
        **named: Those of them that are given by name.

    Returns:
        The outputs of the last layer, laid out as the inputs, and the last states.

    Raises:
        RuntimeError: Elsewhere, and as `lstm` does.
    """
    if not cudnn_takes([input, hx, *params]):
        raise RuntimeError("`torch.gru` would be unrolled over all steps of its sequences")
    y, h = cudnn_rnn(input, [hx], params, *form, **named)
    return y, h


def kernel_takes(tensors: Sequence[Tensor]) -> bool:
    """Return whether torch's kernel on the CPU is there, wasn't turned off, and takes all of some tensors.

    Args:
        tensors: Inputs, states and weights.

    Example:
        >>> kernel_takes([torch.ones(2)]), kernel_takes([torch.ones(2, dtype=torch.float64)])
        (True, False)
        >>> with torch.backends.mkldnn.flags(enabled=False):
        ...     kernel_takes([torch.ones(2)])
        False
    """
    mkldnn: Any = torch.backends.mkldnn
    if not (_HAS_KERNEL and mkldnn.is_available() and mkldnn.enabled) or tensors[0].numel() == 0:
        return False
    kinds = {tensor.dtype for tensor in tensors}
    if torch.is_autocast_enabled("cpu"):
        known = {*kinds, torch.get_autocast_dtype("cpu")} <= _KINDS
    else:
        known = len(kinds) == 1 and kinds <= _KINDS
    return known and all(tensor.device.type == "cpu" for tensor in tensors)


def _cast(tensor: Tensor) -> Tensor:
    # Autocast knows torch's operations, not ours.
    return tensor.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else tensor


def _forward(*given: Any) -> tuple[Tensor, ...]:
    *tensors, reverse, notes = given
    x, w_ih, w_hh, b_ih, b_hh, h, c = _in_order(tensors)
    return torch_private.lstm_layer(x, w_ih, w_hh, b_ih, b_hh, h, c, reverse, notes)


def _backward(*given: Any) -> tuple[Tensor, ...]:
    *tensors, reverse, y, h_n, c_n, notes, grad_y, grad_h, grad_c = given
    given_back = _in_order([grad_y, grad_h, grad_c])
    found = torch_private.lstm_layer_backward(*_in_order(tensors), reverse, y, h_n, c_n, notes, *given_back)
    # The kernel gives those of bfloat16 in float32, which autograd would round likewise.
    return tuple([gradient.to(tensors[0].dtype) for gradient in found])


def _in_order(tensors: Sequence[Tensor]) -> list[Tensor]:
    # Here and not in the graph: a compiler may lay out what it makes in another way than the trace did.
    return [tensor.contiguous() for tensor in tensors]


def _forward_shapes(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    h = given[4]
    # How much the kernel notes, only the kernel knows.
    noted = x.new_empty((0,), dtype=torch.uint8)
    return x.new_empty((*x.shape[:2], h.shape[-1])), x.new_empty(h.shape), x.new_empty(h.shape), noted


def _backward_shapes(*given: Tensor) -> tuple[Tensor, ...]:
    x, w_ih, w_hh, b_ih, _, h, c = given[:7]
    return tuple([x.new_empty(tensor.shape) for tensor in (x, w_ih, w_hh, b_ih, h, c)])


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.reverse, _ = inputs
    ctx.given = len(tensors)
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, *gradients: Any) -> Any:
    saved = ctx.saved_tensors
    tensors, output = saved[: ctx.given], saved[ctx.given :]
    x, w_ih, w_hh, bias, h, c = torch.ops.oncue.lstm_backward.default(*tensors, ctx.reverse, *output, *gradients[:3])
    return x, w_ih, w_hh, bias, bias, h, c, None, None


def _no_second_gradients(ctx: Any, *gradients: Any) -> Any:
    raise RuntimeError("torch's LSTM on the CPU has no gradient of its gradient")


# A notebook that reads this file again finds the operations there.
if not hasattr(torch.ops.oncue, "lstm"):
    torch.library.define(
        _FORWARD,
        "(Tensor x, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, Tensor h, Tensor c, bool reverse, bool notes)"
        " -> (Tensor, Tensor, Tensor, Tensor)",
    )
    torch.library.define(
        _BACKWARD,
        "(Tensor x, Tensor w_ih, Tensor w_hh, Tensor b_ih, Tensor b_hh, Tensor h, Tensor c, bool reverse,"
        " Tensor y, Tensor h_n, Tensor c_n, Tensor notes, Tensor grad_y, Tensor grad_h, Tensor grad_c)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    )
    torch.library.impl(_FORWARD, "CPU", _forward)
    torch.library.impl(_BACKWARD, "CPU", _backward)
    torch.library.register_fake(_FORWARD, _forward_shapes)
    torch.library.register_fake(_BACKWARD, _backward_shapes)
    torch.library.register_autograd(_FORWARD, _gradients, setup_context=_keep)
    torch.library.register_autograd(_BACKWARD, _no_second_gradients)
