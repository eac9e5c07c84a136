"""Names that a study gives: of itself, of its parts, of what it makes, and of keys in
`assumptions`."""

from collections.abc import Iterator

from mofe.study.claims import ON_SCORES
from mofe.study.config import Study
from mofe.study.plan import Plan
from mofe.study.setting import PAPER
from mofe.study.values import SHOWS
from mofe.study.words import quoted, suggest

LONGEST = 200  # characters of a file's or folder's name; most disks take 255 bytes


def seeds(study: Study) -> Iterator[str]:
    """A seed is given once: results of equal seeds would have one address."""
    if len(set(study.seeds)) != len(study.seeds):
        yield f"seeds: {study.seeds} names a seed twice; give each seed once"


def papers_name(study: Study) -> Iterator[str]:
    """The paper's name is kept for studies of real data."""
    if study.world and study.study == PAPER:
        yield (
            f"study: the name '{PAPER}' is kept for the paper's own setting, and 'world' is an "
            "invented one; give the study another name"
        )


def replicated(study: Study) -> Iterator[str]:
    """Claims that other studies are asked too are this study's, on scores, and those studies'
    results lie in other folders."""
    if not study.replications:
        return
    for name in study.replications.claims:
        claim = study.claims.get(name)
        if claim is None:
            yield (
                f"replications.claims: no claim is called {name!r}{suggest(name, study.claims)}; "
                "correct it"
            )
        elif claim.kind not in ON_SCORES:
            yield (
                f"replications.claims: {name} is of kind '{claim.kind}', and studies are compared "
                "in differences of scores; leave it out"
            )
        elif study.replications.results and not study.beyond:
            asked = [key for key in claim.tables() if key in study.tables]
            for table in (key for key in asked if study.tables[key].on_demand):
                yield (
                    f"replications.claims: {name} is about table {table}, which is made on demand, "
                    "so the report does not have it; set beyond to true, or leave the claim out"
                )
    named = study.replications.claims
    for name in dict.fromkeys(name for name in named if named.count(name) > 1):
        yield f"replications.claims: {name!r} stands there twice; name each claim once"
    folders = [study.results, *study.replications.results]
    for folder in dict.fromkeys(f for f in folders if folders.count(f) > 1):
        yield (
            f"replications.results: {folder} is this study's own or named twice; name each other "
            "study's folder once"
        )


def shadowed(study: Study) -> Iterator[str]:
    """No name may mean two things: a mix and a data set, a task and what a column can show."""
    for name in study.mixes.keys() & study.data.keys():
        yield f"mixes.{name}: a data set has this name too (data.{name}); rename the mix"
    for name in set(study.tasks) & set(SHOWS):
        yield f"tasks.{name}: this name is taken by what a table's column can show; rename the task"


def cycles(study: Study) -> Iterator[str]:
    """No model may be trained from itself, over however many others."""
    for name in study.models:
        chain = [name]
        while (parent := study.models[chain[-1]].from_) is not None:
            if parent in chain:
                circle = " <- ".join([*chain, parent])
                yield f"models.{name}.from: {circle} runs in a circle; start from another"
                break
            chain.append(parent)


def addresses(plan: Plan) -> Iterator[str]:
    """What is made must have addresses of its own, which a disk can hold."""
    yield from plan.equal_names()
    parts = {part for key in plan.variants for part in key.split("/")}
    for part in sorted(part for part in parts if len(part) > LONGEST):
        yield (
            f"tables: a model would be stored as {part[:40]}..., a name of {len(part)} characters; "
            f"shorten the names of its models, mixes or recipes until it has {LONGEST}"
        )


def assumed(study: Study) -> Iterator[str]:
    """Assumptions name keys that the configuration has."""
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
