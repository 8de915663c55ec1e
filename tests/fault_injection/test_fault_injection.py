"""Short forms of what `make torture` does at length: faults put into real commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from corrupt_checkpoints import damages
from crash_resume import kills
from dataset_layouts import folders
from disk_full import disks
from fuzzing import Fuzzing
from harness import Outcome
from long_runs import long_runs
from malformed_images import EXTERNAL, photos
from malicious_files import hostile
from network import missing
from nonfinite_numbers import lost_numbers
from peer_failure import peers
from run import ROWS
from sharding import counting
from signals import signals
from targets import NAMES, parsers
from two_machines import machines
from world_size_change import regrouped

pytestmark = pytest.mark.slow


def check(found: Outcome) -> None:
    assert found.faults == []
    assert found.trials > 0


def test_a_killed_training_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    check(kills(tmp_path, 2, lambda: None))


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(tmp_path: Path) -> None:
    """Truncated, of another net, and with a bit flipped."""
    check(damages(tmp_path, 3, lambda: None))


def test_a_signal_ends_a_command_in_order(tmp_path: Path) -> None:
    """A training while it tests, and a test."""
    check(signals(tmp_path, 2, lambda: None))


def test_a_full_disk_costs_nothing(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    check(disks(tmp_path, 2, lambda: None))


def test_hostile_files_run_nothing(tmp_path: Path) -> None:
    """Pickles as weight files; `make torture` tries more."""
    check(hostile(tmp_path, 3, lambda: None))


def test_a_rate_far_too_high_stops_and_keeps_what_was_good(tmp_path: Path) -> None:
    check(lost_numbers(tmp_path, 1, lambda: None))


def test_folders_as_people_have_them(tmp_path: Path) -> None:
    """A folder nobody may read, one within a class, a listed class that training lacks; `make torture` tries more."""
    check(folders(tmp_path, 3, lambda: None))


@pytest.mark.skipif(not EXTERNAL.exists(), reason="the odd photos are not on this machine")
def test_broken_photos_are_refused_and_never_mistaken(tmp_path: Path) -> None:
    check(photos(tmp_path, 300, lambda: None))


def test_parsers_of_changed_files_raise_nothing_but_sentences(tmp_path: Path) -> None:
    found = parsers(tmp_path / "seeds")
    assert found.keys() == NAMES.keys()
    for name, parser in found.items():
        most = 2 if parser.dear else 25
        tried = Fuzzing(name, parser, tmp_path).run(60, most)
        assert (tried.tried, tried.faults) == (most, {}), name


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    check(peers(tmp_path, 1, lambda: None))


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_cut_link_ends_both_sides(tmp_path: Path) -> None:
    check(machines(tmp_path, 1, lambda: None))


def test_long_work_grows_in_nothing(tmp_path: Path) -> None:
    """Half a minute of what `make torture` does for 45."""
    check(long_runs(tmp_path, 1, lambda: None))


def test_each_photo_is_counted_once(tmp_path: Path) -> None:
    check(counting(tmp_path, 0, lambda: None, sizes=(1, 3, 8), batches=(1, 3), ranks=(1, 2)))


def test_a_run_goes_on_with_others(tmp_path: Path) -> None:
    """Another number of workers, and of processes."""
    check(regrouped(tmp_path, 2, lambda: None))


def test_each_row_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
