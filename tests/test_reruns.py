"""What a change makes again: every key is in the table of docs/workflow.md, and few change nothing.

tests/test_docs.py holds the table up to date; tests/test_workflow.py compares it with Snakemake.
"""

import re
import sys

from conftest import CONFIG, LOOK, ROOT
from test_given import identities

sys.path.append(str(ROOT / "docs" / "generate"))

import reruns as generated

from mofe.study import reruns


def rows() -> dict[str, set[str]]:
    """By key, the rules that the page names."""
    page = (ROOT / "docs" / "workflow.md").read_text()
    part = page.split("<!-- begin edits -->")[1].split("<!-- end edits -->")[0]
    pairs = [line.strip("| ").split(" | ") for line in part.strip().splitlines()[2:]]
    return {
        key: set(re.findall(r"`(\w+)`", rules))
        for keys, rules in pairs
        for key in re.findall(r"`([^`]+)`", keys)
    }


def test_every_key_of_the_configuration_is_in_the_table():
    assert rows().keys() == generated.every_key()


def test_only_what_estimates_exports_and_watchers_state_changes_nothing():
    nothing = {key for key, rules in rows().items() if not rules}
    shapes = {key for key in rows() if re.match(r"models\.\*\.shape\b", key)}
    estimated = {f"hardware.{key}" for key in ("gpu", "gpus_per_node", "utilisation", "starting")}
    estimated |= {"data.*.tokens", "tasks.*.tokens", "tasks.*.generated"}
    stated = {"export.license", "export.push", "notify", "track"}
    assert nothing == shapes | estimated | stated


def test_equal_configurations_make_nothing_again(tmp_path):
    one, two = identities(CONFIG, LOOK), identities(CONFIG, LOOK)
    assert reruns.first(one, two) == set()
    moved = identities(CONFIG, LOOK, results=str(tmp_path))
    assert {job.rule for job in moved.graph.jobs} > reruns.first(one, moved) >= {"train", "table"}


def test_what_reads_a_merge_computes_with_it():
    read = reruns.readers(identities(CONFIG, LOOK))
    assert read["merge"] == {"train", "evaluate"} and read["figure"] == {"report"}
