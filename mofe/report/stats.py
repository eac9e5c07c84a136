"""Tests of differences between scores: what is read, and how sure it is.

Everything here is a pure function of numbers. docs/statistics.md says why these tests were chosen
and how often they err; tests/simulate.py measures that.

Records are crossed: every seed of an arm answers the same questions. Two things are drawn, seeds
and questions, and `crossed` judges a difference on new ones of both. Every p is two-sided at the
level `LEVEL` and every interval has the confidence 1 - LEVEL, so that p < LEVEL exactly where an
interval leaves out zero. Scores and differences are shares of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, chdtri, nctdtrinc, ndtr, ndtri, stdtr, stdtrit

LEVEL = 0.05
POWER = 0.8
YARDSTICK_DF = 4  # a yardstick of fewer degrees of freedom judges no single run alone
_EXACT = 1e-12  # what sums of scores are off by, and less than any difference of records

Numbers = np.ndarray | float


class Interval(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float


class Variances(NamedTuple):
    """The parts of a difference's variance: of the seeds, of the questions, and of both together,
    which the first two parts each contain."""

    seeds: float
    questions: float
    both: float


@dataclass(frozen=True)
class Yardstick:
    """The variance of one run's score, from runs elsewhere, and its degrees of freedom.

    own: whether those runs are of the same method and task. If not, it is borrowed.
    """

    variance: float
    df: int
    own: bool = True

    @property
    def decides(self) -> bool:
        """Whether a verdict may rest on it alone."""
        return self.own and self.df >= YARDSTICK_DF

    @property
    def sd(self) -> float:
        """The standard deviation of one run's score."""
        return self.variance**0.5

    @property
    def band(self) -> float:
        """The difference from which on two single runs differ by more than their noise."""
        return float(stdtrit(self.df, 1 - LEVEL / 2)) * (2 * self.variance) ** 0.5

    def interval(self) -> Interval:
        """The interval of the standard deviation, for normal scores."""
        sums = self.variance * self.df
        low, high = (sums / chdtri(self.df, share) for share in (LEVEL / 2, 1 - LEVEL / 2))
        return Interval(float(low) ** 0.5, float(high) ** 0.5)

    def borrowed(self, spread: float, score: float) -> Yardstick:
        """The yardstick for a task with this score, where a run's noise has the same size on the
        logit scale: the standard deviation goes with score * (1 - score).

        spread: the mean of score * (1 - score) over the runs that this yardstick is from. score:
        the mean of the scores that are compared, so that they have one yardstick and not one each.
        """
        factor = score * (1 - score) / spread
        return Yardstick(self.variance * factor**2, self.df, own=False)


def pooled(groups: Iterable[Sequence[float]]) -> Yardstick:
    """The yardstick from groups of scores, each of several runs of one function on one task. A
    group of one run says nothing. Raises ValueError where no group has two."""
    runs = [np.asarray(group, dtype=float) for group in groups]
    df = sum(len(group) - 1 for group in runs if len(group))
    if df < 1:
        raise ValueError("a yardstick needs two runs of one function: give a group of two or more")
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in runs if len(group))
    return Yardstick(squares / df, df)


# ------------------------------------------------------------------------------------- a test


@dataclass(frozen=True)
class Test:
    """What a test says of one difference.

    p: two-sided. low, high: the interval for new seeds and new questions. these: the interval for
    these very questions, None where nothing is known of the seeds. seeds: the number of seeds of
    the arm with the fewest; 0 where no arm has seeds. identical: the arms' records are equal bit
    for bit. borrowed: some yardstick behind it is borrowed.
    """

    __test__ = False  # pytest would take it for a test

    difference: float
    stderr: float
    df: float
    p: float
    low: float
    high: float
    these: Interval | None
    parts: Variances
    seeds: int
    identical: bool = False
    borrowed: bool = False

    @property
    def interval(self) -> Interval:
        """The interval for new seeds and new questions."""
        return Interval(self.low, self.high)


class Part(NamedTuple):
    """A part of a variance and its degrees of freedom: numbers, or arrays with one entry per
    study."""

    variance: Numbers
    df: Numbers


def total(seeds: Sequence[Part], questions: Sequence[Part], both: Sequence[Part]) -> Part:
    """The variance of a difference and Satterthwaite's degrees of freedom, from its parts.

    The variance of the seeds' means and that of the questions' means each contain what seeds and
    questions do together, so it is taken off once; the result is never below either.
    """
    by_seed, by_question, by_both = (
        sum((part.variance for part in parts), start=0.0) for parts in (seeds, questions, both)
    )
    variance = np.maximum(np.maximum(by_seed + by_question - by_both, by_seed), by_question)
    spread = sum(
        (np.square(part.variance) / part.df for part in (*seeds, *questions, *both)), start=0.0
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(spread > 0, np.square(variance) / spread, np.inf)
    return Part(variance, df)


def two_sided(difference: Numbers, stderr: Numbers, df: Numbers) -> Numbers:
    """p of a difference by t. Without any variance it is 1 for no difference, else 0."""
    difference, stderr = np.abs(difference), np.asarray(stderr, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(stderr > 0, difference / stderr, np.where(difference > 0, np.inf, 0.0))
    return 2 * stdtr(df, -t)


def _half_width(variance: float, df: float) -> float:
    return float(stdtrit(df, 1 - LEVEL / 2)) * variance**0.5 if variance > 0 else 0.0


def _test(
    difference: float,
    seeds: Sequence[Part],
    questions: Sequence[Part],
    both: Sequence[Part],
    runs: int,
    **more: bool,
) -> Test:
    variance, df = (float(number) for number in total(seeds, questions, both))
    if variance <= _EXACT**2:
        variance, df = 0.0, float("inf")
    if abs(difference) <= _EXACT:
        difference = 0.0
    half = _half_width(variance, df)
    within = _half_width(*(float(number) for number in total(seeds, (), ())))
    return Test(
        difference=difference,
        stderr=variance**0.5,
        df=df,
        p=float(two_sided(difference, variance**0.5, df)),
        low=difference - half,
        high=difference + half,
        these=Interval(difference - within, difference + within),
        parts=Variances(
            *(float(sum(part.variance for part in group)) for group in (seeds, questions, both))
        ),
        seeds=runs,
        **more,
    )


# --------------------------------------------------------------------- arms, contrasts, records


@dataclass(frozen=True)
class Answers:
    """An arm: one trained function with its seeds, and how it answered.

    scores: task -> scores in [0, 1] of the shape (seeds, questions). The same seeds answer all
    tasks. seeded: False for an untuned model, which has one row and no seed. yardsticks: task ->
    what stands for the variance of this arm's seeds where it has one seed.
    """

    scores: Mapping[str, np.ndarray]
    seeded: bool = True
    yardsticks: Mapping[str, Yardstick] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {task: np.shape(scores) for task, scores in self.scores.items()}
        if not shapes or any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
            raise ValueError(f"scores have the shapes {shapes}: give (seeds, questions) per task")
        if len({shape[0] for shape in shapes.values()}) > 1:
            raise ValueError(f"scores have the shapes {shapes}: every seed must answer every task")
        if not self.seeded and self.seeds > 1:
            raise ValueError(f"an untuned model has {self.seeds} rows: give one, it has no seeds")
        for task, scores in self.scores.items():
            if not ((np.asarray(scores) >= 0) & (np.asarray(scores) <= 1)).all():
                raise ValueError(f"scores of {task} leave [0, 1]: give shares of 1, and no NaN")

    @cached_property
    def seeds(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.scores.values())))


class Term(NamedTuple):
    """The mean score of an arm (its index) on a task, times a weight."""

    arm: int
    task: str
    weight: float


@dataclass(frozen=True)
class Contrast:
    """The sum of its terms. Terms of one arm and task add up.

    clusters: task -> a number per question; questions with equal numbers ask for the same fact.
    """

    arms: Sequence[Answers]
    terms: Sequence[Term]
    clusters: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        for arm, task, _ in self.terms:
            if not 0 <= arm < len(self.arms):
                raise ValueError(f"a term names arm {arm} of {len(self.arms)}: count from 0")
            if task not in self.arms[arm].scores:
                raise ValueError(f"arm {arm} has no scores of {task}: leave its term out")
            if task not in self.clusters:
                raise ValueError(f"{task} has no clusters: number its questions")
            asked, numbered = self.arms[arm].scores[task].shape[1], len(self.clusters[task])
            if asked != numbered:
                raise ValueError(
                    f"arm {arm} answered {asked} questions of {task} and {numbered} have a "
                    "cluster: compare the same questions"
                )
        for task in self.tasks:
            if len(np.unique(self.clusters[task])) < 2:
                raise ValueError(f"all questions of {task} are one cluster: two or more are needed")

    @property
    def tasks(self) -> list[str]:
        """The tasks of its terms."""
        return list(dict.fromkeys(task for _, task, _ in self.terms))

    @cached_property
    def weights(self) -> dict[int, dict[str, float]]:
        """arm -> task -> weight, without what cancels out."""
        sums: dict[tuple[int, str], float] = {}
        for arm, task, weight in self.terms:
            sums[arm, task] = sums.get((arm, task), 0.0) + weight
        found: dict[int, dict[str, float]] = {}
        for (arm, task), weight in sums.items():
            if abs(weight) > _EXACT:
                found.setdefault(arm, {})[task] = weight
        return found


def crossed(contrast: Contrast) -> Test:
    """The test of a contrast on new seeds and new questions.

    1. The seeds' variance of each arm on its own, of the weighted sum of its tasks' scores: seeds
       of two arms share nothing, so they are not paired. An arm with one seed takes its yardsticks.
    2. The questions' variance of the contrast's mean over seeds, clustered by what is asked (CR1);
       tasks are independent.
    3. Less what both count, the variance of what seeds and questions do together (`total`).
    4. t with Satterthwaite's degrees of freedom over all parts.

    Raises ValueError where an arm has one seed and a task of it has no yardstick.
    """
    weights = contrast.weights
    difference = sum(
        weight * float(np.mean(contrast.arms[arm].scores[task]))
        for arm, tasks in weights.items()
        for task, weight in tasks.items()
    )
    runs = min((a.seeds for a in map(contrast.arms.__getitem__, weights) if a.seeded), default=0)
    if _identical(contrast):
        return _test(0.0, (), (), (), runs, identical=True)
    seeds, both = [], []
    single: dict[Yardstick, float] = {}  # to the sum of squared weights: one estimate, one part
    for arm, tasks in weights.items():
        answers = contrast.arms[arm]
        if not answers.seeded:
            continue
        if answers.seeds == 1:
            for task, weight in tasks.items():
                yardstick = _yardstick(answers, arm, task)
                single[yardstick] = single.get(yardstick, 0.0) + weight**2
            continue
        scores = sum(weight * answers.scores[task].mean(axis=1) for task, weight in tasks.items())
        seeds.append(Part(scores.var(ddof=1) / answers.seeds, answers.seeds - 1))
        both += [
            _together(answers.scores[task], weight, contrast.clusters[task])
            for task, weight in tasks.items()
        ]
    seeds += [Part(square * y.variance, y.df) for y, square in single.items()]
    questions = [_by_question(contrast, task) for task in contrast.tasks]
    borrowed = any(not yardstick.own for yardstick in single)
    return _test(difference, seeds, questions, both, runs, borrowed=borrowed)


def of_these_models(contrast: Contrast) -> Test:
    """The test of a contrast of models, one row per arm, on new questions: each is taken as it is,
    without seeds. It says nothing about how they were trained. As `mcnemar`, it compares two
    checkpoints; it also knows that questions about one fact are alike. Raises ValueError where an
    arm has more rows."""
    if (rows := max(arm.seeds for arm in contrast.arms)) > 1:
        raise ValueError(f"an arm has {rows} seeds: judge them by `crossed`, or give one row")
    arms = [replace(arm, seeded=False) for arm in contrast.arms]
    return replace(crossed(replace(contrast, arms=arms)), these=None)


def replicated(differences: Sequence[float]) -> Test:
    """The t test of one difference as several studies found it, each one observation: whether it
    is there in a further study of the kind. Whatever moves a study's difference (its seeds, its
    questions, its world) is in how the studies differ. Raises ValueError for fewer than two."""
    found = np.asarray(differences, dtype=float)
    if len(found) < 2:
        raise ValueError(f"{len(found)} study has no other to be compared with: give two or more")
    part = Part(found.var(ddof=1) / len(found), len(found) - 1)
    return _test(float(found.mean()), [part], (), (), 0)


@dataclass(frozen=True)
class Kept:
    """The share of a gain that is kept: the ratio of two contrasts.

    value: None where nothing is gained. bounds: Fieller's interval; None where the gain is not
    above zero beyond its noise, because every share is then possible. gain: the test of the
    contrast below the line.
    """

    value: float | None
    bounds: Interval | None
    gain: Test


def kept(
    part: Contrast, gain: Contrast, test: Callable[[Contrast], Test] = crossed, angles: int = 16
) -> Kept:
    """The share of `gain` that `part` is, with Fieller's interval: every share at which the test of
    part - share * gain does not reject zero.

    The share is the tangent of an angle, and the test of cos * part - sin * gain is that of the
    same null whatever the angle's size. At a right angle it is the test of the gain alone, so where
    that one rejects, the interval ends before. Each end is sought among `angles` steps, then
    between two of them (Brent). Raises ValueError where the contrasts are not of the same arms and
    clusters.
    """
    if part.arms is not gain.arms or part.clusters is not gain.clusters:
        raise ValueError("a part and a gain have other records: give contrasts of the same arms")
    whole = test(gain)
    if whole.difference <= 0:
        return Kept(None, None, whole)
    best = float(np.arctan2(test(part).difference, whole.difference))
    value = float(np.tan(best))
    if whole.p >= LEVEL:
        return Kept(value, None, whole)

    def beyond(angle: float) -> float:
        turned = [
            Term(arm, task, weight * factor)
            for contrast, factor in ((part, np.cos(angle)), (gain, -np.sin(angle)))
            for arm, task, weight in contrast.terms
        ]
        return LEVEL - test(replace(part, terms=turned)).p

    ends = []
    for right in (-np.pi / 2, np.pi / 2):
        steps = np.linspace(best, right, angles)
        last = max(at for at in range(angles - 1) if at == 0 or beyond(steps[at]) <= 0)
        ends.append(float(np.tan(brentq(beyond, steps[last], steps[last + 1]))))
    return Kept(value, Interval(*ends), whole)


def _identical(contrast: Contrast) -> bool:
    """Whether the contrast is zero at every seed and question."""
    for task in contrast.tasks:
        rows = [
            tasks[task] * contrast.arms[arm].scores[task]
            for arm, tasks in contrast.weights.items()
            if task in tasks
        ]
        if len({len(row) for row in rows} - {1}) > 1:
            return False
        if np.max(np.abs(sum(rows, start=np.zeros(1)))) > _EXACT:
            return False
    return True


def _yardstick(answers: Answers, arm: int, task: str) -> Yardstick:
    if task not in answers.yardsticks:
        raise ValueError(
            f"arm {arm} has one seed, which says nothing about others: give more seeds or a "
            f"yardstick for {task}, or compare the two models (mcnemar)"
        )
    return answers.yardsticks[task]


def _cluster_sums(rows: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(rows, questions) to (rows, clusters)."""
    _, codes = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(codes, row) for row in rows])


def _by_question(contrast: Contrast, task: str) -> Part:
    """The variance of the contrast's mean over one task's questions, seeds averaged (CR1)."""
    means = sum(
        (
            tasks[task] * contrast.arms[arm].scores[task].mean(axis=0)
            for arm, tasks in contrast.weights.items()
            if task in tasks
        ),
        start=np.zeros(len(contrast.clusters[task])),
    )
    sums = _cluster_sums((means - means.mean())[None], contrast.clusters[task])
    count = sums.shape[1]
    return Part(np.square(sums).sum() * count / (count - 1) / len(means) ** 2, count - 1)


def _together(scores: np.ndarray, weight: float, clusters: np.ndarray) -> Part:
    """The variance, in an arm's mean over seeds and questions, of what seeds and questions do
    together: clustered residuals after seeds' and questions' means."""
    residuals = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    sums = _cluster_sums(residuals, clusters)
    seeds, count = sums.shape
    df = (seeds - 1) * (count - 1)
    variance = np.square(sums).sum() * count / df / seeds / scores.shape[1] ** 2
    return Part(weight**2 * variance, df)


def mcnemar(a: np.ndarray, b: np.ndarray) -> Test:
    """Two models' answers to the same questions, as vectors of 0 and 1: McNemar's exact test of
    mean(a) - mean(b), two-sided.

    It compares two checkpoints and says nothing about other seeds, nor does it know of questions
    about one fact (`of_these_models` does). The interval is Clopper and Pearson's for the share of
    a among the questions where a and b differ, whose number is taken as given; so it agrees with p.
    Raises ValueError where the vectors are not such.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"answers have the shapes {a.shape} and {b.shape}: give two equal vectors")
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError(
            "answers are neither 0 nor 1 throughout: McNemar's test counts right answers"
        )
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    unequal, asked = only_a + only_b, len(a)
    low = betaincinv(only_a, only_b + 1, LEVEL / 2) if only_a else 0.0
    high = betaincinv(only_a + 1, only_b, 1 - LEVEL / 2) if only_b else 1.0
    variance = float((a - b).var(ddof=1)) / asked if asked > 1 else 0.0
    return Test(
        difference=(only_a - only_b) / asked,
        stderr=variance**0.5,
        df=float("inf"),
        p=min(1.0, 2 * float(bdtr(min(only_a, only_b), unequal, 0.5))),
        low=float(2 * low - 1) * unequal / asked,
        high=float(2 * high - 1) * unequal / asked,
        these=None,
        parts=Variances(0.0, variance, 0.0),
        seeds=1,
        identical=unequal == 0,
    )


# ----------------------------------------------------------------- printed scores, printed times


@dataclass(frozen=True)
class PrintedScore:
    """A printed score of which the questions' answers are unknown, times a weight.

    questions: how many the task has. yardstick: the variance of one run; None for an untuned model.
    runs: how many runs of one function the value is the mean of.
    """

    task: str
    value: float
    questions: int
    weight: float
    yardstick: Yardstick | None = None
    runs: int = 1


def printed(scores: Sequence[PrintedScore]) -> Test:
    """The test of a weighted sum of printed scores.

    Runs have their yardstick's variance each. Questions have binomial errors, which are upper
    bounds: scores of opposite sign are taken as unpaired, and scores of one sign on one task, which
    answer the same questions, as wholly alike, so that their mean is no surer than one. Those
    errors have infinite degrees of freedom, a yardstick its own.
    """
    noise: dict[Yardstick, float] = {}
    errors: dict[tuple[str, bool], float] = {}
    for score in scores:
        if score.yardstick is not None:
            square = score.weight**2 / score.runs
            noise[score.yardstick] = noise.get(score.yardstick, 0.0) + square
        side = score.task, score.weight > 0
        error = abs(score.weight) * (score.value * (1 - score.value) / score.questions) ** 0.5
        errors[side] = errors.get(side, 0.0) + error
    return _test(
        sum(score.weight * score.value for score in scores),
        [Part(square * yardstick.variance, yardstick.df) for yardstick, square in noise.items()],
        [Part(error**2, np.inf) for error in errors.values()],
        (),
        min((score.runs for score in scores if score.yardstick), default=0),
        borrowed=any(not yardstick.own for yardstick in noise),
    )


def ratio_of_printed(a: float, b: float) -> Interval:
    """a / b where both are printed as whole numbers: 6 may be all from 5.5 to 6.5. Raises
    ValueError where b may be 0."""
    if min(a, b) <= 0.5:
        raise ValueError(f"{a:g} / {b:g} has a number that may be 0: print it with more digits")
    return Interval((a - 0.5) / (b + 0.5), (a + 0.5) / (b - 0.5))


def log_ratio(a: Sequence[float], b: Sequence[float]) -> Test:
    """Welch's test of mean(log a) - mean(log b), of measured times, one per seed. Raises ValueError
    where an arm has one, or one is not positive."""
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} times are compared: each arm needs two or more")
    if min(*a, *b) <= 0:
        raise ValueError(f"a time of {min(*a, *b):g} has no logarithm: times are above 0")
    logs = [np.log(np.asarray(times, dtype=float)) for times in (a, b)]
    parts = [Part(times.var(ddof=1) / len(times), len(times) - 1) for times in logs]
    return _test(float(logs[0].mean() - logs[1].mean()), parts, (), (), min(len(a), len(b)))


# ------------------------------------------------------------------------------ several tests


def tost(test: Test, margin: float) -> float:
    """p of equality within +-margin: the greater p of two one-sided tests. It is below LEVEL
    exactly where the interval of confidence 1 - 2 * LEVEL lies within the margin."""
    room = margin - abs(test.difference)
    if test.stderr == 0:
        return float(room <= 0)
    return float(stdtr(test.df, -room / test.stderr))


def _pointing(tests: Sequence[Test], sign: int) -> list[float]:
    """Every test's p where its difference has the sign, else 1."""
    if not tests:
        raise ValueError("a claim has no parts: name at least one")
    return [test.p if sign * test.difference > 0 else 1.0 for test in tests]


def holm(ps: Sequence[float]) -> list[float]:
    """Every p after Holm's correction over all of them (Holm 1979): the k-th least of m counts m -
    k + 1 times, and none is less than one that was less before. It is written out because
    statsmodels' takes a second to import and collects garbage at every call; tests/test_stats.py
    compares them."""
    order = np.argsort(ps, kind="stable")
    times = np.asarray(ps, dtype=float)[order] * np.arange(len(ps), 0, -1)
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(np.maximum.accumulate(times), 1)
    return corrected.tolist()


def joint(tests: Sequence[Test]) -> float:
    """p that every part is above zero: the greatest of the parts' p, and 1 if a part is not above
    zero (an intersection-union test, which needs no correction)."""
    return max(_pointing(tests, 1))


def some(tests: Sequence[Test]) -> float:
    """p that at least one part is above zero: the least of the parts' p after Holm over all parts;
    a part that is not above zero counts as 1."""
    return min(holm(_pointing(tests, 1)))


def contradicting(tests: Sequence[Test]) -> float:
    """p that at least one part is below zero, as `some`: a claim that all are above is contradicted
    where this is below LEVEL."""
    return min(holm(_pointing(tests, -1)))


# ------------------------------------------------------------------------------------- power


def power(
    effect: Numbers,
    run_sd: float,
    item_sd: float,
    questions: float,
    seeds: float,
    yardstick_df: int | None = None,
) -> Numbers:
    """The share of studies in which `crossed` finds a difference of this size between two arms.

    run_sd: the standard deviation of one run's score on the same questions. item_sd: that of a
    question's expected difference; 0 asks about these very questions. questions: how many, divided
    by the design effect where several ask for one fact. seeds: per arm; may be infinite where
    item_sd is not 0. yardstick_df: the degrees of freedom of a yardstick from elsewhere, which then
    stands for the seeds' variance.

    The seeds' variance and with it the degrees of freedom are chance, so the power is the mean over
    a grid of their quantiles. The noncentral t with the expected degrees of freedom promises up to
    6 points more with three seeds.
    """
    return _found(effect, *_bounds(run_sd, item_sd, questions, seeds, yardstick_df))


def _bounds(
    run_sd: float, item_sd: float, questions: float, seeds: float, yardstick_df: int | None
) -> tuple[float, np.ndarray]:
    """A design's true standard error, and the differences from which on the test finds one, on the
    grid."""
    by_run, by_question = run_sd**2 / seeds, item_sd**2 / questions
    seed_parts = [Part(part, df) for part, df in _drawn_parts(by_run, seeds, yardstick_df)]
    variance, df = total(seed_parts, [Part(by_question, np.inf)], ())
    return (2 * by_run + by_question) ** 0.5, stdtrit(df, 1 - LEVEL / 2) * variance**0.5


def _found(effect: Numbers, stderr: float, bounds: np.ndarray) -> Numbers:
    shifted = np.asarray(effect, dtype=float)[..., None]
    return (ndtr((shifted - bounds) / stderr) + ndtr((-shifted - bounds) / stderr)).mean(axis=-1)


_GRID = 64  # quantiles per arm: more change no third digit of a least effect


def _drawn_parts(
    by_run: float, seeds: float, yardstick_df: int | None
) -> list[tuple[np.ndarray, float]]:
    """The two arms' variances as they may be estimated, on a grid of equally likely pairs, with
    their degrees of freedom; of a yardstick one part for both arms."""
    shares = (np.arange(_GRID) + 0.5) / _GRID
    if np.isinf(seeds):
        return [(np.zeros(1), np.inf)]
    if yardstick_df is not None:
        return [(2 * by_run * chdtri(yardstick_df, shares) / yardstick_df, yardstick_df)]
    if seeds < 2:
        raise ValueError(f"{seeds:g} seeds have no variance: plan two or more, or a yardstick")
    drawn = by_run * chdtri(seeds - 1, shares) / (seeds - 1)
    return [(pairs.ravel(), seeds - 1) for pairs in np.meshgrid(drawn, drawn)]


def least_effect(
    run_sd: float,
    item_sd: float,
    questions: float,
    seeds: float,
    power: float = POWER,
    yardstick_df: int | None = None,
) -> float:
    """The least difference that is found with this power; see `power` for the rest."""
    stderr, bounds = _bounds(run_sd, item_sd, questions, seeds, yardstick_df)
    if stderr == 0:
        return 0.0
    low, high = 0.0, float(bounds.max()) + 10 * stderr
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _found(middle, stderr, bounds) < power else (low, middle)
    return high


def least_effect_of(test: Test, power: float = POWER) -> float:
    """The least difference that a test with this standard error and these degrees of freedom would
    have found with this power, by the noncentral t; 0 where there is no variance."""
    if test.stderr == 0:
        return 0.0
    bound = float(stdtrit(test.df, 1 - LEVEL / 2))
    if np.isinf(test.df):
        return (bound + float(ndtri(power))) * test.stderr
    return float(nctdtrinc(test.df, 1 - power, bound)) * test.stderr
