"""The workflow from any folder: its own, another, as a module of another workflow, and from a git
repository; with its study's files in the working directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CONFIG, MINI, REDUCED, ROOT, copy_code, snakemake

from mofe import provenance
from mofe.jobs.called import MODULE, Called
from mofe.study.load import load_study, overlay
from mofe.study.values import ConfigError
from tests.faults.study import LINKED

CODE = (".gitignore", *(name for name in LINKED if name != "tests"))
CLAIMS = "claims_paper.md"  # made in seconds, from nothing


def called(folder: Path = ROOT, **more) -> Called:
    """A call in a folder."""
    return Called(**{"code": ROOT, "folder": folder, "snakefile": ROOT / "Snakefile", **more})


def file(folder: Path, name: str, content: dict) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


# --------------------------------------------------------------------------- the configuration


def test_in_its_own_folder_every_checkout_has_the_same_command():
    own = called(typed=[CONFIG, ROOT / "my study.yaml"], settings={"seeds": "0,1"})
    assert own.beside is None and own.sources.files == ["config.yaml", "my study.yaml"]
    assert own.command == (
        "snakemake --cores all --configfile config.yaml 'my study.yaml' --config seeds=0,1 --"
    )
    assert called(typed=[Path("/studies/own.yaml")]).command.endswith(" /studies/own.yaml --")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_config_in_the_working_directory_is_an_overlay(here):
    assert called(here).beside is None
    file(here, "config.yaml", {"study": "mine"})
    over = file(here, "over.yaml", {"seeds": [1]})
    call = called(here, typed=[over])
    assert call.sources.files == [os.path.relpath(CONFIG, here), "config.yaml", "over.yaml"]
    assert call.command == (
        f"snakemake --snakefile {ROOT}/Snakefile --directory {here} --cores all "
        f"--configfile {over} --"
    )
    assert call.hashes["over.yaml"] == provenance.hash_file(over)
    plain, watched = (called(here, settings={"seeds": 1, **m}) for m in ({}, {"notify": "true"}))
    assert plain.hashes == watched.hashes
    assert list(plain.hashes)[-1] == "--config", "in the order of their merging"
    elsewhere = called(here, settings={"seeds": 1, "results": "there"})
    assert elsewhere.hashes == plain.hashes, "where results lie is no part of a study"
    assert called(here, settings={"seeds": 2}).hashes != plain.hashes


def test_keys_are_in_the_order_of_the_files_whatever_snakemake_reads_first(here):
    """Tables and rows are shown in this order."""
    over = file(here, "over.yaml", {"study": "mine", "tables": {4: {"beside": None}, "mine": {}}})
    top = yaml.safe_load(over.read_text())
    config = overlay(top, overlay(yaml.safe_load(CONFIG.read_text()), top))  # as Snakemake does
    assert next(iter(config["tables"])) == 4
    merged = called(here, typed=[over]).merged(config)
    assert merged == config
    assert list(merged["tables"])[:5] == [1, 2, 3, 4, 5] and list(merged["tables"])[-1] == "mine"
    assert list(merged)[:2] == ["study", "results"]


def test_a_modules_config_is_an_overlay_of_the_workflows_own(here):
    mine = file(here, "mine.yaml", {"study": "mine", "tables": {2: None}})
    given = {"study": "mine", "tables": {2: None}}
    call = called(here, is_module=True, given=given, files=[mine])
    config = call.merged({})
    study = load_study(config, *call.sources)
    assert study.study == "mine" and {1, 3} <= set(study.tables) and 2 not in study.tables
    assert call.sources.files == [os.path.relpath(CONFIG, here), "mine.yaml"]
    assert given == {"study": "mine", "tables": {2: None}}, "it is the other workflow's"


def test_a_fault_in_a_modules_config_is_told_with_its_place(here):
    mine = file(here, "mine.yaml", {"study": "mine", "sheds": [1]})
    same = called(here, is_module=True, given={"study": "mine", "sheds": [1]}, files=[mine])
    other = called(here, is_module=True, given={"study": "mine", "sheds": [2]}, files=[mine])
    for call, where in ((same, "mine.yaml:2"), (other, MODULE)):
        with pytest.raises(ConfigError, match=r"sheds") as told:
            load_study(call.merged({}), *call.sources)
        assert where in str(told.value)


def test_a_modules_prefix_stands_before_every_path_of_the_study(here):
    own = {"hub": None, "revision": None, "path": "models/ours"}
    given = {"study": "mine", "mirror": "/shared/hub", "models": {"tinyllama": own}}

    def move(path: str) -> str:
        return path if os.path.isabs(path) else f"out/{path}"

    study = load_study(called(here, is_module=True, given=given, move=move).merged({}))
    assert (study.results, study.hub, study.mirror) == (
        "out/results",
        "out/results/hub",
        "/shared/hub",
    )
    assert study.models["tinyllama"].path == "out/models/ours"


# ------------------------------------------------------------------------------- as users call


def call(folder: Path, *arguments: str, **environment: str) -> str:
    """Run Snakemake in a folder, whose Python finds no package of the checkout by itself."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "snakemake", "--cores", "2", *arguments],
        cwd=folder,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_directory(tmp_path):
    snakemake("--directory", str(tmp_path / "new"), "--cores", "1", "--", f"results/{CLAIMS}")
    assert (tmp_path / "new" / "results" / CLAIMS).is_file()
    assert (tmp_path / "new" / ".snakemake").is_dir()


def test_a_folder_with_nothing_but_a_small_config(tmp_path):
    """Also where a package of the same name is in the way."""
    file(tmp_path, "config.yaml", {"study": "mine", "results": "mine"})
    (tmp_path / "mofe").mkdir()
    (tmp_path / "mofe" / "__init__.py").write_text("raise RuntimeError('another package')")
    call(tmp_path, "-s", str(ROOT / "Snakefile"), "--", f"mine/{CLAIMS}")
    assert (tmp_path / "mine" / CLAIMS).is_file()


MODULE_OF = """\
configfile: {mini!r}
configfile: {reduced!r}

onstart:
    print("here we go")

onsuccess:
    print("there we are")

module mofe:
    snakefile: {snakefile!r}
    config: config
    prefix: "out"
use rule * from mofe as mofe_*

rule mine:
    input: "out/results/reduced/data/medmcqa.json"
    output: "mine.txt"
    shell: "echo hub=$HF_HUB_OFFLINE gpu=$CUDA_VISIBLE_DEVICES > {{output}}"
"""


def test_a_module_of_another_workflow(tmp_path):
    """A job reads what another job of the module made, and the workflow's own jobs are left alone."""
    snakefile = os.path.relpath(ROOT / "Snakefile", tmp_path)
    text = MODULE_OF.format(mini=str(MINI), reduced=str(REDUCED), snakefile=snakefile)
    (tmp_path / "Snakefile").write_text(text)
    dry = call(tmp_path, "-n", "--", "mofe_all")
    assert "mofe_train " in dry and "out/results/reduced/table1.tex" in dry
    seen = {"HF_HUB_OFFLINE": "0", "CUDA_VISIBLE_DEVICES": "7"}
    watched = ["--config", "notify=echo $MOFE_MESSAGE > told.txt"]
    told = call(tmp_path, "--profile", "none", *watched, "--", "mine", **seen)
    assert "here we go" in told and "there we are" in told and "no warm parent" not in told
    assert (tmp_path / "told.txt").read_text().startswith("reduced: done, 2 of 2 jobs, ")
    assert (tmp_path / "mine.txt").read_text() == "hub=0 gpu=7\n"
    made = tmp_path / "out" / "results" / "reduced"
    assert (made / "contents.json").parent.is_dir() and (
        made / "data/medmcqa.parquet.sums"
    ).is_file()
    (made / "data" / "medmcqa.json").write_text("{}")
    done = snakemake("--cores", "1", "--", "mofe_verify", folder=tmp_path, check=False)
    assert done.returncode and "out/results/reduced/data/medmcqa.json" in done.stderr
    assert "--snakefile" not in done.stderr and f"--directory {tmp_path}" in done.stderr
    kept = str(ROOT / "docs" / "reference")
    assert "scores are in both" in call(tmp_path, "--", "mofe_compare", kept, kept)


def test_a_module_from_github_as_snakedeploy_writes_it(tmp_path):
    """A repository on this disk stands for GitHub. Snakemake itself fetches single files of it; what
    the package is and which commit it has is asked of the clone that the workflow makes."""
    hosted = tmp_path / "github" / "org" / "mofe"
    hosted.mkdir(parents=True)
    copy_code(CODE, hosted)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *who, *arguments], cwd=hosted, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["tag", "v1"]):
        git(*command)
    mine = tmp_path / "mine"
    (mine / "workflow").mkdir(parents=True)
    (mine / "config").mkdir()
    file(mine, "config/config.yaml", {"study": "mine", "results": "results/mine"})
    (mine / "workflow" / "Snakefile").write_text(
        'configfile: "config/config.yaml"\n'
        "module mofe:\n"
        '    snakefile: github("org/mofe", path="Snakefile", tag="v1")\n'
        "    config: config\n"
        "use rule * from mofe\n"
    )
    instead = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/github/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    call(mine, "--", f"results/mine/{CLAIMS}", **instead)
    assert (mine / "results" / "mine" / CLAIMS).is_file()
    (clone,) = (mine / ".snakemake" / "workflows").iterdir()
    assert clone.name == git("rev-parse", "HEAD")
    assert revision(clone) == clone.name
    for name, differs in (
        ("config.yaml", False),
        ("profiles/site.yaml", False),
        ("mofe/x.py", True),
    ):
        with open(clone / name, "a") as code:
            code.write("# a line more\n")
        assert revision(clone) == clone.name + "+changes" * differs


def revision(clone: Path) -> str:
    """What records say of the code in this folder."""
    asked = "from mofe import provenance; print(provenance.git_revision())"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=clone, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
