"""Names, and what the ledger names."""

from collections.abc import Iterator

from mofe.study.config import Study
from mofe.study.plan import Plan
from mofe.study.setting import PAPER
from mofe.study.values import SHOWS
from mofe.study.words import quoted

LONGEST = 200  # characters of a file's or folder's name; most disks take 255 bytes


def seeds(study: Study) -> Iterator[str]:
    if len(set(study.seeds)) != len(study.seeds):
        yield f"seeds: {study.seeds} names a seed twice; give each seed once"


def named(study: Study) -> Iterator[str]:
    if study.world and study.study == PAPER:
        yield (
            f"study: the name '{PAPER}' is kept for the paper's own setting, and 'world' is an "
            "invented one; give the study another name"
        )


def shadowed(study: Study) -> Iterator[str]:
    for name in study.mixes.keys() & study.data.keys():
        yield f"mixes.{name}: a data set has this name too (data.{name}); rename the mix"
    for name in set(study.tasks) & set(SHOWS):
        yield f"tasks.{name}: this name is taken by what a table's column can show; rename the task"


def cycles(study: Study) -> Iterator[str]:
    for name in study.models:
        chain = [name]
        while (parent := study.models[chain[-1]].from_) is not None:
            if parent in chain:
                yield f"models.{name}.from: {' <- '.join([*chain, parent])} runs in a circle; start from another"
                break
            chain.append(parent)


def names(plan: Plan) -> Iterator[str]:
    yield from plan.equal_names()
    parts = {part for key in plan.variants for part in key.split("/")}
    for part in sorted(part for part in parts if len(part) > LONGEST):
        yield (
            f"tables: a model would be stored as {part[:40]}..., a name of {len(part)} characters; "
            f"shorten the names of its models, mixes or recipes until it has {LONGEST}"
        )


def keys(study: Study) -> Iterator[str]:
    for index, assumption in enumerate(study.assumptions):
        try:
            study.value_at(assumption.key)
        except KeyError:
            yield (
                f"assumptions.{index}.key: {quoted(assumption.key)} is not a key of the "
                "configuration; correct it, or remove the item"
            )
        try:
            study.with_values(assumption.evidence)
        except KeyError as unknown:
            yield (
                f"assumptions.{index}.evidence: {{{unknown.args[0]}}} is not a key of the "
                "configuration; name one, whose value is then shown, or leave the braces out"
            )
