"""Real photos: localisation on three classes of Caltech-101, in the layout of the paper's Tables 8 and 9.

    CALTECH101=folder CALTECH101_BOXES=folder NET_D_CONV=file python examples/localisation.py run
    python examples/localisation.py write     # the stored results into README.md and docs/localisation.md

Runs the commands below as a user would and stores what they answer; what is done already is not done again. On a
CPU the crop is 96 and 200 photos a class are learned from; with a CUDA device the crop is 224 and all photos are
used. S and Q are multiples of 32, as all of the paper's are: then windows end where the photo does.
``PRECISION=bf16`` halves the time on a processor that multiplies bf16 itself.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

TOP = Path(__file__).resolve().parents[1]
RESULTS = TOP / "docs" / "results" / "localisation.json"
PICTURES = TOP / "docs" / "pictures"
PLACE = "runs/localisation"
PRECISION = os.environ.get("PRECISION", "float32")
CLASSES = {"airplanes": "airplane", "Faces": "face", "Motorbikes": "motorcycle"}
ON_GPU = torch.cuda.is_available()
# S and Q of the paper, and those of a crop of 96.
SMALL, LARGE, NEAR = ("256", "384", "352") if ON_GPU else ("128", "160", "128")
CROP, PHOTOS, EPOCHS = ("224", 0, "30") if ON_GPU else ("96", 400, "10")
DATA = f"--data $CALTECH101 --boxes {','.join(f'{name}={PLACE}/boxes/{name}.csv' for name in CLASSES)}"
SPLIT = "--dev-fraction 0.1 --test-fraction 0.4"
START = f"{PLACE}/classes"
TRAIN = {
    START: f"train D {DATA} {SPLIT} --crop {CROP} --S {SMALL} --start $NET_D_CONV --learn fc --max-epochs 4",
    **{
        f"{PLACE}/{regression}-{learn}-{scale}": f"localise train D {DATA} {SPLIT} --crop {CROP} --S {scale} "
        f"--start {START} --regression {regression} --learn {learn} --max-epochs {EPOCHS}"
        for regression, learn, scale in (
            ("SCR", "fc", LARGE),
            ("PCR", "fc", LARGE),
            ("PCR", "all", LARGE),
            ("PCR", "all", SMALL),
        )
    },
}
TABLE_8 = [(f"{PLACE}/{name}-{LARGE}", f"centre@{LARGE}") for name in ("SCR-fc", "PCR-fc", "PCR-all")]
TABLE_9 = {
    f"{SMALL} | {SMALL}, centre crop": [(f"{PLACE}/PCR-all-{SMALL}", f"centre@{SMALL}")],
    f"{LARGE} | {LARGE}, centre crop": [(f"{PLACE}/PCR-all-{LARGE}", f"centre@{LARGE}")],
    f"{SMALL} | {SMALL}": [(f"{PLACE}/PCR-all-{SMALL}", f"dense@{SMALL}")],
    f"{LARGE} | {LARGE}": [(f"{PLACE}/PCR-all-{LARGE}", f"dense@{LARGE}")],
    f"{LARGE} | {NEAR},{LARGE}": [(f"{PLACE}/PCR-all-{LARGE}", f"dense@{NEAR},{LARGE}")],
    "fusion | of the second last and the last": [
        (f"{PLACE}/PCR-all-{SMALL}", f"dense@{SMALL}"),
        (f"{PLACE}/PCR-all-{LARGE}", f"dense@{NEAR},{LARGE}"),
    ],
}
