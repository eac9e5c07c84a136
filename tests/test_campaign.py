"""A part of the campaign of faults (tests/faults), and its judges."""

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from tests.faults import damage, judge


def test_a_part_of_the_campaign_ends_as_promised():
    """The first fault of every promise; it has processes of its own, which are forked."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--part", "1", "--workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


def test_every_kind_of_damage_changes_a_file(tmp_path: Path):
    for kind in damage.CONTENT:
        for seed in range(20):
            file = tmp_path / "file"
            file.write_bytes(bytes(range(1, 200)))
            before = file.stat().st_mtime_ns
            assert damage.change(file, kind, seed, keep_time=True), kind
            assert file.stat().st_mtime_ns == before and file.read_bytes() != bytes(range(1, 200))


def test_what_an_unsynced_write_loses(tmp_path: Path):
    """A power cut may take a written file's content and a renaming, unless they were synced."""
    for synced in (True, False):
        taken = set()
        for seed in range(30):
            folder = tmp_path / f"{synced}{seed}"
            folder.mkdir()
            file, old = folder / "new", folder / "old"
            file.write_text("content")
            stat = file.stat()
            seen = {"synced": {}, "renamed": [(str(old), str(file), "")]}
            if synced:
                seen = {
                    "synced": {str(stat.st_ino): [stat.st_size, stat.st_mtime_ns]},
                    "renamed": [],
                }
            damage.cut_power([folder], seen, 0, seed)
            taken.add(file.exists() and file.read_text() == "content")
        assert taken == ({True} if synced else {True, False})


def test_times_are_left_out_of_the_comparison_and_nothing_else():
    record = {"steps": 4, "seconds": 1.5, "parts": [{"loss": 2.0, "seconds": 3}]}
    assert judge.timeless(record) == {"steps": 4, "parts": [{"loss": 2.0}]}
