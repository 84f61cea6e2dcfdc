"""Trainer: compile, fit, evaluate and predict, for any model that is a torch module."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue import backend, optimizers
from oncue.callbacks import CallbackList
from oncue.core.builtin import builtin, is_builtin
from oncue.core.interrupts import Interrupts
from oncue.core.numbers import number_of, whole
from oncue.core.process import process
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.batches import as_batches, check_apart, split_validation, unpack_x_y_sample_weight
from oncue.feeding.tensors import is_batch_list
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.layer import Layer
from oncue.layers.modes import switch_off, switch_on, take_trainable
from oncue.layers.own_arrays import own_arrays, put_own_arrays
from oncue.layers.real_keras import refuse_real_keras
from oncue.layers.trial import Trial
from oncue.legacy import RunParams, methods as old_methods, take_old_arguments
from oncue.metrics.metric import Metric
from oncue.nested import first_leaf, map_leaves
from oncue.optimizers.accumulation import accumulate
from oncue.optimizers.loss_scale_optimizer import scaled
from oncue.torch_private import modes_put_back
from oncue.training.arguments import check_frequency, check_verbose
from oncue.training.epochs import as_numpy, make_callbacks, predict_batches, test_batches, train_epochs
from oncue.training.limits import limited_batches, limited_epochs
from oncue.training.memory import told_of_memory
from oncue.training.meter import Meter, Reading
from oncue.training.output_losses import OutputLosses
from oncue.training.output_metrics import OutputMetrics
from oncue.training.pairings import warn_of_pairings
from oncue.training.parallel import Parallel, has_sharded_parts, parallel_run, shared
from oncue.training.parallel_step import make_parallel_prediction
from oncue.training.plan import OVERRIDABLE, Forward, Plan, metrics_of_layers
from oncue.training.precision import Precision, in_float32, inference_forward, weights_cast_anew
from oncue.training.probe import (
    check_targets,
    learn_outputs,
    mode,
    probe,
    probe_validation,
    refuse_sparse_gradients,
    require_targets,
)
from oncue.training.step import make_step, unpacked
from oncue.training.steps import Steps, eager_step
from oncue.training.validations import Validations
from oncue.variable import Variable, torch_dtype

_COUNTED = frozenset(("optimizer", "loss", "jit_compile", "run_eagerly", "steps_per_execution", *OVERRIDABLE))
"""The attributes that a step is made from: one that is assigned, in a hook too, counts from the next step."""

_COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_REQUESTS = ("stop_evaluating", "stop_predicting")
"""What a run resets in the model, besides its running values and its mode."""

_NEVER_ASKED = ("make_train_function", "make_test_function", "make_predict_function")

# Held while runs are counted, which may be those of several threads.
_counting = threading.Lock()


@builtin
class Trainer(Layer):
    """A layer that is compiled, trained, evaluated and asked for predictions. Callbacks are known to it only as a list.

    Example:
        >>> class Double(Trainer):
        ...     def call(self, inputs):
        ...         return inputs * 2
        >>> Double().predict([[1.0]], verbose=0).tolist()
        [[2.0]]
    """

    compiled: bool = False
    optimizer: Any = None
    loss: Any = None
    jit_compile: bool | str = False
    run_eagerly: bool = False
    steps_per_execution: int = 1
    stop_training: bool = False
    stop_evaluating: bool = False
    stop_predicting: bool = False
    history: Any = None
    _holds_layers = True
    _takes_several = True
    _chosen_device: torch.device | None = None
    _initial_epoch: int | None = None
    # The runs that are under way, each as its method and its thread: one inside another, and predictions of several threads.
    _runs: tuple[tuple[str, int], ...] = ()
    # Whether callbacks of the user's are being called between two steps of training.
    _in_hook: bool = False
    # The run under way on several processes; None for the usual one.
    _parallel: Parallel | None = None
    # Who may add losses, and whether that was found for the run under way, of this model or of one around it. Outside of runs
    # it is looked up in each call, because layers may have changed.
    _layer_losses: _LayerLosses | None = None
    _layer_losses_kept: bool = False

    of_the_run = Layer.of_the_run | {
        "_changes",
        "_in_hook",
        "_layer_losses",
        "_layer_losses_kept",
        "_parallel",
        "_plan",
        "_runs",
        "compiled",
        "history",
        "jit_compile",
        "loss",
        "optimizer",
        "run_eagerly",
        "steps_per_execution",
        *_REQUESTS,
        "stop_training",
    }

    of_other_layers: frozenset[str] = frozenset()
    """The attributes of layers of another library that each call of them may set, and that decide nothing."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._refuse_unasked_methods()
        self._plan = Plan()
        # The names of what was assigned of `_COUNTED`, in their order, since the run under way began.
        self._changes: list[str] = []

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        *,
        precision: str | None = None,
        gradient_accumulation_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Say how the model is trained and measured.

        Args:
            optimizer: A name ("adam"), an oncue optimizer, a `torch.optim.Optimizer` made with this model's parameters,
                or a function from the parameters to one.
            loss: A name ("mse"), an oncue loss, a function of `(y_true, y_pred)`, or a `torch.nn` loss; a list or a
                dict of them for several outputs.
            loss_weights: Factors for the losses of several outputs. A tensor without axes is read at every step, so that a
                callback may change it with `fill_`.
            metrics: A list of names ("accuracy"), oncue metrics, functions of `(y_true, y_pred)`, or torchmetrics.
            weighted_metrics: The same, weighted by `sample_weight` and `class_weight`.
            run_eagerly: True to never compile.
            steps_per_execution: How many batches to run between the batch hooks of callbacks.
            jit_compile: True to compile whole steps (forward, loss, backward, update and metrics) with `torch.compile`,
                which takes some seconds once and makes small networks several times faster; what can't be compiled runs
                eagerly, with a warning that says why. "auto" does so for runs of 200,000 steps or more. False doesn't.
            auto_scale_loss: Whether losses are scaled where gradients are of float16: the optimizer is wrapped in a
                `LossScaleOptimizer` under the policy "mixed_float16" and with `precision="fp16"`.
            precision: "bf16" or "fp16" to run the model in 16 bits, under torch's autocast, with weights, optimizer,
                loss and metrics in 32; "fp32" or None for 32 bits, or what the layers' own policies say.
            gradient_accumulation_steps: Update at every so many batches, by the mean of their gradients.
            **kwargs: No further arguments; a misspelt one is named.

        Raises:
            TypeError: For an argument that doesn't exist.
            ValueError: For an unknown name or a value that can't be used.

        Example:
            >>> from oncue import Sequential, layers
            >>> model = Sequential([layers.Input((4,)), layers.Dense(1)])
            >>> model.compile(optimizer="adam", loss="mse", metrics=["mae"])
        """
        self._take_old_arguments("compile", kwargs)
        steps_per_execution = whole("", "steps_per_execution", steps_per_execution, least=1)
        _check_jit_compile(jit_compile)
        names = getattr(self, "output_names", None)
        losses = None if loss is None else OutputLosses(loss, loss_weights, output_names=names)
        measured = None
        if metrics is not None or weighted_metrics is not None:
            measured = OutputMetrics(metrics, weighted_metrics, output_names=names)
        jit_compile = jit_compile if jit_compile is not None and not run_eagerly else False
        plan = Plan(losses, measured, Precision.of(precision), jit_compile)
        plan.accumulation, plan.auto_scale_loss = gradient_accumulation_steps, auto_scale_loss
        values = {
            "optimizer": self._completed(optimizers.get(optimizer), plan),
            "loss": loss,
            "run_eagerly": run_eagerly,
            "jit_compile": jit_compile,
            "steps_per_execution": steps_per_execution,
            "compiled": True,
        }
        self._put_plan(plan, "compile")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: Any = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        **kwargs: Any,
    ) -> Any:
        """Train for a number of epochs.

        Args:
            x: Inputs: arrays, tensors, nested lists and dicts of them, a DataLoader, a Dataset, a generator, a
                `PyDataset`, a data frame or a Hugging Face data set.
            y: Targets; not given when `x` gives them.
            batch_size: Samples in a batch; 32 by default.
            epochs: The epoch to stop before, counted from 0: with `initial_epoch=0`, the number of epochs.
            verbose: 0 silent, 1 a progress bar, 2 a line for each epoch, "auto" (1).
            callbacks: A callback, nested lists of them, or a `CallbackList`.
            validation_split: The share of the data, taken from its end before shuffling, to validate on.
            validation_data: `(x, y)`, `(x, y, sample_weight)`, or a source of batches, to validate on.
            shuffle: Whether to shuffle arrays before every epoch; "batch" to shuffle whole batches.
            class_weight: Factors for the loss of the samples of each class.
            sample_weight: Factors for the loss of each sample.
            initial_epoch: The index of the first epoch.
            steps_per_epoch: Batches in an epoch; by default all of them.
            validation_steps: Batches of validation; by default all of them. Each validation takes the first ones; a generator
                goes on where it stopped.
            validation_batch_size: Samples in a batch of validation; `batch_size` by default.
            validation_freq: Validate every so many epochs, or in the epochs of a list (counted from 1); or after a period of
                "500 steps" or "10 minutes", amid epochs too. Then callbacks that watch a value of validation decide by each:
                `patience` counts validations.
            **kwargs: Arguments of older Keras versions, such as `nb_epoch`.

        Returns:
            The `History`, whose `history` is a dict of lists, one value for each epoch.

        Raises:
            TypeError: For an argument that doesn't exist, or an object that isn't a callback.
            ValueError: For data or arguments that can't be used; before the first step.
        """
        epochs = self._take_old_arguments("fit", kwargs).get("epochs", epochs)
        self._require_compiled("fit")
        epochs, initial_epoch = limited_epochs(whole("", "epochs", epochs)), whole("", "initial_epoch", initial_epoch)
        verbose, validations = check_verbose(verbose), Validations(check_frequency(validation_freq))
        device, parallel = self._place(), parallel_run(self)
        if parallel is not None:
            parallel.comparison.same_random_state()
        if validation_data is None and validation_split is not None and number_of(validation_split) != 0:
            (x, y, sample_weight), validation_data = split_validation(x, y, sample_weight, validation_split)
        given = {"device": device, "batch_size": batch_size, "steps": steps_per_epoch}
        batches = self._batches(x, y, sample_weight, shuffle=shuffle, class_weight=class_weight, **given)
        batches = shared(batches, parallel)
        validation, val_x, val_y, val_weight = None, None, None, None
        if validation_data is not None:
            listed = y is None and is_batch_list(x)
            val_x, val_y, val_weight = _validation_parts(validation_data, listed)
            try:
                given = {**given, "batch_size": validation_batch_size or batch_size, "steps": validation_steps}
                validation = self._batches(val_x, val_y, val_weight, method="validation", **given)
            except ValueError as error:
                raise ValueError(f"`validation_data` can't be used: {error}") from error
            check_apart(batches, validation)
            validation = shared(validation, parallel)
        with Interrupts() as interrupts:
            self._begin("fit", interrupts, parallel, batches, validation, epochs=(initial_epoch, epochs))
            with told_of_memory(self, "train", batches):
                self._prepare(batches.first(), "fit", host=(x, y))
            run = self._callbacks_of(callbacks, parallel, batches, verbose=verbose, epochs=epochs, add_history=True)
            if validation is not None:
                probe_validation(self, self._plan, validation.first(), val_y)
            if isinstance(run.params, RunParams):
                run.params.tell(batches, self._ordered_names(), validation is not None)
            if val_y is not None:
                run.held_out = val_x, val_y, val_weight
            self._announce(run, validation is not None, validations.amid)
            steps = None if batches.num_batches is None else batches.num_batches * (epochs - initial_epoch)
            self._plan.graphs.choose(self._compiles, steps, verbose and not self.has_parts_of_weights)
            self.stop_training = False
            with run.run(), told_of_memory(self, "train", batches, run):
                train_epochs(self, batches, validation, run, epochs, initial_epoch, validations)
            history = self.history
        return history

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Measure the loss and the metrics.

        Args:
            x: Inputs, as for `fit`.
            y: Targets.
            batch_size: Samples in a batch; 32 by default.
            verbose: 0 silent, 1 a progress bar, 2 one line, "auto" (1).
            sample_weight: Factors for the loss of each sample.
            steps: Batches to measure on; by default all of them.
            callbacks: As for `fit`.
            return_dict: Return a dict from names to values.
            **kwargs: No further arguments; a misspelt one is named.

        Returns:
            The loss as a float; with metrics a list, the loss first; or a dict.

        Raises:
            ValueError: For data that can't be used.
        """
        self._take_old_arguments("evaluate", kwargs)
        self._require_compiled("evaluate")
        verbose = check_verbose(verbose)
        batches = self._batches(x, y, sample_weight, batch_size=batch_size, steps=steps, method="evaluate")
        parallel = parallel_run(self)
        batches = shared(batches, parallel)
        with Interrupts() as interrupts:
            self._begin("evaluate", interrupts, parallel, batches)
            with told_of_memory(self, "test", batches):
                self._prepare(batches.first(), "evaluate", host=(x, y))
            run = self._callbacks_of(callbacks, parallel, batches, verbose=verbose)
            with run.run(), told_of_memory(self, "test", batches, run):
                logs = test_batches(self, Steps(self, "test", run, batches), batches, run)
        return logs if return_dict else self._in_order(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Compute the model's outputs.

        Args:
            x: Inputs, as for `fit`.
            batch_size: Samples in a batch; 32 by default.
            verbose: 0 silent, 1 a progress bar, 2 one line, "auto" (1).
            steps: Batches to take; by default all of them.
            callbacks: As for `fit`.
            **kwargs: No further arguments; a misspelt one is named.

        Returns:
            A NumPy array, or arrays nested as the model's outputs are.

        Raises:
            ValueError: For data that can't be used.
        """
        self._take_old_arguments("predict", kwargs)
        verbose = check_verbose(verbose)
        device, dtype = self._place(), self.input_dtype
        batches = as_batches(x, batch_size=batch_size, steps=steps, device=device, dtype=dtype, method="predict")
        parallel = parallel_run(self)
        batches = shared(batches, parallel)
        with Interrupts() as interrupts:
            self._begin("predict", interrupts, parallel, batches)
            with told_of_memory(self, "predict", batches):
                self._prepare_predict(batches.first())
            run = self._callbacks_of(callbacks, parallel, batches, verbose=verbose)
            with run.run(), told_of_memory(self, "predict", batches, run):
                return predict_batches(self, batches, run)

    fit_generator = old_methods.fit_generator
    evaluate_generator = old_methods.evaluate_generator
    predict_generator = old_methods.predict_generator
    predict_classes = old_methods.predict_classes
    predict_proba = old_methods.predict_proba
    reset_states = old_methods.reset_states

    # One batch ---------------------------------------------------------------------------------------------------

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
        reset_metrics: bool = True,
    ) -> Any:
        """Train on one batch, without callbacks.

        Args:
            x: Inputs: arrays or tensors.
            y: Targets.
            sample_weight: Factors for the loss of each sample.
            class_weight: Factors for the loss of the samples of each class.
            return_dict: Return a dict from names to values.
            reset_metrics: False to let metrics run on from the last call.

        Returns:
            The loss; with metrics a list, the loss first; or a dict.
        """
        return self._on_batch("train", (x, y, sample_weight), class_weight, return_dict, reset_metrics)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False, reset_metrics: bool = True
    ) -> Any:
        """Measure one batch, without callbacks; arguments and result as those of `train_on_batch`."""
        return self._on_batch("test", (x, y, sample_weight), None, return_dict, reset_metrics)

    def predict_on_batch(self, x: Any) -> Any:
        """Compute the outputs for one batch, as NumPy arrays, without callbacks."""
        batch, parallel = self._one_batch((x, None, None), None, "predict_on_batch"), parallel_run(self)
        if parallel is not None:
            batch = parallel.part(batch)
        with self._preserving_run("predict", parallel=parallel):
            self._prepare_predict(batch)
            with torch.no_grad():
                step = eager_step(self, self._plan, "predict")
                outputs = (step if parallel is None else make_parallel_prediction(step, parallel))(batch)
                if parallel is not None:
                    rows = iter(parallel.predictions.gathered([outputs]))
                    outputs = map_leaves(lambda _: next(rows), outputs)
        return map_leaves(as_numpy, outputs)

    def _on_batch(self, kind: str, data: Batch, class_weight: Any, return_dict: bool, reset: bool) -> Any:
        method = f"{kind}_on_batch"
        self._require_compiled(method)
        batch, parallel = self._one_batch(data, class_weight, method), parallel_run(self)
        if parallel is not None:
            batch = parallel.part(batch)
        with self._preserving_run(method, parallel=parallel):
            self._prepare(batch, method, host=data[:2])
            if parallel is not None:
                parallel.comparison.same_model()
            if reset:
                self.reset_metrics()
            plan, training = self._plan, kind == "train"
            eager = eager_step(self, plan, kind)
            if training:
                switch_on(self)
            with (
                torch.enable_grad() if training else torch.no_grad(),
                plan.graphs.stepping(self, plan, kind, eager, alone=False) as step,
            ):
                result: Any = step(batch)
            with nullcontext() if parallel is None else parallel.metrics.summed():
                logs = dict(zip(result.names, result.read(), strict=True))
        return logs if return_dict else self._in_order(logs)

    def _one_batch(self, data: Batch, class_weight: Any, method: str) -> Batch:
        x, y, weight = data
        leaf = first_leaf(x)
        size = len(leaf) if hasattr(leaf, "__len__") else None
        return self._batches(x, y, weight, batch_size=size or None, class_weight=class_weight, method=method).first()

    def _batches(self, x: Any, y: Any, sample_weight: Any, **options: Any) -> Batches:
        """Return data as batches on the model's device; `options` are those of `as_batches`."""
        if "device" not in options:
            options["device"] = self._place()
        return limited_batches(as_batches, x, y, sample_weight, dtype=self.input_dtype, **options)

    # What a subclass may override --------------------------------------------------------------------------------

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train on one batch; a subclass may override it, as in Keras.

        Args:
            data: `(x, y)`, `(x, y, sample_weight)` or `x`, as tensors on the model's device.

        Returns:
            The values to log.
        """
        return self._by_name("train", data)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure one batch; a subclass may override it, as in Keras. Takes and returns what `train_step` does."""
        return self._by_name("test", data)

    def predict_step(self, data: Any) -> Any:
        """Compute the outputs for one batch; a subclass may override it."""
        if self._runs:
            return self._predict_forward()(unpacked(data)[0])
        with self._preserving_run("predict"):
            batch = self._one_batch(unpacked(data), None, "predict_step")
            self._prepare_predict(batch)
            return self._predict_forward()(batch[0])

    def _by_name(self, kind: str, data: Any) -> dict[str, Any]:
        """Run the step that all models have, called by its name: in a method that overrides it, or in a loop of the user's."""
        training = kind == "train"
        if self._runs and not self._in_hook:
            return self._returned(make_step(self._resolve(), training)(unpacked(data)))
        self._require_compiled(f"{kind}_step")
        with self._preserving_run(f"{kind}_step"):
            batch = self._one_batch(unpacked(data), None, f"{kind}_step")
            self._prepare(batch, f"{kind}_on_batch", host=batch[:2])
            if training:
                switch_on(self)
            with torch.enable_grad() if training else torch.no_grad():
                return self._returned(make_step(self._plan, training)(batch))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> torch.Tensor:
        """Return the loss given to `compile` plus the penalties of the layers; a subclass may override it.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The model's outputs.
            sample_weight: Factors for the loss of each sample.
            training: Whether the model is being trained.

        Returns:
            A scalar tensor.

        Raises:
            ValueError: When there is nothing to compute a loss from.
        """
        losses = self._plan.losses
        # An overriding method may look at `self.losses` afterwards.
        keep = self._overrides("compute_loss")
        penalties = self._penalty(keep) if self._find_layer_losses().any else None
        if losses is None:
            if penalties is None:
                raise ValueError("There is no loss to compute. Call `model.compile(optimizer=..., loss=...)`.")
            return penalties
        loss = losses(y, y_pred, sample_weight)
        return loss if penalties is None else loss + penalties

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics given to `compile` and return the values to log; a subclass may override it."""
        if self._plan.metrics is not None:
            self._plan.metrics.update_state(y, y_pred, sample_weight)
        return self._results()

    # Metrics -----------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Any]:
        """The metrics: the loss, those given to `compile`, and those that are attributes of the model."""
        found: list[Any] = []
        plan = self._plan
        if self.compiled:
            found.append(plan.loss_tracker)
            if plan.metrics is not None and (self._overrides("train_step") or self._overrides("test_step")):
                # An overridden step iterates over them as Keras's guide does: one of them stands for all given to `compile`.
                found.append(plan.metrics)
            elif plan.metrics is not None:
                found += plan.metrics.metrics
            if plan.losses is not None:
                found += plan.losses.metrics
        own = [value for value in vars(self).values() if isinstance(value, Metric)] + metrics_of_layers(self)
        return found + [metric for metric in own if not any(metric is other for other in found)]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the values that `evaluate` returns, in their order."""
        return self._ordered_names()

    def reset_metrics(self) -> None:
        """Reset all metrics."""
        for metric in self.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the metrics' values so far, as Python floats, by sorted name."""
        named = (
            self._plan.named_metrics(self) if not self._overrides("metrics") else [(m.name, m) for m in self.metrics]
        )
        meter = Meter(named)
        values = meter.read()
        return dict(zip(meter.names, values, strict=True))

    def _measures_loss(self) -> bool:
        """Return whether any metric called "loss" was given something since it was reset."""
        plan = self._plan
        named = [metric for name, metric in plan.named_metrics(self) if name == "loss"]
        _, count = plan.loss_tracker.peek()
        return len(named) > 1 or isinstance(count, torch.Tensor) or bool(count)

    def _results(self) -> dict[str, Any]:
        # The first batch may have brought metrics that no meter knew of.
        return Meter(self._plan.named_metrics(self)).snapshot().results()

    def _returned(self, source: Any) -> dict[str, Any]:
        """Return what a step that was called by name returns: what `compute_metrics` returned, or all metrics."""
        return source.results() if isinstance(source, Reading) else self._results()

    def _ordered_names(self) -> list[str]:
        # Keras's order: the total, metrics of a single output, the losses of several, and the rest by name.
        if not self.compiled:
            return []
        named = self._plan.named_metrics(self)
        losses = self._plan.losses
        parts = [] if losses is None else [metric.name for metric in losses.metrics]
        if isinstance(self.loss, dict):
            order = [f"{name}_loss" for name in self.loss]
            parts.sort(key=lambda name: order.index(name) if name in order else len(order))
        first = [name for name, metric in named if name == metric.name and name not in parts]
        rest = sorted(name for name, metric in named if name != metric.name)
        return [*first, *parts, *rest]

    def _in_order(self, logs: dict[str, Any]) -> Any:
        names = [name for name in self._ordered_names() if name in logs]
        values = [logs[name] for name in [*names, *sorted(set(logs) - set(names))]]
        return values[0] if len(values) == 1 else values

    def _refuse_unasked_methods(self) -> None:
        """Refuse a class that overrides what Keras's `fit` asks and ours never would."""
        cls = type(self)
        name = next((name for name in _NEVER_ASKED if hasattr(cls, name)), None)
        if name is None and self._overrides("get_metrics_result"):
            if self._overrides("train_step") or self._overrides("compute_metrics"):
                return
            name = "get_metrics_result"
        if name is not None:
            instead = "compute_metrics" if name == "get_metrics_result" else f"{name.split('_')[1]}_step"
            raise TypeError(f"`{cls.__name__}.{name}` would never be called here. Override `{instead}` instead.")

    # Around a run -------------------------------------------------------------------------------------------------

    @staticmethod
    def _take_old_arguments(method: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the values of arguments of older generations under their new names; refuse unknown ones."""
        return take_old_arguments(method, _arguments_of(method), kwargs) if kwargs else {}

    @contextmanager
    def _running(self, method: str, parallel: Parallel | None = None) -> Iterator[None]:
        """Enclose a run. One inside another leaves that one's mode, running values, requests and history as they were."""
        inside = self._enter_run(method)
        if not inside:
            self._changes = []
        kept = [(metric, metric.get_state()) for metric in self.metrics] if inside else []
        names = (*_REQUESTS, "stop_training", "history") if method == "fit" else _REQUESTS
        around = {name: getattr(self, name) for name in names} if inside else {}
        in_hook, self._in_hook = self._in_hook, False
        around_parallel, self._parallel = self._parallel, parallel
        try:
            with (
                mode(self, self.training) if inside else nullcontext(),
                weights_cast_anew(),
                nullcontext() if parallel is None else parallel.running(),
            ):
                yield
        finally:
            self._parallel = around_parallel
            for metric, state in kept:
                metric.set_state(state)
            for name, value in around.items():
                setattr(self, name, value)
            # A hook that failed didn't come to its end.
            self._in_hook = inside and in_hook
            if self._leave_run(method):
                self._plan.release()
                self._layer_losses_kept = False
                if self._layer_losses is not None:
                    self._layer_losses.expect_passes(False)
                    for model in self._layer_losses.models:
                        model._layer_losses_kept = False

    @contextmanager
    def _left_in_inference_mode(self) -> Iterator[None]:
        try:
            yield
        finally:
            switch_off(self)

    def _enter_run(self, method: str) -> bool:
        """Count a run that begins; return whether it is inside another.

        Raises:
            RuntimeError: When another thread has a run of the model that it would disturb, or be disturbed by.
        """
        here = threading.get_ident()
        with _counting:
            for other, there in self._runs:
                # Predictions keep nothing in the model, and have it in the same mode.
                if there != here and not method == other == "predict":
                    raise RuntimeError(
                        f"`{method}` of '{self.name}' was called while its `{other}` runs in another thread: they would "
                        "change each other's mode and running values. Give the thread a model of its own: `copy = "
                        "oncue.models.clone_model(model); copy.set_weights(model.get_weights())`."
                    )
            inside = bool(self._runs)
            self._runs = (*self._runs, (method, here))
            return inside

    def _leave_run(self, method: str) -> bool:
        """Count a run that ends; return whether it was the last."""
        with _counting:
            runs = list(self._runs)
            runs.remove((method, threading.get_ident()))
            self._runs = tuple(runs)
            return not runs

    @contextmanager
    def _preserving_run(self, method: str, parallel: Parallel | None = None) -> Iterator[None]:
        """Enclose an evaluation or a prediction, which runs in inference mode and leaves the mode as it was."""
        with self._running(method, parallel), mode(self, False):
            yield

    def _begin(
        self,
        method: str,
        interrupts: Interrupts,
        parallel: Parallel | None,
        batches: Batches,
        validation: Batches | None = None,
        **agreed: Any,
    ) -> None:
        """Begin `fit`, `evaluate` or `predict`, which ends where the block of `interrupts` does.

        Args:
            method: Which of them.
            interrupts: The block.
            parallel: The run on several processes; None for the usual one.
            batches: The data.
            validation: Those of validation.
            **agreed: Other arguments that must be the same on all processes.
        """
        for data in (batches, validation):
            if data is not None:
                interrupts.enter(closing(data))
        interrupts.enter(modes_put_back())
        if method == "fit":
            interrupts.enter(self._running(method, parallel))
            interrupts.enter(self._left_in_inference_mode())
        else:
            interrupts.enter(self._preserving_run(method, parallel))
        if parallel is not None:
            parallel.comparison.agree_on_run(method, batches, validation, **agreed)

    def _callbacks_of(
        self, callbacks: Any, parallel: Parallel | None, batches: Batches, epochs: int = 1, **params: Any
    ) -> CallbackList:
        """Return the callbacks of a run of the prepared model, which is the same on all processes from here on.

        Args:
            callbacks: Those that were given.
            parallel: The run on several processes; None for the usual one.
            batches: The data.
            epochs: The index of the epoch to stop before.
            **params: As for `make_callbacks`.
        """
        if parallel is not None:
            parallel.comparison.same_model()
        run = make_callbacks(callbacks, self, epochs=epochs, steps=batches.num_batches, **params)
        if parallel is not None:
            parallel.take_callbacks(run)
        return run

    # Preparing ---------------------------------------------------------------------------------------------------

    def _require_compiled(self, method: str) -> None:
        if not self.compiled:
            raise ValueError(
                f"Call `compile` before `{method}`, for example "
                '`model.compile(optimizer="adam", loss="mse", metrics=["mae"])`.'
            )

    def _prepare(self, batch: Batch, method: str, host: tuple[Any, Any], again: bool = False) -> None:
        """Build the model, the optimizer and the metrics, complete the plan, and refuse targets that can't be right."""
        x, y, _ = batch
        targets = host[1] if host[1] is not None else y
        if targets is None:
            require_targets(self, x, method)
        self._build_on(x)
        # One may have been put into a part since.
        refuse_real_keras(self)
        take_trainable(self)
        self._shard()
        plan, training = self._resolve(), method in ("fit", "train_on_batch")
        if self.optimizer is not None:
            if training and not (self.optimizer.built and self._parallel is None):
                refuse_sparse_gradients(self)
            self.optimizer.build(self._optimized())
        elif training and plan.trains and "train_step" not in plan.overridden:
            raise ValueError(
                f"'{self.name}' has no optimizer, so `{method}` can't train it. Give it one: "
                '`model.compile(optimizer="adam", ...)`, or `model.optimizer = "adam"`.'
            )
        probes = not plan.probed and ("train_step" if training else "test_step") not in plan.overridden
        if probes:
            weights = set(self.parameters())
            probe(self, plan, batch)
            if set(self.parameters()) != weights:
                # A module that makes weights in its first call.
                self._place()
                plan = self._resolve()
                if self.optimizer is not None:
                    self.optimizer.build(self._optimized())
            if training and plan.losses is not None and plan.losses.built and "compute_loss" not in plan.overridden:
                warn_of_pairings(plan.losses, plan.outputs, self)
        elif plan.probed:
            learn_outputs(self, plan, x, again)
        if "train_step" not in plan.overridden:
            check_targets(self, plan, targets)
        plan.meter = Meter(plan.named_metrics(self))
        if not again:
            plan.graphs.expect("train" if training else "test", batch)
        if plan.probed:
            plan.meter.snapshot()
        if probes:
            self.reset_metrics()

    def _shard(self) -> None:
        """Shard the weights where the run is one of several processes that want it so; the optimizer gets the shards."""
        if self._parallel is None:
            return
        optimizer = self.optimizer
        held = [] if optimizer is None or not optimizer.built else list(optimizer._parameters)
        numbers = {id(parameter): place for place, parameter in enumerate(held)}
        places = [(variable, numbers.get(id(variable.stored))) for variable in (self.weights if held else ())]
        before = dict(self.named_parameters())
        self._parallel.shard_weights()
        after = dict(self.named_parameters())
        taken = {id(one): after[name] for name, one in before.items() if after[name] is not one}
        now = {place: variable for variable, place in places if place is not None}
        if optimizer is not None and not optimizer.built:
            optimizer.replace_parameters(taken)
        if any(now[place].stored is not parameter for place, parameter in enumerate(held) if place in now):
            optimizer.build_anew([now[place] for place in range(len(held))])
        # What isn't sharded, such as weights that are a single number.
        self._place()

    def _prepare_predict(self, batch: Batch) -> None:
        """Build the model, and see what a prediction needs."""
        self._build_on(batch[0])
        self._shard()
        self._keep_layer_losses()
        plan = self._plan
        plan.overridden = self._overridden()
        if plan.graphs.on:
            plan.graphs.expect("predict", batch)

    def _prepare_again(self, batch: Batch, kind: str) -> None:
        """Prepare what a hook has changed in a run of a kind, on the batch that is next."""
        self._place()
        if kind == "predict":
            self._prepare_predict(batch)
            return
        self._require_compiled("fit" if kind == "train" else "evaluate")
        # Compiled steps are for batches like the first of the run, which this one needn't be.
        self._prepare(batch, "fit" if kind == "train" else "evaluate", host=(None, None), again=True)

    def _optimized(self) -> list[Variable]:
        """Return the variables that the optimizer is for, in the model's order: those to train, and those it has already."""
        held = {id(parameter) for parameter in self.optimizer._parameters} if self.optimizer is not None else set()
        pairs = [(variable, variable.stored) for variable in self.weights]
        return [variable for variable, tensor in pairs if tensor.requires_grad or id(tensor) in held]

    def _parts_with_settings(self) -> Iterator[tuple[str, Any]]:
        """Give whatever has settings that callbacks may change, with its path: what is outside before what is inside."""
        for path, module in self.named_modules():
            yield path, module
            if isinstance(module, ForeignLayer):
                for inside, part in module.parts_with_settings():
                    yield f"{path}.{inside}", part

    def get_own_arrays(self) -> dict[str, Any]:
        """Return copies of what layers save besides weights, in a `save_own_variables` of their own.

        Returns:
            Something that `set_own_arrays` understands; empty for most models.
        """
        return own_arrays(self)

    def set_own_arrays(self, arrays: dict[str, Any]) -> None:
        """Let layers load what `get_own_arrays` returned, together with the weights that they have now."""
        put_own_arrays(self, arrays)

    def _predict_forward(self) -> Forward:
        return inference_forward(self, self._forward, self._plan.precision)

    def _resolve(self) -> Plan:
        """Look up what a step needs of the model."""
        penalty = self._penalty if self._keep_layer_losses().any else None
        self._plan.resolve(self, self._predict_forward(), penalty, self._overridden())
        if penalty is not None and self._parallel is not None and self._parallel.weights is not None:
            self._plan.penalty_of_parts = self._penalty_of_parts
        return self._plan

    def _overridden(self) -> frozenset[str]:
        return frozenset(name for name in OVERRIDABLE if self._overrides(name))

    @property
    def step_account(self) -> str:
        """How the steps of the last `fit` ran, in sentences; empty for a short run of eager steps on the CPU."""
        pace = self._plan.pace
        parts = [self._plan.graphs.account(self._compiles), "" if pace is None else pace.account()]
        return " ".join(part for part in parts if part)

    @property
    def has_parts_of_weights(self) -> bool:
        """Whether each process of the run under way has a part of the weights."""
        return self._parallel is not None and self._parallel.weights is not None

    def copies_of_parts(self) -> list[torch.Tensor]:
        """Return copies of this process's parts of all weights, which `set_weights` takes."""
        return [variable.tensor().detach().clone() for variable in self.weights]

    @property
    def compiles_steps(self) -> bool:
        """Whether the steps of the run under way are compiled."""
        return self._plan.graphs.on

    @property
    def _compiles(self) -> bool | str:
        return False if self.run_eagerly else self.jit_compile

    def _announce(self, run: CallbackList, validation: bool, amid: bool) -> None:
        """Tell the callbacks what this run logs, where that is known before its first step."""
        plan = self._plan
        if not plan.probed or {"train_step", "compute_metrics"} & plan.overridden:
            return
        names = list(plan.meter.names)
        directions = {name: metric._direction for name, metric in plan.named_metrics(self) if metric._direction}
        if validation:
            names += [f"val_{name}" for name in plan.meter.names]
        run.expect(names, validation, directions, amid and validation)

    # Running -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; what layers inside add to the loss belongs to this pass alone."""
        precision = self._plan.precision
        if precision is not None and not precision.is_on(device_type := self._device_type):
            with precision.autocast(device_type):
                outputs = self(*args, **kwargs)
            return in_float32(outputs)
        if self._in_pass:
            return super().__call__(*args, **kwargs)
        if self._in_hook and self.training and kwargs.get("training") is None:
            # As in Keras, where a model is in training mode only in its own steps.
            with mode(self, False):
                return self(*args, **kwargs)
        found = self._layer_losses if self._layer_losses_kept else None
        if found is None:
            found = self._find_layer_losses()
        if not found.added:
            return super().__call__(*args, **kwargs)
        self._forget_added_losses()
        # Within a run the layers are told so once for all passes.
        layers = (self, *found.models) if self._layer_losses_kept else (self, *found.models, *found.adders)
        for layer in layers:
            layer.__dict__["_in_pass"] = True
        try:
            return super().__call__(*args, **kwargs)
        finally:
            for layer in layers:
                layer.__dict__["_in_pass"] = False

    def _forward(self, x: Any) -> Any:
        return self(x)

    def own_step_name(self, kind: str) -> str:
        """Return what makes a step of the user's, for messages.

        Args:
            kind: "train", "test" or "predict".
        """
        return f"`{kind}_step`"

    def _overrides(self, name: str) -> bool:
        """Return whether a subclass, or the object itself, has its own method or property of a name."""
        return getattr(type(self), name) is not getattr(Trainer, name) or name in vars(self)

    # Assigning ---------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; what a step is made from counts from the next step, also when a hook sets it."""
        if name in _COUNTED:
            self._assign(name, value)
            return
        super().__setattr__(name, value)
        if isinstance(value, Metric):
            self._changes.append("metrics")

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in _COUNTED:
            self._changes.append(name)

    def _assign(self, name: str, value: Any) -> None:
        plan = self._plan
        if not self.compiled:
            value = value if name != "optimizer" else optimizers.get(value)
        elif name == "optimizer":
            value = self._completed(optimizers.get(value), plan)
        elif name == "loss":
            losses = None
            if value is not None:
                weights = None if plan.losses is None else plan.losses.weights
                losses = OutputLosses(value, weights, output_names=getattr(self, "output_names", None))
            # Its running mean begins anew, so that the logs don't mix two losses.
            self._put_plan(plan.with_losses(losses), name)
        elif name == "steps_per_execution":
            value = whole("", "steps_per_execution", value, least=1)
        elif name == "jit_compile":
            _check_jit_compile(value)
        # Past torch's __setattr__: a torch.nn loss must not become a layer of the model.
        object.__setattr__(self, name, value)
        if name in ("jit_compile", "run_eagerly"):
            self._plan.graphs.prefer(self._compiles)
        self._changes.append(name)

    def _completed(self, optimizer: Any, plan: Plan) -> Any:
        """Return an optimizer with what was asked for in `compile`: accumulation, and the scaling of losses."""
        accumulate(optimizer, plan.accumulation)
        by_argument = plan.precision is not None and plan.precision.name == "fp16"
        in_float16 = by_argument or self.dtype_policy.name == "mixed_float16"
        return scaled(optimizer) if plan.auto_scale_loss and optimizer is not None and in_float16 else optimizer

    def _put_plan(self, plan: Plan, what: str) -> None:
        """Put a plan in the place of another, in a run too."""
        if self._runs:
            plan.graphs.go_on(self._plan.graphs)
        self._plan = plan
        self._changes.append(what)

    def __getstate__(self) -> dict[str, Any]:
        # A copy is in no run, even one that is made in a hook.
        of_the_run = ("_runs", "_in_hook", "_layer_losses_kept", "_parallel")
        return {key: value for key, value in super().__getstate__().items() if key not in of_the_run}

    # Devices and building ----------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """The device that the model trains on."""
        if self._chosen_device is not None:
            return backend.numbered(self._chosen_device)
        placed = next((tensor.device for tensor in self.parameters() if tensor.device.type != "cpu"), None)
        return backend.device() if placed is None else placed

    @property
    def input_dtype(self) -> torch.dtype:
        """The type in which the model gets inputs of any float type.

        It is that of the first weight where this belongs to a torch module, which casts nothing itself; else floatx.
        """
        for module in self.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.dtype in _COMPUTED:
                    casts = isinstance(module, Layer) and not module._holds_layers
                    return torch_dtype(None) if casts else parameter.dtype
        return torch_dtype(None)

    def _array_dtype(self) -> torch.dtype:
        dtype = self.input_dtype
        return super()._array_dtype() if dtype == torch_dtype(None) else dtype

    @property
    def _device_type(self) -> str:
        return (self._placed() or self.device).type

    def _place(self) -> torch.device:
        """Put the model where it is trained, and return the device; the host has weights that are to be sharded."""
        device = self.device
        at = torch.device("cpu") if self._awaits_shards else device
        # Those of a lazy module, too: they get their values where they are.
        if any(tensor.device != at for tensor in (*self.parameters(), *self.buffers())):
            if has_sharded_parts(self):
                # torch's `to` knows no weights that layers show in another order of axes.
                from oncue.training.sharded import move

                move(self, at)
            else:
                self.to(at)
        wanted = {"_device": at, "_off_cpu": device.type != "cpu"}
        for module in self.modules():
            if isinstance(module, Layer):
                module.__dict__.update(wanted)
        return device

    @property
    def _awaits_shards(self) -> bool:
        """Whether the weights are whole, and are sharded when the next run begins, or the one that is beginning."""
        of_all = self._parallel is not None or not self._runs
        return of_all and process.shards_weights and not has_sharded_parts(self)

    def _place_part(self, part: torch.nn.Module) -> None:
        """Place a part that is put into the model, so that it runs behind layers, which make their weights on the device."""
        if process.shards_weights:
            return
        device = backend.numbered(self._chosen_device or backend.device())
        if device.type != "cpu" and any(t.device.type == "cpu" for t in (*part.parameters(), *part.buffers())):
            part.to(device)
        if any(not tensor.is_cpu for tensor in part.parameters()):
            for module in (self, *part.modules()):
                if isinstance(module, Layer):
                    module._off_cpu = True

    def _build_on(self, x: Any) -> None:
        """Make the weights by running the model once, where they are not there yet."""
        if not self._all_built():
            if self._awaits_shards:
                # Where the weights are made.
                x = map_leaves(lambda leaf: leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf, x)
            with torch.no_grad(), mode(self, False), Trial(self):
                self(x)
            self._place()

    def _all_built(self) -> bool:
        return self.built and all(module.built for module in self.modules() if isinstance(module, Layer))

    def _stepping_modules(self) -> list[torch.nn.Module]:
        """Return all modules whose code runs in a step: the model and those inside."""
        return list(self.modules())

    # Penalties ---------------------------------------------------------------------------------------------------

    def _penalty(self, keep: bool = False) -> torch.Tensor:
        terms = self.losses
        if not keep:
            self._forget_added_losses()
        if terms:
            return torch.stack([term.sum() for term in terms]).sum()
        # Looking for a device can't be done inside a graph.
        return torch.zeros((), device=self._device_hint or self.device)

    def _penalty_of_parts(self, share: float | torch.Tensor) -> torch.Tensor:
        """Return this process's part of what the layers add to the loss, where each has a part of the weights.

        Args:
            share: Its share of the batch's rows.
        """
        of_weights, added = self._losses_of_parts()
        self._forget_added_losses()
        terms = [*of_weights, *(term.sum() * share for term in added)]
        return torch.stack(terms).sum() if terms else torch.zeros((), device=self._device_hint or self.device)

    def _find_layer_losses(self) -> _LayerLosses:
        """Find the layers that may add losses."""
        found, known = _LayerLosses(self), self._layer_losses
        if known is None or found != known:
            if known is not None and self._layer_losses_kept:
                known.expect_passes(False)
            # One that is equal stays: compiled graphs were made from it.
            self._layer_losses = known = found
        return known

    def _keep_layer_losses(self) -> _LayerLosses:
        """Find the layers that may add losses for the run under way."""
        found = self._find_layer_losses()
        if self._runs:
            self._layer_losses_kept = True
            found.expect_passes(True)
            for model in found.models:
                model._find_layer_losses()
                model._layer_losses_kept = True
        return found

    def _forget_added_losses(self) -> None:
        self._added_losses.clear()
        for layer in (self._layer_losses or self._find_layer_losses()).adders:
            layer._added_losses.clear()


class _LayerLosses:
    """What a model and the layers in it add to its loss, found by one look at all of its modules.

    It doesn't refer back to the model that has it, so that an unused model is freed at once.
    """

    def __init__(self, model: Trainer) -> None:
        self.models: list[Trainer] = []
        """The models inside."""
        self.adders: list[Layer] = []
        """The layers inside whose calls may add losses."""
        self.added = self.any = False
        """Whether calls may add losses; whether those or regularizers of weights may."""
        for module in model.modules():
            if not isinstance(module, Layer):
                continue
            adds = module.activity_regularizer is not None or not is_builtin(type(module))
            self.added = self.added or adds
            self.any = self.any or adds or bool(module._regularizers)
            if module is model:
                continue
            if adds:
                self.adders.append(module)
            if isinstance(module, Trainer):
                self.models.append(module)

    def expect_passes(self, expected: bool) -> None:
        """Tell the layers whether passes of the model around them are to come, in which all of their calls belong together.

        Args:
            expected: Whether it is so.
        """
        for layer in self.adders:
            if not isinstance(layer, Trainer):
                layer.__dict__["_in_pass"] = expected

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LayerLosses) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it is compared, and is no key


def _arguments_of(method: str) -> list[str]:
    signature = inspect.signature(getattr(Trainer, method))
    return [name for name in signature.parameters if name not in ("self", "kwargs")]


def is_unready(tensor: torch.Tensor) -> bool:
    """Return whether a tensor of a lazy torch module has no values yet."""
    return isinstance(tensor, (UninitializedParameter, UninitializedBuffer))


def _check_jit_compile(value: Any) -> None:
    if value not in (True, False, "auto", None):
        raise ValueError(f'`jit_compile` must be True, False or "auto"; got {value!r}.')


def _validation_parts(data: Any, listed: bool) -> Batch:
    """Return x, y and weights; a list of batches as x where the training data are one too, or it can be nothing else."""
    if is_batch_list(data) and (listed or len(data) not in (2, 3)):
        return data, None, None
    if isinstance(data, (tuple, list)):
        if len(data) not in (1, 2, 3):
            raise ValueError(
                f"`validation_data` must be (x, y), (x, y, sample_weight) or a source of batches; got a "
                f"{type(data).__name__} of {len(data)}."
            )
        return unpack_x_y_sample_weight(tuple(data))
    return data, None, None
