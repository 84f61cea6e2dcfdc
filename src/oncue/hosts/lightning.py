"""`Lightning`: the callbacks in Lightning's `Trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from oncue.callbacks import History
from oncue.core.logs import Logs, RunningLogs
from oncue.core.needs import Lacks
from oncue.hosts.host import Host, HostRate
from oncue.hosts.run import HostedRun
from oncue.metrics.mean import Mean
from oncue.training.meter import Meter, Reading

LACKS = Lacks(
    "Lightning's Trainer",
    {
        "whole_model": "Its own `ModelCheckpoint` writes whole checkpoints; or save the weights, with `save_weights_only=True` "
        "and a `filepath` that ends in '.safetensors'.",
        "weights_h5": "Give a `filepath` that ends in '.safetensors', which every library reads.",
        "run_state": "Its own checkpoints have the state of oncue's callbacks: `trainer.fit(model, ckpt_path='last')`.",
        "average": "Use `lightning.pytorch.callbacks.EMAWeightAveraging`.",
    },
)


class Lightning(EarlyStopping):
    """One callback for Lightning's `Trainer` that carries oncue's, in their order and with their three ends.

    The epoch's logs are what the module logged in the epoch, under its names, and `loss`, the mean of what `training_step`
    returned. Lightning's checkpoints have the state of the callbacks, which a resumed run gets back.

    It is an `EarlyStopping` of Lightning, because only those and checkpoints hear of an epoch's end when its values are there.

    Args:
        *callbacks: oncue's callbacks, or lists of them.

    Attributes:
        history: The logs of every epoch, and `explain()`.

    Raises:
        ValueError: For a callback that needs what the Trainer lacks, with what to use instead.
    """

    def __init__(self, *callbacks: Any) -> None:
        super().__init__("loss")
        self._run = HostedRun(callbacks, LACKS)
        self._host: Host | None = None
        self._rates: list[HostRate] = []
        self._loss = Mean("loss")
        self._meter = Meter([("loss", self._loss)])
        self._older: dict[str, Any] = {}
        self._saved: Mapping[str, Any] | None = None

    @property
    def history(self) -> History:
        """The logs of every epoch, and `explain()`."""
        return self._run.history

    @property
    def state_key(self) -> str:
        """The name of the state in checkpoints, which several adapters must not share."""
        return f"oncue.hosts.Lightning[{','.join(type(one).__name__ for one in self._run.callbacks.callbacks)}]"

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all callbacks."""
        return {} if self._host is None else {**self._run.state(), "loss": self._loss.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until training begins."""
        self._saved = state_dict

    # The hooks --------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse the Trainer of another package, which calls the hooks of an epoch's end too early.

        Raises:
            TypeError: For one that isn't `lightning.Trainer`.
        """
        if not isinstance(trainer, Trainer):
            raise TypeError("`hosts.Lightning` is for `lightning.Trainer`. Import that instead of `pytorch_lightning`.")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a run."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._host = Host(pl_module, trainer.optimizers, schedulers)
        self._rates = self._run.logged_rates(self._host, bool(schedulers))
        steps = trainer.num_training_batches
        params = {"epochs": trainer.max_epochs, "steps": steps if isinstance(steps, int) else None}
        self._run.begin(self._host, owner=self, writes=trainer.is_global_zero, **params)
        saved, self._saved = self._saved, None
        if saved is not None:
            self._run.restore(saved, type(self).__name__, trainer.current_epoch)
            self._loss.set_state(saved["loss"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch."""
        assert self._host is not None
        if self._host.stop_training:
            # `min_epochs` or `min_steps` wants more.
            self._host.stop_training = False
            self._run.callbacks.journal.write(
                type(self).__name__, "Lightning went on: `min_epochs` or `min_steps` wants more"
            )
        self._loss.reset_state()
        self._older = dict(trainer.callback_metrics)
        self._run.call("on_epoch_begin", trainer.current_epoch)
        self._pass_on_stop(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin a batch."""
        for rate in self._rates:
            rate.note_used()
        if self._run.callbacks.listens("on_train_batch_begin"):
            self._run.call("on_train_batch_begin", batch_idx, None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add to the mean of the loss, and end a batch; nothing is read from the device."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            # Lightning has divided it for accumulation.
            parts = trainer.accumulate_grad_batches
            loss = loss.detach() if parts == 1 else loss.detach() * parts
            self._loss.update_state(loss, self._run.samples_in(batch))
        if self._run.callbacks.listens("on_train_batch_end"):
            logs = RunningLogs(source=self._meter)
            self._run.call("on_train_batch_end", batch_idx, logs)
            kept = ref(logs) if self._run.callbacks.calls_others("on_train_batch_end") else None
            del logs
            # As in oncue's own loop: the next step changes what logs that are still referenced would read.
            if kept is not None and (held := kept()) is not None:
                held.own()
            if trainer.world_size == 1:
                self._pass_on_stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the validation of an epoch."""
        if self._run.is_open and not trainer.sanity_checking:
            self._run.call("on_test_begin")

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """End a batch of validation."""
        if self._run.is_open and self._run.callbacks.listens("on_test_batch_end"):
            self._run.call(
                "on_test_batch_end", trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready - 1, None
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the validation of an epoch."""
        if self._run.is_open and not trainer.sanity_checking:
            measured = {
                name.removeprefix("val_"): value for name, value in self._fresh(trainer).items() if "val_" in name
            }
            self._run.call("on_test_end", Logs(source=Reading.of(measured)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch, with what was logged in it."""
        assert self._host is not None
        values = {**({"loss": self._loss.result()} if self._loss.count.owned() else {}), **self._fresh(trainer)}
        if trainer.world_size > 1:
            # What the module logged without `sync_dist=True` differs between processes, and so would decisions.
            values = {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in values.items()}
        logs = Logs(source=Reading.of(values))
        for rate in self._rates:
            logs[rate.key] = rate.used
        self._run.call("on_epoch_end", trainer.current_epoch, logs)
        self._host.stop_training = trainer.strategy.reduce_boolean_decision(self._host.stop_training, all=False)
        self._pass_on_stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run."""
        self._run.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the run because of an error."""
        self._run.fail(exception)

    def _fresh(self, trainer: Trainer) -> dict[str, Any]:
        """Return what was logged in this epoch: Lightning keeps the values of older ones."""
        found = {name: value for name, value in trainer.callback_metrics.items() if value is not self._older.get(name)}
        twice = {f"{name}_{end}" for name in found for end in ("step", "epoch")}
        return {name: value for name, value in found.items() if name not in twice}

    def _pass_on_stop(self, trainer: Trainer) -> None:
        if self._host is not None and self._host.stop_training:
            trainer.should_stop = True
