"""Losses and outputs that don't go together, which only show in curves that stay bad: said before the first step."""

from __future__ import annotations

from typing import Any

import torch

from oncue.core.warn import warn
from oncue.losses.structure import leaves
from oncue.training.output_losses import OutputLosses

_CLOSE = 1e-3


def warn_of_pairings(losses: OutputLosses, outputs: Any, model: torch.nn.Module) -> None:
    """Warn of a softmax over one unit, of logits where a loss expects probabilities, and the other way round.

    It looks at the outputs for the first batch, so that it holds for layers of any library.

    Args:
        losses: The losses, built.
        outputs: What the model gave for a batch.
        model: The model, whose last module says what a single number has been through.
    """
    found = [output for _, output in leaves(outputs)]
    last = _last_activation(model) if len(found) == 1 else ""
    for part in losses.parts:
        output = found[part.output]
        if (
            isinstance(output, torch.Tensor)
            and output.is_floating_point()
            and output.numel()
            and output.device.type != "meta"
        ):
            text = _wrong(part.loss.takes, part.loss.name, output.detach(), last)
            if text:
                warn(text)
                return


def _wrong(takes: str, loss: str, output: torch.Tensor, last: str) -> str:
    units = output.shape[-1] if output.ndim > 1 else 1
    if units == 1 and last == "softmax":
        return (
            "The model ends in a softmax over one unit, which is 1 whatever its inputs are, so that nothing can be learned. "
            "Use activation='sigmoid' with loss='binary_crossentropy' for two classes, or as many units as there are classes."
        )
    if not takes:
        return ""
    low, high = (float(value) for value in torch.stack([output.min(), output.max()]).tolist())
    binary = units == 1 or loss.startswith("binary")
    # Keras's losses for several classes divide by the sum of a row, so that numbers above 1 are right.
    if takes == "probabilities" and (low < -_CLOSE or (binary and high > 1 + _CLOSE)):
        kind = "sigmoid" if binary else "softmax"
        return (
            f"The loss {loss} expects probabilities, and the outputs of the model go from {low:.3g} to {high:.3g}. Use "
            f"activation='{kind}' in the last layer, or the loss's class with `from_logits=True`."
        )
    inside = low >= 0 and high <= 1 + _CLOSE
    sums = output.sum(-1)
    if takes == "logits" and units > 1 and inside and bool(((sums - 1).abs() < _CLOSE).all()):
        return (
            f"The loss {loss} takes logits, to which it applies a softmax itself, and the outputs of the model have been "
            "through one: each row adds up to 1. Leave out the activation of the last layer, or the loss's `from_logits=True`."
        )
    if takes == "logits" and inside and last == "sigmoid":
        return (
            f"The loss {loss} takes logits, to which it applies a sigmoid itself, and the model ends in one. Leave out the "
            "activation of the last layer, or the loss's `from_logits=True`."
        )
    return ""


def _last_activation(model: torch.nn.Module) -> str:
    last = list(model.modules())[-1]
    if isinstance(last, (torch.nn.Softmax, torch.nn.Sigmoid)):
        return type(last).__name__.lower()
    return str(getattr(getattr(last, "activation", None), "__name__", type(last).__name__)).lower()
