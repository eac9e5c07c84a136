"""Claims that several studies were asked, each study as one observation."""

import pytest
import scipy.stats
from conftest import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st

from mofe.records import ClaimRecord, Comparison, Judgement
from mofe.report import stats
from mofe.report.replications import markdown, of_studies, of_summary, pool, refuse_twins
from mofe.study.claims import Claim
from mofe.study.load import read_study
from mofe.study.values import ConfigError

PARTS = {"MMLU": [["a", "b"]], "MedMCQA": [["a", "b"], ["a", "c"]]}


def claim(kind="all", **changes) -> Claim:
    ours = {"says": "It is so.", "place": "here", "section": "ours", "in_paper": False}
    return Claim.model_validate(ours | {"table": "Q", "kind": kind, "parts": PARTS} | changes)


def asked(study, differences, verdict="undecided here", kind="all", same=False, **changes):
    """A study's record with these differences of the parts above; None leaves a part out."""
    named = [(column, *rows) for column, pairs in PARTS.items() for rows in pairs]
    parts = [
        Comparison(
            column=column,
            first=first,
            second=second,
            test="crossed",
            difference=difference,
            low=difference - 0.01,
            high=difference + 0.01,
            stderr=0.005,
            df=9.0,
            p=0.5,
            seeds=3,
            identical=same,
        )
        for (column, first, second), difference in zip(named, differences, strict=False)
        if difference is not None
    ]
    whole = {
        "claim": "X",
        "says": "It is so.",
        "quote": None,
        "place": "here",
        "section": "ours",
        "kind": kind,
        "in_paper": False,
        "tables": ("Q",),
        "study": study,
        "scale": "miniature",
        "margin": 0.02,
        "printed": None,
        "printed_again": None,
        "paper_scale": Judgement(verdict="not run"),
        "here": Judgement(verdict=verdict, reason="why", parts=parts),
        "files": (f"results/{study}.json",),
    }
    return ClaimRecord.model_validate(whole | changes)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
@settings(max_examples=200, deadline=None)
def test_studies_are_compared_by_the_t_test_of_one_sample(differences):
    found = stats.replicated(differences)
    if len(set(differences)) == 1 or found.stderr < 1e-9:
        return
    other = scipy.stats.ttest_1samp(differences, 0)
    interval = other.confidence_interval(0.95)
    assert found.p == pytest.approx(other.pvalue, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.df == len(differences) - 1


def test_one_study_is_not_compared():
    with pytest.raises(ValueError, match="1 study has no other"):
        stats.replicated([0.2])


def test_what_every_study_shows_is_shown_of_all_and_what_they_differ_in_is_open():
    alike = [
        asked("one", (0.2, 0.1, 0.3)),
        asked("two", (0.21, 0.11, 0.29)),
        asked("three", (0.19, 0.1, 0.31)),
    ]
    found = pool(claim(), alike)
    assert found.pooled.here.verdict == "same here" and found.pooled.here.p < 0.05
    assert found.pooled.here.summary.column == "MedMCQA"  # the least sure part
    assert found.differences["two"] == (0.21, 0.11, 0.29)
    assert found.pooled.study == "one, two, three" and len(found.pooled.files) == 3
    apart = [
        asked("one", (0.2, 0.1, 0.3)),
        asked("two", (0.2, -0.1, 0.3)),
        asked("three", (0.2, 0.3, 0.3)),
    ]
    assert pool(claim(), apart).pooled.here.verdict == "undecided here"
    other = [asked(r.study, [-p.difference for p in r.here.parts]) for r in alike]
    assert pool(claim(), other).pooled.here.verdict == "other way here"


def test_a_mean_is_taken_in_each_study_first():
    found = pool(
        claim("mean"),
        [asked("one", (0.0, 0.1, 0.2), kind="mean"), asked("two", (0.2, 0.1, 0.0), kind="mean")],
    )
    assert found.pooled.here.summary.difference == pytest.approx(0.1)
    assert of_summary(found) == pytest.approx([0.1, 0.1])


def test_equality_needs_every_part_within_the_margin_in_all_studies():
    near = [
        asked(name, (d, -d, d), kind="equal")
        for name, d in (("one", 0.001), ("two", 0.0), ("three", 0.002))
    ]
    assert pool(claim("equal"), near).pooled.here.verdict == "no difference here"
    exact = [asked(n, (0.0, 0.0, 0.0), "exact", "equal", same=True) for n in ("one", "two")]
    assert pool(claim("equal"), exact).pooled.here.verdict == "exact"


def test_parts_that_one_study_has_once_for_equal_rows_are_left_out():
    found = pool(claim(), [asked("one", (0.2, 0.1, 0.3)), asked("two", (0.2, 0.1, None))])
    assert len(found.pooled.here.parts) == 2


def test_a_study_that_was_not_asked_leaves_all_unasked():
    stuck = asked("two", (), "cannot be asked here")
    found = pool(claim(), [asked("one", (0.2, 0.1, 0.3)), stuck]).pooled.here
    assert found.verdict == "cannot be asked here" and found.reason == "two: why"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"study": "one"}, "two studies are called 'one'"),
        ({"margin": 0.01}, "margin is 0.02 in the study one and 0.01 in two"),
        ({"kind": "equal"}, "kind is 'all' in the study one and 'equal' in two"),
        ({"says": "Less."}, "says is '.*' in the study one and 'Less.' in two"),
        ({"scale": "other"}, "scale is 'miniature' in the study one and 'other' in two"),
    ],
)
def test_only_what_is_alike_is_compared(other, message):
    one = asked("one", (0.2, 0.1, 0.3))
    records = [one, one.model_copy(update={"study": "two"} | other)]
    with pytest.raises(ValueError, match=message):
        pool(claim(), records)


def test_one_study_under_two_names_is_refused():
    one, two = asked("one", (0.2, 0.1, 0.3)), asked("two", (0.2, 0.1, 0.4))
    refuse_twins(of_studies([pool(claim(), [one, two])]))
    again = one.model_copy(update={"study": "again"})
    with pytest.raises(ValueError, match=r"the studies one and again .* one study under two names"):
        refuse_twins(of_studies([pool(claim(), [one, two, again])]))
    exact = [asked(n, (0.0, 0.0, 0.0), "exact", "equal", same=True) for n in ("one", "two")]
    refuse_twins(of_studies([pool(claim("equal"), exact)]))


def test_p_is_corrected_over_the_replicated_claims_of_a_section():
    studies = [
        asked("one", (0.2, 0.1, 0.3)),
        asked("two", (0.21, 0.12, 0.29)),
        asked("three", (0.19, 0.08, 0.31)),
    ]
    one = pool(claim(), studies)
    two = pool(claim(), [r.model_copy(update={"claim": "Y"}) for r in studies])
    found = of_studies([one, two])
    assert [c.pooled.here.p_holm for c in found.claims] == pytest.approx(
        [2 * one.pooled.here.p] * 2
    )
    page = markdown(found)
    assert "Studies: one, two, three" in page and "+10.0, +12.0, +8.0" in page


def study(**replications):
    return read_study(CONFIG, results="results/x", replications=replications)


@pytest.mark.parametrize(
    ("replications", "message"),
    [
        ({"claims": ["C8", "C99"]}, "no claim is called 'C99'"),
        ({"claims": ["C1"]}, "C1 is of kind 'count'"),
        ({"claims": ["C8"], "results": ["results/x"]}, "results/x is this study's own"),
        ({"claims": ["C8"], "results": ["a", "a"]}, "a is this study's own or named twice"),
        ({"claims": []}, "replications.claims"),
        ({"claims": ["C8", "C9", "C8"]}, "'C8' stands there twice; name each claim once"),
    ],
)
def test_a_configuration_names_claims_on_scores_and_other_folders(replications, message):
    with pytest.raises(ConfigError, match=message):
        study(**replications)


def test_claims_about_tables_on_demand_are_compared_in_a_study_that_goes_beyond():
    files = (CONFIG, CONFIG.parent / "profiles" / "questions.yaml")
    replications = {"claims": ["E3c"], "results": ["elsewhere"]}
    with pytest.raises(ConfigError, match="E3c is about table E3, which is made on demand"):
        read_study(*files, replications=replications)
    assert read_study(*files, replications=replications, beyond=True).replications.results
    assert read_study(*files, replications={"claims": ["E3c"]}).replications.claims
