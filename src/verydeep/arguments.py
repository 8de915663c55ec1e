"""The command line's flags; those of settings are made from the fields of their dataclasses.

argparse and no library for it: its mistakes can be made one sentence, and it starts at once.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable
from typing import Any, NoReturn

from .box_settings import BoxSettings, MergeSettings
from .config import DataSettings, MachineSettings, TrainSettings, field_help, flag
from .errors import VerydeepError
from .feature_settings import DescriptorSettings, FeatureSettings, SvmSettings
from .recipes import OF_ALL_RUNS

OF_TRAINING = ("compile", "tensorboard", "device_batch")  # machine settings that only training reads


class _Parser(argparse.ArgumentParser):
    """argparse whose mistakes are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise VerydeepError(f"{message[:1].lower()}{message[1:]}; `{self.prog} --help` tells more.")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of one command line; raises VerydeepError for a mistake in it."""
    parser, verbs = build_parser()
    options, extra = parser.parse_known_args(arguments)
    if extra:
        known = [name for action in verbs[options.verb]._actions for name in action.option_strings]
        wrong = extra[0].partition("=")[0]
        near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]}?" if near else f"; `verydeep {options.verb} --help` lists them."
        kind = "setting" if wrong.startswith("-") else "argument"
        raise VerydeepError(f"unknown {kind} {wrong!r}{hint}")
    for name, value in vars(options).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise VerydeepError(f"{name.removeprefix('set_')} is empty: give a value, or leave it out.")
    return options


def build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and that of each verb by its name."""
    from importlib.metadata import version

    text = "Very deep ConvNets (Simonyan & Zisserman, ICLR 2015): nets A to E, trained, tested and asked."
    parser = _Parser(prog="verydeep", description=text, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"verydeep {version('verydeep')}")
    commands: Any = parser.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=_Parser)
    data = commands.add_parser("data", help="look at data before training: check, show", allow_abbrev=False)
    boxes = commands.add_parser("localise", help="box nets: train, evaluate, predict", allow_abbrev=False)
    groups: dict[str, Any] = {
        name: group.add_subparsers(metavar="COMMAND", required=True, dest="kind", parser_class=_Parser)
        for name, group in (("data", data), ("localise", boxes))
    }
    verbs: dict[str, argparse.ArgumentParser] = {}
    for name, (what, add_flags) in VERBS.items():
        family, _, last = name.rpartition(" ")
        group = groups[family] if family else commands
        verbs[name] = group.add_parser(last, help=what, description=what, allow_abbrev=False)
        verbs[name].set_defaults(verb=name)
        form: Any = verbs[name].add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print one JSON document to stdout")
        if name == "predict":
            form.add_argument("--csv", action="store_true", help="print rows of image,rank,class,probability")
        verbs[name].add_argument("--quiet", action="store_true", help="no news on stderr but warnings")
        add_flags(verbs[name])
    return parser, verbs


def _nets(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", nargs="?", metavar="NET")
    verb.add_argument("--classes", type=int, default=1000, metavar="N", help="outputs of fc8 (1000)")
    _add_settings(verb, TrainSettings, only=("crop", "width"))


def _data_check(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA")
    _add_settings(verb, DataSettings, only=("classes", "boxes"))


def _data_show(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("data", metavar="DATA")
    verb.add_argument("--out", default="crops.png", metavar="FILE", help="the picture (crops.png)")
    verb.add_argument("--photos", type=int, default=24, metavar="N", help="how many crops (24)")
    _add_settings(verb, TrainSettings, only=("S", "crop", "mirror", "colour_shift", "seed"))
    _add_settings(verb, DataSettings, only=("classes",))


def _train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a net (D) or a run of the paper (D/256, D/256-512)")
    verb.add_argument("--out", metavar="DIR", help="the run's folder (runs/RUN)")
    verb.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    _add_settings(verb, DataSettings)
    _add_settings(verb, TrainSettings, leave_out=("net",))
    _add_settings(verb, MachineSettings)


def _evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="DIR", help="a run's folder, or a checkpoint file")
    verb.add_argument("protocol", metavar="PROTOCOL", help="dense@256,384,512, crops@…, both@…, ten@…, centre@256")
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
    verb.add_argument("--last", action="store_true", help="the last checkpoint, not the best")
    _add_settings(verb, MachineSettings, leave_out=OF_TRAINING)


def _localise_train(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a net (D) or a run of the paper (D/384-PCR, D/384-SCR-fc)")
    verb.add_argument("--out", metavar="DIR", help="the run's folder (runs/RUN)")
    verb.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    verb.add_argument("--strict", action="store_true", help="refuse boxes with faults, in place of mending them")
    _add_settings(verb, BoxSettings)
    _add_settings(verb, DataSettings)
    _add_settings(verb, TrainSettings, leave_out=("net", "validate"))
    _add_settings(verb, MachineSettings)


def _localise_evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "tests", metavar="DIR PROTOCOL", nargs="+", help="a box net and centre@Q or dense@Q,…; several are joined"
    )
    verb.add_argument("--scores", metavar="FILE", help="scores of the photos, which say which labels to ask about")
    verb.add_argument("--classifier", metavar="DIR", help="the run that rates boxes (the one the box net started from)")
    verb.add_argument("--data", metavar="DATA", help="other data than the run's own")
    verb.add_argument("--boxes", metavar="LIST", help="other box files than the run's own")
    verb.add_argument("--set", metavar="NAME", help="a set of the data (train, dev, val, test, all)")
    verb.add_argument("--out", metavar="DIR", help="folder for what is found")
    verb.add_argument("--strict", action="store_true", help="refuse boxes with faults, in place of mending them")
    verb.add_argument("--server-file", metavar="FILE", help="also write what ILSVRC's localisation server takes")
    verb.add_argument("--devkit", metavar="DIR", help="ILSVRC's devkit, for --server-file")
    _add_settings(verb, MergeSettings)
    _add_settings(verb, MachineSettings, leave_out=OF_TRAINING)


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
    _add_settings(verb, MachineSettings, leave_out=OF_TRAINING)


def _features(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a run's folder, a checkpoint or a weight file")
    verb.add_argument("--data", metavar="DATA", required=True, help="folder, list file, caltech101:DIR, voc2007:DIR, …")
    verb.add_argument("--out", metavar="FILE", required=True, help="features file; scales it lacks are added to it")
    verb.add_argument("--set", metavar="NAME", help="only one set of the data")
    verb.add_argument("--splits", type=int, metavar="N", help="of Caltech, only the photos of the first N splits")
    verb.add_argument("--bad-images", choices=["stop", "skip"], default="stop", help="photos that cannot be read")
    _add_settings(verb, FeatureSettings)
    _of_weights(verb)


def _of_weights(verb: argparse.ArgumentParser) -> None:
    _add_settings(verb, DataSettings, only=("classes",))
    _add_settings(verb, TrainSettings, only=("preprocessing",))
    _add_settings(verb, MachineSettings, leave_out=OF_TRAINING)


def _svm(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("protocol", metavar="PROTOCOL", help="caltech101, caltech256, voc2007, voc2012, …-action, own")
    verb.add_argument(
        "--features", metavar="FILE", nargs="+", action="extend", required=True, help="features files; nets are stacked"
    )
    verb.add_argument("--scales", metavar="LIST", help="of the files' scales, only these (all)")
    verb.add_argument("--out", metavar="DIR", help="folder for figures and classifier (runs/svm/PROTOCOL)")
    _add_settings(verb, DescriptorSettings)
    _add_settings(verb, SvmSettings)
    _add_settings(verb, MachineSettings, only=("device", "threads"))


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
    _add_settings(verb, MachineSettings, leave_out=OF_TRAINING)


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


def _table(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("table", metavar="N", help="1 to 12, text, released, or claims")
    verb.add_argument(
        "--from",
        dest="results",
        metavar="DIR",
        nargs="+",
        action="extend",
        help="what reproduce wrote (runs); several: seeds' mean",
    )
    verb.add_argument("--write", metavar="PAGE", help="into a page, between <!-- table-N --> and <!-- /table-N -->")


def _demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", metavar="DIR", help="a new folder (runs/demo)")
    verb.add_argument("--seed", type=int, default=0, metavar="N", help="of the training (0)")
    verb.add_argument("--epochs", type=int, default=None, metavar="N", help="fewer only try the path")


VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "nets": ("the nets of Table 1: layers, parameters, multiply-adds, receptive field", _nets),
    "data check": ("read every photo once: faults, balance, sizes, duplicates", _data_check),
    "data show": ("a picture of what the net will see of the training photos", _data_show),
    "train": ("train a net (D: the recipe for own photos) or a run of the paper (D/256)", _train),
    "evaluate": ("test a run's net on the set that training never looked at", _evaluate),
    "predict": ("ask a run's net about photos", _predict),
    "localise train": ("train a box net from a classification run (App. A)", _localise_train),
    "localise evaluate": ("test box nets: localisation errors, pictures of right and wrong boxes", _localise_evaluate),
    "localise predict": ("draw boxes on photos, with class and score", _localise_predict),
    "fuse": ("average stored posteriors of nets or tests, with paired tests between them", _fuse),
    "features": ("describe photos by a layer of a net, at several scales, into a file (App. B)", _features),
    "svm": ("learn and test linear SVMs on descriptors by a data set's protocol (App. B)", _svm),
    "probe": ("own photos: descriptors, a linear SVM, its error and worst mistakes, in minutes", _probe),
    "similar": ("the photos of a features file that are nearest to a photo", _similar),
    "reproduce": ("rows of the paper's tables by name: train, test and fuse what is missing", _reproduce),
    "table": ("a table of the paper with our results beside it", _table),
    "demo": ("train, test and ask a small net on handwritten digits, in minutes", _demo),
}


def _add_settings(
    parser: argparse.ArgumentParser, kind: type, only: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()
) -> None:
    """A flag for each field of a settings dataclass; values stay text, which `config.typed` reads."""
    group = parser.add_argument_group(kind.__name__)
    for name, shape, text, default in field_help(kind):
        if (not only or name in only) and name not in leave_out:
            shown = text if default in ((), -1) else f"{text} ({default})"
            group.add_argument(
                f"--{flag(name)}", dest=f"set_{name}", metavar=shape, help=shown.replace("%", "%%"), default=None
            )


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, as text, by field name."""
    found = {key[4:]: value for key, value in vars(options).items() if key.startswith("set_")}
    return {name: value for name, value in found.items() if value is not None}
