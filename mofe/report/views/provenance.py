"""Where the page's numbers come from: seeds, code, versions, hardware, and what was trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mofe.records import EvalRecord, Hardware, TrainRecord


def provenance(
    training: Mapping[str, TrainRecord], evaluation: Mapping[str, EvalRecord]
) -> dict[str, Any]:
    """What the template shows of provenance. training, evaluation: the records by file."""
    trained, evaluated = list(training.values()), list(evaluation.values())
    parts = [part for record in trained for part in record.computed_by]
    everything = [*parts, *evaluated]
    frozen = [record.frozen_sha256 for record in trained if record.frozen_sha256.any]
    packages = sorted({name for record in everything for name in record.versions})
    return {
        "seeds": _distinct(str(seed) for seed in sorted({r.seed for r in trained})),
        "trainings": len(trained),
        "evaluations": len(evaluated),
        "revisions": _distinct(record.git_revision for record in everything),
        "files": _distinct(f for record in everything for f in record.config_files.items()),
        "hardware": _distinct(_hardware(part.hardware) for part in parts),
        "versions": {
            name: ", ".join(_distinct(r.versions.get(name, "none") for r in everything))
            for name in packages
        },
        "processes": _processes(trained),
        "resumed": _resumed(trained),
        "memory": max((record.peak_memory_bytes for record in trained), default=0),
        "frozen": len(frozen),
        "unchanged": sum(hashes.unchanged for hashes in frozen),
        "source": list(training),
        "runs": [
            {
                "record": record,
                "loss": _loss(record),
                "experts": _experts(record),
                "source": path,
            }
            for path, record in training.items()
        ],
    }


def _loss(record: TrainRecord) -> str:
    """The last step's loss, with the router's auxiliary loss apart, if there is one."""
    auxiliary = record.final_auxiliary_loss
    return f"{record.final_loss:.4f}" + (f" + {auxiliary:.4f} auxiliary" if auxiliary else "")


def _experts(record: TrainRecord) -> str:
    """In words: whether the frozen parameters were changed."""
    if not record.frozen_sha256.any:
        return "none frozen"
    return "unchanged" if record.frozen_sha256.unchanged else "changed"


def _processes(trained: Sequence[TrainRecord]) -> list[str]:
    """In words: how many trainings ran on how many processes."""
    kinds = Counter((record.processes, record.sharding) for record in trained)
    return [
        f"{count} training{'s' * (count != 1)} on {processes} process{'es' * (processes != 1)}"
        + (f" ({sharding})" if sharding != "none" else "")
        for (processes, sharding), count in sorted(kinds.items())
    ]


def _resumed(trained: Sequence[TrainRecord]) -> str:
    """In words: how many trainings went on from a checkpoint."""
    times = [record.resumed for record in trained]
    resumed = sum(count > 0 for count in times)
    return f"{resumed} of {len(times)} trainings, {sum(times)} times in all"


def _hardware(hardware: Hardware) -> str:
    return f"{hardware.cpu}, {hardware.cores} cores, {', '.join(hardware.gpus) or 'no GPU'}"


def _distinct(found: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(found))
