"""The table of docs/claims.md: every claim with what its verdict costs at the paper's scale."""

from collections.abc import Callable
from pathlib import Path

from mofe import markdown
from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.report import figures
from mofe.study.load import read_study
from mofe.study.plan import Plan

ROOT = Path(__file__).parents[2]


def table() -> str:
    """Every claim: its sentence, its tables, its kind, and the GPU-hours of one seed by the
    plan."""
    # no run has been finished below this folder, so that nothing measured enters the estimates
    study = read_study(ROOT / "config.yaml", results="results/none")
    plan = Plan(study)
    needed = forecast(Costs(plan), figures.inputs(plan)).claims
    rows = [
        (
            name,
            markdown.plain(claim.says),
            ", ".join(map(str, claim.tables())),
            f"`{claim.kind}`",
            f"{needed[name].gpu_hours:.1f}",
        )
        for name, claim in study.claims.items()
    ]
    heads = ("Claim", "It says", "Table", "Kind", "GPU-hours")
    return markdown.table(heads, rows, "llllr", padded=False)


PARTS: dict[tuple[str, str], Callable[[], str]] = {("docs/claims.md", "claims"): table}
