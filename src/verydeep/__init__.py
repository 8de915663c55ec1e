"""Very deep ConvNets for large-scale image recognition (Simonyan & Zisserman, ICLR 2015).

The names below are the public, stable API; modules behind them may change between minor versions.
They load on first use, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import evaluate, evaluate_boxes, load, predict, probe, train, train_boxes
    from .checkpoints.convert import convert
    from .core.config import Scale
    from .core.distributed import joined
    from .core.errors import ImageError, VerydeepError
    from .core.settings import DataSettings, MachineSettings, TrainSettings
    from .data.check import check_data
    from .data.image_io import read_image
    from .data.open import open_data
    from .deploy.benchmark.benchmark import benchmark
    from .deploy.export import export
    from .evaluation.ensemble import fuse
    from .evaluation.predict import Classifier
    from .evaluation.protocols import parse_protocol
    from .evaluation.scores import load_scores
    from .localisation.predict import load_localiser
    from .models.architectures import NET_NAMES, net_facts
    from .models.vgg import Net, create_net
    from .paper.demo import demo
    from .paper.reproduce import reproduce
    from .transfer.describing import extract_features
    from .transfer.evaluate import learn_svms
    from .transfer.features_file import load_features
    from .transfer.retrieval import find_similar

_HOMES = {
    "Classifier": "evaluation.predict",
    "DataSettings": "core.settings",
    "ImageError": "core.errors",
    "MachineSettings": "core.settings",
    "NET_NAMES": "models.architectures",
    "Net": "models.vgg",
    "Scale": "core.config",
    "TrainSettings": "core.settings",
    "VerydeepError": "core.errors",
    "benchmark": "deploy.benchmark.benchmark",
    "check_data": "data.check",
    "convert": "checkpoints.convert",
    "create_net": "models.vgg",
    "demo": "paper.demo",
    "evaluate": "api",
    "evaluate_boxes": "api",
    "export": "deploy.export",
    "extract_features": "transfer.describing",
    "find_similar": "transfer.retrieval",
    "fuse": "evaluation.ensemble",
    "learn_svms": "transfer.evaluate",
    "joined": "core.distributed",
    "load": "api",
    "load_features": "transfer.features_file",
    "load_localiser": "localisation.predict",
    "load_scores": "evaluation.scores",
    "net_facts": "models.architectures",
    "open_data": "data.open",
    "parse_protocol": "evaluation.protocols",
    "predict": "api",
    "probe": "api",
    "read_image": "data.image_io",
    "reproduce": "paper.reproduce",
    "train": "api",
    "train_boxes": "api",
    "write_report": "reports.write",
}
__all__ = [
    "NET_NAMES",
    "Classifier",
    "DataSettings",
    "ImageError",
    "MachineSettings",
    "Net",
    "Scale",
    "TrainSettings",
    "VerydeepError",
    "benchmark",
    "check_data",
    "convert",
    "create_net",
    "demo",
    "evaluate",
    "evaluate_boxes",
    "export",
    "extract_features",
    "find_similar",
    "fuse",
    "joined",
    "learn_svms",
    "load",
    "load_features",
    "load_localiser",
    "load_scores",
    "net_facts",
    "open_data",
    "parse_protocol",
    "predict",
    "probe",
    "read_image",
    "reproduce",
    "train",
    "train_boxes",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
