"""What stands between a step's Python code and torch while the step becomes a graph: tensors are found, or stood for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from oncue import torch_private
from oncue.training.graph.draws import DRAWN, GraphGenerator
from oncue.training.graph.refusal import RefusalError
from oncue.training.graph.replaced import REPLACED, TRIED
from oncue.variable import Variable

LARGE_CONSTANT = 2**16
"""How many bytes of a NumPy array may become constants of a graph; smaller ones are watched."""


class _Operations(TorchFunctionMode):
    """Sees the tensors that functions of torch get, and puts other functions in place of some."""

    replaced: Mapping[Callable[..., Any], Callable[..., Any]] = REPLACED

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        generator = kwargs.get("generator") if kwargs else None
        if generator is not None and not (isinstance(generator, GraphGenerator) and func in DRAWN):
            raise RefusalError("it draws random numbers from a generator of its own, which no compiled graph can have")
        given = self._each(args), self._each(dict(kwargs or {}))
        return self.replaced.get(func, func)(*given[0], **given[1])

    @abstractmethod
    def _one(self, tensor: Tensor) -> Tensor:
        """Return what a function gets in place of a tensor."""

    def _each(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._one(value)
        kind = type(value)
        if kind is tuple:
            return tuple([self._each(item) for item in value])
        if kind is list:
            return [self._each(item) for item in value]
        if kind is dict:
            return {key: self._each(item) for key, item in value.items()}
        if isinstance(value, np.ndarray) and value.nbytes > LARGE_CONSTANT:
            raise RefusalError(
                f"it reads a NumPy array of shape {value.shape}, whose values would be fixed (keep it as a buffer: "
                "`self.register_buffer(name, torch.as_tensor(array))`)"
            )
        if isinstance(value, Variable):
            with self:
                return self._one(value.tensor())
        if hasattr(kind, "__torch_function__") and hasattr(kind, "value"):
            # A variable, of a metric say, which would itself be asked to call the function, out of sight.
            with self:
                held = value.value
            return self._one(held) if isinstance(held, Tensor) else value
        return value


class Finding(_Operations):
    """Finds the tensors from outside that functions of torch get while the block runs, and keeps their values.

    Args:
        batch: The tensors of the batch, which are no state.

    Example:
        >>> weight = torch.ones(2)
        >>> with Finding([]) as finding:
        ...     _ = weight.mul_(torch.tensor(2.0))
        >>> [found is weight for found in finding.found.values()], list(finding.put_back().values()), weight
        ([True], [tensor([2., 2.])], tensor([1., 1.]))
    """

    replaced = TRIED

    def __init__(self, batch: Iterable[Tensor]) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        """What was found, by its identity."""
        self._before: dict[int, Tensor] = {}
        self._known = {id(tensor) for tensor in batch}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        self._know(result)
        return result

    def _one(self, tensor: Tensor) -> Tensor:
        # What `torch.func` makes of a tensor is gone when its function ends.
        if id(tensor) not in self._known and not torch_private.is_wrapped(tensor):
            self._known.add(id(tensor))
            self.found[id(tensor)], self._before[id(tensor)] = tensor, tensor.detach().clone()
        return tensor

    def _know(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._known.add(id(value))
        elif isinstance(value, (tuple, list)):
            for item in value:
                self._know(item)

    @torch.no_grad()
    def put_back(self) -> dict[int, Tensor]:
        """Put the values back that were changed, and return what they were changed to, by the tensors' identities."""
        changed: dict[int, Tensor] = {}
        failures: list[Exception] = []
        for key, before in self._before.items():
            tensor = self.found[key]
            try:
                now = tensor.detach()
                if now.shape == before.shape and same_values(now, before):
                    continue
                changed[key] = now.clone()
                # Past autograd and its count of changes.
                if now.shape != before.shape:
                    tensor.data = before
                else:
                    tensor.data.copy_(before)
            except Exception as failure:
                failures.append(failure)
        self._before.clear()
        if failures:
            raise failures[0]
        return changed


class Standing(_Operations):
    """Lets other tensors stand for some while the block runs, by whatever road code reaches them.

    Args:
        table: What stands for a tensor, by its identity; may be changed while the block runs.

    Example:
        >>> weight = torch.ones(2)
        >>> with Standing({id(weight): torch.zeros(2)}):
        ...     found = weight + 1
        >>> found
        tensor([1., 1.])
    """

    def __init__(self, table: dict[int, Tensor]) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch_private.checks_arguments(func):
            # The run as Python code before this one has checked the batch. torch's own switch of these checks is one for all
            # threads.
            return True
        return super().__torch_function__(func, types, args, kwargs)

    def _one(self, tensor: Tensor) -> Tensor:
        return self.table.get(id(tensor), tensor)


def same_values(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors of one shape have the same values, where NaN is the same as NaN."""
    if one.is_floating_point() or one.is_complex():
        return bool(torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True))
    return torch.equal(one, other)
