"""What became of a fault: compares a copy with the study that no fault touched."""

import json
import math
from pathlib import Path
from typing import Any

from mofe import checksums
from tests.faults.process import Ended
from tests.faults.study import Job, Study, files

# Keys of records that depend on when and where a job ran.
TIMES = {
    *("seconds", "device_seconds", "cpu_seconds", "segments", "resumed", "peak_memory_bytes"),
    *("git_revision", "versions", "hardware", "config_files"),
    "micro_batch",  # halved where memory is short
}


def has_traceback(*ended: Ended) -> bool:
    """Whether the terminal showed a traceback."""
    return any("Traceback (most recent call last)" in one.text for one in ended)


def timeless(value: Any) -> Any:
    """A record without its times, at every depth."""
    if isinstance(value, dict):
        return {key: timeless(v) for key, v in value.items() if key not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def content(file: Path) -> Any:
    """What of a file must be equal however often its job was stopped."""
    if file.suffix == ".json":
        return timeless(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in file.read_text().splitlines()]
    return file.read_bytes()


def differs(study: Study, folder: Path, job: Job) -> str | None:
    """The first difference between what a job made in a copy and in the study; None without."""
    made = study.made(job)
    there = [f.relative_to(folder) for o in job.outputs for f in files(folder / o) if f.exists()]
    if set(made) != set(there):
        return f"other files: {sorted(map(str, set(made) ^ set(there)))}"
    for file in made:
        if content(study.folder / file) != content(folder / file):
            return f"{file} differs"
    return wrong_sums(folder, job) or None


def wrong_sums(folder: Path, job: Job) -> str | None:
    """What is wrong with the checksums beside a job's first output."""
    note = folder / f"{job.outputs[0]}.sums"
    if not note.exists():
        return f"{note} is missing"
    lines = [line for line in note.read_text().splitlines() if not line.startswith("#")]
    listed = dict(line.split("  ", 1)[::-1] for line in lines)
    for name, expected in listed.items():
        if checksums.of(note.parent / name) != expected:
            return f"{note}: has another sum of {name}"
    made = {f for o in job.outputs for f in files(folder / o)}
    if missing := made - {note.parent / name for name in listed}:
        return f"{note}: lacks {sorted(map(str, missing))}"
    return None


def inconsistent(record: Path, log: Path) -> str | None:
    """What in a training's record contradicts itself or its log."""
    told = json.loads(record.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    if [line["step"] for line in lines] != list(range(1, told["steps"] + 1)):
        return f"{log}: {len(lines)} lines of {told['steps']} steps"
    borders = [(s["first_step"], s["last_step"]) for s in told["segments"]]
    if [b[0] for b in borders] != [1, *(b[1] + 1 for b in borders[:-1])]:
        return f"{record}: segments {borders}"
    if borders[-1][1] != told["steps"]:
        return f"{record}: segments {borders} of {told['steps']} steps"
    parts = sum(segment["device_seconds"] for segment in told["segments"])
    if not math.isclose(parts, told["device_seconds"], rel_tol=1e-6):
        return f"{record}: {parts} seconds in segments, {told['device_seconds']} in all"
    rows = {segment["micro_batch"] for segment in told["segments"]}
    if len(borders) > 1 and len(rows) == 1 and not told["resumed"]:
        return f"{record}: {len(borders)} segments, and resumed is 0"
    seconds = [line["seconds"] for line in lines]
    if seconds != sorted(seconds):
        return f"{log}: its seconds go back"
    return None
