"""The verb that measures: benchmark, also with several numbers of processes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any, get_args

from ...core.errors import VerydeepError
from ..output import show, show_table
from .common import OK, answer_json, machine_wish, reporter_of, team_of


def benchmark(options: argparse.Namespace) -> int:
    """How fast something is, as a table."""
    from ...deploy.benchmark.benchmark import What

    known = get_args(What)
    what, sources = (
        (options.what, options.sources) if options.what in known else ("infer", [options.what, *options.sources])
    )
    if options.processes and what != "train":
        raise VerydeepError("only `benchmark train` takes --processes.")
    told = (
        _growth(_counts(options.processes), options.typed) if options.processes else _measured(what, sources, options)
    )
    if told is None:  # another process of this job answers
        return OK
    if options.json:
        answer_json(told)
    else:
        _show(told)
    return OK


def _measured(what: Any, sources: list[str], options: argparse.Namespace) -> dict[str, Any] | None:
    from ...deploy.benchmark.benchmark import benchmark

    with team_of(options) as team:
        told = benchmark(
            what,
            sources,
            options.batch,
            options.size,
            options.repeats,
            options.against,
            options.photos,
            machine_wish(options),
            reporter_of(team, options.quiet),
            team,
        )
        return told if team.is_main else None


def _counts(text: str) -> list[int]:
    """Numbers of processes, as typed."""
    words = text.split(",")
    if not all(word.isdecimal() and 0 < int(word) <= 512 for word in words):
        raise VerydeepError(f"processes lists whole numbers from 1 to 512, such as 1,2,4, not {text!r}.")
    return [int(word) for word in words]


def _growth(counts: list[int], words: list[str]) -> dict[str, Any]:
    """The same training steps by each number of processes, through torchrun; speed-up is to the first."""
    at = next(place for place, word in enumerate(words) if word.startswith("--processes"))
    words = words[:at] + words[at + (1 if "=" in words[at] else 2) :]
    words += [] if "--json" in words else ["--json"]
    rows = []
    for count in counts:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = subprocess.run([*start, "-m", "--", "verydeep", *words], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise VerydeepError(f"{count} processes could not be measured; what they say stands above.")
        rows.append({"processes": count, **json.loads(done.stdout)})
    first = rows[0]["rows"][0]["images_per_second"] / counts[0]
    for row in rows:
        rate = row["rows"][0]["images_per_second"]
        row["speed_up"], row["efficiency"] = round(rate / first, 3), round(rate / first / row["processes"], 3)
    return {"what": "processes", "runs": rows}


def _show(told: dict[str, Any]) -> None:
    if told["what"] == "processes":
        heads = ["processes", "images/s", "speed-up", "efficiency"]
        cells = [
            (
                row["processes"],
                f"{row['rows'][0]['images_per_second']:.2f}",
                f"{row['speed_up']:.2f}",
                f"{row['efficiency']:.2f}",
            )
            for row in told["runs"]
        ]
        show_table("training steps, a global batch of the same size", heads, cells)
        return
    for part in told.get("sets", [told]):
        _show_rows(told, part)


def _show_rows(told: dict[str, Any], part: dict[str, Any]) -> None:
    rows = [
        (
            *(row["name"], f"{row['images_per_second']:.2f}", f"{row['least']:.2f} to {row['most']:.2f}"),
            *(f"{row['ratio_to_first']:.2f}", "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.2f}"),
        )
        for row in part["rows"]
    ]
    machine = part["machine"]
    words = [told["what"], *(f"{name} {told[name]}" for name in ("batch", "size", "processes") if told.get(name))]
    words += [str(part["photos"])] if "sets" in told else []
    where = f"{machine['device']}, {machine['threads']} threads, {machine['precision']}, {machine['layout']}"
    heads = ["", "images/s", "least to most", "ratio", "of the peak"]
    shown = len(heads) if any(row[-1] for row in rows) else len(heads) - 1  # without a column of nothing
    title = f"{', '.join(words)}; median of {part['repeats']}; {where}"
    show_table(title, heads[:shown], [row[:shown] for row in rows])
    show(
        f"peak, measured: {part['peak_multiply_adds_per_second'] / 1e9:.1f} G multiply-adds/s; "
        f"memory at most {part['peak_memory_bytes'] / 2**30:.1f} GiB"
    )
