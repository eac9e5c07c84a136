"""What tests share: the checkout, a small world, and tiny real models made on the spot."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings
from transformers import LlamaConfig, LlamaForCausalLM

from mofe.data import world
from mofe.models import load
from mofe.stages import merge
from mofe.study.load import read_study
from mofe.study.plan import Plan

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MOFE_SHARED", ROOT.parent / "shared"))
CONFIG = ROOT / "config.yaml"
MINI = ROOT / "profiles" / "mini" / "study.yaml"
QUESTIONS = ROOT / "profiles" / "questions.yaml"  # what the paper leaves open
LOOK = ROOT / "profiles" / "mini" / "look.yaml"  # the paper's tables alone, with one seed
REDUCED = ROOT / "tests" / "studies" / "reduced.yaml"
HOLD = ROOT / "tests" / "hold"  # for the PYTHONPATH of trainings that `hold` is to hold

torch.set_num_threads(1)
# A shell starts what runs in its background with Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Timing is measured in benchmarks/, never in tests: a busy machine must not fail one.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


TRAINING = {
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "warmup_steps": 0,
    "max_grad_norm": 1.0,
    "epochs": 2,
    "global_batch": 8,
    "micro_batch": 3,
    "max_length": 64,
    "router_aux_loss": 0.0,
    "fold_duplicates": False,
}


@pytest.fixture(scope="session")
def paper_plan() -> Plan:
    """The paper's study: Tables 1 to 7, without the controls."""
    return Plan(read_study(CONFIG, LOOK))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples, which is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: set MOFE_SHARED to the folder of real samples")
    return SHARED


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A small generated world (world/), two tiny dense Llamas (a/, b/) with its tokenizer, and
    merges of them (moe4a/, moe2a2b/)."""
    root = tmp_path_factory.mktemp("tiny")
    reduced = read_study(CONFIG, MINI, REDUCED)
    world.make(reduced.world.model_dump(), str(root / "world"))
    tokenizer = load.tokenizer(root / "world" / "mofe" / "tokenizer")
    for seed, name in enumerate("ab"):
        save_llama(root / name, tokenizer, seed)
    for name, slots in (
        ("moe2a", "aa"),
        ("moe4a", "aaaa"),
        ("moe8a", "a" * 8),
        ("moe2a2b", "aabb"),
    ):
        merge.merge(merge_params(root, "a", slots), root / name)
    return root


@pytest.fixture(scope="session")
def data(tiny) -> str:
    """A prepared training set of the generated world's MedMCQA rows."""
    rows = pq.read_table(next((tiny / "world/openlifescienceai/medmcqa/data").glob("train*")))
    rows = rows.slice(0, 20).to_pylist()
    prompts = [row["question"].strip() + "\nAnswer:" for row in rows]
    answers = [" " + row["op" + "abcd"[row["cop"]]] for row in rows]
    file = tiny / "train.parquet"
    pq.write_table(pa.table({"prompt": prompts, "answer": answers}), file)
    return str(file)


def save_llama(folder: Path, tokenizer, seed: int = 0) -> None:
    """A Llama of two layers with random weights, and its tokenizer."""
    torch.manual_seed(seed)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            pad_token_id=None,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def merge_params(root: Path, base: str, slots: str) -> dict:
    # words that the world's tokenizer knows: unknown ones would give every slot the same gate
    words = sorted(w for w in load.tokenizer(root / base).get_vocab() if w.isalpha())[100:]
    return {
        "gate_mode": "hidden",
        "experts_per_token": 2,
        "dtype": "float32",
        "base": str(root / base),
        "slots": [
            {"model": str(root / slot), "positive": [word], "negative": [words[50]]}
            for slot, word in zip(slots, words, strict=False)
        ],
    }


def copy_code(names: Iterable[str], folder: Path) -> None:
    """Copy these files and folders of the checkout. Tests beside this one may write bytecode."""
    for name in names:
        source, copy = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)


def hold(checkpoint: Path, steps: int) -> None:
    """Have the training with this checkpoint wait after so many steps until a signal comes to it, once.
    Its process needs HOLD on its PYTHONPATH."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.with_name("hold").write_text(str(steps))


def logged(checkpoint: Path) -> int:
    """How many steps the log of an unfinished training has."""
    log = checkpoint / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def snakemake(
    *arguments: str, check: bool = True, folder: Path = ROOT
) -> subprocess.CompletedProcess:
    """Run Snakemake as a user does, from a checkout's root."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def overrides(**values) -> list[str]:
    """--config arguments."""
    return ["--config", *(f"{key}={json.dumps(value)}" for key, value in values.items())]


# One row, from nothing to its table.
OWN = {
    "study": "own",
    "training": {"fold_duplicates": False},
    "tables": {
        **dict.fromkeys([*range(1, 8), "C1", "C2", "C3", "C4", "C5"]),
        "own": {
            "caption": "One row.",
            "labels": ["Model"],
            "columns": {"Score": "medmcqa", "GPU time": "time", "Time": "wall_time"},
            "rows": {"Tuned": {"mixture": "small", "train": {"medmcqa": "lora"}}},
        },
    },
}


def cannot(why: str, variable: str) -> None:
    """Skip a test that cannot be made here, or fail it where this environment variable is set, as CI
    does (.ci/run)."""
    if os.environ.get(variable):
        pytest.fail(f"{variable} is set, but {why}", pytrace=False)
    pytest.skip(why, allow_module_level=True)


def train_moe2a(tiny: Path, data: Path, folder: Path, settings: dict, **training) -> None:
    """Train the mixture moe2a of `tiny` by MoFE, into a folder. settings: the method's."""
    from mofe.stages import train

    train.train_variant(
        merge=str(tiny / "moe2a"),
        data=[data],
        parents=[],
        chain=[],
        params={"recipe": "mofe", **settings, "training": {**TRAINING, **training}},
        names={"moe": "moe2a", "stages": "mofe"},
        seed=0,
        trained=folder / "trained.safetensors",
        record=folder / "train.json",
        log=folder / "log.jsonl",
        checkpoint=folder / "checkpoint",
    )


class Copies:
    """A study of one row (OWN) in copies without Snakemake's notes, which it keeps by address."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def files(self) -> list[Path]:
        """The study's configuration."""
        return [CONFIG, MINI, REDUCED, self.folder / "own.yaml", self.folder / "overlay.yaml"]

    def call(
        self,
        results: Path,
        *arguments: str,
        overlay: dict | None = None,
        target: str = "{results}/tableown.csv",
        code=0,
    ) -> str:
        """What the call prints: of a dry run to stdout, else to stderr. The study itself, from which
        all copies are made, is called once."""
        assert not results.is_dir() or results != self.folder / "results", "call a copy of it"
        self.files[-1].write_text(yaml.safe_dump(overlay or {}, sort_keys=False))
        study = ["--configfile", *map(str, self.files), "--config", f"results={results}"]
        target = ["--", target.format(results=results)]
        quiet = ["--cores", "2", "--quiet", "rules"]
        done = snakemake(*quiet, *study, *arguments, *target, check=False)
        told = done.stdout + done.stderr
        assert done.returncode == code, told[-4000:]
        return told

    def copy(self, name: str) -> Path:
        shutil.copytree(self.folder / "results", self.folder / name)
        return self.folder / name


@pytest.fixture(scope="session")
def copies(tmp_path_factory) -> Copies:
    study = Copies(tmp_path_factory.mktemp("copies"))
    (study.folder / "own.yaml").write_text(yaml.safe_dump(OWN, sort_keys=False))
    study.call(study.folder / "results")
    return study
