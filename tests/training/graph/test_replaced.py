"""What becomes another function in a traced step, and what is refused there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from helpers import cpu_only
from oncue import layers, losses
from oncue.layers.quick_dropout import dropout, dropout_in_graph
from oncue.random import SeedGenerator
from oncue.seeded_mask import seeded_mask, seeded_mask_in_graph
from oncue.training.graph.draws import generator_for
from oncue.training.graph.replaced import REPLACED


class Replacing(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def within(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    torch.manual_seed(0)
    with Replacing():
        return function(*given)


def in_trace(function: Callable[..., Tensor], *given: Tensor) -> Tensor:
    with Replacing():
        graph = make_fx(function, tracing_mode="fake")(*given)
    torch.manual_seed(0)
    found: Tensor = graph(*given)
    return found


WAYS = [within, in_trace]
X = torch.ones(8, 400)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: dropout(x, 0.3),
        lambda x: F.dropout(x, 0.3),
        lambda x: F.dropout(x, p=0.3, training=True),
        nn.Dropout(0.3),
        lambda x: layers.Dropout(0.3)(x, training=True),
    ],
)
@cpu_only("there its masks are torch's own")
def test_dropout_gets_the_form_for_graphs(way: Any, function: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    expected = dropout_in_graph(X, 0.3)
    assert torch.equal(way(function, X), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.dropout(x, 0.3, training=False),
        lambda x: F.dropout(x.clone(), 0.3, inplace=True),
        nn.Dropout(0.3).eval(),
        nn.Dropout(0.3, inplace=True),
        lambda x: F.dropout(x[:1], 0.3),
    ],
)
def test_other_dropout_stays_torchs(way: Any, function: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    expected = function(X.clone())
    assert torch.equal(way(function, X.clone()), expected)


def test_dropout_is_itself_without_a_mode() -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(5000), 0.3)
    torch.manual_seed(0)
    assert not torch.equal(found, dropout_in_graph(torch.ones(5000), 0.3))


@cpu_only("elsewhere it is refused")
def test_masks_from_a_seed_are_drawn_when_the_graph_runs() -> None:
    seeds, alone = SeedGenerator(3), SeedGenerator(3)
    with Replacing():
        graph = make_fx(lambda x: x * seeded_mask(seeds, x.shape, 0.5, x), tracing_mode="fake")(X)
    for _ in range(3):
        assert torch.equal(graph(X), seeded_mask(alone, X.shape, 0.5, X))


def test_masks_from_a_seed_are_refused_where_a_graph_is_recorded() -> None:
    with pytest.raises(RuntimeError, match="seed of its own"):
        seeded_mask_in_graph(SeedGenerator(3), (2,), 0.5, torch.ones(1, device="meta"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("recurrent", "name"),
    [(nn.GRU(3, 4), "gru"), (nn.RNN(3, 4), "rnn_tanh"), (nn.RNN(3, 4, nonlinearity="relu"), "rnn_relu")],
)
def test_what_would_be_unrolled_is_refused_by_name(way: Any, recurrent: nn.RNNBase, name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"`torch.{name}` would be unrolled over all steps of its sequences"):
        way(lambda x: recurrent(x)[0], torch.ones(6, 2, 3))
    assert recurrent(torch.ones(6, 2, 3))[0].shape == (6, 2, 4)


def test_packed_sequences_are_refused() -> None:
    lstm, packed = nn.LSTM(3, 4), nn.utils.rnn.pack_sequence([torch.ones(2, 3)])
    with pytest.raises(RuntimeError, match="packed sequence"), Replacing():
        lstm(packed)
    assert lstm(packed)[0].data.shape == (2, 4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "pooled",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        lambda x: F.max_pool2d(x, (2, 3), dilation=2),
        lambda x: torch.max_pool2d(x, 2, [1, 2]),
        lambda x: nn.MaxPool2d(2)(x.to(memory_format=torch.channels_last)),
    ],
)
@cpu_only("elsewhere the compiler's own form is the quick one")
def test_max_pooling_is_one_operation(way: Any, pooled: Callable[..., Tensor]) -> None:
    def derived(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        y = pooled(x)
        return torch.cat([y.flatten(), torch.autograd.grad((y * y).sum(), x)[0].flatten()])

    x = torch.rand(2, 3, 7, 8)
    assert torch.equal(way(derived, x), derived(x))
    with Replacing():
        graph = make_fx(derived, tracing_mode="fake")(x)
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("oncue.max_pool.default") == targets.count("oncue.max_pool_backward.default") == 1
    assert not any("aten.max_pool" in target for target in targets)
    # A graph would write what it is given once more to memory.
    (backward,) = [node for node in graph.graph.nodes if str(node.target) == "oncue.max_pool_backward.default"]
    assert all(node.meta["val"].shape != x.shape for node in backward.all_input_nodes)


@cpu_only("elsewhere the compiler's own form is the quick one")
def test_max_pooling_without_gradients_is_left_to_the_compiler() -> None:
    x = torch.rand(2, 3, 6, 6)
    with Replacing(), torch.no_grad():
        graph = make_fx(lambda x: F.max_pool2d(x, 2), tracing_mode="fake")(x)
    assert not any("oncue" in str(node.target) for node in graph.graph.nodes)
    assert torch.equal(graph(x), F.max_pool2d(x, 2))


@cpu_only("on an accelerator they are refused")
def test_random_numbers_by_a_seed_in_a_tensor() -> None:
    def drawn(seed: Tensor) -> Tensor:
        generators = (generator_for(seed + place) for place in range(5))
        parts = [
            torch.rand((2, 3), generator=next(generators)),
            torch.normal(1.0, 2.0, size=(4,), generator=next(generators)),
            torch.randint(low=2, high=9, size=(5,), generator=next(generators), dtype=torch.int32),
            torch.bernoulli(torch.full((6,), 0.5), generator=next(generators)),
            torch.multinomial(torch.ones(2, 3), 2, replacement=True, generator=next(generators)),
        ]
        return torch.cat([part.double().flatten() for part in parts])

    for way in WAYS:
        assert torch.equal(way(drawn, torch.tensor(7)), drawn(torch.tensor(7)))
    with Replacing():
        graph = make_fx(drawn, tracing_mode="fake")(torch.tensor(7))
    assert torch.equal(graph(torch.tensor(8)), drawn(torch.tensor(8)))
    assert not torch.equal(graph(torch.tensor(8)), graph(torch.tensor(7)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 5)])
def test_a_cross_entropy_of_labels_is_a_logarithm_of_a_sum_in_a_graph(
    way: Callable[..., Tensor], axis: int, shape: tuple[int, ...]
) -> None:
    logits = torch.arange(float(torch.Size(shape).numel())).reshape(shape).sin()
    labels = torch.arange(torch.Size(shape[:-1]).numel()).reshape(shape[:-1]) % 5
    expected = F.cross_entropy(logits if axis == 1 else logits.movedim(-1, 1), labels)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, axis=axis)
    assert torch.allclose(loss(labels, logits), expected)
    assert torch.allclose(way(loss, labels, logits), expected)
    with Replacing():
        graph = make_fx(loss, tracing_mode="fake")(labels, logits)
    assert "logsumexp" in graph.code
    assert "log_softmax" not in graph.code
