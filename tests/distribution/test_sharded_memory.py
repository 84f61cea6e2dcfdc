"""No process has the whole of a model on its device whose weights are sharded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from distribution.test_sharded_step_cost import Pair
from processes import run_together
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

import oncue as keras
from helpers import cpu_only
from oncue import layers
from oncue.core.process import process
from oncue.shards import is_sharded, part_of
from oncue.training import sharded

pytestmark = cpu_only("torch's meta device stands for a device of each process")
SIZE, WIDTH, DEPTH = 4, 256, 8
HOST = torch.device("cpu")
WHOLE = DEPTH * (WIDTH + 1) * WIDTH * 4
"""The bytes of the model."""


class OnDevice(TorchDispatchMode):
    """Counts how many bytes are on the device at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._there: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and (kwargs or {}).get("device") == HOST:
            # As what comes from a device has values.
            return torch.zeros(args[0].shape, dtype=(kwargs or {}).get("dtype") or args[0].dtype)
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, (list, tuple)) else [found]:
            if isinstance(one, torch.Tensor) and one.is_meta:
                storage = part_of(one).untyped_storage()
                self._there[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._there = {key: (ref, size) for key, (ref, size) in self._there.items() if not ref.expired()}
        self.most = max(self.most, sum(size for _, size in self._there.values()))
        return found


class Sharded(Exception):
    """The weights are sharded; nothing can be computed on the stand-in for a device."""


@pytest.fixture
def four_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=SIZE, store=FakeStore())
    group = Pair()
    group.size = SIZE
    monkeypatch.setattr(process, "group", group)
    for name in ("distribution", "chosen"):
        monkeypatch.setattr(process, name, getattr(process, name))
    monkeypatch.setenv("ONCUE_DEVICE", "meta")
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True))

    monkeypatch.setattr(sharded.Shards, "of", stop)
    # Of this device torch knows no processes.
    mesh = sharded.init_device_mesh
    monkeypatch.setattr(sharded, "init_device_mesh", lambda device, shape: mesh("cpu", shape))
    yield
    dist.destroy_process_group()


def stop(model: Any) -> None:
    if any(map(is_sharded, model.parameters())):
        raise Sharded


def of_layers() -> Any:
    return keras.Sequential([layers.Input((WIDTH,)), *(layers.Dense(WIDTH) for _ in range(DEPTH))])


def of_layers_that_are_built_by_data() -> Any:
    return keras.Sequential([layers.Dense(WIDTH) for _ in range(DEPTH)])


def of_modules() -> Any:
    return keras.Model(torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))))


@pytest.mark.usefixtures("four_processes")
@pytest.mark.parametrize("method", ["fit", "predict", "train_on_batch"])
@pytest.mark.parametrize("build", [of_layers, of_layers_that_are_built_by_data, of_modules])
def test_only_shards_come_to_the_device(build: Any, method: str) -> None:
    rows = np.zeros((8, WIDTH), "float32")
    with OnDevice() as device:
        model = build()
        model.compile(keras.optimizers.Adam(use_ema=True), "mse")
        with pytest.raises(Sharded):
            getattr(model, method)(*([rows] if method == "predict" else [rows, rows]))
        assert all(is_sharded(one) and one.is_meta for one in model.parameters())
        # The shards, and one layer whole.
        assert WHOLE / SIZE < device.most < WHOLE * (1 / SIZE + 1.2 / DEPTH)
        device.most = 0
        values = [np.ones(weight.shape, "float32") for weight in model.weights]
        model.set_weights(values)
        assert WHOLE / SIZE <= device.most < WHOLE / SIZE * 1.1
        # Two slots and an average.
        model.optimizer.build(model.trainable_variables)
        assert device.most < WHOLE / SIZE * 4.1


@pytest.fixture
def returned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is freed goes back to the system at once, so that what is asked for next is seen.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="no /proc tells of memory")


@pytest.mark.processes
@pytest.mark.usefixtures("returned_memory")
@LINUX
def test_no_process_has_the_model_twice_in_a_save(tmp_path: Path) -> None:
    main, other = run_together("distribution.sharded_memory_runs", ["sharded_saves"], 2, tmp_path)
    for name, taken in main["sharded_saves"].items():
        # One weight more, and what is waiting to be written.
        assert taken["memory"] < (1.25 if "later" in name else 0.4), (name, main)
    for name, taken in other["sharded_saves"].items():
        assert taken["memory"] < 0.4, (name, other)


@pytest.mark.processes
@pytest.mark.usefixtures("returned_memory")
@LINUX
def test_a_process_reads_what_its_parts_need(tmp_path: Path) -> None:
    for one in run_together("distribution.sharded_memory_runs", ["sharded_parts"], 2, tmp_path):
        assert one["sharded_parts"]["parts"]["memory"] < 0.6
    for size in (1, 2, 3):
        found = run_together("distribution.sharded_memory_runs", ["sharded_reads"], size, tmp_path)
        for one in found:
            taken = one["sharded_reads"]["parts"]
            assert taken["memory"] < 1 / size + 0.15, (size, found)
            # Of as many processes each reads its own file.
            assert taken["read"] < (0.52 if size == 2 else 1.03), (size, found)
