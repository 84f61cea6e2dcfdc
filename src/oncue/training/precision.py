"""Precision: the number type that `compile(precision=...)` asks for, and the forward pass in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch

from oncue.core.suggest import nearest
from oncue.layers.layer import Layer
from oncue.nested import map_leaves
from oncue.variable import torch_dtype

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer

_SPELLINGS = {
    "bf16": ("bf16", "bfloat16", "mixed_bfloat16", "bf16-mixed"),
    "fp16": ("fp16", "float16", "mixed_float16", "16-mixed", "16"),
    "fp32": ("fp32", "float32", "32", "32-true"),
}
_MEANINGS = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def weights_cast_anew() -> Iterator[None]:
    """Enclose a run: where the user's own `torch.autocast` is around it, weights are cast at each use.

    Autocast keeps what it made of a weight until its outermost block ends, whatever an optimizer does meanwhile.

    Example:
        >>> with torch.autocast("cpu"), weights_cast_anew():
        ...     torch.is_autocast_cache_enabled()
        False
    """
    before = torch.is_autocast_cache_enabled()
    if before and any(map(torch.is_autocast_enabled, _AUTOCAST)):
        torch.clear_autocast_cache()
        torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


class Precision:
    """A 16-bit type for the forward pass; weights, the optimizer, losses and metrics stay in 32 bits.

    Args:
        name: "bf16" or "fp16".

    Example:
        >>> with Precision("bf16").autocast("cpu"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dtype = _TYPES[name]

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """Return the precision that an argument of `compile` asks for; None for 32 bits.

        Args:
            value: "bf16", "fp16" or "fp32", or what Keras or Lightning call one of them; or None.

        Raises:
            ValueError: For anything else.

        Example:
            >>> Precision.of("16-mixed").name, Precision.of("fp32")
            ('fp16', None)
        """
        if value is None:
            return None
        name = _MEANINGS.get(str(value).lower().removeprefix("torch."))
        if name is None or isinstance(value, bool):
            guess = nearest(value, list(_SPELLINGS)) if isinstance(value, str) else None
            hint = "" if guess is None else f" Did you mean {guess!r}?"
            raise ValueError(
                f"`precision` must be 'bf16', 'fp16' or 'fp32' (None is the same as 'fp32'); got {value!r} of type "
                f"{type(value).__name__}.{hint}"
            )
        return None if name == "fp32" else cls(name)

    def autocast(self, device_type: str) -> torch.autocast:
        """Return torch's context in which operations that tolerate it are computed in this type."""
        return torch.autocast(device_type, self.dtype)

    def is_on(self, device_type: str) -> bool:
        """Return whether autocast to this type is on already."""
        return torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == self.dtype

    def __repr__(self) -> str:
        return f"Precision({self.name!r})"


def training_forward(
    model: Trainer, forward: Callable[[Any], Any], precision: Precision | None
) -> Callable[[Any], Any]:
    """Return the forward pass whose outputs losses and metrics get: in the model's precision, outputs of 32 bits.

    Args:
        model: A model.
        forward: What `inference_forward` returned for it.
        precision: What was given to `compile`; None for 32 bits.

    Returns:
        `forward`, and nothing around it, where all is computed in 32 bits.
    """
    if precision is not None:
        return forward
    narrow = model.input_dtype in _TYPES.values() or any(
        isinstance(part, Layer) and part.compute_dtype in ("float16", "bfloat16") for part in model.modules()
    )
    if not narrow:
        return forward
    return lambda x: in_float32(forward(x))


def inference_forward(
    model: Trainer, forward: Callable[[Any], Any], precision: Precision | None
) -> Callable[[Any], Any]:
    """Return the forward pass of `predict`: in the model's precision.

    Args:
        model: A model, compiled or not.
        forward: Its forward pass, in whatever precision it is called.
        precision: What was given to `compile`; None for 32 bits.

    Returns:
        `forward`, and nothing around it, where all is computed in 32 bits.
    """
    if precision is not None:
        device_type = model.device.type

        def run(x: Any) -> Any:
            with precision.autocast(device_type):
                outputs = forward(x)
            return in_float32(outputs)

        return run
    if getattr(model, "module", None) is not None:
        policy, device_type = model.dtype_policy, model.device.type
        if policy.compute_dtype != policy.variable_dtype:
            # A torch module is run without the call of the layer around it, which would look at its policy.
            compute = torch_dtype(policy.compute_dtype)

            def run_module(x: Any) -> Any:
                with torch.autocast(device_type, compute):
                    return forward(x)

            return run_module
    return forward


def in_float32(outputs: Any) -> Any:
    """Return outputs, nested or not, with 16-bit numbers as float32.

    Example:
        >>> in_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return map_leaves(_widened, outputs)


def _widened(leaf: Any) -> Any:
    if not isinstance(leaf, torch.Tensor) or leaf.dtype not in (torch.float16, torch.bfloat16):
        return leaf
    mask = getattr(leaf, "_keras_mask", None)
    leaf = leaf.float()
    if mask is not None:
        leaf._keras_mask = mask
    return leaf
