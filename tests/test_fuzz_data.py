"""A small part of the fuzz of data files (tests/fuzz_data.py; all of it: make fuzz)."""

import pytest
from fuzz_data import case, fault, main

SEEDS = 120


def test_files_are_read_as_they_are_written_or_refused(capsys):
    assert main(SEEDS, 0) == 0, capsys.readouterr().out


def test_the_part_has_every_format_whole_and_damaged_and_reads_most_that_is_whole(tmp_path):
    cases = [case(seed) for seed in range(SEEDS)]
    assert {(c.kind, c.questions is None) for c in cases} == {
        (kind, damaged) for kind in ("delimited", "jsons", "parquet") for damaged in (False, True)
    }
    whole = [c for c in cases if c.questions is not None]
    assert sum(not c.may_refuse for c in whole) > len(whole) / 2


@pytest.mark.parametrize("change", ["ask", "options", "gold"])
def test_another_question_than_was_written_is_a_fault(tmp_path, change):
    """The comparison itself."""
    made = next(c for c in map(case, range(100)) if c.questions and not c.may_refuse)
    assert fault(made, tmp_path / "a") is None
    question = made.questions[0]
    other = {"ask": "other", "options": [*question.options, "more"], "gold": question.gold + 1}
    setattr(question, change, other[change])
    assert fault(made, tmp_path / "b").startswith("read ")
