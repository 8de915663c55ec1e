"""App. B: rows of Tables 11 and 12: linear SVMs on descriptors of the released nets.

Rows share descriptors, stored in one file per net and dataset, so an interrupted reproduction resumes with the same
command. At doll size the nets are the runs that the released ones are at the paper's (`DOLL_RUNS`), trained first where
they are missing, and the data are made up (`verydeep.data.doll_sets`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ..checkpoints.pretrained import PixelsUnknown
from ..core.errors import VerydeepError
from ..core.files import write_json
from ..core.progress import Stopping
from ..core.settings import DataSettings, DescriptorSettings, FeatureSettings
from ..data.doll_sets import doll_set
from ..data.open import open_data
from ..transfer.backbone import open_feature_net
from ..transfer.cost import extraction_costs
from ..transfer.evaluate import learn_svms
from ..transfer.extract import PreparedExtraction, prepare_extraction
from ..transfer.splits import VOC
from ..transfer.svm_file import SERVER, SERVER_NAMES, write_transfer
from .estimate import BYTES
from .plan import DescriptorStatus, Job, Plan, make_plan
from .results import FIGURE_VAL, RESULTS, SERVER_FILES, read_results, trainings
from .rows.row import Row, Test
from .rows.transfer import BOX, DOLL_RUNS, IMAGE, LAYER, RECIPES, data_of, doll_rows
from .scale import PAPER_CROP

SPLITS, TRANSFER, DATA = 3, "transfer", "transfer-data"


def transfer_plan(job: Job) -> Plan:
    """The descriptors of the rows of the given data; no net is trained.

    Raises:
        VerydeepError: weight files or data are missing.
    """
    rows = _rows(job)
    tests = dict.fromkeys(test for row in rows for test in row.tests)
    if not job.place.size.doll:
        _check_files(job, rows)
        _check_data(job, rows)
        return Plan((), (), tuple(status for test in tests for status in _status(job, test)))
    plan = make_plan((), job.place, job.settings, trained=doll_rows(tuple(rows)))
    statuses = [] if plan.to_train else [status for test in tests for status in _status(job, test)]
    return replace(plan, descriptors=tuple(statuses))


def transfer_results(job: Job) -> dict[str, Any]:
    """Extracts descriptors, trains and evaluates SVMs, and stores each row at once; returns these rows."""
    stored, rows = read_results(job.place.root / RESULTS), _rows(job)
    for number, row in enumerate(rows, start=1):
        job.reporter.say(f"row {number} of {len(rows)}: {row.name}")
        stored["rows"][row.name] = _result(job, row)
        write_json(job.place.root / RESULTS, stored)
    return {"rows": {row.name: stored["rows"][row.name] for row in rows}, "claims": {}}


def _rows(job: Job) -> list[Row]:
    """The rows of the given dataset; all rows without one, and at doll size."""
    if job.data is None or job.place.size.doll:
        return list(job.rows)
    name = job.data.partition(":")[0]
    rows = [row for row in job.rows if data_of(row) == name]
    if not rows:
        known = ", ".join(dict.fromkeys(data_of(row) for row in job.rows))
        raise VerydeepError(f"no row uses {job.data}: their datasets are {known}.")
    return rows


def _check_files(job: Job, rows: list[Row]) -> None:
    nets = dict.fromkeys(_net(test) for row in rows for test in row.tests)
    missing = [net for net in nets if net not in job.weights]
    if missing:
        raise VerydeepError(f"these rows need the weights of net {missing[0]}: add --weights {missing[0]}=FILE.")
    for net in nets:
        try:
            architecture = open_feature_net(job.weights[net], LAYER).source["net"]
        except PixelsUnknown as fault:
            raise fault.converted_first() from None
        if architecture != net:
            raise VerydeepError(f"{job.weights[net]} contains net {architecture}, but was passed as net {net}.")


def _check_data(job: Job, rows: list[Row]) -> None:
    for name in dict.fromkeys(test.protocol for row in rows for test in row.tests):
        sets = open_data(DataSettings(data=_located(job, name)), several=True).sets
        if "test" not in sets:
            raise VerydeepError(f"{_located(job, name)} has no test set: unpack its test images there too.")


def _located(job: Job, name: str) -> str:
    """A dataset with its folder; boxes of people are in the same folder as whole images."""
    if job.place.size.doll:
        return f"{name}:{doll_set(name, job.place.root / DATA)}"
    if job.data is None:
        return name
    return name + job.data.removeprefix(IMAGE if name == BOX else name)


def _result(job: Job, row: Row) -> dict[str, Any]:
    """A row's result, as in results.json."""
    files = [_extraction(job, test).run(skip=False).path for test in row.tests]
    data = data_of(row)
    descriptor = DescriptorSettings(aggregate=RECIPES[data].aggregate)
    reporter = Stopping(job.reporter, job.stop)
    transfer = learn_svms(data, files, descriptor, machine=job.machine, reporter=reporter)
    summary = write_transfer(transfer, job.place.root / TRANSFER / row.name)
    (trained,) = doll_rows((row,)) if job.place.size.doll else (row,)
    figure, nets, first = summary["figure"], summary["features"], transfer.splits[0]
    full_size = all(net["width"] == 1 and net["crop"] == PAPER_CROP for net in nets)
    return {
        "top1_val": None,
        "top5_val": None,
        "top5_test": None,
        "figure": summary[figure],
        "figure_std": summary[f"{figure}_std"],
        FIGURE_VAL: round(first.dev[first.C], 4) if data in VOC else None,
        SERVER_FILES: f"{TRANSFER}/{row.name}/{SERVER}" if data in SERVER_NAMES else None,
        "images": summary["images"][0]["test"],
        "subjects": summary["images"][0]["test"],
        "size": job.place.size.name if full_size or job.place.size.doll else "narrow nets",
        "data": summary["data"],
        "set": f"{len(transfer.splits)} splits" if transfer.splits[1:] else "test",
        **trainings(trained, job.place.root),
        "date": time.strftime("%Y-%m-%d"),
        "nets": {net["net"]: {"crop": net["crop"], "width": net["width"]} for net in nets},
        "checkpoints": {net["net"]: net["sha256"] for net in nets},
        "commit": str(summary["environment"]["commit"]),
    }


def _extraction(job: Job, test: Test) -> PreparedExtraction:
    """The extraction of a net's descriptors of a dataset into their file."""
    path = job.place.root / TRANSFER / f"{test.protocol}-{_net(test)}.safetensors"
    settings = FeatureSettings(layer=LAYER, scales=tuple(map(job.place.size.pixels, RECIPES[test.protocol].scales)))
    splits = SPLITS if test.protocol.startswith("caltech") else None
    file, data, reporter = _file(job, _net(test)), _located(job, test.protocol), Stopping(job.reporter, job.stop)
    return prepare_extraction(
        file, data, path, splits=splits, settings=settings, machine=job.machine, reporter=reporter
    )


def _file(job: Job, net: str) -> str:
    """The weight file of a net, at doll size its run."""
    return str(job.place.root / DOLL_RUNS[f"{net}/released"]) if job.place.size.doll else job.weights[net]


def _status(job: Job, test: Test) -> list[DescriptorStatus]:
    """What an extraction lacks, with estimates."""
    prepared = _extraction(job, test)
    bytes_of_one = BYTES * prepared.extractor.net.dimensions
    return [
        DescriptorStatus(
            test.run, test.protocol, LAYER, cost.scale, cost.images, cost.seconds, cost.images * bytes_of_one
        )
        for cost in extraction_costs(prepared, job.reporter)
    ]


def _net(test: Test) -> str:
    return test.run.partition("/")[0]
