"""Keras's `dtype_policies`: in which dtype a layer computes, and in which it keeps its weights."""

from __future__ import annotations

from typing import Any, Self

from oncue import backend
from oncue.core.builtin import builtin
from oncue.core.suggest import nearest
from oncue.keras_names import elsewhere, tell_keras

_MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
_PLAIN = ("float16", "bfloat16", "float32", "float64", "bool")
_WHOLE = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


@builtin
class DTypePolicy:
    """The dtypes of a layer: that of its computations, and that of its weights.

    Layers take one as `dtype`, as an object or by its name.

    Args:
        name: "mixed_float16" or "mixed_bfloat16" to compute in 16 bits with weights of float32; or the name of one type
            for both, such as "float32". The policy of `dtype_policy()` by default.

    Raises:
        TypeError: When `name` is no string.
        ValueError: For a name that isn't a policy.

    Example:
        >>> policy = DTypePolicy("mixed_bfloat16")
        >>> policy.compute_dtype, policy.variable_dtype
        ('bfloat16', 'float32')
    """

    quantization_mode: None = None

    def __init__(self, name: str | None = None) -> None:
        if name is None:
            name = dtype_policy().name
        if not isinstance(name, str):
            raise TypeError(
                f"`name` of a DTypePolicy must be a string, such as 'mixed_float16'; got {name!r} of type "
                f"{type(name).__name__}."
            )
        if name not in (*_MIXED, *_PLAIN, *_WHOLE):
            guess = nearest(name, [*_MIXED, *_PLAIN])
            hint = "" if guess is None else f" Did you mean {guess!r}?"
            raise ValueError(
                f"`dtype` must be 'mixed_float16', 'mixed_bfloat16', or the name of a dtype such as 'float32'; "
                f"got {name!r}.{hint}"
            )
        self._name = name

    @property
    def name(self) -> str:
        """The policy's name."""
        return self._name

    @property
    def compute_dtype(self) -> str:
        """The type that inputs are cast to, and outputs have."""
        return _MIXED.get(self._name, self._name)

    @property
    def variable_dtype(self) -> str:
        """The type of the weights, which the optimizer updates."""
        return "float32" if self._name in _MIXED else self._name

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal policy."""
        return {"name": self._name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a policy from what `get_config` returned."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self._name}">'


FloatDTypePolicy = DTypePolicy


def dtype_policy() -> DTypePolicy:
    """Return the policy of layers that are given none.

    Returns:
        That of `set_dtype_policy`, else one of `oncue.backend.floatx()`.

    Example:
        >>> dtype_policy()
        <DTypePolicy "float32">
    """
    chosen = backend._settings["dtype_policy"]
    return DTypePolicy(chosen if chosen is not None else backend.floatx())


def set_dtype_policy(policy: str | DTypePolicy | None) -> None:
    """Choose the policy of layers that are made from now on.

    Args:
        policy: A policy or its name; None for that of `oncue.backend.floatx()`.

    Raises:
        ValueError: For anything but a policy.

    Example:
        >>> set_dtype_policy("mixed_bfloat16")
        >>> dtype_policy().compute_dtype
        'bfloat16'
        >>> set_dtype_policy(None)
    """
    if policy is not None and not isinstance(policy, (str, DTypePolicy)):
        raise ValueError(
            f"`policy` must be a DTypePolicy or the name of one, such as 'mixed_float16'; got {policy!r} of type "
            f"{type(policy).__name__}."
        )
    backend._settings["dtype_policy"] = None if policy is None else get(policy).name
    tell_keras("set_dtype_policy", dtype_policy().name)


def get(identifier: Any) -> DTypePolicy:
    """Return the policy that a name, a configuration, a dtype or a policy stands for.

    Args:
        identifier: One of these, of Keras or of torch; None for `dtype_policy()`.

    Returns:
        A policy.

    Raises:
        TypeError: For what can't be a policy.
        ValueError: For a name that is none.

    Example:
        >>> get({"class_name": "DTypePolicy", "config": {"name": "float32"}})
        <DTypePolicy "float32">
    """
    if isinstance(identifier, DTypePolicy):
        return identifier
    if identifier is None:
        return dtype_policy()
    if isinstance(identifier, dict):
        identifier = (identifier.get("config") or {}).get("name")
    # numpy's and torch's types, and the policies of Keras, by their names.
    name = identifier if isinstance(identifier, str) else getattr(identifier, "name", None)
    if name is None:
        name = getattr(identifier, "__name__", None) or str(identifier)
    return DTypePolicy(name.removeprefix("torch."))


def serialize(policy: DTypePolicy) -> dict[str, Any]:
    """Return a policy as Keras writes it.

    Example:
        >>> serialize(DTypePolicy("float32"))["config"]
        {'name': 'float32'}
    """
    return {"module": "keras", "class_name": "DTypePolicy", "config": policy.get_config(), "registered_name": None}


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> DTypePolicy:
    """Return the policy of what `serialize` returned."""
    return get(config)


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.dtype_policies", name)
