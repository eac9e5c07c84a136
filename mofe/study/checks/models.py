"""Where models come from, and what mixtures are made of."""

from collections.abc import Iterator, Mapping

from mofe.study.checks.tables import shown_rows
from mofe.study.config import Study
from mofe.study.plan import Plan


def origins(plan: Plan) -> Iterator[str]:
    """A model that is pretrained here needs the generated world, and heads that share its width."""
    study = plan.study
    for name, model in ((name, study.models[name]) for name in plan.models):
        if model.scratch and study.world is None:
            yield f"models.{name}.scratch: pretraining reads the generated world; set 'world'"
        if model.scratch:
            shape = model.scratch.shape
            for multiple, factor in (
                ("hidden_size", "num_attention_heads"),
                ("num_attention_heads", "num_key_value_heads"),
            ):
                if getattr(shape, multiple) % getattr(shape, factor):
                    yield (
                        f"models.{name}.scratch.shape.{multiple}: {getattr(shape, multiple)} is no "
                        f"multiple of {factor}, {getattr(shape, factor)}; change one of them"
                    )


def slots(study: Study) -> Iterator[str]:
    """The mixtures that tables show. What no table shows is not merged, so it cannot fail."""
    shown = {row.mixture for _, row in shown_rows(study)}
    for name, mixture in study.mixtures.items():
        if name not in shown:
            continue
        total = sum(mixture.experts.values())
        merge = study.merged_by(name)
        own = mixture.merge.experts_per_token is not None
        key = f"mixtures.{name}.merge.experts_per_token" if own else "merge.experts_per_token"
        if total < merge.experts_per_token:
            yield (
                f"mixtures.{name}.experts: {total} expert(s), but {key} is "
                f"{merge.experts_per_token}; add experts, or lower "
                f"mixtures.{name}.merge.experts_per_token"
            )
        if total == 1:  # its router chooses nothing, and needs no prompts
            continue
        for expert, count in mixture.experts.items():
            have = len(study.models[expert].gates.positive)
            if count > have:
                yield (
                    f"mixtures.{name}.experts.{expert}: {count} slots, but "
                    f"models.{expert}.gates.positive has prompts for {have}; add "
                    f"{count - have} more list(s) of prompts"
                )
        yield from _empty_prompts(study, mixture.experts)
        prompts = [
            (f"models.{expert}.gates.positive.{slot}", sorted(prompts))
            for expert, count in mixture.experts.items()
            for slot, prompts in enumerate(study.models[expert].gates.positive[:count])
        ]
        for number, (where, given) in enumerate(prompts):
            twin = next((w for w, other in prompts[:number] if other == given), None)
            if twin and merge.gate_mode != "random":
                yield (
                    f"{where}: the same prompts as {twin}, so mixture '{name}' could not tell "
                    "these experts apart; give each slot prompts that end in words of its own"
                )


def _empty_prompts(study: Study, experts: Mapping[str, int]) -> Iterator[str]:
    for expert, count in experts.items():
        gates = study.models[expert].gates
        given = {
            f"positive.{slot}.{number}": prompt
            for slot, prompts in enumerate(gates.positive[:count])
            for number, prompt in enumerate(prompts)
        }
        given |= {f"negative.{number}": prompt for number, prompt in enumerate(gates.negative)}
        for key, prompt in given.items():
            if not prompt.strip():
                yield (
                    f"models.{expert}.gates.{key}: {prompt!r} is an empty prompt, from which no "
                    "gate can be made; write words that the expert will be asked about"
                )
