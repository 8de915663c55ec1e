"""All that reads files from strangers, with good files to begin from: for `fuzz`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import corpus
import own_corpus as own
import torch
from mutators import Files

from verydeep import train
from verydeep.checkpoints.checkpoint import load_checkpoint, read_metadata
from verydeep.checkpoints.exported import open_exported
from verydeep.checkpoints.integrity import write_sealed
from verydeep.checkpoints.pretrained import read_weights
from verydeep.checkpoints.registry import named_classes
from verydeep.checkpoints.run_dir import RunLog, bad_images, run_name
from verydeep.cli.parser import given_settings, parse
from verydeep.core.config import Scale, from_json, typed
from verydeep.core.errors import VerydeepError
from verydeep.core.files import read_json
from verydeep.core.settings import (
    BoxSettings,
    DataSettings,
    DescriptorSettings,
    FeatureSettings,
    MachineSettings,
    MergeSettings,
    SvmSettings,
    TrainSettings,
)
from verydeep.data.annotations import read_boxes
from verydeep.data.datasets.imagenet import blacklisted
from verydeep.data.image_io import image_size, read_bytes, read_image
from verydeep.data.open import open_data
from verydeep.data.transforms import reduced
from verydeep.evaluation.protocols import parse_box_protocol, parse_protocol
from verydeep.evaluation.scores import load_scores
from verydeep.localisation.windows_file import load_windows
from verydeep.paper.results import read_results
from verydeep.transfer.features_file import load_features
from verydeep.transfer.svm_file import load_svm

SETTINGS = (TrainSettings, DataSettings, MachineSettings, BoxSettings, MergeSettings)
OF_FEATURES = (FeatureSettings, DescriptorSettings, SvmSettings)
WITH_PYARROW = {"hf": "data sets of Hugging Face"}
NAMES = {
    "images": "photos of all formats",
    "csv": "list files",
    "jsonl": "list files of JSON",
    "xml": "boxes as VOC keeps them",
    "coco": "boxes as COCO keeps them",
    "boxes": "boxes in rows",
    "yolo": "boxes as YOLO keeps them",
    "via": "boxes as VIA keeps them",
    "caffemodel": "Caffe's weights",
    "mat": "MatConvNet's weights",
    "keras": "Keras's weights",
    "tensorflow": "TF-Slim's weights, both forms",
    "tfjs": "TensorFlow.js's weights",
    "pth": "PyTorch's weights",
    "safetensors": "safetensors without our metadata",
    "sidecar": "the card beside a foreign file",
    "onnx": "exported nets, loaded and run",
    "devkit": "ILSVRC's `meta.mat`",
    "imagenet": "ILSVRC's lists",
    "voc": "VOC's lists",
    "webdataset": "tar files of photos",
    "pack": "packs and their photos",
    "scores": "scores",
    "windows": "windows of box nets",
    "features": "features",
    "checkpoint": "checkpoints",
    "svm": "SVMs",
    "settings": "settings as JSON",
    "run": "a run directory, resumed",
    "log": "a run's log",
    "results": "stored results",
    "names": "names of classes",
    "typed": "command lines, protocols, scales",
    "http": "requests to the server",
    **(WITH_PYARROW if find_spec("pyarrow") else {}),
}
DEAR = ("mat", "devkit")  # each file takes a process


@dataclass(frozen=True)
class Parser:
    """What is told a folder of files, and good files to begin from; ``dear`` where each takes a process."""

    read: Callable[[Path], object]
    seeds: list[Files]
    dear: bool = False


def _only(folder: Path) -> Path:
    """The one file of a folder, or the one that the others lie beside."""
    return folder / max(path.name for path in folder.iterdir())


def _image(folder: Path) -> object:
    path = _only(folder)
    try:
        found = read_image(path).shape[:2]
    except VerydeepError:
        found = (0, 0)
    reduced(read_bytes(path), "x", 16, "bilinear", "round").size  # noqa: B018
    told = image_size(path)
    if found not in ((0, 0), told):
        raise AssertionError(f"read as {found}, told as {told}")
    return read_image(path)


def _data(name: str) -> Callable[[Path], object]:
    """Data of a kind in a folder, all of whose photos and boxes are read."""

    def read(folder: Path) -> object:
        opened = open_data(DataSettings(f"{name}{_only(folder) if not name else folder}"), several=True)
        for found in opened.sets.values():
            found.fingerprint()
            for photo in found.ids if name in ("webdataset:", "./", "hf:") else ():
                found.source.read(photo)
                if found.find_boxes is not None:
                    found.find_boxes(photo)
        return opened

    return read


def _pack(folder: Path) -> object:
    opened = open_data(DataSettings(str(folder)), several=True)
    for found in opened.sets.values():
        for photo in found.ids:
            found.source.read(photo)
            if found.find_boxes is not None:
                found.find_boxes(photo)
    return opened


def _imagenet(folder: Path) -> object:
    blacklisted(folder)
    return open_data(DataSettings(f"imagenet:{folder}"))


def _settings(folder: Path) -> object:
    told = read_json(folder / "config.json")
    given = [(kind, told.get(kind.__name__)) for kind in (*SETTINGS, *OF_FEATURES)]
    return [from_json(kind, values) for kind, values in given if isinstance(values, dict)]


def _run(folder: Path) -> object:
    """A run directory, resumed."""
    if (folder / "last.safetensors").is_file():
        _seal(folder / "last.safetensors")
    run_name(folder / "last.safetensors")
    bad_images(folder)
    return train("A", folder, True, max_epochs=1, workers=0, threads=1)


def _log(folder: Path) -> object:
    return RunLog(folder, keep_epochs=2)


def _seal(path: Path) -> None:
    """A stranger's file would have a hash that fits, so each changed one gets it."""
    data = path.read_bytes()
    try:
        write_sealed(path, data)
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):  # no header that could be sealed
        path.write_bytes(data)


def _sealed(read: Callable[[Path], object]) -> Callable[[Path], object]:
    def sealed(folder: Path) -> object:
        _seal(_only(folder))
        return read(_only(folder))

    return sealed


def _checkpoint(path: Path) -> object:
    read_metadata(path)
    return load_checkpoint(path).net()


def _weights(folder: Path) -> object:
    return read_weights(str(_only(folder)), "rgb-mean")


def _recorded(folder: Path) -> object:
    return read_weights(str(folder / "net.safetensors"), "recorded")


def _beside(folder: Path) -> object:
    """A file and what stands beside it, which may tell its hash."""
    return read_weights(str(folder / "x.pth"), "recorded")


def _exported(folder: Path) -> object:
    """Opened, and asked about two photos of another size than the crop."""
    opened = open_exported(_only(folder))
    shown = torch.zeros((2, 3, 40, 48), dtype=torch.uint8 if opened.takes == "uint8" else torch.float32)
    return opened.net().mean_scores(shown)


def _names(folder: Path) -> object:
    return named_classes(str(_only(folder)))


def _typed(folder: Path) -> object:
    """A command line, a word a line; and each word as a scale and a protocol."""
    words = _only(folder).read_bytes().decode("utf8", "surrogateescape").split("\n")
    for word in words:
        for kind in (parse_protocol, Scale.parse, lambda text: parse_box_protocol(text, 32)):
            try:
                kind(word)
            except VerydeepError:
                continue
    try:
        options = parse(words)
    except SystemExit:  # after --help
        return None
    given = given_settings(options)
    for settings in (*SETTINGS, *OF_FEATURES):
        names = {field.name for field in dataclasses.fields(settings)}
        settings(**typed(settings, {name: value for name, value in given.items() if name in names}))
    return options


def _http(folder: Path) -> object:
    from http_target import handle  # the server's modules take seconds to import

    return handle(_only(folder).read_bytes())


READERS: dict[str, Callable[[Path], object]] = {
    "images": _image,
    "csv": _data(""),
    "jsonl": _data(""),
    "xml": read_boxes,
    "coco": lambda folder: read_boxes(_only(folder)),
    "boxes": lambda folder: read_boxes(_only(folder)),
    "yolo": read_boxes,
    "via": lambda folder: read_boxes(_only(folder)),
    "caffemodel": _weights,
    "mat": _weights,
    "keras": _weights,
    "tensorflow": _weights,
    "tfjs": lambda folder: read_weights(str(folder / "model.json"), "rgb-mean"),
    "pth": _weights,
    "safetensors": _recorded,
    "sidecar": _beside,
    "onnx": _exported,
    "devkit": _imagenet,
    "imagenet": _imagenet,
    "voc": _data("voc2007:"),
    "webdataset": _data("webdataset:"),
    "pack": _pack,
    "scores": lambda folder: load_scores(_only(folder)),
    "windows": lambda folder: load_windows(folder, "k"),
    "features": _sealed(load_features),
    "checkpoint": _sealed(_checkpoint),
    "svm": _sealed(load_svm),
    "settings": _settings,
    "run": _run,
    "log": _log,
    "results": lambda folder: read_results(_only(folder)),
    "names": _names,
    "typed": _typed,
    "http": _http,
    "hf": _data("hf:"),
}


def seeds(place: Path) -> dict[str, list[Files]]:
    """Good files for each reader, made in an empty folder."""
    torch.set_num_threads(1)
    place.mkdir(parents=True, exist_ok=True)
    run = own.trained(place)
    weights = corpus.weights(place)
    return {
        "images": corpus.images(),
        "csv": corpus.lists(),
        "jsonl": corpus.json_lists(),
        "xml": corpus.xml(),
        "coco": corpus.coco(),
        "boxes": corpus.boxes(),
        "yolo": corpus.yolo(),
        "via": corpus.via(),
        "caffemodel": weights["Caffe"],
        "mat": weights["MatConvNet"],
        "keras": weights["Keras"],
        "tensorflow": weights["TF-Slim"],
        "tfjs": weights["TensorFlow.js"],
        "pth": weights["torch"],
        "safetensors": weights["safetensors"],
        "sidecar": weights["sidecar"],
        "onnx": corpus.onnx(run, place),
        "devkit": corpus.devkit(place),
        "imagenet": corpus.imagenet(),
        "voc": corpus.voc(place),
        "webdataset": corpus.tars(),
        "pack": corpus.pack(place),
        "scores": own.scores(place),
        "windows": own.windows(place),
        "features": own.features(),
        "checkpoint": own.checkpoint(run),
        "svm": own.svm(),
        "settings": own.settings(),
        "run": own.run(run),
        "log": own.log(run),
        "results": own.results(),
        "names": own.names(),
        "typed": own.typed(),
        "http": corpus.http(),
        **({"hf": corpus.hugging_face()} if "hf" in NAMES else {}),
    }


def parsers(place: Path) -> dict[str, Parser]:
    """All of them; their seeds are made in an empty folder."""
    return {name: Parser(READERS[name], files, name in DEAR) for name, files in seeds(place).items()}
