"""`loop`: the callbacks in a training loop that the user writes, also with Accelerate or Lightning Fabric.

It is longer than the adapters of other libraries' loops, because it is the loop: it gives epochs and batches, and goes to the
place in both where an interrupted run was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from oncue.callbacks import History
from oncue.checkpoints.training_state import TrainingState
from oncue.feeding.batch import Batches
from oncue.feeding.converter import BatchConverter
from oncue.feeding.indexed import IndexedBatches
from oncue.feeding.loader import loader_batches
from oncue.feeding.stream import StreamBatches
from oncue.hosts.accelerate import Accelerated
from oncue.hosts.carried import packed, unpacked
from oncue.hosts.host import Host
from oncue.hosts.lacks import LOOP
from oncue.hosts.loop_state import Held, LoopState
from oncue.hosts.run import HostedRun

Validation = Callable[[], Mapping[str, Any]]


class Loop:
    """A run in a loop of the user's own; `loop` makes it.

    What stands in the body of the loops after `step` and `end_epoch` belongs to the batch and to the epoch, too: their hooks
    are called when the next one is asked for. So `scheduler.step()` may stand before or after.

    Attributes:
        model: The module as callbacks see it, with `stop_training`, `optimizer.learning_rate` and the weights.
        history: The logs of every epoch, and `explain()`.
    """

    def __init__(
        self,
        run: HostedRun,
        state: LoopState,
        epochs: int,
        place_of: Callable[[Any], Any],
        validation: Validation | None,
    ) -> None:
        self._run, self._state, self._epochs = run, state, epochs
        self._place_of, self._validation = place_of, validation
        self._batches: Batches | None = None
        self._pending: TrainingState | None = None
        # The epoch of a loaded state, how many of its batches were done, and whether that was all of them.
        self._loaded: tuple[int, int, bool] = 0, 0, False
        # The batch that is under way, alone in a list.
        self._under_way: list[Any] = []
        # Whether an epoch is under way, and whether the body has told what it measured at its end.
        self._begun = self._told = False
        self._logs: dict[str, Any] = {}

    @property
    def model(self) -> Host:
        """The module as callbacks see it, with `stop_training`, `optimizer.learning_rate` and the weights."""
        host: Host = self._run.model
        return host

    @property
    def history(self) -> History:
        """The logs of every epoch, and `explain()`."""
        return self._run.history

    # The three parts of a loop -------------------------------------------------------------------------------------

    def epochs(self) -> Iterator[int]:
        """Give the indices of the epochs, from where an interrupted run stopped, until the last or until a callback stops.

        Yields:
            The index of the epoch, from 0.
        """
        run, (epoch, _, whole) = self._run, self._loaded
        if self._pending is not None:
            epoch = self._pending.epoch
            if self._pending.stopped:
                return
        while epoch < self._epochs:
            # One that goes on keeps its means.
            run.epoch = epoch if self._done() else None
            self._begun = True
            run.begin_epoch(epoch)
            if not whole:
                yield epoch
            self._loaded, whole = (0, 0, False), False
            again = self._finish_epoch()
            if again is not None:
                self._pending, epoch = again, again.epoch
                if run.stops:
                    return
                continue
            self._pending = None
            epoch += 1
            if run.stops or run.callbacks.paused is not None:
                return

    def batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Give what a loader gives, from where an interrupted run stopped, until a callback stops the run.

        Args:
            loader: A `DataLoader`, or anything that gives batches; once in each epoch.

        Yields:
            What the loader yields, as it is.

        Raises:
            ValueError: Outside `epochs()`; and when the run can't be resumed with these data.
        """
        if not self._begun or self._under_way:
            raise ValueError(
                "`batches` belongs inside `for epoch in run.epochs():`, one loop over batches at a time. Join several loaders "
                "with `zip`."
            )
        state, pending, run = self._state, self._pending, self._run
        if self._batches is None or self._batches.source is not loader:
            self._batches = _as_they_are(loader, self._place_of(loader))
            run.callbacks.set_params({**(run.callbacks.params or {}), "steps": self._batches.num_batches})
        state.bind(self._batches, pending)
        done = self._done()
        if pending is not None and done:
            # The body of the epoch may have changed what the state of its middle has.
            state.restore(pending)
        # After a checkpoint of the user's own, it is the loader that begins there.
        for raw in self._batches.epoch(0 if pending is None else done):
            run.begin_batch(raw, done)
            self._under_way = [raw]
            yield raw
            self._finish_batch()
            done += 1
            # Several processes end together, when the epoch does.
            if run.stops or (run.processes.alone and run.callbacks.paused is not None):
                return

    def step(self, **values: Any) -> None:
        """Take note of what a batch measured; nothing is read from the device.

        The epoch's logs have the means, in which a batch counts by its number of samples.

        Args:
            **values: Numbers or tensors by name, such as `loss=loss`: one for the batch, or one for each sample.

        Raises:
            ValueError: Outside `batches()`.
        """
        if not self._under_way:
            raise ValueError("`step` belongs inside `for batch in run.batches(loader):`, once for each batch.")
        self._run.step(self._under_way[0], values)

    def end_epoch(self, **values: Any) -> None:
        """Add to the epoch's logs what was measured when its batches were done, such as `val_loss=measure()`.

        Args:
            **values: Numbers or tensors by name, those of validation with `val_` before it.

        Raises:
            ValueError: Outside `epochs()`.
        """
        if not self._begun:
            raise ValueError("`end_epoch` belongs inside `for epoch in run.epochs():`, after the batches.")
        self._run.given.update(values)
        self._told = True

    # State in a checkpoint of another library, or of the user's own ---------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the callbacks, for `accelerator.register_for_checkpointing(run)` or a file of your own.

        In the body of an epoch the state is that of the epoch under way: after its batches, a loop that loads it calls the
        hooks of the epoch's end and begins the next one; among them, it gives the epoch again, and the batches that are left
        come from your loader. `BackupAndRestore` does all of that by itself.
        """
        run, done = self._run, self._run.done + len(self._under_way)
        following = 0 if run.epoch is None else run.epoch + 1
        place = [run.epoch, done, done > 0 and not self._under_way] if self._begun else [following, 0, False]
        return packed({**run.state(), "place": place})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called, inside `with` and before `epochs()`.

        Args:
            state_dict: What it returned.

        Raises:
            ValueError: When an epoch has begun.
        """
        if self._begun or self._run.epoch is not None:
            raise ValueError("`load_state_dict` belongs before `for epoch in run.epochs():`.")
        state = unpacked(state_dict)
        epoch, done, whole = state["place"]
        self._loaded = epoch, done, whole
        self._run.restore(state, epoch)

    # The hooks at the ends ------------------------------------------------------------------------------------------

    def _done(self) -> int:
        """Return how many batches of the epoch that begins were done in an earlier run."""
        return self._loaded[1] if self._pending is None else self._pending.batch

    def _finish_batch(self) -> None:
        if self._under_way:
            self._run.end_batch(self._under_way.pop())

    def _finish_epoch(self) -> TrainingState | None:
        """Call the hooks of the end of an epoch; return the state to go back to, when a callback asked for one."""
        self._finish_batch()
        self._begun = self._told = False
        run, state = self._run, self._state
        if run.callbacks.paused is not None:
            return None
        run.callbacks.end_trial()
        if state.rollback is None:
            measured = {}
            if self._validation is not None:
                run.call("on_test_begin")
                measured = dict(self._validation())
                run.call("on_test_end", measured)
            self._logs = run.end_epoch(**{f"val_{name}": value for name, value in measured.items()})
        again = state.take_rollback()
        if again is None:
            state.keep()
        return again


@contextmanager
def loop(
    module: torch.nn.Module,
    optimizer: Any = None,
    callbacks: Any = None,
    *,
    epochs: int,
    scheduler: Any = None,
    validation: Validation | None = None,
    logs: Iterable[str] = (),
    keep: Iterable[Any] = (),
    accelerator: Any = None,
    verbose: int = 0,
) -> Iterator[Loop]:
    """Run callbacks in a training loop of your own, with their timing in `fit`.

    `BackupAndRestore` continues an interrupted loop where it was, on the CPU bit for bit: weights, optimizer, scheduler,
    callbacks, random generators, and the place in the loader.

    Args:
        module: The network.
        optimizer: Its torch optimizer, or a list of several.
        callbacks: oncue's or Keras's callbacks.
        epochs: How many epochs the run has.
        scheduler: What sets the learning rate, or a list; your loop calls its `step`. A rate that a callback sets stays
            set: what the scheduler computes the next from is scaled with it.
        validation: A function that measures when an epoch ends, and returns values by name; they are logged with `val_`.
        logs: The names that every epoch will log. What callbacks watch is then checked before the first step.
        keep: Further objects with `state_dict` and `load_state_dict` whose state belongs to the run, such as a `GradScaler`.
        accelerator: The `Accelerator` of Accelerate, or the `Fabric` of Lightning, that prepared module and optimizer.
        verbose: What callbacks find in `params`.

    Yields:
        A `Loop`, with `epochs()`, `batches(loader)`, `step(**values)`, `end_epoch(**values)` and `history`.

    Raises:
        ValueError: For a callback that a loop of one's own can't serve, with what to use instead.

    Example:
        >>> from oncue.callbacks import EarlyStopping
        >>> net = torch.nn.Linear(2, 1)
        >>> sgd = torch.optim.SGD(net.parameters(), lr=0.0)
        >>> x, y = torch.ones(8, 2), torch.ones(8, 1)
        >>> with loop(net, sgd, [EarlyStopping("loss", patience=2)], epochs=10) as run:
        ...     for epoch in run.epochs():
        ...         for batch in run.batches([(x, y)]):
        ...             loss = torch.nn.functional.mse_loss(net(batch[0]), batch[1])
        ...             loss.backward()
        ...             sgd.step()
        ...             run.step(loss=loss)
        >>> len(run.history.history["loss"])
        3
    """
    optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [] if optimizer is None else [optimizer]
    schedulers = list(scheduler) if isinstance(scheduler, (list, tuple)) else [] if scheduler is None else [scheduler]
    accelerated = Accelerated(accelerator)
    run = HostedRun(callbacks, LOOP)
    host = Host(accelerated.unwrapped(module), optimizers, schedulers)
    held = Held(scheduler, validation, (*keep, *accelerated.keep))
    state = LoopState(run, host, optimizers, held)
    made = Loop(run, state, epochs, accelerated.place_of, validation)
    run.open(host, made, epochs=epochs, verbose=verbose)
    run.callbacks.run_state = state
    try:
        names = list(logs)
        if names:
            run.callbacks.expect(names, any(name.startswith("val_") for name in names))
        made._pending = state.pending()
        run.call("on_train_begin")
        if made._pending is not None:
            # Callbacks reset themselves when training begins, so their state is restored after that.
            state.restore(made._pending)
            state.note_resumed(made._pending)
        else:
            state.keep()
        yield made
        if made._told:
            # The loop over epochs was left by `break` in one that was done.
            made._finish_epoch()
        run.end(made._logs)
    except BaseException as error:
        run.fail(error)
        raise
    finally:
        # The history keeps the list, and this would keep the data.
        run.callbacks.run_state = None


_NO_PLACE = object()


class _AsItIs(BatchConverter):
    """Leaves what a loader gives as it is."""

    def __call__(self, data: Any, index: int) -> Any:
        return data


def _as_they_are(loader: Iterable[Any], place: Any) -> Batches:
    convert = _AsItIs(type(loader).__name__, torch.device("cpu"))
    if place is None:
        return StreamBatches(loader, convert, place=_NO_PLACE)
    if isinstance(loader, DataLoader):
        return loader_batches(loader, convert)
    if isinstance(loader, (list, tuple)):
        return IndexedBatches(loader, lambda at: loader[at[0]], convert, batch_size=1)
    return StreamBatches(loader, convert)
