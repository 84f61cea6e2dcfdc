"""Who may import whom: no cycles, one direction, and torch only when it is needed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "oncue"
Graph = dict[str, set[str]]


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("oncue", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


@functools.cache
def _tree(module: str) -> ast.Module:
    """Return a module as each rule looks at it."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def trees_are_dropped() -> Iterator[None]:
    """Keep the package's syntax trees, which are large, for the tests of this file alone."""
    yield
    _tree.cache_clear()


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports(node: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif _is_type_checking(child):
            for other in child.orelse:  # type: ignore[attr-defined]  # an ast.If
                yield from _imports(ast.Module([other], []), inside_functions)
        elif inside_functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _imports(child, inside_functions)


def _targets(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    assert statement.level == 0, "imports are written in full"
    assert statement.module is not None
    for alias in statement.names:
        name = f"{statement.module}.{alias.name}"
        yield name if name in MODULES else statement.module


@functools.cache
def _imported(module: str, inside_functions: bool = False) -> Set[str]:
    return {name for statement in _imports(_tree(module), inside_functions) for name in _targets(statement)}


def _graph(inside_functions: bool = False) -> Graph:
    """Return what each module imports of oncue. To import a module is to run the packages around it first."""
    graph: Graph = {}
    for module in MODULES:
        graph[module] = set()
        for name in _imported(module, inside_functions):
            if name.partition(".")[0] == "oncue":
                pieces = name.split(".")
                around = {".".join(pieces[:count]) for count in range(1, len(pieces) + 1)}
                # A package that imports its own modules is no cycle: it is running already when they are.
                graph[module] |= {other for other in around if not _is_around(other, module) or other == name}
        graph[module].discard(module)
    return graph


def _is_around(package: str, module: str) -> bool:
    return module == package or module.startswith(package + ".")


def _cycle(graph: Graph) -> list[str] | None:
    """Return the modules of one cycle, in order, or None."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str] | None:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return None
        for other in sorted(graph.get(module, ())):
            found = visit(other, [*trail, module])
            if found is not None:
                return found
        done.add(module)
        return None

    for module in sorted(graph):
        found = visit(module, [])
        if found is not None:
            return found
    return None


def test_a_cycle_is_found() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_the_graph_sees_imports() -> None:
    assert "oncue.core.hooks" in _graph()["oncue.callbacks.callback_list"]
    assert "oncue.callbacks" in _graph()["oncue.training.loop"]


def test_no_import_cycle() -> None:
    cycle = _cycle(_graph())
    assert cycle is None, f"an import cycle: {' -> '.join(cycle or [])}"


def test_every_room_can_be_imported_first() -> None:
    script = """
import importlib, sys
import torch
for name in sys.argv[1:]:
    for loaded in [one for one in sys.modules if one.partition(".")[0] == "oncue"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"import {name}: {error}")
"""
    result = _python(script, *(name for name in MODULES if name.count(".") == 1))
    assert result.returncode == 0, result.stderr


def _room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def _looks(inside_functions: bool) -> dict[tuple[str, str], set[str]]:
    """Return who imports whom, by pairs of rooms: the packages and modules directly in oncue."""
    found: dict[tuple[str, str], set[str]] = {}
    for module in MODULES:
        for name in _imported(module, inside_functions):
            if name.startswith("oncue.") and _room(module) not in ("", _room(name)):
                found.setdefault((_room(module), _room(name)), set()).add(f"{module} imports {name}")
    return found


ROOMS = {
    "core": "",
    "legacy": "core",
    "keras_names": "legacy",
    # What arithmetic is made of.
    "naming": "",
    "nested": "",
    "random_state": "",
    "seeded_mask": "",
    "seeds": "core naming seeded_mask",
    "torch_private": "",
    "shards": "core",
    "backend": "core keras_names naming",
    "objects": "core",
    "initializers": "backend core keras_names legacy naming objects seeds",
    "variable": "backend initializers naming shards torch_private",
    "dtype_policies": "backend core keras_names",
    "config": "backend dtype_policies keras_names",
    "random": "backend keras_names seeded_mask seeds",
    "activations": "backend keras_names objects",
    "constraints": "backend core keras_names objects",
    "regularizers": "backend core keras_names objects",
    "losses": "backend core keras_names legacy naming nested objects variable",
    "metrics": "backend core initializers keras_names legacy losses naming objects variable",
    "optimizers": "backend core keras_names legacy naming shards torch_private variable",
    "mixed_precision": "dtype_policies keras_names optimizers",
    "layers": (
        "activations backend constraints core dtype_policies initializers keras_names legacy metrics naming nested objects "
        "random random_state regularizers seeded_mask shards torch_private variable"
    ),
    # A run.
    "plots": "core",
    "checkpoints": "core shards",
    "named_weights": "core shards",
    "tensorboard": "core named_weights shards torch_private",
    "callbacks": "checkpoints core keras_names legacy named_weights plots tensorboard",
    "feeding": "backend core nested random_state torch_private",
    "distribution": "core",
    "training": (
        "backend callbacks checkpoints core distribution feeding layers legacy losses metrics naming nested optimizers "
        "random random_state regularizers seeded_mask shards torch_private variable"
    ),
    # What is made of them.
    "utils": "core feeding keras_names layers nested",
    "models": "core keras_names layers legacy naming nested torch_private training utils variable",
    "saving": (
        "activations checkpoints constraints core dtype_policies initializers keras_names layers legacy losses metrics "
        "models naming objects optimizers random regularizers shards torch_private variable"
    ),
    "hosts": "callbacks checkpoints core feeding nested optimizers random_state saving torch_private training",
    "with_keras": (
        "checkpoints core feeding keras_names layers losses metrics models naming nested optimizers saving seeded_mask "
        "torch_private training variable"
    ),
    "preprocessing": "backend core keras_names legacy",
    "datasets": "backend core keras_names legacy utils",
    "report": "core plots",
    "cli": "checkpoints core keras_names legacy plots report saving",
    "__main__": "cli",
}
"""Which rooms each room may look into, all of them above it: so there is no cycle. docs/architecture.md says why."""

LOOKS_BELOW = {
    ("activations", "layers"): "the configuration of an activation may name a layer",
    ("layers", "with_keras"): "layers and symbolic tensors of Keras become those of oncue",
    ("optimizers", "with_keras"): "an optimizer of Keras trains weights of oncue's",
    ("keras_names", "with_keras"): "a model of `applications` is handed out as a `KerasModel`",
    ("legacy", "backend"): "old functions ask for its settings",
    ("legacy", "keras_names"): "helpers for data are those that Keras keeps",
    ("legacy", "layers"): "old layers are made of those of today",
    ("legacy", "models"): "`K.function` makes a model",
    ("models", "saving"): "`model.save` is a method, and the files are their own room",
    ("models", "with_keras"): "`Model(keras_model)` makes a `KerasModel`; a file may name functions of `keras.ops`",
    ("named_weights", "models"): "a model that made its layers is the first part of their names",
}
"""The imports the other way, each inside a function that needs it."""

AT_ONCE = {
    "callbacks": "core keras_names legacy",
    "checkpoints": "core",
    "mixed_precision": "dtype_policies keras_names",
    "models": "core keras_names layers legacy naming nested torch_private training variable",
}
"""What rooms that must be quick to import look into when they are imported, where that is less."""


def test_every_room_is_in_the_table() -> None:
    assert {_room(module) for module in MODULES} - {""} == set(ROOMS)


def test_rooms_look_only_above() -> None:
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert set(allowed.split()) <= above, room
        above.add(room)


def test_a_room_looks_only_into() -> None:
    looks = _looks(inside_functions=True)
    wrong = {
        reason
        for (room, other), reasons in looks.items()
        for reason in reasons
        if other not in ROOMS[room].split() and (room, other) not in LOOKS_BELOW
    }
    assert not wrong
    unneeded = {(room, other) for room in ROOMS for other in ROOMS[room].split()} | set(LOOKS_BELOW)
    assert not unneeded - set(looks), "the table allows unneeded imports"


def test_a_room_imports_at_once_only() -> None:
    wrong = {
        reason
        for (room, other), reasons in _looks(inside_functions=False).items()
        for reason in reasons
        if other not in AT_ONCE.get(room, ROOMS[room]).split()
    }
    assert not wrong


def test_callbacks_do_not_import_each_other() -> None:
    from oncue import callbacks

    public = {getattr(callbacks, name) for name in callbacks.__all__}
    concrete = {kind.__module__ for kind in public if isinstance(kind, type) and issubclass(kind, callbacks.Callback)}
    concrete.discard(callbacks.Callback.__module__)
    assert len(concrete) > 10
    # It is made of others.
    assert _imported("oncue.callbacks.run_folder") & concrete
    assert not {
        f"{module} imports {name}"
        for module in concrete - {"oncue.callbacks.run_folder"}
        for name in _imported(module, inside_functions=True)
        if name.rpartition(".")[0] in concrete or name in concrete
    }


@pytest.mark.parametrize("room", ["oncue.core", "oncue.callbacks", "oncue.checkpoints"])
def test_a_room_imports_no_torch(room: str) -> None:
    heavy = {"torch", "numpy", "pandas", "tensorboard"}
    wrong = {
        f"{module} imports {name}"
        for module in MODULES
        if _is_around(room, module)
        for name in _imported(module)
        if name.partition(".")[0] in heavy
    }
    assert not wrong


def test_the_list_imports_no_concrete_callback() -> None:
    from oncue import callbacks

    public = (getattr(callbacks, name) for name in callbacks.__all__)
    concrete = {kind.__module__ for kind in public if isinstance(kind, type)} - {callbacks.Callback.__module__}
    assert concrete > {"oncue.callbacks.history"}
    assert not concrete & _imported("oncue.callbacks.callback_list", inside_functions=True)


def test_callbacks_are_imported_by_few_modules() -> None:
    script = "import sys; before = set(sys.modules); import oncue.callbacks; print(*sorted(set(sys.modules) - before))"
    found = _python(script).stdout.split()
    # About 35 ms of processor time on one core of a server. Typical of what would be slow are asyncio, http, multiprocessing.
    assert len(found) < 140, found


@pytest.mark.parametrize("module", ["oncue", "oncue.callbacks"])
def test_importing_leaves_torch_out(module: str) -> None:
    script = """
import importlib, sys
importlib.import_module(sys.argv[1])
heavy = sorted({"torch", "numpy", "tensorboard", "rich", "h5py"} & set(sys.modules))
raise SystemExit(f"it imported {heavy}" if heavy else 0)
"""
    result = _python(script, module)
    assert result.returncode == 0, result.stderr


# How things are found -------------------------------------------------------------------------------------------------


def _nodes(kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> Iterator[tuple[str, ast.AST]]:
    """Yield the nodes of some kinds, each with the function or class that it is in, such as `core.files.replace`."""

    def visit(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, kind):
                yield where, child
            named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            yield from visit(child, f"{where}.{child.name}" if named else where)  # type: ignore[attr-defined]

    for module in MODULES:
        yield from visit(_tree(module), module.removeprefix("oncue."))


READS_MODULE = {
    "objects.to_config": "writes the module of a user's class into a file, as Keras does",
    "optimizers.identifiers.serialize": "the same",
    "optimizers.schedules.serialize": "the same",
    "with_keras.holders": "Keras writes it into files",
    "training.graph.watched._package": "torch, NumPy and Keras can't mark their classes, where watching ends",
}


def test_nothing_is_decided_by_where_a_class_is_defined() -> None:
    found = {where for where, node in _nodes(ast.Attribute) if node.attr == "__module__"}  # type: ignore[attr-defined]
    found |= {where for where, node in _nodes(ast.Constant) if node.value == "__module__"}  # type: ignore[attr-defined]
    assert found == set(READS_MODULE)


def test_references_are_never_counted() -> None:
    named = (ast.Attribute, ast.Name, ast.alias)
    assert not {where for where, node in _nodes(named) if "getrefcount" in ast.unparse(node)}


FLAGS = {
    "core.console.disable_interactive_logging": "Keras's switch for the process",
    "core.console.enable_interactive_logging": "the same",
    "core.console.print_message": "turns it off when the reader of standard output is gone",
}


def test_no_flags_of_the_process() -> None:
    """No function sets a variable of a module, or an attribute of a class that isn't its own."""
    found = {where for where, _ in _nodes(ast.Global)}
    for where, node in _nodes((ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
        targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else [node.target]  # type: ignore[attr-defined]
        in_function = not where.rpartition(".")[2][:1].isupper() and f"oncue.{where}" not in MODULES
        for target in (one for given in targets for one in (given.elts if isinstance(given, ast.Tuple) else [given])):
            if in_function and isinstance(target, ast.Attribute) and _is_class(target.value):
                found.add(where)
    assert found == set(FLAGS)


def _is_class(node: ast.expr) -> bool:
    name = ast.unparse(node)
    return name == "type(self)" or name.rpartition(".")[2].lstrip("_")[:1].isupper()


ASKS_FOR_HOOKS = {
    "core.protocols": "the one place",
    "callbacks.roles": "sorts callbacks by them, once for each run",
    "feeding.epoch_hooks": "calls those of a PyDataset",
    "feeding.py_dataset": "Keras's PyDataset has methods of the same names",
}


def test_hooks_are_not_searched_for() -> None:
    """No `hasattr` or `getattr` by the name of a hook, or of a member of a protocol."""
    from oncue.core.hooks import ALIASES, HOOKS

    tree = _tree("oncue.core.protocols")
    members = {
        part.name if isinstance(part, ast.FunctionDef) else ast.unparse(part.target)
        for kind in tree.body
        if isinstance(kind, ast.ClassDef)
        for part in kind.body
        if isinstance(part, (ast.FunctionDef, ast.AnnAssign))
    }
    assert {"expect", "save_now", "keep_state", "listens_to"} <= members
    # Much else than metrics has a name.
    names = {*HOOKS, *ALIASES, *members} - {"name"}
    found = {
        where
        for where, node in _nodes(ast.Call)
        if ast.unparse(node.func) in ("hasattr", "getattr", "setattr", "delattr")  # type: ignore[attr-defined]
        and getattr(node.args[1], "value", None) in names  # type: ignore[attr-defined]
    }
    assert not {where for where in found if not where.startswith(tuple(ASKS_FOR_HOOKS))}


def test_every_public_name_can_be_had() -> None:
    import oncue

    missing = [name for name in oncue.__all__ if not hasattr(oncue, name)]
    assert not missing


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{script}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
