"""Initializers that draw: normal, uniform, truncated normal, orthogonal.

Without a seed torch's default generator decides, so `torch.manual_seed` and `set_random_seed` reach them. With a seed a
generator of their own does: the same values as Keras draws on its torch backend, for a whole number at each call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from oncue import objects
from oncue.backend import torch_dtype
from oncue.core.builtin import builtin
from oncue.core.numbers import plain, whole_of
from oncue.initializers.initializer import Initializer
from oncue.seeds import SeedGenerator, generator_of


class RandomInitializer(Initializer):
    """The base of initializers that draw.

    Args:
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.

    Raises:
        ValueError: For a seed that is none of these.
    """

    def __init__(self, seed: int | SeedGenerator | None = None) -> None:
        if isinstance(seed, dict):
            # From a configuration.
            seed = objects.resolve("seed", seed, {"SeedGenerator": SeedGenerator})
        if seed is None or isinstance(seed, SeedGenerator):
            self.seed: int | SeedGenerator | None = seed
        else:
            self.seed = whole_of(seed)
            if self.seed is None:
                raise ValueError(
                    f"`seed` must be a whole number, a `SeedGenerator` or None; got {seed!r} of type {type(seed).__name__}."
                )

    def generator(self) -> torch.Generator | None:
        """Return a generator at the seed, or None for torch's default one."""
        return generator_of(self.seed)

    def get_config(self) -> dict[str, Any]:
        """Return the seed."""
        return {"seed": self._written_seed()}

    def _written_seed(self) -> Any:
        return objects.to_config(self.seed, "keras.random") if isinstance(self.seed, SeedGenerator) else self.seed

    def _normal(self, shape: Sequence[int], dtype: torch.dtype, mean: float, stddev: float) -> torch.Tensor:
        return torch.normal(mean, stddev, size=tuple(shape), generator=self.generator(), dtype=dtype)

    def _uniform(self, shape: Sequence[int], dtype: torch.dtype, low: float, high: float) -> torch.Tensor:
        return (high - low) * torch.rand(tuple(shape), generator=self.generator(), dtype=dtype) + low

    def _truncated(self, shape: Sequence[int], dtype: torch.dtype, mean: float, stddev: float) -> torch.Tensor:
        # Four draws for each number, the first within two deviations counts: no loop over rejected ones. That all four
        # are outside happens four times in a million; those are clamped.
        draws = self._normal((*shape, 4), dtype, 0.0, 1.0)
        first = ((draws > -2) & (draws < 2)).max(-1, keepdim=True)[1]
        return draws.gather(-1, first).squeeze(-1).clamp_(-2, 2).mul_(stddev).add_(mean)


@builtin
class RandomNormal(RandomInitializer):
    """Draws from a normal distribution.

    Args:
        mean: The mean.
        stddev: The standard deviation.
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.

    Example:
        >>> RandomNormal(stddev=0.1, seed=1)((2, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | SeedGenerator | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = plain(mean), plain(stddev)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Draw."""
        return self._normal(shape, torch_dtype(dtype), self.mean, self.stddev)

    def get_config(self) -> dict[str, Any]:
        """Return seed, mean and stddev."""
        return {"seed": self._written_seed(), "mean": self.mean, "stddev": self.stddev}


@builtin
class TruncatedNormal(RandomNormal):
    """Draws from a normal distribution, without the values further than two standard deviations from the mean.

    Args:
        mean: The mean.
        stddev: The standard deviation before the tails are cut.
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.

    Example:
        >>> bool((TruncatedNormal(stddev=1.0)((100,)).abs() <= 2).all())
        True
    """

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Draw."""
        return self._truncated(shape, torch_dtype(dtype), self.mean, self.stddev)


@builtin
class RandomUniform(RandomInitializer):
    """Draws from a uniform distribution between two bounds.

    Args:
        minval: The lower bound.
        maxval: The upper bound, not reached itself.
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.

    Example:
        >>> bool((RandomUniform(-1, 1)((100,)).abs() <= 1).all())
        True
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | SeedGenerator | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = plain(minval), plain(maxval)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Draw."""
        return self._uniform(shape, torch_dtype(dtype), self.minval, self.maxval)

    def get_config(self) -> dict[str, Any]:
        """Return seed and bounds."""
        return {"seed": self._written_seed(), "minval": self.minval, "maxval": self.maxval}


@builtin
class Orthogonal(RandomInitializer):
    """A matrix with orthogonal rows or columns: the Q of a random matrix's QR decomposition (Saxe et al., 2014).

    More than two axes are taken as a matrix of all but the last one by the last one.

    Args:
        gain: A factor on the matrix.
        seed: A whole number for the same values at each call, a `random.SeedGenerator` for others at each, or None.

    Raises:
        ValueError: When called for a shape of fewer than two axes.

    Example:
        >>> q = Orthogonal()((3, 3))
        >>> torch.allclose(q @ q.T, torch.eye(3), atol=1e-6)
        True
    """

    def __init__(self, gain: float = 1.0, seed: int | SeedGenerator | None = None) -> None:
        super().__init__(seed)
        self.gain: float = plain(gain)

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        """Draw, and decompose."""
        if len(shape) < 2:
            raise ValueError(f"Orthogonal makes matrices, so `shape` must have 2 axes or more; got {tuple(shape)}.")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        wanted = torch_dtype(dtype)
        # torch has no decomposition for half the precision.
        precise = wanted if wanted in (torch.float32, torch.float64) else torch.float32
        draws = self._normal((max(rows, columns), min(rows, columns)), precise, 0.0, 1.0)
        q, r = torch.linalg.qr(draws)
        # Without the signs of R's diagonal, Q would not be uniformly distributed over the orthogonal matrices.
        q = q * torch.diagonal(r).sign()
        matrix: torch.Tensor = q.T if rows < columns else q
        return (self.gain * matrix.reshape(tuple(shape))).to(wanted)

    def get_config(self) -> dict[str, Any]:
        """Return seed and gain."""
        return {"seed": self._written_seed(), "gain": self.gain}
