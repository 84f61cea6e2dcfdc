"""The names under which code for older versions of Keras asks the logs for a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oncue.core.logs import ByLogName

LOG_KEYS: dict[str, tuple[str, ...]] = {
    "acc": (
        "accuracy",
        "categorical_accuracy",
        "sparse_categorical_accuracy",
        "binary_accuracy",
    ),
    "accuracy": ("acc",),
    "lr": ("learning_rate",),
    "learning_rate": ("lr",),
    "mean_absolute_error": ("mae",),
    "mae": ("mean_absolute_error",),
    "mean_squared_error": ("mse",),
    "mse": ("mean_squared_error",),
}
"""From a name that one version of Keras logs to the names of the same value in others."""


def log_names(key: str) -> Iterable[str]:
    """Return the names that may stand for an old name of a logged value.

    Example:
        >>> list(log_names("val_acc"))[0]
        'val_accuracy'
    """
    prefix, plain = ("val_", key[4:]) if isinstance(key, str) and key.startswith("val_") else ("", key)
    return [prefix + name for name in LOG_KEYS.get(plain, ())]


def old_log_names(names: Sequence[str]) -> dict[str, str]:
    """Return the old names that stand for names in a run's logs.

    Args:
        names: The names that the run logs.

    Returns:
        From each old name that is not itself logged to the logged name.

    Example:
        >>> old_log_names(["loss", "val_accuracy"])
        {'val_acc': 'val_accuracy'}
    """
    found: dict[str, str] = {}
    for prefix in ("", "val_"):
        for old, new_names in LOG_KEYS.items():
            new = next((prefix + name for name in new_names if prefix + name in names), None)
            if new is not None and prefix + old not in names:
                found[prefix + old] = new
    return found


ByLogName.old_names = staticmethod(log_names)
