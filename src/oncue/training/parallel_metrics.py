"""MetricSums: what the metrics of a model have gathered on all processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from oncue.checkpoints.encoding import decode, encode, json_of
from oncue.core.builtin import is_builtin
from oncue.metrics.metric import Metric
from oncue.metrics.torch_metric import TorchMetric
from oncue.variable import Variable

if TYPE_CHECKING:
    from oncue.distribution.group import Group
    from oncue.training.parallel_questions import Questions
    from oncue.training.trainer import Trainer


class MetricSums:
    """The metrics of a model, each process's of its own rows, and their sums over all processes.

    Args:
        model: The model.
        group: The processes.
        questions: What rides along.
    """

    def __init__(self, model: Trainer, group: Group, questions: Questions) -> None:
        self._model, self._group, self._questions = model, group, questions
        self._outside: dict[int, Any] = {}

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

    def sum(self) -> None:
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
            if kind not in ("sum", "mean") and not self._group.main:
                part.zero_()
        questions = self._questions.numbers()
        flat = torch.cat([torch.tensor(questions, dtype=torch.float64), *parts])
        self._group.together(f"the end of a pass with {len(flat)} values")
        self._group.sum_(flat, "the end of a pass")
        self._questions.answer(flat[: len(questions)].tolist())
        place = len(questions)
        for variable, part, kind in zip(variables, parts, kinds, strict=True):
            summed = flat[place : place + len(part)]
            place += len(part)
            variable.take(summed / self._group.size if kind == "mean" else summed)

    @contextmanager
    def summed(self) -> Iterator[None]:
        """Let metrics have what all processes have gathered, in the block; afterwards each goes on with its own."""
        kept = [(metric, metric.get_state()) for metric in self._metrics()]
        self.sum()
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
        texts = self._group.gather_texts(text, "a save")
        files = self._group.gather_bytes(safetensors.torch.save(tensors))
        found = [decode(json.loads(one), safetensors.torch.load(file)) for one, file in zip(texts, files, strict=True)]
        return {"processes": found}


def _outside(metric: Metric) -> Any:
    """Return the numbers that a metric of the user's has in attributes, as text; None for one of oncue's own."""
    if is_builtin(type(metric)):
        return None
    return repr(metric.get_state()["attributes"])
