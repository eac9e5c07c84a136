"""Quantities as people read them: bytes, times and counts. Each function formats one number.

Estimates get few digits, because more would promise more than is known. Counts and measurements get
all of them.
"""

from collections.abc import Collection, Sequence

GIB = 1 << 30
MIB = 1 << 20
Scales = tuple[tuple[str, float], ...]  # (unit, its size), largest first
BYTES: Scales = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1))
OPERATIONS: Scales = (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9))
MINUS = "\u2212"
SCALES = {"K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "P": 1e15}


def fitting(amount: float, scales: Scales) -> tuple[str, float]:
    """The largest unit that is not above the amount, or else the smallest one."""
    return next((scale for scale in scales if scale[1] <= amount), scales[-1])


# --- bytes ------------------------------------------------------------------------------------


def size(amount: float) -> str:
    """Bytes that were counted: "812 B", "4.653 MB", "12.34 GB"."""
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.4g} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def rough_size(amount: float) -> str:
    """Bytes that were estimated, to two digits: "43 kB", "0.58 MB", "0.68 GB", "63 GB".

    A unit is used from a tenth of itself on, so that most sizes in one table have the same unit.
    """
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6)):
        if amount >= bytes_ / 10:
            return f"{_two_digits(amount / bytes_)} {unit}"
    return f"{_two_digits(amount / 1e3)} kB"


def gib(amount: float) -> str:
    """Bytes of memory, with one decimal below 100 GiB: "37.5 GiB", "103 GiB"."""
    return f"{amount / GIB:,.{1 if amount < 100 * GIB else 0}f} GiB"


def mib(amount: float) -> str:
    """Bytes of memory in whole MiB, for a column that names the unit: "1,024"."""
    return f"{amount / MIB:,.0f}"


# --- times ------------------------------------------------------------------------------------


def rough_time(hours: float) -> str:
    """Hours that were estimated: "9 s", "119 min", "3.4 h"."""
    if hours * 60 < 1:
        return f"{hours * 3600:.0f} s"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h"


def duration(seconds: float) -> str:
    """Seconds that were measured: "41.2 s", "12 min 3 s", "3 h 20 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


# --- counts -----------------------------------------------------------------------------------


def scaled(amount: float, scale: str, decimals: int = 0) -> str:
    """A count in one scale of SCALES, for a column of comparable numbers: "1,100.05 M"."""
    return f"{amount / SCALES[scale]:,.{decimals}f} {scale}"


def rough_count(count: float) -> str:
    """Parameters in billions or millions, with one decimal: "1.6 B", "6.8 M"."""
    return scaled(count, "B" if count >= 1e9 else "M", 1)


def parameters(count: float) -> str:
    """Parameters as the paper prints them: 1.86B, 0.34B, 2.3M; smaller ones as 12.3K or 640."""
    if count >= 1e8:
        return f"{count / 1e9:.2f}B"
    if count >= 1e6:
        return f"{count / 1e6:.1f}M"
    if count >= 1e3:
        return f"{count / 1e3:.1f}K"
    return f"{count:.0f}"


def learning_rate(rate: float) -> str:
    """A learning rate, as configurations write it: "3e-5", "1.5e-3"."""
    digits, exponent = f"{rate:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _two_digits(number: float) -> str:
    """At least two digits, and never an exponent: "0.43", "9.5", "63", "1,204"."""
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.2g}"


def first(names: Collection[str], most: int = 3) -> str:
    """The first names of many, and how many more there are: "a, b, c and 2 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
