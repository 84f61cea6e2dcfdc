"""Parallel: a run of a model on several processes, each of which computes its rows of each batch."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oncue.core.console import silenced
from oncue.core.preempted import is_agreed
from oncue.core.process import process
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.row_share import RowShare, SharedBatches
from oncue.seeded_mask import RowsOfBatch
from oncue.shards import is_sharded
from oncue.training.gradient_sum import GradientSum
from oncue.training.parallel_comparison import Comparison
from oncue.training.parallel_data import OwnBatches, brings_own
from oncue.training.parallel_metrics import MetricSums
from oncue.training.parallel_predictions import Predictions
from oncue.training.parallel_questions import Questions

if TYPE_CHECKING:
    from oncue.callbacks import CallbackList
    from oncue.distribution.group import Group
    from oncue.optimizers import Optimizer
    from oncue.training.sharded import Shards
    from oncue.training.trainer import Trainer


def parallel_run(model: Trainer) -> Parallel | None:
    """Return what a run of a model on several processes needs; None for the usual run, on one.

    Args:
        model: The model.
    """
    sharded = has_sharded_parts(model)
    if process.is_alone and not sharded:
        return None
    # Nothing of it is imported by a process alone.
    from oncue import distribution

    group = distribution.training_group(sharded)
    chosen = distribution.distribution()
    if group is None:
        return None
    parallel = Parallel(model, group, chosen is None or chosen.auto_shard_dataset)
    parallel.shards_weights_from = None if chosen is None or not chosen.shard_weights else chosen.min_shard_size
    return parallel


def has_sharded_parts(model: torch.nn.Module) -> bool:
    """Return whether processes have parts of weights of a model.

    Args:
        model: The model.
    """
    # Who has never imported it has sharded nothing, nor has who is in no group.
    fsdp = sys.modules.get("torch.distributed.fsdp") if torch.distributed.is_initialized() else None
    return fsdp is not None and any(isinstance(module, fsdp.FSDPModule) for module in model.modules())


def shared(batches: Batches, parallel: Parallel | None) -> Batches:
    """Return batches of which this process gets its rows: all of them, where it is alone.

    Args:
        batches: The batches of the whole run.
        parallel: The run on several processes; None for the usual one.
    """
    return batches if parallel is None else parallel.batches(batches)


class Parallel:
    """A run on several processes: what is computed on each, and what is made equal on all.

    Rows, learning rate, order and position are those of one process: a batch is that of the whole run, of which each process
    takes its rows; the losses of all rows are divided by what one process would divide them by; gradients are summed before
    they are clipped or used. So every process makes the update that one process would make.

    Args:
        model: The model.
        group: The processes.
        shards: Whether batches are those of the whole run; False where each process brings batches of its own.

    Attributes:
        group: The processes.
        share: This process's rows of the batch that is being computed.
        questions: What the processes ask of each other.
        comparison: What is made the same on all of them, and what must be.
        metrics: The sums of their metrics.
        predictions: Their predictions, in order.
        update: Makes the updates in place of the optimizer's `step`, where that isn't None.
        shards_weights_from: How many numbers a layer of its own has at least, where weights are to be sharded; else None.
        weights: The parts of the weights that processes have; None where each has all of them.
    """

    def __init__(self, model: Trainer, group: Group, shards: bool = True) -> None:
        self._model, self.group, self._shards = model, group, shards
        self.share = RowShare(group.rank, group.size)
        self.update: Callable[[], None] | None = None
        self.questions = Questions(model, group)
        self.comparison = Comparison(model, group, self.questions)
        self.metrics = MetricSums(model, group, self.questions)
        self.predictions = Predictions(self.share, group)
        self.shards_weights_from: int | None = None
        self.weights: Shards | None = None
        self._gradients: GradientSum | None = None
        self._epoch: int | None = None

    # Data ----------------------------------------------------------------------------------------------------------

    def batches(self, batches: Batches) -> Batches:
        """Return batches of which this process gets its rows.

        Args:
            batches: The batches of the whole run, the same on all processes.
        """
        self.predictions.are_shared = self._shards and not brings_own(batches)
        if self.predictions.are_shared:
            return SharedBatches(batches, self.share)
        return OwnBatches(batches, self.share, self.group)

    def part(self, batch: Batch) -> Batch:
        """Return this process's rows of a batch."""
        return self.share.take(batch)

    # The weights ---------------------------------------------------------------------------------------------------

    def shard_weights(self) -> None:
        """Shard the weights of a built model, where that is wanted, and take those that are sharded for the run.

        Raises:
            RanksDiverged: When the models differ.
            ValueError: With the name of what can't be computed on shards.
        """
        model = self._model
        if self.weights is not None and self.weights.suits(model):
            return
        # Nothing of it is imported where nothing is sharded.
        if self.shards_weights_from is None and "torch.distributed.fsdp" not in sys.modules:
            return
        from oncue.training.sharded import Shards, shard

        self.weights = Shards.of(model)
        if self.weights is None and self.shards_weights_from is not None:
            # The parts of all processes are to be those of one model.
            self.comparison.same_model()
            shard(model, self.shards_weights_from)
            self.weights = Shards.of(model)

    @contextmanager
    def resharding(self) -> Iterator[None]:
        """Let go, after the block, of weights that a forward pass alone has gathered in it."""
        try:
            yield
        finally:
            if self.weights is not None:
                self.weights.reshard()

    # Around the passes -----------------------------------------------------------------------------------------------

    def take_callbacks(self, callbacks: CallbackList) -> None:
        """Make the callbacks of a run those of one process of several; the others leave out what one writes for all."""
        self.comparison.same_callbacks(callbacks)
        callbacks.group = self.group
        if not self.group.main:
            callbacks.leave_out_writers(parts=self.weights is not None)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Enclose the run: one process speaks for all, and the others are told when this one fails."""
        # Imported where there is a group, as all of that room.
        from oncue.distribution.termination import ended_by_sigterm

        failures = self.group.failures
        with (
            failures.running(self._place),
            # Where all have agreed on the end, SIGTERM may come to some of them later than to others.
            ended_by_sigterm(lambda: failures.reason is not None or is_agreed(sys.exception())),
            nullcontext() if self.group.main else silenced(),
        ):
            try:
                yield
            except BaseException:
                if self.weights is not None:
                    self.weights.give_up()
                raise

    def _place(self) -> tuple[str, bool]:
        share, epoch = self.share, self._epoch
        where = [] if epoch is None else [f"epoch {epoch + 1}"]
        return ", ".join([*where, f"batch {share.index + 1}"] if share.total else where), share.reads

    def begin_epoch(self, epoch: int) -> None:
        """Take note of the epoch, from which noise is drawn.

        Args:
            epoch: Its index.
        """
        self._epoch = epoch
        self.questions.begin_epoch()

    # A step --------------------------------------------------------------------------------------------------------------

    def own_noise(self) -> OwnNoise:
        """Return a block in which random numbers of this process's own are drawn, such as masks of dropout."""
        return OwnNoise(self.share, self._epoch or 0)

    @property
    def own(self) -> float:
        """1, or 0 where no row of the batch is this process's, and it runs another's along."""
        return float(self.share.rows > 0)

    @property
    def fraction(self) -> float:
        """The share of the batch's rows that are this process's."""
        return self.share.fraction

    @property
    def total(self) -> int:
        """How many rows the batch has."""
        return self.share.total

    def total_of(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, in its place."""
        return self.group.sum_(values)

    def make_update(self, optimizer: Optimizer) -> None:
        """Update the weights from gradients that were summed."""
        if self.update is None:
            optimizer.step()
        else:
            self.update()

    def derive(self, loss: Tensor, parameters: Sequence[Tensor], *, early: bool) -> None:
        """Run the backward pass of a step.

        Args:
            loss: What is derived.
            parameters: The parameters whose gradients are to be summed.
            early: Whether sums may begin meanwhile: not where the backward pass sends messages of its own, which come before
                those of the gradients on all processes.
        """
        if early and self.weights is None and self._gradients is not None and self._gradients.is_divided:
            with self.gradients_of(parameters).sending():
                loss.backward()  # type: ignore[no-untyped-call]
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def gradients_of(self, parameters: Sequence[Tensor]) -> GradientSum:
        """Return what sums the gradients of parameters over the processes.

        Args:
            parameters: The parameters, the same on all.
        """
        if self.weights is not None:
            # The gradients of shards were summed by torch's engine, in the backward pass.
            parameters = [parameter for parameter in parameters if not is_sharded(parameter)]
        if self._gradients is None or not self._gradients.suits(parameters):
            self._gradients = GradientSum(parameters, self.questions.count, self.group)
        return self._gradients

    def sum_gradients(
        self, parameters: Sequence[Tensor], scale: float = 1.0, divisor: Tensor | None = None
    ) -> float | Tensor:
        """Sum the gradients of all processes, and learn what any of them asks for.

        Args:
            parameters: The parameters, the same on all.
            scale: What this process's gradients are multiplied with before.
            divisor: This process's part of what the sums are divided by; None for nothing.

        Returns:
            What they were divided by: 1 for nothing.
        """
        gradients = self.gradients_of(parameters)
        sums, divided = gradients(self.questions.numbers(), scale, divisor)
        if self.weights is not None and (isinstance(divided, Tensor) or divided != 1.0):
            self.weights.divide(divided)
        self.questions.answer(sums, gradients.is_late)
        return divided

    @contextmanager
    def summing(self, optimizer: Optimizer | None) -> Iterator[list[int]]:
        """Let an optimizer sum gradients itself in the block, before each update that code of the user's makes.

        Yields:
            What gets an entry for each sum: of how many gradients.
        """
        made: list[int] = []
        if optimizer is None:
            yield made
            return

        def summed(parameters: Sequence[Tensor]) -> None:
            made.append(len(parameters))
            self.sum_gradients(parameters, self.share.fraction)

        optimizer.sums_gradients = summed
        if self.weights is not None:
            self.weights.scale = self.share.fraction
        try:
            yield made
        finally:
            optimizer.sums_gradients = None
            if self.weights is not None:
                self.weights.scale = 1.0


class OwnNoise:
    """A block in which a process draws random numbers of its own, for its rows of a batch.

    They follow from the seed of the run, the epoch, the batch and the process, so that a resumed run draws them again. All else
    draws the same numbers on all processes. Masks from a seed of their own are those that one process would draw.

    Args:
        share: Which rows of which batch they are.
        epoch: The index of the epoch.
    """

    # A class, because a step waits for it: a generator function takes three times as long.

    def __init__(self, share: RowShare, epoch: int) -> None:
        self._share, self._rows = share, RowsOfBatch(share)
        self._seed = f"{torch.initial_seed()} {epoch} {share.index} {share.rank}"
        self._kept: Tensor | None = None

    def __enter__(self) -> None:
        self._kept = torch.get_rng_state()
        torch.default_generator.manual_seed(zlib.crc32(self._seed.encode()))
        self._rows.__enter__()

    def __exit__(self, *error: object) -> None:
        self._rows.__exit__()
        assert self._kept is not None
        torch.set_rng_state(self._kept)
