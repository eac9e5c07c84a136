"""Standard errors of scores whose questions are alike."""

import math
import statistics

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.metrics import mean_stderr

from mofe import clusters

scored = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from("abcdefgh")), min_size=3, max_size=60
).filter(lambda pairs: len({name for _, name in pairs}) > 1)


@given(scored)
def test_the_error_is_statsmodels_cluster_robust_one(pairs):
    scores, names = map(list, zip(*pairs, strict=True))
    numbers = clusters.numbered(names)
    # its factor is G / (G - 1) * (n - 1) / (n - k), and a mean has k = 1
    fit = sm.OLS(scores, np.ones(len(scores))).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(numbers)}
    )
    assert clusters.standard_error(scores, names) == pytest.approx(fit.bse[0], abs=1e-12)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=60))
def test_alone_every_question_gives_lm_evals_error(scores):
    alone = clusters.numbered([None] * len(scores))
    error = clusters.standard_error(scores, alone)
    assert error == pytest.approx(mean_stderr(scores), abs=1e-15)
    assert error == pytest.approx(statistics.stdev(scores) / math.sqrt(len(scores)), abs=1e-15)


@given(scored, st.integers(2, 4))
def test_repeated_questions_tell_nothing_new(pairs, times):
    """Each question asked several times has the error of asking it once."""
    once = [score for score, _ in pairs]
    names = clusters.numbered([None] * len(once))
    error = clusters.standard_error(once, names)
    assert clusters.standard_error(once * times, names * times) == pytest.approx(error, abs=1e-12)


def test_nothing_is_like_a_question_without_a_cluster():
    assert clusters.numbered(["x", None, "y", "x", None, ""]) == [0, 1, 2, 0, 3, 4]


def test_one_cluster_has_no_error():
    with pytest.raises(ValueError, match="only one cluster"):
        clusters.standard_error([0, 1, 1], "xxx")
