"""Which functions of torch and of oncue become others in a traced step, and which can't be part of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from oncue.layers.quick_dropout import dropout, dropout_in_graph
from oncue.losses.fused import label_losses, label_losses_in_graph
from oncue.seeded_mask import seeded_mask, seeded_mask_in_graph
from oncue.training.graph.draws import DRAWN
from oncue.training.graph.lstm import gru, lstm
from oncue.training.graph.pooling import max_pool2d
from oncue.training.graph.refusal import RefusalError


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or inplace:
        return F.dropout(input, p, training, inplace)
    return dropout_in_graph(input, p)


def _unpacked(function: Callable[..., Any], by: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs sequences in place of a function of torch that takes packed ones, too."""

    def run(*args: Any, **kwargs: Any) -> Any:
        # The fourth argument says whether there are biases, but where the lengths of packed sequences are among those before.
        if "batch_sizes" in kwargs or not all(isinstance(one, bool) for one in args[3:4]):
            raise RefusalError(f"a packed sequence would be unrolled over all steps by `torch.{function.__name__}`")
        return by(*args, **kwargs)

    return run


def _unrolled(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise RefusalError(f"`torch.{function.__name__}` would be unrolled over all steps of its sequences")

    return refuse


def being_traced(tensor: Tensor) -> bool:
    """Return whether a step is run to become a graph, by one of its tensors.

    Args:
        tensor: Any tensor that the step computes with.

    Example:
        >>> being_traced(torch.ones(1))
        False
    """
    return has_torch_function_unary(tensor) and handle_torch_function(being_traced, (tensor,), tensor) is True


REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    dropout: dropout_in_graph,
    F.dropout: _dropout,
    label_losses: label_losses_in_graph,
    seeded_mask: seeded_mask_in_graph,
    torch.lstm: _unpacked(torch.lstm, lstm),
    F.max_pool2d: max_pool2d,
    torch.max_pool2d: max_pool2d,
    torch.gru: _unpacked(torch.gru, gru),
    torch.rnn_tanh: _unrolled(torch.rnn_tanh),
    torch.rnn_relu: _unrolled(torch.rnn_relu),
    **DRAWN,
    being_traced: lambda tensor: True,
}
"""What is called instead of a function, with the same arguments; what can't be part of a graph raises a RefusalError."""

TRIED: dict[Callable[..., Any], Callable[..., Any]] = {
    **REPLACED,
    torch.lstm: _unpacked(torch.lstm, torch.lstm),
    torch.gru: _unpacked(torch.gru, torch.gru),
}
"""The same for the run that the graph is compared with: what torch has an operation of its own for is left to it."""
