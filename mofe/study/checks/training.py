"""What is trained, by which recipe, and for how long."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mofe.study.checks.tables import shown_rows
from mofe.study.config import Sizes, Study
from mofe.study.formats import FORMATS
from mofe.study.plan import Plan
from mofe.study.values import TOKENS_UPDATED
from mofe.study.variants import Stage, Variant


class Trained(NamedTuple):
    """What is trained: its key path, the models in its slots (none: it is dense), its name for a
    sentence, the model whose attention it has, and its stages."""

    where: str
    experts: tuple[str, ...]
    named: str
    base: str
    stages: Mapping[str, str]


def trained(plan: Plan) -> Iterator[Trained]:
    """Every dense model and every row of a table that is trained."""
    study = plan.study
    for name in plan.models:
        if stages := study.models[name].train:
            yield Trained(f"models.{name}", (), "the model", name, stages)
    for where, row in shown_rows(study):
        if row.mixture:
            moe, named = plan.variant(row).origin, f"mixture '{row.mixture}'"
            yield Trained(where, moe.experts, named, moe.base, row.train)
        else:
            yield Trained(where, (), f"model '{row.model}'", row.model, row.train)


def chains(study: Study) -> Iterator[str]:
    """A quantised stage must be the last one: no plain model has its weights."""
    for where, row in shown_rows(study):
        for recipe in list(row.train.values())[:-1]:
            if study.recipes[recipe].is_quantized:
                yield (
                    f"{where}.train: no stage can follow the quantised recipe '{recipe}'; make it "
                    "the last"
                )


def quantized_experts(plan: Plan) -> Iterator[str]:
    """Dense experts are trained without quantised weights."""
    for name in plan.models:
        for recipe in (plan.study.models[name].train or {}).values():
            if held_in := plan.study.recipes[recipe].held_in:
                yield (
                    f"models.{name}.train: recipe '{recipe}' holds weights in "
                    f"{FORMATS[held_in].bits} bits, and a dense expert is stored as a plain model; "
                    "name a recipe without 'quantize'"
                )


def methods(plan: Plan) -> Iterator[str]:
    """A recipe's method must be able to train the mixture or the dense model."""
    study = plan.study
    for model in trained(plan):
        tied = getattr(_sizes(study, model.base), "tie_word_embeddings", False)
        for recipe in model.stages.values():
            method = study.recipes[recipe].in_slots(model.experts)
            if reason := method.misfit(len(model.experts), model.named, tied):
                yield f"{model.where}.train: recipe '{recipe}' {reason}"


def _sizes(study: Study, model: str) -> Sizes | None:
    """The sizes that the configuration states of the model that this one comes from."""
    origin = study.models[study.lineage(model)[0]]
    return origin.scratch.shape if origin.scratch else origin.shape


def lengths(plan: Plan) -> Iterator[str]:
    """No training may have rows that are longer than the model, where its shape is known."""
    study, told = plan.study, {}
    for name in plan.models:
        if scratch := study.models[name].scratch:
            own = scratch.training.max_length
            key = f"models.{name}.scratch.training.max_length" if own else "training.max_length"
            told[key, name] = own or study.training.max_length
    for model in trained(plan):
        for mix, recipe in model.stages.items():
            stage = Stage(mix, recipe)
            length = plan.params.stage(stage)["training"]["max_length"]
            told[set_by(study, stage, "max_length"), study.lineage(model.base)[0]] = length
    for (key, name), length in told.items():
        sizes = _sizes(study, name)
        if sizes and length > sizes.max_position_embeddings:
            yield too_long(key, length, sizes.max_position_embeddings, name)


def too_long(key: str, length: int, positions: int, model: str) -> str:
    """The sentence on a longest row that a model has no positions for."""
    return f"{key}: {length} is more than the {positions} positions of models.{model}; lower it"


def warm_up(plan: Plan) -> Iterator[str]:
    """A warm-up must end before its training does."""
    for stage, training, steps in _known_steps(plan):
        if training["warmup_steps"] >= steps:
            yield (
                f"{set_by(plan.study, stage, 'warmup_steps')}: {training['warmup_steps']} steps of "
                f"warm-up leave none of the {steps} steps of recipe '{stage.recipe}' on mix "
                f"'{stage.mix}'; lower it"
            )


def unfreezing(plan: Plan) -> Iterator[str]:
    """What is updated after a part of the steps needs a step before and one after."""
    for stage, _, steps in _known_steps(plan):
        if steps < 2 and plan.study.recipes[stage.recipe].unfrozen_slots(1):
            yield (
                f"recipes.{stage.recipe}.unfreeze: needs 2 optimiser steps, and training on mix "
                f"'{stage.mix}' has {steps}; lower {set_by(plan.study, stage, 'global_batch')}, or "
                "leave it out"
            )


def _known_steps(plan: Plan) -> Iterator[tuple[Stage, Mapping[str, Any], int]]:
    """Every stage of a training with its `training` keys and optimiser steps, as far as the number
    of rows is known: raw text is cut into more rows, and `full` takes all."""
    study = plan.study
    stages = [s for v in plan.trained.values() for s in v.stages[-1:]]
    trains = [study.models[name].train or {} for name in plan.models]
    stages += [Stage(mix, recipe) for train in trains for mix, recipe in train.items()]
    for stage in dict.fromkeys(stages):
        sets = [study.data[name] for name in plan.mix(stage.mix)]
        if any(data.text or data.rows == "full" for data in sets):
            continue
        training, replay = plan.params.stage(stage)["training"], plan.replay(stage.mix)
        rows = sum(data.rows for data in sets)
        rows += round(rows * replay.beside) if replay else 0
        yield stage, training, training["epochs"] * math.ceil(rows / training["global_batch"])


def replayed(plan: Plan) -> Iterator[str]:
    """What is replayed with a mix is not the mix's own."""
    for name in plan.trained_on:
        for dataset in sorted(set(plan.replayed(name)) & set(plan.mix(name))):
            yield (
                f"mixes.{name}.replay.data: '{dataset}' is one of the mix's own sets; name others"
            )
        for dataset, times in Counter(plan.replayed(name)).items():
            if times > 1:
                yield f"mixes.{name}.replay.data: '{dataset}' is named {times} times; name it once"


def recorded(plan: Plan) -> Iterator[str]:
    """Where tokens went is known of mixtures whose last training updates none of the experts, or
    all, or records its routers."""
    study = plan.study
    for name in plan.models:
        scratch = study.models[name].scratch
        if scratch and scratch.training.record_router is not None:
            yield (
                f"models.{name}.scratch.training.record_router: a dense model has no router; leave "
                "it out"
            )
    for number, table in study.tables.items():
        shown = {**table.columns, **(table.beside or {})}
        for heading in (h for h, kind in shown.items() if kind == TOKENS_UPDATED):
            for name, row in table.model_rows.items():
                if not _tells_tokens(plan, plan.variant(row)):
                    yield (
                        f"tables.{number}.rows.{name}: column {heading!r} shows "
                        f"'{TOKENS_UPDATED}', which this row's training does not record; set "
                        "training.record_router to a number of steps, or leave the column out"
                    )


def _tells_tokens(plan: Plan, variant: Variant) -> bool:
    """Whether a variant's training tells where tokens went, or has nothing to tell of it."""
    if not variant.stages or not variant.origin.experts:
        return True
    return plan.share_to_updated(variant) is not None or bool(plan.params.record_router(variant))


def set_by(study: Study, stage: Stage, key: str) -> str:
    """The path of the key that decides a setting of a stage's training."""
    mix, recipe = study.mixes.get(stage.mix), study.recipes[stage.recipe]
    if getattr(recipe.training, key) is not None:
        return f"recipes.{stage.recipe}.training.{key}"
    by_mix = mix is not None and getattr(mix.training, key) is not None
    return f"mixes.{stage.mix}.training.{key}" if by_mix else f"training.{key}"


def searches(plan: Plan) -> Iterator[str]:
    """A search compares different rates on rows that are no test questions, for the recipes of
    tables that leave their rate to it."""
    study = plan.study
    recipes = {recipe for _, row in shown_rows(study) for recipe in row.train.values()}
    used = {study.recipes[recipe].search for recipe in recipes} - {None}
    for name, search in ((name, study.searches[name]) for name in sorted(used)):
        rates = [f"{rate:g}" for rate in search.learning_rate]
        for rate in sorted({rate for rate in rates if rates.count(rate) > 1}):
            yield (
                f"searches.{name}.learning_rate: {rate} stands there twice (to six digits); give "
                "each rate once"
            )
        for task in sorted({task for task in search.tasks if search.tasks.count(task) > 1}):
            yield f"searches.{name}.tasks: '{task}' stands there twice; name each task once"
        for task in search.tasks:
            if study.tasks[task].held_out is None:
                yield (
                    f"searches.{name}.tasks: '{task}' asks test questions, which must not choose a "
                    "learning rate; name a task with 'held_out'"
                )
            elif study.asks_text(task):
                yield (
                    f"searches.{name}.tasks: '{task}' reads raw text, which has no score to find a "
                    "best rate by; name a task that asks questions"
                )
    for name, recipe in ((name, study.recipes[name]) for name in sorted(recipes)):
        if recipe.search and recipe.training.learning_rate is not None:
            yield (
                f"recipes.{name}: both 'search' and 'training.learning_rate' set its learning "
                "rate; remove one"
            )
    for name in plan.models:
        for recipe in (study.models[name].train or {}).values():
            if study.recipes[recipe].search:
                yield (
                    f"models.{name}.train: recipe '{recipe}' searches its learning rate, which "
                    "only rows of tables can; name a recipe without 'search'"
                )
