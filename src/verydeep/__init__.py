"""Very deep ConvNets for large-scale image recognition (Simonyan & Zisserman, ICLR 2015).

The names below are the public, stable API; modules behind them may change between minor versions.
They load on first use, so that importing the package is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asking import load, predict
    from .benchmarking import benchmark
    from .config import DataSettings, MachineSettings, Scale, TrainSettings
    from .configurations import NET_NAMES, net_facts
    from .converting import convert
    from .data import open_data
    from .data.check import check_data
    from .demo import demo
    from .errors import ImageError, VerydeepError
    from .evaluation import evaluate
    from .exporting.writing import export
    from .fusion import fuse
    from .images import read_image
    from .localisation.evaluation import evaluate_boxes
    from .localisation.prediction import load_localiser
    from .localisation.training import train_boxes
    from .nets import Net, create_net
    from .parallel import joined
    from .prediction import Classifier
    from .preparing import train
    from .protocols import parse_protocol
    from .reproduction import reproduce
    from .scores import load_scores
    from .transfer.describing import extract_features
    from .transfer.feature_files import load_features
    from .transfer.probing import probe
    from .transfer.protocols import learn_svms
    from .transfer.similar import find_similar

_HOMES = {
    "Classifier": "prediction",
    "DataSettings": "config",
    "ImageError": "errors",
    "MachineSettings": "config",
    "NET_NAMES": "configurations",
    "Net": "nets",
    "Scale": "config",
    "TrainSettings": "config",
    "VerydeepError": "errors",
    "benchmark": "benchmarking",
    "check_data": "data.check",
    "convert": "converting",
    "create_net": "nets",
    "demo": "demo",
    "evaluate": "evaluation",
    "evaluate_boxes": "localisation.evaluation",
    "export": "exporting.writing",
    "extract_features": "transfer.describing",
    "find_similar": "transfer.similar",
    "fuse": "fusion",
    "learn_svms": "transfer.protocols",
    "joined": "parallel",
    "load": "asking",
    "load_features": "transfer.feature_files",
    "load_localiser": "localisation.prediction",
    "load_scores": "scores",
    "net_facts": "configurations",
    "open_data": "data",
    "parse_protocol": "protocols",
    "predict": "asking",
    "probe": "transfer.probing",
    "read_image": "images",
    "reproduce": "reproduction",
    "train": "preparing",
    "train_boxes": "localisation.training",
    "write_report": "reports.writing",
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
