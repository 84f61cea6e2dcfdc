"""Tracker: a run reported to Weights & Biases, MLflow, Trackio or TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.callbacks.tracking import SERVICES, Service
from oncue.core.builtin import builtin
from oncue.core.every import Every
from oncue.core.extras import needed
from oncue.core.monitor import as_number
from oncue.core.protocols import compiled_with, configuration_of, optimizer_of
from oncue.core.run_record import document_of
from oncue.core.suggest import unknown
from oncue.core.warn import warn

_GIVE_UP_AFTER = 3


@builtin
class Tracker(Callback):
    """Reports a run to a tracker: its numbers, what it is made of, and what callbacks decide.

    All stays on this machine by default: W&B is offline (`wandb sync` uploads the run later), MLflow writes a SQLite file,
    Trackio its own, TensorBoard event files in a folder for each run. A run that is resumed from a backup goes on as the same
    run of the tracker.

    Numbers are reported at the end of each epoch, each validation amid one, and with `every` also between; over the count of
    batches that were trained. What is logged by other callbacks at the end of an epoch is among them.

    A service that fails costs a warning, never the run: after three failures in a row nothing more is sent. A package that
    isn't there is an error before the first step.

    Args:
        service: "wandb", "mlflow", "trackio" or "tensorboard"; or an object with the methods of
            `oncue.callbacks.tracking.Service`.
        project: The project, MLflow's experiment, or the folder of the runs that TensorBoard shows beside each other.
        name: The run's name; by default one that the service makes.
        config: Numbers and words of your own that tell this run from others. The optimizer, the loss, the arguments of `fit`
            and the callbacks with theirs are reported anyway.
        every: Report the running means of an epoch, too, each so many batches or so much time: "100 steps", "1 minute".
        artifacts: Files to keep with the run when it ends, such as "best.keras"; one that isn't there then is left out, with a
            warning.
        folder: Where W&B, MLflow and TensorBoard write.
        **options: Whatever the service's own `init` takes, such as `mode="online"`; for MLflow `tracking_uri`, `tags` and
            `artifact_location`.

    Attributes:
        identity: The service's name for the run.

    Raises:
        ValueError: For a service that isn't known.
        ImportError: Before the first step, without the service's package, with what to type.

    Example:
        >>> class Prints:
        ...     def start(self, identity, config): return "first"
        ...     def log(self, values, step): print(step, sorted(values))
        ...     def tell(self, decisions, step): pass
        ...     def keep(self, path): pass
        ...     def finish(self, status): print(status)
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> history = model.fit(np.ones((64, 2)), np.ones((64, 1)), epochs=2, verbose=0, callbacks=[Tracker(Prints())])
        2 ['epoch', 'loss']
        4 ['epoch', 'loss']
        finished
    """

    makes_way = True
    main_process_only = True
    state_fields = ("identity", "step", "begun", "waited")

    def __init__(
        self,
        service: str | Service,
        project: str = "oncue",
        name: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        every: str | Every | None = None,
        artifacts: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
        folder: str | os.PathLike[str] = "tracking",
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(service, str) and service not in SERVICES:
            raise unknown("service of Tracker", service, SERVICES)
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"`config` of Tracker must be a dict such as {{'dropout': 0.2}}; got {config!r}.")
        self.service = service
        self.project = project
        self.name = name
        self.config = dict(config or {})
        self.every = None if every is None else Every(every, "Tracker")
        if self.every is not None and self.every.unit == "epoch":
            raise ValueError("Tracker reports each epoch; `every` is for a period between, such as '100 steps'.")
        self.artifacts = [os.fspath(artifacts)] if isinstance(artifacts, (str, os.PathLike)) else list(artifacts)
        self.folder = os.fspath(folder)
        self.options = options
        self._reset()

    def _reset(self) -> None:
        self.identity: str | None = None
        self.step = 0
        self.begun = 0
        self._open: Service | None = None
        self._failures = 0
        self._status = "failed"

    def left_in_fork(self) -> tuple[str, ...]:
        """Return what a fork begins without: it is another run of the service."""
        return ("identity",)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is another run.
        return {**super().__getstate__(), "identity": None, "_open": None, "every": copy(self.every)}

    @property
    def waited(self) -> dict[str, Any] | None:
        """How much of the period has passed: what a resumed run gets back."""
        return None if self.every is None else self.every.state_dict()

    @waited.setter
    def waited(self, state: dict[str, Any] | None) -> None:
        if self.every is not None and state is not None:
            self.every.load_state_dict(state)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make the service ready; the run begins with the first epoch, when it is known whether it is resumed.

        Raises:
            ImportError: Without its package.
        """
        self._reset()
        if self.every is not None:
            self.every = Every(self.every)
            self.every.begin()
        if isinstance(self.service, str):
            needed(self.service, f"Tracker('{self.service}')")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the run, or go on with the one that is resumed."""
        self.begun = self.step
        if self._open is None and self._failures == 0:
            self._start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the batch, and report the means when that is due."""
        self.step = self.begun + batch + 1
        if self.every is not None and self.every.after_batch(batch):
            self._log({f"batch_{name}": value for name, value in (logs or {}).items()})

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report what a validation amid an epoch has measured."""
        self._log({name: value for name, value in (logs or {}).items() if name.startswith("val_")})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report the epoch's logs, and what was decided."""
        self._log({"epoch": epoch + 1, **(logs or {})})
        self._tell()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Take note that the run came to its end."""
        paused = self._run is not None and self._run.paused is not None
        self._status = "interrupted" if paused else "finished"

    def on_exception(self, exception: BaseException) -> None:
        """Take note of how the run ended."""
        self._status = "interrupted" if isinstance(exception, (KeyboardInterrupt, SystemExit)) else "failed"

    def close(self) -> None:
        """Report what is left, keep the files, and end the run."""
        if self._open is None:
            return
        self._tell()
        for path in self.artifacts:
            if not os.path.isfile(path):
                warn(f"Tracker leaves '{path}' out of its `artifacts`: there is no such file.")
            else:
                self._try(self._open.keep, os.fspath(path))
        self._try(self._open.finish, self._status)
        self._open = None

    # Calling the service --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if isinstance(self.service, str):
            service = SERVICES[self.service](self.project, self.name, self.folder, **self.options)
        else:
            service = self.service
        identity = self._try(service.start, self.identity, self._described())
        if identity is not None:
            self._open, self.identity = service, str(identity)

    def _log(self, logs: Mapping[str, Any]) -> None:
        if self._open is not None and not self._in_trial:
            numbers = {name: number for name, value in logs.items() if (number := as_number(value)) is not None}
            self._try(self._open.log, numbers, self.step)

    def _tell(self) -> None:
        if self._open is not None and self._run is not None:
            self._try(self._open.tell, [str(entry) for entry in self._run.journal], self.step)

    def _try(self, report: Callable[..., Any], *arguments: Any) -> Any:
        if self._failures >= _GIVE_UP_AFTER:
            return None
        try:
            found = report(*arguments)
        except Exception as error:
            # Whatever a service raises: no run is worth less than the report of it.
            self._failures += 1
            if self._failures == 1:
                warn(
                    f"Tracker can't report to {self._whose} ({type(error).__name__}: {str(error)[:300]}). The run goes on; "
                    f"after {_GIVE_UP_AFTER} failures in a row nothing more is sent."
                )
            if self._failures == _GIVE_UP_AFTER:
                found = {"root": self._whose, "failures": self._failures, "error": str(error)[:300]}
                self._decided("note", "gave_up_sending", **found)
            return None
        self._failures = 0
        return found

    @property
    def _whose(self) -> str:
        return self.service if isinstance(self.service, str) else type(self.service).__name__

    def _described(self) -> dict[str, Any]:
        run, optimizer = self._run, optimizer_of(self.model)
        compiled = compiled_with(self.model)
        callbacks: dict[str, Any] = {}
        for one in [] if run is None else run.made_with():
            name = one["class"] if one["class"] not in callbacks else f"{one['class']}#{len(callbacks) + 1}"
            callbacks[name] = {key: value for key, value in one.items() if key != "class"}
        described = {
            **self.config,
            "fit": dict(self.params or {}),
            "optimizer": {"class": type(optimizer).__name__, **(configuration_of(optimizer) or {})},
            "loss": compiled.get("loss") if isinstance(compiled, dict) else None,
            "callbacks": callbacks,
        }
        # As JSON can have it, which every service takes.
        plain: dict[str, Any] = json.loads(document_of(described))
        return plain
