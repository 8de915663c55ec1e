"""Pinned packages, and lower bounds, against a copy of the Python Packaging Advisory Database; for machines offline.

    python tests/external/advisories.py DIR     # DIR is a clone of github.com/pypa/advisory-database

Where a service can be reached `make sbom` runs pip-audit, which knows newer advisories than such a copy.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from suites import TOP, SuiteResult, store


def releases() -> Iterator[tuple[str, str]]:
    """Names and versions: pinned in constraints.txt, or the least that pyproject.toml accepts."""
    for line in (TOP / "constraints.txt").read_text().splitlines():
        if "==" in line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield canonicalize_name(name), version.strip()
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    for wanted in [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]:
        found = re.match(r"([\w.-]+)>=([\w.]+)", wanted)
        if found:
            yield canonicalize_name(found[1]), found[2]


def advisories(database: Path, names: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Package names and their advisories."""
    git = ["git", "-C", str(database)]
    listed = subprocess.run([*git, "ls-tree", "-r", "--name-only", "HEAD", "vulns/"], capture_output=True, check=True)
    for path in listed.stdout.decode().splitlines():
        name = canonicalize_name(Path(path).parent.name)
        if name in names:
            text = subprocess.run([*git, "show", f"HEAD:{path}"], capture_output=True, check=True).stdout
            yield name, yaml.safe_load(text)


def affects(advisory: dict[str, Any], version: str) -> bool:
    """Whether a version is in an advisory's list, or in one of its ranges."""
    for affected in advisory.get("affected", []):
        ranges = [one["events"] for one in affected.get("ranges", []) if one["type"] == "ECOSYSTEM"]
        if version in affected.get("versions", []) or any(_within(events, Version(version)) for events in ranges):
            return True
    return False


def _within(events: list[dict[str, str]], version: Version) -> bool:
    inside = False
    for event in events:  # in order of versions
        ((kind, text),) = event.items()
        try:
            passed = version > Version(text) if kind == "last_affected" else version >= Version(text)
        except InvalidVersion:
            continue
        if passed:
            inside = kind == "introduced"
    return inside


def main(database: Path) -> int:
    """Compares all, and stores the result."""
    known = sorted(set(releases()))
    found = list(advisories(database, {name for name, _ in known}))
    faults = [
        f"{name} {version} is affected by {advisory['id']}"
        for name, version in known
        for package, advisory in found
        if package == name and "withdrawn" not in advisory and affects(advisory, version)
    ]
    dated = ["git", "-C", str(database), "log", "-1", "--format=%cd %h", "--date=short"]
    when = subprocess.run(dated, capture_output=True, text=True, check=True).stdout.split()
    versions = {"pypa/advisory-database of": " ".join(when)}
    figures = {"advisories on these packages": float(len(found))}
    store("advisories", SuiteResult("pins and lower bounds, against advisories", versions, len(known), faults, figures))
    return int(bool(faults))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(f"usage: {sys.argv[0]} DIR, a clone of github.com/pypa/advisory-database")
    sys.exit(main(Path(sys.argv[1])))
