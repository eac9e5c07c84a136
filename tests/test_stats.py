"""Tests of differences: against other computations of the same, on the paper's numbers, and on drawn
studies whose truth is known (tests/simulate.py)."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import simulate
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from mofe import paper
from mofe.report import stats
from mofe.report.stats import Answers, Contrast, PrintedScore, Term, Yardstick


def contrast(seed: int, seeds=(3, 3), questions=(40, 25), facts=12) -> Contrast:
    """The difference of two arms over two tasks, weighed 0.7 and 0.3; 0 seeds: an untuned model."""
    rng = np.random.default_rng(seed)
    arms = []
    for count in seeds:
        scores = {
            f"task{number}": (rng.random((max(count, 1), asked)) < rng.uniform(0.2, 0.8)).astype(
                float
            )
            for number, asked in enumerate(questions)
        }
        arms.append(Answers(scores, seeded=count > 0))
    weights = (0.7, 0.3)
    terms = [
        Term(arm, f"task{number}", sign * weights[number])
        for arm, sign in ((0, 1), (1, -1))
        for number in range(len(questions))
    ]
    clusters = {
        f"task{number}": np.concatenate([[0, 1], rng.integers(0, facts, asked - 2)])
        for number, asked in enumerate(questions)
    }
    return Contrast(arms, terms, clusters)


def single(a: np.ndarray, b: np.ndarray, clusters=None, **arm) -> Contrast:
    """mean(a) - mean(b) on one task."""
    arms = [Answers({"task": np.atleast_2d(np.asarray(x, dtype=float))}, **arm) for x in (a, b)]
    numbers = np.arange(arms[0].scores["task"].shape[1]) if clusters is None else clusters
    return Contrast(arms, [Term(0, "task", 1), Term(1, "task", -1)], {"task": numbers})


# --------------------------------------------------------- the same, computed in other ways


@pytest.mark.parametrize("seeds", [(3, 3), (2, 5), (4, 0)])
def test_parts_are_those_of_loops_over_seeds_and_questions(seeds):
    drawn = contrast(1, seeds)
    of_seeds, of_questions, of_both = 0.0, 0.0, 0.0
    squares = 0.0  # of parts over their degrees of freedom
    for index, arm in enumerate(drawn.arms):
        weights = {term.task: term.weight for term in drawn.terms if term.arm == index}
        if not arm.seeded:
            continue
        means = [
            sum(w * np.mean(arm.scores[task][s]) for task, w in weights.items())
            for s in range(arm.seeds)
        ]
        part = np.var(means, ddof=1) / arm.seeds
        of_seeds, squares = of_seeds + part, squares + part**2 / (arm.seeds - 1)
        for task, weight in weights.items():
            y, numbers = arm.scores[task], drawn.clusters[task]
            found = 0.0
            for s in range(arm.seeds):
                for fact in set(numbers.tolist()):
                    rest = [
                        y[s, q] - y[:, q].mean() - y[s].mean() + y.mean()
                        for q in np.flatnonzero(numbers == fact)
                    ]
                    found += sum(rest) ** 2
            facts = len(set(numbers.tolist()))
            df = (arm.seeds - 1) * (facts - 1)
            part = weight**2 * found * facts / df / arm.seeds / y.shape[1] ** 2
            of_both, squares = of_both + part, squares + part**2 / df
    for task, numbers in drawn.clusters.items():
        d = sum(
            t.weight * drawn.arms[t.arm].scores[task].mean(0) for t in drawn.terms if t.task == task
        )
        sums = [(d - d.mean())[numbers == fact].sum() for fact in set(numbers.tolist())]
        facts = len(sums)
        part = np.square(sums).sum() * facts / (facts - 1) / len(d) ** 2
        of_questions, squares = of_questions + part, squares + part**2 / (facts - 1)

    test = stats.crossed(drawn)
    assert test.parts == pytest.approx((of_seeds, of_questions, of_both))
    variance = max(of_seeds + of_questions - of_both, of_seeds, of_questions)
    assert test.stderr**2 == pytest.approx(variance)
    assert test.df == pytest.approx(variance**2 / squares)
    t = scipy.stats.t(test.df)
    assert test.p == pytest.approx(2 * t.sf(abs(test.difference) / test.stderr))
    assert test.interval == pytest.approx(
        t.interval(0.95) * np.array(test.stderr) + test.difference
    )
    assert test.seeds == min(count for count in seeds if count)


def test_parts_are_those_of_statsmodels():
    """Clustered standard errors of a regression by seed and by fact, and an analysis of variance."""
    import pandas as pd
    import statsmodels.formula.api as smf
    from statsmodels.stats.anova import anova_lm

    drawn = contrast(2, questions=(60,), facts=20)
    records = pd.DataFrame(
        [
            {"arm": arm, "seed": f"{arm}.{s}", "question": q, "right": right, "fact": fact}
            for arm, answers in enumerate(drawn.arms)
            for s, row in enumerate(answers.scores["task0"])
            for q, (right, fact) in enumerate(zip(row, drawn.clusters["task0"], strict=True))
        ]
    )
    fit = smf.ols("right ~ C(arm)", records)
    seeds, facts = (
        fit.fit(
            cov_type="cluster",
            cov_kwds={"groups": pd.factorize(records[by])[0], "use_correction": False},
        ).bse.iloc[1]
        ** 2
        for by in ("seed", "fact")
    )
    count = len(np.unique(drawn.clusters["task0"]))
    test = stats.crossed(drawn)
    assert test.parts.seeds == pytest.approx(0.7**2 * seeds * 3 / 2)
    assert test.parts.questions == pytest.approx(0.7**2 * facts * count / (count - 1))

    own = replace(drawn, clusters={"task0": np.arange(60)})
    residual = sum(
        anova_lm(smf.ols("right ~ C(seed) + C(question)", rows).fit()).loc["Residual", "mean_sq"]
        for _, rows in records.groupby("arm")
    )
    assert stats.crossed(own).parts.both == pytest.approx(0.7**2 * residual / 3 / 60)


def test_models_without_seeds_are_compared_by_a_paired_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 30)).round(2)
    test = stats.crossed(single(a, b, seeded=False))
    expected = scipy.stats.ttest_rel(a, b)
    assert (test.p, test.df) == (pytest.approx(expected.pvalue), pytest.approx(expected.df))
    assert test.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert (test.seeds, test.these) == (0, (test.difference, test.difference))


def test_these_questions_are_judged_by_welch_over_the_seeds():
    drawn = contrast(4, (3, 5), questions=(50,))
    test = stats.crossed(drawn)
    a, b = (0.7 * arm.scores["task0"].mean(axis=1) for arm in drawn.arms)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert test.these == pytest.approx(tuple(expected))


def test_times_are_judged_by_welch_on_logarithms():
    a, b = [6.1, 5.8, 6.4], [13.0, 14.1, 13.3, 12.2]
    test = stats.log_ratio(a, b)
    expected = scipy.stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    assert (test.p, test.df) == (pytest.approx(expected.pvalue), pytest.approx(expected.df))
    assert test.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert test.these == test.interval


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_mcnemar_is_the_binomial_test_of_unequal_answers(pairs):
    a, b = np.array(pairs).T
    test = stats.mcnemar(a, b)
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    assert test.difference == pytest.approx(a.mean() - b.mean())
    assert test.these is None
    if only_a + only_b == 0:
        assert (test.p, test.interval, test.identical) == (1, (0, 0), True)
        return
    expected = scipy.stats.binomtest(only_a, only_a + only_b)
    share = expected.proportion_ci()
    scale = (only_a + only_b) / len(a)
    assert test.p == pytest.approx(expected.pvalue)
    assert test.interval == pytest.approx(
        ((2 * share.low - 1) * scale, (2 * share.high - 1) * scale), abs=1e-9
    )
    assert (test.p < 0.05) == (not test.low <= 0 <= test.high)


@pytest.mark.parametrize(
    "ps", [[], [0.2], [0.01, 0.01, 0.04], [0.9, 0.001, 0.012, 0.012, 0.5], [0.5, 0.6, 0.02, 0]]
)
def test_holm_is_statsmodels(ps):
    from statsmodels.stats.multitest import multipletests

    expected = multipletests(ps, method="holm")[1] if ps else []
    assert stats.holm(ps) == pytest.approx(list(expected))


# --------------------------------------------------------------------------------- properties

seeds_of_arms = st.tuples(st.integers(2, 5), st.sampled_from([0, 2, 3, 5]))


@given(st.integers(0, 10**6), seeds_of_arms)
def test_interval_and_p_agree_and_arms_swap(seed, seeds):
    drawn = contrast(seed, seeds)
    test = stats.crossed(drawn)
    assert (test.p < 0.05) == (not test.low <= 0 <= test.high)
    assert test.stderr**2 >= max(test.parts.seeds, test.parts.questions) * (1 - 1e-12)
    swapped = stats.crossed(
        replace(drawn, terms=[t._replace(weight=-t.weight) for t in drawn.terms])
    )
    assert swapped.difference == pytest.approx(-test.difference)
    assert (swapped.low, swapped.high) == pytest.approx((-test.high, -test.low))
    assert swapped.p == pytest.approx(test.p)


@given(st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_the_order_of_seeds_questions_and_facts_does_not_matter(seed, random):
    drawn = contrast(seed, (3, 4))
    questions = {t: random.sample(range(len(c)), len(c)) for t, c in drawn.clusters.items()}
    arms = []
    for arm in drawn.arms:
        rows = random.sample(range(arm.seeds), arm.seeds)
        arms.append(Answers({t: y[rows][:, questions[t]] for t, y in arm.scores.items()}))
    clusters = {t: 7 - 3 * numbers[questions[t]] for t, numbers in drawn.clusters.items()}
    same, other = stats.crossed(drawn), stats.crossed(replace(drawn, arms=arms, clusters=clusters))
    assert (other.difference, other.stderr, other.df, other.p) == pytest.approx(
        (same.difference, same.stderr, same.df, same.p)
    )


@given(st.integers(0, 10**6))
def test_terms_of_one_arm_add_up(seed):
    drawn = contrast(seed)
    halves = [t._replace(weight=t.weight / 2) for t in (*drawn.terms, *drawn.terms)]
    assert stats.crossed(replace(drawn, terms=halves)) == stats.crossed(drawn)


def test_a_copy_of_an_arm_is_no_further_evidence():
    """Two rows of one function: as one arm their mean is as sure as one row, as two it is not."""
    drawn = contrast(5, questions=(40,))
    a, b = drawn.arms
    once = stats.crossed(drawn)
    merged = replace(
        drawn, terms=[t._replace(weight=t.weight / 2) for t in drawn.terms for _ in "ab"]
    )
    copied = Contrast(
        [a, a, b, b],
        [Term(arm, "task0", 0.35 * sign) for arm, sign in enumerate((1, 1, -1, -1))],
        drawn.clusters,
    )
    assert stats.crossed(merged).parts == pytest.approx(once.parts)
    assert stats.crossed(copied).parts.seeds == pytest.approx(once.parts.seeds / 2)


def test_equal_records_are_identical():
    y = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    for test in (stats.crossed(single(y, y)), stats.crossed(single(y[:1], y[:1]))):
        assert (test.identical, test.p, test.interval, test.difference) == (True, 1, (0, 0), 0)
        assert stats.tost(test, 0.01) == 0
        assert stats.least_effect_of(test) == 0
    one = Answers({"task": y})
    against_itself = Contrast([one], [Term(0, "task", 1), Term(0, "task", -1)], {"task": range(4)})
    assert stats.crossed(against_itself).identical
    unequal = stats.crossed(single(y, y[::-1]))
    assert (unequal.identical, unequal.difference) == (False, 0)
    assert unequal.p == 1


def test_a_difference_without_any_variance_is_sure():
    test = stats.crossed(single(np.ones((2, 4)), np.zeros((2, 4))))
    assert (test.difference, test.p, test.interval) == (1, 0, (1, 1))
    assert stats.tost(test, 0.5) == 1


# ------------------------------------------------------------------------- shares of a gain


def gains(arms, clusters=None) -> tuple[Contrast, Contrast]:
    """The gains of the first and of the second arm over the third, on one task."""
    asked = arms[0].scores["task"].shape[1]
    numbers = {"task": np.arange(asked) if clusters is None else clusters}
    part, gain = (
        Contrast(arms, [Term(arm, "task", 1), Term(2, "task", -1)], numbers) for arm in (0, 1)
    )
    return part, replace(gain, arms=part.arms, clusters=part.clusters)


def three(rng, share, gain=0.2, sd=0.01, seeds=(3, 3, 0), questions=120) -> list[Answers]:
    """Arms that keep a share of a gain, have all of it, and start without it. The gains differ by
    question, and the questions are drawn too. 0 seeds: an untuned model."""
    start = rng.uniform(0.2, 0.4, questions)
    whole = gain * rng.uniform(0.5, 1.5, questions)
    kept = share * whole + rng.uniform(-0.05, 0.05, questions)
    arms = []
    for gained, count in zip((kept, whole, 0 * whole), seeds, strict=True):
        chance = start + gained + rng.normal(0, sd, (max(count, 1), 1))
        arms.append(Answers({"task": (rng.random(chance.shape) < chance) * 1.0}, count > 0))
    return arms


def test_a_share_of_three_untuned_models_has_fiellers_interval():
    """By the closed form, from the means and covariances of paired gains."""
    rng = np.random.default_rng(11)
    start, whole, kept = (rng.random(60) * width for width in (0.3, 0.9, 0.8))
    arms = [Answers({"task": y[None]}, seeded=False) for y in (kept, whole, start)]
    found = stats.kept(*gains(arms))
    a, b = (kept - start).mean(), (whole - start).mean()
    (aa, ab), (_, bb) = np.cov(kept - start, whole - start) / 60
    t2 = scipy.stats.t(59).ppf(0.975) ** 2
    middle, below = a * b - t2 * ab, b**2 - t2 * bb
    root = np.sqrt(middle**2 - below * (a**2 - t2 * aa))
    assert found.value == pytest.approx(a / b)
    assert found.bounds == pytest.approx(((middle - root) / below, (middle + root) / below))
    assert found.gain == stats.crossed(gains(arms)[1])


@given(st.integers(0, 10**6), st.floats(0.3, 1.5), st.floats(0.1, 0.25), st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_the_interval_of_a_share_has_what_the_test_does_not_reject(seed, share, gain, asked):
    part, whole = gains(three(np.random.default_rng(seed), share, gain, questions=80))
    found = stats.kept(part, whole)
    assert (found.bounds is None) == (found.gain.low <= 0)
    if found.bounds is not None:
        assert found.bounds.low <= found.value <= found.bounds.high
        terms = [*part.terms, *(t._replace(weight=-asked * t.weight) for t in whole.terms)]
        inside = found.bounds.low <= asked <= found.bounds.high
        assert (stats.crossed(replace(part, terms=terms)).p >= stats.LEVEL) == inside


@pytest.mark.parametrize(("gain", "sd", "seeds"), [(0.2, 0.03, (5, 5, 0)), (0.08, 0.02, (3, 3, 3))])
def test_the_interval_of_a_share_holds_the_truth_in_95_of_100_studies(gain, sd, seeds):
    """An interval without ends holds it too, and where the gain is small, many are such."""
    rng = np.random.default_rng(12)
    found = [stats.kept(*gains(three(rng, 0.9, gain, sd, seeds))) for _ in range(150)]
    holds = [kept.bounds is None or kept.bounds.low <= 0.9 <= kept.bounds.high for kept in found]
    bounded = np.mean([kept.bounds is not None for kept in found])
    assert 0.91 <= np.mean(holds) < 1
    assert bounded > 0.9 if gain == 0.2 else 0.1 < bounded < 0.9


def test_a_share_of_no_gain_has_no_interval():
    rng = np.random.default_rng(16)
    within = stats.kept(*gains(three(rng, 0.9, gain=0.02)))
    assert within.bounds is None and within.gain.low < 0 < within.gain.high
    kept, whole, start = three(rng, 0.5, gain=0.2, seeds=(3, 3, 3), questions=600)
    lost = stats.kept(*gains([kept, start, whole]))
    assert (lost.value, lost.bounds) == (None, None) and lost.gain.high < 0


def test_one_function_keeps_all_of_its_own_gain():
    arms = three(np.random.default_rng(14), 0.9, questions=600)
    contrast_ = gains(arms)[1]
    found = stats.kept(contrast_, contrast_)
    assert (found.value, *found.bounds) == pytest.approx((1, 1, 1))


def test_gains_of_other_records_are_refused():
    rng = np.random.default_rng(15)
    with pytest.raises(ValueError, match="give contrasts of the same arms"):
        stats.kept(gains(three(rng, 1.0))[0], gains(three(rng, 1.0))[1])


# ------------------------------------------------------------------------ one seed, yardsticks


def test_one_seed_needs_a_yardstick_or_compares_models():
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 2, (2, 1, 200))
    with pytest.raises(ValueError, match=r"arm 0 has one seed.*a yardstick for task.*mcnemar"):
        stats.crossed(single(a, b))
    models = stats.of_these_models(single(a, b))
    assert models.p == pytest.approx(scipy.stats.ttest_rel(a[0], b[0]).pvalue)
    assert models.these is None

    own = stats.crossed(single(a, b, yardsticks={"task": Yardstick(0.01**2, 8)}))
    assert own.parts.seeds == pytest.approx(2 * 0.01**2)
    assert own.seeds == 1
    # Both arms share one estimate: it is one part with 8 degrees of freedom, not two.
    alone = (2 * 0.01**2) ** 2 / 8 + own.parts.questions**2 / 199
    assert own.df == pytest.approx(own.stderr**4 / alone)
    assert not own.borrowed
    lent = Yardstick(0.01**2, 8).borrowed(spread=0.25, score=0.5)
    assert stats.crossed(single(a, b, yardsticks={"task": lent})).borrowed


def test_a_yardstick_stands_in_for_one_arm_only_where_needed():
    drawn = contrast(7, (3, 1), questions=(40,))
    arms = [drawn.arms[0], replace(drawn.arms[1], yardsticks={"task0": Yardstick(0.02**2, 5)})]
    test = stats.crossed(replace(drawn, arms=arms))
    means = drawn.arms[0].scores["task0"].mean(axis=1)
    assert test.parts.seeds == pytest.approx(0.49 * (means.var(ddof=1) / 3 + 0.02**2))


def test_a_yardstick_decides_with_four_degrees_of_freedom_and_not_on_loan():
    assert Yardstick(1e-4, 4).decides
    assert not Yardstick(1e-4, 3).decides
    assert not Yardstick(1e-4, 8).borrowed(0.21, 0.6).decides


def test_a_yardstick_is_pooled_within_groups():
    groups = [[0.3, 0.32, 0.31], [0.5], [0.6, 0.61]]
    yardstick = stats.pooled(groups)
    assert yardstick.df == 3
    assert yardstick.variance == pytest.approx((2 * 0.01**2 + 2 * 0.005**2) / 3)
    low, high = yardstick.interval()
    chi2 = scipy.stats.chi2(3)
    assert chi2.sf(3 * yardstick.variance / low**2) == pytest.approx(0.025)
    assert chi2.cdf(3 * yardstick.variance / high**2) == pytest.approx(0.025)


# --------------------------------------------------------------------- the paper's numbers

YARDSTICKS = simulate.yardsticks()


def value(table: int, label: str, column: str) -> float:
    return paper.number(paper.printed(table, label, column))


def read(test: stats.Test) -> tuple[float, ...]:
    return tuple(round(number, 3) for number in (test.difference, *test.interval, test.p / 2))


def test_the_papers_yardsticks():
    found = {
        task: (y.df, round(y.sd, 4), *(round(end, 4) for end in y.interval()), round(y.band, 3))
        for task, y in YARDSTICKS.items()
        if y.own
    }
    assert found == {
        "MMLU": (8, 0.0059, 0.0040, 0.0113, 0.019),
        "MedMCQA": (8, 0.0171, 0.0115, 0.0327, 0.056),
    }


def test_tuning_helps_in_the_paper():
    """Its weakest part: medium MoFE on MedMCQA against the untuned model, which has no run noise."""
    tuned, untuned = (value(1, f"Medium | {m}", "MedMCQA") for m in ("MoFE", "X"))
    test = stats.printed(
        [
            PrintedScore("MedMCQA", tuned, 4183, 1, YARDSTICKS["MedMCQA"]),
            PrintedScore("MedMCQA", untuned, 4183, -1),
        ]
    )
    assert read(test) == (0.064, 0.021, 0.106, 0.003)


def test_sizes_as_runs_make_the_papers_mofe_better_than_lora():
    def mean(method: str, weight: float) -> PrintedScore:
        scores = simulate.paper_runs(method, "MedMCQA")
        return PrintedScore("MedMCQA", np.mean(scores), 4183, weight, YARDSTICKS["MedMCQA"], runs=3)

    means = stats.printed([mean("MoFE", 1), mean("LoRA", -1)])
    assert read(means) == (0.042, 0.006, 0.078, 0.013)
    one_by_one = stats.printed(
        [
            PrintedScore("MedMCQA", score, 4183, weight, YARDSTICKS["MedMCQA"])
            for method, weight in (("MoFE", 1 / 3), ("LoRA", -1 / 3))
            for score in simulate.paper_runs(method, "MedMCQA")
        ]
    )
    assert one_by_one.interval == pytest.approx(means.interval, abs=1e-4)


def test_the_papers_strategies_are_inside_their_noise_even_on_loan():
    best = [
        value(6, f"{row} | Instruction-tuning", "PubMedQA")
        for row in ("TinyLlama", "Medical Expert")
    ]
    lent = YARDSTICKS["PubMedQA"]
    assert lent.sd == pytest.approx(0.020, abs=5e-4)
    test = stats.printed(
        [PrintedScore("PubMedQA", s, 500, w, lent) for s, w in zip(best, (1, -1), strict=True)]
    )
    assert test.borrowed
    assert test.interval == pytest.approx((-0.068, 0.100), abs=1.5e-3)


def test_hours_printed_whole_are_intervals():
    assert stats.ratio_of_printed(6, 6) == pytest.approx((0.846, 1.182), abs=1e-3)
    assert stats.ratio_of_printed(6, 14) == pytest.approx((0.379, 0.481), abs=1e-3)
    assert stats.ratio_of_printed(26, 14) == pytest.approx((1.759, 1.963), abs=1e-3)


# ------------------------------------------------------------------------------ several tests


def found(difference: float, p: float, stderr: float = 1.0, df: float = 10) -> stats.Test:
    nothing = stats.Variances(0, 0, 0)
    return stats.Test(difference, stderr, df, p, 0, 0, None, nothing, 3)


def test_all_parts_are_as_sure_as_the_weakest():
    assert stats.joint([found(1, 0.01), found(1, 0.03)]) == 0.03
    assert stats.joint([found(1, 0.01), found(-1, 0.001)]) == 1
    assert stats.joint([found(1, 0.01), found(0, 1.0)]) == 1


def test_some_part_is_the_best_after_holm():
    tests = [found(1, 0.01), found(-1, 0.001), found(1, 0.5)]
    assert stats.some(tests) == pytest.approx(3 * 0.01)
    assert stats.contradicting(tests) == pytest.approx(3 * 0.001)
    assert stats.contradicting([found(1, 0.01)]) == 1


@given(st.floats(-0.03, 0.03), st.floats(0.001, 0.02), st.floats(2, 200))
def test_equality_is_where_the_interval_of_90_percent_lies_within_the_margin(
    difference, stderr, df
):
    p = stats.tost(found(difference, 1, stderr, df), 0.02)
    low, high = scipy.stats.t(df, difference, stderr).interval(0.9)
    assert (p < 0.05) == (low > -0.02 and high < 0.02)


# ------------------------------------------------------------------------------------- power


def test_the_least_effects_at_paper_scale():
    """With the paper's noise, for three, ten and any number of seeds on new questions."""
    seeds = (3, 10, np.inf)
    least = {
        task: [round(stats.least_effect(sd, 0.4, simulate.QUESTIONS[task], n), 3) for n in seeds]
        for task, sd in simulate.RUN_SD.items()
    }
    assert least == {
        "MMLU": [0.020, 0.012, 0.009],
        "MedMCQA": [0.057, 0.028, 0.017],
        "PubMedQA": [0.073, 0.056, 0.050],
    }


@given(st.integers(2, 30), st.floats(0.002, 0.03), st.sampled_from([0.0, 0.2, 0.4]))
@settings(max_examples=25)
def test_the_least_effect_has_its_power_and_shrinks_with_seeds(seeds, run_sd, item_sd):
    least = stats.least_effect(run_sd, item_sd, 2000, seeds)
    assert stats.power(least, run_sd, item_sd, 2000, seeds) == pytest.approx(0.8, abs=1e-6)
    assert stats.least_effect(run_sd, item_sd, 2000, seeds + 5) < least
    assert stats.power(0, run_sd, item_sd, 2000, seeds) < 0.065


def test_a_yardstick_plans_a_single_run():
    one = stats.least_effect(0.0059, 0.4, 14_042, 1, yardstick_df=8)
    assert one == pytest.approx(0.028, abs=1e-3)
    with pytest.raises(ValueError, match="1 seeds have no variance: plan two or more"):
        stats.power(0.01, 0.0059, 0.4, 14_042, 1)


def test_the_least_effect_of_a_test_is_of_the_noncentral_t():
    test = found(0.01, 0.5, stderr=0.02, df=7)
    least = stats.least_effect_of(test)
    bound = scipy.stats.t(7).ppf(0.975)
    assert scipy.stats.nct(7, least / 0.02).sf(bound) == pytest.approx(0.8, abs=1e-6)
    many = stats.least_effect_of(replace(test, df=float("inf")))
    assert many == pytest.approx(0.02 * (scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)))


# -------------------------------------------------------------------------------- what is refused

Y = np.array([[0.0, 1.0, 1.0]])
REFUSED = {
    r"shapes \{'task': \(3,\)\}: give \(seeds, questions\)": lambda: Answers({"task": Y[0]}),
    "every seed must answer every task": lambda: Answers({"a": Y, "b": np.vstack([Y, Y])}),
    "an untuned model has 2 rows": lambda: Answers({"a": np.vstack([Y, Y])}, seeded=False),
    r"scores of a leave \[0, 1\]": lambda: Answers({"a": Y * np.nan}),
    "names arm 2 of 1": lambda: Contrast([Answers({"a": Y})], [Term(2, "a", 1)], {"a": [1, 2, 3]}),
    "arm 0 has no scores of b": lambda: Contrast([Answers({"a": Y})], [Term(0, "b", 1)], {}),
    "a has no clusters": lambda: Contrast([Answers({"a": Y})], [Term(0, "a", 1)], {}),
    "answered 3 questions of a and 2 have": lambda: Contrast(
        [Answers({"a": Y})], [Term(0, "a", 1)], {"a": [1, 2]}
    ),
    "all questions of a are one cluster": lambda: Contrast(
        [Answers({"a": Y})], [Term(0, "a", 1)], {"a": [1, 1, 1]}
    ),
    "give two equal vectors": lambda: stats.mcnemar(Y[0], Y[0, :2]),
    "neither 0 nor 1": lambda: stats.mcnemar(Y[0], Y[0] / 2),
    "two runs of one function": lambda: stats.pooled([[0.3], []]),
    "has a number that may be 0": lambda: stats.ratio_of_printed(6, 0),
    "each arm needs two or more": lambda: stats.log_ratio([6.0], [7.0, 8.0]),
    "a time of 0 has no logarithm": lambda: stats.log_ratio([6.0, 0.0], [7.0, 8.0]),
    "an arm has 2 seeds: judge them by": lambda: stats.of_these_models(
        single(np.eye(2), np.eye(2))
    ),
    "a claim has no parts": lambda: stats.joint([]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused(sentence):
    with pytest.raises(ValueError, match=sentence):
        REFUSED[sentence]()


def test_importing_it_loads_no_large_library():
    call = "import sys, mofe.report.stats as s; s.holm([0.1, 0.2]); print([m for m in " \
        "('statsmodels', 'pandas', 'scipy.stats', 'torch') if m in sys.modules])"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------ studies whose truth is known


@pytest.fixture(scope="module")
def rates() -> dict:
    """All error rates, simulated anew."""
    return simulate.rates()


@pytest.mark.parametrize("name", [*simulate.CASES, *simulate.RECORD_CASES])
def test_the_crossed_test_keeps_its_size_and_rejects_at_times(rates, name):
    found = {**rates["false positives"], **rates["records"]}[name]
    assert 1.5 <= found["crossed"] <= 6.5


def test_no_other_test_keeps_its_size_everywhere(rates):
    worst = {
        test: max(found[test] for found in rates["false positives"].values())
        for test in simulate.TESTS
    }
    assert {test for test, percent in worst.items() if percent <= 6.5} == {"crossed"}


@pytest.mark.parametrize("task", simulate.QUESTIONS)
def test_one_seed_is_no_verdict_on_methods_but_a_yardstick_is(rates, task):
    found = rates["one seed"][task]
    assert found["McNemar"] > 6.5
    assert max(found[df] for df in ("4", "8", "20")) <= 6.5


def test_whole_verdicts_keep_their_size(rates):
    found = rates["verdicts"]
    size = {
        name: percent
        for name, percent in found.items()
        if name in ("all: one of three parts is null", "some of ten pairs of equal variants")
        or name.startswith("contradicted")
        or name.endswith("but different by that")
    }
    assert len(size) == 3 + len(simulate.EQUAL)
    assert max(size.values()) <= 6.5
    for name, (_, margin) in simulate.EQUAL.items():
        at_margin, equal = (
            found[f"equal within {margin:g}, {name}, {where}"]
            for where in ("but different by that", "and truly equal")
        )
        assert equal > at_margin


def test_power_is_as_computed(rates):
    gaps = {
        (row["task"], row["seeds"], row["effect"]): abs(row["simulated"] - row["computed"])
        for row in rates["power"]
    }
    assert max(gaps.values()) <= 3, max(gaps, key=gaps.get)


def test_the_rates_in_the_docs_are_these(rates):
    """Libraries may round differently; half a point is more than that and less than a change."""

    def flat(node, path=()):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in items:
            if isinstance(inner, dict | list):
                yield from flat(inner, (*path, key))
            else:
                yield (*path, key), inner

    documented = dict(flat(json.loads(simulate.FILE.read_text())))
    anew = dict(flat(rates))
    assert documented.keys() == anew.keys()
    off = {
        key: (value, anew[key])
        for key, value in documented.items()
        if (abs(value - anew[key]) > 0.5 if isinstance(value, float) else value != anew[key])
    }
    assert not off, f"run make error-rates: {off}"
