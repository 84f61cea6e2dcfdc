"""What a call of `fit`, `evaluate` or `predict` costs before and after its batches; calls are counted, nothing is timed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import oncue
from helpers import normal

FILES = (str(Path(oncue.__file__).parent), str(Path(torch.nn.__file__).parent / "modules"))
X = normal(4, 2)

# What one more layer of a model costs a call with one batch, in calls of functions of oncue and of torch's modules. Those of
# its forward pass are among them: 4 for a module of torch, 7 for a layer. Each layer is asked for tensors
# that are no weights, as layers of the real Keras may hold. A change that needs more states the reason here.
BUDGET = {
    ("predict", "torch"): 26,
    ("evaluate", "torch"): 54,
    ("fit", "torch"): 90,
    ("predict", "oncue"): 36,
    ("evaluate", "oncue"): 63,
    ("fit", "oncue"): 95,
}


def calls(method: str, kind: str, layers: int) -> int:
    if kind == "torch":
        model = oncue.Model(torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(layers)]))
    else:
        model = oncue.Sequential([oncue.layers.Input((2,)), *[oncue.layers.Dense(2) for _ in range(layers)]])
    model.compile("sgd", "mse")
    arguments = (X,) if method == "predict" else (X, X)
    run: Any = getattr(model, method)
    run(*arguments, verbose=0)
    count = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(FILES)

    sys.setprofile(profile)
    try:
        run(*arguments, verbose=0)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(("method", "kind"), BUDGET)
def test_a_layer_more_costs_a_call_little(method: str, kind: str) -> None:
    assert 4 < (calls(method, kind, 30) - calls(method, kind, 10)) / 20 <= BUDGET[method, kind]
