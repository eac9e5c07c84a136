"""The lock files and the conda environments name the same exact versions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import cannot

ROOT = Path(__file__).parents[1]
ENVS = ROOT / "envs"
# what each lock is resolved from
SOURCES = {ROOT / "requirements.lock": ROOT / "requirements.in"}
SOURCES |= {lock: lock.with_suffix(".in") for lock in sorted(ENVS.glob("*.lock"))}
LOCKS = list(SOURCES)
CONDA = {ENVS / "mofe.yaml": ROOT / "requirements.lock", ENVS / "cuda12.yaml": ENVS / "cuda12.lock"}
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==[^\s;]+( ; .+)?")


def pins(lock: Path) -> dict[str, list[str]]:
    """Name -> its pins (several where Python's version decides), without the hashes."""
    found: dict[str, list[str]] = {}
    for entry in lock.read_text().replace("\\\n", " ").splitlines():
        pin = entry.split("--hash=")[0].strip()
        found.setdefault(pin.split("==")[0], []).append(pin)
    return found


def required(requirements: Path) -> list[str]:
    """The names in a file of requirements and in those that it takes in."""
    found = []
    for line in requirements.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found += required(requirements.parent / line.removeprefix("-r "))
        elif line:
            found.append(line.split("==")[0])
    return found


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
    assert not set(required(SOURCES[lock])) - pins(lock).keys()


def test_the_locks_differ_only_where_torch_wants_it():
    ours, older = (pins(lock) for lock in CONDA.values())
    differing = {name for name in ours.keys() | older.keys() if ours.get(name) != older.get(name)}
    assert "torch" in differing
    assert all(re.match("torch$|triton$|cuda-|nvidia-", name) for name in differing), differing


def test_the_lock_for_older_drivers_has_a_torch_for_cuda_12():
    names = pins(ENVS / "cuda12.lock").keys()
    assert {"nvidia-cublas-cu12", "nvidia-nccl-cu12"} <= names
    assert not [name for name in names if name.endswith("-cu13")]


@pytest.mark.parametrize("env", CONDA, ids=lambda path: path.name)
def test_a_conda_environment_has_all_pins_of_its_lock(env):
    content = yaml.safe_load(env.read_text())
    assert content["name"] == env.stem
    assert content["channels"] == ["conda-forge"]
    *conda, pip = content["dependencies"]
    assert [re.split("[ =<>]", package)[0] for package in conda] == ["python", "pip"]
    assert pip["pip"] == [pin for several in pins(CONDA[env]).values() for pin in several]


def test_every_conda_environment_is_known_here():
    assert set(ENVS.glob("*.yaml")) == set(CONDA)


@pytest.mark.parametrize("env", CONDA, ids=lambda path: path.name)
def test_the_pins_of_a_conda_environment_are_a_solution(env, tmp_path):
    """Nothing is missing among them and nothing contradicts: resolved again, they are what comes out."""
    uv = Path(sys.executable).with_name("uv")
    wanted = yaml.safe_load(env.read_text())["dependencies"][-1]["pip"]
    (tmp_path / "pins.in").write_text("\n".join(wanted))
    solve = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    solve += ["--no-annotate", "--no-header", "pins.in", "--output-file", "pins.lock"]
    done = subprocess.run(solve, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode and "error sending request" in done.stderr:
        cannot("the package index cannot be reached", "MOFE_REQUIRE_NETWORK")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pins.lock").read_text().splitlines() == wanted


def test_the_page_names_the_torch_of_each_lock_and_its_cuda():
    page = (ROOT / "docs" / "installing.md").read_text()
    for lock, runtime in zip(
        CONDA.values(), ("cuda-toolkit", "nvidia-cuda-runtime-cu12"), strict=True
    ):
        versions = [pins(lock)[name][0].split("==")[1] for name in ("torch", runtime)]
        torch, cuda = (".".join(version.split(".")[:2]) for version in versions)
        assert f"| {torch}, CUDA {cuda} |" in page


def test_the_workflow_asks_for_the_locked_snakemake():
    (pin,) = pins(ROOT / "requirements.lock")["snakemake"]
    assert f'min_version("{pin.split("==")[1]}")' in (ROOT / "Snakefile").read_text()
