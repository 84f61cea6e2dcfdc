"""Comparison: what is made the same on all processes of a run, and what must be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from oncue.core.warn import warn
from oncue.feeding.batch import Batches
from oncue.naming import without_number
from oncue.random_state import random_state, set_random_state
from oncue.shards import is_sharded
from oncue.training.parallel_data import OwnBatches

if TYPE_CHECKING:
    from oncue.callbacks import CallbackList
    from oncue.core.journal import Journal
    from oncue.distribution.group import Group
    from oncue.training.parallel_questions import Questions
    from oncue.training.trainer import Trainer


class Comparison:
    """What the processes of a run begin with and come to, compared, so that none of them trains another model than the rest.

    Args:
        model: The model.
        group: The processes.
        questions: What rides along at the end of an epoch.
    """

    def __init__(self, model: Trainer, group: Group, questions: Questions) -> None:
        self._model, self._group, self._questions = model, group, questions

    def same_random_state(self) -> None:
        """Let all processes draw the same random numbers from here on: the order of samples, first weights."""
        states = random_state(cuda=False)
        sent = [states["torch"], *(torch.tensor(states[name][1].tolist()) for name in ("numpy", "python"))]
        self._group.broadcast_(sent, "the start of `fit`")
        rest = self._group.broadcast(
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
                "would be summed twice. Give the module as it was before (its `module`): `fit` distributes it, each process "
                "with all weights, or with a part of them by `keras.distribution.DataParallel(shard_weights=True)`."
            )
        for name, one in (("batch_size", batches), ("validation_batch_size", validation)):
            size = None if one is None or isinstance(one, OwnBatches) else one.batch_size
            if size is not None and size < self._group.size:
                warn(
                    f"`{name}` is {size} for {self._group.size} processes, so that in each batch {self._group.size - size} of "
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
                if optimizer is None or not optimizer.built
                else [type(optimizer).__name__, int(optimizer.iterations), float(optimizer.learning_rate)],
            },
            "the comparison of models",
        )
        with torch.no_grad():
            self._group.broadcast_([tensor for _, tensor in tensors if not is_sharded(tensor)])

    def same_callbacks(self, callbacks: CallbackList) -> None:
        """Refuse a run whose processes have different callbacks.

        Raises:
            RanksDiverged: When they do.
        """
        self._agree({"callbacks": [type(one).__name__ for one in callbacks.callbacks]}, "the comparison of callbacks")

    def after_epoch(self, journal: Journal, epoch: int) -> None:
        """Make sure that all have come to the same in an epoch; what is asked is learned with it.

        Args:
            journal: What has been decided.
            epoch: The index of the epoch.

        Raises:
            RanksDiverged: When they haven't; with the name of what differs.
        """
        texts = [json.dumps(value) for value in self._fingerprint(journal).values()]
        answers, same = self._group.sum_compared(self._questions.numbers(), texts, "the end of an epoch")
        self._questions.answer(answers)
        if not same:
            self._agree(self._fingerprint(journal), "the comparison after an epoch", f"came in epoch {epoch + 1} to")

    def _agree(self, fields: dict[str, Any], what: str, verb: str = "were given") -> None:
        """Refuse a run whose processes have different things, by name, as JSON can have them."""
        found = [json.loads(text) for text in self._group.gather_texts(json.dumps(fields, default=str), what)]
        for name in fields:
            for part, values in _parts([one.get(name) for one in found]):
                other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
                if other is not None:
                    raise self._group.diverged(
                        f"The processes of this run {verb} different {name.replace('_', ' ')}: of {part or name} process 0 "
                        f"has {_brief(values[0])}, process {other} {_brief(values[other])}. "
                        f"{_ADVICE.get(name if verb == 'were given' else 'drift', _ADVICE[''])}"
                    )

    def _fingerprint(self, journal: Journal) -> dict[str, Any]:
        model, optimizer = self._model, self._model.optimizer
        named = [*model.named_parameters(), *model.named_buffers()]
        # Of what is sharded each process has another part.
        named = [(name, one) for name, one in named if not is_sharded(one)]
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


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ADVICE = {
    "drift": "Something was done on some of them only: look for code that depends on the process, the time, the order of files "
    "or random numbers of its own, such as a callback that changes the model `if self.ranks.main`, or a module that "
    "keeps statistics of the rows that it sees.",
    "": "Start the same script, with the same arguments, on all processes.",
    "data": "Let all processes make or read the same data: call `keras.utils.set_random_seed(0)` before data are drawn, or "
    "choose `keras.distribution.DataParallel(auto_shard_dataset=False)` where each process is to bring its own.",
}


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
        kinds += (sharded.FullyShardedDataParallel,)
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            return name, next(kind.__name__ for kind in kinds if isinstance(module, kind))
    return None


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."
