"""The base of all optimizers: Keras's interface around a torch optimizer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from oncue import naming, torch_private
from oncue.core.builtin import is_builtin
from oncue.core.quick_imports import quick_imports
from oncue.core.suggest import unknown
from oncue.core.warn import warn
from oncue.legacy import methods as old_methods, old_property, translate_optimizer_arguments
from oncue.optimizers import schedules
from oncue.optimizers.built_parameters import built_parameters, tensor_of
from oncue.optimizers.clipping import Clip, clip_by_global_norm, clip_by_norm, clip_by_value
from oncue.optimizers.foreach import Number, Numbers, Slots, Tensors
from oncue.optimizers.foreach_optimizer import ForeachOptimizer
from oncue.optimizers.learning_rate import Iterations, LearningRate, checked_count, checked_rate
from oncue.optimizers.overrides import check_overrides
from oncue.optimizers.rate_source import RateSource
from oncue.optimizers.schedules import LearningRateSchedule
from oncue.optimizers.setting import Setting, count, factor, limit, rate, setting, share, switch
from oncue.optimizers.state_variable import StateVariable
from oncue.optimizers.weight_average import WeightAverage
from oncue.shards import parts_of, put, whole
from oncue.variable import Projection, Variable

CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
"""The settings of which at most one clips."""

SHARED = (
    *("weight_decay", *CLIPS, "use_ema", "ema_momentum", "ema_overwrite_frequency"),
    *("loss_scale_factor", "gradient_accumulation_steps"),
)
"""The settings that all optimizers have, besides the learning rate and the name."""


class UpdateInGraph(NamedTuple):
    """What an update is computed from in a graph, as tensors without axes."""

    learning_rate: Tensor
    iterations: Tensor
    numbers: Mapping[str, Number]
    """What `update_numbers` returns."""
    advance: Callable[[Sequence[Tensor | None]], None]
    """Takes the gradients of the parameters for what an update does with them."""


class Optimizer:
    """Updates parameters by their gradients; an inner torch optimizer does the arithmetic.

    The training loop calls `build` once, then `step` after each backward pass. To write an optimizer of your own,
    define `make_torch_optimizer`; or, as in Keras, `update_step`, with variables of its own made in `build`; or
    `update_rule` and `update_numbers`. Compiled training steps take in the last two.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments that returns a number.
        weight_decay: Decoupled weight decay: before each update `w -= learning_rate * weight_decay * w`. None for none.
        clipnorm: The largest L2 norm of each gradient. At most one of the three clips may be given.
        clipvalue: The largest absolute value of an element of a gradient.
        global_clipnorm: The largest L2 norm of all gradients together.
        use_ema: Keep an exponential moving average of the weights.
        ema_momentum: The share of the old average that each update keeps, in [0, 1].
        ema_overwrite_frequency: Put the average in place of the weights every that many updates, or None.
        loss_scale_factor: Multiply the loss by this before, and divide the gradients by it after, the backward pass.
        gradient_accumulation_steps: Update once every that many steps, with the mean of their gradients. At least 2, or None.
        name: A name; None for one made of the name of the class.
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

        >>> class Sign(Optimizer):
        ...     def update_step(self, gradient, variable, learning_rate):
        ...         variable.assign_sub(learning_rate * torch.sign(gradient))
        >>> Sign(0.25).apply([torch.tensor([7.0])], [weight])
        >>> weight.data
        tensor([-0.7500])
    """

    # Whether the torch optimizer applies weight decay in its own kernel (from the group's "weight_decay").
    _torch_decays = False
    # Whether a step is nothing but the torch optimizer's.
    _plain = False
    # Whether the arithmetic depends on how many updates a parameter has had.
    _counts_updates = False
    # Names of numbers that a state may have besides the count and the rate.
    _optional_numbers: Sequence[str] = ()
    _undecayed_names: re.Pattern[str] | None = None
    _inner: torch.optim.Optimizer | None = None
    _average: WeightAverage | None = None
    _accumulators: list[Tensor] | None = None
    _parameters: Sequence[Tensor] = ()
    _labels: Sequence[str] = ()
    # The same as variables, for methods of a subclass that get them.
    _targets_given: Sequence[Any] = ()
    # What `add_variable` made.
    _made_variables: Sequence[Variable] = ()
    _constraints: Sequence[tuple[Tensor, Any]] = ()
    _clip: Clip | None = None
    _gradient_accumulation_steps: int | None = None
    # The settings as they are kept, for what runs in each step.
    _weight_decay: float | None = None
    _clipnorm: float | None = None
    _clipvalue: float | None = None
    _global_clipnorm: float | None = None
    _loss_scale_factor: float | None = None
    _iterations = 0
    # Another object after each change of a setting.
    _revision: object = None
    # What running changes, or is an input of a graph.
    of_the_run = frozenset(
        ("_iterations", "_rate", "_groups", "_inner", "_revision", "_average", "_in_graph", "_tell_of_read")
    )
    # What an update is computed from while it becomes a part of a graph.
    _in_graph: UpdateInGraph | None = None
    # Gets the name of a number or a setting that is read, while code that mustn't read one runs.
    _tell_of_read: Callable[[str], None] | None = None

    sums_gradients: Callable[[Sequence[Tensor]], None] | None = None
    """Sums the gradients of parameters over the processes of a run before `step` and `apply` use them; None for one process."""

    built = False
    """Whether the optimizer has parameters to train, and the state for them."""

    # The settings. Each may be set between steps, and counts from the next update.

    weight_decay: float | None = setting("weight_decay", rate, "Decoupled weight decay, or None.")
    clipnorm: float | None = setting("clipnorm", limit, "The largest L2 norm of each gradient, or None.", alone=CLIPS)
    clipvalue: float | None = setting(
        "clipvalue", limit, "The largest absolute value of an element of a gradient, or None.", alone=CLIPS
    )
    global_clipnorm: float | None = setting(
        "global_clipnorm", limit, "The largest L2 norm of all gradients together, or None.", alone=CLIPS
    )
    use_ema: bool = setting(
        "use_ema",
        switch,
        "Whether a moving average of the weights is kept; fixed once the optimizer is built.",
        fixed="an average is kept of all or none of the training",
    )
    ema_momentum: float = setting("ema_momentum", share, "The share of the old average that each update keeps.")
    ema_overwrite_frequency: int | None = setting(
        "ema_overwrite_frequency", count, "After how many updates the average takes the place of the weights, or None."
    )
    loss_scale_factor: float | None = setting("loss_scale_factor", factor, "What the loss is multiplied by, or None.")

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        old = translate_optimizer_arguments(kwargs)
        self._rate = RateSource(old.pop("learning_rate", learning_rate), old.pop("decay", 0.0))
        for argument in old:
            known = set(inspect.signature(type(self).__init__).parameters) - {"self", "kwargs"}
            raise unknown(f"argument of {type(self).__name__}", argument, known)
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.name = naming.auto_name(naming.to_snake_case(type(self).__name__)) if name is None else name
        self._groups: list[dict[str, Any]] = []
        self._undecayed: set[Tensor] = set()
        # After how many updates a parameter joined, where that isn't 0.
        self._since: dict[Tensor, int] = {}
        self.weight_decay = weight_decay

    # The learning rate.

    @property
    def learning_rate(self) -> LearningRate:
        """The current learning rate, a float; set it to a number, a schedule or a function without arguments."""
        if self._in_graph is not None:
            return self._in_graph.learning_rate  # type: ignore[return-value]  # for which a tensor stands
        if self._tell_of_read is not None:
            self._tell_of_read("learning_rate")
        return LearningRate(self._read_rate(), self._assign_rate)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._assign_rate(value)

    @property
    def has_rate(self) -> bool:
        """Whether there is one learning rate for all weights, which callbacks may read and set."""
        return True

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate is that of a `LearningRateSchedule`, which no number can replace."""
        return isinstance(self._rate.source, LearningRateSchedule)

    lr = old_property("optimizer", "lr", "learning_rate")

    def _read_rate(self) -> float:
        return self._rate.read(self._updates)

    def _assign_rate(self, value: Any) -> None:
        self._rate.assign(value)
        self._write_rate(self._rate.at(self._updates))

    def _write_rate(self, value: float) -> None:
        for group in self._groups:
            group["lr"] = value

    # The count.

    @property
    def iterations(self) -> Iterations:
        """How many updates were done: an int that also has `.numpy()` and `.assign()`."""
        if self._in_graph is not None:
            return self._in_graph.iterations  # type: ignore[return-value]  # for which a tensor stands
        if self._tell_of_read is not None:
            self._tell_of_read("iterations")
        return Iterations(self._updates, self._set_iterations)

    @iterations.setter
    def iterations(self, value: Any) -> None:
        self._set_iterations(checked_count(value, "iterations"))

    @property
    def _updates(self) -> int:
        """How many updates were done, which gradient accumulation makes fewer than the steps."""
        steps = self._gradient_accumulation_steps
        return self._iterations if steps is None else self._iterations // steps

    def _set_iterations(self, updates: int) -> None:
        self._restore_count(updates * (self.gradient_accumulation_steps or 1))

    def _restore_count(self, steps: int) -> None:
        self._iterations = steps
        self._count_changed()

    # Settings that more follows from.

    @property
    def decay(self) -> float:
        """Keras 2's time-based decay: the rate of an update is divided by `1 + decay * iterations`."""
        return self._rate.decay

    @decay.setter
    def decay(self, value: Any) -> None:
        self._rate.set_decay(value)
        self._write_rate(self._rate.at(self._updates))

    @property
    def gradient_accumulation_steps(self) -> int | None:
        """Over how many steps the gradients of an update are gathered, or None for an update at each step.

        Set while the gradients of an update are being gathered, it is about that update already.
        """
        return self._gradient_accumulation_steps

    @gradient_accumulation_steps.setter
    def gradient_accumulation_steps(self, value: Any) -> None:
        steps = count("gradient_accumulation_steps", value, least=2)
        updates, gathered = divmod(self._iterations, self._gradient_accumulation_steps or 1)
        if gathered >= (steps or 1):
            raise ValueError(
                f"`gradient_accumulation_steps` can't be set to {steps} now: {gathered} of the "
                f"{self._gradient_accumulation_steps} gradients of an update are gathered already. Set it to more than "
                f"{gathered}, or after an update, when `optimizer.iterations` has just grown."
            )
        self._gradient_accumulation_steps = steps
        # The count is of steps, and this many of them are one update from now on.
        self._iterations = updates * (steps or 1) + gathered
        self._settings_changed()

    def _watched(self) -> list[Any]:
        """Return objects of which one is another after a setting was changed, for steps that were made from the old."""
        return [self._revision, self._inner is not None and torch_private.has_step_hooks(self._inner)]

    def _settings_changed(self) -> None:
        """Make what follows from the settings, so that a step needn't look at them."""
        self._revision = object()
        if not self.built:
            return
        limits = {
            clip_by_norm: self._clipnorm,
            clip_by_value: self._clipvalue,
            clip_by_global_norm: self._global_clipnorm,
        }
        # 0 clips nothing, as in Keras.
        self._clip = next((Clip(function, limit) for function, limit in limits.items() if limit), None)
        if self._average is not None:
            self._average.momentum, self._average.overwrite_frequency = self.ema_momentum, self.ema_overwrite_frequency
        if self.gradient_accumulation_steps is None:
            self._accumulators = None
        elif self._accumulators is None:
            self._accumulators = [torch.zeros_like(p, requires_grad=False) for p in self._parameters]
        if self._torch_decays:
            for group in self._groups:
                decays = group["params"][0] not in self._undecayed
                group["weight_decay"] = (self.weight_decay or 0.0) if decays else 0.0
        self._choose_path()

    def exclude_from_weight_decay(
        self, var_list: Iterable[Any] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Keep some parameters free of weight decay; call it before `build`.

        Args:
            var_list: Parameters or variables.
            var_names: Regular expressions; a variable whose `.name` any of them is found in is excluded.

        Raises:
            ValueError: When the optimizer is already built.
        """
        if self.built:
            raise ValueError("`exclude_from_weight_decay` must be called before the optimizer is built.")
        self._undecayed = {tensor_of(variable) for variable in var_list or ()}
        names = sorted(set(var_names or ()))
        self._undecayed_names = re.compile("|".join(names)) if names else None

    # What a subclass provides.

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        by_steps = cls.update_step is not Optimizer.update_step
        check_overrides(cls, by_steps)
        if by_steps:
            cls._update = Optimizer._update_each  # type: ignore[method-assign]  # so that others needn't ask
            # The kernel that would do it isn't called.
            cls._torch_decays = False
        applies = "apply" in vars(cls) or "apply_gradients" in vars(cls)
        if applies and "step" not in vars(cls):
            cls.step = Optimizer._step_by_apply  # type: ignore[method-assign]  # the same

    @classmethod
    def _has_own_update(cls) -> bool:
        return cls.update_step is not Optimizer.update_step or cls.step is not Optimizer.step

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        """Update one variable, as Keras's optimizers do; a subclass that overrides it is called for each of them.

        Clipping, weight decay, accumulation, averages and constraints are applied around it.

        Args:
            gradient: Its gradient, in the variable's order of axes.
            variable: A `Variable`, to be changed by `assign`, `assign_add` or `assign_sub`.
            learning_rate: The rate of this update, a float that has `.value` too. In a compiled step it is a tensor without
                axes, and so is `self.iterations`: where `update_step` reads the value of one, it follows the graph.

        Raises:
            NotImplementedError: When neither the subclass nor its parent says how.
        """
        if not self._has_rule():
            raise NotImplementedError(
                f"{type(self).__name__} must define `update_step(gradient, variable, learning_rate)`; its parent has none "
                "to be called."
            )
        parameter, place = tensor_of(variable), self._get_variable_index(variable)
        slots = {name: [tensors[place]] for name, tensors in self.slots().items()}
        if isinstance(variable, Variable):
            gradient = variable.from_keras(gradient)
        graph, numbers = self._in_graph, dict[str, Number]()
        if graph is not None and learning_rate is graph.learning_rate:
            numbers.update(graph.numbers)
        else:
            update = int(self.iterations) - self._since.get(parameter, 0) + 1
            numbers.update(self.update_numbers(update, float(learning_rate)))
        self.update_rule([parameter.detach()], [gradient], slots, numbers)

    # For those that override `update_step`.

    def add_variable(
        self,
        shape: Any,
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str | None = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """Make a variable that belongs to the state of an optimizer with an `update_step` of its own.

        Args:
            shape: Its shape.
            initializer: Its first value, as for `Variable`.
            dtype: Its type; `floatx()` by default.
            aggregation: For compatibility with Keras.
            layout: For compatibility with Keras.
            name: Its name.
        """
        made = Variable(initializer, shape=tuple(shape), dtype=dtype, trainable=False, name=name)
        self._made_variables = [*self._made_variables, made]
        return made

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """Make a variable of the shape and type of another, such as the momentum of a weight.

        Args:
            reference_variable: The other one.
            name: The beginning of its name.
            initializer: Its first value, as for `Variable`.
        """
        path = getattr(reference_variable, "path", None) or getattr(reference_variable, "name", None) or "variable"
        dtype = str(reference_variable.dtype).removeprefix("torch.")
        name = f"{str(path).replace('/', '_')}_{name or 'var'}"
        return self.add_variable(reference_variable.shape, initializer, dtype, name=name)

    def add_optimizer_variables(self, trainable_variables: Sequence[Any], name: Any, initializer: Any = "zeros") -> Any:
        """Make a variable for each of others.

        Args:
            trainable_variables: The others.
            name: The beginning of their names; or several, for a list of variables for each name.
            initializer: Their first value; or one for each name.

        Returns:
            A list of variables, or a tuple of lists for several names.
        """
        if isinstance(name, str):
            return [self.add_variable_from_reference(variable, name, initializer) for variable in trainable_variables]
        firsts = initializer if isinstance(initializer, (list, tuple)) else [initializer] * len(name)
        pairs = list(zip(name, firsts, strict=True))
        # Those of a weight come one after another, as in Keras, and so they are in files.
        rows = [
            [self.add_variable_from_reference(variable, *pair) for pair in pairs] for variable in trainable_variables
        ]
        return tuple(list(column) for column in zip(*rows, strict=True)) if rows else tuple([] for _ in pairs)

    def assign(self, variable: Any, value: Any) -> None:
        """Set a variable in place."""
        variable.assign(value)

    def assign_add(self, variable: Any, value: Any) -> None:
        """Add to a variable in place."""
        variable.assign_add(value)

    def assign_sub(self, variable: Any, value: Any) -> None:
        """Subtract from a variable in place."""
        variable.assign_sub(value)

    def _get_variable_index(self, variable: Any) -> int:
        """Return the place of a variable among those that the optimizer was built for."""
        parameter = tensor_of(variable)
        return next(place for place, one in enumerate(self._parameters) if one is parameter)

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return the torch optimizer that does the arithmetic, with all its state already there: by default, `update_rule`.

        Args:
            groups: Parameter groups in torch's form.
            learning_rate: The rate of the first step.

        Raises:
            NotImplementedError: Unless a subclass defines it, or `update_step`, or has an `update_rule`.
        """
        if self._has_rule():
            defaults = {"lr": learning_rate, **self._group_options(1, learning_rate)}
            return ForeachOptimizer(groups, defaults, self._first_slots(), self.update_rule)
        if type(self).update_step is not Optimizer.update_step:
            # It holds the groups, and steps never.
            return torch.optim.SGD(groups, lr=learning_rate)
        raise NotImplementedError(
            f"{type(self).__name__} must define `update_step(gradient, variable, learning_rate)`, or "
            "`make_torch_optimizer(groups, learning_rate)`."
        )

    def _group_options(self, update: int, rate: float) -> dict[str, Any]:
        """What an update writes into a parameter group of the torch optimizer, besides the learning rate.

        Args:
            update: The number of the update, from 1 for the first one of the group's parameters.
            rate: The group's learning rate.
        """
        return self.update_numbers(update, rate)

    def _first_slots(self) -> dict[str, float]:
        """The names of an `update_rule`'s slots, and the number that fills each at first."""
        return {name: 0.0 for block in self._slot_blocks() for name in block}

    @property
    def counts_apart(self) -> bool:
        """Whether updates depend on when each parameter joined, which no file of Keras's form has a place for."""
        return bool(self._since) and self._counts_updates

    def _skipped(self, parameters: list[Tensor]) -> None:
        """React to parameters having been left out of an update for lack of a gradient."""

    def _count_changed(self) -> None:
        """React to the count having been set from outside."""

    def _slot_blocks(self) -> list[dict[str, str]]:
        """Keras's slot names and torch's keys for them, in the blocks in which Keras creates its variables."""
        return []

    def _own_variables(self) -> list[Tensor]:
        """Return copies of the numbers that Keras keeps in variables after the slots."""
        return []

    def _set_own_variables(self, values: Sequence[Tensor]) -> None:
        """Set what `_own_variables` returned; the count is set already."""

    def _numbers(self) -> dict[str, float]:
        """Return those of `_optional_numbers` that the state needs now."""
        return {}

    def _set_numbers(self, numbers: dict[str, float]) -> None:
        """Set what `_numbers` returned, as far as the state has it; the count is set already."""

    def written(self) -> dict[str, Any] | None:
        """Return the configuration of an optimizer of another library, as that writes it; None for those of oncue's."""
        return None

    # The arithmetic, in eager steps and in graphs.

    def _asked_for_the_loss(self) -> list[Any]:
        """Return the objects of the user's whose code `scale_loss` is, and which a graph therefore depends on."""
        return [] if type(self).scale_loss is Optimizer.scale_loss else [self]

    def _own_graph_update(self) -> Any:
        """Return an update in a graph of a form that only this class has, or None."""
        return None

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place.

        Where it is defined, and no subclass overrides what else an update computes, it is part of a compiled training step.

        Args:
            parameters: The parameters that have a gradient.
            gradients: Their gradients, not to be changed.
            slots: Their states by Keras's names.
            numbers: What `update_numbers` returned: floats, or in a graph tensors without axes.

        Raises:
            NotImplementedError: Unless a subclass defines it.
        """
        raise NotImplementedError("This optimizer has no `update_rule`.")

    @classmethod
    def _has_rule(cls) -> bool:
        return cls.update_rule is not Optimizer.update_rule

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update by name: what changes from one to the next, and settings that may be assigned.

        Args:
            update: The number of the update, from 1.
            rate: Its learning rate.
        """
        return {}

    # Building.

    def build(self, variables: Iterable[Any]) -> None:
        """Take the parameters to train and create the state for them.

        Args:
            variables: Torch parameters, or objects whose `.value` is one. More than last time extend the optimizer: the
                state of those that it has already stays, that of new ones begins at zero.

        Raises:
            ValueError: When the optimizer is already built for others, and lacks none or all of these; or when one is not a
                parameter.
        """
        variables = list(variables)
        parameters, labels = built_parameters(variables, known=self._parameters)
        if self.built:
            held, given = {id(p) for p in self._parameters}, {id(p) for p in parameters}
            if not held <= given:
                raise ValueError(
                    f"This {type(self).__name__} was built for {len(self._parameters)} other parameters and can't be "
                    f"used for these {len(parameters)}. Compile the model again with a new optimizer."
                )
        self._constraints = [
            (parameter, variable.projection if isinstance(variable, Variable) else variable.constraint)
            for parameter, variable in zip(parameters, variables, strict=True)
            if getattr(variable, "constraint", None) is not None and parameter.requires_grad
        ]
        self._exclude_by_name(variables, parameters)
        if self._has_own_update():
            pairs = zip(variables, labels, strict=True)
            self._targets_given = [_as_variable(variable, label) for variable, label in pairs]
        if self._parameters:
            if len(parameters) > len(self._parameters):
                self._extend(parameters, labels)
            self._choose_path()
            return
        if parameters:
            # The first optimizer of torch in a process imports torch's compiler.
            with quick_imports():
                self._inner = self.make_torch_optimizer(self._make_groups(parameters), self._rate.at(0))
            self._groups = self._inner.param_groups
        self._parameters, self._labels = parameters, labels
        if self.use_ema:
            self._average = WeightAverage(parameters, self.ema_momentum, self.ema_overwrite_frequency)
        self.built = True
        self._settings_changed()
        self._count_changed()

    def replace_parameters(self, taken: Mapping[int, Tensor]) -> None:
        """Take other parameters, before it is built, in the place of those that it was given, such as their shards.

        Args:
            taken: The others, by the `id` of those.
        """
        self._undecayed = {taken.get(id(parameter), parameter) for parameter in self._undecayed}

    def build_anew(self, variables: Iterable[Any]) -> None:
        """Take parameters in the place of those that it was built for, such as their shards, with the state that it has.

        Args:
            variables: As many as it was built for, of the same shapes and in the same order.

        Raises:
            ValueError: Where there is no telling what its own variables are for.
        """
        if self._made_variables:
            raise ValueError(
                f"{type(self).__name__} has made variables of its own for the weights as they were. Compile the model with a "
                "new optimizer, which is built for the weights as they are now."
            )
        variables = list(variables)
        state, now = self.state_dict(), map(tensor_of, variables)
        taken = dict(zip(map(id, self._parameters), now, strict=True))
        self._undecayed = {taken.get(id(parameter), parameter) for parameter in self._undecayed}
        self._parameters, self._inner, self._average, self._accumulators = (), None, None, None
        self._groups, self._since, self.built = [], {}, False
        self.build(variables)
        self.load_state_dict(state)

    def _extend(self, parameters: list[Tensor], labels: list[str]) -> None:
        """Take in parameters that are new among others, all of them in the order that is wanted."""
        assert self._inner is not None
        if self._made_variables:
            raise ValueError(
                f"This {type(self).__name__} made variables of its own for {len(self._parameters)} parameters, and can't "
                f"take {len(parameters) - len(self._parameters)} more. Compile the model again with a new optimizer."
            )
        held = {id(p) for p in self._parameters}
        self._extend_torch_optimizer(parameters, [p for p in parameters if id(p) not in held])
        self._hold(parameters, labels)

    def _hold(self, parameters: list[Tensor], labels: list[str]) -> None:
        """Hold these parameters from here on, which the torch optimizer has already, with what is there for each."""
        held = {id(p): place for place, p in enumerate(self._parameters)}
        places = [held.get(id(p)) for p in parameters]
        average, sums = self._average, self._accumulators
        if average is not None:
            values = average.values
            average.values = [
                p.detach().clone() if place is None else values[place]
                for p, place in zip(parameters, places, strict=True)
            ]
            average.parameters = parameters
        if sums is not None:
            self._accumulators = [
                torch.zeros_like(p, requires_grad=False) if place is None else sums[place]
                for p, place in zip(parameters, places, strict=True)
            ]
        self._groups = self.torch_optimizer.param_groups
        self._parameters, self._labels = parameters, labels
        self._count_changed()

    def _extend_torch_optimizer(self, parameters: list[Tensor], new: list[Tensor]) -> None:
        if self._updates:
            # Bias corrections count the updates of a parameter from its own first one, as torch's do.
            self._since.update(dict.fromkeys(new, self._updates))
        inner = self.torch_optimizer
        made = self.make_torch_optimizer(self._make_groups(new), self._rate.at(self._updates))
        for group in made.param_groups:
            inner.add_param_group(group)
        inner.state.update(made.state)

    def _release(self, gone: list[Tensor]) -> None:
        """Let go of parameters that joined, as if they never had."""
        identities = {id(p) for p in gone}
        pairs = zip(self._parameters, self._labels, strict=True)
        left = [pair for pair in pairs if id(pair[0]) not in identities]
        self._release_from_torch_optimizer(identities)
        for parameter in gone:
            self.torch_optimizer.state.pop(parameter, None)
            self._since.pop(parameter, None)
            # Nobody drops it any more, and a torch optimizer that still holds the parameter would use it.
            parameter.grad = None
        self._hold([parameter for parameter, _ in left], [label for _, label in left])

    def _release_from_torch_optimizer(self, gone: set[int]) -> None:
        groups = self.torch_optimizer.param_groups
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in gone]
        groups[:] = [group for group in groups if group["params"]]

    def _join_since(self, since: list[int]) -> None:
        """Say of each parameter after how many updates it joined, and give those of one count a group of their own."""
        self._since = {p: count for p, count in zip(self._parameters, since, strict=True) if count}
        for group in list(self._groups):
            parts: dict[int, list[Tensor]] = {}
            for parameter in group["params"]:
                parts.setdefault(self._since.get(parameter, 0), []).append(parameter)
            (first, group["params"]), *others = sorted(parts.items())
            group["since"] = first
            self._groups += [{**group, "params": part, "since": count} for count, part in others]

    def _exclude_by_name(self, variables: list[Any], parameters: list[Tensor]) -> None:
        if self._undecayed_names is None:
            return
        for variable, parameter in zip(variables, parameters, strict=True):
            name = getattr(variable, "name", None)
            if not isinstance(name, str):
                raise ValueError(
                    "`exclude_from_weight_decay(var_names=...)` needs variables with a name; got a bare parameter of "
                    f"shape {tuple(parameter.shape)}. Give `var_list` instead."
                )
            if self._undecayed_names.search(name) is not None:
                self._undecayed.add(parameter)

    def _make_groups(self, parameters: list[Tensor]) -> list[dict[str, Any]]:
        since = self._since.get(parameters[0], 0)
        if not self._torch_decays:
            return [{"params": parameters, "since": since}]
        decayed = [p for p in parameters if p not in self._undecayed]
        rest = [p for p in parameters if p in self._undecayed]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay or 0.0, "since": since},
            {"params": rest, "weight_decay": 0.0, "since": since},
        ]
        return [group for group in groups if group["params"]]

    def _choose_path(self) -> None:
        self._plain = (
            self._clip is None
            and self.loss_scale_factor is None
            and self._average is None
            and self._accumulators is None
            and not self._constraints
            and (not self.weight_decay or self._torch_decays)
        )

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer that does the arithmetic.

        Raises:
            ValueError: Before `build`.
        """
        if self._inner is None:
            raise ValueError(f"This {type(self).__name__} has no torch optimizer until `build(variables)`.")
        return self._inner

    # Stepping.

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss times `loss_scale_factor`, or as it is."""
        return loss if self._loss_scale_factor is None else loss * self._loss_scale_factor

    def zero_grad(self) -> None:
        """Drop the gradients, so that the next backward pass starts without them."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update the parameters by their `.grad`; those without one are left alone.

        Clipping and unscaling change `.grad` in place; nothing else does.

        Raises:
            ValueError: When the optimizer is not built, or no parameter has a gradient.
        """
        if self.sums_gradients is not None:
            self.sums_gradients(self._parameters)
        missing = [p for p in self._parameters if p.grad is None]
        if missing:
            self._report_missing(missing)
        self._advance(missing)

    def _report_missing(self, missing: list[Tensor]) -> None:
        if len(missing) == len(self._parameters):
            raise ValueError("No gradients provided for any variable: call `loss.backward()` before `step()`.")
        # One that was frozen since gets none, as it should.
        absent = {id(p) for p in missing if p.requires_grad}
        if not absent:
            return
        names = [label for p, label in zip(self._parameters, self._labels, strict=True) if id(p) in absent]
        warn(
            f"Gradients do not exist for variables {names} when minimizing the loss. If using `model.compile()`, did you "
            "forget to provide a `loss` argument?"
        )

    def _advance(self, missing: list[Tensor]) -> None:
        if self._inner is None:
            if not self.built or "_parameters" not in vars(self):
                raise ValueError(
                    f"This {type(self).__name__} is not built. Call `build(variables)` first, and `super().build(variables)` "
                    "in a `build` of your own."
                )
        elif self._plain:
            self._update(self._inner, missing)
        else:
            self._advance_with_options(self._inner, missing)
        self._iterations += 1

    @torch.no_grad()
    def _advance_with_options(self, inner: torch.optim.Optimizer, missing: list[Tensor]) -> None:
        present = [p for p in self._parameters if p.grad is not None]
        gradients: list[Tensor] = [p.grad for p in present if p.grad is not None]
        if self._loss_scale_factor is not None:
            torch._foreach_div_(parts_of(gradients), self._loss_scale_factor)
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
        assert self._accumulators is not None and self._gradient_accumulation_steps is not None
        buffer = {id(p): total for p, total in zip(self._parameters, self._accumulators, strict=True)}
        totals = [buffer[id(p)] for p in present]
        parts = parts_of(totals)
        torch._foreach_add_(parts, parts_of(gradients))
        if (self._iterations + 1) % self._gradient_accumulation_steps != 0:
            return
        torch._foreach_div_(parts, float(self._gradient_accumulation_steps))
        # The update sees the means; code that reads `.grad` afterwards sees the gradient of the last batch.
        try:
            for parameter, total in zip(present, totals, strict=True):
                parameter.grad = total
            self._clip_decay_update(inner, present, totals, missing)
        finally:
            for parameter, gradient in zip(present, gradients, strict=True):
                parameter.grad = gradient
        torch._foreach_zero_(parts_of(self._accumulators))

    def _clip_decay_update(
        self, inner: torch.optim.Optimizer, present: list[Tensor], gradients: list[Tensor], missing: list[Tensor]
    ) -> None:
        if self._clip is not None:
            self._clip(gradients)
        if self._weight_decay and not self._torch_decays:
            decayed = [p for p in present if p not in self._undecayed]
            if decayed:
                torch._foreach_mul_(parts_of(decayed), 1.0 - self._weight_decay * self._rate.at(self._updates))
        self._update(inner, missing)

    def _update(self, inner: torch.optim.Optimizer, missing: list[Tensor]) -> None:
        if self._rate.moves:
            self._write_rate(self._rate.at(self._updates))
        update = self._updates + 1
        for group in self._groups:
            group.update(self._group_options(update - group.get("since", 0), group["lr"]))
        inner.step()
        if missing:
            self._skipped(missing)

    @torch.no_grad()
    def _update_each(self, inner: torch.optim.Optimizer, missing: list[Tensor]) -> None:
        rate = self._rate.at(self._updates)
        if self._rate.moves:
            self._write_rate(rate)
        given = LearningRate(rate, self._assign_rate)
        for variable, parameter in zip(self._targets_given, self._parameters, strict=True):
            gradient = parameter.grad
            if gradient is not None:
                self._update_one(gradient, variable, given)

    def _update_one(self, gradient: Tensor, variable: Any, rate: Any) -> None:
        self.update_step(_in_order_of(variable, gradient), variable, rate)

    def _step_by_apply(self) -> None:
        self._apply_by_own([parameter.grad for parameter in self._parameters])

    def _apply_by_own(self, given: Sequence[Tensor | None]) -> None:
        """Hand gradients of the parameters to the subclass's own `apply` or `apply_gradients`."""
        gradients = [
            gradient if gradient is None else _in_order_of(variable, gradient)
            for variable, gradient in zip(self._targets_given, given, strict=True)
        ]
        if type(self).apply is not Optimizer.apply:
            self.apply(gradients, self._targets_given)
        else:
            self.apply_gradients(zip(gradients, self._targets_given, strict=True))

    # Stepping by gradients that are given.

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Update by given gradients instead of the parameters' own; each `.grad` is put back afterwards.

        Args:
            grads: Gradients (tensors, arrays or None), one for each variable, in its order of axes: for a `Variable` that
                of Keras, as `variable.value.grad` is; for a parameter of torch its own. An empty list does nothing.
            trainable_variables: The variables; None for those the optimizer was built for. An optimizer that is not
                built is built for them first.

        Raises:
            ValueError: When the optimizer is not built and no variables are given, lengths or shapes differ, or a
                variable is not one of those it was built for.

        Example:
            >>> from oncue.optimizers import SGD
            >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
            >>> SGD(0.5).apply([torch.tensor([1.0])], [weight])
            >>> weight.data
            tensor([0.5000])
        """
        gradients = list(grads)
        if not gradients:
            return
        variables = None if trainable_variables is None else list(trainable_variables)
        targets = self._targets(variables)
        given = self._given(gradients, targets, targets if variables is None else variables)
        if self._in_graph is not None:
            self._in_graph.advance([given.get(id(parameter)) for parameter in self._parameters])
            return
        asked = {id(target) for target in targets}
        before = [parameter.grad for parameter in self._parameters]
        try:
            for parameter in self._parameters:
                parameter.grad = given.get(id(parameter))
            if self.sums_gradients is not None:
                self.sums_gradients(self._parameters)
            missing = [p for p in self._parameters if p.grad is None]
            if not given or any(id(p) in asked for p in missing):
                self._report_missing([p for p in missing if not given or id(p) in asked])
            self._advance(missing)
        finally:
            for parameter, gradient in zip(self._parameters, before, strict=True):
                parameter.grad = gradient

    def stateless_apply(
        self, optimizer_variables: Sequence[Any], grads: Sequence[Any], trainable_variables: Sequence[Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Update given values instead of the weights and the state, which stay as they are.

        Args:
            optimizer_variables: A value for each of `variables`.
            grads: Gradients, as for `apply`.
            trainable_variables: A value for each parameter that the optimizer was built for, in torch's order of axes.

        Returns:
            The new values of the parameters, and those of `variables`.

        Raises:
            ValueError: Before `build`, or when a number or a shape differs.

        Example:
            >>> from oncue.optimizers import SGD
            >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
            >>> optimizer = SGD(0.5)
            >>> optimizer.build([weight])
            >>> optimizer.stateless_apply(optimizer.variables, [torch.tensor([1.0])], [torch.tensor([1.0])])[0]
            [tensor([0.5000])]
        """
        if not self.built:
            raise ValueError("`stateless_apply` needs an optimizer that is built. Call `build(variables)` first.")
        targets = list(self._parameters)
        given = [value.stored if isinstance(value, Variable) else value for value in trainable_variables]
        pairs = _matched("trainable_variables", given, targets)
        state = [tensor.detach().clone() for tensor in self.state_tensors()]
        weights = [target.detach().clone() for target in targets]
        try:
            with torch.no_grad():
                for target, value in pairs:
                    target.copy_(value)
            self.set_weights([value.value if isinstance(value, Variable) else value for value in optimizer_variables])
            self.apply(grads, targets)
            return (
                [target.detach().clone() for target in targets],
                [tensor.detach().clone() for tensor in self.state_tensors()],
            )
        finally:
            with torch.no_grad():
                for target, value in zip(targets, weights, strict=True):
                    target.copy_(value)
            self.set_weights(state)

    def _targets(self, variables: list[Any] | None) -> list[Tensor]:
        if variables is None:
            if not self.built:
                raise ValueError(
                    "`apply(grads)` without variables needs an optimizer that is built. Call `build(variables)` first, "
                    "or `apply(grads, variables)`."
                )
            return list(self._parameters)
        if not self.built:
            self.build(variables)
        return [tensor_of(variable) for variable in variables]

    def _given(self, gradients: list[Any], targets: list[Tensor], variables: list[Any]) -> dict[int, Tensor]:
        """Return the gradients that are not None, by the `id` of their parameter."""
        if len(gradients) != len(targets):
            raise ValueError(
                f"`grads` must have one gradient for each variable; got {len(gradients)} for {len(targets)}."
            )
        known = {id(parameter) for parameter in self._parameters}
        for target in targets:
            if id(target) not in known:
                raise ValueError(
                    f"Unknown variable of shape {tuple(target.shape)}: the optimizer was built for others. Make a new "
                    "optimizer for a new set of variables."
                )
        given: dict[int, Tensor] = {}
        for target, gradient, variable in zip(targets, gradients, variables, strict=True):
            if gradient is not None:
                tensor = torch.as_tensor(gradient, dtype=target.dtype, device=target.device).detach()
                if tuple(tensor.shape) != tuple(variable.shape):
                    raise ValueError(
                        f"`grads` has a gradient of shape {tuple(tensor.shape)} for a variable of shape "
                        f"{tuple(variable.shape)}."
                    )
                if isinstance(variable, Variable):
                    tensor = variable.from_keras(tensor)
                # Clipping and unscaling work in place, on a copy so that the caller's tensors stay as they are.
                given[id(target)] = tensor if self._plain else tensor.clone()
        return given

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> Iterations:
        """Update by pairs of gradient and variable, as in Keras 2; returns the iterations done."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])
        if self._in_graph is not None:
            return self.iterations
        return Iterations(self._iterations, self._set_iterations)

    # The moving average.

    @property
    def ema_variables(self) -> list[Tensor] | None:
        """The moving average of each parameter, in their order; None when `use_ema` is off or before `build`."""
        return None if self._average is None else self._average.values

    @property
    def average_in_model(self) -> bool:
        """Whether the parameters have the moving average at present, and `ema_variables` the trained weights.

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
            shown: Whether the parameters are to have the average.

        Raises:
            ValueError: When the optimizer was made without `use_ema=True`.
        """
        if not self.use_ema:
            raise ValueError(f"`show_average` needs an average: use `{type(self).__name__}(..., use_ema=True)`.")
        if self._average is not None and self._average.swapped != shown and self._updates > 0:
            self._average.swap()

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

    def further_parts(self) -> list[tuple[str, Any]]:
        """Return the objects, by names, that have settings besides those of the optimizer itself; most have none."""
        return []

    # State, as Keras lists it.

    def slots(self) -> dict[str, list[Tensor]]:
        """Return the per-parameter state by Keras's names, such as "momentum", in the order of the parameters.

        Returns:
            The tensors themselves, not copies. Empty before `build`.
        """
        blocks = self._slot_blocks()
        if self._inner is None or not blocks:
            return {}
        states = [self._inner.state[parameter] for parameter in self._parameters]
        return {name: [state[key] for state in states] for block in blocks for name, key in block.items()}

    @property
    def variables(self) -> list[Variable]:
        """All state in the order in which Keras lists an optimizer's variables.

        That is the count of steps, the learning rate (unless a schedule gives it), moving averages, gradient
        accumulators, then the slots. Numbers are copies, which `assign` writes back; the rest are the tensors themselves.
        """
        return [
            StateVariable(tensor, f"{self.name}/{name}", partial(self._set_one, index) if copied else None)
            for index, (name, tensor, copied) in enumerate(self._named_state())
        ]

    def state_tensors(self) -> list[Tensor]:
        """Return the tensors of `variables`: numbers are copies, the rest those that the optimizer uses."""
        return [tensor for _, tensor, _ in self._named_state()]

    def _named_state(self) -> list[tuple[str, Tensor, bool]]:
        """Return the name of each variable, its tensor, and whether that is a copy."""
        found = [("iteration", torch.tensor(self._iterations), True)]
        if isinstance(self._rate.source, float):
            found.append(("learning_rate", torch.tensor(self._read_rate(), dtype=torch.float32), True))
        labels = [re.sub(r"\W+", "_", label).strip("_") for label in self._labels]
        for kind, tensors in (("average", self.ema_variables), ("gradient_accumulator", self._accumulators)):
            found += [(f"{label}_{kind}", tensor, False) for label, tensor in zip(labels, tensors or (), strict=False)]
        slots = self.slots()
        found += [
            (f"{labels[position]}_{name}", slots[name][position], False)
            for block in self._slot_blocks()
            for position in range(len(self._parameters))
            for name in (block if self._inner is not None else ())
        ]
        found += [(variable.name, variable.value, False) for variable in self._made_variables]
        return found + [(f"number_{place}", tensor, True) for place, tensor in enumerate(self._own_variables())]

    def _set_one(self, index: int, value: Tensor) -> None:
        """Set one of the numbers of `variables`."""
        if index == 0:
            self._restore_count(int(value))
        elif index == 1 and isinstance(self._rate.source, float):
            self._assign_rate(value)
        else:
            count = len(self._own_variables())
            state = self.state_tensors()
            state[index] = value
            self._set_own_variables(state[len(state) - count :])

    get_weights = old_methods.get_weights
    weights = property(old_methods.weights)
    _decayed_lr = old_methods.decayed_lr

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all state from arrays in the order of `variables`.

        Args:
            weights: Arrays or tensors.

        Raises:
            ValueError: Before `build`, or when a number or a shape differs.
        """
        if not self.built:
            raise ValueError("`set_weights` needs an optimizer that is built. Call `build(variables)` first.")
        current = self.state_tensors()
        pairs = _matched("weights", [w if isinstance(w, Tensor) else np.asarray(w) for w in weights], current)
        if isinstance(self._rate.source, float):
            # Before anything is changed.
            checked_rate(pairs[1][1])
        for variable, array in pairs:
            put(variable, array)
        if isinstance(self._rate.source, float):
            self._assign_rate(current[1])
        self._restore_count(int(current[0]))
        self._set_own_variables(current[len(current) - len(self._own_variables()) :])

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put all state into `store` as arrays under "0", "1", ..., as Keras's files have it."""
        for position, variable in enumerate(self.state_tensors()):
            store[str(position)] = whole(variable.detach()).cpu().numpy()

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Set all state from `store`, the reverse of `save_own_variables`.

        Raises:
            ValueError: As `set_weights`.
        """
        self.set_weights([np.asarray(store[str(position)]) for position in range(len(store))])

    # State, for checkpoints.

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as plain containers of numbers and tensors.

        Returns:
            "iterations" (steps, with accumulation more than updates), "learning_rate" (a float, a schedule's config, or
            None for a function), "state" (the slots), "ema" and "gradient_accumulators" (lists or None); "since" (the
            updates that were done before each parameter joined) where `build` extended it. Tensors are the optimizer's
            own, not copies.
        """
        state: dict[str, Any] = {
            "iterations": self._iterations,
            "learning_rate": self._rate_state(),
            "state": self._inner_state(),
            "ema": self.ema_variables,
            "gradient_accumulators": self._accumulators,
            **self._numbers(),
        }
        if self._since:
            state["since"] = [self._since.get(parameter, 0) for parameter in self._parameters]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set all state from what `state_dict` returned; the optimizer must be built.

        Args:
            state: The state of an optimizer of the same class and arguments, for parameters of the same shapes.

        Raises:
            ValueError: Before `build`, or when a key, a count or a shape differs. Nothing is changed then.
        """
        if not self.built:
            raise ValueError("`load_state_dict` needs an optimizer that is built. Call `build(variables)` first.")
        current = self.state_dict()
        for name in (*self._optional_numbers, "since"):
            current.pop(name, None)
        numbers = {name: value for name, value in state.items() if name in self._optional_numbers}
        state, since = dict(state), [0] * len(self._parameters)
        since = state.pop("since", since)
        _check_keys("state", {name: value for name, value in state.items() if name not in numbers}, current)
        if len(since) != len(self._parameters):
            raise ValueError(f"`since` must be {len(self._parameters)} counts of updates; got {len(since)}.")
        self._check_rate_state(state["learning_rate"], current["learning_rate"])
        pairs = _matched("ema", state["ema"], current["ema"])
        pairs += _matched("gradient_accumulators", state["gradient_accumulators"], current["gradient_accumulators"])
        self._load_inner_state(state["state"])
        if since != [self._since.get(parameter, 0) for parameter in self._parameters]:
            self._join_since(since)
        for target, source in pairs:
            put(target, source)
        if isinstance(state["learning_rate"], float):
            self._assign_rate(state["learning_rate"])
        self._restore_count(int(state["iterations"]))
        self._set_numbers(numbers)

    def _inner_state(self) -> dict[str, Any]:
        made = [variable.value for variable in self._made_variables]
        return {**self.slots(), **({"variables": made} if made else {})}

    def _load_inner_state(self, state: dict[str, Any]) -> None:
        current = self._inner_state()
        _check_keys("state['state']", state, current)
        pairs = [pair for name in current for pair in _matched(name, state[name], current[name])]
        for target, source in pairs:
            put(target, source)

    def _rate_state(self) -> float | dict[str, Any] | None:
        source = self._rate.source
        if isinstance(source, LearningRateSchedule):
            try:
                return schedules.serialize(source)
            except NotImplementedError:
                return {"class_name": type(source).__name__, "config": None}
        return source if isinstance(source, float) else None

    @staticmethod
    def _check_rate_state(saved: Any, current: Any) -> None:
        def kind(state: Any) -> str:
            return str(state["class_name"]) if isinstance(state, dict) else "function" if state is None else "number"

        if kind(saved) != kind(current):
            raise ValueError(
                f"The saved learning rate came from a {kind(saved)}, this optimizer's comes from a {kind(current)}. "
                "Create the optimizer with the same kind of `learning_rate` as the saved one."
            )

    # The config.

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as Keras writes them: those of all optimizers, then the settings of its own.

        Returns:
            A dict that goes into JSON; a schedule is in it as its own config, a function as its current value.
        """
        config = {"name": self.name, "learning_rate": self._rate.config()}
        classes = [kind for kind in reversed(type(self).__mro__) if kind is not Optimizer]
        own = [name for kind in classes for name, value in vars(kind).items() if isinstance(value, Setting)]
        decay = ["decay"] if self.decay else []
        return {**config, **{name: getattr(self, name) for name in (*SHARED, *decay, *own)}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Make an optimizer from what `get_config` returned.

        Args:
            config: The arguments, of any Keras generation.
            custom_objects: Schedules of your own by class name.

        Returns:
            A new optimizer, not built.
        """
        rate = config.get("learning_rate")
        if isinstance(rate, dict):
            config = {**config, "learning_rate": schedules.deserialize(rate, custom_objects)}
        return cls(**config)

    def __repr__(self) -> str:
        """Name the class and the learning rate."""
        return f"<{type(self).__name__} name={self.name} learning_rate={self._rate.source!r}>"


def own_constraint(constraint: Any) -> Any:
    """Return the constraint of oncue's own that a weight has, None for one of the user's, which might do anything.

    Example:
        >>> from oncue.constraints import NonNeg
        >>> own_constraint(NonNeg()) is None, own_constraint(lambda w: w) is None
        (False, True)
    """
    inner = constraint.constraint if isinstance(constraint, Projection) else constraint
    return inner if is_builtin(type(inner)) else None


def _in_order_of(variable: Any, gradient: Tensor) -> Tensor:
    return variable.to_keras(gradient) if isinstance(variable, Variable) else gradient


def _as_variable(variable: Any, label: str) -> Any:
    if not isinstance(variable, Tensor):
        return variable
    holder = torch.nn.Module()
    holder.value = variable
    return Variable.of(holder, "value", name=label)


def _check_keys(what: str, got: dict[str, Any], wanted: dict[str, Any]) -> None:
    if set(got) != set(wanted):
        raise ValueError(f"`{what}` must have the keys {sorted(wanted)}; got {sorted(map(str, got))}.")


def _matched(name: str, got: list[Any] | None, wanted: list[Tensor] | None) -> list[tuple[Tensor, Tensor]]:
    """Pair the tensors to set with the ones to set them from, or refuse."""
    if got is None and wanted is None:
        return []
    shapes = None if got is None else [tuple(torch.as_tensor(tensor).shape) for tensor in got]
    expected = None if wanted is None else [tuple(tensor.shape) for tensor in wanted]
    if got is None or wanted is None or shapes != expected:
        raise ValueError(f"`{name}` must be tensors of the shapes {expected}; got {shapes}.")
    return list(zip(wanted, map(torch.as_tensor, got), strict=True))
