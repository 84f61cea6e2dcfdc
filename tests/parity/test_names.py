"""Every public name of the installed Keras: oncue's own, Keras's own, or refused with what to use instead."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest

import oncue
from oncue.keras_names.table import NAMES, VERSION

DOCS = Path(__file__).parents[2] / "docs"

REFUSED = {
    "distribution.LayoutMap": "data-parallel",
    "distribution.ModelParallel": "data-parallel",
    "distribution.TensorLayout": "data-parallel",
    "distribution.distribute_tensor": "data-parallel",
    "distribution.get_device_count": "list_devices",
}
"""Names that oncue answers with what to use instead, and a word of the answer."""


def _walk(module: ModuleType, place: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the public names of a module of Keras, and of the modules in it, with what they stand for."""
    for name in sorted(vars(module)):
        if name.startswith("_") or name == "src":
            continue
        value = vars(module)[name]
        yield place, name, value
        if isinstance(value, ModuleType) and value.__name__.startswith("keras."):
            yield from _walk(value, f"{place}.{name}" if place else name)


WALKED = list(_walk(keras))


def test_the_table_has_the_names_of_the_installed_keras() -> None:
    assert keras.__version__.startswith(f"{VERSION}.")
    walked: dict[str, list[str]] = {}
    for place, name, _ in WALKED:
        walked.setdefault(place, []).append(name)
    assert {place: names.split() for place, names in NAMES.items()} == walked


def _count() -> dict[str, int]:
    found = {"oncue": 0, "keras": 0, "refused": 0, "modules": 0}
    unresolved = []
    for place, name, theirs in WALKED:
        room = importlib.import_module(f"oncue.{place}" if place else "oncue")
        where = f"{place}.{name}" if place else name
        try:
            value = getattr(room, name)
        except AttributeError as error:
            if REFUSED.get(where, "no such word") not in str(error):
                unresolved.append(f"{where}: {error}")
            found["refused"] += 1
            continue
        if isinstance(theirs, ModuleType) and isinstance(value, ModuleType):
            found["modules"] += 1
        else:
            is_theirs = value is theirs or getattr(value, "__wrapped__", None) is theirs
            # Some take layers of oncue, too.
            is_theirs = is_theirs or (isinstance(value, type) and theirs in value.__bases__)
            found["keras" if is_theirs else "oncue"] += 1
    assert not unresolved
    return found


def test_every_name_resolves_and_the_docs_count_them() -> None:
    found = _count()
    assert found["refused"] == len(REFUSED)
    assert sum(found.values()) == len(WALKED)
    text = (DOCS / "coming_from_keras.md").read_text(encoding="utf-8")
    said = re.search(
        rf"Of the {len(WALKED)} public names of Keras {VERSION}, more than (\d+) are oncue's own, {found['modules']} are "
        rf"modules, {found['refused']} say what to use instead, and the others are Keras's\.",
        " ".join(text.split()),
    )
    assert said is not None
    assert int(said[1]) <= found["oncue"] < int(said[1]) + 60


STATEMENTS = [
    "import oncue.ops",
    "import oncue.ops.image",
    "import oncue.applications.mobilenet_v2",
    "from oncue import ops",
    "from oncue.keras import ops",
    "from oncue.layers import MultiHeadAttention",
    "from oncue.keras.layers import Conv2DTranspose",
    "from oncue.utils import pad_sequences",
    "from oncue.legacy.saving import serialize_keras_object",
    "import oncue; oncue.tree.map_structure",
    "import oncue; oncue.optimizers.legacy.Ftrl",
]


def test_imports_work() -> None:
    result = _python("\n".join(STATEMENTS))
    assert result.returncode == 0, result.stderr


def test_a_star_brings_all_names() -> None:
    rooms = ["layers", "losses", "optimizers", "initializers", "utils", "metrics", "callbacks"]
    wanted = {room: [name for name in NAMES[room].split() if name != "OrbaxCheckpoint"] for room in rooms}
    script = f"""
for room, names in {wanted}.items():
    found = {{}}
    exec(f"from oncue.{{room}} import *", found)
    assert not set(names) - set(found), (room, set(names) - set(found))
"""
    result = _python(script)
    assert result.returncode == 0, result.stderr
    script = f"""
sys.modules["keras"] = None
for room in {rooms}:
    found = {{}}
    exec(f"from oncue.{{room}} import *", found)
    assert "deserialize" in found or room in ("utils", "callbacks"), room
"""
    result = _python(script)
    assert result.returncode == 0, result.stderr


def test_imports_name_the_command_without_keras() -> None:
    tries = "\n".join(
        f"try:\n    {statement}\nexcept ImportError as error:\n    print(error)" for statement in STATEMENTS
    )
    lines = _python(f"sys.modules['keras'] = None\n{tries}").stdout.splitlines()
    assert len(lines) == len(STATEMENTS)
    assert all("isn't installed. Install it: pip install 'oncue[keras]'" in line for line in lines)


def test_keras_is_loaded_only_when_asked() -> None:
    script = """
import oncue as keras
from oncue import layers, ops, applications
import oncue.applications.mobilenet_v2
model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
model.compile("sgd", "mse")
model.fit([[1.0, 2.0]], [[1.0]], verbose=0)
assert not hasattr(layers, "no_such_layer") and not hasattr(keras, "_private")
dir(layers), dir(ops), dir(keras)
assert "keras" not in sys.modules
ops.softmax
assert "keras" in sys.modules
"""
    assert _python(script).returncode == 0


def test_ours_win() -> None:
    assert oncue.layers.Dense is not keras.layers.Dense
    assert oncue.optimizers.legacy.Adam is oncue.optimizers.Adam
    assert oncue.layers.Conv2DTranspose is keras.layers.Conv2DTranspose
    assert oncue.ops.mean is keras.ops.mean


def test_another_backend_is_refused_before_it_is_loaded() -> None:
    result = _python("import os; os.environ['KERAS_BACKEND'] = 'jax'; import oncue; oncue.ops.softmax")
    assert "ValueError: Keras has the backend 'jax', and oncue trains on torch." in result.stderr


def test_settings_reach_keras() -> None:
    script = """
import oncue
oncue.config.set_floatx("float64")
assert oncue.layers.Conv2DTranspose(1, 2).dtype == "float64"
oncue.config.set_floatx("float32")
oncue.mixed_precision.set_global_policy("mixed_bfloat16")
assert oncue.layers.Conv2DTranspose(1, 2).compute_dtype == "bfloat16"
oncue.utils.clear_session()
assert oncue.layers.Conv2DTranspose(1, 2).compute_dtype == "float32"
oncue.utils.set_random_seed(1)
first = oncue.random.beta((3,), 1.0, 2.0)
oncue.utils.set_random_seed(1)
assert (oncue.random.beta((3,), 1.0, 2.0) == first).all()
"""
    result = _python(script)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["TFSMLayer", "JaxLayer", "FlaxLayer"])
def test_what_cannot_work_on_torch_says_what_does(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"`{name}` can't work on torch"):
        getattr(oncue.layers, name)("x")


def _python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{script}"], capture_output=True, text=True, timeout=240, check=False
    )
