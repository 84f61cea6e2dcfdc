"""CompiledModule: the loss, the optimizer and the metrics of a model, made ready before the first step."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from oncue import optimizers
from oncue.callbacks import CallbackList
from oncue.core.console import print_message
from oncue.feeding.batch import Batch
from oncue.feeding.tensors import to_tensors
from oncue.legacy import take_old_arguments
from oncue.metrics.mean import Mean
from oncue.metrics.metric import Metric
from oncue.optimizers.accumulation import accumulate
from oncue.optimizers.loss_scale_optimizer import scaled
from oncue.training.graph.compiled_step import (
    STEPS_WORTH_COMPILING,
    CompiledSteps,
    signature_of,
    worth_compiling,
)
from oncue.training.meter import Meter, Reading
from oncue.training.output_losses import OutputLosses
from oncue.training.output_metrics import OutputMetrics
from oncue.training.precision import Precision, training_forward
from oncue.training.trained_module import TrainedModule

_STEPS_WORTH_A_WORD = 10_000


class CompiledModule(TrainedModule):
    """The part of `Model` that knows how it is trained and measured."""

    compiled: bool = False
    optimizer: Any = None
    loss: Any = None
    jit_compile: bool | str = False
    run_eagerly: bool = False
    steps_per_execution: int = 1
    _compiled_loss: OutputLosses | None = None
    _compiled_metrics: OutputMetrics | None = None
    _loss_tracker: Mean
    _meter: Meter
    _output_like: Any = None
    _probed: bool = False
    # What `fit` has decided about compiling, the compiled steps, and what their batches look like.
    _compiles: bool = False
    _steps_ahead: int = 0
    _compiled_steps: CompiledSteps
    _typical: dict[str, Any]

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
            loss_weights: Factors for the losses of several outputs.
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
        known = [
            name for name in inspect.signature(CompiledModule.compile).parameters if name not in ("self", "kwargs")
        ]
        take_old_arguments("compile", known, kwargs)
        if isinstance(steps_per_execution, bool) or not isinstance(steps_per_execution, int) or steps_per_execution < 1:
            raise ValueError(f"`steps_per_execution` must be a whole number of 1 or more; got {steps_per_execution!r}.")
        if jit_compile not in (True, False, "auto", None):
            raise ValueError(f'`jit_compile` must be True, False or "auto"; got {jit_compile!r}.')
        names = getattr(self, "output_names", None)
        compiled_loss = None if loss is None else OutputLosses(loss, loss_weights, output_names=names)
        compiled_metrics = None
        if metrics is not None or weighted_metrics is not None:
            compiled_metrics = OutputMetrics(metrics, weighted_metrics, output_names=names)
        self._precision = Precision.of(precision)
        self.optimizer = optimizers.get(optimizer)
        accumulate(self.optimizer, gradient_accumulation_steps)
        if auto_scale_loss and self.optimizer is not None and self._computes_in_float16():
            self.optimizer = scaled(self.optimizer)
        # Past torch's __setattr__: a torch.nn loss must not become a layer of the model.
        object.__setattr__(self, "loss", loss)
        self._compiled_loss, self._compiled_metrics = compiled_loss, compiled_metrics
        self._loss_tracker = Mean(name="loss")
        self.run_eagerly = run_eagerly
        self.jit_compile = jit_compile if jit_compile is not None and not run_eagerly else False
        self._compiles = self.jit_compile is True
        self._compiled_steps, self._typical = CompiledSteps(), {}
        self.steps_per_execution = steps_per_execution
        self.compiled = True
        self._probed = False

    def _computes_in_float16(self) -> bool:
        by_argument = self._precision is not None and self._precision.name == "fp16"
        return by_argument or self.dtype_policy.name == "mixed_float16"

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> torch.Tensor:
        """Return the compiled loss plus the penalties of the layers; a subclass may override it.

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
        penalties = self._penalty() if self._has_penalties() or self._may_add_losses() else None
        if self._compiled_loss is None:
            if penalties is None:
                raise ValueError("There is no loss to compute. Type `model.compile(optimizer=..., loss=...)`.")
            return penalties
        loss = self._compiled_loss(y, y_pred, sample_weight)
        return loss if penalties is None else loss + penalties

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the compiled metrics and return the values to log; a subclass may override it."""
        if self._compiled_metrics is not None:
            self._compiled_metrics.update_state(y, y_pred, sample_weight)
        return self._results()

    # Metrics -----------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Any]:
        """The metrics: the loss, the compiled ones, and those that are attributes of the model."""
        found: list[Any] = []
        if self.compiled:
            found.append(self._loss_tracker)
            if self._compiled_metrics is not None and self._has_own_step():
                # A step of the user's own goes over them as Keras's guide does: one of them is all compiled metrics.
                found.append(self._compiled_metrics)
            elif self._compiled_metrics is not None:
                found += self._compiled_metrics.metrics
            if self._compiled_loss is not None:
                found += self._compiled_loss.metrics
        own = (value for value in vars(self).values() if isinstance(value, Metric))
        return found + [metric for metric in own if not any(metric is other for other in found)]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the values that `evaluate` returns, in their order."""
        return self._ordered_names()

    def reset_metrics(self) -> None:
        """Start the means of all metrics anew."""
        for metric in self.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the metrics' values so far, as Python floats, by sorted name."""
        named = self._named_metrics() if not self._overrides("metrics") else [(m.name, m) for m in self.metrics]
        meter = Meter(named)
        values = meter.read()
        return dict(zip(meter.names, values, strict=True))

    def _results(self) -> dict[str, Any]:
        # The first batch may have brought metrics that no meter knew of.
        return Meter(self._named_metrics()).snapshot().results()

    def _returned(self, source: Any) -> dict[str, Any]:
        """Return what a step gives to whoever called it by name: what `compute_metrics` returned, or all metrics."""
        return source.results() if isinstance(source, Reading) else self._results()

    def _has_own_step(self) -> bool:
        return self._overrides("train_step") or self._overrides("test_step")

    def _named_metrics(self) -> list[tuple[str, Any]]:
        named: list[tuple[str, Any]] = [("loss", self._loss_tracker)]
        if self._compiled_metrics is not None:
            named += self._compiled_metrics.names_and_metrics()
        if self._compiled_loss is not None:
            named += [(metric.name, metric) for metric in self._compiled_loss.metrics]
        known = {id(metric) for _, metric in named}
        own = (value for value in vars(self).values() if isinstance(value, Metric))
        return named + [(metric.name, metric) for metric in own if id(metric) not in known]

    def _ordered_names(self) -> list[str]:
        # Keras's order: the total, metrics of a single output, the losses of several, and the rest by name.
        if not self.compiled:
            return []
        named = self._named_metrics()
        parts = [] if self._compiled_loss is None else [metric.name for metric in self._compiled_loss.metrics]
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

    # Getting ready -----------------------------------------------------------------------------------------------

    def _require_compiled(self, method: str) -> None:
        if not self.compiled:
            raise ValueError(
                f"Call `compile` before `{method}`, for example "
                '`model.compile(optimizer="adam", loss="mse", metrics=["mae"])`.'
            )

    def _prepare(self, batch: Batch, method: str, host: tuple[Any, Any]) -> None:
        """Build the model, the optimizer and the metrics, and refuse targets that can't be right."""
        x, y, weight = batch
        self._build_on(x)
        if method in ("fit", "train_on_batch") or self.optimizer is not None:
            self._optimized = self.trainable_variables
            self.optimizer.build(self._optimized)
        probed = not self._probed and not self._overrides("train_step")
        if probed:
            self._probe(x, y, weight)
        if self._compiled_loss is not None and not self._overrides("train_step"):
            self._check_targets(host[1] if host[1] is not None else y, method)
        self._meter = Meter(self._named_metrics())
        kind = "train" if method in ("fit", "train_on_batch") else "test"
        self._typical[kind] = signature_of(batch)
        if self._probed:
            self._meter.snapshot()
        if probed:
            self.reset_metrics()

    @property
    def step_account(self) -> str:
        """How the steps of the last `fit` ran, in a sentence; empty for a short run of eager steps."""
        if self._compiles:
            step = self._compiled_steps.get("train")
            return "" if step is None else step.account
        if self.jit_compile != "auto" or self._steps_ahead < _STEPS_WORTH_A_WORD:
            return ""
        least = f"{STEPS_WORTH_COMPILING:,}"
        return f'The steps ran eagerly: compiling them is worth it from {least} steps on (jit_compile="auto").'

    def _choose_compiling(self, steps: int | None, verbose: Any) -> None:
        self._compiles = worth_compiling(self.jit_compile, steps)
        self._steps_ahead = steps or 0
        if self._compiles and self.jit_compile == "auto" and verbose:
            print_message(f'Compiling the training step, because {steps:,} steps lie ahead (jit_compile="auto").')

    def _announce(self, run: CallbackList, validation: bool) -> None:
        """Tell the callbacks what this run logs, where that is known before its first step."""
        if not self._probed or self._overrides("train_step") or self._overrides("compute_metrics"):
            return
        names = list(self._meter.names)
        directions = {name: metric._direction for name, metric in self._named_metrics() if metric._direction}
        if validation:
            names += [f"val_{name}" for name in self._meter.names]
        run.expect(names, validation, directions)

    def _probe(self, x: Any, y: Any, weight: Any) -> None:
        """Run one batch in inference mode, to learn the shape of the outputs; random states stay as they were."""
        y_pred = self._output_like = self._trial(x)
        if self._compiled_loss is not None and y is not None and not self._compiled_loss.built:
            # The means of several outputs' losses must be there before the meter is made.
            self._compiled_loss.build(y, y_pred)
        if self._compiled_metrics is not None and y is not None:
            with torch.no_grad():
                self._compiled_metrics.update_state(y, y_pred, weight)
        self._probed = True

    def _trial(self, x: Any) -> Any:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices), self._mode(False):
            return training_forward(self)(x)

    def _try_validation(self, batch: Batch, y: Any) -> None:
        """Refuse validation data that can't be right now, rather than after an epoch of training."""
        self._typical["test"] = signature_of(batch)
        if self._probed and not self._overrides("test_step"):
            self._output_like = self._trial(batch[0])
            if self._compiled_loss is not None:
                self._check_targets(y if y is not None else batch[1], "fit", "validation_data")

    def _check_targets(self, y: Any, method: str, source: str | None = None) -> None:
        if y is None and not self._overrides("compute_loss"):
            missing = f"`{method}` needs targets `y`" if source is None else f"`{source}` needs targets: pass (x, y)"
            raise ValueError(f"{missing}, because the model was compiled with loss={self.loss!r}.")
        if self._probed and self._compiled_loss is not None and not self._overrides("compute_loss"):
            self._compiled_loss.check(to_tensors(y, "y"), self._output_like)
