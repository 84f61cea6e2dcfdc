"""The parameters behind what an optimizer is built for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from oncue.variable import Variable


def tensor_of(variable: Any) -> Tensor:
    """Return the parameter that a variable is or holds.

    Args:
        variable: A torch parameter, or an object whose `.value` is one.

    Returns:
        The parameter.

    Raises:
        ValueError: When it is neither.

    Example:
        >>> import torch
        >>> tensor_of(torch.nn.Parameter(torch.zeros(1))).shape
        torch.Size([1])
    """
    if isinstance(variable, Variable):
        return variable.stored
    tensor = variable if isinstance(variable, Tensor) else getattr(variable, "value", None)
    if not isinstance(tensor, Tensor):
        raise ValueError(
            "`variables` must be torch parameters, or objects whose `.value` is one, such as "
            f"`model.trainable_variables`; got {variable!r} of type {type(variable).__name__}."
        )
    return tensor


def built_parameters(variables: list[Any], known: Sequence[Tensor] = ()) -> tuple[list[Tensor], list[str]]:
    """Return the parameters behind variables, and what to call each in a message.

    Args:
        variables: Torch parameters, or objects whose `.value` is one.
        known: Parameters that may be frozen, because the optimizer has them already.

    Returns:
        The parameters and their labels.

    Raises:
        ValueError: When one is not a parameter, can't be trained, or comes twice.

    Example:
        >>> import torch
        >>> built_parameters([torch.nn.Parameter(torch.zeros(2))])[1]
        ['variable 0 of shape (2,)']
    """
    parameters = [tensor_of(variable) for variable in variables]
    labels, held = [], {id(parameter) for parameter in known}
    for position, (variable, parameter) in enumerate(zip(variables, parameters, strict=True)):
        name = getattr(variable, "path", None) or getattr(variable, "name", None)
        label = name if isinstance(name, str) else f"variable {position} of shape {tuple(parameter.shape)}"
        if not (parameter.is_leaf and parameter.requires_grad) and id(parameter) not in held:
            raise ValueError(f"`variables` must be trainable parameters; {label} does not require a gradient.")
        labels.append(label)
    if len({id(parameter) for parameter in parameters}) != len(parameters):
        raise ValueError("`variables` has the same parameter twice; give each once.")
    return parameters, labels
