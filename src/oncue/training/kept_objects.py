"""Objects with a state of their own that callbacks and models hold: schedulers, further optimizers, random generators."""

from __future__ import annotations

import copy
import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from itertools import chain, islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from oncue.checkpoints.encoding import encode
from oncue.core.builtin import is_builtin
from oncue.core.protocols import inner_optimizer_of, optimizer_of
from oncue.core.state import Stateful
from oncue.core.warn import warn
from oncue.metrics.metric import Metric
from oncue.optimizers.optimizer import Optimizer
from oncue.random_state import GENERATORS, generator_state, set_generator_state
from oncue.training.graph.code_names import codes
from oncue.variable import Variable

_LARGEST = 1000
"""How many items of a list are looked at."""
_FARTHEST = 6
"""How many steps from a callback or a module are looked at."""
_MOST, _COST = 100_000, 10
"""How many plain things are looked at in all, beside attributes of callbacks and modules; for how many another one counts."""


class KeptObjects:
    """The schedulers, further optimizers, random generators and the like that callbacks and the model hold, and their states.

    They are found once, when a run begins: in attributes, lists and dicts, in the variables around functions, and in the
    global variables of the file that the methods of callbacks and of the model's classes use. What has `state_dict` and
    `load_state_dict` is kept, and Variables that belong to no layer, and random generators of Python, NumPy and torch.

    No error of such an object ends the run: it is named in a warning, and left out.

    Args:
        model: A built model.
        callbacks: The callbacks of the run.
        parts: The modules of the model, each with its path, where it is a module of torch.

    Example:
        >>> import oncue
        >>> class Noise(oncue.callbacks.Callback):
        ...     def __init__(self):
        ...         self.generator = np.random.default_rng(0)
        >>> kept = KeptObjects(oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)]), [Noise()])
        >>> list(kept.state())
        ['Noise.generator']
    """

    def __init__(self, model: Any, callbacks: Iterable[Any], parts: Iterable[tuple[str, Any]] | None = None) -> None:
        self._model = model
        optimizer = optimizer_of(model)
        inner = inner_optimizer_of(optimizer)
        own = {id(one) for one in (optimizer, inner, getattr(inner, "_inner", None))}
        found: dict[str, Any] = {}
        found_parts = model._parts_with_settings() if parts is None else parts
        modules = [(path, part) for path, part in found_parts if isinstance(part, torch.nn.Module)]
        search = _Search(module for _, module in modules)
        for path, thing in search.things(_roots(modules, callbacks)):
            if id(thing) not in own:
                found[path if path not in found else f"{path}#{len(found)}"] = thing
        # Schedulers last: loading an optimizer's state replaces the groups whose rates they set.
        self._things = dict(
            sorted(found.items(), key=lambda pair: not isinstance(pair[1], (Optimizer, torch.optim.Optimizer)))
        )
        # Those that a warning has named.
        self._named: set[str] = set()
        for name in [name for name in self._things if self._asked(name) is None]:
            del self._things[name]
        for path in search.unordered:
            warn(
                f"`{path}` is a set of several objects with a state, and nothing tells them apart after an interruption: they "
                "would begin anew. Hold them in a list."
            )

    def state(self) -> dict[str, Any]:
        """Return the states of this moment, by where the objects are."""
        asked = ((name, self._asked(name)) for name in self._things)
        return {name: pair for name, pair in asked if pair is not None}

    def put(self, states: dict[str, Any], say: bool) -> None:
        """Put states back.

        Args:
            states: What `state` returned, in this run or an earlier one.
            say: Whether to warn of states of objects that aren't there.
        """
        missing = []
        for name, (kind, state) in states.items():
            thing = self._things.get(name)
            if thing is None or type(thing).__name__ != kind:
                missing.append(f"`{name}` (a {kind})")
                continue
            try:
                self._put(thing, copy.deepcopy(state))
            except Exception as error:
                warn(f"The state of `{name}` (a {kind}) can't be put back, so that it begins anew: {_said(error)}")
        if missing and say:
            warn(
                f"The backup has the state of {', '.join(missing)}, which the script hasn't any more where it was: what it has "
                "instead begins anew."
            )

    def _asked(self, name: str) -> list[Any] | None:
        """Return the class and the state of an object; None, with a warning the first time, where no backup can have it."""
        thing = self._things[name]
        kind = type(thing).__name__
        try:
            state = self._state_of(thing)
            if not isinstance(thing, (*GENERATORS, Variable, Optimizer)):
                encode(state, {}, f"`{name}`")
        except Exception as error:
            if name not in self._named:
                self._named.add(name)
                warn(
                    f"The state of `{name}` (a {kind}) is left out of the backup, so that after an interruption it would begin "
                    f"anew: {_said(error)} Let its `state_dict` return what can be kept, at any time."
                )
            return None
        return [kind, state]

    def _state_of(self, thing: Any) -> Any:
        if isinstance(thing, GENERATORS):
            return generator_state(thing)
        if isinstance(thing, Variable):
            return thing.stored.detach()
        state = thing.state_dict()
        if isinstance(thing, Optimizer):
            optimizer = thing
            places = {id(p): place for place, p in enumerate(self._model.parameters())}
            held = [places.get(id(p), -1) for p in optimizer._parameters]
            return {"held": held if thing.built else None, "state": state}
        return state

    def _put(self, thing: Any, state: Any) -> None:
        if isinstance(thing, GENERATORS):
            set_generator_state(thing, state)
        elif isinstance(thing, Variable):
            thing.assign(state)
        elif isinstance(thing, Optimizer):
            if state["held"] is None:
                return
            if not thing.built:
                # One that a step of the user's own uses is built by its first update.
                if -1 in state["held"]:
                    raise ValueError(
                        f"`{thing.name}` updates weights that aren't the model's, and isn't built. Call its `build(variables)` "
                        "before `fit`."
                    )
                variables = {id(one.stored): one for one in self._model.weights}
                parameters = list(self._model.parameters())
                thing.build([variables[id(parameters[place])] for place in state["held"]])
            thing.load_state_dict(state["state"])
        else:
            if isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
                # torch takes the values as they are, such as a dict for a Counter.
                state = {name: _as_before(vars(thing).get(name), value) for name, value in state.items()}
            thing.load_state_dict(state)


def _said(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if text.endswith(".") else f"{text}."


# Finding them -----------------------------------------------------------------------------------------------------------


def _roots(modules: list[tuple[str, Any]], callbacks: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    counts: dict[str, int] = {}
    # A second model of the same code has `dense_2` where the first has `dense`.
    named = ((re.sub(r"_\d+(?=\.|$)", "", path) or "model", module) for path, module in modules)
    for name, root in (*((type(one).__name__, one) for one in callbacks), *named):
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}#{counts[name]}", root


def _is(thing: Any, kinds: tuple[type, ...]) -> bool:
    # `isinstance` would ask an object that stands for another.
    return issubclass(type(thing), kinds)


_PLAIN = (
    *(str, bytes, int, float, complex, type(None), type, ModuleType),
    *(torch.Tensor, np.ndarray, torch.nn.Module, Metric, Stateful),
)


_OFTEN_EMPTY = frozenset({dict, OrderedDict, list, tuple, set})


class _Role(Enum):
    """What the search does with an object of a class."""

    PASSED = 0
    ENTERED = 1
    KEPT = 2


class _Roles(dict[type, _Role]):
    """The role of each class, worked out once."""

    def __missing__(self, kind: type) -> _Role:
        try:
            self[kind] = _role_of(kind)
        except Exception:
            # A metaclass of the user's may raise anything when it is asked for an attribute: such objects aren't looked into.
            self[kind] = _Role.PASSED
        return self[kind]


def _role_of(kind: type) -> _Role:
    if issubclass(kind, (*GENERATORS, Variable)):
        return _Role.KEPT
    if issubclass(kind, _PLAIN):
        # Modules and metrics are parts of models, callbacks name their fields.
        return _Role.PASSED
    # Data are told where they are by what reads them.
    if not hasattr(kind, "__iter__") and _takes(kind, "state_dict", 0) and _takes(kind, "load_state_dict", 1):
        return _Role.KEPT
    # Such as an initializer; there are several in each layer.
    return _Role.PASSED if is_builtin(kind) else _Role.ENTERED


def _takes(kind: type, name: str, count: int) -> bool:
    """Return whether a class has a method that can be called with that many arguments."""
    method = getattr(kind, name, None)
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(None, *[None] * count)
    except TypeError:
        return False
    except ValueError:
        # One of C, which doesn't tell.
        return True
    return True


class _Search:
    """Finds what has a state: each thing once, the nearest first, up to a limit.

    Args:
        known: What is no part of anything else.
    """

    def __init__(self, known: Iterable[Any]) -> None:
        # Held, so that no other object gets an identity of theirs.
        self._seen = {id(one): one for one in known}
        self._roles = _Roles()
        # The functions of a class are looked at once.
        self._classes: set[type] = {torch.nn.Module}
        self._left = 0
        self.unordered: list[str] = []
        """Where sets of several things with a state are."""

    def things(self, roots: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Give what has a state and can be reached, with the way to it."""
        level = [pair for name, root in roots for pair in self._new_parts(name, root)]
        self._left = _MOST
        for _ in range(_FARTHEST):
            following: list[tuple[str, Any]] = []
            for path, thing in level:
                if self._roles[type(thing)] is _Role.KEPT:
                    yield path, thing
                elif self._left > 0:
                    following += self._new_parts(path, thing)
            level = following

    def _new_parts(self, path: str, thing: Any) -> list[tuple[str, Any]]:
        """Return what an object consists of; nothing where it can't be asked."""
        try:
            parts = [(step, part) for step, part in self._parts(path, thing) if self._is_new(part)]
        except Exception:
            # As of classes: an attribute may be found by code of the user's, which may raise anything.
            return []
        self._left -= _COST * len(parts)
        return [(path + step, part) for step, part in parts]

    def _is_new(self, part: Any) -> bool:
        # Variables of layers are among the weights.
        if id(part) in self._seen or (_is(part, (Variable,)) and not part.is_free):
            return False
        self._seen[id(part)] = part
        return True

    def _parts(self, path: str, thing: Any) -> Iterable[tuple[str, Any]]:
        # Of a class that is derived from a list its own way to give items isn't called.
        if _is(thing, (FunctionType,)):
            return self._chosen(_variables_of(thing))
        if _is(thing, (MethodType,)):
            return self._chosen((("", thing.__func__), ("", thing.__self__)))
        if _is(thing, (partial,)):
            return self._chosen(("", part) for part in (thing.func, *thing.args, *thing.keywords.values()))
        if _is(thing, (dict,)):
            pairs = (((place, key), part) for place, (key, part) in enumerate(dict.items(thing)))
            return [(_step(*where), part) for where, part in self._chosen(pairs)]
        if _is(thing, (list, tuple)):
            items = list.__iter__(thing) if _is(thing, (list,)) else tuple.__iter__(thing)
            return [(f"[{place}]", part) for place, part in self._chosen(enumerate(items))]
        if _is(thing, (set, frozenset)):
            return self._only_one(path, thing)
        functions = [
            ("", part)
            for kind in type(thing).__mro__
            if kind not in self._classes and not is_builtin(kind)
            for part in vars(kind).values()
            if isinstance(part, FunctionType)
        ]
        self._classes.update(type(thing).__mro__)
        attributes = self._chosen(dict.items(vars(thing)))
        return [*((f".{name}", part) for name, part in attributes), *functions]

    def _chosen(self, pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Return those of the first items that aren't plain."""
        looked_at = list(islice(pairs, _LARGEST))
        self._left -= len(looked_at)
        roles = self._roles
        # Each module has a dozen empty dicts.
        return [
            pair
            for pair in looked_at
            if roles[kind := type(pair[1])] is not _Role.PASSED and (kind not in _OFTEN_EMPTY or pair[1])
        ]

    def _only_one(self, path: str, items: set[Any] | frozenset[Any]) -> list[tuple[str, Any]]:
        # Several have another order in another process.
        found = self._chosen(("[0]", part) for part in items)
        if len(items) == 1:
            return found
        if any(self._roles[type(part)] is _Role.KEPT for _, part in found):
            self.unordered.append(path)
        return []


def _step(place: int, key: Any) -> str:
    # The text of another object may have its address.
    return f".{key}" if _is(key, (str, int, Enum)) else f"[{place}]"


def _variables_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".{name}", cell.cell_contents
        except ValueError:
            # It has no value yet.
            continue
    for part in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield "", part
    for name in chain.from_iterable(code.co_names for code in codes(function.__code__)):
        used: Any = function.__globals__.get(name)
        # Functions of other files are libraries.
        if not _is(used, (FunctionType,)) or used.__globals__ is function.__globals__:
            yield f".{name}", used


def _as_before(current: Any, saved: Any) -> Any:
    make: Callable[[Any], Any] | None = type(current) if isinstance(current, dict) else None
    return saved if make is None or type(saved) is make else make(saved)
