"""A model trained eagerly and by a traced step, and what is left compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import to_numpy


@pytest.fixture
def side_by_side(quick: None) -> Callable[..., Any]:
    """Train a model eagerly and by a traced step, five batches of four, and compare all that is left."""

    def compare(
        make: Callable[[], Any], x: Any, y: Any, tolerance: float = 1e-5, whole: bool = True, **options: Any
    ) -> Any:
        eager, expected = _trained(make, x, y, False, options)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            traced, found = _trained(make, x, y, True, options)
        kind = "one compiled graph" if whole else "a compiled graph, with the rest after it"
        assert traced.step_account.startswith(f"The steps ran as {kind};"), traced.step_account
        assert all(step.refusal is None for step in traced._plan.graphs.steps.values())
        _assert_close(found, expected, tolerance)
        return traced

    return compare


@pytest.fixture
def refused(quick: None) -> Callable[..., None]:
    """Compile a model that can't be traced: it says why, once, and trains as it does eagerly."""

    def compare(make: Callable[[], Any], x: Any, y: Any, reason: str, tolerance: float = 0.0, **options: Any) -> None:
        eager, expected = _trained(make, x, y, False, options)
        with pytest.warns(UserWarning, match=f"`jit_compile` can't compile the step of `fit`.*({reason})") as caught:
            traced, found = _trained(make, x, y, True, options)
        # torch's compiler may be imported here, which says of itself what is old.
        assert len([one for one in caught if issubclass(one.category, UserWarning)]) == 1
        assert traced.step_account.startswith("The steps ran eagerly"), traced.step_account
        _assert_close(found, expected, tolerance)

    return compare


def _trained(make: Callable[[], Any], x: Any, y: Any, jit: bool, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    # Each gets metrics, losses and callbacks of its own, of the same names.
    keras.backend.clear_session(free_memory=False)
    made = {key: value() if callable(value) and key != "optimizer" else value for key, value in options.items()}
    fit = {key: value() if callable(value) else value for key, value in made.pop("fit", {}).items()}
    keras.utils.set_random_seed(0)
    model = make()
    optimizer = made.pop("optimizer", lambda model: keras.optimizers.SGD(0.1, momentum=0.9))(model)
    model.compile(optimizer, **{"loss": "mse", **made}, jit_compile=jit)
    keras.utils.set_random_seed(1)
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0, **fit).history
    left = {f"{name} of the history": values for name, values in history.items()}
    left |= {f"weight {place}": value for place, value in enumerate(model.get_weights())}
    left |= {f"buffer {place}": _values(buffer) for place, buffer in enumerate(model.buffers())}
    left |= {f"variable {place} of the optimizer": _values(one) for place, one in enumerate(model.optimizer.variables)}
    left["torch's generator"] = to_numpy(torch.get_rng_state())
    evaluated = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    left |= {f"{name} as evaluated": value for name, value in evaluated.items()}
    return model, left


def _values(tensor: torch.Tensor) -> Any:
    # NumPy has no bfloat16.
    return to_numpy(tensor.double() if tensor.is_floating_point() else tensor)


def _assert_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=tolerance, atol=tolerance, err_msg=name)
