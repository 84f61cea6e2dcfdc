"""The state of a source of data: its position, and all that changes in the objects that it is made of."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from oncue.feeding.batch import Batches, OtherDataError
from oncue.feeding.parts import generators_of, parts_of
from oncue.random_state import generator_state, set_generator_state


class DataState:
    """Captures and restores what a run needs to go on with its data where it was.

    Args:
        batches: The training data, or those of validation.
        name: What they are, for messages.

    Example:
        >>> from oncue.feeding.arrays import ArrayBatches
        >>> sorted(DataState(ArrayBatches([1, 2], batch_size=1, device="cpu")).capture())
        ['data', 'data_sets', 'generators', 'rows']
    """

    def __init__(self, batches: Batches, name: str = "training") -> None:
        self.batches = batches
        self._name = name
        self._rows: tuple[Any, dict[str, str]] | None = None

    def capture(self, moment: Any = None) -> dict[str, Any]:
        """Return the state of this moment.

        Args:
            moment: What the data are taken not to change in, apart from their position; such as an epoch.

        Returns:
            "data", the position; "generators", the states of random generators that are attributes of the source or of
            what it reads from; "data_sets", what data sets with `state_dict` returned, by name; "rows", digests of a few rows.
        """
        if self._rows is None or moment is None or self._rows[0] != moment:
            self._rows = (moment, self.batches.few_rows())
        return {
            "rows": self._rows[1],
            "data": self.batches.state_dict(),
            "generators": [generator_state(one) for one in self._generators()],
            "data_sets": {name: one.state_dict() for name, one in self._data_sets().items()},
        }

    @property
    def captured(self) -> dict[str, str] | None:
        """The digests of rows in the state that was captured last; None before the first."""
        return None if self._rows is None else self._rows[1]

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go to a saved position, for the pass that begins next; a state without one begins a new pass.

        Args:
            saved: What `capture` returned, or the part of it that an older backup has.

        Raises:
            OtherDataError: When the source gives other data than it did.
            ValueError: When the source can't go there.
        """
        self.restore_objects(saved)
        if saved["data"] is None:
            return
        try:
            self.batches.load_state_dict(saved["data"])
        except ValueError as error:
            kind = OtherDataError if isinstance(error, OtherDataError) else ValueError
            raise kind(f"{self._name.capitalize()} data: {error}") from error

    def restore_objects(self, saved: Mapping[str, Any]) -> None:
        """Restore data sets and generators, and leave the position: hooks may have changed them since `restore`.

        Args:
            saved: What `capture` returned.
        """
        states = saved.get("data_sets") or {}
        for name, data_set in self._data_sets().items():
            if name in states:
                # What it does with its lists must not change the state, which may be restored once more.
                data_set.load_state_dict(copy.deepcopy(states[name]))
        if saved["data"] is None or not self.batches.reads_again:
            # What is read again draws its numbers again.
            for generator, state in zip(self._generators(), saved.get("generators") or (), strict=False):
                set_generator_state(generator, state)

    def changed(self, saved: Mapping[str, Any]) -> str | None:
        """Return that rows aren't those of a saved state, as a sentence; None when they are, as far as one can see.

        Args:
            saved: What `capture` returned.
        """
        before = saved.get("rows") or {}
        now = self.batches.few_rows() if before else {}
        for name in before:
            if name in now and before[name] != now[name]:
                kind = type(self.batches.source).__name__
                return (
                    f"the {self._name} data ({kind}) are not what they were when the state was saved: {name} is another"
                )
        return None

    @property
    def numbered(self) -> bool:
        """Whether data sets have `set_epoch`, so that they are taken to depend on nothing but the epoch."""
        return any(hasattr(part, "set_epoch") for part in parts_of(self.batches.source))

    def _generators(self) -> list[Any]:
        return generators_of(parts_of(self.batches.source))

    def _data_sets(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for data_set in self.batches.data_sets:
            name = type(data_set).__name__
            number = sum(other.split("#")[0] == name for other in found) + 1
            found[name if number == 1 else f"{name}#{number}"] = data_set
        return found
