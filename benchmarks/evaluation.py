"""Evaluation: questions per second, beside the `lm_eval` command on the same questions and
checkpoint.

    python benchmarks/evaluation.py             to benchmarks/results/evaluation-cpu.json
    python benchmarks/evaluation.py --quick     whether it works

Two times of each side. `command`: a process from its start to its end, as it is typed: lm_eval
beside this project's job without a warm parent. `call`: what the process does once everything is
imported, in a fork: lm_eval.simple_evaluate, as the command calls it but with its index of tasks
(seconds) made before the clock starts, beside all of two jobs: mofe.stages.questions.make, which
other models are spared, and mofe.stages.evaluate.evaluate_variant. lm_eval takes the batch size
that is fastest here. Every question's scores are compared.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from common import (
    MEDMCQA,
    ROOT,
    SHARED,
    TOKENIZER,
    forked,
    launch,
    preload,
    ratio,
    sizes_of,
    stamped,
    start_over,
    write,
)
from training import MIXTURES, SIZES, build, has_gpu

# not mofe.tasks, which makes lm-eval's own templates faster, for both sides
PRELOAD = ["datasets", "lm_eval", "lm_eval.models.huggingface"]
PRELOAD += ["transformers:MixtralForCausalLM", "mofe.models.load"]
TASK = "benchmark_medmcqa"
BATCHES = [4, 16, 64, 256]
QUESTIONS = {"mini": 2000, "rows": 100, "tinyllama": 500}
# Equal experts can be computed once; different ones cannot, and neither by lm_eval.
EXPERTS = {"four different experts": False, "four identical experts": True}


# ------------------------------------------------------------------------------ what is asked


def prepare(name: str, identical: bool, folder: Path, questions: int) -> dict:
    """A checkpoint (`merge`), lm_eval's task file (`tasks`) and this project's task parameters."""
    import torch
    from safetensors.torch import save_file

    from mofe.data import world
    from mofe.models import load
    from mofe.study.load import read_study
    from mofe.study.plan import Plan

    size = SIZES[name]
    if size.data == "world":
        study = read_study(ROOT / "config.yaml", ROOT / "profiles/mini/study.yaml")
        world.make(study.world.model_dump(), str(folder / "world"))
        rows = next((folder / "world").rglob("medmcqa/data/validation*.parquet"))
        tokenizer = load.tokenizer(folder / "world/mofe/tokenizer")
    else:
        study = read_study(ROOT / "config.yaml")
        rows = next(MEDMCQA.glob("validation*.parquet"))
        tokenizer = load.tokenizer(TOKENIZER)
    shape = replace(size.shape, vocab_size=len(tokenizer)).mixture(MIXTURES["medium"], 2)
    model = build(shape, identical).to("cpu", torch.bfloat16)
    (merge := folder / "merge").mkdir()
    # packed, as mergekit writes it; save_pretrained would write every expert by itself
    save_file(model.state_dict(), merge / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(merge)
    tokenizer.save_pretrained(merge)

    file = first_questions(rows, folder / "mirror", questions)
    params = Plan(study).params.task("medmcqa") | {"mirror": str(folder / "mirror")}
    (folder / "tasks").mkdir()
    task = harness_task(params["scoring"], file)
    (folder / "tasks" / f"{TASK}.yaml").write_text(json.dumps(task))  # JSON is YAML
    return {
        "merge": str(merge),
        "tasks": str(folder / "tasks"),
        "params": params,
        "shape": asdict(shape),
        "folder": str(folder),
    }


def first_questions(rows: Path, mirror: Path, questions: int) -> Path:
    """MedMCQA's validation split with so many questions, in a mirror."""
    import pyarrow.parquet as pq

    file = mirror / "openlifescienceai/medmcqa/data" / rows.name
    file.parent.mkdir(parents=True)
    pq.write_table(pq.read_table(rows).slice(0, questions), file)
    return file


def harness_task(scoring: str, file: Path) -> dict:
    """lm-eval's own medmcqa, reading that file; under the study's scoring."""
    import lm_eval.tasks
    import yaml

    stock = Path(lm_eval.tasks.__file__).parent / "medmcqa" / "medmcqa.yaml"
    texts = yaml.safe_load((ROOT / "mofe/tasks/text_scoring.yaml").read_text())
    return {
        "include": str(stock),
        "task": TASK,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"validation": str(file)}},
        "training_split": None,
        "test_split": None,
        **(texts["openlifescienceai/medmcqa"] if scoring == "text" else {}),
    }


# ------------------------------------------------------------------------------- who answers


def ask_ours(checkpoint: dict) -> dict:
    """Making the questions and evaluating one model: seconds of both, of the first alone, and every
    question's (log-likelihoods, whether correct)."""
    from mofe import records
    from mofe.stages import questions as asking
    from mofe.stages.evaluate import evaluate_variant

    with tempfile.TemporaryDirectory(dir=checkpoint["folder"]) as folder:
        questions, asked = Path(folder) / "questions.jsonl.gz", Path(folder) / "asked.parquet"
        started = time.perf_counter()
        asking.make(params=checkpoint["params"], tokenizer=checkpoint["merge"], out=asked)
        made = time.perf_counter() - started
        evaluate_variant(
            merge=checkpoint["merge"],
            trained=[],
            chain=[],
            asked=str(asked),
            params=checkpoint["params"],
            names={"moe": "measured", "stages": "none", "seed": 0},
            record=Path(folder) / "record.json",
            questions=questions,
        )
        seconds = time.perf_counter() - started
        answers = records.read_lines(questions, records.ChoiceAnswer)
    return {
        "seconds": seconds,
        "questions_seconds": made,
        "answers": [(list(answer.loglikelihoods), answer.correct) for answer in answers],
    }


def ask_harness(checkpoint: dict, batch: int) -> dict:
    """lm_eval's evaluation, likewise."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=checkpoint["tasks"], include_defaults=False)
    started = time.perf_counter()
    found = simple_evaluate(
        model="hf",
        model_args=f"pretrained={checkpoint['merge']},dtype={their_dtype()}",
        tasks=[TASK],
        batch_size=batch,
        device="cuda" if forked(has_gpu) else "cpu",
        log_samples=True,
        task_manager=manager,
    )
    seconds = time.perf_counter() - started
    samples = sorted(found["samples"][TASK], key=lambda s: s["doc_id"])
    answers = [([r[0] for r in s["filtered_resps"]], int(s["acc"])) for s in samples]
    return {"seconds": seconds, "answers": answers}


def their_dtype() -> str:
    """The type in which lm_eval computes: that of this project's products on such a machine."""
    return "bfloat16" if forked(has_gpu) else "float32"


def command_ours(checkpoint: dict) -> dict:
    return launch("python", __file__, "--ours", json.dumps(checkpoint))


def command_harness(checkpoint: dict, batch: int, device: str) -> dict:
    with tempfile.TemporaryDirectory(dir=checkpoint["folder"]) as out:
        return launch(
            *("lm_eval", "run", "--model", "hf", "--tasks", TASK, "--log_samples"),
            *("--model_args", f"pretrained={checkpoint['merge']},dtype={their_dtype()}"),
            *(
                "--include_path",
                checkpoint["tasks"],
                "--batch_size",
                str(batch),
                "--device",
                device,
            ),
            *("--output_path", out),
        )


# ----------------------------------------------------------------------------- comparing them


def compare(
    name: str, identical: bool, turns: int, questions: int, batches: list[int], device: str
) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = forked(prepare, name, identical, Path(folder), questions)
        tried = {batch: forked(ask_harness, checkpoint, batch)["seconds"] for batch in batches}
        batch = min(tried, key=tried.get)
        calls, commands = [], []
        for _ in range(turns):
            calls.append((forked(ask_ours, checkpoint), forked(ask_harness, checkpoint, batch)))
            commands.append((command_ours(checkpoint), command_harness(checkpoint, batch, device)))
    ours, theirs = calls[0][0]["answers"], calls[0][1]["answers"]
    return {
        "shape": checkpoint["shape"],
        "questions": len(ours),
        "batch_seconds": tried,
        "batch": batch,
        "call": seconds(calls),
        # for every further model of this tokenizer
        "again": seconds([(further(ours), theirs) for ours, theirs in calls]),
        "command": seconds(commands),
        "peak_bytes": {
            "ours": max(pair[0]["peak_bytes"] for pair in commands),
            "lm_eval": max(pair[1]["peak_bytes"] for pair in commands),
        },
        **agreement(ours, theirs),
    }


def seconds(pairs: list) -> dict:
    """Both sides' seconds, and how many times as long lm_eval takes."""
    ours, theirs = ([pair[side]["seconds"] for pair in pairs] for side in (0, 1))
    return {"ours": ours, "lm_eval": theirs, "ratio": ratio(theirs, ours)}


def further(ours: dict) -> dict:
    """Ours, where the questions are made already."""
    return {"seconds": ours["seconds"] - ours["questions_seconds"]}


def agreement(ours: list, theirs: list) -> dict:
    """How many questions are judged otherwise, and how far log-likelihoods lie apart at most."""
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "accuracy": sum(right for _, right in ours) / len(ours),
        "judged_otherwise": sum(a[1] != b[1] for a, b in pairs),
        "largest_difference": max(
            abs(x - y) for a, b in pairs for x, y in zip(a[0], b[0], strict=True)
        ),
    }


def main() -> None:
    if sys.argv[1:2] == ["--ours"]:
        ask_ours(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn, the mini shape")
    parser.add_argument("--sizes", nargs="+", choices=SIZES)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="tried for lm_eval")
    parser.add_argument("--experts", nargs="+", choices=EXPERTS, default=list(EXPERTS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    start_over(arguments.threads)
    preload(*PRELOAD)
    on_gpu, quick = forked(has_gpu), arguments.quick
    if not on_gpu:
        preload("peft")  # it initialises CUDA, after which no fork can use it
    sizes = arguments.sizes or (
        ["tinyllama"] if on_gpu else ["mini"] if quick else ["mini", "rows"]
    )
    if not MEDMCQA.is_dir() and (real := [s for s in sizes if SIZES[s].data != "world"]):
        print(f"{', '.join(real)} left out: no real rows in {SHARED} (MOFE_SHARED)")
        sizes = [size for size in sizes if size not in real]
    cases = [(name, kind) for name in sizes for kind in arguments.experts]
    target = f"{'quick-' if quick else ''}evaluation-{'gpu' if on_gpu else 'cpu'}"
    found = sizes_of(target)
    for name, kind in cases[:1] if quick else cases:
        result = compare(
            name,
            EXPERTS[kind],
            1 if quick else arguments.turns,
            200 if quick else QUESTIONS[name],
            BATCHES[2:3] if quick else arguments.batches,
            "cuda" if on_gpu else "cpu",
        )
        print(
            f"{name}, {kind}: {result['questions']} questions, lm_eval takes "
            f"{result['call']['ratio']['median']:.2f} times as long, as a command "
            f"{result['command']['ratio']['median']:.2f} times, for a further model "
            f"{result['again']['ratio']['median']:.2f} times; {result['judged_otherwise']} judged otherwise, "
            f"log-likelihoods within {result['largest_difference']:.1e}",
            flush=True,
        )
        # written as it grows: this takes long
        found[f"{name}, {kind}"] = stamped(result | {"threads": arguments.threads})
        write(target, {"sizes": found})


if __name__ == "__main__":
    main()
