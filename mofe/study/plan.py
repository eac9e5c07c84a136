"""The plan: what the study makes, under which name, from what, for which table.

A pure function of the `Study`: it reads no file and imports neither torch nor transformers. The
rules ask it for every name, every input and every parameter, so that an artefact that several
tables show is made once, and a change of a key reruns what depends on that key and nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mofe.study import tables
from mofe.study.addresses import Addresses
from mofe.study.config import Study, TableRow
from mofe.study.methods import Method, Untuned
from mofe.study.params import Params
from mofe.study.tables import FIGURES, Curve, Table
from mofe.study.values import ConfigError
from mofe.study.variants import Moe, Stage, Variant

# What is fetched of a model: safe weights, configuration and tokenizer; no pickles, no code.
MODEL_FILES = ("*.safetensors", "*.json", "tokenizer.model")


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
class Plan:
    """Sharing and inputs of everything that a study makes. `paths` has its addresses, `params` what
    each job reads of the configuration."""

    study: Study

    def __post_init__(self):
        self._refuse_equal_names()

    @cached_property
    def paths(self) -> Addresses:
        return Addresses(self.study)

    @cached_property
    def params(self) -> Params:
        return Params(self)

    @property
    def root(self) -> str:
        return self.paths.root

    @cached_property
    def moes(self) -> dict[str, Moe]:
        """Every merge that a table needs, by name; equal mixtures are one merge."""
        return {v.moe.name: v.moe for v in self.variants.values()}

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Every variant that a table shows or starts from, by its key, in table order."""
        shown = [self.variant(row) for t in self.study.tables.values() for row in t.rows]
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
                for model in self.study.lineage(name):
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
                found.setdefault(self.variant(row).key, {}).update(dict.fromkeys(tasks))
        return {key: tuple(tasks) for key, tasks in found.items()}

    @cached_property
    def tokenizers(self) -> tuple[str, ...]:
        """The models whose tokenizers the variants have."""
        return tuple(
            dict.fromkeys(self.study.tokenizer(v.moe.base) for v in self.variants.values())
        )

    def shown_in(self, *numbers: int) -> list[Variant]:
        """The variants that these tables' rows show, each once."""
        rows = [row for n in numbers if n in self.study.tables for row in self.study.tables[n].rows]
        return list(dict.fromkeys(self.variant(row) for row in rows))

    @cached_property
    def tables(self) -> dict[int, Table]:
        return {n: tables.table(self, n, spec) for n, spec in self.study.tables.items()}

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

    @cached_property
    def manifests(self) -> list[str]:
        """Of every repository that is fetched: with a mirror, none is."""
        return self.fetched(self.repositories.values())

    def fetched(self, repositories: Iterable[Repository]) -> list[str]:
        """The manifests of these repositories, or nothing where a mirror is read."""
        return [] if self.study.mirror else [self.paths.manifest(r.repo) for r in repositories]

    def seeds(self, variant: Variant) -> tuple[int, ...]:
        """The seeds a variant exists for. Seeds are fine-tuning's: untuned merges have one."""
        return tuple(self.study.seeds) if variant.stages else (0,)

    def method(self, variant: Variant) -> Method:
        """What made a variant of what was before: its last stage's method."""
        if not variant.stages:
            return Untuned()
        return self.study.recipes[variant.stages[-1].recipe]

    def mix(self, name: str) -> list[str]:
        """The data sets of a mix; a data set's own name is a mix of one."""
        return self.study.mixes[name].data if name in self.study.mixes else [name]

    def merge_input(self, moe: str) -> list[str]:
        """The dense checkpoints of a merge, the base first, each once. Whatever loads the merge
        reads them too, for its weights are theirs."""
        it = self.moes[moe]
        return [self.paths.model_dir(m) for m in dict.fromkeys((it.base, *it.experts))]

    def stage_data(self, mix: str) -> list[str]:
        return [self.paths.data_file(d) for d in self.mix(mix)]

    def trained_files(self, variant: Variant, seed: int | str) -> list[str]:
        """The trained parameters that make this variant of its merge, first stage first."""
        chain = (*variant.parents, variant) if variant.stages else ()
        return [self.paths.trained(v, seed) for v in chain]

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
                tuple(self.paths.loss_log(v, seed) for seed in self.seeds(v)),
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
            entry["trainings"] += [
                self.paths.train_json(variant, seed) for seed in self.seeds(variant)
            ]
        return found

    @cached_property
    def train_jsons(self) -> list[str]:
        return [self.paths.train_json(v, s) for v in self.trained.values() for s in self.seeds(v)]

    @cached_property
    def eval_jsons(self) -> list[str]:
        return [
            self.paths.eval_json(self.variants[key], seed, task)
            for key, tasks in self.tasks.items()
            for seed in self.seeds(self.variants[key])
            for task in tasks
        ]

    def members(self, moe: Moe) -> set[str]:
        """The dense models of a mixture, and those that they are fine-tuned from."""
        return {m for name in (moe.base, *moe.experts) for m in self.study.lineage(name)}

    def _moe(self, mixture: str) -> Moe:
        it = self.study.mixtures[mixture]
        # A fixed order, so that equal mixtures get equal names and equal slots.
        return Moe(it.base, tuple(e for e in sorted(it.experts) for _ in range(it.experts[e])))

    def variant(self, row: TableRow) -> Variant:
        """The variant that a table's row shows."""
        return Variant(self._moe(row.mixture), tuple(Stage(m, r) for m, r in row.train.items()))

    def _refuse_equal_names(self):
        """Names are looked up, never parsed, so two artefacts must not share one."""
        rows = [row for table in self.study.tables.values() for row in table.rows]
        seen: dict[str, Variant] = {}
        for shown in (self.variant(row) for row in rows):
            for variant in (*shown.parents, shown):
                if seen.setdefault(variant.key, variant) != variant:
                    clash = f"tables: two different variants would both be stored as {variant.key}"
                    raise ConfigError([f"{clash}; rename one of their models, mixes or recipes"])


def _flat(nested: Iterable) -> Iterable[str]:
    for item in nested:
        if isinstance(item, str):
            yield item
        else:
            yield from _flat(item)
