"""KerasModel: a model of the real Keras, trained in oncue's loop."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from oncue.core.builtin import builtin
from oncue.core.protocols import MeetsCallbacks
from oncue.feeding.batch import Batch
from oncue.keras_names import check_backend
from oncue.metrics.metric import Metric
from oncue.models.model import Model
from oncue.nested import first_leaf, map_leaves
from oncue.training.graph.replaced import being_traced
from oncue.training.parallel import Parallel
from oncue.training.plan import Plan
from oncue.variable import torch_dtype
from oncue.with_keras import keras_private
from oncue.with_keras.files import KerasFiles
from oncue.with_keras.graph import GraphForward, LayerForward, is_plain
from oncue.with_keras.layer_arrays import own_arrays, put_own_arrays
from oncue.with_keras.measures import KerasMetric, give_back, paired, translated_losses, translated_metrics
from oncue.with_keras.optimizers import KerasOptimizer, TakenOver, translated
from oncue.with_keras.tracing import draws_of_process, traceable

_known: weakref.WeakValueDictionary[int, KerasModel] = weakref.WeakValueDictionary()
"""The models by the `id` of the Keras model inside, which they hold."""

_UNASKED = ("make_train_function", "make_test_function", "make_predict_function")


def _without_values(leaf: Any) -> Any:
    return torch.empty_like(leaf, device="meta")


def _read(name: str) -> Any:
    return property(lambda model: getattr(model.keras_model, name), doc=f"`{name}` of the Keras model.")


def _shared(name: str, default: Any) -> Any:
    def read(model: KerasModel) -> Any:
        return getattr(model.keras_model, name, default)

    def assign(model: KerasModel, value: Any) -> None:
        setattr(model.keras_model, name, value)

    return property(read, assign, doc=f"`{name}` of the Keras model, which has the same.")


def _called(name: str) -> Any:
    def call(model: KerasModel, *args: Any, **kwargs: Any) -> Any:
        return getattr(model.keras_model, name)(*args, **kwargs)

    call.__name__, call.__doc__ = name, f"Call `{name}` of the Keras model."
    return call


@builtin
class KerasModel(Model, MeetsCallbacks):
    """A model of the real Keras in oncue's training loop; `oncue.Model(keras_model)` makes it.

    What is trained is the Keras model itself: its weights, and its optimizer's state. It is trained as it was compiled there;
    where that was done again since the last run, that counts. What is given to `compile` of this object counts instead. A
    Keras model has one such object: a second `oncue.Model(keras_model)` gives the same.

    Losses, metrics and optimizers that Keras has built in are computed by oncue, to the same numbers. Whatever else was
    compiled, and steps that the model's own class defines, run as Keras runs them.

    Args:
        inputs: The Keras model.
        device: The device that Keras works on; None for whichever that is.

    Raises:
        ValueError: When Keras has another backend than torch, or works on another device.
        TypeError: When the model's class has methods that would never be called.
    """

    can_be_sharded = False
    keras_model: Any
    _by_keras = False
    _predicts_by_keras = False
    _compiled_here = False
    _compiled_there: Any = None
    _taken: TakenOver | None = None
    _theirs: Any = None
    _waits = False
    _ready = False
    _like_a_batch: Any = None
    _graph_forward: GraphForward | LayerForward | None = None

    of_the_run = Model.of_the_run | {"_like_a_batch"}
    of_other_layers = frozenset(
        (
            # Of each layer: what its calls note, the first one for good.
            *("_called", "_parent_path", "_losses", "_loss_ids"),
            # Of recurrent cells, which make masks for each call.
            *("_dropout_mask", "_recurrent_dropout_mask"),
            *("history", "stop_training", "stop_evaluating", "stop_predicting", "optimizer"),
        )
    )

    layers = _read("layers")
    weights = _read("weights")
    variables = _read("variables")
    trainable_weights = _read("trainable_weights")
    trainable_variables = _read("trainable_variables")
    non_trainable_weights = _read("non_trainable_weights")
    non_trainable_variables = _read("non_trainable_variables")
    name = _read("name")
    losses = _read("losses")
    dtype = _read("dtype")
    dtype_policy = _read("dtype_policy")
    compute_dtype = _read("compute_dtype")
    variable_dtype = _read("variable_dtype")
    inputs = _read("inputs")
    outputs = _read("outputs")
    input = _read("input")
    output = _read("output")
    input_shape = _read("input_shape")
    output_shape = _read("output_shape")

    trainable = _shared("trainable", True)
    stop_training = _shared("stop_training", False)
    stop_evaluating = _shared("stop_evaluating", False)
    stop_predicting = _shared("stop_predicting", False)
    history = _shared("history", None)
    # A backup of Keras's says by it where a run goes on.
    _initial_epoch = _shared("_initial_epoch", None)

    get_layer = _called("get_layer")
    summary = _called("summary")
    get_config = _called("get_config")
    count_params = _called("count_params")
    set_weights = _called("set_weights")
    add_loss = _called("add_loss")
    to_json = _called("to_json")
    compute_output_shape = _called("compute_output_shape")
    compute_mask = _called("compute_mask")
    get_compile_config = _called("get_compile_config")
    compile_from_config = _called("compile_from_config")

    @staticmethod
    def of(keras_model: Any) -> KerasModel:
        """Return the model of oncue's for a Keras model: the one that it has, or a new one."""
        return _known.get(id(keras_model)) or KerasModel(keras_model)

    def __new__(cls, inputs: Any, **kwargs: Any) -> KerasModel:
        """Return the one object of a Keras model."""
        return _known.get(id(inputs)) or super().__new__(cls)

    def __init__(self, inputs: Any, *, device: str | torch.device | None = None, name: str | None = None) -> None:
        import keras

        if self._ready:
            return
        keras_model = inputs
        check_backend()
        if name is not None:
            raise ValueError(f"`name` can't be given here: the Keras model is called '{keras_model.name}'.")
        kind = type(keras_model)
        unasked = next((one for one in _UNASKED if getattr(kind, one) is not getattr(keras.Model, one)), None)
        if unasked is not None:
            instead = f"{unasked.split('_')[1]}_step"
            raise TypeError(f"`{kind.__name__}.{unasked}` would never be called here. Override `{instead}` instead.")
        self.__dict__["keras_model"] = keras_model
        super().__init__()
        if device is not None and torch.device(device) != self.device:
            raise ValueError(
                f"`device` is {str(device)!r}, and Keras works on {str(self.device)!r}. Choose it in Keras: "
                f"`KERAS_TORCH_DEVICE={device}` before it is imported."
            )
        self._told = "training" in inspect.signature(keras_model.call).parameters
        self._metric_pairs: list[tuple[Any, Metric]] = []
        _known[id(keras_model)] = self
        for method in keras_private.saved_by_itself(keras_model):
            self.__dict__[method] = partial(self._by_itself, method)
        self._ready = True
        self._take_over()

    @property
    def built(self) -> bool:
        """Whether the Keras model has its weights."""
        return keras_private.is_built(self.keras_model)

    @built.setter
    def built(self, value: bool) -> None:
        # The Keras model knows.
        return

    @property
    def output_names(self) -> list[str] | None:
        """The names of the outputs, after which losses and metrics are named; None for a subclassed model."""
        return getattr(self.keras_model, "output_names", None)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        import keras

        found = next((variable.value.device for variable in self.keras_model.variables), None)
        return torch.device(keras.ops.convert_to_tensor(0.0).device if found is None else found)

    @property
    def input_dtype(self) -> torch.dtype:
        """The type in which the model gets inputs of any float type: Keras's `floatx`."""
        import keras

        return torch_dtype(keras.config.floatx())

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Return copies of the weights as arrays, in Keras's order."""
        import keras

        return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in self.keras_model.weights]

    # What it is compiled with ------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Say how the model is trained in oncue, instead of as the Keras model was compiled; that stays as it is.

        Args:
            optimizer: As for `oncue.Model`; or an optimizer of Keras's.
            loss: As for `oncue.Model`; or losses of Keras's.
            loss_weights: As for `oncue.Model`.
            metrics: As for `oncue.Model`; or metrics of Keras's.
            weighted_metrics: The same.
            *args: Further arguments of `oncue.Model.compile`.
            **kwargs: The same.

        Raises:
            ValueError: For `precision`, and for a model with a step of its own, which Keras compiles.
        """
        if kwargs.get("precision") is not None:
            raise ValueError(
                "`precision` can't be given for a Keras model, whose layers cast by policies of their own. Make it under "
                '`keras.mixed_precision.set_global_policy("mixed_bfloat16")`.'
            )
        steps, _, measures = keras_private.steps_of(self.keras_model)
        if steps or measures:
            raise ValueError(
                f"{type(self.keras_model).__name__} has steps, losses or metrics of its own, which use what Keras has "
                "compiled. Compile the Keras model itself: `keras_model.compile(...)`."
            )
        self._by_keras = False
        self._compile(optimizer, loss, loss_weights, metrics, weighted_metrics, *args, **kwargs)
        self._compiled_here, self._compiled_there = True, keras_private.compiled_with(self.keras_model)

    def _compile(
        self, optimizer: Any, loss: Any, loss_weights: Any, metrics: Any, weighted: Any, *args: Any, **kwargs: Any
    ) -> None:
        import keras

        pairs: list[tuple[Any, Metric]] = []
        losses = translated_losses(loss)
        metrics, weighted = translated_metrics(metrics, pairs), translated_metrics(weighted, pairs)
        theirs = isinstance(optimizer, keras.optimizers.Optimizer)
        super().compile(None if theirs else optimizer, losses, loss_weights, metrics, weighted, *args, **kwargs)
        self._metric_pairs = pairs
        self._taken, self._theirs = None, None
        if theirs:
            self._take_optimizer(optimizer)

    def _take_over(self) -> None:
        """Take over what the Keras model was compiled with, where that is new."""
        model = self.keras_model
        compiled = keras_private.compiled_with(model)
        steps, predicts, measures = keras_private.steps_of(model)
        self._predicts_by_keras = predicts
        if compiled is not None and compiled is not self._compiled_there:
            self._by_keras = steps or measures
            measured = (None,) * 4 if self._by_keras else keras_private.measures_of(model)
            self._compile(
                model.optimizer,
                *measured,
                run_eagerly=model.run_eagerly,
                steps_per_execution=model.steps_per_execution,
                jit_compile=bool(model.jit_compile),
                auto_scale_loss=False,
            )
            self._compiled_here, self._compiled_there = False, compiled
        elif self._theirs is not None:
            theirs = self._theirs if self._compiled_here else model.optimizer
            current = self._taken is None or self._taken.is_current(theirs)
            if theirs is not self._theirs or not current:
                self._take_optimizer(theirs)

    def _take_optimizer(self, theirs: Any) -> None:
        self._theirs = theirs
        trained = self.keras_model.trainable_variables
        # Which weights it is for is known once there are any.
        self._waits = not self.built
        self._taken = None if self._by_keras or self._waits else translated(theirs, trained)
        object.__setattr__(self, "optimizer", KerasOptimizer(theirs) if self._taken is None else self._taken.ours)
        self._changes.append("optimizer")

    def _assign(self, name: str, value: Any) -> None:
        import keras

        if name == "loss":
            value = translated_losses(value)
        elif name == "optimizer":
            self._taken, self._theirs = None, None
            if isinstance(value, keras.optimizers.Optimizer):
                if self._compiled_there is not None and not self._compiled_here:
                    self.keras_model.optimizer = value
                self._take_optimizer(value)
                return
        super()._assign(name, value)

    def _require_compiled(self, method: str) -> None:
        self._take_over()
        if not self.compiled:
            raise ValueError(
                f"Compile the Keras model before `{method}`, for example "
                '`keras_model.compile(optimizer="adam", loss="mse", metrics=["mae"])`.'
            )

    # Running -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the Keras model."""
        return self.keras_model(*args, **kwargs)

    def _forward(self, x: Any) -> Any:
        with traceable() if being_traced(first_leaf(x)) else nullcontext():
            if self._graph_forward is not None:
                return self._graph_forward(x, self.training)
            return self.keras_model(x, training=self.training) if self._told else self.keras_model(x)

    def _stepping_modules(self) -> list[torch.nn.Module]:
        parts = [module for layer in keras_private.layers_of(self.keras_model) for module in layer.modules()]
        return [*super()._stepping_modules(), *dict.fromkeys(parts)]

    def _look_at_graph(self) -> None:
        if self._graph_forward is None or not self._graph_forward.is_current():
            model = self.keras_model
            self._graph_forward = GraphForward(model) if is_plain(model) else LayerForward(model, self._told)

    def train(self, mode: bool = True) -> KerasModel:
        """Put the model in training or inference mode.

        What hooks have set on Keras's optimizer counts from here on, and in inference mode that has the state of ours.
        """
        if self._ready:
            self.keras_model.train(mode)
            if mode:
                self._take_over()
                if self.built:
                    self._look_at_graph()
            if self._taken is not None:
                self._taken.take() if mode else self._taken.give()
        super().train(mode)
        return self

    def _overrides(self, name: str) -> bool:
        if name in vars(self):
            return True
        return (
            self._by_keras
            if name in ("train_step", "test_step")
            else name == "predict_step" and self._predicts_by_keras
        )

    def own_step_name(self, kind: str) -> str:
        """Return which methods of the Keras model's class make steps Keras's own, for messages.

        Args:
            kind: "train", "test" or "predict".
        """
        names = ["predict_step"] if kind == "predict" else keras_private.own_of_steps(self.keras_model)
        first = f"{kind}_step"
        return f"`{first}`" if first in names else " and ".join(f"`{name}`" for name in names)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train on one batch, by the step of the Keras model's class where it has one."""
        return self._steps("train_step", data) if self._by_keras else super().train_step(data)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure one batch, by the step of the Keras model's class where it has one."""
        return self._steps("test_step", data) if self._by_keras else super().test_step(data)

    def _steps(self, name: str, data: Any) -> dict[str, Any]:
        values: dict[str, Any] = getattr(self.keras_model, name)(data)
        return values

    def predict_step(self, data: Any) -> Any:
        """Compute the outputs for one batch, by the step of the Keras model's class where it has one."""
        return self.keras_model.predict_step(data) if self._predicts_by_keras else super().predict_step(data)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> torch.Tensor:
        """Return the loss that was compiled plus the penalties of the layers."""
        penalty, losses = self._penalty(), self._plan.losses
        return penalty if losses is None else losses(y, y_pred, sample_weight) + penalty

    def _penalty(self, keep: bool = False) -> torch.Tensor:
        # As Keras adds them up: those of several numbers are sums.
        import keras

        terms = [keras.ops.sum(keras.ops.cast(term, keras.config.floatx())) for term in self.keras_model.losses]
        return torch.stack(terms).sum() if terms else torch.zeros((), device=self.device)

    # Metrics -----------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Any]:
        """The metrics: as of `oncue.Model`; those of Keras's where the model has steps of its own."""
        if self._by_keras:
            return [KerasMetric(metric) for metric in self.keras_model.metrics]
        return super().metrics

    def reset_metrics(self) -> None:
        """Reset all metrics."""
        if self._by_keras:
            self.keras_model.reset_metrics()
        else:
            super().reset_metrics()

    def get_metrics_result(self) -> dict[str, Any]:
        """Return the metrics' values so far, as Python floats, by sorted name."""
        import keras

        if not self._by_keras:
            return super().get_metrics_result()
        values = self.keras_model.get_metrics_result()
        return {name: float(keras.ops.convert_to_tensor(values[name])) for name in sorted(values)}

    def _ordered_names(self) -> list[str]:
        if not self._by_keras:
            return super()._ordered_names()
        return [metric.name for metric in self._metrics_of_keras()]

    def _measures_loss(self) -> bool:
        return self._by_keras or super()._measures_loss()

    @contextmanager
    def _running(self, method: str, parallel: Parallel | None = None) -> Iterator[None]:
        try:
            with super()._running(method, parallel), nullcontext() if parallel is None else draws_of_process():
                yield
        finally:
            give_back(self._metric_pairs)

    # Callbacks ---------------------------------------------------------------------------------------------------

    def _meets(self, callback: Any) -> bool:
        import keras

        # What was compiled or set here, the Keras model doesn't have.
        own = self._compiled_here or getattr(self.keras_model, "optimizer", None) is not self._theirs
        return not own and isinstance(callback, keras.callbacks.Callback)

    def shown_to(self, callback: Any) -> Any:
        """Return the Keras model for callbacks of Keras's, with its metrics built; this one for others."""
        if not self._meets(callback):
            return self
        if self._like_a_batch is not None:
            keras_private.build_whole(self.keras_model, self._like_a_batch)
        return self.keras_model

    def around_hook(self, callback: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        """Let Keras's optimizer and metrics have the state of ours in hooks of Keras's callbacks.

        What they change of the optimizer there, ours has after them.
        """
        if not self._meets(callback):
            return method

        def call(*arguments: Any) -> None:
            self._settle()
            if not self._by_keras:
                give_back(paired(self._metrics_of_keras(), self.metrics))
            try:
                method(*arguments)
            finally:
                self._take_changes()

        return call

    def _take_changes(self) -> None:
        model, taken = self.keras_model, self._taken
        optimizer = getattr(model, "optimizer", None)
        same = keras_private.compiled_with(model) is self._compiled_there and optimizer is self._theirs
        if not same or (taken is not None and taken.is_touched()):
            self._take_over()
            self._build_optimizer()
        self._after_load()

    def _metrics_of_keras(self) -> list[Any]:
        # One object of Keras's has all that were compiled.
        groups = [getattr(metric, "metrics", None) or [metric] for metric in self.keras_model.metrics]
        return [metric for group in groups for metric in group]

    # Preparing ---------------------------------------------------------------------------------------------------

    def _prepare(self, batch: Batch, method: str, host: tuple[Any, Any], again: bool = False) -> None:
        self._like_a_batch = None if method == "predict" else map_leaves(_without_values, tuple(batch))
        if self._by_keras:
            keras_private.build_whole(self.keras_model, batch)
        super()._prepare(batch, method, host, again)

    def _build_on(self, x: Any) -> None:
        if not self.built:
            keras_private.build(self.keras_model, x)
        self._take_weights()
        self._look_at_graph()

    def _take_weights(self) -> None:
        """Keep the tensors of Keras's variables as parameters, so that all that asks for a module's finds them."""
        found: dict[str, Any] = {}
        for variable in (*self.keras_model.variables, *keras_private.states_of_layers(self.keras_model)):
            # As torch names the parameters of modules in modules. Keras counts up those that have no name of their own.
            name = re.sub(r"(?<=\.variable)_\d+$", "", variable.path.replace("/", "."))
            found[name if name not in found else f"{name}#{len(found)}"] = variable.value
        table: dict[str, Any] = self._parameters
        if list(map(id, table.values())) != list(map(id, found.values())):
            table.clear()
            table.update(found)

    def _build_optimizer(self) -> None:
        if self._theirs is not None and self._waits:
            # It was compiled before there were weights.
            self._take_optimizer(self._theirs)
        if self._taken is not None and not self._taken.build(self.keras_model.trainable_variables):
            self._taken = None
            object.__setattr__(self, "optimizer", KerasOptimizer(self._theirs))

    def _resolve(self) -> Plan:
        self._build_optimizer()
        if not self._by_keras:
            self._take_metrics()
        penalty = self._penalty if not self._by_keras and keras_private.may_add_losses(self.keras_model) else None
        self._plan.resolve(self, self._predict_forward(), penalty, self._overridden())
        return self._plan

    def _take_metrics(self) -> None:
        """Hold the metrics that are attributes of the model's layers, as Keras logs them."""
        state = self.__dict__
        held = {id(one.keras_metric): name for name, one in state.items() if isinstance(one, KerasMetric)}
        found = keras_private.own_metrics(self.keras_model)
        for name in [name for key, name in held.items() if key not in set(map(id, found))]:
            del state[name]
        for metric in found:
            if id(metric) not in held:
                state[f"_metric_{len(state)}"] = KerasMetric(metric)

    def _optimized(self) -> list[Any]:
        variables = {id(variable.value): variable for variable in self.keras_model.variables}
        held = [] if self.optimizer is None else [id(parameter) for parameter in self.optimizer._parameters]
        known = set(held)
        joined = [one for one in self.keras_model.trainable_variables if id(one.value) not in known]
        return [variables[key] for key in held if key in variables] + joined

    def _parts_with_settings(self) -> Iterator[tuple[str, Any]]:
        yield "", self
        for layer in keras_private.layers_of(self.keras_model):
            yield (layer.path or layer.name).replace("/", "."), layer
        # After the layers, whose `trainable` changes that of their variables.
        for variable in self.keras_model.variables:
            yield variable.path.replace("/", "."), variable

    def get_own_arrays(self) -> dict[str, Any]:
        """Return copies of what layers save besides their variables, in a `save_own_variables` of their own."""
        return own_arrays(self.keras_model)

    def set_own_arrays(self, arrays: dict[str, Any]) -> None:
        """Let layers load what `get_own_arrays` returned, and make again what they compute from their variables."""
        put_own_arrays(self.keras_model, arrays)

    def _place(self) -> torch.device:
        # Keras has placed them.
        return self.device

    # Attributes --------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute: of the Keras model, where oncue has none of that name."""
        if self._ready and name[:1] != "_" and name not in vars(self) and not hasattr(type(self), name):
            setattr(self.keras_model, name, value)
        else:
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is made around a copy of the Keras model, compiled as that is.
        return KerasModel.of, (self.keras_model,)

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or "keras_model" not in self.__dict__:
            return super().__getattr__(name)
        return getattr(self.keras_model, name)

    # Files -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let the Keras model have all that was trained so far."""
        if self._taken is not None:
            self._taken.give()

    def _after_load(self) -> None:
        """Let ours have the numbers that a file had for Keras's optimizer."""
        if self._taken is not None:
            self._taken.take()

    @property
    def own_files(self) -> KerasFiles:
        """What writes and reads the model's files, by Keras's own serialisation."""
        return KerasFiles(self)

    def _by_itself(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call a method for files that the Keras model's class has of its own."""
        self._settle()
        getattr(self.keras_model, method)(*args, **kwargs)
        self._after_load()
