"""The house's own rules, read from the code: arrows, sizes, who prints, public names, docstrings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import verydeep

TOP = Path(verydeep.__file__).parent
MODULES = {
    ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__").replace("__init__", ""): path
    for path in sorted(TOP.rglob("*.py"))
}


def test_only_the_terminal_prints() -> None:
    for name, path in MODULES.items():
        if name in (
            "deploy.benchmark.peer_process",
            "core.matlab",
        ):  # programs, whose words another process reads
            continue
        source = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(source) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert not prints or name == "cli.output", name
        writes = "sys.std" in path.read_text()
        assert not writes or name in ("cli.output", "cli.main", "core.terminal"), name


def test_public_functions_and_classes_say_what_they_do() -> None:
    for name, path in MODULES.items():
        source = ast.parse(path.read_text())
        assert ast.get_docstring(source), name
        for node in source.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                documented = name == "cli.main" or node.name == "add_arguments"  # by `cli.parser`
                assert ast.get_docstring(node) or documented, f"{name}.{node.name}"


def test_public_names_are_each_there() -> None:
    assert dir(verydeep) == verydeep.__all__
    for name in verydeep.__all__:
        if name == "SharedNet":
            pytest.importorskip("huggingface_hub")
        assert getattr(verydeep, name) is not None
    with pytest.raises(AttributeError):
        _ = verydeep.nothing_of_the_kind  # type: ignore[attr-defined]


def test_importing_the_package_and_asking_for_help_load_no_torch() -> None:
    code = "import sys, verydeep, verydeep.cli.parser as p; p.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_line_names_a_machine_or_a_tool() -> None:
    top = TOP.parents[1]
    tracked = subprocess.run(["git", "-C", str(top), "ls-files"], capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    forbidden = ["/wo" + "rk/", "py" + "pi.org", "pythonho" + "sted"]
    for line in tracked.splitlines():
        path = top / line
        if path.suffix in (".py", ".md", ".toml", ".txt", ".cff", "") and path.is_file():
            text = path.read_text(encoding="utf8")
            assert not any(word in text for word in forbidden), line
