"""On CUDA an LSTM or a GRU is one operation of a graph, cuDNN's, whatever its layers; here something stands for cuDNN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cudnn_on_the_cpu import Cudnn
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import oncue as keras
from helpers import cpu_only, normal, on_the_same_memory
from oncue import layers
from oncue.training.graph import traced_graph
from oncue.training.graph.cudnn_rnn import cudnn_takes
from oncue.training.graph.operations import Standing

pytestmark = cpu_only("something on the CPU stands for cuDNN")

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True, "num_layers": 2, "dropout": 0.0},
    "both directions": {"bidirectional": True},
    "all of it": {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True},
}
LOSSES: dict[str, Callable[[Any], Tensor]] = {
    "all": lambda found: found[0].square().sum() + sum(one.sin().sum() for one in states_of(found)),
    "the outputs": lambda found: (found[0].flip(0) * torch.arange(found[0].numel()).view(found[0].shape)).sum(),
    "the last state": lambda found: states_of(found)[0][-1].square().mean(),
}
X, Y = normal(20, 6), normal(20, 3)


def states_of(found: Any) -> list[Tensor]:
    return [found[1]] if isinstance(found[1], Tensor) else list(found[1])


@pytest.fixture
def cudnn() -> Iterator[Cudnn]:
    with Cudnn().installed() as found:
        yield found


def made(kind: type[nn.RNNBase], **form: Any) -> nn.RNNBase:
    torch.manual_seed(0)
    return kind(3, 4, **form)


def derived(network: nn.RNNBase, loss: Callable[[Any], Tensor]) -> Callable[..., list[Tensor]]:
    """Return a function of the first states, an input and weights: the loss and its gradients by all of them."""
    names = [name for name, _ in network.named_parameters()]

    def step(*tensors: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            *states, x = leaves[: len(leaves) - len(names)]
            weights = dict(zip(names, leaves[len(leaves) - len(names) :], strict=True))
            given = (x, *([tuple(states) if len(states) == 2 else states[0]] if states else []))
            value = loss(torch.func.functional_call(network, weights, given))
            return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True)]

    return step


def tensors_of(network: nn.RNNBase, given: bool) -> list[Tensor]:
    x = torch.randn(6, 2, 3)
    shape = (network.num_layers * (2 if network.bidirectional else 1), x.shape[0 if network.batch_first else 1], 4)
    states = [torch.randn(shape) for _ in range(2 if isinstance(network, nn.LSTM) else 1)] if given else []
    return [*states, x, *[weight.detach() for weight in network.parameters()]]


def traced(step: Callable[..., Any], *like: Tensor) -> torch.fx.GraphModule:
    with torch.no_grad(), Standing({}):
        graph: torch.fx.GraphModule = make_fx(step, tracing_mode="fake")(*like)
    return graph


def counts(graph: torch.fx.GraphModule) -> list[int]:
    targets = [str(node.target) for node in graph.graph.nodes]
    return [targets.count(f"oncue.cudnn_rnn{part}.default") for part in ("", "_backward")]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        # Of what had no part in the loss ours has zeros where autograd has none.
        torch.testing.assert_close(got, torch.zeros_like(got) if wanted is None else wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from states"])
def test_outputs_and_gradients_are_those_of_torch(kind: Any, form: str, given: bool, cudnn: Cudnn) -> None:
    network = made(kind, **FORMS[form])
    tensors, step = tensors_of(network, given), derived(network, LOSSES["all"])
    expected, before = step(*tensors), [tensor.clone() for tensor in tensors]
    with Standing({}):
        close(step(*tensors), expected)
    graph = traced(step, *tensors)
    assert counts(graph) == [1, 1]
    for _ in range(2):
        close(graph(*tensors), expected)
    # cuDNN's way of putting weights into a block leaves the weights themselves where they were.
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))
    assert cudnn.trained == [True] * 3


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_right_when_the_loss_takes_a_part(kind: Any, loss: str, cudnn: Cudnn) -> None:
    network = made(kind, num_layers=2)
    tensors, step = tensors_of(network, True), derived(network, LOSSES[loss])
    close(traced(step, *tensors)(*tensors), step(*tensors))


def test_without_gradients_there_are_no_notes(cudnn: Cudnn) -> None:
    network, x = made(nn.LSTM), torch.randn(6, 2, 3)
    with torch.no_grad(), Standing({}):
        found = network(x)[0]
    torch.testing.assert_close(found, network(x)[0])
    assert cudnn.trained == [False]


def test_mixed_precision_is_cudnns_which_is_float16_whatever_it_was_asked_for(cudnn: Cudnn) -> None:
    network, x = made(nn.LSTM), torch.randn(6, 2, 3)
    with torch.autocast("cpu", torch.bfloat16), Standing({}):
        found, (last, _) = network(x.bfloat16())
    assert found.dtype == last.dtype == torch.float16
    torch.testing.assert_close(found.float(), network(x)[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_dropout_between_layers_is_refused_in_training_only(kind: Any, cudnn: Cudnn) -> None:
    network, x = made(kind, num_layers=2, dropout=0.5), torch.ones(6, 2, 3)
    with pytest.raises(RuntimeError, match="cuDNN itself draws what is dropped between the layers"), Standing({}):
        network(x)
    network.eval()
    with Standing({}):
        found = network(x)[0]
    torch.testing.assert_close(found, network(x)[0])


def test_what_cudnn_doesnt_take_is_refused_by_name(cudnn: Cudnn) -> None:
    for network in (made(nn.LSTM, proj_size=2), made(nn.GRU).bfloat16()):
        x = torch.ones(6, 2, 3, dtype=next(network.parameters()).dtype)
        with pytest.raises(RuntimeError, match=r"`torch\.(lstm|gru)` would be unrolled over all steps"), Standing({}):
            network(x)
    weight = torch.ones(1)
    assert cudnn_takes([weight, weight]) and not cudnn_takes([torch.ones(0), weight])
    assert not cudnn_takes([weight.double(), weight]) and not cudnn_takes([torch.ones(1, device="meta"), weight])
    with torch.autocast("cpu", torch.bfloat16):
        assert cudnn_takes([weight.bfloat16(), weight]) and not cudnn_takes([weight.double(), weight])


def test_there_is_no_second_gradient(cudnn: Cudnn) -> None:
    x = torch.ones(6, 2, 3, requires_grad=True)
    with Standing({}):
        y, _ = made(nn.LSTM)(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of their gradient"):
        torch.autograd.grad(first.sum(), x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTM(2, 4, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.out(self.cell(x.reshape(-1, 3, 2))[0][:, -1])


def of_layers(*recurrent: Any) -> Any:
    return keras.Sequential([layers.Input((6,)), layers.Reshape((3, 2)), *recurrent, layers.Dense(3)])


MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "torch's": (lambda: keras.Model(Recurrent()), 1),
    "both ways": (lambda: of_layers(layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.LSTM(3)), 3),
    "GRU": (lambda: of_layers(layers.GRU(4, return_sequences=True, dropout=0.3), layers.Flatten()), 1),
}


def trained(make: Callable[[], Any], jit: bool, recorded: bool = False) -> tuple[Any, list[Any]]:
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("adam", "mse", metrics=["mae"], jit_compile=jit)
    model._plan.graphs.record = on_the_same_memory if recorded else None
    history = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, validation_data=(X, Y), verbose=0).history
    return model, [*history.values(), *model.get_weights(), model.predict(X, verbose=0)]


@pytest.mark.parametrize(("name", "recorded"), [("torch's", False), ("both ways", True), ("GRU", False)])
def test_steps_with_recurrent_networks_are_one_graph(name: str, recorded: bool, quick: None, cudnn: Cudnn) -> None:
    make, networks = MODELS[name]
    _, expected = trained(make, False)
    model, found = trained(make, True, recorded)
    assert model.step_account.startswith("The steps ran as one compiled graph;"), model.step_account
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    (graph,) = model._plan.graphs.steps["train"]._graphs.values()
    assert counts(graph._graph) == [networks, networks]
    (graph,) = model._plan.graphs.steps["test"]._graphs.values()
    assert counts(graph._graph) == [networks, 0]


def test_a_kernel_that_comes_to_other_numbers_than_torch_is_noticed(quick: None, cudnn: Cudnn) -> None:
    cudnn.wrong = 0.01
    _, expected = trained(MODELS["GRU"][0], False)
    with pytest.warns(UserWarning, match="comes out as other numbers in a graph than from the step itself"):
        _, found = trained(MODELS["GRU"][0], True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_graph_that_is_compiled_as_for_cuda_is_right_too(cudnn: Cudnn) -> None:
    network = made(nn.LSTM, num_layers=2)
    tensors, step = tensors_of(network, True), derived(network, LOSSES["the outputs"])
    with torch.no_grad():
        # Called from Python, sizes and addresses of what operations return are looked at, as where there is CUDA.
        compiled: Any = torch._inductor.compile(
            traced(step, *tensors), list[Any](tensors), options={"cpp_wrapper": False, "fallback_random": True}
        )
        for _ in range(2):
            close(list(compiled(*tensors)), step(*tensors))


def test_settings_of_cudnn_have_a_graph_made_again() -> None:
    device = torch.device("cuda")
    before = traced_graph._settings(device)
    assert before == traced_graph._settings(device)
    with torch.backends.cudnn.flags(enabled=False):
        assert traced_graph._settings(device) != before
