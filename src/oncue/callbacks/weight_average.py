"""WeightAverage: measure, save and end with an average of the weights, train with the weights."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.every import Every
from oncue.core.numbers import number_of, whole
from oncue.core.protocols import tensors_of
from oncue.core.warn import warn


@builtin
class WeightAverage(Callback):
    """Keeps an average of the weights, whatever optimizer trains them, and leaves it in the model in the end.

    The average is in the model from the beginning of each validation, and from the end of each epoch, until training goes on:
    it is what is measured, what `ModelCheckpoint` saves then, and what `EarlyStopping` puts back. Training goes on with the
    trained weights. After an error the model has the trained weights.

    With a `decay` it is a moving average: `average = decay * average + (1 - decay) * weights`, which begins with the weights of
    the first time. With `decay=None` all count equally, as in stochastic weight averaging: use `every="1 epoch"` and a
    `start_from_epoch` late in the run.

    All floating-point parameters and buffers are averaged, the statistics of batch normalization among them; other buffers stay
    as they are. The average takes as much memory as the weights, where they are.

    Args:
        decay: How much of the average stays at each update, from 0 to below 1; None for the mean of all.
        every: How often it is updated: "1 step", "10 steps" or "1 epoch", which is after the epoch's last step.
        start_from_epoch: The index of the first epoch whose weights count.

    Attributes:
        count: How often it was updated.

    Raises:
        ValueError: For another `decay`, a period of time, and before the first step: for a model that isn't a torch module, and
            for a period of epochs where the number of an epoch's steps isn't known.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("adam", loss="mse")
        >>> x, y = np.ones((64, 2)), np.ones((64, 1))
        >>> average = WeightAverage(decay=0.9)
        >>> history = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[average])
        >>> average.count
        2
    """

    state_fields = ("average", "count", "shown", "waited")

    def __init__(self, decay: float | None = 0.999, every: str | Every = "1 step", start_from_epoch: int = 0) -> None:
        super().__init__()
        share = None if decay is None else number_of(decay)
        if decay is not None and (share is None or not 0 <= share < 1):
            raise ValueError(
                f"`decay` of WeightAverage must be a number from 0 to below 1, or None to count all equally; got {decay!r}."
            )
        self.decay = None if share is None else float(share)
        self.every = Every(every, "WeightAverage")
        if self.every.unit == "second":
            raise ValueError(
                f"`every` of WeightAverage must be a period of steps or epochs, because a run that is resumed has other times; "
                f"got {every!r}. Use '10 steps' or '1 epoch'."
            )
        self.start_from_epoch = whole("WeightAverage", "start_from_epoch", start_from_epoch)
        self._reset()

    def _reset(self) -> None:
        self.count = 0
        self.shown = False
        self._tensors: dict[str, Any] = {}
        # In the order of the tensors; those of the trained weights while the average is in the model.
        self._average: list[Any] = []
        self._epoch = 0
        self._training = False
        # Whether validation of this epoch has begun, and whether it was said that a loop doesn't tell of it.
        self._measured = self._told = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy keeps its own average.
        fresh: dict[str, Any] = {"count": 0, "shown": False, "_tensors": {}, "_average": [], "_training": False}
        return {**super().__getstate__(), **fresh, "every": copy(self.every)}

    @property
    def average(self) -> list[Any]:
        """The average, in the order of the weights; the trained weights while it is in the model. Empty before the first."""
        return list(self._average)

    @average.setter
    def average(self, saved: Sequence[Any]) -> None:
        self._look()
        own = list(self._tensors.values())
        # Layers of another object of the same model have other names.
        if saved and [tuple(one.shape) for one in saved] != [tuple(one.shape) for one in own]:
            raise ValueError("The state of WeightAverage is of other weights than the model's.")
        self._average = [found.to(one.device, copy=True) for found, one in zip(saved, own, strict=False)]

    @property
    def waited(self) -> dict[str, Any]:
        """How much of the period has passed: what a resumed run gets back."""
        return self.every.state_dict()

    @waited.setter
    def waited(self, state: dict[str, Any]) -> None:
        self.every.load_state_dict(state)

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("around_validation",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing.

        Raises:
            ValueError: When there is nothing to average, or no telling when an epoch's last step is.
        """
        self._reset()
        self.every = Every(self.every)
        if self.every.unit == "epoch" and (self.params or {}).get("steps") is None:
            raise ValueError(
                f"WeightAverage(every='{self.every}') must know how many steps an epoch has, to take the weights before "
                "validation, and this loop doesn't say. Give `steps_per_epoch` in `fit`; or count steps: every='100 steps'."
            )
        self._look()
        self._training = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on with the trained weights."""
        self._show(False)
        self._epoch, self._measured = epoch, False
        self._look()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Go on with the trained weights after a validation amid the epoch."""
        self._show(False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the weights to the average, when that is due."""
        if self._epoch < self.start_from_epoch:
            return
        if self.every.unit == "epoch":
            due = batch + 1 == (self.params or {})["steps"] and self.every.after_epoch()
        else:
            due = self.every.after_batch(batch)
        if due:
            self._update()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measure the average."""
        if self._training:
            self._measured = True
            self._show(True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the average to those that save."""
        if self._average and not self._measured and any(name.startswith("val_") for name in logs or ()):
            self._tell_of_other_weights()
        self._show(True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the average in the model."""
        self._show(True)
        self._training = False
        if self.count:
            self._decided("average", "averaged", count=self.count, decay=self.decay, every=str(self.every))
        else:
            warn(
                f"WeightAverage has averaged nothing, because the run ended before it began: start_from_epoch="
                f"{self.start_from_epoch}, every='{self.every}'. The model has the trained weights."
            )

    def on_exception(self, exception: BaseException) -> None:
        """Put the trained weights back."""
        self.close()

    def close(self) -> None:
        """Put the trained weights back, unless training came to its end."""
        if self._training:
            self._training = False
            self._show(False)

    def _tell_of_other_weights(self) -> None:
        if not self._told:
            self._told = True
            warn(
                "WeightAverage keeps an average, and this loop has validated without telling callbacks when that begins: it "
                "measured the trained weights. Give `validation=...` to `oncue.hosts.loop`, a function that measures."
            )

    def _look(self) -> None:
        """Find the tensors that are averaged, which may be others since the epoch before."""
        found = {
            name: one for name, one in tensors_of(self.model).items() if one.is_floating_point() or one.is_complex()
        }
        if not found:
            raise ValueError(
                f"WeightAverage needs a torch module, or a model of Keras with the torch backend; a "
                f"{type(self.model).__name__} has no weights that it could average."
            )
        if self._average and list(found) != list(self._tensors):
            other = ", ".join(sorted(set(found) ^ set(self._tensors)))
            raise ValueError(
                f"The model has other weights since WeightAverage began: {other}. Average from where they are all there on, "
                "with `start_from_epoch`."
            )
        self._tensors = found

    def _update(self) -> None:
        from torch.optim import swa_utils

        functions: Any = swa_utils
        now = [one.detach() for one in self._tensors.values()]
        if not self._average:
            self._average = [one.clone() for one in now]
        else:
            mean = self.decay is None
            add = functions.get_swa_multi_avg_fn() if mean else functions.get_ema_multi_avg_fn(self.decay)
            add(self._average, now, self.count)
        self.count += 1

    def _show(self, shown: bool) -> None:
        if shown == self.shown or not self._average:
            return
        import torch

        if self._run is not None and self._run.owed is not None:
            self._run.owed.settle()
        with torch.no_grad():
            for own, one in zip(self._average, self._tensors.values(), strict=True):
                kept = one.clone()
                one.copy_(own)
                own.copy_(kept)
        self.shown = shown
