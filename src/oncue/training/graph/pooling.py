"""torch's max pooling on the CPU as two opaque operations, forward and backward.

What torch's compiler makes of them looks at one number at a time, which takes several times as long as torch's own kernels.
So does torch's kernel for channels that come first in memory, by branches: ten times as long as the one for channels that come
last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_FORWARD = "oncue::max_pool"
_BACKWARD = "oncue::max_pool_backward"


def max_pool2d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Do as `torch.nn.functional.max_pool2d`, by an operation that a graph keeps as it is.

    Without gradients the compiler's own form is left to it: it is fused with what comes before, and keeps no places.

    Args:
        input: Images, with their channels before rows and columns.
        kernel_size: The size of a window, one number or two.
        stride: The steps between windows; None for their size.
        padding: How much is added at each side.
        dilation: The steps within a window.
        ceil_mode: Whether a window that isn't full counts.
        return_indices: Whether the places of the largest are returned, too.

    Example:
        >>> x = torch.rand(2, 3, 6, 6)
        >>> torch.equal(max_pool2d(x, 2), torch.max_pool2d(x, 2))
        True
    """
    if return_indices or input.device.type != "cpu" or not input.is_floating_point() or not torch.is_grad_enabled():
        function: Any = F.max_pool2d
        return function(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    sizes = [_two(size) for size in (kernel_size, stride or kernel_size, padding, dilation)]
    return torch.ops.oncue.max_pool.default(input, *sizes, ceil_mode)[0]


def _two(size: Any) -> list[int]:
    sizes = [size] if isinstance(size, int) else list(size)
    return sizes * 2 if len(sizes) == 1 else sizes


def _forward(x: Tensor, *sizes: Any) -> tuple[Tensor, Tensor]:
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    pooled: tuple[Tensor, Tensor] = torch.ops.aten.max_pool2d_with_indices.default(x, *sizes)
    return pooled


def _backward(gradient: Tensor, indices: Tensor, shape: Sequence[int], *sizes: Any) -> Tensor:
    # torch's kernel asks the inputs for nothing but their form: given to it, a graph would write them to memory again.
    channels_last = indices.dim() == 4 and indices.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if channels_last else torch.contiguous_format
    like = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=form)
    found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward.default(gradient, like, *sizes, indices)
    return found


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    x, *ctx.sizes = inputs
    ctx.shape = x.shape
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, gradient: Tensor, *others: Any) -> Any:
    return torch.ops.oncue.max_pool_backward.default(gradient, *ctx.saved_tensors, ctx.shape, *ctx.sizes), *[None] * 5


def _no_second_gradients(ctx: Any, *gradients: Any) -> Any:
    raise RuntimeError("max pooling in a graph has no gradient of its gradient")


def _sizes(names: Sequence[str]) -> str:
    return ", ".join([f"int[] {name}" for name in names])


# A notebook that reads this file again finds the operations there.
if not hasattr(torch.ops.oncue, "max_pool"):
    _given = f"{_sizes(('kernel', 'stride', 'padding', 'dilation'))}, bool ceil_mode"
    torch.library.define(_FORWARD, f"(Tensor x, {_given}) -> (Tensor, Tensor)")
    torch.library.define(_BACKWARD, f"(Tensor gradient, Tensor indices, SymInt[] shape, {_given}) -> Tensor")
    torch.library.impl(_FORWARD, "CPU", _forward)
    torch.library.impl(_BACKWARD, "CPU", _backward)
    torch.library.register_fake(_FORWARD, _forward)
    torch.library.register_fake(_BACKWARD, _backward)
    torch.library.register_autograd(_FORWARD, _gradients, setup_context=_keep)
    torch.library.register_autograd(_BACKWARD, _no_second_gradients)
