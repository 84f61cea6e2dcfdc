"""What the user's data code changes in the middle of a pass counts from the next step on, as it does with eager steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

import oncue as keras
from helpers import normal, on_the_same_memory
from oncue import layers

pytestmark = pytest.mark.usefixtures("quick")

X = normal(32, 6)
Y = X.sum(1, keepdims=True)


class Scaled(keras.Model):
    """A model with a number that its data set changes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.factor = layers.Dense(1), 1.0

    def call(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x) * self.factor
        return found

    def lower(self, batch: int) -> None:
        self.factor = 1.0 if batch < 4 else 0.1


class Curriculum(keras.utils.PyDataset):
    def __init__(self, model: Scaled) -> None:
        super().__init__()
        self.model = model

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        self.model.lower(index)
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


class Samples(Dataset[Any]):
    def __init__(self, model: Scaled | None) -> None:
        self.model = model

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        if self.model is not None:
            self.model.lower(index // 4)
        return X[index], Y[index]


class Order(Sampler[int]):
    def __init__(self, model: Scaled) -> None:
        self.model = model

    def __iter__(self) -> Iterator[int]:
        for index in range(len(X)):
            self.model.lower(index // 4)
            yield index

    def __len__(self) -> int:
        return len(X)


class Rows(Sequence[Any]):
    """Samples as a data set of no known class gives them."""

    def __init__(self, model: Scaled) -> None:
        self.model = model

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: Any) -> Any:
        self.model.lower(index // 4)
        return X[index], Y[index]


def generator(model: Scaled) -> Iterator[Any]:
    data = Curriculum(model)
    return (data[index] for index in range(8))


def collating(model: Scaled) -> DataLoader[Any]:
    def collate(samples: Any) -> Any:
        model.lower(next(batches))
        return torch.utils.data.default_collate(samples)

    batches = iter(range(100))
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return DataLoader(tensors, batch_size=4, collate_fn=collate)


SOURCES: dict[str, Callable[[Scaled], Any]] = {
    "a PyDataset": Curriculum,
    "a generator": generator,
    "a data set": Samples,
    "a loader": lambda model: DataLoader(Samples(model), batch_size=4),
    "a loader of a sequence": lambda model: DataLoader(Rows(model), batch_size=4),  # type: ignore[arg-type]
    "a loader's order": lambda model: DataLoader(Samples(None), batch_size=4, sampler=Order(model)),
    "a loader's collation": collating,
}


def trained(source: Callable[[Scaled], Any], jit: bool) -> tuple[Scaled, Any]:
    keras.utils.set_random_seed(0)
    model = Scaled()
    model.compile("sgd", "mse", jit_compile=jit)
    model._plan.graphs.record = on_the_same_memory
    data = source(model)
    options = {"batch_size": 4} if isinstance(data, Samples) else {}
    model.fit(data, shuffle=False, verbose=0, **options)
    return model, [*model.get_weights(), *model.predict(source(model), verbose=0, **options)]


@pytest.mark.parametrize("name", SOURCES)
def test_what_data_code_changes_in_a_pass_counts_at_once(name: str) -> None:
    _, expected = trained(SOURCES[name], jit=False)
    model, found = trained(SOURCES[name], jit=True)
    assert model.step_account.startswith("The steps ran as one compiled graph")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_recording_is_replayed_where_data_code_changes_nothing() -> None:
    model = Scaled()
    model.compile("sgd", "mse", jit_compile=True)
    runs: list[int] = []

    def record(graph: Any, memory: Any) -> Any:
        replay, outputs = on_the_same_memory(graph, memory)
        return lambda: (runs.append(1), replay()), outputs

    model._plan.graphs.record = record
    model.fit(DataLoader(Samples(None), batch_size=4), verbose=0)
    assert len(runs) == 7
