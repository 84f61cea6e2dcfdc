"""A compiled run goes on with what its hooks have put in place of tensors and settings, as an eager one does.

Graphs are recorded by `on_the_same_memory`, which replays them on the memory of the recording as CUDA does: what lies in other
memory from then on is seen as stale on the CPU, too.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import normal, on_the_same_memory, to_numpy
from oncue import layers
from oncue.callbacks import Callback
from oncue.metrics import Mean

X = normal(80, 6)
Y = ((X[:, 0] > 0).astype(int) + (X[:, 1] > 0)).astype("int64")
Change = Callable[[Any], None]


def network() -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )


class Changes(Callback):
    """Makes one change in each epoch but the first: when it begins, or after its second batch."""

    def __init__(self, changes: list[Change], within: bool) -> None:
        super().__init__()
        self.changes, self.within, self.epoch = changes, within, 0
        if within:
            # Those that listen to batches are called between them.
            self.on_train_batch_end = self.after_batch  # type: ignore[method-assign]  # it is a hook of this object only

    def change(self) -> None:
        if self.epoch > 0:
            self.changes[self.epoch - 1](self.model)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if not self.within:
            self.change()

    def after_batch(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.change()


def run(
    changes: list[Change], optimizer: Callable[[Any], Any], within: bool, jit: bool, validated: bool
) -> tuple[Any, Any]:
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(model), loss, metrics=["accuracy"], jit_compile=jit)
    model._plan.graphs.record = on_the_same_memory
    keras.utils.set_random_seed(1)
    history = model.fit(
        X,
        Y,
        batch_size=16,
        epochs=len(changes) + 1,
        verbose=0,
        validation_data=(X[:32], Y[:32]) if validated else None,
        callbacks=[Changes(changes, within)],
    )
    return model, history.history


def assert_followed(
    changes: list[Change], optimizer: Callable[[Any], Any], within: bool, validated: bool = False
) -> Any:
    eager, expected = run(changes, optimizer, within, False, validated)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, history = run(changes, optimizer, within, True, validated)
    for epoch in range(len(changes) + 1):
        for name, values in expected.items():
            change = changes[epoch - 1].__name__ if epoch else "nothing"
            np.testing.assert_allclose(
                history[name][epoch], values[epoch], 1e-3, 1e-4, err_msg=f"{name} after {change}"
            )
    for one, other in zip(eager.optimizer.state_tensors(), model.optimizer.state_tensors(), strict=True):
        np.testing.assert_allclose(to_numpy(other), to_numpy(one), rtol=1e-3, atol=1e-4)
    step = model._plan.graphs.steps["train"]
    assert step.eager_batches == 0
    assert next(iter(step._graphs.values()))._recorded is not None
    return step


def halved(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state * 0.5 if state.dim() else state.clone()
    if isinstance(state, dict):
        return {name: halved(part) for name, part in state.items()}
    return [halved(part) for part in state] if isinstance(state, list) else state


def set_weights(model: Any) -> None:
    model.set_weights([weight * 0.5 for weight in model.get_weights()])


def load_state_dict(model: Any) -> None:
    model.load_state_dict({name: value * 0.5 for name, value in model.state_dict().items()})


def give_weights_other_memory(model: Any) -> None:
    for weight in model.parameters():
        weight.data = weight.data * 0.5


def give_buffers_other_memory(model: Any) -> None:
    for buffer in model.buffers():
        buffer.data = buffer.data * 0.5


def replace_buffers(model: Any) -> None:
    for part in model.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, buffer * 0.5)


def load_the_optimizer(model: Any) -> None:
    model.optimizer.load_state_dict(halved(copy.deepcopy(model.optimizer.state_dict())))


def set_the_optimizers_weights(model: Any) -> None:
    model.optimizer.set_weights([halved(variable) for variable in model.optimizer.variables])


def set_the_count(model: Any) -> None:
    model.optimizer.iterations = 1


def swap_the_average(model: Any) -> None:
    model.optimizer.show_average(not model.optimizer.average_in_model)


def set_metrics(model: Any) -> None:
    for metric in model.metrics:
        state = metric.get_state()
        metric.set_state({**state, "variables": [value * 0.5 for value in state["variables"]]})


def reset_metrics(model: Any) -> None:
    model.reset_metrics()


def replace_sums(model: Any) -> None:
    for metric in model.metrics:
        for variable in metric.variables:
            if variable._tensor is not None:
                variable._tensor = variable._tensor.clone()


def add_to_a_metric(model: Any) -> None:
    model.metrics[0].update_state(torch.tensor(3.0), sample_weight=2)


def move(model: Any) -> None:
    model.to(model.device)


REPLACEMENTS: list[Change] = [
    set_weights,
    load_state_dict,
    give_weights_other_memory,
    give_buffers_other_memory,
    replace_buffers,
    load_the_optimizer,
    set_the_optimizers_weights,
    set_the_count,
    swap_the_average,
    swap_the_average,
    set_metrics,
    reset_metrics,
    replace_sums,
    add_to_a_metric,
    move,
]


@pytest.mark.parametrize("within", [pytest.param(False, marks=pytest.mark.slow), True])
def test_whatever_replaces_a_tensor_counts_from_the_next_step(within: bool, tmp_path: Path, quick: None) -> None:
    def load_a_file(model: Any) -> None:
        load_state_dict(model)
        model.save_weights(tmp_path / "half.weights.h5")
        set_weights(model)
        model.load_weights(tmp_path / "half.weights.h5")

    changes = [*REPLACEMENTS, load_a_file]
    step = assert_followed(changes, lambda model: keras.optimizers.Adam(0.01, use_ema=True), within, validated=True)
    assert step.graphs == 1


@pytest.mark.parametrize("within", [pytest.param(False, marks=pytest.mark.slow), True])
def test_settings_of_the_optimizer_count_from_the_next_step(within: bool, quick: None) -> None:
    def set_decay_clip_and_beta(model: Any) -> None:
        model.optimizer.weight_decay = 0.5
        model.optimizer.clipnorm = 0.01
        model.optimizer.beta_1 = 0.3

    def scale_and_accumulate(model: Any) -> None:
        model.optimizer.loss_scale_factor = 8.0
        model.optimizer.gradient_accumulation_steps = 2

    changes: list[Change] = [set_decay_clip_and_beta, scale_and_accumulate]
    assert_followed(changes, lambda model: keras.optimizers.Adam(0.01), within)


@pytest.mark.parametrize("kind", ["SGD", pytest.param("Adam", marks=pytest.mark.slow)])
def test_options_of_torchs_optimizer_count_from_the_next_step(kind: str, quick: None) -> None:
    options = {"weight_decay": 0.1, "lr": 0.02, **({"betas": (0.5, 0.5)} if kind == "Adam" else {"momentum": 0.5})}

    def set_options(model: Any) -> None:
        for group in model.optimizer.torch_optimizer.param_groups:
            group.update(options)

    made = getattr(torch.optim, kind)
    changes: list[Change] = [set_options, load_the_optimizer]
    assert_followed(changes, lambda model: keras.optimizers.TorchOptimizer(lambda p: made(p, lr=0.01)), within=True)


def test_a_number_that_changes_twice_between_two_steps_is_seen(quick: None) -> None:
    # The second value may get the identity of the one before the first.
    def halve_twice(model: Any) -> None:
        model.layers[2].rate *= 0.5
        model.layers[2].rate *= 0.5

    assert_followed([halve_twice], lambda model: keras.optimizers.SGD(0.1), within=True)


def test_sums_that_were_restored_on_the_host_go_where_the_graph_is() -> None:
    mean, there = Mean(), torch.device("meta")
    mean.set_state({"variables": [torch.tensor(2.0), torch.tensor(3.0)], "attributes": {}})
    for variable in mean.variables:
        variable.materialize(there)
        assert variable.value.device == there
