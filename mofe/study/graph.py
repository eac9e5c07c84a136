"""The graph of a study: what each job makes, and from what.

Nothing else describes it. The rules take their inputs from here and estimates use the same jobs, so
the plan counts exactly the jobs that Snakemake runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mofe.study import tables
from mofe.study.plan import Plan
from mofe.study.variants import Variant

# A job's inputs by the names that its rule gives them: one address or several.
Inputs = dict[str, str | list[str]]

ALL = "all"  # the target that everything is made for


@dataclass(frozen=True)
class Node:
    """A job of the graph.

    wildcards: what distinguishes it from the rule's other jobs. inputs, outputs: addresses; the
    first output identifies the job. `all` makes no file, and its output is its name.
    """

    rule: str
    wildcards: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its wildcards as text, with seeds as in addresses: tinyllama_2tinyllama/mmlu_mofe/s0."""
        return "/".join(f"s{v}" if name == "seed" else v for name, v in self.wildcards.items())


@dataclass(frozen=True)
class Graph:
    """Every job of a plan. The methods named after rules give a job's inputs; their arguments are
    the rule's wildcards.

    figures: the files that each figure is drawn from, by its name (mofe.report.figures.inputs).
    """

    plan: Plan
    figures: Mapping[str, Sequence[str]]

    def inputs(self, rule: str, wildcards: Mapping[str, str]) -> tuple[str, ...]:
        """The addresses that a job is made from."""
        return _node(getattr(self, rule), (), **wildcards).inputs

    # ----------------------------------------------------------------------------- data and models

    def prefetch(self) -> Inputs:
        """What `all` needs; tables on demand fetch what is theirs when they are asked for."""
        return {"manifests": self.plan.of_all.manifests}

    def fetch_repository(self, repo: str) -> Inputs:
        return {}

    def claims_paper(self) -> Inputs:
        return {}

    def world(self) -> Inputs:
        return {}

    def prepare_data(self, dataset: str) -> Inputs:
        """The generated world, or the repositories that are fetched."""
        return {"read": self._world() + self.plan.fetched(self.plan.data_repositories(dataset))}

    def fetch_model(self, model: str) -> Inputs:
        return {"fetched": self.plan.fetched(self.plan.model_repositories(model))}

    def pretrain(self, model: str) -> Inputs:
        return {"world": self.plan.paths.world}

    def preflight(self, model: str) -> Inputs:
        """The models from outside the study in every mixture that this model is part of."""
        return {"models": list(self.plan.params.preflight(model)["names"])}

    def train_expert(self, model: str, seed: str) -> Inputs:
        """The model that it is fine-tuned from, of the same seed, its training sets, and those that
        are replayed."""
        spec = self.plan.study.models[model]
        return {
            "preflight": self.plan.paths.preflight(model),
            "origin": self.plan.paths.model_dir(spec.from_, seed),
            "data": [f for mix in spec.train for f in self.plan.stage_data(mix)],
            "replay": [f for mix in spec.train for f in self.plan.stage_replay(mix)],
        }

    def reinitialise(self, model: str, seed: str) -> Inputs:
        """The model that gives everything but its FFNs, of the same seed."""
        return {"origin": self.plan.paths.model_dir(self.plan.study.models[model].from_, seed)}

    # ------------------------------------------------------------------------------------ variants

    def merge(self, moe: str, seed: str | None = None) -> Inputs:
        """The dense models, and the training sets that gates are fitted to, if they are."""
        mixture = self.plan.moes[moe]
        sets = {d: None for names in self.plan.learned_from(mixture).values() for d in names}
        return {
            "dense": self.plan.merge_input(mixture, seed),
            "data": [self.plan.paths.data_file(dataset) for dataset in sets],
        }

    def merge_per_seed(self, moe: str, seed: str) -> Inputs:
        """As of `merge`; the dense models that the study fine-tunes are those of the seed."""
        return self.merge(moe, seed)

    def train(self, variant: str, seed: str) -> Inputs:
        """The merge, the trained parameters of the stages before, the training sets, those that are
        replayed, and what the search for the learning rate found, if there is one."""
        shown = self.plan.variants[variant]
        return {
            **self._origin(shown, seed),
            "parents": self.plan.trained_files(shown, seed)[:-1],
            "data": self.plan.stage_data(shown.stages[-1].mix),
            "replay": self.plan.stage_replay(shown.stages[-1].mix),
            "search": [self.plan.paths.search_json(shown)] if self.plan.search(shown) else [],
        }

    def search(self, variant: str) -> Inputs:
        """The records of every candidate: of its training, and of each task that the search
        compares."""
        plan, paths = self.plan, self.plan.paths
        runs = [(c, seed) for c in plan.searches[variant] for seed in plan.seeds(c)]
        return {
            "trainings": [paths.train_json(*run) for run in runs],
            "evaluations": [
                paths.eval_json(*run, t) for run in runs for t in plan.tasks[run[0].key]
            ],
        }

    def questions(self, model: str, task: str) -> Inputs:
        """The source of the questions, and the model whose tokenizer turns them into tokens."""
        return {
            "read": self._world() + self.plan.fetched(self.plan.task_repositories(task)),
            "tokenizer": self.plan.paths.model_dir(model),
        }

    def evaluate(self, variant: str, seed: str, task: str) -> Inputs:
        shown = self.plan.variants[variant]
        return {"asked": self.plan.paths.questions(shown, task), **self._trained(shown, seed)}

    def tokens(self, variant: str, seed: str, task: str) -> Inputs:
        """What an evaluation reads. Raises ConfigError where no token is routed by itself, before
        anything is trained."""
        self.plan.params.refuse_tokens(self.plan.variants[variant])
        return self.evaluate(variant, seed, task)

    def export(self, variant: str, seed: str) -> Inputs:
        """Raises ConfigError where no checkpoint can say how rows are routed, before anything is
        trained."""
        shown = self.plan.variants[variant]
        self.plan.params.refuse_export(shown)
        trainings = self.plan.params.export(shown, seed)["trainings"]
        return {**self._trained(shown, seed), "trainings": trainings}

    def push(self, variant: str, seed: str) -> Inputs:
        """The exported model. Raises ConfigError where the study names no repository for it, before
        anything is trained."""
        shown = self.plan.variants[variant]
        self.plan.params.push_repo(shown, seed)
        return {"model": self.plan.paths.export_dir(shown, seed)}

    # ------------------------------------------------------------------- tables, figures, the page

    def table(self, number: str) -> Inputs:
        return {"cells": self.plan.table_input(self.plan.table_key(number))}

    def table_on_demand(self, number: str) -> Inputs:
        return self.table(number)

    def claim(self, claim: str) -> Inputs:
        """The records of the cells that it compares, and the world, which knows its ceilings."""
        return {"cells": self.plan.claim_input(claim), "world": self._world()}

    def claims(self) -> Inputs:
        return {"claims": [self.plan.paths.claim(name) for name in self.plan.of_all.claims]}

    def replicated(self) -> Inputs:
        """What this study says of each claim that others are asked too."""
        return {"claims": [self.plan.paths.claim(name) for name in self.plan.replicated]}

    def replications(self) -> Inputs:
        """The same of this study and of every other one, whose results lie in other folders."""
        paths = (self.plan.paths, *self.plan.elsewhere)
        return {"claims": [p.claim(name) for p in paths for name in self.plan.replicated]}

    def figure(self, figure: str) -> Inputs:
        return {"files": list(self.figures[figure])}

    def report(self) -> Inputs:
        plan = self.plan.of_all
        return {
            "trainings": plan.train_jsons,
            "cells": tables.files(plan.tables.values()),
            "claims": plan.paths.claims("json"),
            "replications": [plan.paths.replications("json")] if plan.elsewhere else [],
            "figures": [plan.paths.figure(name, "png") for name in self.figures],
            "data": [plan.paths.data_counts(dataset) for dataset in plan.datasets],
        }

    def pdf(self) -> Inputs:
        return {
            "tables": [self.plan.paths.table(number, "tex") for number in self.plan.of_all.tables],
            "figures": [self.plan.paths.figure(name, "pdf") for name in self.figures],
        }

    def archive(self) -> Inputs:
        """Everything that a reader needs to check the numbers, without weights: what `all` makes,
        and the records that it is made from."""
        plan = self.plan.of_all
        evaluated = [
            (plan.variants[key], seed, task)
            for key, tasks_ in plan.tasks.items()
            for task in tasks_
            for seed in plan.seeds(plan.variants[key])
        ]
        return {
            **self.all(),
            "verdicts": [plan.paths.claim(name) for name in plan.claims],
            "evaluations": [plan.paths.eval_json(*run) for run in evaluated],
            "answers": [plan.paths.answers(*run) for run in evaluated],
            "trainings": plan.train_jsons,
            "losses": [
                plan.paths.loss_log(v, seed)
                for v in plan.trained.values()
                for seed in plan.seeds(v)
            ],
            "data": [plan.paths.data_counts(dataset) for dataset in plan.datasets],
        }

    def all(self) -> Inputs:
        return {
            "tables": [f for number in self.plan.of_all.tables for f in self._table_files(number)],
            "figures": [f for name in self.figures for f in self._figure_files(name)],
            "claims": self._claims_files(),
            "report": self.plan.paths.report,
        }

    # ------------------------------------------------------------------------------------ the jobs

    @cached_property
    def jobs(self) -> tuple[Node, ...]:
        """Every job that `all` and the tables on demand may need, each after those that it waits
        for."""
        return tuple(self._jobs())

    @cached_property
    def on_demand(self) -> tuple[Node, ...]:
        """The jobs that neither `all` nor a table needs."""
        return tuple(self._on_demand())

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The job that makes each address."""
        return {output: job for job in (*self.jobs, *self.on_demand) for output in job.outputs}

    def needed(self, *targets: str) -> list[Node]:
        """The jobs that make these addresses from nothing, each after those that it waits for."""
        makers = {output: job for job in self.jobs for output in job.outputs}
        wanted, open_ = set(), list(targets)
        while open_:
            job = makers.get(open_.pop())  # nothing makes a model's own folder
            if job and job.outputs[0] not in wanted:
                wanted.add(job.outputs[0])
                open_ += job.inputs
        return [job for job in self.jobs if job.outputs[0] in wanted]

    def _jobs(self) -> Iterator[Node]:
        plan, paths, models = self.plan, self.plan.paths, self.plan.study.models
        if plan.study.world:
            yield _node(self.world, [paths.world])
        for repo in () if plan.study.mirror else plan.repositories:
            yield _node(self.fetch_repository, [paths.manifest(repo)], repo=repo)
        for name in plan.datasets:
            files = [paths.data_file(name), paths.data_counts(name)]
            yield _node(self.prepare_data, files, dataset=name)
        for name in plan.models:
            if models[name].hub:
                yield _node(self.fetch_model, [paths.model_dir(name)], model=name)
            elif models[name].scratch:
                yield _node(self.pretrain, [paths.model_dir(name)], model=name)
        for name in plan.models:
            if models[name].train:
                yield _node(self.preflight, [paths.preflight(name)], model=name)
            for seed in map(str, plan.study.seeds if models[name].from_ else ()):
                rule = self.train_expert if models[name].train else self.reinitialise
                yield _node(rule, [paths.model_dir(name, seed)], model=name, seed=seed)
        for name, moe in plan.moes.items():
            if not (seeds := plan.merge_seeds(moe)):
                yield _node(self.merge, [paths.moe_dir(moe)], moe=name)
            for seed in map(str, seeds):
                yield _node(self.merge_per_seed, [paths.moe_dir(moe, seed)], moe=name, seed=seed)
        yield from self._runs()
        for number, spec in plan.specs.items():
            rule = self.table_on_demand if spec.on_demand else self.table
            yield _node(rule, self._table_files(number), number=str(number))
        for name in plan.claims:
            yield _node(self.claim, [paths.claim(name)], claim=name)
        yield _node(self.claims, self._claims_files())
        if plan.elsewhere:
            yield _node(self.replications, [paths.replications(kind) for kind in ("json", "md")])
        for name in self.figures:
            yield _node(self.figure, self._figure_files(name), figure=name)
        yield _node(self.report, [paths.report])
        yield _node(self.all, [ALL])

    def _on_demand(self) -> Iterator[Node]:
        plan, paths = self.plan, self.plan.paths
        exported = {k: v for k, v in plan.variants.items() if not plan.routes_rows(v.origin)}
        for key, variant in exported.items():
            for seed in plan.seeds(variant):
                named = {"variant": key, "seed": str(seed)}
                yield _node(self.export, [paths.export_dir(variant, seed)], **named)
                if plan.study.export.push is not None:
                    yield _node(self.push, [paths.pushed(variant, seed)], **named)
                for task in plan.tasks.get(key, ()) if variant.origin.experts else ():
                    page = paths.tokens(variant, seed, task)
                    yield _node(self.tokens, [page], **named, task=task)
        yield _node(self.claims_paper, [paths.claims_paper])
        yield _node(self.pdf, [paths.pdf])
        yield _node(self.archive, [paths.archive])

    def _runs(self) -> Iterator[Node]:
        """Questions, trainings after their searches, and evaluations."""
        plan, paths = self.plan, self.plan.paths
        asked = {
            paths.questions(plan.variants[key], task): (plan.variants[key].origin.base, task)
            for key, tasks in plan.tasks.items()
            for task in tasks
        }
        for file, (base, task) in asked.items():
            yield _node(self.questions, [file], model=plan.study.tokenizer(base), task=task)
        for key, variant in plan.trained.items():
            if candidates := plan.candidates(variant):
                for candidate in candidates:
                    yield from self._trainings(candidate)
                    yield from self._evaluations(candidate)
                yield _node(self.search, [paths.search_json(variant)], variant=key)
            yield from self._trainings(variant)
        for key in plan.tasks:
            if not plan.variants[key].is_candidate:
                yield from self._evaluations(plan.variants[key])

    def _trainings(self, variant: Variant) -> Iterator[Node]:
        paths = self.plan.paths
        for seed in self.plan.seeds(variant):
            files = [paths.train_json(variant, seed), paths.trained(variant, seed)]
            files.append(paths.loss_log(variant, seed))
            yield _node(self.train, files, variant=variant.key, seed=str(seed))

    def _evaluations(self, variant: Variant) -> Iterator[Node]:
        for task in self.plan.tasks[variant.key]:
            for seed in self.plan.seeds(variant):
                files = [self.plan.paths.eval_json(variant, seed, task)]
                files.append(self.plan.paths.answers(variant, seed, task))
                yield _node(self.evaluate, files, variant=variant.key, seed=str(seed), task=task)

    # ----------------------------------------------------------------------------------- internals

    def _world(self) -> list[str]:
        return [self.plan.paths.world] if self.plan.study.world else []

    def _origin(self, variant: Variant, seed: str) -> Inputs:
        """The merge with the dense models that it refers to, or the dense model itself."""
        folder = self.plan.paths.origin_dir(variant, seed)
        return {"merge": folder, "dense": self.plan.dense_input(variant, seed)}

    def _trained(self, variant: Variant, seed: str) -> Inputs:
        """Everything that a trained model is loaded from."""
        return {**self._origin(variant, seed), "trained": self.plan.trained_files(variant, seed)}

    def _table_files(self, number: int | str) -> list[str]:
        return [self.plan.paths.table(number, kind) for kind in ("tex", "md", "csv")]

    def _claims_files(self) -> list[str]:
        return [self.plan.paths.claims(kind) for kind in ("json", "csv", "md", "tex")]

    def _figure_files(self, name: str) -> list[str]:
        return [self.plan.paths.figure(name, kind) for kind in ("pdf", "png")]


def _node(inputs: Callable[..., Inputs], outputs: Iterable[str], **wildcards: str) -> Node:
    """The job of the rule that `inputs` is named after."""
    given = inputs(**wildcards).values()
    files = (f for part in given for f in ([part] if isinstance(part, str) else part))
    return Node(inputs.__name__, wildcards, tuple(dict.fromkeys(files)), tuple(outputs))
