"""What each job is given: the parameters of every rule, by name.

The methods are named after rules, as those of `mofe.study.graph.Graph`, and their arguments are the
rule's wildcards. All values are plain data (None, booleans, numbers, texts, lists, tuples and
mappings of them): Snakemake compares the values of two runs by their `repr`, and leaves out without
a word what is of any other type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mofe.study import hours, tables
from mofe.study.config import WATCHING
from mofe.study.plan import Plan
from mofe.study.variants import Variant

Values = dict[str, Any]

SHOWN_QUESTIONS = 24  # on a page of tokens; of a task with fewer, all


@dataclass(frozen=True)
class Given:
    """The parameters of every job of a plan.

    figures: by name, what a figure is drawn from (`spec`) and its `caption`. trainings: what the
    report's trainings are of. published: mofe.paper.digest(). command: what makes a file of the
    study. config: the merged configuration.
    """

    plan: Plan
    figures: Mapping[str, Mapping[str, Any]]
    trainings: Sequence[Any] = ()
    published: str = ""
    command: str = ""
    config: Mapping[str, Any] | None = None

    def of(self, rule: str, wildcards: Mapping[str, str]) -> Values:
        """The parameters of a job."""
        return getattr(self, rule)(**dict(wildcards.items()))

    def also_read(self, rule: str, wildcards: Mapping[str, str]) -> list[str]:
        """Files that other jobs make and that a job reads where they are there, without waiting for
        them: those of an exported model's card."""
        if rule != "export":
            return []
        params = self.of(rule, wildcards)["model"]
        return [*params["evaluations"], *params["manifests"]]

    # ----------------------------------------------------------------------------- data and models

    def prefetch(self) -> Values:
        return {"instead": self.plan.paths.mirror}

    def fetch_repository(self, repo: str) -> Values:
        return {"repository": asdict(self.plan.repositories[repo])}

    def world(self) -> Values:
        world = self.plan.study.world
        return {"world": world.model_dump() if world else None}

    def prepare_data(self, dataset: str) -> Values:
        return {"data": self.plan.params.data(dataset)}

    def fetch_model(self, model: str) -> Values:
        return {"model": self.plan.params.model(model)}

    def pretrain(self, model: str) -> Values:
        return {"model": self.plan.params.model(model)}

    def preflight(self, model: str) -> Values:
        return {"models": self.plan.params.preflight(model)}

    def train_expert(self, model: str, seed: str) -> Values:
        return {"stage": self.plan.params.model(model)}

    def reinitialise(self, model: str, seed: str) -> Values:
        return {"model": self.plan.params.model(model)}

    # ------------------------------------------------------------------------------------ variants

    def merge(self, moe: str, seed: str | None = None) -> Values:
        return {"merge": self.plan.params.merge(moe, seed)}

    def merge_per_seed(self, moe: str, seed: str) -> Values:
        return self.merge(moe, seed)

    def train(self, variant: str, seed: str) -> Values:
        shown = self.plan.variants[variant]
        return {
            "stage": self.plan.params.training(shown),
            "chain": self.plan.params.chain(shown)[:-1],
            "names": _names(shown),
        }

    def search(self, variant: str) -> Values:
        return {"names": _names(self.plan.variants[variant])}

    def questions(self, model: str, task: str) -> Values:
        return {"task": self.plan.params.task(task)}

    def evaluate(self, variant: str, seed: str, task: str) -> Values:
        shown = self.plan.variants[variant]
        return {
            "task": self.plan.params.asked(shown, task),
            "chain": self.plan.params.chain(shown),
            "names": _names(shown),
        }

    def tokens(self, variant: str, seed: str, task: str) -> Values:
        shown = self.plan.variants[variant]
        return {
            "chain": self.plan.params.chain(shown),
            "names": _names(shown),
            "slots": list(shown.origin.experts),
            "drawn": {"questions": SHOWN_QUESTIONS, "seed": self.plan.study.sampling_seed},
            "setting": asdict(self.plan.study.setting),
        }

    def export(self, variant: str, seed: str) -> Values:
        shown = self.plan.variants[variant]
        return {"model": self.plan.params.export(shown, seed), "names": _names(shown)}

    def push(self, variant: str, seed: str) -> Values:
        return {"repo": self.plan.params.push_repo(self.plan.variants[variant], seed)}

    # ------------------------------------------------------------------- tables, figures, the page

    def table(self, number: str) -> Values:
        (table,) = tables.bare([self.plan.tables[self.plan.table_key(number)]])
        return {"table": table, **self._shown()}

    def table_on_demand(self, number: str) -> Values:
        return self.table(number)

    def figure(self, figure: str) -> Values:
        return {**self.figures[figure], **self._shown()}

    def claim(self, claim: str) -> Values:
        return {
            "claim": self.plan.params.claim(claim),
            "tables": tables.bare(self.plan.claims[claim] or []),
            "conditions": self.plan.params.conditions(),
            "seeds": self._seeds,
            "published": self.published,
        }

    def claims(self) -> Values:
        return {"seeds": self._seeds, "published": self.published}

    def replications(self) -> Values:
        claims = {name: self.plan.params.claim(name) for name in self.plan.replicated}
        return {"claims": claims, "published": self.published}

    def claims_paper(self) -> Values:
        claims = {name: self.plan.params.claim(name) for name in self.plan.study.claims}
        return {"claims": claims, "published": self.published}

    def report(self) -> Values:
        study, plan = self.plan.study, self.plan.of_all
        return {
            "tables": tables.bare(plan.tables.values()),
            "captions": self._captions,
            "assumptions": plan.params.assumptions(),
            "datasets": list(plan.datasets),
            "trainings": list(self.trainings),
            "mixes": plan.mixes,
            "device": study.device,
            "command": self.command,
            "notes": list(study.notes),
            "questions": {
                str(number): {
                    "question": spec.question,
                    "limits": spec.limits,
                    "hours": hours.at_papers_scale(str(number), spec.question),
                }
                for number, spec in plan.specs.items()
                if spec.question
            },
            **self._shown(),
        }

    def pdf(self) -> Values:
        return {
            "numbers": list(self.plan.of_all.tables),
            "captions": self._captions,
            "setting": asdict(self.plan.study.setting),
        }

    def archive(self) -> Values:
        study = self.plan.study
        config = {k: v for k, v in (self.config or {}).items() if k not in WATCHING}
        return {"config": config, "study": study.study, "scale": study.scale}

    # ----------------------------------------------------------------------------------- internals

    @property
    def _seeds(self) -> int:
        return len(self.plan.study.seeds)

    @property
    def _captions(self) -> list[str]:
        return [figure["caption"] for figure in self.figures.values()]

    def _shown(self) -> Values:
        """What everything that shows the study's numbers depends on."""
        setting = asdict(self.plan.study.setting)
        return {"seeds": self._seeds, "setting": setting, "published": self.published}


def _names(variant: Variant) -> dict[str, str]:
    """The names that a record has of its variant."""
    return {"moe": variant.origin.name, "stages": variant.name}
