"""Find, for each query image, the images of a features file that are most similar by cosine similarity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import VerydeepError
from ...core.settings import DescriptorSettings, MachineSettings
from ...core.terminal import Terminal
from ..execution import status_of, write_rows
from ..output import show, show_json
from ..parser import ALONE, CommandParser, Options, add_settings, add_shared, settings_from, show_defaults

LIST = "similar.json"


def add_arguments(parser: CommandParser) -> None:
    """Adds the arguments of the command."""
    add_shared(parser, "images")
    parser.group("Data").add_argument(
        "--features", metavar="FILE", required=True, help="features file of the images to search, written by `features`"
    )
    output = parser.group("Output")
    output.add_argument(
        "--top", type=int, default=10, metavar="N", help="number of similar images per query image (default: 10)"
    )
    output.add_argument(
        "--out", metavar="DIR", default="similar", help=f"folder for pictures and {LIST} (default: similar)"
    )
    add_settings(parser, DescriptorSettings)
    add_settings(parser, MachineSettings, leave_out=ALONE)
    show_defaults(parser, ("", (MachineSettings(workers=0),)))
    parser.epilog = "Example: `verydeep similar photo.jpg --features features.safetensors --top 5`"


def run(options: Options) -> int:
    """Finds similar images, a picture each; status 1 where images could not be read, 2 where none could."""
    from ...core.files import check_place
    from ...data.class_names import display_name
    from ...evaluation.predict import find_all
    from ...transfer.retrieval import find_similar

    reporter = Terminal(options.quiet)
    images, problems = find_all(options.images, reporter)
    folder = Path(options.out)
    check_place(folder)
    faults: dict[int, str] = {}
    descriptor = settings_from(options, DescriptorSettings)
    machine = settings_from(options, MachineSettings, workers=0)
    results = (
        find_similar(images, options.features, options.top, descriptor, faults, machine, reporter) if images else []
    )
    unwritten: list[str] = []
    pictures = _write_pictures(results, options.features, folder, reporter, unwritten)
    with_pictures = zip(results, pictures, strict=True)
    rows = [{**result.to_json(), "picture": path and path.name} for result, path in with_pictures]
    write_rows(folder / LIST, rows, unwritten)
    if options.json:
        show_json([result.to_json() for result in results])
    else:
        for result, path in zip(results, pictures, strict=True):
            show(f"{result.image}  ({path})" if path else result.image)
            for near in result.neighbours:
                show(f"  {near.cosine:.3f}  {display_name(near.name)}  {near.id}")
    return status_of([*problems, *faults.values(), *unwritten], some_done=bool(results))


def _write_pictures(
    results: list[Any], features: str, folder: Path, reporter: Terminal, faults: list[str]
) -> list[Path | None]:
    """A picture of each image with its neighbours; None, and a warning, where the neighbours' files are gone.

    ``faults`` takes the sentences of pictures that cannot be made.
    """
    from ...core.files import FreeNames
    from ...reports.figures import write_pictures
    from ...reports.svm_report import write_similar_picture
    from ...transfer.features_file import load_features
    from ...transfer.retrieval import photos_of

    if not results:
        return []
    try:
        searched = photos_of(load_features(features).recipe)
    except VerydeepError as fault:
        reporter.warn(f"no pictures, as the images of the features file are gone: {fault}")
        return [None] * len(results)
    earlier = _earlier(folder)
    inside = folder.iterdir() if folder.is_dir() else ()
    names = FreeNames(folder, [path for path in inside if path.name not in earlier])
    images = [result.image for result in results]
    return write_pictures(
        images, names, ".png", lambda number, path: write_similar_picture(results[number], searched, path), faults
    )


def _earlier(folder: Path) -> set[str]:
    """The pictures that an earlier search left in a folder.

    Raises:
        VerydeepError: the folder's list is not one that this command wrote.
    """
    from ...core.files import read_json

    path = folder / LIST
    if not path.exists():
        return set()
    rows = read_json(path).get("photos")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "neighbours" in row for row in rows):
        raise VerydeepError(f"{path} was not written by `verydeep similar` and is not overwritten: use another --out.")
    return {str(row.get("picture")) for row in rows}
