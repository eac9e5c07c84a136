"""All claims of a study at once: p corrected for their number, and counts of verdicts.

Counts are of the paper's claims, on its own numbers and at its scale; no other study is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mofe.records import ClaimRecord, ClaimsRecord, Judgement
from mofe.report import noise, printed, stats, verdicts
from mofe.study.claims import Claim


def correct(claims: Sequence[ClaimRecord], seeds: int) -> ClaimsRecord:
    """All claims of a study, p corrected over the claims of each section (Holm), and counted."""
    found = list(claims)
    for column in ("printed", "printed_again", "paper_scale", "here"):
        found = _corrected(found, column)
    ours = [claim for claim in found if claim.in_paper]
    one = found[0]
    return ClaimsRecord(
        study=one.study,
        scale=one.scale,
        seeds=seeds,
        margin=one.margin,
        printed_counts=counted(c.printed for c in ours if c.printed),
        paper_scale_counts=counted(c.paper_scale for c in ours),
        claims=found,
        least=noise.least_effects(),
        noise=noise.bands(),
    )


def counted(judgements: Iterable[Judgement]) -> dict[str, int]:
    """How many have each verdict."""
    return dict(Counter(judged.verdict for judged in judgements))


def _corrected(claims: Sequence[ClaimRecord], column: str) -> list[ClaimRecord]:
    """The claims with one column's p corrected."""
    judged = {c.claim: (c.section, found) for c in claims if (found := getattr(c, column))}
    corrected = holm_by_section(judged)
    return [c.model_copy(update={column: corrected.get(c.claim)}) for c in claims]


def holm_by_section(judged: Mapping[str, tuple[str, Judgement]]) -> dict[str, Judgement]:
    """Verdicts after Holm's correction. judged: by claim, its section and its verdict."""
    found = {name: judgement for name, (_, judgement) in judged.items()}
    sections: dict[str, list[str]] = {}
    for name, (section, judgement) in judged.items():
        if judgement.p is not None and judgement.verdict not in ("exact", "cannot be asked here"):
            sections.setdefault(section, []).append(name)
    for family in sections.values():
        corrected = stats.holm([found[name].p for name in family])
        for name, p in zip(family, corrected, strict=True):
            judgement = found[name]
            verdict = verdicts.corrected(judgement.verdict, judgement.p, p, judgement.equal)
            found[name] = judgement.model_copy(update={"p_holm": p, "verdict": verdict})
    return found


def of_paper(
    claims: Mapping[str, Claim],
) -> dict[str, tuple[Claim, Judgement, Judgement | None]]:
    """Every claim that the paper's printed numbers can be asked, its verdict after the correction,
    and its verdict in another reading."""
    read = {name: printed.of_paper(claim) for name, claim in claims.items()}
    judged = {n: (claims[n].section, first) for n, (first, _) in read.items() if first}
    corrected = holm_by_section(judged)
    return {name: (claims[name], corrected[name], read[name][1]) for name in corrected}
