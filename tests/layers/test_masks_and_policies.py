"""Masks and policies belong to tensors, layers and threads: no layer is run in another way because of another one."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor
from oncue import layers

IDS = np.array([[1, 2, 0], [3, 0, 0]])


def masked_model() -> Any:
    oncue.utils.set_random_seed(0)
    return oncue.Sequential([layers.Input((3,), dtype="int32"), layers.Embedding(5, 4, mask_zero=True), layers.LSTM(2)])


def unmasked(model: Any) -> torch.Tensor:
    """Return what a masked model gives when every step counts."""
    embedding, lstm = model.layers
    outputs: torch.Tensor = lstm.call(embedding.call(tensor(IDS)))
    return outputs


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_make_masks_too(way: Any) -> None:
    model = masked_model()
    assert torch.equal(way(model)(tensor(IDS)), model(tensor(IDS)))
    assert not torch.allclose(model(tensor(IDS)), unmasked(model))


def test_a_pickle_makes_masks_in_a_new_process(tmp_path: Path) -> None:
    model = masked_model()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = (
        "import pickle, sys, torch; model = pickle.load(open(sys.argv[1], 'rb'));"
        "ids = torch.tensor([[1, 2, 0], [3, 0, 0]], device=next(model.parameters()).device);"
        "torch.save(model(ids), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.pickle"), str(tmp_path / "outputs")]
    subprocess.run(command, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "outputs"), model(tensor(IDS)))


def test_a_layer_of_the_user_that_makes_a_mask() -> None:
    class Positive(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * 1.0

        def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
            return (inputs > 0).any(-1)

    class Also:
        def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
            return (inputs > 0).any(-1)

    class ByMixin(Also, layers.Dense):  # type: ignore[misc]  # as above
        pass

    class Never(layers.Embedding):  # type: ignore[misc]  # as above
        def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
            return inputs != 1

    steps = tensor([[[1.0], [-1.0]]])
    for layer in (Positive(), ByMixin(2)):
        assert [layer(steps)._keras_mask.tolist() for _ in range(2)] == [[[True, False]]] * 2
    assert Never(5, 2)(tensor(IDS))._keras_mask.tolist() == (tensor(IDS) != 1).tolist()


def test_a_layer_is_given_a_function_that_makes_its_mask() -> None:
    steps = tensor([[[1.0], [-1.0]]])
    for layer in (layers.Dense(2), layers.Embedding(5, 2), layers.LSTM(2, return_sequences=True)):
        given = tensor(IDS) if isinstance(layer, layers.Embedding) else steps
        layer(given)
        layer.compute_mask = lambda inputs, previous_mask: inputs > 0
        assert layer(given)._keras_mask.tolist() == (given > 0).tolist()


def test_what_has_no_mask_gets_none() -> None:
    masked_model()(tensor(IDS))
    steps = tensor(torch.ones(1, 2, 3))
    for layer in (layers.Embedding(5, 2), layers.LSTM(2, return_sequences=True), layers.Dense(2)):
        given = tensor(IDS) if isinstance(layer, layers.Embedding) else steps
        assert [getattr(layer(given), "_keras_mask", None) for _ in range(2)] == [None, None]


@pytest.mark.parametrize("nested", [lambda a, b: [a, b], lambda a, b: (b, a), lambda a, b: {"x": a, "y": b}])
def test_masks_are_found_in_nested_inputs(nested: Any) -> None:
    class Sees(layers.Layer):  # type: ignore[misc]  # as above
        _makes_masks = False
        asked = 0

        def call(self, inputs: Any) -> torch.Tensor:
            return tensor(torch.ones(1))

        def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
            self.asked += 1

    embed, layer = layers.Embedding(5, 2, mask_zero=True), Sees()
    layer(nested(embed(tensor(IDS)), tensor(torch.ones(2, 3, 2))))
    assert layer.asked == 1


def test_a_plain_layer_in_a_mixed_one_leaves_autocast_and_only_there() -> None:
    seen: list[torch.dtype] = []

    class Outer(layers.Layer):  # type: ignore[misc]  # as above
        def __init__(self, inner: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = inner

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs: torch.Tensor = self.inner(inputs)
            seen.append(outputs.dtype)
            return outputs

    inner, x = layers.Dense(2, dtype="float32"), tensor(torch.ones(1, 2))
    Outer(inner, dtype="mixed_bfloat16")(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        Outer(inner, dtype="float32")(x)
    assert seen == [torch.float32, torch.bfloat16]


def test_threads_do_not_see_each_others_policies() -> None:
    """One thread stays inside a mixed layer while another runs a plain one in an autocast of its own."""
    inside, done = threading.Event(), threading.Event()

    class Waits(layers.Layer):  # type: ignore[misc]  # as above
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            inside.set()
            assert done.wait(30)
            return inputs

    waiting = Waits(dtype="mixed_bfloat16")
    waiting.build((1, 2))
    found: list[torch.dtype] = []

    def mixed() -> None:
        found.append(waiting(tensor(torch.ones(1, 2))).dtype)

    thread = threading.Thread(target=mixed)
    thread.start()
    assert inside.wait(30)
    plain, x = layers.Dense(2), tensor(torch.ones(1, 2))
    try:
        assert plain(x).dtype == torch.float32
        with torch.autocast(x.device.type, torch.bfloat16):
            assert plain(x).dtype == torch.bfloat16
    finally:
        done.set()
        thread.join()
    assert found == [torch.bfloat16]


def test_a_policy_does_not_depend_on_the_file_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(layers.Dense):  # type: ignore[misc]  # as above
        pass

    x = tensor(torch.ones(1, 3))
    types = [cls(2, activation="softmax", dtype="mixed_bfloat16")(x).dtype for cls in (layers.Dense, Mine)]
    monkeypatch.setattr(layers.Dense, "__module__", "elsewhere")
    monkeypatch.setattr(Mine, "__module__", "oncue.layers.dense")
    assert types == [cls(2, activation="softmax", dtype="mixed_bfloat16")(x).dtype for cls in (layers.Dense, Mine)]


class MeanOfMasked(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    """Can't be run without a mask."""

    def call(self, inputs: torch.Tensor, mask: Any = None) -> torch.Tensor:
        weight = mask.to(inputs.dtype)[..., None]
        return (inputs * weight).sum(1) / weight.sum(1)


class MakesMask(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Embedding(10, 4)

    def call(self, inputs: torch.Tensor) -> Any:
        return self.inner(inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return inputs != 0


@pytest.mark.parametrize("first", [lambda: layers.Embedding(10, 4, mask_zero=True), MakesMask])
def test_a_layer_that_needs_its_mask_is_built_behind_one_that_makes_it(first: Any) -> None:
    inputs = layers.Input((None,), dtype="int32")
    functional = oncue.Model(inputs, MeanOfMasked()(layers.Dropout(0.5)(first()(inputs))))
    sequential = oncue.Sequential([first(), MeanOfMasked()])
    for model in (functional, sequential):
        one = model.predict(np.array([[1, 2, 0, 0]]), verbose=0)
        np.testing.assert_allclose(one, model.predict(np.array([[1, 2]]), verbose=0), rtol=1e-6)


def test_compute_mask_needs_no_mask_before() -> None:
    found = layers.Embedding(10, 4, mask_zero=True).compute_mask(np.array([[1, 0]]))
    np.testing.assert_array_equal(found, [[True, False]])
    assert layers.LSTM(2, return_sequences=True).compute_mask(np.zeros((1, 2, 3))) is None
