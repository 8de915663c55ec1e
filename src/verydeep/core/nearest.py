"""Suggestions for unknown names: misspelt, in another case, or as other programs call them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# A setting's name in other programs, and its names here, of which the first that a command has is suggested.
SETTINGS = {
    **dict.fromkeys(("amp", "fp16", "half", "mixed-precision", "autocast", "bf16", "dtype"), ("precision",)),
    **dict.fromkeys(("epochs", "num-epochs", "n-epochs"), ("max-epochs",)),
    **dict.fromkeys(("steps", "num-steps", "iterations", "max-iter"), ("max-steps",)),
    **dict.fromkeys(("batch-size", "bs", "b", "train-batch-size"), ("batch",)),
    **dict.fromkeys(("accumulate", "grad-accum", "gradient-accumulation-steps"), ("device-batch",)),
    **dict.fromkeys(("img-size", "imgsz", "img", "image-size", "input-size"), ("crop", "size", "scales")),
    **dict.fromkeys(("size", "resize", "val-resize-size"), ("S", "scales", "crop")),
    **dict.fromkeys(("gpu", "gpus", "cuda", "cpu", "mps", "use-gpu"), ("device",)),
    **dict.fromkeys(("output", "output-dir", "out-dir", "outdir", "o", "save", "save-dir", "project"), ("out",)),
    **dict.fromkeys(("learning-rate", "lr0", "base-lr"), ("lr",)),
    **dict.fromkeys(("pretrained", "weights", "checkpoint", "ckpt", "init", "finetune"), ("start", "weights")),
    **dict.fromkeys(("wd", "decay", "l2"), ("weight-decay",)),
    **dict.fromkeys(("num-workers", "nworkers", "jobs", "j"), ("workers",)),
    **dict.fromkeys(("num-threads", "nthreads"), ("threads",)),
    **dict.fromkeys(("dataset", "data-dir", "data-path", "train-dir", "root", "path"), ("data",)),
    **dict.fromkeys(("continue", "resume-from"), ("resume",)),
    **dict.fromkeys(("topk", "k", "n"), ("top",)),
    **dict.fromkeys(("split", "subset", "partition"), ("set",)),
    **dict.fromkeys(("freeze", "trainable", "feature-extract"), ("learn",)),
    **dict.fromkeys(("hflip", "flip", "horizontal-flip"), ("mirror",)),
    **dict.fromkeys(("color-shift", "color-jitter", "jitter"), ("colour-shift",)),
    **dict.fromkeys(("width-mult", "width-multiplier", "alpha"), ("width",)),
    **dict.fromkeys(("random-seed", "manual-seed", "random-state"), ("seed",)),
    **dict.fromkeys(("early-stopping", "early-stop"), ("patience",)),
    **dict.fromkeys(("labels", "names", "class-list"), ("class-names", "classes", "class")),
    **dict.fromkeys(("silent", "q"), ("quiet",)),
    **dict.fromkeys(("bbox", "bboxes", "annotations", "ann-file"), ("boxes",)),
    **dict.fromkeys(("format", "f"), ("to", "json")),
    **dict.fromkeys(("gradcam", "cam", "heatmap"), ("explain",)),
}
COMMANDS: dict[str, tuple[str, ...]] = {  # the same of commands
    **dict.fromkeys(("eval", "test", "val", "validate", "score"), ("evaluate",)),
    **dict.fromkeys(("infer", "inference", "classify", "run", "ask"), ("predict",)),
    **dict.fromkeys(("finetune", "fine-tune", "fit", "learn"), ("train",)),
    **dict.fromkeys(("detect", "detection", "boxes", "localization", "localisation"), ("localise",)),
    **dict.fromkeys(("embed", "embeddings", "extract", "describe"), ("features",)),
    **dict.fromkeys(("search", "retrieve", "nearest"), ("similar",)),
    **dict.fromkeys(("ensemble", "average"), ("fuse",)),
    **dict.fromkeys(("models", "summary", "net", "info"), ("nets",)),
    **dict.fromkeys(("server", "api", "web"), ("serve",)),
    **dict.fromkeys(("download", "fetch"), ("weights",)),
    **dict.fromkeys(("bench", "speed"), ("benchmark",)),
    **dict.fromkeys(("check", "pack", "show"), ("data",)),
    **dict.fromkeys(("import", "posteriors"), ("scores",)),
}


def nearest(name: str, known: Iterable[str], least: float = 0.65) -> str | None:
    """The known name that is most similar to an unknown one, ignoring case; None if none is similar enough.

    Args:
        least: the smallest similarity, 0 to 1, as `difflib.get_close_matches` measures it.
    """
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=least)
    return by_folded[matches[0]] if matches else None


def nearest_setting(name: str, known: Iterable[str]) -> str | None:
    """The setting that was probably meant, as on the command line but without dashes in front."""
    return _nearest_or_synonym(name.strip("-").replace("_", "-"), known, SETTINGS)


def nearest_command(name: str, known: Iterable[str]) -> str | None:
    """The command that was probably meant."""
    return _nearest_or_synonym(name, known, COMMANDS)


def _nearest_or_synonym(name: str, known: Iterable[str], synonyms: dict[str, tuple[str, ...]]) -> str | None:
    """The known name most similar to a name, or that a synonym most similar to it stands for."""
    known = list(known)
    meanings = {
        synonym: [candidate for candidate in names if candidate in known] for synonym, names in synonyms.items()
    }
    meaning = {synonym: names[0] for synonym, names in meanings.items() if names} | {name: name for name in known}
    match = name if name in meaning else nearest(name, meaning)
    return meaning[match] if match else None
