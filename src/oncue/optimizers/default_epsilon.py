"""The epsilon of optimizers that were given none."""

from __future__ import annotations

from oncue import backend


def default_epsilon(epsilon: float | None) -> float:
    """Return `epsilon`, or the backend's where it is None, as Keras 1 and 2 mean it.

    Args:
        epsilon: A small number, or None.

    Returns:
        A float.

    Example:
        >>> default_epsilon(None)
        1e-07
    """
    return backend.epsilon() if epsilon is None else float(epsilon)
