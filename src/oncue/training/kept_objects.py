"""Objects with a state of their own that callbacks and models hold: schedulers, further optimizers, random generators."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
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
from oncue.variable import Variable

_GENERATORS = (np.random.Generator, np.random.RandomState, torch.Generator, random.Random)
_LARGEST = 1000
"""How many items of a list are looked at."""
_FARTHEST = 6
"""How many steps from a callback or a module are looked at."""
_MOST = 20_000
"""How many things are looked at in all."""


class KeptObjects:
    """The schedulers, further optimizers, random generators and the like that callbacks and the model hold, and their states.

    They are found once, when a run begins: in attributes, lists and dicts, in the variables around functions, and in the
    global variables of the file that the methods of callbacks and of the model's classes use. What has `state_dict` and
    `load_state_dict` is kept, and Variables that belong to no layer, and random generators of Python, NumPy and torch.

    Args:
        model: A built model.
        callbacks: The callbacks of the run.

    Example:
        >>> import oncue
        >>> class Noise(oncue.callbacks.Callback):
        ...     def __init__(self):
        ...         self.generator = np.random.default_rng(0)
        >>> kept = KeptObjects(oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)]), [Noise()])
        >>> list(kept.state())
        ['Noise.generator']
    """

    def __init__(self, model: Any, callbacks: Iterable[Any]) -> None:
        self._model = model
        optimizer = optimizer_of(model)
        inner = inner_optimizer_of(optimizer)
        own = {id(one) for one in (optimizer, inner, getattr(inner, "_inner", None))}
        found: dict[str, Any] = {}
        # The functions of a class are looked at once.
        kinds: set[type] = {torch.nn.Module}
        seen: dict[int, Any] = {id(module): module for module in model.modules()}
        for name, root in _roots(model, callbacks):
            for path, thing in _reachable(name, root, seen, kinds):
                if _has_state(thing) and id(thing) not in own:
                    found[path if path not in found else f"{path}#{len(found)}"] = thing
        # Schedulers last: loading an optimizer's state replaces the groups whose rates they set.
        self._things = dict(
            sorted(found.items(), key=lambda pair: not isinstance(pair[1], (Optimizer, torch.optim.Optimizer)))
        )
        for name, thing in list(self._things.items()):
            try:
                encode(self._state_of(thing), {}, f"`{name}`")
            except TypeError as error:
                del self._things[name]
                warn(
                    f"{error} After an interruption the {type(thing).__name__} would begin anew: let its `state_dict` return "
                    "such values."
                )

    def state(self) -> dict[str, Any]:
        """Return the states of this moment, by where the objects are."""
        return {name: [type(thing).__name__, self._state_of(thing)] for name, thing in self._things.items()}

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
            else:
                self._put(thing, copy.deepcopy(state))
        if missing and say:
            warn(
                f"The backup has the state of {', '.join(missing)}, which the script hasn't any more where it was: what it has "
                "instead begins anew."
            )

    def _state_of(self, thing: Any) -> Any:
        if isinstance(thing, _GENERATORS):
            return _state_of_generator(thing)
        if isinstance(thing, Variable):
            return thing.value.detach()
        state = thing.state_dict()
        if isinstance(thing, Optimizer):
            optimizer = thing
            places = {id(p): place for place, p in enumerate(self._model.parameters())}
            held = [places.get(id(p), -1) for p in optimizer._parameters]
            return {"held": held if thing.built else None, "state": state}
        return state

    def _put(self, thing: Any, state: Any) -> None:
        if isinstance(thing, _GENERATORS):
            _set_generator(thing, state)
        elif isinstance(thing, Variable):
            thing.assign(state)
        elif isinstance(thing, Optimizer):
            if state["held"] is None:
                return
            if not thing.built:
                # One that a step of the user's own uses is built by its first update.
                if -1 in state["held"]:
                    raise ValueError(
                        f"The run can't resume: {type(thing).__name__} `{thing.name}` updates weights that aren't the model's, "
                        "and isn't built. Call its `build(variables)` before `fit`."
                    )
                variables = {id(one.value): one for one in self._model.weights}
                parameters = list(self._model.parameters())
                thing.build([variables[id(parameters[place])] for place in state["held"]])
            thing.load_state_dict(state["state"])
        else:
            if isinstance(thing, torch.optim.lr_scheduler.LRScheduler):
                # torch takes the values as they are, such as a dict for a Counter.
                state = {name: _as_before(vars(thing).get(name), value) for name, value in state.items()}
            thing.load_state_dict(state)


# Finding them -----------------------------------------------------------------------------------------------------------


def _roots(model: torch.nn.Module, callbacks: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    counts: dict[str, int] = {}
    # A second model of the same code has `dense_2` where the first has `dense`.
    modules = ((re.sub(r"_\d+(?=\.|$)", "", path) or "model", module) for path, module in model.named_modules())
    for name, root in (*((type(one).__name__, one) for one in callbacks), *modules):
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}#{counts[name]}", root


def _is(thing: Any, kinds: tuple[type, ...]) -> bool:
    # `isinstance` would ask an object that stands for another.
    return issubclass(type(thing), kinds)


def _has_state(thing: Any) -> bool:
    kind = type(thing)
    if _is(thing, _GENERATORS):
        return True
    if _is(thing, (Variable,)):
        # Those of layers are among the weights.
        return bool(thing.is_free)
    # Data are told where they are by what reads them; modules and metrics are parts of models, callbacks name their fields.
    if _is(thing, (torch.nn.Module, Metric, Stateful)) or hasattr(kind, "__iter__"):
        return False
    return all(callable(getattr(kind, name, None)) for name in ("state_dict", "load_state_dict"))


def _reachable(name: str, root: Any, seen: dict[int, Any], kinds: set[type]) -> Iterator[tuple[str, Any]]:
    """Give what can be reached from an object, each thing once, the nearest first."""
    waiting = list(_parts(name, root, kinds))
    for _ in range(_FARTHEST):
        following: list[tuple[str, Any]] = []
        for path, thing in waiting:
            if id(thing) in seen or _is(thing, _PLAIN) or len(seen) > _MOST:
                continue
            if is_builtin(type(thing)) and not _has_state(thing):
                # Such as an initializer; there are several in each layer.
                continue
            # Held, so that no other object gets its identity.
            seen[id(thing)] = thing
            yield path, thing
            if not _has_state(thing):
                following += _parts(path, thing, kinds)
        waiting = following


_PLAIN = (
    *(str, bytes, int, float, complex, type(None), type, ModuleType),
    *(torch.Tensor, np.ndarray, torch.nn.Module, Metric, Stateful),
)


def _parts(path: str, thing: Any, kinds: set[type]) -> Iterator[tuple[str, Any]]:
    if _is(thing, (FunctionType,)):
        yield from _variables_of(path, thing)
    elif _is(thing, (MethodType,)):
        yield path, thing.__func__
        yield path, thing.__self__
    elif _is(thing, (partial,)):
        yield from ((path, part) for part in (thing.func, *thing.args, *thing.keywords.values()))
    elif _is(thing, (dict,)):
        yield from ((f"{path}.{key}", part) for key, part in islice(thing.items(), _LARGEST))
    elif _is(thing, (list, tuple, set, frozenset)):
        yield from ((f"{path}[{place}]", part) for place, part in enumerate(islice(thing, _LARGEST)))
    else:
        try:
            attributes = vars(thing)
        except TypeError:
            return
        yield from ((f"{path}.{name}", part) for name, part in attributes.items())
        for kind in type(thing).__mro__:
            if kind not in kinds and not is_builtin(kind):
                kinds.add(kind)
                functions = (part for part in vars(kind).values() if isinstance(part, FunctionType))
                yield from ((path, function) for function in functions)


def _variables_of(path: str, function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{path}.{name}", cell.cell_contents
        except ValueError:
            # It has no value yet.
            continue
    for part in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield path, part
    for name in _names_in(function.__code__):
        used: Any = function.__globals__.get(name)
        # Functions of other files are libraries.
        if not _is(used, (FunctionType,)) or used.__globals__ is function.__globals__:
            yield f"{path}.{name}", used


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names_in(part)


# Their states -----------------------------------------------------------------------------------------------------------


def _state_of_generator(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    version, words, gauss = generator.getstate()
    return [version, np.array(words, dtype=np.int64), gauss]


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.as_tensor(state))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        version, words, gauss = state
        generator.setstate((version, tuple(int(word) for word in words), gauss))


def _as_before(current: Any, saved: Any) -> Any:
    make: Callable[[Any], Any] | None = type(current) if isinstance(current, dict) else None
    return saved if make is None or type(saved) is make else make(saved)
