"""Which files pytest reads: the adapters of libraries that aren't installed can't be imported."""

from __future__ import annotations

from importlib.util import find_spec

_LIBRARIES = ("ignite", "lightning", "poutyne", "skorch", "transformers")

# `make hosts` has environments with them.
collect_ignore_glob = [f"src/oncue/hosts/{library}*.py" for library in _LIBRARIES if find_spec(library) is None]
# The test files of Keras import this; it imports Keras.
collect_ignore = ["tests/peers/shim.py", "tests/peers/plugin.py"]
if find_spec("accelerate") is None and find_spec("lightning") is None:
    collect_ignore.append("tests/hosts/test_accelerate.py")
