"""An LSTM that is one operation of a traced graph computes what torch's does, and so do its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.profiler import profile

from helpers import cpu_only
from oncue import layers
from oncue.training.graph.lstm import kernel_takes
from oncue.training.graph.replaced import REPLACED

pytestmark = cpu_only("the kernel is of the CPU")

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True, "batch_first": True},
    "without biases": {"bias": False},
    "all of it": {"num_layers": 3, "bidirectional": True, "bias": False, "dropout": 0.3},
}
LOSSES: dict[str, Callable[[Any], Tensor]] = {
    "all": lambda found: found[0].square().sum() + found[1][0].sin().sum() + found[1][1].square().sum(),
    "the outputs": lambda found: (found[0] * torch.arange(found[0].numel()).view(found[0].shape)).sum(),
    "the last step": lambda found: found[0][-1].mean(),
    "the last state": lambda found: found[1][0][-1].square().mean(),
    "the last cell": lambda found: found[1][1].sum() * 2,
}


class Replacing(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def module(**form: Any) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(3, 4, **form)


def states(lstm: nn.LSTM, *samples: int) -> tuple[Tensor, Tensor]:
    shape = (lstm.num_layers * (2 if lstm.bidirectional else 1), *samples, 4)
    return torch.randn(shape), torch.randn(shape)


def gradients(
    lstm: nn.Module, loss: Callable[[Any], Tensor], within: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Callable[..., list[Tensor]]:
    """Return a function of an input, states and weights: the loss and its gradients by all of them, as a step takes them."""
    names = [name for name, _ in lstm.named_parameters()]

    def step(x: Tensor, *tensors: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (x, *tensors)]
            given = leaves[: len(leaves) - len(names)]
            weights = dict(zip(names, leaves[len(given) :], strict=True))
            with within():
                found = torch.func.functional_call(
                    lstm, weights, (given[0], tuple(given[1:])) if given[1:] else (given[0],)
                )
            value = loss(found)
            return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True)]

    return step


def traced(step: Callable[..., Any], *like: Tensor) -> torch.fx.GraphModule:
    with torch.no_grad(), Replacing():
        graph: torch.fx.GraphModule = make_fx(step, tracing_mode="fake")(*like)
    return graph


def operations(graph: torch.fx.GraphModule) -> int:
    return sum(node.target is torch.ops.oncue.lstm.default for node in graph.graph.nodes)


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        if got is None or wanted is None:
            # The gradient of what had no part in the loss: ours has zeros where autograd has none.
            assert (wanted if got is None else got) is None or not bool((wanted if got is None else got).any())
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def drawn(function: Callable[..., list[Tensor]], *given: Tensor) -> list[Tensor]:
    torch.manual_seed(1)
    return function(*given)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from states"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "one sequence"])
def test_outputs_and_gradients_are_those_of_torch(form: str, given: bool, batched: bool) -> None:
    lstm = module(**FORMS[form])
    x = torch.randn((6, 2, 3) if batched else (6, 3))
    samples = ((x.shape[0] if lstm.batch_first else x.shape[1]),) if batched else ()
    tensors = [x, *(states(lstm, *samples) if given else ()), *[weight.detach() for weight in lstm.parameters()]]
    step = gradients(lstm, LOSSES["all"])
    expected = drawn(step, *tensors)
    with Replacing():
        close(drawn(step, *tensors), expected)
    graph = traced(step, *tensors)
    assert operations(graph) == lstm.num_layers * (2 if lstm.bidirectional else 1)
    close(drawn(graph, *tensors), expected)


@pytest.mark.parametrize("form", ["plain", "all of it"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_right_when_the_loss_takes_a_part(form: str, loss: str) -> None:
    lstm = module(**FORMS[form])
    tensors = [torch.randn(6, 2, 3), *states(lstm, 2), *[weight.detach() for weight in lstm.parameters()]]
    step = gradients(lstm, LOSSES[loss])
    close(drawn(traced(step, *tensors), *tensors), drawn(step, *tensors))


@pytest.mark.parametrize("form", ["plain", "both directions"])
def test_mixed_precision_casts_as_torch_does(form: str) -> None:
    lstm = module(**FORMS[form])
    tensors = [torch.randn(6, 2, 3), *[weight.detach() for weight in lstm.parameters()]]
    step = gradients(lstm, LOSSES["all"], lambda: torch.autocast("cpu", torch.bfloat16))
    expected = step(*tensors)
    assert expected[0].dtype == torch.bfloat16
    close(traced(step, *tensors)(*tensors), expected)


@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"return_sequences": True}, {"use_bias": False}])
def test_the_layer_is_one_operation(options: dict[str, Any]) -> None:
    layer = layers.LSTM(4, **options)
    x = torch.randn(2, 6, 3)
    layer(x)
    tensors = [x, *[weight.detach() for weight in layer.parameters()]]
    step = gradients(layer, lambda found: found.square().sum())
    graph = traced(step, *tensors)
    assert operations(graph) == 1
    close(graph(*tensors), step(*tensors))


def test_a_compiled_graph_is_right_too() -> None:
    lstm = module(batch_first=True)
    # Gradients that a compiler may lay out in another way.
    step = gradients(lstm, lambda found: (found[0].flip(1) * torch.arange(6.0).view(1, 6, 1)).sum())
    tensors = [torch.randn(2, 6, 3), *[weight.detach() for weight in lstm.parameters()]]
    with torch.no_grad():
        compiled: Any = torch._inductor.compile(
            traced(step, *tensors), list[Any](tensors), options={"cpp_wrapper": True, "fallback_random": True}
        )
        close(list(compiled(*tensors)), step(*tensors))


@pytest.mark.parametrize("on", [False, True])
def test_tensors_for_the_backward_pass_are_noted_only_when_needed(on: bool) -> None:
    lstm = module()
    with profile(record_shapes=True) as trace, torch.set_grad_enabled(on), Replacing():
        lstm(torch.ones(6, 2, 3))
    arguments = [event.concrete_inputs for event in trace.events() if event.name == "aten::mkldnn_rnn_layer"]
    assert [given[-1] for given in arguments] == [on]


def test_there_is_no_second_gradient() -> None:
    x = torch.ones(6, 2, 3, requires_grad=True)
    with Replacing():
        y, _ = module()(x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its gradient"):
        torch.autograd.grad(first.sum(), x)


def test_a_wrong_state_gets_torchs_error() -> None:
    with pytest.raises(RuntimeError, match="Expected hidden"), Replacing():
        module()(torch.ones(6, 2, 3), (torch.ones(1, 5, 4), torch.ones(1, 5, 4)))


@pytest.mark.parametrize("make", [lambda: module(proj_size=2), lambda: module(dtype=torch.float64)])
def test_what_the_kernel_cant_is_refused_by_name(make: Callable[[], nn.LSTM]) -> None:
    lstm = make()
    x = torch.ones(6, 2, 3).to(next(lstm.parameters()).dtype)
    with pytest.raises(RuntimeError, match=r"`torch.lstm` would be unrolled over all steps"), Replacing():
        lstm(x)


def test_without_the_kernel_it_is_refused() -> None:
    x = torch.ones(6, 2, 3)
    with pytest.raises(RuntimeError, match="would be unrolled"), Replacing():
        module()(x[:, :0])
    with torch.autocast("cpu", torch.float16):
        assert not kernel_takes([x])
    with (
        torch.backends.mkldnn.flags(enabled=False),
        pytest.raises(RuntimeError, match="would be unrolled"),
        Replacing(),
    ):
        module()(x)
