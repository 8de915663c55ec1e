"""App. A: training a box net from a classification run (Sect. A.1).

Net D with its last layer replaced by one that tells boxes: 4 outputs (SCR) or 4 a class (PCR), drawn anew; the
others start from the classification run of the same S. The loss is Euclidean, on centre and size in shares of the
crop; the rate begins at 1e-3. How it is tested is in `verydeep.localisation.testing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..core.config import from_json, typed
from ..core.progress import Reporter, Silent
from ..core.settings import BoxSettings, MachineSettings, TrainSettings, named_data
from ..core.team import Alone, Team
from ..training.recipes import settings_of_box_run
from ..training.resume import card_of_run
from ..training.run import Job, route
from ..training.task import TellBoxes


def train_boxes(
    run: str,
    out: str | Path | None = None,
    resume: bool = False,
    strict: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    team: Team | None = None,
    **given: Any,
) -> dict[str, Any]:
    """Trains a box net and leaves a run's folder.

    Args:
        run: a net (``D``: the recipe for own photos) or a run of the paper (``D/384-PCR``, ``D/384-SCR-fc``).
        out: the run's folder; by default ``runs/<run>``, and for a net's name alone ``runs/<net>-<regression>``.
        resume: go on from the folder's last checkpoint, with the settings it was begun with.
        team: the processes that train it together, as for `verydeep.train`.
        strict: refuse boxes with any fault; else what is safe is mended, and counted.
        given: any field of DataSettings, TrainSettings, BoxSettings and MachineSettings, as a value or as text.

    Returns:
        What result.json holds: how training ended, epochs, steps, best GT-class error of the dev part, folder.

    Raises:
        VerydeepError: a mistake in the settings, the data or their boxes, a loss that is not finite, a full disk.
    """
    names = {item.name for item in fields(BoxSettings)}
    box_given = {name: value for name, value in given.items() if name in names}
    wishes, data_given, train_given = route({key: value for key, value in given.items() if key not in names})
    settings, boxes = settings_of_box_run(run, {**train_given, **box_given})
    folder = Path(out) if out else Path("runs") / (run if "/" in run else f"{run}-{boxes.regression}")
    wish, told = MachineSettings(**typed(MachineSettings, wishes)), reporter or Silent()
    job = Job(TellBoxes(boxes, strict), run, folder, wish, told, team or Alone(), stop)
    if resume or job.broke_off:
        card = None if box_given else card_of_run(folder)
        if card is not None and card.box_settings:  # as it was begun
            boxes = from_json(BoxSettings, card.box_settings)
        job = replace(job, task=TellBoxes(boxes, strict))
        return job.resume(data_given, typed(TrainSettings, train_given))
    return job.begin(named_data(data_given), settings)
