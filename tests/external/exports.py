"""Exported ONNX files in the runtimes of others: every net, both kinds of input, sizes at which pooling rounds.

    python tests/external/exports.py [RUN]     # RUN: a whole net too; needs `suites` and `rivals`: make suites

Each file passes onnx's full check. onnx's reference implementation, ONNX Runtime, OpenVINO and OpenCV's dnn here, and
ONNX Runtime Web (WebAssembly, in node), give the posteriors of our own net, to `verydeep.deploy.export.TOLERANCE`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from suites import HERE, SuiteResult, store

import verydeep
from verydeep.checkpoints.checkpoint import Metadata, load_checkpoint, save_checkpoint
from verydeep.checkpoints.exported import FLOAT, INPUTS, UINT8
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
        if self.takes == UINT8:
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
    """A net's two files, each with noise of every shape."""
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
    session = onnxruntime.InferenceSession(str(case.file), providers=["CPUExecutionProvider"])
    return session.run(None, {INPUTS[case.takes]: case.pixels})[0]


def intel(case: Case) -> Any:
    """OpenVINO's output, in float32."""
    model = openvino.Core().compile_model(str(case.file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return next(iter(model([case.pixels]).values()))


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
        kind = "uint8" if case.takes == UINT8 else "float32"
        job = {"file": str(case.file), "input": INPUTS[case.takes], "raw": str(raw), "type": kind}
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
    outputs = [(name, case, _output(RUNTIMES[name], case)) for name, of_name in tried.items() for case in of_name]
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


def _output(run: Callable[[Case], Any], case: Case) -> Any:
    try:
        return run(case)
    except Exception as fault:
        return f"{type(fault).__name__}: {str(fault).strip().splitlines()[0][:200]}"


def main(whole: list[str]) -> int:
    """Compares all files; 1 where an output differs."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        some = [case for name, path in small_nets(folder) for case in cases(name, path, SHAPES, folder)]
        for run in whole:
            some += cases(WHOLE, checkpoint_of(run, last=False), WHOLE_SHAPES, folder)
        count, faults, figures = compared(some, folder)
    web_version = json.loads((PACKAGES / "onnxruntime-web" / "package.json").read_text())["version"]
    packages = {name: version(name) for name in ("onnx", "onnxruntime", "openvino")}
    versions = {**packages, "opencv": cv2.__version__, "onnxruntime-web": web_version}
    store("exports", SuiteResult("exported ONNX files in others' runtimes", versions, count, faults, figures))
    print(f"{count} outputs, {len(faults)} faults", *faults, sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
