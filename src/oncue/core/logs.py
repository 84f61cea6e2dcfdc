"""Logs: a dict of metric values that are fetched from the device together, on first read; and dicts with their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from oncue.core.suggest import nearest


class Source(Protocol):
    """Where the values of logs come from."""

    names: Sequence[str]

    def read(self) -> list[float]:
        """Return the values, in the order of `names`; may wait for the device."""
        ...

    def snapshot(self) -> Source:
        """Return a source that owns its values, so that further training steps can't change them."""
        ...


class _Pending:
    def __repr__(self) -> str:
        return "<not read yet>"


_PENDING: Any = _Pending()


class MissingLogError(KeyError):
    """There is no value of a name.

    Args:
        key: The name.
        names: The names that there are.

    Example:
        >>> print(MissingLogError("val_loss", ["loss"]))
        There is no 'val_loss' among the logged values: loss. Validation has values where `fit` gets `validation_data` or
        `validation_split`, and in the epochs of `validation_freq`.
    """

    def __init__(self, key: Any, names: list[str]) -> None:
        super().__init__(key, names)
        self.key, self.names = key, names

    def __str__(self) -> str:
        text = (
            f"There is no {self.key!r} among the logged values: {', '.join(map(str, self.names)) or 'there are none'}."
        )
        validated = any(str(name).startswith("val_") for name in self.names)
        if str(self.key).startswith("val_") and not validated:
            return (
                f"{text} Validation has values where `fit` gets `validation_data` or `validation_split`, and in the epochs of "
                "`validation_freq`."
            )
        guess = nearest(str(self.key), map(str, self.names))
        return text if guess is None else f"{text} Did you mean {guess!r}?"


class ByLogName(dict[str, Any]):
    """A dict by the names of logged values: names of the Keras 1 and 2 era resolve, without appearing among the keys.

    Example:
        >>> curves = ByLogName(accuracy=[0.5, 0.75])
        >>> curves["acc"], curves.get("acc"), "acc" in curves, list(curves)
        ([0.5, 0.75], [0.5, 0.75], False, ['accuracy'])
    """

    old_names: ClassVar[Callable[[str], Iterable[str]]] = staticmethod(lambda key: ())
    """From an old name to the names it may stand for; `oncue.legacy` fills it in."""

    __slots__ = ()

    def __missing__(self, key: str) -> Any:
        for name in ByLogName.old_names(key):
            if super().__contains__(name):
                return self[name]
        raise MissingLogError(key, list(self.keys()))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a name, or the default."""
        if super().__contains__(key):
            return self[key]
        try:
            return self.__missing__(key)
        except KeyError:
            return default

    def copy(self) -> dict[str, Any]:
        """Return a dict of the same kind with the same values."""
        return ByLogName(self)


class Logs(ByLogName):
    """The values that a hook receives: a real dict, whose numbers stay on the device until one is read.

    `len`, `in`, `keys` and iteration fetch nothing. The first read of a value fetches all of them in one transfer and
    leaves Python floats. Names of the Keras 1 and 2 era (`acc`, `lr`, `size`, `batch`) resolve when asked for by
    name, without appearing among the keys.

    Args:
        values: Values that are known already.
        source: Where further values come from, when they are read.

    Example:
        >>> logs = Logs({"loss": 0.5, "accuracy": 0.75})
        >>> logs["acc"], "acc" in logs, sorted(logs)
        (0.75, False, ['accuracy', 'loss'])
    """

    running: ClassVar[bool] = False
    """Whether the values are means over the pass so far, rather than those of one batch."""

    __slots__ = ("__weakref__", "_source")

    def __init__(
        self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), *, source: Source | None = None
    ) -> None:
        if source is None:
            super().__init__(values)
        else:
            super().__init__(dict.fromkeys(source.names, _PENDING))
            super().update(values)
        self._source = source

    @property
    def fetched(self) -> bool:
        """Whether the values have been read from the device."""
        return self._source is None

    def fetch(self) -> None:
        """Read all values now, in one transfer. Values that were written meanwhile are kept."""
        source = self._source
        if source is None:
            return
        self._source = None
        for name, value in zip(source.names, source.read(), strict=True):
            if super().get(name) is _PENDING:
                super().__setitem__(name, value)

    def own(self) -> None:
        """Make the unread values safe from the next step, without reading them."""
        if self._source is not None:
            self._source = self._source.snapshot()

    def kept(self) -> Logs:
        """Return logs of the same values which nobody else has, so that another thread may read them after the next step."""
        found = Logs(dict(super().items()))
        found._source = None if self._source is None else self._source.snapshot()
        return found

    # Reading -----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        # What isn't among the values, as a batch's `size`, is told without waiting for them.
        if self._source is not None and super().__contains__(key):
            self.fetch()
        return super().__getitem__(key)

    # Overriding __iter__ keeps dict(logs), {**logs} and f(**logs) from copying unread values directly.
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def items(self) -> Any:
        """Return the pairs of names and values; fetches."""
        self.fetch()
        return super().items()

    def values(self) -> Any:
        """Return the values; fetches."""
        self.fetch()
        return super().values()

    def copy(self) -> dict[str, Any]:
        """Return the values as a plain dict; fetches."""
        self.fetch()
        return dict(super().items())

    def __eq__(self, other: object) -> bool:
        self.fetch()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __repr__(self) -> str:
        self.fetch()
        return super().__repr__()

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return (Logs, (self.copy(),))

    def __deepcopy__(self, memo: dict[int, Any]) -> Logs:
        return Logs(self.copy())

    # Writing -----------------------------------------------------------------------------------------------------

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a name and return its value; fetches."""
        self.fetch()
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last pair; fetches."""
        self.fetch()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a name, setting it first when it is not there; fetches."""
        self.fetch()
        return super().setdefault(key, default)

    def __delitem__(self, key: str) -> None:
        self.fetch()
        super().__delitem__(key)


class RunningLogs(Logs):
    """The logs of a batch whose values are means over the pass so far, as `fit`'s and Keras's are.

    Example:
        >>> RunningLogs({"loss": 0.5}).running
        True
    """

    running = True
    __slots__ = ()


def as_python(value: Any) -> Any:
    """Return a number of any library as a Python float; anything else as it is.

    Example:
        >>> as_python(3), as_python("word")
        (3.0, 'word')
    """
    if isinstance(value, (str, bytes)) or value is None:
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return value


def as_logs(logs: Mapping[str, Any] | None) -> Logs:
    """Return what a hook may be given: the logs themselves, or a dict with names sorted and numbers made floats.

    Nested dicts are flattened, as in Keras. None gives empty logs.

    Example:
        >>> as_logs({"b": 1, "a": {"inner": 2}})
        {'inner': 2.0, 'b': 1.0}
    """
    if logs is None:
        return Logs()
    if isinstance(logs, Logs):
        return logs
    return Logs({name: as_python(value) for name, value in flattened(logs).items()})


def flattened(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return logs by sorted name, with what nested dicts have in their places.

    Example:
        >>> flattened({"b": 1, "a": {"inner": 2}})
        {'inner': 2, 'b': 1}
    """
    flat: dict[str, Any] = {}
    for key in sorted(logs, key=str):
        value = logs[key]
        flat.update(flattened(value) if isinstance(value, Mapping) else {key: value})
    return flat
