"""The tutorial docs/first-study.md holds: its file and its commands, at the sizes of the reduced study."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REDUCED, ROOT, snakemake
from test_workflow import jobs

PAGE = (ROOT / "docs" / "first-study.md").read_text()
(OVERLAY,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^    snakemake (.*)$", PAGE, flags=re.MULTILINE)
PLAN, RUN, AGAIN, AT_SCALE_PLAN, AT_SCALE = COMMANDS


class First:
    """The reader's file, and the page's commands on it with results in a folder of the test's."""

    def __init__(self, folder: Path):
        self.file, self.results = folder / "first.yaml", folder / "results"
        self.file.write_text(OVERLAY)

    def call(self, command: str, *more: str, check: bool = True):
        """A command of the page. In miniature it gets the reduced study's sizes."""
        words = shlex.split(command.replace("results/first", str(self.results)))
        at = words.index("first.yaml")
        words[at : at + 1] = [*([REDUCED] if "profiles/mini" in command else []), self.file]
        if "--config" not in words:
            words += ["--config", f"results={self.results}"]
        words[words.index("--config") : words.index("--config")] = more
        return snakemake(*map(str, words), check=check)

    def change(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert text.count(old) == 1
        self.file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> First:
    return First(tmp_path_factory.mktemp("first"))


def test_the_page_says_how_many_jobs_there_are(first):
    planned = jobs(first.call(PLAN).stdout)
    assert (planned["pretrain"], planned["merge"]) == (1, 1)
    assert (planned["train"], planned["evaluate"]) == (6, 7)


def test_a_wrong_name_starts_no_job(first):
    first.change("  none: {mixture: small}", "  none: {mixture: smal}")
    said = first.call(RUN, check=False)
    first.change("  none: {mixture: smal}", "  none: {mixture: small}")
    assert said.returncode == 1
    assert re.search(
        r"tables\.8\.rows\.none\.mixture \(.*first\.yaml:\d+\): 'smal' .* did you mean 'small'\?",
        said.stdout + said.stderr,
    )
    assert not first.results.exists()


def test_the_table_the_verdict_and_the_report_are_there_and_nothing_is_left_to_do(first):
    first.call(RUN)
    table = (first.results / "table8.md").read_text()
    assert all(f"| {row} |" in table for row in ("none", "LoRA, rank 8", "LoRA, rank 32", "MoFE"))
    for name in ("table8.tex", "table8.csv", "claims/rank.json", "report.html"):
        assert (first.results / name).is_file()

    first.change("rank: 32, alpha: 64", "rank: 16, alpha: 32")
    changed = jobs(first.call(AGAIN).stdout)
    assert (changed["train"], changed["evaluate"]) == (2, 2)
    assert not {"pretrain", "merge", "world", "prepare_data"} & set(changed)
    first.change("rank: 16, alpha: 32", "rank: 32, alpha: 64")
    assert "Nothing to be done" in first.call(AGAIN).stdout


def test_the_same_file_is_planned_at_the_papers_scale(first):
    planned = jobs(first.call(AT_SCALE, "-n").stdout)
    assert (planned["train"], planned["evaluate"]) == (6, 7)
    first.call(AT_SCALE_PLAN)
    assert "GPU-hours" in Path(f"{first.results}-paper", "plan.md").read_text()
