"""Training steps: this project's beside transformers' Trainer and TRL's SFTTrainer.

    python benchmarks/training.py             all of it, to benchmarks/results/training-cpu.json
    python benchmarks/training.py --quick     whether it works, in a minute or two
    python benchmarks/training.py --sizes rows --mixtures medium --methods mofe

Everyone trains the same random mixture of identical experts on the same rows, all of them in every
optimiser step, with the same loss (on the answers alone) and the same AdamW; this project with as
many tokens per forward pass as micro_batch "auto" chooses. Speed is true tokens per second: tokens
of rows, padding does not count, and so do not loading, tokenising and building a trainer. With a
GPU the shape is TinyLlama's (training-gpu.json); there the first step is warm-up, and the steps
after it are what is paired.

The Trainer is what a user would write: stock MixtralForCausalLM, requires_grad_(False) on the
experts, on a GPU also .to(bfloat16), the paper's four rows per forward pass (the mini study's 32
for its shape), padded to the longest. TRL runs with whichever of TRL_SETTINGS is fastest here. Both
leave out what they cannot do: freezing some of a packed layer's experts, and quantising them (their
QLoRA quantises attention).
"""

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from common import (
    MEDMCQA,
    ROOT,
    SHARED,
    TOKENIZER,
    forget_peak,
    forked,
    peak_memory,
    preload,
    ratio,
    sizes_of,
    stamped,
    start_over,
    write,
)
from memory import METHODS, TRAINING

from mofe.estimate import flops as products
from mofe.study.methods import Lora
from mofe.study.shapes import Shape
from mofe.units import mib

MIXTURES = {"small": 2, "medium": 4, "large": 8}  # experts, as in Tables 1 and 2
PRELOAD = ["transformers:MixtralForCausalLM", "mofe.tasks", "mofe.stages.train"]
# bitsandbytes, which these import, initialises CUDA, after which no fork can use it.
PRELOAD_ON_CPU = ["bitsandbytes", "peft", "transformers:Trainer", "trl:SFTTrainer"]
FOLDED = "mofe, folded"  # MoFE with training.fold_duplicates
STOCK = ["full", "mofe", "lora", "dora", "qlora"]  # what Trainer and TRL can do

# Ways to have SFTTrainer waste less on padding.
TRL_SETTINGS = {
    "batches of 4": {"batch": 4},
    "batches of 4, by length": {"batch": 4, "by_length": True},
    "batches of 16, by length": {"batch": 16, "by_length": True},
    "batches of 4, padding-free": {"batch": 4, "padding_free": True},
    "packed to 256": {"batch": 1, "packing": 256},
    "packed to 1024": {"batch": 1, "packing": 1024},
}
# On a GPU, which wants more of them at a time.
TRL_ON_GPU = {
    "batches of 16, by length": TRL_SETTINGS["batches of 16, by length"],
    "4 packed to 1024": {"batch": 4, "packing": 1024},
}


@dataclass(frozen=True)
class Size:
    """A dense shape, and what it trains on: rows of the generated `world` or real ones ("medmcqa",
    "mmlu_medmcqa"), all of them in each of `steps` optimiser steps; the first `warm_up` steps are
    not measured, and each of those after them is. micro_batch: the Trainer's rows per forward pass.
    alone: this project and nobody else. methods: what is trained, None for everything.
    """

    shape: Shape
    data: str
    rows: int
    steps: int
    micro_batch: int
    max_length: int
    warm_up: int = 0
    alone: bool = False
    methods: tuple[str, ...] | None = None

    @property
    def training(self) -> dict:
        return TRAINING | {
            "epochs": self.steps,
            "global_batch": self.rows,
            "micro_batch": "auto",
            "max_length": self.max_length,
        }


TINYLLAMA = Shape(2048, 5632, 22, 32, 4, 32000)
SIZES = {
    "mini": Size(Shape(64, 192, 3, 4, 2, 1000), "world", 256, 4, 32, 256),
    # TinyLlama's proportions at a quarter of its width: 64 a head, FFN 2.75 times as wide. No row
    # has more than 256 tokens, and a CPU core is fastest at about 1,000 tokens per forward pass.
    "rows": Size(replace(TINYLLAMA, hidden_size=512, intermediate_size=1408, num_hidden_layers=4,
                         num_attention_heads=8, num_key_value_heads=1), "medmcqa", 64, 2, 4, 256),
    "tinyllama_512": Size(TINYLLAMA, "mmlu_medmcqa", 512, 6, 4, 1024, warm_up=1, alone=True),
    "tinyllama": Size(TINYLLAMA, "mmlu_medmcqa", 128, 6, 4, 1024, warm_up=1, methods=("mofe",)),
}  # fmt: skip


# ------------------------------------------------------------------------- what is trained on


def make_rows(size: Size, folder: Path):
    """The tokenised rows (mofe.training.tokens.Rows) of a size, by the study's own prompts."""
    from mofe import tasks
    from mofe.data import sources, world
    from mofe.models import load
    from mofe.study.load import read_study
    from mofe.study.plan import Plan
    from mofe.training import tokens

    if size.data == "world":
        study = read_study(ROOT / "config.yaml", ROOT / "profiles/mini/study.yaml")
        world.make(study.world.model_dump(), str(folder / "world"))
        mirror, tokenizer = folder / "world", load.tokenizer(folder / "world/mofe/tokenizer")
    else:
        mirror, tokenizer = SHARED / "data", load.tokenizer(TOKENIZER)
        study = read_study(ROOT / "config.yaml", mirror=str(mirror))
    plan, pairs = Plan(study), []
    datasets = plan.mix("medmcqa" if size.data == "world" else size.data)
    for dataset in datasets:
        params = plan.params.data(dataset) | {"mirror": str(mirror)}
        task = params["task"] | {"mirror": str(mirror)}
        subset, split = params["data"]["subset"], params["data"]["split"]
        rows = sources.load(params["source"], subset, split, str(mirror)).shuffle(seed=0)
        pairs += list(tasks.training_rows(task, rows.select(range(size.rows // len(datasets)))))
    return tokens.tokenize(pairs, tokenizer, size.max_length), len(tokenizer)


def build(shape: Shape, identical: bool = True):
    """A stock Mixtral, of identical experts as in Tables 1 and 2 or of different ones, with the
    same random weights each time, in float32."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM
    from transformers.initialization import no_init_weights

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {k: v for k, v in asdict(shape).items() if v is not None}
    sizes.pop("attention_bias")
    with torch.device(device), no_init_weights():
        model = MixtralForCausalLM(MixtralConfig(**sizes, pad_token_id=0))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.fill_(1.0)
        elif identical and ".experts." in name:
            parameter.data[:] = torch.empty_like(parameter.data[0]).normal_(std=0.02)
        else:
            parameter.data.normal_(std=0.02)
    return model


# --------------------------------------------------------------------------- one training each


def train_ours(size: Size, shape: Shape, method: str, rows, settings) -> dict:
    """mofe.training.loop.fit, by its own clock."""
    import torch

    from mofe.layers import experts
    from mofe.models import devices, methods
    from mofe.records import LossStep, read_lines
    from mofe.training.checkpoint import Checkpoint
    from mofe.training.loop import fit

    model = build(shape)
    model.set_experts_implementation(experts.GROUPED)  # as mofe.models.load.checkpoint does
    model = methods.apply(model, METHODS["mofe" if method == FOLDED else method])
    if method == FOLDED:
        model = experts.fold_duplicates(model)
    training, parts = at_once(size, shape, method)
    model = devices.to_device(model)
    forget_peak()
    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpoint(Path(folder) / "checkpoint", "benchmark") as checkpoint,
    ):
        torch.manual_seed(0)
        began = time.process_time()
        run = fit(model, rows, training, 0, 0, checkpoint)
        cpu = time.process_time() - began
        steps = read_lines(checkpoint.log, LossStep)
    return measured(size, [step.seconds for step in steps], cpu, run.tokens) | {
        "losses": [step.loss for step in steps],
        "rows_at_once": training["micro_batch"],
        "estimated_bytes": sum(parts.values()),
    }


def at_once(size: Size, shape: Shape, method: str) -> tuple[dict, dict]:
    """The training with as many rows per forward pass as the plan would choose for this machine,
    and the parts of its peak of memory by the plan's estimate
    (mofe.estimate.memory.choose_micro_batch)."""
    import torch

    from mofe.estimate import memory
    from mofe.study import hardware

    usable = None
    if torch.cuda.is_available():
        usable = hardware.usable(torch.cuda.get_device_properties(0).total_memory)
    applied = METHODS["mofe" if method == FOLDED else method]
    return memory.choose_micro_batch(shape, applied, size.training, memory.CHOICES, usable)


def train_trainer(size: Size, shape: Shape, method: str, rows, settings) -> dict:
    """transformers' Trainer, from the first step's beginning to the last one's end."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = _padder()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=_stock(shape, method),
            args=TrainingArguments(**_arguments(size, folder, size.micro_batch, len(rows))),
            train_dataset=_dataset(rows),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        return _timed(trainer, size, sum(rows.lengths) * size.steps)


def train_trl(size: Size, shape: Shape, method: str, rows, settings) -> dict:
    """TRL's SFTTrainer under one of TRL_SETTINGS, likewise."""
    from trl import SFTConfig, SFTTrainer

    batch, packing = settings["batch"], settings.get("packing")
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(size, folder, batch, len(rows))
        if settings.get("by_length"):
            arguments["train_sampling_strategy"] = "group_by_length"
        config = SFTConfig(
            **arguments,
            gradient_checkpointing=False,  # TRL's default costs a second forward pass
            router_aux_loss_coef=0.0,  # on by default
            padding_free=settings.get("padding_free", False),
            packing=packing is not None,
            max_length=packing,  # no row is longer
        )
        trainer = SFTTrainer(
            model=_stock(shape, method),
            args=config,
            train_dataset=_dataset(rows),
            processing_class=_padder(),
        )
        return _timed(trainer, size, sum(rows.lengths) * size.steps)


SYSTEMS = {"mofe": train_ours, "trainer": train_trainer, "trl": train_trl}


def _stock(shape: Shape, method: str):
    """The stock model under a method, as a user of transformers and peft sets it up."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = build(shape)
    if METHODS[method].is_quantized:
        model = _loaded_in_4bit(model)
    if METHODS[method].frozen_slots(shape.num_local_experts):
        for layer in model.model.layers:
            layer.mlp.experts.requires_grad_(False)
            if torch.cuda.is_available():  # else their products would be float32's, by autocast too
                layer.mlp.experts.to(torch.bfloat16)
    if isinstance(lora := METHODS[method], Lora):
        adapters = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=lora.targets,
            use_dora=bool(lora.dora),
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, adapters)
    return model


def _loaded_in_4bit(model):
    import torch
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder, quantization_config=nf4, dtype=torch.float32)


def _arguments(size: Size, folder: str, batch: int, rows: int) -> dict:
    """Trainer's arguments for the study's training: an epoch is one optimiser step."""
    import torch

    training = size.training
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": math.ceil(rows / batch),
        "num_train_epochs": training["epochs"],
        "learning_rate": training["learning_rate"],
        "weight_decay": training["weight_decay"],
        "max_grad_norm": training["max_grad_norm"],
        "lr_scheduler_type": "linear",
        "bf16": torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _dataset(rows):
    from datasets import Dataset

    labels = [[-100] * p + i[p:] for i, p in zip(rows.ids, rows.prompt, strict=True)]
    return Dataset.from_dict({"input_ids": rows.ids, "labels": labels})


def _padder():
    """A tokenizer that pads, which is all that is asked of it: rows are token ids already."""
    from transformers import PreTrainedTokenizerFast

    from mofe.data.world import tokenizer

    names = {"eos_token": "</s>", "pad_token": "</s>", "padding_side": "right"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer(["ask yes no"]), **names)


def _timed(trainer, size: Size, tokens: int) -> dict:
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_train_begin(self, *_, **__):
            forget_peak()
            self.losses, self.ends = [], []
            self.began, self.cpu_began = time.perf_counter(), time.process_time()

        def on_step_end(self, *_, **__):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter() - self.began)
            self.cpu = time.process_time() - self.cpu_began

        def on_log(self, *_, logs, **__):
            self.losses += [float(logs["loss"])] if "loss" in logs else []

    trainer.add_callback(clock := Clock())
    trainer.train()
    return measured(size, clock.ends, clock.cpu, tokens) | {"losses": clock.losses}


def measured(size: Size, ends: list[float], cpu: float, tokens: int) -> dict:
    """A run's `laps`: seconds, this process's CPU seconds, and true tokens. The whole run is one;
    after a warm-up each step is, without CPU seconds.

    ends: seconds from the run's beginning to the end of each step.
    """
    if not size.warm_up:
        return {"laps": [{"seconds": ends[-1], "cpu_seconds": cpu, "tokens": tokens}]}
    steps = pairwise(ends[size.warm_up - 1 :])
    return {
        "laps": [{"seconds": end - start, "tokens": tokens / len(ends)} for start, end in steps]
    }


def run(system: str, size: Size, shape: Shape, method: str, rows, settings=None) -> dict:
    """One training, in a process of its own; `failed` where the GPU's memory does not do."""
    import torch

    try:
        return SYSTEMS[system](size, shape, method, rows, settings) | {"peak_bytes": peak_memory()}
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}


def matmul_ceiling() -> float:
    """FLOP/s of a large product: float32, on a GPU bfloat16."""
    import torch

    on_gpu = torch.cuda.is_available()
    n, repeats = (8192, 20) if on_gpu else (2048, 3)
    kind = {"device": "cuda", "dtype": torch.bfloat16} if on_gpu else {}
    a, b, best = torch.randn(n, n, **kind), torch.randn(n, n, **kind), math.inf
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(repeats):
            a @ b
        if on_gpu:
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / repeats)
    return 2 * n**3 / best


# ------------------------------------------------------------------------------- comparing them


def cases(size: Size, methods: list[str], everything: bool) -> list[tuple[str, str]]:
    """(system, method) of a turn: those to be compared stand side by side. Of the others' methods
    MoFE is in every turn; the rest, which takes long, where `everything` is asked for."""
    stock = [] if size.alone else STOCK if everything else ["mofe"]
    return [
        (system, method)
        for method in methods
        if method in (size.methods or methods)
        for system in (SYSTEMS if method in stock else ["mofe"])
    ]


def best_for_trl(size: Size, shape: Shape, rows, settings) -> tuple[str, dict[str, float]]:
    """The fastest of these settings for MoFE, and the tokens per second of each: the best lap of
    two runs, or of one that is warmed up."""
    speeds: dict[str, float] = defaultdict(float)
    for _ in range(1 if size.warm_up else 2):
        for name, chosen in settings.items():
            result = forked(run, "trl", size, shape, "mofe", rows, chosen)
            if "failed" not in result:
                speeds[name] = max(speeds[name], *map(_speed, result["laps"]))
    return max(speeds, key=speeds.get, default=next(iter(settings))), dict(speeds)


def compare(name: str, arguments: argparse.Namespace) -> Iterator[dict]:
    """Everything about one size: turns over all systems and methods, mixture by mixture. The record
    so far, after each."""
    size, mixtures = SIZES[name], arguments.mixtures
    if arguments.quick:
        size = replace(size, rows=size.rows // 8, steps=1, warm_up=0)
    with tempfile.TemporaryDirectory() as folder:
        rows, vocabulary = forked(make_rows, size, Path(folder))
    size = replace(size, rows=len(rows), shape=replace(size.shape, vocab_size=vocabulary))
    record = {
        "shape": asdict(size.shape),
        "rows": len(rows),
        "mean_length": sum(rows.lengths) / len(rows),
        "answer_share": sum(rows.answers) / sum(rows.lengths),
        "training": size.training,
        "trainer_rows": size.micro_batch,
        "matmul_flops": forked(matmul_ceiling),
        "mixtures": {},
    }
    first = size.shape.mixture(MIXTURES[mixtures[0]], 2)
    tried = TRL_ON_GPU if size.warm_up else TRL_SETTINGS
    if arguments.quick:
        tried = dict(list(tried.items())[:1])
    best = None
    if not size.alone:
        best, record["trl_settings"] = best_for_trl(size, first, rows, tried)
        record["trl_best"] = best
    for mixture in mixtures:
        shape = size.shape.mixture(MIXTURES[mixture], 2)
        runs = defaultdict(list)
        for turn in range(arguments.turns):
            for system, method in cases(size, arguments.methods, turn < arguments.others):
                result = forked(run, system, size, shape, method, rows, tried.get(best))
                runs[system, method].append(result)
        record["mixtures"][mixture] = summarise(record, shape, runs)
        for line in lines(name, mixture, record["mixtures"][mixture]):
            print(line, flush=True)
        yield record


def summarise(record: dict, shape: Shape, runs: dict) -> list[dict]:
    """What is reported of each system and method: medians, and ratios within the turns."""
    found = []
    for (system, method), its in runs.items():
        entry = {"system": system, "method": method}
        found.append(entry)
        if any("failed" in result for result in its):
            entry["failed"] = next(result["failed"] for result in its if "failed" in result)
            continue
        laps = [lap for result in its for lap in result["laps"]]
        speeds = [_speed(lap) for lap in laps]
        middle = sorted(speeds)[len(speeds) // 2]
        flops = flops_per_token(shape, method, record["mean_length"], record["answer_share"])
        entry |= {
            "tokens_per_second": speeds,
            "peak_bytes": max(result["peak_bytes"] for result in its),
            "flops_per_token": flops,
            "utilisation": middle * flops / record["matmul_flops"],
            "losses": its[0]["losses"],
        }
        entry |= {k: its[0][k] for k in ("rows_at_once", "estimated_bytes") if k in its[0]}
        for label, other in (("over_ours", ("mofe", method)), ("over_mofe", (system, "mofe"))):
            beside = runs.get(other, [])[: len(its)]  # of the same turns
            if (
                other == (system, method)
                or not beside
                or any("failed" in result for result in beside)
            ):
                continue
            others = [lap for result in beside for lap in result["laps"]]
            # how many times as long as the other, by wall time and by this process's CPU time
            for kind, clock in ((label, "seconds"), (f"{label}_cpu", "cpu_seconds")):
                if clock in laps[0]:
                    entry[kind] = ratio(
                        [lap[clock] for lap in laps], [lap[clock] for lap in others]
                    )
    return found


def _speed(lap: dict) -> float:
    return lap["tokens"] / lap["seconds"]


def flops_per_token(shape: Shape, method: str, length: float, answers: float) -> float:
    """Of this project's step; folded, a token passes through one FFN."""
    if method == FOLDED:
        shape, method = replace(shape, num_experts_per_tok=1), "mofe"
    return products.step(shape, METHODS[method], length, answers)


def lines(size: str, mixture: str, entries: list[dict]):
    """A line for every system and method."""
    for entry in entries:
        begin = f"{size:9} {mixture:6} {entry['system']:7} {entry['method']:12}"
        if "failed" in entry:
            yield f"{begin} {entry['failed']}"
            continue
        middle = sorted(entry["tokens_per_second"])[len(entry["tokens_per_second"]) // 2]
        against = "".join(
            f"  {entry[key]['median']:5.2f} x {what}"
            for key, what in (
                ("over_ours", "ours"),
                ("over_ours_cpu", "ours by CPU"),
                ("over_mofe", "its MoFE"),
                ("over_mofe_cpu", "its MoFE by CPU"),
            )
            if key in entry
        )
        yield (
            f"{begin} {middle:9,.0f} tokens/s  {entry['utilisation']:4.0%} of the ceiling "
            f"{mib(entry['peak_bytes']):>7} MiB  loss {entry['losses'][0]:.5f}{against}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn, MoFE and LoRA, medium")
    parser.add_argument("--sizes", nargs="+", choices=SIZES)
    parser.add_argument("--mixtures", nargs="+", choices=MIXTURES)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, FOLDED])
    parser.add_argument("--turns", type=int, help="5, with a GPU 1, of five steps")
    parser.add_argument(
        "--others", type=int, help="turns of the others' other methods: 1, with a GPU 0"
    )
    parser.add_argument("--threads", type=int, default=1, help="as a job of a CPU study has")
    parser.add_argument("--name", help="of the result; else training-cpu or training-gpu")
    arguments = parser.parse_args()
    start_over(arguments.threads)
    preload(*PRELOAD)
    on_gpu, quick = forked(has_gpu), arguments.quick
    if not on_gpu:
        preload(*PRELOAD_ON_CPU)
    sizes = arguments.sizes or (["tinyllama_512", "tinyllama"] if on_gpu else ["mini", "rows"])
    if not MEDMCQA.is_dir() and (real := [s for s in sizes if SIZES[s].data != "world"]):
        print(f"{', '.join(real)} left out: no real rows in {SHARED} (MOFE_SHARED)")
        sizes = [size for size in sizes if size not in real]
    arguments.mixtures = arguments.mixtures or (["medium"] if quick else list(MIXTURES))
    arguments.methods = arguments.methods or (["mofe", "lora"] if quick else every_method())
    arguments.turns = 1 if quick else arguments.turns or (1 if on_gpu else 5)
    arguments.others = (0 if on_gpu else 1) if arguments.others is None else arguments.others
    name = arguments.name or f"{'quick-' if quick else ''}training-{'gpu' if on_gpu else 'cpu'}"
    measured_as = {"threads": arguments.threads, "turns": arguments.turns}
    record = {"sizes": sizes_of(name)}
    for size in sizes:
        for found in compare(size, arguments):  # written as it grows: this takes long
            record["sizes"][size] = stamped(found | measured_as, ["trl"])
            write(name, record)


def every_method() -> list[str]:
    """All methods, with folding where this version has it."""
    from mofe.study.config import Training

    folding = [FOLDED] if "fold_duplicates" in Training.model_fields else []
    return ["full", "mofe", *folding, *(m for m in METHODS if m not in ("full", "mofe"))]


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
