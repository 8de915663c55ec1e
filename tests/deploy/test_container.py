"""The steps of the Containerfile, run in an empty folder in place of an image, which no builder here can make.

What pip installs is the package alone, from the copied files: its dependencies are those of this environment.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from servers import photo, running

from conftest import TOP
from verydeep.cli.parser import parse
from verydeep.core.settings import ServeSettings


def steps() -> list[tuple[str, str]]:
    """Instructions and their arguments."""
    lines = (TOP / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line[:1] not in ("", "#"))]


def copy(place: Path) -> None:
    """The COPY instructions, into a folder."""
    for word, rest in steps():
        if word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                if (TOP / source).is_dir():
                    shutil.copytree(TOP / source, place / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(TOP / source, place / target)


def test_its_steps_fit_the_package() -> None:
    found = dict(steps())
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = next(rest for word, rest in steps() if word == "RUN" and rest.startswith("pip install"))
    named = re.search(r"'\.\[(.+)\]'", installed)
    assert named is not None
    assert set(named[1].split(",")) <= extras.keys()
    assert found["USER"] != "root"
    options = parse(json.loads(found["CMD"])[1:])
    assert (options.command, options.run, options.set_host) == ("serve", "/model", "0.0.0.0")
    assert int(found["EXPOSE"]) == ServeSettings().port


@pytest.mark.slow
def test_its_steps_serve_a_net(served: Path, tmp_path: Path) -> None:
    source, site = tmp_path / "src", tmp_path / "site"
    source.mkdir()
    copy(source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--constraint", "constraints.txt"]
    installed = subprocess.run([*pip, "--target", site, "."], cwd=source, capture_output=True, text=True, check=False)
    if "No matching distribution found for hatchling" in installed.stderr:
        pytest.skip("no network: pip cannot get the tool that builds the package")
    assert installed.returncode == 0, installed.stderr
    assert (site / "verydeep" / "evaluation" / "photos" / "cab.jpg").is_file()
    words = json.loads(dict(steps())["CMD"])
    first = f"sys.path.insert(0, {str(site)!r})"  # in place of this repository's
    with running(served / "run", tmp_path / "words", *words[3:], setting=first) as server:
        assert server.ask("GET", "/health").json["status"] == "ok"
        assert server.post("/predict", photo()).status == 200
        assert server.stop() == 0
