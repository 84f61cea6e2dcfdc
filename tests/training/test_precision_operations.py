"""An eager step in 16 bits does what a loop by hand under autocast does: as many casts of as many numbers, and no more passes.

Operations are counted where they are dispatched, so that nothing is timed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import oncue as keras
from helpers import cpu_only
from oncue import layers

WORDS, WIDTH, LENGTH = 97, 16, 8


class Operations(TorchDispatchMode):
    """Counts the operations that compute or copy, and the casts among them by types and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.casts: Counter[Any] = Counter()
        self.sizes: Counter[int] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if not isinstance(found, Tensor) or function.is_view:
            return found
        if function.namespace == "aten" and function._opname != "detach":
            self.sizes[found.numel()] += 1
        if "copy" in function._opname and isinstance(args[0], Tensor) and args[0].dtype != found.dtype:
            self.casts[args[0].dtype, found.dtype, found.numel()] += 1
        return found


class Counting(keras.callbacks.Callback):
    """Counts what the steps of the last epoch do."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.operations = Operations()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.operations.__enter__()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.operations.__exit__(None, None, None)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.all, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.all(self.first(x)).chunk(3, -1)
        q, k, v = [part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts]
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        found: Tensor = x + self.down(F.gelu(self.up(self.second(x))))
        return found


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.blocks = nn.Sequential(*[Block() for _ in range(6)])
        self.norm, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(self.norm(self.blocks(self.words(x) + self.places)))
        return found


def convolutions() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, WORDS)]
    return nn.Sequential(*first, *second)


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, WORDS))


def of_layers(policy: str | None) -> Any:
    made = [layers.Dense(16, "relu"), layers.LayerNormalization(), layers.Dense(WORDS)]
    if policy is not None:
        options = {"dtype": policy}
        made = [
            layers.Dense(16, "relu", **options),
            layers.LayerNormalization(**options),
            layers.Dense(WORDS, **options),
        ]
    return keras.Sequential([layers.Input((6,)), *made])


def by_hand(module: nn.Module, x: Tensor, y: Tensor, kind: torch.dtype) -> Operations:
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", enabled=kind == torch.float16)
    for _ in range(2):
        with Operations() as operations:
            optimizer.zero_grad()
            with torch.autocast("cpu", kind):
                loss = F.cross_entropy(module(x).flatten(0, -2), y.flatten())
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
    return operations


def by_fit(model: Any, x: Tensor, y: Tensor, precision: str | None) -> Operations:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam()
    scaled = keras.mixed_precision.LossScaleOptimizer(optimizer) if precision == "fp16" else optimizer
    model.compile(scaled, loss, precision=precision, jit_compile=False)
    counting = Counting()
    model.fit(x, y, batch_size=len(x), epochs=2, verbose=0, callbacks=[counting])
    return counting.operations


TOKENS = torch.arange(4 * LENGTH).reshape(4, LENGTH) % WORDS
PICTURES, ROWS, LABELS = torch.rand(4, 3, 8, 8), torch.rand(4, 6), torch.arange(4)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], Tensor, Tensor, str | None]] = {
    "a transformer": (Transformer, lambda: keras.Model(Transformer()), TOKENS, TOKENS + 1, "bf16"),
    "a transformer in float16": (Transformer, lambda: keras.Model(Transformer()), TOKENS, TOKENS + 1, "fp16"),
    "convolutions": (convolutions, lambda: keras.Model(convolutions()), PICTURES, LABELS, "bf16"),
    "convolutions in float16": (convolutions, lambda: keras.Model(convolutions()), PICTURES, LABELS, "fp16"),
    "layers": (dense, lambda: of_layers(None), ROWS, LABELS, "bf16"),
    "layers with a policy": (dense, lambda: of_layers("mixed_bfloat16"), ROWS, LABELS, None),
}


@pytest.mark.parametrize("name", CASES)
@cpu_only("operations of the CPU's kernels are counted")
def test_a_step_in_16_bits_is_that_of_a_loop_by_hand(name: str) -> None:
    module, model, x, y, precision = CASES[name]
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    expected, found = by_hand(module(), x, y, kind), by_fit(model(), x, y, precision)
    # The mean loss is one sum more, of one number; others are about the factor of the loss.
    for each in (expected, found):
        del each.sizes[1]
        each.casts = Counter({cast: count for cast, count in each.casts.items() if cast[-1] != 1})
    assert expected.casts and expected.sizes
    assert found.casts == expected.casts
    assert found.sizes == expected.sizes
