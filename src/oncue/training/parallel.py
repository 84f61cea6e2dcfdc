"""Parallel: a run of a model on several processes, each of which computes its rows of each batch."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from oncue.checkpoints.encoding import decode, encode, json_of
from oncue.core.builtin import is_builtin
from oncue.core.console import silenced
from oncue.core.process import process
from oncue.core.ranks import ASKED
from oncue.core.warn import warn
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.row_share import RowShare, SharedBatches, rows_of
from oncue.metrics.metric import Metric
from oncue.metrics.torch_metric import TorchMetric
from oncue.naming import without_number
from oncue.nested import flatten
from oncue.random_state import random_state, set_random_state
from oncue.seeded_mask import rows_of_batch
from oncue.training.gradient_sum import GradientSum
from oncue.variable import Variable

if TYPE_CHECKING:
    from oncue.callbacks import CallbackList
    from oncue.core.journal import Journal
    from oncue.distribution.group import Group
    from oncue.optimizers import Optimizer
    from oncue.training.trainer import Trainer

_EXTRA = ("stop", *ASKED)


def parallel_run(model: Trainer) -> Parallel | None:
    """Return what a run of a model on several processes needs; None for the usual run, on one.

    Args:
        model: The model.
    """
    if process.is_alone:
        return None
    # Nothing of it is imported by a process alone.
    from oncue import distribution

    group = distribution.training_group()
    chosen = distribution.distribution()
    return None if group is None else Parallel(model, group, chosen is None or chosen.auto_shard_dataset)


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
        update: Makes the updates in place of the optimizer's `step`, where that isn't None.
    """

    def __init__(self, model: Trainer, group: Group, shards: bool = True) -> None:
        self._model, self.group, self._shards = model, group, shards
        self.share = RowShare(group.rank, group.size)
        self.update: Callable[[], None] | None = None
        self._gradients: GradientSum | None = None
        self._counts: list[tuple[int, int]] = []
        self._brings = self._stops = False
        self._epoch: int | None = None
        self._outside: dict[int, Any] = {}

    # Data ----------------------------------------------------------------------------------------------------------

    def batches(self, batches: Batches) -> Batches:
        """Return batches of which this process gets its rows.

        Args:
            batches: The batches of the whole run, the same on all processes.
        """
        source = batches.source
        own = isinstance(source, DataLoader) and isinstance(source.sampler, DistributedSampler)
        self._brings = own or not self._shards
        if self._brings:
            return OwnBatches(batches, self.share, self.group)
        return SharedBatches(batches, self.share)

    def part(self, batch: Batch) -> Batch:
        """Return this process's rows of a batch."""
        return self.share.take(batch)

    # Before the first step ---------------------------------------------------------------------------------------------

    def _agree(self, fields: dict[str, Any], what: str, verb: str = "were given") -> None:
        """Refuse a run whose processes have different things, by name, as JSON can have them."""
        found = [json.loads(text) for text in self.group.gather_texts(json.dumps(fields, default=str), what)]
        for name in fields:
            for part, values in _parts([one.get(name) for one in found]):
                other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
                if other is not None:
                    raise self.group.diverged(
                        f"The processes of this run {verb} different {name.replace('_', ' ')}: of {part or name} process 0 "
                        f"has {_brief(values[0])}, process {other} {_brief(values[other])}. "
                        f"{_ADVICE.get(name if verb == 'were given' else 'drift', _ADVICE[''])}"
                    )

    def same_random_state(self) -> None:
        """Let all processes draw the same random numbers from here on: the order of samples, first weights."""
        states = random_state(cuda=False)
        sent = [states["torch"], *(torch.tensor(states[name][1].tolist()) for name in ("numpy", "python"))]
        self.group.broadcast_(sent, "the start of `fit`")
        rest = self.group.broadcast(
            {"numpy": [states["numpy"][0], *states["numpy"][2:]], "python": [states["python"][0], states["python"][2]]}
        )
        (kind, *others), (version, gauss) = rest["numpy"], rest["python"]
        set_random_state(
            {
                "torch": sent[0],
                "numpy": (kind, sent[1].numpy(), *others),
                "python": (version, sent[2].tolist(), gauss),
                "cuda": [],
            }
        )

    def agree_on_run(self, method: str, batches: Batches, validation: Batches | None = None, **more: Any) -> None:
        """Refuse a run whose processes were given different data or arguments.

        Args:
            method: Who was called.
            batches: The data.
            validation: The data of validation.
            **more: Other arguments that must be equal.

        Raises:
            RanksDiverged: With the name of what differs.
            ValueError: When the model distributes itself.
        """
        wrapped = _wrapped(self._model)
        if wrapped is not None:
            name, kind = wrapped
            raise ValueError(
                f"{f'`{name}` of the model' if name else 'The model'} is already in {kind}, which sums gradients itself: they "
                "would be summed twice. Give the module as it was before (`module` of DistributedDataParallel; without "
                "`fully_shard`): `fit` distributes it, each process with all weights."
            )
        for name, one in (("batch_size", batches), ("validation_batch_size", validation)):
            size = None if one is None or isinstance(one, OwnBatches) else one.batch_size
            if size is not None and size < self.group.size:
                warn(
                    f"`{name}` is {size} for {self.group.size} processes, so that in each batch {self.group.size - size} of "
                    "them compute nothing. It counts the rows of all processes together: make it larger, or start fewer."
                )
        fields: dict[str, Any] = {"calls": method, **more}
        for name, one in (("data", batches), ("validation_data", validation)):
            if one is None or isinstance(one, OwnBatches):
                fields[name] = None if one is None else "its own"
            else:
                fields[name] = {"rows of a batch": one.batch_size, "batches": one.num_batches, **one.contents()}
        self._agree(fields, f"the start of `{method}`")

    def same_model(self) -> None:
        """Give the main process's weights and statistics to the models of all, and refuse models that differ otherwise.

        Raises:
            RanksDiverged: With the name of what differs.
        """
        model = self._model
        tensors = [*model.named_parameters(), *model.named_buffers()]
        optimizer = model.optimizer
        self._agree(
            {
                "weights": [
                    [without_number(name), list(one.shape), str(one.dtype), one.requires_grad] for name, one in tensors
                ],
                "optimizers": None
                if optimizer is None
                else [type(optimizer).__name__, int(optimizer.iterations), float(optimizer.learning_rate)],
            },
            "the comparison of models",
        )
        with torch.no_grad():
            self.group.broadcast_([tensor for _, tensor in tensors])

    def take_callbacks(self, callbacks: CallbackList) -> None:
        """Make the callbacks of a run those of one process of several; the others leave out what one writes for all."""
        self._agree({"callbacks": [type(one).__name__ for one in callbacks.callbacks]}, "the comparison of callbacks")
        callbacks.group = self.group
        if not self.group.main:
            callbacks.leave_out_writers()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Enclose the run: one process speaks for all, and the others are told when this one fails."""
        # Imported where there is a group, as all of that room.
        from oncue.distribution.termination import ended_by_sigterm

        failures = self.group.failures
        with (
            failures.running(self._place),
            ended_by_sigterm(lambda: failures.reason is not None),
            nullcontext() if self.group.main else silenced(),
        ):
            yield

    def _place(self) -> tuple[str, bool]:
        share, epoch = self.share, self._epoch
        where = [] if epoch is None else [f"epoch {epoch + 1}"]
        return ", ".join([*where, f"batch {share.index + 1}"] if share.total else where), share.reads

    def begin_epoch(self, epoch: int) -> None:
        """Take note of the epoch, from which noise is drawn."""
        self._epoch, self._stops, self.group.ending = epoch, False, False

    def end_epoch(self, journal: Journal) -> None:
        """Learn what any process asks for, and make sure that all have come to the same.

        Args:
            journal: What has been decided.

        Raises:
            RanksDiverged: When they haven't; with the name of what differs.
        """
        texts = [json.dumps(value) for value in self._fingerprint(journal).values()]
        answers, same = self.group.sum_compared(self._questions(), texts, "the end of an epoch")
        self._answer(answers)
        if not same:
            verb = f"came in epoch {(self._epoch or 0) + 1} to"
            self._agree(self._fingerprint(journal), "the comparison after an epoch", verb)

    def _fingerprint(self, journal: Journal) -> dict[str, Any]:
        model, optimizer = self._model, self._model.optimizer
        named = [*model.named_parameters(), *model.named_buffers()]
        sums = [_bits(tensor.detach()).sum(dtype=torch.int64) for _, tensor in named]
        values = torch.stack([one.to(sums[0].device) for one in sums]).tolist() if sums else []
        decisions = [
            f"{entry.callback}: {entry.kind} in epoch {entry.epoch}, batch {entry.batch}"
            # What is best or saved is known where it is written.
            for entry in journal.of("stop", "learning_rate")
        ]
        return {
            "iterations": None if optimizer is None else int(optimizer.iterations),
            "learning_rate": None if optimizer is None else float(optimizer.learning_rate),
            # By place, too: without their numbers two may have one name.
            "weights": {
                f"{place} ({without_number(name)})": f"checksum {value}"
                for place, ((name, _), value) in enumerate(zip(named, values, strict=True))
            },
            "decisions": decisions,
        }

    # A step --------------------------------------------------------------------------------------------------------------

    @contextmanager
    def own_noise(self) -> Iterator[None]:
        """Draw random numbers of this process's own in the block, such as masks of dropout.

        They follow from the seed of the run, the epoch, the batch and the process, so that a resumed run draws them again. All
        else draws the same numbers on all processes. Masks from a seed of their own are those that one process would draw.
        """
        kept = torch.get_rng_state()
        seed = zlib.crc32(f"{torch.initial_seed()} {self._epoch or 0} {self.share.index} {self.share.rank}".encode())
        torch.default_generator.manual_seed(seed)
        try:
            with rows_of_batch(self.share):
                yield
        finally:
            torch.set_rng_state(kept)

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
        if self._gradients is None or not self._gradients.suits(parameters):
            self._gradients = GradientSum(parameters, len(_EXTRA), self.group)
        sums, divided = self._gradients(self._questions(), scale, divisor)
        self._answer(sums, self._gradients.is_late)
        return divided

    def _questions(self) -> list[float]:
        return [float(bool(self._model.stop_training)), *self.group.questions()]

    def _answer(self, sums: Sequence[float], late: bool = False) -> None:
        if sums[0]:
            self._model.stop_training = True
        self.group.answer(sums[1:], late)
        self._stops = bool(sums[0])

    def ask_all(self) -> None:
        """Learn what any process asks for, where no gradients are summed."""
        self._answer(self.group.sum_numbers(self._questions(), "the end of a step or an epoch"))

    def ends(self, kind: str) -> Callable[[], bool]:
        """Return the function that says after a batch whether the pass ends there, the same on all processes.

        Args:
            kind: "train", "test" or "predict".
        """
        model, flag = self._model, {"test": "stop_evaluating", "predict": "stop_predicting"}.get(kind)
        if flag is None:
            return lambda: self._stops or self.group.ending

        def ends() -> bool:
            asked, *answers = self.group.sum_numbers(
                [float(bool(getattr(model, flag))), *self._questions()], f"a batch of `{kind}`"
            )
            self._answer(answers)
            if asked:
                setattr(model, flag, True)
            return bool(asked)

        return ends

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
        try:
            yield made
        finally:
            optimizer.sums_gradients = None

    # Values ----------------------------------------------------------------------------------------------------------------

    def _metrics(self) -> list[Metric]:
        return [metric for _, metric in self._model._plan.named_metrics(self._model)]

    def begin_pass(self) -> None:
        """Take note of what metrics of the user's have besides variables, which can't be summed."""
        metrics = self._metrics()
        self._outside = {id(metric): _outside(metric) for metric in metrics}
        for metric in metrics:
            if isinstance(metric, TorchMetric):
                metric.of_own_rows()

    @contextmanager
    def pass_set_aside(self) -> Iterator[None]:
        """Let another pass be made in the block, in the middle of one."""
        outside = self._outside
        try:
            yield
        finally:
            self._outside = outside

    def sum_metrics(self) -> None:
        """Replace what metrics have gathered on this process by what all have, and learn what any process asks for.

        Raises:
            ValueError: When a metric of the user's has gathered something outside of its variables.
        """
        for metric in self._metrics():
            free = any(isinstance(variable, Variable) for variable in metric.variables)
            if free or _outside(metric) != self._outside.get(id(metric), _outside(metric)):
                raise ValueError(
                    f"The metric `{metric.name}`, a {type(metric).__name__}, gathers numbers in attributes of its own, which "
                    "several processes can't add up. Keep them in variables: `self.total = self.add_variable(shape=(), "
                    "initializer='zeros')`, with the `aggregation` that fits."
                )
            if isinstance(metric, TorchMetric):
                metric.gather()
        variables = list({id(one): one for metric in self._metrics() for one in metric.variables}.values())
        parts = [
            torch.as_tensor(variable.peek(), dtype=torch.float64).detach().cpu().reshape(-1) for variable in variables
        ]
        kinds = [variable.aggregation for variable in variables]
        for part, kind in zip(parts, kinds, strict=True):
            if kind not in ("sum", "mean") and not self.group.main:
                part.zero_()
        questions = self._questions()
        flat = torch.cat([torch.tensor(questions, dtype=torch.float64), *parts])
        self.group.together(f"the end of a pass with {len(flat)} values")
        self.group.sum_(flat, "the end of a pass")
        self._answer(flat[: len(questions)].tolist())
        place = len(questions)
        for variable, part, kind in zip(variables, parts, kinds, strict=True):
            summed = flat[place : place + len(part)]
            place += len(part)
            variable.take(summed / self.group.size if kind == "mean" else summed)

    @contextmanager
    def summed(self) -> Iterator[None]:
        """Let metrics have what all processes have gathered, in the block; afterwards each goes on with its own."""
        kept = [(metric, metric.get_state()) for metric in self._metrics()]
        self.sum_metrics()
        try:
            yield
        finally:
            for metric, state in kept:
                metric.set_state(state)

    def states_of_all(self, states: list[Any]) -> dict[str, Any]:
        """Return what all processes have gathered in their metrics, for a saved state.

        Args:
            states: What this process has.
        """
        tensors: dict[str, Tensor] = {}
        text = b"".join(json_of(encode(states, tensors, "the state of the metrics"))).decode("ascii")
        texts, files = self.group.gather_texts(text, "a save"), self.group.gather_bytes(safetensors.torch.save(tensors))
        found = [decode(json.loads(one), safetensors.torch.load(file)) for one, file in zip(texts, files, strict=True)]
        return {"processes": found}

    # Predictions -----------------------------------------------------------------------------------------------------------

    def count_rows(self) -> None:
        """Take note of how many rows of the last batch are this process's own, and of how many there are."""
        self._counts.append((self.share.rows, self.share.total))

    def gathered(self, parts: list[Any]) -> list[Tensor]:
        """Return all rows that all processes have predicted, in their order, for each output.

        Args:
            parts: What this process has predicted for each batch.
        """
        counts, self._counts = self._counts, []
        if self._brings:
            # Of batches that it brings itself, each process has its own predictions.
            return [torch.cat(pieces) for pieces in zip(*(flatten(part) for part in parts), strict=True)]
        totals = [total for _, total in counts]
        leaves = []
        for pieces in zip(*(flatten(part) for part in parts), strict=True):
            own = torch.cat([piece[:rows] for piece, (rows, _) in zip(pieces, counts, strict=True)])
            leaves.append(self._gathered(own, totals))
        return leaves

    def _gathered(self, own: Tensor, totals: list[int]) -> Tensor:
        bounds = [[self.share.bounds(total, rank) for rank in range(self.group.size)] for total in totals]
        lengths = [
            sum(end - begin for begin, end in (batch[rank] for batch in bounds)) for rank in range(self.group.size)
        ]
        rows = own.detach().contiguous()
        width = rows.shape[1:].numel() * rows.element_size()
        padded = torch.zeros(max(lengths), width or 1, dtype=torch.uint8, device=rows.device)
        if rows.numel():
            padded[: len(rows)] = rows.reshape(len(rows), -1).view(torch.uint8)
        found = [part[:length] for part, length in zip(self.group.gather(padded), lengths, strict=True)]
        places = [0] * self.group.size
        ordered = []
        for batch in bounds:
            for rank, (begin, end) in enumerate(batch):
                ordered.append(found[rank][places[rank] : places[rank] + end - begin])
                places[rank] += end - begin
        joined = torch.cat(ordered)
        return joined.reshape(-1).view(rows.dtype).reshape(len(joined), *rows.shape[1:])


class OwnBatches(SharedBatches):
    """Batches that each process brings itself, of which it takes all rows."""

    def __init__(self, batches: Batches, share: RowShare, group: Group) -> None:
        super().__init__(batches, share)
        batches.give_rows(None)
        self._group = group

    def _shared(self, one_pass: Iterator[Batch], start: int) -> Iterator[Batch]:
        share, index = self.share, start
        reading = share.reading(one_pass)
        while True:
            batch = next(reading, None)
            rows = 0 if batch is None else rows_of(batch)
            total, having = self._group.sum_numbers([rows, batch is not None], "a batch of its own")
            if 0 < having < share.size:
                whose = "this" if batch is None else "another"
                raise self._group.diverged(
                    f"After {index} batches {whose} process has none left: batches that each process brings itself must be "
                    "equally many. Use a DistributedSampler, or `steps_per_epoch`."
                )
            if batch is None:
                return
            share.rows, share.total, share.index = rows, int(total), index
            index += 1
            yield batch

    def first(self) -> Batch:
        """Return the source's first batch."""
        (batch,) = self.share.reading(self.batches.first() for _ in range(1))
        return batch


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ADVICE = {
    "drift": "Something was done on some of them only: look for code that depends on the process, the time, the order of files "
    "or random numbers of its own, such as a callback that changes the model `if self.ranks.main`, or a module that "
    "keeps statistics of the rows that it sees.",
    "": "Start the same script, with the same arguments, on all processes.",
    "data": "Let all processes make or read the same data: call `keras.utils.set_random_seed(0)` before data are drawn, or "
    "choose `keras.distribution.DataParallel(auto_shard_dataset=False)` where each process is to bring its own.",
}


def _outside(metric: Metric) -> Any:
    """Return the numbers that a metric of the user's has in attributes, as text; None for one of oncue's own."""
    if is_builtin(type(metric)):
        return None
    return repr(metric.get_state()["attributes"])


def _parts(values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Give what is to be compared, by name: of dicts what all have, because not all may have looked at the same rows."""
    if all(isinstance(value, dict) for value in values):
        names = [name for name in values[0] if all(name in value for value in values)]
        yield from ((name, [value[name] for value in values]) for name in names)
    else:
        yield "", values


def _bits(tensor: Tensor) -> Tensor:
    """Return a tensor's bits as integers."""
    plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return plain.contiguous().view(_INTEGERS[plain.element_size()])


def _wrapped(model: torch.nn.Module) -> tuple[str, str] | None:
    """Return the name and the class of a part that distributes itself; None without one."""
    # Who has never imported it has none; the import takes seconds.
    sharded = sys.modules.get("torch.distributed.fsdp")
    kinds: tuple[type[torch.nn.Module], ...] = (DistributedDataParallel,)
    if sharded is not None:
        kinds += (sharded.FullyShardedDataParallel, sharded.FSDPModule)
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            return name, next(kind.__name__ for kind in kinds if isinstance(module, kind))
    return None


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
