"""Optimizers of Keras as oncue's: built-in ones by arithmetic of ours on Keras's own state, others by their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from oncue import optimizers
from oncue.core.warn import warn
from oncue.optimizers import schedules
from oncue.optimizers.built_parameters import tensor_of
from oncue.optimizers.graph_update import Update
from oncue.optimizers.optimizer import SHARED, Optimizer
from oncue.optimizers.rate_source import RateSource
from oncue.torch_private import version_of
from oncue.variable import Variable
from oncue.with_keras import keras_private
from oncue.with_keras.decisions import run_every_way

_TRANSLATED = ("SGD", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta")
_RATE = 1
"""The place of the learning rate among the variables of an optimizer that has no schedule."""


def _of_keras(name: str) -> Any:
    def read(optimizer: KerasOptimizer) -> Any:
        return getattr(optimizer.keras_optimizer, name)

    def assign(optimizer: KerasOptimizer, value: Any) -> None:
        setattr(optimizer.keras_optimizer, name, value)

    return property(read, assign, doc=f"`{name}` of Keras's optimizer.")


class KerasOptimizer(Optimizer):
    """Lets an optimizer of Keras update by its own `apply`, with all of its state in its own variables.

    Args:
        optimizer: The object: of a class that oncue hasn't, or derived by the user.
    """

    weight_decay = _of_keras("weight_decay")
    clipnorm = _of_keras("clipnorm")
    clipvalue = _of_keras("clipvalue")
    global_clipnorm = _of_keras("global_clipnorm")
    use_ema = _of_keras("use_ema")
    ema_momentum = _of_keras("ema_momentum")
    ema_overwrite_frequency = _of_keras("ema_overwrite_frequency")
    loss_scale_factor = _of_keras("loss_scale_factor")
    gradient_accumulation_steps = _of_keras("gradient_accumulation_steps")

    def __init__(self, optimizer: Any) -> None:
        self.keras_optimizer = optimizer
        super().__init__(learning_rate=0.0, name=optimizer.name, **{name: getattr(optimizer, name) for name in SHARED})
        self._of_model: list[Any] = []

    @property
    def has_rate(self) -> bool:
        """Whether there is one learning rate; a `MultiOptimizer` refuses to tell one."""
        return hasattr(self.keras_optimizer, "learning_rate")

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate is that of a schedule, which no number can replace."""
        import keras

        source = keras_private.rate_source(_inner(self.keras_optimizer))
        return isinstance(source, keras.optimizers.schedules.LearningRateSchedule)

    def _read_rate(self) -> float:
        import keras

        return float(keras.ops.convert_to_tensor(self.keras_optimizer.learning_rate))

    def _assign_rate(self, value: Any) -> None:
        self.keras_optimizer.learning_rate = _rate_of_keras(value)

    @property
    def _updates(self) -> int:
        return int(self.keras_optimizer.iterations)

    def _restore_count(self, steps: int) -> None:
        _inner(self.keras_optimizer).variables[0].assign(steps)

    def build(self, variables: Iterable[Any]) -> None:
        """Take the variables to train, and let Keras's optimizer make its state for them.

        Raises:
            ValueError: When it is built for others, and lacks one that is trained now.
        """
        self._of_model = list(variables)
        if not self.keras_optimizer.built:
            self.keras_optimizer.build(self._of_model)
        held = {id(variable) for variable in keras_private.trained_by(_inner(self.keras_optimizer))}
        missing = [variable.path for variable in self._of_model if id(variable) not in held and variable.trainable]
        if missing:
            raise ValueError(
                f"The optimizer {type(self.keras_optimizer).__name__} was built before {', '.join(missing)} were trained. "
                "Compile the Keras model again, with a new optimizer."
            )
        self._parameters = [tensor_of(variable) for variable in self._of_model]
        self._labels = [variable.path for variable in self._of_model]
        self.built = True

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss times the optimizer's factor."""
        scaled: Tensor = self.keras_optimizer.scale_loss(loss)
        return scaled

    def factor_left(self) -> Tensor:
        """Return what the gradients are multiplied with that the next step leaves in the weights: Keras divides copies."""
        return self.scale_loss(torch.ones((), device=self._parameters[0].device))

    def step(self) -> None:
        """Update by the gradients of the variables that are trained."""
        self._apply([parameter.grad for parameter in self._parameters])

    @torch.no_grad()
    def _apply(self, gradients: Sequence[Tensor | None]) -> None:
        pairs = [pair for pair in zip(gradients, self._of_model, strict=True) if pair[1].trainable]
        self.keras_optimizer.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    def _asked_for_the_loss(self) -> list[Any]:
        return [part for _, part in self.further_parts()]

    def _own_graph_update(self) -> Update | None:
        return KerasUpdate(self)

    def finalize_variable_values(self, variables: Sequence[Any]) -> None:
        """Put the moving average in place of the weights, if one is kept."""
        self.keras_optimizer.finalize_variable_values(variables)

    @property
    def variables(self) -> list[Any]:
        """The variables of Keras's optimizer."""
        return list(self.keras_optimizer.variables)

    def state_tensors(self) -> list[Tensor]:
        """Return the values of the variables of Keras's optimizer."""
        return [variable.value.detach() for variable in self.variables]

    def further_parts(self) -> list[tuple[str, Any]]:
        """Return Keras's optimizer, and the one inside where it scales the loss."""
        parts = [("keras_optimizer", self.keras_optimizer)]
        inner = _inner(self.keras_optimizer)
        return parts if inner is self.keras_optimizer else [*parts, ("keras_optimizer.inner_optimizer", inner)]

    def slots(self) -> dict[str, list[Tensor]]:
        """Return nothing: the state is in `variables`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the variables' values, with the count and the rate by name."""
        return {
            "iterations": int(self.iterations),
            "learning_rate": self._read_rate() if self.has_rate else None,
            "state": {"variables": [variable.value.detach() for variable in self.keras_optimizer.variables]},
            "ema": None,
            "gradient_accumulators": None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the variables to what `state_dict` returned.

        Raises:
            ValueError: When the optimizer has others.
        """
        saved, own = state["state"]["variables"], list(self.keras_optimizer.variables)
        shapes = [[tuple(one.shape) for one in some] for some in (saved, own)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"`state` must have variables of the shapes {shapes[1]}; got {shapes[0]}.")
        for variable, value in zip(own, saved, strict=True):
            variable.assign(value)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of Keras's optimizer."""
        config: dict[str, Any] = self.keras_optimizer.get_config()
        return config

    def __repr__(self) -> str:
        """Name the class of Keras's optimizer, and the learning rate."""
        shown = f" learning_rate={self._read_rate()!r}" if self.has_rate else ""
        return f"<KerasOptimizer of {type(self.keras_optimizer).__name__} name={self.name}{shown}>"


class TakenOptimizer(KerasOptimizer):
    """An optimizer of Keras's that trains weights of oncue's.

    It gets each weight as a variable of Keras in Keras's order of axes, on the weight's own memory.

    Args:
        optimizer: The object.
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        # By the identity of the tensor, which is kept along: the variable, and the order of axes.
        self._shown: dict[int, tuple[Tensor, Any, tuple[int, ...] | None]] = {}
        self._projected: list[tuple[Tensor, Any]] = []

    def build(self, variables: Iterable[Any]) -> None:
        """Take the weights to train, and let Keras's optimizer make its state for them."""
        given = list(variables)
        super().build([self._as_variable(variable) for variable in given])
        self._parameters = [tensor_of(variable) for variable in given]
        self._projected = [
            (tensor_of(one), one.constraint)
            for one in given
            if isinstance(one, Variable) and one.constraint is not None
        ]

    def _as_variable(self, weight: Any) -> Any:
        import keras

        if isinstance(weight, keras.Variable):
            return weight
        stored = tensor_of(weight)
        known = self._shown.get(id(stored))
        if known is None:
            axes = weight.axes if isinstance(weight, Variable) else None
            shown = stored if axes is None else torch.nn.Parameter(stored.detach().permute(axes), stored.requires_grad)
            *scopes, name = getattr(weight, "path", "weight").split("/")
            with ExitStack() as stack:
                # Some go by the path, as a `MultiOptimizer` does.
                for scope in scopes:
                    stack.enter_context(keras.name_scope(scope))
                known = self._shown[id(stored)] = (stored, keras.Variable(shown, name=name), axes)
        known[1].trainable = stored.requires_grad
        return known[1]

    @torch.no_grad()
    def _apply(self, gradients: Sequence[Tensor | None]) -> None:
        ordered = []
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            axes = self._shown[id(parameter)][2] if id(parameter) in self._shown else None
            ordered.append(gradient if gradient is None or axes is None else gradient.permute(axes))
        super()._apply(ordered)
        for parameter, project in self._projected:
            parameter.copy_(project(parameter))

    def finalize_variable_values(self, variables: Sequence[Any]) -> None:
        """Put the moving average in place of the weights, if one is kept."""
        super().finalize_variable_values([self._as_variable(variable) for variable in variables])

    def _own_graph_update(self) -> Update | None:
        # A graph knows each memory by one tensor.
        turned = any(axes is not None for _, _, axes in self._shown.values())
        return None if turned else super()._own_graph_update()

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the variables of Keras's optimizer.

        Args:
            weights: Arrays or tensors in the order of `variables`.
        """
        for variable, value in zip(self.keras_optimizer.variables, weights, strict=True):
            variable.assign(value)

    def written(self) -> dict[str, Any]:
        """Return what Keras writes of its optimizer."""
        import keras

        config: dict[str, Any] = keras.saving.serialize_keras_object(self.keras_optimizer)
        return config


class KerasUpdate(Update):
    """The update of an optimizer of Keras, by its own `apply`: even its numbers are in variables.

    Args:
        optimizer: The optimizer.
    """

    def __init__(self, optimizer: KerasOptimizer) -> None:
        self.optimizer = self._own = optimizer
        self.weights = list(optimizer._parameters)
        self.asks = optimizer._asked_for_the_loss()
        # A user's may do anything where it decides: what isn't run beside an eager step isn't seen.
        self._decides = all(map(_is_of_keras, self.asks))
        self._trained = self._trained_now()

    def _trained_now(self) -> list[tuple[int, bool]]:
        pairs = zip(self._own._of_model, self.weights, strict=True)
        return [(id(weight), weight.requires_grad and variable.trainable) for variable, weight in pairs]

    @property
    def tensors(self) -> list[Tensor]:
        """The weights and the optimizer's variables."""
        return [*self.weights, *(variable.value for variable in self._own.keras_optimizer.variables)]

    def apply(self, gradients: Sequence[Tensor | None]) -> None:
        """Update the variables; see `Update`."""
        copies = [None if gradient is None else gradient.clone() for gradient in gradients]
        apply = partial(self._own._apply, copies)
        run_every_way(apply, self.tensors) if self._decides else apply()

    def step(self) -> None:
        """Update eagerly."""
        self._own.step()

    def is_current(self) -> bool:
        """Return whether the same variables are trained."""
        return self._trained_now() == self._trained


class SharedRate(RateSource):
    """The learning rate of an optimizer that computes in the place of one of Keras's, which gets what is set here.

    Args:
        rate: The rate so far.
        share: Takes what is to be set, and returns what that is for oncue.
    """

    def __init__(self, rate: RateSource, share: Callable[[Any], Any]) -> None:
        super().__init__(rate.source, rate.decay)
        self._share = share

    def assign(self, source: Any) -> None:
        """Replace the rate, by a schedule of Keras's too."""
        super().assign(self._share(source))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy as a rate of oncue's alone."""
        return RateSource, (self.source, self.decay)


class TakenOver:
    """An optimizer of Keras's and the one of oncue's that computes in its place, on one state.

    The slots are one memory for both. The numbers, such as the learning rate and the count of updates, are read from
    Keras's optimizer when they were changed there, and written to it by `give`.

    Args:
        theirs: A built-in optimizer of Keras.
        ours: The one of oncue's with the same settings.
    """

    def __init__(self, theirs: Any, ours: Optimizer) -> None:
        self.theirs, self.ours = theirs, ours
        ours._rate = SharedRate(ours._rate, self._share_rate)
        # The settings of both, as they were when both had the same.
        self._settings = settings_of(theirs)
        self._own = self._settings_of_ours()
        self._touched = self._attributes()
        # The places of the variables that are numbers, and how often they had been set when both sides had the same.
        self._places = [place for place, variable in enumerate(theirs.variables) if variable.ndim == 0][:2]
        self._seen = self._marks()
        self._shared = self._told = False

    def is_current(self, theirs: Any) -> bool:
        """Return whether it is this optimizer, and ours has its settings, or can be given those that were changed."""
        if theirs is not self.theirs or _schedule_of(theirs) is _UNKNOWN:
            return False
        self._touched = self._attributes()
        now = settings_of(theirs)
        if now.keys() != self._settings.keys():
            return False
        changed = {name: value for name, value in now.items() if value != self._settings[name]}
        if not changed:
            return True
        # Which weights don't decay is chosen where any do.
        decays = self._settings["weight_decay"] is not None
        if not changed.keys() <= self._own.keys() or ("weight_decay" in changed and not decays):
            return False
        try:
            # Of several clips only one may be set at a time.
            for name in sorted(changed, key=lambda name: changed[name] is not None):
                setattr(self.ours, name, changed[name])
        except ValueError:
            # One that needs an optimizer that is built anew.
            return False
        self._settings = now
        self._own.update({name: getattr(self.ours, name) for name in changed})
        return True

    def is_touched(self) -> bool:
        """Return whether any setting of Keras's optimizer was assigned since `is_current` looked at all of them."""
        return self._attributes() != self._touched

    def _attributes(self) -> list[Any]:
        known = vars(self.theirs)
        return [keras_private.rate_source(self.theirs), *(known.get(name) for name in self._settings)]

    def _settings_of_ours(self) -> dict[str, Any]:
        kind = type(self.ours)
        names = [name for name in self._settings if isinstance(getattr(kind, name, None), property)]
        return {name: getattr(self.ours, name) for name in names if name != "learning_rate"}

    def build(self, variables: list[Any]) -> bool:
        """Build both for the variables that are trained, and let them share their state.

        Args:
            variables: The variables that are trained now.

        Returns:
            Whether they have the same state, as they do but for some older releases of Keras.
        """
        if not self.theirs.built:
            self.theirs.build(variables)
        held = keras_private.trained_by(self.theirs)
        if not held and variables:
            raise ValueError(
                f"'{self.theirs.name}', the optimizer of the Keras model, was built for no weights, as Keras's `load_model` "
                "does with `.h5` files. Compile the Keras model again, or load the file with `oncue.with_keras.load_model`."
            )
        if not self._shared:
            frozen = [variable.value for variable in held if not variable.value.requires_grad]
            for parameter in frozen:
                parameter.requires_grad_(True)
            self.ours.build(held)
            for parameter in frozen:
                parameter.requires_grad_(False)
            if not self._matches():
                return False
            self._share()
        known = {id(variable) for variable in held}
        self.ours.build(held + [variable for variable in variables if id(variable) not in known])
        self.take()
        return True

    def _share(self) -> None:
        rate = None if self.ours.has_schedule else float(self.ours.learning_rate)
        self.ours.set_weights([variable.value.detach() for variable in self.theirs.variables])
        if rate is not None and self._marks() == self._seen:
            # Only ours may have been set since.
            self.ours.learning_rate = rate
        self._places = []
        pairs = zip(self.theirs.variables, self.ours.state_tensors(), self.ours.state_tensors(), strict=True)
        for place, (variable, tensor, again) in enumerate(pairs):
            if tensor.data_ptr() == again.data_ptr():
                variable.value.data = tensor
            else:
                self._places.append(place)
        self._seen, self._shared = self._marks(), True

    def _share_rate(self, value: Any) -> Any:
        """Let Keras's optimizer have a schedule or a function that is set on ours, and return what it is for ours."""
        import keras

        given = _rate_of_keras(value)
        if not callable(given) or isinstance(given, (float, type)):
            return value
        self.give()
        if isinstance(keras_private.rate_source(self.theirs), keras.Variable) and len(self._places) > 1:
            # Its variable goes, which came after the count.
            self._places = [place - (place > _RATE) for place in self._places if place != _RATE]
        self.theirs.learning_rate = given
        self._seen = self._marks()
        if not _is_known(given) or self.theirs.gradient_accumulation_steps:
            # From the next pass on Keras's optimizer computes itself.
            return lambda: float(keras.ops.convert_to_tensor(self.theirs.learning_rate))
        self._settings, self._touched = settings_of(self.theirs), self._attributes()
        return schedules.deserialize({"class_name": type(given).__name__, "config": given.get_config()})

    def take(self) -> None:
        """Let ours have those numbers of Keras's that were changed there."""
        if not self._shared or not self._matches() or self._marks() == self._seen:
            return
        pairs = zip(self._places, self._marks(), self._seen, strict=True)
        changed = {place for place, now, before in pairs if now != before}
        rate = None if self.ours.has_schedule else float(self.ours.learning_rate)
        values = [tensor.detach() for tensor in self.ours.state_tensors()]
        for place in changed:
            values[place] = self.theirs.variables[place].value.detach()
        self.ours.set_weights(values)
        if rate is not None and _RATE not in changed:
            # The list has 32 bits of it.
            self.ours.learning_rate = rate
        self._seen = self._marks()

    def give(self) -> None:
        """Write the numbers and the settings of ours into Keras's optimizer."""
        if not self._shared:
            return
        own = self._settings_of_ours()
        if own != self._own:
            for name, value in own.items():
                if value != self._own[name]:
                    setattr(self.theirs, name, value)
            self._settings, self._own = settings_of(self.theirs), own
        if not self._matches():
            if not self._told:
                self._told = True
                warn(
                    f"Weights were trained that '{self.theirs.name}', the optimizer of the Keras model, was not built for, "
                    "so that it doesn't get the state of this training. Compile the Keras model again after weights are "
                    "unfrozen."
                )
            return
        for variable, tensor in zip(self.theirs.variables, self.ours.state_tensors(), strict=True):
            if variable.value.data_ptr() != tensor.data_ptr():
                variable.assign(tensor.to(variable.value.dtype))
        self._seen = self._marks()

    def _matches(self) -> bool:
        shapes = [tuple(variable.shape) for variable in self.theirs.variables]
        return shapes == [tuple(tensor.shape) for tensor in self.ours.state_tensors()]

    def _marks(self) -> list[tuple[int, int]]:
        """Return what another assignment of a number changes, without reading the number, for which a GPU would be waited."""
        tensors = [self.theirs.variables[place].value for place in self._places]
        return [(id(tensor), version_of(tensor)) for tensor in tensors]


def translated(optimizer: Any, variables: list[Any]) -> TakenOver | None:
    """Return an optimizer of oncue's that computes what a built-in one of Keras does; None where there is none.

    Args:
        optimizer: An optimizer of Keras's.
        variables: What it trains.
    """
    name = type(optimizer).__name__
    if name not in _TRANSLATED or not _is_of_keras(optimizer):
        return None
    config = optimizer.get_config()
    if isinstance(config["learning_rate"], dict) and config["gradient_accumulation_steps"]:
        # Keras's schedules move with every batch, ours with every update.
        return None
    if any(
        variable.dtype != "float32" or getattr(variable, "overwrite_with_gradient", False) for variable in variables
    ):
        return None
    ours = optimizers.deserialize({"class_name": name, "config": config})
    if optimizer.weight_decay is not None:
        ours.exclude_from_weight_decay(list(keras_private.undecayed(optimizer, variables)))
    return TakenOver(optimizer, ours)


def settings_of(optimizer: Any) -> dict[str, Any]:
    """Return the arguments of an optimizer of Keras's, but for a learning rate that is a number."""
    config: dict[str, Any] = optimizer.get_config()
    return {name: value for name, value in config.items() if name != "learning_rate" or isinstance(value, dict)}


_UNKNOWN = object()


def _schedule_of(optimizer: Any) -> Any:
    """Return the schedule of an optimizer, None for a number, and `_UNKNOWN` for what oncue can't compute itself."""
    import keras

    source = keras_private.rate_source(_inner(optimizer))
    if isinstance(source, keras.Variable):
        return None
    return source if _is_known(source) else _UNKNOWN


def _is_known(source: Any) -> bool:
    """Return whether something is a schedule of a class of Keras's own."""
    import keras

    return type(source) is getattr(keras.optimizers.schedules, type(source).__name__, None)


def _is_of_keras(optimizer: Any) -> bool:
    """Return whether an optimizer, with its schedule, is of classes of Keras's own, and made of no others."""
    import keras

    kind = type(optimizer)
    if kind is keras.optimizers.LossScaleOptimizer:
        return True
    public = getattr(keras.optimizers, kind.__name__, None)
    if public is None or kind.__name__ == "MultiOptimizer" or _schedule_of(optimizer) is _UNKNOWN:
        return False
    # The class on torch may be another one than the public class, and a user's may have its name.
    return kind is public or type(public.from_config({"learning_rate": 0.1})) is kind


def _rate_of_keras(value: Any) -> Any:
    """Return a learning rate as an optimizer of Keras's takes it: schedules of oncue's are Keras's of the same numbers.

    Raises:
        TypeError: For a schedule of a class of the user's own, derived from oncue's.
    """
    import keras

    if not isinstance(value, schedules.LearningRateSchedule):
        return value
    kind = type(value)
    if kind is not getattr(schedules, kind.__name__, None):
        raise TypeError(
            f"`learning_rate` got a {kind.__name__}, derived from oncue's LearningRateSchedule, and Keras's optimizer, whose "
            "state is trained, can't have that. Derive the class from `keras.optimizers.schedules.LearningRateSchedule`, or "
            "compile for oncue alone: `oncue.Model(keras_model).compile(oncue.optimizers.Adam(schedule), loss)`."
        )
    return getattr(keras.optimizers.schedules, kind.__name__).from_config(value.get_config())


def _inner(optimizer: Any) -> Any:
    import keras

    return optimizer.inner_optimizer if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else optimizer
