"""The study's configuration: every key that config.yaml may hold, with its description.

docs/configuration.md's tables and docs/schemas/config.schema.json are made from these models (`make
docs`). `mofe.study.load` reads a configuration, and `mofe.study.checks` has what its sections must
agree on. Imports neither torch nor transformers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mofe.paper import LABEL_SEPARATOR
from mofe.study.claims import Claim
from mofe.study.gates import GateMode
from mofe.study.hardware import GPUS
from mofe.study.harness import GENERIC, SHOTS_SEED
from mofe.study.methods import Recipe
from mofe.study.setting import Scale, Setting, Unit, scale
from mofe.study.training import Training, TrainingOverride
from mofe.study.values import (
    SHOWS,
    Amount,
    Count,
    DataName,
    Folder,
    MixtureName,
    ModelName,
    Name,
    OutputFolder,
    Part,
    Rate,
    Repository,
    RowName,
    Scored,
    Seed,
    Share,
    Shown,
    SourceName,
    Stages,
    TableKey,
    TaskName,
    Whole,
    count_or,
    exactly_one,
)
from mofe.study.words import quoted

Tracker = Literal["tensorboard", "trackio", "wandb"]
# Keys that say how a run is watched, and nothing of what it makes.
WATCHING = frozenset({"notify", "track"})


class World(Part):
    """The generated world of the mini study (mofe/data/world.py): what is drawn, and how much."""

    seed: Seed = Field(0, description="The seed that draws the names, the facts and every row.")
    test_questions: Count = Field(
        2000,
        description="Test questions per task: MMLU's test set, MedMCQA's validation set, half "
        "of PubMedQA, a tenth of Sujet.",
    )
    train_rows: Count = Field(
        3000, description="Rows in MMLU's auxiliary_train and in MedMCQA's train."
    )
    told: Share = Field(
        0.4,
        description="Share of the facts that the pretraining corpus states, counted from the "
        "first.",
    )
    taught: Share = Field(
        0.75,
        description="Share of the facts that training questions may ask for, counted from the "
        "last. Every fact is told or taught, so `told + taught` is at least 1.",
    )
    cue_strength: Share = Field(
        0.7,
        description="Chance that a cue word agrees with the verdict or mood of its passage. It "
        "sets the ceiling of PubMedQA and of two of Sujet's three kinds of rows.",
    )
    vignettes: Share = Field(
        0.05,
        description="Share of MedMCQA's questions that describe a trial and ask for its "
        'verdict. Without them, tuning on MedMCQA unlearns "yes", "no" and "maybe" as answers.',
    )
    corpus_tokens: Count = Field(334_000, description="Size of the pretraining corpus, in tokens.")
    documents: Literal["asked", "other"] = Field(
        "other",
        description="What the documents to post-pretrain on state: `asked`, the facts that "
        "questions ask for; `other`, facts about the same names that no question asks for.",
    )
    medical_documents: Count = Field(1500, description="Medical documents to post-pretrain on.")
    news_documents: Count = Field(500, description="News documents to post-pretrain on.")

    def most_rows(self, repo: str, split: str) -> int | None:
        """How many rows a split has, where `train_rows` says so."""
        exams = (("cais/mmlu", "auxiliary_train"), ("openlifescienceai/medmcqa", "train"))
        return self.train_rows if (repo, split) in exams else None

    @model_validator(mode="after")
    def _every_fact_somewhere(self):
        if self.told + self.taught < 1:
            raise PydanticCustomError(
                "told_and_taught",
                "told + taught is {sum}, below 1, so some facts would be nowhere to learn; raise "
                "one",
                {"sum": f"{self.told + self.taught:g}"},
            )
        return self


class Source(Part):
    """A data set's repository on the hub, pinned."""

    repo: Repository = Field(
        description="The repository on the hub, or the folder below the mirror."
    )
    revision: str = Field(description="The commit or branch. A mirror is read as it is.")
    files: Annotated[list[str], Field(min_length=1)] = Field(
        ["*.parquet", "*.csv", "*.json", "*.jsonl", "*.jsonl.gz"],
        description="Patterns of the files that are fetched, and of those alone that are read of "
        "what was fetched; `*` stands for folders too. `README.md`, which names the splits, is "
        "always fetched.",
    )
    sample: Count | None = Field(
        None,
        description="For a set too large to read: draw this many rows from the parquet files "
        "that `files` names, and fetch and read only those.",
    )

    @model_validator(mode="after")
    def _parquet_has_groups(self):
        if self.sample and not all(f.endswith(".parquet") for f in self.files):
            raise PydanticCustomError(
                "sample",
                "'sample' draws from parquet files only; set 'files' to a pattern such as "
                "data/train-*.parquet (other formats have a parquet conversion at revision "
                "refs/convert/parquet)",
            )
        return self


class Data(Part):
    """A training set: rows of a source, as a task's prompts and answers or as raw text."""

    source: SourceName = Field(description="The repository that the rows come from.")
    subset: str | None = Field(None, description="The data set's configuration, if it has several.")
    split: str = Field(description="The split to read.")
    task: TaskName | None = Field(
        None, description="The task whose prompt and answer a row becomes. Needed without `text`."
    )
    text: str | None = Field(None, description="The column of raw text. Needed without `task`.")
    separator: str | None = Field(
        None, description="With `text`: the characters at which a document is cut into several."
    )
    chunk_words: Count | None = Field(
        None, description="With `text`: cut documents further, into pieces of this many words."
    )
    rows: count_or("full") = Field(description="How many rows to draw; `full` takes all.")
    tokens: Amount | None = Field(
        None, description="Mean number of tokens per row. Only estimates use it."
    )

    @model_validator(mode="after")
    def _task_or_text(self):
        if self.task and (self.separator or self.chunk_words):
            raise PydanticCustomError(
                "cuts", "'separator' and 'chunk_words' cut raw text only; leave them out"
            )
        return exactly_one(self, "task", "text")


class Replay(Part):
    """Rows of other training sets, such as a model's earlier ones, that are trained on with a mix's
    own: an answer to forgetting."""

    data: Annotated[list[DataName], Field(min_length=1)] = Field(
        description="The training sets that the rows come from."
    )
    share: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Their share of all rows of an epoch; raw text counts in pieces of "
        "`max_length`. So many rows are drawn by `sampling_seed` and are the same in all epochs. "
        "Where the sets have fewer, all of them come once before any comes again."
    )

    @property
    def beside(self) -> float:
        """Replayed rows per row of the mix's own."""
        return self.share / (1 - self.share)


class Mix(Part):
    """Data sets that are trained on together."""

    data: Annotated[list[DataName], Field(min_length=1)] = Field(description="The training sets.")
    replay: Replay | None = Field(
        None, description="Rows of other training sets that are trained on with these."
    )
    training: TrainingOverride = Field(
        default_factory=TrainingOverride, description="Settings of `training` that differ."
    )


class Columns(Part):
    """A multiple-choice data set's columns; a dot leads into a column of mappings."""

    question: str = Field(description="The column of the question's text.")
    options: str | Annotated[list[str], Field(min_length=2)] = Field(
        description="A column that holds a list, or a list of columns, one per option. A row "
        "may have fewer options (empty at the end)."
    )
    answer: str = Field(
        description="A column with an index from 0, a letter, or the option's text. A row with "
        "-1 or nothing has no answer and is not trained on."
    )


class Task(Part):
    """A benchmark: names of lm-eval's tasks, and the source that they read. Or rows of a training
    set that training does not draw, asked as questions."""

    harness: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Task names of lm-eval or of `mofe/tasks`. A group stands for its tasks, "
        "and all questions count equally. Needed without `held_out`.",
    )
    source: SourceName | None = Field(
        None,
        description="The repository that is read in place of the one that lm-eval names. Needed "
        "without `held_out`.",
    )
    held_out: DataName | None = Field(
        None,
        description="The training set whose rows are asked, in place of a test set: `questions` "
        "of its usable rows that training does not draw, drawn by `sampling_seed`. Their prompts "
        "are those of training. Raw text is not asked but read: its headline is the perplexity per "
        "token.",
    )
    cluster: str | None = Field(
        None,
        description="The column that says what a question asks for; a dot leads into a column of "
        "mappings. Questions with one value there are alike, which standard errors heed; where "
        "it is empty, a question is like no other.",
    )
    questions: Count | None = Field(
        None,
        description="How many questions there are. Estimates use it, and a larger `sample` is "
        "refused; with `held_out`, so many are drawn.",
    )
    sample: Count | None = Field(
        None,
        description="Ask only so many of the test questions, drawn by `sampling_seed`: a larger "
        "sample holds the smaller ones. Tables and the report say so; null asks all.",
    )
    tokens: Amount | None = Field(
        None, description="Mean number of tokens per question. Only estimates use it."
    )
    generated: Count | None = Field(
        None, description="Tokens that an answer in words may have. Only estimates use it."
    )
    columns: Columns | None = Field(
        None,
        description="With `harness: [mofe_mcq]`, which asks any multiple-choice data set: the "
        "names of its columns. A dot leads into a column of mappings, as in `choices.text`.",
    )
    subset: str | None = Field(None, description="With `columns`: the data set's configuration.")
    split: str | None = Field(
        None, description="With `columns`: the split whose questions are asked."
    )
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="With `columns`, for a set of one split: this share of its questions, drawn "
        "by `sampling_seed`, is asked. The rest may be trained on.",
    )
    examples: str | None = Field(
        None,
        description="With `columns`: the split of few-shot examples, needed if `shots` is not 0 "
        "and there is no `test_share`.",
    )

    @property
    def count(self) -> int | None:
        """How many questions are asked, as far as the configuration says so."""
        return self.sample or self.questions

    @model_validator(mode="after")
    def _test_set_or_held_out(self):
        own = ("harness", "source", "columns", "subset", "split", "test_share", "examples")
        given = [k for k in (*own, "sample") if getattr(self, k) is not None]
        if self.held_out and given:
            raise PydanticCustomError(
                "held_out",
                "'held_out' takes rows and prompts from a training set; leave out {keys}",
                {"keys": ", ".join(given)},
            )
        if self.held_out and self.questions is None:
            raise PydanticCustomError(
                "held_out", "'held_out' needs 'questions', how many to ask; add it"
            )
        if not self.held_out and None in (self.harness, self.source):
            raise PydanticCustomError(
                "held_out", "needs 'harness' and 'source', or 'held_out'; add them"
            )
        return self

    @model_validator(mode="after")
    def _columns_of_the_generic_task(self):
        if self.held_out:
            return self
        given = [k for k in ("subset", "split", "test_share", "examples") if getattr(self, k)]
        if self.columns is None and GENERIC in self.harness:
            raise PydanticCustomError("mcq", "'mofe_mcq' needs 'columns'; name the data set's")
        if self.columns is not None and self.harness != [GENERIC]:
            raise PydanticCustomError(
                "mcq", "'columns' goes with 'harness: [mofe_mcq]' only; set that, or leave it out"
            )
        if self.columns is None and given:
            raise PydanticCustomError(
                "mcq",
                "{keys} go with 'columns' only, lm-eval's tasks know their splits; leave them out",
                {"keys": ", ".join(given)},
            )
        if self.columns is not None and self.split is None:
            raise PydanticCustomError(
                "mcq", "'columns' needs 'split', the rows that are asked; add it"
            )
        if self.test_share and self.examples:
            raise PydanticCustomError("mcq", "'test_share' gives examples; leave 'examples' out")
        if self.columns is not None and self.examples == self.split:
            raise PydanticCustomError(
                "mcq",
                "'examples' and 'split' are both {split}, so a question could be shown with its "
                "answer; name another split of examples, or set 'test_share'",
                {"split": repr(self.split)},
            )
        return self


class Search(Part):
    """A search for learning rates: every variant whose recipe names it is trained at each of these
    rates with the study's first seed, and keeps the best."""

    learning_rate: Annotated[list[Rate], Field(min_length=2)] = Field(
        description="The learning rates to try."
    )
    tasks: Annotated[list[TaskName], Field(min_length=1)] = Field(
        description="The tasks to compare them on, which ask held-out training questions: the "
        "best rate has the greatest mean of the tasks' headline scores; of equal ones the lowest."
    )


class Prompts(Part):
    """Prompts for mergekit's `hidden` gates."""

    positive: list[Annotated[list[str], Field(min_length=1)]] = Field(
        description="A list of prompts for each slot that the model can fill in one mixture; "
        "none for a model that is only a base."
    )
    negative: list[str] = Field([], description="Negative prompts, the same for all its slots.")


class Gates(Prompts):
    """A model's prompts, and other sets of them."""

    others: dict[Name, Prompts] = Field(
        {}, description="Other sets of prompts, by the name that `merge.prompts` chooses them by."
    )

    def named(self, name: str | None) -> Prompts | None:
        """The set of this name, or without a name the model's own; None where there is none."""
        return self if name is None else self.others.get(name)


class Hardware(Part):
    """The machines that estimates and job requests are made for; it changes no result."""

    gpu: Literal[tuple(GPUS)] = Field(description="The kind of GPU (mofe/study/hardware.py).")
    gpus_per_node: Annotated[int, Field(ge=1, le=128)] = Field(
        description="Number of GPUs per node."
    )
    utilisation: Annotated[float, Field(ge=0.001, le=1)] = Field(
        description="Share of the GPU's peak that training and evaluation reach, until finished "
        "runs have measured it."
    )
    starting: Annotated[float, Field(ge=0, le=3600)] = Field(
        60,
        description="Seconds of a GPU job until it begins to read its model: processes, imports "
        "and CUDA. `benchmarks/starts.py` measures what of it needs no GPU.",
    )
    exclusive: bool = Field(
        False,
        description="Whether every training had its machine to itself, so that times can be "
        "compared. Claims about time are judged only then.",
    )


class Sizes(Part):
    """The sizes of a Llama or a Mistral, by their names in its config.json."""

    hidden_size: Count = Field(description="Width of the hidden states.")
    intermediate_size: Count = Field(description="Width inside an FFN.")
    num_hidden_layers: Count = Field(description="Number of layers.")
    num_attention_heads: Count = Field(description="Number of query heads.")
    num_key_value_heads: Count = Field(description="Number of key and value heads.")
    max_position_embeddings: Count = Field(description="The longest sequence, in tokens.")


class Shape(Sizes):
    """A Llama's sizes, for a base model that the study pretrains itself."""

    initializer_range: Annotated[float, Field(gt=0)] = Field(
        0.02, description="Standard deviation of the first weights."
    )


class HubShape(Sizes):
    """The sizes of a model of the hub, so that it can be planned for before it is downloaded."""

    vocab_size: Count = Field(description="Rows of the embeddings.")
    head_dim: Count | None = Field(
        None, description="Width of a head, if it is not `hidden_size / num_attention_heads`."
    )
    tie_word_embeddings: bool = Field(
        False, description="Whether the output layer shares the embeddings' weights."
    )
    attention_bias: bool = Field(False, description="Whether attention's projections have biases.")


class Scratch(Part):
    """A base model pretrained by the workflow on the generated world's corpus."""

    shape: Shape = Field(description="The sizes, by their names in a Llama's `config.json`.")
    seed: Seed = Field(0, description="The seed of the first weights and of the rows' order.")
    training: TrainingOverride = Field(
        default_factory=TrainingOverride, description="Settings of `training` that differ."
    )


class Model(Part):
    """A dense model: from the hub, a folder, pretrained here, or made from another."""

    hub: Repository | None = Field(None, description="A model on the hub, or below the mirror.")
    revision: str | None = Field(None, description="With `hub`: the commit that is fetched.")
    shape: HubShape | None = Field(
        None,
        description="With `hub`: the sizes, by their names in its `config.json`, so that the "
        "model can be planned for before it is downloaded. They must equal the downloaded "
        "file's.",
    )
    path: Folder | None = Field(
        None,
        description="A folder with a checkpoint in safetensors. `~` and variables such as "
        "`$SCRATCH` are replaced, here and in every folder.",
    )
    scratch: Scratch | None = Field(
        None, description="A Llama that is pretrained on the generated world's corpus."
    )
    from_: ModelName | None = Field(
        None, alias="from", description="The model that this one is made from, once for each seed."
    )
    train: Stages | None = Field(
        None, description="With `from`: one stage of fine-tuning, `{mix: recipe}`."
    )
    reinitialise: Literal["ffn"] | None = Field(
        None,
        description="With `from`, in place of `train`: `ffn` draws the matrices of every FFN anew, "
        "from the parent's `initializer_range`, by the row's seed, and differently for each model. "
        "All else stays as it is.",
    )
    gates: Gates = Field(
        Gates(positive=[]), description="The prompts that the router's first weights are made from."
    )

    @model_validator(mode="after")
    def _one_origin(self):
        exactly_one(self, "hub", "path", "scratch", "from_")
        made = [bool(self.train), self.reinitialise is not None]
        if sum(made) != (self.from_ is not None):
            raise PydanticCustomError(
                "from_train",
                "'from' goes together with one of 'train' and 'reinitialise'; give 'from' and one "
                "of them, or none of the three",
            )
        if self.train and len(self.train) != 1:
            raise PydanticCustomError(
                "one_stage",
                "a dense expert is trained in one stage, and 'train' has {count}; name one mix",
                {"count": len(self.train)},
            )
        if (self.hub is None) != (self.revision is None):
            raise PydanticCustomError(
                "pinned", "'hub' and 'revision' go together; give both or neither"
            )
        return self


class Ridge(Part):
    """How `ridge` gates are fitted."""

    rows: Count = Field(
        100,
        description="Training rows of each expert model whose prompts are read, drawn by "
        "`sampling_seed`; all of them where there are fewer.",
    )
    penalty: Annotated[float, Field(gt=0)] = Field(
        1.0,
        description="What is added to the diagonal of the normal equations: the weight of the "
        "gates' squares beside the squared errors, added up over tokens.",
    )


class Merge(Part):
    """mergekit-moe's settings (section 3)."""

    gate_mode: GateMode = Field(
        description="What the router's first weights are: `hidden`, the prompts' hidden states; "
        "`cheap_embed`, their embeddings; `random`, random numbers; `uniform`, zeros, so that all "
        "experts weigh the same; `shuffled`, those of `hidden` in the slots of other models; "
        "`ridge`, fitted to the experts' training rows; `oracle`, zeros that nothing reads: rows "
        "are routed by the source of their data."
    )
    experts_per_token: Count = Field(
        description="Experts that the router chooses for each token (top-k)."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        description="The type that a merge's weights are rounded to and that models are "
        "exported in. Experts trained on a GPU are stored in it too."
    )
    prompts: Name | None = Field(
        None,
        description="The set of prompts that gates are made from, one of every model's "
        "`gates.others`; null for the models' own.",
    )
    ridge: Ridge = Field(Ridge(), description="How `ridge` gates are fitted.")


class MixtureMerge(Part):
    """What a mixture may set differently from `merge`."""

    gate_mode: GateMode | None = Field(None, description="What this mixture's router starts from.")
    experts_per_token: Count | None = Field(
        None, description="Experts that its router chooses for each token."
    )
    prompts: Name | None = Field(
        None, description="The set of prompts that its gates are made from."
    )


class Mixture(Part):
    """A mixture of experts: the base, and how many copies of each expert.

    merge: settings of `merge` that differ; they are part of the merge's name.
    """

    base: ModelName = Field(description="The model that gives attention, embeddings and norms.")
    experts: Annotated[dict[ModelName, Count], Field(min_length=1)] = Field(
        description="The expert models, and the number of slots that each one fills."
    )
    merge: MixtureMerge = Field(
        MixtureMerge(),
        description="Settings of `merge` that differ. They are part of the merge's name.",
    )


class TableRow(Part):
    """A row: a mixture or a dense model with the stages of its training, or the constant
    answer."""

    mixture: MixtureName | None = Field(None, description="The mixture that the row shows.")
    model: ModelName | None = Field(
        None, description="The dense model that the row shows, in place of a mixture."
    )
    constant: Literal[True] | None = Field(
        None,
        description="The row shows no model, but what the best constant answer scores: each task's "
        "floor, as the table's first other row has it.",
    )
    train: Stages = Field(
        {},
        description="The stages of its training in order, each with its mix and its recipe: "
        "`{mix: recipe, ...}`. Without it the row is untuned.",
    )

    @model_validator(mode="after")
    def _one_origin(self):
        if self.constant and self.train:
            raise PydanticCustomError("constant", "'constant' is no model; leave 'train' out")
        return exactly_one(self, "mixture", "model", "constant")


class TableSpec(Part):
    """A table: what its columns show, and the mixture or dense model of each row with its
    training."""

    caption: str = Field(description="The caption, as printed.")
    labels: list[str] = Field(description="Headings of the label columns.")
    header: list[Annotated[tuple[str, Count], Field(strict=False)]] | None = Field(
        None, description="An upper heading: its texts, and how many columns each one spans."
    )
    columns: Annotated[dict[str, Shown], Field(min_length=1)] = Field(
        description="The paper's headings, and what each column shows: a task's headline score, "
        "another metric of a task (`arc_easy.acc_norm`, `medmcqa.perplexity`, "
        "`medmcqa.entropy`), or of the row's training "
        + "; ".join(f"`{shown}`, {meaning}" for shown, meaning in SHOWS.items())
        + "."
    )
    beside: dict[str, Scored] | None = Field(
        None,
        description="Columns that the paper's table lacks: our headings, and the tasks that "
        "each row is evaluated on too. They are set apart, and not in the `.tex`.",
    )
    question: str | None = Field(
        None,
        description="The question that the table answers. The report shows it in the section "
        "beyond the paper, with a figure of its rows and the claims whose `section` is the "
        "table's key.",
    )
    limits: str | None = Field(
        None, description="With `question`: what the table cannot say, as the report prints it."
    )
    on_demand: bool = Field(
        False,
        description="Whether the table is made only when its file is asked for, such as "
        "`results/E3.tex`. It is then no part of `all` and of the report, unless the study goes "
        "`beyond`.",
    )
    rows: Annotated[dict[RowName, TableRow], Field(min_length=1)] = Field(
        description="The rows from top to bottom, by their labels as the paper prints them, "
        'joined by " | ".'
    )

    @model_validator(mode="after")
    def _labels_fit(self):
        for name in self.rows:
            if (count := len(name.split(LABEL_SEPARATOR))) != len(self.labels):
                raise PydanticCustomError(
                    "labels",
                    "row {row} has {n} labels for {m} label headings; write as many, joined by ' | "
                    "'",
                    {"row": quoted(name), "n": count, "m": len(self.labels)},
                )
        return self

    @property
    def model_rows(self) -> dict[str, TableRow]:
        """The rows that show a mixture or a dense model, by their labels."""
        return {name: row for name, row in self.rows.items() if not row.constant}


class Evidence(Part):
    """How claims are judged (mofe/claims.yaml, docs/statistics.md)."""

    margin: Share = Field(
        0.01, description="Differences up to this, as a fraction of 1, are called none (δ)."
    )


class Replications(Part):
    """Claims that other studies of the kind are asked too, such as the same one in other worlds."""

    claims: Annotated[list[Name], Field(min_length=1)] = Field(
        description="The claims, by name. The target `replicated` makes what a study says of each."
    )
    results: list[Folder] = Field(
        [],
        description="The results folders of the other studies. `replications.md` has each claim "
        "with every study as one observation, and the report shows it where it shows the claim.",
    )


class Export(Part):
    """Trained models as checkpoints for others."""

    license: str | None = Field(
        None, description="The licence that exported models' cards state; null if it is unknown."
    )
    push: Repository | None = Field(
        None,
        description="The beginning of the names of the hub repositories that `pushed/...` "
        "uploads to; null refuses to push.",
    )


class Assumption(Part):
    """A choice where the paper is silent."""

    item: str = Field(description="What the paper leaves open.")
    key: str = Field(description="The path of the key that holds our choice.")
    evidence: str = Field(
        description="Why we chose this. A key in braces, as {merge.dtype}, stands for its value."
    )


def _listed(value: Any) -> Any:
    """A list of seeds, also from the command line: `--config seeds=0` or `seeds=0,1,2`."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,20}(,[0-9]{1,20})*", value):
        return [int(seed) for seed in value.split(",")]
    return [value] if isinstance(value, int) else value


def _true_or_false(value: Any) -> Any:
    """Also the words that the command line gives: `--config beyond=true`."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


class Study(Part):
    """The whole study: models, data, mixtures, recipes, tasks and tables."""

    study: Name = Field(
        description="The study's name, which all its tables and figures say. The name `paper` is "
        "kept for the paper's own setting: only there are differences to the paper's values shown. "
        "Give a study that changes models, data or tasks another name."
    )
    results: OutputFolder = Field(description="The folder for every output.")
    seeds: Annotated[
        list[Seed],
        Field(min_length=1),
        BeforeValidator(_listed, json_schema_input_type=list[Seed] | Seed),
    ] = Field(
        description="The seeds of what a table's row draws. With each, the dense models that have "
        "`from` are made anew, merged, and fine-tuned. All other models, and the rows of data, "
        "are the same for all seeds."
    )
    sampling_seed: Seed = Field(
        description="Decides which rows are drawn from data sets, Sujet's 9:1 split, random gates, "
        "and the rows that `ridge` gates are fitted to."
    )
    hub: OutputFolder = Field(
        description="The folder that the hub's data sets and models are fetched into, as "
        "`{org}/{name}`. Studies can share it."
    )
    mirror: Folder | None = Field(
        description="A folder `{org}/{name}` of data sets and models that is read instead of "
        "the hub; nothing is fetched then."
    )
    world: World | None = Field(
        description="A generated world that takes the place of the hub's data sets."
    )
    device: Literal["cuda", "cpu"] = Field(
        description="What a training needs. With `cuda`, training without a GPU is refused; "
        "with `cpu`, a GPU that is there is not used."
    )
    hardware: Hardware = Field(
        description="What estimates and job requests are made for. It changes no result."
    )
    time_unit: Unit = Field(description="How training time is printed.")
    notes: list[str] = Field(description="Paragraphs at the head of the report.")
    notify: str | None = Field(
        None,
        description="A shell command that is called when a run has ended or failed; variables such "
        "as `$MOFE_MESSAGE` tell how (docs/watching.md). It changes no result.",
    )
    track: Tracker | None = Field(
        None,
        description="Where trainings write their numbers while they run; null for nowhere "
        "(docs/watching.md). It changes no result.",
    )
    scoring: Literal["letter", "text"] = Field(
        description="What multiple choice compares: the letters A to D, as lm-eval does, or the "
        "options' texts."
    )
    shots: Whole = Field(
        description="Examples before each question, from training or development rows."
    )
    shots_seed: Seed = Field(
        SHOTS_SEED,
        description="The seed that draws these examples, anew for each of lm-eval's tasks, as "
        "lm-eval does.",
    )
    add_bos_token: bool = Field(
        True,
        description="Whether prompts and trained texts begin with the special tokens that the "
        "model's tokenizer puts before a text, such as `<s>`. Without them, evaluation is that of "
        "lm-eval 0.4.7 to 0.4.9. A base model that is pretrained here is always pretrained with "
        "them.",
    )
    sources: dict[Name, Source] = Field(description="Repositories of data sets, by name.")
    data: dict[Name, Data] = Field(description="Training sets, by name.")
    mixes: dict[Name, Mix] = Field(description="Data sets that are trained on together, by name.")
    tasks: dict[Name, Task] = Field(description="Benchmarks, by name.")
    models: dict[Name, Model] = Field(description="Dense models, by name.")
    merge: Merge = Field(description="mergekit-moe's settings.")
    mixtures: dict[Name, Mixture] = Field(
        description="Mixtures of experts, by name. Those that no table shows are not merged."
    )
    training: Training = Field(description="AdamW with linear decay to zero.")
    searches: dict[Name, Search] = Field(
        {}, description="Searches for learning rates, by name. A recipe's `search` names one."
    )
    recipes: dict[Name, Recipe] = Field(description="Ways to fine-tune, by name.")
    tables: Annotated[dict[TableKey, TableSpec], Field(min_length=1)] = Field(
        description="The tables, the paper's by number, others by any number or word."
    )
    beyond: Annotated[bool, BeforeValidator(_true_or_false, json_schema_input_type=bool)] = Field(
        False,
        description="Whether `all`, the report and the claims also have the tables that are "
        "`on_demand`.",
    )
    claims: dict[Name, Claim] = Field(
        {}, description="Claims of your own, by name, beside those of `mofe/claims.yaml`."
    )
    evidence: Evidence = Field(Evidence(), description="How claims are judged.")
    replications: Replications | None = Field(
        None, description="Claims that are compared with those of other studies."
    )
    assumptions: list[Assumption] = Field(
        description="Choices where the paper is silent. The report prints them with the values "
        "that the study really used."
    )
    export: Export = Field(Export(), description="What exported models state, and where they go.")

    def value_at(self, path: str) -> Any:
        """The value under a dotted key path, as plain data. Raises KeyError for an unknown path."""
        value: Any = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for key in path.split("."):
            if not isinstance(value, Mapping) or key not in value:
                raise KeyError(path)
            value = value[key]
        return value

    def with_values(self, text: str) -> str:
        """A text with the values of the keys that it names in braces, such as {merge.dtype}. Raises
        KeyError for an unknown path."""
        return re.sub(r"\{([^{}]*)\}", lambda key: str(self.value_at(key[1])), text)

    @property
    def scale(self) -> Scale:
        """`miniature` with a generated world, `paper` in the paper's own setting, else `other`."""
        return scale(self.study, generated=self.world is not None)

    @property
    def setting(self) -> Setting:
        """What the study's numbers are of."""
        return Setting(self.study, self.scale, self.time_unit)

    def merged_by(self, mixture: str) -> Merge:
        """A mixture's merge settings: those of `merge`, with what the mixture sets differently."""
        own = self.mixtures[mixture].merge.model_dump(exclude_none=True)
        return self.merge.model_copy(update=own)

    def asks_text(self, task: str) -> bool:
        """Whether a task asks for nothing: its questions are held-out raw text, which a model only
        reads, and its headline is their perplexity."""
        held = self.tasks[task].held_out
        return held is not None and self.data[held].text is not None

    def data_of(self, mix: str) -> list[str]:
        """The data sets of a mix; a data set's own name is a mix of one."""
        return self.mixes[mix].data if mix in self.mixes else [mix]

    def is_per_seed(self, models: Iterable[str]) -> bool:
        """Whether the study makes one of these dense models from another, and so once per seed."""
        return any(self.models[model].from_ is not None for model in models)

    def lineage(self, model: str) -> list[str]:
        """The models that a dense model comes from: the first one first, the model itself last."""
        parent = self.models[model].from_
        return [*(self.lineage(parent) if parent else ()), model]

    def tokenizer(self, base: str) -> str:
        """The model whose tokenizer a base model has: a fine-tuned model keeps that of its
        origin."""
        return self.lineage(base)[0]
