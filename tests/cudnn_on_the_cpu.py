"""Stands for cuDNN's recurrent networks on a machine without a GPU: what torch's operations for them do, as callers see it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import _scoped_library

_HEADER = 5
_LSTM = 2


class Cudnn:
    """Gives torch's operations for cuDNN kernels for the CPU.

    Weights must lie in one block, in which all weights come before all biases. The notes have a size of their own, hold all
    that the backward pass needs, and are used up by it.
    """

    def __init__(self) -> None:
        self.trained: list[bool] = []
        """Of each forward pass, whether it took notes."""
        self.wrong = 0.0
        """What is added to all outputs."""

    @contextmanager
    def installed(self) -> Iterator[Cudnn]:
        """Have torch find it for tensors of the CPU while the block runs."""
        kinds = (torch.float16, torch.float32, torch.float64)
        with pytest.MonkeyPatch.context() as patch, _scoped_library("aten", "IMPL") as library:
            patch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: tensor.dtype in kinds)
            for name in ("_cudnn_rnn_flatten_weight", "_cudnn_rnn", "_cudnn_rnn_backward"):
                library.impl(name, _without_autocast(getattr(self, name[len("_cudnn_rnn_") :] or "forward")), "CPU")
            yield self

    def flatten_weight(self, weights: list[Tensor], width: int, *form: Any) -> Tensor:
        """Copy weights to a block, and make them views of it."""
        block = torch.cat([weights[place].reshape(-1) for place in _order(len(weights), width)])
        for place, part in zip(_order(len(weights), width), _parts(block, weights, width), strict=True):
            weights[place].set_(part)
        return block

    def forward(
        self, x: Tensor, weights: list[Tensor], width: int, block: Tensor | None, h: Tensor, c: Tensor | None, mode: int,
        units: int, projected: int, layers: int, batch_first: bool, dropout: float, train: bool, both_ways: bool,
        batch_sizes: Any, dropout_state: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Do as `torch._cudnn_rnn`."""
        assert block is not None and block.dtype == x.dtype == h.dtype and not dropout and not batch_first
        assert all(one.is_contiguous() for one in (x, h, h if c is None else c))
        assert (c is not None) == (mode == _LSTM)
        self.trained.append(train)
        given = _from(block, weights, width)
        y, last = _run(x, given, _states(h, c), layers, both_ways)
        y = y + self.wrong
        held = [one.reshape(-1).view(torch.uint8) for one in (x, *_states(h, c), block, y)]
        noted = torch.cat([torch.ones(_HEADER, dtype=torch.uint8), *held]) if train else x.new_empty(0).byte()
        return y, last[0], last[1] if c is not None else h.new_empty(0), noted, block

    def backward(
        self, x: Tensor, weights: list[Tensor], width: int, block: Tensor, h: Tensor, c: Tensor | None, y: Tensor,
        of_y: Tensor, of_h: Tensor, of_c: Tensor | None, mode: int, units: int, projected: int, layers: int,
        batch_first: bool, dropout: float, train: bool, both_ways: bool, batch_sizes: Any, dropout_state: Any,
        noted: Tensor, wanted: Sequence[bool],
    ) -> tuple[Any, ...]:  # fmt: skip
        """Do as `torch._cudnn_rnn_backward`."""
        assert train and all(one.is_contiguous() for one in (x, h, y, of_y, of_h))
        assert noted[:_HEADER].all(), "notes that were used"
        held = [one.reshape(-1).view(torch.uint8) for one in (x, *_states(h, c), block, y)]
        assert torch.equal(noted[_HEADER:], torch.cat(held)), "notes of another pass"
        noted.zero_()
        given = _from(block, weights, width)
        of_x, *found = _derived(x, given, _states(h, c), layers, both_ways, [of_y, *_states(of_h, of_c)])
        of_weights = found[: len(weights)]
        # Views of one block, as cuDNN's are.
        of_block = torch.cat([torch.zeros_like(block[:1]), *[one.reshape(-1) for one in of_weights]])[1:]
        pieces = of_block.split([one.numel() for one in of_weights])
        of_states = [*found[len(weights) :], None][:2]
        views = [piece.view_as(one) for piece, one in zip(pieces, of_weights, strict=True)]
        return of_x, *of_states, views


def _without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what does as a function, in which types are as they are given, as in every kernel."""

    def run(*given: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return function(*given)

    return run


def _order(count: int, width: int) -> list[int]:
    """Return where the weights are in a list that has those of each layer and direction together, biases last."""
    places = range(count)
    return [*[place for place in places if place % width < 2], *[place for place in places if place % width >= 2]]


def _parts(block: Tensor, weights: list[Tensor], width: int) -> list[Tensor]:
    ordered = [weights[place] for place in _order(len(weights), width)]
    pieces = block.split([math.prod(one.shape) for one in ordered])
    return [piece.view(one.shape) for piece, one in zip(pieces, ordered, strict=True)]


def _from(block: Tensor, weights: list[Tensor], width: int) -> list[Tensor]:
    """Return the weights that a block holds, in their own order."""
    parts = dict(zip(_order(len(weights), width), _parts(block, weights, width), strict=True))
    return [parts[place] for place in range(len(weights))]


def _states(h: Tensor, c: Tensor | None) -> list[Tensor]:
    return [h] if c is None else [h, c]


def _run(
    x: Tensor, weights: list[Tensor], states: list[Tensor], layers: int, both_ways: bool
) -> tuple[Tensor, list[Tensor]]:
    width = len(weights) // (layers * (2 if both_ways else 1))
    # The CPU has no kernel for 16 bits, and cuDNN computes with 32, too.
    x32, *rest = [one.float() if one.dtype == torch.float16 else one for one in (x, *weights, *states)]
    own, before = rest[: len(weights)], rest[len(weights) :]
    form = (own, width == 4, layers, 0.0, False, both_ways, False)
    y, *last = torch.lstm(x32, before, *form) if len(states) == 2 else torch.gru(x32, before[0], *form)
    return y.to(x.dtype), [one.to(x.dtype) for one in last]


def _derived(
    x: Tensor, weights: list[Tensor], states: list[Tensor], layers: int, both_ways: bool, gradients: list[Tensor]
) -> list[Tensor]:
    """Return the gradients by torch's own pass; on another thread, for inside an operation there is no autograd."""
    found: list[Tensor] = []

    def derive() -> None:
        leaves = [one.detach().clone().requires_grad_() for one in (x, *weights, *states)]
        own, before = leaves[1 : 1 + len(weights)], leaves[1 + len(weights) :]
        y, last = _run(leaves[0], own, before, layers, both_ways)
        found.extend(torch.autograd.grad([y, *last], leaves, gradients))

    _on_a_thread(derive)
    return found


def _on_a_thread(job: Callable[[], None]) -> None:
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
