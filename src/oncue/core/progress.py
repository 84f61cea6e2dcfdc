"""Progress: where a run stands."""

from __future__ import annotations

from dataclasses import dataclass, field

from oncue.core.contract import TrainedModel


@dataclass
class Progress:
    """The epoch and the batch that a run is in, and what callbacks found out about the epoch.

    The callback list advances it, in one place. It is no part of a saved state: none is saved in an epoch in which a value
    was not finite, and a run that goes back or is resumed begins that epoch again.

    Args:
        epoch: The index of the epoch; None before the first.
        batch: The index of the batch in its epoch; None between batches.
        not_finite: The name of the value that was not finite in this epoch; None when all were.
        trial: Whether what is trained now will be taken back, so that nothing is saved.
        validated_amid: Whether the values of validation in the logs of the epoch's end were measured amid its batches, and told
            by `on_validation_end`: they belong to the weights of that moment.
        paused: For how many seconds somebody has had the run wait, between its batches.

    Example:
        >>> progress = Progress(epoch=2, not_finite="loss")
        >>> progress.enter(3)
        >>> progress
        Progress(epoch=3, batch=None, not_finite=None, validated_amid=False, trial=False)
    """

    epoch: int | None = None
    batch: int | None = None
    not_finite: str | None = None
    validated_amid: bool = False
    trial: bool = False
    paused: float = field(default=0.0, repr=False)

    def enter(self, epoch: int | None, begins: bool = False) -> None:
        """Go to an epoch, between its batches.

        Args:
            epoch: The index of the epoch; None to go before the first.
            begins: Whether it begins there, perhaps once more.
        """
        if begins or epoch != self.epoch:
            self.not_finite, self.validated_amid = None, False
        self.epoch, self.batch = epoch, None

    def cut_short(self, model: TrainedModel) -> bool:
        """Return whether this epoch is the last one because a value was not finite: its weights are of no use.

        Args:
            model: The model, whose `stop_training` a callback may have set back.
        """
        return self.not_finite is not None and bool(model.stop_training)
