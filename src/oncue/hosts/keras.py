"""`Keras`: the callbacks in the `fit`, `evaluate` and `predict` of the real Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oncue.callbacks import Callback
from oncue.core.logs import RunningLogs, as_logs
from oncue.core.needs import Lacks
from oncue.hosts.run import Adapter, HostedRun

LACKS = Lacks(
    "Keras's own loop",
    {
        "run_state": "Use `keras.callbacks.BackupAndRestore`; or oncue's loop, with `oncue.Model(keras_model)`.",
        "average": "Use `keras.callbacks.SwapEMAWeights`.",
        "background_save": "Leave out `asynchronous=True`.",
    },
)
_BATCH_HOOKS = [f"on_{kind}_batch_{end}" for kind in ("train", "test", "predict") for end in ("begin", "end")]


class Keras(Adapter, list["KerasCallback"]):
    """A list for Keras with one callback that carries oncue's, in the order and with the ends that they have in oncue's `fit`.

    Keras tells nobody of an error or of Ctrl-C. What oncue's callbacks raise closes them all. For errors of others use
    `with` around `fit`, which closes them at once; otherwise they are closed when the adapter is gone, or fits again.

    It is a list, because Keras calls the hooks of a callback that isn't in one in threads, in any order.

    Args:
        *callbacks: oncue's callbacks, or lists of them.

    Attributes:
        history: The logs of every epoch, and `explain()`.

    Raises:
        ValueError: For a callback that needs what Keras's loop lacks, with what to use instead.

    Example:
        >>> from oncue.callbacks import CSVLogger, EarlyStopping
        >>> adapter = Keras(EarlyStopping(patience=3), CSVLogger("log.csv"))
        >>> # with adapter:
        >>> #     keras_model.fit(x, y, callbacks=adapter)
        >>> adapter.history.epoch
        []
    """

    def __init__(self, *callbacks: Any) -> None:
        self._run = HostedRun(callbacks, LACKS)
        super().__init__([KerasCallback(self._run)])

    def __getattr__(self, name: str) -> Any:
        # In a list of lists Keras takes this for a callback.
        if name.startswith("__") or not self:
            raise AttributeError(name)
        return getattr(self[0], name)


class KerasCallback(Callback):
    """Passes Keras's hooks on to a run.

    Args:
        run: The run.
    """

    def __init__(self, run: HostedRun) -> None:
        super().__init__()
        self._hosted = run
        # Whether `evaluate` or `predict` began the run, and not `fit`.
        self._alone = False
        for hook in _BATCH_HOOKS:
            # Keras may go on while batches are logged, where nobody listens to them.
            if run.callbacks.listens(hook):
                setattr(self, hook, _passing_on(run, hook))

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a run.

        Raises:
            ValueError: In oncue's own `fit`, which needs no adapter.
        """
        if self._run is not None:
            raise ValueError("`hosts.Keras` is for Keras's `fit`. Give its callbacks to oncue's `fit` as they are.")
        self._alone = False
        self._hosted.begin(self.model, owner=self, **(self.params or {}))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """End the run."""
        self._hosted.end(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on."""
        self._hosted.call("on_epoch_begin", epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Pass the hook on, with logs that callbacks may add to."""
        self._hosted.call("on_epoch_end", epoch, dict(logs or {}))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a validation, or a run of `evaluate`."""
        self._begin_alone("on_test_begin")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """End it."""
        self._end_alone("on_test_end", logs)

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a run of `predict`."""
        self._begin_alone("on_predict_begin")

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """End it."""
        self._end_alone("on_predict_end", logs)

    def _begin_alone(self, hook: str) -> None:
        if not self._hosted.is_open:
            self._alone = True
            self._hosted.open(self.model, owner=self, **(self.params or {}))
        self._hosted.call(hook)

    def _end_alone(self, hook: str, logs: dict[str, Any] | None) -> None:
        self._hosted.call(hook, logs)
        if self._alone:
            self._alone = False
            self._hosted.close()


def _passing_on(run: HostedRun, hook: str) -> Callable[..., None]:
    def call(batch: int, logs: dict[str, Any] | None = None) -> None:
        run.call(hook, batch, RunningLogs(as_logs(logs)))

    return call
