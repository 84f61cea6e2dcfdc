"""The services that a Tracker reports to: each a few calls of its own package, which is imported when a run begins."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from oncue.core.extras import needed


class Service(Protocol):
    """What a Tracker asks of a service; an object of your own may be one."""

    def start(self, identity: str | None, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with one.

        Args:
            identity: What an earlier call returned, to go on with that run; None for a new one.
            config: What the run is made of, in nested dicts.

        Returns:
            The identity of the run, by which another process can go on with it.
        """
        ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Report numbers, by the count of batches that were trained."""
        ...

    def tell(self, decisions: list[str], step: int) -> None:
        """Report all that callbacks have decided by now."""
        ...

    def keep(self, path: str) -> None:
        """Keep a file with the run."""
        ...

    def finish(self, status: str) -> None:
        """End the run: "finished", "failed" or "interrupted"."""
        ...


class _Logged:
    """What W&B and Trackio have in common: a run with `log`, for numbers and texts alike."""

    def __init__(self) -> None:
        self._run: Any = None
        self._told = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Report numbers."""
        self._run.log(dict(values), step=step)

    def tell(self, decisions: list[str], step: int) -> None:
        """Report decisions, as lines of a text beside the numbers."""
        new, self._told = decisions[self._told :], len(decisions)
        if new:
            self._run.log({"decisions": "\n".join(new)}, step=step)


class Wandb(_Logged):
    """Weights & Biases; offline unless `mode` or WANDB_MODE says otherwise: `wandb sync FOLDER` uploads it later."""

    def __init__(self, project: str, name: str | None, folder: str, **options: Any) -> None:
        super().__init__()
        self._options = {
            "project": project,
            "name": name,
            "dir": folder,
            "mode": os.environ.get("WANDB_MODE", "offline"),
            **options,
        }

    def start(self, identity: str | None, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with one."""
        wandb = needed("wandb", "Tracker('wandb')")
        Path(self._options["dir"]).mkdir(parents=True, exist_ok=True)
        settings = self._options.pop("settings", None) or wandb.Settings(silent=True, console="off", init_timeout=30)
        again = {} if identity is None else {"id": identity, "resume": "allow"}
        self._run = wandb.init(**again, config=dict(config), settings=settings, **self._options)
        return str(self._run.id)

    def keep(self, path: str) -> None:
        """Keep a file as an artifact."""
        wandb = needed("wandb", "Tracker('wandb')")
        artifact = wandb.Artifact(_name_of(path), type="file")
        artifact.add_file(path)
        self._run.log_artifact(artifact)

    def finish(self, status: str) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if status == "finished" else 1)


class Mlflow:
    """MLflow, in a SQLite file of the folder unless `tracking_uri` or MLFLOW_TRACKING_URI says otherwise."""

    def __init__(self, project: str, name: str | None, folder: str, **options: Any) -> None:
        self._project, self._name, self._folder = project, name, os.path.abspath(folder)
        self._address = options.pop("tracking_uri", None) or os.environ.get("MLFLOW_TRACKING_URI")
        self._artifacts = options.pop("artifact_location", None)
        self._tags = options.pop("tags", None)
        if options:
            raise TypeError(
                f"Tracker('mlflow') takes `tracking_uri`, `artifact_location` and `tags`; got {', '.join(options)}."
            )
        self._client: Any = None
        self._run = ""
        self._told = 0

    def start(self, identity: str | None, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with one."""
        mlflow = needed("mlflow", "Tracker('mlflow')")
        address = self._address
        if address is None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{self._folder}/mlflow.db"
            self._artifacts = self._artifacts or Path(self._folder, "artifacts").as_uri()
        for name, value in _PATIENCE.items():
            # Else it tries for minutes to reach a server that is dead, at each call.
            os.environ.setdefault(name, value)
        self._client = mlflow.MlflowClient(tracking_uri=address)
        if identity is not None:
            self._run = identity
            self._client.update_run(identity, status="RUNNING")
            return identity
        found = self._client.get_experiment_by_name(self._project)
        experiment = (
            self._client.create_experiment(self._project, artifact_location=self._artifacts)
            if found is None
            else found.experiment_id
        )
        run = self._client.create_run(experiment, run_name=self._name, tags=self._tags)
        self._run = str(run.info.run_id)
        for key, value in _flat(config).items():
            self._client.log_param(self._run, key[:250], str(value)[:6000])
        return self._run

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Report numbers."""
        metric, now = needed("mlflow.entities", "Tracker('mlflow')").Metric, int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[metric(name, value, now, step) for name, value in values.items()])

    def tell(self, decisions: list[str], step: int) -> None:
        """Report decisions, as a text file of the run."""
        if len(decisions) > self._told:
            self._told = len(decisions)
            self._client.log_text(self._run, "\n".join(decisions) + "\n", "decisions.txt")

    def keep(self, path: str) -> None:
        """Keep a file as an artifact."""
        self._client.log_artifact(self._run, path)

    def finish(self, status: str) -> None:
        """End the run."""
        words = {"finished": "FINISHED", "interrupted": "KILLED"}
        self._client.set_terminated(self._run, status=words.get(status, "FAILED"))


class Trackio(_Logged):
    """Trackio, in its own folder on this machine unless `space_id` says otherwise: `trackio show` opens it."""

    def __init__(self, project: str, name: str | None, folder: str, **options: Any) -> None:
        super().__init__()
        self._options = {"project": project, **options}
        self._name = name

    def start(self, identity: str | None, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with one, which Trackio knows by its name."""
        trackio = needed("trackio", "Tracker('trackio')")
        name = identity or self._name
        resume = "never" if identity is None else "allow"
        self._run = trackio.init(name=name, resume=resume, config=_flat(config), **self._options)
        return str(self._run.name)

    def keep(self, path: str) -> None:
        """Keep a file as an artifact."""
        self._run.log_artifact(path, name=_name_of(path), type="file")

    def finish(self, status: str) -> None:
        """End the run."""
        self._run.finish()


class Tensorboard:
    """TensorBoard, in a folder of this machine for each run: `tensorboard --logdir FOLDER` shows them beside each other."""

    def __init__(self, project: str, name: str | None, folder: str, **options: Any) -> None:
        if options:
            raise TypeError(f"Tracker('tensorboard') takes no further options; got {', '.join(options)}.")
        self._project, self._name = Path(folder, project), name
        self._file: Any = None
        self._folder = self._project
        self._told = 0

    def start(self, identity: str | None, config: Mapping[str, Any]) -> str:
        """Begin a run, or go on with one, in another file of its folder."""
        from oncue.tensorboard.event_file import EventFile
        from oncue.tensorboard.summaries import text

        run = identity or self._name or f"{time.strftime('%Y-%m-%d_%H.%M.%S')}_{uuid.uuid4().hex[:6]}"
        self._folder = self._project / run
        self._file = EventFile(os.fspath(self._folder))
        if identity is None:
            rows = "\n".join(f"    {name}: {value}" for name, value in _flat(config).items())
            self._file.add(0, [text("made of", rows)])
        self._file.flush()
        return run

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Report numbers, where a page that is open sees them."""
        from oncue.tensorboard.summaries import scalar

        self._file.add(step, [scalar(name, value) for name, value in values.items()])
        self._file.flush()

    def tell(self, decisions: list[str], step: int) -> None:
        """Report decisions, as a text by steps."""
        from oncue.tensorboard.summaries import text

        new, self._told = decisions[self._told :], len(decisions)
        if new:
            self._file.add(step, [text("decisions", "\n".join(f"- {one}" for one in new))])
            self._file.flush()

    def keep(self, path: str) -> None:
        """Copy a file beside the events: TensorBoard has no place for files."""
        place = self._folder / "artifacts"
        place.mkdir(exist_ok=True)
        shutil.copy2(path, place)

    def finish(self, status: str) -> None:
        """End the run."""
        self._file.close()


_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""MLflow's own settings, where the user has chosen no others."""

SERVICES: dict[str, Callable[..., Service]] = {
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
    "tensorboard": Tensorboard,
}
"""The services by name, which is that of the package and, but for TensorBoard's, of oncue's extra."""


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{name}."))
        else:
            found[name] = value
    return found


def _name_of(path: str) -> str:
    # W&B takes letters, digits, dots, dashes and underscores.
    return "".join(one if one.isalnum() or one in "._-" else "-" for one in os.path.basename(path))
