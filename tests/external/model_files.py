"""Scanners of model files over all that the project writes and reads, and what becomes of the files that they flag.

    python tests/external/model_files.py PYTHON [DIR]

PYTHON is that of an environment with tools.txt. DIR may have clones of `REPOSITORIES`, whose test files are then tried
too. No file written here may be flagged. A flagged file may be read only as tensors: the process that reads it must not
unpickle, start a program, open a connection or write (Python's audit hooks say so).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from child import in_child
from corpus import weights
from own_corpus import checkpoint, features, scores, svm, trained, windows
from suites import HERE, SuiteResult, store

import verydeep
from verydeep.checkpoints.pretrained import read_weights
from verydeep.core.errors import VerydeepError

REPOSITORIES = {"mmaitre314/picklescan": "tests", "trailofbits/fickling": "test", "protectai/modelscan": "tests"}
SAVED = "as any file of torch.save"  # what scan_models.py says of a pickle that makes nothing but tensors
ENDINGS = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".zip", ".7z", ".npy", ".npz", ".h5", ".keras", ".safetensors")
# What code in a file would do, by the names of Python's audit events.
CODE = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "socket.", "urllib.")
CALLS = (
    *("os.system", "posix.system", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.compile"),
    *("runpy.run_path", "importlib.import_module", "builtins.getattr", "operator.attrgetter", "functools.partial"),
    *("socket.create_connection", "shutil.rmtree", "webbrowser.open", "ctypes.CDLL", "torch.load", "torch.hub.load"),
    *("numpy.testing._private.utils.runstring", "pip.main", "pdb.Pdb", "code.InteractiveInterpreter", "bdb.Bdb"),
    *("torch.utils._config_module.ConfigModule.load_config", "torch.jit.unsupported_tensor_ops.execWrapper"),
)


def written(place: Path) -> Iterator[Path]:
    """A file of each kind that the commands write, from a small run."""
    run = trained(place)
    verydeep.export(run, out=place / "x.onnx")
    verydeep.export(run, "safetensors", place / "x.safetensors")
    for ending in (".pth", ".h5", ".caffemodel", ".safetensors"):
        verydeep.convert(str(run), place / f"converted{ending}")
    made = (*scores(place / "scores"), *windows(place / "windows"), *features(), *checkpoint(run), *svm())
    for number, files in enumerate(made):
        for name, data in files.items():
            path = place / f"own{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    yield from (path for path in sorted(place.rglob("*")) if path.is_file())


def accepted(place: Path) -> Iterator[Path]:
    """A file of each public format that is read."""
    place.mkdir()
    for kind, ways in weights(place).items():
        for number, files in enumerate(ways):
            for name, data in files.items():
                path = place / f"{kind}{number}" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                yield path


def hostile(place: Path) -> Iterator[Path]:
    """Pickles that call what they name, alone and as PyTorch's archives; none is unpickled here."""
    place.mkdir()
    for call in CALLS:
        module, _, name = call.rpartition(".")
        order = f"c{module}\n{name}\n(S'verydeep-was-here'\ntR.".encode()
        for protocol in (0, 2):
            path = place / f"{call}.{protocol}.pth"
            path.write_bytes((b"\x80\x02" if protocol else b"") + order)
            yield path
        with zipfile.ZipFile(place / f"{call}.pt", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + order)
            archive.writestr("archive/version", "3\n")
        yield place / f"{call}.pt"


def cloned(top: Path, place: Path) -> Iterator[Path]:
    """The scanners' own test files."""
    for name, under in REPOSITORIES.items():
        if not (top / name).is_dir():
            continue
        folder = place / name.replace("/", "-")
        folder.mkdir(parents=True)
        listed = ["git", "-C", str(top / name), "ls-tree", "-r", "-z", "--name-only", "HEAD", f"{under}/"]
        for number, path in enumerate(subprocess.run(listed, capture_output=True, check=True).stdout.split(b"\0")):
            inside = path.decode("utf8", "replace")
            if inside.endswith(ENDINGS):
                shown = ["git", "-C", str(top / name), "show", f"HEAD:{inside}"]
                target = folder / f"{number}-{os.path.basename(inside)}"
                blob = subprocess.run(shown, capture_output=True, check=False)
                if not blob.returncode:  # a clone can lack large files
                    target.write_bytes(blob.stdout)
                    yield target


def read(path: Path) -> dict[str, Any]:
    """Reads a file as weights, and lists what code it ran; done in a process of its own."""
    ran: list[str] = []

    def hook(event: str, about: tuple[Any, ...]) -> None:
        writes = event == "open" and len(about) > 1 and bool(set(str(about[1])) & set("wax+"))
        if (event.startswith(CODE) and not _of_matlab(path, event, about)) or writes:
            ran.append(event)
            raise RuntimeError("code of a file")

    sys.addaudithook(hook)
    try:
        read_weights(str(path), "torchvision")
        verdict = "read as tensors"
    except VerydeepError as fault:
        said = str(fault).replace(str(path), "it")
        verdict = f"refused: {said}" if "\n" not in said else f"other than one sentence: {said!r}"
    return {"verdict": verdict, "ran": ran}


def _of_matlab(path: Path, event: str, about: tuple[Any, ...]) -> bool:
    """Whether an event is of the process of this package that reads a .mat file, or of the arrays that it returns."""
    if event == "subprocess.Popen":
        return "verydeep.core.matlab" in map(str, about[1])
    return event == "pickle.find_class" and path.suffix == ".mat" and str(about[0]).startswith("numpy")


def judge(path: Path, flagged: dict[str, list[str]], ours: bool) -> tuple[str, list[str]]:
    """The stored verdict of a file, and faults."""
    by = [f"{scanner} ({', '.join(sorted(set(found))[:3])})" for scanner, found in flagged.items() if found]
    if ours:
        wrong = [finding for found in flagged.values() for finding in found if finding != SAVED]
        return f"flagged by {'; '.join(by) or 'none'}", [f"{path.name}, written here: {by}"] if wrong else []
    told = in_child(lambda: read(path))
    faults = [f"{path.name}: {told}"] if told.get("ran") or "verdict" not in told else []
    if "other than" in told.get("verdict", ""):
        faults.append(f"{path.name}: {told['verdict']}")
    return f"flagged by {'; '.join(by) or 'none'}; {told.get('verdict', told)}", faults


def run(python: str, top: Path | None) -> SuiteResult:
    """Makes, scans and reads all files."""
    result = SuiteResult("model files, by scanners of pickles", _versions(python), 0)
    result.figures = {"flagged": 0, "flagged and read as tensors": 0}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        groups = {
            "written": list(written(place / "written")),
            "accepted": list(accepted(place / "accepted")),
            "hostile": list(hostile(place / "hostile")),
            "cloned": list(cloned(top, place / "cloned")) if top else [],
        }
        for group, paths in groups.items():
            _count(result, group, paths, _scanned(python, paths), place / group)
    return result


def _scanned(python: str, paths: list[Path]) -> dict[str, dict[str, list[str]]]:
    names = "\0".join(map(str, paths))
    command = [python, str(HERE / "scan_models.py")]
    return dict(json.loads(subprocess.run(command, input=names, stdout=-1, text=True, check=True).stdout))


def _count(
    result: SuiteResult, group: str, paths: list[Path], scanned: dict[str, dict[str, list[str]]], place: Path
) -> None:
    """Adds the verdicts of a group's files to a result."""
    result.cases += len(paths)
    for path in paths:
        verdict, faults = judge(path, scanned[str(path)], group == "written")
        findings = [finding for found in scanned[str(path)].values() for finding in found]
        flagged = any(not finding.startswith("failed") for finding in findings)
        result.details.setdefault(group, {})[str(path.relative_to(place))] = verdict
        result.figures["flagged"] += flagged
        result.figures["flagged and read as tensors"] += flagged and "read as tensors" in verdict
        result.faults += faults if flagged or group != "hostile" else [f"no scanner flags {path.name}", *faults]


def _versions(python: str) -> dict[str, str]:
    code = "import json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in %r}))"
    names = ("picklescan", "modelscan", "fickling")
    told = subprocess.run([python, "-c", code % (names,)], capture_output=True, text=True, check=True)
    return dict(json.loads(told.stdout))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: {sys.argv[0]} PYTHON [DIR], PYTHON with the packages of tools.txt")
    result = run(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) == 3 else None)
    store("model_files", result)
    sys.exit(bool(result.faults))
