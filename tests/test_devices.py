"""Tests are written for the device that is there: nothing binds them to the CPU but `helpers.cpu_only`.

What fails on a machine with an accelerator alone is looked for in the text of the tests, so that it is found without one.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import oncue
from helpers import cpu_only, environment, tensor, to_numpy

ROOT = Path(__file__).parent
FILES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    # Scripts of the users' are as they wrote them.
    if path.name not in ("helpers.py", Path(__file__).name) and "scripts" not in path.parts
]
# Files that may do what others may not.
READS_ITSELF = {
    "layers/test_trial.py": "the test that lets NumPy write is marked",
    "optimizers/test_learning_rate.py": "a learning rate has a method `numpy` of its own",
    "optimizers/test_state.py": "a Variable has a method `numpy` of its own, which copies from any device",
    "parity/test_variable.py": "as above",
    "test_variable.py": "as above",
    "training/test_device_reads.py": "it counts such calls",
    "distribution/test_step_cost.py": "it stands in for a message of the CPU, and is marked",
}
FORKS = {
    "checkpoints/test_writer.py": "no tensor is touched in its processes",
    "crash/campaign.py": "`test_kills` shows it no accelerator",
    "crash/test_fuzz.py": "all of its tests are marked",
    "crash/test_system_calls.py": "all of its tests are marked",
    "distribution/failing.py": "a script, which is started where there is no accelerator",
    "distribution/sharded_kills.py": "as above",
    "security/hostile.py": "its processes open files, and train nothing",
}
FACTORIES = {
    "arange",
    "as_tensor",
    "eye",
    "from_numpy",
    "full",
    "linspace",
    "ones",
    "rand",
    "randint",
    "randn",
    "tensor",
}
FACTORIES |= {"zeros"}
MODELS = {"layer", "made", "model", "module", "network", "other", "ours"}
HANDED_IN_CODE = re.compile(rf"\b({'|'.join(sorted(MODELS))})\(torch\.({'|'.join(sorted(FACTORIES))})\(")
TRAINS = {"backward", "fit", "train", "train_on_batch"}


def named(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return a file as each rule looks at it."""
    return ast.parse(path.read_text())


@pytest.fixture(scope="module", autouse=True)
def trees_are_dropped() -> Iterator[None]:
    """Keep the syntax trees, which are large, for the tests of this file alone."""
    yield
    tree_of.cache_clear()


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node


SOURCES = [path for path in sorted(Path(oncue.__file__).parent.rglob("*.py")) if "torch.cuda." in path.read_text()]
OF_A_DEVICE = {
    "current_stream": 1,
    "get_device_name": 1,
    "max_memory_allocated": 1,
    "max_memory_reserved": 1,
    "mem_get_info": 1,
    "memory_allocated": 1,
    "power_draw": 1,
    "reset_peak_memory_stats": 1,
    "get_rng_state": 1,
    "set_rng_state": 2,
    "synchronize": 1,
    "temperature": 1,
    "utilization": 1,
    "Stream": 1,
    # An event is that of a stream of the device; see `backend.work_so_far`.
    "Event": 9,
}
"""Functions of `torch.cuda` that are about the current device unless another is given, and how many arguments give one."""


def forgets_the_device(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield what is about the current device of CUDA, which needn't be the model's."""
    for call in calls(tree):
        name = named(call.func)
        least = OF_A_DEVICE.get(name.removeprefix("torch.cuda."), 0) if name.startswith("torch.cuda.") else 0
        if len(call.args) < least or (name == "torch.cuda.graph" and not any(w.arg == "stream" for w in call.keywords)):
            yield call


def on_the_host(node: ast.AST) -> bool:
    """Whether an argument is a tensor made on the spot, on the CPU, or a list, tuple or dict of such."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return any(on_the_host(part) for part in node.elts)
    if isinstance(node, ast.Dict):
        return any(on_the_host(part) for part in node.values)
    return (
        isinstance(node, ast.Call)
        and named(node.func).removeprefix("torch.") in FACTORIES
        and named(node.func).startswith("torch.")
        and not any(word.arg == "device" for word in node.keywords)
    )


def reads(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield calls of `numpy()`, which no tensor of an accelerator has, and gradients that NumPy gets as they are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "numpy" and not node.args:
                yield node
            elif named(node.func).startswith("np.") and any(map(is_gradient, node.args)):
                yield node
        elif isinstance(node, (ast.Tuple, ast.List)) and any(map(is_gradient, node.elts)):
            if any(isinstance(part, ast.Call) and named(part.func) == "to_numpy" for part in node.elts):
                yield node


def is_gradient(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "grad"


def compares(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield comparisons of tensors of a file, which are on the CPU, with others."""
    for call in calls(tree):
        if named(call.func) in ("torch.equal", "torch.allclose", "torch.testing.assert_close"):
            if any(re.match(r"load_file\(", ast.unparse(node)) for node in call.args):
                yield call


def hands_over(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield calls of layers and models with tensors of the CPU, also in code for other processes.

    Calls that are refused before they compute may have such tensors.
    """
    refused = {
        call
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and any("pytest.raises" in ast.unparse(item) for item in block.items)
        for call in calls(block)
    }
    for call in calls(tree):
        made_here = isinstance(call.func, ast.Call) and named(call.func.func).split(".")[0] in (
            "layers",
            "oncue",
            "keras",
        )
        if (made_here or named(call.func) in MODELS) and call not in refused and any(map(on_the_host, call.args)):
            yield call
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and HANDED_IN_CODE.search(node.value):
            yield node


def pins(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what binds models to a device."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("ONCUE_DEVICE", "CUDA_VISIBLE_DEVICES"):
            yield node
        elif isinstance(node, ast.Call):
            cpu = [word for word in node.keywords if word.arg == "device" and ast.unparse(word.value) == "'cpu'"]
            autocast = named(node.func).endswith("autocast") and node.args and ast.unparse(node.args[0]) == "'cpu'"
            if cpu or autocast or named(node.func).endswith(("set_device", "set_default_device")):
                yield node


def made_at_import(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield tensors of the device that are made when a file is imported: CUDA would begin before others fork."""
    imported = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "helpers"
        for name in node.names
    }
    yield from _made_at_import(tree, imported & {"parameter", "tensor"})


def _made_at_import(tree: ast.AST, makers: set[str]) -> Iterator[ast.Call]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            for decorator in getattr(node, "decorator_list", []):
                yield from _made_at_import(ast.Expression(decorator), makers)
            continue
        if isinstance(node, ast.Call) and named(node.func) in makers:
            yield node
        yield from _made_at_import(node, makers)


def forks(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield functions that fork and are not bound to the CPU, or that train.

    Where there is an accelerator, torch refuses gradients in a fork of a process that has had any, on the CPU, too.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(named(call.func) == "os.fork" for call in calls(node)):
            on_cpu = any("cpu_only" in ast.unparse(decorator) for decorator in node.decorator_list)
            if not on_cpu or any(named(call.func).split(".")[-1] in TRAINS for call in calls(node)):
                yield node


PINS = {
    "peers/run.py": "Keras's own tests hand tensors of the CPU to layers",
    "distribution/test_sharded_memory.py": "all of its tests are marked; torch's meta device stands for one that isn't there",
    "processes.py": "several processes can't share one GPU, which NCCL refuses; their tests are marked",
    "layers/test_inputs_from_the_cpu.py": "puts weights on a device that every machine has",
    "training/graph/test_lstm.py": "all of its tests are marked",
    "cudnn_on_the_cpu.py": "it gives the CPU what only CUDA has",
    "training/graph/test_cudnn_rnn.py": "all of its tests are marked",
    "training/graph/test_matrix_training.py": "the test of autocast is marked",
    "training/graph/test_python_in_a_step.py": "the test of autocast is marked",
    "training/test_precision_operations.py": "all of its tests are marked",
}
RULES = {reads: READS_ITSELF, compares: {}, hands_over: {}, pins: PINS, made_at_import: {}, forks: FORKS}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_test_is_for_the_cpu_alone(rule: object) -> None:
    found = []
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name not in RULES[rule]:
            found += [f"{name}:{node.lineno}: {ast.unparse(node)[:90]}" for node in rule(tree_of(path))]
    assert not found, "\n".join(found)


def test_nothing_is_about_the_current_device_where_the_model_has_another() -> None:
    found = [f"{path.name}:{call.lineno}" for path in SOURCES for call in forgets_the_device(tree_of(path))]
    assert not found, found


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (forgets_the_device, "torch.cuda.synchronize()"),
        (forgets_the_device, "torch.cuda.Event()"),
        (forgets_the_device, "with torch.cuda.graph(recorded, pool=pool):\n    pass"),
        (reads, "np.sum(layer.kernel.detach().numpy())"),
        (reads, "np.testing.assert_allclose(x.grad, expected)"),
        (reads, "results.append((to_numpy(y), x.grad))"),
        (compares, "torch.equal(load_file('m.safetensors')['weight'], module.weight)"),
        (hands_over, "layers.Dense(3)(torch.ones(2, 3))"),
        (hands_over, "model({'a': torch.zeros(2, 3)}, training=True)"),
        (hands_over, "code = 'import torch; print(model(torch.tensor([1])))'"),
        (pins, "with torch.autocast('cpu', torch.bfloat16):\n    pass"),
        (pins, "oncue.backend.set_device(None)"),
        (pins, "os.environ['ONCUE_DEVICE']"),
        (pins, "as_batches(x, device='cpu')"),
        (made_at_import, "from helpers import tensor\nX = {'a': tensor([1.0])}"),
        (
            made_at_import,
            "from helpers import tensor\n@pytest.mark.parametrize('x', [tensor([1.0])])\ndef test_x(x): pass",
        ),
        (forks, "def test_a():\n    child = os.fork()"),
        (forks, "@cpu_only('it forks')\ndef test_a():\n    child = os.fork()\n    model.fit(X, Y)"),
    ],
)
def test_the_rules_see_what_they_are_for(rule: object, code: str) -> None:
    assert len(list(rule(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (forgets_the_device, "torch.cuda.synchronize(device)"),
        (
            forgets_the_device,
            "with torch.cuda.graph(recorded, pool=pool, stream=stream):\n    torch.cuda.is_available()",
        ),
        (reads, "to_numpy(layer.kernel)"),
        (reads, "results.append((to_numpy(y), to_numpy(x.grad)))"),
        (compares, "torch.equal(tensor(load_file('m.safetensors')['weight']), module.weight)"),
        (hands_over, "layers.Dense(3)(tensor(torch.ones(2, 3)))"),
        (hands_over, "with pytest.raises(ValueError):\n    model(torch.ones(2, 3))"),
        (hands_over, "torch.nn.Linear(3, 2)(torch.ones(2, 3))"),
        (pins, "with torch.autocast(x.device.type, torch.bfloat16):\n    pass"),
        (made_at_import, "from helpers import tensor\ndef test_x():\n    tensor([1.0])"),
        (made_at_import, "X = parameter(1.0)"),
        (forks, "@cpu_only('it forks')\ndef test_a():\n    child = os.fork()"),
    ],
)
def test_the_rules_let_the_rest_be(rule: object, code: str) -> None:
    assert list(rule(ast.parse(code))) == []


def test_helpers_place_values_where_layers_are() -> None:
    layer = oncue.layers.Dense(2)
    x = tensor(torch.ones(1, 3))
    assert layer(x).device == layer.kernel.device == x.device
    assert to_numpy(layer(x)).shape == (1, 2)
    with pytest.raises(ValueError, match="says why"):
        cpu_only("")


@cpu_only("it is about the mark itself")
def test_what_is_marked_sees_no_accelerator() -> None:
    assert oncue.backend.device().type == "cpu" == tensor([1.0]).device.type
    assert environment()["CUDA_VISIBLE_DEVICES"] == ""
