"""RunFolder: all that a run leaves, in one folder."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncue.callbacks.backup_and_restore import BackupAndRestore
from oncue.callbacks.callback import Callback
from oncue.callbacks.control import Control
from oncue.callbacks.csv_logger import CSVLogger
from oncue.callbacks.journal_logger import JournalLogger
from oncue.callbacks.model_checkpoint import ModelCheckpoint
from oncue.callbacks.profile import Profile
from oncue.core import commands, run_record
from oncue.core.builtin import builtin
from oncue.core.files import reason_of, replace_file
from oncue.core.numbers import whole
from oncue.core.protocols import compiled_with, configuration_of, gpus_of, optimizer_of, summary_of

if TYPE_CHECKING:
    from oncue.checkpoints.lock import NameLock

BACKUP = "backup"
"""The folder of states in a run's folder."""

_PACKAGES = ("oncue", "torch", "keras", "numpy")


@builtin
class RunFolder(Callback):
    """Keeps a run in a folder, which `oncue report`, `oncue explain` and `oncue compare` read, while it goes on too.

    The folder gets

    - `log.csv`, the logs of every epoch (a `CSVLogger`);
    - `journal.jsonl`, what callbacks decided and how the run ended (a `JournalLogger`);
    - `config.json`, what the run was made of: optimizer, loss, callbacks with their arguments, and `config`;
    - `model.json` and `summary.txt`, the model's configuration, if it has one, and its layers;
    - `environment.json`, versions, the system and the device; the script's name, and not its arguments;
    - `curves.png` when the run has ended, where matplotlib is installed;
    - if wanted, `best.keras`, `backup` and `profile`.

    The callbacks that write these stand behind it in the list. A run that starts from scratch replaces the files of one that
    was there before.

    Args:
        folder: The folder; it is made.
        config: Numbers and words of your own that tell this run from others, such as `{"dropout": 0.2}`.
        best: The name of a logged value, such as "val_loss": the model is saved as `best.keras` whenever that is better.
        resume: Whether to save the state of the run in `backup`, so that the same script goes on where it was interrupted.
        keep: Which of the states that `resume` saves stay, for `oncue fork` to begin other runs from; see `BackupAndRestore`.
        weights_freq: Every so many epochs the journal gets the mean, the standard deviation, the share of zeros, the least and
            the greatest number of each weight, which the report shows; 0 (default) for never.
        control: Whether the run can be spoken to while it goes on: `oncue control FOLDER stop` and the like. See `Control`.
        profile: The batches that are profiled into `profile`, such as `(10, 20)`; see `Profile`.

    Raises:
        OSError: Before the first step, when the folder can't be written to.
        RuntimeError: Before the first step, when a run of another process writes to it.
        TypeError: When `config` is no dict.
        ValueError: When `weights_freq` is no number of epochs, and for `keep` without `resume`.

    Example:
        >>> import numpy as np, oncue, tempfile
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = RunFolder(Path(folder, "today"), config={"width": 1})
        ...     history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[run])
        ...     sorted(path.name for path in run.folder.glob("*.json*"))
        ['config.json', 'environment.json', 'journal.jsonl', 'model.json']
    """

    makes_way = True
    main_process_only = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        best: str | None = None,
        resume: bool = False,
        keep: Any = None,
        weights_freq: int = 0,
        control: bool = False,
        profile: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"`config` of RunFolder must be a dict such as {{'dropout': 0.2}}; got {config!r}.")
        self.folder = Path(folder)
        self.config = dict(config or {})
        self._parts: list[Callback] = [
            CSVLogger(self.folder / "log.csv"),
            JournalLogger(self.folder / run_record.FILE, whole("RunFolder", "weights_freq", weights_freq)),
        ]
        if best is not None:
            self._parts.append(ModelCheckpoint(self.folder / "best.keras", monitor=best, save_best_only=True))
        if resume:
            self._parts.append(BackupAndRestore(self.folder / BACKUP, keep=keep))
        elif keep is not None:
            raise ValueError(
                f"`keep` of RunFolder is for the states that `resume=True` saves; got keep={keep!r} without it."
            )
        if control:
            self._parts.append(Control(self.folder / commands.FOLDER))
        if profile is not None:
            self._parts.append(Profile(profile, self.folder / "profile"))
        self._trained = False
        self._lock: NameLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to another run.
        return {**super().__getstate__(), "_parts": [copy(part) for part in self._parts], "_lock": None}

    def brings(self) -> Sequence[Callback]:
        """Return the callbacks that write the files."""
        return self._parts

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make the folder, and write what the run is made of.

        Raises:
            OSError: When the folder can't be written to.
            RuntimeError: When a run of another process writes to it.
            ValueError: In a loop that knows nothing of the callbacks that it brings.
        """
        if self._run is None:
            raise ValueError(
                f"RunFolder brings {' and '.join(type(part).__name__ for part in self._parts)}, which this loop, around a "
                f"{type(self.model).__name__}, doesn't ask for. In Keras's own `fit` give it in an adapter: "
                "`callbacks=oncue.hosts.Keras(RunFolder(...))`; in a loop of your own in `oncue.hosts.loop`."
            )
        from oncue.checkpoints.lock import alone_with

        self._let_go()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Before anything of a run that is going on there is replaced.
            self._lock = alone_with(self.folder / "config.json", "RunFolder", "folder")
            self._write("config.json", self._settings())
            self._write("environment.json", _environment(self.model))
            configuration = configuration_of(self.model)
            if configuration is not None:
                self._write("model.json", configuration)
            replace_file(self.folder / "summary.txt", summary_of(self.model).encode("utf-8"))
        except OSError as error:
            why = f"RunFolder can't write to its folder ({reason_of(error, self.folder)}). Give one that can be written to"
            raise type(error)(error.errno, why, os.fspath(self.folder)) from None
        self._trained = True

    def close(self) -> None:
        """Draw the curves, and let other runs write to the folder."""
        try:
            self._draw()
        finally:
            self._let_go()

    def after_close(self) -> None:
        """Let other runs write to the folder, also when a second Ctrl-C has ended `close` too early."""
        self._let_go()

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _draw(self) -> None:
        trained, self._trained = self._trained, False
        path = self.folder / run_record.FILE
        if not trained or importlib.util.find_spec("matplotlib") is None or not path.is_file():
            return
        from oncue.plots import plot_run

        record = run_record.RunRecord.read(path)
        if record.epochs:
            figure = plot_run(record.epochs, record.history, record.logged_in, record.entries)
            figure.savefig(self.folder / "curves.png")

    def _write(self, name: str, content: Any) -> None:
        replace_file(self.folder / name, run_record.document_of(content))

    def _settings(self) -> dict[str, Any]:
        run, optimizer = self._run, optimizer_of(self.model)
        return {
            "config": self.config,
            "fit": dict(self.params or {}),
            "optimizer": {"class": type(optimizer).__name__, **(configuration_of(optimizer) or {})},
            "compile": _compiled(self.model),
            "callbacks": [] if run is None else run.made_with(),
        }


def _compiled(model: Any) -> Any:
    with warnings.catch_warnings():
        # It warns of files from which nothing can be compiled again; here what can't be written down is told by its name.
        warnings.simplefilter("ignore", UserWarning)
        compiled = compiled_with(model)
    if isinstance(compiled, dict):
        return {name: value for name, value in compiled.items() if name != "optimizer"}
    loss = getattr(model, "loss", None)
    return None if loss is None else {"loss": getattr(loss, "__name__", None) or f"{loss}"}


def _environment(model: Any) -> dict[str, Any]:
    versions = {}
    for name in _PACKAGES:
        if name in sys.modules:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = str(getattr(sys.modules[name], "__version__", "?"))
    return {
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "script": Path(sys.argv[0]).name if sys.argv else "",
        "python": platform.python_version(),
        "packages": versions,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "device": _device(model),
    }


def _device(model: Any) -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "not known"
    gpus = gpus_of(model)
    if gpus:
        return ", ".join([str(torch.cuda.get_device_name(gpu)) for gpu in gpus])
    return f"CPU, {torch.get_num_threads()} threads"
