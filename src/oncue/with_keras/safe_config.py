"""Checks of what a file says a model of Keras is made of, before Keras makes it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from oncue.saving import guard
from oncue.with_keras import keras_private

_CODE = "which is code in the file"
_REFUSED = {
    "__lambda__": _CODE,
    "__typespec__": "which imports what the file names",
    "TorchModuleWrapper": "which is a pickle, and runs code when it is opened",
    "TFSMLayer": "which reads and runs another file",
    "JaxLayer": "which is code in the file",
    "FlaxLayer": "which is code in the file",
}
"""What a file may not have, whatever `custom_objects` are given, and why."""

_FUNCTIONS = ("activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers")
"""The modules of Keras whose functions a file may name."""

_THRESHOLDS = 1 << 20

_FACTORIES = frozenset(
    {torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand, torch.randn, torch.zeros}
    | {torch.randint, torch.randperm, torch.logspace, torch.empty_strided}
)


def check_config(config: Any, source: Any, custom_objects: dict[str, Any] | None = None) -> None:
    """Refuse a configuration that names anything but parts of Keras and classes and functions of the user's.

    Args:
        config: What `guard.read_json` gave.
        source: The file, for messages.
        custom_objects: The user's own classes and functions by name; those that are registered with Keras are known, too.

    Raises:
        ValueError: For code in the file, classes that read or run other files, names by a path of modules, files that a
            layer would read, and shapes that no sample has.

    Example:
        >>> check_config({"class_name": "function", "module": "os", "config": "system"}, "m.keras")
        Traceback (most recent call last):
        ...
        ValueError: 'm.keras' was not loaded: it names os.system, which is no part of Keras. Give your own classes and \
functions in `custom_objects`, by these names, or register them with `@keras.saving.register_keras_serializable()`.
    """
    import keras

    guard.check_layers(config, source)
    # An object of the user's counts before one of Keras's of that name.
    known = {**keras.saving.get_custom_objects(), **(custom_objects or {})}
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                _check_named(value, source, known)
            for key, item in value.items():
                _check_entry(key, item, source)
                waiting.append(item)


def _check_entry(key: str, item: Any, source: Any) -> None:
    if key in ("vocabulary", "idf_weights") and isinstance(item, str):
        guard.refuse(source, f"its `{key}` is the path of another file, {item[:200]!r}.")
    if key == "num_thresholds" and isinstance(item, int) and item > _THRESHOLDS:
        guard.refuse(source, f"a metric has {item} thresholds.")
    guard.check_entry(key, item, source)


def _check_named(value: dict[str, Any], source: Any, known: dict[str, Any]) -> None:
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    last = name.rpartition(">")[2]
    if last in _REFUSED:
        guard.refuse(
            source,
            f"it has a {last}, {_REFUSED[last]}. Make the model by its own code, and load its weights with `load_weights`.",
        )
    if last == "Lambda":
        guard.check_lambda(config, source)
    if name == "function" and isinstance(config, str):
        if not (_is_function(config, known) or _stands_for(config, known)):
            _refuse_name(source, module, config)
    elif name in known or value.get("registered_name") in known or name.startswith("__"):
        return
    elif "registered_name" in value if module is None else not _is_class(str(module), name):
        # Keras 1 and 2 wrote neither, and what they name is looked up in Keras alone.
        _refuse_name(source, module, name)


def _is_function(name: str, known: dict[str, Any]) -> bool:
    return name in known or any(key.endswith(f">{name}") for key in known)


def _stands_for(name: str, known: dict[str, Any]) -> bool:
    import keras

    return any(callable(getattr(getattr(keras, module), name, None)) for module in _FUNCTIONS) and "." not in name


def _is_class(module: str, name: str) -> bool:
    package, *steps = module.split(".")
    if package not in ("keras", "keras_hub"):
        return False
    # What isn't imported by now is not imported because a file names it.
    home: Any = sys.modules.get(module)
    if home is None:
        # Keras has shown modules under other names than their own.
        home = sys.modules.get(package)
        for step in steps:
            home = getattr(home, step, None) if isinstance(home, ModuleType) else None
    found = getattr(home, name, None) if isinstance(home, ModuleType) else None
    return isinstance(found, type) and issubclass(found, keras_private.built_in_kinds())


def _refuse_name(source: Any, module: Any, name: str) -> None:
    guard.refuse(
        source,
        f"it names {name if module in (None, 'builtins') else f'{module}.{name}'}, which is no part of Keras. Give your own "
        "classes and functions in `custom_objects`, by these names, or register them with "
        "`@keras.saving.register_keras_serializable()`.",
    )


class Allowance(TorchFunctionMode):
    """Refuses, in a `with` block, to make more numbers than a file accounts for, before there is memory for them.

    Args:
        numbers: How many numbers the file has.
        source: The file, for messages.

    Example:
        >>> with Allowance(10, "m.keras"):
        ...     torch.zeros(10**12)
        Traceback (most recent call last):
        ...
        ValueError: 'm.keras' was not loaded: its configuration asks for 1000000000000 numbers at once, and 10 are in the file.
    """

    def __init__(self, numbers: int, source: Any) -> None:
        super().__init__()
        self._numbers, self._source = numbers, source
        # First values take some more than they come to, and so does an optimizer that had no state yet.
        self._left = 16 * numbers + (1 << 26)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what a function makes that makes tensors of given sizes."""
        kwargs = kwargs or {}
        if func is torch.linalg.qr:
            # Of orthogonal first values, which take minutes and are replaced by those in the file.
            rows, columns = args[0].shape[-2:]
            least = min(rows, columns)
            # In torch's own order in memory, which the weights keep, and by which sums are rounded.
            return args[0].new_ones(least, rows).mT, args[0].new_ones(columns, least).mT
        if func in _FACTORIES and str(kwargs.get("device")) != "meta":
            given = {key: value for key, value in kwargs.items() if key not in ("generator", "out", "pin_memory")}
            count = func(*args, **{**given, "device": "meta"}).numel()
            self._left -= count
            if self._left < 0:
                guard.refuse(
                    self._source,
                    f"its configuration asks for {count} numbers at once, and {self._numbers} are in the file.",
                )
        return func(*args, **kwargs)
