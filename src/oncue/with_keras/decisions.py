"""Code that decides by single values of tensors, as one graph: every way that it may take is run, and one of them chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_MOST = 4
"""How many decisions may come one after another: each doubles what is computed."""


class _Deciding(TorchFunctionMode):
    """Answers code that asks whether a tensor is true: first as it is told, then True."""

    def __init__(self, answers: Sequence[bool]) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not Tensor.__bool__:
            return func(*args, **(kwargs or {}))
        if len(self.asked) == _MOST:
            raise RuntimeError(f"the update takes more than {_MOST} decisions by values")
        self.asked.append(args[0])
        return self.answers[len(self.asked) - 1] if len(self.asked) <= len(self.answers) else True


def run_every_way(code: Callable[[], Any], tensors: Sequence[Tensor], decided: Sequence[bool] = ()) -> None:
    """Run code that changes some tensors in place, and nothing else, as its decisions say, without reading what they are about.

    Args:
        code: The code; it is run several times.
        tensors: All that it changes.
        decided: How its first decisions fall.

    Raises:
        RuntimeError: When there are more decisions than are worth it.

    Example:
        >>> x = torch.tensor([1.0])
        >>> run_every_way(lambda: x.mul_(2.0) if x.sum() > 3.0 else x.add_(1.0), [x])
        >>> x
        tensor([2.])
    """
    before = [tensor.clone() for tensor in tensors]
    with _Deciding(decided) as way:
        code()
    if len(way.asked) <= len(decided):
        return
    chosen = way.asked[len(decided)]
    ways: list[list[Tensor]] = []
    for answer in (True, False):
        _put(tensors, before)
        run_every_way(code, tensors, [*decided, answer])
        ways.append([tensor.clone() for tensor in tensors])
    _put(tensors, [torch.where(chosen, one, other) for one, other in zip(*ways, strict=True)])


def _put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
