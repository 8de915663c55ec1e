"""Check every image of a dataset: unreadable files, class balance, sizes, duplicates, wrong labels."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.config import typed
from ...core.progress import Reporter
from ...core.settings import DataSettings, FeatureSettings, MachineSettings, SuspectSettings, TrainSettings
from ...core.terminal import Terminal
from ..execution import MISTAKE, OK, SOME_FAILED, run_extraction, show_result
from ..output import show, show_note, show_table
from ..parser import CommandParser, Options, add_settings, add_shared, given_settings, settings_from
from .features import add_net_settings

MOST_KINDS = 8  # of skipped files, named on the screen
MOST_SUSPECTS = 10
FOLDER = "runs/check"


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    add_shared(parser, "data")
    add_settings(parser, DataSettings, only=("boxes", "exclude"))
    source = parser.group("Net and weights").add_mutually_exclusive_group()
    source.add_argument(
        "--features", metavar="FILE", help="also find near duplicates and wrong labels, by this features file"
    )
    source.add_argument(
        "--weights", metavar="MODEL", help="the same, by descriptors of a run, a checkpoint or a weight file"
    )
    parser.group("Output").add_argument(
        "--out", metavar="DIR", default=FOLDER, help=f"folder for suspects.csv and the page (default: {FOLDER})"
    )
    add_settings(parser, SuspectSettings)
    add_settings(parser, FeatureSettings)
    add_net_settings(parser)


def run(options: Options) -> int:
    """Checks a dataset; status 2 where an image, a box or a format cannot be read, else 1 where images are suspect."""
    if options.weights is None:
        return _check(options, Terminal(options.quiet))
    return run_extraction(options, lambda reporter: _check(options, reporter))


def _check(options: Options, reporter: Reporter) -> int:
    from ...core.device import LoaderSettings
    from ...core.processors import cores
    from ...data.check import check_data

    settings = typed(DataSettings, given_settings(options, DataSettings))
    by_descriptors = options.features is not None or options.weights is not None
    suspects = {"suspects": _suspects(options, reporter)} if by_descriptors else {}  # first: its mistakes are quick
    result = check_data(options.data, readers=LoaderSettings(cores()), reporter=reporter, **settings) | suspects
    show_result(options, result, _show)
    if any(result[key] for key in ("faults", "box_faults", "unread")):
        return MISTAKE
    return SOME_FAILED if by_descriptors and result["suspects"]["suspects"] else OK


def _suspects(options: Options, reporter: Reporter) -> dict[str, Any]:
    """Near duplicates and doubtful labels, as JSON values."""
    from ...api import find_suspects

    given = typed(FeatureSettings, given_settings(options, FeatureSettings))
    preprocessing = typed(TrainSettings, given_settings(options, TrainSettings)).get("preprocessing", "recorded")
    if options.weights is not None and "layer" not in given:
        from ...transfer.backbone import usual_layer

        given["layer"] = usual_layer(options.weights, preprocessing)
    return find_suspects(
        options.data,
        options.features,
        options.weights,
        options.out,
        settings_from(options, SuspectSettings),
        **{k: v for k, v in typed(DataSettings, given_settings(options, DataSettings)).items() if k != "boxes"},
        feature_settings=FeatureSettings(**given),
        preprocessing=preprocessing,
        machine=settings_from(options, MachineSettings),
        reporter=reporter,
    )


def _show(result: dict[str, Any]) -> None:
    from ...data.dataset import first_names

    rows = []
    for name, part in result["sets"].items():
        counts = sorted(part["balance"].values())
        spread = f"{counts[0]} / {counts[len(counts) // 2]} / {counts[-1]}"
        sides = " / ".join(map(str, part["smallest_side"] or ["-"]))
        rows.append((name, part["photos"], spread, sides))
    show_note(f"{result['data']}: {len(result['classes'])} classes")
    show_note(f"classes: {first_names(result['classes'])}")
    show_note(f"split: {result['split']}")
    for note in result["notes"]:
        show_note(f"note: {note}")
    columns = ["set", "images", "per class (min/median/max)", "shorter side (min/median/max)"]
    show_table("", columns, rows)
    for images in result["duplicates"]:
        show(f"duplicates: {'; '.join(images)}")
    _show_skipped(result)
    for sentence in result["unread"]:
        show(sentence)
    for fault in result["faults"]:
        show(f"unreadable: {fault['fault']}")
    for line in [*result["boxes_skipped"], *result["box_faults"]]:
        show(f"boxes: {line}")
    for box in result["boxes"]:
        corners = ", ".join(f"{side} {box[side]:g}" for side in ("xmin", "ymin", "xmax", "ymax"))
        show(f"as read: {box['image']}, {box['class']}, {corners}")
    show(f"unreadable images: {len(result['faults'])}, sets of duplicates: {len(result['duplicates'])}")
    if "suspects" in result:
        _show_suspects(result["suspects"])


def _show_suspects(found: dict[str, Any]) -> None:
    """Counts, and the clearest suspects: half of them copies where there are both."""
    copies = [row for row in found["suspects"] if row["duplicate_of"]]
    labels = [row for row in found["suspects"] if not row["duplicate_of"]]
    first = copies[: max(MOST_SUSPECTS // 2, MOST_SUSPECTS - len(labels))]
    rows = [
        (row["image"], row["set"], row["label"], row["suggested"], f"{row['score']:.3f}", row["reason"])
        for row in [*first, *labels[: MOST_SUSPECTS - len(first)]]
    ]
    show_table("", ["suspect image", "set", "label", "suggested", "score", "reason"], rows)
    if found["not_judged"]:
        show_note(f"classes with too few images to judge labels: {', '.join(found['not_judged'])}")
    counts = found["counts"]
    show(
        f"near duplicates across sets: {counts['leak']}, within a set: {counts['duplicate']}; "
        f"doubtful labels: {sum(bool(row['suggested']) for row in found['suspects'])} of {found['judged']}"
    )
    show(f"all of them: {found['csv']}; with the images: {found['page']}")
    if found["suspects"]:
        show(f"look at them, then leave them out: verydeep train D --data DATA --exclude {shlex.quote(found['csv'])}")


def _show_skipped(result: dict[str, Any]) -> None:
    """The kinds of files that are not read, on one line."""
    kinds = []
    for name, kind in result["skipped"].items():
        first = kind["first"].removeprefix(f"{result['data']}/")
        kinds.append(f"{kind['count']} {name} ({first}{', …' if kind['count'] > 1 else ''})")
    more = f", {len(kinds) - MOST_KINDS} more kinds" if len(kinds) > MOST_KINDS else ""
    show_note(f"skipped: {', '.join(kinds[:MOST_KINDS]) or 'nothing'}{more}")
