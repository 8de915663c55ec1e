"""Modules under the names that the documentation of version 0.1 showed, until version 0.3."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "verydeep.hub": "verydeep.deploy.hub",
    "verydeep.memory": "verydeep.core.memory",
    "verydeep.progress": "verydeep.core.progress",
    "verydeep.score_maps": "verydeep.evaluation.saliency",
    "verydeep.transfer.features": "verydeep.transfer.descriptors",
    "verydeep.transfer.settings": "verydeep.core.settings",
    "verydeep.winograd": "verydeep.models.winograd",
}


class _MovedModules(MetaPathFinder, Loader):
    """Imports a module by its old name, with a DeprecationWarning."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = MOVED[spec.name]
        text = f"{spec.name} is now {new}, and its public names are in verydeep itself"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return import_module(new)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: the module was executed under its new name."""


def install() -> None:
    """Makes the old names importable."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
