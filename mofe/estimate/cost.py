"""What every job costs: tokens, FLOPs, hours, memory and disk, and what to ask a cluster for.

Estimates need only the plan and the models' shapes (docs/plan.md says how). What finished runs have
measured, by their train.json, replaces the estimate. Reads small JSON files only, and imports
neither torch nor transformers.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from mofe import records, sums
from mofe.estimate import flops as products
from mofe.estimate import memory
from mofe.estimate.memory import Parts
from mofe.study.config import HubShape
from mofe.study.hardware import GPUS, sharding
from mofe.study.methods import Full, Method
from mofe.study.plan import Plan
from mofe.study.shapes import Shape
from mofe.study.values import ConfigError
from mofe.study.variants import Dense, Moe, Stage, Variant
from mofe.units import gib

MB = 1_000_000
R = TypeVar("R")

# The time and memory that a job asks for, from its estimate. A job that runs out is tried again
# with more.
SLOWER = 2.5  # a run may take this many times its estimate
MINUTES = 15  # added to it: starting, reading the dense models, waiting for a shared disk
LARGER = 1.2  # main memory may be this many times its estimate
NODE = 1500  # MB added per node: Snakemake's own processes, and tokenised rows

DISK = 100e6  # bytes/s that a shared disk reads or writes
TOKENIZER = 80  # bytes of a tokenizer's files per token: TinyLlama's have 75
CPU_FLOPS = 20e9  # FLOP/s per thread, until a CPU study's own runs have measured it
RIDGE_CPUS = 8  # of a merge whose gates are fitted, which needs no GPU
MAX_NODES = 64  # no training is spread further

# Where the configuration states no number and nothing is prepared yet.
GUESSED_ROWS = 100_000
GUESSED_TOKENS = 256
GUESSED_QUESTIONS = 2_000
CHARACTERS_PER_TOKEN = 3.5  # TinyLlama's tokenizer: 3.0 on MedMCQA to 4.0 on Sujet's sentiment rows
CHARACTERS_PER_WORLD_TOKEN = 5.0  # the generated world's tokens are words
ANSWER_TOKENS = 2  # per multiple-choice row
# Seconds per token by which all answers of a batch grow: reading the weights and starting kernels,
# which the utilisation of products does not cover. What an H200 took with TinyLlama's shape and
# four experts, reading the prompts included (benchmarks/results/decoding-gpu.json).
DECODING = 0.025


@dataclass(frozen=True)
class Needs:
    """What a job asks of a machine.

    cpus: cores per node; mem_mb: main memory per node in MB; runtime: minutes; gpus: GPUs per node;
    sharding: "none" (one GPU), "ddp" (replicated) or "fsdp" (sharded over all GPUs).
    """

    cpus: int
    mem_mb: int
    runtime: int
    gpus: int = 0
    nodes: int = 1
    sharding: str = "none"


@dataclass(frozen=True)
class Estimate:
    """What a job is expected to take.

    needs: what it asks for. hours: wall-clock time. memory: bytes at the peak by what holds them,
    per GPU; in a CPU study, resident bytes. starting: hours of a GPU job until its first step:
    processes, imports, and reading the model (schedule.sharing). disk: bytes that it leaves.
    scratch: bytes of its checkpoint's two states and of the weights before training, which are
    deleted when it ends. micro_batch: rows per forward pass of a training. request: its shape,
    method, `training` keys and labelled share (mofe.estimate.memory). fits: whether some number of
    these GPUs holds it. measured: whether its speed is that of finished runs.
    """

    needs: Needs
    hours: float
    parameters: int = 0
    trainable: int = 0
    tokens: float = 0
    flops: float = 0
    starting: float = 0
    memory: Parts = field(default_factory=dict)
    disk: float = 0
    scratch: float = 0
    micro_batch: int = 0
    fits: bool = True
    measured: bool = False
    request: tuple[Shape, Method, Mapping, float] | None = field(default=None, repr=False)

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.needs.gpus * self.needs.nodes


LIGHT = Estimate(Needs(cpus=1, mem_mb=2000, runtime=10), hours=1 / 60, disk=0.1 * MB)


@dataclass(frozen=True)
class Placement:
    """The GPUs of a training: `gpus` on each of `nodes` nodes, which share the model by `sharding`.

    micro_batch: rows per forward pass. parts: memory per GPU in bytes, by what holds it. fits:
    whether these GPUs hold the training.
    """

    gpus: int
    nodes: int
    sharding: str
    micro_batch: int
    parts: Parts
    fits: bool


def fewest_gpus(
    shape: Shape,
    method: Method,
    training: Mapping,
    labelled: float,
    gpu: str,
    gpus_per_node: int,
) -> Placement:
    """The fewest GPUs of a kind that hold a training: one GPU, else the model sharded over GPUs of
    one node, else over several nodes. Only numbers that divide the model evenly are tried. On these
    GPUs the micro-batch is the largest that fits, unless `training` sets it. `fits` is false where
    no number of GPUs is enough."""
    usable = GPUS[gpu].usable
    counts = [(n, 1) for n in range(1, gpus_per_node + 1)]
    counts += [(gpus_per_node, nodes) for nodes in range(2, MAX_NODES + 1)]
    counts = [(n, nodes) for n, nodes in counts if shape.shared_evenly(n * nodes)]
    if method.is_quantized:  # such weights cannot be sharded
        counts = [(1, 1)]
    for gpus, nodes in counts:
        how = sharding("fsdp", gpus * nodes)
        fixed, parts = memory.choose_micro_batch(
            shape, method, training, labelled, usable, gpus * nodes, how
        )
        fits = memory.total(parts) <= usable
        if fits:
            break
    return Placement(gpus, nodes, how, fixed["micro_batch"], parts, fits)


class Costs:
    """Estimates for every job of a plan, on the hardware that the study names.

    gpu, gpus_per_node: other hardware. bases: other shapes for dense models, by name, which replace
    those of the study. Estimates raise ConfigError where a model's shape is not known.
    """

    def __init__(
        self,
        plan: Plan,
        gpu: str | None = None,
        gpus_per_node: int | None = None,
        bases: Mapping[str, Shape] | None = None,
    ):
        self.plan, self.study = plan, plan.study
        self.gpu = gpu or self.study.hardware.gpu
        self.gpus_per_node = gpus_per_node or self.study.hardware.gpus_per_node
        self.on_cpu = self.study.device == "cpu"
        self._shapes: dict[str, Shape] = dict(bases or {})
        self._unreadable: dict[str, str] = {}  # file -> why its record was left out

    @cached_property
    def measured(self) -> "Measured":
        """What the study's finished runs measured."""
        return read_measured(self.plan, self._estimated_flops, self.on_cpu, self._read)

    def left_out(self) -> list[str]:
        """A sentence for every finished run and every prepared training set whose record cannot be
        read, as after a change of its keys: estimates go without it."""
        for dataset in self.plan.datasets:
            self.counts(dataset)
        _ = self.measured  # reads the finished trainings
        return list(self._unreadable.values())

    def _read(self, file: Path, read: Callable[[Path], R], first: str | None = None) -> R | None:
        """What a finished job wrote; None where there is nothing that can be read, which `left_out`
        then tells. An estimate can do without, where the jobs that need the record cannot. first:
        the job's first output, if that is not the file."""
        if not file.exists():
            return None
        if fault := sums.wrong(file, first or file):
            how = "estimates go without it; snakemake ... verify says what makes it again"
            self._unreadable[str(file)] = f"{fault}; {how}"
            return None
        try:
            return read(file)
        except ValueError as error:
            how = "estimates go without it; delete the file to have its job run again"
            self._unreadable[str(file)] = (
                f"{error}, perhaps because another version wrote it; {how}"
            )
            return None

    # ---------------------------------------------------------------------- shapes and tokens

    def shape(self, model: str) -> Shape:
        """A dense model's shape. One that is made from another has the shape of that one."""
        if model not in self._shapes:
            spec = self.study.models[model]
            known = self.shape(spec.from_) if spec.from_ else _known_shape(self.plan, model)
            self._shapes[model] = known
        return self._shapes[model]

    def moe_shape(self, moe: str) -> Shape:
        mixture = self.plan.moes[moe]
        top_k = self.plan.merge_of(mixture).experts_per_token
        return self.shape(mixture.base).mixture(len(mixture.experts), top_k)

    def variant_shape(self, variant: Variant) -> Shape:
        """The shape of a variant's merge, or of its dense model."""
        origin = variant.origin
        return self.shape(origin.base) if isinstance(origin, Dense) else self.moe_shape(origin.name)

    def rows(self, dataset: str) -> int:
        """Rows of a training set: as counted once it is prepared, before that as configured."""
        if counts := self.counts(dataset):
            return counts.sampled
        rows = self.study.data[dataset].rows
        return GUESSED_ROWS if rows == "full" else rows

    def row_tokens(self, dataset: str) -> float:
        """Mean tokens per row: from the prepared rows' characters, before that as configured."""
        if counts := self.counts(dataset):
            return counts.characters / counts.sampled / self._characters_per_token
        return self.study.data[dataset].tokens or GUESSED_TOKENS

    def guesses(self) -> list[str]:
        """The keys that are not set and for which estimates use a guess."""
        keys = []
        for dataset in self.plan.datasets:
            spec, counts = self.study.data[dataset], self.counts(dataset)
            if spec.rows == "full" and not counts:
                keys.append(f"data.{dataset}.rows ({GUESSED_ROWS:,} taken for 'full')")
            if not spec.tokens and not counts:
                keys.append(f"data.{dataset}.tokens ({GUESSED_TOKENS} taken)")
        for task in {t for tasks in self.plan.tasks.values() for t in tasks}:
            spec = self.study.tasks[task]
            if not spec.count:
                keys.append(f"tasks.{task}.questions ({GUESSED_QUESTIONS:,} taken)")
            held = self.study.data[spec.held_out] if self.study.asks_text(task) else None
            if not spec.tokens and not (held and held.tokens):
                keys.append(f"tasks.{task}.tokens ({GUESSED_TOKENS} taken)")
        return sorted(keys)

    def epoch_tokens(self, mix: str) -> float:
        """Tokens per epoch of a mix: as finished runs counted them, before that as estimated."""
        if mix in self.measured.epoch_tokens:
            return self.measured.epoch_tokens[mix]
        return self._estimated_tokens(mix)

    def _estimated_tokens(self, mix: str) -> float:
        rows = self._rows_by_set(mix)
        return sum(rows[dataset] * self.row_tokens(dataset) for dataset in rows)

    def _rows_by_set(self, mix: str) -> dict[str, float]:
        """Rows per epoch of a mix from each data set. Those that are replayed are drawn from all
        sets of `replay` alike."""
        rows: dict[str, float] = {dataset: self.rows(dataset) for dataset in self.plan.mix(mix)}
        if replay := self.plan.replay(mix):
            others = {dataset: self.rows(dataset) for dataset in replay.data}
            drawn = replay.beside * sum(rows.values()) / sum(others.values())
            rows |= {dataset: drawn * count for dataset, count in others.items()}
        return rows

    def counts(self, dataset: str) -> records.TaskCounts | records.TextCounts | None:
        """The counts of a training set's rows; None before it is prepared."""
        paths = self.plan.paths
        file = Path(paths.data_counts(dataset))
        return self._read(file, records.read_counts, first=paths.data_file(dataset))

    # -------------------------------------------------------------------------------- the jobs

    def data(self, dataset: str) -> Estimate:
        """Preparing a training set. A data set of the hub takes a few GB of memory when it is
        read."""
        characters = self.rows(dataset) * self.row_tokens(dataset) * self._characters_per_token
        return self._reading(disk=(1 if self.study.world else 0.5) * characters)

    def questions(self, task: str) -> Estimate:
        """Making a task's questions. They take 2.8 to 3.9 bytes per token of a prompt, which is
        repeated for each option (TinyLlama's tokenizer, samples of four tasks)."""
        spec = self.study.tasks[task]
        size = 4 * (spec.count or GUESSED_QUESTIONS) * self._question_tokens(task)
        return self._reading(disk=size)

    def _question_tokens(self, task: str) -> float:
        """Mean tokens per question; of raw text those of its training set, cut as that is."""
        spec = self.study.tasks[task]
        if not self.study.asks_text(task):
            return spec.tokens or GUESSED_TOKENS
        length = spec.tokens or self.row_tokens(spec.held_out)
        return min(length, self.study.training.max_length)

    def _reading(self, disk: float) -> Estimate:
        mem_mb, hours = (2000, LIGHT.hours) if self.study.world else (8000, 5 / 60)
        return Estimate(Needs(1, mem_mb, 60), hours, disk=disk)

    def fetch(self, model: str) -> Estimate:
        """Linking or copying a dense model from the hub; it is stored in float32 at most."""
        return Estimate(Needs(1, 4000, 60), 5 / 60, disk=4 * self.shape(model).parameters)

    def reinitialise(self, model: str) -> Estimate:
        """Reading a dense model, drawing its FFNs anew, and storing it."""
        shape = self.shape(model)
        disk = self._dense_bytes(model)
        moved = disk + self._dense_bytes(self.study.models[model].from_)
        resident = memory.PROCESS + memory.loading_bytes(shape)
        return self._disk_bound(moved, resident, shape.parameters, disk)

    def merge(self, moe: str) -> Estimate:
        """Merging: the dense models are checked and hashed, the base computes the router's weights
        in bfloat16, and router and tokenizer are stored."""
        shape, mixture = self.moe_shape(moe), self.plan.moes[moe]
        read = 4 * shape.dense.parameters * len({mixture.base, *mixture.experts})
        resident = memory.PROCESS + (4 + 2) * shape.dense.parameters
        disk = self._stored * shape.num_hidden_layers * shape.router + TOKENIZER * shape.vocab_size
        made = self._disk_bound(2 * read, resident, shape.parameters, disk)
        if not (sets := self.plan.learned_from(mixture)):
            return made
        tokens = sum(self._ridge_tokens(datasets) for datasets in sets.values())
        return self._fitted(made, resident, shape.dense, tokens)

    def _ridge_tokens(self, datasets: Sequence[str]) -> float:
        """Tokens of an expert's training rows that ridge gates are fitted to."""
        there = sum(map(self.rows, datasets))
        each = sum(self.rows(d) * self.row_tokens(d) for d in datasets) / there
        return min(there, self.study.merge.ridge.rows) * each

    def _fitted(self, made: Estimate, resident: float, dense: Shape, tokens: float) -> Estimate:
        """A merge whose gates are fitted, too: the base, in float32, reads `tokens` tokens, and per
        layer their products are added up and solved in float64."""
        square = dense.num_hidden_layers * dense.hidden_size**2
        flops = tokens * (products.forward(dense, GUESSED_TOKENS, 0) + 2 * square)
        flops += square * dense.hidden_size
        cpus = 1 if self.on_cpu else RIDGE_CPUS
        hours = made.hours + flops / (cpus * CPU_FLOPS) / 3600
        needs = Needs(cpus, self._mem_mb(resident + 3 * 8 * square), self._minutes(hours))
        return replace(made, needs=needs, hours=hours, tokens=tokens, flops=flops)

    def export(self, variant: Variant) -> Estimate:
        """Writing a trained model as one checkpoint. It is in memory in float32; a quantised
        model is there twice, because it is expanded."""
        shape = self.variant_shape(variant)
        expanded = 4 * shape.parameters if self.plan.method(variant).is_quantized else 0
        resident = memory.PROCESS + memory.loading_bytes(shape) + expanded
        disk = self._stored * shape.parameters
        return self._disk_bound(disk, resident, shape.parameters, disk)

    def _disk_bound(self, moved: float, resident: float, parameters: int, disk: float) -> Estimate:
        """A job that takes the time of reading or writing `moved` bytes; `resident` is its
        memory."""
        hours = moved / DISK / 3600 + 1 / 60
        needs = Needs(1, self._mem_mb(resident), self._minutes(hours))
        return Estimate(needs, hours, parameters=parameters, disk=disk)

    def train(self, variant: Variant) -> Estimate:
        """One stage of a variant's fine-tuning: its last."""
        shape, disk = self.variant_shape(variant), self._trained_bytes(variant)
        starting = self._starting(variant.origin, (len(variant.stages) - 1) * disk)
        how = shape, self.plan.method(variant), variant.stages[-1]
        return self._train(*how, disk, starting, self._trained_shape(variant))

    def _trained_bytes(self, variant: Variant) -> float:
        """Bytes of the file with what a variant's last stage trained. Large matrices trained on a
        GPU are stored in bfloat16; all else, adapters too, in float32."""
        if not variant.stages:
            return 0
        shape, method = self.variant_shape(variant), self.plan.method(variant)
        added = shape.num_hidden_layers * method.added(shape) + method.added_outside(shape)
        return (4 if self.on_cpu else 2) * (method.trainable(shape) - added) + 4 * added

    def train_expert(self, model: str) -> Estimate:
        """A dense model's fine-tuning, or the pretraining of a model from scratch."""
        spec, shape = self.study.models[model], self.shape(model)
        if spec.scratch:
            return self._pretrain(shape, model)
        ((mix, recipe),) = spec.train.items()
        width = 4 if self.plan.params.expert_dtype(model) == "float32" else 2
        starting = self._starting(Dense(spec.from_))
        how = shape, self.study.recipes[recipe], Stage(mix, recipe)
        return self._train(*how, width * shape.parameters, starting)

    def evaluate(self, variant: Variant, task: str) -> Estimate:
        """Evaluating a variant on one task, on one GPU, with trained parameters in float32."""
        shape, spec = self.variant_shape(variant), self.study.tasks[task]
        method = self.plan.method(variant)
        computed = self._computed_shape(variant, fold=True)
        questions, length = spec.count or GUESSED_QUESTIONS, self._question_tokens(task)
        tokens, reads = questions * length, self.study.asks_text(task)
        flops = tokens * products.forward(computed, length, 1 if reads else ANSWER_TOKENS / length)
        parts = memory.evaluating(
            shape, method, self.on_cpu, in_words=bool(spec.generated), every_token=reads
        )
        starting = self._starting(
            variant.origin, len(variant.stages) * self._trained_bytes(variant)
        )
        hours = self._hours(flops, None, 1) + starting
        if spec.generated:
            together = memory.decoded_tokens(shape, self.on_cpu)
            at_once = max(1, together // int(length + spec.generated))
            hours += questions / at_once * spec.generated * DECODING / 3600
        host = memory.PROCESS + memory.loading_bytes(shape)
        return Estimate(
            Needs(
                cpus=1 if self.on_cpu else 4,
                mem_mb=self._mem_mb(memory.total(parts) if self.on_cpu else host),
                runtime=self._minutes(hours),
                gpus=1,
            ),
            hours,
            parameters=method.total(shape),
            tokens=tokens,
            flops=flops,
            starting=starting,
            memory=parts,
            disk=60 * questions,
            fits=self.on_cpu or memory.total(parts) <= GPUS[self.gpu].usable,
        )

    # -------------------------------------------------------------------------------- refusals

    def misfit(self, rule: str, job: str, estimate: Estimate, gpus: int) -> str | None:
        """Why a training or an evaluation cannot run on the GPUs that it gets, and what would hold
        it; None where it can run. job: its model or variant. gpus: the GPUs of all its nodes."""
        if self.on_cpu or not estimate.memory:
            return None
        kind, need = GPUS[self.gpu], memory.total(self._on(estimate, gpus))
        if need <= kind.usable:
            return None
        reason = (
            f"{rule} {job}: needs {gib(need)} on each of {gpus} GPU(s), hardware.gpu "
            f"{self.gpu} has {kind.memory_gib:g} GiB ({gib(kind.usable)} usable)"
        )
        return f"{reason}; {self._remedy(estimate)}"

    def _on(self, estimate: Estimate, gpus: int) -> Parts:
        """An estimate's memory on `gpus` GPUs, sharded if one GPU does not hold it."""
        if estimate.request is None:
            return estimate.memory
        usable, (_, method, *_) = GPUS[self.gpu].usable, estimate.request
        choose = partial(memory.choose_micro_batch, *estimate.request, usable)
        _, alone = choose()
        if gpus == 1 or method.is_quantized or memory.total(alone) <= usable:
            return alone
        _, sharded = choose(gpus, "fsdp")
        return sharded

    def _remedy(self, estimate: Estimate) -> str:
        """What would hold a job: more GPUs, other GPUs, or a smaller micro-batch than is set."""
        if estimate.request is None:
            fitting = [k for k, g in GPUS.items() if memory.total(estimate.memory) <= g.usable]
            return f"it fits {', '.join(fitting)}" if fitting else "it fits no GPU that is known"
        shape, method, training, labelled = estimate.request
        if (placed := self.placement(shape, method, training, labelled)).fits:
            where = f"{placed.gpus} GPUs" + (
                f" on each of {placed.nodes} nodes" if placed.nodes > 1 else ""
            )
            return f"it fits {where} (let the plan choose, or set resources gpu and nodes so)"
        ways = []
        for kind in GPUS:
            other = fewest_gpus(shape, method, training, labelled, kind, self.gpus_per_node)
            if other.fits:
                ways.append(f"hardware.gpu {kind} with {other.gpus * other.nodes} GPU(s)")
        rows = training["micro_batch"]
        while rows != "auto" and rows > 1:
            rows //= 2
            fewer = {**training, "micro_batch": rows}
            if (other := self.placement(shape, method, fewer, labelled)).fits:
                ways.append(f"training.micro_batch {rows} with {other.gpus * other.nodes} GPU(s)")
                break
        return f"it would fit: {' or '.join(ways)}" if ways else "no number of known GPUs holds it"

    # ------------------------------------------------------------------------------- internals

    def _train(
        self,
        shape: Shape,
        method: Method,
        stage: Stage,
        disk: float,
        starting: float,
        computed: Shape | None = None,
    ) -> Estimate:
        training = self.plan.params.stage(stage)["training"]
        per_epoch = self.epoch_tokens(stage.mix)
        tokens = training["epochs"] * per_epoch
        flops = tokens * self._flops_per_token(computed or shape, method, stage, per_epoch)
        request = shape, method, training, self._labelled(stage.mix)
        return self._training(request, tokens, flops, stage.recipe, disk, starting)

    def _flops_per_token(
        self, computed: Shape, method: Method, stage: Stage, epoch_tokens: float
    ) -> float:
        """FLOPs per token of a stage's training, whose rows have `epoch_tokens` tokens in all."""
        rows = sum(self._rows_by_set(stage.mix).values())
        most = self.plan.params.stage(stage)["training"]["max_length"]
        length = min(epoch_tokens / rows, most)
        raw_text = self._labelled(stage.mix) == memory.TEXT
        answers = 1.0 if raw_text else min(1.0, ANSWER_TOKENS / length)
        return products.step(computed, method, length, answers)

    def _estimated_flops(self, variant: Variant) -> float:
        """FLOPs per token of a variant's last stage, without anything that was measured."""
        stage = variant.stages[-1]
        computed, tokens = self._trained_shape(variant), self._estimated_tokens(stage.mix)
        return self._flops_per_token(computed, self.plan.method(variant), stage, tokens)

    def _labelled(self, mix: str) -> float:
        """The largest share of labelled tokens that the rows of a mix are planned with."""
        return max(map(self._labelled_share, self.plan.read_by(mix)))

    def _labelled_share(self, dataset: str) -> float:
        data = self.study.data[dataset]
        tasks = self.study.tasks.values()
        in_words = any(task.generated and task.source == data.source for task in tasks)
        return memory.TEXT if data.text else memory.WORDS if in_words else memory.CHOICES

    def _trained_shape(self, variant: Variant) -> Shape:
        """The shape whose products a variant's last stage computes."""
        training = self.plan.params.stage(variant.stages[-1])["training"]
        return self._computed_shape(variant, fold=training["fold_duplicates"])

    def _computed_shape(self, variant: Variant, fold: bool) -> Shape:
        """The shape whose products a variant computes. fold: whether equal frozen experts are
        computed once (mofe/layers/experts.py). If all experts are equal and no stage trains or
        adapts them, one expert then computes each token."""
        shape = self.variant_shape(variant)
        equal = len(set(variant.origin.experts)) == 1
        methods = self.plan.methods(variant)
        stay = not any(method.makes_experts_differ(shape) for method in methods)
        return replace(shape, num_experts_per_tok=1) if fold and equal and stay else shape

    def _pretrain(self, shape: Shape, model: str) -> Estimate:
        training = self.plan.params.model(model)["training"]
        tokens = training["epochs"] * self.study.world.corpus_tokens
        flops = tokens * products.step(shape, Full(), training["max_length"], 1.0)
        disk, request = 4 * shape.parameters, (shape, Full(), training, memory.TEXT)
        starting = self._starting()
        return self._training(request, tokens, flops, "pretraining", disk, starting)

    def _training(self, request, tokens, flops, recipe, disk, starting) -> Estimate:
        shape, method, *_ = request
        trainable = method.trainable(shape)
        if self.on_cpu:
            fixed, parts = memory.choose_micro_batch(*request, usable=None)
            placed = Placement(1, 1, "none", fixed["micro_batch"], parts, True)
            host = memory.total(parts)
        else:
            placed = self.placement(*request)
            host = placed.gpus * (memory.CUDA_PROCESS + 4 * shape.parameters)
            # the dense models' pages are read by all processes and counted once
            host = max(host + 4 * shape.dense.parameters, 12 * trainable)
        hours = self._hours(flops, recipe, placed.gpus * placed.nodes) + starting
        needs = Needs(
            cpus=1 if self.on_cpu else 4 * placed.gpus,
            mem_mb=self._mem_mb(host),
            runtime=self._minutes(hours),
            gpus=placed.gpus,
            nodes=placed.nodes,
            sharding=placed.sharding,
        )
        return Estimate(
            needs,
            hours,
            parameters=method.total(shape),
            trainable=trainable,
            tokens=tokens,
            flops=flops,
            starting=starting,
            memory=placed.parts,
            disk=disk,
            # two states of float32 weights and two moments; the weights before training
            scratch=(2 * 12 + 4) * trainable,
            micro_batch=placed.micro_batch,
            fits=placed.fits,
            measured=recipe in self.measured.speed,
            request=request,
        )

    def placement(
        self, shape: Shape, method: Method, training: Mapping, labelled: float
    ) -> Placement:
        """The GPUs of this hardware that a training needs."""
        return fewest_gpus(shape, method, training, labelled, self.gpu, self.gpus_per_node)

    def _hours(self, flops: float, recipe: str | None, gpus: int) -> float:
        if self.on_cpu:
            return flops / self.measured.speed.get(recipe, CPU_FLOPS) / 3600
        share = self.measured.speed.get(recipe, self.study.hardware.utilisation)
        return flops / (gpus * GPUS[self.gpu].tflops * 1e12 * share) / 3600

    def _starting(self, origin: Moe | Dense | None = None, trained: float = 0) -> float:
        """Hours until the first step of a job that loads a model: its processes and imports, and
        reading the dense models and `trained` bytes from a shared disk. A CPU study's jobs are
        forks of one process on the machine that has the files."""
        if self.on_cpu:
            return 0
        read = trained + sum(map(self._dense_bytes, origin.models if origin else ()))
        return (self.study.hardware.starting + read / DISK) / 3600

    def _dense_bytes(self, model: str) -> float:
        """Bytes of a dense model's weights; those from outside are in float32 at most."""
        ours = self.study.models[model].from_
        width = 2 if ours and self.plan.params.expert_dtype(model) != "float32" else 4
        return width * self.shape(model).parameters

    @property
    def _characters_per_token(self) -> float:
        return CHARACTERS_PER_WORLD_TOKEN if self.study.world else CHARACTERS_PER_TOKEN

    @property
    def _stored(self) -> int:
        """Bytes per parameter in the merges' dtype."""
        return 4 if self.study.merge.dtype == "float32" else 2

    @staticmethod
    def _minutes(hours: float) -> int:
        return 5 * math.ceil((hours * 60 * SLOWER + MINUTES) / 5)

    @staticmethod
    def _mem_mb(resident: float) -> int:
        return 500 * math.ceil((LARGER * resident / MB + NODE) / 500)


@dataclass(frozen=True)
class Measured:
    """What finished trainings measured.

    epoch_tokens: tokens per epoch, by mix. speed: by recipe, the share of the GPUs' peak that its
    runs reached; in a CPU study, FLOP/s.
    """

    epoch_tokens: Mapping[str, float]
    speed: Mapping[str, float]


def read_measured(
    plan: Plan,
    flops_per_token: Callable[[Variant], float],
    on_cpu: bool,
    read: Callable[[Path, Callable[[Path], records.TrainRecord]], records.TrainRecord | None],
) -> Measured:
    """What the train.json files that exist have measured. A run's speed is its FLOPs, divided by
    its seconds on all its devices. flops_per_token: the estimate for a variant's last stage. read:
    gives the record of a file, or None."""
    record_of = partial(records.read, kind=records.TrainRecord)
    epoch_tokens: dict[str, float] = {}
    speeds: dict[str, list[float]] = {}
    for variant in plan.trained.values():
        stage = variant.stages[-1]
        files = (Path(plan.paths.train_json(variant, seed)) for seed in plan.seeds(variant))
        for record in filter(None, (read(file, record_of) for file in files)):
            epochs = plan.params.stage(stage)["training"]["epochs"]
            epoch_tokens[stage.mix] = record.tokens / epochs
            peak = 1.0 if on_cpu else _peak(record.hardware.gpus)
            if peak:
                flops = flops_per_token(variant) * record.tokens
                speeds.setdefault(stage.recipe, []).append(flops / record.device_seconds / peak)
    return Measured(epoch_tokens, {recipe: sum(s) / len(s) for recipe, s in speeds.items()})


def _peak(names: Sequence[str]) -> float:
    """Peak FLOP/s of one of these GPUs, by the names that CUDA gives them; 0 for GPUs of several
    kinds, and for kinds that are not in GPUS."""
    kinds = [kind for kind in ("H200", "H100", "A100") if all(kind in name for name in names)]
    if not names or not kinds:
        return 0.0
    tflops = next(g.tflops for key, g in GPUS.items() if key.startswith(kinds[0].lower()))
    return tflops * 1e12


def _known_shape(plan: Plan, model: str) -> Shape:
    """The shape of a model that is not fine-tuned from another."""
    spec = plan.study.models[model]
    if spec.scratch:
        sizes = spec.scratch.shape.model_dump(exclude={"initializer_range"})
        return Shape(**sizes, vocab_size=_world_vocabulary(plan))
    folders = [Path(plan.paths.model_dir(model))]
    if spec.hub and plan.paths.mirror:
        folders.append(Path(plan.paths.mirror) / spec.hub)
    found = next((f for f in folders if (f / "config.json").exists()), None)
    stated = Shape(**spec.shape.model_dump()) if spec.hub and spec.shape else None
    if found is None:
        if stated is None:
            raise ConfigError([_unknown(model, spec)])
        return stated
    if wrong := sums.wrong(found / "config.json", found):
        raise ConfigError([f"models.{model}: {wrong}; {_refetch(plan, spec)}"])
    try:
        read = Shape.of(json.loads((found / "config.json").read_text()))
    except (KeyError, ValueError) as error:
        told = f"models.{model}: {found}/config.json: {error}; {_refetch(plan, spec)}"
        raise ConfigError([told]) from error
    for name in HubShape.model_fields if stated else ():
        ours, theirs = getattr(stated, name), getattr(read, name)
        if name == "head_dim":
            ours, theirs = stated.head, read.head
        if ours != theirs:
            problem = f"models.{model}.shape.{name}: {ours}, but {found}/config.json says {theirs}"
            raise ConfigError([f"{problem}; correct it, or remove 'shape'"])
    return read


def _refetch(plan: Plan, spec) -> str:
    """How to get a model's config.json again."""
    if spec.path or plan.study.mirror:
        return "put the file back as it was"
    manifest = plan.paths.manifest(spec.hub)
    return f"fetch it again: snakemake ... --forcerun {manifest} -- {manifest}"


def _unknown(model: str, spec) -> str:
    if spec.path:
        return f"models.{model}.path: {spec.path!r} has no config.json; name a checkpoint's folder"
    return (
        f"models.{model}: how large {spec.hub} is, is not known before it is downloaded; download "
        f"it (snakemake prefetch), or write its sizes under models.{model}.shape"
    )


def _world_vocabulary(plan: Plan) -> int:
    """The size of the generated world's vocabulary: as counted once the world is made."""
    file = Path(plan.paths.world) / "mofe" / "tokenizer" / "tokenizer.json"
    if file.exists() and not sums.wrong(file, plan.paths.world):
        return len(json.loads(file.read_text())["model"]["vocab"])
    return WORLD_VOCABULARY


WORLD_VOCABULARY = 841  # words of the mini study's world
