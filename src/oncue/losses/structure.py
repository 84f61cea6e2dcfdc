"""Nested lists, tuples and dicts: the outputs of a model, and what is given for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from oncue.core.suggest import unknown


class UnknownOutputError(ValueError, KeyError):
    """Something is given for an output that the model hasn't: a KeyError, as in Keras, and a ValueError, as others are."""

    # A KeyError would show it in quotes.
    __str__ = Exception.__str__


def is_nested(value: Any) -> bool:
    """Return whether `value` is a list, tuple or dict of further values."""
    return isinstance(value, (list, tuple, dict))


def several(values: Any) -> bool:
    """Return whether a list, tuple or dict holds several arrays, not the numbers of one.

    Example:
        >>> several([[1.0, 2.0], [3.0, 4.0]]), several({"a": 1})
        (False, True)
    """
    return isinstance(values, dict) or any(getattr(leaf, "ndim", 0) > 0 for _, leaf in leaves(values))


def leaves(structure: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Give every leaf of nested lists, tuples and dicts with its path.

    Dicts are walked by sorted key, the order in which Keras flattens them.

    Args:
        structure: Nested lists, tuples and dicts; anything else is a leaf.
        path: The path so far.

    Yields:
        Pairs of (path, leaf).

    Example:
        >>> list(leaves({"b": 1, "a": [2, 3]}))
        [(('a', 0), 2), (('a', 1), 3), (('b',), 1)]
    """
    if isinstance(structure, dict):
        for key in sorted(structure):
            yield from leaves(structure[key], (*path, key))
    elif isinstance(structure, (list, tuple)):
        for index, item in enumerate(structure):
            yield from leaves(item, (*path, index))
    else:
        yield path, structure


def spread(spec: Any, outputs: Any, names: Sequence[str] | None, argument: str, *, complete: bool = False) -> list[Any]:
    """Return what `spec` gives for each output, in the order of `leaves(outputs)`.

    Args:
        spec: One thing for all outputs, or a list or dict of them as the outputs are nested, or a dict by output names.
        outputs: The model's outputs: a tensor, or tensors in lists, tuples and dicts.
        names: The names of the outputs in the order of `leaves(outputs)`; None when they have none.
        argument: The argument's name, for the errors.
        complete: Whether a dict by output names must name every output.

    Returns:
        One entry for each output; None where `spec` says nothing. Where an output is a tensor and `spec` still a list,
        the entry is that list.

    Raises:
        ValueError: When `spec` and the outputs don't fit together.

    Example:
        >>> spread({"b": "mse"}, {"a": 0, "b": 0}, None, "loss")
        [None, 'mse']
    """
    count = sum(1 for _ in leaves(outputs))
    if not is_nested(outputs):
        if not isinstance(spec, dict):
            return [spec]
        if len(spec) != 1 or (names is not None and set(spec) != set(names)):
            if names == ():
                raise UnknownOutputError(
                    f"`{argument}` has {spec!r} in a place where the model returns one tensor. Give one entry there, or a list."
                )
            raise ValueError(_mismatch(spec, list(names) if names else ["the only output"], argument))
        return list(spec.values())
    if not is_nested(spec):
        return [spec] * count
    if isinstance(spec, dict):
        if isinstance(outputs, dict):
            for key in spec:
                if key not in outputs:
                    raise UnknownOutputError(str(unknown(f"output in `{argument}`", key, map(str, outputs))))
            return [part for key in sorted(outputs) for part in spread(spec.get(key), outputs[key], (), argument)]
        if names is None or len(names) != count or not set(spec) <= set(names) or (complete and len(spec) != count):
            raise ValueError(_mismatch(spec, list(names) if names else count, argument))
        return [spec.get(name) for name in names]
    children = [outputs[key] for key in sorted(outputs)] if isinstance(outputs, dict) else list(outputs)
    if len(spec) == len(children):
        pairs = zip(spec, children, strict=True)
        return [part for item, child in pairs for part in spread(item, child, (), argument)]
    if len(spec) == count and not any(is_nested(item) for item in spec):
        return list(spec)
    raise ValueError(_mismatch(spec, list(names) if names else count, argument))


def places(spec: Any, outputs: Any) -> list[tuple[tuple[Any, ...], Any]] | None:
    """Return for which outputs each of several losses is, where one at least gets several outputs together.

    Args:
        spec: Losses, nested as the outputs are or less deep. A list or tuple where the outputs aren't nested in one of its
            kind holds several losses of the same outputs.
        outputs: The model's outputs.

    Returns:
        The path of the outputs and the loss, for each in the order of `leaves(spec)`. None where each loss is for one
        output, and where `spec` and the outputs don't fit: both is for `spread`.

    Example:
        >>> places({"a": "together", "b": "alone"}, {"a": (1, 2), "b": 3})
        [(('a',), 'together'), (('b',), 'alone')]
        >>> places(["mse", "mae"], [1, 2])
    """
    if not (is_nested(outputs) and is_nested(spec)):
        return None
    found = _places(spec, outputs, ())
    if found is None or not any(loss is not None and is_nested(at(outputs, path)) for path, loss in found):
        return None
    return found


def _places(spec: Any, outputs: Any, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any]] | None:
    if not is_nested(spec):
        return [(path, spec)]
    paths = [path + inner for inner, _ in leaves(outputs)]
    parts: list[tuple[Any, Any, tuple[Any, ...]]]
    if isinstance(spec, dict):
        if not isinstance(outputs, dict) or not set(spec) <= set(outputs):
            return None
        parts = [(spec[key], outputs[key], (*path, key)) for key in sorted(spec)]
    elif len(spec) == len(paths) and not any(map(is_nested, spec)):
        return list(zip(paths, spec, strict=True))
    elif not isinstance(outputs, type(spec)):
        parts = [(item, outputs, path) for item in spec]
    elif len(spec) == len(outputs):
        parts = [(item, outputs[index], (*path, index)) for index, item in enumerate(spec)]
    else:
        return None
    found = []
    for item, part, where in parts:
        inner = _places(item, part, where)
        if inner is None:
            return None
        found += inner
    return found


def at(structure: Any, path: Sequence[Any]) -> Any:
    """Return what is at a path of `leaves`, or before its end.

    Example:
        >>> at({"a": [1, 2]}, ("a", 1))
        2
    """
    for key in path:
        structure = structure[key]
    return structure


def packed(values: Sequence[Any], outputs: Any) -> Any:
    """Return values in the order of `leaves(outputs)`, nested as the outputs are.

    Example:
        >>> packed([1, 2], {"b": 0, "a": (0,)})
        {'b': 2, 'a': (1,)}
    """
    left = iter(values)

    def pack(part: Any) -> Any:
        if isinstance(part, dict):
            made = {key: pack(part[key]) for key in sorted(part)}
            return {key: made[key] for key in part}
        if isinstance(part, (list, tuple)):
            items = [pack(item) for item in part]
            return type(part)(*items) if hasattr(part, "_fields") else type(part)(items)
        return next(left)

    return pack(outputs)


def _mismatch(spec: Any, expected: list[str] | int, argument: str) -> str:
    if isinstance(expected, int):
        return (
            f"`{argument}` must give one entry for each of the {expected} outputs, as a list of {expected}; got "
            f"{spec!r}. "
            "Entries may be None. The outputs have no names, so a dict can't be used."
        )
    wanted = ", ".join(f"{name!r}: ..." for name in expected)
    got = f"keys {sorted(map(str, spec))}" if isinstance(spec, dict) else f"{len(spec)} entries: {spec!r}"
    return (
        f"`{argument}` doesn't match the outputs {expected}: got {got}. Use {argument}={{{wanted}}}, or a list of "
        f"{len(expected)} in that order; entries may be None."
    )


def align(values: Any, outputs: Any, names: Sequence[str] | None, argument: str, wanted: Sequence[bool]) -> list[Any]:
    """Return the targets (or the sample weights) that belong to each output, in the order of `leaves(outputs)`.

    Args:
        values: Tensors, nested as the outputs are, or by output names, or only those of the outputs that are wanted.
        outputs: The model's outputs.
        names: The names of the outputs in the order of `leaves(outputs)`; None when they have none.
        argument: The argument's name, for the errors.
        wanted: For each output, whether anything is asked of it.

    Returns:
        One tensor for each output, None where there is none.

    Raises:
        ValueError: When values and outputs don't fit together.

    Example:
        >>> align([7], ["a", "b"], None, "y_true", [False, True])
        [None, 7]
    """
    paths = [path for path, _ in leaves(outputs)]
    given = dict(leaves(values))
    if list(given) == paths:
        return list(given.values())
    flat = [value for _, value in leaves(values)]
    if isinstance(values, dict) and names is not None and not isinstance(outputs, dict):
        flat = [values.get(name) for name in names]
    elif isinstance(values, dict) and isinstance(outputs, dict):
        flat = [given.get(path) for path in paths]
    elif len(flat) != len(paths) and len(flat) == sum(wanted):
        left = iter(flat)
        flat = [next(left) if want else None for want in wanted]
    if len(flat) != len(paths) or any(want and value is None for want, value in zip(wanted, flat, strict=True)):
        raise ValueError(
            f"`{argument}` must be nested as the model's outputs are. The model returns {_shape_of(outputs)}"
            f"{'' if names is None else f' named {list(names)}'}; got {_shape_of(values)}."
        )
    return flat


def _shape_of(structure: Any) -> str:
    if isinstance(structure, dict):
        return "{" + ", ".join(f"{key!r}: {_shape_of(part)}" for key, part in structure.items()) + "}"
    if isinstance(structure, (list, tuple)):
        return "[" + ", ".join(_shape_of(part) for part in structure) + "]"
    shape = getattr(structure, "shape", None)
    return type(structure).__name__ if shape is None else f"a tensor of shape {tuple(shape)}"
