"""The paper's tables with our results beside them; every result comes from results.json, none is typed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..core.errors import VerydeepError
from ..core.files import read_json, write_atomically
from ..models.architectures import TABLE_1, net_facts
from .doll_recipe import recipe_rows, recipe_text
from .results import BOX_ERRORS, ERRORS, FIGURE, FIGURE_VAL, RESULTS, SERVER_FILES, read_results
from .rows.row import MODULES, Paper, Table, experiment, find_table
from .scale import DOLL, PAPER_CROP

HEADS = {"top1_val": "top-1 val. error (%)", "top5_val": "top-5 val. error (%)", "top5_test": "top-5 test error (%)"}
SIGNIFICANT = 0.05
# Net, weight layers (Table 1), parameters in millions (Table 2, whose A and A-LRN share a column), as printed.
PRINTED = {
    **{"A": (11, 133), "A-LRN": (11, 133), "B": (13, 133), "C": (16, 134)},
    **{"D": (16, 138), "E": (19, 144)},
}


def read_places(places: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Reads the results of folders that `verydeep reproduce` wrote to, or of results.json files.

    Raises:
        VerydeepError: one is missing or broken.
    """
    results = []
    for place in map(Path, places):
        path = place / RESULTS if place.is_dir() else place
        if not path.exists():
            raise VerydeepError(f"there is no {path}: use the folder `verydeep reproduce` wrote to, or its {RESULTS}.")
        results.append(read_results(path))
    return results


def table_rows(name: str, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a table as JSON values: ``row``, ``cells``, ``paper``, ``measured``.

    Args:
        name: ``1`` to ``12``, ``text``, ``localisation-text`` or ``released``; or ``doll``, how nets of doll size are
            trained, whose rows have ``runs``, ``start``, ``doll`` and ``paper``.
        results: of one reproduction, or of several with different seeds, whose mean is taken.

    Raises:
        VerydeepError: no such table.
    """
    if name == "1":
        return [_layers_row(net) for net in PRINTED]
    if name == "2":
        return [_parameters_row(net) for net in PRINTED]
    if name == DOLL.name:
        return recipe_rows()
    table = find_table(name)
    rows: list[dict[str, Any]] = [
        {
            "row": row.name,
            "cells": dict(zip(table.columns, row.cells, strict=True)),
            "paper": _paper(row.paper),
            "measured": measured([stored["rows"][row.name] for stored in results if row.name in stored["rows"]]),
        }
        for row in table.rows
    ]
    if FIGURE in table.errors:
        return rows  # each is of its own data
    of = {(result["size"], result["data"], result["images"]) for row in rows if (result := row["measured"])}
    if len(of) > 1:
        sources = "; ".join(f"{images} photos of {data} at {size} size" for size, data, images in sorted(of))
        raise VerydeepError(f"these results cannot be in one table: {sources}.")
    return rows


def _paper(paper: Paper) -> dict[str, Any]:
    return {name: value for name, value in asdict(paper).items() if name in ERRORS or value not in (None, "")}


def measured(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """One row of results; of several seeds the mean, with their standard deviation in place of an interval.

    Raises:
        VerydeepError: the seeds' rows are of different images or sizes.
    """
    if len(rows) < 2:
        return {**rows[0], "seeds": 1} if rows else None
    first = rows[0]
    if any(
        (row["size"], row["data"], row["images"]) != (first["size"], first["data"], first["images"]) for row in rows
    ):
        raise VerydeepError("these results are of different sizes, data or numbers of photos: they have no mean.")
    seeds = [row["seed"] for row in rows]
    if None in seeds or len(set(seeds)) < len(seeds):
        raise VerydeepError("these results are of one seed, or of nets that are not trained: use only one of them.")
    if any(row["cut_short"] != first["cut_short"] for row in rows):
        raise VerydeepError("only some of these results are of trainings cut short by --max-steps: they have no mean.")
    # The plateau rule ends each seed's training at its own step.
    mean = {**first, "seeds": len(rows), "seed": seeds, "steps": [step for row in rows for step in row["steps"]]}
    for name in (*ERRORS, *BOX_ERRORS):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            mean[name] = round(statistics.mean(values), 4)
            mean[f"{name}_std"] = round(statistics.stdev(values), 4)
        mean.pop(f"{name}_interval", None)
    return mean


def _layers_row(net: str) -> dict[str, Any]:
    columns = {line.split("|")[0].strip(): line.split("|")[1:] for line in TABLE_1.strip().splitlines()}
    stages = [" ".join(f"conv{cell}" if cell != "LRN" else cell for cell in stage.split()) for stage in columns[net]]
    facts = net_facts(net)
    return {
        **{"row": f"table1/{net}", "cells": {"net": net}},
        "paper": {"weight_layers": PRINTED[net][0], "stages": stages},
        "measured": {
            "weight_layers": facts.weight_layers,
            "layers": [f"conv{spec.kernel}-{spec.outputs}" for spec in facts.layers if spec.stage <= 5],
        },
    }


def _parameters_row(net: str) -> dict[str, Any]:
    return {
        "row": f"table2/{net}",
        "cells": {"network": net},
        "paper": {"parameters_millions": PRINTED[net][1]},
        "measured": {"parameters": net_facts(net).parameters},
    }


def table_text(name: str, results: Sequence[dict[str, Any]]) -> tuple[str, list[str], list[list[str]], str]:
    """A table as text: caption, column heads, cells, and a note on the paper's figures and ours.

    Raises:
        VerydeepError: no such table.
    """
    if name == DOLL.name:
        return recipe_text()
    rows = table_rows(name, results)
    if name == "1":
        return _layers_text(rows)
    if name == "2":
        cells = [
            [row["cells"]["network"], str(row["paper"]["parameters_millions"]), f"{row['measured']['parameters']:,}"]
            for row in rows
        ]
        return "Table 2: Number of parameters (paper: in millions)", ["network", "paper", "ours"], cells, ""
    table = find_table(name)
    heads = [*table.columns, *(head for error in table.errors for head in ({**HEADS, **table.heads}[error], "ours"))]
    lines = [[*row["cells"].values(), *(cell for error in table.errors for cell in _pair(row, error))] for row in rows]
    title = f"Table {name}: {table.caption}" if name.isdigit() else table.caption
    return title, heads, lines, _note(table, rows)


def _pair(row: dict[str, Any], error: str) -> tuple[str, str]:
    """The paper's figure and ours, empty where there is none."""
    paper, ours = row["paper"].get(error), row["measured"]
    shown = "" if paper is None else _with_spread(row["paper"], error)
    if ours is None:
        return shown, ""
    size = f", {sizes}" if (sizes := _other_sizes(ours)) else ""
    if ours.get(error) is None:
        val = ours.get(FIGURE_VAL) if error == FIGURE else None
        return shown, "" if val is None else f"val: {val:.1f}{size}"
    if ours["seeds"] > 1 or error == FIGURE:
        return shown, _with_spread(ours, error) + size
    low, high = ours[f"{error}_interval"]
    return shown, f"{ours[error]:.1f} ({low:.1f}–{high:.1f}){size}"


def _with_spread(row: dict[str, Any], name: str) -> str:
    spread = row.get(f"{name}_std")
    return f"{row[name]:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def _note(table: Table, rows: list[dict[str, Any]]) -> str:
    """The paper's notes, and the data, dates and commits of our figures."""
    notes = [f"{row.name}: {row.paper.note}." for row in table.rows if row.paper.note]
    notes += [_server_note(row) for row in rows if row["measured"] and row["measured"].get(SERVER_FILES)]
    results = [row["measured"] for row in rows if row["measured"]]
    if FIGURE in table.errors:
        results = [result for result in results if result[FIGURE] is not None]
    if results and FIGURE in table.errors:
        of = sorted({f"{row['images']} photos of {row['data']} ({row['set']}, size: {row['size']})" for row in results})
        dates, commits = ("/".join(sorted({str(row[key]) for row in results})) for key in ("date", "commit"))
        made_up = f"; sets of digits{_training_steps(results)}" if DOLL.name in {row["size"] for row in results} else ""
        notes.append(f"Ours: {'; '.join(of)}{made_up}; ± is over random splits; {dates}, commit {commits}.")
    elif results:
        first = results[0]
        photos = f"{first['images']} photos of {first['data']} ({first['set']})"
        if first["subjects"] < first["images"]:
            photos += f" of {first['subjects']} subjects"
        most = max(row["seeds"] for row in results)
        spread = "95 % interval in parentheses" if min(row["seeds"] for row in results) == 1 else ""
        spread += f"{' or ' if spread else ''}mean ± standard deviation of {most} seeds" if most > 1 else ""
        photos += _classes_shown(first) + _training_steps(results)
        dates, commits = ("/".join(sorted({str(row[key]) for row in results})) for key in ("date", "commit"))
        size = "" if first["size"] == "paper" else f" at doll size ({_doll_pixels()})"
        notes.append(f"Ours{size}: {photos}; {spread}; {dates}, commit {commits}. The paper's: ILSVRC-2012.")
    sizes = sorted({text for row in results if (text := _other_sizes(row))})
    notes += [f"Not of the paper's size, and no result of its nets: {'; '.join(sizes)}."] if sizes else []
    return " ".join(notes)


def _server_note(row: dict[str, Any]) -> str:
    """Where a row's files for VOC's server are, and what is known without it."""
    ours = row["measured"]
    val = ours.get(FIGURE_VAL)
    known = "" if val is None else f", mean AP on val {val:.1f} % by the SVMs of train (val chose their C)"
    return f"{row['row']}: files for VOC's server in {ours[SERVER_FILES]}, beside results.json{known}."


def _other_sizes(row: dict[str, Any]) -> str:
    """The nets of a row that are not of the paper's size; empty where all are."""
    nets = row.get("nets", {}) if row["size"] != DOLL.name else {}
    other = {
        f"{run.partition('/')[0]} of width {net['width']:g}, crop {net['crop']}"
        for run, net in nets.items()
        if (net["width"], net["crop"]) != (1, PAPER_CROP)
    }
    return "; ".join(sorted(other))


def _classes_shown(row: dict[str, Any]) -> str:
    """How many of the nets' classes the images have, where it is not all."""
    shown, classes = row.get("classes_shown"), row.get("classes")
    return f", which show {shown} of the nets' {classes} classes" if shown != classes else ""


def _training_steps(rows: list[dict[str, Any]]) -> str:
    """How many steps the nets of the rows were trained for."""
    steps = sorted({step for row in rows for step in row["steps"]})
    if not steps:
        return ""
    text = f", nets of {steps[0]:,}" + (f" to {steps[-1]:,}" if len(steps) > 1 else "") + " steps"
    return text + (", cut short by --max-steps: no result" if any(row["cut_short"] for row in rows) else "")


def _doll_pixels() -> str:
    scales = ", ".join(f"{q} is {DOLL.pixels(q)}" for q in (PAPER_CROP, 256, 384, 512))
    return f"an eighth of the width; of S and Q, which are the paper's pixels, {scales}"


def _layers_text(rows: list[dict[str, Any]]) -> tuple[str, list[str], list[list[str]], str]:
    heads = ["", *(row["cells"]["net"] for row in rows)]
    stages = [[f"stage {number + 1}", *(row["paper"]["stages"][number] for row in rows)] for number in range(5)]
    ends = [["", *([text] * len(rows))] for text in ("FC-4096", "FC-4096", "FC-1000", "soft-max")]
    layers = [
        ["weight layers: paper", *(str(row["paper"]["weight_layers"]) for row in rows)],
        ["weight layers: ours", *(str(row["measured"]["weight_layers"]) for row in rows)],
    ]
    note = f"Input {PAPER_CROP}x{PAPER_CROP} RGB; each stage ends in max-pooling."
    return "Table 1: ConvNet configurations", heads, [*stages, *ends, *layers], note


def claims(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paper's claims that the results decide: ``claim``, ``text``, ``section``, ``verdict``, ``pairs``."""
    rows = []
    for claim in (claim for name in MODULES for claim in experiment(name).claims):
        decided = [result["claims"][claim.name] for result in results if claim.name in result["claims"]]
        pairs = [{**pair, "seed": stored["seed"]} for stored in decided for pair in stored["pairs"]]
        if pairs:
            about = {"claim": claim.name, "text": claim.text, "section": claim.section}
            rows.append({**about, "verdict": _verdict(pairs, claim.no_better), "pairs": pairs})
    return rows


def claim_lines(results: Sequence[dict[str, Any]]) -> list[str]:
    """As Markdown, a sentence on each of `claims`, then a line per pair of rows and seed."""
    lines: list[str] = []
    for claim in claims(results):
        verdict = f"{claim['text'][:1].upper()}{claim['text'][1:]} (Sect. {claim['section']}): {claim['verdict']}."
        lines += ["", verdict, "", *(f"- {_difference(pair)}" for pair in claim["pairs"])]
    return lines[1:]


def _verdict(pairs: list[dict[str, Any]], no_better: bool) -> str:
    """In how many pairs the paired test finds a difference, of the claimed sign or the other."""
    better = sum(pair["p"] < SIGNIFICANT and pair["difference"] > 0 for pair in pairs)
    worse = sum(pair["p"] < SIGNIFICANT and pair["difference"] < 0 for pair in pairs)
    if no_better:
        return f"an improvement is seen in {better} of {len(pairs)}" if better else "no improvement is seen here"
    if better == len(pairs):
        return "holds here"
    if worse == len(pairs):
        return "is reversed here"
    parts = [(better, "holds"), (worse, "reversed"), (len(pairs) - better - worse, "not decided")]
    return ", ".join(f"{verdict} in {count} of {len(pairs)}" for count, verdict in parts if count)


def _difference(pair: dict[str, Any]) -> str:
    low, high = pair["interval"]
    first, second = pair["errors"]
    return (
        f"{pair['first']} {first:.1f} %, {pair['second']} {second:.1f} %: "
        f"difference {pair['difference']:+.1f} points ({low:+.1f} to {high:+.1f}), p = {pair['p']:.2g}"
    )


def fusion_rows(places: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The rows that `verydeep fuse --out` stored: each file of each fusion, and then their mean.

    Raises:
        VerydeepError: no places; one has no result of a fusion; two are of different images.
    """
    rows = []
    for path in (Path(place) / "result.json" if Path(place).is_dir() else Path(place) for place in places):
        stored = read_json(path)
        try:
            fusion = stored["fusion"]
            of = {name: fusion[name] for name in ("images", "data", "set")}
            named = [f"{part['run']} {part['protocol']}" for part in stored["parts"]]
            lines = [*zip(named, stored["parts"], strict=True), (" + ".join(named), fusion)]
            errors = [f"{name}{end}" for name in ("top1_error", "top5_error") for end in ("", "_interval")]
            rows += [{"row": name, **of, **{key: line[key] for key in errors}} for name, line in lines]
            fusion_text(rows)
        except (KeyError, TypeError, ValueError):
            raise VerydeepError(
                f"{path} is not the result of a fusion: `verydeep fuse` with --out writes it."
            ) from None
    if not rows:
        raise VerydeepError("the table fusion needs --from with a folder that `verydeep fuse` wrote with its --out.")
    sets = sorted({f"{row['images']} images of {row['data']} ({row['set']})" for row in rows})
    if len(sets) > 1:
        raise VerydeepError(f"these fusions cannot be in one table: {'; '.join(sets)}.")
    return rows


def fusion_text(rows: Sequence[dict[str, Any]]) -> tuple[str, list[str], list[list[str]], str]:
    """The rows of `fusion_rows` as text: caption, column heads, cells, note."""
    names = ("top1_error", "top5_error")
    unique = [row for place, row in enumerate(rows) if row not in rows[:place]]  # the mean of one file is itself
    cells = [[row["row"], *(_percent_cell(row, name) for name in names)] for row in unique]
    first = rows[0]
    note = f"{first['images']} images of {first['data']} ({first['set']}); 95 % interval in brackets."
    return "Stored posteriors and their mean", ["scores", "top-1 error (%)", "top-5 error (%)"], cells, note


def _percent_cell(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    low, high = row[f"{name}_interval"]
    return f"{row[name]:.2f} ({low:.2f}–{high:.2f})"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown; bars in cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_block(page: Path, name: str, text: str) -> None:
    """Replaces the text between ``<!-- name -->`` and ``<!-- /name -->`` in a page.

    Raises:
        VerydeepError: the page does not have the two markers, once each and in order, or cannot be written.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    try:
        before = page.read_bytes().decode("utf8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is not UTF-8 text"
        raise VerydeepError(f"cannot write a table to {page}, which cannot be read: {reason}.") from None
    ends = "\r\n" if "\r\n" in before else "\n"
    lines = before.replace("\r\n", "\n")
    if lines.count(begin) != 1 or lines.count(end) != 1 or lines.index(begin) > lines.index(end):
        raise VerydeepError(f"{page} needs the lines {begin.strip()} and {end} once each, to write between.")
    head, rest = lines.split(begin)
    shown = "".join(letter for letter in text if letter.isprintable() or letter == "\n").replace("<!--", "&lt;!--")
    new = head + begin + shown.rstrip() + "\n" + end + rest.split(end)[1]
    write_atomically(page.resolve(), lambda file: file.write(new.replace("\n", ends).encode()))
