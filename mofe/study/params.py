"""What each job reads from the configuration: only what it depends on, so that a change of a key
reruns what depends on that key and nothing else. Plain data, which Snakemake compares between
runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mofe.study.addresses import Addresses
from mofe.study.config import Study
from mofe.study.gates import NONE, shuffled
from mofe.study.values import ConfigError
from mofe.study.variants import Moe, Stage, Variant

if TYPE_CHECKING:
    from mofe.study.plan import Plan


@dataclass(frozen=True)
class Params:
    """The parameters of every job of a plan."""

    plan: Plan

    @property
    def study(self) -> Study:
        return self.plan.study

    @property
    def paths(self) -> Addresses:
        return self.plan.paths

    def data(self, dataset: str) -> dict[str, Any]:
        """All keys that a prepared training set depends on."""
        study, data = self.study, self.study.data[dataset]
        return {
            "data": _plain(data, without={"tokens"}),
            "source": self._source(data.source),
            # training rows are rendered without examples, whatever the evaluation shows
            "task": {**self._reads(data.task), "shots": 0, "cluster": None} if data.task else None,
            "seed": study.sampling_seed,
            "mirror": self.paths.mirror,
        }

    def task(self, task: str) -> dict[str, Any]:
        """All keys that a task's questions depend on. Held-out rows are asked as they are trained
        on."""
        study, spec = self.study, self.study.tasks[task]
        if spec.held_out:
            data = self.data(spec.held_out)
            drawn = {"set": spec.held_out, "data": data, "questions": spec.questions}
            held = {"name": task, "cluster": spec.cluster, "held_out": drawn}
            if study.asks_text(task):
                return {**held, "max_length": study.training.max_length, **self._begins()}
            return {**data["task"], **held, **self._begins()}
        # what changes nothing is left out, so that it reruns nothing
        asked = {"shots_seed": study.shots_seed} if study.shots else {}
        asked |= {"sample": spec.sample} if spec.sample else {}
        return {**self._reads(task), **asked, **self._begins()}

    def _reads(self, task: str) -> dict[str, Any]:
        """How a task reads rows and asks them, whichever of them are asked."""
        study, spec = self.study, self.study.tasks[task]
        own = ("columns", "subset", "split", "test_share", "examples")
        mcq = {"mcq": {key: _plain(spec)[key] for key in own}} if spec.columns else {}
        return {
            **mcq,
            "name": task,
            "harness": spec.harness,
            "source": self._source(spec.source),
            "cluster": spec.cluster,
            "scoring": study.scoring,
            "shots": study.shots,
            "seed": study.sampling_seed,
            "mirror": self.paths.mirror,
        }

    def _begins(self) -> dict[str, bool]:
        """Whether texts begin with special tokens, where that is not the usual."""
        return {} if self.study.add_bos_token else {"add_bos_token": False}

    def model(self, model: str) -> dict[str, Any]:
        """What makes a dense model: its stage of training, or what of it is drawn anew, or its
        pretraining, or its repository."""
        spec = self.study.models[model]
        if spec.reinitialise:
            drawn = [name for name, other in self.study.models.items() if other.reinitialise]
            # what changes nothing is left out, so that it reruns nothing
            draw = {"draw": drawn.index(model)} if drawn.index(model) else {}
            return {"reinitialise": spec.reinitialise, **draw, "dtype": self.expert_dtype(model)}
        if spec.train:
            ((mix, recipe),) = spec.train.items()
            return {**self.stage(Stage(mix, recipe)), "dtype": self.expert_dtype(model)}
        if spec.scratch:
            return {
                "shape": _plain(spec.scratch.shape),
                "seed": spec.scratch.seed,
                "training": self._training(spec.scratch.training),
            }
        return {"hub": spec.hub, "revision": spec.revision, "mirror": self.paths.model_mirror}

    def expert_dtype(self, model: str) -> str:
        """The type that a dense model made here from another is stored in. It is the merges' dtype:
        every merge rounds the model to it anyway, so nothing is lost. It is float32 if another
        model is made from this one, and in a CPU study, whose models are small."""
        an_origin = any(self.study.models[other].from_ == model for other in self.plan.models)
        exact = an_origin or self.study.device == "cpu"
        return "float32" if exact else self.study.merge.dtype

    def merge(self, moe: str, seed: int | str | None = None) -> dict[str, Any]:
        """The merge's settings, and the prompts of every slot. seed: of the dense models in it
        that the study fine-tunes. The router of a mixture of one expert chooses nothing: its
        gate_mode is "none"."""
        mixture = self.plan.moes[moe]
        merge, gates = self.plan.merge_of(mixture), self.plan.gates(mixture)
        settings = _plain(merge, without={"prompts", "ridge"})
        if len(mixture.experts) == 1:
            settings["gate_mode"] = NONE
        if settings["gate_mode"] == "random":
            settings["seed"] = self.study.sampling_seed
        if gates.learned:
            settings["ridge"] = self._ridge(mixture)
        folders = {name: self.paths.model_dir(name, seed) for name in mixture.models}
        slots = [
            {"model": folders[expert], "positive": positive, "negative": negative}
            for expert, (positive, negative) in zip(
                mixture.experts, self._prompts(mixture), strict=True
            )
        ]
        names = {folder: model for model, folder in folders.items()}
        return {**settings, "base": folders[mixture.base], "slots": slots, "names": names}

    def _prompts(self, mixture: Moe) -> list[tuple[list[str], list[str]]]:
        """The positive and negative prompts that each slot's gates are made from."""
        gates, models = self.plan.gates(mixture), mixture.experts
        if not gates.listed:
            return [([], [])] * len(models)
        chosen, found = self.plan.merge_of(mixture), []
        for slot, model in enumerate(models):
            prompts = self.study.models[model].gates.named(chosen.prompts)
            positive = prompts.positive[models[:slot].count(model)]
            found.append((list(positive), list(prompts.negative)))
        order = shuffled(models) if chosen.gate_mode == "shuffled" else range(len(models))
        return [found[slot] for slot in order]

    def _ridge(self, mixture: Moe) -> dict[str, Any]:
        """What ridge gates are fitted to, and how: by expert model, the files of its training
        sets."""
        return {
            **_plain(self.study.merge.ridge),
            "seed": self.study.sampling_seed,
            "data": {
                expert: [self.paths.data_file(dataset) for dataset in sets]
                for expert, sets in self.plan.learned_from(mixture).items()
            },
            **self._begins(),
        }

    def stage(self, stage: Stage, experts: Sequence[str] = ()) -> dict[str, Any]:
        """A stage's resolved recipe: the method, its settings, and the training's. The learning
        rate is null where the job reads it from what its search found. `record_router` is left
        out: whether there is a router depends on the model (`training`). experts: the models in the
        slots of the mixture that is trained; none of a dense model."""
        recipe = self.study.recipes[stage.recipe]
        mix = self.study.mixes.get(stage.mix)
        training = self._training(*([mix.training] if mix else []), recipe.training)
        searched = {"learning_rate": stage.rate} if recipe.search else {}
        method, replay = self.method(stage, experts), self.plan.replay(stage.mix)
        drawn = {"share": replay.share, "seed": self.study.sampling_seed} if replay else None
        return {
            **method,
            "training": training | searched,
            **({"replay": drawn} if drawn else {}),
            **self._begins(),
        }

    def training(self, variant: Variant) -> dict[str, Any]:
        """The parameters of a variant's training: of its last stage, and where rows are routed by
        their domain, the domain of each of its training sets."""
        stage, plan = self.stage(variant.stages[-1], variant.origin.experts), self.plan
        if plan.routes_rows(variant.origin):
            read = (self.study.data[name] for name in plan.read_by(variant.stages[-1].mix))
            stage["domains"] = [plan.domain(variant.origin, data.source) for data in read]
        if (every := self.record_router(variant)) is not None:
            stage["training"] |= {"record_router": every}
        return stage

    def record_router(self, variant: Variant) -> int | None:
        """Every how many steps a variant's training records its routers; None where it does not.
        Only a mixture has routers, and nobody looks at those of a search's candidate."""
        if not variant.stages or not variant.origin.experts or variant.is_candidate:
            return None
        stage, study = variant.stages[-1], self.study
        mix, recipe = study.mixes.get(stage.mix), study.recipes[stage.recipe]
        parts = [recipe.training, *([mix.training] if mix else []), study.training]
        return next((p.record_router for p in parts if p.record_router is not None), None)

    def asked(self, variant: Variant, task: str) -> dict[str, Any]:
        """A task that a variant is asked; where rows are routed by their domain, with its
        domain."""
        if not self.plan.routes_rows(variant.origin):
            return self.task(task)
        spec = self.study.tasks[task]
        source = self.study.data[spec.held_out].source if spec.held_out else spec.source
        return {**self.task(task), "domain": self.plan.domain(variant.origin, source)}

    def method(self, stage: Stage, experts: Sequence[str] = ()) -> dict[str, Any]:
        """The method and its settings: what is needed to rebuild the trained model. experts: as of
        `stage`."""
        return {"recipe": stage.recipe, **self.plan.method_of(stage, experts).settings()}

    def chain(self, variant: Variant) -> list[dict[str, Any]]:
        """The methods of a variant's stages, first stage first."""
        return [self.method(s, variant.origin.experts) for s in variant.stages]

    def export(self, variant: Variant, seed: int | str) -> dict[str, Any]:
        """What an exported model's weights and its card depend on."""
        study, origin, stages = self.study, variant.origin, variant.stages
        dense = [m for n in origin.models for m in self.study.lineage(n)]
        mixes = [m for name in dict.fromkeys(dense) for m in study.models[name].train or ()]
        datasets = dict.fromkeys(
            d for m in (*mixes, *(s.mix for s in stages)) for d in self.plan.read_by(m)
        )
        parts = (*variant.parents, variant) if stages else ()
        return {
            "study": study.study,
            "dtype": study.merge.dtype,
            "base": origin.base,
            "experts": {e: origin.experts.count(e) for e in origin.experts},
            "models": {name: self._origin(name) for name in dict.fromkeys(dense)},
            "chain": self.chain(variant),
            "training": [self.stage(s)["training"] for s in stages],
            "data": [
                {
                    "name": name,
                    **_plain(study.data[name]),
                    "source": _plain(study.sources[study.data[name].source]),
                }
                for name in datasets
            ],
            "read_from": "world" if study.world else "mirror" if study.mirror else "hub",
            "trainings": [self.paths.train_json(v, seed) for v in parts],
            "evaluations": [
                self.paths.eval_json(variant, seed, task)
                for task in self.plan.tasks.get(variant.key, ())
            ],
            "manifests": self.plan.manifests,
            "license": study.export.license,
        }

    def refuse_export(self, variant: Variant) -> None:
        """Raise ConfigError where a variant routes rows by their domain, as no checkpoint can."""
        if self.plan.routes_rows(variant.origin):
            told = f"gate_mode 'oracle' routes the rows of {variant.key} by their data's source"
            how = "export a variant of another gate_mode"
            raise ConfigError([f"{told}, which no checkpoint can; {how}"])

    def refuse_tokens(self, variant: Variant) -> None:
        """Raise ConfigError where a variant routes rows by their domain, and so no token by
        itself."""
        if self.plan.routes_rows(variant.origin):
            told = f"gate_mode 'oracle' routes whole rows of {variant.key}, not tokens, so "
            how = "there are no experts to show of each; ask for a variant of another gate_mode"
            raise ConfigError([told + how])

    def _origin(self, model: str) -> dict[str, Any]:
        """Where a dense model comes from, for a card."""
        spec = self.study.models[model]
        # what says nothing is left out, so that it reruns nothing
        return _choice(_plain(spec, without=None if spec.reinitialise else {"reinitialise"}))

    def preflight(self, model: str) -> dict[str, Any]:
        """What must fit together before this dense expert is trained: the pairs (base, expert) of
        models from outside the study in every mixture that it is part of, and their names."""
        mixtures = [m for m in self.plan.moes.values() if model in self.plan.members(m)]
        pairs = {
            (self.study.lineage(moe.base)[0], self.study.lineage(expert)[0]): None
            for moe in mixtures
            for expert in moe.experts
        }
        names = {self.paths.model_dir(name): name for pair in pairs for name in pair}
        folders = [[self.paths.model_dir(name) for name in pair] for pair in pairs]
        return {"pairs": folders, "names": names}

    def conditions(self) -> dict[str, Any]:
        """What every verdict depends on besides its records (mofe.report.judge.Conditions)."""
        study = self.study
        return {
            "study": study.study,
            "scale": study.scale,
            "margin": study.evidence.margin,
            "exclusive": study.hardware.exclusive,
        }

    def claim(self, claim: str) -> dict[str, Any]:
        """A claim as the configuration has it."""
        return self.study.claims[claim].model_dump(mode="json")

    def push_repo(self, variant: Variant, seed: int | str) -> str:
        """The hub repository that an exported model is pushed to. Raises ConfigError where the
        study names none: nothing is pushed unless the user asks for it."""
        if (prefix := self.study.export.push) is None:
            how = "set it to org/name, with which the repository's name begins"
            raise ConfigError([f"export.push is null, so nothing is pushed; {how}"])
        return f"{prefix}-{variant.key.replace('/', '-')}-s{seed}"

    def assumptions(self) -> list[dict[str, Any]]:
        """The choices where the paper is silent that this study makes, with the values that it
        uses: those under keys that nothing planned depends on are left out."""
        return [
            {
                "item": assumption.item,
                "key": assumption.key,
                "choice": _choice(self.study.value_at(assumption.key)),
                "evidence": self.study.with_values(assumption.evidence),
            }
            for assumption in self.study.assumptions
            if self.is_made(assumption.key)
        ]

    def is_made(self, key: str) -> bool:
        """Whether something that is planned depends on a key of the configuration, as far as the
        names of its parts tell."""
        section, _, rest = key.partition(".")
        return section not in self._planned or rest.split(".")[0] in self._planned[section]

    @cached_property
    def _planned(self) -> dict[str, set[str]]:
        """By section, the names of its entries that something planned is made from. Without a
        training there is no `training`, and without a merge no `merge`."""
        plan, models = self.plan, self.study.models
        stages = [stage for variant in plan.trained.values() for stage in variant.stages]
        dense = [pair for name in plan.models for pair in (models[name].train or {}).items()]
        rows = [r for t in self.plan.specs.values() for r in t.model_rows.values()]
        searched = {plan.method(variant).search for variant in plan.trained.values()}
        planned = {
            "models": set(plan.models),
            "mixtures": {row.mixture for row in rows if row.mixture},
            "mixes": {stage.mix for stage in stages} | {mix for mix, _ in dense},
            "recipes": {stage.recipe for stage in stages} | {recipe for _, recipe in dense},
            "data": set(plan.datasets),
            "tasks": {task for tasks in plan.tasks.values() for task in tasks},
            "searches": searched - {None},
        }
        nothing = {} if stages or dense else {"training": set()}
        return planned | nothing | ({} if plan.moes else {"merge": set()})

    def _source(self, name: str) -> dict[str, Any]:
        """The keys that decide a source's rows. The generated world has files of its own names."""
        spec = self.study.sources[name]
        known: dict[str, Any] = {"repo": spec.repo, "revision": spec.revision}
        if not self.study.world:
            known["files"] = list(spec.files)
        if spec.sample:
            drawn = {"files": spec.files, "rows": spec.sample, "seed": self.study.sampling_seed}
            known["sample"] = drawn
        return known

    def _training(self, *overrides) -> dict[str, Any]:
        resolved = _plain(self.study.training)
        for override in overrides:
            resolved.update({k: v for k, v in _plain(override).items() if v is not None})
        del resolved["record_router"]
        return resolved


def _plain(part, without: set[str] | None = None) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude=without)


def _choice(value: Any) -> Any:
    """A key's value without its long parts (a model's prompts and sizes) and without what only
    estimates use."""
    aside = {"gates", "shape", "questions", "tokens", "generated"}
    return {k: v for k, v in value.items() if k not in aside} if isinstance(value, dict) else value
