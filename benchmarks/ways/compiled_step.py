"""CompiledStep: forward, loss, backward, Adam and the sums as one hand-written function under `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

RATE, FIRST, SECOND, EPSILON = 1e-3, 0.9, 0.999, 1e-8


class CompiledStep:
    """One training step in one graph. The step count is a tensor, so that its changes don't cause recompilation.

    Args:
        module: The network.
        loss: The loss, a function of outputs and targets.
        counts: Whether to count correct predictions.
        mode: The mode of `torch.compile`; "reduce-overhead" replays CUDA graphs.
    """

    def __init__(
        self, module: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], counts: bool, mode: str | None = None
    ) -> None:
        # Without this, nn.LSTM would break the graph.
        torch._dynamo.config.allow_rnn = True
        self.parameters = dict(module.named_parameters())
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters.values()]
        self.count = torch.zeros((), device=self.means[0].device)

        def losses(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            outputs = functional_call(module, parameters, (x,))
            return loss(outputs, y), outputs

        gradients_of = torch.func.grad_and_value(losses, has_aux=True)

        def step(x: Tensor, y: Tensor, total: Tensor, right: Tensor) -> None:
            gradients, (value, outputs) = gradients_of(self.parameters, x, y)
            with torch.no_grad():
                self.count += 1
                first, second = 1 - FIRST**self.count, 1 - SECOND**self.count
                for at, (name, parameter) in enumerate(self.parameters.items()):
                    gradient, mean, square = gradients[name], self.means[at], self.squares[at]
                    mean.lerp_(gradient, 1 - FIRST)
                    square.mul_(SECOND).addcmul_(gradient, gradient, value=1 - SECOND)
                    parameter.sub_(RATE / first * mean / ((square / second).sqrt() + EPSILON))
                total += value * len(x)
                if counts:
                    right += (outputs.argmax(1) == y).sum()

        self._step = torch.compile(step, mode=mode)

    def __call__(self, x: Tensor, y: Tensor, total: Tensor, right: Tensor) -> None:
        self._step(x, y, total, right)
