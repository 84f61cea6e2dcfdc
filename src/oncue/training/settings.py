"""Settings: the numbers and choices on a model and its optimizer that callbacks may change, beside weights and states."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from oncue.core.builtin import is_builtin
from oncue.core.protocols import inner_optimizer_of, optimizer_of
from oncue.core.warn import kept, warn
from oncue.metrics.metric import Metric
from oncue.nested import flatten
from oncue.optimizers import TorchOptimizer, schedules
from oncue.optimizers.learning_rate import LearningRate
from oncue.optimizers.rate_source import RateSource
from oncue.training.plan import OVERRIDABLE

_MISSING = object()
_NUMBERS = frozenset({bool, int, float, type(None)})
_LONGEST, _LARGEST = 1000, 100
"""How long a string, and how large a tuple, may be to be taken for a setting and not for data, such as a vocabulary."""
_OF_THE_RUN = frozenset(
    {
        "built",
        "compiled",
        "jit_compile",
        "name",
        "run_eagerly",
        "steps_per_execution",
        "stop_evaluating",
        "stop_predicting",
        "stop_training",
        "training",
    }
)
"""What says how a run goes, and not what it computes."""
_STATE_OF_OPTIMIZERS = frozenset({"average_in_model", "iterations", "learning_rate", "lr", "variables", "weights"})
"""What the state of an optimizer has already, under old names too."""
_RATE, _WEIGHTS, _GRADIENT = "optimizer.learning_rate", "loss_weights", "requires_grad"
_SAID = 12
"""How many differences a warning names."""
_NOT_SETTINGS = _OF_THE_RUN | _STATE_OF_OPTIMIZERS | {"dtype_policy", "input", "output"}


class Settings:
    """The settings of a model and its optimizer: plain attributes of modules, losses, regularizers and optimizers.

    It is made when a run begins, and says at any moment of it which settings are others than then. Plain are bools,
    numbers, strings, None, and short tuples of them, whose names don't begin with `_`; `trainable` and `requires_grad` are
    settings too. Lists and dicts aren't: hooks gather results in them.

    Args:
        model: A built model.

    Example:
        >>> import oncue
        >>> dropout = oncue.layers.Dropout(0.5, name="drop")
        >>> settings = Settings(oncue.Sequential([oncue.layers.Input((2,)), dropout]))
        >>> dropout.rate = 0.1
        >>> state = settings.state()
        >>> state["changed"]
        {'drop': {'rate': 0.1}}
        >>> dropout.rate = 0.9
        >>> settings.put(state)
        >>> dropout.rate
        0.1
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        known: dict[type, tuple[str, ...]] = {}
        self._owners = [_Owner(key, thing, known) for key, thing in _keyed(_holders(model))]
        optimizer = optimizer_of(model)
        self._optimizers = [_Owner(key, thing, known) for key, thing in _optimizers(optimizer)]
        self._groups = _group_settings(optimizer)
        self._seen = len(model._changes)
        # What hooks replaced, for a run that goes back; another run has other objects.
        self._token = uuid.uuid4().hex
        self._versions = [_Compiled(model)]
        self._trained = self._trained_now()
        source = _rate_source(optimizer)
        self._source, self._rate = None if source is None else source.source, _rate(optimizer)
        begin = {owner.key: owner.begin for owner in (*self._owners, *self._optimizers)}
        # One text for all states of the run.
        names = [_bare(name) for name, _ in model.named_parameters()]
        needed = {
            f"{name}#{place}": flag == "1" for place, (name, flag) in enumerate(zip(names, self._trained, strict=True))
        }
        further = {_RATE: {"": self._rate}, _WEIGHTS: {"": _loss_weights(model)}, _GRADIENT: needed}
        self._text = json.dumps({**begin, **further}, default=_as_number)

    def state(self) -> dict[str, Any]:
        """Return the settings of this moment, for `put`.

        Returns:
            "begin": all settings that the run began with, as JSON; "changed": those that are others now; "left": the names
            of those that are no settings any more; "trained": for each parameter whether it needs a gradient; "held": for
            each whether the optimizer has it; "groups": what is changed in torch's parameter groups; "replaced": what hooks
            replaced, by name.
        """
        compiled = _Compiled(self._model)
        if compiled != self._versions[-1]:
            self._versions.append(compiled)
        owners = (*self._owners, *self._of_optimizer())
        now = {owner.key: dict(owner.now()) for owner in owners}
        groups = [
            {name: value for name, value in now.items() if _differ(value, before.get(name, _MISSING))}
            for now, before in _paired(_group_settings(optimizer_of(self._model)), self._groups)
        ]
        return {
            "begin": self._text,
            "changed": {owner.key: found for owner in owners if (found := owner.changed(now[owner.key]))},
            "left": {
                owner.key: gone for owner in owners if (gone := sorted(owner.begin.keys() - now[owner.key].keys()))
            },
            "trained": self._trained_now(),
            "held": self._held_now(),
            "groups": groups,
            "replaced": self._replaced(),
            "optimizer": _kind(optimizer_of(self._model)),
            "version": [self._token, len(self._versions) - 1],
        }

    def put_compiled(self, state: dict[str, Any]) -> None:
        """Put back the optimizer, the loss and whatever else a hook has replaced since, in the run that it happened in.

        Args:
            state: What `state` returned.
        """
        token, version = state["version"]
        wanted = self._versions[version if token == self._token else 0]
        if wanted != _Compiled(self._model):
            wanted.put(self._model)
        del self._versions[version + 1 :]

    def put(self, state: dict[str, Any]) -> None:
        """Put settings back: those that had been changed by then, and all others as this run began with them.

        Args:
            state: What `state` returned, in this run or an earlier one.
        """
        optimizer = optimizer_of(self._model)
        if optimizer is not None:
            # Gradients that are gathered for an update which is undone keep their number from no other value.
            optimizer.iterations = int(optimizer.iterations)
        for owner in (*self._owners, *self._of_optimizer()):
            owner.put(state["changed"].get(owner.key, {}), state.get("left", {}).get(owner.key, ()))
        # After `trainable` of all layers, which sets it for all parameters inside.
        before = json.loads(state["begin"])[_GRADIENT].values()
        flags = zip(self._model.parameters(), self._trained, before, state["trained"], strict=False)
        for parameter, own, was, then in flags:
            needed = own == "1" if was is (then == "1") else then == "1"
            if parameter.requires_grad is not needed:
                parameter.requires_grad_(needed)

    def put_parameters(self, state: dict[str, Any]) -> None:
        """Let the optimizer have the parameters that it had; those that joined since leave it, those it lacks join.

        Args:
            state: What `state` returned.
        """
        optimizer, parameters = self._model.optimizer, list(self._model.parameters())
        wanted = {id(p) for p, flag in zip(parameters, state["held"], strict=False) if flag == "1"}
        held = {id(p) for p in optimizer._parameters}
        if gone := [p for p in optimizer._parameters if id(p) not in wanted]:
            optimizer._release(gone)
        new = [(p, p.requires_grad) for p in parameters if id(p) in wanted - held]
        for parameter, _ in new:
            # It may have been frozen again.
            parameter.requires_grad_(True)
        if new:
            optimizer.build([one for one in self._model.weights if id(one.value) in wanted])
        for parameter, needed in new:
            parameter.requires_grad_(needed)

    def put_rate(self, state: dict[str, Any], saved: Any) -> None:
        """Put back where the learning rate comes from: a number, a schedule or a function.

        Args:
            state: What `state` returned.
            saved: The learning rate in the state that the optimizer had then.

        Raises:
            ValueError: When a callback had set what a state can't keep.
        """
        optimizer = optimizer_of(self._model)
        was, source, own = _as_json(saved), _rate_source(optimizer), _as_json(self._rate)
        unchanged = was == _as_json(json.loads(state["begin"])[_RATE][""])
        if source is None or self._source is None or (isinstance(saved, float) and isinstance(source.source, float)):
            return
        # Of a script that was edited the schedule counts.
        if was == own or (unchanged and not isinstance(saved, float)):
            source.put_back(self._source)
        elif isinstance(saved, float):
            source.put_back(saved)
        elif saved is None or saved["config"] is None:
            what = "a function" if saved is None else f"a {saved['class_name']}, which has no `get_config`"
            raise ValueError(
                f"The run can't resume: a callback had set `learning_rate` of the optimizer to {what}, and a backup can't "
                "keep that. Give it to the optimizer when it is made, or set a number."
            )
        else:
            source.put_back(schedules.deserialize(saved))

    def put_groups(self, state: dict[str, Any]) -> None:
        """Put back what was changed in torch's parameter groups, by a scheduler for example.

        Args:
            state: What `state` returned, once the optimizer has its own state back.
        """
        for group, changed in zip(_groups(optimizer_of(self._model)), state["groups"], strict=False):
            for name, value in changed.items():
                if not isinstance(group.get(name), torch.Tensor):
                    group[name] = value

    def compare(self, state: dict[str, Any], saved: dict[str, Any] | None) -> None:
        """Warn when the script has other settings than the interrupted run began with.

        Args:
            state: The settings of that run.
            saved: The state of the optimizer; None when it isn't taken over.
        """
        said = self._differences(state, saved)
        if said:
            warn(
                f"The script has other settings than the interrupted run began with: {'; '.join(said)}. To train with the "
                "script's settings from the start, delete the folder of the backup; to go on as before, put them back."
            )

    def of_fork(
        self, state: dict[str, Any], saved: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
        """Return the settings of a run that this one is forked from, in which the script's count wherever it has others.

        Args:
            state: What `state` returned in that run.
            saved: The state of the optimizer; None when it isn't taken over.

        Returns:
            The settings, and the optimizer's state, for `put` and the like; and each difference in words.
        """
        before, now = json.loads(state["begin"]), json.loads(self._text)

        def is_other(key: str, name: str) -> bool:
            own = now.get(key, {}).get(name, _MISSING)
            return own is not _MISSING and _differ(before.get(key, {}).get(name, _MISSING), own)

        said = self._differences(state, saved, forked=True)
        other_rate = is_other(_RATE, "")
        if saved is not None and other_rate:
            saved = {**saved, "learning_rate": self._rate}
        flags = zip(self._trained, before[_GRADIENT].values(), state["trained"], strict=False)
        yielding = {
            **state,
            "changed": {
                key: {name: value for name, value in found.items() if not is_other(key, name)}
                for key, found in state["changed"].items()
            },
            # `put` has the script's own where a state has what its run began with.
            "trained": "".join(str(int(was)) if was is not (own == "1") else then for own, was, then in flags),
            "groups": [
                {
                    name: value
                    for name, value in group.items()
                    if not (other_rate if name == "lr" else is_other("optimizer", name))
                }
                for group in state["groups"]
            ],
        }
        return yielding, saved, said

    def _differences(self, state: dict[str, Any], saved: dict[str, Any] | None, forked: bool = False) -> list[str]:
        before, now = json.loads(state["begin"]), json.loads(self._text)
        things = {owner.key: owner.thing for owner in self._owners}
        said = []
        # Without the state of its optimizer another one begins from scratch, which was said.
        keys = [key for key in before if saved is not None or not key.startswith("optimizer")]
        for key in [key for key in keys if key in now]:
            for name, was in before[key].items():
                new = now[key].get(name, _MISSING)
                if (
                    new is _MISSING
                    or not _differ(was, new)
                    or (key in things and not _is_proper(things[key], name, new))
                ):
                    continue
                where = f"{key}.{name}" if name else key
                if key == _GRADIENT:
                    where = f"{name.partition('#')[0]}.{_GRADIENT}"
                if forked:
                    which = "the script's counts"
                elif key == _RATE and saved and isinstance(saved["learning_rate"], float):
                    which = f"{saved['learning_rate']!r} of the backup counts"
                elif key == _RATE and saved and _as_json(saved["learning_rate"]) != _as_json(was):
                    which = "the backup's counts, which a callback had set"
                elif name in state["changed"].get(key, {}):
                    which = f"{state['changed'][key][name]!r} of the backup counts, which a callback had set"
                else:
                    which = "the script's counts"
                said.append(f"`{where}` was {_brief(was)}, is {_brief(new)} ({which})")
        missing = [f"`{key}` is gone" for key in keys if key not in now]
        said += missing + [f"`{key}` is new" for key in now if key not in (*before, _WEIGHTS) and saved is not None]
        if len(said) > _SAID:
            said[_SAID:] = [f"and {len(said) - _SAID} more"]
        return said

    def check_replaced(self, state: dict[str, Any], saved: dict[str, Any] | None) -> None:
        """Warn of what hooks of the interrupted run had replaced, which a state can't keep.

        Args:
            state: The settings of that run.
            saved: The state of the optimizer; None when it isn't taken over.

        Raises:
            ValueError: When they had put an optimizer of another class into the model, whose state fits no other.
        """
        kind = _kind(optimizer_of(self._model))
        if saved is not None and not f"{state['optimizer']} of ".startswith(f"{kind} of "):
            raise ValueError(
                f"The run can't resume: a callback of it had replaced the optimizer by {state['optimizer']}, and the script's "
                f"is {kind}. Give the model that one from the start, or use on_mismatch='restart' or 'adopt' with it."
            )
        if state["replaced"]:
            names = ", ".join(f"`{name}`" for name in state["replaced"])
            warn(
                f"Callbacks of the interrupted run had replaced {names} of the model, which a backup can't keep: the run goes "
                "on with those of the script. Let the callback replace them again, in `on_epoch_begin` of every epoch from "
                "then on."
            )

    def _of_optimizer(self) -> list[_Owner]:
        """Return the owners of the present optimizer, with the settings that the run began with."""
        before = {owner.key: owner for owner in self._optimizers}
        owners = []
        for key, thing in _optimizers(optimizer_of(self._model)):
            owner = before.get(key)
            if owner is None or owner.thing is not thing:
                begin, owner = {} if owner is None else owner.begin, _Owner(key, thing, {})
                owner.begin = begin
            owners.append(owner)
        return owners

    def _replaced(self) -> list[str]:
        names = dict.fromkeys(self._model._changes[self._seen :])
        # A name of a loss is a setting, which is put back.
        kept = _OF_THE_RUN | ({"loss"} if isinstance(self._model.loss, str) and "compile" not in names else set())
        return [name for name in names if name not in kept]

    def _held_now(self) -> str:
        optimizer = optimizer_of(self._model)
        held = {id(p) for p in optimizer._parameters} if optimizer is not None else set()
        return "".join("1" if id(p) in held else "0" for p in self._model.parameters())

    def _trained_now(self) -> str:
        return "".join("1" if parameter.requires_grad else "0" for parameter in self._model.parameters())


class DataSettings:
    """The plain attributes of data sets that callbacks change between epochs, such as the level of a curriculum.

    Only what changes while hooks of callbacks are called is taken for such: a data set that is read may note in a number which
    of its files is open, and must not be told another.

    Args:
        data_sets: The data sets, by the name of what they are for.

    Example:
        >>> class Level:
        ...     level = 0.0
        >>> data = Level()
        >>> settings = DataSettings({"data": [data]})
        >>> with settings.hooks():
        ...     data.level = 0.5
        >>> state = settings.state()
        >>> data.level = 0.7
        >>> settings.put(state)
        >>> data.level
        0.5
    """

    def __init__(self, data_sets: Mapping[str, Sequence[Any]]) -> None:
        self._owners = [
            _DataSet(f"{name}.{type(one).__name__}#{number}", one)
            for name, found in data_sets.items()
            for number, one in enumerate(found)
        ]

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Take note of what is changed in the block, in which callbacks are called."""
        for owner in self._owners:
            owner.before = owner.changed_now()
        try:
            yield
        finally:
            for owner in self._owners:
                owner.note()
                owner.before = None

    def state(self) -> dict[str, Any]:
        """Return what callbacks have changed, by data set."""
        return {owner.key: found for owner in self._owners if (found := owner.by_callbacks())}

    def put(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned, in this run or an earlier one; the rest as this run began with it."""
        for owner in self._owners:
            found = state.get(owner.key, {})
            owner.names.update(found)
            owner.put(found)


class _Compiled:
    """What `compile` and assignments gave to a model: objects, which only the run that has them can put back."""

    _NAMES = ("optimizer", "loss", *OVERRIDABLE)

    def __init__(self, model: Any) -> None:
        self.plan = model._plan
        self.own = {name: vars(model)[name] for name in self._NAMES if name in vars(model)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Compiled) or self.plan is not other.plan or self.own.keys() != other.own.keys():
            return False
        return all(value is other.own[name] for name, value in self.own.items())

    __hash__ = None  # type: ignore[assignment]  # it is compared, and is no key

    def put(self, model: Any) -> None:
        for name in self._NAMES:
            if name in vars(model) and name not in self.own:
                delattr(model, name)
        model._put_plan(self.plan, "compile")
        for name, value in self.own.items():
            # Past the checks of what is assigned, and the plan that a loss would make.
            object.__setattr__(model, name, value)


class _Owner:
    """An object with settings, and what they were when the run began."""

    def __init__(self, key: str, thing: Any, known: dict[type, tuple[str, ...]]) -> None:
        self.key, self.thing = key, thing
        if type(thing) not in known:
            known[type(thing)] = _properties(type(thing))
        self._properties = known[type(thing)]
        self.begin = dict(self.now())

    def now(self) -> Iterator[tuple[str, Any]]:
        """Give the settings of this moment."""
        for name, value in _attributes(self.thing).items():
            if (type(value) in _NUMBERS or _is_setting(value)) and name[0] != "_" and name not in _OF_THE_RUN:
                yield name, value
        for name in self._properties:
            value = _read(self.thing, name)
            if value is not _MISSING and _is_setting(value):
                yield name, value

    def changed(self, now: dict[str, Any]) -> dict[str, Any]:
        """Return which of them are others than when the run began."""
        begin = self.begin
        return {name: value for name, value in now.items() if _differ(value, begin.get(name, _MISSING))}

    def changed_now(self) -> dict[str, Any]:
        return self.changed(dict(self.now()))

    def put(self, changed: dict[str, Any], left: Collection[str] = ()) -> None:
        """Put back those of a moment, of which some were changed, and others had been left to something else."""
        wanted = {name: value for name, value in {**self.begin, **changed}.items() if name not in left}
        # Of several clips only one may be set at a time.
        for name, value in sorted(wanted.items(), key=lambda pair: pair[1] is not None):
            self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        if not _differ(value, _read(self.thing, name)):
            return
        try:
            setattr(self.thing, name, value)
        except Exception as error:
            warn(f"`{self.key}.{name}` can't be set back to {_brief(value)}: {type(error).__name__}: {error}")


class _DataSet(_Owner):
    """A data set, of which those attributes are settings that callbacks have changed."""

    def __init__(self, key: str, thing: Any) -> None:
        self._defaults = {name: value for kind in reversed(type(thing).__mro__) for name, value in vars(kind).items()}
        super().__init__(key, thing, {type(thing): ()})
        self.names: set[str] = set()
        self.before: dict[str, Any] | None = None

    def now(self) -> Iterator[tuple[str, Any]]:
        for name, value in {**self._defaults, **_attributes(self.thing)}.items():
            if name[0] != "_" and _is_setting(value):
                yield name, value

    def note(self) -> None:
        if self.before is not None:
            now = self.changed_now()
            names = (name for name in {**self.before, **now} if _differ(self.before.get(name), now.get(name)))
            self.names.update(names)

    def by_callbacks(self) -> dict[str, Any]:
        self.note()
        return {name: value for name, value in self.changed_now().items() if name in self.names}

    def put(self, changed: dict[str, Any], left: Collection[str] = ()) -> None:
        wanted = {**self.begin, **changed}
        for name in self.names:
            if name not in wanted:
                vars(self.thing).pop(name, None)
            else:
                self._set(name, wanted[name])


# Where settings are ---------------------------------------------------------------------------------------------------


def _holders(model: Any) -> Iterator[tuple[str, Any]]:
    # A layer stands before those inside it, which its `trainable` changes too.
    for path, module in model._parts_with_settings():
        yield path or "model", module
        for name, part in _attributes(module).items():
            if name[0] != "_" and _is_described(part):
                yield f"{path or 'model'}.{name}", part
    for number, part in enumerate(flatten(getattr(model, "loss", None))):
        if _is_described(part) and part is not getattr(model, "loss", None):
            yield f"model.loss.{number}", part


def _is_described(part: Any) -> bool:
    """Return whether an object is a regularizer, a constraint, a loss or the like, by Keras's way to describe one."""
    kind = type(part)
    # `isinstance` would ask an object that stands for another.
    described = callable(part) and callable(getattr(kind, "get_config", None))
    return described and not issubclass(kind, (torch.nn.Module, Metric, type))


def _keyed(holders: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    # A second model of the same code has `dense_2` where the first has `dense`.
    counts: dict[str, int] = {}
    for path, thing in holders:
        key = _bare(path)
        counts[key] = counts.get(key, 0) + 1
        yield key if counts[key] == 1 else f"{key}#{counts[key]}", thing


def _bare(path: str) -> str:
    return re.sub(r"_\d+(?=\.|$)", "", path)


def _optimizers(optimizer: Any) -> Iterator[tuple[str, Any]]:
    if optimizer is None:
        return
    inner = inner_optimizer_of(optimizer)
    yield "optimizer", optimizer
    if inner is not optimizer:
        yield "optimizer.inner_optimizer", inner
    for name, part in optimizer.further_parts():
        yield f"optimizer.{name}", part


def _properties(kind: type) -> tuple[str, ...]:
    """Return the properties of a class that can be set."""
    found: dict[str, Any] = {}
    for one in kind.__mro__:
        for name, member in vars(one).items():
            found.setdefault(name, member)
    return tuple(
        name
        for name, member in found.items()
        if isinstance(member, property) and member.fset is not None and name[0] != "_" and name not in _NOT_SETTINGS
    )


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    inner = getattr(inner_optimizer_of(optimizer), "_inner", None)
    return [] if inner is None else inner.param_groups


def _kind(optimizer: Any) -> str:
    inner = inner_optimizer_of(optimizer)
    # Of ours, which class of torch's does the arithmetic is no choice of a user's.
    handed_in = [inner._inner] if isinstance(inner, TorchOptimizer) and inner._inner is not None else []
    return " of ".join(dict.fromkeys([type(one).__name__ for one in (optimizer, inner, *handed_in)]))


def _rate(optimizer: Any) -> Any:
    """Return the learning rate as the state of an optimizer has it."""
    return None if optimizer is None else optimizer.state_dict().get("learning_rate")


def _loss_weights(model: Any) -> Any:
    """Return the factors of losses; None where a tensor is among them, whose value is the callbacks' own."""
    losses = model._plan.losses
    weights = None if losses is None else losses.weights
    return weights if all(map(_is_setting, flatten(weights))) else None


def _rate_source(optimizer: Any) -> RateSource | None:
    found = getattr(inner_optimizer_of(optimizer), "_rate", None)
    return found if isinstance(found, RateSource) else None


def _group_settings(optimizer: Any) -> list[dict[str, Any]]:
    return [
        {
            name: copy.copy(value)
            for name, value in group.items()
            if name != "params" and _is_setting(tuple(value) if type(value) is list else value)
        }
        for group in _groups(optimizer)
    ]


def _paired(now: list[dict[str, Any]], before: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for place, group in enumerate(now):
        yield group, before[place] if place < len(before) else {}


# What a setting is ----------------------------------------------------------------------------------------------------


def _attributes(thing: Any) -> dict[str, Any]:
    try:
        found = vars(thing)
    except Exception:
        # It has slots, or stands for another that isn't there at present.
        return {}
    return found if isinstance(found, dict) else {}


def _read(thing: Any, name: str) -> Any:
    try:
        value = getattr(thing, name)
    except Exception:
        # A property that can't be read at present, as before a layer is built, has nothing to keep.
        return _MISSING
    # Numbers of an optimizer are read as what can be assigned to, too.
    return float(value) if type(value) is LearningRate else value


def _is_setting(value: Any) -> bool:
    kind = type(value)
    if kind in _NUMBERS:
        return True
    if kind is str:
        return len(value) <= _LONGEST
    if kind is tuple:
        return len(value) <= _LARGEST and all(map(_is_setting, value))
    # `isinstance` would ask an object that stands for another.
    return issubclass(kind, np.generic) and value.dtype.kind in "biuf"


def _is_proper(thing: Any, name: str, value: Any) -> bool:
    """Return whether an attribute is declared as a setting, and isn't a time or a folder that is another in each process."""
    if name in ("loss", "trainable"):
        return True
    kinds = type(thing).__mro__
    try:
        # torch's modules declare theirs by this.
        if any(name in vars(kind).get("__constants__", ()) for kind in kinds):
            return True
        describing = next((kind for kind in kinds if "get_config" in vars(kind)), None)
        if describing is None:
            return False
        with kept([]):
            described = name in thing.get_config()
    except Exception:
        # A class of the user's that describes nothing.
        return False
    # What `__init__` was given is taken for the description where a class has none of its own: folders, too.
    automatic = is_builtin(describing) and not is_builtin(type(thing))
    return described and not (automatic and isinstance(value, str))


def _differ(one: Any, other: Any) -> bool:
    if one is other:
        return False
    kind = type(one)
    if kind is not type(other):
        return True
    if kind in (list, tuple):
        return len(one) != len(other) or any(map(_differ, one, other))
    return bool(one != other and not (one != one and other != other))


def _as_json(value: Any) -> str:
    return json.dumps(value, default=_as_number, sort_keys=True)


def _as_number(value: Any) -> Any:
    return value.item()


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
