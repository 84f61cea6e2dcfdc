"""The gradients of a convolution on the CPU as one opaque operation, which takes images as they are stored.

torch's compiler orders what this operation gets by the strides of the kernel's gradient. Those say nothing where a kernel looks
at one channel, as for grey images or of each channel by itself: images were written to memory again in an order that no kernel
of torch's is made for, and once more by it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue import torch_private

_BACKWARD = "oncue::convolution_backward"


def keep_gradients_as_stored(graph: torch.fx.GraphModule) -> None:
    """Put the opaque operation in the place of torch's, where images have their channels last.

    Other graphs are left as they are: there the compiler chooses the order of all images.

    Args:
        graph: The graph of a step, which is changed.
    """
    if not torch_private.has_channels_last(graph):
        return
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.convolution_backward.default and node.args[0].meta["val"].device.type == "cpu":
            node.target = torch.ops.oncue.convolution_backward.default


def _backward(gradient: Tensor, *others: Any) -> tuple[Tensor, ...]:
    found = torch.ops.aten.convolution_backward.default(gradient, *others)
    return tuple(gradient.new_empty(0) if one is None else one for one in found)


# A notebook that reads this file again finds the operation there.
if not hasattr(torch.ops.oncue, "convolution_backward"):
    torch.library.define(
        _BACKWARD,
        "(Tensor gradient, Tensor input, Tensor weight, SymInt[]? bias_sizes, SymInt[] stride, SymInt[] padding, "
        "SymInt[] dilation, bool transposed, SymInt[] output_padding, SymInt groups, bool[] wanted) "
        "-> (Tensor, Tensor, Tensor)",
    )
    torch.library.impl(_BACKWARD, "CPU", _backward)
    torch.library.register_fake(_BACKWARD, _backward)
