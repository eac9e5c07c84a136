"""The plan: what a study will take, before a GPU-hour is spent (rule `plan`).

Parameters are also counted on the real modules, without weights (on the meta device). The counts
must equal those of mofe/study/methods.py.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from mofe import records
from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.estimate.page import markdown, summary
from mofe.files import write_atomic
from mofe.layers import parameters
from mofe.models import methods
from mofe.report import figures
from mofe.study.load import load_study
from mofe.study.methods import Method
from mofe.study.plan import Plan
from mofe.study.shapes import Shape

MIXTURE_KEYS = ("num_local_experts", "num_experts_per_tok")


def write(*, config: Mapping[str, Any], markdown_file: Path, json_file: Path) -> str:
    """Write the forecast of a study. config: its merged configuration. Returns a summary in a few
    lines. Raises ConfigError where a model's shape is not known, and what `check_counts` raises.
    """
    costs = Costs(Plan(load_study(config), on_demand=True))
    found = forecast(costs, figures.inputs(costs.plan.of_all), check_counts(costs))
    records.write(json_file, found)
    write_atomic(markdown_file, markdown(found))
    return summary(found) + f"\n{markdown_file} has the rest"


def count_on_modules(shape: Shape, method: Method) -> tuple[int, int]:
    """(all, trained) parameters of the real model under a method. No weights are made."""
    sizes = {name: value for name, value in asdict(shape).items() if value is not None}
    dense = not shape.num_local_experts
    for name in MIXTURE_KEYS if dense else ("attention_bias",):
        sizes.pop(name)
    with torch.device("meta"):
        model = (
            LlamaForCausalLM(LlamaConfig(**sizes))
            if dense
            else MixtralForCausalLM(MixtralConfig(**sizes))
        )
        # quantised weights cannot be made on the meta device, and are as many as the others
        model = methods.apply(model, method.unquantized())
    everything = sum(p.numel() for p in model.parameters())
    return everything, sum(p.numel() for p in parameters.trained(model).values())


def check_counts(costs: Costs) -> int:
    """Count every trained model of the study on the real modules. Returns the number of kinds.

    Raises RuntimeError where the modules and mofe/study/methods.py disagree.
    """
    plan, study = costs.plan, costs.study
    kinds = {
        (costs.variant_shape(v), v.stages[-1].recipe, repr(plan.method(v))): plan.method(v)
        for v in plan.trained.values()
    }
    for model in plan.models:
        for recipe in (study.models[model].train or {}).values():
            kinds[costs.shape(model), recipe, ""] = study.recipes[recipe]
    for (shape, recipe, _), method in kinds.items():
        expected = method.total(shape), method.trainable(shape)
        found = count_on_modules(shape, method)
        if found != expected:
            raise RuntimeError(
                f"mofe/study/methods.py: recipe '{recipe}' should have {expected} parameters (all, "
                f"trained), but its modules have {found}; correct `added`, `parts` or "
                f"`frozen_slots` of {type(method).__name__}"
            )
    return len(kinds)
