"""What an optimizer is told: its arguments, its learning rate and its count, and their config."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Self

from torch import Tensor

from oncue import naming
from oncue.core.suggest import unknown
from oncue.legacy import translate_optimizer_arguments, warn_once
from oncue.optimizers import schedules
from oncue.optimizers.built_parameters import tensor_of
from oncue.optimizers.clipping import make_clip
from oncue.optimizers.learning_rate import Iterations, LearningRate, checked_count, checked_rate
from oncue.optimizers.rate_source import RateSource


class OptimizerSettings:
    """The arguments that all optimizers share; see `Optimizer` for what they mean."""

    # Whether the torch optimizer applies weight decay in its own kernel (from the group's "weight_decay").
    _torch_decays = False
    _undecayed_names: re.Pattern[str] | None = None

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
        if use_ema and not 0 <= ema_momentum <= 1:
            raise ValueError(f"`ema_momentum` must be in [0, 1]; got {ema_momentum!r}.")
        for argument, count, least in (
            ("ema_overwrite_frequency", ema_overwrite_frequency if use_ema else None, 1),
            ("gradient_accumulation_steps", gradient_accumulation_steps, 2),
        ):
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < least):
                raise ValueError(f"`{argument}` must be an int of at least {least}, or None; got {count!r}.")
        if loss_scale_factor is not None and not loss_scale_factor > 0:
            raise ValueError(f"`loss_scale_factor` must be a number above 0, or None; got {loss_scale_factor!r}.")
        self._clip = make_clip(clipnorm, clipvalue, global_clipnorm)
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.name = naming.auto_name(naming.to_snake_case(type(self).__name__)) if name is None else name
        self.built = False
        self._iterations = 0
        self._groups: list[dict[str, Any]] = []
        self._undecayed: set[Tensor] = set()
        self.weight_decay = weight_decay

    # The learning rate.

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate of now, a float; set it to a number, a schedule or a function without arguments."""
        return LearningRate(self._read_rate(), self._assign_rate)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._assign_rate(value)

    @property
    def lr(self) -> LearningRate:
        """Keras 1 and 2's name of `learning_rate`."""
        warn_once("optimizer.lr", "optimizer.learning_rate")
        return self.learning_rate

    @lr.setter
    def lr(self, value: Any) -> None:
        warn_once("optimizer.lr", "optimizer.learning_rate")
        self._assign_rate(value)

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
    def _updates(self) -> int:
        """How many updates were done, which gradient accumulation makes fewer than the steps."""
        steps = self.gradient_accumulation_steps
        return self._iterations if steps is None else self._iterations // steps

    @property
    def iterations(self) -> Iterations:
        """How many updates were done: an int that also has `.numpy()` and `.assign()`."""
        return Iterations(self._updates, self._set_iterations)

    @iterations.setter
    def iterations(self, value: Any) -> None:
        self._set_iterations(checked_count(value, "iterations"))

    def _set_iterations(self, updates: int) -> None:
        self._restore_count(updates * (self.gradient_accumulation_steps or 1))

    def _restore_count(self, steps: int) -> None:
        self._iterations = steps
        self._count_changed()

    def _count_changed(self) -> None:
        """React to the count having been set from outside."""

    # Weight decay.

    @property
    def weight_decay(self) -> float | None:
        """Decoupled weight decay, or None; may be set between steps."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float | None) -> None:
        self._weight_decay = None if value is None else checked_rate(value, "weight_decay")
        if self._torch_decays:
            for group in self._groups:
                decays = group["params"][0] not in self._undecayed
                group["weight_decay"] = (self._weight_decay or 0.0) if decays else 0.0
        self._choose_path()

    def _choose_path(self) -> None:
        """React to a setting that a step looks at having changed."""

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

    # The config.

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as Keras writes them.

        Returns:
            A dict that goes into JSON; a schedule is in it as its own config, a function as its value of now.
        """
        config = {
            "name": self.name,
            "learning_rate": self._rate.config(),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }
        if self._rate.decay:
            config["decay"] = self._rate.decay
        return config

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
