"""LambdaCallback: hooks given as functions."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.hooks import ALIASES, HOOKS

Hook = Callable[..., Any] | None


@builtin
class LambdaCallback(Callback):
    """A callback made from functions, one for each hook that matters.

    Epoch hooks are called with `(epoch, logs)`, batch hooks with `(batch, logs)`, the others with `(logs)`;
    `on_exception` with `(exception)`, `close` with nothing.

    Args:
        on_epoch_begin: Called when an epoch starts.
        on_epoch_end: Called when an epoch has finished.
        on_train_begin: Called when `fit` starts.
        on_train_end: Called when `fit` has finished.
        on_train_batch_begin: Called before a training batch.
        on_train_batch_end: Called after a training batch.
        **kwargs: Any other hook by its name, the old `on_batch_begin` and `on_batch_end` too; anything else becomes an
            attribute of the callback.

    Raises:
        TypeError: For a hook's value that can't be called, or a misspelt hook.

    Example:
        >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
        >>> callback.on_epoch_end(0, {"loss": 0.5})
        0 0.5
    """

    def __init__(
        self,
        on_epoch_begin: Hook = None,
        on_epoch_end: Hook = None,
        on_train_begin: Hook = None,
        on_train_end: Hook = None,
        on_train_batch_begin: Hook = None,
        on_train_batch_end: Hook = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        kwargs.update(
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=on_epoch_end,
            on_train_begin=on_train_begin,
            on_train_end=on_train_end,
            on_train_batch_begin=on_train_batch_begin,
            on_train_batch_end=on_train_batch_end,
        )
        known = (*HOOKS, *ALIASES)
        for name, value in kwargs.items():
            if name in known:
                if value is None:
                    continue
                if not callable(value):
                    raise TypeError(f"`{name}` must be a function; got {value!r} of type {type(value).__name__}.")
            elif name.startswith("on_"):
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else f" The hooks are: {', '.join(known)}."
                raise TypeError(f"LambdaCallback: `{name}` is no hook.{hint}")
            setattr(self, name, value)
