"""An example beside an exported file: programs of other languages that get the same posteriors from the same pixels.

``FILE.example`` holds the photo without loss, the input tensor that it becomes and the posteriors of its central crop
at Q as plain little-endian numbers, the class names, and programs that run as they stand in this folder. Each prints
the most probable classes and the largest difference from the stored posteriors. Where that is large, the runtime
computes something else; where it is not, and photos still get other posteriors, their pixels differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checkpoints.checkpoint import Metadata
from ..checkpoints.exported import FLOAT, INPUTS, OUTPUTS, PHOTO
from ..checkpoints.model_card import onnx_program
from ..core.files import check_place, write_atomically
from ..data.image_io import Pixels, as_pixels
from ..data.transforms import centre_crop, rescale
from ..evaluation.predict import Classifier

ENDING = ".example"
PHOTO_FILE, INPUT_FILE, POSTERIORS_FILE, CLASSES_FILE = "photo.png", "input.bin", "posteriors.bin", "classes.txt"
PROGRAM = "classify"

PYTHON = """\
expected = np.fromfile("posteriors.bin", np.float32)
print(f"largest difference: {np.abs(posteriors - expected).max():.1e}")
"""
JAVASCRIPT = """\
// npm install onnxruntime-web && node classify.mjs     In a browser, take the bytes from fetch().
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

const numbers = (name, Type) => new Type(new Uint8Array(readFileSync(name)).buffer);
const session = await ort.InferenceSession.create(readFileSync($model));
const input = new ort.Tensor("$dtype", numbers("input.bin", ${dtype_class}Array), [$shape]);
const outputs = await session.run({ $input: input });
let posteriors = outputs.$output.data;
${javascript_softmax}\
const classes = readFileSync("classes.txt", "utf8").split("\\n");
const best = [...posteriors.keys()].sort((a, b) => posteriors[b] - posteriors[a]).slice(0, 5);
for (const k of best) console.log(posteriors[k].toFixed(4), classes[k]);
const differences = numbers("posteriors.bin", Float32Array).map((p, k) => Math.abs(p - posteriors[k]));
console.log("largest difference:", Math.max(...differences).toExponential(1));
"""
JAVASCRIPT_SOFTMAX = """\
const most = Math.max(...posteriors);
const sum = posteriors.reduce((total, score) => total + Math.exp(score - most), 0);
posteriors = posteriors.map((score) => Math.exp(score - most) / sum);
"""
CPP = """\
// With OpenVINO: g++ -O2 -std=c++17 classify.cpp $$(pkg-config --cflags --libs openvino) -o classify && ./classify
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <numeric>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

std::vector<char> bytes(const char* name) {
    std::ifstream file(name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int main() {
    auto model = ov::Core().compile_model($model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = model.create_infer_request();
    auto input = bytes("input.bin"), stored = bytes("posteriors.bin");
    request.set_input_tensor(ov::Tensor(ov::element::$cpp_type, {$shape}, input.data()));
    request.infer();
    auto output = request.get_output_tensor();
    std::vector<float> posteriors(output.data<float>(), output.data<float>() + output.get_size());
${cpp_softmax}\
    std::ifstream names("classes.txt");
    std::vector<std::string> classes(posteriors.size());
    for (auto& name : classes) std::getline(names, name);
    std::vector<size_t> order(posteriors.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return posteriors[a] > posteriors[b]; });
    for (size_t k = 0; k < std::min<size_t>(5, order.size()); ++k)
        std::printf("%.4f %s\\n", posteriors[order[k]], classes[order[k]].c_str());
    auto expected = reinterpret_cast<const float*>(stored.data());
    float largest = 0;
    for (size_t k = 0; k < posteriors.size(); ++k) largest = std::max(largest, std::fabs(posteriors[k] - expected[k]));
    std::printf("largest difference: %.1e\\n", largest);
}
"""
CPP_SOFTMAX = """\
    float most = *std::max_element(posteriors.begin(), posteriors.end()), sum = 0;
    for (float& p : posteriors) sum += p = std::exp(p - most);
    for (float& p : posteriors) p /= sum;
"""


def read_example(path: Path, photo: str | Path) -> Pixels:
    """Reads the photo of an example before anything is written.

    Args:
        path: of the exported file.

    Raises:
        ImageError: it cannot be read.
        VerydeepError: the folder of the example cannot be written.
    """
    check_place(_folder(path))
    return as_pixels(photo, str(photo))


def _folder(path: Path) -> Path:
    return path.with_name(path.name + ENDING)


def write_example(path: Path, classifier: Classifier, takes: str, photo: Pixels) -> Path:
    """Writes the example of an exported file and returns its folder; files of an earlier one are replaced."""
    metadata, folder = classifier.metadata, _folder(path)
    pixels = _input(metadata, takes, photo)
    posteriors = classifier.posteriors([photo], f"centre@{metadata.test_scale}")[0]
    write_atomically(folder / PHOTO_FILE, lambda file: Image.fromarray(photo).save(file, "PNG"))
    _write(folder / INPUT_FILE, _little_endian(pixels))
    _write(folder / POSTERIORS_FILE, _little_endian(posteriors))
    names = "".join(" ".join(name.splitlines()) + "\n" for name in metadata.classes)
    for name, text in {CLASSES_FILE: names, **_programs(f"../{path.name}", metadata, takes, pixels)}.items():
        _write(folder / name, text.encode("utf8", "backslashreplace"))
    return folder


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def _input(metadata: Metadata, takes: str, photo: Pixels) -> NDArray[Any]:
    """The input tensor of a photo: itself, or its central crop at Q as a batch of one."""
    if takes == PHOTO:
        return photo
    crop = centre_crop(rescale(photo, metadata.test_scale, metadata.resampling, metadata.other_side), metadata.crop)
    if takes == FLOAT:
        return np.asarray((crop - np.array(metadata.mean, np.float32)).transpose(2, 0, 1)[None])
    return crop[None]


def _little_endian(array: NDArray[Any]) -> bytes:
    """Numbers as bytes, row by row."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _programs(model: str, metadata: Metadata, takes: str, pixels: NDArray[Any]) -> dict[str, str]:
    """The programs by their file names."""
    scores = takes == FLOAT
    values = {
        "model": json.dumps(model, ensure_ascii=False),
        "shape": ", ".join(map(str, pixels.shape)),
        "input": INPUTS[takes],
        "output": OUTPUTS[takes],
        "dtype": "float32" if scores else "uint8",
        "dtype_class": "Float32" if scores else "Uint8",
        "cpp_type": "f32" if scores else "u8",
        "javascript_softmax": JAVASCRIPT_SOFTMAX if scores else "",
        "cpp_softmax": CPP_SOFTMAX if scores else "",
    }
    return {
        f"{PROGRAM}.py": onnx_program(model, metadata, takes, PHOTO_FILE) + PYTHON,
        f"{PROGRAM}.mjs": Template(JAVASCRIPT).substitute(values),
        f"{PROGRAM}.cpp": Template(CPP).substitute(values),
    }
