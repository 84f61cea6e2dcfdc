"""Roles: what callbacks do for a run beside their hooks. The one place that looks it up by name.

Callbacks of other origin, Keras's among them, have some of the members of `oncue.core.protocols` or none. They are looked
up with `getattr` and not with `isinstance`, because wrappers and mock objects create their attributes on access.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from oncue.core.builtin import is_builtin
from oncue.core.needs import MEMBERS, NEEDS, Lacks
from oncue.core.protocols import (
    AddsToFiles,
    BringsCallbacks,
    ChangesBatches,
    ChecksState,
    ExpectsLogs,
    GrowsFiles,
    HasStandIn,
    HasState,
    KeepsMarks,
    KeepsState,
    MakesTrial,
    MeetsCallbacks,
    NeedsOfModel,
    NotesData,
    ResumesRun,
    Run,
    SavesRun,
    TakesModel,
    TakesParams,
    TakesRun,
)

Called = tuple[Any, Callable[..., Any], bool]

_LATE = ("runs_last", "saves_run", "ends_run")


class Roles:
    """The callbacks of a list, sorted by what they do for the run.

    Args:
        callbacks: The callbacks, in the order of the list.

    Attributes:
        expecting: Need to know what the run is going to log.
        resuming: Have the state of an earlier run.
        marking: Keep what is marked when a run begins.
        noting: Keep what data are when an epoch has begun.
        saving: Save the state of the run.
        keeping: Keep the state that each epoch ends with.
        trying: Train what is taken back.
        changing: Change each batch before it is trained on.
        setting_rate: Set the learning rate.

    Example:
        >>> from oncue.callbacks import EarlyStopping, LambdaCallback
        >>> roles = Roles([EarlyStopping(), LambdaCallback(on_epoch_end=print), EarlyStopping()])
        >>> list(roles.stateful), roles.saving
        (['EarlyStopping', 'EarlyStopping#2'], [])
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self.expecting: list[ExpectsLogs] = _having(callbacks, "expect")
        self.resuming: list[ResumesRun] = _having(callbacks, "pending_state")
        self.marking: list[KeepsMarks] = _having(callbacks, "marks", "keep_marks")
        self.noting: list[NotesData] = _having(callbacks, "noted_data", "note_data")
        self.saving: list[SavesRun] = _having(callbacks, "save_now", "seconds")
        self.growing: list[GrowsFiles] = _having(callbacks, "growing_files")
        self.keeping: list[KeepsState] = _having(callbacks, "keep_state")
        # A mock object makes none.
        self.trying: list[MakesTrial] = [one for one in callbacks if hasattr(type(one), "end_trial")]
        self.changing = _changing(callbacks)
        self.setting_rate: list[Any] = [one for one in callbacks if _says(one, "writes_learning_rate")]
        self._all = callbacks

    @property
    def stateful(self) -> dict[str, HasState]:
        """Those with fields that a resumed run gets back, by key: the class's name, with `#2` for its second object.

        They are looked up each time, because a callback may set `state_fields` as late as in `on_train_begin`.
        """
        return _by_key(self._all)

    @property
    def checking(self) -> dict[str, ChecksState]:
        """Those whose state is looked at before anything is restored, by key as in `stateful`; they are restored last."""
        found = {id(one) for one in _having(self._all, "check_saved")}
        return {key: one for key, one in self.stateful.items() if id(one) in found}  # type: ignore[misc]

    @property
    def adding(self) -> dict[str, AddsToFiles]:
        """Those that add to files which were there before, by key as in `stateful`."""
        return _numbered(_having(self._all, "mark_files", "take_back"))


def mark_files(roles: Roles, restored: Iterable[str]) -> None:
    """Take back what a run added to files that was killed before its first state, and mark where they end now.

    Args:
        roles: The callbacks of the run that begins.
        restored: The keys of those whose state is about to be restored, which brings back their files by itself.
    """
    keepers, adding = roles.marking, roles.adding
    if not keepers:
        return
    for keeper in keepers:
        found = keeper.marks()
        for key, mark in found.items() if isinstance(found, dict) else ():
            if key in adding:
                adding[key].take_back(mark)
    restored = set(restored)
    returning = {id(one) for key, one in roles.stateful.items() if key in restored}
    marks = {key: one.mark_files() for key, one in adding.items() if id(one) not in returning}
    for keeper in keepers:
        keeper.keep_marks({key: mark for key, mark in marks.items() if isinstance(mark, dict)})


def with_brought(place: str, callback: Any) -> list[tuple[str, Any]]:
    """Return a callback and those that it brings, each with the place where it stands.

    Args:
        place: The place of the callback.
        callback: The callback.
    """
    bringing: list[BringsCallbacks] = _having([callback], "brings")
    # A mock object brings something else.
    parts = bringing[0].brings() if bringing else ()
    found = parts if isinstance(parts, (list, tuple)) else ()
    return [(place, callback), *((f"{place}.brings()[{index}]", part) for index, part in enumerate(found))]


def give_params(callbacks: Iterable[Any], params: dict[str, Any]) -> None:
    """Give the run's parameters to the callbacks that take them."""
    takers: list[TakesParams] = _having(callbacks, "set_params")
    for callback in takers:
        callback.set_params(params)


def give_model(callbacks: Iterable[Any], model: Any) -> None:
    """Give the model to the callbacks that take it."""
    takers: list[TakesModel] = _having(callbacks, "set_model")
    for callback in takers:
        callback.set_model(model.shown_to(callback) if isinstance(model, MeetsCallbacks) else model)


def around_hook(model: Any, callback: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is called for a callback's hook, which a model may put something around."""
    return model.around_hook(callback, method) if isinstance(model, MeetsCallbacks) else method


def give_run(callbacks: Iterable[Any], run: Run) -> None:
    """Give the run to the callbacks that take it."""
    takers: list[TakesRun] = _having(callbacks, "set_run")
    for callback in takers:
        callback.set_run(run)


def check_needs(callbacks: Iterable[Any], model: Any, lacks: Lacks | None = None) -> None:
    """Refuse callbacks that can't do anything with a model, or in a loop, because it lacks what they need.

    Args:
        callbacks: The callbacks.
        model: The model.
        lacks: What the loop can't give; then the model isn't looked at, which may not be known yet.

    Raises:
        ValueError: With the callback, what it needs, and what to use instead.
    """
    callbacks = list(callbacks)
    for changing in _changing(callbacks):
        if lacks is not None and "batches" in lacks.instead:
            raise ValueError(lacks.refusal(type(changing).__name__, "batches"))
    needing: list[NeedsOfModel] = _having(callbacks, "needs_of_model")
    for callback in needing:
        owner = type(callback).__name__
        for need in _names(callback.needs_of_model()):
            if lacks is not None:
                if need in lacks.instead:
                    raise ValueError(lacks.refusal(owner, need))
            elif need in MEMBERS:
                _check_members(owner, need, model)


def _check_members(owner: str, need: str, model: Any) -> None:
    if model is None:
        raise ValueError(
            f"{owner} needs {NEEDS[need]}, and this list has no model. Let `oncue.hosts.loop(net, optimizer, callbacks)` make "
            "the list for a torch module; or give it an oncue or Keras model, as `CallbackList(callbacks, model=model)`."
        )
    missing = [name for name in MEMBERS[need] if not _has(model, name)]
    if missing:
        names = " and ".join(f"`{name}`" for name in missing)
        raise ValueError(
            f"{owner} needs {NEEDS[need]}, and a {type(model).__name__} has no {names}. Let `oncue.hosts.loop(net, optimizer, "
            "callbacks)` make the list for a torch module, which gives it what callbacks need."
        )


def wants(callback: Any, hook: str) -> bool:
    """Return whether a callback needs a hook that it has."""
    listens_to = getattr(callback, "listens_to", None)
    return True if listens_to is None else bool(listens_to(hook))


def writes_for_all(callback: Any) -> bool:
    """Return whether a callback declares that it writes what one process writes for all of a run."""
    return _says(callback, "main_process_only")


def writes_together(callback: Any) -> bool:
    """Return whether a callback declares that other processes run it too where each has a part of the weights."""
    return _says(callback, "writes_together")


def stand_in_of(callback: Any) -> Any:
    """Return what other processes run in the place of a callback where each has a part of the weights; None for nothing."""
    having: list[HasStandIn] = _having([callback], "stand_in")
    return having[0].stand_in() if having else None


def in_turn(called: Sequence[Called], hook: str = "on_epoch_end") -> list[Called]:
    """Return those that have a hook in the order in which they are called at an end.

    A user's code keeps its place: what stands before it in the list has decided and saved, and what stands after it sees
    what it did. Between two of the user's, those of oncue that save or report make way for those that decide. What saves
    the state of all others, or may end the process, comes after all. At the end of a run, what writes files in the
    background finishes them before anything else.

    Args:
        called: Each callback, its method for the hook, and whether that is oncue's own code; in the order of the list.
        hook: The hook.

    Example:
        >>> from oncue.callbacks import CSVLogger, EarlyStopping, LambdaCallback
        >>> listed = [CSVLogger("a.csv"), EarlyStopping(), LambdaCallback(on_epoch_end=print), EarlyStopping()]
        >>> called = [(callback, callback.on_epoch_end, type(callback) is not LambdaCallback) for callback in listed]
        >>> [type(callback).__name__ for callback, _, _ in in_turn(called)]
        ['EarlyStopping', 'CSVLogger', 'LambdaCallback', 'EarlyStopping']
    """
    stretch = 0
    keys = []
    for callback, _, ours in called:
        makes_way = _says(callback, "makes_way")
        fixed = not makes_way and not (ours and is_builtin(type(callback)))
        stretch += fixed
        finishes = ours and hook == "on_train_end" and _says(callback, "finishes_files")
        keys.append([not finishes, *(_says(callback, name) for name in _LATE), stretch, makes_way])
        stretch += fixed
    return [called[place] for place in sorted(range(len(called)), key=keys.__getitem__)]


def arguments_of(callback: Any) -> dict[str, Any]:
    """Return the arguments that a callback was made with, as far as they are attributes of it, and plain."""
    try:
        names = inspect.signature(type(callback)).parameters
        own = vars(callback)
    except (TypeError, ValueError):
        return {}
    plain = (str, int, float, bool, os.PathLike)
    return {name: own[name] for name in names if isinstance(own.get(name), plain)}


def label(callback: Any, hook: str) -> str:
    """Return how a callback is shown in the schedule of a hook."""
    last = " (last)" if hook.endswith("_end") and _says(callback, "runs_last") else ""
    reads = " (reads the logs)" if hook.endswith("_batch_end") and _says(callback, "reads_batch_logs") else ""
    return type(callback).__name__ + last + reads


def _having(callbacks: Iterable[Any], *members: str) -> list[Any]:
    found = list(callbacks)
    for name in members:
        found = [callback for callback in found if getattr(callback, name, None) is not None]
    return found


def _changing(callbacks: Iterable[Any]) -> list[ChangesBatches]:
    # A mock object would have it, and return something else than a batch.
    return [one for one in callbacks if hasattr(type(one), "change_batch")]


def _has(model: Any, name: str) -> bool:
    # An optimizer that is None is as good as none.
    return getattr(model, name, None) is not None


def _names(found: Any) -> Sequence[str]:
    # A mock object returns something else.
    return found if isinstance(found, (list, tuple)) else ()


def _says(callback: Any, name: str) -> bool:
    return bool(getattr(callback, name, False))


def _by_key(callbacks: Iterable[Any]) -> dict[str, HasState]:
    found = []
    for callback in callbacks:
        fields = getattr(callback, "state_fields", ())
        later = getattr(callback, "later_fields", ())
        # A mock object has something else there.
        if any(isinstance(names, (tuple, list)) and names for names in (fields, later)):
            found.append(callback)
    return _numbered(found)


def _numbered(callbacks: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__name__
        counts[name] = counts.get(name, 0) + 1
        found[name if counts[name] == 1 else f"{name}#{counts[name]}"] = callback
    return found
