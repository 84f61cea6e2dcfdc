"""OutputLosses: the losses of all outputs as one number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from oncue import losses
from oncue.core.numbers import number_of
from oncue.losses.loss import Loss, LossFunctionWrapper
from oncue.losses.reduction import Divisor
from oncue.losses.structure import align, at, is_nested, leaves, packed, places, spread
from oncue.metrics.mean import Mean
from oncue.naming import to_snake_case
from oncue.nested import map_leaves
from oncue.variable import Variable

_BY_SHAPE = ("crossentropy", "ce")


class OutputLoss(NamedTuple):
    """One loss of one output, or of several outputs together."""

    output: int
    """The number of the output; of several together that of the first."""
    loss: Loss
    weight: float | Tensor | None
    tracker: Mean | None
    together: tuple[Any, ...] | None = None
    """Where the outputs are that the loss gets together, nested as the model returns them; None where it is one."""


def kind_of_targets(y_true: Any, y_pred: Any) -> str:
    """Tell from shapes alone which of the accuracies or cross-entropies is meant, by Keras's rule.

    Args:
        y_true: A target with a shape (batch, ...).
        y_pred: A prediction with a shape (batch, ...).

    Returns:
        "binary" for one output, "sparse" for class labels, else "categorical".

    Example:
        >>> import torch
        >>> kind_of_targets(torch.zeros(8), torch.zeros(8, 3))
        'sparse'
    """
    target, output = tuple(y_true.shape), tuple(y_pred.shape)
    if output[-1:] == (1,):
        return "binary"
    if len(target) < len(output) or (target[-1:] == (1,) and output[-1] > 1):
        return "sparse"
    return "categorical"


def name_of(thing: Any) -> str:
    """Return the name that Keras's logs give to a loss, a metric or a function."""
    name = getattr(thing, "name", None)
    if isinstance(name, str):
        return name
    return to_snake_case(getattr(thing, "__name__", type(thing).__name__))


class OutputLosses:
    """The weighted sum of the losses of all outputs.

    Args:
        loss: A loss for all outputs, or a list or dict of losses as the outputs are nested. None for an output without
            one. A loss at a place where several outputs are nested gets them together, and so does each of a tuple or
            list of losses where the outputs aren't nested in one of its kind. "crossentropy" (or "ce") stands for the
            binary, sparse or categorical one, by the shapes of the first batch.
        loss_weights: A number, or numbers nested as `loss` is; None weighs everything by 1. A tensor without axes is
            read at every step.
        output_names: The names of the outputs, in the order of the flattened outputs; None when they have none.

    Raises:
        ValueError: When a loss is not known, or `loss_weights` holds something else than numbers.

    Example:
        >>> import torch
        >>> loss = OutputLosses("mse")
        >>> loss(torch.zeros(2, 1), torch.full((2, 1), 3.0))
        tensor(9.)
    """

    def __init__(self, loss: Any, loss_weights: Any = None, output_names: list[str] | None = None) -> None:
        for _, part in leaves(loss):
            if part is not None and not callable(part) and not (isinstance(part, str) and part.lower() in _BY_SHAPE):
                losses.get(part)
        self._loss, self._loss_weights = loss, map_leaves(_weight, loss_weights)
        self.output_names = output_names
        self.built = False
        # The usual model has one output and one loss, which is then called without looking left or right.
        self._only: Loss | None = None
        self._only_weight: float | Tensor | None = None
        self.parts: list[OutputLoss] = []
        """The single losses; empty before the first batch."""
        # What a resumed run has for the running means before they are made.
        self._restored: list[Any] = []
        self._wanted: list[bool] = []
        # The warnings about targets that were given.
        self._told: set[str] = set()
        self._names: list[str] | None = None
        self._labels: list[str] | None = None
        self.held: list[Tensor] | None = None
        """Takes the single losses of a batch, where a list is set, instead of the running means."""

    @property
    def weights(self) -> Any:
        """The `loss_weights` that were given."""
        return self._loss_weights

    @property
    def metrics(self) -> list[Mean]:
        """The running means of the single losses, when there are several: "<output>_loss"."""
        return [part.tracker for part in self.parts if part.tracker is not None]

    @property
    def loss_weights(self) -> Any:
        """The factors as they are now, plain numbers nested as they were given; None when none were."""
        return map_leaves(number_of, self._loss_weights)

    def build(self, y_true: Any, y_pred: Any) -> None:
        """Decide which loss belongs to which output; done by the first call.

        Args:
            y_true: The targets of a batch.
            y_pred: The outputs of the model for it.

        Raises:
            ValueError: When losses, weights, targets and outputs don't fit together.
        """
        self._find_names(y_pred)
        self.parts = []
        together = places(self._loss, y_pred)
        if together is not None:
            self._build_together(together, y_true, y_pred)
            return
        outputs = list(leaves(y_pred))
        specs = spread(self._loss, y_pred, self._names, "loss", complete=True)
        weights = spread(self._loss_weights, y_pred, self._names, "loss_weights")
        self._wanted = [any(part is not None for _, part in leaves(spec)) for spec in specs]
        if not any(self._wanted):
            raise ValueError("`loss` is None for every output. Give at least one output a loss, such as loss='mse'.")
        targets = align(y_true, y_pred, self._names, "y_true", self._wanted)
        several = sum(1 for spec in specs for _, part in leaves(spec) if part is not None) > 1
        for index, (spec, weight, target) in enumerate(zip(specs, weights, targets, strict=True)):
            given = [part for _, part in leaves(spec) if part is not None]
            for loss, scale in zip(given, _weights_for(given, weight), strict=True):
                found = _resolve(loss, target, outputs[index][1])
                tracker = None
                if several:
                    name = self._label(outputs[index][0], index, found, len(given) > 1)
                    tracker = Mean(name=f"{name}_loss")
                self.parts.append(OutputLoss(index, found, scale, tracker))
        if not several and not is_nested(y_pred):
            self._only, self._only_weight = self.parts[0].loss, self.parts[0].weight
        self.built = True
        self.set_state(self._restored)

    def _build_together(self, together: list[tuple[tuple[Any, ...], Any]], y_true: Any, y_pred: Any) -> None:
        """Build losses of which one at least gets several outputs together."""
        flat = list(leaves(y_pred))
        weights = _weights_for([loss for _, loss in together], self._loss_weights)
        given = [
            (path, loss, weight) for (path, loss), weight in zip(together, weights, strict=True) if loss is not None
        ]
        inside = [
            [index for index, (path, _) in enumerate(flat) if path[: len(where)] == where] for where, _, _ in given
        ]
        self._wanted = [any(index in indices for indices in inside) for index in range(len(flat))]
        targets = align(y_true, y_pred, self._names, "y_true", self._wanted)
        for (path, loss, weight), indices in zip(given, inside, strict=True):
            first, alone = indices[0], flat[indices[0]][0] == path
            outputs = at(y_pred, path)
            found = _resolve(loss, targets[first], flat[first][1])
            if not alone:
                _check_together(found, outputs)
            label = "/".join(map(str, path)) or "_".join(
                self._label(flat[index][0], index, found, False) for index in indices
            )
            if alone:
                label = self._label(path, first, found, sum(path == other for other, _, _ in given) > 1)
            tracker = Mean(name=f"{label}_loss") if len(given) > 1 else None
            self.parts.append(OutputLoss(first, found, weight, tracker, None if alone else path))
        self.built = True
        self.set_state(self._restored)

    def get_state(self) -> list[Any]:
        """Return what the running means have gathered, as `set_state` takes it."""
        return [metric.get_state() for metric in self.metrics] if self.built else self._restored

    def set_state(self, state: list[Any]) -> None:
        """Let the running means continue from a state that `get_state` returned, as soon as the first batch has made them."""
        self._restored = state
        for metric, part in zip(self.metrics, state, strict=False):
            metric.set_state(part)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Return the total loss of a batch.

        Args:
            y_true: Targets, nested as the outputs are.
            y_pred: The model's outputs.
            sample_weight: None, weights for all outputs, or weights nested as the outputs are.

        Returns:
            A scalar tensor: the sum of all losses times their weights.
        """
        if self._only is not None and isinstance(y_true, Tensor) and isinstance(y_pred, Tensor):
            value = self._only(y_true, y_pred, sample_weight)
            return value if self._only_weight is None else value * self._only_weight
        if not self.built:
            self.build(y_true, y_pred)
        return self._sum(y_true, y_pred, sample_weight)

    def check(self, y_true: Any, y_pred: Any) -> None:
        """Refuse targets that don't suit the losses; reads them, so it belongs before training.

        Args:
            y_true: The targets of a batch (or of all samples), nested as the outputs are.
            y_pred: The model's outputs for a batch.

        Raises:
            ValueError: As `oncue.losses.targets`.
        """
        if not self.built:
            self.build(y_true, y_pred)
        targets = align(y_true, y_pred, self._names, "y_true", self._wanted)
        outputs = [output for _, output in leaves(y_pred)]
        for part in self.parts:
            if part.together is not None:
                continue
            losses.check_targets(part.loss, targets[part.output], tuple(outputs[part.output].shape), self._told)

    def shared(
        self, y_true: Any, y_pred: Any, sample_weight: Any, part: Callable[[Divisor], float | Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return this process's part of the loss of a batch whose rows are on several processes.

        Args:
            y_true: The targets of its rows.
            y_pred: The outputs for its rows.
            sample_weight: The weights of its rows.
            part: From what a loss is divided by to what it is multiplied with, so that those of all processes add up to one.

        Returns:
            The loss, and the part of each single loss for `track`.
        """
        if not self.built:
            self.build(y_true, y_pred)
        held, self.held = self.held, []
        try:
            return self._sum(y_true, y_pred, sample_weight, part), self.held
        finally:
            self.held = held

    def track(self, values: Iterable[Tensor], weight: float) -> None:
        """Add single losses that `shared` has returned to their running means.

        Args:
            values: The losses.
            weight: What each counts.
        """
        for value, metric in zip(values, self.metrics, strict=True):
            metric.update_state(value.detach(), sample_weight=weight)

    def _sum(
        self, y_true: Any, y_pred: Any, sample_weight: Any, part: Callable[[Divisor], float | Tensor] | None = None
    ) -> Tensor:
        outputs = [output for _, output in leaves(y_pred)]
        targets = align(y_true, y_pred, self._names, "y_true", self._wanted)
        if is_nested(sample_weight):
            weights = align(sample_weight, y_pred, self._names, "sample_weight", [False] * len(outputs))
        else:
            weights = [sample_weight] * len(outputs)
        total: Tensor | None = None
        nested_targets = packed(targets, y_pred) if any(one.together is not None for one in self.parts) else None
        for index, loss, scale, tracker, path in self.parts:
            if path is None:
                given = targets[index], outputs[index], weights[index]
            elif is_nested(sample_weight):
                raise ValueError(
                    f"`sample_weight` of several outputs is not for a loss that gets them together, as {loss.name!r} does: "
                    "it has no loss of a single output to weigh. Give the weights to the function within the targets, or a "
                    "loss to each output."
                )
            else:
                given = (*_together(loss, at(nested_targets, path), at(y_pred, path)), sample_weight)
            if part is None:
                value = loss(*given)
            else:
                value, divisor = loss.apart(*given)
                value = value * part(divisor)
            if tracker is not None:
                if self.held is None:
                    tracker.update_state(value.detach(), sample_weight=outputs[index].shape[0])
                else:
                    self.held.append(value)
            if scale is not None:
                value = value * scale
            total = value if total is None else total + value
        if total is None:
            raise ValueError("`loss` is None for every output.")
        return total

    def _find_names(self, y_pred: Any) -> None:
        known = self.output_names is not None and len(self.output_names) == sum(1 for _ in leaves(y_pred))
        self._labels = list(self.output_names) if known and self.output_names is not None else None
        # Keras names the parts of a dict by its keys, whatever the layers behind them are called.
        self._names = None if isinstance(y_pred, dict) else self._labels

    def _label(self, path: tuple[Any, ...], index: int, loss: Loss, shared: bool) -> str:
        if path and not isinstance(path[-1], int):
            label = "/".join(map(str, path))
        else:
            own = loss.name if self._labels is None else self._labels[index]
            label = "/".join(map(str, (*path[:-1], own)))
            if self._labels is None:
                return label
        return f"{label}_{loss.name}" if shared else label


def _weight(given: Any) -> Any:
    value = given.value if isinstance(given, Variable) else given
    number = number_of(value)
    if number is None:
        raise ValueError(
            f"`loss_weights` must be a number, or a list or dict of numbers; got {given!r} of type "
            f"{type(given).__name__}."
        )
    # Whoever hands over a tensor may fill it with another number while the model trains.
    return value if isinstance(value, Tensor) else number


def _weights_for(given: list[Any], weight: Any) -> list[float | Tensor | None]:
    if not is_nested(weight):
        return [weight] * len(given)
    flat: list[float | Tensor | None] = [value for _, value in leaves(weight)]
    if len(flat) != len(given):
        raise ValueError(
            f"`loss_weights` must give one number for each loss; got {len(flat)} numbers {flat} for {len(given)} "
            f"losses."
        )
    return flat


def _check_together(loss: Loss, outputs: Any) -> None:
    """Refuse one of oncue's losses for outputs that it can't take together: those that can't be stacked."""
    shapes = [tuple(output.shape) for _, output in leaves(outputs)]
    like_one = isinstance(outputs, (list, tuple)) and not any(map(is_nested, outputs)) and len(set(shapes)) == 1
    if _is_ours(loss) and not like_one:
        raise ValueError(
            f"`loss` has {loss.name!r} in a place where the model returns several outputs together, of the shapes {shapes}. "
            "Give a loss for each of them, nested as the outputs are, or a function of your own that takes them together."
        )


def _together(loss: Loss, targets: Any, outputs: Any) -> tuple[Any, Any]:
    """Return several targets and outputs as a loss takes them: one of oncue's, as in Keras, as one tensor each."""
    return (torch.stack(list(targets)), torch.stack(list(outputs))) if _is_ours(loss) else (targets, outputs)


def _is_ours(loss: Loss) -> bool:
    return isinstance(loss, LossFunctionWrapper) and loss.casts_target


def _resolve(loss: Any, y_true: Any, y_pred: Any) -> Loss:
    if isinstance(loss, str) and loss.lower() in _BY_SHAPE:
        prefix = {"binary": "binary_", "sparse": "sparse_categorical_", "categorical": "categorical_"}
        found = losses.get(f"{prefix[kind_of_targets(y_true, y_pred)]}crossentropy")
    else:
        found = losses.get(loss)
    if not isinstance(found, Loss):
        if found is None:
            raise ValueError("`loss` must not be None here.")
        return LossFunctionWrapper(found, name=loss if isinstance(loss, str) else name_of(found))
    if found.reduction in (None, "none"):
        raise ValueError(
            f"`loss` must give one number to train on, but {found!r} has reduction={found.reduction!r}, which leaves "
            f"one "
            "for each sample. Use reduction='sum_over_batch_size'."
        )
    return found
