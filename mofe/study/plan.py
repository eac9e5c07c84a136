"""The plan: what the study makes, its name, what it is made from, and which tables show it.

The plan is a pure function of the `Study`: it reads no file and imports neither torch nor
transformers. The rules ask it for every name, input and parameter. So an artefact that several
tables show is made once, and a change of a key reruns what depends on that key and nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from mofe.study import claims, tables
from mofe.study.addresses import Addresses
from mofe.study.config import Merge, MixtureMerge, Replay, Search, Study, TableRow, TableSpec
from mofe.study.gates import GATES, NONE, Gates
from mofe.study.methods import Method, Untuned
from mofe.study.params import Params
from mofe.study.shapes import ROUTER
from mofe.study.tables import Table
from mofe.study.values import SHOWS, task_metric
from mofe.study.variants import Dense, Moe, Stage, Variant

# The files that are fetched of a model: safe weights, configuration and tokenizer; no pickles, no
# code.
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
MODEL_FILES += ("additional_chat_templates/*.jinja",)  # as transformers saves a second template


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, and what the study reads from it.

    files: patterns as in `sources`. sample: the number of `rows` to draw and the `seed`; None for
    all.
    """

    repo: str
    kind: Literal["dataset", "model"]
    revision: str
    files: tuple[str, ...]
    sample: dict[str, int] | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that a study makes, each thing once. `paths` has the addresses, `params` what each
    job reads from the configuration.

    on_demand: whether tables that are made on demand are among it. Without them it is what `all`
    makes.
    """

    study: Study
    on_demand: bool = False

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
    def of_all(self) -> "Plan":
        """The plan of what `all` makes and the report shows."""
        return replace(self, on_demand=False) if self.on_demand else self

    @cached_property
    def specs(self) -> dict[int | str, TableSpec]:
        """The tables of this plan, as the configuration has them."""
        every = self.on_demand or self.study.beyond
        return {n: s for n, s in self.study.tables.items() if every or not s.on_demand}

    @cached_property
    def moes(self) -> dict[str, Moe]:
        """Every merge that a table needs, by name; equal mixtures are one merge."""
        origins = {v.origin.name: v.origin for v in self.variants.values()}
        return {name: origin for name, origin in origins.items() if isinstance(origin, Moe)}

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Every variant that a table shows or starts from, by its key, in table order; then every
        candidate of a search."""
        candidates = {c.key: c for found in self.searches.values() for c in found}
        return {**self._shown, **candidates}

    @cached_property
    def trained(self) -> dict[str, Variant]:
        """The variants that are trained, without the candidates of searches."""
        return {key: v for key, v in self._shown.items() if v.stages}

    @cached_property
    def searches(self) -> dict[str, tuple[Variant, ...]]:
        """The candidates of every variant whose learning rate is searched, by the variant's key."""
        found = {key: self.candidates(variant) for key, variant in self.trained.items()}
        return {key: candidates for key, candidates in found.items() if candidates}

    @cached_property
    def _shown(self) -> dict[str, Variant]:
        shown = [self.variant(row) for row in self._rows()]
        everything = [v for s in shown for v in (*s.parents, s)]
        return {v.key: v for v in everything}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every dense model that a variant needs, directly or as another model's origin."""
        origins = dict.fromkeys(v.origin for v in self.variants.values())
        parts = [name for origin in origins for name in origin.models]
        return tuple(dict.fromkeys(m for name in parts for m in self.study.lineage(name)))

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Every training set that a needed model or variant is trained on."""
        return tuple(dict.fromkeys(d for mix in self.trained_on for d in self.read_by(mix)))

    @cached_property
    def trained_on(self) -> tuple[str, ...]:
        """Every mix or data set that a stage of a needed model or variant names."""
        mixes = [s.mix for v in self.trained.values() for s in v.stages]
        mixes += [m for name in self.models for m in self.study.models[name].train or ()]
        return tuple(dict.fromkeys(mixes))

    @cached_property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """The tasks that each variant is evaluated on, by the variant's key."""
        found: dict[str, dict[str, None]] = {}
        for table in self.specs.values():
            shown = [*table.columns.values(), *(table.beside or {}).values()]
            scored = [column for column in shown if column not in SHOWS]
            tasks = [task_metric(column, self.study.tasks)[0] for column in scored]
            for row in table.model_rows.values():
                found.setdefault(self.variant(row).key, {}).update(dict.fromkeys(tasks))
        for key, candidates in self.searches.items():
            compared = self.search(self.variants[key]).tasks
            found |= {candidate.key: dict.fromkeys(compared) for candidate in candidates}
        return {key: tuple(tasks) for key, tasks in found.items()}

    @cached_property
    def tokenizers(self) -> tuple[str, ...]:
        """The models whose tokenizers the variants have."""
        return tuple(
            dict.fromkeys(self.study.tokenizer(v.origin.base) for v in self.variants.values())
        )

    @cached_property
    def claims(self) -> dict[str, list[Table] | None]:
        """By claim, the cells of the study's tables that it is read from; None where the study
        leaves one out. A claim that such a study is not asked is read from none. Claims about
        tables on demand are there where these tables are."""
        asked = (self.study.scale, self.study.hardware.exclusive)
        absent = self.study.tables.keys() - self.specs.keys()
        return {
            n: [] if c.unasked(*asked) else claims.claimed(self.tables, c)
            for n, c in self.study.claims.items()
            if absent.isdisjoint(c.tables())
        }

    @cached_property
    def replicated(self) -> tuple[str, ...]:
        """The claims that other studies are asked too."""
        found = self.study.replications
        return tuple(found.claims) if found else ()

    @cached_property
    def elsewhere(self) -> tuple[Addresses, ...]:
        """Where the other studies' results lie that claims are compared with."""
        found = self.study.replications
        folders = found.results if found else ()
        return tuple(
            Addresses(self.study.model_copy(update={"results": folder})) for folder in folders
        )

    def claim_input(self, claim: str) -> list[str]:
        """Every JSON that a claim's verdict is read from."""
        return tables.files(self.claims[claim] or [])

    def shown_in(self, *numbers: int) -> list[Variant]:
        """The variants that these tables' rows show, each once."""
        specs = [self.specs[n] for n in numbers if n in self.specs]
        rows = [row for spec in specs for row in spec.model_rows.values()]
        return list(dict.fromkeys(self.variant(row) for row in rows))

    @cached_property
    def tables(self) -> dict[int | str, Table]:
        return {n: tables.table(self, n, spec) for n, spec in self.specs.items()}

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
        """What a task's questions are made from: its source, or of held-out rows what preparing
        their training set reads."""
        spec = self.study.tasks[task]
        return (
            self.data_repositories(spec.held_out)
            if spec.held_out
            else self._repository(spec.source)
        )

    def model_repositories(self, model: str) -> list[Repository]:
        spec = self.study.models[model]
        return [Repository(spec.hub, "model", spec.revision, MODEL_FILES)] if spec.hub else []

    def _repository(self, source: str) -> list[Repository]:
        if self.study.world:
            return []
        spec = self.study.sources[source]
        sample = {"rows": spec.sample, "seed": self.study.sampling_seed} if spec.sample else None
        return [Repository(spec.repo, "dataset", spec.revision, tuple(spec.files), sample)]

    @cached_property
    def manifests(self) -> list[str]:
        """The manifests of all repositories that are fetched; with a mirror there are none."""
        return self.fetched(self.repositories.values())

    def fetched(self, repositories: Iterable[Repository]) -> list[str]:
        """The manifests of these repositories; none where a mirror is read."""
        return [] if self.study.mirror else [self.paths.manifest(r.repo) for r in repositories]

    def seeds(self, variant: Variant) -> tuple[int, ...]:
        """The seeds that a variant is made with: the study's if anything of it is trained, of a
        search's candidate the first. An untuned variant of models that stay the same is made once,
        as seed 0."""
        if variant.is_candidate:
            return tuple(self.study.seeds[:1])
        return tuple(self.study.seeds) if self.is_per_seed(variant) else (0,)

    def is_per_seed(self, variant: Variant) -> bool:
        """Whether every seed gives another model: it is fine-tuned, or made from dense models that
        the study makes from others."""
        return bool(variant.stages) or self.study.is_per_seed(variant.origin.models)

    def merge_seeds(self, moe: Moe) -> tuple[int, ...]:
        """The seeds that a merge is made with; none if it is made once, for all seeds."""
        return tuple(self.study.seeds) if self.study.is_per_seed(moe.models) else ()

    def search(self, variant: Variant) -> Search | None:
        """The search for the learning rate of a variant's last stage; None where it is known."""
        name = self.method(variant).search
        return None if name is None or variant.is_candidate else self.study.searches[name]

    def candidates(self, variant: Variant) -> tuple[Variant, ...]:
        """The same variant at each learning rate of its search, the lowest first; without a search
        there are none."""
        search = self.search(variant)
        return tuple(variant.at(rate) for rate in sorted(search.learning_rate)) if search else ()

    def method(self, variant: Variant) -> Method:
        """The method of a variant's last stage."""
        return self.methods(variant)[-1] if variant.stages else Untuned()

    def methods(self, variant: Variant) -> list[Method]:
        """The methods of a variant's stages, first stage first."""
        return [self.method_of(stage, variant.origin.experts) for stage in variant.stages]

    def method_of(self, stage: Stage, experts: Sequence[str] = ()) -> Method:
        """The method of a stage, of a mixture whose slots these models fill, or of a dense
        model."""
        return self.study.recipes[stage.recipe].in_slots(experts)

    def mix(self, name: str) -> list[str]:
        """The data sets of a mix; a data set's own name is a mix of one."""
        return self.study.data_of(name)

    def replay(self, mix: str) -> Replay | None:
        """What is replayed while a mix is trained on."""
        return self.study.mixes[mix].replay if mix in self.study.mixes else None

    def replayed(self, mix: str) -> list[str]:
        """The data sets that rows are replayed from while a mix is trained on."""
        replay = self.replay(mix)
        return replay.data if replay else []

    def read_by(self, mix: str) -> list[str]:
        """The data sets that training on a mix reads: its own, and those that are replayed."""
        return [*self.mix(mix), *self.replayed(mix)]

    def merge_input(self, moe: Moe, seed: int | str | None) -> list[str]:
        """The dense checkpoints of a merge, the base first, each once. Every job that loads the
        merge reads them too, because its weights are theirs."""
        return [self.paths.model_dir(name, seed) for name in moe.models]

    def dense_input(self, variant: Variant, seed: int | str) -> list[str]:
        """The dense checkpoints that a variant's merge is read from; none for a dense variant."""
        origin = variant.origin
        return [] if isinstance(origin, Dense) else self.merge_input(origin, seed)

    def stage_data(self, mix: str) -> list[str]:
        return [self.paths.data_file(d) for d in self.mix(mix)]

    def stage_replay(self, mix: str) -> list[str]:
        return [self.paths.data_file(d) for d in self.replayed(mix)]

    def trained_files(self, variant: Variant, seed: int | str) -> list[str]:
        """The files of trained parameters that turn the origin into this variant, first stage
        first."""
        chain = (*variant.parents, variant) if variant.stages else ()
        return [self.paths.trained(v, seed) for v in chain]

    def table_key(self, text: str) -> int | str:
        """The configuration's key of a table whose key in addresses is `text`."""
        return next(key for key in self.tables if str(key) == text)

    def table_input(self, number: int | str) -> list[str]:
        """Every JSON that a table is read from, cell by cell."""
        return tables.files([self.tables[number]])

    @cached_property
    def mixes(self) -> dict[str, list[str]]:
        """The data sets of every mix that a variant is trained on, in words where it replays
        one."""
        mixes = dict.fromkeys(v.stages[-1].mix for v in self.trained.values())
        return {
            mix: [*self.mix(mix), *map("{} (replayed)".format, self.replayed(mix))] for mix in mixes
        }

    @cached_property
    def train_jsons(self) -> list[str]:
        return [self.paths.train_json(v, s) for v in self.trained.values() for s in self.seeds(v)]

    def members(self, moe: Moe) -> set[str]:
        """The dense models of a mixture, and those that they are fine-tuned from."""
        return {m for name in moe.models for m in self.study.lineage(name)}

    def _moe(self, mixture: str) -> Moe:
        spec = self.study.mixtures[mixture]
        # A fixed order, so that equal mixtures get equal names and equal slots.
        slots = tuple(e for e in sorted(spec.experts) for _ in range(spec.experts[e]))
        ours = self.study.merge
        own = {k: v for k, v in spec.merge if v is not None and v != getattr(ours, k)}
        return Moe(spec.base, slots, **own)

    def merge_of(self, moe: Moe) -> Merge:
        """A merge's settings: those of `merge`, with what the mixture sets differently."""
        own = {key: getattr(moe, key) for key in MixtureMerge.model_fields}
        return self.study.merge.model_copy(
            update={key: value for key, value in own.items() if value is not None}
        )

    def router_learns(self, variant: Variant) -> bool:
        """Whether training can move what a router chooses, if there is something to choose. The
        weights of a token's experts are normalised to add up to 1, so that of a single one is
        always 1: then only an auxiliary loss moves a router that is trained."""
        experts = variant.origin.experts
        if len(experts) < 2 or self.merge_of(variant.origin).experts_per_token > 1:
            return True
        return any(
            ROUTER in self.method_of(stage, experts).parts
            and self.params.stage(stage)["training"]["router_aux_loss"] > 0
            for stage in variant.stages
        )

    def share_to_updated(self, variant: Variant) -> float | None:
        """The share of tokens' choices that goes to experts which a mixture's last training
        updates, where routers do not decide it: 0 where it updates none, 1 where it updates all.
        None where it updates some, and of a dense model."""
        method, slots = self.method(variant), len(variant.origin.experts)
        frozen = 0 if method.adapts_any_expert else len(method.frozen_slots(slots))
        return {slots: 0.0, 0: 1.0}.get(frozen) if slots else None

    def gates(self, moe: Moe) -> Gates:
        """What follows from how a merge's gates are made."""
        return GATES[NONE if len(moe.experts) == 1 else self.merge_of(moe).gate_mode]

    def routes_rows(self, origin: Moe | Dense) -> bool:
        """Whether rows are routed by their domain, and not tokens."""
        return isinstance(origin, Moe) and self.gates(origin).routed

    def domain(self, moe: Moe, source: str) -> int:
        """The domain of a source's rows, where they are routed by it: the number of the expert,
        among the mixture's models in their order, that was fine-tuned on rows of this source; -1
        where none was."""
        for number, expert in enumerate(dict.fromkeys(moe.experts)):
            sets = [d for mix in self.study.models[expert].train for d in self.mix(mix)]
            if source in {self.study.data[d].source for d in sets}:
                return number
        return -1

    def learned_from(self, moe: Moe) -> dict[str, list[str]]:
        """The training sets that a merge's gates are fitted to, by expert model; none where they
        are not fitted."""
        if not self.gates(moe).learned:
            return {}
        trains = {expert: self.study.models[expert].train or {} for expert in moe.experts}
        return {
            expert: [d for mix in train for d in self.mix(mix)] for expert, train in trains.items()
        }

    def variant(self, row: TableRow) -> Variant:
        """The variant that a table's row shows, one of a mixture or a model."""
        origin = Dense(row.model) if row.model else self._moe(row.mixture)
        return Variant(origin, tuple(Stage(m, r) for m, r in row.train.items()))

    def _rows(self) -> list[TableRow]:
        """The rows of all tables that show a model."""
        return [row for t in self.specs.values() for row in t.model_rows.values()]

    def equal_names(self) -> list[str]:
        """A sentence for every name that two artefacts would share: two origins (merges, dense
        models), or two variants of them. Names are looked up, never parsed, so none may."""
        shown = [self.variant(row) for row in self._rows()]
        variants = [variant for last in shown for variant in (*last.parents, last)]
        variants += [candidate for variant in variants for candidate in self.candidates(variant)]
        named = [(variant.origin.name, variant.origin) for variant in shown]
        named += [(variant.key, variant) for variant in variants]
        seen: dict[str, Moe | Dense | Variant] = {}
        clashes = [name for name, artefact in named if seen.setdefault(name, artefact) != artefact]
        return [
            f"tables: two different models would both be stored as {name}; rename one of their "
            "models, mixes, recipes or sets of prompts"
            for name in dict.fromkeys(clashes)
        ]
