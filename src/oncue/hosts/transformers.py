"""`Transformers`: the callbacks in transformers' `Trainer`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from oncue.checkpoints.tensors_file import read_tensors, write_tensors
from oncue.core.files import replacing
from oncue.core.needs import Lacks
from oncue.core.warn import warn
from oncue.hosts.host import Host, HostRate
from oncue.hosts.run import Adapter, HostedRun

LACKS = Lacks(
    "transformers' Trainer",
    {
        "whole_model": "Its own `save_strategy` writes whole checkpoints; or save the weights, with `save_weights_only=True` "
        "and a `filepath` that ends in '.safetensors'.",
        "weights_h5": "Give a `filepath` that ends in '.safetensors', which every library reads.",
        "run_state": "Its own checkpoints have the state of oncue's callbacks: `trainer.train(resume_from_checkpoint=True)`.",
        "batch_values": "It tells callbacks the loss only now and then, and leaves out what isn't finite: set "
        "`logging_nan_inf_filter=False`, and watch `loss` by the epoch, with `EarlyStopping('loss')`.",
        "average": "Keep one in a `TrainerCallback` of your own, with `torch.optim.swa_utils.AveragedModel`.",
    },
)
_FILE = "oncue_callbacks.safetensors"
_TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
_NOT_VALUES = ("epoch", "grad_norm", "learning_rate", "total_flos", "num_input_tokens_seen")


class Transformers(Adapter, TrainerCallback, ExportableState):
    """One callback for transformers' `Trainer` that carries oncue's, in their order.

    A batch is an update. The epoch's logs have `loss`, the mean of what the Trainer logs, which it does at every epoch's end
    too, and what it evaluated, with `val_` for `eval_`. Its checkpoints have the state of the callbacks.

    The Trainer tells nobody of an error or of Ctrl-C. What oncue's callbacks raise closes them all. For errors of others use
    `with` around `train`; otherwise they are closed when the adapter is gone, or trains again.

    Args:
        *callbacks: oncue's callbacks, or lists of them.

    Attributes:
        history: The logs of every epoch, and `explain()`.

    Raises:
        ValueError: For a callback that needs what the Trainer lacks, with what to use instead.
    """

    def __init__(self, *callbacks: Any) -> None:
        self._run = HostedRun(callbacks, LACKS)
        self._host: Host | None = None
        self._rates: list[HostRate] = []
        # The sum of the epoch's losses, the updates in it, and the update up to which they are known.
        self._sum, self._count, self._known = 0.0, 0, 0
        self._values: dict[str, Any] = {}
        self._epoch: int | None = None
        self._first = 0
        self._ends = self._measured = False
        self._tensors: dict[str, Any] = {}

    # The hooks --------------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a run.

        Raises:
            ValueError: When the Trainer has made this adapter again, without its callbacks.
        """
        scheduler = kwargs.get("lr_scheduler")
        self._host = Host(kwargs["model"], [kwargs["optimizer"]], [] if scheduler is None else [scheduler])
        self._rates = self._run.logged_rates(self._host, scheduler is not None)
        steps = max(1, math.ceil(state.max_steps / max(state.num_train_epochs, 1)))
        self._epoch, self._ends, self._known = None, False, state.global_step
        self._run.begin(
            self._host, owner=self, writes=state.is_world_process_zero, epochs=state.num_train_epochs, steps=steps
        )
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        if isinstance(saved, list) or args.restore_callback_states_from_checkpoint:
            raise ValueError(
                "Give the Trainer one `hosts.Transformers` with all callbacks of oncue, and leave out "
                "`restore_callback_states_from_checkpoint=True`: it makes callbacks again, and this one restores itself."
            )
        if saved is not None:
            self._restore(
                saved["attributes"], Path(args.output_dir, f"checkpoint-{state.global_step}"), int(state.epoch)
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the epoch before, if that has not been done, and begin an epoch."""
        self._finish(control)
        epoch = int(state.epoch + 1e-6)
        if epoch != self._epoch:
            self._sum, self._count, self._values = 0.0, 0, {}
        self._epoch, self._first, self._measured = epoch, state.global_step, False
        self._call(control, "on_epoch_begin", epoch)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin an update."""
        if self._run.callbacks.listens("on_train_batch_begin"):
            self._call(control, "on_train_batch_begin", state.global_step - self._first, None)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of the rate of the update, which the scheduler changes before it ends."""
        for rate in self._rates:
            rate.note_used()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an update."""
        if self._run.callbacks.listens("on_train_batch_end"):
            self._call(control, "on_train_batch_end", state.global_step - self._first - 1, None)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Take the loss of the updates since the log before."""
        logs = logs or {}
        if not self._run.is_open or "train_runtime" in logs or any(name.startswith("eval_") for name in logs):
            return
        if "loss" in logs:
            steps, self._known = state.global_step - self._known, state.global_step
            self._sum, self._count = self._sum + float(logs["loss"]) * steps, self._count + steps
        self._values.update({name: value for name, value in logs.items() if name not in ("loss", *_NOT_VALUES)})
        if self._ends and not control.should_evaluate:
            self._finish(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Take what was evaluated, and end the epoch if that is when it was."""
        if not self._run.is_open:
            return
        found = {name.removeprefix("eval_"): value for name, value in (metrics or {}).items() if name != "epoch"}
        found = {name: value for name, value in found.items() if not name.endswith(_TIMES)}
        if self._measured and not self._ends:
            warn(
                "hosts.Transformers has told the callbacks of the epoch's end, and the Trainer evaluates another data set: its "
                f"values ({', '.join(found)}) are left out. Evaluate one."
            )
            return
        self._values.update({f"val_{name}": value for name, value in found.items()})
        self._call(control, "on_test_begin")
        self._call(control, "on_test_end", found)
        self._measured = self._ends
        self._finish(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the Trainer log; the epoch ends when it has logged and evaluated."""
        self._ends = True
        control.should_log = True
        if self._known == state.global_step and not control.should_evaluate:
            self._finish(control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self._finish(control)
        self._run.end()

    # State ------------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the state of all callbacks, as JSON can have it; the Trainer asks when it makes and saves a checkpoint."""
        if not self._run.is_open:
            return {"args": {}, "attributes": {}}
        self._finish(None)
        saved = self._run.state()
        self._tensors = saved["tensors"]
        own = {"sum": self._sum, "count": self._count, "values": json.dumps(self._values), "epoch": self._epoch}
        return {"args": {}, "attributes": {"text": saved["text"], "tensors": len(self._tensors), **own}}

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the tensors of the state, such as the best weights, into the checkpoint."""
        tensors, self._tensors = self._tensors, {}
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if tensors and state.is_world_process_zero and folder.is_dir():
            with replacing(folder / _FILE) as temporary:
                write_tensors(temporary, {name: one.cpu() for name, one in tensors.items()}, {"format": "pt"})

    def _restore(self, saved: dict[str, Any], folder: Path, epoch: int) -> None:
        tensors = None
        if saved["tensors"]:
            try:
                with open(folder / _FILE, "rb") as file:
                    tensors = read_tensors(file)
            except OSError as error:
                raise ValueError(
                    f"The checkpoint has weights that oncue's callbacks keep, in '{os.fspath(folder / _FILE)}', which can't be "
                    f"read ({error}). Resume from an older checkpoint, or leave the folder where the Trainer made it."
                ) from error
        self._run.restore({"text": saved["text"], "tensors": tensors or {}}, type(self).__name__, epoch)
        self._sum, self._count, self._epoch = saved["sum"], saved["count"], saved["epoch"]
        self._values = json.loads(saved["values"])

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _finish(self, control: Any) -> None:
        """Call the hooks of an epoch's end, once."""
        if not self._ends or not self._run.is_open:
            return
        self._ends = False
        logs = {**({"loss": self._sum / self._count} if self._count else {}), **self._values}
        logs.update({rate.key: rate.used for rate in self._rates})
        self._call(control, "on_epoch_end", self._epoch, logs)

    def _call(self, control: Any, hook: str, *arguments: Any) -> None:
        self._run.call(hook, *arguments)
        if control is not None and self._host is not None and self._host.stop_training:
            control.should_training_stop = True
