"""Keras's `random`: draws that depend on a seed alone, on a `SeedGenerator`, or on torch's generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from oncue import backend, naming
from oncue.objects import builtin
from oncue.seeded_mask import register, seeded_mask
from oncue.variable import torch_dtype


@builtin
class SeedGenerator:
    """Gives another seed at each draw, the same ones in each process that starts from the same seed.

    Args:
        seed: A whole number, or None for one from torch's generator (which `set_random_seed` sets).
        name: A name; made up by default.

    Raises:
        ValueError: For a seed that is no whole number.

    Example:
        >>> seeds = SeedGenerator(3)
        >>> seeds.next(), seeds.next()
        ((3, 0), (3, 1))
    """

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        self._check(seed)
        self.name = naming.auto_name("seed_generator") if name is None else name
        self._initial = seed
        self._seed = int(torch.randint(2**31, ())) if seed is None else int(seed)
        self._draws = 0
        self.number = register(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy counts its own draws.
        self.__dict__.update(state)
        self.number = register(self)

    @staticmethod
    def _check(seed: Any) -> None:
        if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
            raise ValueError(f"`seed` must be a whole number or None; got {seed!r} of type {type(seed).__name__}.")

    def next(self) -> tuple[int, int]:
        """Return the seed and the number of draws before this one."""
        self._draws += 1
        return self._seed, self._draws - 1

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this object again."""
        return {"seed": self._initial, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        """Make one from what `get_config` returned."""
        return cls(**config)


def _generator(seed: int | SeedGenerator | None, device: torch.device) -> torch.Generator | None:
    if seed is None:
        return None
    if not isinstance(seed, SeedGenerator):
        SeedGenerator._check(seed)
        return torch.Generator(device).manual_seed(int(seed))
    first, draws = seed.next()
    return torch.Generator(device).manual_seed(first + draws)


def normal(
    shape: Sequence[int],
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: int | SeedGenerator | None = None,
) -> torch.Tensor:
    """Draw from a normal distribution.

    Args:
        shape: The shape of the tensor.
        mean: The mean.
        stddev: The standard deviation.
        dtype: The type of the numbers; `backend.floatx()` by default.
        seed: A whole number for the same values at each call, a `SeedGenerator`, or None for torch's generator.

    Returns:
        A tensor on `backend.device()`.

    Example:
        >>> normal((2, 3), seed=1).shape
        torch.Size([2, 3])
    """
    device = backend.device()
    options: dict[str, Any] = {"generator": _generator(seed, device), "dtype": torch_dtype(dtype), "device": device}
    return torch.randn(tuple(shape), **options) * stddev + mean


def uniform(
    shape: Sequence[int],
    minval: float = 0.0,
    maxval: float = 1.0,
    dtype: Any = None,
    seed: int | SeedGenerator | None = None,
) -> torch.Tensor:
    """Draw evenly from `minval` (may be drawn) to `maxval` (may not); the rest as for `normal`.

    Example:
        >>> bool((uniform((100,), 2.0, 3.0) >= 2).all())
        True
    """
    device = backend.device()
    options: dict[str, Any] = {"generator": _generator(seed, device), "dtype": torch_dtype(dtype), "device": device}
    return torch.rand(tuple(shape), **options) * (maxval - minval) + minval


def randint(
    shape: Sequence[int], minval: int, maxval: int, dtype: Any = "int32", seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Draw whole numbers from `minval` to `maxval - 1`; the rest as for `normal`.

    Example:
        >>> randint((3,), 5, 6)
        tensor([5, 5, 5], dtype=torch.int32)
    """
    device = backend.device()
    options: dict[str, Any] = {"generator": _generator(seed, device), "dtype": torch_dtype(dtype), "device": device}
    return torch.randint(minval, maxval, tuple(shape), **options)


def shuffle(x: torch.Tensor, axis: int = 0, seed: int | SeedGenerator | None = None) -> torch.Tensor:
    """Return a tensor with the order along one axis drawn anew.

    Args:
        x: A tensor.
        axis: The axis to shuffle.
        seed: As for `normal`.

    Returns:
        A new tensor.

    Example:
        >>> shuffle(torch.arange(4)).sort().values
        tensor([0, 1, 2, 3])
    """
    order = torch.randperm(x.shape[axis], generator=_generator(seed, x.device), device=x.device)
    return x.index_select(axis, order)


def dropout(
    inputs: torch.Tensor, rate: float, noise_shape: Sequence[int] | None = None, seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Set a share of the values to 0 and scale the others up by `1 / (1 - rate)`.

    Args:
        inputs: A tensor.
        rate: The share, from 0 to below 1.
        noise_shape: The shape of the mask, with 1 where values share their fate; the shape of `inputs` by default.
        seed: As for `normal`.

    Returns:
        A new tensor.

    Raises:
        ValueError: For a rate outside 0 to 1.

    Example:
        >>> dropout(torch.ones(3), 0.0)
        tensor([1., 1., 1.])
    """
    if not 0 <= rate < 1:
        raise ValueError(f"`rate` must be from 0 to below 1; got {rate!r}.")
    shape = inputs.shape if noise_shape is None else tuple(noise_shape)
    if isinstance(seed, SeedGenerator):
        return inputs * seeded_mask(seed, shape, 1 - rate, inputs) / (1 - rate)
    odds = torch.full(shape, 1 - rate, dtype=inputs.dtype, device=inputs.device)
    return inputs * torch.bernoulli(odds, generator=_generator(seed, inputs.device)) / (1 - rate)
