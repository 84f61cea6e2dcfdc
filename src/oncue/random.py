"""Keras's `random`: functions that draw from a fixed seed, a `SeedGenerator`, or torch's generator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from oncue import backend
from oncue.backend import torch_dtype
from oncue.keras_names import elsewhere
from oncue.seeded_mask import seeded_mask
from oncue.seeds import SeedGenerator as SeedGenerator, generator_of as _generator


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
        dtype: The type of the values of the tensor; `backend.floatx()` by default.
        seed: A whole number for the same values in every call, a `SeedGenerator`, or None for torch's generator.

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
    """Draw uniformly from `minval` (inclusive) to `maxval` (exclusive); other arguments as for `normal`.

    Example:
        >>> bool((uniform((100,), 2.0, 3.0) >= 2).all())
        True
    """
    device = backend.device()
    if not torch_dtype(dtype).is_floating_point:
        raise ValueError(f"`uniform` draws floats; got dtype={dtype!r}. Use `randint` for whole numbers.")
    options: dict[str, Any] = {"generator": _generator(seed, device), "dtype": torch_dtype(dtype), "device": device}
    return torch.rand(tuple(shape), **options) * (maxval - minval) + minval


def randint(
    shape: Sequence[int], minval: int, maxval: int, dtype: Any = "int32", seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Draw integers from `minval` to `maxval - 1`; other arguments as for `normal`.

    Example:
        >>> randint((3,), 5, 6).tolist()
        [5, 5, 5]
    """
    device = backend.device()
    if torch_dtype(dtype).is_floating_point:
        raise ValueError(f"`randint` draws whole numbers; got dtype={dtype!r}. Use `uniform` for floats.")
    options: dict[str, Any] = {"generator": _generator(seed, device), "dtype": torch_dtype(dtype), "device": device}
    return torch.randint(minval, maxval, tuple(shape), **options)


def truncated_normal(
    shape: Sequence[int],
    mean: float = 0.0,
    stddev: float = 1.0,
    dtype: Any = None,
    seed: int | SeedGenerator | None = None,
) -> torch.Tensor:
    """Draw from a normal distribution without the values further than two standard deviations from the mean.

    Args:
        shape: The shape of the tensor.
        mean: The mean.
        stddev: The standard deviation before the tails are cut.
        dtype: As for `normal`.
        seed: As for `normal`.

    Example:
        >>> bool((truncated_normal((100,)).abs() <= 2).all())
        True
    """
    # Four draws for each number, the first within two deviations counts. All four are outside four times in a million.
    draws = normal((*shape, 4), dtype=dtype, seed=seed)
    first = ((draws > -2) & (draws < 2)).max(-1, keepdim=True)[1]
    return draws.gather(-1, first).squeeze(-1).clamp(-2, 2) * stddev + mean


def categorical(
    logits: Any, num_samples: int, dtype: Any = "int32", seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Draw classes by their logits.

    Args:
        logits: A tensor or an array of shape (rows, classes): the logarithm of each class's share.
        num_samples: How many to draw for each row.
        dtype: The type of the classes' numbers.
        seed: As for `normal`.

    Returns:
        A tensor of shape (rows, num_samples).

    Raises:
        ValueError: For logits of another shape.

    Example:
        >>> categorical([[0.0, -1000.0]], 3).tolist()
        [[0, 0, 0]]
    """
    logits = backend.as_tensor(logits)
    if logits.ndim != 2:
        raise ValueError(f"`logits` must have the shape (rows, classes); got {tuple(logits.shape)}.")
    shares = torch.softmax(logits, -1)
    draws = torch.multinomial(shares, num_samples, replacement=True, generator=_generator(seed, shares.device))
    return draws.to(torch_dtype(dtype))


def binomial(
    shape: Sequence[int], counts: Any, probabilities: Any, dtype: Any = None, seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Draw how many of several trials succeed.

    Args:
        shape: The shape of the tensor.
        counts: The number of trials; a number, a tensor or an array that broadcasts to the shape.
        probabilities: The probability that one succeeds, likewise.
        dtype: As for `normal`.
        seed: As for `normal`.

    Example:
        >>> binomial((2,), 5, 1.0)
        tensor([5., 5.])
    """
    kind = _precise(dtype)
    trials, odds = (backend.as_tensor(x).to(kind).broadcast_to(tuple(shape)) for x in (counts, probabilities))
    draws = torch.binomial(trials.contiguous(), odds.contiguous(), generator=_generator(seed, trials.device))
    return draws.to(torch_dtype(dtype))


def gamma(shape: Sequence[int], alpha: Any, dtype: Any = None, seed: int | SeedGenerator | None = None) -> torch.Tensor:
    """Draw from a gamma distribution of scale 1.

    Args:
        shape: The shape of the tensor.
        alpha: The shape parameter; a number, a tensor or an array that broadcasts to the tensor's shape.
        dtype: As for `normal`.
        seed: As for `normal`.

    Example:
        >>> bool((gamma((100,), 2.0) > 0).all())
        True
    """
    parameter = backend.as_tensor(alpha).to(_precise(dtype)).broadcast_to(tuple(shape)).contiguous()
    generator = _generator(seed, parameter.device)
    distribution = torch.distributions.Gamma(parameter, torch.ones_like(parameter))
    # It takes no generator.
    with nullcontext() if generator is None else torch.random.fork_rng([parameter.device] if parameter.is_cuda else []):
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        draws: torch.Tensor = distribution.sample()
    return draws.to(torch_dtype(dtype))


def beta(
    shape: Sequence[int], alpha: Any, beta: Any, dtype: Any = None, seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Draw from a beta distribution.

    Args:
        shape: The shape of the tensor.
        alpha: The first parameter; a number, a tensor or an array that broadcasts to the shape.
        beta: The second one.
        dtype: As for `normal`.
        seed: As for `normal`.

    Example:
        >>> draws = beta((100,), 2.0, 2.0)
        >>> bool(((draws > 0) & (draws < 1)).all())
        True
    """
    kind = _precise(dtype)
    one, other = (backend.as_tensor(x).to(kind).broadcast_to(tuple(shape)) for x in (alpha, beta))
    # Both from one generator: the same draws would go hand in hand.
    both = gamma((2, *shape), torch.stack([one, other]), kind, seed)
    return (both[0] / both.sum(0)).to(torch_dtype(dtype))


def _precise(dtype: Any) -> torch.dtype:
    """Return the type to draw in: torch has no such draws in 16 bits on the CPU."""
    kind = torch_dtype(dtype)
    return torch.float32 if kind in (torch.float16, torch.bfloat16) else kind


def shuffle(x: Any, axis: int = 0, seed: int | SeedGenerator | None = None) -> torch.Tensor:
    """Return a tensor shuffled along one axis.

    Args:
        x: A tensor or an array.
        axis: The axis to shuffle.
        seed: As for `normal`.

    Returns:
        A new tensor.

    Example:
        >>> shuffle(torch.arange(4)).sort().values
        tensor([0, 1, 2, 3])
    """
    x = backend.as_tensor(x)
    order = torch.randperm(x.shape[axis], generator=_generator(seed, x.device), device=x.device)
    shuffled: torch.Tensor = x.index_select(axis, order)
    return shuffled


def dropout(
    inputs: Any, rate: float, noise_shape: Sequence[int | None] | None = None, seed: int | SeedGenerator | None = None
) -> torch.Tensor:
    """Set a fraction of the values to 0 and scale the others up by `1 / (1 - rate)`.

    Args:
        inputs: A tensor or an array.
        rate: The fraction, from 0 to 1.
        noise_shape: The shape of the mask, which broadcasts along axes of size 1, with None where the size is that of
            `inputs`; the shape of `inputs` by default.
        seed: As for `normal`.

    Returns:
        A new tensor.

    Raises:
        ValueError: For a rate outside that range.

    Example:
        >>> dropout(torch.ones(3), 0.0)
        tensor([1., 1., 1.])
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"`rate` must be from 0 to 1; got {rate!r}.")
    values: torch.Tensor = backend.as_tensor(inputs)
    if rate == 1:
        return torch.zeros_like(values)
    shape = tuple(values.shape)
    if noise_shape is not None:
        shape = tuple([have if size is None else size for have, size in zip(shape, noise_shape, strict=True)])
    if isinstance(seed, SeedGenerator):
        return values * seeded_mask(seed, shape, 1 - rate, values) / (1 - rate)
    probability = torch.full(shape, 1 - rate, dtype=values.dtype, device=values.device)
    return values * torch.bernoulli(probability, generator=_generator(seed, values.device)) / (1 - rate)


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.random", name)
