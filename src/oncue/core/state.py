"""Stateful: the named fields that survive a stop, compared strictly when they come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Stateful:
    """Keeps and gives back the attributes named in `state_fields`.

    Values are numbers, strings, None, lists and dicts of them, or arrays; the code that writes them to disk decides how.

    Example:
        >>> class Counter(Stateful):
        ...     state_fields = ("count",)
        ...     count = 0
        >>> counter = Counter()
        >>> counter.load_state_dict({"count": 3})
        >>> counter.state_dict()
        {'count': 3}
        >>> counter.load_state_dict({})
        Traceback (most recent call last):
        ...
        ValueError: The state of Counter must have the fields: count. Missing: count. Unknown: none.
    """

    state_fields: ClassVar[tuple[str, ...]] = ()
    later_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that the class got later: a state that was saved before has none of them, and they stay as they are."""

    def state_dict(self) -> dict[str, Any]:
        """Return the fields' values."""
        return {name: getattr(self, name) for name in (*self.state_fields, *self.later_fields)}

    def left_in_fork(self) -> tuple[str, ...]:
        """Return which of the fields belong to one run alone, such as the names of its files: a fork of it begins without."""
        return ()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over values that `state_dict` returned.

        Args:
            state: Exactly the fields that this class names.

        Raises:
            ValueError: For a missing or an unknown field; nothing is changed then.
        """
        later = [name for name in self.later_fields if name in state]
        check_fields(type(self).__name__, (*self.state_fields, *later), state)
        for name in (*self.state_fields, *later):
            setattr(self, name, state[name])


def check_fields(owner: str, fields: tuple[str, ...], state: Mapping[str, Any]) -> None:
    """Refuse a state whose fields are not exactly the expected ones.

    Args:
        owner: Whose state it is, for the message.
        fields: The expected fields.
        state: What came.

    Raises:
        ValueError: Naming the missing and the unknown fields.
    """
    missing = [name for name in fields if name not in state]
    extra = [str(name) for name in state if name not in fields]
    if missing or extra:
        raise ValueError(
            f"The state of {owner} must have the fields: {', '.join(fields) or 'none'}. Missing: "
            f"{', '.join(missing) or 'none'}. Unknown: {', '.join(extra) or 'none'}."
        )
