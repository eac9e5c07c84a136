"""Other contents of a folder that no job makes rerun what is made from it, and nothing else does."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import CONFIG, save_llama, snakemake

from mofe.data import mirror
from mofe.jobs.contents import Contents
from mofe.models import load
from mofe.report import figures
from mofe.study.graph import ALL, Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan

OWN = {
    "study": "own",
    "device": "cpu",
    "time_unit": "seconds",
    "sources": {"set": {"repo": "lab/set", "revision": "main"}},
    "data": {"set": {"source": "set", "split": "train", "task": "set", "rows": "full"}},
    "tasks": {
        "set": {
            "harness": ["mofe_mcq"],
            "source": "set",
            "columns": {"question": "ask", "options": ["x", "y"], "answer": "right"},
            "split": "test",
        }
    },
    "mixtures": {"pair": {"base": "ours", "experts": {"ours": 2}}},
    "tables": {
        **dict.fromkeys(range(1, 8)),
        "own": {
            "caption": "One row.",
            "labels": ["Model"],
            "columns": {"Score": "set"},
            "rows": {"Tuned": {"mixture": "pair", "train": {"set": "mofe"}}},
        },
    },
}
ROWS = "ask,x,y,right\nIs {} hot?,yes,no,A\n"


@pytest.fixture
def own(tmp_path, tiny) -> Path:
    """A study of one row, with a mirror and a model of a path; its overlay is own.yaml."""
    folder = tmp_path / "mirror/lab/set"
    folder.mkdir(parents=True)
    for split, what in (("train", "fire"), ("test", "ice")):
        (folder / f"{split}.csv").write_text(ROWS.format(what))
    save_llama(tmp_path / "ours", load.tokenizer(tiny / "a"))
    gates = {"positive": [["fire"], ["ice"]]}
    study = {
        **OWN,
        "results": f"{tmp_path}/results",
        "mirror": f"{tmp_path}/mirror",
        "models": {"ours": {"path": f"{tmp_path}/ours", "gates": gates}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    return tmp_path


def identities(own: Path) -> dict[tuple, dict]:
    plan = Plan(read_study(CONFIG, own / "own.yaml"))
    graph = Graph(plan, figures.inputs(plan))
    found = Contents(graph, own / "results/contents.json")
    given = {
        (job.rule, *job.wildcards.values()): found.of(job.rule, job.wildcards)
        for job in graph.jobs
        if job.rule != ALL
    }
    found.remember()
    return given


def changed(own: Path, before: dict[tuple, dict]) -> set[str]:
    """The rules whose jobs are given another identity than before."""
    return {key[0] for key, read in identities(own).items() if read != before[key]}


READ_ROWS = {"prepare_data", "questions"}
READ_MODELS = {"merge", "train", "evaluate", "questions"}


def test_what_reads_a_folder_is_given_its_files_identity(own):
    before = identities(own)
    assert {
        rule for (rule, *_), read in before.items() if any(read.values())
    } == READ_ROWS | READ_MODELS
    file = own / "mirror/lab/set/train.csv"
    was = file.stat()

    file.write_text(ROWS.format("gold"))  # as long as before
    os.utime(file, (was.st_atime - 9, was.st_mtime - 9))  # and older, as a copy may be
    assert changed(own, before) == READ_ROWS
    file.write_text(ROWS.format("fire"))
    os.utime(file, (was.st_atime, was.st_mtime))
    assert not changed(own, before)

    (file.parent / "train-2.csv").write_text(ROWS.format("tin"))
    assert changed(own, before) == READ_ROWS
    (file.parent / "train-2.csv").unlink()

    weights = own / "ours/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)  # in place: the folder's own time stays
    os.utime(weights, (1, 1))
    assert changed(own, before) == READ_MODELS


def test_a_copy_that_keeps_times_is_the_same_and_links_are_followed(own):
    before = identities(own)
    shutil.copytree(own / "mirror", own / "copy")  # with times, as cp -a
    shutil.rmtree(own / "mirror")
    (own / "mirror").symlink_to(own / "copy")
    assert not changed(own, before)
    (own / "copy/lab/set/loop").symlink_to(own / "copy/lab")
    assert not changed(own, before), "a link that leads back holds no other file"
    (own / "copy/lab/set/test.csv").write_text(ROWS.format("snow"))
    assert changed(own, before) == READ_ROWS


def test_a_mirror_that_is_gone_changes_nothing(own):
    before = identities(own)
    shutil.rmtree(own / "mirror")
    assert not changed(own, before)
    os.remove(own / "results/contents.json")
    assert changed(own, before) == READ_ROWS


@pytest.mark.parametrize("content", [b"", b'{"lab/set": ', b"[]", b"\xff\x00"])
def test_damaged_notes_of_contents_are_one_sentence(own, content):
    (own / "results").mkdir()
    (own / "results/contents.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"results/contents.json: the file is damaged; delete it"):
        identities(own)


def test_a_link_that_leads_nowhere_is_told_when_it_is_read(tmp_path):
    (tmp_path / "train.csv").symlink_to(tmp_path / "none")
    assert mirror.identity(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train.csv is a link that leads nowhere"):
        mirror.files(tmp_path)


def test_a_training_set_is_made_again_of_other_contents(own):
    """In the workflow: once for other contents, and not for the same."""
    file, rows = own / "mirror/lab/set/train.csv", own / "results/data/set.parquet"
    run = ["--cores", "1", "--configfile", str(CONFIG), str(own / "own.yaml")]

    def due(*more: str) -> bool:
        done = snakemake(*run, *more, "--", str(rows))
        return "rule prepare_data" in done.stdout + done.stderr

    assert due()
    kept = json.loads((own / "results/contents.json").read_text())
    assert kept["lab/set"] == mirror.identity(file.parent)
    shutil.copy2(file, own / "kept.csv")
    was = file.stat()
    file.write_text(ROWS.format("gold"))
    os.utime(file, (was.st_atime, was.st_mtime - 3600))
    assert due("-n")
    shutil.copy2(own / "kept.csv", file)
    assert not due("-n")
