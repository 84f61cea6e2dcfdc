"""HasRunState: what BackupAndRestore asks of a training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from oncue.checkpoints.training_state import TrainingState


class HasRunState(Protocol):
    """A loop that can tell all that it needs to go on; oncue's `fit` can."""

    def capture(self) -> TrainingState:
        """Return the state of this moment."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what a run that goes on must have in common with this one."""
        ...

    def obstacle(self) -> str | None:
        """Return why it can't go on exactly in the middle of an epoch; None when it can."""
        ...

    @property
    def reads_again(self) -> bool:
        """Whether data that are done must be read again to go on after them."""
        ...
