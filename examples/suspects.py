"""Wrong labels and copies planted in Caltech-101: what `verydeep data check` finds of them, and what cleanlab finds.

    CALTECH101=folder NET_D_CONV=file python examples/suspects.py run     # pip install 'cleanlab[datalab]'
    python examples/suspects.py write     # the stored results into docs/data.md
    CALTECH101=folder python examples/suspects.py picture     # after run

`CLASSES` classes of `PHOTOS` photos are drawn once. For each seed 5 % of the photos get the label of another class, and
six photos of each class a copy in the test set: two re-encoded (three quarters of the size, JPEG quality 60), two
cropped to 90 % of each side, two mirrored. A copy has the label of its original, wrong or not. The other photos are in
the training and validation sets. cleanlab's Datalab is given the same labels and descriptors, with its usual settings,
and class probabilities of a logistic regression in ten folds, as in its tutorials; with C = 1000 it found more wrong
labels than with 1, 10 and 100.

A copy is found if it is in a group with its original. An extra photo in a group counts as wrong unless `NATURAL` lists
it: photos of Caltech-101 that show the same picture, or the same object twice, judged by eye.
"""

from __future__ import annotations

import csv
import os
import random
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from commands import TOP, run_json
from PIL import Image, ImageOps

from verydeep.checkpoints.run_dir import environment
from verydeep.core.files import read_json, write_json
from verydeep.core.settings import SuspectSettings
from verydeep.paper.tables import markdown_table, write_block
from verydeep.reports.figures import photo_grid, png_of_figure
from verydeep.transfer.descriptors import unit
from verydeep.transfer.features_file import Features, load_features, save_features
from verydeep.transfer.suspects import near_duplicates

RESULTS = TOP / "docs" / "results" / "suspects.json"
RUNS = Path(os.environ.get("SUSPECTS_RUNS", TOP / "runs" / "suspects"))
CLASSES, PHOTOS, SEEDS, WRONG = 20, 40, (0, 1, 2), 0.05
KINDS = ("encoded", "cropped", "mirrored")
COPIES = 2  # of each kind, in each class
NATURAL = tuple(
    tuple(f"{line.split()[0]}/image_{number}.jpg" for number in line.split()[1:])
    for line in (
        *("anchor 0005 0016", "anchor 0011 0015", "brontosaurus 0009 0013", "euphonium 0042 0043"),
        *("flamingo 0047 0048", "flamingo 0060 0061 0063", "hedgehog 0001 0010", "lamp 0011 0018", "pagoda 0003 0031"),
        *("pagoda 0007 0013", "pagoda 0012 0043", "pigeon 0002 0006", "pyramid 0008 0043", "pyramid 0025 0047"),
        *("revolver 0009 0011", "revolver 0036 0060", "revolver 0047 0077"),
    )
)
PICTURED = (
    *("brontosaurus 0009 0013", "flamingo 0047 0048", "pigeon 0002 0006", "lamp 0011 0018", "pagoda 0012 0043"),
    *("hedgehog 0001 0010", "car_side 0006 0113", "euphonium 0003 0021", "car_side 0104 0105"),
)


def make_photos() -> None:
    """Links to the drawn photos, and the copies of every seed."""
    source = Path(os.environ["CALTECH101"]).resolve()
    own = [place.name for place in source.iterdir() if place.name not in ("BACKGROUND_Google", "Faces_easy")]
    names = sorted(name for name in own if len(list((source / name).glob("*.jpg"))) >= PHOTOS)
    drawn: dict[str, list[Path]] = {}
    for name in sorted(random.Random(0).sample(names, CLASSES)):
        drawn[name] = sorted((source / name).glob("*.jpg"))
        random.Random(name).shuffle(drawn[name])
        drawn[name] = drawn[name][:PHOTOS]
        (RUNS / "photos" / name).mkdir(parents=True, exist_ok=True)
        for photo in drawn[name]:
            if not (RUNS / "photos" / name / photo.name).exists():
                (RUNS / "photos" / name / photo.name).symlink_to(photo)
    for seed in SEEDS:
        draw = random.Random(seed)
        for name, photos in drawn.items():
            chosen = draw.sample(photos, len(KINDS) * COPIES)
            for number, photo in enumerate(chosen):
                kind = KINDS[number // COPIES]
                path = RUNS / "photos" / name / f"copy{seed}_{kind}_{photo.stem}.jpg"
                _copy(photo, path, kind, draw)


def _copy(photo: Path, path: Path, kind: str, draw: random.Random) -> None:
    picture = Image.open(photo).convert("RGB")
    width, height = picture.size
    if kind == "encoded":
        picture = picture.resize((round(0.75 * width), round(0.75 * height)), Image.Resampling.LANCZOS)
    elif kind == "cropped":
        wide, high = round(0.9 * width), round(0.9 * height)
        x, y = draw.randint(0, width - wide), draw.randint(0, height - high)
        picture = picture.crop((x, y, x + wide, y + high))
    else:
        picture = ImageOps.mirror(picture)
    if not path.exists():
        picture.save(path, quality=60 if kind == "encoded" else 90)


def original(image: str) -> str:
    """The photo that an image is, or is a copy of."""
    name = Path(image).name
    return f"{Path(image).parent}/{name[name.index('image_') :]}"


def plant(features: Features, seed: int) -> tuple[Features, dict[str, str]]:
    """The images of a seed with their descriptors, and their labels, some of them wrong."""
    chosen = [i for i, image in enumerate(features.ids) if "copy" not in image or f"copy{seed}_" in image]
    ids = tuple(features.ids[i] for i in chosen)
    originals = sorted({original(image) for image in ids})
    draw = random.Random(seed)
    names = sorted({Path(image).parent.name for image in originals})
    label_of = {image: Path(image).parent.name for image in originals}
    for image in draw.sample(originals, round(WRONG * len(originals))):
        label_of[image] = draw.choice([name for name in names if name != label_of[image]])
    labels = {image: label_of[original(image)] for image in ids}
    scales = {scale: rows[chosen] for scale, rows in features.scales.items()}
    few = replace(features, ids=ids, labels=features.labels[chosen], sets=("",) * len(ids), scales=scales)
    return few, labels


def check(features: Features, labels: dict[str, str], seed: int) -> dict[str, Any]:
    """What the real command finds, as `measured`."""
    save_features(RUNS / f"seed{seed}.safetensors", features)
    draw = random.Random(seed)
    with (RUNS / "photos" / f"seed{seed}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "set"])
        for image, label in labels.items():
            writer.writerow([image, label, "test" if "copy" in image else draw.choice(["train", "train", "val"])])
    start = time.monotonic()
    command = f"data check {RUNS}/photos/seed{seed}.csv --features {RUNS}/seed{seed}.safetensors --out {RUNS}/{seed}"
    found = run_json(command, status=1)["suspects"]
    suspects = {row["image"] for row in found["suspects"] if row["suggested"]}
    groups = [{image["image"] for image in group["images"]} for group in found["groups"]]
    return measured(labels, suspects, groups) | {"seconds": round(time.monotonic() - start, 1)}


def cleanlab(features: Features, labels: dict[str, str]) -> dict[str, Any]:
    """What cleanlab's Datalab finds, as `measured`."""
    from cleanlab import Datalab  # type: ignore[import-not-found]
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    start = time.monotonic()
    rows, ids = unit(next(iter(features.scales.values()))), list(features.ids)
    names = sorted(set(labels.values()))
    numbers = np.array([names.index(labels[image]) for image in ids])
    model = LogisticRegression(C=1000, max_iter=1000)
    probabilities = cross_val_predict(model, rows, numbers, cv=10, method="predict_proba")
    lab = Datalab(data={"label": numbers}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=probabilities, features=rows, issue_types={"label": {}, "near_duplicate": {}})
    issues = lab.get_issues()
    suspects = {ids[i] for i in np.flatnonzero(issues["is_label_issue"])}
    sets = lab.get_issues("near_duplicate")["near_duplicate_sets"]
    groups = _joined({ids[i], *(ids[int(other)] for other in near)} for i, near in enumerate(sets) if len(near))
    return measured(labels, suspects, groups) | {"seconds": round(time.monotonic() - start, 1)}


def _joined(sets: Iterable[set[str]]) -> list[set[str]]:
    """Sets that share members as one."""
    groups: list[set[str]] = []
    for members in sets:
        touching = [group for group in groups if group & members]
        groups = [group for group in groups if not group & members]
        groups.append(members.union(*touching))
    return groups


def measured(labels: dict[str, str], suspects: set[str], groups: list[set[str]]) -> dict[str, Any]:
    """Counts of what was planted, what was found, and what was found besides."""
    wrong = {image for image, label in labels.items() if label != Path(image).parent.name}
    twin = {image: several[0] for several in NATURAL for image in several}
    extra = [sorted({twin.get(original(i), original(i)) for i in group}) for group in groups]
    copies = {kind: [image for image in labels if f"_{kind}_" in image] for kind in KINDS}
    together = {image: group for group in groups for image in group}
    found = {kind: sum(original(i) in together.get(i, ()) for i in images) for kind, images in copies.items()}
    return {
        "wrong_labels": {"planted": len(wrong), "found": len(wrong & suspects), "listed": len(suspects)},
        "copies": {kind: {"planted": len(copies[kind]), "found": found[kind]} for kind in KINDS},
        "groups": len(groups),
        "groups_of_different_photos": sum(len(photos) > 1 for photos in extra),
        "different": [photos for photos in extra if len(photos) > 1],
    }


def run() -> None:
    """Plants, checks and stores the results of every seed."""
    make_photos()
    file = RUNS / "D.safetensors"
    flags = "--layer pool5 --preprocessing caffe --scales 256 --threads 1 --workers 0 --quiet"
    run_json(f"features $NET_D_CONV --data {RUNS}/photos {flags} --out {file}")
    features = load_features(file)
    seeds = []
    for seed in SEEDS:
        few, labels = plant(features, seed)
        seeds.append({"seed": seed, "images": len(labels), "verydeep": check(few, labels, seed)})
        seeds[-1]["cleanlab"] = cleanlab(few, labels)
        print(seeds[-1], flush=True)
    from importlib.metadata import version

    size = {"classes": CLASSES, "photos": PHOTOS, "features": features.title, "cleanlab": version("cleanlab")}
    write_json(RESULTS, {**size, "seeds": seeds, "environment": environment({"cores": os.cpu_count()})})


def write() -> None:
    """The table of the stored results, in docs/data.md."""
    stored = read_json(RESULTS)
    rows = []
    for name, what in (("wrong_labels", "wrong labels"), *((kind, f"{kind} copies") for kind in KINDS)):
        cells = []
        for tool in ("verydeep", "cleanlab"):
            parts = [
                seed[tool][name] if name == "wrong_labels" else seed[tool]["copies"][name] for seed in stored["seeds"]
            ]
            cells += [_share(parts, "planted"), _share(parts, "listed") if name == "wrong_labels" else ""]
        rows.append([what, str(sum(part["planted"] for part in parts)), *cells])
    cells = []
    for tool in ("verydeep", "cleanlab"):
        groups = [
            {"found": seed[tool]["groups"] - seed[tool]["groups_of_different_photos"], "of": seed[tool]["groups"]}
            for seed in stored["seeds"]
        ]
        cells += ["", _share(groups, "of")]
    rows.append(["groups of near duplicates", "", *cells])
    columns = ["planted", "n", "verydeep: recall", "precision", "cleanlab: recall", "precision"]
    where = stored["environment"]
    seconds = [
        f"{min(seed[tool]['seconds'] for seed in stored['seeds']):.0f} to "
        f"{max(seed[tool]['seconds'] for seed in stored['seeds']):.0f} s"
        for tool in ("verydeep", "cleanlab")
    ]
    note = (
        f"In percent over {len(stored['seeds'])} seeds (minimum–maximum of a seed), at the default thresholds; "
        f"{stored['classes']} classes of {stored['photos']} photos of Caltech-101, {stored['features']}; cleanlab "
        f"{stored['cleanlab']} with the same descriptors. Copies have a precision as groups: the share of groups that "
        "show one picture or object only, judged by eye. The defaults of verydeep were chosen on these photos. A "
        "seed took verydeep, which also reads every photo and writes the page, and cleanlab, both with descriptors at "
        f"hand, {' and '.join(seconds)} ({where['processor']}, busy, {where['time'][:10]}, commit {where['commit']})."
    )
    heading = "Measured by `python examples/suspects.py run`:"
    write_block(TOP / "docs" / "data.md", "suspects", f"{heading}\n\n{markdown_table(columns, rows)}\n\n{note}")


def _share(parts: list[dict[str, int]], of: str) -> str:
    shares = [100 * part["found"] / part[of] for part in parts]
    whole = 100 * sum(part["found"] for part in parts) / sum(part[of] for part in parts)
    return f"{whole:.1f} ({min(shares):.1f}–{max(shares):.1f})"


def picture() -> None:
    """Pairs of photos with their cosines, and whether they are near duplicates, for docs/pictures."""
    features = load_features(RUNS / "D.safetensors")
    own = [i for i, image in enumerate(features.ids) if "copy" not in image]
    place = {features.ids[i]: number for number, i in enumerate(own)}
    rows = unit(next(iter(features.scales.values()))[own])
    groups, _ = near_duplicates(rows, SuspectSettings().near)
    photos = []
    for pair in PICTURED:
        name, *numbers = pair.split()
        images = [f"{name}/image_{number}.jpg" for number in numbers]
        one, other = (place[image] for image in images)
        text = f"cosine {rows[one] @ rows[other]:.3f}, {'' if groups[one] == groups[other] else 'not '}found"
        for image in images:
            with Image.open(Path(os.environ["CALTECH101"]) / image) as opened:
                photos.append((np.asarray(opened.convert("RGB")), f"{name} {Path(image).stem[-4:]}\n{text}"))
    with Image.open(BytesIO(png_of_figure(photo_grid(photos)))) as grid:
        grid.convert("RGB").save(TOP / "docs" / "pictures" / "near_duplicates.jpg", quality=85)


if __name__ == "__main__":
    {"run": run, "write": write, "picture": picture}[sys.argv[1]]()
