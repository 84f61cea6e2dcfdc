"""Constraints: projections of a weight, applied after each update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch

from oncue import backend, objects
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.keras_names import elsewhere


@builtin
class Constraint:
    """A function from a weight to an allowed weight. Subclass it for one of your own.

    Example:
        >>> class AtMostOne(Constraint):
        ...     def __call__(self, w):
        ...         return w.clamp(max=1)
        >>> AtMostOne()(torch.tensor([3.0]))
        tensor([1.])
    """

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """Return the allowed weight nearest to w (of Keras's order of axes)."""
        raise NotImplementedError(f"{type(self).__name__} must define `__call__(self, w)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this constraint."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a constraint from what `get_config` returned."""
        return cls(**config)


@builtin
class MaxNorm(Constraint):
    """Shortens vectors longer than a bound.

    Args:
        max_value: The longest allowed norm.
        axis: The axis or axes along which a vector is taken: 0 for `Dense` kernels, [0, 1, 2] for `Conv2D` kernels.

    Example:
        >>> MaxNorm(1.0)(torch.tensor([[3.0], [4.0]]))
        tensor([[0.6000],
                [0.8000]])
    """

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        self.max_value, self.axis = plain(max_value), plain(axis)

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """Return w with its vectors shortened."""
        w = w if isinstance(w, torch.Tensor) else backend.as_tensor(w)
        norms = _norms(w, self.axis)
        return w * (norms.clamp(0, self.max_value) / (backend.epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        """Return bound and axis."""
        return {"max_value": self.max_value, "axis": self.axis}


@builtin
class NonNeg(Constraint):
    """Sets negative numbers to zero.

    Example:
        >>> NonNeg()(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """Return w without its negative numbers."""
        w = w if isinstance(w, torch.Tensor) else backend.as_tensor(w)
        return w.clamp(min=0)


@builtin
class UnitNorm(Constraint):
    """Gives all vectors the length 1.

    Args:
        axis: The axis or axes along which a vector is taken: 0 for `Dense` kernels, [0, 1, 2] for `Conv2D` kernels.

    Example:
        >>> UnitNorm()(torch.tensor([[3.0], [4.0]]))
        tensor([[0.6000],
                [0.8000]])
    """

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        self.axis = plain(axis)

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """Return w with vectors of length 1."""
        w = w if isinstance(w, torch.Tensor) else backend.as_tensor(w)
        return w / (backend.epsilon() + _norms(w, self.axis))

    def get_config(self) -> dict[str, Any]:
        """Return the axis."""
        return {"axis": self.axis}


@builtin
class MinMaxNorm(Constraint):
    """Moves the length of vectors into a range.

    Args:
        min_value: The shortest allowed norm.
        max_value: The longest allowed norm.
        rate: The fraction of the correction made at each update; 1 for all of it.
        axis: The axis or axes along which a vector is taken: 0 for `Dense` kernels, [0, 1, 2] for `Conv2D` kernels.

    Example:
        >>> MinMaxNorm(0.0, 1.0)(torch.tensor([[3.0], [4.0]]))
        tensor([[0.6000],
                [0.8000]])
    """

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ) -> None:
        self.min_value, self.max_value = plain(min_value), plain(max_value)
        self.rate: float = plain(rate)
        self.axis = plain(axis)

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """Return w with vectors of allowed lengths."""
        w = w if isinstance(w, torch.Tensor) else backend.as_tensor(w)
        norms = _norms(w, self.axis)
        desired = self.rate * norms.clamp(self.min_value, self.max_value) + (1 - self.rate) * norms
        return w * (desired / (backend.epsilon() + norms))

    def get_config(self) -> dict[str, Any]:
        """Return range, rate and axis."""
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


max_norm = maxnorm = MaxNorm
non_neg = nonneg = NonNeg
unit_norm = unitnorm = UnitNorm
min_max_norm = MinMaxNorm
_KNOWN: dict[str, Any] = {
    "MaxNorm": MaxNorm,
    "MinMaxNorm": MinMaxNorm,
    "NonNeg": NonNeg,
    "UnitNorm": UnitNorm,
    "max_norm": MaxNorm,
    "maxnorm": MaxNorm,
    "min_max_norm": MinMaxNorm,
    "non_neg": NonNeg,
    "nonneg": NonNeg,
    "unit_norm": UnitNorm,
    "unitnorm": UnitNorm,
}


def get(identifier: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the constraint that a name, a configuration, a class or a function stands for; None for None.

    Args:
        identifier: "non_neg", `MaxNorm(3)`, a configuration, a function of a tensor.

    Returns:
        A function from a weight to an allowed weight.

    Raises:
        ValueError: For a name that is not known.

    Example:
        >>> get("max_norm").get_config()
        {'max_value': 2, 'axis': 0}
    """
    if identifier is None:
        return None  # type: ignore[return-value]  # Keras's answer for "no constraint"; callers ask first
    return objects.resolve("constraint", identifier, _KNOWN)  # type: ignore[no-any-return]  # one of the above


def serialize(constraint: Any) -> dict[str, Any]:
    """Return the configuration of a constraint.

    Example:
        >>> serialize(UnitNorm())["config"]
        {'axis': 0}
    """
    return objects.to_config(constraint, "keras.constraints")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a constraint from its configuration.

    Example:
        >>> deserialize(serialize(MaxNorm(3))).max_value
        3
    """
    return objects.resolve("constraint", config, _KNOWN, custom_objects)


def _norms(w: torch.Tensor, axis: int | Sequence[int]) -> torch.Tensor:
    axes = axis if isinstance(axis, int) else tuple(axis)
    return w.square().sum(dim=axes, keepdim=True).sqrt()


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.constraints", name)
