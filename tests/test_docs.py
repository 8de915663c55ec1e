"""README and docs: their commands parse, their links lead somewhere, search finds the field's words, and they build."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.search.en import SearchEnglish

import verydeep
from verydeep.cli.parser import commands, parse

TOP = Path(__file__).resolve().parents[1]
# Words of the field that the search of the built pages finds.
WORDS = (
    *("accuracy", "confusion matrix", "embedding", "augmentation", "mixed precision", "learning rate", "fine-tune"),
    *("fine-tuning", "Jupyter", "Docker"),
)
NO_COMMANDS = {"api.md", "architecture.md", "changelog.md", "contributing.md", "notes.md", "security.md"}
PAGES = sorted([*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(?:sh|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown_commands(page: Path) -> list[list[str]]:
    """The `verydeep` commands of a page's blocks, as words; those with ``…`` are patterns, not commands."""
    lines = [line for block in BLOCK.findall(page.read_text()) for line in block.replace("\\\n", " ").splitlines()]
    split = [shlex.split(line, comments=True) for line in lines if "verydeep" in line and "…" not in line]
    return [words[words.index("verydeep") + 1 :] for words in split if "verydeep" in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_commands_of_a_page_parse(page: Path) -> None:
    for words in shown_commands(page):
        if "--help" in words:
            with pytest.raises(SystemExit, match="0"):
                parse(words)
        else:
            assert parse([word for word in words if word not in (">", "&")]).command in commands(), words


def test_python_of_a_page_compiles_and_uses_public_names() -> None:
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            compile(block, str(page), "exec")
            used = set(re.findall(r"(?<![\w.\"])verydeep\.([A-Za-z_]\w*)", block))
            assert used <= {*verydeep.__all__, "sklearn"}, page


def test_most_pages_have_commands() -> None:
    assert sum(len(shown_commands(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_a_page_starts_with_its_command(page: Path) -> None:
    if page.name not in NO_COMMANDS:
        assert re.match(r"# .+\n\n```(sh|python)\n(make|pip|verydeep|export|import) ?", page.read_text())


def test_every_command_has_a_goal() -> None:
    """On the page that leads from goals to commands; those with ``…`` are patterns and are not parsed."""
    page = (TOP / "docs" / "which_command.md").read_text()
    for text in re.findall(r"`verydeep ([^`…]+)`", page):
        assert parse(shlex.split(text)).command in commands(), text
    assert [verb for verb in commands() if not re.search(rf"`(verydeep )?{verb}\b", page)] == []


WRITERS = """
import runpy, sys
from verydeep.cli.main import main

for script in sys.argv[1].split():
    sys.path[0] = script.rpartition("/")[0]
    sys.argv = [script, "write"]
    runpy.run_path(script, run_name="__main__")
for table in ("claims", "doll", "3", "4", "5", "6", "7", "text"):
    assert main(["table", table, "--from", "docs/results/doll.json", "--write", "docs/doll.md"]) == 0
"""


def test_generated_tables_are_those_of_the_stored_results(tmp_path: Path) -> None:
    """Every example and benchmark that writes between markers, in a copy: no page changes."""
    for name in ("docs", "examples", "benchmarks"):
        shutil.copytree(TOP / name, tmp_path / name, ignore=shutil.ignore_patterns("build", "__pycache__"))
    shutil.copy(TOP / "README.md", tmp_path)
    scripts = [path for path in sorted(tmp_path.glob("*/*.py")) if "write_block(" in path.read_text()]
    assert len(scripts) > 12
    ended = subprocess.run(
        [sys.executable, "-c", WRITERS, " ".join(map(str, scripts))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )
    assert ended.returncode == 0, ended.stderr
    for page in (path for path in PAGES if path.parent.name == "docs" or path.name == "README.md"):
        assert (tmp_path / page.relative_to(TOP)).read_text() == page.read_text(), page


def test_readme_is_short() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_of_a_page_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:|#|mailto:", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_fields_words_are_in_the_pages() -> None:
    text = " ".join(page.read_text() for page in PAGES).lower()
    assert [word for word in WORDS if word.lower() not in text] == []


def test_the_api_is_all_that_is_public() -> None:
    documented = re.findall(r"^\.\. auto\w+:: verydeep\.(\w+)$", (TOP / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(verydeep.__all__)


@pytest.mark.slow
def test_every_page_is_in_the_index_and_all_build(tmp_path: Path) -> None:
    """As `make docs` does."""
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*sphinx, "-d", str(tmp_path / "trees"), str(TOP / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert built.returncode == 0, built.stderr
    api = (tmp_path / "html" / "api.html").read_text()
    assert all(f'id="verydeep.{name}"' in api for name in verydeep.__all__)
    reference = (tmp_path / "html" / "commands.html").read_text()
    assert all(f'id="verydeep-{verb.replace(" ", "-")}"' in reference for verb in commands())
    index = (tmp_path / "html" / "searchindex.js").read_text()
    found = json.loads(index[index.index("{") : index.rindex("}") + 1])
    stem = SearchEnglish({}).stem
    for word in re.findall(r"\w+", " ".join(WORDS).lower()):
        assert stem(word) in found["terms"] or stem(word) in found["titleterms"], word
    for page in (tmp_path / "html").glob("*.html"):  # nothing is fetched to read a page
        assert not re.findall(r'<(?:script|img|link)[^>]*(?:src|href)="https?:[^"]*"', page.read_text()), page.name
        assert not re.findall(r'<[^>]*role="heading"(?![^>]*aria-level)[^>]*>', page.read_text()), (
            page.name
        )  # valid HTML
        assert not re.findall(r'<pre>|<div class="table-wrapper[^"]*">', page.read_text()), (
            page.name
        )  # scroll by keyboard
