"""Trainer: compile, fit, evaluate and predict, for any model that is a torch module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from oncue.feeding.batch import Batch, Batches
from oncue.feeding.batches import as_batches, split_validation, unpack_x_y_sample_weight
from oncue.legacy import methods as old_methods, take_old_arguments
from oncue.nested import first_leaf, map_leaves
from oncue.training.arguments import check_epochs, check_frequency, check_verbose
from oncue.training.compiled_module import CompiledModule
from oncue.training.fitting import as_numpy, make_callbacks, predict_batches, test_batches, train_epochs
from oncue.training.graph.compiled_step import signature_of, stepping
from oncue.training.precision import inference_forward
from oncue.training.step import own_step, test_step, train_step, unpacked


class Trainer(CompiledModule):
    """The part of `Model` that trains. It knows data and steps, and knows callbacks only as a list."""

    stop_training: bool = False
    stop_evaluating: bool = False
    stop_predicting: bool = False
    history: Any = None
    _initial_epoch: int | None = None
    _in_run: bool = False

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
            validation_steps: Batches of validation; by default all of them.
            validation_batch_size: Samples in a batch of validation; `batch_size` by default.
            validation_freq: Validate every so many epochs, or in the epochs of a list (counted from 1).
            **kwargs: Words of older generations, such as `nb_epoch`.

        Returns:
            The `History`, whose `history` is a dict of lists, one value for each epoch.

        Raises:
            TypeError: For an argument that doesn't exist, or a thing that is no callback.
            ValueError: For data or arguments that can't be used; before the first step.
        """
        known = [name for name in inspect.signature(Trainer.fit).parameters if name not in ("self", "kwargs")]
        epochs = take_old_arguments("fit", known, kwargs).get("epochs", epochs)
        self._require_compiled("fit")
        epochs, initial_epoch = check_epochs("epochs", epochs), check_epochs("initial_epoch", initial_epoch)
        verbose, validation_freq = check_verbose(verbose), check_frequency(validation_freq)
        device = self._place()
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split_validation(x, y, sample_weight, validation_split)
        batches = as_batches(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            steps=steps_per_epoch,
            class_weight=class_weight,
            device=device,
        )
        validation, val_y = None, None
        if validation_data is not None:
            val_x, val_y, val_weight = _validation_parts(validation_data)
            validation = as_batches(
                val_x,
                val_y,
                val_weight,
                batch_size=validation_batch_size or batch_size,
                steps=validation_steps,
                device=device,
                method="validation",
            )
        try:
            self._prepare(batches.first(), "fit", host=(x, y))
            if validation is not None:
                self._try_validation(validation.first(), val_y)
            run = make_callbacks(
                callbacks, self, add_history=True, verbose=verbose, epochs=epochs, steps=batches.num_batches
            )
            self._announce(run, validation is not None)
            steps = None if batches.num_batches is None else batches.num_batches * (epochs - initial_epoch)
            self._choose_compiling(steps, verbose)
            self.stop_training = False
            with self._running(), run.run():
                train_epochs(self, batches, validation, run, epochs, initial_epoch, validation_freq)
        finally:
            self.eval()
            batches.close()
            if validation is not None:
                validation.close()
        return self.history

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
        self._refuse("evaluate", kwargs)
        self._require_compiled("evaluate")
        verbose = check_verbose(verbose)
        batches = as_batches(
            x, y, sample_weight, batch_size=batch_size, steps=steps, device=self._place(), method="evaluate"
        )
        with self._set_aside(batches):
            self._prepare(batches.first(), "evaluate", host=(x, y))
            run = make_callbacks(callbacks, self, verbose=verbose, epochs=1, steps=batches.num_batches)
            with run.run():
                logs = test_batches(self, batches, run)
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
        self._refuse("predict", kwargs)
        verbose = check_verbose(verbose)
        batches = as_batches(x, batch_size=batch_size, steps=steps, device=self._place(), method="predict")
        with self._set_aside(batches):
            first = batches.first()
            self._build_on(first[0])
            if self._compiles:
                self._typical["predict"] = signature_of(first)
            run = make_callbacks(callbacks, self, verbose=verbose, epochs=1, steps=batches.num_batches)
            with run.run():
                return predict_batches(self, batches, run)

    fit_generator = old_methods.fit_generator
    evaluate_generator = old_methods.evaluate_generator
    predict_generator = old_methods.predict_generator

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
        batch = self._one_batch((x, None, None), None, "predict_on_batch")
        with self._set_aside(None):
            self._build_on(batch[0])
            with torch.no_grad():
                outputs = inference_forward(self)(batch[0])
        return map_leaves(as_numpy, outputs)

    def _on_batch(self, kind: str, data: Batch, class_weight: Any, return_dict: bool, reset: bool) -> Any:
        method = f"{kind}_on_batch"
        self._require_compiled(method)
        batch = self._one_batch(data, class_weight, method)
        with self._set_aside(None):
            self._prepare(batch, method, host=data[:2])
            if reset:
                self.reset_metrics()
            if kind == "train":
                eager = own_step(self, self.train_step) if self._overrides("train_step") else train_step(self)
                self.train()
                with stepping(self, "train", eager, None) as step:
                    result: Any = step(batch)
            else:
                eager = own_step(self, self.test_step) if self._overrides("test_step") else test_step(self)
                with torch.no_grad(), stepping(self, "test", eager, None) as step:
                    result = step(batch)
        logs = dict(zip(result.names, result.read(), strict=True))
        return logs if return_dict else self._in_order(logs)

    def _one_batch(self, data: Batch, class_weight: Any, method: str) -> Batch:
        x, y, weight = data
        leaf = first_leaf(x)
        size = len(leaf) if hasattr(leaf, "__len__") else None
        return as_batches(
            x, y, weight, batch_size=size or None, class_weight=class_weight, device=self._place(), method=method
        ).first()

    # What a subclass may override --------------------------------------------------------------------------------

    def train_step(self, data: Any) -> dict[str, Any]:
        """Train on one batch; a subclass may override it, as in Keras.

        Args:
            data: `(x, y)`, `(x, y, sample_weight)` or `x`, as tensors on the model's device.

        Returns:
            The values to log.
        """
        return self._returned(train_step(self)(unpacked(data)))

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure one batch; a subclass may override it, as in Keras. Takes and returns what `train_step` does."""
        return self._returned(test_step(self)(unpacked(data)))

    def predict_step(self, data: Any) -> Any:
        """Compute the outputs for one batch; a subclass may override it."""
        return inference_forward(self)(unpacked(data)[0])

    # Around a run -------------------------------------------------------------------------------------------------

    def _refuse(self, method: str, kwargs: dict[str, Any]) -> None:
        signature = inspect.signature(getattr(Trainer, method))
        known = [name for name in signature.parameters if name not in ("self", "kwargs")]
        take_old_arguments(method, known, kwargs)

    @contextmanager
    def _running(self) -> Iterator[None]:
        before, self._in_run = self._in_run, True
        try:
            yield
        finally:
            self._in_run = before

    @contextmanager
    def _set_aside(self, batches: Batches | None) -> Iterator[None]:
        """Evaluate or predict; called from a hook of a run, leave its mode, running values and requests as they were."""
        inside = self._in_run
        kept = [(metric, metric.get_state()) for metric in self.metrics] if inside else []
        requests = self.stop_evaluating, self.stop_predicting
        try:
            with self._mode(False), self._running():
                yield
        finally:
            for metric, state in kept:
                metric.set_state(state)
            if inside:
                self.stop_evaluating, self.stop_predicting = requests
            if batches is not None:
                batches.close()


def _validation_parts(data: Any) -> Batch:
    if isinstance(data, (tuple, list)):
        if len(data) not in (1, 2, 3):
            raise ValueError(
                f"`validation_data` must be (x, y), (x, y, sample_weight) or a source of batches; got a "
                f"{type(data).__name__} of {len(data)}."
            )
        return unpack_x_y_sample_weight(tuple(data))
    return data, None, None
