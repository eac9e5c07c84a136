"""The study's configuration: what config.yaml may hold, checked before anything runs.

`load_study` turns the merged configuration into a frozen `Study` or raises one `ConfigError` that
lists every fault with its key path, the offending value and what to write instead. Imports
neither torch nor transformers.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mofe.hardware import GPUS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWS = ("trainable", "time")  # what a table's column can show besides a task


class ConfigError(ValueError):
    """The configuration has faults; `problems` holds one sentence each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__(
            f"{len(problems)} fault(s) in the configuration:\n  " + "\n  ".join(problems)
        )


# ---------------------------------------------------------------------------- kinds of values


def _known(sections: str, extra: tuple[str, ...] = ()):
    """A validator: the value is a name declared in one of the `sections` (or in `extra`)."""

    def check(value: str, info):
        declared = [n for s in sections.split("|") for n in info.context.get(s, ())] + list(extra)
        if value not in declared:
            raise PydanticCustomError(
                "unknown_name",
                "{value} is not declared under {sections}{hint}",
                {
                    "value": repr(value),
                    "sections": " or ".join(sections.split("|")),
                    "hint": suggest(value, declared),
                },
            )
        return value

    return AfterValidator(check)


def _is_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise PydanticCustomError(
            "bad_name",
            "{value} cannot be a name: it becomes part of paths, so use letters, digits, '.', '_' "
            "and '-', starting with a letter or digit",
            {"value": repr(value)},
        )
    return value


Name = Annotated[str, AfterValidator(_is_name)]
ModelName = Annotated[str, _known("models")]
SourceName = Annotated[str, _known("sources")]
DataName = Annotated[str, _known("data")]
MixName = Annotated[str, _known("mixes|data")]
TaskName = Annotated[str, _known("tasks")]
RecipeName = Annotated[str, _known("recipes")]
MixtureName = Annotated[str, _known("mixtures")]
Shown = Annotated[str, _known("tasks", SHOWS)]
Stages = dict[MixName, RecipeName]  # in order: trained on this mix by this recipe, then ...
Count = Annotated[int, Field(ge=1)]


def _count_or(word: str):
    """The type of a count for which a word may stand. What is neither is told once: a union alone
    has a sentence for each."""

    def check(value: Any, either) -> int | str:
        try:
            return either(value)
        except ValidationError:
            raise PydanticCustomError(
                "count_or", f"Input should be a whole number from 1, or '{word}'"
            ) from None

    return Annotated[Count | Literal[word], WrapValidator(check)]


Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a mean, such as tokens a row


class Part(BaseModel):
    """A part of the configuration: unknown keys are faults, values are never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _exactly_one(part: Part, *keys: str) -> Part:
    given = [k for k in keys if getattr(part, k) is not None]
    if len(given) != 1:
        raise PydanticCustomError(
            "exactly_one",
            "needs exactly one of {keys}, has {given}",
            {"keys": ", ".join(keys), "given": ", ".join(given) or "none"},
        )
    return part


Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


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
        "auto": as many as the hardware is fast with and has memory for (mofe.memory.at_once).
    fold_duplicates: compute equal frozen experts once, which changes results by rounding only.
    """

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    epochs: Count
    global_batch: Count
    micro_batch: _count_or("auto")
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
    rows: _count_or("full")
    tokens: Amount | None = None  # a row, for the plan only

    @model_validator(mode="after")
    def _task_or_text(self):
        if self.task and (self.separator or self.chunk_words):
            raise PydanticCustomError("cuts", "'separator' and 'chunk_words' cut raw text only")
        return _exactly_one(self, "task", "text")


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

    gpu: a kind in mofe/hardware.py. gpus_per_node: how many a node has. utilisation: the share of
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
        _exactly_one(self, "hub", "path", "scratch", "from_")
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


class Mixture(Part):
    """A mixture of experts: the base and how many copies of which expert."""

    base: ModelName
    experts: Annotated[dict[ModelName, Count], Field(min_length=1)]


class Recipe(Part):
    """A way to fine-tune: a method of mofe/methods.py with its settings."""

    method: Literal["full", "freeze", "lora"]
    frozen: _count_or("all") | None = None
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


class TableRow(Part):
    """A row: labels as the paper prints them, a mixture, and its training, stage after stage."""

    labels: list[str]
    mixture: MixtureName
    train: Stages = {}


class TableSpec(Part):
    """A table: `columns` maps the paper's headings to what they show, `beside` headings of our own
    to tasks that the paper's table lacks."""

    caption: str
    labels: list[str]
    header: list[tuple[str, Count]] | None = None
    columns: Annotated[dict[str, Shown], Field(min_length=1)]
    beside: dict[str, TaskName] | None = None
    rows: Annotated[list[TableRow], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _header_pairs(cls, value):
        if isinstance(value, Mapping) and isinstance(value.get("header"), list):
            value = {**value, "header": [tuple(h) for h in value["header"]]}
        return value

    @model_validator(mode="after")
    def _labels_fit(self):
        for number, row in enumerate(self.rows, 1):
            if len(row.labels) != len(self.labels):
                raise PydanticCustomError(
                    "labels",
                    "row {row} has {n} labels for {m} label headings",
                    {"row": number, "n": len(row.labels), "m": len(self.labels)},
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


def _kept(value: Any) -> Any:
    """Tables without those that an overlay sets to null: they are left out of the study."""
    if isinstance(value, Mapping):
        return {number: table for number, table in value.items() if table is not None}
    return value


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
    tables: Annotated[dict[Count, TableSpec], Field(min_length=1), BeforeValidator(_kept)]
    assumptions: list[Assumption]
    export: Export = Export()

    @model_validator(mode="after")
    def _parts_fit_together(self):
        problems = [*_seeds(self), *_shadowed(self), *_cycles(self), *_slots(self), *_keys(self)]
        problems += [*_columns(self), *_origins(self), *_chains(self), *_repositories(self)]
        problems += [*_questions(self)]
        if problems:
            raise PydanticCustomError(
                "study", "{problems}", {"problems": "\n".join(problems), "list": problems}
            )
        return self


# ----------------------------------------------------------------- checks across the sections


def _seeds(study: Study) -> Iterable[str]:
    if len(set(study.seeds)) != len(study.seeds):
        yield f"seeds: {study.seeds} names a seed twice; give each seed once"


def _shadowed(study: Study) -> Iterable[str]:
    for name in study.mixes.keys() & study.data.keys():
        yield f"mixes.{name}: a data set has this name too (data.{name}); rename the mix"
    for name in set(study.tasks) & set(SHOWS):
        yield f"tasks.{name}: this name is taken by what a table's column can show; rename the task"


def _cycles(study: Study) -> Iterable[str]:
    for name in study.models:
        chain = [name]
        while (parent := study.models[chain[-1]].from_) is not None:
            if parent in chain:
                yield f"models.{name}.from: {' <- '.join([*chain, parent])} runs in a circle"
                break
            chain.append(parent)


def _origins(study: Study) -> Iterable[str]:
    for name, model in study.models.items():
        if model.scratch and study.world is None:
            yield f"models.{name}.scratch: pretraining reads the generated world; set 'world'"
        if model.scratch:
            shape = model.scratch.shape
            for whole, part in (
                ("hidden_size", "num_attention_heads"),
                ("num_attention_heads", "num_key_value_heads"),
            ):
                if getattr(shape, whole) % getattr(shape, part):
                    yield f"models.{name}.scratch.shape: {whole} is no multiple of {part}"
        for recipe in (model.train or {}).values():
            if study.recipes[recipe].method == "freeze":
                yield f"models.{name}.train: recipe '{recipe}' freezes experts, the model is dense"


def _chains(study: Study) -> Iterable[str]:
    for number, table in study.tables.items():
        for index, row in enumerate(table.rows):
            for recipe in list(row.train.values())[:-1]:
                if study.recipes[recipe].quantize:
                    yield (
                        f"tables.{number}.rows.{index}.train: no stage can follow the quantised "
                        f"recipe '{recipe}'; make it the last"
                    )


def _repositories(study: Study) -> Iterable[str]:
    """A repository has one folder, so everything that reads it must agree on what it holds."""
    parts = [
        (f"sources.{n}", s.repo, (s.revision, s.files, s.sample)) for n, s in study.sources.items()
    ]
    parts += [(f"models.{n}", m.hub, (m.revision,)) for n, m in study.models.items() if m.hub]
    first: dict[str, tuple] = {}
    for where, repo, content in parts:
        known, asked = first.setdefault(repo, (where, content))
        if asked != content:
            yield (
                f"{where}: {known} reads {repo} too, with another revision, 'files' or 'sample'; "
                "make them equal"
            )


def _slots(study: Study) -> Iterable[str]:
    for name, mixture in study.mixtures.items():
        total = sum(mixture.experts.values())
        if total < study.merge.experts_per_token:
            yield (
                f"mixtures.{name}.experts: {total} expert(s), but merge.experts_per_token is "
                f"{study.merge.experts_per_token}; add experts"
            )
        for expert, count in mixture.experts.items():
            have = len(study.models[expert].gates.positive)
            if count > have:
                yield (
                    f"mixtures.{name}.experts.{expert}: {count} slots, but "
                    f"models.{expert}.gates.positive has prompts for {have}; add "
                    f"{count - have} more list(s) of prompts"
                )
        prompts = [
            (f"models.{expert}.gates.positive.{slot}", sorted(prompts))
            for expert, count in mixture.experts.items()
            for slot, prompts in enumerate(study.models[expert].gates.positive[:count])
        ]
        for number, (where, given) in enumerate(prompts):
            twin = next((w for w, other in prompts[:number] if other == given), None)
            if twin and study.merge.gate_mode != "random":
                yield (
                    f"{where}: the same prompts as {twin}, so mixture '{name}' could not tell these "
                    "experts apart; give each slot prompts that end in words of its own"
                )
    for number, table in study.tables.items():
        for index, row in enumerate(table.rows):
            total = sum(study.mixtures[row.mixture].experts.values())
            for recipe in row.train.values():
                frozen = study.recipes[recipe].frozen
                if isinstance(frozen, int) and frozen > total:
                    yield (
                        f"tables.{number}.rows.{index}.train: recipe '{recipe}' freezes {frozen} "
                        f"experts, mixture '{row.mixture}' has {total}"
                    )


def _columns(study: Study) -> Iterable[str]:
    for number, table in study.tables.items():
        width = len(table.labels) + len(table.columns)
        if table.header and sum(n for _, n in table.header) != width:
            yield (
                f"tables.{number}.header: spans {sum(n for _, n in table.header)} columns, "
                f"the table has {width}"
            )
        for heading in table.columns.keys() & (table.beside or {}).keys():
            yield (
                f"tables.{number}.beside.{heading}: the paper's column has this heading; give ours "
                "another"
            )


def _questions(study: Study) -> Iterable[str]:
    for name, data in study.data.items():
        task = study.tasks.get(data.task)
        if task is None or task.columns is None:
            continue
        same = (data.source, data.subset, data.split) == (task.source, task.subset, task.split)
        if same and task.test_share is None:
            yield (
                f"data.{name}.split: {data.split!r} is what tasks.{data.task} asks; train on "
                f"another split, or set tasks.{data.task}.test_share to ask a part of it"
            )
        if not same and task.test_share is not None:
            yield (
                f"data.{name}: source, subset and split differ from tasks.{data.task}, which asks "
                "a share of its own split; make them alike, or leave test_share out"
            )


def _keys(study: Study) -> Iterable[str]:
    for index, assumption in enumerate(study.assumptions):
        try:
            value_at(study, assumption.key)
        except KeyError:
            yield f"assumptions.{index}.key: {assumption.key!r} is not a key of the configuration"


def value_at(study: Study, path: str) -> Any:
    """The value under a dotted key path, as plain data. Raises KeyError for an unknown path."""
    value: Any = study.model_dump(mode="json", by_alias=True, exclude_none=True)
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise KeyError(path)
        value = value[key]
    return value


# ------------------------------------------------------------------------------------ loading


def suggest(word: Any, known: Iterable[str]) -> str:
    """'; did you mean ...?' for the nearest known word, else the list of what is known."""
    known = sorted({str(k) for k in known})
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are {', '.join(known)}" if known else ""


def _keys_at(path: tuple) -> list[str]:
    """The keys that the mapping at `path` may hold, following the annotations of `Study`."""
    annotation: Any = Study
    for key in path:
        if _is_part(annotation):
            fields = {f.alias or n: f for n, f in annotation.model_fields.items()}
            annotation = fields[key].annotation
        else:  # the name of an entry, or an index
            annotation = _part_in(annotation)
    part = _part_in(annotation)
    return [f.alias or n for n, f in part.model_fields.items()] if part else []


def _is_part(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Part)


def _part_in(annotation: Any) -> Any:
    """The Part inside an annotation such as dict[Name, Data], `World | None` or list[TableRow]."""
    if _is_part(annotation):
        return annotation
    inner = (_part_in(a) for a in getattr(annotation, "__args__", ()))
    return next((part for part in inner if part), None)


def _sentence(error: dict, lines: Mapping[tuple, str]) -> list[str]:
    """The sentences for one of pydantic's errors."""
    kind, given = error["type"], error.get("input")
    if kind == "study":
        return list(error["ctx"]["list"])
    # pydantic adds the alternatives of a union and "[key]" to the path that the user wrote
    loc = tuple(
        k for k in error["loc"] if not re.search(r"^(int|float|str)$|^constrained-|[\[(]", str(k))
    )
    where = ".".join(map(str, loc)) + lines.get(tuple(map(str, loc)), "")
    if kind == "extra_forbidden":
        return [f"{where}: unknown key{suggest(loc[-1], _keys_at(loc[:-1]))}"]
    if kind in ("float_type", "int_type", "count_or") and isinstance(given, str):
        if (number := _number(given)) is not None:
            hint = f"write {_yaml_number(number)} in a file (--config gives nested numbers as text)"
            return [f"{where}: {given!r} is text, not a number; {hint}"]
        if kind != "count_or":
            return [f"{where}: {given!r} is text, a number is needed"]
    if kind == "missing":
        return [f"{where}: this key is missing; add it"]
    message = error["msg"]
    if kind in ("unknown_name", "bad_name", "exactly_one"):
        return [f"{where}: {message}"]
    return [f"{where}: {message}, but it is {given!r}"]


def _number(text: str) -> float | None:
    """The number that a text is, None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def _yaml_number(number: float) -> str:
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    text = repr(number)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def _scan(files: Iterable[Path]) -> tuple[dict[tuple, str], list[str]]:
    """Where each key path stands (' (file:line)'), and every key written twice in one mapping."""
    lines: dict[tuple, str] = {}
    twice: list[str] = []

    def walk(node, path: tuple, file: Path):
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                here = (*path, str(key.value))
                place = f" ({file}:{key.start_mark.line + 1})"
                if key.value in seen:
                    twice.append(f"{'.'.join(here)}{place}: this key stands twice; remove one")
                seen.add(key.value)
                lines[here] = place
                walk(value, here, file)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*path, str(index)), file)

    for file in files:
        walk(yaml.compose(Path(file).read_text()), (), Path(file))
    return lines, twice


def load_study(config: Mapping[str, Any], files: Iterable[str | Path] = ()) -> Study:
    """Check a merged configuration and return it as a `Study`.

    config: plain data, as Snakemake merges it from its config files and --config.
    files: the YAML files it came from, for line numbers and keys written twice.
    Raises ConfigError with every fault at once.
    """
    lines, problems = _scan(Path(f) for f in files)
    declared = {
        section: list(config[section])
        for section in ("models", "sources", "data", "mixes", "tasks", "recipes", "mixtures")
        if isinstance(config.get(section), Mapping)
    }
    study = None
    try:
        study = Study.model_validate(dict(config), context=declared)
    except ValidationError as error:
        for e in error.errors():
            problems += [s for s in _sentence(e, lines) if s not in problems]
    if problems:
        raise ConfigError(problems)
    return study


def read_study(*files: str | Path, **overrides: Any) -> Study:
    """The study of YAML files, each laid over the ones before it, then `overrides`."""
    config: dict[str, Any] = {}
    for file in files:
        config = overlay(config, yaml.safe_load(Path(file).read_text()))
    return load_study(overlay(config, overrides), files)


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`, mapping by mapping, as Snakemake merges its config files."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if both else value
    return merged
