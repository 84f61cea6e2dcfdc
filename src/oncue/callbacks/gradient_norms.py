"""GradientNorms: how large the gradients are, in the logs of each epoch."""

from __future__ import annotations

import math
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.numbers import whole
from oncue.core.protocols import compiles_steps, gradient_factor_of, tensors_of, told_to_compile


@builtin
class GradientNorms(Callback):
    """Adds the L2 norm of the gradients to the logs of each epoch: what they tell of clipping, spikes and dead layers.

    The logs get `gradient_norm`, the mean over the steps that were looked at, and `gradient_norm_max`, the largest; with
    `by_weight` also `gradient_norm_<name>` for each weight. The norms are summed on the device and read when the epoch ends.

    They are the norms of what the optimizer used: after clipping, and of all processes together; an optimizer that only Keras
    has clips copies, so that they are those before. With `gradient_accumulation_steps` they are those of single batches.

    Compiled steps keep no gradients. Where `compile` was left to choose (`jit_compile="auto"`), those of a long run are eager.

    Args:
        every: Look at each so many batches, counted over the ends of epochs.
        by_weight: Whether to log the norm of each weight's gradient, too.

    Raises:
        ValueError: For an `every` below 1; before the first step, with `jit_compile=True`; and after the first step that is
            looked at, in a loop that drops gradients before callbacks are called.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, use_bias=False)])
        >>> model.set_weights([np.zeros((2, 1))])
        >>> model.compile(oncue.optimizers.SGD(0.0), loss="mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> history = model.fit(x, y, verbose=0, callbacks=[GradientNorms(every=1)])
        >>> round(history.history["gradient_norm"][0], 4)
        2.8284
    """

    state_fields = ("passed", "counted", "sums", "largest")

    def __init__(self, every: int = 10, by_weight: bool = False) -> None:
        super().__init__()
        self.every = whole("GradientNorms", "every", every, least=1)
        self.by_weight = by_weight
        self._put_back = False
        self._reset()

    def _reset(self) -> None:
        self.passed = self.counted = 0
        # On the device: of all gradients together, and of each weight's.
        self.largest: Any = None
        self.sums: dict[str, Any] = {}
        self._factor: Any = None

    def listens_to(self, hook: str) -> bool:
        """Return whether a hook is needed: before a step only where it scales gradients."""
        return hook != "on_train_batch_begin" or gradient_factor_of(self.model) is not None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing, and see to it that steps keep their gradients.

        Raises:
            ValueError: When steps are compiled because the user said so.
        """
        self._reset()
        self.passed = self.every - 1
        if not compiles_steps(self.model):
            return
        if told_to_compile(self.model):
            raise ValueError(
                "GradientNorms needs the gradients of steps, and compiled steps keep none: use "
                "`model.compile(..., jit_compile=False)`, or leave the callback out."
            )
        self.model.run_eagerly = self._put_back = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the means of the epoch."""
        self.counted, self.largest, self.sums = 0, None, {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the factor that the step scales its gradients with, which may be another after it."""
        factor = gradient_factor_of(self.model)
        if factor is not None and self.passed + 1 >= self.every:
            self._factor = factor()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the gradients, when it is their turn; nothing is read from the device.

        Raises:
            ValueError: When there are none.
        """
        self.passed += 1
        if self.passed < self.every:
            return
        self.passed = 0
        from torch.nn.utils import get_total_norm

        tensors = tensors_of(self.model)
        found = {name: one.grad for name, one in tensors.items() if one.grad is not None}
        if not found:
            raise ValueError(
                f"GradientNorms finds no gradients after a step: this loop, around a {type(self.model).__name__}, drops them "
                "before callbacks are called. In a loop of your own call `optimizer.zero_grad()` before `backward()`, not "
                "after the step."
            )
        norms = {"": get_total_norm(list(found.values()))}
        if self.by_weight:
            norms.update({name: get_total_norm([gradient]) for name, gradient in found.items()})
        if self._factor is not None:
            norms = {name: norm / self._factor for name, norm in norms.items()}
        if len(self.sums) == len(norms) and not set(self.sums) - {""} <= set(tensors):
            # A state of another object of the same model, whose layers have other names.
            self.sums = dict(zip(norms, self.sums.values(), strict=True))
        self.counted += 1
        whole_norm = norms[""]
        self.largest = whole_norm if self.largest is None else self.largest.maximum(whole_norm)
        for name, norm in norms.items():
            self.sums[name] = self.sums[name] + norm if name in self.sums else norm

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the norms into the logs, and note where they stopped being finite."""
        if not self.counted or logs is None:
            return
        for name, total in self.sums.items():
            logs["gradient_norm" + (f"_{name}" if name else "")] = float(total) / self.counted
        logs["gradient_norm_max"] = largest = float(self.largest)
        if not math.isfinite(largest):
            self._decided("note", "gradients_not_finite", value=str(largest))

    def close(self) -> None:
        """Let the model choose again."""
        if self._put_back:
            self._put_back = self.model.run_eagerly = False
