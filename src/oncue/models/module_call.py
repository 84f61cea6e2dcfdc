"""ModuleCall: how a torch module gets the inputs of a batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from oncue import torch_private
from oncue.core.suggest import nearest


class ModuleCall:
    """Calls a torch module with inputs of any form, by what its `forward` takes.

    A tensor is its only argument, and so is the tensor of a list of one. Several inputs in a list or tuple are its
    arguments one by one, unless `forward` has a single parameter, which then gets the list whole. A dict gives the
    parameters that have the names of its keys; a `forward` with a single parameter of another name gets it whole.

    Args:
        module: The module. Its signature is looked at once; that of the module inside, for one that `torch.compile`,
            `DataParallel` or `DistributedDataParallel` wraps.

    Example:
        >>> class Sum(torch.nn.Module):
        ...     def forward(self, parts):
        ...         return parts["a"] + parts["b"]
        >>> module = Sum()
        >>> ModuleCall(module)(module, {"a": 1, "b": 2})
        3
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._any_list = self._any_name = True
        self._names: list[str] = []
        self._one_list = self._one_dict = False
        try:
            parameters = list(inspect.signature(_innermost(module).forward).parameters.values())
        except (TypeError, ValueError):
            # Code that isn't Python's has no signature.
            return
        kinds = {parameter.kind for parameter in parameters}
        placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._any_list = inspect.Parameter.VAR_POSITIONAL in kinds
        self._any_name = inspect.Parameter.VAR_KEYWORD in kinds
        self._names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._one_list = len(placed) == 1 and not self._any_list
        self._one_dict = bool(placed) and all(p.default is not p.empty for p in parameters[1:] if p.kind in _COUNTED)

    def __call__(self, module: torch.nn.Module, inputs: Any) -> Any:
        """Run the module, or another one with the same signature.

        Raises:
            ValueError: For a dict whose keys are only in part names of parameters.
        """
        if isinstance(inputs, (tuple, list)):
            return module(inputs) if self._one_list and len(inputs) != 1 else module(*inputs)
        if isinstance(inputs, dict):
            strange = [] if self._any_name else [key for key in inputs if key not in self._names]
            if not strange:
                return module(**inputs)
            if self._one_dict and len(strange) == len(inputs):
                return module(inputs)
            raise self._misfit(module, inputs, strange)
        return module(inputs)

    def _misfit(self, module: torch.nn.Module, inputs: dict[Any, Any], strange: list[Any]) -> ValueError:
        free = [name for name in self._names if name not in inputs]
        guess = nearest(str(strange[0]), free)
        hint = "" if guess is None else f" Should {strange[0]!r} be named {guess!r}?"
        return ValueError(
            f"`forward` of {type(module).__name__} takes {', '.join(self._names)}; got a dict of "
            f"{', '.join(map(repr, inputs))}, of which {', '.join(map(repr, strange))} can't be passed.{hint}"
        )


def check_module(module: torch.nn.Module, owner: str) -> None:
    """Refuse modules that aren't Python code any more, and so can't be looked into, copied and trained as others are.

    Args:
        module: The module.
        owner: Who takes it.

    Raises:
        TypeError: For what `torch.jit` or `torch.export` made, also inside the module.
    """
    kind = ""
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        kind = "a scripted or traced module of `torch.jit`"
    elif any(isinstance(part, torch.fx.GraphModule) and not _has_modes(part) for part in module.modules()):
        kind = "an exported module of `torch.export`, which knows no training mode"
    if kind:
        raise TypeError(
            f"`{owner}` can't train {kind}. Pass the module that it was made from; `compile(jit_compile=True)` compiles "
            "whole steps."
        )


def _has_modes(module: torch.nn.Module) -> bool:
    before = [(part, part.training) for part in module.modules()]
    try:
        module.train(module.training)
    except NotImplementedError:
        return False
    for part, training in before:
        part.training = training
    return True


def wrong_inputs(inputs: Any, outputs: Any) -> TypeError:
    """Return the error for what is neither a module nor symbolic."""
    hint = ""
    if isinstance(inputs, type) and issubclass(inputs, torch.nn.Module):
        hint = f" That is a class: make a module with `{inputs.__name__}(...)`."
    elif isinstance(inputs, torch.export.ExportedProgram):
        hint = " An exported program can't be trained: pass the module that it was made from."
    elif callable(inputs):
        hint = (
            " A function has no weights to train: call it in the `forward` of a module, or in the `call` of a `Model`."
        )
    return TypeError(
        f"`Model` takes a torch.nn.Module, or `inputs` and `outputs` made from `Input(shape)`; got inputs={inputs!r:.200} "
        f"and outputs={outputs!r:.200}.{hint}"
    )


_COUNTED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def _innermost(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside those that only pass everything on to it."""
    while True:
        inner: Any = torch_private.uncompiled(module)
        if inner is None and isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            inner = module.module
        if inner is None:
            return module
        module = inner
