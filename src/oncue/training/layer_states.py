"""What layers keep besides weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from oncue.layers.rnn import RNN
from oncue.random import SeedGenerator

_KEPT_BY_LAYERS = ("_kept_states",)
"""What layers keep besides weights and the counts of draws from seeds of their own: the states of stateful RNNs."""


def layer_states(model: torch.nn.Module) -> dict[str, dict[str, Any]]:
    """Return what the layers of a model keep besides weights, by the layer's place among the modules.

    Args:
        model: The model.

    Example:
        >>> import oncue
        >>> list(layer_states(oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dropout(0.5, seed=1)])))
        ['1']
    """
    found: dict[str, dict[str, Any]] = {}
    for place, module in enumerate(model.modules()):
        own: dict[str, Any] = {}
        for name, part in vars(module).items():
            if type(part) is SeedGenerator:
                own[name] = (part._seed, part._draws)
            elif name in _KEPT_BY_LAYERS:
                own[name] = part
        if own:
            found[str(place)] = own
    return found


def set_layer_states(model: Any, states: dict[str, dict[str, Any]]) -> None:
    """Put back what `layer_states` returned.

    Args:
        model: A model of the same layers.
        states: What it returned.
    """
    modules = list(model.modules())
    for place, own in states.items():
        module = modules[int(place)]
        for name, value in own.items():
            current = vars(module).get(name)
            if isinstance(current, SeedGenerator):
                current._seed, current._draws = value
            else:
                kept = [part.to(model.device) for part in value] if isinstance(value, list) else value
                setattr(module, name, kept)


def begin_states(
    model: torch.nn.Module, trial: Callable[[], AbstractContextManager[None]], run: Callable[[], object]
) -> None:
    """Let stateful layers that have no states yet make them, of zeros, by a run of which nothing else stays.

    Args:
        model: The model.
        trial: Encloses the run, and puts back what it changes.
        run: Runs the model on a batch.
    """
    waiting = [layer for layer in model.modules() if isinstance(layer, RNN) and layer.stateful and layer.states is None]
    if not waiting:
        return
    with trial():
        run()
        made = [layer.states for layer in waiting]
    for layer, states in zip(waiting, made, strict=True):
        layer.begin(states)
