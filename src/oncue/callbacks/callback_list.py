"""CallbackList: finds out once which callback has which hook, keeps their order, and closes what was opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from copy import copy
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from oncue.callbacks.callback import Callback
from oncue.callbacks.checks import check, check_twins, flatten, own_method
from oncue.callbacks.listeners import Listeners
from oncue.callbacks.roles import (
    Roles,
    arguments_of,
    around_hook,
    check_needs,
    give_model,
    give_params,
    give_run,
    in_turn,
    label,
    stand_in_of,
    wants,
    with_brought,
    writes_for_all,
    writes_together,
)
from oncue.core.account import cost_warning
from oncue.core.console import print_message
from oncue.core.costs import by_callback
from oncue.core.hooks import ALIASES, ENDS, HOOKS
from oncue.core.interrupts import Interrupts, undivided
from oncue.core.journal import Journal
from oncue.core.logs import as_logs
from oncue.core.monitor import Logged
from oncue.core.progress import Progress
from oncue.core.protocols import SavesRun, TellsState
from oncue.core.ranks import Ranks
from oncue.core.warn import warn
from oncue.legacy import RunParams, old_log_names

if TYPE_CHECKING:
    from oncue.checkpoints.owed_waits import OwedWaits


class CallbackList(Callback):
    """The callbacks of one run, called in order.

    `fit` makes one; a custom training loop can make one itself and call its hooks. Callbacks are called in the order
    of the list. At an end, of a batch, an epoch or a run, those of oncue that decide come before those that save or report,
    but never past a callback of yours; and what saves the whole run, or may end it, comes last. `schedule` shows the order.
    A hook that no callback overrides costs one call of an empty function; check `listens` to save even that.

    Args:
        callbacks: None, a callback, or nested lists of callbacks.
        add_history: Add a `History` when there is none.
        add_progbar: Add a `ProgbarLogger` when there is none.
        model: The model to give to every callback.
        **params: Given to every callback's `set_params`: `verbose`, `epochs`, `steps`.

    Raises:
        TypeError: For an object that isn't a callback, a hook with the wrong arguments, a method that looks like a hook.
        ValueError: For the same object twice.

    Attributes:
        journal: What callbacks decide.
        progress: The epoch and the batch that the run is in.
        roles: The callbacks sorted by what they do for the run beside their hooks.
        run_state: Takes and restores the state of the run, in a loop that can; None otherwise.
        paused: Why the run stops in the middle, to continue when it is started again; None when it doesn't.
        group: The processes of the run.

    Example:
        >>> from oncue.callbacks import History
        >>> history = History()
        >>> callbacks = CallbackList([history])
        >>> with callbacks.run():
        ...     callbacks.on_train_begin()
        ...     callbacks.on_epoch_begin(0)
        ...     callbacks.on_epoch_end(0, {"loss": 0.5})
        ...     callbacks.on_train_end()
        >>> history.history
        {'loss': [0.5]}
    """

    defaults: ClassVar[dict[str, type[Callback]]] = {}
    """The classes for `add_history` and `add_progbar`; `oncue.callbacks` fills it in, this module imports neither."""

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        found = flatten(callbacks)
        for place, callback in found:
            check(place, callback)
        check_twins(found)
        self.callbacks: list[Any] = [callback for _, callback in found]
        for name, wanted in (("history", add_history), ("progbar", add_progbar)):
            if wanted and self._default(name) is None:
                self.callbacks.append(self.defaults[name]())
        self._listeners: dict[str, Listeners] = {}
        self.journal = Journal()
        self.progress = Progress()
        self.run_state: TellsState | None = None
        self.paused: str | None = None
        # What is validated on, for `validation_data` of callbacks: while the run goes on.
        self.held_out: tuple[Any, Any, Any] | None = None
        self.group = Ranks()
        self.owed: OwedWaits | None = None
        self._announced = False
        # Whether the loop says by `run` when all is closed, and what is raised then.
        self._says_end = False
        self._raises: Exception | None = None
        # When the run began, and when it ended.
        self._clock: tuple[float | None, float | None] = None, None
        self._begun: set[str] = set()
        self.set_model(model)
        self.set_params(params)
        self._listen()

    def append(self, callback: Any) -> None:
        """Add a callback at the end of the list, with those that it brings."""
        found = with_brought("callback", callback)
        for place, one in found:
            check(place, one)
        added = [one for _, one in found]
        check_twins((f"callbacks[{index}]", item) for index, item in enumerate([*self.callbacks, *added]))
        self.callbacks += added
        self._introduce(added)
        if self.params:
            give_params(added, self.params)
        self._listen()

    def leave_out_writers(self, parts: bool = False) -> None:
        """Remove the callbacks that write what the main process writes for all; for the other processes of a run.

        Args:
            parts: Whether each process has a part of the weights, which those that write weights need of all.
        """
        stay = []
        for callback in self.callbacks:
            if not writes_for_all(callback) or (parts and writes_together(callback)):
                stay.append(callback)
            elif parts and (instead := stand_in_of(callback)) is not None:
                stay.append(instead)
        self.callbacks = stay
        self._introduce(stay)
        self._listen()

    def set_params(self, params: dict[str, Any]) -> None:
        """Give the run's parameters to every callback."""
        params = RunParams(params)
        self.params = params
        if params:
            give_params(self.callbacks, params)

    def set_model(self, model: Any) -> None:
        """Give the model to every callback, and the history to the model."""
        if model is not None:
            self.model = model
            history = self._default("history")
            if history is not None:
                model.history = history
        self._introduce(self.callbacks)

    def _introduce(self, callbacks: list[Any]) -> None:
        if self.model is not None:
            give_model(callbacks, self.model)
        give_run(callbacks, self)

    @property
    def savers(self) -> list[SavesRun]:
        """The callbacks that save the state of the run."""
        return self.roles.saving

    def growing_files(self) -> list[str]:
        """Return the files that the states of callbacks speak of, which must be on the disk before a state is."""
        return [path for callback in self.roles.growing for path in callback.growing_files()]

    def _default(self, name: str) -> Any:
        kind = self.defaults.get(name)
        return next((item for item in self.callbacks if kind is not None and isinstance(item, kind)), None)

    def _listen(self) -> None:
        self.roles = Roles(self.callbacks)
        for hook in HOOKS:
            found = [(callback, own_method(callback, hook)) for callback in self.callbacks if wants(callback, hook)]
            called = [(callback, *method) for callback, method in found if method is not None]
            if hook.endswith("_end"):
                called = in_turn(called, hook)
            pairs = [(callback, around_hook(self.model, callback, method)) for callback, method, _ in called]
            listeners = Listeners(hook, pairs, foreign=not all(ours for _, _, ours in called))
            self._listeners[hook] = listeners
            if "_batch_" in hook and getattr(type(self), hook) is getattr(CallbackList, hook):
                # In place of the method, so that a batch costs one call less.
                self.__dict__[hook] = listeners.of_batch(self.progress)

    def __getstate__(self) -> dict[str, Any]:
        kept = {
            name: value for name, value in super().__getstate__().items() if name not in (*HOOKS, "_listeners", "roles")
        }
        # A copy is in no run, and takes none of the callbacks away from this one.
        own = {
            "callbacks": list(map(copy, self.callbacks)),
            "journal": copy(self.journal),
            "progress": copy(self.progress),
        }
        return {
            **kept,
            **own,
            "model": None,
            "run_state": None,
            "held_out": None,
            "group": Ranks(),
            "_clock": (0.0, self.seconds),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._listeners = {}
        give_run(self.callbacks, self)
        self._listen()

    def expect(
        self,
        names: Iterable[str],
        validation: bool,
        directions: Mapping[str, str] | None = None,
        amid: bool = False,
    ) -> None:
        """Tell the callbacks, before the first step, what the run is going to log.

        Args:
            names: The names that every epoch's logs will have.
            validation: Whether there is validation data.
            directions: "up" or "down" for the names whose metric says which is better.
            amid: Whether there may be validation amid epochs.

        Raises:
            MonitorError: When a callback watches what this run can't log.
        """
        # What is noted from here on belongs to the run that is about to begin.
        self.journal.clear()
        self._announced = True
        self.progress = Progress()
        names = list(names)
        writers = self.roles.setting_rate
        if writers and "learning_rate" not in names:
            names.append("learning_rate")
        may_grow = self._listeners["on_epoch_end"].foreign
        logged = Logged(names, validation, may_grow, directions or {}, old_log_names(names), amid)
        for callback in self.roles.expecting:
            callback.expect(logged)
        trying = [type(callback).__name__ for callback in self.roles.trying]
        if len(trying) > 1:
            raise ValueError(
                f"{' and '.join(trying)} each test something that is taken back, and a run can have one such test. Give them "
                "to one `fit` after the other: the size of batches first, as the rate depends on it."
            )
        kinds = {type(callback).__name__ for callback in writers}
        if len(kinds) > 1:
            entry = self.journal.write("CallbackList", what="two_set_the_rate", data={"callbacks": sorted(kinds)})
            warn(entry.text)

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far, from before its first hook until after its last."""
        began, ended = self._clock
        return 0.0 if began is None else (perf_counter() if ended is None else ended) - began

    def costs(self) -> dict[str, dict[str, float]]:
        """Return the seconds that each callback took in each hook, the most expensive callback first."""
        return by_callback({hook: listeners.clock for hook, listeners in self._listeners.items()})

    def made_with(self) -> list[dict[str, Any]]:
        """Return the class of each callback and the arguments that it was made with, as far as they are plain attributes.

        Example:
            >>> from oncue.callbacks import EarlyStopping
            >>> CallbackList([EarlyStopping(patience=3)]).made_with()[0]["patience"]
            3
        """
        return [{"class": type(callback).__name__, **arguments_of(callback)} for callback in self.callbacks]

    # Who runs when -----------------------------------------------------------------------------------------------

    def listens(self, hook: str) -> bool:
        """Return whether any callback overrides a hook."""
        return bool(self._listeners[ALIASES.get(hook, hook)])

    def caller(self, hook: str) -> Callable[..., None] | None:
        """Return the function that calls a hook of every callback that overrides it; None when none does."""
        return getattr(self, hook) if self.listens(hook) else None

    def calls_others(self, *hooks: str) -> bool:
        """Return whether any of some hooks runs code that isn't oncue's own."""
        if type(self) is not CallbackList:
            return True
        return any(self._listeners[ALIASES.get(hook, hook)].foreign for hook in hooks)

    def others_follow(self, callback: Any, hook: str) -> bool:
        """Return whether code that isn't oncue's own is called after a callback in a hook."""
        follows = False
        for other, _ in self._listeners[hook].pairs:
            found = own_method(other, hook) if follows else None
            if found is not None and not found[1]:
                return True
            follows = follows or other is callback
        return False

    def schedule(self) -> str:
        """Return a table of what runs when: a line for each hook that is overridden, with the callbacks in order.

        Those that declare `reads_batch_logs` are marked: there, training waits for the device.

        Example:
            >>> from oncue.callbacks import BaseLogger, CSVLogger, LambdaCallback
            >>> listed = [CSVLogger("log.csv"), BaseLogger(), LambdaCallback(on_epoch_end=print)]
            >>> print(CallbackList(listed).schedule())
            on_train_begin      CSVLogger
            on_train_end        CSVLogger
            on_epoch_begin      BaseLogger
            on_epoch_end        BaseLogger, CSVLogger, LambdaCallback
            on_train_batch_end  BaseLogger
            close               CSVLogger
        """
        rows = []
        for hook, listeners in self._listeners.items():
            if listeners:
                ordered = reversed(listeners.pairs) if hook == "close" else listeners.pairs
                rows.append((hook, ", ".join(label(callback, hook) for callback, _ in ordered)))
        width = max((len(hook) for hook, _ in rows), default=0)
        return "\n".join(f"{hook:<{width}}  {names}" for hook, names in rows)

    # The three ends ----------------------------------------------------------------------------------------------

    def run(self) -> AbstractContextManager[CallbackList]:
        """Return a block that encloses a run, so that everything is closed whatever happens.

        On an error, or Ctrl-C, every callback's `on_exception` is called; then, always, every callback's `close`, last
        first. A failure in one never keeps the others from being called; the first error is the one that is raised,
        and later ones become notes on it. Ctrl-C ends the run, or the callback that is being closed, at any moment, and
        keeps nothing else from being closed.
        """
        return _Block(self)

    def end_trial(self) -> None:
        """Let a callback that makes a trial end it with the epoch's batches: none of the hooks of an epoch's end is for it."""
        if self.progress.trial:
            for callback in self.roles.trying:
                callback.end_trial()

    def raise_at_end(self, error: Exception) -> None:
        """Raise an error when the run has ended well and everything is closed; at once in a loop that doesn't say when that is.

        Args:
            error: The error. Where the run fails after that, its own error is raised.
        """
        if not self._says_end:
            raise error
        self._raises = error

    def _begin_block(self) -> None:
        self.paused = self._raises = None
        self._says_end = True
        self._begun.clear()
        # A list that is used again counts the costs of this run only.
        self._listen()
        self._clock = perf_counter(), None

    def _end_block(self, failure: BaseException | None, interrupts: Interrupts) -> BaseException | None:
        """Call the hooks of a run's end, in a block of interrupts that are held back; return what to raise."""
        if failure is not None:
            self.group.failed(failure)
            failure = self._listeners["on_exception"].call_each(failure, failure, interrupts=interrupts)
        failure = self._listeners["close"].call_each(failure, backwards=True, interrupts=interrupts)
        # Whatever has cut `close` short, what others wait for is released.
        last = [(callback, callback.after_close) for callback in self.callbacks if isinstance(callback, Callback)]
        failure = Listeners("after_close", last).call_each(failure)
        self._stop_clock()
        self.held_out = None
        self._says_end = False
        return self._raises if failure is None else failure

    def on_exception(self, exception: BaseException) -> None:
        """Tell every callback that an error ended the run; an error in one doesn't keep it from the others."""
        self._listeners["on_exception"].call_each(exception, exception)

    def close(self) -> None:
        """Let every callback release what it holds, last first; the first failure is raised when all were called."""
        failure = self._listeners["close"].call_each(None, backwards=True)
        self._stop_clock()
        if failure is not None:
            raise failure

    def _stop_clock(self) -> None:
        self._clock = self._clock[0], perf_counter()

    # Dispatch ----------------------------------------------------------------------------------------------------


class _Block:
    """What `CallbackList.run` returns."""

    def __init__(self, callbacks: CallbackList) -> None:
        self._callbacks = callbacks
        self._interrupts = Interrupts()

    def __enter__(self) -> CallbackList:
        self._callbacks._begin_block()
        self._interrupts.__enter__()
        return self._callbacks

    @undivided
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.hold()
        failure = self._callbacks._end_block(error, self._interrupts)
        self._interrupts.__exit__(None if failure is None else type(failure), failure, None)
        if failure is not None and failure is not error:
            raise failure
        warning = None if failure is not None else cost_warning(self._callbacks.costs(), self._callbacks.seconds)
        if warning is not None and (self._callbacks.params or {}).get("verbose"):
            print_message(warning)


def _plain(hook: str) -> Callable[..., None]:
    what, begins = hook.removesuffix("_begin").removesuffix("_end"), hook.endswith("_begin")

    def call(self: CallbackList, logs: Any = None) -> None:
        if begins:
            self._begun.add(what)
        elif what not in self._begun:
            raise ValueError(f"`{hook}` was called without `{what}_begin`, which must come first.")
        else:
            self._begun.remove(what)
        self.progress.batch = None
        if hook == "on_train_begin":
            self.progress.enter(None, begins=True)
            if self._clock[0] is None or self._clock[1] is not None:
                # A loop that doesn't say by `run` when it begins.
                self._clock = perf_counter(), None
            check_needs(self.callbacks, self.model)
            if not self._announced:
                self.journal.clear()
            self._announced = False
        listeners = self._listeners[hook]
        if listeners.pairs:
            listeners.call(as_logs(logs))

    return call


def _of_epoch(hook: str) -> Callable[..., None]:
    begins = hook == "on_epoch_begin"

    def call(self: CallbackList, epoch: int, logs: Any = None) -> None:
        self.progress.enter(epoch, begins)
        listeners = self._listeners[hook]
        if listeners.pairs:
            listeners.call(epoch, as_logs(logs))

    return call


def _of_batch(hook: str) -> Callable[..., None]:
    def call(self: CallbackList, batch: int, logs: Any = None) -> None:
        listeners = self._listeners[hook]
        if listeners.pairs:
            self.progress.batch = batch
            listeners.call(batch, as_logs(logs))

    return call


_MAKERS = {"logs": _plain, "epoch": _of_epoch, "batch": _of_batch}

for _hook, _arguments in HOOKS.items():
    if _hook not in ENDS:
        _method = _MAKERS[_arguments[0]](_hook)
        _method.__name__ = _method.__qualname__ = _hook
        _method.__doc__ = f"Call `{_hook}` of every callback that overrides it."
        setattr(CallbackList, _hook, _method)
for _old, _new in ALIASES.items():
    setattr(CallbackList, _old, getattr(CallbackList, _new))
