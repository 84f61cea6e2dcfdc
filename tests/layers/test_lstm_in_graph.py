"""An LSTM that is one operation for a compiler computes what torch's does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import profile

from oncue.layers.lstm_in_graph import WholeLSTMs, lstm_is_whole

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "two layers": {"num_layers": 2},
    "both directions": {"bidirectional": True, "batch_first": True},
    "all of it": {"num_layers": 3, "bidirectional": True, "bias": False, "dropout": 0.3},
}


def module(**form: Any) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(3, 4, **form)


def results(lstm: nn.LSTM, x: Tensor, hx: Any) -> list[Tensor]:
    """Return the outputs, the last states, and the gradients by everything that has one."""
    torch.manual_seed(1)
    y, (h, c) = lstm(x) if hx is None else lstm(x, hx)
    loss = (y * torch.arange(y.numel()).view(y.shape)).sum() + h.square().sum() + c.sin().sum()
    inputs = [x, *lstm.parameters(), *([] if hx is None else hx)]
    return [y, h, c, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", [False, True], ids=["from zeros", "from states"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "one sequence"])
def test_outputs_states_and_gradients_are_those_of_torch(form: str, given: bool, batched: bool) -> None:
    lstm = module(**FORMS[form])
    x = torch.randn((6, 2, 3) if batched else (6, 3), requires_grad=True)
    samples = (x.shape[0] if lstm.batch_first else x.shape[1]) if batched else 1
    places = lstm.num_layers * (2 if lstm.bidirectional else 1)
    shape = (places, samples, 4) if batched else (places, 4)
    hx = (torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)) if given else None
    expected = results(lstm, x, hx)
    with WholeLSTMs([lstm]).put_in():
        found = results(lstm, x, hx)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_its_gradients_can_be_part_of_a_graph(backend: str) -> None:
    lstm = module(batch_first=True)
    whole = WholeLSTMs([lstm])
    x = torch.randn(2, 6, 3)
    weights = {name: weight.detach() for name, weight in lstm.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        y, _ = torch.func.functional_call(lstm, weights, (x,))
        return y.square().sum()

    def step(weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        with_weights: dict[str, Tensor] = torch.func.grad(loss)(weights, x)
        return with_weights

    compiled = torch.compile(step, fullgraph=True, backend=backend)
    with whole.put_in():
        found = compiled(weights, x)
    lstm(x)[0].square().sum().backward()
    for name, weight in lstm.named_parameters():
        torch.testing.assert_close(found[name], weight.grad)
    torch._dynamo.reset()


def test_modules_are_themselves_again_after_the_block() -> None:
    lstm = module()
    with pytest.raises(RuntimeError, match="packed sequence"), WholeLSTMs([lstm]).put_in():
        lstm(nn.utils.rnn.pack_sequence([torch.ones(2, 3)]))
    assert "forward" not in vars(lstm)
    assert lstm(nn.utils.rnn.pack_sequence([torch.ones(2, 3)]))[0].data.shape == (2, 4)


def test_a_wrong_state_gets_torchs_error() -> None:
    lstm = module()
    with pytest.raises(RuntimeError, match="Expected hidden"), WholeLSTMs([lstm]).put_in():
        lstm(torch.ones(6, 2, 3), (torch.ones(1, 5, 4), torch.ones(1, 5, 4)))


def test_only_what_the_kernel_can_is_taken() -> None:
    class Own(nn.LSTM):
        def forward(self, input: Any, hx: Any = None) -> Any:
            return super().forward(input, hx)

    assert lstm_is_whole(module())
    assert not lstm_is_whole(nn.GRU(3, 4))
    assert not lstm_is_whole(Own(3, 4))
    assert not lstm_is_whole(module(proj_size=2))
    assert not lstm_is_whole(module(dtype=torch.float64))
    with torch.backends.mkldnn.flags(enabled=False):
        assert not lstm_is_whole(module())


@pytest.mark.parametrize("gradients", [False, True])
def test_tensors_for_the_backward_pass_are_saved_only_when_needed(gradients: bool) -> None:
    lstm = module()
    with profile(record_shapes=True) as trace, torch.set_grad_enabled(gradients), WholeLSTMs([lstm]).put_in():
        lstm(torch.ones(6, 2, 3))
    arguments = [event.concrete_inputs for event in trace.events() if event.name == "aten::mkldnn_rnn_layer"]
    assert [given[-1] for given in arguments] == [gradients]
