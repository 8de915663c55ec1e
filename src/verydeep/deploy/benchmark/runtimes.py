"""Other runtimes on a CPU, each with its defaults in the ordered precision: uint8 images to posteriors by an ONNX file.

The file is static. MNN and ncnn run files of their own, which their converters make of it. PyTorch is not imported
here: its threads would be in the same process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import VerydeepError
from .order import IMAGES, ONNX, RUNTIMES, Order

Floats = NDArray[np.float32]
Run = Callable[[Floats], Floats]  # pixels (B,3,H,W) minus the mean to posteriors (B,K)


def start(order: Order) -> tuple[str, Callable[[], object]]:
    """The runtime's name and version, and what it runs; it has written its posteriors."""
    images: NDArray[np.uint8] = np.load(order.file(IMAGES)).transpose(0, 3, 1, 2)
    mean = np.array(order.mean, dtype=np.float32)[:, None, None]
    pixels = np.empty(images.shape, dtype=np.float32)
    in_bf16 = {"in_bf16": True} if order.precision == "bf16" else {}
    run = OPENERS[order.peer](order.file(ONNX), order.threads, pixels, **in_bf16)

    def once() -> Floats:
        np.subtract(images, mean, out=pixels)
        return run(pixels)

    np.save(order.posteriors, once())
    return f"{order.peer} {version(RUNTIMES[order.peer][0])}", once


def _onnxruntime(path: Path, threads: int, _: Floats) -> Run:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels})[0])


def _openvino(path: Path, threads: int, _: Floats, in_bf16: bool = False) -> Run:
    openvino = import_module("openvino")
    precision = "bf16" if in_bf16 else "f32"  # its default is bf16 where the processor has it
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda pixels: np.array(compiled(pixels)[0])


def _mnn(path: Path, threads: int, _: Floats) -> Run:
    MNN = import_module("MNN")
    converted = path.with_suffix(".mnn")
    words = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "verydeep"]
    _convert([sys.executable, "-m", "MNN.tools.mnnconvert", *words], converted)
    settings = {"backend": "CPU", "numThread": threads, "precision": "high"}
    manager = MNN.nn.create_runtime_manager((settings,))
    net = MNN.nn.load_module_from_file(str(converted), ["pixels"], ["posterior"], runtime_manager=manager)

    def run(pixels: Floats) -> Floats:
        given = MNN.expr.const(pixels, list(pixels.shape), MNN.expr.NCHW)
        return np.array(net.forward([given])[0].read())

    return run


def _ncnn(path: Path, threads: int, pixels: Floats) -> Run:
    ncnn = import_module("ncnn")
    converted = path.with_suffix(".ncnn.bin")
    shape = ",".join(map(str, pixels.shape))
    words = [str(path), f"inputshape=[{shape}]f32", "fp16=0"]
    _convert([sys.executable, "-c", "import pnnx; pnnx.pnnx()", *words], converted)
    for unused in path.parent.glob(f"{path.stem}.pnnx*"):  # of the weights' size each
        unused.unlink()
    net = ncnn.Net()
    net.opt.num_threads = threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):  # its default: weights of 16 bits
        setattr(net.opt, half, False)
    net.load_param(str(converted.with_suffix(".param")))
    net.load_model(str(converted))

    def run(pixels: Floats) -> Floats:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(pixels, batch_index=0))
        return np.array(extractor.extract("out0")[1].numpy(batch_index=0))

    return run


def _convert(words: list[str], converted: Path) -> None:
    """Runs a converter; raises VerydeepError where it writes nothing."""
    subprocess.run(words, cwd=converted.parent, check=False)
    if not converted.is_file():
        raise VerydeepError(f"{words[2]} could not convert the net")


OPENERS: dict[str, Callable[..., Run]] = {
    **{"onnxruntime": _onnxruntime, "openvino": _openvino, "mnn": _mnn, "ncnn": _ncnn},
}
