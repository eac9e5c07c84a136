"""Where models come from, and what mixtures are made of."""

from collections.abc import Iterator, Mapping

from mofe.study.checks.tables import shown_rows
from mofe.study.config import Prompts, Study
from mofe.study.gates import GATES
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
    made = [name for name in study.mixtures if name in shown]
    given = study.merge.prompts
    if given is not None and made and not any(_prompted(study, name) for name in made):
        yield (
            f"merge.prompts: {given!r} would change nothing, because the gates of no mixture "
            "that is shown are made from prompts; leave it out"
        )
    for name in made:
        mixture = study.mixtures[name]
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
        if total > 1:
            yield from _gates(study, name, mixture.experts)
            continue
        for key in ("gate_mode", "prompts"):
            if (given := getattr(mixture.merge, key)) is not None:
                yield (
                    f"mixtures.{name}.merge.{key}: {given!r} would change nothing, because the "
                    "router of a single expert chooses nothing; leave it out"
                )


def _prompted(study: Study, name: str) -> bool:
    """Whether a mixture's gates are made from prompts."""
    several = sum(study.mixtures[name].experts.values()) > 1
    return several and GATES[study.merged_by(name).gate_mode].prompted


def _gates(study: Study, name: str, experts: Mapping[str, int]) -> Iterator[str]:
    """How a mixture's gates are to be made."""
    own, merge, total = study.mixtures[name].merge, study.merged_by(name), sum(experts.values())
    gates = GATES[merge.gate_mode]
    where = "merge" if own.gate_mode is None else f"mixtures.{name}.merge"
    key = f"{where}.gate_mode: {merge.gate_mode!r}"
    if gates.equal and merge.experts_per_token < total:
        yield (
            f"{key} gives equal weights, of which only the first {merge.experts_per_token} of the "
            f"{total} in mixture '{name}' would count; set "
            f"mixtures.{name}.merge.experts_per_token to {total}"
        )
    if gates.between_models and len(experts) == 1:
        yield (
            f"{key} tells models apart, and all experts of mixture '{name}' are of one, "
            f"'{next(iter(experts))}'; choose another gate_mode, or add experts of another model"
        )
    if gates.by_data:
        yield from _by_data(study, key, name, experts)
    if own.prompts is not None and not gates.prompted:
        yield (
            f"mixtures.{name}.merge.prompts: {own.prompts!r} would change nothing, because "
            f"{merge.gate_mode!r} gates are made from no prompts; leave it out"
        )
    if gates.listed:
        yield from _prompts(study, name, experts)


def _by_data(study: Study, key: str, name: str, experts: Mapping[str, int]) -> Iterator[str]:
    """Gates that tell experts apart by their training rows need rows of every expert, and others of
    each: of other sources where rows are routed by them."""
    routed = GATES[study.merged_by(name).gate_mode].routed
    first: dict[str, str] = {}
    for expert in experts:
        train = study.models[expert].train
        if not train:
            yield (
                f"{key} reads which rows each expert of mixture '{name}' was fine-tuned on, and "
                f"models.{expert} has no 'train'; choose another gate_mode, or other experts"
            )
            continue
        sets = [d for mix in train for d in study.data_of(mix)]
        read = [study.data[d].source for d in sets] if routed else [" ".join(sorted(set(sets)))]
        twins = {first.setdefault(source, expert) for source in read} - {expert}
        for twin in sorted(twins):
            yield (
                f"{key} cannot tell models.{expert} from models.{twin} in mixture '{name}', "
                f"because both were fine-tuned on the same {'source' if routed else 'data'}; "
                "choose another gate_mode, or other experts"
            )


def _prompts(study: Study, name: str, experts: Mapping[str, int]) -> Iterator[str]:
    """The prompts of every slot of a mixture: there are enough, none is empty, and no two slots
    have the same."""
    merge = study.merged_by(name)
    chosen, found = merge.prompts, {}
    for expert, count in experts.items():
        where = f"models.{expert}.gates" + (f".others.{chosen}" if chosen else "")
        prompts = study.models[expert].gates.named(chosen)
        if prompts is None:
            own = study.mixtures[name].merge.prompts is not None
            yield (
                f"{f'mixtures.{name}.' if own else ''}merge.prompts: models.{expert}, an expert of "
                f"mixture '{name}', has no set of prompts {chosen!r}; write it under {where}, or "
                "choose another"
            )
            continue
        have = len(prompts.positive)
        if count > have:
            yield (
                f"mixtures.{name}.experts.{expert}: {count} slots, but {where}.positive has "
                f"prompts for {have}; add {count - have} more list(s) of prompts"
            )
        found |= {
            f"{where}.positive.{slot}": given for slot, given in enumerate(prompts.positive[:count])
        }
        yield from _empty_prompts(where, prompts, count)
    first: dict[tuple[str, ...], str] = {}
    for where, given in found.items():
        twin = first.setdefault(tuple(sorted(given)), where)
        if twin != where and GATES[merge.gate_mode].prompted:
            yield (
                f"{where}: the same prompts as {twin}, so mixture '{name}' could not tell "
                "these experts apart; give each slot prompts that end in words of its own"
            )


def _empty_prompts(where: str, prompts: Prompts, count: int) -> Iterator[str]:
    given = {
        f"positive.{slot}.{number}": prompt
        for slot, prompts_ in enumerate(prompts.positive[:count])
        for number, prompt in enumerate(prompts_)
    }
    given |= {f"negative.{number}": prompt for number, prompt in enumerate(prompts.negative)}
    for key, prompt in given.items():
        if not prompt.strip():
            yield (
                f"{where}.{key}: {prompt!r} is an empty prompt, from which no "
                "gate can be made; write words that the expert will be asked about"
            )
