"""`Transformers`: the callbacks in transformers' `Trainer`."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.warn import warn
from oncue.hosts.host import Host
from oncue.hosts.lacks import TRANSFORMERS
from oncue.hosts.run import HostedRun
from oncue.hosts.transformers_state import InCheckpoints

_NOT_VALUES = ("loss", "epoch", "grad_norm", "learning_rate", "total_flos", "num_input_tokens_seen")
_TIMES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")


class Transformers(InCheckpoints):
    """One callback for transformers' `Trainer` that carries oncue's, in their order.

    A batch is an update. The epoch's logs have `loss`, the mean of what the Trainer logs, which it does at every epoch's end
    too, and what it evaluated, with `val_` for `eval_`. Its checkpoints have the state of the callbacks. It tells nobody of an
    error: use `with` around `train`; otherwise they are closed when the adapter is gone, or trains again.

    Args:
        *callbacks: oncue's callbacks, or lists of them; what they need and the Trainer lacks is an error now.
    """

    def __init__(self, *callbacks: Any) -> None:
        super().__init__()
        self._run = HostedRun(callbacks, TRANSFORMERS)
        self._first_update = self._known_until = 0
        self._updates_done = self._evaluated = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a run, or go on with one."""
        self.find(args, state)
        host = Host(kwargs["model"], [kwargs["optimizer"]], filter(None, [kwargs["lr_scheduler"]]))
        steps = max(1, math.ceil(state.max_steps / max(state.num_train_epochs, 1)))
        self._control, self._updates_done, self._known_until = control, False, state.global_step
        self._run.begin(host, self, epochs=state.num_train_epochs, steps=steps)
        self._restore(int(state.epoch))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin an epoch."""
        self._finish(self._updates_done)
        self._first_update, self._evaluated = state.global_step, False
        self._run.begin_epoch(int(state.epoch + 1e-6))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin an update."""
        self._run.begin_batch(None, state.global_step - self._first_update)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an update, of which the Trainer says no values."""
        self._run.call("on_train_batch_end", self._run.done)
        control.should_training_stop |= self._run.stops

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Take the loss of the updates since the log before."""
        if not self._run.is_open or "train_runtime" in logs or any(name.startswith("eval_") for name in logs):
            return
        if "loss" in logs:
            self._run.means.add({"loss": float(logs["loss"])}, state.global_step - self._known_until)
            self._known_until = state.global_step
        self._run.given.update((name, value) for name, value in logs.items() if name not in _NOT_VALUES)
        self._finish(self._updates_done and not control.should_evaluate)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Take what was evaluated, and end the epoch if that is when it was."""
        found = {name: one for name, one in metrics.items() if name != "epoch" and not name.endswith(_TIMES)}
        found = {name.removeprefix("eval_"): one for name, one in found.items()}
        if self._evaluated and not self._updates_done and self._run.is_open:
            warn(
                "hosts.Transformers has told the callbacks of the epoch's end, and the Trainer evaluates another data set: its "
                f"values ({', '.join(found)}) are left out. Evaluate one."
            )
            return
        self._run.given.update((f"val_{name}", value) for name, value in found.items())
        self._run.call("on_test_begin")
        self._run.call("on_test_end", found)
        self._evaluated = self._updates_done
        self._finish(self._updates_done)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let the Trainer log; the epoch ends when it has logged and evaluated."""
        self._updates_done = control.should_log = True
        self._finish(self._known_until == state.global_step and not control.should_evaluate)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self._finish(self._updates_done)
        self._run.end()

    def _finish(self, now: bool) -> None:
        if now and self._run.is_open:
            self._updates_done = False
            self._run.end_epoch()
            self._control.should_training_stop |= self._run.stops
