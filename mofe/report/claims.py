"""The files of claims: one JSON per claim, and all of them as JSON, CSV, Markdown and LaTeX.

Every line that shows a study's verdict names the study and its scale, so that none can be read as a
verdict at the paper's scale by mistake.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mofe import paper, records
from mofe.files import write_atomic
from mofe.markdown import plain
from mofe.markdown import table as markdown_table
from mofe.records import (
    ClaimRecord,
    ClaimsRecord,
    Comparison,
    Judgement,
    KeptShare,
    LeastEffect,
)
from mofe.report import correction
from mofe.report.judge import Conditions, judge
from mofe.study.claims import Claim
from mofe.study.tables import Table
from mofe.templates import render
from mofe.units import MINUS

PRINTED = "The paper's numbers"
PAPER_SCALE = "Paper scale"
COLUMNS = (  # of claims.csv
    *("claim", "section", "in_paper", "says", "asked_of", "study", "scale"),
    *("verdict", "p", "p_holm", "first", "second", "column", "difference", "low", "high"),
    *("these_low", "these_high", "seeds", "test", "least", "reason"),
    *("share", "share_low", "share_high"),
)
RATIOS = ("rounding", "log ratio")  # tests whose difference is a ratio
_TEMPLATE = Path(__file__).with_name("claims.tex.jinja")


def write_one(
    name: str,
    claim: Mapping[str, Any],
    tables: Sequence[Table] | None,
    conditions: Mapping[str, Any],
    world: str | None,
    out: str | os.PathLike,
) -> str:
    """Judge a claim and write its JSON; returns a line for the user. Raises as judge.judge.

    claim: the configuration's. tables: as in judge.judge. conditions: study, scale, margin and
    exclusive. world: the generated world's folder, whose ceilings are known.
    """
    known = json.loads(Path(world, "world.json").read_text()) if world else {"ceilings": {}}
    found = judge(
        name,
        Claim.model_validate(claim),
        tables,
        Conditions(**conditions, ceilings=known["ceilings"]),
    )
    records.write(out, found)
    return (
        f"{name}: {(found.here or found.paper_scale).verdict} ({found.study}, {found.scale} scale)"
    )


def write_all(
    claims: Sequence[str | os.PathLike],
    seeds: int,
    json: str | os.PathLike,
    csv: str | os.PathLike,
    md: str | os.PathLike,
    tex: str | os.PathLike,
) -> str:
    """Correct all claims of a study and write them. claims: the JSON of each, in order; seeds: the
    number of the study's seeds. Returns a line for the user."""
    found = correction.correct([records.read(file, ClaimRecord) for file in claims], seeds)
    texts = {csv: to_csv(found), md: markdown(found), tex: latex(found)}
    records.write(json, found)
    for path, text in texts.items():
        write_atomic(path, text)
    return sentence(found)


def write_paper(claims: Mapping[str, Mapping[str, Any]], out: str | os.PathLike) -> str:
    """Test the paper's own numbers again, from its tables alone, and write the verdicts as
    Markdown. claims: the configuration's, by name. Returns a line for the user."""
    judged = correction.of_paper({name: Claim.model_validate(c) for name, c in claims.items()})
    rows = [
        (name, claim.section, plain(claim.says), verdict.verdict, *numbers(verdict), _again(again))
        for name, (claim, verdict, again) in judged.items()
    ]
    heads = (
        "Claim",
        "Section",
        "It says",
        "Verdict",
        "Weakest part [95%]",
        "p",
        "p (Holm)",
        "Note",
    )
    counts = correction.counted(verdict for claim, verdict, _ in judged.values() if claim.in_paper)
    text = "\n\n".join(
        (
            "# The paper's own numbers, tested again",
            tested_again(counts)
            + " Nothing was trained for this page: it is computed from the printed "
            "tables. docs/statistics.md says how.",
            markdown_table(heads, rows, "lllllrrl", padded=False),
        )
    )
    write_atomic(out, text + "\n")
    return tested_again(counts)


# ------------------------------------------------------------------------------------ in words


def tested_again(counts: Mapping[str, int]) -> str:
    """The verdicts on the paper's own numbers in one sentence."""
    exact, beyond = counts.get("exact", 0), counts.get("beyond its noise", 0)
    total = sum(counts.values())
    return (
        f"The paper's own numbers, tested against their own noise: {exact + beyond} of {total} "
        f"claims are beyond it ({exact} of them exact), {counts.get('inside its noise', 0)} inside "
        "it."
    )


def sentence(claims: ClaimsRecord) -> str:
    """The headline: the paper's own numbers, and its scale. No other study is counted."""
    counts = claims.paper_scale_counts
    total, missing = sum(counts.values()), counts.get("not run", 0)
    said = [f"{n} {verdict}" for verdict, n in counts.items() if verdict != "not run"]
    run = (
        f"At the paper's scale: {', '.join(said)}" if said else "At the paper's scale: not run yet"
    )
    return f"{tested_again(claims.printed_counts)} {run} ({total - missing} of {total})."


def here(claims: ClaimsRecord) -> str:
    """What the study's own column is called."""
    if claims.scale == "miniature":
        return f"In the miniature “{claims.study}” (an invented world: no evidence about TinyLlama)"
    return f"In the study “{claims.study}” (not the paper's scale)"


def points(fraction: float) -> str:
    """A difference of scores in points of accuracy, with its sign: "+1.4"."""
    return f"{100 * fraction:+.1f}".replace("-", MINUS)


def study_verdict(claim: ClaimRecord) -> Judgement:
    """What the study itself says: at the paper's scale this is the second column."""
    return claim.here if claim.here is not None else claim.paper_scale


def in_points(part: Comparison) -> bool:
    """Whether what is shown of a part is a difference of scores."""
    return part.kept is None and part.test not in (*RATIOS, "count")


def shown(part: Comparison) -> str:
    """A comparison's size with its interval: points of accuracy, a share, a ratio, or a count."""
    if part.kept is not None:
        return _share(part.kept)
    if part.test in RATIOS:
        return f"×{part.difference:.2f} [{part.low:.2f}, {part.high:.2f}]"
    if part.test == "count":
        return f"{part.difference:+,.0f}".replace("-", MINUS)
    return f"{points(part.difference)} [{points(part.low)}, {points(part.high)}]"


def _share(kept: KeptShare) -> str:
    """A share of a gain in percent. Where the gain is inside its noise, it has no interval."""
    gain = f"{points(kept.gain)} [{points(kept.gain_low)}, {points(kept.gain_high)}]"
    if kept.value is None:
        return f"no share: the whole gain is {gain}"
    if kept.low is None or kept.high is None:
        return f"{percent(kept.value)} of {gain}, without an interval"
    return f"{percent(kept.value)} [{percent(kept.low)}, {percent(kept.high)}] of the gain"


def percent(fraction: float) -> str:
    """A share in whole percent: "94%"."""
    return f"{100 * fraction:,.0f}%".replace("-", MINUS)


def against(part: Comparison) -> str:
    """What a part's first row is compared with: a row, of a share with the one that gains are
    over."""
    return part.second if part.kept is None else f"{part.second}, gains over {part.kept.start}"


def probability(p: float | None) -> str:
    """p to three digits; empty where nothing was tested."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def numbers(judged: Judgement) -> tuple[str, str, str]:
    """Its size, p before and after the correction. Where a verdict speaks against the claim, p is
    that of the parts that do, which other claims do not correct."""
    size = shown(judged.summary) if judged.summary else ""
    if judged.verdict in ("contradicted", "other way here"):
        return size, probability(judged.opposed), probability(judged.opposed)
    return size, probability(judged.p), probability(judged.p_holm)


def _again(judged: Judgement | None) -> str:
    if judged is None or judged.summary is None:
        return ""
    return f"{judged.reading}: {shown(judged.summary)}, p {probability(judged.p)}"


def least(claims: ClaimsRecord, claim: ClaimRecord) -> str:
    """The least effect that could have been found with 80% power: by this study's records, and at
    the paper's scale with its own noise, by seeds."""
    said = []
    judged = study_verdict(claim)
    if judged.summary and judged.summary.least:
        said.append(f"{100 * judged.summary.least:.1f} ({claims.study}, {claims.scale} scale)")
    if claim.printed and claim.printed.parts and claim.printed.parts[0].test == "printed":
        benchmarks = dict.fromkeys(
            paper.BENCHMARKS[part.column].name for part in claim.printed.parts
        )
        said += [f"paper scale, {name}: {_by_seeds(claims.least, name)}" for name in benchmarks]
    return "; ".join(said)


def _by_seeds(effects: Sequence[LeastEffect], task: str) -> str:
    wanted = {3: "3 seeds", 10: "10", None: "any"}
    return ", ".join(
        f"{100 * e.new:.1f} ({wanted[e.seeds]})"
        for e in effects
        if e.task == task and e.seeds in wanted
    )


# --------------------------------------------------------------------------------------- files


def columns(claim: ClaimRecord) -> Iterator[tuple[str, str, str, Judgement]]:
    """(what is asked, study, scale, verdict) of each column that a claim has."""
    if claim.printed:
        yield PRINTED, "the paper", "paper", claim.printed
    if claim.printed_again:
        yield f"{PRINTED}, {claim.printed_again.reading}", "the paper", "paper", claim.printed_again
    ran = claim.study if claim.here is None else ""
    yield PAPER_SCALE, ran, "paper", claim.paper_scale
    if claim.here:
        yield "This study", claim.study, claim.scale, claim.here


def to_csv(claims: ClaimsRecord) -> str:
    """One line per claim and column, with its study and scale."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(COLUMNS)
    for claim in claims.claims:
        for asked, study, scale, judged in columns(claim):
            part = judged.summary.model_dump() if judged.summary else {}
            kept = part.get("kept") or {}
            values = {
                **part,
                "share": kept.get("value"),
                "share_low": kept.get("low"),
                "share_high": kept.get("high"),
                **{key: getattr(claim, key) for key in ("claim", "section", "in_paper", "says")},
                **{key: getattr(judged, key) for key in ("verdict", "p", "p_holm", "reason")},
                "asked_of": asked,
                "study": study,
                "scale": scale,
            }
            lines.writerow([_csv(values.get(column)) for column in COLUMNS])
    return out.getvalue()


def _csv(value: Any) -> str:
    return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def markdown(claims: ClaimsRecord) -> str:
    """All claims in one table, a column for each question that is asked of them."""
    own = here(claims) if claims.scale != "paper" else None
    heads = [
        "Claim",
        "It says",
        PRINTED,
        PAPER_SCALE,
        *([own] if own else []),
        "Least effect, 80% power",
    ]
    rows = [
        [
            claim.claim,
            plain(claim.says),
            _cell(claim.printed),
            _cell(claim.paper_scale),
            *([_cell(claim.here)] if own else []),
            least(claims, claim),
        ]
        for claim in claims.claims
    ]
    parts = [
        f"# Which claims hold? Study “{claims.study}”, {claims.scale} scale",
        sentence(claims),
        (
            "Sizes are points of accuracy with 95% intervals, or percent of a gain, of the part "
            "that speaks least for the claim; p is two-sided, corrected for the claims of a "
            "section (Holm); beside a verdict the other way it is that of the parts which point "
            "so, corrected for the parts (Holm). Differences up to "
            f"δ = {100 * claims.margin:g} points are called none. Most of the paper's differences "
            "on MedMCQA are below the least effect that its questions can show, whatever the "
            "number of seeds."
        ),
        markdown_table(heads, rows, "l" * len(heads), padded=False),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(judged: Judgement | None) -> str:
    if judged is None:
        return ""
    size, _, corrected = numbers(judged)
    said = ", ".join(filter(None, (size, corrected and f"p {corrected}")))
    return f"**{judged.verdict}**" + (f"<br>{said}" if said else "")


def latex(claims: ClaimsRecord) -> str:
    """A longtable of all claims; it needs booktabs and longtable."""
    from mofe.report.tables import escape  # imports pandas, which claims_paper.md can do without

    return render(
        _TEMPLATE,
        filters={"tex": escape},
        claims=claims,
        here=here(claims) if claims.scale != "paper" else None,
        printed=PRINTED,
        paper_scale=PAPER_SCALE,
        sentence=sentence(claims),
        numbers=numbers,
    )
