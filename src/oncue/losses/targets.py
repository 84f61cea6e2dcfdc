"""Targets that can't be right for a loss, found before training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from oncue.core.warn import warn
from oncue.losses.lookup import FUNCTIONS, get
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import as_tensor, refuse_complex
from oncue.losses.structure import is_nested, several
from oncue.losses.torch_loss import TorchLoss

_NEVER_REPEATED = frozenset(("binary_crossentropy", "binary_focal_crossentropy", "categorical_crossentropy"))
"""Losses that in Keras too refuse shapes which aren't the same."""

_OURS = {function: function.__name__ for function in FUNCTIONS.values()}


def check_targets(loss: Any, y_true: Any, y_pred_shape: Sequence[int | None], told: set[str] | None = None) -> None:
    """Refuse targets that a loss would silently misread, or that would stop the device in the middle of an epoch.

    Reads `y_true`, so it belongs before training: on the host's data, or on the first batch.

    Args:
        loss: A loss, a loss function or a name, as for `get`. Functions of the user's own are not judged.
        y_true: The target, shape (samples, ...).
        y_pred_shape: The shape of the prediction; the first axis is not compared, axes of None fit everything.
        told: The warnings that were given, which aren't given again.

    Raises:
        ValueError: When shapes or values don't fit the loss; the message says what to type instead. Where Keras goes on
            and repeats axes of size 1, there is only a warning.

    Example:
        >>> check_targets("sparse_categorical_crossentropy", [0, 1, 3], (None, 3))
        Traceback (most recent call last):
        ...
        ValueError: `sparse_categorical_crossentropy` needs class labels from 0 to 2 for 3 classes ...
    """
    loss = get(loss)
    if loss is None or (is_nested(y_true) and several(y_true)):
        return
    if isinstance(loss, TorchLoss):
        _check_torch(loss.module, as_tensor(y_true, "y_true"), tuple(y_pred_shape))
        return
    function, options = (loss.fn, loss._fn_kwargs) if isinstance(loss, LossFunctionWrapper) else (loss, {})
    name = _OURS.get(function)
    if name is None:
        return
    target, shape = as_tensor(y_true, "y_true"), tuple(y_pred_shape)
    refuse_complex(target, "y_true")
    if name == "sparse_categorical_crossentropy":
        _check_labels(name, target, shape, options.get("axis", -1), options.get("ignore_class"))
        return
    if name in ("categorical_crossentropy", "categorical_focal_crossentropy", "categorical_hinge"):
        _check_one_hot(name, target, shape)
    _check_shape(name, target, shape, set() if told is None else told)
    if name in ("binary_crossentropy", "binary_focal_crossentropy"):
        _check_range(name, target)


def _fits(target: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    a, b = list(target[1:]), list(shape[1:])
    if len(a) != len(b):
        longer, shorter = (a, b) if len(a) > len(b) else (b, a)
        if len(longer) != len(shorter) + 1 or longer[-1] != 1:
            return False
        longer.pop()
    return all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _is_repeated(target: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Return whether one of two shapes that don't fit can be repeated along axes, as NumPy does, to fit the other."""
    ours, theirs = list(target), [target[0] if target else 1, *shape[1:]]
    if len(ours) == len(theirs) + 1 and ours[-1] == 1:
        ours.pop()
    elif len(theirs) == len(ours) + 1 and theirs[-1] == 1:
        theirs.pop()
    return all(None in (a, b) or a == b or 1 in (a, b) for a, b in zip(ours[::-1], theirs[::-1], strict=False))


def _check_shape(name: str, target: Tensor, shape: tuple[int | None, ...], told: set[str]) -> None:
    if _fits(tuple(target.shape), shape):
        return
    if name not in _NEVER_REPEATED and not name.startswith("torch.") and _is_repeated(tuple(target.shape), shape):
        told_of = f"{name} {tuple(target.shape[1:])} {shape[1:]}"
        if told_of not in told:
            told.add(told_of)
            warn(
                f"`{name}` compares `y_true` of shape {tuple(target.shape)} with `y_pred` of shape {shape}: axes of one are "
                "repeated along the other's, as in NumPy, so each value of one is compared with several of the other. If "
                f"that isn't meant, give the last layer {target.shape[-1] if target.ndim > 1 else 1} units, or reshape `y`."
            )
    else:
        raise ValueError(
            f"`{name}` compares element by element, but `y_true` has the shape {tuple(target.shape)} and `y_pred` "
            f"{shape}. Give the last layer {target.shape[-1] if target.ndim > 1 else 1} units, or reshape `y`."
        )


def _check_one_hot(name: str, target: Tensor, shape: tuple[int | None, ...]) -> None:
    classes = shape[-1]
    if classes == 1:
        raise ValueError(
            f"`{name}` needs one output for each class, but `y_pred` has the shape {shape}: one output. For two "
            f"classes "
            "use 'binary_crossentropy' with a sigmoid."
        )
    labels = len(target.shape) == len(shape) - 1 or (target.ndim == len(shape) and target.shape[-1] == 1)
    if labels and classes is not None:
        raise ValueError(
            f"`{name}` needs one-hot targets of shape {('samples', *shape[1:])}, but `y_true` has the shape "
            f"{tuple(target.shape)}: these look like class labels. Use loss='sparse_categorical_crossentropy', or "
            f"`keras.utils.to_categorical(y, {classes})`."
        )


def _check_labels(name: str, target: Tensor, shape: tuple[int | None, ...], axis: int, ignored: int | None) -> None:
    classes = shape[axis]
    rest = list(shape)
    del rest[axis]
    if target.ndim == len(shape) and target.shape[axis] == classes and classes != 1:
        instead = "give it as floats" if name.startswith("torch.") else "use loss='categorical_crossentropy'"
        raise ValueError(
            f"`{name}` needs integer class labels of shape {('samples', *rest[1:])}, but `y_true` has the shape "
            f"{tuple(target.shape)}: it looks one-hot. For one-hot targets {instead}; for labels use "
            f"`y.argmax({axis})`."
        )
    if not _fits(tuple(target.shape), tuple(rest)):
        raise ValueError(
            f"`{name}` needs class labels of shape {('samples', *rest[1:])} for `y_pred` of shape {shape}; got "
            f"`y_true` "
            f"of shape {tuple(target.shape)}."
        )
    counted = target if ignored is None else target[target != ignored]
    if counted.numel() == 0 or classes is None:
        return
    least, most = counted.min().item(), counted.max().item()
    if counted.is_floating_point() and not bool((counted == counted.floor()).all()):
        raise ValueError(
            f"`{name}` needs whole numbers as class labels; got values such as "
            f"{counted[counted != counted.floor()][0].item():g}."
        )
    if least < 0 or most >= classes:
        hint = (
            "With one output and labels 0 and 1 use 'binary_crossentropy'."
            if classes == 1
            else f"Give the last layer {int(most) + 1} units, or renumber the labels from 0."
            if least >= 0
            else "Renumber the labels from 0, or name the label to skip: "
            f"SparseCategoricalCrossentropy(ignore_class={int(least)})."
        )
        raise ValueError(
            f"`{name}` needs class labels from 0 to {classes - 1} for {classes} classes (`y_pred` has the shape "
            f"{shape}); got labels from {least:g} to {most:g}. {hint}"
        )


def _check_range(name: str, target: Tensor) -> None:
    if target.numel() == 0:
        return
    least, most = float(target.min()), float(target.max())
    if math.isnan(least) or least < 0.0 or most > 1.0:
        hint = (
            "For labels -1 and 1 use 'hinge', or (y + 1) / 2."
            if least == -1.0
            else "For class labels use 'sparse_categorical_crossentropy'; scale other targets to 0 ... 1."
        )
        raise ValueError(f"`{name}` needs targets from 0 to 1; got values from {least:g} to {most:g}. {hint}")


def _check_torch(module: nn.Module, target: Tensor, shape: tuple[int | None, ...]) -> None:
    name = f"torch.nn.{type(module).__name__}"
    if isinstance(module, (nn.CrossEntropyLoss, nn.NLLLoss)):
        if not (target.ndim == len(shape) and target.is_floating_point() and isinstance(module, nn.CrossEntropyLoss)):
            _check_labels(name, target, shape, 1 if len(shape) > 1 else 0, int(str(module.ignore_index)))
    elif isinstance(module, (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)):
        _check_shape(name, target, shape, set())
        if isinstance(module, (nn.BCELoss, nn.BCEWithLogitsLoss)):
            _check_range(name, target)
