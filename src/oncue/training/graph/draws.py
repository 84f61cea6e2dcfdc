"""Random numbers from a seed that a step computes: an operation that draws when a graph runs, not when it is traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from oncue.seeded_mask import seed_of_process
from oncue.training.graph.refusal import RefusalError

_DRAW = "oncue::draw"


def generator_for(seed: Tensor, of_process: bool = False) -> torch.Generator:
    """Return a generator with a seed that is the content of a tensor, for this process's rows of a batch.

    A mode for torch's functions sees a call of this function as one.

    Args:
        seed: An integer, of which the lower 32 bits count.
        of_process: Whether it comes from a state that belongs to no model, and may be replaced by another between two steps.

    Example:
        >>> torch.rand(2, generator=generator_for(torch.tensor(3))).equal(torch.rand(2, generator=torch.manual_seed(3)))
        True
    """
    if has_torch_function_unary(seed):
        seen: torch.Generator = handle_torch_function(generator_for, (seed,), seed, of_process)
        return seen
    return torch.Generator(seed.device).manual_seed(seed_of_process(int(seed)) & 0xFFFFFFFF)


class GraphGenerator(torch.Generator):
    """Stands for a generator whose seed isn't known yet; the functions of `DRAWN` draw from it.

    Args:
        seed: As for `generator_for`.

        of_process: The same.

    Raises:
        RefusalError: On another device than the CPU, and with a state of the process.
    """

    seed_in_graph: Tensor

    def __new__(cls, seed: Tensor, of_process: bool = False) -> GraphGenerator:
        """Make a generator of torch's."""
        return super().__new__(cls)

    def __init__(self, seed: Tensor, of_process: bool = False) -> None:
        if of_process:
            raise RefusalError(
                "it draws from the global seed generator of Keras, which may be replaced between two steps (keep one in the "
                "layer: `self.seeds = keras.random.SeedGenerator()`, and draw with `seed=self.seeds`)"
            )
        if seed.device.type != "cpu":
            raise RefusalError("it draws from a seed of its own, which on an accelerator would wait for the device")
        self.seed_in_graph = seed


def _known(function: Callable[..., Any], draw: Callable[..., Tensor]) -> Callable[..., Any]:
    def drawn(*args: Any, generator: Any = None, **kwargs: Any) -> Any:
        if isinstance(generator, GraphGenerator):
            return draw(generator.seed_in_graph, *args, **kwargs)
        return function(*args, generator=generator, **kwargs) if generator is not None else function(*args, **kwargs)

    return drawn


def _type(dtype: torch.dtype | None) -> torch.dtype:
    return torch.get_default_dtype() if dtype is None else dtype


def _draw(*given: Any) -> Tensor:
    found: Tensor = torch.ops.oncue.draw.default(*given)
    return found


def _rand(seed: Tensor, size: Sequence[int], *, dtype: torch.dtype | None = None, **place: Any) -> Tensor:
    return _draw(seed, "rand", [], list(size), 0.0, 0.0, _type(dtype))


def _normal(
    seed: Tensor, mean: float, std: float, size: Sequence[int], *, dtype: torch.dtype | None = None, **place: Any
) -> Tensor:
    return _draw(seed, "normal", [], list(size), float(mean), float(std), _type(dtype))


def _randint(
    seed: Tensor, low: int, high: int, size: Sequence[int], *, dtype: torch.dtype | None = None, **place: Any
) -> Tensor:
    return _draw(seed, "randint", [], list(size), low, high, torch.int64 if dtype is None else dtype)


def _bernoulli(seed: Tensor, input: Tensor) -> Tensor:
    return _draw(seed, "bernoulli", [input], list(input.shape), 0, 0, input.dtype)


def _multinomial(seed: Tensor, input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    size = [*input.shape[:-1], num_samples]
    return _draw(seed, "multinomial", [input], size, int(replacement), 0, torch.int64)


DRAWN: dict[Callable[..., Any], Callable[..., Any]] = {
    generator_for: GraphGenerator,
    torch.rand: _known(torch.rand, _rand),
    torch.normal: _known(torch.normal, _normal),
    torch.randint: _known(torch.randint, _randint),
    torch.bernoulli: _known(torch.bernoulli, _bernoulli),
    torch.multinomial: _known(torch.multinomial, _multinomial),
}
"""What is called instead of a function in a traced step."""


def _drawn(
    seed: Tensor, kind: str, chances: Sequence[Tensor], size: Sequence[int], first: Any, second: Any, dtype: torch.dtype
) -> Tensor:
    generator = generator_for(seed)
    if kind == "rand":
        return torch.rand(size, generator=generator, dtype=dtype)
    if kind == "normal":
        return torch.normal(first, second, size, generator=generator, dtype=dtype)
    if kind == "randint":
        return torch.randint(int(first), int(second), size, generator=generator, dtype=dtype)
    if kind == "bernoulli":
        return torch.bernoulli(chances[0].contiguous(), generator=generator)
    return torch.multinomial(chances[0], size[-1], bool(first), generator=generator)


def _drawn_like(
    seed: Tensor, kind: str, chances: Any, size: Any, first: Any, second: Any, dtype: torch.dtype
) -> Tensor:
    return torch.empty(size, dtype=dtype)


# A notebook that reads this file again finds the operation there.
if not hasattr(torch.ops.oncue, "draw"):
    _places = "Tensor seed, str kind, Tensor[] chances, SymInt[] size, Scalar first, Scalar second, ScalarType dtype"
    torch.library.define(_DRAW, f"({_places}) -> Tensor")
    torch.library.impl(_DRAW, "CPU", _drawn)
    torch.library.register_fake(_DRAW, _drawn_like)
