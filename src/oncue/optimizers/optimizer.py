"""The base of all optimizers: Keras's words around a torch optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.core.warn import warn
from oncue.optimizers.applied_gradients import apply_gradients
from oncue.optimizers.built_parameters import built_parameters, tensor_of
from oncue.optimizers.learning_rate import Iterations
from oncue.optimizers.optimizer_state import OptimizerState
from oncue.optimizers.weight_average import WeightAverage


class Optimizer(OptimizerState):
    """Updates parameters by their gradients; an inner torch optimizer does the arithmetic.

    The training loop calls `build` once, then `step` after each backward pass. To write an optimizer of your own, give
    `make_torch_optimizer`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments that returns a number.
        weight_decay: Decoupled weight decay: before each update `w -= learning_rate * weight_decay * w`. None for none.
        clipnorm: The largest L2 norm of each gradient. At most one of the three clips may be given.
        clipvalue: The largest absolute value of an element of a gradient.
        global_clipnorm: The largest L2 norm of all gradients together.
        use_ema: Keep an exponential moving average of the weights.
        ema_momentum: The share of the old average that each update keeps, in [0, 1].
        ema_overwrite_frequency: Put the average in place of the weights every so many updates, or None.
        loss_scale_factor: Multiply the loss by this before, and divide the gradients by it after, the backward pass.
        gradient_accumulation_steps: Update at every so many steps, by the mean of their gradients. At least 2, or None.
        name: A name; one is made up from the class if None.
        **kwargs: Keras 1 and 2's `lr` and `decay`.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> from oncue.optimizers import SGD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD(learning_rate=0.5)
        >>> optimizer.build([weight])
        >>> (weight * 3.0).sum().backward()
        >>> optimizer.step()
        >>> weight.data, optimizer.iterations
        (tensor([-0.5000]), 1)
    """

    _average: WeightAverage | None = None
    _labels: Sequence[str] = ()
    _constraints: Sequence[tuple[Tensor, Any]] = ()
    # Whether a step is nothing but the torch optimizer's.
    _plain = False

    # What a subclass gives.

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return the torch optimizer that does the arithmetic, with all its state already there.

        Args:
            groups: Parameter groups in torch's form.
            learning_rate: The rate of the first step.

        Raises:
            NotImplementedError: Unless a subclass gives it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `make_torch_optimizer(groups, learning_rate)`.")

    def _hyperparameters(self) -> dict[str, Any]:
        """What the coming update writes into every parameter group, besides the learning rate."""
        return {}

    def _skipped(self, parameters: list[Tensor]) -> None:
        """React to parameters having been left out of an update for lack of a gradient."""

    # What a subclass gives, to be part of a compiled training step.

    has_compiled_rule = False
    """Whether `compiled_numbers` and `compiled_rule` say what an update does."""
    compiled_width = 1
    """How many numbers `compiled_numbers` returns."""

    def compiled_numbers(self, rate: float) -> tuple[float, ...]:
        """Return the numbers of the coming update that change from one to the next.

        Args:
            rate: The learning rate of the update.
        """
        return (rate,)

    def compiled_rule(
        self, weight: Tensor, gradient: Tensor, slots: dict[str, Tensor], numbers: Sequence[Tensor]
    ) -> None:
        """Update one parameter in place: the same formula as `make_torch_optimizer`'s, in operations that can be fused.

        Args:
            weight: The parameter.
            gradient: Its gradient.
            slots: Its state by Keras's names, to be changed in place.
            numbers: What `compiled_numbers` returned, as tensors without axes.

        Raises:
            NotImplementedError: Unless a subclass gives it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `compiled_rule`.")

    # Building.

    def build(self, variables: Iterable[Any]) -> None:
        """Take the parameters to train and create the state for them.

        Args:
            variables: Torch parameters, or objects whose `.value` is one. The same ones again do nothing.

        Raises:
            ValueError: When the optimizer is already built for other parameters, or one is not a parameter.
        """
        variables = list(variables)
        parameters, labels = built_parameters(variables)
        if self.built:
            if [id(p) for p in parameters] != [id(p) for p in self._parameters]:
                raise ValueError(
                    f"This {type(self).__name__} was built for {len(self._parameters)} other parameters and can't be "
                    f"used for these {len(parameters)}. Compile the model again with a new optimizer."
                )
            return
        self._constraints = [
            (parameter, variable.constraint)
            for parameter, variable in zip(parameters, variables, strict=True)
            if getattr(variable, "constraint", None) is not None
        ]
        self._exclude_by_name(variables, parameters)
        if parameters:
            self._inner = self.make_torch_optimizer(self._make_groups(parameters), self._rate.at(0))
            self._groups = self._inner.param_groups
        self._parameters, self._labels = parameters, labels
        if self.use_ema:
            self._average = WeightAverage(parameters, self.ema_momentum, self.ema_overwrite_frequency)
        if self.gradient_accumulation_steps is not None:
            self._accumulators = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.built = True
        self._choose_path()
        self._count_changed()

    def _make_groups(self, parameters: list[Tensor]) -> list[dict[str, Any]]:
        if not self._torch_decays:
            return [{"params": parameters}]
        decayed = [p for p in parameters if p not in self._undecayed]
        rest = [p for p in parameters if p in self._undecayed]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay or 0.0},
            {"params": rest, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def _choose_path(self) -> None:
        self._plain = (
            self._clip is None
            and self.loss_scale_factor is None
            and self._average is None
            and self._accumulators is None
            and not self._constraints
            and (not self._weight_decay or self._torch_decays)
        )

    # Stepping.

    def step(self) -> None:
        """Update the parameters by their `.grad`; those without one are left alone.

        Clipping and unscaling change `.grad` in place; nothing else does.

        Raises:
            ValueError: When the optimizer is not built, or no parameter has a gradient.
        """
        missing = [p for p in self._parameters if p.grad is None]
        if missing:
            self._report_missing(missing)
        self._advance(missing)

    def _advance(self, missing: list[Tensor]) -> None:
        if self._inner is None:
            if not self.built:
                raise ValueError(f"This {type(self).__name__} is not built. Call `build(variables)` first.")
        elif self._plain:
            self._update(self._inner, missing)
        else:
            self._advance_with_options(self._inner, missing)
        self._iterations += 1

    def _update(self, inner: torch.optim.Optimizer, missing: list[Tensor]) -> None:
        if self._rate.moves:
            self._write_rate(self._rate.at(self._updates))
        changes = self._hyperparameters()
        for group in self._groups:
            group.update(changes)
        inner.step()
        if missing:
            self._skipped(missing)

    @torch.no_grad()
    def _advance_with_options(self, inner: torch.optim.Optimizer, missing: list[Tensor]) -> None:
        present = [p for p in self._parameters if p.grad is not None]
        gradients: list[Tensor] = [p.grad for p in present if p.grad is not None]
        if self.loss_scale_factor is not None:
            torch._foreach_div_(gradients, self.loss_scale_factor)
        if self._accumulators is None:
            self._clip_decay_update(inner, present, gradients, missing)
        else:
            self._accumulate(inner, present, gradients, missing)
        if self._average is not None:
            self._average.update(self._updates)
        for parameter, constraint in self._constraints:
            parameter.copy_(constraint(parameter))

    def _accumulate(
        self, inner: torch.optim.Optimizer, present: list[Tensor], gradients: list[Tensor], missing: list[Tensor]
    ) -> None:
        assert self._accumulators is not None and self.gradient_accumulation_steps is not None
        buffer = {id(p): total for p, total in zip(self._parameters, self._accumulators, strict=True)}
        totals = [buffer[id(p)] for p in present]
        torch._foreach_add_(totals, gradients)
        if (self._iterations + 1) % self.gradient_accumulation_steps != 0:
            return
        torch._foreach_div_(totals, float(self.gradient_accumulation_steps))
        # The update sees the means; whoever reads `.grad` afterwards sees the gradient of the last batch.
        try:
            for parameter, total in zip(present, totals, strict=True):
                parameter.grad = total
            self._clip_decay_update(inner, present, totals, missing)
        finally:
            for parameter, gradient in zip(present, gradients, strict=True):
                parameter.grad = gradient
        torch._foreach_zero_(self._accumulators)

    def _clip_decay_update(
        self, inner: torch.optim.Optimizer, present: list[Tensor], gradients: list[Tensor], missing: list[Tensor]
    ) -> None:
        if self._clip is not None:
            self._clip(gradients)
        if self._weight_decay and not self._torch_decays:
            decayed = [p for p in present if p not in self._undecayed]
            if decayed:
                torch._foreach_mul_(decayed, 1.0 - self._weight_decay * self._rate.at(self._updates))
        self._update(inner, missing)

    def _report_missing(self, missing: list[Tensor]) -> None:
        if len(missing) == len(self._parameters):
            raise ValueError("No gradients provided for any variable: call `loss.backward()` before `step()`.")
        absent = {id(p) for p in missing}
        names = [label for p, label in zip(self._parameters, self._labels, strict=True) if id(p) in absent]
        warn(f"Gradients do not exist for variables {names} when minimizing the loss.")

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update by given gradients instead of the parameters' own.

        Args:
            grads: Gradients (tensors, arrays or None), one for each variable. An empty list does nothing.
            trainable_variables: The variables; None for those the optimizer was built for. Builds it if need be.

        Raises:
            ValueError: When the optimizer is not built and no variables are given, lengths differ, or a variable is
                not one of those it was built for.
        """
        apply_gradients(self, list(grads), None if trainable_variables is None else list(trainable_variables))

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> Iterations:
        """Update by pairs of gradient and variable, as Keras 2 spells it; returns the iterations done."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])
        return Iterations(self._iterations, self._set_iterations)

    def zero_grad(self) -> None:
        """Drop the gradients, so that the next backward pass starts anew."""
        for parameter in self._parameters:
            parameter.grad = None

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss times `loss_scale_factor`, or as it is."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    def finalize_variable_values(self, variables: Sequence[Any]) -> None:
        """Put the moving average in place of the weights, if one is kept.

        Args:
            variables: The variables the optimizer was built for.

        Raises:
            ValueError: When they are others.
        """
        if self._average is not None:
            if [id(tensor_of(variable)) for variable in variables] != [id(p) for p in self._parameters]:
                raise ValueError(
                    f"`finalize_variable_values` needs the {len(self._parameters)} variables the optimizer was built "
                    f"for, in their order; got {len(variables)} variables."
                )
            self._average.overwrite()

    @property
    def average_in_model(self) -> bool:
        """Whether the parameters have the moving average for now, and `ema_variables` the trained weights.

        Set it only together with weights that were saved so.
        """
        return self._average is not None and self._average.swapped

    @average_in_model.setter
    def average_in_model(self, value: bool) -> None:
        if self._average is not None:
            self._average.swapped = value

    def show_average(self, shown: bool) -> None:
        """Put the moving average into the parameters, or the trained weights back.

        Does nothing when that is so already, and before the first update, when there is no average yet.

        Args:
            shown: Whether the parameters shall have the average.

        Raises:
            ValueError: When the optimizer was made without `use_ema=True`.
        """
        if not self.use_ema:
            raise ValueError(f"`show_average` needs an average: type `{type(self).__name__}(..., use_ema=True)`.")
        if self._average is not None and self._average.swapped != shown and self._updates > 0:
            self._average.swap()
