"""Scans model files with picklescan, modelscan and fickling: names from stdin, findings as JSON to stdout.

It runs in an environment of its own (tools.txt), without this package; no file is loaded, only parsed.
"""

from __future__ import annotations

import json
import logging
import sys
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

from fickling import scan_file, scan_zip_archive
from fickling.analysis import Severity
from modelscan.modelscan import ModelScan
from picklescan.scanner import SafetyLevel, scan_file_path

SAVED = "as any file of torch.save"
TENSORS = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")
SAFE = (Severity.LIKELY_SAFE, Severity.POSSIBLY_UNSAFE)  # the second is said of every pickle of tensors


def by_picklescan(path: Path) -> list[str]:
    """Names that a pickle would import and that are not known as harmless."""
    found = scan_file_path(str(path))
    return [f"{one.module}.{one.name}" for one in found.globals if one.safety == SafetyLevel.Dangerous]


def by_modelscan(path: Path) -> list[str]:
    """Operators that modelscan calls unsafe."""
    issues = ModelScan().scan(path)["issues"]
    return [f"{issue.get('module', '')}.{issue.get('operator', '')}" for issue in issues]


def by_fickling(path: Path) -> list[str]:
    """What fickling calls suspicious or worse; nothing for files that hold no pickle.

    It calls every import outside of Python unsafe, so also the function that makes a tensor of its bytes.
    """
    if zipfile.is_zipfile(path):
        scans = scan_zip_archive(str(path), graceful=True)
    elif path.read_bytes()[:1] in (b"\x80", b"c", b"(") or path.suffix in (".pkl", ".pickle"):
        scans = {path.name: scan_file(str(path), graceful=True)}
    else:
        return []
    unsafe = [name for name, scan in scans.items() if scan.severity not in SAFE and scan.results]
    imported = [f"{one.module}.{one.name}" for one in scan_file_path(str(path)).globals] if unsafe else []
    saved = imported and all(
        name in TENSORS or (name.startswith("torch.") and name.endswith("Storage")) for name in imported
    )
    return [SAVED] if saved else unsafe


def scan(path: Path) -> dict[str, list[str]]:
    """Findings by scanner; a scanner that fails says so."""
    found = {}
    for scanner in (by_picklescan, by_modelscan, by_fickling):
        try:
            found[scanner.__name__[3:]] = scanner(path)
        except Exception as fault:  # scanners raise many types for broken files
            found[scanner.__name__[3:]] = [f"failed: {type(fault).__name__}"]
    return found


if __name__ == "__main__":
    logging.disable()
    with redirect_stdout(sys.stderr):  # scanners print
        everything = {name: scan(Path(name)) for name in sys.stdin.read().split("\0") if name}
    print(json.dumps(everything))
