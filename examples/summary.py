"""The table of results in README.md: one row for each page that has the details.

python examples/summary.py write
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from commands import TOP, error_cell
from ilsvrc import error, wrong

from verydeep.core.files import read_json
from verydeep.paper.tables import markdown_table, write_block

EVERY = 17  # LinearSVC trains each 17th class only (benchmarks/svm.py)
STORED = TOP / "docs" / "results"


def fine_tuning() -> list[list[str]]:
    """Net D from pretrained convolutions and net A from random weights, on the same photos."""
    stored = read_json(STORED / "caltech101.json")
    rows = []
    for run, what in zip(stored["runs"], ("Net D, fine-tuned", "Net A, random weights"), strict=True):
        test = run["tests"][-1]
        data = f"Caltech-101, {stored['size']}, {test['images']} test photos"
        rows.append([f"{what}, {test['protocol']}", data, f"top-1 error {error_cell(test, 'top1_error')} %", "train"])
    return rows


def jittered() -> list[str]:
    """The same photos with scale jittering in training."""
    stored = read_json(STORED / "protocols.json")
    name = next(name for name in stored["rows"] if name.startswith("D, S in"))
    row = stored["rows"][name]
    data = f"the same {row['images']} photos"
    return [f"Net {name}".replace(":", ","), data, f"top-1 error {error_cell(row, 'top1_error')} %", "testing"]


def transfer() -> list[str]:
    """The best SVM on all classes of Caltech-101."""
    rows = [row for row in read_json(STORED / "transfer.json")["rows"] if row["photos"] == "all"]
    best = max(rows, key=lambda row: float(row["mean_class_recall"]))
    recall = f"{best['mean_class_recall']:.1f} ± {best['mean_class_recall_std']:.1f} %"
    data = f"Caltech-101, {best['classes']} classes, {len(best['splits'])} splits"
    features = best["features"][0]
    svm = f"Linear SVM on {features['layer']} of net {features['net']}"
    return [svm, data, f"mean class recall {recall}", "transfer"]


def localisation() -> list[str]:
    """Boxes of the true class on the central crop."""
    stored = read_json(STORED / "localisation.json")
    row = stored["rows"]["all, PCR"]
    data = f"Caltech-101, three classes, crop {stored['size']['crop']}, {row['images']} test photos"
    cell = error_cell(row, "gt_class_error")
    return ["Localisation with net D, central crop", data, f"error of the true class's box {cell} %", "localisation"]


def box_context() -> list[str]:
    """Boxes on whole photos, by training on whole photos or on crops."""
    stored = read_json(STORED / "box_context.json")
    crop, photo = (stored[f"{way}-160-0"]["tests"]["dense"] for way in ("crop", "photo"))
    data = f"the same classes, {photo['images']} whole photos"
    result = f"{error_cell(photo, 'gt_class_error')} %, trained on crops {error_cell(crop, 'gt_class_error')} %"
    return ["Localisation, trained on whole photos", data, result, "localisation"]


def ilsvrc() -> list[str]:
    """Net E with Oxford's weights on real photos of ILSVRC."""
    found = read_json(STORED / "ilsvrc.json")["ranks"]["small"]["centre@224"]
    data = f"{len(found):,} validation photos of ILSVRC, 227x227"
    errors = [f"top-{k} error {error(wrong(found, k))} %" for k in (1, 5)]
    return ["Net E, Oxford's weights, centre@224", data, ", ".join(errors), "results"]


def suspects() -> list[str]:
    """Planted wrong labels that `data check` finds, beside cleanlab on the same descriptors."""
    stored = read_json(STORED / "suspects.json")
    seeds = stored["seeds"]
    shares = []
    for who in ("verydeep", "cleanlab"):
        planted, found = (sum(seed[who]["wrong_labels"][key] for seed in seeds) for key in ("planted", "found"))
        shares.append(f"{100 * found / planted:.0f} %")
    data = f"Caltech-101, {stored['classes']} classes, 5 % wrong labels planted, {len(seeds)} seeds"
    return ["`data check`, wrong labels", data, f"{shares[0]} found; by cleanlab {shares[1]}", "data"]


def calibration() -> list[str]:
    """The calibration error of net E's probabilities before and after one temperature is fitted."""
    row = read_json(STORED / "calibration.json")["rows"][0]
    result = f"expected calibration error {row['ece']:.1f} % before, {row['calibrated']['ece']:.1f} % after"
    return [f"`calibrate`, net {row['net'][0]}", f"{row['images']} other photos of ILSVRC", result, "testing"]


def rejection() -> list[str]:
    """What `--reject-at 5` does to photos of known classes and of others."""
    seeds = read_json(STORED / "reject.json")["svm"]
    answered, wrong, rejected = (
        statistics.mean(seed["class mean"][key] for seed in seeds) for key in ("answered", "wrong", "rejected")
    )
    result = (
        f"{answered:.0f} % answered, {wrong:.1f} % of these wrong; {rejected:.0f} % of photos of other classes unknown"
    )
    data = f"Caltech-101, SVMs, {seeds[0]['test']} photos of known and {seeds[0]['unknown']} of other classes"
    return ["`predict --reject-at 5`", f"{data}, {len(seeds)} seeds", result, "testing"]


def demo() -> list[str]:
    """The demo's seeds."""
    runs = read_json(STORED / "demo.json")["runs"]
    errors = [run["evaluations"][-1]["top1_error"] for run in runs]
    spread = f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f} %"
    return ["`make demo`", f"scenes of handwritten digits, {len(runs)} seeds", f"top-1 error {spread}", "tour"]


def speed() -> list[list[str]]:
    """Inference and training on a CPU, dense evaluation and SVM training, each against its usual alternative."""
    svm = read_json(STORED / "svm.json")
    dense = statistics.median(read_json(STORED / "dense_against_crops.json")["ratios"])
    theirs = EVERY * sum(other["seconds"] for other in svm["linear_svc"])
    by_processor = read_json(STORED / "cpu_speed.json")
    names = dict.fromkeys(name for measurements in by_processor.values() for name in measurements)
    return [
        *(_beside_rivals(name, by_processor) for name in names),
        ["Speed of dense evaluation", "net D, three scales", f"{dense:.1f} times 150 crops", "testing"],
        ["Speed of SVM training", "size of Caltech-101", f"{theirs / svm['seconds']:.0f} times LinearSVC", "transfer"],
    ]


def _beside_rivals(name: str, by_processor: dict[str, Any]) -> list[str]:
    """A measurement of benchmarks/cpu_speed.py on each processor."""
    results = []
    for processor, measurements in by_processor.items():
        if name not in measurements:
            continue
        *others, ours = measurements[name]["rows"]
        best = max(others, key=lambda row: row["images_per_second"])
        result = f"{processor}: {ours['ratio_to_first']:.2f} times torchvision"
        if best is not others[0]:
            result += f", {ours['ratio_to_best_rival']:.2f} times {best['name'].split()[0]}"
        results.append(result)
    return [f"Speed of {name}", "net D, 2 CPU threads, beside the best other runtime", "; ".join(results), "scale"]


def write() -> None:
    """Writes the table into README.md."""
    rows = [
        ilsvrc(),
        *fine_tuning(),
        jittered(),
        transfer(),
        localisation(),
        box_context(),
        suspects(),
        calibration(),
        rejection(),
        demo(),
        *speed(),
    ]
    linked = [[*cells, f"[{page}](docs/{page}.md)"] for *cells, page in rows]
    table = markdown_table(["what", "data", "result", "details"], linked)
    note = (
        "Brackets: 95 % interval; ±: standard deviation. Each page has all rows, the machine, the date and the commit."
    )
    write_block(TOP / "README.md", "results", f"{table}\n\n{note}")


if __name__ == "__main__":
    {"write": write}[sys.argv[1]]()
