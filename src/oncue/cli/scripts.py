"""`oncue check`: which names of Keras and TensorFlow a script uses, and what becomes of each. The script isn't run."""

from __future__ import annotations

import argparse
import ast
import builtins
import functools
import importlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from oncue.cli.output import say, say_json, table
from oncue.core.suggest import nearest
from oncue.keras_names.impossible import impossible
from oncue.keras_names.names import own_names
from oncue.keras_names.table import NAMES
from oncue.legacy import aliases, modules
from oncue.legacy.arguments import ARGUMENTS, ARGUMENTS_REFUSED
from oncue.legacy.methods import METHODS

RUNS, BY_KERAS, OLD, MISSING = "runs", "runs by Keras", "old word", "missing"
KINDS = (RUNS, BY_KERAS, OLD, MISSING)
"""What becomes of a name: oncue's own, Keras's own by oncue, an old word that works, or nothing here."""

_ROOTS = {
    "keras": "oncue",
    "tensorflow": "oncue",
    "tf_keras": "oncue",
    "oncue": "oncue",
}
_MOST_BYTES = 20 << 20
# Methods that other libraries' objects have under the same names are left out.
_METHODS = frozenset(METHODS) - {
    "get_weights", "input_shape", "lr", "monitor_op", "output_shape", "predict_proba", "weights",
}  # fmt: skip
_METHODS_REFUSED = frozenset(modules.METHODS_REFUSED) - {"minimize", "add_update"}


@dataclass
class Found:
    """A name that a script uses.

    Args:
        name: The name, by its place in Keras or TensorFlow.
        kind: One of `KINDS`.
        advice: What to type today, or what to do.
        lines: Where it is used.
    """

    name: str
    kind: str
    advice: str = ""
    lines: list[int] = field(default_factory=list)


def classify(full: str) -> Found:
    """Say what becomes of a name.

    Args:
        full: Its full name, `oncue` in place of `keras` or `tensorflow`.

    Example:
        >>> classify("oncue.layers.Dense").kind, classify("oncue.objectives").advice
        ('runs', 'use losses')
    """
    plain = aliases.plain_name(full)
    steps = plain.split(".")
    place = steps[0]
    if len(steps) == 1:
        return Found(full.removeprefix("oncue."), RUNS)
    deepest = next((at for at in range(len(steps), 1, -1) if ".".join(steps[:at]) in modules.MODULES), 0)
    if deepest:
        name, new = plain.partition(".")[2], modules.MODULES[".".join(steps[:deepest])].new
        rest = classify(".".join([new or "oncue", *steps[deepest:]]))
        if rest.kind == MISSING:
            return Found(name, MISSING, rest.advice)
        return Found(name, OLD, f"use {rest.name}")
    for step in steps[1:]:
        home, place = place, f"{place}.{step}"
        shown = place.partition(".")[2]
        refused = modules.REFUSED.get(place)
        if refused is not None:
            return Found(shown, MISSING, f"{refused.reason}. {refused.way}")
        word = modules.ATTRIBUTES.get(place)
        if word is not None:
            return Found(shown, OLD, _use(word.new))
        if place in modules.SILENT_MODULES:
            place = modules.SILENT_MODULES[place]
            continue
        if home in modules.PARTS and step in modules.PARTS[home]:
            return Found(shown, RUNS)
        if place in modules.SPACES or place in modules.PARTS:
            continue
        inside = home.partition(".")[2]
        if _is_ours(home, step):
            if _is_module(place):
                continue
            return Found(shown, RUNS)
        if step in NAMES.get(inside, "").split():
            if impossible(f"{inside}.{step}") is not None:
                return Found(shown, MISSING, str(impossible(f"{inside}.{step}").__doc__))
            if shown in NAMES:
                continue
            return Found(shown, BY_KERAS)
        if not _is_module(home) and inside not in NAMES and home not in modules.SPACES:
            return Found(inside, RUNS)
        known = {*_own_names(home), *NAMES.get(inside, "").split()}
        guess = nearest(step, known)
        hint = f"did you mean {guess}?" if guess is not None else _elsewhere(step)
        return Found(shown, MISSING, hint)
    return Found(plain.partition(".")[2], RUNS if _is_module(plain) else BY_KERAS)


def _use(new: str | None) -> str:
    return "leave it out" if new is None else "use " + new.replace("oncue.", "").replace("`", "")


def _elsewhere(step: str) -> str:
    places = [f"{room}.{step}".lstrip(".") for room, names in NAMES.items() if step in names.split()]
    if places:
        return f"use {min(places, key=len)}"
    return "not in Keras 3: use torch, or write it yourself"


def _module(name: str) -> ModuleType | None:
    if name in modules.SPACES or (name.partition(".")[2] in NAMES and not _is_file(name)):
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _is_file(name: str) -> bool:
    if name == "oncue":
        return True
    package, _, _ = name.rpartition(".")
    around = importlib.import_module(package) if _is_file(package) else None
    path = getattr(around, "__path__", None)
    spec = None if path is None else PathFinder.find_spec(name, path)
    # A folder with nothing but types for editors has no loader.
    return spec is not None and spec.origin is not None


def _is_module(name: str) -> bool:
    return _module(name) is not None


@functools.cache
def _own_names(home: str) -> frozenset[str]:
    """Return the public names of a module: what it lists, or else what its text defines, and no name of Keras's kept there."""
    module = _module(home)
    if module is None:
        return frozenset()
    listed = vars(module).get("__all__")
    if listed is not None:
        # A star brings Keras's names, too.
        return own_names(home, listed)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return frozenset(name for name in names if not name.startswith("_"))


def _is_ours(home: str, step: str) -> bool:
    if _module(home) is None:
        return False
    return step in _own_names(home) or step == "__version__" or _is_file(f"{home}.{step}")


# Reading a script ------------------------------------------------------------------------------------------------------


class Reader(ast.NodeVisitor):
    """Finds the names of Keras and TensorFlow in a script, by what its imports bind.

    Attributes:
        found: From each name to what becomes of it.
    """

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}
        self.stars: list[str] = []
        self.own: set[str] = set(dir(builtins))
        self.found: dict[str, Found] = {}

    def note(self, full: str, line: int) -> Found:
        """Note a use of a name by its full name."""
        kept = classify(full)
        return self._keep(kept, line)

    def _keep(self, kept: Found, line: int) -> Found:
        known = self.found.setdefault(kept.name, kept)
        if line not in known.lines:
            known.lines.append(line)
        return known

    def visit_Import(self, node: ast.Import) -> None:
        """Bind modules."""
        for alias in node.names:
            root, _, rest = alias.name.partition(".")
            if root not in _ROOTS:
                continue
            full = f"{_ROOTS[root]}.{rest}" if rest else _ROOTS[root]
            if rest:
                self.note(full, node.lineno)
            self.bound[alias.asname or root] = full if alias.asname else _ROOTS[root]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Bind names of modules."""
        root, _, rest = (node.module or "").partition(".")
        if node.level or root not in _ROOTS:
            return
        home = f"{_ROOTS[root]}.{rest}" if rest else _ROOTS[root]
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(home)
                continue
            full = f"{home}.{alias.name}"
            self.note(full, node.lineno)
            self.bound[alias.asname or alias.name] = full

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Note `keras.layers.Dense`, and old methods of objects."""
        full = self._full(node)
        if full is not None:
            self.note(full, node.lineno)
            return
        if node.attr in _METHODS and isinstance(node.ctx, ast.Load):
            self._keep(Found(f".{node.attr}", OLD, _use(METHODS[node.attr].new)), node.lineno)
        elif node.attr in _METHODS_REFUSED and isinstance(node.ctx, ast.Load):
            refused = modules.METHODS_REFUSED[node.attr]
            self._keep(Found(f".{node.attr}", MISSING, f"{refused.reason}. {refused.way}"), node.lineno)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """Note what was imported by its own name, or with all others of a module."""
        if node.id in self.bound:
            full = self.bound[node.id]
            if full != "oncue":
                self.note(full, node.lineno)
        elif self.stars and isinstance(node.ctx, ast.Load) and node.id not in self.own:
            home = next((home for home in self.stars if node.id in self._public(home)), None)
            if home is not None:
                self.note(f"{home}.{node.id}", node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        """Note old arguments of classes and methods."""
        full = self._full(node.func)
        owner = full.rpartition(".")[2] if full is not None else getattr(node.func, "attr", "")
        owner = {"Convolution2D": "Conv2D", "Convolution1D": "Conv1D"}.get(owner, owner)
        table_of = ARGUMENTS.get(owner, {})
        if full is None and owner not in ("fit", "evaluate", "predict"):
            table_of = {}
        if full is not None and aliases.plain_name(full).startswith("oncue.optimizers."):
            table_of = ARGUMENTS["Optimizer"]
        refused = ARGUMENTS_REFUSED.get(owner, {}) if full is not None else {}
        for keyword in node.keywords:
            zero = isinstance(keyword.value, ast.Constant) and not keyword.value.value
            if keyword.arg in refused and not zero:
                word = refused[keyword.arg]
                self._keep(
                    Found(f"{owner}({keyword.arg}=)", MISSING, f"{word.reason}. {word.way}"), keyword.value.lineno
                )
            if keyword.arg in table_of:
                advice = _use(table_of[keyword.arg])
                self._keep(Found(f"{owner}({keyword.arg}=)", OLD, advice), keyword.value.lineno)
        self.generic_visit(node)

    def _public(self, home: str) -> set[str]:
        plain = aliases.plain_name(home)
        word = modules.MODULES.get(plain)
        plain = plain if word is None or word.new is None else word.new
        old = {
            name[len(plain) + 1 :] for name in (*modules.ATTRIBUTES, *modules.REFUSED) if name.startswith(f"{plain}.")
        }
        return {*_own_names(plain), *NAMES.get(plain.partition(".")[2], "").split(), *old}

    def _full(self, node: ast.expr) -> str | None:
        steps: list[str] = []
        while isinstance(node, ast.Attribute):
            steps.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.bound:
            return None
        return ".".join([self.bound[node.id], *reversed(steps)])


def names_of(path: Path) -> list[Found]:
    """Return the names of Keras and TensorFlow in a script, in the order of their first use.

    Args:
        path: A file of Python, or a notebook.

    Raises:
        ValueError: For what is no script of Python 3.
    """
    try:
        tree = ast.parse(_source(path))
    except SyntaxError as error:
        raise ValueError(f"{path} is no script of Python 3: line {error.lineno}: {error.msg}") from error
    except (RecursionError, MemoryError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a script: {error}") from error
    reader = Reader()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            reader.own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            reader.own.add(node.id)
    try:
        reader.visit(tree)
    except RecursionError as error:
        raise ValueError(f"{path} can't be read as a script: it is nested too deeply") from error
    return sorted(reader.found.values(), key=lambda one: (one.lines[0], one.name))


def _source(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes")
    text = path.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff")
    if path.suffix != ".ipynb":
        return text
    try:
        cells = json.loads(text)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("it is no notebook") from error
    # What a notebook does by itself is no Python.
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for cell in code for line in cell.split("\n"))


# The command -----------------------------------------------------------------------------------------------------------


def check(options: argparse.Namespace) -> int:
    """Print what becomes of the names in a script, or a summary of the scripts in a folder.

    Args:
        options: `path`, and `json`.

    Returns:
        0 when every name runs; 1 when one is missing.

    Raises:
        ValueError: For what is no script.
    """
    path = Path(options.path)
    if path.is_dir():
        return _folder(path, options.json)
    found = names_of(path)
    if options.json:
        say_json({"script": str(path), "names": [_as_json(one) for one in found], "counts": _counts(found)})
    elif not found:
        say(f"{path} uses no names of Keras or TensorFlow.")
    else:
        rows = [[one.lines[0], one.name, one.kind, one.advice] for one in found]
        table("", ("Line", "Name", "", "What to do"), rows, right=(0,))
        say(_sentence(found))
    return int(any(one.kind == MISSING for one in found))


def _as_json(found: Found) -> dict[str, Any]:
    return {"name": found.name, "kind": found.kind, "advice": found.advice, "lines": found.lines}


def _counts(found: list[Found]) -> dict[str, int]:
    counted = Counter(one.kind for one in found)
    return {kind: counted[kind] for kind in KINDS}


def _sentence(found: list[Found]) -> str:
    said = ", ".join(f"{count} {kind}" for kind, count in _counts(found).items() if count)
    missing = any(one.kind == MISSING for one in found)
    return f"{len(found)} names: {said}." + (
        "" if missing else " Put `oncue` for `keras` and `tensorflow` in its imports, and run it."
    )


def _scripts(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix in (".py", ".ipynb") and path.is_file())


def _folder(folder: Path, as_json: bool) -> int:
    rows: list[list[Any]] = []
    missing: Counter[str] = Counter()
    advice: dict[str, str] = {}
    complete = read = 0
    for path in _scripts(folder):
        name = path.relative_to(folder).as_posix()
        try:
            found = names_of(path)
        except ValueError as error:
            rows.append([name, *("-" for _ in KINDS), str(error).partition(": ")[2] or str(error)])
            continue
        if not found:
            continue
        read += 1
        absent = [one for one in found if one.kind == MISSING]
        complete += not absent
        missing.update(one.name for one in absent)
        advice.update({one.name: one.advice for one in absent})
        rows.append([name, *_counts(found).values(), ", ".join(one.name for one in absent)])
    if not rows:
        raise ValueError(f"There are no scripts that use Keras or TensorFlow in {folder}.")
    wanted = [{"name": name, "scripts": count, "advice": advice[name]} for name, count in missing.most_common()]
    if as_json:
        keys = ("script", *KINDS, "missing names")
        say_json(
            {"scripts": [dict(zip(keys, row, strict=True)) for row in rows], "missing": wanted, "complete": complete}
        )
    else:
        table("", ("Script", *KINDS, "Missing names"), rows, right=(1, 2, 3, 4))
        if wanted:
            cells = [[one["scripts"], one["name"], one["advice"]] for one in wanted]
            table("What is missing", ("Scripts", "Name", "What to do"), cells, right=(0,))
        say(f"Of {read} scripts, {complete} use only names that run.")
    return int(complete < len(rows))
