"""A site's file: what profiles/slurm makes of it, and which mistakes in it are told."""

import shutil

import pytest
import yaml
from conftest import ROOT, snakemake
from snakemake.profiles import ProfileConfigFileParser

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
SITE = {"account": "lab", "partition": "gpu", "constraint": "a100_80g"}


@pytest.fixture
def rendered(tmp_path, monkeypatch):
    """The profile, as Snakemake reads it with this content of a site's file."""

    def render(content: str | dict) -> dict:
        file = tmp_path / "site.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        monkeypatch.setenv("MOFE_SITE", str(file))
        with open(PROFILE) as profile:
            return ProfileConfigFileParser().parse(profile)

    return render


def test_the_three_keys_are_enough(rendered):
    found = rendered(SITE)
    assert found["default-resources"] == ["slurm_account='lab'", "slurm_partition='gpu'"]
    assert [r for r in found["set-resources"] if r.startswith("train:")] == [
        "train:slurm_partition='gpu'",
        "train:gpu_model='a100'",
        "train:constraint='a100_80g'",
    ]
    assert "precommand" not in found


def test_what_a_site_may_need_besides(rendered):
    own = {"jobs": 20, "slurm-qos": "long"}
    more = {"cpu_partition": "cpu", "gpu_model": "a-b", "gpu_option": "gres", "constraint": ""}
    more |= {"before": "module load gcc", "sbatch": "--mail-type=FAIL", "profile": own}
    found = rendered({**SITE, **more})
    assert found["default-resources"] == [
        "slurm_account='lab'",
        "slurm_partition='cpu'",
        "slurm_extra='--mail-type=FAIL'",
    ]
    assert {r for r in found["set-resources"] if r.startswith("evaluate:")} == {
        "evaluate:slurm_partition='gpu'",
        "evaluate:gpu_model='a-b'",
        "evaluate:gpu_option='gres'",
        "evaluate:tasks_at_a_time=1",
    }
    assert (found["precommand"], found["jobs"], found["slurm-qos"]) == (
        "module load gcc",
        "20",
        "long",
    )


@pytest.mark.parametrize(
    "content, told",
    [
        ("acount: lab", "acount: there is no such key; there are account, partition"),
        ("account: 3", "account: 3 is no text; put it in quotes"),
        ("profile: 3", "profile: 3 has no keys; write those of a profile"),
        ("account:", 'account: nothing stands behind it; write a text, or "" for none'),
        (
            "profile: {set-resources: {train: {gpu: 2}}}",
            "profile: set-resources: it would replace all that the profile sets there; change them",
        ),
        ("gpu_model: a100-sxm", "gpu_model: 'a100-sxm' has signs that Snakemake's plugin does not"),
        ("gpu_option: gpu", "gpu_option: 'gpu' is none of gpus, gres"),
        ("- account", "has no keys; write lines such as 'account: lab'"),
        ("account: lab: x", "cannot be read as YAML: mapping values are not allowed"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(rendered, tmp_path, content, told):
    with pytest.raises(Exception, match="Couldn't parse config file") as error:
        rendered(content)
    assert f"{tmp_path}/site.yaml: {told}" in str(error.value)


def test_a_file_that_is_not_there_is_told_by_the_command(monkeypatch):
    monkeypatch.setenv("MOFE_SITE", "/no/site.yaml")
    done = snakemake("--profile", "profiles/slurm", "-n", "results/table7.tex", check=False)
    assert done.returncode
    assert "$MOFE_SITE: there is no file /no/site.yaml; correct or unset it" in done.stderr


def test_without_a_file_the_one_beside_the_profile_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("MOFE_SITE", raising=False)
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(PROFILE.parent, tmp_path / "profiles" / "slurm")
    with open(copy.relative_to(tmp_path) / "config.yaml") as profile:
        found = ProfileConfigFileParser().parse(profile)
    assert found["default-resources"][0] == "slurm_account='missing in profiles/site.yaml'"
