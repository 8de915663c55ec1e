"""Which of some names was meant: misspelt, in other letters, or as other programs call it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What other trainers call a setting, and what it is called here: the first of these that a command has.
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
COMMANDS = {
    **dict.fromkeys(("eval", "test", "val", "validate", "score"), "evaluate"),
    **dict.fromkeys(("infer", "inference", "classify", "run", "ask"), "predict"),
    **dict.fromkeys(("finetune", "fine-tune", "fit", "learn"), "train"),
    **dict.fromkeys(("detect", "detection", "boxes", "localization", "localisation"), "localise"),
    **dict.fromkeys(("embed", "embeddings", "extract", "describe"), "features"),
    **dict.fromkeys(("search", "retrieve", "nearest"), "similar"),
    **dict.fromkeys(("ensemble", "average"), "fuse"),
    **dict.fromkeys(("models", "summary", "net", "info"), "nets"),
    **dict.fromkeys(("server", "api", "web"), "serve"),
    **dict.fromkeys(("download", "fetch"), "weights"),
    **dict.fromkeys(("bench", "speed"), "benchmark"),
    **dict.fromkeys(("check", "pack", "show"), "data"),
}


def nearest(name: str, known: Iterable[str], least: float = 0.65) -> str | None:
    """The known name that is nearest to one that is none of them: the same in other letters, or spelt alike.

    Args:
        least: how alike, 0 to 1, as `difflib.get_close_matches` counts it.
    """
    plain: dict[str, str] = {}
    for one in known:
        plain.setdefault(one.casefold(), one)
    alike = difflib.get_close_matches(name.casefold(), plain, n=1, cutoff=least)
    return plain[alike[0]] if alike else None


def nearest_setting(name: str, known: Iterable[str]) -> str | None:
    """The setting that was meant, as it is written on the command line, without dashes before it."""
    there = {one: one for one in known}
    others = {other: next((one for one in ours if one in there), None) for other, ours in SETTINGS.items()}
    meant = {**{other: ours for other, ours in others.items() if ours is not None}, **there}
    wanted = name.strip("-").replace("_", "-")
    alike = wanted if wanted in meant else nearest(wanted, meant)
    return meant[alike] if alike else None


def nearest_command(name: str, known: Iterable[str]) -> str | None:
    """The command that was meant."""
    there = {one: one for one in known}
    meant = {**{other: ours for other, ours in COMMANDS.items() if ours in there}, **there}
    alike = nearest(name, meant)
    return meant[alike] if alike else None
