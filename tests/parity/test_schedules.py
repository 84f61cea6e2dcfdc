"""Every schedule gives Keras's learning rates."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from oncue.optimizers import schedules

CASES = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.6}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.6, "staircase": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 3.0, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 3, "decay_rate": 0.5, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [5, 20, 21], "values": [0.1, 0.05, 0.2, 0.01]}),
    ("PiecewiseConstantDecay", {"boundaries": [5.5], "values": [0.1, 0.05]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "end_learning_rate": 0.01, "power": 0.5}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 8, "power": 2.0, "cycle": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 30}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 30, "alpha": 0.2}),
    ("CosineDecay", {"initial_learning_rate": 0.0, "decay_steps": 20, "warmup_target": 0.1, "warmup_steps": 10}),
    ("CosineDecay", {"initial_learning_rate": 0.3, "decay_steps": 20, "alpha": 0.1, "warmup_target": 0.1}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 5}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 8, "t_mul": 1.0, "m_mul": 0.7}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 6, "t_mul": 1.5, "alpha": 0.1}),
]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_rates_of_steps_0_to_50(keras: ModuleType, name: str, arguments: dict[str, Any]) -> None:
    ours = getattr(schedules, name)(**arguments)
    theirs = getattr(keras.optimizers.schedules, name)(**arguments)
    # Keras takes the number of restarts in 32 bits, which at 6 + 9 steps is still on the side before the restart.
    for step in set(range(51)) - ({15} if arguments.get("t_mul") == 1.5 else set()):
        assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-5, abs=1e-8), step


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_keras_reads_our_config_and_we_read_theirs(keras: ModuleType, name: str, arguments: dict[str, Any]) -> None:
    ours = getattr(schedules, name)(**arguments)
    theirs = keras.optimizers.schedules.deserialize(schedules.serialize(ours))
    assert theirs.get_config() == ours.get_config()
    back = schedules.deserialize(keras.optimizers.schedules.serialize(theirs))
    assert type(back) is type(ours)
    assert [back(step) for step in range(20)] == [ours(step) for step in range(20)]
