"""`Skorch`: the callbacks in the `fit` of a `NeuralNet` of skorch."""

from __future__ import annotations

import re
from typing import Any

from skorch.callbacks import Callback, LRScheduler

from oncue.hosts.host import Host
from oncue.hosts.lacks import SKORCH
from oncue.hosts.run import Adapter, HostedRun


class Skorch(Adapter, Callback):
    """One callback for skorch that carries oncue's; after those of skorch whose scores it is to log, with `val_` for `valid_`.

    A stop ends the training with the epoch. skorch tells nobody of an error: use `with` around `fit`. Ctrl-C is a stop to it.
    """

    def __init__(self, *callbacks: Any) -> None:
        self._run = HostedRun(callbacks, SKORCH)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return nothing: a search of scikit-learn's copies the callbacks as they are."""
        return {}

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """End a run that was left open; another begins with the first epoch, when the net has its schedulers."""
        self._run.abandon()

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin an epoch."""
        if not self._run.is_open:
            schedulers = [one.lr_scheduler_ for _, one in net.callbacks_ if isinstance(one, LRScheduler)]
            self._run.begin(Host(net.module_, [net.optimizer_], schedulers), self, epochs=net.max_epochs)
        self._run.begin_epoch(len(net.history) - 1)

    def on_batch_begin(self, net: Any, batch: Any, training: bool, **kwargs: Any) -> None:
        """Begin a batch."""
        if training:
            self._run.begin_batch(batch)

    def on_batch_end(self, net: Any, batch: Any, training: bool, loss: Any = None, **kwargs: Any) -> None:
        """End a batch."""
        if training:
            self._run.step(batch, {"loss": loss})
            self._run.end_batch(batch)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End an epoch; a stop is told as skorch's own callbacks tell it."""
        row, others = net.history[-1], r"batches|epoch|dur|train_loss|event_.*|.*_best|.*_batch_count"
        self._run.end_epoch(**{n.replace("valid_", "val_", 1): row[n] for n in row if not re.fullmatch(others, n)})
        if self._run.stops:
            raise KeyboardInterrupt

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """End the run."""
        self._run.end()
