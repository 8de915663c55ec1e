"""App. B: rows of Tables 11 and 12: photos described by the released nets, SVMs learnt and tested, rows stored.

Descriptors are shared by rows and kept, one file a net and data set, so an interrupted reproduction goes on with the
same command.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.pretrained import PixelsUnknown
from ..core.errors import VerydeepError
from ..core.files import check_place, only_one, write_json
from ..core.progress import Reporter
from ..core.settings import DataSettings, DescriptorSettings, FeatureSettings, MachineSettings
from ..data.open import open_data
from ..transfer.backbone import open_feature_net
from ..transfer.describing import extract_features
from ..transfer.evaluate import learn_svms
from ..transfer.svm_file import write_transfer
from .rows.row import Row, Test
from .rows.transfer import BOX, IMAGE, LAYER, RECIPES, data_of
from .scale import PAPER_CROP
from .stored import RESULTS, read_results

SPLITS = 3


@dataclass(frozen=True)
class TransferJob:
    """Rows to reproduce: where, of which data, by which weight files."""

    rows: tuple[Row, ...]
    root: Path
    data: str | None
    weights: dict[str, str]
    wish: MachineSettings
    reporter: Reporter

    def done(self) -> dict[str, Any]:
        """All rows: ``ended`` and ``rows`` as in results.json.

        Raises:
            VerydeepError: weight files or data that are not given, or not there.
        """
        rows, found = self._rows(), {}
        self._check_files(rows)
        self._check_data(rows)  # before the work, not after it
        check_place(self.root)
        with only_one(self.root):
            stored = read_results(self.root / RESULTS)
            for number, row in enumerate(rows, start=1):
                self.reporter.say(f"row {number} of {len(rows)}: {row.name}")
                found[row.name] = self._row(row)
                stored["rows"][row.name] = found[row.name]
                write_json(self.root / RESULTS, stored)
        plan: dict[str, Any] = {"train": [], "test": [row.name for row in rows], "done": []}
        return {"plan": plan, "ended": "done", "rows": found, "claims": {}}

    def _rows(self) -> list[Row]:
        """The rows whose data are at hand; all, where no data are named."""
        if self.data is None:
            return list(self.rows)
        name = self.data.partition(":")[0]
        rows = [row for row in self.rows if data_of(row) == name]
        if not rows:
            known = ", ".join(dict.fromkeys(data_of(row) for row in self.rows))
            raise VerydeepError(f"none of these rows is of {self.data}: their data are {known}.")
        return rows

    def _check_files(self, rows: list[Row]) -> None:
        nets = dict.fromkeys(_net(test) for row in rows for test in row.tests)
        missing = [net for net in nets if net not in self.weights]
        if missing:
            raise VerydeepError(f"these rows need the weights of net {missing[0]}: say --weights {missing[0]}=FILE.")
        for net in nets:
            try:
                found = open_feature_net(self.weights[net], LAYER).told["net"]
            except PixelsUnknown as fault:
                raise fault.converted_first() from None
            if found != net:
                raise VerydeepError(f"{self.weights[net]}, given as net {net}, holds net {found}.")

    def _check_data(self, rows: list[Row]) -> None:
        for data in dict.fromkeys(test.protocol for row in rows for test in row.tests):
            sets = open_data(DataSettings(data=self._place(data)), several=True).sets
            if "test" not in sets:
                raise VerydeepError(f"{self._place(data)} has no test set: unpack its test photos there too.")

    def _place(self, data: str) -> str:
        """A data set with its folder; people's boxes are in the same folder as the whole photos."""
        if self.data is None:
            return data
        return data + self.data.removeprefix(IMAGE if data == BOX else data)

    def _row(self, row: Row) -> dict[str, Any]:
        files = [self._described(test) for test in row.tests]
        data = data_of(row)
        descriptor = DescriptorSettings(aggregate=RECIPES[data].aggregate)
        found = learn_svms(data, files, descriptor, machine=self.wish, reporter=self.reporter)
        told = write_transfer(found, self.root / "transfer" / row.name)
        name = told["figure"]
        where = told["environment"]
        return {
            **{"top1_val": None, "top5_val": None, "top5_test": None},
            **{"figure": told[name], "figure_std": told[f"{name}_std"]},
            **{"images": told["images"][0]["test"], "subjects": told["images"][0]["test"]},
            **{
                "size": _size(told["features"]),
                "data": told["data"],
                "set": f"{len(found.splits)} splits" if found.splits[1:] else "test",
            },
            **{"seed": None, "steps": [], "cut_short": False, "date": time.strftime("%Y-%m-%d")},
            "nets": {net["net"]: {"crop": net["crop"], "width": net["width"]} for net in told["features"]},
            "checkpoints": {net["net"]: net["sha256"] for net in told["features"]},
            "commit": str(where["commit"]),
        }

    def _described(self, test: Test) -> Path:
        """The features file of a net and a data set, made where it is missing."""
        path = self.root / "transfer" / f"{test.protocol}-{_net(test)}.safetensors"
        settings = FeatureSettings(layer=LAYER, scales=RECIPES[test.protocol].scales)
        drawn = SPLITS if test.protocol.startswith("caltech") else None
        file, place = self.weights[_net(test)], self._place(test.protocol)
        extract_features(file, place, path, splits=drawn, settings=settings, machine=self.wish, reporter=self.reporter)
        return path


def _size(nets: list[dict[str, Any]]) -> str:
    return "paper" if all(net["width"] == 1 and net["crop"] == PAPER_CROP for net in nets) else "narrow nets"


def _net(test: Test) -> str:
    return test.run.partition("/")[0]
