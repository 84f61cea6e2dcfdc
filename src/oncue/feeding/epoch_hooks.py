"""The hooks of a data set at the two ends of an epoch, which can be called again when a run is resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from oncue.feeding.digest import batch_digest
from oncue.feeding.parts import generators_of, random_of
from oncue.random_state import (
    preserved_random_state,
    set_generator_state,
    set_random_state,
)

_KEYS = {"calls", "drawn"}
_SMALL = 1 << 26
"""Arrays of no more bytes are put back after a trial."""


class EpochHooks:
    """Calls `on_epoch_begin` and `on_epoch_end` of a data set, and knows which calls there were.

    A data set that changes in them, such as one that shuffles itself when an epoch ends, is brought back in a new process by
    the same calls, each with the random numbers of then.

    Args:
        data_set: The data set.

    Example:
        >>> class Counts:
        ...     epoch = 0
        ...     def on_epoch_end(self):
        ...         self.epoch += 1
        >>> before, after = EpochHooks(Counts()), EpochHooks(Counts())
        >>> before.begin(), before.end()
        (None, None)
        >>> after.load_state_dict(before.state_dict())
        >>> after.data_set.epoch
        1
    """

    def __init__(self, data_set: Any) -> None:
        self.data_set = data_set
        self.records = False
        """Whether to remember which random numbers the calls draw from now on."""
        self._calls = ""
        self._drawn: dict[int, Any] = {}
        self._changed: set[str] = set()
        self._inside = False
        # Whether the next epoch to begin is one that had begun when the state was saved.
        self._resumed = False

    def begin(self) -> None:
        """Call `on_epoch_begin`, unless the epoch had begun before the state that was loaded."""
        resumed, self._resumed = self._resumed, False
        if not (resumed and self._inside):
            self._call("b", getattr(self.data_set, "on_epoch_begin", None))
        self._inside = True

    def end(self) -> None:
        """Call `on_epoch_end`, unless it was called before the state that was loaded."""
        if self._inside:
            self._call("e", self.data_set.on_epoch_end)
        self._inside = self._resumed = False

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Let the data set be in an epoch within the block, as if none had begun: it may make its order in `on_epoch_begin`.

        Its attributes are put back, and the items of lists, dicts, sets and arrays in them.
        """
        hook = getattr(self.data_set, "on_epoch_begin", None)
        if hook is None or self._inside:
            yield
            return
        attributes = getattr(self.data_set, "__dict__", {})
        before = dict(attributes)
        items = [(value, _copy(value)) for value in before.values() if _has_items(value)]
        try:
            hook()
            yield
        finally:
            attributes.clear()
            attributes.update(before)
            for value, saved in items:
                _put_items(value, saved)

    def digests(self) -> dict[str, str]:
        """Return digests of the arrays and lists that the calls have changed, by name: another call may give others."""
        return {f"`{name}`": digest for name, digest in self._arrays(self._changed).items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the calls so far, and the states of the random generators before those that drew numbers."""
        return {"calls": self._calls, "drawn": dict(self._drawn)}

    def load_state_dict(self, state: dict[str, Any], replay: bool = True) -> None:
        """Bring the data set to where it was.

        Args:
            state: What `state_dict` returned.
            replay: Whether to make the calls, if none was made yet; not for a data set whose own state is restored.

        Raises:
            ValueError: If keys are missing or unknown.
        """
        if set(state) != _KEYS:
            raise ValueError(f"The state of a data set's hooks has the keys {sorted(_KEYS)}; got {sorted(state)}.")
        if not self._calls:
            self._calls, self._drawn = state["calls"], dict(state["drawn"])
            if replay:
                with preserved_random_state(*generators_of([self.data_set])):
                    self._replay()
        self._inside, self._resumed = state["calls"].endswith("b"), True

    def _replay(self) -> None:
        for number, call in enumerate(self._calls):
            if number in self._drawn:
                shared, own = self._drawn[number]
                set_random_state(shared)
                for generator, saved in zip(generators_of([self.data_set]), own, strict=False):
                    set_generator_state(generator, saved)
            hook = getattr(self.data_set, "on_epoch_begin" if call == "b" else "on_epoch_end", None)
            if hook is not None:
                self._watched(hook)

    def _call(self, name: str, hook: Callable[[], Any] | None) -> None:
        if hook is not None:
            before = self._random() if self.records else None
            if self.records:
                self._watched(hook)
            else:
                hook()
            if before is not None and batch_digest(before) != batch_digest(self._random()):
                self._drawn[len(self._calls)] = before
        self._calls += name

    def _watched(self, hook: Callable[[], Any]) -> None:
        before = self._arrays()
        hook()
        self._changed.update(name for name, digest in self._arrays().items() if before.get(name) != digest)

    def _arrays(self, names: Collection[str] | None = None) -> dict[str, str]:
        attributes = list(getattr(self.data_set, "__dict__", {}).items())
        asked = [(name, value) for name, value in attributes if names is None or name in names]
        return {name: batch_digest(value) for name, value in asked if _is_data(value)}

    def _random(self) -> tuple[Any, list[Any]]:
        return random_of([self.data_set])


def _has_items(value: Any) -> bool:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.nbytes <= _SMALL and not (isinstance(value, np.ndarray) and not value.flags.writeable)
    return type(value) in (list, dict, set)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.copy(value)


def _put_items(value: Any, saved: Any) -> None:
    if isinstance(value, np.ndarray):
        value[...] = saved
    elif isinstance(value, torch.Tensor):
        with torch.no_grad():
            value.copy_(saved)
    elif isinstance(value, list):
        value[:] = saved
    else:
        value.clear()
        value.update(saved)


def _is_data(value: Any) -> bool:
    # A list of floats may be one of times, which are others in each run.
    listed = isinstance(value, list) and bool(value) and isinstance(value[0], (int, str))
    return listed or isinstance(value, (np.ndarray, torch.Tensor))
