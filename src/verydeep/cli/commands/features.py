"""Extract descriptors of images from a layer of a net, at several scales, into a file (App. B)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.config import typed
from ...core.progress import Reporter, duration
from ...core.settings import DataSettings, FeatureSettings, MachineSettings, TrainSettings
from ...core.team import Team
from ..execution import OK, run_extraction, show_result, team_of
from ..output import show, show_table
from ..parser import ALONE, CommandParser, Options, add_settings, add_shared, given_settings, settings_from

if TYPE_CHECKING:
    from ...transfer.extract import PreparedExtraction

DISTRIBUTED = True


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("run", metavar="MODEL", help="a run's folder, a checkpoint or a weight file")
    data, output = parser.group("Data"), parser.group("Output")
    data.add_argument(
        "--data",
        metavar="DATA",
        required=True,
        help="dataset: a folder with or without class folders, a list file, caltech101:DIR, voc2007:DIR, …",
    )
    data.add_argument("--set", metavar="NAME", help="only this set of the data: train, dev, val or test (default: all)")
    data.add_argument("--splits", type=int, metavar="N", help="only the images of the first N random splits of Caltech")
    add_shared(parser, "--bad-images")
    output.add_argument(
        "--out", metavar="FILE", required=True, help="features file to write; if it exists, missing scales are added"
    )
    output.add_argument(
        "--also", metavar="FILE", help="also write the descriptors for other programs, as .npz or .parquet"
    )
    output.add_argument("--plan", action="store_true", help="only print what the extraction costs on this machine")
    add_settings(parser, FeatureSettings)
    add_net_settings(parser)
    add_settings(parser, MachineSettings, only=("peer_timeout",))


def add_net_settings(parser: CommandParser) -> None:
    """Adds the settings of commands that compute descriptors."""
    add_settings(parser, DataSettings, only=("classes", "folders"))
    add_settings(parser, TrainSettings, only=("preprocessing",))
    add_settings(parser, MachineSettings, leave_out=ALONE)


def run(options: Options) -> int:
    """Extracts descriptors."""
    with team_of(options) as team:
        return run_extraction(options, lambda reporter: _extract(options, reporter, team), team)


def _extract(options: Options, reporter: Reporter, team: Team) -> int:
    from ...transfer.extract import prepare_extraction
    from ...transfer.features_file import check_export, export_features

    if options.also is not None:
        check_export(options.also, options.out)
    prepared = prepare_extraction(
        options.run,
        options.data,
        options.out,
        set_name=options.set,
        splits=options.splits,
        **typed(DataSettings, given_settings(options, DataSettings)),
        settings=settings_from(options, FeatureSettings),
        preprocessing=settings_from(options, TrainSettings).preprocessing,
        machine=settings_from(options, MachineSettings),
        reporter=reporter,
        team=team,
    )
    if options.plan:
        return _plan(options, prepared, reporter) if team.is_main else OK
    extraction = prepared.run(options.bad_images == "skip")
    if options.also is not None and team.is_main:
        export_features(extraction.features, options.also)
    result = extraction.to_json()
    text = (
        f"{result['file']}: {result['layer']} of {result['images']} images, {result['dimensions']} dimensions, "
        f"Q = {', '.join(map(str, result['scales']))}; "
        f"{result['computed']} descriptors computed in {result['seconds']:.0f} s"
    )
    return show_result(options, result, lambda _: show(text)) if team.is_main else OK


def _plan(options: Options, prepared: PreparedExtraction, reporter: Reporter) -> int:
    """Prints multiply-adds and time of each scale."""
    from ...transfer.cost import extraction_costs

    costs = extraction_costs(prepared, reporter)
    scales = [cost.to_json() for cost in costs]
    plan = {"images": len(prepared.dataset), "scales": scales, "seconds": sum(cost.seconds for cost in costs)}
    return show_result(options, plan, _show_plan)


def _show_plan(plan: dict[str, Any]) -> None:
    rows = [
        (row["scale"], row["images"], f"{row['multiply_adds_per_image'] / 1e9:.1f}", duration(row["seconds"]))
        for row in plan["scales"]
    ]
    columns = ["Q", "images left", "G multiply-adds per image", "about"]
    show_table(f"{plan['images']} images, about {duration(plan['seconds'])}", columns, rows)
