"""Large imports run without a search for garbage, which goes on after them."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from oncue.core.quick_imports import quick_imports

SCRIPT = """
import gc, sys

class Look:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "torch._dynamo", "torch._inductor.compile_fx"):
            print(name, gc.isenabled())

sys.meta_path.insert(0, Look())
import oncue
model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
model.compile("adam", "mse", jit_compile=True)
from oncue.training.graph.choice import GraphChoice
GraphChoice.compiler = staticmethod(lambda graph, inputs, device: graph)
import numpy
model.fit(numpy.ones((8, 2), "float32"), numpy.ones((8, 1), "float32"), batch_size=4, verbose=0)
print(gc.isenabled())
"""


@pytest.mark.parametrize("on", [True, False])
def test_the_search_for_garbage_is_as_before(on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with quick_imports():
            assert not gc.isenabled()
        assert gc.isenabled() is on
        with pytest.raises(ImportError, match="gone"), quick_imports():
            raise ImportError("gone")
        assert gc.isenabled() is on
    finally:
        (gc.enable if before else gc.disable)()


def test_torch_and_its_compiler_are_imported_so() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    lines = ["torch False", "torch._dynamo False", "torch._inductor.compile_fx False", "True"]
    assert found.stdout.splitlines() == lines
