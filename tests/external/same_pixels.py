"""The resize in files that take photos beside Pillow's, in the runtimes of others, on real photos.

    python tests/external/same_pixels.py RUN PHOTOS…     # a whole net, folders of photos; packages as for exports.py
    python tests/external/same_pixels.py                 # the table of docs/weights.md, from what is stored

Grey levels are those of the central crop at Q, posteriors those of the whole file beside ``centre@Q``. ONNX's Resize
operator with ``antialias=1`` is measured too, on the whole resized photo: it is why the file does without it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from exports import Case, intel, opencv, output_of, runtime, web
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pages import PACKAGES
from suites import RESULTS, TOP, SuiteResult, store, versions_of
from test_example import central_posteriors, resize_model

import verydeep
from verydeep.checkpoints.checkpoint import Metadata, load_checkpoint
from verydeep.checkpoints.exported import INPUTS, PHOTO
from verydeep.checkpoints.run_dir import checkpoint_of
from verydeep.core.files import read_json
from verydeep.data.image_io import Pixels, read_image
from verydeep.data.transforms import centre_crop, rescale
from verydeep.deploy.export import TOLERANCE
from verydeep.paper.tables import markdown_table, write_block

NAME = "same_pixels"
PAGE = TOP / "docs" / "weights.md"
RESIZED, CLASSIFIED = 24, 2  # photos of each folder: resized, and classified or resized by the operator as well
RUNTIMES: dict[str, Callable[[Case], Any]] = {"ONNX Runtime": runtime, "OpenVINO": intel, "OpenCV": opencv}
WEB = "ONNX Runtime Web"
HEADS = (
    "runtime",
    "largest difference in grey levels",
    "grey levels that differ, %",
    "largest difference of a posterior",
    "ONNX's Resize operator: largest difference in grey levels",
)


@dataclass(frozen=True)
class Differences:
    """What differs from Pillow in a runtime."""

    grey_levels: float
    share: float  # of grey levels that differ, in percent
    posterior: float
    operator: float | str  # grey levels, or the runtime's message


def spread(folder: str, count: int) -> list[Pixels]:
    """Some photos of a folder, evenly spread over its files."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return [read_image(paths[number * len(paths) // count]) for number in range(count)]


def resize_cases(photos: list[Pixels], metadata: Metadata, folder: Path) -> list[Case]:
    """Our resize alone; what is expected are grey levels (3,crop,crop)."""
    file = folder / "resize.onnx"
    onnx.save(resize_model(metadata), file)
    rows = []
    for photo in photos:
        crop = centre_crop(rescale(photo, metadata.test_scale, metadata.resampling, metadata.other_side), metadata.crop)
        rows.append(Case("resize", file, PHOTO, photo, crop.transpose(2, 0, 1).astype(np.float32)))
    return rows


def operator_cases(photos: list[Pixels], metadata: Metadata, folder: Path) -> list[Case]:
    """ONNX's Resize operator, on float32 (1,3,H,W) to a size of its own for each photo."""
    rows = []
    for number, photo in enumerate(photos):
        resized = rescale(photo, metadata.test_scale).transpose(2, 0, 1)[None].astype(np.float32)
        pixels = np.ascontiguousarray(photo.transpose(2, 0, 1)[None].astype(np.float32))
        sizes = numpy_helper.from_array(np.array(resized.shape), "sizes")
        node = helper.make_node("Resize", [INPUTS[PHOTO], "", "", "sizes"], ["resized"], mode="linear", antialias=1)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(array.shape))
            for name, array in ((INPUTS[PHOTO], pixels), ("resized", resized))
        ]
        graph = helper.make_graph([node], "resize", ends[:1], ends[1:], [sizes])
        file = folder / f"operator-{number}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)
        rows.append(Case("operator", file, PHOTO, pixels, resized))
    return rows


def net_cases(run: str, photos: list[Pixels], folder: Path) -> list[Case]:
    """The whole file; what is expected are the posteriors of the run."""
    file = folder / "net.onnx"
    verydeep.export(run, "onnx", file, PHOTO)
    expected = central_posteriors(run, photos)
    return [Case("net", file, PHOTO, photo, row[None]) for photo, row in zip(photos, expected, strict=True)]


def outputs(name: str, cases: list[Case], folder: Path) -> list[Any]:
    """A runtime's outputs, or its messages."""
    return web(cases, folder) if name == WEB else [output_of(RUNTIMES[name], case) for case in cases]


def differences(name: str, cases: list[Case], folder: Path) -> NDArray[np.float32] | str:
    """The differences of all values of all cases, rounded where they are of the operator; or the first message."""
    found: list[NDArray[np.float32]] = []
    for case, output in zip(cases, outputs(name, cases, folder), strict=True):
        if isinstance(output, str):
            return output
        values = np.asarray(output, np.float32).reshape(case.expected.shape)
        found.append(np.abs((np.rint(values) if case.name == "operator" else values) - case.expected).ravel())
    return np.concatenate(found)


def measured(run: str, folders: list[str], folder: Path) -> dict[str, Differences]:
    """What differs, by runtime."""
    metadata = load_checkpoint(checkpoint_of(run, last=False)).metadata
    photos = [photo for place in folders for photo in spread(place, RESIZED)]
    few = [photo for place in folders for photo in spread(place, CLASSIFIED)]
    resized, classified = resize_cases(photos, metadata, folder), net_cases(run, few, folder)
    operators = operator_cases(few, metadata, folder)
    rows = {}
    for name in (*RUNTIMES, WEB):
        grey, posteriors, operator = (differences(name, cases, folder) for cases in (resized, classified, operators))
        if isinstance(grey, str) or isinstance(posteriors, str):
            raise RuntimeError(f"{name}: {grey if isinstance(grey, str) else posteriors}")
        by_operator = operator if isinstance(operator, str) else float(operator.max())
        share = 100 * float((grey > 0).mean())
        rows[name] = Differences(float(grey.max()), share, float(posteriors.max()), by_operator)
        print(name, rows[name], flush=True)
    return rows


def write_table() -> None:
    """Puts the stored differences into the page."""
    stored = read_json(RESULTS / f"{NAME}.json")
    rows = [
        (
            f"{name} {stored['versions'][package]}",
            f"{row['grey_levels']:.0f}",
            f"{row['share']:.2g}",
            f"{row['posterior']:.1e}",
            row["operator"] if isinstance(row["operator"], str) else f"{row['operator']:.0f}",
        )
        for (name, row), package in zip(
            stored["details"].items(), ("onnxruntime", "openvino", "opencv", "web"), strict=True
        )
    ]
    environment = stored["environment"]
    measured = f"{environment['time'][:10]}, {environment['commit']}"
    head = f"{stored['cases']} outputs for photos of Caltech-101 and of ILSVRC's validation set, beside Pillow "
    head += f"{stored['versions']['pillow']} and net E ({measured}):"
    write_block(PAGE, NAME, f"{head}\n\n{markdown_table(HEADS, rows)}")


def main(words: list[str]) -> int:
    """Measures, stores and writes; 1 where a posterior differs."""
    if words:
        with tempfile.TemporaryDirectory() as place:
            rows = measured(words[0], words[1:], Path(place))
        number = json.loads((PACKAGES / "onnxruntime-web" / "package.json").read_text())["version"]
        versions = {**versions_of("onnxruntime", "openvino", "pillow"), "opencv": cv2.__version__, "web": number}
        faults = [f"{name}: posteriors differ by {row.posterior:.1e}" for name, row in rows.items()]
        faults = [fault for fault, row in zip(faults, rows.values(), strict=True) if not row.posterior <= TOLERANCE]
        count = len(rows) * len(words[1:]) * (RESIZED + 2 * CLASSIFIED)
        details = {name: vars(row) for name, row in rows.items()}
        store(
            NAME, SuiteResult("photos resized by the file, in others' runtimes", versions, count, faults, {}, details)
        )
        write_table()
        return int(bool(faults))
    write_table()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
