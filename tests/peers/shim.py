"""Loads Keras's own test files from the installed wheel, with oncue's objects where they import Keras's.

Only what a test file itself imports is replaced: the file is run with an `__import__` of its own. Keras's modules stay as
they are, so that its helpers work. What Keras makes public is found by its public name in oncue; what is private to Keras is
Keras's, unless `REPLACED` names what oncue has for it.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import pytest
import torch
from keras.src import api_export
from keras.src.utils.module_utils import LazyModule

import oncue
import oncue.models
import oncue.saving
from oncue.layers.foreign_layer import ForeignLayer
from oncue.nested import map_leaves
from oncue.training.output_losses import OutputLosses
from oncue.training.output_metrics import OutputMetrics
from oncue.training.plan import Plan
from oncue.training.trainer import Trainer

WHEEL = Path(keras.__file__).parent
# Other tensor libraries, whose tests skip themselves when they come to use one.
ABSENT = ("flax", "grain", "jax", "openvino", "orbax", "tensorflow", "tensorflow_io")
# Private names of Keras, and what oncue has in their place.
REPLACED = {
    "keras.src.models.functional.Functional": "peers.shim.Functional",
    "keras.src.saving.saving_lib.save_model": "oncue.saving.save_model",
    "keras.src.saving.saving_lib.load_model": "oncue.saving.load_model",
    "keras.src.saving.saving_lib.save_weights_only": "oncue.saving.save_weights",
    "keras.src.saving.saving_lib.load_weights_only": "oncue.saving.load_weights",
    "keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5": "oncue.saving.save_model",
    "keras.src.legacy.saving.legacy_h5_format.load_model_from_hdf5": "oncue.saving.load_model",
    "keras.src.backend.torch.trainer.TorchTrainer": "peers.shim.MixedInTrainer",
    "keras.src.losses.losses.LossFunctionWrapper": "oncue.losses.LossFunctionWrapper",
    "keras.src.trainers.data_adapters.data_adapter_utils.class_weight_to_sample_weights": (
        "oncue.feeding.batches.class_weight_to_sample_weights"
    ),
    "keras.src.trainers.compile_utils.CompileLoss": "peers.shim.CompileLoss",
    "keras.src.trainers.compile_utils.CompileMetrics": "peers.shim.CompileMetrics",
    "keras.src.callbacks.monitor_callback.MonitorCallback": "oncue.callbacks.monitor_callback.MonitorCallback",
}


class _Names:
    def __getitem__(self, thing: Any) -> str:
        return oncue.saving.get_registered_name(thing)


# Private values of Keras, by where they are, and what oncue has in their place.
PLACES = {"keras.src.saving.object_registration.GLOBAL_CUSTOM_NAMES": _Names()}
# What Keras's tests call the backend by. It takes Keras's own variables; these take oncue's.
READERS = ("convert_to_numpy", "convert_to_tensor", "is_tensor")


class _Absent:
    """What a library that isn't installed would have."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return _Absent(f"{self._name}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise unittest.SkipTest(f"needs {self._name}")

    __iter__ = __enter__ = __getitem__ = __call__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)


class _OfSymbols(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, oncue.Model) and instance._graph is not None


class Functional(metaclass=_OfSymbols):
    """Keras's private class of models made of symbolic tensors; in oncue they are of the class `Model`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a model of symbolic tensors."""
        return oncue.Model(*args, **kwargs)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """Make a model of its configuration."""
        return oncue.Model.from_config(config, custom_objects=custom_objects)


class MixedInTrainer(Trainer):
    """Keras's private class that makes a model of a layer beside which it is inherited from; oncue's is a layer itself."""

    def __init__(self) -> None:
        # The other parent has made the layer.
        self._refuse_unasked_methods()
        self._plan = Plan()
        self._changes = []


def _tensors(nested: Any) -> Any:
    """Return arrays as tensors, which is what a step has."""
    return map_leaves(lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, nested)


class CompileLoss(OutputLosses):
    """Keras's private class of the losses of all outputs."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of arrays."""
        return super().__call__(*map(_tensors, (y_true, y_pred, sample_weight)))


class CompileMetrics(OutputMetrics):
    """Keras's private class of the metrics of all outputs."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add arrays."""
        super().update_state(*map(_tensors, (y_true, y_pred, sample_weight)))


class Missing:
    """A public name of Keras that oncue hasn't."""

    def __init__(self, name: str, why: Exception) -> None:
        self.__dict__["why"] = AttributeError(f"oncue has no {name}: {why}")

    def __getattr__(self, name: str) -> Any:
        raise self.__dict__["why"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self.__dict__["why"]

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        raise self.__dict__["why"]


def _by_path(path: str) -> Any:
    """Return what is at a dotted path whose beginning is modules."""
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], 2):
        if isinstance(found, types.ModuleType) and not hasattr(found, part):
            found = importlib.import_module(".".join(parts[:index]))
        else:
            found = getattr(found, part)
    return found


def public_name(value: Any) -> str | None:
    """Return the name under which Keras makes an object public; None for what is private."""
    try:
        name: str | None = api_export.get_name_from_symbol(value)
    except TypeError:
        return None
    return name if name is None or name.startswith("keras.") else None


def _plain(value: Any) -> Any:
    """Return the value of a variable of oncue's; anything else as it is."""
    if isinstance(value, oncue.Variable):
        return value.value
    return value


def _reader(read: Callable[..., Any]) -> Callable[..., Any]:
    def reading(x: Any, *args: Any, **kwargs: Any) -> Any:
        return read(_plain(x), *args, **kwargs)

    return reading


def replacement(value: Any, path: str) -> Any:
    """Return what oncue has for an object of Keras.

    Args:
        value: The object.
        path: Where a test file found it.
    """
    if path in PLACES:
        return PLACES[path]
    if isinstance(value, types.ModuleType):
        name = value.__name__
        return facade(name) if name.split(".")[0] == "keras" else value
    if isinstance(value, LazyModule):
        # It imports another library when it is looked at.
        return value
    private = f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', None)}"
    if private in REPLACED:
        return _by_path(REPLACED[private])
    if private.startswith("keras.src.testing.test_case."):
        return getattr(load(WHEEL / "src/testing/test_case.py"), path.rsplit(".", 1)[-1])
    name = public_name(value)
    if name is None:
        last = path.rsplit(".", 1)[-1]
        return _reader(value) if last in READERS and ".backend" in path else value
    try:
        return _by_path("oncue" + name.removeprefix("keras"))
    except (AttributeError, ImportError) as error:
        return Missing(name, error)


class _Facade(types.ModuleType):
    """A module of Keras, as a test file sees it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__dict__["of"] = importlib.import_module(name)

    def __getattr__(self, name: str) -> Any:
        of = self.__dict__["of"]
        try:
            value = getattr(of, name)
        except AttributeError:
            try:
                value = importlib.import_module(f"{of.__name__}.{name}")
            except ModuleNotFoundError:
                raise AttributeError(f"module {of.__name__!r} has no attribute {name!r}") from None
        return replacement(value, f"{of.__name__}.{name}")


_facades: dict[str, types.ModuleType] = {}


def facade(name: str) -> types.ModuleType:
    """Return the module of Keras of this name, as test files see it."""
    if name.startswith("keras.src.") and name.endswith("_test"):
        return load(WHEEL / (name.removeprefix("keras.").replace(".", "/") + ".py"))
    if name not in _facades:
        _facades[name] = _Facade(name)
    return _facades[name]


_conftest = types.ModuleType("conftest")
_conftest.skip_if_backend = lambda backend, reason: pytest.mark.skipif(backend == "torch", reason=reason)  # type: ignore[attr-defined]


def _import(shimmed: bool) -> Callable[..., Any]:
    def importing(name: str, scope: Any = None, local: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        top = name.split(".")[0]
        if top in ABSENT:
            try:
                return builtins.__import__(name, scope, local, fromlist, level)
            except ImportError:
                return _Absent(name if fromlist else top)
        if name == "conftest":
            return _conftest
        if top == "keras" and level == 0:
            if shimmed:
                return facade(name if fromlist else "keras")
            if name.endswith("_test"):
                return load(WHEEL / (name.removeprefix("keras.").replace(".", "/") + ".py"))
        return builtins.__import__(name, scope, local, fromlist, level)

    return importing


def _seed_generators(of_keras: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    def found(layer: Any) -> list[Any]:
        inside = layer.inside if isinstance(layer, ForeignLayer) else layer
        # Those of oncue's layers count their draws in Python, not in variables.
        return [] if issubclass(type(inside), oncue.layers.Layer) else of_keras(inside)

    return found


_loaded: dict[Path, types.ModuleType] = {}


def load(path: Path) -> types.ModuleType:
    """Run a file of Keras's with the imports of the peer that `PEER` names, and return its module."""
    if path not in _loaded:
        name = "keras." + ".".join(path.relative_to(WHEEL).with_suffix("").parts)
        module = types.ModuleType(name)
        module.__file__ = str(path)
        module.__package__ = name.rsplit(".", 1)[0]
        shimmed = os.environ["PEER"] == "oncue"
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import(shimmed)}
        _loaded[path] = module
        # Pickles name classes by their module. Keras's own helpers stay in place.
        if path.name.endswith("_test.py"):
            sys.modules[name] = module
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        if shimmed and path.name == "test_case.py":
            module.__dict__["get_seed_generators"] = _seed_generators(module.__dict__["get_seed_generators"])
    return _loaded[path]


def fresh() -> None:
    """Seed all generators and forget what a test left behind."""
    np.random.seed(0)
    torch.manual_seed(0)
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(1337)
    oncue.backend.clear_session(free_memory=False)
