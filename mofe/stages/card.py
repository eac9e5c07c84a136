"""The card of an exported model: what it was made from, how it was trained, and its scores."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mofe import provenance, records
from mofe.records import EvalRecord, HubManifest, MergeManifest, TrainRecord
from mofe.study.methods import parse
from mofe.templates import render

_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def card(
    params: Mapping[str, Any],
    names: Mapping[str, Any],
    total: int,
    merge: MergeManifest | None,
) -> str:
    """The model card (README.md), from the records of the trainings and evaluations that exist.

    params: Plan.params.export; names: of merge, stages and seed; total: number of parameters;
    merge: the manifest of the merge, None for a dense model.
    """
    trainings = [records.read(file, TrainRecord) for file in params["trainings"]]
    scores = [records.read(f, EvalRecord) for f in params["evaluations"] if Path(f).exists()]
    stages = zip(params["chain"], trainings, params["training"], strict=True) if trainings else ()
    return render(
        _TEMPLATE,
        filters={"yaml": _yaml},
        params=params,
        names=names,
        total=total,
        merge=merge,
        commits=_commits(params["manifests"]),
        held_in=parse(params["chain"][-1]).held_in if trainings else None,
        # (method, record, settings of the training), first stage first; a search may have found
        # the learning rate
        stages=[
            (method, run, {**settings, "learning_rate": run.learning_rate})
            for method, run, settings in stages
        ],
        scores=scores,
        revision=provenance.git_revision(),
        versions=trainings[-1].versions if trainings else provenance.versions(),
    )


def _yaml(value: Any) -> str:
    """A value in YAML on one line, quoted where it must be."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def _commits(manifests: Sequence[str]) -> dict[str, str]:
    """The commit that was fetched of each repository of the hub, from the manifests."""
    fetched = [records.read(file, HubManifest) for file in manifests if Path(file).exists()]
    return {manifest.repo: manifest.commit for manifest in fetched}
