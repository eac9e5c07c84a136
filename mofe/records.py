"""Records: what the stages write as JSON and JSON lines, and everyone else reads.

The writer builds a record and every reader parses one, so that a missing, unknown or wrong key
fails where it is written. docs/generate makes the tables of docs/results.md and docs/schemas/*.json
from these classes. A file has the keys in the order of its class; the fields of a base class come
first, those of the last base class before all others.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import statistics
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mofe.files import write_atomic
from mofe.metrics import SHARES

Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1)]  # a count that is never 0, or a number from 1
Amount = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]  # any sequence of texts


class Record(BaseModel):
    """A record or a part of one. Unknown keys, wrong types and infinite numbers are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


# ------------------------------------------------------------------------- writing and reading


def write(path: str | os.PathLike, record: Record) -> None:
    """Write a record as a JSON file, completely or not at all."""
    text = json.dumps(record.model_dump(exclude_unset=True), indent=2, allow_nan=False)
    write_atomic(path, text + "\n")


def line(record: Record) -> str:
    """A record as one line of JSON, including the line's end."""
    return json.dumps(record.model_dump(exclude_unset=True), allow_nan=False) + "\n"


def read(path: str | os.PathLike, kind: type[Kind]) -> Kind:
    """The record of a JSON file.

    Raises ValueError, one sentence that names the file and the key, where the file is not whole or
    is not such a record.
    """
    return _parse(Path(path).read_bytes(), kind, str(path))


def read_lines(path: str | os.PathLike, kind: type[Kind]) -> list[Kind]:
    """The records of a file that has one a line, gzipped if its name ends in .gz. Raises as
    `read`."""
    content = Path(path).read_bytes()
    if str(path).endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: is damaged ({error})") from error
    lines = enumerate(content.splitlines(), start=1)
    return [_parse(text, kind, f"{path}: line {number}") for number, text in lines]


def read_counts(path: str | os.PathLike) -> TaskCounts | TextCounts:
    """The counts of a training set, of a task's rows or of raw text. Raises as `read`."""
    content = Path(path).read_bytes()
    return _parse(content, TextCounts if b'"pieces"' in content else TaskCounts, str(path))


def read_training(path: str | os.PathLike) -> TrainRecord | DenseTrainRecord:
    """The record of a training, of a variant or of a dense model. Raises as `read`."""
    content = Path(path).read_bytes()
    return _parse(content, DenseTrainRecord if b'"model"' in content else TrainRecord, str(path))


def training_log(path: str | os.PathLike, record: Run) -> list[LossStep]:
    """The steps of a training's log. Raises as `read`, and where they are not those of its
    record."""
    steps = read_lines(path, LossStep)
    if [line.step for line in steps] != list(range(1, record.steps + 1)):
        raise ValueError(
            f"{path}: has {len(steps)} steps, not the {record.steps} of its train.json in their "
            "order; make it again with --forcerun, or restore it"
        )
    return steps


def _parse(content: bytes, kind: type[Kind], where: str) -> Kind:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{where}: {_sentence(error.errors()[0])}") from error


# pydantic's name of a fault -> what the value should be
_EXPECTED = {
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text",
    "dict_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
    "list_type": "a list",
}


def _sentence(fault: dict[str, Any]) -> str:
    """One of pydantic's faults as a sentence."""
    key, value = ".".join(map(str, fault["loc"])), fault["input"]
    limits = fault.get("ctx", {})
    match fault["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is not a key of such a record"
        case "json_invalid":
            return f"not a complete JSON file ({limits['error']})"
        case "model_type" if not key:
            return f"holds {type(value).__name__}, not an object"
        case "greater_than_equal":
            return f"{key} is {value}, outside its range: at least {limits['ge']:g}"
        case "less_than_equal":
            return f"{key} is {value}, outside its range: at most {limits['le']:g}"
        case "literal_error":
            return f"{key} is {value!r}, not {limits['expected']}"
        case known if known in _EXPECTED:
            return f"{key} is {value!r}, not {_EXPECTED[known]}"
    return f"{key}: {fault['msg']}" if key else fault["msg"]


# ----------------------------------------------------------------- where a number comes from


class Hardware(Record):
    """The machine that made a record."""

    cpu: str = Field(description="The processor.")
    cores: Count = Field(description="Its cores, as the operating system counts them.")
    gpus: Texts = Field(description="The machine's GPUs by name, used or not.")


GitRevision = Annotated[
    str,
    Field(
        description="The commit of the code; `+changes` is added if what makes numbers "
        "(Snakefile, mofe/, rules/, scripts/) differed from it; `unknown` where there is no "
        "repository."
    ),
]
ConfigFiles = Annotated[
    dict[str, str],
    Field(
        description="SHA-256 of each file of the configuration, by its path as seen from the "
        "working directory. Each file overrides those before it. `config_hash` says what of them "
        "matters here."
    ),
]
_HASHED = (
    "SHA-256 of all parameters that this depends on: its job's, and those of all jobs before it. "
    "It does not depend on where results lie."
)
Versions = Annotated[
    dict[str, str],
    Field(description="The versions of Python and of the packages that numbers depend on."),
]
Machine = Annotated[Hardware, Field(description="The machine that made this.")]
Moe = Annotated[str, Field(description="The mixture of experts.")]
Stages = Annotated[
    str,
    Field(description="The stages of fine-tuning, first stage first; `none` for an untuned merge."),
]


# ------------------------------------------------------------------------------------ training


Shares = Annotated[tuple[Share, ...], Field(strict=False)]  # by expert slot


class RouterLayer(Record):
    """What a layer's router did with some tokens. Entropies and information are in nats."""

    tokens: Number = Field(
        description="Tokens that the layer's FFN computed, without padding. Of the last layer "
        "these are only the positions that the loss reads, unless there is an auxiliary loss."
    )
    chosen: Shares = Field(
        description="The share of the tokens' choices that went to each expert slot. A token makes "
        "`experts_per_token` choices; those of weight 0 do not count, which an oracle gives to the "
        "experts of other domains."
    )
    weight: Shares = Field(description="The same with each choice by its weight.")
    entropy: Amount = Field(
        description="The entropy of the router's distribution over all slots, as a mean over "
        "tokens: 0 where every token is sure of one expert, ln(slots) where none prefers any."
    )
    entropy_of_mean: Amount = Field(
        description="The entropy of the mean of these distributions: ln(slots) where the slots are "
        "equally likely over all tokens."
    )
    mutual_information: Amount = Field(
        description="The mutual information of a choice's expert slot and its row's training set; "
        "0 where the mix has one set. Estimated from few tokens it is too high, by about "
        "(slots - 1) (sets - 1) / (2 choices)."
    )


class LossStep(Record):
    """A line of log.jsonl: one optimiser step."""

    step: Number = Field(description="The step, from 1.")
    loss: float = Field(
        description="Mean loss over the answer tokens of the global batch, in nats; without the "
        "router's auxiliary loss."
    )
    auxiliary_loss: float = Field(
        default=0.0,
        description="The router's auxiliary loss of the step, times `router_aux_loss`: what is "
        "added to `loss` for the gradient.",
    )
    learning_rate: Amount = Field(description="The learning rate of this step.")
    tokens: Count = Field(description="Tokens read so far, without padding.")
    seconds: Amount = Field(description="Seconds since training began.")
    router: Annotated[tuple[RouterLayer, ...], Field(strict=False)] | None = Field(
        default=None,
        description="What the router of each layer did in this step, first layer first; only in "
        "steps that `training.record_router` records.",
    )


class TokenShare(Record):
    """Where a training's tokens went, over the steps that `training.record_router` records."""

    slots: Annotated[tuple[Shares, ...], Field(strict=False)] = Field(
        description="Of each layer, the share of the tokens' choices that went to each expert slot."
    )
    updated: Share = Field(
        description="The share that went to slots whose experts this training updates, in some of "
        "its steps at least, as a mean over layers."
    )


class Frozen(Record):
    """Hashes of everything that a training does not change."""

    before: str | None = Field(
        description="SHA-256 of all frozen parameters before training; null where none is frozen."
    )
    after: str | None = Field(description="The same after training.")

    @property
    def any(self) -> bool:
        """Whether any parameter was frozen."""
        return self.before is not None

    @property
    def unchanged(self) -> bool:
        """Whether every frozen parameter is bit for bit the same as before."""
        return self.before == self.after


class Unfrozen(Record):
    """Experts that a training leaves as they are until a part of its steps is done."""

    first_step: Number = Field(description="The first optimiser step that updates them.")
    slots: Annotated[tuple[Count, ...], Field(strict=False)] = Field(
        description="Their slots in every layer, from 0; of a dense model, its one FFN is 0."
    )
    parameters: Number = Field(description="Their parameters.")
    sha256: str = Field(
        description="SHA-256 of these before training. If it is another before `first_step`, the "
        "training fails."
    )


class Drift(Record):
    """How far a training moved the weights of each group: ||after - before|| / ||before||, with
    Frobenius norms over all weights of the group in all layers. It is of this training alone, not
    of the stages before. A group is missing where the model has none of it, where a method adds
    adapters to it, because its own weights then stay as they are, and where all of its weights were
    0, as those of uniform gates are, because nothing is relative to them."""

    experts_updated: Amount | None = Field(
        default=None,
        description="The experts that are updated, in the end; of a dense model, its FFNs.",
    )
    experts_frozen: Amount | None = Field(
        default=None, description="Those that are not: 0, by `frozen_sha256`."
    )
    attention: Amount | None = Field(default=None, description="The projections of attention.")
    embeddings: Amount | None = Field(
        default=None, description="The embeddings, and `lm_head` where it is not tied to them."
    )
    norms: Amount | None = Field(default=None, description="All norms.")
    router: Amount | None = Field(default=None, description="The routers.")

    @property
    def experts(self) -> float | None:
        """The drift of the updated experts, or of the frozen ones where none is updated."""
        return self.experts_frozen if self.experts_updated is None else self.experts_updated


class Segment(Record):
    """A part of a training that one call computed: from its beginning, or from the checkpoint at
    which it was interrupted."""

    first_step: Number = Field(description="Its first optimiser step.")
    last_step: Number = Field(description="Its last one, as far as it was kept.")
    device_seconds: Amount = Field(description="Its share of the training's `device_seconds`.")
    processes: Number = Field(description="Processes that computed it together.")
    micro_batch: Number | None = Field(
        default=None, description="Rows of `max_length` tokens that a process computed at once."
    )
    git_revision: GitRevision
    versions: Versions
    hardware: Machine
    config_files: ConfigFiles = {}


class Run(Record):
    """What the training loop measures and counts."""

    seconds: Amount = Field(
        description="Seconds of the training loop: batches, steps and log, without loading and "
        "hashing."
    )
    device_seconds: Amount = Field(
        description="Those seconds, times the processes that computed meanwhile. The tables' "
        "training time."
    )
    cpu_seconds: Amount = Field(
        description="Seconds that CPU cores worked for the training loop, of all its processes and "
        "threads. Other work on the machine hardly changes them."
    )
    steps: Number = Field(description="Optimiser steps.")
    rows: Number = Field(description="Rows per epoch; of raw text, pieces.")
    dropped_rows: Count = Field(
        description="Rows of the mix and of its `replay` that were left out because they have more "
        "than `max_length` tokens."
    )
    replayed_rows: Count = Field(
        default=0,
        description="Those of `rows` that come from the mix's `replay`; missing where it has none.",
    )
    tokens: Number = Field(description="Tokens read in all epochs, without padding.")
    answer_tokens: Number = Field(description="Those of them that the loss is computed on.")
    final_loss: float = Field(
        description="Loss of the last step, in nats per answer token; without the router's "
        "auxiliary loss."
    )
    final_auxiliary_loss: float = Field(
        default=0.0,
        description="The router's auxiliary loss of the last step, times `router_aux_loss`.",
    )
    resumed: Count = Field(
        description="How often the training went on from a checkpoint. Seconds and counts are "
        "of the whole training."
    )
    segments: Annotated[tuple[Segment, ...], Field(strict=False)] = Field(
        default=(),
        description="The parts that it was computed in, in order, each with the revision, the "
        "versions and the machine that computed it. A call that ended before its first step has "
        "none.",
    )
    processes: Number = Field(description="Processes that computed it together, one per GPU.")
    sharding: Literal["none", "ddp", "fsdp"] = Field(
        description="How processes share the model: `none`, there is one process; `ddp`, each "
        "holds all of it; `fsdp`, each holds a part."
    )
    micro_batch: Number = Field(
        description="Rows of `max_length` tokens that a process computes at once: as "
        "configured, or what `auto` chose, or fewer where memory did not suffice."
    )
    peak_memory_bytes: Count = Field(
        description="The most memory that the first process held: on its GPU, without one resident."
    )
    unfrozen: Annotated[tuple[Unfrozen, ...], Field(strict=False)] = Field(
        default=(),
        description="What is updated after a part of the training (`unfreeze`), in order; missing "
        "where nothing is.",
    )
    drift: Drift | None = Field(
        default=None,
        description="How far the training moved the weights; missing in records of versions that "
        "did not measure it.",
    )


class _Trained(Record):
    recipe: str = Field(description="The recipe of this training: of a variant, of its last stage.")
    seed: Count = Field(
        description="The seed of the training; of a variant also that of its dense experts."
    )
    learning_rate: Amount = Field(description="The highest learning rate of its schedule.")
    trainable_parameters: Count = Field(
        description="Parameters that are trained; with `unfreeze`, in the end."
    )
    total_parameters: Number = Field(
        description="All parameters of the model, adapters included; a quantised one counts as one."
    )


class _TrainRecord(Run, _Trained):
    flops: Amount = Field(
        description="Floating-point operations of the matrix products for these tokens, forward "
        "and backward, as the plan counts them (mofe/estimate/flops.py)."
    )
    frozen_sha256: Frozen = Field(
        description="Hashes of the parameters that are frozen to the end. If they differ, the "
        "training fails."
    )
    config_hash: str = Field(description=_HASHED)
    git_revision: GitRevision
    versions: Versions
    hardware: Machine
    config_files: ConfigFiles = {}

    @property
    def computed_by(self) -> tuple[Segment | Self, ...]:
        """Its segments, or the record itself where it lists none: each says which revision,
        versions and machine computed it, and its `device_seconds`."""
        return self.segments or (self,)


class _Variant(Record):
    moe: Moe
    stages: Stages


class _Dense(Record):
    model: str = Field(description="The dense model.")


class TrainRecord(_TrainRecord, _Variant):
    """train.json of a variant: one stage of its fine-tuning with one seed."""

    token_share: TokenShare | None = Field(
        default=None,
        description="Where tokens went, over the recorded steps; only with "
        "`training.record_router`.",
    )


class DenseTrainRecord(_TrainRecord, _Dense):
    """train.json of a dense model that was trained here."""


# ---------------------------------------------------------------------------------- evaluation


class Metric(Record):
    """A metric with its standard error."""

    value: Amount = Field(description="The mean over questions; of `perplexity` see above.")
    stderr: Amount = Field(
        description="Its standard error, by cluster (CR1). Where no questions are alike, it is "
        "the standard deviation of the questions' scores, divided by √n."
    )


class Floor(Record):
    """What a score reaches without a model."""

    value: Share = Field(description="The score of the best constant answer.")
    how: str = Field(description="What that constant answer is.")


class _Evaluated(Record):
    task: str = Field(description="The task, as the study names it.")
    moe: Moe
    stages: Stages
    seed: Count = Field(
        description="The row's seed, also of its dense experts; 0 where nothing of it is trained."
    )


class Scores(Record):
    """The scores of the answers to a task's questions."""

    n: Number = Field(description="Number of questions.")
    clusters: Number = Field(
        description="Number of clusters of questions that are alike; `n` where none are."
    )
    headline: str = Field(
        description="The metric that tables show: `acc` of multiple choice, `f1` of free text, "
        "`perplexity` of raw text."
    )
    metrics: dict[str, Metric] = Field(
        description="Every metric by name. `acc`: the share answered right. `acc_norm`, where "
        "lm-eval's task has it: the same by log-likelihood per character. `perplexity`: e to the "
        "power of the negative log-likelihoods of the right options, or of raw text, added up over "
        "all questions and divided by the number of their tokens (no metric where that is above "
        "1e300). `entropy`: "
        "the mean entropy, in nats, of the softmax of a question's `loglikelihoods`. `f1` and "
        "`exact`: SQuAD's F1 over the words of an answer, and the share of exact matches."
    )
    floor: Floor | None = Field(
        description="What the best constant answer scores; null for free and raw text, which "
        "have none."
    )
    prompts_cut: Count = Field(
        default=0,
        description="Questions whose prompt lost its beginning, because the model had no room for "
        "it.",
    )

    @model_validator(mode="after")
    def _headline_is_measured(self) -> Self:
        if self.headline not in self.metrics:
            raise PydanticCustomError(
                "headline",
                "metrics.{headline} is missing, and headline names it",
                {"headline": self.headline},
            )
        for name in SHARES:
            if name in self.metrics and self.metrics[name].value > 1:
                raise PydanticCustomError(
                    "share",
                    "metrics.{name}.value is {value}, outside its range: at most 1",
                    {"name": name, "value": self.metrics[name].value},
                )
        return self


class EvalRecord(Scores, _Evaluated):
    """{task}.json: a variant with one seed on one task."""

    held_out: str | None = Field(
        default=None,
        description="The training set whose rows were asked, of those that training does not draw; "
        "null where a test set was asked.",
    )
    sample_of: Number | None = Field(
        default=None,
        description="How many questions the task has, where only a sample of them was asked; null "
        "where all were.",
    )
    sample_seed: Count | None = Field(
        default=None,
        description="The `sampling_seed` that the sample was drawn by; null where all were asked.",
    )
    sample_sha256: str | None = Field(
        default=None,
        description="SHA-256 of a line for each question of the sample, its `task`, a space and "
        "its `question`, in the order of the file of answers; null where all were asked.",
    )
    questions: str = Field(description="The name of the file with every question and its answer.")
    seconds: Amount = Field(description="Seconds of loading, asking and scoring.")
    config_hash: str = Field(description=_HASHED)
    git_revision: GitRevision
    versions: Versions
    hardware: Machine
    config_files: ConfigFiles = {}


class Question(Record):
    """Which question it is."""

    task: str = Field(description="The task, as lm-eval names it, such as one subject of MMLU.")
    question: Count = Field(description="The number of the question within that task, from 0.")
    prompt_sha256: str = Field(description="lm-eval's hash of the prompt.")
    cluster: str | None = Field(
        default=None,
        description="What the question asks for: questions with one cluster are alike. Null: it "
        "is like no other.",
    )


class _Answered(Question):
    prompt_cut: Count = Field(
        description="Tokens that were cut off the beginning of the prompt, as lm-eval does, "
        "because the model had no room for them beside the answer; mostly 0."
    )


class ChoiceAnswer(_Answered):
    """A line of {task}.questions.jsonl.gz: a multiple-choice question and its answer."""

    options: Texts = Field(description="The options.")
    target: Count = Field(description="The right option, from 0.")
    choice: Count = Field(
        description="The most likely option, from 0; of equally likely ones the first."
    )
    loglikelihoods: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        description="The log-likelihood of each option in nats, summed over its tokens."
    )
    correct: Literal[0, 1] = Field(
        description="1 where `choice` is `target`, else 0; lm-eval's `acc`."
    )
    tokens: Number | None = Field(
        default=None,
        description="The tokens of the right option; null where an earlier version did not count "
        "them.",
    )

    def score(self, metric: str) -> float:
        """`acc`; `entropy`; or lm-eval's `acc_norm`: 1 where the target is the likeliest option by
        its log-likelihood per character, else 0."""
        if metric == "acc":
            return self.correct
        if metric == "entropy":
            return self._entropy
        pairs = zip(self.loglikelihoods, self.options, strict=True)
        likelihoods = [likely / len(option) if option else -math.inf for likely, option in pairs]
        return int(likelihoods.index(max(likelihoods)) == self.target)

    @property
    def _entropy(self) -> float:
        """In nats, of the options as the softmax of their log-likelihoods weighs them."""
        most = max(self.loglikelihoods)
        weights = [math.exp(likely - most) for likely in self.loglikelihoods]
        total = math.fsum(weights)
        shares = [weight / total for weight in weights]
        return -math.fsum(share * math.log(share) for share in shares if share)


class WrittenAnswer(_Answered):
    """A line of {task}.questions.jsonl.gz: a free-text question and its answer."""

    reference: str = Field(description="The expected answer.")
    generated: str = Field(
        description="What the model wrote, each time the likeliest token: up to the first new "
        "line, the end of text, or 256 tokens (lm-eval's own limit)."
    )
    f1: Share = Field(
        description="F1 over the words of both answers, by the rules of SQuAD's evaluation "
        "script: case, punctuation, articles and spaces do not count."
    )
    exact: Share = Field(description="1 where both answers are equal by the same rules, else 0.")

    def score(self, metric: str) -> float:
        """`f1` or `exact`."""
        return {"f1": self.f1, "exact": self.exact}[metric]


class TextAnswer(_Answered):
    """A line of {task}.questions.jsonl.gz: held-out raw text, as a model reads it."""

    loglikelihood: float = Field(
        description="Its log-likelihood in nats, summed over its tokens but the first one of each "
        "piece of `training.max_length`, which nothing precedes."
    )
    tokens: Number = Field(description="How many tokens that are.")


class AskedQuestion(Question):
    """A row of questions/{model}/{task}.parquet: a question in the tokens of a model."""

    options: Texts | None = Field(
        default=None, description="Multiple choice: the options. Free text: null."
    )
    target: Count | None = Field(
        default=None, description="Multiple choice: the right option, from 0. Free text: null."
    )
    reference: str | None = Field(
        default=None, description="Free text: the expected answer. Else null."
    )
    row: str | None = Field(
        default=None,
        description="Free text: the source's row as JSON, which the scores are computed from. "
        "Else null.",
    )
    stops: Texts | None = Field(
        default=None, description="Free text: the texts that end an answer. Else null."
    )
    most: Number | None = Field(
        default=None, description="Free text: the most tokens that an answer may have. Else null."
    )
    ids: list[list[int]] = Field(
        description="Multiple choice: the tokens of the prompt with each option. Free text: "
        "those of the prompt alone. Raw text: those of its pieces."
    )
    starts: list[int] = Field(
        description="Where the answer begins in each of these sequences of tokens."
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        choice = (self.options, self.target)
        free_text = (self.reference, self.row, self.stops, self.most)
        whole = [None not in part for part in (choice, free_text)]
        given = [any(value is not None for value in part) for part in (choice, free_text)]
        if whole != given or all(given):
            raise PydanticCustomError(
                "kind",
                "a question has options and target, or reference, row, stops and most, or of raw "
                "text none of them",
            )
        return self

    @property
    def in_words(self) -> bool:
        """Whether the answer is free text."""
        return self.reference is not None

    @property
    def is_text(self) -> bool:
        """Whether it is raw text, which asks for nothing."""
        return self.options is None and not self.in_words


# ---------------------------------------------------------------------------------------- data


class _Counts(Record):
    duplicate: Count = Field(
        description="Dropped because an earlier row has the same prompt or text."
    )
    usable: Count = Field(description="What is left.")
    sampled: Count = Field(description="Rows that were drawn from those.")
    characters: Count = Field(description="Characters of the drawn rows' prompts and answers.")
    config_hash: str | None = Field(default=None, description=_HASHED)


def _must_add_up(start: str, begun: int, dropped: int, usable: int) -> None:
    if begun - dropped != usable:
        raise PydanticCustomError(
            "counts",
            "usable is {usable}, but {start} less what was dropped is {left}",
            {"usable": usable, "start": start, "left": begun - dropped},
        )


class _TaskRows(Record):
    read: Count = Field(description="Rows of the source's split.")
    incomplete: Count = Field(
        description="Dropped because the question, or for Sujet the answer, is empty."
    )
    held_out: Count = Field(
        description="Dropped where the set comes as one split: the rows of its test part, and "
        "rows that stand there twice."
    )
    left_by_task: Count = Field(
        default=0,
        description="Dropped because the task's own `process_docs` leaves them out, as it does in "
        "the test set.",
    )
    made_by_task: Count = Field(
        default=0,
        description="Added because the task's own `process_docs` makes several questions of a row, "
        "or because tasks of a group each read it in their own way.",
    )
    unlabelled: Count = Field(description="Dropped because they have no answer.")
    also_in_test: Count = Field(
        description="Dropped because the task's test set has the same prompt."
    )
    nearly_in_test: Count | None = Field(
        default=None,
        description="Not dropped, but told: usable rows whose prompt differs from one of the "
        "task's test set only in case, punctuation or white space. Null: not counted.",
    )


class TaskCounts(_Counts, _TaskRows):
    """data/{dataset}.json: what became of the rows of a task's training set."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        left_out = self.incomplete + self.held_out + self.left_by_task + self.unlabelled
        dropped = left_out + self.duplicate + self.also_in_test - self.made_by_task
        _must_add_up("read", self.read, dropped, self.usable)
        return self


class _Pieces(Record):
    read: Count = Field(description="Rows of the source's split.")
    pieces: Count = Field(
        description="Pieces that the rows were cut into, which are rows from here on."
    )
    also_in_test: Literal[0] | None = Field(
        default=None,
        description="Null, or 0 in files of earlier versions: raw text is compared with no test "
        "set.",
    )


class TextCounts(_Counts, _Pieces):
    """data/{dataset}.json: what became of the rows of a set of raw text."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        _must_add_up("pieces", self.pieces, self.duplicate, self.usable)
        return self


# ------------------------------------------------------------------- searches for learning rates


class TriedRate(Record):
    """A learning rate that a search tried."""

    learning_rate: Amount = Field(description="The learning rate.")
    scores: dict[str, Metric] = Field(
        description="The headline score on each task of the search, by the task's name."
    )

    @property
    def mean(self) -> float:
        """The mean score over the tasks."""
        return statistics.fmean(score.value for score in self.scores.values())

    @property
    def stderr(self) -> float:
        """The standard error of that mean; the tasks' questions are drawn apart."""
        return math.hypot(*(s.stderr for s in self.scores.values())) / len(self.scores)


class SearchRecord(Record):
    """search.json of a variant: the learning rates that were tried, and the best."""

    moe: Moe
    stages: Stages
    recipe: str = Field(description="The recipe whose learning rate was searched.")
    seed: Count = Field(description="The seed that the rates were tried with.")
    tried: Annotated[tuple[TriedRate, ...], Field(strict=False)] = Field(
        description="Every rate, the lowest first."
    )
    best: Amount = Field(
        description="The rate with the greatest mean score; of equally good ones the lowest. "
        "The variant is trained with it."
    )
    at_edge: bool = Field(
        description="Whether the best is the lowest or the highest rate that was tried, so that "
        "a rate beyond it may be better."
    )
    config_hash: str | None = Field(default=None, description=_HASHED)


# ----------------------------------------------------------------------------------- manifests


class SourceFile(Record):
    """A weight file of a dense model, as it was merged."""

    size: Count = Field(description="Its bytes.")
    xxh3: str = Field(description="Its checksum, as `xxhsum -H2` prints it.")


class Format(Record):
    """The version of a file whose other keys depend on it."""

    model_config = ConfigDict(extra="ignore")

    format: int = Field(description="The version of this format.")


class MergeManifest(Record):
    """merge.json: which dense models a merge's weights are read from."""

    format: int = Field(description="The version of this format.")
    dtype: str = Field(description="The type that weights are rounded to.")
    gate_mode: str = Field(
        description="How the router was initialised, in the words of `merge.gate_mode`; `none` for "
        "a mixture of one expert, whose router is a row of zeros that nothing reads."
    )
    experts_per_token: Number = Field(description="Experts that compute each token.")
    base: str = Field(
        description="Folder of the base model; relative to this one unless the study names it "
        "absolutely."
    )
    slots: Texts = Field(description="Folder of the dense model in each slot, likewise.")
    sources: dict[str, dict[str, SourceFile]] = Field(
        description="The weight files of each of these folders, by name."
    )


class HubFile(Record):
    """A file that was fetched."""

    path: str = Field(description="Its path in the repository.")
    size: Count = Field(description="Its bytes.")
    sha256: str = Field(description="Its hash.")


class RowGroup(Record):
    """A part of a parquet file."""

    file: str = Field(description="The file that it is from.")
    row_group: Count = Field(description="Its number in that file, from 0.")
    rows: Count = Field(description="Its rows.")


class HubSample(Record):
    """What was drawn from a large repository."""

    rows: Number = Field(description="Rows asked for.")
    seed: Count = Field(description="The seed of the draw.")
    of_rows: Count = Field(description="Rows of the whole set.")
    groups: Annotated[tuple[RowGroup, ...], Field(strict=False)] = Field(
        description="The row groups that were drawn."
    )


class HubManifest(Record):
    """{hub}/{org}/{name}.json: what was fetched of a repository."""

    repo: str = Field(description="The repository, `{org}/{name}`.")
    kind: Literal["dataset", "model"] = Field(description="`dataset` or `model`.")
    revision: str = Field(description="The revision that was asked for.")
    commit: str = Field(description="The commit that this revision stood for.")
    files: Annotated[tuple[HubFile, ...], Field(strict=False)] = Field(
        description="Every fetched file."
    )
    sample: HubSample | None = Field(
        default=None, description="What was drawn; absent where whole files were fetched."
    )


class PushRecord(Record):
    """pushed/{moe}/{stages}/s{seed}.json: an exported model that was uploaded."""

    repo: str = Field(description="The repository on the hub.")
    commit: str = Field(description="The commit of the upload.")


# -------------------------------------------------------------------------------------- claims

Scale = Literal["paper", "miniature", "other"]
# What a verdict says, by what is asked: the paper's own numbers, the paper's scale, and any other
# study. No word stands in two of these lists but `exact`, which follows from a definition.
PrintedVerdict = Literal["beyond its noise", "inside its noise", "exact"]
PaperScaleVerdict = Literal[
    "holds",
    "direction only",
    "no difference above δ",
    "contradicted",
    "undecided",
    "not run",
    "exact",
]
HereVerdict = Literal[
    "same here",
    "other way here",
    "no difference here",
    "undecided here",
    "cannot be asked here",
    "not run",
    "exact",
]
TestName = Literal[
    "crossed",  # seeds by questions
    "questions",  # questions alone: all models are untuned, or a share of three with one seed
    "McNemar",  # one seed: two models
    "printed",  # printed scores with the paper's own noise
    "rounding",  # printed whole hours
    "log ratio",  # measured times over seeds
    "replications",  # one study's difference beside those of others
    "count",  # whole numbers
]


class KeptShare(Record):
    """The share that one row keeps of what another gains over a third."""

    start: str = Field(description="The row that both gains are over.")
    limit: Amount = Field(description="The least share that is claimed.")
    value: float | None = Field(
        description="The first row's gain over the second's; null where the second gains nothing."
    )
    low: float | None = Field(
        description="Lower end of its 95% interval (Fieller's); null where the second row's gain "
        "is not above zero beyond its noise, so that the interval has no ends."
    )
    high: float | None = Field(description="Its upper end.")
    gain: float = Field(description="What the second row gains, as a fraction of 1.")
    gain_low: float = Field(description="Lower end of the gain's 95% interval.")
    gain_high: float = Field(description="Its upper end.")


class Comparison(Record):
    """A part of a claim: two rows in one column, or the three of a share."""

    column: str = Field(description="The column, by its heading.")
    first: str = Field(description="The row that is claimed to be greater (of times: smaller).")
    second: str = Field(description="The row that it is compared with.")
    test: TestName = Field(description="What the comparison was tested with.")
    difference: float = Field(
        description="The first less the second, as a fraction of 1. Of times, the first over the "
        "second; of counts, the first less the second. Of a share, the first row's gain less "
        "`limit` times the second's."
    )
    low: float = Field(description="Lower end of the 95% interval.")
    high: float = Field(description="Upper end of the 95% interval.")
    stderr: Amount | None = Field(
        description="Standard error of the difference; null where there is none."
    )
    df: Amount | None = Field(description="Its degrees of freedom; null where there are none.")
    p: Share | None = Field(description="Two-sided; null where nothing is tested.")
    these_low: float | None = Field(
        default=None,
        description="Lower end of the 95% interval for these very questions, that is for new "
        "seeds alone; null where it is not known.",
    )
    these_high: float | None = Field(default=None, description="Its upper end.")
    by_group_low: float | None = Field(
        default=None,
        description="A second look: lower end of the 95% interval if the questions of one of the "
        "benchmark's parts, such as a subject of MMLU, are alike; null for fewer than ten parts.",
    )
    by_group_high: float | None = Field(default=None, description="Its upper end.")
    seeds: Count = Field(description="Seeds of each row; 0 of printed numbers.")
    identical: bool = Field(
        description="Whether both rows are one function: the same answers to all questions at "
        "every seed, with log-likelihoods that differ by rounding alone (0.01 nats)."
    )
    least: Amount | None = Field(
        default=None,
        description="The least difference that would have been found in 80% of such studies.",
    )
    kept: KeptShare | None = Field(
        default=None, description="Of a claim of kind `share`, the share; else null."
    )


class Judgement(Record):
    """A claim's verdict in one column."""

    verdict: PrintedVerdict | PaperScaleVerdict | HereVerdict = Field(description="The verdict.")
    reading: str = Field(
        default="part by part",
        description="How the parts are taken, where there are several readings.",
    )
    reason: str | None = Field(
        default=None, description="Why there is no other verdict, or what it rests on."
    )
    p: Share | None = Field(default=None, description="The claim's p, two-sided.")
    p_holm: Share | None = Field(
        default=None,
        description="The same after Holm's correction over the claims of its section; null in the "
        "file of a single claim.",
    )
    opposed: Share | None = Field(
        default=None,
        description="The least p, by Holm over the parts, of those that point the other way.",
    )
    equal: Share | None = Field(
        default=None, description="The p of equality within the margin (TOST) of all parts."
    )
    summary: Comparison | None = Field(
        default=None,
        description="What the verdict is about: the weakest part, or of `mean` the mean of all.",
    )
    parts: Annotated[tuple[Comparison, ...], Field(strict=False)] = Field(
        default=(), description="The comparisons; parts that are one function stand here once."
    )


class ClaimRecord(Record):
    """claims/{claim}.json: a claim of the paper, or of ours, and what is known of it."""

    claim: str = Field(description="Its name.")
    says: str = Field(description="The claim in one sentence.")
    quote: str | None = Field(description="The paper's own words; null where it has none.")
    place: str = Field(description="Where the paper says so.")
    section: str = Field(description="The family of the correction.")
    kind: str = Field(description="What is claimed: `all`, `mean`, `some`, `equal`, ...")
    in_paper: bool = Field(description="Whether the paper claims it; else it is ours.")
    tables: Annotated[tuple[int | str, ...], Field(strict=False)] = Field(
        description="The tables that it is about."
    )
    study: str = Field(description="The study that was run.")
    scale: Scale = Field(description="`paper`, `miniature`, or `other`.")
    margin: Amount = Field(description="Differences up to this are none (δ).")
    printed: Judgement | None = Field(
        description="The paper's own numbers, tested again; null where it prints none."
    )
    printed_again: Judgement | None = Field(
        description="The same in another reading: rows that are one function, as runs of it."
    )
    paper_scale: Judgement = Field(description="Whether it holds at the paper's scale.")
    here: Judgement | None = Field(
        description="What this study shows; null for a study at the paper's scale, whose verdict "
        "is the one above."
    )
    files: Texts = Field(description="The records that the study's verdict is read from.")


class Replicated(Record):
    """A claim asked in several studies, such as the same one in other worlds."""

    pooled: ClaimRecord = Field(
        description="The claim with each study as one observation; p is corrected over the "
        "replicated claims of its section."
    )
    differences: dict[str, tuple[float, ...]] = Field(
        description="By study, its difference in every part of `pooled.here`, in their order."
    )


class ReplicationsRecord(Record):
    """replications.json: claims asked in several studies."""

    studies: Annotated[tuple[str, ...], Field(strict=False, min_length=2)] = Field(
        description="The studies, this one first."
    )
    claims: Annotated[tuple[Replicated, ...], Field(strict=False)] = Field(
        description="The claims in order."
    )


class LeastEffect(Record):
    """The least difference that 80% of studies at the paper's scale would find, with the paper's
    own run-to-run noise."""

    task: str = Field(description="The task.")
    questions: Number = Field(description="Its questions.")
    seeds: Number | None = Field(description="Seeds per row; null for any number.")
    new: Amount = Field(description="About new seeds and new questions.")
    these: Amount = Field(description="About new seeds on these very questions.")


class ClaimsRecord(Record):
    """claims.json: all claims of a study, corrected for their number."""

    study: str = Field(description="The study that was run.")
    scale: Scale = Field(description="`paper`, `miniature`, or `other`.")
    seeds: Count = Field(description="Its number of seeds.")
    margin: Amount = Field(description="Differences up to this are none (δ).")
    printed_counts: dict[str, Count] = Field(
        description="How many of the paper's claims have each verdict, on its own numbers."
    )
    paper_scale_counts: dict[str, Count] = Field(
        description="How many of the paper's claims have each verdict, at its scale."
    )
    claims: Annotated[tuple[ClaimRecord, ...], Field(strict=False)] = Field(
        description="The claims in order."
    )
    least: Annotated[tuple[LeastEffect, ...], Field(strict=False)] = Field(
        description="What a study at the paper's scale can find."
    )
    noise: dict[str, Amount] = Field(
        default_factory=dict,
        description="By column heading, the difference that two single runs of the paper exceed "
        "by chance in 5% of pairs.",
    )


# ---------------------------------------------------------------------------------------- plan


class PlanHardware(Record):
    """The machines that a plan is made for."""

    gpu: str = Field(description="The kind of GPU.")
    gpus_per_node: Number = Field(description="GPUs per node.")
    utilisation: Share = Field(
        description="The share of the GPU's peak that training and evaluation are expected to "
        "reach."
    )
    starting: Amount = Field(
        description="Seconds of a GPU job until it begins to read its model; 0 in a CPU study."
    )


class PlanNeeds(Record):
    """What a job asks a machine for."""

    cpus: Count = Field(description="Cores per node; 0 where nothing is computed.")
    mem_mb: Count = Field(description="Main memory per node, in MB.")
    runtime: Count = Field(description="Minutes.")
    gpus: Count = Field(description="GPUs per node; of a CPU study, processes.")
    nodes: Number = Field(description="Nodes.")
    sharding: Literal["none", "ddp", "fsdp"] = Field(
        description="How its processes share the model, as in `train.json`."
    )


class PlanMemory(Record):
    """Estimated memory at the peak."""

    bytes: Amount = Field(description="Bytes on each GPU; of a CPU study, resident.")
    parts: dict[str, Amount] = Field(description="The same, by what holds them.")
    terms: dict[str, dict[str, Amount]] = Field(
        description="For trainings, the terms of those parts that are sums."
    )


class PlanJob(Record):
    """A job of the study, with its estimate."""

    rule: str = Field(description="The rule.")
    label: str = Field(description="What it is called: a model, variant, seed, task.")
    makes: str = Field(description="The file or folder that it makes.")
    after: Texts = Field(description="What it waits for: `makes` of other jobs.")
    tables: Annotated[tuple[int | str, ...], Field(strict=False)] = Field(
        description="The tables that need it."
    )
    needs: PlanNeeds = Field(description="What it asks for.")
    hours: Amount = Field(description="Hours that it takes.")
    gpu_hours: Amount = Field(description="These hours, times its GPUs.")
    parameters: Count = Field(description="Parameters of its model.")
    trainable: Count = Field(description="Parameters that it trains.")
    tokens: Amount = Field(description="Tokens that it reads.")
    flops: Amount = Field(description="Floating-point operations.")
    micro_batch: Count = Field(description="Rows that a training computes at once; else 0.")
    memory: PlanMemory = Field(description="Memory at its peak.")
    disk: Amount = Field(description="Bytes that it leaves on disk.")
    scratch: Amount = Field(description="Bytes of its checkpoint while it runs.")
    fits: bool = Field(description="Whether any number of these GPUs holds it.")
    measured: bool = Field(description="Whether its speed is that of finished runs.")


class PlanTotals(Record):
    """Sums over jobs."""

    jobs: Count = Field(description="Jobs.")
    trainings: Count = Field(description="Trainings among them.")
    trainings_gpu_hours: Amount = Field(description="GPU-hours of these.")
    evaluations: Count = Field(description="Evaluations among them.")
    evaluations_gpu_hours: Amount = Field(description="GPU-hours of these.")
    gpu_submissions: Count = Field(
        description="Jobs with a GPU that Slurm sees: all tasks of a model with one seed are one."
    )
    gpu_hours: Amount = Field(description="GPU-hours of all; of a CPU study, core-hours.")
    flops: Amount = Field(description="Floating-point operations.")
    tokens: Amount = Field(description="Tokens that trainings read.")
    disk: Amount = Field(description="Bytes left on disk.")


class PlanShare(Record):
    """A part of the jobs."""

    jobs: Count = Field(description="Jobs.")
    gpu_hours: Amount = Field(description="Their GPU-hours; of a CPU study, core-hours.")


class PlanSeed(Record):
    """What one further seed takes where all that the study's seeds need is made."""

    totals: PlanTotals = Field(description="Sums over the jobs that it adds.")
    trainings: PlanShare = Field(description="The fine-tunings of the tables' rows.")
    experts: PlanShare = Field(description="The dense experts.")
    evaluations: dict[str, PlanShare] = Field(description="The evaluations, by task.")


class PlanDisk(Record):
    """Bytes on disk."""

    kept: Amount = Field(description="Bytes that stay.")
    by_rule: dict[str, Amount] = Field(description="The same, by rule.")
    largest_checkpoint: Amount = Field(description="Bytes of the largest training's checkpoint.")
    peak_with_8: Amount = Field(
        description="Bytes at most, if the eight largest trainings run at once."
    )


class PlanStep(Record):
    """A job of the longest chain."""

    rule: str = Field(description="The rule.")
    label: str = Field(description="What the job is called.")
    hours: Amount = Field(description="Hours that it takes.")


class PlanMachine(Record):
    """The whole study on one kind of GPU."""

    gpu_hours: Amount = Field(description="GPU-hours of all jobs.")
    most_gpus: Count = Field(description="The most GPUs that one job needs.")
    does_not_fit: Texts = Field(description="The jobs that no number of these GPUs holds.")
    makespan: dict[int, Amount | None] = Field(
        description="Hours until everything is done, by number of GPUs; null where a job needs "
        "more."
    )


class PlanOther(Record):
    """A training of Tables 1 and 2 on another base model."""

    label: str = Field(description="The variant.")
    experts: Number = Field(description="Experts of its mixture.")
    recipe: str = Field(description="Its recipe.")
    micro_batch: Count = Field(description="Rows that it computes at once.")
    parameters: Count = Field(description="Parameters of its model.")
    trainable: Count = Field(description="Parameters that it trains.")
    memory: Amount = Field(description="Bytes at the peak, on each GPU.")
    needs: PlanNeeds = Field(description="What it asks for, as in `jobs`.")
    gpu_hours: Amount = Field(description="GPU-hours.")
    fits: bool = Field(description="Whether any number of these GPUs holds it.")
    disk: Amount = Field(description="Bytes that it leaves on disk.")


class PlanMeasured(Record):
    """What finished trainings measured, which the estimates use."""

    epoch_tokens: dict[str, Amount] = Field(description="Tokens per epoch, by mix.")
    speed: dict[str, Amount] = Field(
        description="By recipe, the share of the GPUs' peak that was reached; of a CPU study "
        "FLOP/s."
    )


class PlanOnDemand(Record):
    """What a table takes that is made on demand, with all that it needs."""

    totals: PlanTotals = Field(description="Sums over the jobs that it needs.")
    gpu_hours: dict[str, Amount] = Field(
        description="GPU-hours by kind of GPU; empty for a CPU study."
    )
    other_bases: dict[str, Amount] = Field(
        description="GPU-hours with each larger base in place of every model; empty for a CPU "
        "study."
    )


class PlanRecord(Record):
    """plan.json: what a study will take."""

    study: str = Field(description="The study.")
    device: Literal["cuda", "cpu"] = Field(description="What it runs on: `cuda` or `cpu`.")
    seeds: tuple[Count, ...] = Field(description="The study's seeds.")
    hardware: PlanHardware = Field(description="The machines that it is planned for.")
    jobs: tuple[PlanJob, ...] = Field(description="Every job, inputs first.")
    totals: PlanTotals = Field(description="Sums over all jobs.")
    disk: PlanDisk = Field(description="Disk space.")
    tables: dict[str, PlanTotals] = Field(
        description="By table, the same sums as in `totals` over the jobs that the table needs."
    )
    claims: dict[str, PlanTotals] = Field(
        description="By claim, the same sums over the jobs that its verdict needs."
    )
    on_demand: dict[str, PlanOnDemand] = Field(
        description="By table that is made on demand, what it takes."
    )
    further_seed: PlanSeed = Field(description="What one more seed would take.")
    critical_path: tuple[PlanStep, ...] = Field(
        description="The longest chain of jobs: no number of GPUs is faster."
    )
    machines: dict[str, PlanMachine] = Field(description="The study on each kind of GPU.")
    other_bases: dict[str, tuple[PlanOther, ...]] = Field(
        description="Tables 1 and 2 on larger base models; empty for a CPU study."
    )
    measured: PlanMeasured = Field(description="What finished runs measured.")
    guesses: Texts = Field(description="The keys whose values had to be guessed.")
    left_out: Texts = Field(
        description="The records of finished jobs that cannot be read, so that estimates go "
        "without them."
    )
    counted_models: Count = Field(
        description="Kinds of trained models whose parameters were counted on the real modules."
    )


# ----------------------------------------------------------------------- what a machine can run

Verdict = Literal["ok", "warning", "fault"]


class Finding(Record):
    """What the check found of one thing."""

    of: Literal["here", "node"] = Field(
        description="The machine that was looked at: `here`, where the workflow is called, or the "
        "`node` that a job runs on."
    )
    subject: str = Field(description="What was looked at.")
    verdict: Verdict = Field(
        description="`fault`: the study cannot run. `warning`: it can, but may not do what is "
        "expected."
    )
    told: str = Field(description="What was found, in a sentence.")
    remedy: str = Field(default="", description="What to do about it; empty where all is well.")


class GpuFact(Record):
    """A GPU."""

    name: str = Field(description="As CUDA calls it.")
    memory: Count = Field(description="Its memory, in bytes.")


class NodeFacts(Record):
    """What a machine is found to have, by a job that runs there. A probe's text is empty where it
    worked, and null where it was not tried."""

    host: str = Field(description="The machine's name.")
    python: str = Field(description="The version of Python.")
    lock: str = Field(description="The file of pinned packages that was installed.")
    other_versions: dict[str, str] = Field(
        description="Installed packages whose version is not that of `lock`, with what is wrong."
    )
    torch: str = Field(description="The version of torch.")
    torch_cuda: str | None = Field(description="The CUDA that torch was built for.")
    driver: str | None = Field(description="The version of NVIDIA's driver; null for none.")
    gpus: Annotated[tuple[GpuFact, ...], Field(strict=False)] = Field(
        description="The GPUs that torch can use."
    )
    gpus_why: str = Field(description="Why torch can use no more, in its own words.")
    compiler: str | None = Field(description="The C compiler that Triton would take.")
    triton: str | None = Field(description="What a kernel of the expert layer failed by.")
    nf4: str | None = Field(description="What a layer with 4-bit weights failed by.")
    fp8: str | None = Field(default=None, description="The same of one with 8-bit weights.")
    memory: Count = Field(description="Main memory, in bytes.")


class CheckRecord(Record):
    """Whether a machine can run a study."""

    study: str = Field(description="The study's name.")
    findings: tuple[Finding, ...] = Field(strict=False, description="What was found.")
    nodes: tuple[NodeFacts, ...] = Field(
        strict=False, description="The machines that jobs looked at."
    )


# Every kind of record that is a file, or a line of one, by the name of its schema in docs/schemas.
KINDS: dict[str, type[Record]] = {
    "train": TrainRecord,
    "train-dense": DenseTrainRecord,
    "log": LossStep,
    "eval": EvalRecord,
    "answer-choice": ChoiceAnswer,
    "answer-text": WrittenAnswer,
    "answer-raw": TextAnswer,
    "search": SearchRecord,
    "counts-task": TaskCounts,
    "counts-text": TextCounts,
    "merge": MergeManifest,
    "hub": HubManifest,
    "pushed": PushRecord,
    "claim": ClaimRecord,
    "claims": ClaimsRecord,
    "plan": PlanRecord,
    "check": CheckRecord,
}
