"""`Poutyne`: the callbacks in the `fit` of Poutyne's `Model`."""

from __future__ import annotations

from typing import Any

from poutyne import Callback

from oncue.hosts.host import Host
from oncue.hosts.lacks import POUTYNE
from oncue.hosts.run import Adapter, HostedRun


class Poutyne(Adapter, Callback):
    """One callback for Poutyne that carries oncue's, in their order; the epoch's logs are Poutyne's.

    A stop ends the training with the epoch. Poutyne tells nobody of an error: use `with` around `fit`.

    Args:
        *callbacks: oncue's callbacks, or lists of them; what they need and Poutyne lacks is an error now.
        scheduler: Poutyne's own callback that sets the learning rate.
    """

    def __init__(self, *callbacks: Any, scheduler: Any = None) -> None:
        super().__init__()
        self._run, self._scheduler = HostedRun(callbacks, POUTYNE), scheduler

    def on_train_begin(self, logs: dict[str, Any]) -> None:
        """End a run that was left open; another begins with the first epoch, when the scheduler is there."""
        self._run.abandon()

    def on_epoch_begin(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """Begin an epoch."""
        if not self._run.is_open:
            host = Host(self.model.network, [self.model.optimizer], filter(None, [self._scheduler]))
            self._run.begin(host, self, **self.params)
        self._run.begin_epoch(epoch_number - 1)

    def on_train_batch_begin(self, batch_number: int, logs: dict[str, Any]) -> None:
        """Begin a batch."""
        self._run.begin_batch(None, batch_number - 1)

    def on_train_batch_end(self, batch_number: int, logs: dict[str, Any]) -> None:
        """End a batch."""
        self._run.call("on_train_batch_end", batch_number - 1, _values(logs))

    def on_epoch_end(self, epoch_number: int, logs: dict[str, Any]) -> None:
        """End an epoch."""
        self._run.end_epoch(**_values(logs))
        self.model.stop_training |= self._run.stops

    def on_train_end(self, logs: dict[str, Any]) -> None:
        """End the run."""
        self._run.end()


def _values(logs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in logs.items() if name not in ("epoch", "batch", "size", "time")}
