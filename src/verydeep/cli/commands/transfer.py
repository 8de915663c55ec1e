"""The verbs of App. B: features, svm, probe, similar."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core.config import typed
from ...core.errors import VerydeepError
from ...core.interrupt import Interrupted, Stopping
from ...core.settings import (
    DataSettings,
    DescriptorSettings,
    FeatureSettings,
    MachineSettings,
    SvmSettings,
    TrainSettings,
)
from ...core.team import SingleProcess, Team
from .. import output
from ..arguments import given_settings
from ..output import Terminal, show, show_table
from .common import OK, Stopper, answer_json, reporter_of, status_of, team_of, told_at_the_end

LIST = "similar.json"


def _given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The settings of a kind that were given, typed."""
    given = given_settings(options)
    return typed(kind, {name: value for name, value in given.items() if name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def _stoppable(options: argparse.Namespace, work: Callable[[Stopping], int], team: Team | None = None) -> int:
    """Work that keeps what it has where somebody asks to stop; 130 or 143 then."""
    reporter = reporter_of(team or SingleProcess(), options.quiet)
    with Stopper(reporter) as stopper:
        try:
            return work(Stopping(reporter, stopper))
        except Interrupted:
            output.fail("interrupted; the descriptors made so far are kept, and the same command goes on.")
            return 128 + stopper.signal


def features(options: argparse.Namespace) -> int:
    """Descriptors of photos into a file."""
    from ...transfer.extract import extract_features

    def work(reporter: Stopping, team: Team) -> int:
        made = extract_features(
            options.run,
            options.data,
            options.out,
            set_name=options.set,
            splits=options.splits,
            **_given(options, DataSettings),
            settings=FeatureSettings(**_given(options, FeatureSettings)),
            preprocessing=_given(options, TrainSettings).get("preprocessing", "recorded"),
            bad_images=options.bad_images,
            machine=MachineSettings(**_given(options, MachineSettings)),
            reporter=reporter,
            team=team,
        )
        told = made.to_json()
        if not team.is_main:
            return OK
        if options.json:
            answer_json(told)
        else:
            scales = ", ".join(map(str, told["scales"]))
            show(
                f"{told['file']}: {told['layer']} of {told['images']} photos, {told['dimensions']} dimensions, "
                f"Q = {scales}; {told['computed']} descriptors computed in {told['seconds']:.0f} s"
            )
        return OK

    with team_of(options) as team:
        return _stoppable(options, lambda reporter: work(reporter, team), team)


def svm(options: argparse.Namespace) -> int:
    """Linear SVMs learnt and tested by a protocol."""
    from ...reports.svm_report import write_svm_report
    from ...transfer.evaluate import learn_svms, usual_aggregate
    from ...transfer.svm_file import check_svm_place, write_transfer

    folder = Path(options.out or f"runs/svm/{re.sub(r'[^a-z0-9-]', '', options.protocol.lower())}")
    check_svm_place(folder)
    machine = MachineSettings(**_given(options, MachineSettings))
    usual = {"aggregate": usual_aggregate(options.protocol)}
    descriptor = DescriptorSettings(**{**usual, **_given(options, DescriptorSettings)})
    settings = SvmSettings(**_given(options, SvmSettings))
    reporter = Terminal(options.quiet)
    scales = typed(FeatureSettings, {"scales": options.scales or ()})["scales"]
    found = learn_svms(options.protocol, options.features, descriptor, settings, scales, machine, reporter)
    told = write_transfer(found, folder)
    _, page = write_svm_report(folder)
    if options.json:
        answer_json(told)
    else:
        _show(told)
        show(f"figures, splits, answers and classifier: {folder}; to look at: {page.name}")
    return OK


def _show(told: dict[str, Any]) -> None:
    name = told["figure"]
    nets = " and ".join(f"{row['net']} {row['layer']}@{','.join(map(str, row['scales']))}" for row in told["features"])
    title = f"{told['protocol']}, {told['data']}: {nets}, {told['aggregate']}, {told['dimensions']} dimensions"
    rows = [
        (row["split"], images["fit"] + images["dev"], images["test"], f"{row['C']:g}", *_percent(row, name))
        for row, images in zip(told["splits"], told["images"], strict=True)
    ]
    shown = name.replace("_", " ")
    show_table(title, ["split", "photos to learn", "to test", "C", shown, "top1 error"], rows)
    if told[f"{name}_std"] is not None:
        show(f"{shown} {told[name]:.2f} ± {told[f'{name}_std']:.2f} %, over {len(rows)} splits")
    elif told[name] is None:
        show(f"the classes of the reported photos are not known, so there is no {shown}")


def _percent(row: dict[str, Any], name: str) -> tuple[str, str]:
    found = [row[key] for key in (name, "top1_error")]
    first, second = ("" if value is None else f"{value:.2f} %" for value in found)
    return first, second


def probe(options: argparse.Namespace) -> int:
    """Own photos: descriptors, an SVM, its error and worst mistakes."""
    from ...api import probe
    from ...transfer.backbone import usual_layer
    from ...transfer.svm_file import check_svm_place

    def work(reporter: Stopping) -> int:
        check_svm_place(Path(options.out))
        given = _given(options, FeatureSettings)
        pixels = _given(options, TrainSettings).get("preprocessing", "recorded")
        told = probe(
            options.data,
            options.weights,
            options.out,
            **_given(options, DataSettings),
            features=FeatureSettings(**{"layer": given.get("layer") or usual_layer(options.weights, pixels), **given}),
            descriptor=DescriptorSettings(**_given(options, DescriptorSettings)),
            svm=SvmSettings(**_given(options, SvmSettings)),
            preprocessing=pixels,
            bad_images=options.bad_images,
            machine=MachineSettings(**_given(options, MachineSettings)),
            reporter=reporter,
        )
        if options.json:
            answer_json(told)
        else:
            _show(told)
            show(f"report, with the worst mistakes: {told['page']}")
            show(f"ask it: verydeep predict {shlex.quote(str(told['folder']))} PHOTO")
        return OK

    return _stoppable(options, work)


def similar(options: argparse.Namespace) -> int:
    """The nearest photos, as a picture each and as JSON; status 1 where some could not be read, 2 where none could."""
    from ...core.files import check_place, write_json
    from ...evaluation.predict import find_all
    from ...transfer.retrieval import find_similar

    reporter = Terminal(options.quiet)
    photos, problems = find_all(options.images, reporter)
    folder = Path(options.out)
    check_place(folder)
    faults: dict[int, str] = {}
    descriptor = DescriptorSettings(**_given(options, DescriptorSettings))
    machine = MachineSettings(**{"workers": 0, **_given(options, MachineSettings)})
    found = find_similar(photos, options.features, options.top, descriptor, faults, machine, reporter) if photos else []
    unwritten: list[str] = []
    pictures = _write_pictures(found, options.features, folder, reporter, unwritten)
    if found:
        rows = [{**one.to_json(), "picture": path and path.name} for one, path in zip(found, pictures, strict=True)]
        with told_at_the_end(unwritten):
            write_json(folder / LIST, {"photos": rows})
    if options.json:
        answer_json([one.to_json() for one in found])
    else:
        for number, one in enumerate(found):
            show(f"{one.image}  ({pictures[number]})" if pictures[number] else one.image)
            for near in one.neighbours:
                show(f"  {near.cosine:.3f}  {near.name}  {near.id}")
    return status_of([*problems, *faults.values(), *unwritten], answered=bool(found))


def _write_pictures(
    found: list[Any], features: str, folder: Path, reporter: Terminal, faults: list[str]
) -> list[Path | None]:
    """A picture of each photo with its neighbours; None where those photos are gone, which is told.

    ``faults`` takes the sentences of pictures that cannot be made.
    """
    from ...core.files import FreeNames
    from ...reports.svm_report import write_similar_picture
    from ...transfer.features_file import load_features
    from ...transfer.retrieval import photos_of

    made: list[Path | None] = [None] * len(found)
    if not found:
        return made
    try:
        there = photos_of(load_features(features).recipe)
    except VerydeepError as fault:
        reporter.warn(f"no pictures, as the photos that were described are gone: {fault}")
        return made
    earlier = _earlier(folder)
    inside = folder.iterdir() if folder.is_dir() else ()
    names = FreeNames(folder, [path for path in inside if path.name not in earlier])
    for number, one in enumerate(found):
        try:
            (path,) = names.after(one.image, ".png")
            made[number] = write_similar_picture(one, there, path)
        except VerydeepError as fault:
            faults.append(f"{one.image} has no picture: {fault}")
    return made


def _earlier(folder: Path) -> set[str]:
    """The pictures that an earlier answer left in a folder.

    Raises:
        VerydeepError: the folder's list is not one that this verb wrote.
    """
    from ...core.files import read_json

    path = folder / LIST
    if not path.exists():
        return set()
    rows = read_json(path).get("photos")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "neighbours" in row for row in rows):
        raise VerydeepError(f"{path} is not of `verydeep similar`, which would overwrite it: give another --out.")
    return {str(row.get("picture")) for row in rows}
