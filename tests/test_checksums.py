"""Hashing beside other work."""

import os

import pytest

from mofe import checksums, sums
from mofe.jobs import made


@pytest.fixture
def files(tmp_path):
    found = []
    for number in range(3):
        found.append(tmp_path / str(number))
        found[-1].write_bytes(os.urandom(1000 + number))
    return found


def test_what_was_begun_ahead_is_known(files):
    checksums.ahead(files[:2])
    assert [checksums.known(file) for file in files] == [checksums.of(file) for file in files]


def test_a_fork_hashes_what_its_parent_had_begun(files):
    checksums.ahead(files)
    child = os.fork()
    if not child:
        os._exit(checksums.known(files[2]) != checksums.of(files[2]))
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_that_has_gone_meanwhile_is_told_by_who_reads_it(files):
    checksums.ahead(files)
    files[1].unlink()
    with pytest.raises(FileNotFoundError):
        checksums.known(files[1])


@pytest.mark.parametrize("fails", [True, False])
def test_damage_is_told_instead_of_what_it_led_to(fails):
    def refuse():
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), checksums.settled():
        checksums.later(refuse)
        if fails:
            raise KeyError("a tensor")
    with checksums.settled():
        pass  # a check is made once


def test_of_a_large_model_only_the_weights_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "LARGE", 0)
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes(os.urandom(500))
    sums.write([str(model)])
    given = {"file": str(model), "notes": (), "config_hash": "", "checked": (str(model),)}
    given["sums"] = sums.path(str(model))
    with checksums.settled():
        made.refuse([given])
    (model / "model.safetensors").write_bytes(bytes(500))
    with pytest.raises(made.DamagedInput, match=r"model\.safetensors"), checksums.settled():
        made.refuse([given])
        (tmp_path / "reached").touch()
    assert (tmp_path / "reached").exists()
    (model / "config.json").write_bytes(bytes(500))
    with pytest.raises(made.DamagedInput, match=r"config\.json"):
        made.refuse([given])
