"""Plan: how a model is trained and measured, and what a step needs of it, looked up once for all batches of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from oncue.metrics.mean import Mean
from oncue.metrics.metric import Metric
from oncue.training.graph.choice import GraphChoice
from oncue.training.meter import Meter
from oncue.training.output_losses import OutputLosses
from oncue.training.output_metrics import OutputMetrics
from oncue.training.pace import Pace
from oncue.training.precision import Precision, training_forward

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer

Forward = Callable[[Any], Any]

OVERRIDABLE = ("compute_loss", "compute_metrics", "train_step", "test_step", "predict_step")
"""The methods by which a subclass changes what a step does."""

_OF_THE_MODEL = ("optimizer", "forward", "penalty", "penalty_of_parts", "compute_loss", "compute_metrics", "trains")


class Plan:
    """What was given to `compile`, what the first batch showed, and what a step needs of the model.

    `compile` makes a plan. Before each run the model completes it by `resolve`; a step reads nothing else of the model.

    Args:
        losses: The losses of the outputs; None for a model without.
        metrics: The metrics of the outputs; None for a model without.
        precision: The 16-bit type to compute in; None for 32 bits.
        jit_compile: As `compile` takes it.

    Example:
        >>> plan = Plan(OutputLosses("mse"))
        >>> plan.loss_tracker.name, plan.metrics, plan.probed
        ('loss', None, False)
    """

    # What a step needs of the model. It is held during a run only, and neither copies nor files have it.
    optimizer: Any
    forward: Forward
    """The forward pass whose outputs losses and metrics get."""
    penalty: Callable[[], torch.Tensor] | None
    """What the layers add to the loss after a forward pass; None when that is nothing."""
    penalty_of_parts: Callable[[float | torch.Tensor], torch.Tensor] | None
    """This process's part of it, by its share of the batch's rows, where it has a part of each weight."""
    compute_loss: Callable[..., torch.Tensor] | None
    """The method of a class that overrides it; None for the one that all models have."""
    compute_metrics: Callable[..., Any] | None
    """The same of `compute_metrics`."""
    trains: bool
    """Whether there is a weight to train."""

    meter: Meter
    """The running values of the pass."""

    def __init__(
        self,
        losses: OutputLosses | None = None,
        metrics: OutputMetrics | None = None,
        precision: Precision | None = None,
        jit_compile: bool | str = False,
    ) -> None:
        self.losses = losses
        self.metrics = metrics
        self.precision = precision
        self.loss_tracker = Mean(name="loss")
        self.graphs = GraphChoice(jit_compile)
        self.probed = False
        """Whether a batch was run to learn the shapes of the outputs and to build losses and metrics."""
        self.outputs: Any = None
        """The outputs for the last batch that was run, or shown: of those that were run before, without values."""
        self.known_outputs: dict[Any, Any] = {}
        """The outputs without values, by the shapes of the inputs without the batch axis."""
        self.layer_metrics: list[Metric] = []
        """The metrics that are attributes of the layers inside, found when a run begins."""
        self.pace: Pace | None = None
        """How fast the last `fit` trained."""
        self.owner = ""
        """The name of the model's class."""
        self.overridden: frozenset[str] = frozenset()
        """Which methods of `OVERRIDABLE` that class has overridden."""
        self.accumulation: int | None = None
        """The `gradient_accumulation_steps` of `compile`, for each optimizer that the model gets."""
        self.auto_scale_loss = True
        """The argument of `compile`, for each optimizer that the model gets."""

    def with_losses(self, losses: OutputLosses | None) -> Plan:
        """Return a plan that differs in its losses, and has no graphs and no running loss yet.

        Args:
            losses: The losses of the outputs; None for a model without.
        """
        plan = Plan(losses, self.metrics, self.precision)
        plan.accumulation, plan.auto_scale_loss = self.accumulation, self.auto_scale_loss
        plan.graphs.on = self.graphs.on
        return plan

    def resolve(
        self, model: Trainer, forward: Forward, penalty: Callable[[], torch.Tensor] | None, overridden: frozenset[str]
    ) -> None:
        """Look up what the steps of a run need of a built model.

        Args:
            model: The model.
            forward: The forward pass of its `predict`.
            penalty: What its layers add to the loss after a forward pass; None when that is nothing.
            overridden: Which methods of `OVERRIDABLE` its class has overridden.
        """
        self.owner, self.overridden = type(model).__name__, overridden
        self.optimizer = model.optimizer
        self.forward = training_forward(model, forward, self.precision)
        self.penalty, self.penalty_of_parts = penalty, None
        self.compute_loss = _own_loss(model) if "compute_loss" in overridden else None
        self.compute_metrics = model.compute_metrics if "compute_metrics" in overridden else None
        self.layer_metrics = metrics_of_layers(model)
        self.trains = any(parameter.requires_grad for parameter in model.parameters())

    def release(self) -> None:
        """Release the model after a run: without a reference cycle it is freed as soon as it is unused."""
        for name in _OF_THE_MODEL:
            vars(self).pop(name, None)

    def named_metrics(self, model: Trainer) -> list[tuple[str, Metric]]:
        """Return the metrics that exist by now, with their keys in the logs; the loss first.

        Args:
            model: The model, of which metrics may be attributes.
        """
        named: list[tuple[str, Metric]] = [("loss", self.loss_tracker)]
        if self.metrics is not None:
            named += self.metrics.names_and_metrics()
        if self.losses is not None:
            named += [(metric.name, metric) for metric in self.losses.metrics]
        known = {id(metric) for _, metric in named}
        own = [value for value in vars(model).values() if isinstance(value, Metric)] + self.layer_metrics
        return named + [(metric.name, metric) for metric in own if id(metric) not in known]

    def __getstate__(self) -> dict[str, Any]:
        return {**{name: value for name, value in vars(self).items() if name not in _OF_THE_MODEL}, "pace": None}


def metrics_of_layers(model: torch.nn.Module) -> list[Metric]:
    """Return the metrics that are attributes of the modules inside a model.

    Args:
        model: The model.
    """
    found: list[Metric] = []
    # A module has dozens of attributes, of few classes.
    known: dict[type, bool] = {}
    for module in model.modules():
        values = vars(module).values()
        kinds = set(map(type, values))
        known.update({kind: issubclass(kind, Metric) for kind in kinds - known.keys()})
        if module is not model and any(map(known.__getitem__, kinds)):
            found += [value for value in values if isinstance(value, Metric)]
    return found


def _own_loss(model: Trainer) -> Callable[..., torch.Tensor]:
    """Return an overridden `compute_loss` as the steps call it: told whether the model is trained, where it asks."""
    method = model.compute_loss
    parameters = inspect.signature(method).parameters.values()
    told = any(one.name == "training" or one.kind is one.VAR_KEYWORD for one in parameters)

    def compute_loss(**given: Any) -> torch.Tensor:
        loss = method(**given, training=model.training) if told else method(**given)
        model._forget_added_losses()
        return loss

    return compute_loss
