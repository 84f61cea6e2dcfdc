"""Regularizers: penalties on weights or outputs that are added to the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F

from oncue import backend, objects
from oncue.core.builtin import builtin
from oncue.core.numbers import number_of
from oncue.keras_names import elsewhere


@builtin
class Regularizer:
    """A function from a tensor to a penalty. Subclass it for one of your own.

    Example:
        >>> class Sum(Regularizer):
        ...     def __call__(self, x):
        ...         return x.sum()
        >>> Sum()(torch.ones(2))
        tensor(2.)
    """

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the penalty on a tensor (of Keras's order of axes)."""
        raise NotImplementedError(f"{type(self).__name__} must define `__call__(self, x)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this regularizer."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a regularizer from what `get_config` returned."""
        return cls(**config)


@builtin
class L1L2(Regularizer):
    """The penalty `l1 * sum(|x|) + l2 * sum(x^2)`.

    Args:
        l1: The factor on the absolute values; None for 0.
        l2: The factor on the squares; None for 0.

    Raises:
        ValueError: For a factor that is negative or not finite.

    Example:
        >>> L1L2(l1=1.0, l2=0.5)(torch.tensor([2.0]))
        tensor(4.)
    """

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1 = _factor("l1", 0.0 if l1 is None else l1)
        self.l2 = _factor("l2", 0.0 if l2 is None else l2)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the penalty on x."""
        x = x if isinstance(x, torch.Tensor) else backend.as_tensor(x)
        penalty = x.new_zeros(())
        if self.l1:
            penalty = penalty + self.l1 * x.abs().sum()
        if self.l2:
            penalty = penalty + self.l2 * x.square().sum()
        return penalty

    def get_config(self) -> dict[str, Any]:
        """Return the factors."""
        return {"l1": self.l1, "l2": self.l2}


@builtin
class L1(Regularizer):
    """The penalty `l1 * sum(|x|)`.

    Args:
        l1: The factor; None for 0.01.

    Raises:
        ValueError: For a factor that is negative or not finite.

    Example:
        >>> L1(0.5)(torch.tensor([2.0, -2.0]))
        tensor(2.)
    """

    def __init__(self, l1: float | None = 0.01) -> None:
        self.l1 = _factor("l1", 0.01 if l1 is None else l1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the penalty on x."""
        x = x if isinstance(x, torch.Tensor) else backend.as_tensor(x)
        return self.l1 * x.abs().sum()

    def get_config(self) -> dict[str, Any]:
        """Return the factor."""
        return {"l1": self.l1}


@builtin
class L2(Regularizer):
    """The penalty `l2 * sum(x^2)`.

    Args:
        l2: The factor; None for 0.01.

    Raises:
        ValueError: For a factor that is negative or not finite.

    Example:
        >>> L2(0.5)(torch.tensor([2.0, -2.0]))
        tensor(4.)
    """

    def __init__(self, l2: float | None = 0.01) -> None:
        self.l2 = _factor("l2", 0.01 if l2 is None else l2)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the penalty on x."""
        x = x if isinstance(x, torch.Tensor) else backend.as_tensor(x)
        return self.l2 * x.square().sum()

    def get_config(self) -> dict[str, Any]:
        """Return the factor."""
        return {"l2": self.l2}


@builtin
class OrthogonalRegularizer(Regularizer):
    """The mean cosine (its absolute value) between the rows, or columns, of a matrix, times a factor.

    Args:
        factor: The factor.
        mode: "rows" or "columns".

    Raises:
        ValueError: For another mode, or a tensor that isn't a matrix.

    Example:
        >>> OrthogonalRegularizer(1.0)(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        tensor(1.)
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = _factor("factor", factor)
        if mode not in ("rows", "columns"):
            raise ValueError(f"`mode` must be 'rows' or 'columns'; got {mode!r}.")
        self.mode = mode

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the penalty on x."""
        x = x if isinstance(x, torch.Tensor) else backend.as_tensor(x)
        if x.dim() != 2:
            raise ValueError(f"OrthogonalRegularizer needs a matrix; got a tensor of shape {tuple(x.shape)}.")
        rows = F.normalize(x if self.mode == "rows" else x.T, dim=1)
        pairs = len(rows) * (len(rows) - 1) / 2
        return self.factor * torch.triu(rows @ rows.T, diagonal=1).abs().sum() / pairs

    def get_config(self) -> dict[str, Any]:
        """Return factor and mode."""
        return {"factor": self.factor, "mode": self.mode}


def l1_l2(l1: float = 0.01, l2: float = 0.01) -> L1L2:
    """Return `L1L2(l1, l2)`; both 0.01 by default, as in Keras 2.

    Example:
        >>> l1_l2().get_config()
        {'l1': 0.01, 'l2': 0.01}
    """
    return L1L2(l1, l2)


l1, l2, l1l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer
_KNOWN: dict[str, Any] = {
    "L1": L1,
    "L2": L2,
    "L1L2": L1L2,
    "OrthogonalRegularizer": OrthogonalRegularizer,
    "l1": L1,
    "l2": L2,
    "l1_l2": L1L2,
    "l1l2": L1L2,
    "orthogonal_regularizer": OrthogonalRegularizer,
}


def get(identifier: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the regularizer that a name, a configuration, a class or a function stands for; None for None.

    Args:
        identifier: "l2", "l1_l2" (both factors 0.01), `L2(1e-4)`, a configuration, a function of a tensor.

    Returns:
        A function from a tensor to a penalty.

    Raises:
        ValueError: For a name that is not known.

    Example:
        >>> get("l2").get_config()
        {'l2': 0.01}
    """
    if identifier is None:
        return None  # type: ignore[return-value]  # Keras's answer for "no penalty"; callers ask first
    if isinstance(identifier, str) and identifier == "l1_l2":
        # The name means both at 0.01, as Keras documents it; the class starts at 0.
        return l1_l2()
    return objects.resolve("regularizer", identifier, _KNOWN)  # type: ignore[no-any-return]  # one of the above


def serialize(regularizer: Any) -> dict[str, Any]:
    """Return the configuration of a regularizer.

    Example:
        >>> serialize(L2(0.5))["config"]
        {'l2': 0.5}
    """
    return objects.to_config(regularizer, "keras.regularizers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a regularizer from its configuration.

    Example:
        >>> deserialize(serialize(L2(0.5))).l2
        0.5
    """
    return objects.resolve("regularizer", config, _KNOWN, custom_objects)


def _factor(name: str, value: float) -> float:
    number = number_of(value)
    if number is None or not math.isfinite(number) or number < 0:
        raise ValueError(f"`{name}` must be a number of 0 or more; got {value!r} of type {type(value).__name__}.")
    return float(number)


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.regularizers", name)
