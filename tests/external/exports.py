"""Exported ONNX files in the runtimes of others: every net, each kind of input, sizes at which pooling rounds.

    python tests/external/exports.py [RUN]     # RUN: a whole net too; needs `suites` and `rivals`: make suites

Each file passes onnx's full check. onnx's reference implementation, ONNX Runtime, OpenVINO and OpenCV's dnn here, and
ONNX Runtime Web (WebAssembly, in node), give the posteriors of our own net, to `verydeep.deploy.export.TOLERANCE`.
So do the programs that `--example` writes: Python's, JavaScript's, and C++'s, compiled with OpenVINO's package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnx.reference import ReferenceEvaluator
from pages import PACKAGES
from PIL import Image
from suites import HERE, SuiteResult, store
from test_example import central_posteriors

import verydeep
from verydeep.checkpoints.checkpoint import Metadata, load_checkpoint, save_checkpoint
from verydeep.checkpoints.exported import FLOAT, INPUTS, PHOTO, UINT8
from verydeep.checkpoints.run_dir import checkpoint_of
from verydeep.deploy.export import TOLERANCE
from verydeep.models.architectures import NET_NAMES
from verydeep.models.vgg import Net, Pooling

CROP, CLASSES, WIDTH = 32, 7, 1 / 16
SHAPES = ((1, 32, 32), (2, 33, 47), (1, 61, 50), (1, 64, 97), (2, 101, 38))  # images, height, width
WHOLE_SHAPES = ((1, 224, 224), (1, 256, 341))
MEAN = (123.68, 116.779, 103.939)
REFERENCE, WHOLE = "onnx reference", "whole net"
Posteriors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Case:
    """A file, what it takes, an input as the file takes it, and our posteriors (B,K) of that input."""

    name: str
    file: Path
    takes: str
    pixels: np.ndarray[Any, Any]
    expected: Posteriors

    def posteriors(self, output: Any) -> Posteriors:
        """A file's output as posteriors: a float file has scores."""
        values = np.asarray(output, dtype=np.float64).reshape(len(self.expected), -1)
        if self.takes != FLOAT:
            return values.astype(np.float32)
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def small_nets(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every net with random weights, with either rounding in pooling, as a checkpoint."""
    poolings: tuple[Pooling, ...] = ("up", "down")
    for name in NET_NAMES:
        for pooling in poolings:
            net = verydeep.create_net(name, CLASSES, CROP, WIDTH, pooling=pooling)
            path = folder / f"{name}-{pooling}.safetensors"
            classes = tuple(f"class {number}" for number in range(CLASSES))
            save_checkpoint(path, net, Metadata(name, CROP, WIDTH, classes, MEAN, CROP, pooling=pooling))
            yield path.stem, path


def cases(name: str, checkpoint: Path, shapes: tuple[tuple[int, int, int], ...], folder: Path) -> Iterator[Case]:
    """A net's three files, each with noise of every shape; one that takes photos with a photo at a time."""
    loaded = load_checkpoint(checkpoint)
    net, mean = loaded.net(), np.array(loaded.metadata.mean, dtype=np.float32)
    rng = np.random.default_rng(0)
    for takes in (UINT8, FLOAT):
        file = folder / f"{name}-{takes}.onnx"
        verydeep.export(checkpoint, "onnx", file, takes)
        onnx.checker.check_model(str(file), full_check=True)
        for shape in shapes:
            images = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
            centred = np.ascontiguousarray((images - mean).transpose(0, 3, 1, 2))
            label = f"{name}, {takes}, {'x'.join(map(str, shape))}"
            yield Case(label, file, takes, images if takes == UINT8 else centred, _ours(net, centred))
    file = folder / f"{name}-{PHOTO}.onnx"
    verydeep.export(checkpoint, "onnx", file, PHOTO)
    onnx.checker.check_model(str(file), full_check=True)
    for _, height, width in shapes:
        photo = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        expected = central_posteriors(checkpoint, [photo])
        yield Case(f"{name}, {PHOTO}, {height}x{width}", file, PHOTO, photo, expected)


def _ours(net: Net, pixels: np.ndarray[Any, Any]) -> Posteriors:
    with torch.inference_mode():
        scores = net.mean_scores(torch.from_numpy(pixels))
        return np.asarray(torch.softmax(scores, 1).numpy())


def reference(case: Case) -> Any:
    """The output of onnx's own implementation, written for reading, not for speed."""
    outputs: Any = ReferenceEvaluator(str(case.file)).run(None, {INPUTS[case.takes]: case.pixels})
    return outputs[0]


def runtime(case: Case) -> Any:
    """ONNX Runtime's output."""
    return _session(case.file).run(None, {INPUTS[case.takes]: case.pixels})[0]


@lru_cache(maxsize=1)  # many photos go through one net
def _session(file: Path) -> Any:
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def intel(case: Case) -> Any:
    """OpenVINO's output, in float32."""
    return next(iter(_compiled(case.file)([case.pixels]).values()))


@lru_cache(maxsize=1)
def _compiled(file: Path) -> Any:
    return openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def opencv(case: Case) -> Any:
    """The output of OpenCV's dnn."""
    net = cv2.dnn.readNetFromONNX(str(case.file))
    net.setInput(case.pixels, INPUTS[case.takes])
    return net.forward()


def web(some: list[Case], folder: Path) -> list[Any]:
    """ONNX Runtime Web's output of each case, or a message."""
    jobs = []
    for number, case in enumerate(some):
        raw = folder / f"{number}.raw"
        raw.write_bytes(case.pixels.tobytes())
        job = {"file": str(case.file), "input": INPUTS[case.takes], "raw": str(raw), "type": case.pixels.dtype.name}
        jobs.append({**job, "dims": list(case.pixels.shape)})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    words = ["node", str(HERE / "exports_web.cjs"), str(PACKAGES), str(folder / "jobs.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    answers: list[Any] = json.loads(done.stdout)
    return answers


RUNTIMES: dict[str, Callable[[Case], Any]] = {
    REFERENCE: reference,
    "ONNX Runtime": runtime,
    "OpenVINO": intel,
    "OpenCV": opencv,
}


def left_out(name: str, case: Case) -> bool:
    """The reference fills LRN's sums of squares for as many channels as there are images (its own fault, in
    findings/exports.json), and takes minutes for a whole net."""
    return name == REFERENCE and case.name.startswith(("A-LRN", WHOLE))


def compared(some: list[Case], folder: Path) -> tuple[int, list[str], dict[str, float]]:
    """How many outputs were compared, a sentence for each that differs, and the largest difference by runtime."""
    tried = {name: [case for case in some if not left_out(name, case)] for name in RUNTIMES}
    outputs = [(name, case, output_of(RUNTIMES[name], case)) for name, of_name in tried.items() for case in of_name]
    outputs += [("ONNX Runtime Web", case, output) for case, output in zip(some, web(some, folder), strict=True)]
    faults: list[str] = []
    figures: dict[str, float] = {}
    for name, case, output in outputs:
        if isinstance(output, str):
            faults.append(f"{name}, {case.name}: {output}")
            continue
        difference = float(np.abs(case.posteriors(output) - case.expected).max())
        figures[name] = max(figures.get(name, 0.0), difference)
        if not difference <= TOLERANCE:
            faults.append(f"{name}, {case.name}: posteriors differ by {difference:.1e}")
    return len(outputs), faults, {f"largest difference, {name}": value for name, value in figures.items()}


def programs(checkpoint: Path, folder: Path) -> tuple[int, list[str], dict[str, float]]:
    """The same of the programs of the examples of a net's three files, each run as it stands in its folder."""
    photo = folder / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 90, 3)).astype(np.uint8)).save(photo)
    faults: list[str] = []
    figures: dict[str, float] = {}
    for takes in INPUTS:
        file = folder / f"example-{takes}.onnx"
        place = Path(verydeep.export(checkpoint, "onnx", file, takes, example=photo)["example"])
        (place / "node_modules").symlink_to(PACKAGES)
        for name, commands in _ways(place).items():
            printed = ""
            for words in commands:
                printed = subprocess.run(words, cwd=place, capture_output=True, text=True, check=True).stdout
            difference = float(printed.splitlines()[-1].removeprefix("largest difference: "))
            figures[name] = max(figures.get(name, 0.0), difference)
            if not difference <= TOLERANCE:
                faults.append(f"{name}, {takes}: posteriors differ by {difference:.1e}")
    count = len(INPUTS) * len(figures)
    return count, faults, {f"largest difference, {name}": value for name, value in figures.items()}


def _ways(place: Path) -> dict[str, list[list[str]]]:
    """How the programs are run; OpenVINO's package has its headers and its library, whose name ends in a number."""
    package = Path(openvino.__file__).parent
    (library,) = (package / "libs").glob("libopenvino.so.*")
    flags = [f"-I{package / 'include'}", str(library), f"-Wl,-rpath,{library.parent}"]
    compiled = ["g++", "-std=c++17", "classify.cpp", *flags, "-o", str(place / "classify")]
    return {
        "classify.py": [[sys.executable, "classify.py"]],
        "classify.mjs": [["node", "classify.mjs"]],
        "classify.cpp": [compiled, [str(place / "classify")]],
    }


def output_of(run: Callable[[Case], Any], case: Case) -> Any:
    """A runtime's output, or its message."""
    try:
        return run(case)
    except Exception as fault:
        return f"{type(fault).__name__}: {str(fault).strip().splitlines()[0][:200]}"


def main(whole: list[str]) -> int:
    """Compares all files; 1 where an output differs."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        nets = list(small_nets(folder))
        some = [case for name, path in nets for case in cases(name, path, SHAPES, folder)]
        for run in whole:
            some += cases(WHOLE, checkpoint_of(run, last=False), WHOLE_SHAPES, folder)
        count, faults, figures = compared(some, folder)
        more, their_faults, their_figures = programs(nets[0][1], folder)
    count, faults, figures = count + more, faults + their_faults, figures | their_figures
    web_version = json.loads((PACKAGES / "onnxruntime-web" / "package.json").read_text())["version"]
    packages = {name: version(name) for name in ("onnx", "onnxruntime", "openvino")}
    versions = {**packages, "opencv": cv2.__version__, "onnxruntime-web": web_version}
    store("exports", SuiteResult("exported ONNX files in others' runtimes", versions, count, faults, figures))
    print(f"{count} outputs, {len(faults)} faults", *faults, sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
