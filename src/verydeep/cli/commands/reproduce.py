"""Reproduce rows of the paper's tables by name: train, evaluate and fuse what is missing."""

from __future__ import annotations

import shlex
from typing import Any

from ...core.errors import VerydeepError
from ...core.progress import duration
from ...core.settings import BoxSettings, MachineSettings, MergeSettings, TrainSettings
from ...core.terminal import Terminal
from ...paper.scale import DOLL
from ...training.recipes import OF_ALL_BOX_RUNS, OF_ALL_RUNS, PROFILES, settings_of_run
from .. import output
from ..execution import OK
from ..output import show, show_json, show_note, show_table
from ..parser import CommandParser, Options, add_settings, given_settings, show_defaults
from ..signals import InterruptHandler
from .table import show_paper_table


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="a row (table3/D/256), a table (table3), or classification, localisation, released or transfer",
    )
    parser.group("Data").add_argument(
        "--data", metavar="DATA", help="dataset: imagenet:DIR (default with --doll: digits)"
    )
    parser.group("Net and weights").add_argument(
        "--weights",
        metavar="NET=FILE",
        action="append",
        help="weight file of net D or E, for released and transfer; can be repeated",
    )
    _add_choices(parser)
    parser.group("Output").add_argument(
        "--out", metavar="DIR", help="folder for all runs (default: runs; with --doll: runs/doll)"
    )
    add_settings(parser, TrainSettings, only=OF_ALL_RUNS)
    add_settings(parser, BoxSettings, only=OF_ALL_BOX_RUNS)
    add_settings(parser, MergeSettings)
    add_settings(parser, MachineSettings)
    doll = settings_of_run("D/256", DOLL.settings("D/256"))
    show_defaults(parser, ("", (settings_of_run("D/256", {}),)), ("--doll", (doll,)))


def _add_choices(parser: CommandParser) -> None:
    evaluation = parser.group("Experiments")
    evaluation.add_argument(
        "--doll", action="store_true", help="use small nets on handwritten digits, which take minutes per row"
    )
    evaluation.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help="settings of all runs: the paper's text word for word, or its authors' code; other flags change them",
    )
    evaluation.add_argument(
        "--softmax-first",
        action="store_true",
        help="in dense evaluation of classifiers, take the softmax at each position, before the spatial mean",
    )
    evaluation.add_argument(
        "--plan", action="store_true", help="only print what is still to be run, with time and disk space"
    )
    evaluation.add_argument(
        "--list",
        action="store_true",
        help="only print which rows can be run with --data and --weights, or what they lack",
    )


def run(options: Options) -> int:
    """Trains and evaluates what is missing for some rows; status 130 or 143 where it was interrupted."""
    if options.list:
        return _list(options)
    if options.name is None:
        raise VerydeepError(
            "name what to reproduce, such as table3/D/256; `verydeep reproduce --list` prints all names."
        )
    from ...paper.reproduce import reproduce

    with InterruptHandler(reporter := Terminal(options.quiet)) as stop:
        result = reproduce(
            options.name,
            data=options.data,
            out=options.out,
            doll=options.doll,
            plan_only=options.plan,
            weights=_files_by_net(options.weights or []),
            profile=options.profile,
            softmax_first=options.softmax_first,
            reporter=reporter,
            stop=stop,
            **given_settings(options),
        )
    if options.json:
        show_json(result)
    if result["ended"] == "interrupted":
        output.fail("interrupted; finished parts are kept: resume with the same command.")
        return stop.status
    if options.json:
        return OK
    if result["ended"] == "planned":
        _show_plan(result)
    else:
        _show_rows(options.name, result)
    return OK


def _list(options: Options) -> int:
    """Prints the rows, and what each lacks."""
    from ...paper.runnable import runnable_rows

    rows = runnable_rows(options.name, options.data, _files_by_net(options.weights or []), options.doll)
    if options.json:
        show_json([row.to_json() for row in rows])
        return OK
    cells = [(row.row, ", ".join(row.missing) or "can be run", len(row.trains)) for row in rows]
    show_table("rows of the paper", ["row", "needs", "nets to train"], cells)
    show(f"{sum(not row.missing for row in rows)} of {len(rows)} rows can be run with the data and weights at hand")
    return OK


def _files_by_net(words: list[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for word in words:
        net, _, file = word.partition("=")
        if not net or not file or net in files:
            raise VerydeepError(f"pass weights as NET=FILE, once per net, such as D=net_d.safetensors, not {word!r}.")
        files[net] = file
    return files


def _show_plan(result: dict[str, Any]) -> None:
    plan = result["plan"]
    trained = [
        (row["run"], row["start"] or "random weights", row["S"], row["most_epochs"], duration(row["seconds"]))
        for row in plan["train"]
    ]
    tested = [(f"{row['run']} {row['protocol']}", duration(row["seconds"])) for row in plan["test"]]
    described = [
        (row["data"], row["run"], f"{row['layer']}@{row['scale']}", row["images"], duration(row["seconds"]))
        for row in plan["descriptors"]
    ]
    show_note(f"{result['name']}, into {result['folder']}")
    for columns, rows in (
        (["to train", "from", "S", "max epochs", "about"], trained),
        (["to evaluate", "about"], tested),
        (["to describe", "by", "layer@Q", "images", "about"], described),
    ):
        if rows:
            show_table("", columns, rows)
    if plan["done"]:
        show(f"already done: {', '.join(plan['done'])}")
    for run_name in plan["without_file"]:
        net = run_name.partition("/")[0]
        fetch = f"`verydeep weights fetch oxford-{net}` downloads it, then --weights {net}=oxford-{net}"
        show(f"the weight file of {run_name} is missing: add --weights {net}=FILE ({fetch})")
    if kept := [f"{rate['work']} ({rate['measured']})" for rate in plan["rates"] if rate["kept"]]:
        show(f"times by earlier measurements on this machine: {', '.join(kept)}")
    show(f"in total about {duration(plan['seconds'])} and {plan['disk_bytes'] / 2**30:.2f} GiB of disk space")


def _show_rows(name: str, result: dict[str, Any]) -> None:
    from ...paper.rows.row import find_rows

    results = [{"rows": result["rows"], "claims": {}}]
    rows = find_rows(name)[1]
    for table in dict.fromkeys(row.name.partition("/")[0].removeprefix("table") for row in rows):
        show_paper_table(table, results)
    show(f"show it again: verydeep table {table} --from {shlex.quote(result['folder'])}")
