"""The table of hooks: the only place where a hook is spelled. Everything that knows hooks derives from it."""

from __future__ import annotations

HOOKS: dict[str, tuple[str, ...]] = {
    "on_train_begin": ("logs",),
    "on_train_end": ("logs",),
    "on_test_begin": ("logs",),
    "on_test_end": ("logs",),
    "on_validation_end": ("batch", "logs"),
    "on_predict_begin": ("logs",),
    "on_predict_end": ("logs",),
    "on_epoch_begin": ("epoch", "logs"),
    "on_epoch_end": ("epoch", "logs"),
    "on_train_batch_begin": ("batch", "logs"),
    "on_train_batch_end": ("batch", "logs"),
    "on_test_batch_begin": ("batch", "logs"),
    "on_test_batch_end": ("batch", "logs"),
    "on_predict_batch_begin": ("batch", "logs"),
    "on_predict_batch_end": ("batch", "logs"),
    "on_exception": ("exception",),
    "close": (),
}
"""Each hook and the arguments it is called with, in order."""

ALIASES: dict[str, str] = {
    "on_batch_begin": "on_train_batch_begin",
    "on_batch_end": "on_train_batch_end",
}
"""Names of Keras 1 and 2, and the hook they stand for."""

ENDS: tuple[str, ...] = ("on_exception", "close")
"""The hooks of the two endings that Keras doesn't have; they are dispatched one callback at a time."""


def arguments_of(name: str) -> tuple[str, ...]:
    """Return the arguments of a hook or of an old name of one.

    Example:
        >>> arguments_of("on_batch_end")
        ('batch', 'logs')
    """
    return HOOKS[ALIASES.get(name, name)]
