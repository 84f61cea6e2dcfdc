"""The networks of the workloads as torch modules; their inputs have channels last, like the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, BLOCKS = 384, 6, 6


def mlp() -> nn.Module:
    """Return 784, 128, dropout, 64, dropout, 10."""
    return nn.Sequential(
        nn.Linear(784, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


class ChannelsFirst(nn.Module):
    """Moves the channels of images from last to first; with one channel this changes only the strides."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def cnn() -> nn.Module:
    """Return two convolutions of 16 and 32 filters of 3 by 3, each with pooling by 2, and a layer of 10."""
    return nn.Sequential(
        ChannelsFirst(),
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 10),
    )


class Recurrent(nn.Module):
    """An LSTM of 64 units over the steps, and a layer of 10 on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Block(nn.Module):
    """A transformer block with the norm first: attention of 6 heads, then 384, 1536, 384; dropout after both."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(self.first_norm(x)).view(batch, tokens, 3, HEADS, WIDTH // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, WIDTH)
        x = x + self.dropout(self.out(attended))
        return x + self.dropout(self.narrow(F.gelu(self.wide(self.second_norm(x)))))


class Transformer(nn.Module):
    """Six blocks, 10.6 million parameters; the mean over the tokens, and a layer of 10."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean(1))


def linear() -> nn.Module:
    """Return one layer from 8 numbers to 1."""
    return nn.Linear(8, 1)


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": Recurrent, "transformer": Transformer, "linear": linear}


def module(network: str) -> nn.Module:
    """Return a new network, always with the same initial weights."""
    torch.manual_seed(0)
    return NETWORKS[network]()
