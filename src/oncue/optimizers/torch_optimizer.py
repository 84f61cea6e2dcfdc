"""Any torch optimizer behind Keras's interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from oncue.core.suggest import unknown
from oncue.optimizers.learning_rate import checked_rate
from oncue.optimizers.optimizer import Optimizer


def _of_the_groups(name: str, or_none: bool = False) -> Any:
    """Return a property for what Keras's optimizers have and torch's have in their parameter groups.

    Args:
        name: Its name.
        or_none: Whether it reads as None, which Keras's have, too, and may be set to that.
    """

    def read(optimizer: TorchOptimizer) -> Any:
        if or_none:
            return None
        raise AttributeError(f"`{name}` is in the torch optimizer: read `optimizer.torch_optimizer.param_groups`.")

    def assign(optimizer: TorchOptimizer, value: Any) -> None:
        if or_none and value is None:
            return
        raise ValueError(
            f"`{name}` can't be set to {value!r} on a TorchOptimizer: the torch optimizer has options of its own. Set them in "
            "its groups, as in `for group in optimizer.torch_optimizer.param_groups: group['weight_decay'] = 0.01`."
        )

    return property(read, assign, doc="Not to be set here: torch's optimizer has it in its parameter groups.")


class TorchOptimizer(Optimizer):
    """Lets an optimizer of `torch.optim`, or of a package like it, be compiled into a model.

    `learning_rate` reads the first parameter group; setting it sets the first group and scales the others by the same
    factor, so that the ratios of the groups stay (groups at 0 get the new rate if the first group was at 0, too). A
    schedule may be assigned too.

    Args:
        optimizer: A torch optimizer made for the model's parameters, or a class or function that makes one from the
            list of parameters.
        name: See `Optimizer`.
        **kwargs: Arguments of `Optimizer` other than `learning_rate` and `weight_decay`, which torch's optimizer has
            itself.

    Raises:
        ValueError: When `optimizer` is neither, or needs a closure, as LBFGS does.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = TorchOptimizer(lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.9))
        >>> optimizer.apply([torch.tensor([1.0])], [weight])
        >>> weight.data, optimizer.learning_rate
        (tensor([0.5000]), 0.5)
    """

    weight_decay = _of_the_groups("weight_decay", or_none=True)
    momentum = _of_the_groups("momentum")
    nesterov = _of_the_groups("nesterov")
    beta_1 = _of_the_groups("beta_1")
    beta_2 = _of_the_groups("beta_2")
    rho = _of_the_groups("rho")
    epsilon = _of_the_groups("epsilon")
    amsgrad = _of_the_groups("amsgrad")
    centered = _of_the_groups("centered")
    betas = _of_the_groups("betas")
    eps = _of_the_groups("eps")

    # Writes the counts of updates into the torch optimizer's state, while compiled steps keep them elsewhere.
    _writes_counts: Callable[[], None] | None = None

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | Callable[[list[Tensor]], torch.optim.Optimizer],
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        for argument in ("learning_rate", "lr", "weight_decay", "decay"):
            if argument in kwargs:
                raise ValueError(f"`{argument}` belongs to the torch optimizer; give it there, not to TorchOptimizer.")
        # The numbers live in the parameter groups; the source counts only when it is a schedule or a function.
        super().__init__(learning_rate=0.0, name=name, **kwargs)
        self._made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
        self._make = None if isinstance(optimizer, torch.optim.Optimizer) else optimizer
        self._pending: float | None = None
        if self._made is not None:
            self._adopt(self._made)
        elif not callable(optimizer):
            raise ValueError(
                "`optimizer` must be a torch optimizer, or a class or function that makes one from a list of "
                f"parameters; got {optimizer!r} of type {type(optimizer).__name__}."
            )

    def _adopt(self, made: torch.optim.Optimizer) -> None:
        if isinstance(made, torch.optim.LBFGS):
            raise ValueError("LBFGS needs a closure that runs the model again, which a training step doesn't give.")
        self._made = made
        self._groups = made.param_groups
        if self._pending is not None:
            self._write_rate(self._pending)

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return the torch optimizer given, or make it, and check that it is for these parameters."""
        return self._checked(groups[0]["params"])

    def _checked(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        made = self._made if self._make is None else self._make(parameters)
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(
                f"The function given to TorchOptimizer must return a torch optimizer; got {made!r} of type "
                f"{type(made).__name__}."
            )
        held = [p for group in made.param_groups for p in group["params"]]
        wanted, has = {id(p) for p in parameters}, {id(p) for p in held}
        lacking = [tuple(p.shape) for p in parameters if id(p) not in has]
        foreign = [tuple(p.shape) for p in held if id(p) not in wanted and p.requires_grad]
        if lacking or foreign:
            raise ValueError(
                f"The {type(made).__name__} does not hold the model's parameters: it lacks {len(lacking)} of "
                f"{len(parameters)} (shapes {lacking}) and has {len(foreign)} others (shapes {foreign}). Make it from "
                "`model.parameters()` after the model is built, freeze what is not to be trained, add what was frozen by "
                "`add_param_group`, or give a function instead: "
                "`TorchOptimizer(lambda parameters: torch.optim.Adam(parameters))`."
            )
        self._adopt(made)
        return made

    def replace_parameters(self, taken: Mapping[int, Tensor]) -> None:
        """Take other parameters in the place of those that the torch optimizer was made with.

        Raises:
            ValueError: When it has a state for them already.
        """
        super().replace_parameters(taken)
        made = self._made
        if made is None or not any(id(p) in taken for group in made.param_groups for p in group["params"]):
            return
        if made.state:
            raise _used_before(made)
        for group in made.param_groups:
            group["params"] = [taken.get(id(parameter), parameter) for parameter in group["params"]]

    def build_anew(self, variables: Iterable[Any]) -> None:
        """Take shards in the place of parameters; an optimizer that was given as it is has a state for those."""
        if self._make is None:
            raise _used_before(self._made)
        super().build_anew(variables)

    def _extend_torch_optimizer(self, parameters: list[Tensor], new: list[Tensor]) -> None:
        before = self.torch_optimizer
        made = self._checked(parameters)
        if made is before:
            return
        if len(made.param_groups) != len(before.param_groups):
            raise ValueError(
                f"The function given to TorchOptimizer made {len(before.param_groups)} parameter groups at first, and "
                f"{len(made.param_groups)} now that {len(new)} weights more are trained. Compile the model again instead."
            )
        for group, old in zip(made.param_groups, before.param_groups, strict=True):
            # What was set since, such as the rate, stays.
            group.update({name: value for name, value in old.items() if name != "params"})
        made.state.update(before.state)
        self._inner = made

    def _release_from_torch_optimizer(self, gone: set[int]) -> None:
        # One that was given as it is has had them from the beginning.
        if self._make is not None:
            super()._release_from_torch_optimizer(gone)

    def _read_rate(self) -> float:
        if self._rate.moves:
            return super()._read_rate()
        if self._groups:
            return _rate_of(self._groups[0])
        if self._pending is None:
            raise ValueError("The learning rate is known once the torch optimizer is made, by `build(variables)`.")
        return self._pending

    def _assign_rate(self, value: Any) -> None:
        self._rate.assign(value)
        if isinstance(self._rate.source, float):
            self._pending = self._rate.source
        self._write_rate(self._rate.at(self._updates))

    def _write_rate(self, value: float) -> None:
        if not self._groups:
            return
        first = _rate_of(self._groups[0])
        for group in self._groups:
            # A quotient first, so that the first group gets exactly the value.
            share = _rate_of(group) / first if first else 1.0
            _set_rate(group, value * share)

    def _slot_blocks(self) -> list[dict[str, str]]:
        if self._inner is None or any(p not in self._inner.state for p in self._parameters):
            return []
        first = self._parameters[0]
        shaped = [
            key
            for key, value in self._inner.state[first].items()
            if isinstance(value, Tensor) and value.shape == first.shape and value.dim() > 0
        ]
        return [{key: key} for key in shaped if all(key in self._inner.state[p] for p in self._parameters)]

    def _rate_state(self) -> float | dict[str, Any] | None:
        return super()._rate_state() if self._rate.moves else self._read_rate()

    def _watched(self) -> list[Any]:
        if self._inner is None:
            return super()._watched()
        groups = self._inner.param_groups
        # The rate is looked up in each step.
        options = [value for group in groups for name, value in group.items() if name not in ("params", "lr")]
        return [*super()._watched(), self._inner.state, *groups, *options]

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer.

        Raises:
            ValueError: Before `build`, where it is made by a function.
        """
        self._count_up()
        return super().torch_optimizer

    def _count_up(self) -> None:
        if self._writes_counts is not None:
            self._writes_counts()

    def __getstate__(self) -> dict[str, Any]:
        self._count_up()
        return {**vars(self), "_writes_counts": None}

    def _inner_state(self) -> dict[str, Any]:
        self._count_up()
        return {} if self._inner is None else self._inner.state_dict()

    def _load_inner_state(self, state: dict[str, Any]) -> None:
        if self._inner is not None:
            self._inner.load_state_dict(state)
            # The counts are those of the state now.
            self._writes_counts = None
            self._groups = self._inner.param_groups

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the torch optimizer as its name in `torch.optim` and its options.

        Raises:
            ValueError: When the optimizer is not of `torch.optim`, or is a function that was not called yet.
        """
        options: dict[str, Any] = {}
        if self._made is not None:
            cls: Any = type(self._made)
            plain = (bool, int, float, str, tuple)
            options = {name: value for name, value in self._made.defaults.items() if isinstance(value, plain)}
            options["lr"] = float(self.learning_rate)
        else:
            cls = self._make.func if isinstance(self._make, partial) else self._make
            options = dict(self._make.keywords) if isinstance(self._make, partial) else {}
        name = getattr(cls, "__name__", "")
        if cls is None or getattr(torch.optim, name, None) is not cls:
            raise ValueError(f"Only optimizers of `torch.optim` can be written down as a config; got {cls!r}.")
        config = super().get_config()
        del config["weight_decay"], config["learning_rate"]
        return {**config, "torch_class": name, "torch_options": options}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Make a new optimizer, to be built for any parameters.

        Raises:
            ValueError: When "torch_class" is not in `torch.optim`.
        """
        config = dict(config)
        name, options = config.pop("torch_class", None), config.pop("torch_options", {})
        known = [key for key, value in vars(torch.optim).items() if isinstance(value, type)]
        if name not in known:
            raise unknown("torch optimizer", name, known)
        return cls(partial(getattr(torch.optim, name), **options), **config)


def _used_before(made: torch.optim.Optimizer | None) -> ValueError:
    return ValueError(
        f"The {type(made).__name__} was used before the weights were sharded. Give a new one, or a function that makes one: "
        "`TorchOptimizer(lambda parameters: torch.optim.Adam(parameters))`."
    )


def _rate_of(group: dict[str, Any]) -> float:
    return checked_rate(group["lr"])


def _set_rate(group: dict[str, Any], value: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value
