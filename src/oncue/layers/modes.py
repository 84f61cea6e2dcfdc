"""Modes: which parts of a model are in training mode while it is trained, and which stay in inference mode.

`fit` puts a model in training mode, as in Keras, whatever mode it was in. But a part that the user put in inference mode by
`eval()` stays in it, as those who freeze a backbone in PyTorch expect; and so does a batch normalization of torch whose
weights are frozen, as in Keras.
"""

from __future__ import annotations

import torch

from oncue.layers.real_keras import refuse_real_keras

_STATISTICS = (
    torch.nn.BatchNorm1d,
    torch.nn.BatchNorm2d,
    torch.nn.BatchNorm3d,
    torch.nn.SyncBatchNorm,
    torch.nn.InstanceNorm1d,
    torch.nn.InstanceNorm2d,
    torch.nn.InstanceNorm3d,
)

_DROPOUT = (
    torch.nn.Dropout,
    torch.nn.Dropout1d,
    torch.nn.Dropout2d,
    torch.nn.Dropout3d,
    torch.nn.AlphaDropout,
    torch.nn.FeatureAlphaDropout,
)

_TRAINS = "_trains_in_fit"
"""The attribute of a module that is False where the user put it in inference mode, and True where oncue did so."""


_STILL = "_statistics_are_frozen"
"""The attribute of a module that is in inference mode because its weights are frozen."""

_FROZEN = "_frozen_by_trainable"
"""The attribute of a torch module whose weights are frozen because its `trainable` is False."""


def take_in(part: torch.nn.Module, training: bool) -> None:
    """Put a torch module that becomes a part of a layer in the layer's mode.

    torch's modules begin in training mode: what comes in inference mode was put in it, and is remembered.

    Args:
        part: The module.
        training: The layer's mode.

    Raises:
        TypeError: When a layer of the real Keras is in it.

    Example:
        >>> part = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5).eval())
        >>> take_in(part, training=False)
        >>> switch_on(part)
        >>> [module.training for module in part]
        [True, False]
    """
    refuse_real_keras(part)
    for module in part.modules():
        # One that has it was a part of a layer before, and may be in inference mode for that reason. Layers begin in it.
        vars(module).setdefault(_TRAINS, module.training or hasattr(module, "_trainable"))
    if part.training != training:
        part.train(training)


def switch_on(model: torch.nn.Module) -> None:
    """Put a model in training mode, but for the parts that stay in inference mode.

    Args:
        model: The model.
    """
    if model.training:
        see(model)
    else:
        # Between runs all parts are in inference mode. One that isn't was put back in training mode.
        for module in model.modules():
            if module.training:
                vars(module)[_TRAINS] = True
    model.train()
    for module in _left(model):
        module.training = False
    for module in model.modules():
        vars(module).pop(_STILL, None)
    for module in _frozen_statistics(model):
        module.training, vars(module)[_STILL] = False, True


def switch_off(model: torch.nn.Module) -> None:
    """Put a model in inference mode, and remember what was in it already because the user had put it there.

    Args:
        model: The model.
    """
    if model.training:
        see(model)
    model.eval()


def see(model: torch.nn.Module) -> None:
    """Remember which parts of a model that is in training mode the user has put in inference mode.

    Args:
        model: The model.
    """
    for module in model.modules():
        if module is not model and not vars(module).get(_STILL):
            vars(module)[_TRAINS] = module.training


def _left(model: torch.nn.Module) -> list[torch.nn.Module]:
    inside = [module for module in model.modules() if module is not model]
    left = [module for module in inside if vars(module).get(_TRAINS) is False]
    if not left:
        return []
    ends = [module for module in inside if next(module.children(), None) is None]
    # `eval()` on the whole of a module is what one calls before using it, and not meant to outlast a `fit`.
    return left if any(vars(module).get(_TRAINS) is not False for module in ends) else []


def half_trained(model: torch.nn.Module) -> list[str]:
    """Return the parts that are left in inference mode although their weights are trained, where that makes a difference.

    A dropout or a batch normalization that alone was put in inference mode is meant so.

    Args:
        model: A model that `switch_on` has put in training mode.

    Returns:
        The paths of the outermost ones; those in a module that a model was made around without the model's part of it.

    Example:
        >>> backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)).eval()
        >>> model = torch.nn.Sequential(backbone, torch.nn.Linear(2, 1))
        >>> take_in(model, training=False)
        >>> switch_on(model)
        >>> half_trained(model)
        ['0']
        >>> _ = backbone.requires_grad_(False)
        >>> half_trained(model)
        []
    """
    found: list[str] = []
    inside: set[int] = set()
    left = {id(module) for module in _left(model)}
    for path, module in model.named_modules() if left else ():
        if id(module) not in left or id(module) in inside:
            continue
        parts = list(module.modules())
        inside.update(map(id, parts))
        differ = [part for part in parts[1:] if isinstance(part, _DROPOUT + _STATISTICS) and not part.training]
        if differ and any(parameter.requires_grad for parameter in module.parameters()):
            found.append(path.removeprefix("module."))
    return found


def _frozen_statistics(model: torch.nn.Module) -> list[torch.nn.Module]:
    found: list[torch.nn.Module] = []
    for module in model.modules():
        if isinstance(module, _STATISTICS):
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                found.append(module)
                continue
        if vars(module).get("_trainable", vars(module).get("trainable")) is False:
            # A layer with modules of torch in it, or such a module that was frozen in Keras's way.
            found += [part for part in module.modules() if isinstance(part, _STATISTICS)]
    return found


def take_trainable(model: torch.nn.Module) -> None:
    """Freeze the weights of torch modules of which `trainable` was set to False, and let go of those where it is True again.

    Such a module has no such attribute itself, so that setting it as for a layer would do nothing.

    Args:
        model: The model.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        >>> model[0].trainable = False
        >>> take_trainable(model)
        >>> [parameter.requires_grad for parameter in model.parameters()]
        [False, False, True, True]
    """
    for module in model.modules():
        wanted, state = vars(module).get("trainable"), vars(module)
        if wanted is False or (wanted is True and state.get(_FROZEN)):
            module.requires_grad_(wanted)
            state[_FROZEN] = not wanted


def left_in_eval(model: torch.nn.Module) -> str:
    """Return for each module of a model whether the user has left it in inference mode, as "1" or "0"."""
    if model.training:
        see(model)
    return "".join("1" if vars(module).get(_TRAINS) is False else "0" for module in model.modules())


def leave_in_eval(model: torch.nn.Module, state: str) -> None:
    """Leave the parts of a model in inference mode that `left_in_eval` told of; the others are trained as all else is.

    Args:
        model: A model of the same modules.
        state: What it returned.
    """
    training = model.training
    for module, flag in zip(model.modules(), state, strict=False):
        if module is not model and (flag == "1") is not (vars(module).get(_TRAINS) is False):
            vars(module)[_TRAINS] = flag == "0"
            module.training = training and flag == "0"
