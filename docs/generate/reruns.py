"""The tables of docs/workflow.md: what a change of each key of the configuration makes again, by
planning the study with and without the change.

The keys are those of the models. A change is made up from a key's value; where the rest of the
configuration forbids it, the next one is tried.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from mofe.markdown import table
from mofe.report import figures
from mofe.report.sources import RECORDS
from mofe.study import reruns
from mofe.study.claims import Claim
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.identity import Identities
from mofe.study.load import load_study, overlay
from mofe.study.plan import Plan
from mofe.study.training import TrainingOverride
from mofe.study.values import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = "docs/workflow.md"

# The studies whose keys are changed: of the hub and of a generated world, with a few of the tables,
# and with multiple-choice questions of the user's own.
FEWER = dict.fromkeys((1, 2, 3, 4, 7, "C1", "C2", "C4", "C5"))
OWN = {
    "sources": {"mine": {"repo": "me/questions", "revision": "1", "files": ["*.parquet"]}},
    "data": {"mine": {"source": "mine", "split": "train", "task": "mine", "rows": 90}},
    "tasks": {
        "mine": {
            "harness": ["mofe_mcq"],
            "source": "mine",
            "columns": {"question": "q", "options": ["a", "b"], "answer": "c"},
            "split": "test",
            "examples": "dev",
        }
    },
    "models": {
        "theirs": {
            "path": "/models/theirs",
            "gates": {
                "positive": [["a"], ["b"]],
                "others": {"second": {"positive": [["c"], ["d"]]}},
            },
        },
        "new_ffns": {"from": "tinyllama", "reinitialise": "ffn"},
    },
    "mixtures": {
        "fitted": {
            "base": "tinyllama",
            "experts": {"general": 1, "medical": 1},
            "merge": {"gate_mode": "ridge"},
        },
        "second": {"base": "theirs", "experts": {"theirs": 2}, "merge": {"prompts": "second"}},
        "theirs": {
            "base": "theirs",
            "experts": {"theirs": 2},
            "merge": {"gate_mode": "random", "experts_per_token": 1},
        },
    },
    "recipes": {
        "scaled": {"method": "ia3", "targets": ["k_proj", "down_proj"]},
        "stable": {"method": "rslora", "rank": 8, "alpha": 16, "targets": ["q_proj"]},
    },
    "replications": {"claims": ["C13m"], "results": ["results/other", "results/third"]},
    "tables": {
        **FEWER,
        "asked": {
            "caption": "A question.",
            "labels": ["Model"],
            "columns": {"MMLU": "mmlu"},
            "question": "Does it know more?",
            "on_demand": True,
            "rows": {"Untuned": {"model": "general"}},
        },
        "own": {
            "caption": "Ours.",
            "question": "Which is best?",
            "limits": "Each is one run.",
            "labels": ["Model"],
            "columns": {"Score": "mine"},
            "beside": {"Other": "mmlu"},
            "rows": {
                "Constant": {"constant": True},
                "Tuned": {"mixture": "theirs", "train": {"mine": "mofe"}},
                "Scaled": {"model": "general", "train": {"mine": "scaled"}},
                "Router": {"mixture": "theirs", "train": {"mine": "router"}},
                "Stable": {"model": "general", "train": {"mmlu_medmcqa": "stable"}},
                "Fitted": {"mixture": "fitted"},
                "Second": {"mixture": "second"},
                "New FFNs": {"model": "new_ffns"},
            },
        },
    },
}
STUDIES = {
    "hub": (["config.yaml"], OWN),
    "world": (["config.yaml", "profiles/mini/study.yaml"], {"seeds": [0], "tables": FEWER}),
}
# Keys that no change of a study's is made of: results of another folder are another study's.
ASIDE = {"results"}
NAMES = ("models", "recipes", "data", "mixes", "tasks", "sources", "mixtures")
TRIED = 3  # entries of a section whose key is changed, until one makes something again
# What no single change of a key says: other keys must change too, or only some entries can have it.
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "seeds": ("hub", {"seeds": [0, 1]}),
    "shots_seed": ("hub", {"shots": 1, "shots_seed": 5}),
    "assumptions": ("hub", {"assumptions": []}),
    "tables.*.header": ("hub", {"tables": {5: {"header": [["Base", 1], ["Tasks", 2]]}}}),
    "world": ("world", {"world": {"seed": 9}}),
    "world.taught": ("world", {"world": {"taught": 0.8}}),
    "replications": ("world", {"replications": {"claims": ["C13m"], "results": ["results/other"]}}),
    "replications.claims": ("hub", {"replications": {"claims": ["C13m", "C13f"]}}),
    "training.micro_batch": ("hub", {"training": {"micro_batch": 4}}),
    "training.router_aux_loss": ("hub", {"training": {"router_aux_loss": 0.1}}),
    "models.*.path": ("hub", {"models": {"theirs": {"path": "/models/others"}}}),
    "models.*.shape": ("hub", {"models": {"tinyllama": {"shape": {"hidden_size": 1024}}}}),
    "models.*.scratch": ("world", {"models": {"tinyllama": {"scratch": {"seed": 3}}}}),
    "models.*.scratch.shape.hidden_size": (
        "world",
        {"models": {"tinyllama": {"scratch": {"shape": {"hidden_size": 128}}}}},
    ),
    "models.*.scratch.shape.num_attention_heads": (
        "world",
        {"models": {"tinyllama": {"scratch": {"shape": {"num_attention_heads": 8}}}}},
    ),
    "mixtures.*.experts": ("hub", {"mixtures": {"medium": {"experts": {"tinyllama": 3}}}}),
    "mixtures.*.merge.gate_mode": (
        "hub",
        {"mixtures": {"theirs": {"merge": {"gate_mode": "hidden"}}}},
    ),
    "mixtures.*.merge.prompts": ("hub", {"mixtures": {"second": {"merge": {"prompts": None}}}}),
    "merge.prompts": ("hub", {"merge": {"prompts": "second"}}),
    "models.*.gates.others.*.positive": (
        "hub",
        {"models": {"theirs": {"gates": {"others": {"second": {"positive": [["e"], ["f"]]}}}}}},
    ),
    "models.*.gates.others.*.negative": (
        "hub",
        {"models": {"theirs": {"gates": {"others": {"second": {"negative": ["e"]}}}}}},
    ),
    "models.*.reinitialise": (
        "hub",
        {"models": {"new_ffns": {"reinitialise": None, "train": {"mmlu": "expert"}}}},
    ),
    "searches.*.learning_rate": ("hub", {"searches": {"rate": {"learning_rate": [1e-5, 2e-5]}}}),
    "recipes.*.method": ("hub", {"recipes": {"stable": {"method": "lora"}}}),
    "recipes.*.search": ("hub", {"recipes": {"stable": {"search": "rate"}}}),
    "recipes.*.frozen": ("hub", {"recipes": {"mofe": {"frozen": 1}}}),
    "recipes.*.unfreeze": (
        "hub",
        {"recipes": {"mofe": {"unfreeze": [{"after": 0.5, "experts": "all"}]}}},
    ),
    "mixes.*.replay": (
        "hub",
        {"mixes": {"mmlu_medmcqa": {"replay": {"data": ["sujet"], "share": 0.1}}}},
    ),
    "recipes.*.quantize": ("hub", {"recipes": {"qlora_tuned": {"quantize": None}}}),
    "recipes.*.train": ("hub", {"recipes": {"router": {"train": ["attention"]}}}),
    "recipes.*.also": ("hub", {"recipes": {"stable": {"also": ["lm_head"]}}}),
    "recipes.*.feedforward": ("hub", {"recipes": {"scaled": {"feedforward": ["down_proj"]}}}),
    "tables.*.rows.*.constant": ("hub", {"tables": {"own": {"rows": {"Constant": None}}}}),
    "tables.*.rows.*.model": (
        "hub",
        {"tables": {"own": {"rows": {"Scaled": {"model": "finance"}}}}},
    ),
    "tasks.*.held_out": ("hub", {"tasks": {"mmlu_held": {"held_out": "medmcqa"}}}),
    "tasks.*.questions": ("hub", {"tasks": {"mmlu_held": {"questions": 900}}}),
    "tasks.*.sample": ("world", {"tasks": {"medmcqa": {"sample": 50}}}),
    "tasks.*.columns": ("hub", {"tasks": {"mine": {"columns": {"answer": "d"}}}}),
    "tasks.*.subset": ("hub", {"tasks": {"mine": {"subset": "all"}}}),
    "tasks.*.split": ("hub", {"tasks": {"mine": {"split": "validation"}}}),
    "tasks.*.examples": ("hub", {"tasks": {"mine": {"examples": "validation"}}}),
    "tasks.*.test_share": (
        "hub",
        {"tasks": {"mine": {"test_share": 0.5, "examples": None, "split": "train"}}},
    ),
}

ORDER = (  # of rules, as data flows
    *("fetch_repository", "world", "prepare_data", "fetch_model", "pretrain", "preflight"),
    *(
        "train_expert",
        "reinitialise",
        "merge",
        "merge_per_seed",
        "questions",
        "train",
        "evaluate",
        "search",
    ),
    *("table", "table_on_demand", "claim", "claims", "replications", "figure", "report"),
)


def identities(config: Mapping[str, Any]) -> Identities:
    """The jobs of a configuration, those of tables on demand too."""
    plan = Plan(load_study(config), on_demand=True)
    given = Given(plan, figures.given(plan.of_all), trainings=RECORDS.spec(plan.of_all))
    return Identities(Graph(plan, figures.inputs(plan.of_all)), given)


@cache
def configuration(study: str) -> dict[str, Any]:
    """The merged configuration of one of STUDIES."""
    files, more = STUDIES[study]
    found: dict[str, Any] = {}
    for file in files:
        found = overlay(found, yaml.safe_load((ROOT / file).read_text()))
    return overlay(found, more)


def keys(
    part: BaseModel, path: tuple = (), pattern: str = ""
) -> Iterator[tuple[str, tuple, Any, Any]]:
    """Every key of a part and of the parts in it: its pattern, such as data.*.rows, its path, its
    value, and its type. Keys that override those of `training` have one pattern, and so have
    claims."""
    for name, field in type(part).model_fields.items():
        key = field.alias or name
        shown = "*" if isinstance(part, (TrainingOverride, Claim)) else key
        value, here, at = getattr(part, name), f"{pattern}{shown}", (*path, key)
        if isinstance(value, BaseModel):
            yield from keys(value, at, f"{here}.")
        elif isinstance(value, Mapping) and all(isinstance(v, BaseModel) for v in value.values()):
            for entry, inner in value.items():
                yield from keys(inner, (*at, entry), f"{here}.*.")
        else:
            yield here, at, value, field.annotation


def others(value: Any, kind: Any, config: Mapping[str, Any]) -> Iterator[Any]:
    """Values that a key might have instead: words and other names that its type has, a number
    beside it, another order, one more or one less."""

    def named(name: str) -> list[str]:
        sections = [config[s] for s in NAMES if name in config[s]]
        return [other for section in sections for other in section if other != name]

    yield from (word for word in _words(kind) if word != value)
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value - 1, value + 2)
        case float():
            yield from (value / 2, value * 2)
        case str():
            yield from named(value)
            yield from (f"{value}x", "b/c")
        case list():
            yield from (value[::-1], [*value, *value[-1:]], value[:-1], [*value, "x"], [["x"]])
        case Mapping():
            for key, name in value.items():
                near = named(name) if isinstance(name, str) else []
                yield from ({**value, key: other} for other in near)
            yield dict(list(value.items())[:-1])
        case None:
            yield from (1, 0.25, True, "x", ["x"], "b/c", *config["searches"])


def _words(kind: Any) -> list[Any]:
    """The words that a type has."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [word for inner in get_args(kind) for word in _words(inner)]


def changed(config: Mapping[str, Any], path: tuple, value: Any) -> dict[str, Any]:
    """A configuration with another value of a key."""
    found = copy.deepcopy(dict(config))
    part = found
    for key in path[:-1]:
        if part.get(key) is None:
            part[key] = {}
        part = part[key]
    part[path[-1]] = value
    return found


@cache
def matrix() -> dict[str, frozenset[str]]:
    """By key, the rules of the jobs that a change of it makes again or adds, by itself. A key of
    which no change was found that the configuration allows is missing (tests/test_reruns.py)."""
    found: dict[str, set[str]] = {}
    for study in STUDIES:
        config = configuration(study)
        before = identities(config)
        plan, here = before.graph.plan, set()
        for pattern, (of, change) in EXAMPLES.items():
            if of == study:
                found[pattern] = reruns.first(before, identities(overlay(config, change)))
        tried: Counter[str] = Counter()
        # what is set first: it can mostly be changed by itself
        for pattern, path, value, kind in sorted(keys(plan.study), key=lambda key: key[2] is None):
            done = pattern in found and not (pattern in here and not found[pattern])
            if pattern in ASIDE | EXAMPLES.keys() or done or tried[pattern] >= TRIED:
                continue
            if not plan.params.is_made(".".join(map(str, path[:2]))):
                continue
            tried[pattern] += 1
            rules = _effect(config, before, path, value, kind)
            if rules is not None:
                here.add(pattern)
                found.setdefault(pattern, set()).update(rules)
    return {pattern: frozenset(rules) for pattern, rules in found.items()}


def _effect(config, before, path, value, kind) -> set[str] | None:
    """What the first change that the configuration allows makes again; None where none is
    allowed."""
    for other in others(value, kind, config):
        try:
            after = identities(changed(config, path, other))
        except ConfigError:
            continue
        if after.graph.plan.study != before.graph.plan.study:
            return reruns.first(before, after)
    return None


def every_key() -> set[str]:
    """The patterns of all keys that the studies have."""
    return {
        pattern for study in STUDIES for pattern, *_ in keys(load_study(configuration(study)))
    } - ASIDE


def edits() -> str:
    """The table of keys, those with the same effect together."""
    groups: dict[frozenset[str], list[str]] = {}
    for pattern, rules in matrix().items():
        groups.setdefault(rules, []).append(pattern)
    rows = [
        (", ".join(f"`{key}`" for key in group), _named(rules) or "nothing")
        for rules, group in sorted(groups.items(), key=lambda pair: _places(pair[0]))
    ]
    return table(("Changed", "Made again first"), rows, "ll", padded=False)


def files() -> str:
    """The table of what is made anew, and what is then made again."""
    found: dict[str, set[str]] = {}
    for study in STUDIES:
        for rule, read in reruns.readers(identities(configuration(study))).items():
            found.setdefault(rule, set()).update(read)
    rows = [(f"`{rule}`", _named(found[rule])) for rule in ORDER if rule in found]
    return table(("A file of", "is read by"), rows, "ll", padded=False)


def _places(rules: frozenset[str]) -> list[int]:
    return sorted(map(ORDER.index, rules)) or [len(ORDER)]


def _named(rules: set[str] | frozenset[str]) -> str:
    return ", ".join(f"`{rule}`" for rule in sorted(rules, key=ORDER.index))


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    (PAGE, "edits"): edits,
    (PAGE, "files"): files,
}
