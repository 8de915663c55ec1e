"""The layout of the package, read from its code: `python tests/layers.py` prints what `test_layers.py` checks.

Packages import only those below them, and no module imports one that imports it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

TOP = Path(__file__).resolve().parents[1] / "src" / "verydeep"
# From the bottom up; packages of one line do not import each other.
LAYERS = (
    ("core",),
    ("models", "data"),
    ("checkpoints",),
    ("evaluation",),
    ("transfer",),
    ("training",),
    ("localisation",),
    ("reports",),
    ("api",),
    ("deploy", "sklearn"),
    ("paper",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = {".".join(path.relative_to(TOP).with_suffix("").parts): path for path in sorted(TOP.rglob("*.py"))}
FUNCTION_LINES, PRIVATE_PARAMETERS = 45, 7


def package_of(module: str) -> str:
    """The part of a module's name that `LAYERS` orders."""
    return module.split(".", maxsplit=1)[0]


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports, wherever in it."""
    parts, found = module.split("."), set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in MODULES else ".".join(base))
    return found


IMPORTS = {name: imports_of(name) for name in MODULES if not name.startswith("__")}


def upward_imports() -> list[str]:
    """Imports of a package that is not below the importing one."""
    return [
        f"{name} -> {used}"
        for name, all_used in IMPORTS.items()
        for used in sorted(all_used)
        if package_of(used) != package_of(name) and LEVEL[package_of(used)] >= LEVEL[package_of(name)]
    ]


def import_circle() -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as circle:
        return list(circle.args[1])
    return []


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function with its place."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{name}.{node.name}", node


def long_functions() -> list[str]:
    """Functions of more lines than `FUNCTION_LINES`."""
    return [name for name, node in functions() if (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES]


def public_functions() -> set[str]:
    """The public names with their modules, as ``__init__.pyi`` lists them."""
    tree = ast.parse((TOP / "__init__.pyi").read_text())
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def wide_functions() -> list[str]:
    """Functions of more parameters than `PRIVATE_PARAMETERS` that are not public."""
    found, public = [], public_functions()
    for name, node in functions():
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = sum(argument.arg not in ("self", "cls") for argument in given)
        if count > PRIVATE_PARAMETERS and name not in public:
            found.append(f"{name} ({count})")
    return found


def top_level() -> list[str]:
    """Packages and modules side by side at the top of the package."""
    return sorted({package_of(name) for name in MODULES if not name.startswith("__")})


def main() -> None:
    """Prints the measures."""
    lines = sum(len(path.read_text().splitlines()) for path in MODULES.values())
    wide = wide_functions()
    print(f"names at the top level: {len(top_level())} ({', '.join(top_level())})")
    print(f"modules: {len(IMPORTS)}, imports between them: {sum(map(len, IMPORTS.values()))}")
    print(f"modules in a circle of imports: {len(import_circle())}")
    print(f"imports that go upwards: {len(upward_imports())} {upward_imports() or ''}")
    print(f"lines of src: {lines:,}")
    print(f"functions of more than {FUNCTION_LINES} lines: {len(long_functions())}")
    print(f"functions that are not public with more than {PRIVATE_PARAMETERS} parameters: {len(wide)}")
    for name in wide:
        print(f"  {name}")


if __name__ == "__main__":
    main()
