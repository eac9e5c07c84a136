"""README's findings: the paper's own numbers tested again, from its tables alone."""

from pathlib import Path

from mofe.markdown import plain
from mofe.report import correction
from mofe.report.claims import tested_again
from mofe.study.load import read_study

ROOT = Path(__file__).parents[2]
OTHERS = "The others may be true or not: the paper's numbers cannot tell"
BEYOND = ("exact", "beyond its noise")


def printed() -> str:
    """The counts, the claims that are beyond the noise of the paper's numbers, and the others."""
    judged = correction.of_paper(read_study(ROOT / "config.yaml").claims)
    papers = {name: found for name, found in judged.items() if found[0].in_paper}
    said = {name: f"- {plain(claim.says)} ({name})" for name, (claim, _, _) in papers.items()}
    beyond = [said[name] for name, (_, found, _) in papers.items() if found.verdict in BEYOND]
    others = [line for line in said.values() if line not in beyond]
    return "\n".join(
        [
            tested_again(correction.counted(found for _, found, _ in papers.values())),
            "Beyond it are:",
            "",
            *beyond,
            "",
            f"<details><summary>{OTHERS}</summary>",
            "",
            *others,
            "",
            "</details>",
        ]
    )


PARTS = {("README.md", "printed"): printed}
