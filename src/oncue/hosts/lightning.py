"""`Lightning`: the callbacks in Lightning's `Trainer`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from oncue.hosts.host import Host
from oncue.hosts.lacks import LIGHTNING
from oncue.hosts.run import Adapter, HostedRun


class Lightning(Adapter, EarlyStopping):
    """One callback for Lightning's `Trainer` that carries oncue's, in their order and with their three ends.

    The epoch's logs are what the module logged in the epoch, under its names, and `loss`, the mean of what `training_step`
    returned. Lightning's checkpoints have the state of the callbacks, which a resumed run gets back.

    It is an `EarlyStopping` of Lightning, because only those and checkpoints hear of an epoch's end when its values are there.

    Args:
        *callbacks: oncue's callbacks, or lists of them.

    Raises:
        ValueError: For a callback that needs what the Trainer lacks, with what to use instead.
    """

    def __init__(self, *callbacks: Any) -> None:
        super().__init__("loss")
        self._run = HostedRun(callbacks, LIGHTNING)
        self._older: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """The name of the state in checkpoints, which several adapters must not share."""
        return f"oncue.hosts.Lightning[{','.join(type(one).__name__ for one in self._run.callbacks.callbacks)}]"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a run, or go on with one."""
        if not isinstance(trainer, Trainer):
            # It would call the hooks of an epoch's end too early.
            raise TypeError("`hosts.Lightning` is for `lightning.Trainer`. Import that instead of `pytorch_lightning`.")
        host = Host(pl_module, trainer.optimizers, [config.scheduler for config in trainer.lr_scheduler_configs])
        steps = trainer.num_training_batches
        self._run.begin(host, self, epochs=trainer.max_epochs, steps=steps if isinstance(steps, int) else None)
        self._restore(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an epoch."""
        self._older = dict(trainer.callback_metrics)
        self._run.begin_epoch(trainer.current_epoch)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a batch."""
        self._run.begin_batch(batch, batch_idx)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add to the mean of the loss, and end a batch; nothing is read from the device."""
        loss, parts = outputs.get("loss") if isinstance(outputs, dict) else outputs, trainer.accumulate_grad_batches
        if loss is not None:
            # Lightning has divided it for accumulation.
            self._run.step(batch, {"loss": loss if parts == 1 else loss * parts})
        self._run.end_batch(batch)
        trainer.should_stop |= self._run.stops

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the validation of an epoch."""
        self._run.call("on_test_begin")

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        """End a batch of validation."""
        self._run.call("on_test_batch_end", trainer.fit_loop.epoch_loop.val_loop.batch_progress.current.ready - 1)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """End the validation of an epoch."""
        found = self._fresh(trainer)
        self._run.call("on_test_end", {name.removeprefix("val_"): found[name] for name in found if "val_" in name})

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """End an epoch, with what was logged in it."""
        self._run.end_epoch(**self._fresh(trainer))
        trainer.should_stop |= self._run.stops

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self._run.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run because of an error."""
        self._run.fail(exception)

    def _fresh(self, trainer: Any) -> dict[str, Any]:
        """Return what was logged in this epoch: Lightning keeps the values of older ones."""
        found = {name: value for name, value in trainer.callback_metrics.items() if value is not self._older.get(name)}
        twice = {f"{name}_{end}" for name in found for end in ("step", "epoch")}
        return {name: value for name, value in found.items() if name not in twice}
