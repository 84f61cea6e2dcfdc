"""Metric: the base of every metric."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from oncue.backend import floatx
from oncue.core.builtin import builtin
from oncue.core.suggest import unknown
from oncue.metrics.state import MetricVariable
from oncue.naming import auto_name, to_snake_case
from oncue.variable import Variable, torch_dtype

_AGGREGATIONS = ("sum", "mean", "only_first_replica", "none", None)

Owned = tuple[Tensor | float, Tensor | float | None]


@builtin
class Metric:
    """A value that is accumulated over batches: `update_state`, `result`, `reset_state`.

    Subclasses make their variables in `__init__` with `add_weight`, add to them in `update_state(y_true, y_pred,
    sample_weight=None)` and return a tensor (or a dict of tensors) from `result()`. Nothing in it should read a value
    from the device; `float(metric.result())` does.

    Args:
        dtype: The type of the variables; `oncue.backend.floatx()` when None.
        name: The name, which is also the key in the logs; made from the class's name when None.

    Example:
        >>> class Hits(Metric):
        ...     def __init__(self, name="hits"):
        ...         super().__init__(name=name)
        ...         self.hits = self.add_weight(name="hits", initializer="zeros")
        ...     def update_state(self, y_true, y_pred, sample_weight=None):
        ...         self.hits.assign_add((torch.as_tensor(y_true) == torch.as_tensor(y_pred)).sum())
        ...     def result(self):
        ...         return self.hits.value
        >>> Hits()([1, 2, 3], [1, 2, 4])
        tensor(2.)
    """

    # "up" when more is better, "down" when less is, None when unknown; mode="auto" of the callbacks asks for it.
    _direction: str | None = None
    _weights: list[MetricVariable] | None = None

    def __init__(self, dtype: Any = None, name: str | None = None) -> None:
        self.name = auto_name(to_snake_case(type(self).__name__)) if name is None else name
        dtype = getattr(dtype, "compute_dtype", dtype)
        self._kind = torch_dtype("int32" if dtype == "int" else dtype or floatx())
        self._weights = []

    @property
    def dtype(self) -> str:
        """The name of the type of the variables."""
        return str(self._kind).removeprefix("torch.")

    @property
    def _dtype(self) -> str:
        # Subclasses that were written for Keras cast to it.
        return self.dtype

    def add_variable(
        self,
        shape: Any,
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str | None = "sum",
        name: str | None = None,
    ) -> MetricVariable:
        """Make a variable of this metric.

        Args:
            shape: Its shape.
            initializer: "zeros" or "ones", or a function called with (shape, dtype=...).
            dtype: The type of its numbers; the metric's when None.
            aggregation: How the values of several processes become one: "sum", "mean", "only_first_replica", or "none",
                which takes the first one's too.
            name: Its name.

        Returns:
            The variable, with `assign`, `assign_add` and arithmetic.

        Raises:
            RuntimeError: When `super().__init__()` wasn't called.
            ValueError: For another `aggregation`.
        """
        if self._weights is None:
            raise RuntimeError(f"Call `super().__init__(name=name)` first in `{type(self).__name__}.__init__`.")
        chosen = self.dtype if dtype is None else dtype
        variable = MetricVariable(shape, initializer, chosen, "variable" if name is None else name)
        variable.aggregation = _aggregation(aggregation)
        variable.path = f"{self.name}/{variable.name}"
        self._weights.append(variable)
        return variable

    def add_weight(
        self, shape: Any = (), initializer: Any = None, dtype: Any = None, name: str | None = None
    ) -> MetricVariable:
        """Make a variable as `add_variable` does; a scalar of zero by default. A name may come first, as in Keras 2."""
        if isinstance(shape, str):
            shape, name = (), shape
        return self.add_variable(shape=shape, initializer=initializer, dtype=dtype, name=name)

    def _accumulator(self, shape: Any, name: str) -> MetricVariable:
        # Sums of float32 lose counts beyond 2**24. Adding one float64 to another takes no longer: the time is the
        # launch.
        wide = "float64" if self._kind.is_floating_point else self.dtype
        return self.add_variable(shape=shape, dtype=wide, name=name)

    @property
    def variables(self) -> list[Any]:
        """The variables, those of metrics held as attributes included, and `Variable`s there; in lists and dicts, too."""
        made = list(self._weights or [])
        held = [one for name, value in vars(self).items() if name != "_weights" for one in _held(value)]
        return [*made, *held]

    def update_state(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch; subclasses override this."""
        raise NotImplementedError(f"{type(self).__name__} must define `update_state(self, y_true, y_pred, ...)`.")

    def result(self) -> Any:
        """Return the value so far; subclasses override this."""
        raise NotImplementedError(f"{type(self).__name__} must define `result(self)`.")

    def reset_state(self) -> None:
        """Forget all batches."""
        # Keras 2 called this reset_states, and subclasses written for it override that one.
        if type(self).reset_states is not Metric.reset_states:
            self.reset_states()
        else:
            self._zero()

    def reset_states(self) -> None:
        """Forget all batches; the name in Keras 2."""
        if type(self).reset_states is Metric.reset_states:
            self.reset_state()
        else:
            self._zero()

    def _zero(self) -> None:
        for variable in self.variables:
            if isinstance(variable, MetricVariable):
                variable.zero()
            else:
                variable.assign(torch.zeros(variable.shape))

    def get_state(self) -> dict[str, Any]:
        """Return what was accumulated, as `set_state` takes it, unaffected by later batches; nothing is transferred."""
        # A subclass may also accumulate in numbers, lists or tensors of its own.
        own = {name: copy.copy(value) for name, value in vars(self).items() if _is_plain(name, value)}
        return {"variables": [_owned(variable) for variable in self.variables], "attributes": own}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        for variable, value in zip(self.variables, state["variables"], strict=True):
            variable.assign(value)
        vars(self).update(state["attributes"])

    def snapshot(self) -> Owned | dict[str, Owned]:
        """Return the value so far for later use, when further batches have been added.

        Returns:
            (numerator, denominator), whose quotient is the value; a denominator of None counts as 1, and where the
            denominator is 0 the value is 0. A dict of such pairs when `result()` is a dict.
        """
        result = self.result()
        if isinstance(result, dict):
            return {key: (_own(value), None) for key, value in result.items()}
        return _own(result), None

    def peek(self) -> Owned | dict[str, Owned]:
        """Return what `snapshot` returns, for immediate use, so that nothing need be copied."""
        return self.snapshot()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a batch and return the value so far."""
        with torch.no_grad():
            self.update_state(*args, **kwargs)
            return self.result()

    def stateless_update_state(self, metric_variables: Sequence[Any], *args: Any, **kwargs: Any) -> list[Tensor]:
        """Add a batch to given values instead of the metric's own, which stay as they are.

        Args:
            metric_variables: A value for each of `variables`.
            *args: As for `update_state`.
            **kwargs: As for `update_state`.

        Returns:
            The new values, a tensor for each variable.
        """
        with self._holding(metric_variables):
            self.update_state(*args, **kwargs)
            return self._values()

    def stateless_result(self, metric_variables: Sequence[Any]) -> Any:
        """Return the result that given values come to; a value for each of `variables`."""
        with self._holding(metric_variables):
            return self.result()

    def stateless_reset_state(self) -> list[Tensor]:
        """Return the values of the variables before the first batch; the metric's own stay as they are."""
        with self._holding(self._values()):
            self.reset_state()
            return self._values()

    def _values(self) -> list[Tensor]:
        return [torch.as_tensor(_owned(variable), dtype=variable.value.dtype) for variable in self.variables]

    @contextmanager
    def _holding(self, values: Sequence[Any]) -> Iterator[None]:
        """Have given values in the variables, inside a `with` block."""
        variables = self.variables
        if len(values) != len(variables):
            raise ValueError(
                f"`metric_variables` must have a value for each of the {len(variables)} variables of the metric "
                f"{self.name!r}; got {len(values)}."
            )
        kept = self.get_state()
        try:
            for variable, value in zip(variables, values, strict=True):
                given = value.value if isinstance(value, (MetricVariable, Variable)) else value
                variable.assign(given.clone() if isinstance(given, Tensor) else given)
            yield
        finally:
            self.set_state(kept)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """Make a metric from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _owned(variable: Any) -> Tensor | float:
    if isinstance(variable, MetricVariable):
        return variable.owned()
    value: Tensor = variable.to_keras(variable.value).detach().clone()
    return value


def _held(value: Any) -> Iterator[Any]:
    """Return the variables in an attribute's value, and those of metrics there."""
    if isinstance(value, Metric):
        yield from value.variables
    elif isinstance(value, Variable):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _held(part)


def _aggregation(given: str | None) -> str | None:
    if given not in _AGGREGATIONS:
        raise unknown("`aggregation`", given, [str(one) for one in _AGGREGATIONS])
    return given


def _is_plain(name: str, value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    if isinstance(value, (list, dict)):
        parts = value.values() if isinstance(value, dict) else value
        tracked = next(_held(value), None) is not None or any(isinstance(part, MetricVariable) for part in parts)
        return name != "_weights" and not tracked
    return isinstance(value, (bool, int, float)) or value is None


def _own(value: Any) -> Tensor | float:
    if isinstance(value, MetricVariable):
        return value.owned()
    if isinstance(value, Tensor):
        return value.detach().clone()
    return float(value)
