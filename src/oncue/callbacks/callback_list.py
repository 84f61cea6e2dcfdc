"""CallbackList: finds out once who listens to what, keeps order, and ends what was begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from oncue.callbacks.callback import Callback
from oncue.callbacks.checks import check, check_twins, flatten, own_method
from oncue.core.hooks import ALIASES, ENDS, HOOKS
from oncue.core.logs import Logs, as_logs

Listener = tuple[Any, Callable[..., Any]]


class CallbackList(Callback):
    """The callbacks of one run, called in order.

    `fit` makes one; a custom training loop can make one by hand and call its hooks. Callbacks are called in the order
    of the list, those with `runs_last = True` after the others. A hook that nobody overrides costs one call of an empty
    loop; ask `listens` to save even that.

    Args:
        callbacks: None, a callback, or nested lists of callbacks.
        add_history: Add a `History` when there is none.
        add_progbar: Add a `ProgbarLogger` when there is none.
        model: The model to give to every callback.
        **params: Given to every callback's `set_params`: `verbose`, `epochs`, `steps`.

    Raises:
        TypeError: For a thing that is no callback, a hook with the wrong arguments, a method that was meant to be a hook.
        ValueError: For the same object twice.

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
        for role, wanted in (("history", add_history), ("progbar", add_progbar)):
            if wanted and self._with_role(role) is None:
                self.callbacks.append(self.defaults[role]())
        self._listeners: dict[str, tuple[Listener, ...]] = {}
        self._sort()
        self.set_params(params)
        self.set_model(model)
        self._listen()

    def append(self, callback: Any) -> None:
        """Add a callback at the end of the list."""
        check("callback", callback)
        check_twins((f"callbacks[{index}]", item) for index, item in enumerate([*self.callbacks, callback]))
        self.callbacks.append(callback)
        if self.params:
            _tell(callback, "set_params", self.params)
        if self.model is not None:
            _tell(callback, "set_model", self.model)
        self._sort()
        self._listen()

    def set_params(self, params: dict[str, Any]) -> None:
        """Give the run's parameters to every callback."""
        self.params = params
        if params:
            for callback in self.callbacks:
                _tell(callback, "set_params", params)

    def set_model(self, model: Any) -> None:
        """Give the model to every callback, and the history to the model."""
        if model is None:
            return
        self.model = model
        history = self._with_role("history")
        if history is not None:
            model.history = history
        for callback in self.callbacks:
            _tell(callback, "set_model", model)

    def _with_role(self, role: str) -> Any:
        kind = self.defaults.get(role)
        return next((item for item in self.callbacks if kind is not None and isinstance(item, kind)), None)

    def _sort(self) -> None:
        self.callbacks.sort(key=lambda callback: bool(getattr(callback, "runs_last", False)))

    def _listen(self) -> None:
        for hook in HOOKS:
            pairs = ((callback, own_method(callback, hook)) for callback in self.callbacks if _wants(callback, hook))
            self._listeners[hook] = tuple((callback, method) for callback, method in pairs if method is not None)

    # Who runs when -----------------------------------------------------------------------------------------------

    def listens(self, hook: str) -> bool:
        """Return whether any callback overrides a hook."""
        return bool(self._listeners[ALIASES.get(hook, hook)])

    def schedule(self) -> str:
        """Return a table of who runs when: each hook that somebody overrides, and the callbacks in their order.

        Returns:
            One line for each hook.

        Example:
            >>> from oncue.callbacks import History
            >>> print(CallbackList([History()]).schedule())
            on_train_begin  History
            on_epoch_end    History
        """
        rows = []
        for hook, listeners in self._listeners.items():
            if listeners:
                ordered = reversed(listeners) if hook == "close" else listeners
                rows.append((hook, ", ".join(_label(callback) for callback, _ in ordered)))
        width = max((len(hook) for hook, _ in rows), default=0)
        return "\n".join(f"{hook:<{width}}  {names}" for hook, names in rows)

    # The three ends ----------------------------------------------------------------------------------------------

    @contextmanager
    def run(self) -> Iterator[CallbackList]:
        """Enclose a run: what was begun is ended whatever happens.

        On an error, or Ctrl-C, every callback's `on_exception` is called; then, always, every callback's `close`, last
        first. A failure in one never keeps the others from being called; the first error is the one that is raised,
        and later ones become notes on it.
        """
        failure: BaseException | None = None
        try:
            yield self
        except BaseException as error:
            failure = error
        for callback, method in self._listeners["on_exception"] if failure is not None else ():
            failure = _attempt(failure, callback, "on_exception", method, failure)
        for callback, method in reversed(self._listeners["close"]):
            failure = _attempt(failure, callback, "close", method)
        if failure is not None:
            raise failure

    def on_exception(self, exception: BaseException) -> None:
        """Tell every callback that an error ended the run; an error in one doesn't keep it from the others."""
        for callback, method in self._listeners["on_exception"]:
            _attempt(exception, callback, "on_exception", method, exception)

    def close(self) -> None:
        """Let every callback release what it holds, last first; the first failure is raised when all were called."""
        failure: BaseException | None = None
        for callback, method in reversed(self._listeners["close"]):
            failure = _attempt(failure, callback, "close", method)
        if failure is not None:
            raise failure

    # Dispatch ----------------------------------------------------------------------------------------------------

    def _call(self, hook: str, logs: Any) -> None:
        listeners = self._listeners[hook]
        if listeners:
            given = as_logs(logs)
            for callback, method in listeners:
                try:
                    method(given)
                except BaseException as error:
                    given.own()
                    raise _noted(error, callback, hook)

    def _call_at(self, hook: str, index: int, logs: Any) -> None:
        listeners = self._listeners[hook]
        if listeners:
            given = as_logs(logs)
            for callback, method in listeners:
                try:
                    method(index, given)
                except BaseException as error:
                    given.own()
                    raise _noted(error, callback, hook, index)


def _dispatcher(hook: str, indexed: bool) -> Callable[..., None]:
    if indexed:

        def at(self: CallbackList, index: int, logs: Any = None) -> None:
            self._call_at(hook, index, logs)

        at.__name__ = at.__qualname__ = hook
        return at

    def plain(self: CallbackList, logs: Any = None) -> None:
        self._call(hook, logs)

    plain.__name__ = plain.__qualname__ = hook
    return plain


for _hook, _arguments in HOOKS.items():
    if _hook not in ENDS:
        _method = _dispatcher(_hook, len(_arguments) == 2)
        _method.__doc__ = f"Call `{_hook}` of every callback that overrides it."
        setattr(CallbackList, _hook, _method)
for _old, _new in ALIASES.items():
    setattr(CallbackList, _old, getattr(CallbackList, _new))


def _tell(callback: Any, method: str, value: Any) -> None:
    # Callbacks of other origin need not have the two setters.
    setter = getattr(callback, method, None)
    if setter is not None:
        setter(value)


def _wants(callback: Any, hook: str) -> bool:
    listens_to = getattr(callback, "listens_to", None)
    return True if listens_to is None else bool(listens_to(hook))


def _label(callback: Any) -> str:
    return type(callback).__name__ + (" (last)" if getattr(callback, "runs_last", False) else "")


def _noted(error: BaseException, callback: Any, hook: str, index: int | None = None) -> BaseException:
    where = "" if index is None else f" ({HOOKS[hook][0]} {index})"
    note = f"raised in {type(callback).__name__}.{hook}{where}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


def _attempt(
    first: BaseException | None, callback: Any, hook: str, method: Callable[..., Any], *arguments: Any
) -> BaseException | None:
    """Call one callback's ending; return the error to raise in the end: the first, with later ones as notes."""
    try:
        method(*arguments)
    except BaseException as error:
        if first is None:
            return _noted(error, callback, hook)
        if error is not first:
            first.add_note(f"then {type(callback).__name__}.{hook} raised {type(error).__name__}: {error}")
    return first
