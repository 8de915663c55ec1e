"""ONNX files on a CPU: run by OpenVINO where it is installed, else by ONNX Runtime, from arrays to arrays.

On a processor with AMX OpenVINO runs 8-bit nets two to three times as fast as ONNX Runtime (NOTES.md). ONNX Runtime
opens every file first: it refuses broken graphs, on some of which OpenVINO ends the process. Files of `verydeep export
--takes photo` resize images, which OpenVINO does without antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import VerydeepError
from ..core.files import utf8_path

Run = Callable[[NDArray[Any]], NDArray[np.float32]]  # the only input of a graph to its first output


def open_onnx(path: Path, resizes: bool = False) -> Run:
    """Opens an ONNX file with one input, with as many threads as PyTorch has now.

    Args:
        resizes: the graph resizes images: it is run by ONNX Runtime.

    Raises:
        VerydeepError: ONNX Runtime is not installed, or a runtime refuses the file; from what is returned: it cannot
            run the file.
    """
    use_openvino = find_spec("openvino") is not None and not resizes
    name = "OpenVINO" if use_openvino else "ONNX Runtime"
    try:
        with utf8_path(path) as opened:
            run = _onnxruntime(opened, checked_only=use_openvino)
            run = _openvino(opened) if use_openvino else run
    except ImportError:
        raise VerydeepError(f"running {path} needs onnxruntime: pip install 'verydeep[onnx]'.") from None
    except Exception as fault:  # the runtime's own, of many names
        raise VerydeepError(f"{path} is corrupted, or refused by its runtime ({_first_words(fault)}).") from None

    def checked(images: NDArray[Any]) -> NDArray[np.float32]:
        try:
            return run(images)
        except Exception as fault:
            raise VerydeepError(f"{path} is corrupted: {name} cannot run it ({_first_words(fault)}).") from None

    return checked


def _onnxruntime(path: Path, checked_only: bool) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if checked_only:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0], dtype=np.float32)


def _openvino(path: Path) -> Run:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # of what is not in 8 bits; its default is bf16 where the processor has it
        "ENABLE_CPU_PINNING": False,  # two processes would take the same cores
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(images: NDArray[Any]) -> NDArray[np.float32]:
        request = compiled.create_infer_request()  # one cannot be shared by threads
        return np.array(request.infer({0: images})[0], dtype=np.float32)

    return run


def _first_words(fault: Exception) -> str:
    return " ".join(str(fault).split())[:120]
