"""Modules of Keras that oncue has nothing of its own for, such as `oncue.ops`, for `import`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from oncue.keras_names.loading import require_keras
from oncue.keras_names.names import elsewhere, names_of_keras
from oncue.keras_names.table import NAMES

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder

    class _Base(MetaPathFinder, Loader):
        pass

else:
    # The real bases bring nothing but 20 ms of imports.
    _Base = object

_ROOT = "oncue."


class KerasModule(ModuleType):
    """A module whose names are Keras's, each looked up when it is first used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return names_of_keras(self.__name__)
        return elsewhere(self.__name__, name)

    def __dir__(self) -> list[str]:
        return names_of_keras(self.__name__)


class KerasModules(_Base):
    """Imports the public modules of Keras as modules of oncue, where oncue has none of that name.

    Example:
        >>> import oncue.applications.mobilenet_v2
        >>> oncue.applications.mobilenet_v2.__name__
        'oncue.applications.mobilenet_v2'
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for modules of Keras only."""
        if not fullname.startswith(_ROOT):
            return None
        place = fullname.removeprefix(_ROOT)
        if place not in NAMES:
            return None
        ours = PathFinder.find_spec(fullname, path)
        if ours is not None and ours.loader is not None:
            return None
        require_keras(fullname)
        # A package, so that what was inside in an older Keras is looked up too.
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty module."""
        return KerasModule(spec.name, f"Keras's own `{spec.name.removeprefix(_ROOT)}`.")

    def exec_module(self, module: ModuleType) -> None:
        """Leave it empty."""


def install() -> None:
    """Let `import` know the modules; once for the process, before Python looks into folders."""
    if not any(isinstance(finder, KerasModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, KerasModules())
