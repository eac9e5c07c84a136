"""Merging: seconds, peak memory and bytes written, beside the `mergekit-moe` command.

    python benchmarks/merge.py             to benchmarks/results/merge.json
    python benchmarks/merge.py --quick     whether it works

The mixture is Table 4's with two experts each of two models, random ones, on TinyLlama's tokenizer.
Two times of each side: `command`, a process from its start to its end; `call`, in a fork that has
everything imported, where mergekit is called as its command calls it. Memory is the command's.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from common import (
    ROOT,
    SHARED,
    TOKENIZER,
    forked,
    launch,
    preload,
    ratio,
    stamped,
    start_over,
    write,
)
from training import SIZES

PRELOAD = ["mergekit.scripts.moe", "transformers:LlamaForCausalLM", "mofe.stages.merge"]
MODELS = ("general", "medical")


def prepare(size: str, folder: Path) -> dict:
    """Two dense models, this project's parameters of their merge, and mergekit's configuration."""
    import torch
    import yaml
    from transformers import LlamaConfig, LlamaForCausalLM

    from mofe.models import load
    from mofe.study.load import read_study
    from mofe.study.plan import Plan

    study = read_study(ROOT / "config.yaml")
    shape = SIZES[size].shape
    sizes = {k: v for k, v in asdict(shape).items() if v is not None}
    sizes = {
        k: v for k, v in sizes.items() if k not in ("num_local_experts", "num_experts_per_tok")
    }
    for seed, name in enumerate(MODELS):
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**sizes)).bfloat16().save_pretrained(folder / name)
        load.tokenizer(TOKENIZER).save_pretrained(folder / name)
    params = Plan(study).params.merge("general_2general-2medical", study.seeds[0])
    places = {old: str(folder / name) for old, name in params["names"].items()}
    params["base"] = places[params["base"]]
    params["slots"] = [{**slot, "model": places[slot["model"]]} for slot in params["slots"]]
    params["names"] = {places[old]: name for old, name in params["names"].items()}
    config = {
        "base_model": params["base"],
        "gate_mode": params["gate_mode"],
        "dtype": params["dtype"],
        "experts_per_token": params["experts_per_token"],
        "architecture": "mixtral",
        "experts": [
            {
                "source_model": slot["model"],
                "positive_prompts": slot["positive"],
                "negative_prompts": slot["negative"],
            }
            for slot in params["slots"]
        ],
    }
    (folder / "mergekit.yaml").write_text(yaml.safe_dump(config))
    return {"params": params, "config": str(folder / "mergekit.yaml")}


def merge_ours(params: dict, out: str) -> float:
    from mofe.stages.merge import merge

    started = time.perf_counter()
    merge(params, Path(out))
    return time.perf_counter() - started


def merge_mergekit(config: str, out: str) -> float:
    from mergekit.scripts.moe import main

    started = time.perf_counter()
    main([config, out, "--device", "cpu"], standalone_mode=False)
    return time.perf_counter() - started


def measure(side: str, sources: dict, command: bool) -> dict:
    """One merge: seconds, bytes written and, of a command, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out")
        if side == "ours" and command:
            done = launch("python", __file__, "--ours", json.dumps([sources["params"], out]))
        elif side == "ours":
            done = {"seconds": forked(merge_ours, sources["params"], out)}
        elif command:
            done = launch("mergekit-moe", sources["config"], out, "--device", "cpu")
        else:
            done = {"seconds": forked(merge_mergekit, sources["config"], out)}
        files = [file for file in Path(out).rglob("*") if file.is_file() and not file.is_symlink()]
        return done | {"bytes": sum(file.stat().st_size for file in files)}


def compare(size: str, turns: int) -> dict:
    sides, found = ("ours", "mergekit"), {}
    with tempfile.TemporaryDirectory() as folder:
        sources = forked(prepare, size, Path(folder))
        for how in ("call", "command"):
            runs = {side: [] for side in sides}
            for _ in range(turns):
                for side in sides:
                    runs[side].append(measure(side, sources, how == "command"))
            times = {side: [run["seconds"] for run in runs[side]] for side in sides}
            found[how] = times | {"ratio": ratio(times["mergekit"], times["ours"])}
    found["peak_bytes"] = {s: max(run["peak_bytes"] for run in runs[s]) for s in sides}
    found["bytes_written"] = {s: max(run["bytes"] for run in runs[s]) for s in sides}
    return found


def main() -> None:
    if sys.argv[1:2] == ["--ours"]:
        merge_ours(*json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn of a small shape")
    parser.add_argument("--sizes", nargs="+", choices=["rows", "tinyllama"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not TOKENIZER.is_dir():
        print(f"merging left out: no tokenizer in {SHARED} (MOFE_SHARED)")
        return
    start_over(arguments.threads)
    preload(*PRELOAD)
    sizes = arguments.sizes or (["rows"] if arguments.quick else ["rows", "tinyllama"])
    found = {}
    for size in sizes:
        found[size] = result = compare(size, 1 if arguments.quick else arguments.turns)
        print(
            f"{size}: mergekit takes {result['call']['ratio']['median']:.2f} times as long, as a command "
            f"{result['command']['ratio']['median']:.2f} times; bytes "
            f"{result['bytes_written']}, peak {result['peak_bytes']}",
            flush=True,
        )
    name = "quick-merge" if arguments.quick else "merge"
    write(name, stamped({"threads": arguments.threads, "sizes": found}))


if __name__ == "__main__":
    main()
