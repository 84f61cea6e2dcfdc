"""`Ignite`: the callbacks on an engine of PyTorch-Ignite that trains."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events

from oncue.hosts.host import Host
from oncue.hosts.lacks import IGNITE
from oncue.hosts.run import Adapter, HostedRun


class Ignite(Adapter):
    """Carries oncue's callbacks to an engine, by `attach`: after what evaluates or sets the rate, and before what saves.

    The epoch's logs are the means of what the engine's function returned, its metrics, and the evaluator's, with `val_`.
    """

    def __init__(self, *callbacks: Any) -> None:
        self._run = HostedRun(callbacks, IGNITE)

    def attach(self, trainer: Any, module: Any, optimizer: Any, scheduler: Any = None, evaluator: Any = None) -> None:
        """Listen to the engine that trains a module, and to the one that evaluates it."""
        run, state, self._host = self._run, trainer.state, Host(module, [optimizer], filter(None, [scheduler]))
        trainer.add_event_handler(Events.STARTED, self._begin)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: run.begin_epoch(state.epoch - 1))
        trainer.add_event_handler(Events.ITERATION_STARTED, lambda: run.begin_batch(state.batch))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._end_batch)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        trainer.add_event_handler(Events.COMPLETED, lambda: run.end())
        trainer.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        if evaluator is not None:
            evaluator.add_event_handler(Events.COMPLETED, self._measured)

    def _begin(self, trainer: Any) -> None:
        self._run.begin(self._host, self, epochs=trainer.state.max_epochs, steps=trainer.state.epoch_length)
        self._restore(trainer.state.epoch)

    def _end_batch(self, trainer: Any) -> None:
        batch, output = trainer.state.batch, trainer.state.output
        self._run.step(batch, output if isinstance(output, dict) else {"loss": output})
        self._run.end_batch(batch)
        if self._run.stops:
            trainer.terminate_epoch()

    def _measured(self, evaluator: Any) -> None:
        self._run.given.update((f"val_{name}", value) for name, value in evaluator.state.metrics.items())
        self._run.call("on_test_begin")
        self._run.call("on_test_end", dict(evaluator.state.metrics))

    def _end_epoch(self, trainer: Any) -> None:
        self._run.end_epoch(**trainer.state.metrics)
        if self._run.stops:
            trainer.terminate()

    def _fail(self, trainer: Any, error: BaseException) -> None:
        self._run.fail(error)
        raise error  # which Ignite swallows otherwise
