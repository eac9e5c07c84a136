"""The search for a variant's learning rate: what its candidates scored, and which one is best."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mofe import records
from mofe.records import EvalRecord, SearchRecord, TrainRecord, TriedRate


def choose(
    *,
    trainings: Sequence[str],
    evaluations: Sequence[str],
    names: Mapping[str, str],
    out: Path,
    config_hash: str | None = None,
) -> str:
    """Compare the candidates and write search.json.

    trainings: the candidates' train.json. evaluations: their scores, the tasks of one candidate
    after another, all in the same order. names: of merge and stages, for the record. config_hash:
    of all that the choice depends on (mofe.study.identity). Returns a line for the user. Raises
    ValueError where a score is not of the candidate that it should be of.
    """
    runs = [records.read(file, TrainRecord) for file in trainings]
    scores = [records.read(file, EvalRecord) for file in evaluations]
    each = len(scores) // len(runs)
    tried = [
        _tried(run, scores[at * each : (at + 1) * each], evaluations[at * each])
        for at, run in enumerate(runs)
    ]
    tried.sort(key=lambda candidate: candidate.learning_rate)
    rate = best(tried).learning_rate
    found = SearchRecord(
        **names,
        recipe=runs[0].recipe,
        seed=runs[0].seed,
        tried=tried,
        best=rate,
        at_edge=rate in (tried[0].learning_rate, tried[-1].learning_rate),
        config_hash=config_hash,
    )
    records.write(out, found)
    edge = ", at the edge of those that were tried" if found.at_edge else ""
    return f"best of {len(tried)} learning rates: {rate:g}{edge}"


def best(tried: Iterable[TriedRate]) -> TriedRate:
    """The rate with the greatest mean score over the tasks; of equally good ones the lowest."""
    return max(tried, key=lambda candidate: (candidate.mean, -candidate.learning_rate))


def _tried(run: TrainRecord, scores: Sequence[EvalRecord], file: str) -> TriedRate:
    if {(score.moe, score.stages, score.seed) for score in scores} != {
        (run.moe, run.stages, run.seed)
    }:
        raise ValueError(f"{file}: is not of {run.moe}/{run.stages}/s{run.seed}")
    found = {score.task: score.metrics[score.headline] for score in scores}
    return TriedRate(learning_rate=run.learning_rate, scores=found)
