"""torch's LSTM on the CPU as two opaque operations, forward and backward, so that a compiler leaves its steps together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oncue import torch_private

_FORWARD = "oncue::lstm_layer"
_BACKWARD = "oncue::lstm_layer_backward"
_HAS_KERNEL = torch_private.has_lstm_kernel()

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


def lstm_in_graph(
    inputs: Tensor,
    hidden: Sequence[Tensor],
    parameters: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do as `torch.lstm`, of float32 on the CPU, with each layer as one operation.

    Args:
        inputs: Sequences of shape (steps, batch, features), or (batch, steps, features) with `batch_first`.
        hidden: The first states, of shape (layers times directions, batch, units) each.
        parameters: The weights, and the biases where there are some, of every layer and direction in turn.
        has_biases: Whether there are biases.
        num_layers: How many layers are stacked.
        dropout: The share that is dropped between layers in training.
        train: Whether to drop.
        bidirectional: Whether each layer also goes from the last step to the first.
        batch_first: Where the axis of samples is.

    Returns:
        The outputs of the last layer, laid out as the inputs, and the last states.

    Example:
        >>> module = torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        >>> x, state = torch.ones(5, 2, 3), torch.zeros(4, 2, 4)
        >>> found = lstm_in_graph(x, (state, state), list(module.parameters()), True, 2, 0.0, False, True, False)[0]
        >>> torch.equal(found, module(x)[0])
        True
    """
    directions = 2 if bidirectional else 1
    width = 4 if has_biases else 2
    x = inputs.transpose(0, 1) if batch_first else inputs
    last: list[Tensor] = []
    memory: list[Tensor] = []
    # What the backward pass needs is a seventh of the forward pass.
    notes = torch.is_grad_enabled()
    for layer in range(num_layers):
        outputs = []
        for place in range(layer * directions, (layer + 1) * directions):
            weights = list(parameters[place * width : (place + 1) * width])
            if not has_biases:
                zeros = torch.zeros_like(weights[0][:, 0])
                weights += [zeros, zeros]
            states = [state[place : place + 1].contiguous() for state in hidden]
            y, h, c = _one_layer(x.contiguous(), *weights, *states, place % directions == 1, notes)
            outputs.append(y)
            last.append(h)
            memory.append(c)
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        if dropout and train and layer < num_layers - 1:
            x = F.dropout(x, dropout)
    return x.transpose(0, 1) if batch_first else x, torch.cat(last), torch.cat(memory)


def lstm_is_whole(module: torch.nn.RNNBase) -> bool:
    """Return whether a module of torch's can go into a graph as `lstm_in_graph`.

    Args:
        module: The module.

    Example:
        >>> lstm_is_whole(torch.nn.GRU(2, 3))
        False
    """
    plain = isinstance(module, torch.nn.LSTM) and type(module).forward is torch.nn.LSTM.forward
    return plain and not module.proj_size and kernel_takes(list(module.parameters()))


def weights_are_usual(weights: Sequence[Tensor]) -> bool:
    """Return whether this torch has the kernel on the CPU, and weights are of its type and on its device.

    Args:
        weights: The weights.

    Example:
        >>> weights_are_usual([torch.ones(2, dtype=torch.float64)])
        False
    """
    return _HAS_KERNEL and all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)


def kernel_takes(weights: Sequence[Tensor]) -> bool:
    """Return whether torch's kernel on the CPU takes weights and wasn't turned off; not to be traced.

    Args:
        weights: The weights.

    Example:
        >>> with torch.backends.mkldnn.flags(enabled=False):
        ...     kernel_takes([torch.ones(2)])
        False
    """
    mkldnn: Any = torch.backends.mkldnn
    return weights_are_usual(weights) and bool(mkldnn.is_available()) and bool(mkldnn.enabled)


class WholeLSTMs:
    """Lets torch's LSTM modules run as `lstm_in_graph` while a compiler looks at them.

    Args:
        modules: Any modules; those for which `lstm_is_whole` are meant.

    Example:
        >>> module = torch.nn.LSTM(3, 4, batch_first=True)
        >>> whole = WholeLSTMs([module])
        >>> with whole.put_in():
        ...     found = module(torch.ones(2, 5, 3))[0]
        >>> torch.equal(found, module(torch.ones(2, 5, 3))[0])
        True
    """

    def __init__(self, modules: Iterable[Any]) -> None:
        # Not where this file is read: it takes a second to import the compiler.
        torch.compiler.allow_in_graph(_one_layer)  # type: ignore[no-untyped-call]
        found = [module for module in modules if isinstance(module, torch.nn.RNNBase) and lstm_is_whole(module)]
        # The same methods each time: a compiler that finds others compiles again.
        self._methods = [(module, MethodType(_forward_of_module, module)) for module in found]

    @contextmanager
    def put_in(self) -> Iterator[None]:
        """Put the other way to run into the modules while the block runs; without modules, do nothing."""
        if not self._methods:
            yield
            return
        for module, method in self._methods:
            vars(module)["forward"] = method
        try:
            # Unless this is set, torch's compiler doesn't look into a module that is an RNN.
            with torch_private.rnns_traced():
                yield
        finally:
            for module, _ in self._methods:
                vars(module).pop("forward", None)


def _forward_of_module(
    self: torch.nn.LSTM, input: Any, hx: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    if not isinstance(input, Tensor):
        raise RuntimeError("a packed sequence goes through torch's LSTM step by step")
    axis = 0 if self.batch_first else 1
    batched = input.dim() == 3
    x = input if batched else input.unsqueeze(axis)
    directions = 2 if self.bidirectional else 1
    if hx is None:
        zeros = torch.zeros(
            self.num_layers * directions, x.size(axis), self.hidden_size, dtype=x.dtype, device=x.device
        )
        states = (zeros, zeros)
    else:
        states = hx if batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
    self.check_forward_args(x, states, None)
    # By their names: where a function is given other weights for a module, these are what it finds there.
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if self.bias else ("weight_ih", "weight_hh")
    suffixes = ("", "_reverse") if self.bidirectional else ("",)
    weights = [
        getattr(self, f"{kind}_l{layer}{suffix}")
        for layer in range(self.num_layers)
        for suffix in suffixes
        for kind in kinds
    ]
    y, h, c = lstm_in_graph(
        x,
        states,
        weights,
        self.bias,
        self.num_layers,
        self.dropout,
        self.training,
        self.bidirectional,
        self.batch_first,
    )
    return (y, (h, c)) if batched else (y.squeeze(axis), (h.squeeze(1), c.squeeze(1)))


class _Layer(torch.autograd.Function):
    """One layer in one direction."""

    @staticmethod
    def forward(*given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.oncue.lstm_layer.default(*given)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.reverse, _ = inputs
        ctx.given = len(tensors)
        ctx.save_for_backward(*tensors, *output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        saved = ctx.saved_tensors
        tensors, output = saved[: ctx.given], saved[ctx.given :]
        x, w_ih, w_hh, bias, h, c = torch.ops.oncue.lstm_layer_backward.default(
            *tensors, ctx.reverse, *output, *[gradient.contiguous() for gradient in gradients[:3]]
        )
        return x, w_ih, w_hh, bias, bias, h, c, None, None


def _one_layer(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    y, h, c, _ = _Layer.apply(*given)  # type: ignore[no-untyped-call]
    return y, h, c


def _forward_shapes(x: Tensor, *given: Any) -> tuple[Tensor, ...]:
    h, c = given[4], given[5]
    # How much the kernel notes, only the kernel knows.
    noted = x.new_empty((0,), dtype=torch.uint8)
    return x.new_empty((*x.shape[:2], h.shape[-1])), torch.empty_like(h), torch.empty_like(c), noted


def _backward_shapes(*given: Tensor) -> tuple[Tensor, ...]:
    x, w_ih, w_hh, b_ih, _, h, c = given[:7]
    return tuple([torch.empty_like(tensor) for tensor in (x, w_ih, w_hh, b_ih, h, c)])


torch.library.impl(_FORWARD, "CPU", torch_private.lstm_layer)
torch.library.impl(_BACKWARD, "CPU", torch_private.lstm_layer_backward)
torch.library.register_fake(_FORWARD, _forward_shapes)
torch.library.register_fake(_BACKWARD, _backward_shapes)
