"""The flags of each verb; those of settings are made from the fields of their dataclasses."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ..core.settings import (
    BoxSettings,
    DataSettings,
    DescriptorSettings,
    FeatureSettings,
    MachineSettings,
    MergeSettings,
    ServeSettings,
    SvmSettings,
    TrainSettings,
)
from ..paper.scale import DOLL
from ..training.recipes import OF_ALL_RUNS, settings_of_box_run, settings_of_run
from .setting_flags import ALONE, OF_TRAINING, READING, show_defaults
from .setting_flags import add_settings as _add_settings

DEPENDS = (
    "In brackets: the values of `{0} {1}`, the recipe for own photos, and those of the paper's {2} where they differ. "
    "`{0} RUN --help` shows those of a run, with the other flags that are given."
)


def _nets(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", nargs="?", metavar="NET")
    verb.add_argument("--classes", type=int, default=1000, metavar="N", help="outputs of fc8 (1000)")
    _add_settings(verb, TrainSettings, only=("crop", "width"))


def _data_check(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA")
    _add_settings(verb, DataSettings, only=("classes", "boxes", "folders"))
    _add_settings(verb, MachineSettings, only=("max_pixels",))


def _data_pack(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA")
    verb.add_argument("out", metavar="DIR", help="a new folder, or that of an interrupted packing")
    verb.add_argument("--size", type=int, default=256, metavar="N", help="smallest side of the packed photos (256)")
    verb.add_argument("--form", choices=["raw", "jpeg"], default="raw", help="raw pixels, or JPEGs, a tenth of them")
    verb.add_argument("--quality", type=int, default=95, metavar="N", help="of the JPEGs, 90 to 100 (95)")
    verb.add_argument("--bad-images", choices=["stop", "skip"], default="stop", help="photos that cannot be read")
    _add_settings(verb, DataSettings, leave_out=("data",))
    _add_settings(verb, TrainSettings, only=("resampling", "other_side"))
    _add_settings(verb, MachineSettings, only=READING)


def _data_show(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA")
    verb.add_argument("--out", default="crops.png", metavar="FILE", help="the picture (crops.png)")
    verb.add_argument("--photos", type=int, default=24, metavar="N", help="how many crops (24)")
    _add_settings(verb, TrainSettings, only=("S", "crop", "mirror", "colour_shift", "seed"))
    _add_settings(verb, DataSettings, only=("classes", "folders"))
    _add_settings(verb, MachineSettings, only=("max_pixels",))


def _train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a net (D) or a run of the paper (D/256, D/256-512)")
    verb.add_argument("--out", metavar="DIR", help="the run's folder (runs/RUN)")
    verb.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    _add_settings(verb, DataSettings)
    _add_settings(verb, TrainSettings, leave_out=("net",))
    _add_settings(verb, MachineSettings)
    ways = {"D": (settings_of_run("D", {}),), "D/256": (settings_of_run("D/256", {}),)}
    show_defaults(verb, *ways.items())
    verb.epilog = DEPENDS.format("train", *ways)


def _evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="DIR", help="a run's folder, or a checkpoint file")
    verb.add_argument("protocol", metavar="PROTOCOL", nargs="?", help="dense@256,384,512, crops@…, … (as predict)")
    verb.add_argument("--data", metavar="DATA", help="other data than the run's own")
    verb.add_argument("--set", metavar="NAME", help="a set of the data (train, dev, val, test, all)")
    verb.add_argument("--out", metavar="DIR", help="folder for what is found")
    verb.add_argument("--bad-images", choices=["stop", "skip"], default="stop", help="photos that cannot be read")
    verb.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_settings(verb, MachineSettings, leave_out=OF_TRAINING)


def _predict(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="DIR", help="a run's folder, or a checkpoint file")
    verb.add_argument("images", metavar="IMAGE", nargs="+", help="photos, folders of photos, globs")
    verb.add_argument("--top", type=int, default=5, metavar="N", help="how many classes (5)")
    verb.add_argument("--protocol", metavar="PROTOCOL", help="how to test (dense at the training scale)")
    verb.add_argument("--explain", metavar="DIR", help="also pictures of where each photo's top class is seen")
    verb.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_settings(verb, MachineSettings, leave_out=ALONE)


def _localise_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a net (D) or a run of the paper (D/384-PCR, D/384-SCR-fc)")
    verb.add_argument("--out", metavar="DIR", help="the run's folder (runs/RUN)")
    verb.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    verb.add_argument("--strict", action="store_true", help="refuse boxes with faults, in place of mending them")
    _add_settings(verb, BoxSettings)
    _add_settings(verb, DataSettings)
    _add_settings(verb, TrainSettings, leave_out=("net", "validate"))
    _add_settings(verb, MachineSettings)
    own = settings_of_box_run("D", {"start": "RUN"})
    ways = {"D --start RUN": own, "D/384-PCR": settings_of_box_run("D/384-PCR", {})}
    show_defaults(verb, *ways.items())
    verb.epilog = DEPENDS.format("localise train", *ways)


def _localise_evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "tests",
        metavar="DIR PROTOCOL",
        nargs="+",
        help="a box net and centre@Q or dense@Q,… (as localise predict); several are joined",
    )
    verb.add_argument("--scores", metavar="FILE", help="scores of the photos, which say which labels to ask about")
    verb.add_argument("--classifier", metavar="DIR", help="the run that rates boxes (the one the box net started from)")
    verb.add_argument("--data", metavar="DATA", help="other data than the run's own")
    verb.add_argument("--boxes", metavar="LIST", action="append", help="other box files than the run's own")
    verb.add_argument("--set", metavar="NAME", help="a set of the data (train, dev, val, test, all)")
    verb.add_argument("--out", metavar="DIR", help="folder for what is found")
    verb.add_argument("--strict", action="store_true", help="refuse boxes with faults, in place of mending them")
    verb.add_argument("--server-file", metavar="FILE", help="also write what ILSVRC's localisation server takes")
    verb.add_argument("--devkit", metavar="DIR", help="ILSVRC's devkit, for --server-file")
    _add_settings(verb, MergeSettings)
    _add_settings(verb, MachineSettings, leave_out=ALONE)


def _localise_predict(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="DIR", help="a box net's run, or a checkpoint file")
    verb.add_argument("images", metavar="IMAGE", nargs="+", help="photos, folders of photos, globs")
    verb.add_argument("--out", default="boxes", metavar="DIR", help="folder for pictures and boxes.json (boxes)")
    verb.add_argument("--top", type=int, metavar="N", help="how many classes (5, or 1 of fewer than 10)")
    verb.add_argument("--class", dest="name", metavar="NAME", help="the class to look for")
    verb.add_argument(
        "--classifier", metavar="DIR", help="the run that names and rates (that the box net started from)"
    )
    verb.add_argument("--protocol", metavar="PROTOCOL", help="where it is applied (dense@Q; centre@Q below crop 224)")
    _add_settings(verb, MergeSettings)
    _add_settings(verb, MachineSettings, leave_out=ALONE)


def _features(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a run's folder, a checkpoint or a weight file")
    verb.add_argument("--data", metavar="DATA", required=True, help="folder, list file, caltech101:DIR, voc2007:DIR, …")
    verb.add_argument("--out", metavar="FILE", required=True, help="features file; scales it lacks are added to it")
    verb.add_argument("--set", metavar="NAME", help="only one set of the data")
    verb.add_argument("--splits", type=int, metavar="N", help="of Caltech, only the photos of the first N splits")
    verb.add_argument("--bad-images", choices=["stop", "skip"], default="stop", help="photos that cannot be read")
    _add_settings(verb, FeatureSettings)
    _of_weights(verb)
    _add_settings(verb, MachineSettings, only=("peer_timeout",))


def _of_weights(verb: argparse.ArgumentParser) -> None:
    _add_settings(verb, DataSettings, only=("classes", "folders"))
    _add_settings(verb, TrainSettings, only=("preprocessing",))
    _add_settings(verb, MachineSettings, leave_out=ALONE)


def _svm(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("protocol", metavar="PROTOCOL", help="caltech101, caltech256, voc2007, voc2012, …-action, own")
    verb.add_argument(
        "--features", metavar="FILE", nargs="+", action="extend", required=True, help="features files; nets are stacked"
    )
    verb.add_argument("--scales", metavar="LIST", help="of the files' scales, only these (all)")
    verb.add_argument("--out", metavar="DIR", help="folder for figures and classifier (runs/svm/PROTOCOL)")
    _add_settings(verb, DescriptorSettings)
    _add_settings(verb, SvmSettings)
    _add_settings(verb, MachineSettings, only=("device", "threads", "max_pixels"))


def _probe(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", metavar="DATA", required=True, help="a folder with a folder per class")
    verb.add_argument("--weights", metavar="RUN", required=True, help="a run's folder, a checkpoint or a weight file")
    verb.add_argument("--out", metavar="DIR", default="runs/probe", help="folder for all it makes (runs/probe)")
    verb.add_argument("--bad-images", choices=["stop", "skip"], default="stop", help="photos that cannot be read")
    _add_settings(verb, FeatureSettings)
    _add_settings(verb, DescriptorSettings)
    _add_settings(verb, SvmSettings)
    _of_weights(verb)


def _similar(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("images", metavar="IMAGE", nargs="+", help="photos, folders of photos, globs")
    verb.add_argument("--features", metavar="FILE", required=True, help="the photos to look among")
    verb.add_argument("--top", type=int, default=10, metavar="N", help="how many (10)")
    verb.add_argument("--out", metavar="DIR", default="similar", help="folder for pictures and similar.json (similar)")
    _add_settings(verb, DescriptorSettings)
    _add_settings(verb, MachineSettings, leave_out=ALONE)


def _serve(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="DIR", help="what predict takes: a run, a checkpoint, an exported file, SVMs")
    verb.add_argument("--boxes", metavar="DIR", help="also boxes, by a box net's run")
    verb.add_argument("--features", metavar="FILE", help="also descriptors, and the nearest photos of a features file")
    verb.add_argument("--protocol", metavar="PROTOCOL", help="how to test (dense at the training scale)")
    verb.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_settings(verb, ServeSettings)
    _add_settings(verb, MachineSettings, only=("device", "precision", "layout", "threads"))


def _fuse(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", metavar="FILE", nargs="+", help="scores files, or the folders evaluate wrote")
    verb.add_argument("--weights", metavar="LIST", help="one a file, such as 1,2,1 (equal)")
    verb.add_argument("--out", metavar="DIR", help="folder for the fused scores; without it nothing is written")
    verb.add_argument("--server-file", metavar="FILE", help="also write what ILSVRC's server takes")
    verb.add_argument("--devkit", metavar="DIR", help="ILSVRC's devkit, for --server-file")


def _reproduce(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", metavar="NAME", help="table3/D/256, table3, classification, released, transfer")
    verb.add_argument("--data", metavar="DATA", help="imagenet:DIR, or with --doll digits")
    verb.add_argument("--out", metavar="DIR", help="folder of all runs (runs, or with --doll runs/doll)")
    verb.add_argument("--doll", action="store_true", help="small nets on handwritten digits, in minutes each")
    verb.add_argument("--plan", action="store_true", help="only say what it would train and test, time and disk")
    verb.add_argument(
        "--weights", metavar="NET=FILE", action="append", help="for released, transfer: a weight file, for D and E"
    )
    _add_settings(verb, TrainSettings, only=OF_ALL_RUNS)
    _add_settings(verb, MachineSettings)
    doll = settings_of_run("D/256", DOLL.settings("D/256"))
    show_defaults(verb, ("", (settings_of_run("D/256", {}),)), ("--doll", (doll,)))


def _table(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("table", metavar="N", help="1 to 12, text, released, or claims")
    seeds = "what reproduce wrote (runs); several: seeds' mean"
    verb.add_argument("--from", dest="results", metavar="DIR", nargs="+", action="extend", help=seeds)
    verb.add_argument("--write", metavar="PAGE", help="into a page, between <!-- table-N --> and <!-- /table-N -->")


def _report(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folders", metavar="DIR", nargs="+", help="runs, probes or SVMs; several are compared")
    verb.add_argument("--out", metavar="FILE", help="the page (report.html in DIR; of several comparison.html here)")
    _add_settings(verb, MachineSettings, only=("max_pixels",))


def _completion(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("shell", choices=["bash", "zsh", "fish"], help="whose language")


def _nothing(verb: argparse.ArgumentParser) -> None:
    """No flags but those of all verbs."""


def _weights_fetch(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", metavar="NAME", help="as `weights list` tells: oxford-D")
    verb.add_argument("--from", dest="source", metavar="FILE", help="a copy on this machine, or another address of it")


def _convert(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", metavar="SRC", help="a run, a checkpoint, released weights or a weight file")
    verb.add_argument("out", metavar="DST", help="a run's folder, or .safetensors, .pth, .h5, .caffemodel")
    verb.add_argument("--to", choices=["verydeep", "torchvision", "keras", "caffe"], help="where no ending tells it")
    verb.add_argument("--class-names", metavar="FILE", help="ilsvrc, or a file of one a line, where SRC records none")
    _add_settings(verb, TrainSettings, only=("preprocessing",))


def _export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a run's folder, a checkpoint, released weights or a weight file")
    verb.add_argument("--to", choices=["onnx", "onnx-int8", "pt2", "safetensors"], default="onnx", help="(onnx)")
    verb.add_argument("--out", metavar="FILE", help="the file (in the run's folder)")
    verb.add_argument(
        "--takes", choices=["uint8", "float"], default="uint8", help="photos to posteriors, or pixels to scores (uint8)"
    )
    verb.add_argument("--photos", metavar="DATA", help="for 8 bits: photos to calibrate with and to compare on")
    verb.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_settings(verb, MachineSettings, only=("threads", *READING))


def _benchmark(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("what", metavar="WHAT", help="infer, train, dense, data or svm; a net alone means infer")
    text = (
        "infer: nets by name, runs, exported files; train: names; dense: one net; data: a data set (D; JPEGs made up)"
    )
    verb.add_argument("sources", metavar="SOURCE", nargs="*", help=text)
    verb.add_argument("--against", metavar="PEER", help="torchvision, of svm scikit-learn: beside it, in the same run")
    verb.add_argument("--photos", type=int, metavar="N", help="of data and svm, how many (64, 1000)")
    verb.add_argument("--processes", metavar="N,…", help="of train: with so many processes, one after another")
    verb.add_argument("--batch", type=int, default=8, metavar="N", help="photos at once (8)")
    verb.add_argument("--size", type=int, metavar="N", help="side of the photos in pixels (the crop)")
    verb.add_argument("--repeats", type=int, default=7, metavar="N", help="turns (7)")
    mine = ("device", "precision", "layout", "threads", "compile", "recompute", "bf16_gradients")
    _add_settings(verb, MachineSettings, only=(*mine, "peer_timeout"))


def _demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", metavar="DIR", help="a new folder (runs/demo)")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of the training (0)")
    verb.add_argument("--epochs", type=int, metavar="N", help="fewer only try the path")
    verb.add_argument("--scenes", type=int, metavar="N", help="to train on; fewer than 6000 only try the path")


VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "nets": ("the nets of Table 1: layers, parameters, multiply-adds, receptive field", _nets),
    "data check": ("read every photo once: faults, balance, sizes, duplicates", _data_check),
    "data pack": ("photos rescaled once into a few large files, for fast training", _data_pack),
    "data show": ("a picture of what the net will see of the training photos", _data_show),
    "train": ("train a net (D: the recipe for own photos) or a run of the paper (D/256)", _train),
    "evaluate": ("test a run's net on the set that training never looked at", _evaluate),
    "predict": ("ask a run's net about photos", _predict),
    "localise train": ("train a box net from a classification run (App. A)", _localise_train),
    "localise evaluate": ("test box nets: localisation errors, pictures of right and wrong boxes", _localise_evaluate),
    "localise predict": ("draw boxes on photos, with class and score", _localise_predict),
    "serve": ("a page in the browser, and a JSON API, that ask a net about photos", _serve),
    "fuse": ("average stored posteriors of nets or tests, with paired tests between them", _fuse),
    "features": ("describe photos by a layer of a net, at several scales, into a file (App. B)", _features),
    "svm": ("learn and test linear SVMs on descriptors by a data set's protocol (App. B)", _svm),
    "probe": ("own photos: descriptors, a linear SVM, its error and worst mistakes, in minutes", _probe),
    "similar": ("the photos of a features file that are nearest to a photo", _similar),
    "reproduce": ("rows of the paper's tables by name: train, test and fuse what is missing", _reproduce),
    "table": ("a table of the paper with our results beside it", _table),
    "weights list": ("the public weight files of these nets, and which are on this machine", _nothing),
    "weights fetch": ("download a public weight file, once, and check its hash", _weights_fetch),
    "convert": ("any public weight file into a run, or a run into the layouts of others", _convert),
    "export": ("export a net to ONNX, int8 ONNX or safetensors, verified against the net", _export),
    "benchmark": ("benchmark inference, training, dense evaluation, data loading or SVM training", _benchmark),
    "report": ("a page on a run, a probe or SVMs; of several, one that compares them", _report),
    "completion": ("a script that completes these commands in a shell", _completion),
    "demo": ("train, test and ask a small net on handwritten digits, in minutes", _demo),
}
