"""Measured peak memory of real trainings beside the estimate of mofe/estimate/memory.py.

    python benchmarks/memory.py tiny            the tests run a part of it
    python benchmarks/memory.py tiny 30m 100m   up to a mixture of 93 million parameters, minutes
    python benchmarks/memory.py tinyllama       TinyLlama's shape: for a GPU

Each training is mofe.stages.train.train_variant on a merge with random weights, in a process of its
own, for two optimiser steps of two micro-batches whose rows have the greatest length. Without a GPU
the peak is the process's resident memory (VmHWM), with one the memory that torch allocated on it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the package of this checkout, installed or not

from mofe import provenance, records
from mofe.estimate import memory
from mofe.files import write_atomic
from mofe.jobs import warm
from mofe.study.methods import Freeze, Full, Ia3, Lora, Method, RsLora
from mofe.study.shapes import Shape
from mofe.units import mib

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
METHODS = {  # those that benchmarks/training.py compares
    "full": Full(),
    "mofe": Freeze(frozen="all"),
    "freeze2": Freeze(frozen=2),
    "lora": Lora(rank=8, alpha=16, targets=TARGETS),
    "qlora": Lora(rank=8, alpha=16, targets=TARGETS, quantize="nf4"),
    "dora": Lora(rank=8, alpha=16, targets=TARGETS, dora=True),
}
MEASURED = METHODS | {
    "rslora": RsLora(rank=8, alpha=16, targets=TARGETS),
    "ia3": Ia3(targets=TARGETS, feedforward=["o_proj"]),
}
# shape, numbers of experts, rows per forward pass, tokens per row
SIZES = {
    "tiny": (Shape(64, 192, 3, 4, 2, 1000), [4], 16, 256),
    "30m": (Shape(256, 704, 8, 8, 4, 4000), [4], 8, 256),
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
    "fold_duplicates": False,
}


def make_merge(shape: Shape, folder: Path) -> None:
    """A Mixtral of this shape with random weights, and a tokenizer, as mofe.stages.merge leaves
    them."""
    import torch
    from safetensors.torch import save_file
    from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

    from mofe.data.world import tokenizer

    sizes = {k: v for k, v in asdict(shape).items() if v is not None}
    sizes.pop("attention_bias")
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = MixtralForCausalLM(MixtralConfig(**sizes)).to(torch.bfloat16)
    # packed, as mergekit writes it; save_pretrained would write every expert by itself
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(folder)
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer(["ask yes no"]), eos_token="</s>")
    words.save_pretrained(folder)


def make_rows(rows: int, length: int, file: Path) -> None:
    """Rows of exactly `length` tokens, the last of them the answer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompt = " ".join(["ask"] * (length - 2))  # the tokenizer puts <s> in front
    pq.write_table(pa.table({"prompt": [prompt] * rows, "answer": [" yes"] * rows}), file)


def measure(merge: Path, rows: Path, method: Method, training: dict, out: Path) -> dict:
    """The peak of one training, in a process of its own: {"bytes": ..., "on": "cuda" or "cpu"}."""
    call = {"merge": str(merge), "rows": str(rows), "training": training}
    call["settings"] = method.settings()
    # malloc reads its settings when a process starts; CPU studies set these for their jobs
    process = subprocess.Popen(
        [sys.executable, __file__, "--train", json.dumps(call | {"out": str(out)})],
        env=os.environ | warm.KEEP_MEMORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    errors = process.stderr.read()
    if process.wait():
        raise RuntimeError(f"the training by {method} failed:\n{errors}")
    record = records.read(out / "train.json", records.TrainRecord)
    return {"bytes": record.peak_memory_bytes, "on": "cuda" if record.hardware.gpus else "cpu"}


def train(merge: str, rows: str, settings: dict, training: dict, out: str) -> None:
    """In that process: the training, as a job would do it."""
    import torch

    from mofe.stages.train import train_variant

    torch.set_num_threads(1)
    folder = Path(out)
    train_variant(
        merge=merge,
        data=[rows],
        parents=[],
        chain=[],
        params={"recipe": "measured", **settings, "training": training},
        names={"moe": "measured", "stages": "measured"},
        seed=0,
        trained=folder / "trained.safetensors",
        record=folder / "train.json",
        log=folder / "log.jsonl",
        checkpoint=folder / "checkpoint",
    )


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
            make_merge(shape, merge)
            for name in methods:
                method = MEASURED[name]
                out = Path(folder) / f"{experts}{name}"
                out.mkdir()
                measured = measure(merge, rows, method, training, out)
                if measured["on"] == "cuda":
                    estimate = memory.on_gpu(shape, method, training, memory.CHOICES)
                else:
                    estimate = memory.on_cpu(shape, method, training, memory.CHOICES, stored=2)
                found.append(
                    {
                        "size": size,
                        "experts": experts,
                        "method": name,
                        "estimate": round(memory.total(estimate)),
                        "measured": measured["bytes"],
                        "on": measured["on"],
                        "parts": {k: round(v) for k, v in estimate.items()},
                    }
                )
                print(row(found[-1]), flush=True)
    return found


def row(entry: dict) -> str:
    """A comparison as one line, in MiB."""
    estimate, measured = entry["estimate"], entry["measured"]
    return (
        f"{entry['size']} {entry['experts']} experts {entry['method']:8} estimate {mib(estimate):>9} MiB  "
        f"measured {mib(measured):>9} MiB  {estimate / measured - 1:+.1%}"
    )


def main() -> None:
    if sys.argv[1:2] == ["--train"]:
        train(**json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--methods", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--out", help="a JSON file for the record")
    arguments = parser.parse_args()
    found = [entry for size in arguments.sizes for entry in compare(size, arguments.methods)]
    record = {"trainings": found, **provenance.stamp()}
    if arguments.out:
        write_atomic(arguments.out, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
