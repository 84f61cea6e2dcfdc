"""History: the logs of every epoch, returned by `fit`."""

from __future__ import annotations

from typing import Any

from oncue.callbacks.callback import Callback


class History(Callback):
    """Keeps the logs of every epoch. `fit` adds one to every run and returns it; it is `model.history` too.

    Attributes:
        history: From each name to the list of its values, one for each epoch that had it.
        epoch: The indices of the epochs.

    Example:
        >>> history = History()
        >>> history.on_train_begin()
        >>> history.on_epoch_end(0, {"loss": 0.5})
        >>> history.history, history.epoch
        ({'loss': [0.5]}, [0])
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self.history = {}
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the epoch's logs."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        if self.model is not None:
            self.model.history = self

    def __repr__(self) -> str:
        names = ", ".join(self.history) or "nothing yet"
        return f"<History of {len(self.epoch)} epochs: {names}>"
