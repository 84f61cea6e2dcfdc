"""SwapEMAWeights: measure with the moving average of the weights, train with the weights."""

from __future__ import annotations

from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.protocols import HasWeightAverage, inner_optimizer_of, optimizer_of, shows_average


@builtin
class SwapEMAWeights(Callback):
    """Puts the moving average of the weights into the model while it is evaluated or predicts.

    The optimizer must have been made with `use_ema=True`. Afterwards, and after an error, the model has the weights
    that are trained again. At the end of `fit` the optimizer leaves the average in the model, with or without this
    callback.

    Args:
        swap_on_epoch: Whether the average is in the model from the end of each epoch to the start of the next, so that
            callbacks that save the model then save the average.

    Raises:
        ValueError: When training, evaluation or prediction starts, for an optimizer without `use_ema`.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile(oncue.optimizers.SGD(0.1, use_ema=True), loss="mse")
        >>> x, y = np.ones((4, 2)), np.ones((4, 1))
        >>> history = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[SwapEMAWeights()])
    """

    state_fields = ("average_in_model",)

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch

    @property
    def average_in_model(self) -> bool:
        """Whether the model has the average now; a resumed run must know which weights it has."""
        return self._optimizer().average_in_model

    @average_in_model.setter
    def average_in_model(self, value: bool) -> None:
        self._optimizer().average_in_model = value

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("average",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Refuse an optimizer that keeps no average."""
        self._optimizer()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Continue with the trained weights."""
        self._show(False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Show the average to the callbacks that follow, if that is wanted."""
        if self.swap_on_epoch:
            self._show(True)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measure with the average."""
        self._show(True)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._show(False)

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Predict with the average."""
        self._show(True)

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Put the trained weights back."""
        self._show(False)

    def on_exception(self, exception: BaseException) -> None:
        """Put the trained weights back."""
        self._put_back()

    def close(self) -> None:
        """Put the trained weights back, if they aren't yet."""
        self._put_back()

    def _show(self, shown: bool) -> None:
        if self._run is not None and self._run.owed is not None:
            self._run.owed.settle()
        self._optimizer().show_average(shown)

    def _put_back(self) -> None:
        # An optimizer that was refused has nothing to put back.
        optimizer = optimizer_of(self.model)
        if shows_average(optimizer) and optimizer.use_ema:
            optimizer.show_average(False)

    def _optimizer(self) -> HasWeightAverage:
        optimizer = inner_optimizer_of(optimizer_of(self.model))
        if not shows_average(optimizer):
            raise ValueError(
                f"SwapEMAWeights needs an optimizer of oncue made with `use_ema=True`; {type(optimizer).__name__} has "
                "no moving average that it can show. In Keras's own loop use `keras.callbacks.SwapEMAWeights`."
            )
        if not optimizer.use_ema:
            raise ValueError(
                "SwapEMAWeights needs an optimizer that keeps a moving average of the weights; this one has "
                f"use_ema=False. Use `{type(optimizer).__name__}(..., use_ema=True)`."
            )
        return optimizer
