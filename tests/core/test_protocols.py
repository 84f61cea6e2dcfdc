"""What only some models and optimizers have is found in those too that get it from another by `__getattr__`."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

import oncue
from oncue import callbacks
from oncue.core import protocols

SOURCE = Path(oncue.__file__).parent
PROTOCOLS = {name for name, member in inspect.getmembers(protocols, inspect.isclass) if Protocol in member.__bases__}


class Delegates:
    """Has what another has, as a wrapper of a model or an optimizer does."""

    def __init__(self, other: Any) -> None:
        self.__dict__["other"] = other

    def __getattr__(self, name: str) -> Any:
        return getattr(self.other, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.other, name, value)


def model() -> Any:
    shown = {"use_ema": True, "average_in_model": False, "show_average": lambda shown: None}
    return SimpleNamespace(
        stop_training=True,
        steps_per_execution=4,
        step_account="The steps ran eagerly.",
        metrics=[
            SimpleNamespace(name="group", metrics=[Delegates(SimpleNamespace(name="accuracy", _direction="up"))]),
            SimpleNamespace(name="own", _direction="sideways"),
        ],
        optimizer=Delegates(SimpleNamespace(learning_rate=0.1, iterations=7, inner_optimizer="inner", **shown)),
        prepare_save=lambda path, **options: lambda: None,
        size_of_save=lambda path, weights_only=False: 5 if weights_only else 9,
        get_weights=list,
        set_weights=lambda weights: None,
    )


@pytest.mark.parametrize("made", [model(), Delegates(model())], ids=["plain", "delegates"])
def test_what_a_model_has_is_found(made: Any) -> None:
    assert protocols.was_stopped(made)
    assert protocols.optimizer_of(made) is made.optimizer
    assert protocols.iterations_of(made) == 7
    assert protocols.steps_per_execution_of(made) == 4
    assert protocols.step_account_of(made) == "The steps ran eagerly."
    assert protocols.averages_weights(made)
    assert protocols.shows_average(made.optimizer)
    assert protocols.inner_optimizer_of(made.optimizer) == "inner"
    assert protocols.directions_of(made) == {"accuracy": "up"}
    assert protocols.saves_later(made)
    assert protocols.size_of_save(made, "a", weights_only=True) == 5
    assert protocols.optimizers_of(made) == [("", made.optimizer)]
    several = Delegates(SimpleNamespace(optimizer=Delegates(SimpleNamespace(optimizers=[made.metrics[1]]))))
    assert protocols.optimizers_of(several) == [("own", made.metrics[1])]
    assert protocols.needs_score(Delegates(SimpleNamespace(needs_score=True)))


@pytest.mark.parametrize("made", [None, SimpleNamespace(), SimpleNamespace(optimizer=None, metrics=None)])
def test_what_a_model_lacks_is_not(made: Any) -> None:
    assert not protocols.was_stopped(made) and not protocols.averages_weights(made)
    assert protocols.optimizer_of(made) is None and protocols.iterations_of(made) is None
    assert protocols.inner_optimizer_of(made) is made and not protocols.shows_average(made)
    assert protocols.steps_per_execution_of(made) == 1 and protocols.step_account_of(made) == ""
    assert protocols.directions_of(made) == {} and not protocols.saves_later(made)
    assert protocols.size_of_save(made, "a") == 0 and not protocols.needs_score(made)


def test_the_account_is_that_of_the_model_inside() -> None:
    class Stops(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    accounts = []
    for made in (model(), Delegates(model())):
        history = callbacks.History()
        listed = callbacks.CallbackList([Stops(), history], model=made, verbose=0, epochs=4)
        with listed.run():
            listed.on_train_begin()
            listed.on_epoch_begin(0)
            listed.on_epoch_end(0, {"loss": 1.0})
            listed.on_train_end()
        accounts.append([line for line in history.explain().splitlines()[1:] if not line.startswith("Callbacks took")])
    assert accounts[0] == accounts[1]
    assert "It was stopped after epoch 1 of 4: a callback set `stop_training` and noted no reason." in accounts[0]
    assert "The steps ran eagerly." in accounts[0]


def test_nobody_asks_with_isinstance() -> None:
    """Since Python 3.12 it wouldn't see what `__getattr__` gives; with 3.11 the tests above can't tell."""
    assert {"SavesLater", "HasWeightAverage", "Run"} <= PROTOCOLS
    asked = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                named = {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node.args[1])}
                asked += [f"{path.name}:{node.lineno}" for _ in named & PROTOCOLS]
    assert asked == []
    assert not any(getattr(getattr(protocols, name), "_is_runtime_protocol", False) for name in PROTOCOLS)
