"""Texts of quantities: as large as the number says, as precise as it is known."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofe import units

BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
amounts = st.integers(1, 10**15)


def value(text: str, scales: dict[str, float]) -> float:
    number, unit = text.split(" ")
    return float(number.replace(",", "")) * scales[unit]


@given(amounts)
def test_a_counted_size_is_right_to_three_digits(amount):
    assert value(units.size(amount), BYTES) == pytest.approx(amount, rel=0.006)


@given(amounts)
def test_an_estimated_size_is_right_to_two_digits_and_has_no_exponent(amount):
    text = units.rough_size(amount)
    assert value(text, BYTES) == pytest.approx(amount, rel=0.051)
    assert re.fullmatch(r"[\d,]+(\.\d+)? (kB|MB|GB)", text)


@pytest.mark.parametrize(
    ("amount", "counted", "estimated"),
    [
        (0, "0 B", "0 kB"),
        (43_210, "43.21 kB", "43 kB"),
        (580_400, "580.4 kB", "0.58 MB"),
        (99_700_000, "99.7 MB", "100 MB"),
        (680_000_000, "680 MB", "0.68 GB"),
        (63_123_000_000, "63.12 GB", "63 GB"),
        (3_271_400_000_000, "3271.40 GB", "3,271 GB"),
    ],
)
def test_sizes(amount, counted, estimated):
    assert (units.size(amount), units.rough_size(amount)) == (counted, estimated)


@given(amounts)
def test_memory_is_in_binary_units(amount):
    assert value(units.gib(amount), {"GiB": 2**30}) == pytest.approx(amount, abs=0.51 * 2**30)
    assert int(units.mib(amount).replace(",", "")) == round(amount / 2**20)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(37.46, "37.5 GiB"), (99.9, "99.9 GiB"), (100, "100 GiB"), (5e3, "5,000 GiB")],
)
def test_much_memory_has_no_decimal(amount, text):
    assert units.gib(amount * 2**30) == text


@given(st.floats(1e-3, 1e5))
def test_an_estimated_time_is_right_to_half_its_last_digit(hours):
    text = units.rough_time(hours)
    in_hours = {"s": 1 / 3600, "min": 1 / 60, "h": 1}
    last = 0.1 if text.endswith("h") else in_hours[text.split()[1]]
    assert value(text, in_hours) == pytest.approx(hours, abs=0.501 * last)


@given(st.floats(0, 1e7))
def test_a_measured_duration_is_right_to_half_its_last_unit(seconds):
    parts = re.findall(r"([\d.]+) (h|min|s)", units.duration(seconds))
    told = sum(float(number) * {"h": 3600, "min": 60, "s": 1}[unit] for number, unit in parts)
    assert told == pytest.approx(seconds, abs={"h": 60, "min": 0.5, "s": 0.051}[parts[0][1]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.scaled(1_100_048_384, "M", 2), "1,100.05 M"),
        (units.scaled(2_740_000, "K"), "2,740 K"),
        (units.rough_count(1_600_000_000), "1.6 B"),
        (units.rough_count(6_815_744), "6.8 M"),
    ],
)
def test_counts(text, expected):
    assert text == expected
