"""The pilot: Tables 1 and 7 on one GPU, and a report that says what it is."""

import pytest
from conftest import CONFIG, ROOT, snakemake
from test_workflow import jobs

from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

PILOT = ROOT / "profiles" / "pilot" / "study.yaml"


def test_the_pilots_jobs(tmp_path):
    here = ["--config", f"results={tmp_path}", f"hub={tmp_path}/hub"]
    done = snakemake("--profile", "profiles/pilot", "-n", *here)
    expected = {
        "fetch_repository": 3,
        "fetch_model": 1,
        "prepare_data": 2,
        "merge": 3,
        "train": 10,
        "questions": 2,
        "evaluate": 21,
    }
    judged = {"claim": len(read_study(CONFIG, PILOT).claims), "claims": 1}
    shown = {"table": 2, "figure": 6, "report": 1, "all": 1}
    assert jobs(done.stdout) == expected | judged | shown


def test_the_pilot_is_the_papers_study_in_small():
    paper, pilot = read_study(CONFIG), read_study(CONFIG, PILOT)
    assert pilot.tables.keys() == {1, 7}
    assert pilot.notes[0].startswith("This is a pilot")
    assert (pilot.models, pilot.tasks, pilot.recipes) == (paper.models, paper.tasks, paper.recipes)
    assert (pilot.scoring, pilot.device) == ("letter", "cuda")
    trained = [v.key for v in Plan(pilot).trained.values()]
    assert len(trained) == 10 and not [k for k in trained if "8tiny" in k and "_full" in k]
    assert pilot.tables[1].rows.items() <= paper.tables[1].rows.items()
    assert paper.tables[1].rows.keys() - pilot.tables[1].rows.keys() == {"Large | Full"}
    assert pilot.tables[7] == paper.tables[7]


def test_a_study_needs_a_table():
    with pytest.raises(ConfigError, match="tables"):
        read_study(CONFIG, tables=dict.fromkeys(read_study(CONFIG).tables))
