"""The arguments that each optimizer has besides its own, named in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypedDict

from oncue.optimizers.optimizer import Optimizer

P = ParamSpec("P")


class Options(TypedDict, total=False):
    """The arguments of `Optimizer` after `weight_decay`, in Keras's order, and those of Keras 1 and 2."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None
    lr: float
    decay: float


def takes_options(init: Callable[P, None]) -> Callable[P, None]:
    """Let an optimizer's `__init__` with `**options` show in its signature what those are, and take them by position, too.

    Args:
        init: The `__init__`, which hands `options` on to that of its parent.

    Example:
        >>> from oncue.optimizers import SGD
        >>> list(inspect.signature(SGD).parameters)[:5]
        ['learning_rate', 'momentum', 'nesterov', 'weight_decay', 'clipnorm']
        >>> SGD(0.1, 0.0, False, 0.25).weight_decay
        0.25
    """
    call: Any = init
    *own, _ = inspect.signature(init).parameters.values()
    known = {one.name for one in own}
    shared = [one for one in inspect.signature(Optimizer.__init__).parameters.values() if one.name not in known]
    signature = inspect.Signature([*own, *shared])

    @wraps(init)
    def with_options(*args: P.args, **kwargs: P.kwargs) -> None:
        given = signature.bind(*args, **kwargs).arguments
        others = given.pop("kwargs", {})
        call(**given, **others)

    with_options.__signature__ = signature  # type: ignore[attr-defined]  # which `inspect` looks for
    return with_options
