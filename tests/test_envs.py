"""The lock files and the conda environments name the same exact versions."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOCKS = [ROOT / "requirements.lock", *sorted((ROOT / "envs").glob("*.lock"))]
ENVS = sorted((ROOT / "envs").glob("*.yaml"))
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==[^\s;]+( ; .+)?")


def pins(lock: Path) -> dict[str, list[str]]:
    """Name -> its pins (several where Python's version decides), without the hashes."""
    found: dict[str, list[str]] = {}
    for entry in lock.read_text().replace("\\\n", " ").splitlines():
        pin = entry.split("--hash=")[0].strip()
        found.setdefault(pin.split("==")[0], []).append(pin)
    return found


def required(requirements: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in requirements.read_text().splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_every_package_by_hash_and_names_no_host(lock):
    text = lock.read_text()
    assert "://" not in text
    for entry in text.replace("\\\n", " ").splitlines():
        pin, *hashes = entry.split("--hash=")
        assert PIN.fullmatch(pin.strip()), entry[:80]
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest.strip()) for digest in hashes), pin


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_all_that_is_required(lock):
    assert not set(required(lock.with_suffix(".in"))) - pins(lock).keys()


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.name)
def test_a_conda_environment_has_the_locks_pins(env):
    lock = pins(ROOT / "requirements.lock")
    wanted = [pin for name in required(ROOT / "requirements.in") for pin in lock[name]]
    content = yaml.safe_load(env.read_text())
    assert content["name"] == env.stem
    assert content["channels"] == ["conda-forge"]
    *conda, pip = content["dependencies"]
    assert [re.split("[ =<>]", package)[0] for package in conda] == ["python", "pip"]
    assert sorted(pip["pip"]) == sorted(wanted)


def test_there_is_a_conda_environment():
    assert ENVS


def test_the_workflow_asks_for_the_locked_snakemake():
    (pin,) = pins(ROOT / "requirements.lock")["snakemake"]
    assert f'min_version("{pin.split("==")[1]}")' in (ROOT / "Snakefile").read_text()
