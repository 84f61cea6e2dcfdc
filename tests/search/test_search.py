"""The real packages of searches: each in an environment of its own, by `make search`."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import oncue
from helpers import PowerCut, cpu_only, normal
from oncue.callbacks import BackupAndRestore, Callback, JournalLogger, OptunaPruning, RayTuneReport

pytestmark = [
    cpu_only("a search sees numbers only"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def fit(rate: float, *callbacks: Any, epochs: int = 6) -> Any:
    x = normal(24, 3)
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    model.compile(oncue.optimizers.SGD(rate), "mse")
    y = x.sum(axis=1, keepdims=True)
    return model.fit(x, y, validation_data=(x, y), epochs=epochs, batch_size=8, verbose=0, callbacks=list(callbacks))


if find_spec("optuna") is not None:
    import optuna

    RATES = [0.05, 0.04, 0.001, 0.06]

    def test_a_study_prunes_what_is_worse_than_the_median(tmp_path: Path) -> None:
        def objective(trial: optuna.Trial) -> float:
            path = tmp_path / f"{trial.number}.jsonl"
            history = fit(trial.suggest_float("rate", 0, 1), OptunaPruning(trial), JournalLogger(path))
            return float(history.history["val_loss"][-1])

        pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=1)
        study = optuna.create_study(direction="minimize", pruner=pruner)
        for rate in RATES:
            study.enqueue_trial({"rate": rate})
        study.optimize(objective, n_trials=4)
        assert [(one.state.name, len(one.intermediate_values)) for one in study.trials] == [
            ("COMPLETE", 6), ("COMPLETE", 6), ("PRUNED", 2), ("COMPLETE", 6),
        ]  # fmt: skip
        assert study.best_trial.number == 3
        lines = [json.loads(line) for line in (tmp_path / "2.jsonl").read_text().splitlines()]
        assert lines[-1]["line"] == "end" and lines[-1]["how"] == "asked"
        assert any("Optuna prunes the trial" in line.get("text", "") for line in lines)

    @pytest.mark.filterwarnings("error:.*already reported:UserWarning")
    def test_a_trial_of_a_process_that_is_gone_goes_on(tmp_path: Path) -> None:
        storage = f"sqlite:///{tmp_path}/study.db"
        study = optuna.create_study(
            storage=storage, study_name="one", pruner=optuna.pruners.ThresholdPruner(upper=100.0)
        )
        trial = study.ask()
        with pytest.raises(ConnectionError):
            fit(0.05, OptunaPruning(trial), BackupAndRestore(tmp_path / "state"), PowerCut(3))
        known = study.trials[0].intermediate_values
        assert sorted(known) == [0, 1, 2]
        # As in another process: all is read from the storage.
        study = optuna.load_study(storage=storage, study_name="one", pruner=optuna.pruners.ThresholdPruner(upper=0.0))
        trial = optuna.trial.Trial(study, study.trials[0]._trial_id)
        with pytest.raises(optuna.TrialPruned):
            fit(0.05, OptunaPruning(trial), BackupAndRestore(tmp_path / "state"))
        found = study.trials[0].intermediate_values
        assert sorted(found) == [0, 1, 2, 3] and all(found[step] == known[step] for step in known)

    def test_a_fixed_trial_and_studies_that_are_refused() -> None:
        assert fit(0.05, OptunaPruning(optuna.trial.FixedTrial({"rate": 0.05}))).epoch == list(range(6))
        with pytest.raises(ValueError, match="direction='minimize'.*got maximize"):
            fit(0.05, OptunaPruning(optuna.create_study(direction="maximize").ask()))
        with pytest.raises(ValueError, match="got minimize and minimize"):
            fit(0.05, OptunaPruning(optuna.create_study(directions=["minimize", "minimize"]).ask()))


if find_spec("ray") is not None:
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    from ray import cloudpickle, init, shutdown, tune

    # Ray's processes can't import a test by its name.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    class Fails(Callback):
        """Fails once, when the fourth epoch begins."""

        def __init__(self, place: Path) -> None:
            super().__init__()
            self.place = place

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3 and not self.place.exists():
                self.place.write_text("")
                raise ConnectionError("power cut")

    def function(config: Any) -> None:
        place = Path(tune.get_context().get_trial_dir())
        fails = [Fails(place / "failed")] if config["fails"] else []
        journal = JournalLogger(place / "journal.jsonl")
        fit(config["rate"], RayTuneReport(), BackupAndRestore(place / "backup"), journal, *fails)

    @pytest.fixture(scope="module", autouse=True)
    def ray_here() -> Any:
        paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}
        init(num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False, runtime_env=paths)
        yield
        shutdown()

    def tried(space: Any, folder: Path, **options: Any) -> list[Any]:
        config = tune.TuneConfig(metric="val_loss", mode="min", max_concurrent_trials=1, **options)
        failures = tune.FailureConfig(max_failures=1)
        run = tune.RunConfig(storage_path=str(folder), failure_config=failures, verbose=0)
        return list(tune.Tuner(function, param_space=space, tune_config=config, run_config=run).fit())

    def ends_of(result: Any) -> list[Any]:
        lines = [json.loads(line) for line in Path(result.path, "journal.jsonl").read_text().splitlines()]
        return [line for line in lines if line["line"] == "end"]

    def test_a_trial_that_fails_goes_on(tmp_path: Path) -> None:
        (one,) = tried({"rate": 0.05, "fails": True}, tmp_path)
        assert one.error is None
        rows = one.metrics_dataframe
        assert list(rows["epoch"]) == [1, 2, 3, 4, 5, 6]
        whole = fit(0.05).history
        for name in ("loss", "val_loss"):
            assert list(rows[name]) == whole[name]

    def test_a_scheduler_ends_a_trial(tmp_path: Path) -> None:
        scheduler = tune.schedulers.ASHAScheduler(max_t=9, grace_period=2, reduction_factor=2)
        space = {"rate": tune.grid_search([0.05, 0.0001]), "fails": False}
        good, bad = tried(space, tmp_path, scheduler=scheduler)
        assert good.metrics["epoch"] == 6 and bad.metrics["epoch"] == 2
        assert [one["how"] for one in ends_of(good)] == ["finished"]
        assert [(one["how"], one["epoch"]) for one in ends_of(bad)] == [("preempted", 1)]
        assert "Ray Tune" in ends_of(bad)[0]["error"]
