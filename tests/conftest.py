"""What tests share: one torch thread, a small folder of photos, and the real command."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fork_server import IMPORTED
from hypothesis import settings
from PIL import Image
from safetensors.numpy import save

from verydeep.checkpoints.integrity import write_sealed

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs, and by the commands they start
settings.register_profile("any_machine", settings.default, deadline=None)  # a busy one is slow at times
settings.register_profile("many", settings.default, deadline=None, max_examples=1000)
settings.load_profile("any_machine")
if not os.access(Path.home(), os.W_OK):  # matplotlib makes a folder then, and each fork of a process would remove it
    os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp(prefix="matplotlib-"))
TOP = Path(__file__).resolve().parents[1]
FILES = TOP / "tests" / "files"
SHARED = TOP.parent / "shared"
# The smallest net there is: 32-pixel crops and a thirty-second of the width.
TINY: dict[str, Any] = {"crop": 32, "width": 1 / 32, "S": "36", "batch": 8, "workers": 0, "threads": 1}


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    status: int
    stdout: str
    stderr: str

    def mistake(self) -> str:
        """The one sentence of a mistake: status 2, no traceback, nothing on stdout."""
        assert self.status == 2, (self.status, self.stdout, self.stderr)
        assert self.stdout == ""
        assert "Traceback" not in self.stderr
        told = [line for line in self.stderr.splitlines() if line.startswith("verydeep: ")]
        assert len(told) == 1, self.stderr
        return told[0].removeprefix("verydeep: ")


Command = Callable[..., Answer]


PYTHON = [sys.executable, "-W", "error::UserWarning:verydeep"]
SECONDS = 300.0


def run_command(
    *words: object,
    cwd: Path | None = None,
    file_limit: int | None = None,
    memory_limit: int | None = None,
    stdin: Path | None = None,
    **env: str,
) -> Answer:
    """Runs `verydeep` in a process of its own.

    Args:
        file_limit: bytes of any file that it writes.
        memory_limit: bytes that it may allocate (Linux).
        stdin: the file that it reads as standard input.
    """
    typed, variables = list(map(str, words)), {**os.environ, "OMP_NUM_THREADS": "1", **env}
    if any(name.startswith("PYTHON") for name in env.keys() - {"PYTHONIOENCODING"}):  # which Python reads as it starts
        new = [*PYTHON, "-m", "verydeep", *typed]
        ended = subprocess.run(new, cwd=cwd, capture_output=True, timeout=SECONDS, check=False, env=variables)
        return Answer(ended.returncode, *(_text(printed) for printed in (ended.stdout, ended.stderr)))
    with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
        status = _commands().run(
            {
                **{"words": typed, "cwd": str(cwd or Path.cwd()), "env": variables},
                **{"file_limit": file_limit, "memory_limit": memory_limit},
                **{"stdin": str(stdin or os.devnull), "stdout": stdout.name, "stderr": stderr.name},
            }
        )
        return Answer(status, *(_text(Path(file.name).read_bytes()) for file in (stdout, stderr)))


def _text(printed: bytes) -> str:
    """What a command printed; bytes that are not UTF-8 stay as surrogates."""
    return printed.decode("utf8", "surrogateescape")


class Commands:
    """The process that commands are forks of (command_server.py)."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [*PYTHON, str(Path(__file__).with_name("command_server.py")), *IMPORTED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, asked: dict[str, Any]) -> int:
        """Runs a command; returns its exit status, negative for a signal."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        process = int(self._server.stdout.readline())
        late = threading.Timer(SECONDS, lambda: os.kill(process, signal.SIGKILL))
        late.start()
        try:
            return int(self._server.stdout.readline())
        finally:
            late.cancel()
            late.join()

    def end(self) -> None:
        """Tells it to end. Its input would not end by being closed here: forks of this process hold it too."""
        with self._server:
            assert self._server.stdin is not None
            self._server.stdin.write("\n")


@cache
def _commands() -> Commands:
    begun = Commands()
    atexit.register(begun.end)
    return begun


# Of two processes each takes a file at a time: those that take minutes come first, so that none is left at the end.
LONGEST = (
    *("test_fault_injection.py", "test_distributed.py", "test_localise_commands.py", "test_reproduce.py"),
    *("test_benchmark.py", "test_commands.py", "test_run_report.py", "test_workers.py", "test_server.py"),
    "test_transfer.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def command() -> Command:
    return run_command


def paint(path: Path, seed: int, colour: tuple[int, int, int], size: tuple[int, int] = (48, 40)) -> None:
    """A photo of noise around a colour."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-40, 41, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def save_sealed(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file as ours are written, of numpy's arrays or PyTorch's tensors."""
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    write_sealed(path, save(arrays, {name: told for name, told in metadata.items() if not name.endswith("_sha256")}))


COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 50)}


def make_photos(folder: Path, per_class: int = 10, sizes: tuple[tuple[int, int], ...] = ((48, 40), (40, 52))) -> Path:
    """A folder per colour with photos of two sizes."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        for index in range(per_class):
            paint(folder / name / f"{index:03d}.png", 100 * number + index, colour, sizes[index % len(sizes)])
    return folder


def own_photos(place: Path, faulty: bool = False) -> Path:
    """Discs on grey, red or blue, with a CSV of their boxes."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        picture = np.full((48, 64, 3), 120, dtype=np.uint8)
        x, y = int(rng.integers(4, 30)), int(rng.integers(4, 18))
        picture[y : y + 24, x : x + 28] = (220, 30, 30) if number % 2 else (30, 30, 220)
        (place / "photos").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / "photos" / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{x + 1},{y + 1},{x + 28},{y + 24},{'red' if number % 2 else 'blue'}")
    if faulty:
        lines[2] = "02.png,40,30,10,5,blue"
        lines.append("nowhere.png,1,1,9,9,red")
    (place / "boxes.csv").write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture(params=["OpenVINO", "ONNX Runtime"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What runs exported files in this process: both runtimes are installed, and OpenVINO is preferred."""
    if request.param == "ONNX Runtime":
        monkeypatch.setattr("verydeep.checkpoints.onnx_runtimes.find_spec", lambda _: None)
    return str(request.param)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny net A on coloured photos, two epochs; not to be changed."""
    import verydeep

    place = tmp_path_factory.mktemp("trained")
    make_photos(place / "photos")
    verydeep.train("A", out=place / "run", data=str(place / "photos"), max_epochs=2, **TINY)
    return place / "run"


@pytest.fixture(scope="session")
def net_e(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of net E: of the run that NET_E names, or converted, with its check; not to be changed."""
    if "NET_E" in os.environ:
        return Path(os.environ["NET_E"]) / "best.safetensors"
    packed = SHARED / "weights" / "net_e_ilsvrc.packed.safetensors"
    if not packed.exists():
        pytest.skip("net E is not on this machine: NET_E names no run of it")
    place = tmp_path_factory.mktemp("net_e")
    file = place / "E.safetensors"
    subprocess.run([sys.executable, packed.with_name("unpack_net_e.py"), file], check=True)
    converted = run_command("convert", file, place / "E", "--preprocessing", "caffe", "--class-names", "ilsvrc")
    assert converted.status == 0
    assert "warning" not in converted.stderr
    photos = "espresso as espresso (100 %), pizza as pizza (100 %), cab as cab (100 %)"
    assert f"checked on photos: {photos}\n" in converted.stdout
    return place / "E" / "best.safetensors"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What servers serve in tests: see `servers.make_served`; not to be changed."""
    from servers import make_served

    return make_served(tmp_path_factory.mktemp("served"))


def make_imagenet(root: Path, flat_val: bool = True) -> None:
    """A replica of the downloaded layout: 3 synsets, 12 photos each, a devkit with its own class order."""
    from scipy.io import savemat

    wnids = ["n01440764", "n01443537", "n02084071"]
    for number, wnid in enumerate(wnids):
        for photo in range(12):
            paint(root / "train" / wnid / f"{wnid}_{photo}.png", number * 50 + photo, (60 * number, 90, 120))
    truth = [2, 1, 3, 1]  # ILSVRC2012_IDs, whose order is not that of the WNIDs
    by_id = {1: "n02084071", 2: "n01440764", 3: "n01443537"}
    for photo, number in enumerate(truth, start=1):
        inside = root / "val" if flat_val else root / "val" / by_id[number]
        paint(inside / f"ILSVRC2012_val_{photo:08d}.png", 900 + photo, (1, 2, 3))
    devkit = root / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    kind = np.dtype([("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    words = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish", "n02084071": "dog"}
    synsets = np.array([(number, wnid, words[wnid]) for number, wnid in by_id.items()], dtype=kind)
    savemat(devkit / "meta.mat", {"synsets": synsets[:, None]})
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in truth))
    (root / "synset_words.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in words.items()))


def make_voc(root: Path, year: str) -> None:
    """A replica of VOC's folders: 22 photos (8 train, 8 val, 6 test), of 2012 with actions and without test labels.

    Photos 1, 5, 9, … show a dog, 3, 7, … a cat, the others both; the dog of photo 2 is difficult.
    """
    from verydeep.data.datasets.voc import ACTIONS, CLASSES

    sets = {"train": range(1, 9), "val": range(9, 17), "test": range(17, 23)}
    told = [name for name in sets if not (year == "2012" and name == "test")]
    for number in range(1, 23):
        colour = (200, 60, 60) if number % 4 == 1 else (60, 60, 200) if number % 4 == 3 else (120, 60, 120)
        paint(root / "JPEGImages" / f"{number:06d}.jpg", number, colour)
        objects = "".join(
            f"<object><name>person</name><bndbox><xmin>{x}</xmin><ymin>10</ymin><xmax>{x + 20}</xmax><ymax>30</ymax>"
            "</bndbox></object>"
            for x in (1, 5)
        )
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{number:06d}.xml").write_text(f"<annotation>{objects}</annotation>")
    main, action = root / "ImageSets" / "Main", root / "ImageSets" / "Action"
    main.mkdir(parents=True)
    for set_name, photos in sets.items():
        (main / f"{set_name}.txt").write_text("".join(f"{number:06d}\n" for number in photos))
        for name in CLASSES if set_name in told else ():
            lines = [f"{number:06d} {_voc_mark(name, number):2d}\n" for number in photos]
            (main / f"{name}_{set_name}.txt").write_text("".join(lines))
    if year == "2012":
        action.mkdir()
        people = {name: [(number, one) for number in photos for one in (1, 2)] for name, photos in sets.items()}
        for set_name, found in people.items():
            (action / f"{set_name}.txt").write_text("".join(f"{number:06d} {one}\n" for number, one in found))
            for place, name in enumerate(ACTIONS if set_name in told else ()):
                lines = [
                    f"{number:06d} {one} {1 if (number + one) % 11 == place or number % 4 == place else -1}\n"
                    for number, one in found
                ]
                (action / f"{name}_{set_name}.txt").write_text("".join(lines))


def _voc_mark(name: str, number: int) -> int:
    if name == "dog":
        return 0 if number == 2 else 1 if number % 4 != 3 else -1
    if name == "cat":
        return 1 if number % 4 != 1 else -1
    # The others are strewn so that each set has each class.
    return 1 if number % 3 == 0 or number % 5 == len(name) % 5 else -1


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of files on this machine, in a thread; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
