"""Very deep ConvNets for large-scale image recognition (Simonyan & Zisserman, ICLR 2015).

The public, stable API is the names in ``__init__.pyi``; modules behind them may change between minor versions.
They load on first use, so that importing the package is quick.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from .core import moved

_HOMES = {
    alias.name: str(node.module)
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
__all__ = [*sorted(_HOMES)]  # noqa: PLE0604 - they are text
moved.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
