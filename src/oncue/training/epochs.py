"""What `fit`, `evaluate` and `predict` do, on any model that has a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from oncue.callbacks import CallbackList, History
from oncue.core.warn import warn
from oncue.feeding.batch import Batch, Batches
from oncue.layers.modes import half_trained, switch_off, switch_on
from oncue.nested import flatten
from oncue.training.changed_batches import changed_batches
from oncue.training.loop import Result, run_batches
from oncue.training.pace import Pace
from oncue.training.probe import mode
from oncue.training.run_state import RunState
from oncue.training.steps import Step, Steps
from oncue.training.validations import Validations

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer


def make_callbacks(callbacks: Any, model: Trainer, **params: Any) -> CallbackList:
    """Return the list of a run: a `CallbackList` as it is, or one made of the callbacks that were given.

    Args:
        callbacks: None, a callback, nested lists of callbacks, or a `CallbackList`.
        model: The model.
        **params: `verbose`, `epochs`, `steps`, and `add_history`.

    Returns:
        A list that belongs to the model.
    """
    history = params.pop("add_history", False)
    if isinstance(callbacks, CallbackList):
        if callbacks.model is None:
            callbacks.set_model(model)
        if history and not any(isinstance(item, History) for item in callbacks.callbacks):
            callbacks.append(History())
        return callbacks
    return CallbackList(callbacks, add_history=history, add_progbar=params["verbose"] != 0, model=model, **params)


def train_epochs(
    model: Trainer,
    batches: Batches,
    validation: Batches | None,
    callbacks: CallbackList,
    epochs: int,
    initial_epoch: int,
    validations: Validations,
) -> None:
    """Train for some epochs, with validation where it is due.

    Args:
        model: A prepared model.
        batches: The training data.
        validation: The validation data, or None.
        callbacks: The list of the run.
        epochs: The index of the epoch to stop before.
        initial_epoch: The index of the first epoch.
        validations: Says when validation is due.
    """
    training = Steps(model, "train", callbacks, batches)
    testing = training if validation is None else Steps(model, "test", callbacks, validation)
    parallel = model._parallel
    logs: dict[str, Any] = {}
    pace = model._plan.pace = Pace(model.device, batches)
    with RunState(model, batches, callbacks, validation, validations) as run_state:
        amid = None
        if validation is not None and validations.amid:
            amid = ValidationAmid(model, validations, run_state, training, testing, (batches, validation), callbacks)
        pending = run_state.pending()
        with run_state.hooks():
            callbacks.on_train_begin()
        run_state.begin()
        validations.begin()
        first = model._initial_epoch if model._initial_epoch is not None else initial_epoch
        if pending is not None:
            first = pending.epoch
            # Callbacks reset themselves when training begins, so their state is restored after that.
            run_state.restore(pending)
            training.restored()
            testing.restored()
            epochs = first if pending.stopped else epochs
        else:
            run_state.keep()
        # A loop of one's own around `fit` may give it a part of the epochs.
        whole = validation is not None and pending is None and first == 0 and epochs > 0
        if whole:
            validations.warn_if_never(epochs, batches.num_batches)
        epoch = first
        while epoch < epochs:
            start = pending.batch if pending is not None and epoch == pending.epoch else 0
            one_pass = _peeked(batches, start)
            if one_pass is None:
                break
            model.reset_metrics()
            with run_state.hooks():
                callbacks.on_epoch_begin(epoch)
            if pending is not None and start:
                # The state was saved after this hook had run.
                run_state.restore(pending, begun=True)
                training.restored()
                testing.restored()
            run_state.begun(epoch)
            if parallel is not None:
                parallel.begin_epoch(epoch)
                parallel.metrics.begin_pass()
            switch_on(model)
            if epoch == first:
                _tell_of_half_trained(model)
            # The hook of a validation in which a model is trained is called without gradients.
            pace.begin()
            with torch.enable_grad(), training:
                changed = changed_batches(one_pass, callbacks)
                steps, result = run_batches("train", changed, training, callbacks, model, start, amid)
            if callbacks.paused is not None:
                break
            callbacks.end_trial()
            if run_state.rollback is None:
                # A run resumed after the last batch of an epoch has no batch left, but the values, or else the sums.
                known = pending.parts.get("results") if pending is not None and 0 < start == steps else None
                result = model._plan.meter if result is None and start else result
                logs = dict(known) if known else _results(model, training.plan, "train_step", steps, result)
                pace.end(start, steps)
                switch_off(model)
                if validation is not None and validations.at_end(epoch):
                    with run_state.measuring(steps, logs):
                        measured = test_batches(model, testing, validation, callbacks)
                    if callbacks.paused is not None:
                        break
                    logs.update(_of_validation(measured))
                    validations.done({})
                elif validations.values:
                    logs.update(validations.values)
                    callbacks.progress.validated_amid, validations.values = True, {}
                with run_state.hooks():
                    callbacks.on_epoch_end(epoch, dict(logs))
            again = run_state.take_rollback()
            if again is not None:
                training.restored()
                testing.restored()
                pending, epoch = again, again.epoch
                if model.stop_training:
                    break
                continue
            run_state.keep()
            if parallel is not None:
                parallel.comparison.after_epoch(callbacks.journal, epoch)
            epoch += 1
            if model.stop_training or callbacks.paused is not None:
                break
        run_state.put_nothing_off()
        if whole and validations.by_time and not validations.measured and callbacks.paused is None:
            validations.warn_if_never(epoch, batches.num_batches, over=True)
        finalize = getattr(model.optimizer, "finalize_variable_values", None)
        if finalize is not None and callbacks.paused is None and (epochs > first or pending is not None):
            finalize(model._optimized())
        callbacks.on_train_end(logs)


def test_batches(model: Trainer, steps: Steps, batches: Batches, callbacks: CallbackList) -> dict[str, float]:
    """Evaluate a prepared model on one pass; the validation of `fit` and `evaluate` itself.

    Args:
        model: The model.
        steps: Its steps of the kind "test".
        batches: The data.
        callbacks: The list of the run.

    Returns:
        The values of the loss and the metrics, by sorted name; empty when there was no batch.
    """
    model.stop_evaluating = False
    if callbacks.owed is not None:
        callbacks.owed.settle()
    callbacks.on_test_begin()
    model.reset_metrics()
    if model._parallel is not None:
        model._parallel.metrics.begin_pass()
    with torch.no_grad(), steps:
        done, result = run_batches("test", batches.epoch(), steps, callbacks, model)
    logs = _results(model, steps.plan, "test_step", done, result)
    callbacks.on_test_end(dict(logs))
    return logs


class ValidationAmid:
    """Validates between two batches of training, and leaves the running values and the mode of the epoch as they were.

    Args:
        model: A prepared model.
        validations: Says when that is due.
        run_state: The state of the run.
        training: The steps of training.
        testing: Those of validation.
        data: The data of training and of validation.
        callbacks: The list of the run.
    """

    def __init__(
        self,
        model: Trainer,
        validations: Validations,
        run_state: RunState,
        training: Steps,
        testing: Steps,
        data: tuple[Batches, Batches],
        callbacks: CallbackList,
    ) -> None:
        self._validations, self._run_state, self._callbacks = validations, run_state, callbacks
        self._model, self._training, self._testing, self._data = model, training, testing, data

    @property
    def due(self) -> bool:
        """Whether it is due now."""
        return self._validations.due

    def count(self, batch: int) -> None:
        """Count a batch that has been trained.

        Args:
            batch: Its index in the epoch.
        """
        self._validations.count(batch, self._callbacks.group)

    def validate(self, done: int, result: Result) -> bool:
        """Validate if that is due and the epoch goes on; return whether the pass ends now.

        Args:
            done: How many batches are done.
            result: What the last one gave; None before the first.
        """
        (batches, validation), callbacks, model = self._data, self._callbacks, self._model
        if not self.due or done == batches.num_batches or callbacks.progress.trial:
            # After the last batch it is that of the epoch's end; what is taken back isn't measured.
            return False
        parallel = model._parallel
        with self._run_state.measuring(done, None), _epoch_set_aside(model):
            measured = test_batches(model, self._testing, validation, callbacks)
        if callbacks.paused is not None:
            return True
        values = _of_validation(measured)
        self._validations.done(values)
        callbacks.progress.batch = done - 1
        source: Any = model._plan.meter if result is None else result
        with nullcontext() if parallel is None else parallel.metrics.summed():
            trained = dict(zip(source.names, source.read(), strict=True))
        with self._run_state.hooks():
            callbacks.on_validation_end(done - 1, {**trained, **values})
        if parallel is not None:
            parallel.questions.ask_all()
        ends = self._training.ends
        return bool(model.stop_training) if ends is None else ends()


@contextmanager
def _epoch_set_aside(model: Trainer) -> Iterator[None]:
    kept = [(metric, metric.get_state()) for metric in model.metrics]
    parallel = model._parallel
    with mode(model, False), nullcontext() if parallel is None else parallel.metrics.pass_set_aside():
        yield
    for metric, state in kept:
        metric.set_state(state)


def _of_validation(measured: dict[str, float]) -> dict[str, float]:
    return {f"val_{name}": value for name, value in measured.items()}


def predict_batches(model: Trainer, batches: Batches, callbacks: CallbackList) -> Any:
    """Run a built model over one pass and return what it gave, as NumPy arrays joined along the batch axis."""
    model.stop_predicting = False
    parts: list[Any] = []

    parallel = model._parallel

    def kept(run: Step) -> Step:
        def step(batch: Batch) -> Result:
            outputs = run(batch)
            parts.append(outputs)
            return {"outputs": outputs if parallel is None else parallel.predictions.own(outputs)}

        return step

    steps = Steps(model, "predict", callbacks, batches, kept)
    callbacks.on_predict_begin()
    with torch.no_grad(), steps:
        run_batches("predict", batches.epoch(), steps, callbacks, model)
    callbacks.on_predict_end()
    if not parts:
        raise ValueError("`predict` got no batch: `x` is empty, or a generator that had nothing left.")
    if parallel is None:
        leaves = [torch.cat(pieces) for pieces in zip(*(flatten(part) for part in parts), strict=True)]
    else:
        leaves = parallel.predictions.gathered(parts)
    joined = iter([as_numpy(leaf) for leaf in leaves])
    return _like(parts[0], joined)


def _like(form: Any, leaves: Iterator[Any]) -> Any:
    # `flatten` goes through a dict by sorted name; the caller sees the model's own order.
    if isinstance(form, dict):
        by_name = {name: _like(form[name], leaves) for name in sorted(form)}
        return {name: by_name[name] for name in form}
    if isinstance(form, (list, tuple)):
        parts = [_like(part, leaves) for part in form]
        if isinstance(form, list):
            return parts
        return type(form)(*parts) if hasattr(form, "_fields") else tuple(parts)
    return next(leaves)


def as_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return a tensor as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    tensor = tensor.detach()
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy())


def _tell_of_half_trained(model: Trainer) -> None:
    parts = half_trained(model)
    if parts:
        names = ", ".join([f"`{part}`" for part in parts[:3]]) + (
            f" and {len(parts) - 3} more" if len(parts) > 3 else ""
        )
        warn(
            f"{names} {'stays' if len(parts) == 1 else 'stay'} in inference mode because of an `eval()`, while the weights are "
            "trained: without dropout, and with the averages of batch normalization. If that isn't meant, call `train()` of "
            "each before `fit`; else freeze the weights with `requires_grad_(False)`, or leave this warning out with "
            "`warnings.filterwarnings`."
        )


def _results(model: Trainer, plan: Plan, method: str, steps: int, result: Result) -> dict[str, Any]:
    """Return the values of a pass as Python floats: the metrics', or what an overridden step returned last."""
    if not steps or result is None:
        return {}
    if model._parallel is not None:
        model._parallel.metrics.sum()
    source: Any = result
    values = dict(zip(source.names, source.read(), strict=True))
    if {method, "compute_metrics"} & plan.overridden:
        own = model.get_metrics_result()
        if own and set(own) == set(values):
            # A step of the user's needn't give its loss to the mean that all models have.
            return own if "loss" not in own or model._measures_loss() else {**own, "loss": values["loss"]}
    return values


def _peeked(batches: Batches, start: int) -> Iterator[Batch] | None:
    """Return a pass from a batch; None when a stream has nothing left, so that no epoch begins which can't be trained."""
    one_pass = iter(batches.epoch(start))
    if batches.restartable or start:
        return one_pass
    first = next(one_pass, None)
    return None if first is None else _chained(first, one_pass)


def _chained(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from rest
