"""A script without its main guard, where processes that read photos are spawned: said once, and what to write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import make_photos

BEGIN = "import multiprocessing, sys, verydeep\n"
SPAWN = 'multiprocessing.set_start_method("spawn", force=True)\n'
SIZE = 'crop=32, width=1 / 32, S="36", batch=8, max_epochs=1, threads=1'
TRAIN = f'verydeep.train("A", data=sys.argv[1], out=sys.argv[2], {SIZE}, workers={{workers}})\n'
LARGE = """
from verydeep.core.device import LoaderSettings
from verydeep.data.workers import WatchedLoader
list(WatchedLoader([bytes(2**20)] * 8, range(8), str, LoaderSettings(2)))
"""
GUARD = 'if __name__ == "__main__":\n    '

# What a script does, whether it ends well, and what stands in its last line on stderr otherwise.
SCRIPTS = {
    "trains at once": (SPAWN + TRAIN.format(workers=2), "put its code below a line `if __name__"),
    "sends more than a pipe holds": (SPAWN + LARGE, "put its code below a line `if __name__"),
    # In the spawned process the method is set already, which is an error before verydeep is reached.
    "sets the method each time": (
        SPAWN.replace(", force=True", "") + TRAIN.format(workers=1),
        "put its code below a line",
    ),
    "guarded": (GUARD + SPAWN + "    " + TRAIN.format(workers=1), None),
    "reads in one process": (SPAWN + TRAIN.format(workers=0), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_without_a_main_guard_has_a_message(tmp_path: Path, name: str) -> None:
    text, says = SCRIPTS[name]
    script, photos = tmp_path / "mine.py", make_photos(tmp_path / "photos", 4)
    script.write_text(BEGIN + text, encoding="utf8")
    words = [sys.executable, str(script), str(photos), str(tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if says is None:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]
    assert "mine.py" in done.stderr.splitlines()[-1]
    assert done.stderr.count("verydeep.core.errors.VerydeepError") == 1
    assert "killed" not in done.stderr
    assert "another process is using" not in done.stderr
    assert not (tmp_path / "run").exists()
