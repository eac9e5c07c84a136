"""The share of a gain that is kept: what one row gains over a start, by what another gains."""

from __future__ import annotations

from collections.abc import Sequence

from mofe.records import Comparison, KeptShare
from mofe.report import stats
from mofe.report.answers import Arms
from mofe.report.parts import Compared, RowKey, contrast
from mofe.report.stats import Kept


def kept(found: Arms, column: str, rows: Sequence[RowKey]) -> Kept:
    """The share in a column. rows: the one that keeps the gain, the one that has all of it, and the
    one that both start from. With one seed it is that of these very models."""
    first, whole, start = rows
    part, gain = (contrast(found, [Compared(column, (row, start))]) for row in (first, whole))
    return stats.kept(part, gain, stats.of_these_models if found.one_seed else stats.crossed)


def record(start: str, limit: float, share: Kept) -> KeptShare:
    """The record of a share. start: the row that gains are over; limit: the share that is
    claimed."""
    low, high = share.bounds or (None, None)
    return KeptShare(
        start=start,
        limit=limit,
        value=share.value,
        low=low,
        high=high,
        gain=share.gain.difference,
        gain_low=share.gain.low,
        gain_high=share.gain.high,
    )


def is_of_loss(part: Comparison) -> bool:
    """Whether what a share is of is a loss, beyond its noise: nothing can be kept of it."""
    return part.kept is not None and part.kept.gain_high < 0


def reason(shown: Sequence[Comparison]) -> str | None:
    """What must be known of a verdict on shares; None where every share has an interval, and of
    comparisons that are no shares."""
    of = len(shown)
    if losses := sum(map(is_of_loss, shown)):
        return (
            f"In {losses} of {of} parts the whole gain is a loss, so there is nothing to keep a "
            "share of."
        )
    if unbounded := sum(part.kept is not None and part.kept.low is None for part in shown):
        return (
            f"In {unbounded} of {of} parts the whole gain is inside its noise, so the share has no "
            "interval."
        )
    return None
