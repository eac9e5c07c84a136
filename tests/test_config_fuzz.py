"""A small part of the fuzzer of configurations; `make fuzz` runs all of it."""

from fuzz_config import run


def test_some_mutated_configurations(tmp_path):
    outcomes = run(range(0, 15000, 100), tmp_path)
    assert outcomes.total() == 150
    assert outcomes["refused"] > 75 and outcomes["accepted"] > 3
