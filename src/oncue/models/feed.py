"""Matches the data passed to a functional model with the model's inputs."""

from __future__ import annotations

from typing import Any

import torch

from oncue.core.suggest import nearest
from oncue.core.warn import warn
from oncue.layers.keras_tensor import KerasTensor
from oncue.nested import flatten
from oncue.variable import torch_dtype


class Feed:
    """Turns a tensor, a list, or a dict by input name into the list of the model's inputs, with shapes checked.

    Args:
        structure: The symbolic inputs as the model's author nested them.
        optional: The names of the inputs that may be None.

    Example:
        >>> feed = Feed(KerasTensor((None, 1), name="x"), frozenset())
        >>> [tuple(tensor.shape) for tensor in feed(torch.zeros(5))]
        [(5, 1)]
    """

    def __init__(self, structure: Any, optional: frozenset[str]) -> None:
        self.structure = structure
        self._inputs: list[KerasTensor] = flatten(structure)
        self._optional = optional
        self._names = [tensor.name for tensor in self._inputs]
        self._sizes = [
            [(axis, size) for axis, size in enumerate(tensor.shape) if axis > 0 and size is not None]
            for tensor in self._inputs
        ]
        self._types = [torch_dtype(tensor.dtype) for tensor in self._inputs]
        # Warned once for each model.
        self._said = False

    def __call__(self, given: Any) -> list[Any]:
        """Return the tensors in the order of the inputs.

        Raises:
            ValueError: If an input is missing, or its rank or a size doesn't match.
        """
        flat = [given] if isinstance(given, torch.Tensor) else self._flat(given)
        if len(flat) != len(self._inputs):
            raise ValueError(
                f"The model takes {_counted(len(self._inputs))} ({', '.join(self._names)}); got {len(flat) or 'none'}"
                f"{': ' if flat else ''}{', '.join(map(_shown, flat))}."
            )
        return [self._fitted(index, value) for index, value in enumerate(flat)]

    def _flat(self, given: Any) -> list[Any]:
        structure = self.structure
        if isinstance(given, dict):
            keys = list(structure) if isinstance(structure, dict) else self._names
            missing = [key for key in keys if key not in given and key not in self._optional]
            if missing:
                guess = nearest(str(missing[0]), [str(key) for key in given if key not in keys])
                hint = f" Should {guess!r} be named '{missing[0]}'?" if guess is not None else ""
                if guess is None and len(keys) == 1 and given:
                    hint = (
                        f" Pass what {next(iter(given))!r} holds alone, without a dict, or name the input: "
                        "`Input(shape, name=...)`."
                    )
                raise ValueError(
                    f"The input '{missing[0]}' is missing: the model takes {', '.join(map(repr, keys))}; got a dict of "
                    f"{', '.join(map(repr, given)) or 'nothing'}.{hint}"
                )
            if len(given) > len(keys) and not self._said:
                self._said = True
                extra = ", ".join(repr(key) for key in given if key not in keys)
                warn(
                    f"The model takes {', '.join(map(repr, keys))}; {extra} of the dict that it was given is left out."
                )
            if isinstance(structure, dict):
                return flatten({key: given.get(key) for key in keys})
            return [given.get(key) for key in keys]
        if isinstance(structure, dict) and list(structure) != sorted(structure) and len(structure) > 1:
            raise ValueError(
                f"The model takes a dict with the keys {', '.join(map(repr, structure))}; got {_shown(given)}, whose "
                "order is ambiguous. Pass a dict."
            )
        if isinstance(structure, dict) and len(structure) > 1 and not self._said:
            self._said = True
            warn(
                f"The model takes a dict with the keys {', '.join(map(repr, structure))}, and was given {_shown(given)}: they "
                "are taken in this order. Pass a dict."
            )
        return flatten(given)

    def _fitted(self, index: int, value: Any) -> Any:
        if value is None:
            if self._names[index] in self._optional:
                return None
            raise ValueError(f"The input '{self._names[index]}' is not optional; got None. Pass a tensor.")
        expected = self._inputs[index].shape
        tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
        kind = self._types[index]
        if tensor.is_complex() and not kind.is_complex:
            raise ValueError(
                f"The input '{self._names[index]}' takes {str(kind).removeprefix('torch.')}; got complex numbers, of which "
                "only the real part would count. Pass `torch.view_as_real(x)`, or its absolute values."
            )
        if tensor.dtype != kind:
            tensor = in_kind(tensor, kind)
        rank = tensor.dim()
        if rank != len(expected):
            # As in Keras, a last axis of size 1 is added or dropped.
            if rank == len(expected) - 1 and expected[-1] == 1:
                tensor = tensor.unsqueeze(-1)
            elif rank == len(expected) + 1 and tensor.shape[-1] == 1:
                tensor = tensor.squeeze(-1)
            else:
                raise self._misfit(index, value)
        for axis, size in self._sizes[index]:
            if tensor.shape[axis] != size:
                raise self._misfit(index, value)
        return tensor

    def _misfit(self, index: int, value: Any) -> ValueError:
        return ValueError(
            f"The input '{self._names[index]}' expects the shape {self._inputs[index].shape}, where None matches any "
            f"size; got {_shown(value)}."
        )


def in_kind(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Return a tensor as floats for an input of floats, and as whole numbers, no narrower than the input's, for others.

    Floats stay of their type for an input of float32, which is what an `Input` has that isn't told another.

    Args:
        tensor: The tensor; complex numbers are left alone.
        kind: The type of the input.

    Example:
        >>> in_kind(torch.tensor([200], dtype=torch.uint8), torch.float32) * 2
        tensor([400.])
    """
    if tensor.is_complex():
        return tensor
    if tensor.is_floating_point() and kind.is_floating_point:
        # An input that isn't told a type takes any floats: layers cast them.
        return tensor if kind == torch.float32 else tensor.to(kind)
    if kind.is_floating_point or tensor.is_floating_point():
        return tensor.to(kind)
    return tensor.to(torch.promote_types(tensor.dtype, kind))


def _counted(inputs: int) -> str:
    return "1 input" if inputs == 1 else f"{inputs} inputs"


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"a tensor of shape {tuple(shape)}"
