"""Answers in words: tokens per second, beside lm_eval's `generate_until` on the same prompts and
checkpoint.

    python benchmarks/decoding.py             to benchmarks/results/decoding-cpu.json
    python benchmarks/decoding.py --quick     whether it works

Prompts are those of real open rows. The model is random, so its texts never end by a new line; a
letter ends them, which makes them as uneven as real answers are. Three ways: this project's scorer,
lm_eval's HFLM in the fastest of the batch sizes tried, and transformers' continuous batching, where
every token with that letter ends a text. All are greedy. Speed is in tokens of the texts.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from common import (
    ROOT,
    SHARED,
    TOKENIZER,
    forked,
    preload,
    ratio,
    sizes_of,
    stamped,
    start_over,
    write,
)
from training import MIXTURES, SIZES, build, has_gpu

from mofe.study.load import read_study
from mofe.study.plan import Plan

PRELOAD = ["datasets", "lm_eval.models.huggingface", "transformers:MixtralForCausalLM"]
PRELOAD += ["mofe.stages.evaluate"]
STOP = "z"  # in 1 of 40 of TinyLlama's tokens
BATCHES = [16, 64]
PROMPTS = {"rows": 24, "tinyllama": 192}
LENGTH = 128  # the most tokens of a text


def make_prompts(questions: int) -> list[tuple[list[int], str]]:
    """(token ids, text) of the prompts of open rows of Sujet, evenly spread over their lengths."""
    from mofe.models import load
    from mofe.stages import questions as asking

    plan = Plan(read_study(ROOT / "config.yaml", mirror=str(SHARED / "data")))
    tokenizer = load.tokenizer(TOKENIZER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "asked.parquet"
        asking.make(params=plan.params.task("finance_open"), tokenizer=str(TOKENIZER), out=file)
        ids = sorted((question.ids[0] for question in asking.read(file)), key=len)
    chosen = ids[:: max(1, len(ids) // questions)][:questions]
    return [(row, tokenizer.decode(row, skip_special_tokens=True)) for row in chosen]


def model_of(size: str):
    """A random mixture of four different experts with TinyLlama's vocabulary, on its device."""
    from mofe.layers import experts
    from mofe.models import devices, load

    tokenizer = load.tokenizer(TOKENIZER)
    shape = replace(SIZES[size].shape, vocab_size=len(tokenizer)).mixture(MIXTURES["medium"], 2)
    model = build(shape, identical=False)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.set_experts_implementation(experts.GROUPED)
    return devices.to_device(model.requires_grad_(False)), tokenizer


def ours(size: str, prompts, batch) -> tuple[float, list[str]]:
    from mofe.stages.evaluate import AnswerScorer

    scorer = AnswerScorer(*model_of(size))
    started = time.perf_counter()
    texts = scorer.generate([ids for ids, _ in prompts], [STOP], LENGTH)
    return time.perf_counter() - started, texts


def harness(size: str, prompts, batch: int) -> tuple[float, list[str]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = model_of(size)
    if has_gpu():
        model = model.bfloat16()
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=2048)
    until = {"until": [STOP], "max_gen_toks": LENGTH, "do_sample": False}
    asked = [
        Instance("generate_until", doc={}, arguments=(text, until), idx=number)
        for number, (_, text) in enumerate(prompts)
    ]
    started = time.perf_counter()
    texts = lm.generate_until(asked, disable_tqdm=True)
    return time.perf_counter() - started, texts


def continuous(size: str, prompts, batch) -> tuple[float, list[str]]:
    from lm_eval.models.utils import postprocess_generated_text
    from transformers import GenerationConfig

    model, tokenizer = model_of(size)
    if has_gpu():
        model = model.bfloat16()
    words = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    ends = [i for i, word in enumerate(words) if STOP in word] + [tokenizer.eos_token_id]
    model.set_attn_implementation("paged|sdpa")
    settings = GenerationConfig(
        max_new_tokens=LENGTH, do_sample=False, eos_token_id=ends, pad_token_id=ends[-1]
    )
    started = time.perf_counter()
    found = model.generate_batch([ids for ids, _ in prompts], generation_config=settings)
    if failed := [answer.error for answer in found.values() if answer.error]:
        raise RuntimeError(f"continuous batching: {failed[0]}")
    texts = tokenizer.batch_decode([answer.generated_tokens for answer in found.values()])
    texts = [postprocess_generated_text(text, [STOP], None) for text in texts]
    return time.perf_counter() - started, texts


SYSTEMS = {"ours": ours, "lm_eval": harness, "continuous batching": continuous}


def measure(system: str, size: str, prompts, batch: int | None = None) -> dict:
    seconds, texts = SYSTEMS[system](size, prompts, batch)
    return {"seconds": seconds, "texts": texts}


def compare(size: str, turns: int, count: int, batches: list[int], systems: list[str]) -> dict:
    """Everyone in turns: seconds, tokens per second, lm_eval's time over each, and how many texts
    are lm_eval's."""
    prompts = forked(make_prompts, count)
    tried = {b: forked(measure, "lm_eval", size, prompts, b)["seconds"] for b in batches}
    batch = min(tried, key=tried.get)
    runs = [
        {system: forked(measure, system, size, prompts, batch) for system in ("lm_eval", *systems)}
        for _ in range(turns)
    ]
    theirs = runs[0]["lm_eval"]["texts"]
    tokens = forked(count_tokens, theirs)
    found = {}
    for system in runs[0]:
        seconds = [run[system]["seconds"] for run in runs]
        found[system] = {
            "seconds": seconds,
            "tokens_per_second": tokens / sorted(seconds)[len(seconds) // 2],
            "lm_eval_takes": ratio([run["lm_eval"]["seconds"] for run in runs], seconds),
            "same_texts": sum(
                a == b for a, b in zip(runs[0][system]["texts"], theirs, strict=True)
            ),
        }
    return {"prompts": len(prompts), "tokens": tokens, "batch": batch, "systems": found}


def count_tokens(texts: list[str]) -> int:
    from mofe.models import load

    return sum(map(len, load.tokenizer(TOKENIZER)(texts, add_special_tokens=False)["input_ids"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn, few prompts")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="tried for lm_eval")
    parser.add_argument("--systems", nargs="+", default=["ours", "continuous batching"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not TOKENIZER.is_dir():
        print(f"decoding left out: no tokenizer in {SHARED} (MOFE_SHARED)")
        return
    start_over(arguments.threads)
    preload(*PRELOAD)
    on_gpu, quick = forked(has_gpu), arguments.quick
    size = "tinyllama" if on_gpu else "rows"
    target = f"{'quick-' if quick else ''}decoding-{'gpu' if on_gpu else 'cpu'}"
    found = compare(
        size,
        1 if quick else arguments.turns,
        6 if quick else PROMPTS[size],
        arguments.batches[:1] if quick else arguments.batches,
        arguments.systems,
    )
    for system, result in found["systems"].items():
        print(
            f"{size}, {system}: {result['tokens_per_second']:,.0f} tokens/s, lm_eval takes "
            f"{result['lm_eval_takes']['median']:.2f} times as long; "
            f"{result['same_texts']} of {found['prompts']} texts are lm_eval's"
        )
    write(target, {"sizes": sizes_of(target) | {size: stamped(found)}})


if __name__ == "__main__":
    sys.exit(main())
