"""LossScaleOptimizer: dynamic loss scaling around an optimizer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from oncue.core.numbers import came, whole_of
from oncue.core.suggest import unknown
from oncue.optimizers.deferred_overflow_check import DeferredOverflowCheck
from oncue.optimizers.learning_rate import Iterations
from oncue.optimizers.loss_scale import LossScale
from oncue.optimizers.optimizer import SHARED, Optimizer
from oncue.optimizers.setting import Setting, number, setting
from oncue.optimizers.state_variable import StateVariable
from oncue.shards import is_sharded, parts_of, sum_of_parts
from oncue.torch_private import reads_found_inf
from oncue.variable import Variable

# What Keras once wrote into the configuration of this class, and does nothing here.
_OF_INNER = {name: inspect.signature(Optimizer.__init__).parameters[name].default for name in SHARED}


def _whole(name: str, value: Any) -> int:
    found = whole_of(value)
    if found is None or found < 1:
        raise ValueError(f"`{name}` must be a whole number of 1 or more; {came(value)}.")
    return found


def _of_inner(name: str) -> Any:
    """Return a property that is the inner optimizer's."""

    def read(optimizer: LossScaleOptimizer) -> Any:
        return getattr(optimizer.inner_optimizer, name)

    def assign(optimizer: LossScaleOptimizer, value: Any) -> None:
        # The base sets all of them before there is an inner optimizer.
        if "inner_optimizer" in vars(optimizer):
            optimizer._settle()
            setattr(optimizer.inner_optimizer, name, value)

    return property(read, assign, doc="The inner optimizer's.")


def _scale_of(name: str, value: Any) -> float:
    return number(name, value, "a number above 0", lambda found: 0 < found < math.inf)


class LossScaleOptimizer(Optimizer):
    """Multiplies the loss by a large factor, so that float16 holds small gradients, and divides them by it again.

    A step with a gradient that is not finite changes nothing but the factor, which is halved: no weight, no state, no
    count of updates. After `dynamic_growth_steps` finite steps in a row the factor doubles. `compile` wraps an
    optimizer in this one where gradients are of float16, unless `auto_scale_loss=False`.

    Args:
        inner_optimizer: The optimizer, or its name. A `loss_scale_factor` of its own is set to None.
        initial_scale: The first factor.
        dynamic_growth_steps: After how many finite steps the factor doubles.
        name: See `Optimizer`.
        **kwargs: `dynamic=True`, as in Keras 2. Clipping and the like are arguments of the inner optimizer.

    Raises:
        ValueError: For arguments that belong to the inner optimizer, and for numbers out of their range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = LossScaleOptimizer("sgd", initial_scale=8.0)
        >>> optimizer.build([weight])
        >>> optimizer.scale_loss(weight.sum() * float("inf")).backward()
        >>> optimizer.step()
        >>> weight.data, optimizer.iterations, optimizer.dynamic_scale
        (tensor([1.]), 0, tensor(4.))
    """

    initial_scale: float = setting(
        "initial_scale",
        _scale_of,
        "The first factor; fixed once the optimizer is built.",
        fixed="the factor has begun to move",
    )
    dynamic_growth_steps: int = setting(
        "dynamic_growth_steps", _whole, "After how many finite steps the factor doubles."
    )
    inner_optimizer: Optimizer
    _scale: LossScale | None = None
    _deferred: DeferredOverflowCheck | None = None

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        from oncue.optimizers.identifiers import get

        inner = get(inner_optimizer)
        if inner is None or isinstance(inner, LossScaleOptimizer):
            raise ValueError(
                f"`inner_optimizer` must be an optimizer that is not wrapped already; got {inner_optimizer!r}."
            )
        _check_rest(kwargs)
        super().__init__(learning_rate=0.0, name=name)
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        inner.loss_scale_factor = None
        self._rate = inner._rate
        self.inner_optimizer = inner

    # Building.

    def build(self, variables: Iterable[Any]) -> None:
        """Build the inner optimizer, and put the factor where the parameters are."""
        inner = self.inner_optimizer
        inner.build(variables)
        self._parameters, self._labels, self._inner = inner._parameters, inner._labels, inner._inner
        if self.built:
            return
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self._scale = LossScale(self.initial_scale, self.dynamic_growth_steps, device)
        deferred = device.type == "cuda" and reads_found_inf(type(inner.torch_optimizer))
        self._deferred = DeferredOverflowCheck(inner) if deferred else None
        self.built = True
        self._settings_changed()

    def replace_parameters(self, taken: Mapping[int, Tensor]) -> None:
        """Pass it on to the inner optimizer."""
        self.inner_optimizer.replace_parameters(taken)

    def build_anew(self, variables: Iterable[Any]) -> None:
        """Pass it on to the inner optimizer; the factor stays."""
        variables = list(variables)
        self.inner_optimizer.build_anew(variables)
        self.build(variables)

    def _watched(self) -> list[Any]:
        return [self._revision, *self.inner_optimizer._watched()]

    def _settings_changed(self) -> None:
        # What follows from the inner optimizer's settings it makes itself.
        self._revision = object()
        if self._scale is not None:
            self._scale.growth_steps = self.dynamic_growth_steps

    # Code that sets `model.optimizer.beta_1` needn't know that `compile` has wrapped the optimizer in this one.

    def __getattr__(self, name: str) -> Any:
        inner = vars(self).get("inner_optimizer")
        if isinstance(getattr(type(inner), name, None), Setting):
            return getattr(inner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        inner = vars(self).get("inner_optimizer")
        if not hasattr(type(self), name) and isinstance(getattr(type(inner), name, None), Setting):
            self._settle()
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    def _release(self, gone: list[Tensor]) -> None:
        inner = self.inner_optimizer
        inner._release(gone)
        self._parameters, self._labels, self._inner = inner._parameters, inner._labels, inner._inner

    def exclude_from_weight_decay(
        self, var_list: Iterable[Any] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Pass it on to the inner optimizer."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    # Stepping.

    step = Optimizer.step

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss times the factor."""
        return loss * (self.initial_scale if self._scale is None else self._scale.scale)

    def _asked_for_the_loss(self) -> list[Any]:
        return [] if type(self).scale_loss is LossScaleOptimizer.scale_loss else [self]

    def _advance(self, missing: list[Tensor]) -> None:
        if self._scale is None:
            raise ValueError("This LossScaleOptimizer is not built. Call `build(variables)` first.")
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        found = self._scale.unscale(parts_of(gradients))
        if any(map(is_sharded, gradients)):
            # The parts of other processes needn't be finite where these are.
            found = sum_of_parts(found.reshape(1), list(filter(is_sharded, gradients))[:1])[0].clamp(max=1.0)
        if self._deferred is not None and not missing and DeferredOverflowCheck.suits(self.inner_optimizer):
            self._deferred.step(found)
        else:
            self._settle()
            if not found.item():
                inner = self.inner_optimizer
                if type(inner).step is Optimizer.step:
                    inner._advance(missing)
                else:
                    inner.step()
        self._scale.update(found)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> Iterations:
        """Update by pairs of gradient and variable, as in Keras 2; returns the updates done."""
        super().apply_gradients(grads_and_vars)
        return self.iterations

    def _settle(self) -> None:
        if self._deferred is not None:
            self._deferred.settle()

    @property
    def loss_scale_factor(self) -> Any:
        """The current factor, as `dynamic_scale`; never None, which would mean that the loss isn't scaled."""
        return self.initial_scale if self._scale is None else self._scale.scale

    @loss_scale_factor.setter
    def loss_scale_factor(self, value: float | None) -> None:
        if value is not None:
            raise ValueError(f"`loss_scale_factor` of a LossScaleOptimizer moves by itself; got {value!r}.")

    @property
    def dynamic_scale(self) -> Tensor | None:
        """The current factor, as a tensor; None before `build`."""
        return None if self._scale is None else self._scale.scale

    @property
    def step_counter(self) -> Tensor | None:
        """The finite steps since the factor changed, as a tensor; None before `build`."""
        return None if self._scale is None else self._scale.growth

    # The learning rate and the count are those of the inner optimizer.

    def _read_rate(self) -> float:
        self._settle()
        return self.inner_optimizer._read_rate()

    def _assign_rate(self, value: Any) -> None:
        self._settle()
        self.inner_optimizer._assign_rate(value)

    @property
    def _updates(self) -> int:
        self._settle()
        return self.inner_optimizer._updates

    def _set_iterations(self, updates: int) -> None:
        self._settle()
        self.inner_optimizer._set_iterations(updates)

    # State.

    def slots(self) -> dict[str, list[Tensor]]:
        """Return the inner optimizer's per-parameter state."""
        return self.inner_optimizer.slots()

    def own_variables(self) -> list[Tensor]:
        """Return what Keras lists before the inner optimizer's variables: two unused numbers, then the factor's."""
        numbers = [torch.tensor(0), torch.tensor(0.0)]
        return numbers if self._scale is None else [*numbers, self._scale.growth, self._scale.scale]

    @property
    def variables(self) -> list[Variable]:
        """All state in the order in which Keras lists it: the factor's, then the inner optimizer's."""
        self._settle()
        names = ("iteration", "learning_rate", "step_counter", "dynamic_scale")
        own = [
            StateVariable(tensor, f"{self.name}/{name}")
            for name, tensor in zip(names, self.own_variables(), strict=False)
        ]
        return [*own, *self.inner_optimizer.variables]

    def state_tensors(self) -> list[Tensor]:
        """Return the tensors of `variables`."""
        self._settle()
        return [*self.own_variables(), *self.inner_optimizer.state_tensors()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all state from arrays in the order of `variables`.

        Args:
            weights: Arrays or tensors.

        Raises:
            ValueError: Before `build`, or when a number or a shape differs.
        """
        if self._scale is None:
            raise ValueError("`set_weights` needs an optimizer that is built. Call `build(variables)` first.")
        self._settle()
        count = len(self.own_variables())
        if len(weights) != len(self.state_tensors()):
            raise ValueError(f"`weights` must be {len(self.state_tensors())} arrays; got {len(weights)}.")
        self.inner_optimizer.set_weights(weights[count:])
        self._scale.growth.fill_(int(weights[2]))
        self._scale.scale.fill_(float(weights[3]))

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs: the inner optimizer's state, and "loss_scale"."""
        self._settle()
        scale = self._scale
        kept = None if scale is None else {"scale": scale.scale, "growth": scale.growth}
        return {**self.inner_optimizer.state_dict(), "loss_scale": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set all state from what `state_dict` returned; see `Optimizer.load_state_dict`."""
        if self._scale is None:
            raise ValueError("`load_state_dict` needs an optimizer that is built. Call `build(variables)` first.")
        kept = state.get("loss_scale")
        if not isinstance(kept, dict) or set(kept) != {"scale", "growth"}:
            raise ValueError(
                "`state` must have 'loss_scale' with 'scale' and 'growth': it is of an optimizer that is not wrapped in "
                f"a LossScaleOptimizer; it has {sorted(map(str, state))}."
            )
        self._settle()
        self.inner_optimizer.load_state_dict({key: value for key, value in state.items() if key != "loss_scale"})
        self._scale.scale.copy_(torch.as_tensor(kept["scale"]))
        self._scale.growth.copy_(torch.as_tensor(kept["growth"]))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as Keras writes them."""
        from oncue.optimizers.identifiers import serialize

        return {
            "name": self.name,
            "inner_optimizer": serialize(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Make an optimizer from what `get_config` returned."""
        from oncue.optimizers.identifiers import deserialize

        inner = config["inner_optimizer"]
        inner = deserialize(inner, custom_objects) if isinstance(inner, dict) else inner
        return cls(**{**config, "inner_optimizer": inner})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner_optimizer!r}>"


for _name in (*(name for name in SHARED if name != "loss_scale_factor"), "decay", "_average", "_accumulators"):
    setattr(LossScaleOptimizer, _name, _of_inner(_name))


def scaled(optimizer: Optimizer) -> LossScaleOptimizer:
    """Return an optimizer wrapped in a `LossScaleOptimizer`, if it isn't already.

    Example:
        >>> from oncue.optimizers import SGD
        >>> scaled(scaled(SGD(0.5))).learning_rate
        0.5
    """
    if isinstance(optimizer, LossScaleOptimizer):
        return optimizer
    return LossScaleOptimizer(optimizer, name="loss_scale_optimizer")


def _check_rest(kwargs: dict[str, Any]) -> None:
    if not kwargs.pop("dynamic", True):
        raise ValueError(
            "LossScaleOptimizer is always dynamic. For a fixed factor give `loss_scale_factor` to the optimizer itself."
        )
    for argument, default in _OF_INNER.items():
        if kwargs.pop(argument, default) != default:
            raise ValueError(f"`{argument}` belongs to the `inner_optimizer`; give it there.")
    for argument in kwargs:
        known = set(inspect.signature(LossScaleOptimizer.__init__).parameters) - {"self", "kwargs"}
        raise unknown("argument of LossScaleOptimizer", argument, known)
