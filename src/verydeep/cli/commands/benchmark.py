"""Benchmark inference, training, dense evaluation, data loading or SVM training on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

from ...core.errors import VerydeepError
from ...core.files import check_place
from ...core.settings import MachineSettings
from ..execution import OK, reporter_of, show_result, team_of
from ..output import show, show_table
from ..parser import CommandParser, Options, add_settings, settings_from

DISTRIBUTED = True


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "what", metavar="WHAT", help="what to measure: infer, train, dense, data or svm; a net alone: infer"
    )
    sources = (
        "infer: nets, runs or exported files; train: nets; dense: a net (default: D); data: a folder of images or tar "
        "files (default: synthetic JPEGs)"
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help=sources)
    group = parser.group("Benchmark")
    group.add_argument("--batch", type=int, default=8, metavar="N", help="batch size (default: 8)")
    group.add_argument("--size", type=int, metavar="N", help="side of the images in pixels (default: the net's crop)")
    group.add_argument("--repeats", type=int, default=7, metavar="N", help="number of repetitions (default: 7)")
    peers = (
        "libraries to compare with: infer: torchvision, onnxruntime, openvino, mnn, ncnn; train: torchvision; "
        "svm: scikit-learn"
    )
    group.add_argument("--against", metavar="PEER,…", help=peers)
    group.add_argument(
        "--load",
        type=int,
        default=0,
        metavar="N",
        help="number of other processes that keep the CPU busy meanwhile (default: 0)",
    )
    parser.group("Output").add_argument("--plot", metavar="FILE.png", help="also draw the result as a bar chart")
    group.add_argument(
        "--photos", type=int, metavar="N", help="number of images for data and svm (default: 64; svm: 1000)"
    )
    group.add_argument("--processes", metavar="N,…", help="for train: numbers of processes to measure, such as 1,2,4")
    used = ("device", "precision", "layout", "threads", "compile", "recompute", "bf16_gradients", "peer_timeout")
    add_settings(parser, MachineSettings, only=used)


def run(options: Options) -> int:
    """Measures speed; prints a table."""
    from ...deploy.benchmark.benchmark import What

    named = options.what in get_args(What)
    what, sources = (options.what, options.sources) if named else ("infer", [options.what, *options.sources])
    if options.processes and what != "train":
        raise VerydeepError("only `benchmark train` takes --processes.")
    plot = None if options.plot is None else _plot_path(options.plot, options.processes)
    if options.processes:
        result: dict[str, Any] | None = _scaling(_counts(options.processes), options.typed)
    else:
        result = _measure(what, sources, options)
    if result is not None and plot is not None:
        from ...deploy.benchmark.plot import draw_rates

        draw_rates([(_title(result, part), part["rows"]) for part in result.get("sets", [result])], plot)
    return OK if result is None else show_result(options, result, _show)


def _measure(what: Any, sources: list[str], options: Options) -> dict[str, Any] | None:
    """The result; None in all processes of a job but the main one."""
    from ...deploy.benchmark.benchmark import benchmark

    with team_of(options) as team:
        result = benchmark(
            what,
            sources,
            options.batch,
            options.size,
            options.repeats,
            options.against,
            options.photos,
            settings_from(options, MachineSettings),
            reporter_of(team, options.quiet),
            team,
            options.load,
        )
        return result if team.is_main else None


def _plot_path(name: str, processes: str | None) -> Path:
    """Where a chart is written; raises VerydeepError, before anything is measured, where none can be."""
    if processes:
        raise VerydeepError("--plot draws one measurement: leave out --processes.")
    path = Path(name)
    if path.suffix.lower() != ".png":
        raise VerydeepError(f"--plot writes a PNG file: {path} must end in .png.")
    check_place(path.parent, "--plot")
    return path


def _counts(text: str) -> list[int]:
    """Numbers of processes, as typed."""
    words = text.split(",")
    if not all(word.isdecimal() and 0 < int(word) <= 512 for word in words):
        raise VerydeepError(f"--processes must be whole numbers from 1 to 512, such as 1,2,4, not {text!r}.")
    return [int(word) for word in words]


def _scaling(counts: list[int], words: list[str]) -> dict[str, Any]:
    """The same training steps with each number of processes, through torchrun; speed-up over the first."""
    at = next(place for place, word in enumerate(words) if word.startswith("--processes"))
    words = words[:at] + words[at + (1 if "=" in words[at] else 2) :]
    words += [] if "--json" in words else ["--json"]
    rows = []
    for count in counts:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        done = subprocess.run([*start, "-m", "--", "verydeep", *words], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise VerydeepError(f"the benchmark with {count} processes failed; its messages are above.")
        rows.append({"processes": count, **json.loads(done.stdout)})
    first = rows[0]["rows"][0]["images_per_second"] / counts[0]
    for row in rows:
        rate = row["rows"][0]["images_per_second"]
        row["speed_up"], row["efficiency"] = round(rate / first, 3), round(rate / first / row["processes"], 3)
    return {"what": "processes", "runs": rows}


def _show(result: dict[str, Any]) -> None:
    if result["what"] == "processes":
        columns = ["processes", "images/s", "speed-up", "efficiency"]
        numbers = [(row["rows"][0]["images_per_second"], row["speed_up"], row["efficiency"]) for row in result["runs"]]
        rows = zip(result["runs"], numbers, strict=True)
        cells = [(row["processes"], *(f"{number:.2f}" for number in of_row)) for row, of_row in rows]
        show_table("training steps at the same global batch size", columns, cells)
        return
    for part in result.get("sets", [result]):
        _show_rows(result, part)


def _title(result: dict[str, Any], part: dict[str, Any]) -> str:
    """What was measured."""
    names = ("batch", "size", "processes", "load")
    values = {**result, **part}
    words = [result["what"], *(f"{name} {values[name]}" for name in names if values.get(name))]
    return ", ".join(words + ([str(part["photos"])] if "sets" in result else []))


def _show_rows(result: dict[str, Any], part: dict[str, Any]) -> None:
    rows = [
        (
            *(row["name"], f"{row['images_per_second']:.2f}", f"{row['least']:.2f} to {row['most']:.2f}"),
            *(_cell(row[name], ".2f") for name in ("ratio_to_first", "ratio_to_best_rival", "share_of_peak")),
            _cell(row["largest_difference"], ".0e"),
        )
        for row in part["rows"]
    ]
    machine = part["machine"]
    where = f"{machine['device']}, {machine['threads']} threads each, {machine['precision']}, {machine['layout']}"
    columns = ["", "images/s", "min to max", "ratio", "to best rival", "of the peak", "posteriors differ by"]
    shown = [number for number in range(len(columns)) if any(row[number] for row in rows)]  # no empty column
    title = f"{_title(result, part)}; median of {part['repeats']}; {where}"
    show_table(title, [columns[number] for number in shown], [[row[number] for number in shown] for row in rows])
    show(
        f"measured peak: {part['peak_multiply_adds_per_second'] / 1e9:.1f} G multiply-adds/s; "
        f"peak memory: {part['peak_memory_bytes'] / 2**30:.1f} GiB"
    )


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
