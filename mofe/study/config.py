"""The study's configuration: every key that config.yaml may hold.

`mofe.study.load` reads it; what sections must agree on is in `mofe.study.checks`. Imports neither torch
nor transformers.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from mofe.study import checks
from mofe.study.hardware import GPUS
from mofe.study.values import (
    LABEL_SEPARATOR,
    Amount,
    Count,
    DataName,
    MixtureName,
    ModelName,
    Name,
    Part,
    RowName,
    Scored,
    Seed,
    Share,
    Shown,
    SourceName,
    Stages,
    TableKey,
    TaskName,
    count_or,
    exactly_one,
)


class World(Part):
    """The generated world of the mini study (mofe/data/world.py): what is drawn, and how much.

    seed: draws the names, the facts and every row.
    test_questions: MMLU test, MedMCQA validation; half of PubMedQA; a tenth of Sujet.
    train_rows: rows of MMLU's auxiliary_train and of MedMCQA's train.
    told: share of facts stated in the pretraining corpus.
    taught: share of facts that training questions may ask for. Every fact is told or taught, and
        the shares overlap in the middle: told + taught must be at least 1.
    cue_strength: chance that a cue word agrees with the verdict or mood of its passage. It sets the
        ceilings of PubMedQA and of two of the three kinds of Sujet rows.
    vignettes: share of MedMCQA's questions that describe a trial and ask for its verdict. Without
        them tuning on MedMCQA unlearns "yes", "no" and "maybe" as answers.
    corpus_tokens: size of the pretraining corpus, in tokens.
    medical_documents, news_documents: documents to post-pretrain on.
    """

    seed: int = 0
    test_questions: Count = 2000
    train_rows: Count = 3000
    told: Share = 0.4
    taught: Share = 0.75
    cue_strength: Share = 0.7
    vignettes: Share = 0.05
    corpus_tokens: Count = 334_000
    medical_documents: Count = 1500
    news_documents: Count = 500

    @model_validator(mode="after")
    def _every_fact_somewhere(self):
        if self.told + self.taught < 1:
            raise PydanticCustomError(
                "told_and_taught", "told + taught is below 1: some facts would be nowhere to learn"
            )
        return self


class Source(Part):
    """A data set's repository on the hub, pinned.

    files: what is fetched of it, as patterns in which `*` stands for folders too; its README.md
    always is. sample: so many rows are drawn from its parquet files, and only those are fetched.
    """

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str
    files: Annotated[list[str], Field(min_length=1)] = [
        "*.parquet",
        "*.csv",
        "*.json",
        "*.jsonl",
        "*.jsonl.gz",
    ]
    sample: Count | None = None

    @model_validator(mode="after")
    def _parquet_has_groups(self):
        if self.sample and not all(f.endswith(".parquet") for f in self.files):
            raise PydanticCustomError(
                "sample",
                "'sample' draws from parquet files only: set 'files' to a pattern such as "
                "data/train-*.parquet (other formats have a parquet conversion at revision "
                "refs/convert/parquet)",
            )
        return self


class Training(Part):
    """AdamW with linear decay (section 4.1); batches in rows, lengths in tokens.

    micro_batch: rows of max_length tokens that are computed at once, of shorter ones as many more;
        "auto": as many as the hardware is fast with and has memory for (mofe.estimate.memory.at_once).
    fold_duplicates: compute equal frozen experts once, which changes results by rounding only.
    """

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    epochs: Count
    global_batch: Count
    micro_batch: count_or("auto")
    max_length: Count
    router_aux_loss: Annotated[float, Field(ge=0)]
    fold_duplicates: Annotated[bool, Field(strict=True)]


# What a mix, a recipe or a model may replace of it: the same keys, each optional.
TrainingOverride = create_model(
    "TrainingOverride",
    __base__=Part,
    **{
        name: (Annotated[field.annotation, *field.metadata] | None, None)
        for name, field in Training.model_fields.items()
    },
)


class Data(Part):
    """A training set: rows of a source, as a task's prompts and answers or as raw text.

    separator: cuts a text into several. chunk_words: cuts those into pieces of so many words.
    tokens: of a row on average. Only estimates use it.
    """

    source: SourceName
    subset: str | None = None
    split: str
    task: TaskName | None = None
    text: str | None = None
    separator: str | None = None
    chunk_words: Count | None = None
    rows: count_or("full")
    tokens: Amount | None = None  # a row, for the plan only

    @model_validator(mode="after")
    def _task_or_text(self):
        if self.task and (self.separator or self.chunk_words):
            raise PydanticCustomError("cuts", "'separator' and 'chunk_words' cut raw text only")
        return exactly_one(self, "task", "text")


class Mix(Part):
    """Data sets trained on together."""

    data: Annotated[list[DataName], Field(min_length=1)]
    training: TrainingOverride = TrainingOverride()


class Columns(Part):
    """A multiple-choice data set's columns; a dot leads into a column of mappings.

    options: a column of lists, or a column an option. answer: an index from 0, a letter, or the
    option's text.
    """

    question: str
    options: str | Annotated[list[str], Field(min_length=2)]
    answer: str


class Task(Part):
    """A benchmark: lm-eval task names and the source that they read.

    questions: how many it has; tokens: of a question on average; generated: how many an answer in
        words may have. Only estimates use them.
    columns: for `harness: [mofe_mcq]`, a multiple-choice data set under its own columns' names.
    split: its rows that are asked; with `test_share` a part of them, drawn by `sampling_seed`, and
    the rest may be trained on. subset: its configuration. examples: the split of few-shot examples.
    """

    harness: Annotated[list[str], Field(min_length=1)]
    source: SourceName
    questions: Count | None = None
    tokens: Amount | None = None
    generated: Count | None = None
    columns: Columns | None = None
    subset: str | None = None
    split: str | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    examples: str | None = None

    @model_validator(mode="after")
    def _columns_of_the_generic_task(self):
        given = [k for k in ("subset", "split", "test_share", "examples") if getattr(self, k)]
        if self.columns is None and "mofe_mcq" in self.harness:
            raise PydanticCustomError("mcq", "'mofe_mcq' needs 'columns'; name the data set's")
        if self.columns is not None and self.harness != ["mofe_mcq"]:
            raise PydanticCustomError("mcq", "'columns' goes with 'harness: [mofe_mcq]' only")
        if self.columns is None and given:
            raise PydanticCustomError(
                "mcq",
                "{keys} go with 'columns' only: lm-eval's tasks know their splits",
                {"keys": ", ".join(given)},
            )
        if self.columns is not None and self.split is None:
            raise PydanticCustomError("mcq", "'columns' needs 'split', the rows that are asked")
        if self.test_share and self.examples:
            raise PydanticCustomError("mcq", "'test_share' gives examples; leave 'examples' out")
        return self


class Gates(Part):
    """Prompts for mergekit's `hidden` gates: a list of positive prompts a slot."""

    positive: list[Annotated[list[str], Field(min_length=1)]]
    negative: list[str] = []


class Hardware(Part):
    """The machines that estimates and job requests are made for; it changes no result.

    gpu: a kind in mofe/study/hardware.py. gpus_per_node: how many a node has. utilisation: the share of
    the GPU's peak that training and evaluation reach, until finished runs have measured it.
    """

    gpu: Literal[tuple(GPUS)]
    gpus_per_node: Count
    utilisation: Annotated[float, Field(gt=0, le=1)]


class Sizes(Part):
    """What the shape of a Llama or a Mistral is given by, in the words of its config.json."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    max_position_embeddings: Count


class Shape(Sizes):
    """A Llama's sizes, for a base model that the study pretrains itself."""

    initializer_range: Annotated[float, Field(gt=0)] = 0.02


class HubShape(Sizes):
    """A hub model's sizes, so that it can be planned for before it is downloaded."""

    vocab_size: Count
    head_dim: Count | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False


class Scratch(Part):
    """A base model pretrained by the workflow on the generated world's corpus."""

    shape: Shape
    seed: int = 0
    training: TrainingOverride = TrainingOverride()


class Model(Part):
    """A dense model: from the hub, a folder, pretrained here, or fine-tuned from another.

    shape: a hub model's, for estimates before it is downloaded.
    """

    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    revision: str | None = None
    shape: HubShape | None = None
    path: str | None = None
    scratch: Scratch | None = None
    from_: Annotated[ModelName | None, Field(alias="from")] = None
    train: Stages | None = None
    gates: Gates = Gates(positive=[])  # enough for a model that is only a base

    @model_validator(mode="after")
    def _one_origin(self):
        exactly_one(self, "hub", "path", "scratch", "from_")
        if (self.from_ is None) != (not self.train):
            raise PydanticCustomError("from_train", "'from' and 'train' go together")
        if self.train and len(self.train) != 1:
            raise PydanticCustomError("one_stage", "a dense expert is trained in one stage")
        if (self.hub is None) != (self.revision is None):
            raise PydanticCustomError("pinned", "'hub' and 'revision' go together")
        return self


class Merge(Part):
    """mergekit-moe's settings (section 3)."""

    gate_mode: Literal["hidden", "cheap_embed", "random"]
    experts_per_token: Count
    dtype: Literal["float32", "bfloat16"]


class MixtureMerge(Part):
    """What a mixture may set differently from `merge`."""

    gate_mode: Literal["hidden", "cheap_embed", "random"] | None = None
    experts_per_token: Count | None = None


class Mixture(Part):
    """A mixture of experts: the base and how many copies of which expert.

    merge: settings of `merge` that differ; they are part of the merge's name.
    """

    base: ModelName
    experts: Annotated[dict[ModelName, Count], Field(min_length=1)]
    merge: MixtureMerge = MixtureMerge()


class Recipe(Part):
    """A way to fine-tune: a method of mofe/models/methods.py with its settings."""

    method: Literal["full", "freeze", "lora"]
    frozen: count_or("all") | None = None
    rank: Count | None = None
    alpha: Count | None = None
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    dora: bool | None = None
    quantize: Literal["nf4"] | None = None
    training: TrainingOverride = TrainingOverride()

    _SETTINGS = {
        "full": (set(), set()),
        "freeze": ({"frozen"}, {"frozen", "quantize"}),
        "lora": (
            {"rank", "alpha", "targets"},
            {"rank", "alpha", "targets", "dropout", "dora", "quantize"},
        ),
    }

    @model_validator(mode="after")
    def _settings_of_the_method(self):
        needed, allowed = self._SETTINGS[self.method]
        given = {k for k, v in self.settings().items() if v is not None}
        for text, keys in (("needs", needed - given), ("does not take", given - allowed)):
            if keys:
                raise PydanticCustomError(
                    "method_settings",
                    "method '{method}' {text} {keys}",
                    {"method": self.method, "text": text, "keys": ", ".join(sorted(keys))},
                )
        return self

    def settings(self) -> dict[str, Any]:
        """The method's own settings, without the training's."""
        return self.model_dump(exclude={"method", "training"})


def _kept(value: Any) -> Any:
    """Tables, or a table's rows, without those that an overlay sets to null: they are left out."""
    if isinstance(value, Mapping):
        return {name: part for name, part in value.items() if part is not None}
    return value


class TableRow(Part):
    """A row: a mixture or a dense model, and its training, stage after stage."""

    mixture: MixtureName | None = None
    model: ModelName | None = None
    train: Stages = {}

    @model_validator(mode="after")
    def _one_origin(self):
        return exactly_one(self, "mixture", "model")


class TableSpec(Part):
    """A table: `columns` maps the paper's headings to what they show, `beside` headings of our own
    to tasks that the paper's table lacks. `rows` have their labels for a name, as the paper prints
    them, joined by " | "; null leaves one out.
    """

    caption: str
    labels: list[str]
    header: list[tuple[str, Count]] | None = None
    columns: Annotated[dict[str, Shown], Field(min_length=1)]
    beside: dict[str, Scored] | None = None
    rows: Annotated[dict[RowName, TableRow], Field(min_length=1), BeforeValidator(_kept)]

    @model_validator(mode="before")
    @classmethod
    def _header_pairs(cls, value):
        if isinstance(value, Mapping) and isinstance(value.get("header"), list):
            value = {**value, "header": [tuple(h) for h in value["header"]]}
        return value

    @model_validator(mode="after")
    def _labels_fit(self):
        for name in self.rows:
            if (count := len(name.split(LABEL_SEPARATOR))) != len(self.labels):
                raise PydanticCustomError(
                    "labels",
                    "row {row} has {n} labels for {m} label headings",
                    {"row": repr(name), "n": count, "m": len(self.labels)},
                )
        return self


class Export(Part):
    """Trained models as checkpoints for others: the licence that their cards state, and the
    beginning of the hub repositories' names that they are pushed to where that is asked for."""

    license: str | None = None
    push: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None


class Assumption(Part):
    """A choice where the paper is silent; `key` is the path of the key that holds it."""

    item: str
    key: str
    evidence: str


def _listed(value: Any) -> Any:
    """Seeds as the command line gives them, `--config seeds=0` or `seeds=0,1,2`, as a list."""
    if isinstance(value, str) and re.fullmatch(r"\d+(,\d+)*", value):
        return [int(seed) for seed in value.split(",")]
    return [value] if isinstance(value, int) else value


class Study(Part):
    """The whole study: models, data, mixtures, recipes, tasks and tables."""

    study: Name
    results: Annotated[str, Field(pattern=r"^[^{}*?\s]+$")]
    seeds: Annotated[list[Seed], Field(min_length=1), BeforeValidator(_listed)]
    sampling_seed: Seed
    hub: Annotated[str, Field(pattern=r"^[^{}*?\s]+$")]
    mirror: str | None
    world: World | None
    device: Literal["cuda", "cpu"]
    hardware: Hardware
    time_unit: Literal["hours", "seconds"]
    notes: list[str]
    scoring: Literal["letter", "text"]
    shots: Annotated[int, Field(ge=0)]
    sources: dict[Name, Source]
    data: dict[Name, Data]
    mixes: dict[Name, Mix]
    tasks: dict[Name, Task]
    models: dict[Name, Model]
    merge: Merge
    mixtures: dict[Name, Mixture]
    training: Training
    recipes: dict[Name, Recipe]
    tables: Annotated[dict[TableKey, TableSpec], Field(min_length=1), BeforeValidator(_kept)]
    assumptions: list[Assumption]
    export: Export = Export()

    @model_validator(mode="after")
    def _parts_fit_together(self):
        problems = list(checks.faults(self))
        if problems:
            raise PydanticCustomError(
                "study", "{problems}", {"problems": "\n".join(problems), "list": problems}
            )
        return self

    def merged_by(self, mixture: str) -> Merge:
        """The merge's settings of a mixture: `merge`, and what the mixture sets differently."""
        own = self.mixtures[mixture].merge.model_dump(exclude_none=True)
        return self.merge.model_copy(update=own)

    def lineage(self, model: str) -> list[str]:
        """The models that a dense model is fine-tuned from, the first one first, and itself."""
        parent = self.models[model].from_
        return [*(self.lineage(parent) if parent else ()), model]

    def tokenizer(self, base: str) -> str:
        """The model whose tokenizer a base has: a fine-tuned model has its origin's."""
        return self.lineage(base)[0]
