"""The plan: what the study makes, under which name, from what, for which table.

A pure function of the `Study`: it reads no file and imports neither torch nor transformers. The
rules ask it for every name, every input and every parameter, so that an artefact that several
tables show is made once, and a change of a key reruns what depends on that key and nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from mofe.config import ConfigError, Study, TableSpec, value_at

UNTUNED = "none"

# What is fetched of a model: safe weights, configuration and tokenizer; no pickles, no code.
MODEL_FILES = ("*.safetensors", "*.json", "tokenizer.model")

# The report's figures, and the tables they are drawn from.
FIGURES = {"time_accuracy": (1, 2), "medical_experts": (3, 4), "frozen_experts": (7,)}


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, and what the study wants of it.

    files: patterns as in `sources`. sample: None, or the number of `rows` to draw and the `seed`.
    """

    repo: str
    kind: Literal["dataset", "model"]
    revision: str
    files: tuple[str, ...]
    sample: dict[str, int] | None = None


@dataclass(frozen=True)
class Stage:
    """Training on one mix by one recipe."""

    mix: str
    recipe: str

    @property
    def name(self) -> str:
        return f"{self.mix}_{self.recipe}"


@dataclass(frozen=True)
class Moe:
    """A merged mixture: the base model and the expert of every slot, in slot order."""

    base: str
    experts: tuple[str, ...]

    @property
    def name(self) -> str:
        counts = {e: self.experts.count(e) for e in self.experts}
        return f"{self.base}_" + "-".join(f"{n}{e}" for e, n in counts.items())


@dataclass(frozen=True)
class Variant:
    """A mixture after its stages of training; without stages it is the merge itself."""

    moe: Moe
    stages: tuple[Stage, ...] = ()

    @property
    def name(self) -> str:
        return ".".join(s.name for s in self.stages) or UNTUNED

    @property
    def key(self) -> str:
        """Its part of every address: merge/stages."""
        return f"{self.moe.name}/{self.name}"

    @property
    def parents(self) -> tuple["Variant", ...]:
        """The trained variants that this one starts from, first stage first."""
        return tuple(Variant(self.moe, self.stages[:n]) for n in range(1, len(self.stages)))


@dataclass(frozen=True)
class Cell:
    """What a table shows in one row and column, and the files it is read from.

    files: for a task one eval JSON a seed; for `trainable` and `time` per seed the train.json of
    every stage; none for an untuned row's `trainable` and `time`.
    """

    column: str
    kind: str  # "trainable", "time" or "task"
    files: tuple = ()
    task: str | None = None


@dataclass(frozen=True)
class Row:
    """A table's row: its labels as the paper prints them, its cells, and what it varies.

    beside: the cells of the columns that the paper's table lacks.
    """

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    mixture: str
    recipe: str | None
    experts: tuple[tuple[str, int], ...]
    frozen: int | None
    data: str | None = None
    beside: tuple[Cell, ...] = ()


class Curve(NamedTuple):
    """A trained variant's loss: its training data, its recipe, and its log.jsonl for each seed."""

    data: str
    recipe: str
    logs: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper, as the report draws it; `beside` heads columns that the paper lacks."""

    number: int
    caption: str
    label_headings: tuple[str, ...]
    columns: tuple[str, ...]
    header: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Names, sharing and inputs of everything that a study makes."""

    study: Study
    root: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "root", self.study.results.rstrip("/"))
        self._refuse_equal_names()

    # ------------------------------------------------------------------------- what there is

    @cached_property
    def moes(self) -> dict[str, Moe]:
        """Every merge that a table needs, by name; equal mixtures are one merge."""
        return {v.moe.name: v.moe for v in self.variants.values()}

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Every variant that a table shows or starts from, by its key, in table order."""
        shown = [self._variant(row) for t in self.study.tables.values() for row in t.rows]
        everything = [v for s in shown for v in (*s.parents, s)]
        return {v.key: v for v in everything}

    @cached_property
    def trained(self) -> dict[str, Variant]:
        return {key: v for key, v in self.variants.items() if v.stages}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every dense model that a merge needs, directly or as another model's origin."""
        needed: dict[str, None] = {}
        for moe in self.moes.values():
            for name in (moe.base, *moe.experts):
                for model in self._lineage(name):
                    needed[model] = None
        return tuple(needed)

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Every training set that a needed model or variant is trained on."""
        mixes = [s.mix for v in self.trained.values() for s in v.stages]
        mixes += [m for name in self.models for m in self.study.models[name].train or ()]
        return tuple(dict.fromkeys(d for mix in mixes for d in self.mix(mix)))

    @cached_property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The tasks that each variant is evaluated on, by the variant's key."""
        found: dict[str, dict[str, None]] = {}
        for table in self.study.tables.values():
            shown = [*table.columns.values(), *(table.beside or {}).values()]
            tasks = [it for it in shown if it in self.study.tasks]
            for row in table.rows:
                found.setdefault(self._variant(row).key, {}).update(dict.fromkeys(tasks))
        return {key: tuple(tasks) for key, tasks in found.items()}

    @cached_property
    def tokenizers(self) -> tuple[str, ...]:
        """The models whose tokenizers the variants have."""
        return tuple(dict.fromkeys(map(self._tokenizer, self.variants.values())))

    def shown_in(self, *numbers: int) -> list[Variant]:
        """The variants that these tables' rows show, each once."""
        rows = [row for n in numbers if n in self.study.tables for row in self.study.tables[n].rows]
        return list(dict.fromkeys(self._variant(row) for row in rows))

    @cached_property
    def tables(self) -> dict[int, Table]:
        return {n: self._table(n, spec) for n, spec in self.study.tables.items()}

    # -------------------------------------------------------------------------------- addresses

    @property
    def world(self) -> str:
        return f"{self.root}/world"

    @property
    def mirror(self) -> str:
        """The folder {org}/{name} that data sets are read from: the generated world, the user's
        mirror, or what was fetched from the hub."""
        return self.world if self.study.world else self.model_mirror

    @property
    def model_mirror(self) -> str:
        """The folder {org}/{name} that the hub's models are read from; no world generates them."""
        return self.study.mirror or self.study.hub

    @cached_property
    def repositories(self) -> dict[str, Repository]:
        """Every repository that a needed data set, a shown task or a needed model reads, by name;
        the generated world's are left out."""
        shown = dict.fromkeys(task for tasks in self.tasks.values() for task in tasks)
        read = [r for d in self.datasets for r in self.data_repositories(d)]
        read += [r for t in shown for r in self.task_repositories(t)]
        read += [r for m in self.models for r in self.model_repositories(m)]
        return {r.repo: r for r in read}

    def data_repositories(self, dataset: str) -> list[Repository]:
        """What preparing a training set reads: its source, and its task's, for the test set."""
        data = self.study.data[dataset]
        tested = self.task_repositories(data.task) if data.task else []
        return [*self._repository(data.source), *tested]

    def task_repositories(self, task: str) -> list[Repository]:
        return self._repository(self.study.tasks[task].source)

    def model_repositories(self, model: str) -> list[Repository]:
        it = self.study.models[model]
        return [Repository(it.hub, "model", it.revision, MODEL_FILES)] if it.hub else []

    def _repository(self, source: str) -> list[Repository]:
        it = self.study.sources[source]
        sample = {"rows": it.sample, "seed": self.study.sampling_seed} if it.sample else None
        found = Repository(it.repo, "dataset", it.revision, tuple(it.files), sample)
        return [] if self.study.world else [found]

    def manifest(self, repo: str) -> str:
        """What was fetched of a repository; its files lie in the folder of the same name."""
        return f"{self.study.hub}/{repo}.json"

    @cached_property
    def manifests(self) -> list[str]:
        """Of every repository that is fetched: with a mirror, none is."""
        return self._fetched(self.repositories.values())

    def _fetched(self, repositories: Iterable[Repository]) -> list[str]:
        return [] if self.study.mirror else [self.manifest(r.repo) for r in repositories]

    def model_dir(self, name: str) -> str:
        return self.study.models[name].path or f"{self.root}/experts/{name}"

    def moe_dir(self, moe: str) -> str:
        return f"{self.root}/moe/{moe}"

    def data_file(self, dataset: str) -> str:
        return f"{self.root}/data/{dataset}.parquet"

    def data_counts(self, dataset: str) -> str:
        return f"{self.root}/data/{dataset}.json"

    def variant_dir(self, variant: Variant, seed: int | str) -> str:
        return f"{self.root}/variants/{variant.key}/s{seed}"

    def delta(self, variant: Variant, seed: int | str) -> str:
        return f"{self.variant_dir(variant, seed)}/delta.safetensors"

    def loss_log(self, variant: Variant, seed: int | str) -> str:
        return f"{self.variant_dir(variant, seed)}/log.jsonl"

    def train_json(self, variant: Variant, seed: int | str) -> str:
        return f"{self.variant_dir(variant, seed)}/train.json"

    def eval_json(self, variant: Variant, seed: int | str, task: str) -> str:
        return f"{self.root}/evals/{variant.key}/s{seed}/{task}.json"

    def questions(self, variant: Variant, task: str) -> str:
        """A task's questions in the tokens of a variant's tokenizer, which is its base's."""
        return f"{self.root}/questions/{self._tokenizer(variant)}/{task}.parquet"

    def export_dir(self, variant: Variant, seed: int | str) -> str:
        return f"{self.root}/models/{variant.key}/s{seed}"

    # --------------------------------------------------------------------- inputs of the stages

    def seeds(self, variant: Variant) -> tuple[int, ...]:
        """The seeds a variant exists for. Seeds are fine-tuning's: untuned merges have one."""
        return tuple(self.study.seeds) if variant.stages else (0,)

    def mix(self, name: str) -> list[str]:
        """The data sets of a mix; a data set's own name is a mix of one."""
        return self.study.mixes[name].data if name in self.study.mixes else [name]

    def data_input(self, dataset: str) -> list[str]:
        """What preparing a training set waits for: the generated world, or what is fetched."""
        return self._generated() + self._fetched(self.data_repositories(dataset))

    def task_input(self, task: str) -> list[str]:
        """What reading a task's questions waits for."""
        return self._generated() + self._fetched(self.task_repositories(task))

    def model_input(self, model: str) -> list[str]:
        """What a hub's model waits for."""
        return self._fetched(self.model_repositories(model))

    def _generated(self) -> list[str]:
        return [self.world] if self.study.world else []

    def origin(self, model: str) -> str:
        """The folder of the model that a dense expert is fine-tuned from."""
        return self.model_dir(self.study.models[model].from_)

    def expert_data(self, model: str) -> list[str]:
        """The training sets of a dense expert."""
        return [f for mix in self.study.models[model].train or () for f in self.stage_data(mix)]

    def merge_input(self, moe: str) -> list[str]:
        """The dense checkpoints of a merge, the base first, each once. Whatever loads the merge
        reads them too, for its weights are theirs."""
        it = self.moes[moe]
        return [self.model_dir(m) for m in dict.fromkeys((it.base, *it.experts))]

    def preflight_params(self, model: str) -> dict[str, Any]:
        """What must fit together before this dense expert is worth its training: for every mixture
        it is in, the models that come from outside, as (base, expert), and their names."""
        mixtures = [m for m in self.moes.values() if model in self._members(m)]
        pairs = {
            (self._lineage(moe.base)[0], self._lineage(expert)[0]): None
            for moe in mixtures
            for expert in moe.experts
        }
        names = {self.model_dir(name): name for pair in pairs for name in pair}
        folders = [[self.model_dir(name) for name in pair] for pair in pairs]
        return {"pairs": folders, "names": names}

    def stage_data(self, mix: str) -> list[str]:
        return [self.data_file(d) for d in self.mix(mix)]

    def deltas(self, variant: Variant, seed: int | str) -> list[str]:
        """The trained deltas that make this variant of its merge, first stage first."""
        chain = (*variant.parents, variant) if variant.stages else ()
        return [self.delta(v, seed) for v in chain]

    def table_input(self, number: int) -> list[str]:
        """Every JSON that a table is read from."""
        rows = self.tables[number].rows
        return list(dict.fromkeys(_flat(c.files for r in rows for c in (*r.cells, *r.beside))))

    @cached_property
    def figures(self) -> dict[str, tuple[int, ...]]:
        """The figures that this study's tables allow, and the tables each is drawn from."""
        have = {
            name: tuple(n for n in numbers if n in self.tables) for name, numbers in FIGURES.items()
        }
        return {name: numbers for name, numbers in have.items() if numbers} | {"loss_curves": ()}

    def figure_input(self, figure: str) -> list[str]:
        """Every file that a figure is read from; the loss curves read every run's log."""
        if figure == "loss_curves":
            return [log for curve in self.curves for log in curve.logs]
        rows = [row for number in self.figures[figure] for row in self.tables[number].rows]
        return list(dict.fromkeys(_flat(cell.files for row in rows for cell in row.cells)))

    @cached_property
    def curves(self) -> list[Curve]:
        """The loss curve of every trained variant."""
        return [
            Curve(
                v.stages[-1].mix,
                v.stages[-1].recipe,
                tuple(self.loss_log(v, seed) for seed in self.seeds(v)),
            )
            for v in self.trained.values()
        ]

    @cached_property
    def mixes(self) -> dict[str, dict[str, list[str]]]:
        """Of every mix that a variant is trained on, its data sets and the runs' train.json."""
        found: dict[str, dict[str, list[str]]] = {}
        for variant in self.trained.values():
            mix = variant.stages[-1].mix
            entry = found.setdefault(mix, {"data": self.mix(mix), "trainings": []})
            entry["trainings"] += [self.train_json(variant, seed) for seed in self.seeds(variant)]
        return found

    @cached_property
    def train_jsons(self) -> list[str]:
        return [self.train_json(v, s) for v in self.trained.values() for s in self.seeds(v)]

    @cached_property
    def eval_jsons(self) -> list[str]:
        return [
            self.eval_json(self.variants[key], seed, task)
            for key, tasks in self.tasks.items()
            for seed in self.seeds(self.variants[key])
            for task in tasks
        ]

    # ------------------------------------------------------------- parameters: what a job reads

    def data_params(self, dataset: str) -> dict[str, Any]:
        """Everything of the configuration that a prepared training set depends on."""
        study, data = self.study, self.study.data[dataset]
        return {
            "data": _plain(data, but={"tokens"}),
            "source": self._source(data.source),
            # training rows are rendered without examples, whatever the evaluation shows
            "task": {**self.task_params(data.task), "shots": 0} if data.task else None,
            "seed": study.sampling_seed,
            "mirror": self.mirror,
        }

    def task_params(self, task: str) -> dict[str, Any]:
        """Everything of the configuration that a task's questions depend on."""
        study, it = self.study, self.study.tasks[task]
        own = ("columns", "subset", "split", "test_share", "examples")
        mcq = {"mcq": {key: _plain(it)[key] for key in own}} if it.columns else {}
        return {
            **mcq,
            "name": task,
            "harness": it.harness,
            "source": self._source(it.source),
            "scoring": study.scoring,
            "shots": study.shots,
            "seed": study.sampling_seed,
            "mirror": self.mirror,
        }

    def model_params(self, model: str) -> dict[str, Any]:
        """Everything of the configuration that a dense model depends on, its own training aside."""
        it = self.study.models[model]
        if it.train:
            ((mix, recipe),) = it.train.items()
            return {**self.stage_params(Stage(mix, recipe)), "dtype": self.expert_dtype(model)}
        if it.scratch:
            return {
                "shape": _plain(it.scratch.shape),
                "seed": it.scratch.seed,
                "training": self._training(it.scratch.training),
            }
        return {"hub": it.hub, "revision": it.revision, "mirror": self.model_mirror}

    def expert_dtype(self, model: str) -> str:
        """What a dense model that is fine-tuned here is stored in: the merges' dtype, to which
        every merge rounds it anyway, so that nothing is lost. It is float32 where another model is
        trained from it, and in a CPU study, whose models are small."""
        an_origin = any(self.study.models[other].from_ == model for other in self.models)
        exact = an_origin or self.study.device == "cpu"
        return "float32" if exact else self.study.merge.dtype

    def merge_params(self, moe: str) -> dict[str, Any]:
        """The merge's settings, and the prompts of every slot."""
        it, taken, slots = self.moes[moe], {}, []
        for expert in it.experts:
            gates, index = self.study.models[expert].gates, taken.get(expert, 0)
            taken[expert] = index + 1
            slots.append(
                {
                    "model": self.model_dir(expert),
                    "positive": list(gates.positive[index]),
                    "negative": list(gates.negative),
                }
            )
        names = {self.model_dir(model): model for model in (it.base, *it.experts)}
        base = self.model_dir(it.base)
        return {**_plain(self.study.merge), "base": base, "slots": slots, "names": names}

    def stage_params(self, stage: Stage) -> dict[str, Any]:
        """A stage's resolved recipe: the method, its settings, and the training's."""
        recipe = self.study.recipes[stage.recipe]
        mix = self.study.mixes.get(stage.mix)
        overrides = [mix.training] if mix else []
        return {
            **self.method_params(stage),
            "training": self._training(*overrides, recipe.training),
        }

    def method_params(self, stage: Stage) -> dict[str, Any]:
        """The method and its settings: what it takes to rebuild the trained model."""
        recipe = self.study.recipes[stage.recipe]
        settings = {k: v for k, v in recipe.settings().items() if v is not None}
        return {"recipe": stage.recipe, "method": recipe.method, **settings}

    def chain_params(self, variant: Variant) -> list[dict[str, Any]]:
        """The methods of a variant's stages, first stage first."""
        return [self.method_params(s) for s in variant.stages]

    def export_params(self, variant: Variant, seed: int) -> dict[str, Any]:
        """What an exported model's weights and its card depend on."""
        study, stages = self.study, variant.stages
        dense = [m for n in (variant.moe.base, *variant.moe.experts) for m in self._lineage(n)]
        mixes = [m for name in dict.fromkeys(dense) for m in study.models[name].train or ()]
        datasets = dict.fromkeys(d for m in (*mixes, *(s.mix for s in stages)) for d in self.mix(m))
        parts = (*variant.parents, variant) if stages else ()
        return {
            "study": study.study,
            "dtype": study.merge.dtype,
            "gate_mode": study.merge.gate_mode,
            "experts_per_token": study.merge.experts_per_token,
            "base": variant.moe.base,
            "experts": {e: variant.moe.experts.count(e) for e in variant.moe.experts},
            "models": {n: _choice(_plain(study.models[n])) for n in dict.fromkeys(dense)},
            "chain": self.chain_params(variant),
            "training": [self.stage_params(s)["training"] for s in stages],
            "data": [
                {
                    "name": name,
                    **_plain(study.data[name]),
                    "source": _plain(study.sources[study.data[name].source]),
                }
                for name in datasets
            ],
            "read_from": "world" if study.world else "mirror" if study.mirror else "hub",
            "trainings": [self.train_json(v, seed) for v in parts],
            "evaluations": [
                self.eval_json(variant, seed, task) for task in self.tasks.get(variant.key, ())
            ],
            "manifests": self.manifests,
            "license": study.export.license,
        }

    def push_repo(self, variant: Variant, seed: int | str) -> str:
        """The hub repository that an exported model is pushed to. Raises ConfigError where the study
        names none: pushing has to be asked for."""
        if (prefix := self.study.export.push) is None:
            how = "set it to org/name, with which the repository's name begins"
            raise ConfigError([f"export.push is null, so nothing is pushed; {how}"])
        return f"{prefix}-{variant.key.replace('/', '-')}-s{seed}"

    def assumptions(self) -> list[dict[str, Any]]:
        """The choices where the paper is silent, with the values that this study uses."""
        return [
            {
                "item": it.item,
                "key": it.key,
                "choice": _choice(value_at(self.study, it.key)),
                "evidence": it.evidence,
            }
            for it in self.study.assumptions
        ]

    # ------------------------------------------------------------------------------- internals

    def _source(self, name: str) -> dict[str, Any]:
        """What a reader needs of a source; what is fetched of it besides changes no row."""
        it = self.study.sources[name]
        known = {"repo": it.repo, "revision": it.revision}
        if it.sample:
            drawn = {"files": it.files, "rows": it.sample, "seed": self.study.sampling_seed}
            known["sample"] = drawn
        return known

    def _training(self, *overrides) -> dict[str, Any]:
        resolved = _plain(self.study.training)
        for override in overrides:
            resolved.update({k: v for k, v in _plain(override).items() if v is not None})
        return resolved

    def _lineage(self, model: str) -> list[str]:
        parent = self.study.models[model].from_
        return [*(self._lineage(parent) if parent else ()), model]

    def _tokenizer(self, variant: Variant) -> str:
        """The model that a variant's base comes from: a fine-tuned model has its origin's tokenizer."""
        return self._lineage(variant.moe.base)[0]

    def _members(self, moe: Moe) -> set[str]:
        return {m for name in (moe.base, *moe.experts) for m in self._lineage(name)}

    def _moe(self, mixture: str) -> Moe:
        it = self.study.mixtures[mixture]
        # A fixed order, so that equal mixtures get equal names and equal slots.
        return Moe(it.base, tuple(e for e in sorted(it.experts) for _ in range(it.experts[e])))

    def _variant(self, row) -> Variant:
        return Variant(self._moe(row.mixture), tuple(Stage(m, r) for m, r in row.train.items()))

    def _table(self, number: int, spec: TableSpec) -> Table:
        rows, beside = [], spec.beside or {}
        for row in spec.rows:
            variant = self._variant(row)
            last = variant.stages[-1] if variant.stages else None
            rows.append(
                Row(
                    labels=tuple(row.labels),
                    cells=tuple(self._cell(h, shown, variant) for h, shown in spec.columns.items()),
                    mixture=row.mixture,
                    recipe=last.recipe if last else None,
                    experts=tuple(self.study.mixtures[row.mixture].experts.items()),
                    frozen=self._frozen(variant),
                    data=last.mix if last else None,
                    beside=tuple(self._cell(h, task, variant) for h, task in beside.items()),
                )
            )
        width = len(spec.labels) + len(spec.columns)
        return Table(
            number=number,
            caption=spec.caption,
            label_headings=tuple(spec.labels),
            columns=tuple(spec.columns),
            header=tuple(spec.header or [("", width)]),
            rows=tuple(rows),
            beside=tuple(beside),
        )

    def _cell(self, heading: str, shown: str, variant: Variant) -> Cell:
        if shown in self.study.tasks:
            files = tuple(self.eval_json(variant, s, shown) for s in self.seeds(variant))
            return Cell(heading, "task", files, shown)
        if not variant.stages:
            return Cell(heading, shown)
        stages = (*variant.parents, variant)
        return Cell(
            heading,
            shown,
            tuple(tuple(self.train_json(v, s) for v in stages) for s in self.seeds(variant)),
        )

    def _frozen(self, variant: Variant) -> int | None:
        """How many experts the last stage leaves as they are; None for an untuned merge."""
        if not variant.stages:
            return None
        recipe, total = self.study.recipes[variant.stages[-1].recipe], len(variant.moe.experts)
        if recipe.method == "full":
            return 0
        return recipe.frozen if isinstance(recipe.frozen, int) else total

    def _refuse_equal_names(self):
        """Names are looked up, never parsed, so two artefacts must not share one."""
        rows = [row for table in self.study.tables.values() for row in table.rows]
        seen: dict[str, Variant] = {}
        for shown in (self._variant(row) for row in rows):
            for variant in (*shown.parents, shown):
                if seen.setdefault(variant.key, variant) != variant:
                    clash = f"tables: two different variants would both be stored as {variant.key}"
                    raise ConfigError([f"{clash}; rename one of their models, mixes or recipes"])


def _plain(part, but: set[str] | None = None) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude=but)


def _choice(value: Any) -> Any:
    """A key's value without what would drown everything else (a model's prompts and sizes) and
    without what estimates alone use."""
    aside = {"gates", "shape", "questions", "tokens", "generated"}
    return {k: v for k, v in value.items() if k not in aside} if isinstance(value, dict) else value


def _flat(nested: Iterable) -> Iterable[str]:
    for item in nested:
        if isinstance(item, str):
            yield item
        else:
            yield from _flat(item)
