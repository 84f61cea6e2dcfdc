"""Which files pytest reads: the adapters of libraries that aren't installed can't be imported."""

from __future__ import annotations

from importlib.util import find_spec

_ADAPTERS = {"lightning": "src/oncue/hosts/lightning.py", "transformers": "src/oncue/hosts/transformers.py"}

# `make hosts` has environments with them.
collect_ignore = [path for library, path in _ADAPTERS.items() if find_spec(library) is None]
if find_spec("accelerate") is None and find_spec("lightning") is None:
    collect_ignore.append("tests/hosts/test_accelerate.py")
