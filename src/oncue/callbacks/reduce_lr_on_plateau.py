"""ReduceLROnPlateau: smaller steps when a value doesn't get better any more."""

from __future__ import annotations

from typing import Any

from oncue.callbacks.judging_callback import JudgingCallback
from oncue.callbacks.rates import log_rates, require_settable, same_rate
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.numbers import finite, whole
from oncue.core.protocols import optimizers_of
from oncue.core.suggest import unknown
from oncue.legacy import renamed


@builtin
class ReduceLROnPlateau(JudgingCallback):
    """Multiplies the learning rate by `factor` when a value has not improved for `patience` epochs.

    The rate becomes `max(learning_rate * factor, min_lr)`, as in Keras. A value that is not finite never improves.
    Epochs without the value (by `validation_freq`) count neither way. With `validation_freq="500 steps"` each validation counts
    as an epoch does, wherever it is.

    The epoch's logs get `learning_rate`, the rate that the epoch trained with.

    Args:
        monitor: The name of the value in the logs.
        factor: What to multiply the rate by, more than 0 and less than 1.
        patience: Epochs in a row without improvement after which the rate is reduced.
        verbose: 1 to say so.
        mode: "min", "max", or "auto" to take the metric's own direction.
        min_delta: The change that is not yet an improvement, in the value's unit; its sign doesn't matter.
        cooldown: Epochs after a reduction that don't count.
        min_lr: The rate below which it is never reduced.
        **kwargs: Keras 2's `epsilon`, now `min_delta`.

    Attributes:
        best: The best value so far; None before the first.
        wait: Epochs in a row without improvement.
        cooldown_counter: How many epochs of `cooldown` are left.

    Raises:
        ValueError: For a `factor` that is not between 0 and 1, a negative `patience`, `cooldown` or `min_lr`, or an
            argument that is not known.
        TypeError: Before the first step, where a `LearningRateSchedule` sets the rate.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile(oncue.optimizers.SGD(0.5), loss="mse")
        >>> reduce = ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e9)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=4, verbose=0, callbacks=[reduce])
        >>> history.history["learning_rate"]
        [0.5, 0.5, 0.25, 0.125]
    """

    state_fields = ("best", "cooldown_counter", "wait")
    writes_learning_rate = True

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        **kwargs: Any,
    ) -> None:
        owner = type(self).__name__
        min_delta = renamed("ReduceLROnPlateau", kwargs).get("min_delta", min_delta)
        for name in kwargs:
            known = ("monitor", "factor", "patience", "verbose", "mode", "min_delta", "cooldown", "min_lr")
            raise unknown(f"argument of {owner}", name, known)
        super().__init__(monitor, mode, min_delta)
        self.factor = finite(owner, "factor", factor)
        if not 0 < self.factor < 1:
            raise ValueError(
                f"`factor` of {owner} must be more than 0 and less than 1, because the rate is multiplied by it; got "
                f"{factor!r}."
            )
        self.patience = whole(owner, "patience", patience)
        self.verbose = verbose
        self.cooldown = whole(owner, "cooldown", cooldown)
        self.min_lr = finite(owner, "min_lr", min_lr)
        if self.min_lr < 0:
            raise ValueError(f"`min_lr` of {owner} must be 0 or more; got {min_lr!r}.")
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.cooldown_counter = 0
        self.wait = 0

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("rate",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self._reset()
        require_settable(self.model, type(self).__name__, "leave out the callback")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the epoch's rate, look at the value, and reduce when it has not improved for too long."""
        log_rates(self.model, logs)
        super().on_epoch_end(epoch, logs)

    def judge(self, value: float, epoch: int) -> None:
        """Reduce when the value has not improved for too long."""
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.watch.is_better(value, self.best):
            self.best = value
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch, value):
                self.cooldown_counter = self.cooldown
                self.wait = 0

    def in_cooldown(self) -> bool:
        """Return whether epochs don't count for now, after a reduction."""
        return self.cooldown_counter > 0

    def _reduce(self, epoch: int, current: float) -> bool:
        reduced = False
        for name, optimizer in optimizers_of(self.model):
            before = float(optimizer.learning_rate)
            if before <= self.min_lr or same_rate(before, self.min_lr):
                continue
            after = max(before * self.factor, self.min_lr)
            optimizer.learning_rate = after
            reduced = True
            whose = f"{name} learning rate" if name else "learning rate"
            if self.verbose > 0:
                print_message(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing {whose} to {after}.")
            self._decided(
                "learning_rate",
                "plateau",
                optimizer=name,
                before=before,
                after=after,
                monitor=self.monitor,
                value=current,
                best=self.best,
                wait=self.wait,
                direction=self.watch.direction,
                min_delta=self.min_delta,
            )
        return reduced
