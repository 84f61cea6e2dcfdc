"""`Keras`: the callbacks in the `fit`, `evaluate` and `predict` of the real Keras."""

from __future__ import annotations

from functools import partial, partialmethod
from typing import Any

from oncue.callbacks import Callback
from oncue.core.hooks import HOOKS
from oncue.core.logs import RunningLogs, as_logs
from oncue.hosts.keras_backup import KerasBackup, apart
from oncue.hosts.lacks import KERAS
from oncue.hosts.run import Adapter, HostedRun


class Keras(Adapter, list["KerasCallback"]):
    """A list for Keras with one callback that carries oncue's, in the order and with the ends that they have in oncue's `fit`.

    Keras tells nobody of an error. What oncue's callbacks raise closes them all. For errors of others use `with` around `fit`;
    otherwise they are closed when the adapter is gone, or fits again. It is a list, because Keras calls the hooks of a
    callback that isn't in one in threads, in any order.

    Args:
        *callbacks: oncue's callbacks, or lists of them, and perhaps a `keras.callbacks.BackupAndRestore`, whose backups then
            have their state. What they need and Keras's loop lacks is an error now.

    Example:
        >>> from oncue.callbacks import CSVLogger, EarlyStopping
        >>> adapter = Keras(EarlyStopping(patience=3), CSVLogger("log.csv"))
        >>> # with adapter: keras_model.fit(x, y, callbacks=adapter)
    """

    def __init__(self, *callbacks: Any) -> None:
        others, backup = apart(callbacks)
        self._run = HostedRun(others, KERAS)
        super().__init__([KerasCallback(self._run, None if backup is None else KerasBackup(backup, self._run))])

    def __getattr__(self, name: str) -> Any:
        # In a list of lists Keras takes this for a callback.
        if name.startswith("__") or not self:
            raise AttributeError(name)
        return getattr(self[0], name)


class KerasCallback(Callback):
    """Passes Keras's hooks on to a run of its `fit`, `evaluate` or `predict`."""

    def __init__(self, run: HostedRun, backup: KerasBackup | None) -> None:
        super().__init__()
        self._hosted, self._backup, self._trains = run, backup, False
        for hook in (name for name in HOOKS if "_batch_" in name):
            # Keras may go on while batches are logged that nobody listens to.
            if run.callbacks.listens(hook):
                setattr(self, hook, partial(_pass_on, run, hook))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a run, or go on with one."""
        if self._run is not None:
            raise ValueError("`hosts.Keras` is for Keras's `fit`. Give its callbacks to oncue's `fit` as they are.")
        self._trains = True
        self._hosted.begin(self.model, self, **(self.params or {}))
        if self._backup is not None:
            self._hosted.guarded(self._backup.begin, self.model, self.params)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End the run."""
        self._hosted.end(logs)
        if self._backup is not None:
            self._backup.end()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on."""
        self._hosted.call("on_epoch_begin", epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on, with logs that callbacks may add to, and let Keras save."""
        self._hosted.call("on_epoch_end", epoch, dict(logs or {}))
        if self._backup is not None:
            self._hosted.guarded(self._backup.end_epoch, epoch)

    def _begin(self, hook: str, logs: dict[str, Any] | None = None) -> None:
        if not self._hosted.is_open:
            self._trains = False
            self._hosted.open(self.model, self, **(self.params or {}))
        self._hosted.call(hook)

    def _end(self, hook: str, logs: dict[str, Any] | None = None) -> None:
        self._hosted.call(hook, logs)
        if not self._trains:
            self._hosted.close()

    on_test_begin = partialmethod(_begin, "on_test_begin")
    on_test_end = partialmethod(_end, "on_test_end")
    on_predict_begin = partialmethod(_begin, "on_predict_begin")
    on_predict_end = partialmethod(_end, "on_predict_end")


def _pass_on(run: HostedRun, hook: str, batch: int, logs: dict[str, Any] | None = None) -> None:
    run.call(hook, batch, RunningLogs(as_logs(logs)))
