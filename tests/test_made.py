"""Results without Snakemake's notes: what was made with other settings is named, never shown."""

import json
import re
import shutil

import pytest

from mofe import records
from mofe.jobs import job, made
from mofe.records import EvalRecord, TrainRecord

STALE = "made with other settings than the configuration has now"
TRAINED = "variants/tinyllama_2tinyllama/medmcqa_lora/s0/train.json"
EVALUATED = "evals/tinyllama_2tinyllama/medmcqa_lora/s0/medmcqa.json"
# What is changed, and what is named.
CHANGES = {
    "a method": ({"recipes": {"lora": {"rank": 4}}}, TRAINED),
    "how many rows are drawn": ({"data": {"medmcqa": {"rows": 60}}}, "data/medmcqa.parquet"),
    "the world": ({"world": {"seed": 5}}, "world"),
    "questions": ({"shots": 1}, "questions/tinyllama/medmcqa.parquet"),
    "a router's prompts": (
        {"models": {"tinyllama": {"gates": {"negative": ["Which crop"]}}}},
        "moe/tinyllama_2tinyllama",
    ),
    "a caption": ({"tables": {"own": {"caption": "Another."}}}, "tableown.tex"),
}


def test_a_copy_without_notes_is_done_and_says_what_another_key_makes_stale(copies):
    copy = copies.copy("copy")
    told = copies.call(copy, "-n")
    assert "Nothing to be done" in told and STALE not in told
    for overlay, file in CHANGES.values():
        told = copies.call(copy, "-n", overlay=overlay)
        named = re.search(rf"^(\S+): {STALE}.*--forcerun (\S+) -- (\S+)$", told, re.MULTILINE)
        assert named and named[1] == named[2] == f"{copy}/{file}"
        assert named[3] == f"{copy}/tableown.csv"
    none = copies.call(copy, "-n", overlay={"hardware": {"gpus_per_node": 2}, "notes": ["x"]})
    assert "Nothing to be done" in none and STALE not in none


def test_a_run_refuses_what_is_stale_and_its_command_makes_it_again(copies):
    copy = copies.copy("stale")
    overlay, file = CHANGES["a method"]
    before = (copy / "tableown.csv").read_bytes()
    assert f"{copy}/{file}: {STALE}" in copies.call(copy, overlay=overlay, code=1)
    assert (copy / "tableown.csv").read_bytes() == before
    copies.call(copy, "--forcerun", f"{copy}/{file}", overlay=overlay)
    trained = records.read(copy / TRAINED, TrainRecord)
    old = records.read(copies.folder / "results" / TRAINED, TrainRecord)
    assert trained.trainable_parameters < old.trainable_parameters
    assert trained.config_hash != old.config_hash
    assert "Nothing to be done" in copies.call(copy, overlay=overlay)


def test_without_the_logs_the_records_tell(copies):
    copy = copies.copy("records")
    shutil.rmtree(copy / "logs")
    told = copies.call(copy, "-n", overlay=CHANGES["a method"][0])
    assert f"{copy}/{TRAINED}: {STALE}" in told


def test_a_job_refuses_a_stale_input_by_name(copies, capfd):
    """Also where Snakemake would run it, such as a table of a record that was put there."""
    file = copies.folder / "results" / EVALUATED
    planned = records.read(file, EvalRecord).config_hash
    fresh = {"file": str(file), "notes": (str(file),), "config_hash": planned}
    fresh |= {"again": (str(file),), "command": "snakemake --cores all"}
    stale = {**fresh, "config_hash": "0" * 64}
    made.refuse([fresh])
    told = (
        rf"^\S+medmcqa.json: {STALE}; make it again, .*: snakemake --cores all --forcerun "
        r"\S+medmcqa.json -- \S+medmcqa.json$"
    )
    with pytest.raises(made.MadeOtherwise, match=told):
        made.refuse([fresh, stale])
    work = job.Job("mofe.units:size", {"count": 1}, "table own", read=(stale,))
    assert job.execute(work) == 1
    assert "table own: MadeOtherwise: " in capfd.readouterr().err


def test_of_what_has_no_note_nothing_is_known(tmp_path):
    log, record = tmp_path / "a.log", tmp_path / "a.json"
    notes = (str(record), str(log))
    assert made.recorded(notes) is None
    log.write_text("working\n")
    assert made.recorded(notes) is None
    log.write_text('working\n{"job": "a", "config_hash": "' + "1" * 64 + '", "seconds": {}}\n')
    assert made.recorded(notes) == "1" * 64
    record.write_text(json.dumps({"n": 1, "config_hash": "2" * 64}))
    assert made.recorded(notes) == "2" * 64, "the record before the log"
    record.write_bytes(b"\xff\x00")
    assert made.recorded(notes) == "1" * 64, "what is no text has no note"


def test_both_training_times_are_shown_and_told_apart(copies):
    text = (copies.folder / "results" / "tableown.md").read_text()
    assert "GPU time(s) is of all GPUs that computed a row together, added up (GPU-hours); " in text
    assert "Time(s) is by the clock, however many GPUs computed a row together." in text


def test_every_job_of_a_run_ends_its_log_with_its_hash(copies):
    logs = list((copies.folder / "results" / "logs").rglob("*.log"))
    assert len(logs) == 8
    hashes = [json.loads(log.read_text().splitlines()[-1])["config_hash"] for log in logs]
    assert len(set(hashes)) == 8 and all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)
