"""What an optimizer has learned so far, for checkpoints and for Keras's file formats."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oncue.optimizers import schedules
from oncue.optimizers.optimizer_settings import OptimizerSettings
from oncue.optimizers.schedules import LearningRateSchedule
from oncue.optimizers.weight_average import WeightAverage


class OptimizerState(OptimizerSettings):
    """The state of an optimizer: read it, write it, and list it as Keras does; see `Optimizer`."""

    _inner: torch.optim.Optimizer | None = None
    _average: WeightAverage | None = None
    _accumulators: list[Tensor] | None = None
    _parameters: Sequence[Tensor] = ()

    def _slot_blocks(self) -> list[dict[str, str]]:
        """Keras's slot names and torch's keys for them, in the blocks in which Keras creates its variables."""
        return []

    def _own_variables(self) -> list[Tensor]:
        """Copies of what Keras keeps in variables of its own after the slots, and what follows from the count here."""
        return []

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer that does the arithmetic.

        Raises:
            ValueError: Before `build`.
        """
        if self._inner is None:
            raise ValueError(f"This {type(self).__name__} has no torch optimizer until `build(variables)`.")
        return self._inner

    @property
    def ema_variables(self) -> list[Tensor] | None:
        """The moving average of each parameter, in their order; None when `use_ema` is off or before `build`."""
        return None if self._average is None else self._average.values

    def slots(self) -> dict[str, list[Tensor]]:
        """Return the per-parameter state by Keras's names, such as "momentum", in the order of the parameters.

        Returns:
            The tensors themselves, not copies. Empty before `build`.
        """
        if self._inner is None:
            return {}
        state = self._inner.state
        return {
            name: [state[parameter][key] for parameter in self._parameters]
            for block in self._slot_blocks()
            for name, key in block.items()
        }

    @property
    def variables(self) -> list[Tensor]:
        """All state as tensors in the order in which Keras lists an optimizer's variables.

        That is the count of steps, the learning rate (unless a schedule gives it), moving averages, gradient
        accumulators, then the slots. The numbers are copies, the rest the tensors themselves.
        """
        numbers = [torch.tensor(self._iterations)]
        if isinstance(self._rate.source, float):
            numbers.append(torch.tensor(self._read_rate(), dtype=torch.float32))
        slots = self.slots()
        interleaved = [
            slots[name][position]
            for block in self._slot_blocks()
            for position in range(len(self._parameters))
            for name in (block if self._inner is not None else ())
        ]
        return numbers + (self.ema_variables or []) + (self._accumulators or []) + interleaved + self._own_variables()

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all state from arrays in the order of `variables`.

        Args:
            weights: Arrays or tensors.

        Raises:
            ValueError: Before `build`, or when a number or a shape differs.
        """
        if not self.built:
            raise ValueError("`set_weights` needs an optimizer that is built. Call `build(variables)` first.")
        current = self.variables
        arrays = [torch.as_tensor(np.asarray(w)) if not isinstance(w, Tensor) else w for w in weights]
        shapes, wanted = [tuple(a.shape) for a in arrays], [tuple(v.shape) for v in current]
        if shapes != wanted:
            raise ValueError(f"`weights` must be arrays of the shapes {wanted}; got {shapes}.")
        for variable, array in zip(current, arrays, strict=True):
            variable.copy_(array)
        if isinstance(self._rate.source, float):
            self._assign_rate(current[1])
        self._restore_count(int(current[0]))

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put all state into `store` as arrays under "0", "1", ..., as Keras's files have it."""
        for position, variable in enumerate(self.variables):
            store[str(position)] = variable.detach().cpu().numpy()

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Set all state from `store`, the reverse of `save_own_variables`.

        Raises:
            ValueError: As `set_weights`.
        """
        self.set_weights([np.asarray(store[str(position)]) for position in range(len(store))])

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as plain containers of numbers and tensors.

        Returns:
            "iterations" (steps, with accumulation more than updates), "learning_rate" (a float, a schedule's config, or
            None for a function), "state" (the slots), "ema" and "gradient_accumulators" (lists or None). Tensors are
            the optimizer's own, not copies.
        """
        return {
            "iterations": self._iterations,
            "learning_rate": self._rate_state(),
            "state": self._inner_state(),
            "ema": self.ema_variables,
            "gradient_accumulators": self._accumulators,
        }

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
        _check_keys("state", state, current)
        self._check_rate_state(state["learning_rate"], current["learning_rate"])
        pairs = _matched("ema", state["ema"], current["ema"])
        pairs += _matched("gradient_accumulators", state["gradient_accumulators"], current["gradient_accumulators"])
        self._load_inner_state(state["state"])
        for target, source in pairs:
            target.copy_(source)
        if isinstance(state["learning_rate"], float):
            self._assign_rate(state["learning_rate"])
        self._restore_count(int(state["iterations"]))

    def _inner_state(self) -> dict[str, Any]:
        return self.slots()

    def _load_inner_state(self, state: dict[str, Any]) -> None:
        current = self.slots()
        _check_keys("state['state']", state, current)
        pairs = [pair for name in current for pair in _matched(name, state[name], current[name])]
        for target, source in pairs:
            target.copy_(source)

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
