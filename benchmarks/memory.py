"""Measured peak memory of real trainings beside the estimate of mofe/memory.py.

    python benchmarks/memory.py tiny            seconds; what the tests run
    python benchmarks/memory.py 100m            a mixture of 93 million parameters, minutes
    python benchmarks/memory.py tinyllama       TinyLlama's shape: for a GPU

Each training is mofe.train.train_variant on a merge with random weights, in a process of its own,
for two optimiser steps of two micro-batches whose rows have the greatest length. Without a GPU the
peak is the process's resident memory, with one the memory that torch allocated on it. The record is
printed as JSON at the end.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the package of this checkout, installed or not

from mofe import memory, warm
from mofe.shapes import Shape

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
METHODS = {
    "full": {"method": "full"},
    "mofe": {"method": "freeze", "frozen": "all"},
    "freeze2": {"method": "freeze", "frozen": 2},
    "lora": {"method": "lora", "rank": 8, "alpha": 16, "targets": TARGETS},
    "qlora": {"method": "lora", "rank": 8, "alpha": 16, "targets": TARGETS, "quantize": "nf4"},
    "dora": {"method": "lora", "rank": 8, "alpha": 16, "targets": TARGETS, "dora": True},
}
# shape, numbers of experts, rows a forward pass, tokens a row
SIZES = {
    "tiny": (Shape(64, 192, 3, 4, 2, 1000), [4], 16, 256),
    "100m": (Shape(512, 1024, 12, 8, 4, 8000), [4], 2, 256),
    "tinyllama": (Shape(2048, 5632, 22, 32, 4, 32000), [2, 4, 8], 4, 1024),
}
TRAINING = {
    "learning_rate": 1e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0,
    "max_grad_norm": 1.0,
    "epochs": 1,
    "router_aux_loss": 0.0,
}


def make_merge(shape: Shape, folder: Path) -> None:
    """A Mixtral of this shape with random weights, and a tokenizer, as mofe.merge leaves them."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

    from mofe.data.world import tokenizer

    sizes = {k: v for k, v in asdict(shape).items() if v is not None}
    sizes.pop("attention_bias")
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = MixtralForCausalLM(MixtralConfig(**sizes)).to(torch.bfloat16)
    model.save_pretrained(folder)
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer(["ask yes no"]), eos_token="</s>")
    words.save_pretrained(folder)


def make_rows(rows: int, length: int, file: Path) -> None:
    """Rows of exactly `length` tokens, the last of them the answer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompt = " ".join(["ask"] * (length - 2))  # the tokenizer puts <s> in front
    pq.write_table(pa.table({"prompt": [prompt] * rows, "answer": [" yes"] * rows}), file)


def measure(merge: Path, rows: Path, settings: dict, training: dict, out: Path) -> float:
    """Bytes at the peak of one training, in a fork of this process."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(_train(merge, rows, settings, training, out))
        finally:
            os._exit(1)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"the training by {settings} failed")
    peak = out / "peak.json"
    return json.loads(peak.read_text()) if peak.exists() else usage.ru_maxrss * 1024


def _train(merge: Path, rows: Path, settings: dict, training: dict, out: Path) -> int:
    import torch

    from mofe.train import train_variant

    train_variant(
        merge=str(merge),
        data=[str(rows)],
        parents=[],
        chain=[],
        params={"recipe": "measured", **settings, "training": training},
        names={},
        seed=0,
        delta=out / "delta.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
    )
    if torch.cuda.is_available():
        (out / "peak.json").write_text(json.dumps(torch.cuda.max_memory_allocated()))
    return 0


def compare(size: str, methods: list[str]) -> list[dict]:
    """Estimate and measurement, in bytes, of every method at a size."""
    dense, mixtures, micro_batch, length = SIZES[size]
    training = TRAINING | {
        "micro_batch": micro_batch,
        "global_batch": 2 * micro_batch,
        "max_length": length,
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.parquet"
        make_rows(4 * micro_batch, length, rows)
        for experts in mixtures:
            shape = dense.mixture(experts, 2)
            merge = Path(folder) / f"moe{experts}"
            in_fork(make_merge, shape, merge)
            for name in methods:
                settings = METHODS[name]
                out = Path(folder) / f"{experts}{name}"
                out.mkdir()
                measured = measure(merge, rows, settings, training, out)
                on_gpu = (out / "peak.json").exists()
                estimate = (
                    memory.on_gpu(shape, settings, training, False)
                    if on_gpu
                    else memory.on_cpu(shape, settings, training, False, stored=2)
                )
                found.append(
                    {
                        "size": size,
                        "experts": experts,
                        "method": name,
                        "estimate": round(memory.total(estimate)),
                        "measured": round(measured),
                        "parts": {k: round(v) for k, v in estimate.items()},
                    }
                )
                print(row(found[-1]), flush=True)
    return found


def row(it: dict) -> str:
    """A comparison as one line, in MiB."""
    estimate, measured = it["estimate"] / 2**20, it["measured"] / 2**20
    return (
        f"{it['size']} {it['experts']} experts {it['method']:8} estimate {estimate:9,.0f} MiB  "
        f"measured {measured:9,.0f} MiB  {estimate / measured - 1:+.1%}"
    )


def in_fork(function, *arguments) -> None:
    """Call a function in a fork, so that this process's own memory stays as it is."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"{function.__name__} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    arguments = parser.parse_args()
    if any(os.environ.get(k) != v for k, v in warm.KEEP_MEMORY.items()):
        # malloc reads its settings when a process starts; CPU studies set these for their jobs
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | warm.KEEP_MEMORY)

    import bitsandbytes  # noqa: F401 - imported here, so that every fork starts with the same
    import peft  # noqa: F401
    import torch

    import mofe.train  # noqa: F401
    from mofe import provenance

    torch.set_num_threads(1)
    found = compare(arguments.size, arguments.methods)
    stamp = provenance.stamp()
    print(json.dumps({"trainings": found, **stamp}, indent=2))


if __name__ == "__main__":
    main()
