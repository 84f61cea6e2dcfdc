"""What the site tells that only the package itself knows: its public names, and what each callback does in a run of its own.

    python docs/site/facts.py FOLDER

writes `facts.json` and the pictures of docs/site/pictures.py into the folder, for `make docs`. The site is then built
without importing oncue.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import oncue
import pictures
from oncue import callbacks
from oncue.callbacks import Callback
from oncue.core.hooks import HOOKS

MODULES = {
    "oncue": "`fit`, and the classes that scripts name first.",
    "oncue.callbacks": "The base of callbacks and the list that calls them; each callback has a page of its own.",
    "oncue.hosts": "Callbacks in the training loops of other libraries.",
    "oncue.models": "Models, and their files.",
    "oncue.layers": "Layers.",
    "oncue.optimizers": "Optimizers.",
    "oncue.optimizers.schedules": "Learning rates that follow a schedule.",
    "oncue.losses": "Losses.",
    "oncue.metrics": "Metrics.",
    "oncue.activations": "Activations.",
    "oncue.initializers": "Initial values of weights.",
    "oncue.regularizers": "Penalties on weights.",
    "oncue.constraints": "Limits on weights.",
    "oncue.datasets": "Data sets.",
    "oncue.preprocessing": "What Keras 2 prepared pictures, text and sequences with.",
    "oncue.distribution": "Many processes.",
    "oncue.with_keras": "Models of the real Keras.",
    "oncue.saving": "Files, and names of classes in them.",
    "oncue.checkpoints": "Files and states of runs, found again.",
    "oncue.report": "Runs that have left a folder.",
    "oncue.plots": "Curves.",
    "oncue.random": "Random tensors and seeds.",
    "oncue.utils": "Tools.",
    "oncue.config": "Settings.",
    "oncue.dtype_policies": "Precision.",
    "oncue.mixed_precision": "Precision, by the names of Keras 2.",
    "oncue.backend": "The functions of Keras 1 and 2's backend.",
    "oncue.core.contract": "What callbacks know of a model.",
    "oncue.core.journal": "The journal of a run.",
    "oncue.core.every": "Periods in words.",
    "oncue.core.ranks": "The processes of a run.",
}
"""The modules of the reference, in its order, with what each is for."""

_TRAITS = {
    "main_process_only": "Of several processes only the main one has it.",
    "makes_way": "At an end of an epoch or of the run those that decide are called before it.",
    "runs_last": "At an end of an epoch or of the run it is called after the others.",
    "reads_batch_logs": "It reads the logs of batches, so each of those waits for the device.",
    "writes_learning_rate": "It sets the learning rate.",
}


def public_names(module: ModuleType) -> list[str]:
    """Return the public names of a module: those of `__all__`, or those that are made in it."""
    named = getattr(module, "__all__", None)
    if named is not None:
        return list(named)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def is_own(value: Any) -> bool:
    """Return whether a class or a function is oncue's own, and not Keras's, nor one that says why Keras's can't work."""
    return value.__module__.startswith("oncue.") and not value.__module__.startswith("oncue.keras_names.")


def _values(module: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the public classes and functions of a module, and of those inside it that have no page of their own."""
    found = importlib.import_module(module)
    for name in public_names(found):
        if module == "oncue.hosts" and name[0].isupper():
            # Its library need not be here, so it is told by its place.
            yield name, f"oncue.hosts.{name.lower()}.{name}"
            continue
        value = getattr(found, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield prefix + name, value
        elif isinstance(value, ModuleType) and module != "oncue" and value.__name__ not in MODULES:
            yield from _values(value.__name__, f"{prefix}{name}.")


def own_names() -> dict[str, dict[str, list[str]]]:
    """Return, for each module, the places of oncue's own classes and functions, each with the names that it has there."""
    found: dict[str, dict[str, list[str]]] = {}
    for module in MODULES:
        places = found.setdefault(module, {})
        for name, value in _values(module):
            if isinstance(value, str):
                places[value] = [name]
            elif is_own(value) and "<locals>" not in value.__qualname__:
                places.setdefault(f"{value.__module__}.{value.__qualname__}", []).append(name)
    return found


def pages() -> list[str]:
    """Return the callbacks that have a page: all public ones, and their list."""
    return [name for name in callbacks.__all__ if issubclass(getattr(callbacks, name), Callback)] + ["CallbackList"]


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def hooks_of(callback: type) -> list[tuple[str, str, str]]:
    """Return the hooks that a callback listens to, with when each is called and what the callback does then."""
    found = []
    for hook in HOOKS:
        method = inspect.getattr_static(callback, hook, None)
        if method is None or getattr(method, "_is_default", False) or callback is Callback:
            continue
        found.append((hook, _first_paragraph(getattr(Callback, hook).__doc__), _first_paragraph(method.__doc__)))
    return found


def facts_of(name: str, folder: Path) -> dict[str, Any]:
    """Let a callback's run happen, draw it, and return what there is to tell."""
    callback = getattr(callbacks, name)
    picture = pictures.PICTURES[name]()
    for dark in (False, True):
        pictures.save(picture, folder / f"{name}-{'dark' if dark else 'light'}.svg", dark)
    fields = [*getattr(callback, "state_fields", ()), *getattr(callback, "later_fields", ())]
    return {
        "place": f"{callback.__module__}.{callback.__qualname__}",
        "summary": _first_paragraph(callback.__doc__),
        "caption": picture.caption,
        "alt": picture.alt,
        "code": picture.code,
        "journal": picture.journal,
        "logs": picture.logs,
        "files": picture.files,
        "hooks": hooks_of(callback),
        "state": [field for field in fields if not field.startswith("_")],
        "hidden_state": any(field.startswith("_") for field in fields),
        "traits": [words for trait, words in _TRAITS.items() if getattr(callback, trait, False)],
    }


def main(folder: str) -> int:
    """Write everything into the folder."""
    out = Path(folder).resolve()
    shutil.rmtree(out, ignore_errors=True)
    (out / "pictures").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        facts = {
            "version": oncue.__version__,
            "modules": MODULES,
            "names": own_names(),
            "callbacks": {name: facts_of(name, out / "pictures") for name in pages()},
        }
        os.chdir(out)
    (out / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
