"""How often tests err: studies drawn from known noise, judged by `mofe.report.stats` and by the tests
that it does not use.

    python tests/simulate.py    writes docs/error-rates.json, from which docs/statistics.md is made

A score is a normal deviate per seed (of one arm), per question and per both. Then everything a test
reads, means and mean squares, is normal or chi-square and is drawn as such, thousands of studies at
once (`moments`); these are the very distributions of `stats.crossed`'s parts. `records` draws whole
records of 0 and 1, for `stats.crossed` itself. All random numbers come from fixed seeds.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, combinations_with_replacement
from math import factorial, inf, prod
from pathlib import Path

import numpy as np
from scipy.special import ndtr, polygamma, psi

from mofe import paper
from mofe.files import write_atomic
from mofe.report import stats
from mofe.report.stats import LEVEL, Answers, Contrast, Part, Term, Yardstick

FILE = Path(__file__).parents[1] / "docs" / "error-rates.json"
STUDIES = 20_000
RECORDS = 1_500  # studies of whole records per case
ITEM_SD, TOGETHER_SD = 0.4, 0.35  # as in the miniature study: 0.19-0.48 and 0.24-0.37
QUESTIONS = {"MMLU": 14_042, "MedMCQA": 4_183, "PubMedQA": 500}
SIZES = ("Small", "Medium", "Large")


def paper_runs(method: str, task: str) -> list[float]:
    """The scores of Table 2's three sizes of one method, which are three runs of one function."""
    found = (paper.printed(2, f"{size} | {method}", task) for size in SIZES)
    return [paper.number(score) for score in found]


@cache
def yardsticks() -> dict[str, Yardstick]:
    """The paper's run-to-run noise per task. PubMedQA's is borrowed from MedMCQA at the mean of Table
    6's two scores that were tuned on instructions alone."""
    groups = {
        task: [paper_runs(method, task) for method in ("LoRA", "QLoRA", "DoRA", "MoFE")]
        for task in ("MMLU", "MedMCQA")
    }
    found = {task: stats.pooled(runs) for task, runs in groups.items()}
    spread = np.mean([score * (1 - score) for runs in groups["MedMCQA"] for score in runs])
    tuned = (f"{model} | Instruction-tuning" for model in ("TinyLlama", "Medical Expert"))
    score = np.mean([paper.number(paper.printed(6, label, "PubMedQA")) for label in tuned])
    return found | {"PubMedQA": found["MedMCQA"].borrowed(float(spread), float(score))}


RUN_SD = {task: yardstick.sd for task, yardstick in yardsticks().items()}


@dataclass(frozen=True)
class Case:
    """Two arms of equal mean, or with an effect.

    sds: the seeds' standard deviation of each arm. others: of the study's other variants, from which
    pooled tests borrow. tails: the seeds' deviations are Student's t with 3 degrees of freedom.
    facts: how many facts the questions ask for, with the design effect 2; none: one per question.
    """

    questions: int = 2_000
    seeds: int = 3
    sds: tuple[float, float] = (0.008, 0.008)
    others: tuple[float, ...] = (0.008,) * 6
    tails: bool = False
    facts: int | None = None
    effect: float = 0.0

    @property
    def clusters(self) -> int:
        return self.facts or self.questions

    @property
    def design(self) -> tuple[float, float]:
        """How much larger than of independent questions the mean square is, between the facts and
        within them."""
        if self.facts is None:
            return 1.0, 1.0
        return 2.0, 1 - 1 / (self.questions / self.facts - 1)


def alike(sd: float, **more) -> Case:
    """A case in which all variants have one seed SD."""
    return Case(sds=(sd, sd), others=(sd,) * 6, **more)


def of_task(task: str, seeds: int, effect: float = 0.0) -> Case:
    """A task at the paper's scale, with the paper's run-to-run noise; a run's score contains what
    the run and the questions do together."""
    seed_sd = (RUN_SD[task] ** 2 - TOGETHER_SD**2 / QUESTIONS[task]) ** 0.5
    return alike(seed_sd, questions=QUESTIONS[task], seeds=seeds, effect=effect)


CASES = {
    "seed SD 0": alike(0.0),
    "seed SD 0.004": alike(0.004),
    "seed SD 0.008": alike(0.008),
    "seed SD 0.016": alike(0.016),
    "seed SD 0.03": alike(0.03),
    "unlike variants: 0.002 and 0.006": Case(
        sds=(0.002, 0.006), others=(0.0006, 0.001, 0.002, 0.004, 0.006, 0.01)
    ),
    "one quiet, one noisy: 0.0006 and 0.018": Case(
        sds=(0.0006, 0.018), others=(0.002, 0.004, 0.004, 0.006, 0.006, 0.01)
    ),
    "a noisy pair: 0.018, others 0.004": Case(sds=(0.018, 0.018), others=(0.004,) * 6),
    "heavy tails, 0.012": alike(0.012, tails=True),
    "700 facts, 0.008": alike(0.008, facts=700),
    "2 seeds, 0.008": alike(0.008, seeds=2),
    "5 seeds, 0.016": alike(0.016, seeds=5),
    "10 seeds, 0.016": alike(0.016, seeds=10),
    **{f"{task} at paper scale, 3 seeds": of_task(task, 3) for task in QUESTIONS},
}


# ------------------------------------------------------------------------ what a test reads


@dataclass(frozen=True)
class Moments:
    """What tests read of many studies; the first axis is the study.

    means: (study, arm, seed), the seeds' means. shift: the questions' share of the difference.
    item, both: (variance of the difference's mean over questions; of what seeds and questions do
    together, per arm), clustered by fact. plain_item, plain_both: the same as if questions were
    independent. others: (study, variant), the seed variances of the other variants.
    """

    case: Case
    means: np.ndarray
    shift: np.ndarray
    item: np.ndarray
    both: np.ndarray
    plain_item: np.ndarray
    plain_both: np.ndarray
    others: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        return self.paired.mean(axis=1) + self.shift

    @property
    def paired(self) -> np.ndarray:
        """(study, seed): the two arms' difference at equally numbered seeds."""
        return self.means[:, 0] - self.means[:, 1]

    @property
    def arms(self) -> np.ndarray:
        """(study, arm): the variance of a seed's mean."""
        return self.means.var(axis=2, ddof=1)


def moments(case: Case, studies: int, rng: np.random.Generator) -> Moments:
    """Draw the moments of studies."""
    n, seeds, count = case.questions, case.seeds, case.clusters
    between, within = case.design

    def noise(sds: tuple[float, ...]) -> np.ndarray:
        size = (studies, len(sds), seeds)
        drawn = rng.standard_t(3, size) / 3**0.5 if case.tails else rng.standard_normal(size)
        together = rng.standard_normal(size) * TOGETHER_SD * (between / n) ** 0.5
        return drawn * np.array(sds)[:, None] + together

    def squares(variance: float, rows: int, *size: int) -> tuple[np.ndarray, np.ndarray]:
        """(clustered, plain) variance of a mean over questions, from `rows` rows."""
        df = rows * (count - 1)
        facts = between * rng.chisquare(df, (studies, *size))
        inside = within * rng.chisquare(rows * (n - count), (studies, *size)) if count < n else 0.0
        return variance * facts / df / n, variance * (facts + inside) / (rows * (n - 1)) / n

    item, plain_item = squares(ITEM_SD**2 + 2 * TOGETHER_SD**2 / seeds, 1)
    both, plain_both = squares(TOGETHER_SD**2 / seeds, seeds - 1, 2)
    return Moments(
        case=case,
        means=noise(case.sds) + np.array([[case.effect], [0.0]]),
        shift=rng.standard_normal(studies) * ITEM_SD * (between / n) ** 0.5,
        item=item,
        both=both,
        plain_item=plain_item,
        plain_both=plain_both,
        others=noise(case.others).var(axis=2, ddof=1),
    )


# --------------------------------------------------------------------------------- the tests


def _questions(m: Moments, plain: bool = False) -> list[Part]:
    count = m.case.questions if plain else m.case.clusters
    return [Part(m.plain_item if plain else m.item, count - 1)]


def _both(m: Moments, plain: bool = False) -> list[Part]:
    count = m.case.questions if plain else m.case.clusters
    both = m.plain_both if plain else m.both
    return [Part(arm, (m.case.seeds - 1) * (count - 1)) for arm in both.T]


def _seeds(m: Moments) -> list[Part]:
    return [Part(arm / m.case.seeds, m.case.seeds - 1) for arm in m.arms.T]


def _paired_seeds(m: Moments) -> list[Part]:
    return [Part(m.paired.var(axis=1, ddof=1) / m.case.seeds, m.case.seeds - 1)]


def _p(m: Moments, part: Part) -> np.ndarray:
    return stats.two_sided(m.difference, part.variance**0.5, part.df)


def crossed(m: Moments) -> np.ndarray:
    """The test of `stats.crossed`: facts, each arm's seeds on their own."""
    return _p(m, stats.total(_seeds(m), _questions(m), _both(m)))


def facts_ignored(m: Moments) -> np.ndarray:
    """The same as if every question asked for a fact of its own."""
    return _p(m, stats.total(_seeds(m), _questions(m, plain=True), _both(m, plain=True)))


def paired_seeds(m: Moments) -> np.ndarray:
    """The crossed test with seeds paired by their number."""
    return _p(m, stats.total(_paired_seeds(m), _questions(m, plain=True), _both(m, plain=True)))


def heap(m: Moments) -> np.ndarray:
    """All records in one heap (McNemar's test, whose normal limit this is)."""
    n, seeds = m.case.questions, m.case.seeds
    squares = (seeds - 1) * n * m.paired.var(axis=1, ddof=1)
    squares += seeds * n * (n - 1) * m.plain_item
    squares += seeds * (seeds - 1) * n * (n - 1) * m.plain_both.sum(axis=1)
    return _p(m, Part(squares / (seeds * n - 1) / (seeds * n), inf))


def questions_only(m: Moments) -> np.ndarray:
    """A t test over questions, with every question's mean over seeds."""
    return _p(m, _questions(m, plain=True)[0])


def seeds_only(m: Moments) -> np.ndarray:
    """A paired t test over the seeds' scores."""
    return _p(m, _paired_seeds(m)[0])


def mixed(m: Moments) -> np.ndarray:
    """A mixed model with seeds and questions as crossed random effects, judged by z. For balanced
    records its variance is that of the crossed test with paired seeds."""
    parts = _paired_seeds(m), _questions(m, plain=True), _both(m, plain=True)
    return _p(m, Part(stats.total(*parts).variance, inf))


def bootstrap(m: Moments) -> np.ndarray:
    """Seeds drawn anew, then questions; the share of draws on the other side of zero. Questions are
    many, so their draws are normal; of seeds, every way of drawing them is taken (of more than five,
    500 ways)."""
    seeds = m.case.seeds
    if seeds <= 5:
        drawn = list(combinations_with_replacement(range(seeds), seeds))
        counts = np.array([np.bincount(way, minlength=seeds) for way in drawn])
        ways = [factorial(seeds) / prod(map(factorial, row)) for row in counts.tolist()]
    else:
        counts = np.random.default_rng(0).multinomial(seeds, [1 / seeds] * seeds, 500)
        ways = [1.0] * len(counts)
    means = m.paired @ counts.T / seeds + m.shift[:, None]
    both = m.plain_both.sum(axis=1)  # of the mean over all seeds, once each
    repeated = np.square(counts).sum(axis=1) / seeds
    variance = (m.plain_item - both)[:, None] + both[:, None] * repeated
    below = ndtr(-means / np.maximum(variance, 1e-12) ** 0.5) @ np.array(ways) / sum(ways)
    return 2 * np.minimum(below, 1 - below)


def pooled(m: Moments) -> np.ndarray:
    """The crossed test with one seed variance for all variants of the study."""
    variances = np.hstack([m.arms, m.others])
    part = Part(2 * variances.mean(axis=1) / m.case.seeds, variances.shape[1] * (m.case.seeds - 1))
    return _p(m, stats.total([part], _questions(m, plain=True), _both(m, plain=True)))


def moderated(m: Moments) -> np.ndarray:
    """The crossed test with each arm's seed variance drawn towards that of all variants, by Smyth's
    empirical Bayes (limma)."""
    own = m.case.seeds - 1
    logs = np.log(np.hstack([m.arms, m.others])) - psi(own / 2) + np.log(own / 2)
    excess = logs.var(axis=1, ddof=1) - polygamma(1, own / 2)
    df = np.where(excess > 0, 2 * _trigamma_inverse(np.maximum(excess, 1e-6)), 1e6)
    prior = np.exp(logs.mean(axis=1) + psi(df / 2) - np.log(df / 2))
    seeds = [
        Part((df * prior + own * arm) / (df + own) / m.case.seeds, df + own) for arm in m.arms.T
    ]
    return _p(m, stats.total(seeds, _questions(m, plain=True), _both(m, plain=True)))


def _trigamma_inverse(value: np.ndarray) -> np.ndarray:
    """Newton's steps on the reciprocal, as limma takes them."""
    x = 0.5 + 1 / value
    for _ in range(8):
        x = x + polygamma(1, x) * (1 - polygamma(1, x) / value) / polygamma(2, x)
    return x


TESTS: dict[str, Callable[[Moments], np.ndarray]] = {
    "heap": heap,
    "questions only": questions_only,
    "seeds only": seeds_only,
    "bootstrap": bootstrap,
    "mixed model, z": mixed,
    "paired seeds": paired_seeds,
    "pooled": pooled,
    "moderated": moderated,
    "facts ignored": facts_ignored,
    "crossed": crossed,
}


def percent(found: np.ndarray) -> float:
    """The share of studies, in percent with one digit."""
    return round(100 * float(np.mean(found)), 1)


def false_positives(name: str, studies: int = STUDIES) -> dict[str, float]:
    """Percent of studies without a difference in which each test finds one."""
    m = moments(CASES[name], studies, np.random.default_rng([1, list(CASES).index(name)]))
    return {test: percent(p(m) < LEVEL) for test, p in TESTS.items()}


# ---------------------------------------------------------------------- whole records of 0 and 1

RECORD_CASES = {  # name -> the seeds' deviation on the latent scale of each arm, seeds per arm
    "0/1 records, no seed noise": ((0.0, 0.0), (3, 3)),
    "0/1 records, alike": ((0.03, 0.03), (3, 3)),
    "0/1 records, unlike": ((0.01, 0.06), (3, 3)),
    "0/1 records, 3 seeds against 5": ((0.04, 0.04), (3, 5)),
    "0/1 records, an untuned model": ((0.04, 0.0), (3, 0)),
}
FACTS, ASKED = 750, 2_000


def records(sds: tuple[float, float], seeds: tuple[int, int], rng: np.random.Generator) -> Contrast:
    """One study: every question asks for a fact drawn for it, and is answered right where ability,
    the fact, the arm at the fact and chance sum to more than zero. 0 seeds: an untuned model."""
    facts = rng.integers(0, FACTS, ASKED)
    known = rng.normal(0, 1, FACTS)
    arms = []
    for sd, runs in zip(sds, seeds, strict=True):
        rows = max(runs, 1)
        latent = (known + rng.normal(0, 0.7, FACTS))[facts] + rng.normal(0, sd, (rows, 1))
        latent = latent + rng.normal(0, 0.4, (rows, FACTS))[:, facts]
        latent = latent + rng.normal(0, 0.5, (rows, ASKED))
        arms.append(Answers({"task": (latent > 0).astype(float)}, seeded=runs > 0))
    return Contrast(arms, [Term(0, "task", 1), Term(1, "task", -1)], {"task": facts})


def record_rates(name: str, studies: int = RECORDS) -> dict[str, float]:
    """Percent of studies without a difference in which `stats.crossed` finds one: as it is, and
    told that every question asks for a fact of its own."""
    rng = np.random.default_rng([2, list(RECORD_CASES).index(name)])
    own = {"task": np.arange(ASKED)}
    drawn = [records(*RECORD_CASES[name], rng) for _ in range(studies)]
    ignored = [stats.crossed(replace(contrast, clusters=own)).p for contrast in drawn]
    found = [stats.crossed(contrast).p for contrast in drawn]
    return {
        "facts ignored": percent(np.array(ignored) < LEVEL),
        "crossed": percent(np.array(found) < LEVEL),
    }


# ---------------------------------------------------------------------------------- one seed


def one_seed(task: str, studies: int = STUDIES) -> dict[str, float]:
    """Percent of studies without a difference, of one seed an arm, in which one is found: by
    McNemar's test (its normal limit), and with yardsticks of so many degrees of freedom; `half`: one
    of 8 whose standard deviation is half the true one."""
    rng = np.random.default_rng([3, list(QUESTIONS).index(task)])
    n, run = QUESTIONS[task], RUN_SD[task] ** 2
    seed = run - TOGETHER_SD**2 / n
    record = ITEM_SD**2 + 2 * TOGETHER_SD**2  # of one question's difference
    difference = rng.standard_normal(studies) * (record / n + 2 * seed) ** 0.5
    item = Part(record * rng.chisquare(n - 1, studies) / (n - 1) / n, n - 1)
    found = {"McNemar": percent(stats.two_sided(difference, item.variance**0.5, inf) < LEVEL)}
    for name, df, factor in [(str(df), df, 1.0) for df in (2, 4, 8, 20)] + [("half", 8, 0.25)]:
        part = Part(2 * factor * run * rng.chisquare(df, studies) / df, df)
        variance, freedom = stats.total([part], [item], ())
        found[name] = percent(stats.two_sided(difference, variance**0.5, freedom) < LEVEL)
    return found


# ------------------------------------------------------------------------------ whole verdicts


def tests_of(m: Moments) -> list[stats.Test]:
    """A `stats.Test` per study."""
    variance, df = stats.total(_seeds(m), _questions(m), _both(m))
    numbers = zip(m.difference, variance**0.5, df, _p(m, Part(variance, df)), strict=True)
    return [_test(*map(float, row)) for row in numbers]


def _test(difference: float, stderr: float, df: float, p: float) -> stats.Test:
    """A test of which only these numbers are read, by what judges several tests."""
    nothing = stats.Variances(0.0, 0.0, 0.0)
    return stats.Test(difference, stderr, df, p, -inf, inf, None, nothing, 3)


def among(variants: int, studies: int, rng: np.random.Generator) -> list[list[stats.Test]]:
    """Per study the tests of all pairs of equal variants, three seeds by 2,000 questions."""
    case = Case()
    seeds, n = case.seeds, case.questions
    means = rng.standard_normal((studies, variants, seeds)) * case.sds[0]
    means += rng.standard_normal(means.shape) * TOGETHER_SD / n**0.5
    scores = rng.standard_normal((studies, variants)) * ITEM_SD / (2 * n) ** 0.5
    scores += means.mean(axis=2)
    own = means.var(axis=2, ddof=1) / seeds
    item = Part((ITEM_SD**2 + 2 * TOGETHER_SD**2 / seeds) / n, n - 1)
    both = Part(2 * TOGETHER_SD**2 / seeds / n, 2 * (seeds - 1) * (n - 1))
    tests = []
    for a, b in combinations(range(variants), 2):
        parts = [Part(own[:, arm], seeds - 1) for arm in (a, b)]
        variance, df = stats.total(parts, [item], [both])
        difference = scores[:, a] - scores[:, b]
        p = stats.two_sided(difference, variance**0.5, df)
        rows = zip(difference, variance**0.5, df, p, strict=True)
        tests.append([_test(*map(float, row)) for row in rows])
    return [list(study) for study in zip(*tests, strict=True)]


EQUAL = {  # name -> the case and its margin
    "2,000 questions, seed SD 0.004": (alike(0.004), 0.02),
    "2,000 questions, seed SD 0.015": (alike(0.015), 0.02),
    "MMLU at paper scale, 10 seeds": (of_task("MMLU", 10), 0.01),
}


def verdicts(studies: int = STUDIES // 5) -> dict[str, float]:
    """Percent of studies in which a claim is found that does not hold, by its kind; of equality also
    where it holds."""
    rng = np.random.default_rng(4)
    null = tests_of(moments(Case(), studies, rng))
    clear = [tests_of(moments(Case(effect=0.1), studies, rng)) for _ in range(2)]
    parts = list(zip(null, *clear, strict=True))
    pairs = among(5, studies, rng)
    found = {
        "all: one of three parts is null": [stats.joint(tests) < LEVEL for tests in parts],
        "all, judged by signs alone": [min(t.difference for t in ts) > 0 for ts in parts],
        "some of ten pairs of equal variants": [stats.some(tests) < LEVEL for tests in pairs],
        "contradicted: some of ten pairs": [stats.contradicting(tests) < LEVEL for tests in pairs],
        "some of ten pairs, without Holm": [min(t.p for t in ts) < LEVEL for ts in pairs],
        "best against worst of four equal rows, picked by the data": [
            max(tests, key=lambda test: abs(test.difference)).p < LEVEL
            for tests in among(4, studies, rng)
        ],
        "three equal sizes by three seeds, counted as nine seeds": counted_as_nine(studies, rng)
        < LEVEL,
    }
    for name, (case, margin) in EQUAL.items():
        for where, effect in (("but different by that", margin), ("and truly equal", 0.0)):
            tests = tests_of(moments(replace(case, effect=effect), studies, rng))
            equal = [stats.tost(test, margin) < LEVEL for test in tests]
            found[f"equal within {margin:g}, {name}, {where}"] = equal
    return {name: percent(np.array(rows)) for name, rows in found.items()}


def counted_as_nine(studies: int, rng: np.random.Generator) -> np.ndarray:
    """p of the crossed test of two functions of three seeds, each of which stands in three sizes that
    are bit for bit the same, if these are counted as nine seeds."""
    m = moments(of_task("MedMCQA", 3), studies, rng)
    # Three times the squares over 8 instead of 2 degrees of freedom, and a mean over 9 instead of 3.
    nine = replace(m, means=np.repeat(m.means, 3, axis=2), both=m.both * 3 * (2 / 8) * (3 / 9))
    return crossed(replace(nine, case=replace(m.case, seeds=9)))


# ------------------------------------------------------------------------------------- power

DESIGNS = [  # task, seeds, effect: where the power is neither near 5% nor near 100%
    *(("MMLU", seeds, effect) for seeds in (3, 5, 10) for effect in (0.008, 0.012, 0.02)),
    *(("MedMCQA", seeds, effect) for seeds in (3, 5, 10) for effect in (0.02, 0.03, 0.05)),
    *(("PubMedQA", seeds, effect) for seeds in (3, 5, 10) for effect in (0.03, 0.05, 0.07)),
]


def power(studies: int = STUDIES) -> Iterator[dict[str, str | int | float]]:
    """The simulated and the computed power of designs, in percent."""
    rng = np.random.default_rng(5)
    for task, seeds, effect in DESIGNS:
        m = moments(of_task(task, seeds, effect), studies, rng)
        computed = stats.power(effect, RUN_SD[task], ITEM_SD, QUESTIONS[task], seeds)
        yield {
            "task": task,
            "seeds": seeds,
            "effect": effect,
            "simulated": percent(crossed(m) < LEVEL),
            "computed": round(100 * float(computed), 1),
        }


def rates() -> dict[str, object]:
    """Everything that docs/error-rates.json holds, in percent."""
    return {
        "studies": STUDIES,
        "studies of records": RECORDS,
        "tasks": {
            task: {"questions": QUESTIONS[task], "run SD": round(RUN_SD[task], 4)}
            for task in QUESTIONS
        },
        "item SD": ITEM_SD,
        "false positives": {name: false_positives(name) for name in CASES},
        "records": {name: record_rates(name) for name in RECORD_CASES},
        "one seed": {task: one_seed(task) for task in QUESTIONS},
        "verdicts": verdicts(),
        "power": list(power()),
    }


if __name__ == "__main__":
    write_atomic(FILE, json.dumps(rates(), indent=1) + "\n")
