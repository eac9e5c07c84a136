"""Thousands of mutated configurations: a wrong one is refused in sentences, and what is accepted can be
planned and run. `make fuzz` runs all of it; tests/test_config_fuzz.py a small part.

Every case comes from its number alone, so that a failure can be made again: `case(number)`.
"""

import copy
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import pandas as pd
import pytest
import yaml
from conftest import CONFIG, MINI, REDUCED, snakemake
from snakemake.cli import parse_config
from test_own_models import Own

from mofe.estimate.cost import Costs
from mofe.estimate.schedule import jobs
from mofe.models import load
from mofe.report import figures
from mofe.study import config as keys
from mofe.study import methods, written
from mofe.study.graph import Graph
from mofe.study.load import checked, overlay, read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

CASES = int(os.environ.get("FUZZ", "10000"))
RUNS = 50

# Values as they stand in a file.
NASTY = r"""
null|~|no|yes|on|off|true|false|y|n|""|''|" "|"\0"|"a\0b"|"\e[31m"|"\ud800"|"\u202e"|"\r"|"a\nb"
.inf|-.inf|.nan|1e308|1.0e+308|1.0e-320|5.0e-324|-0.0|0|-1|1|2|1.5|0.5|-1.0|1_000|010|0x1F|0b11|0o17|1:30
1:30:00|12:30.5|4294967296|4294967295|2147483648|9223372036854775808|1e400|3e-5|"3e-5"|"1"|"nan"|"inf"
20261126001|-20261126001|2026-11-26|2026-11-26 12:00:00|2026-13-45|2001-12-14t21:59:43.10-05:00
[]|{}|[[]]|[{}]|[null]|[1]|[a]|[a, b]|[[a], [b]]|{a: 1}|{a: null}|{null: 1}|{no: 1}|{1: 2}|{1.5: a}
{[a]: b}|{{a: b}: c}|{2026-11-26: a}|{"": a}|{"a b": c}|{a: {b: {c: {d: e}}}}|&x [*x]|&x {a: *x}
{? [a, b] : c}|{<<: {a: 1}}|{<<: 3}|!!set {a, b}|!!binary aGk=|!!str 12|!!python/name:os.system|!mine a
a|A|x|../x|/|//|.|..|./a|a//b|a/../b|a/b/|~/x|~nobody/x|$HOME/x|$NOT_SET_HERE/x|${NOT_SET_HERE}|$|"{a}"
"{"|"a*"|"?"|"a b"|README.md|/dev/null|config.yaml/x|é|"日本語"|"💥"|"<b>&amp;</b>"|"\\textbf{x}"|"$x_1$"|"a|b"
"a | b"|"a: b"|"#"|"%d %s"|"{0.__class__}"|mmlu|medmcqa|tinyllama|small|full|mofe|lora|paper|org/name|a/b/c
auto|"auto"|cuda|cpu|hours|float32|hidden|random|letter|text|nf4|fp8|q_proj|lm_head|attention|trainable|time
"""
RAW = [
    *(raw for line in NASTY.strip().splitlines() for raw in line.split("|") if raw),
    '"a|b"',
    '"a | b"',
    "[" * 60 + "]" * 60,
    "{a: " * 60 + "1" + "}" * 60,
    "9" * 400,
    "9" * 5000,
    '"' + "x" * 300 + '"',
    '"' + "long " * 3000 + '"',
    "[" + ", ".join(map(str, range(300))) + "]",
]
KEYS = (
    "no|~|007|1:30|2026-11-26|1.5|.inf|8|-1|''|a b|../x|\"a\\0b\"|é|[a]|{a: b}|<<|null|true|x" * 1
)
BAD_KEYS = [*KEYS.split("|"), "x" * 300]


@dataclass(frozen=True)
class Case:
    """A mutated configuration: the base files, an overlay's text, and what --config is given."""

    number: int
    base: tuple[Path, ...]
    text: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        names = " ".join(path.name for path in self.base)
        return f"case({self.number}): {names}\n{self.text}\n--config {' '.join(self.command)}"


@cache
def layer(path: Path) -> written.Layer:
    return written.file(path)


@cache
def merged(base: tuple[Path, ...]) -> dict:
    config: dict = {}
    for path in base:
        config = overlay(config, layer(path).content)
    return config


def paths(value, above: tuple = ()) -> list[tuple]:
    """The path of every value in a configuration."""
    found = [above] if above else []
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else items:
        found += paths(inner, (*above, key))
    return found


@cache
def all_paths(base: tuple[Path, ...]) -> list[tuple]:
    """Long sections have more paths; each is drawn as often by its section first."""
    return paths(merged(base))


def at(config, path: tuple):
    for key in path:
        config = config[key]
    return config


def written_out(value, path: tuple, raw: str) -> str:
    """YAML in one line that sets `path` of `value` to `raw`; lists are written out in full."""
    if not path:
        return raw
    key, *rest = path
    if isinstance(value, list):
        items = [
            written_out(v, tuple(rest), raw) if i == key else json.dumps(v, default=str)
            for i, v in enumerate(value)
        ]
        return f"[{', '.join(items)}]"
    name = key if isinstance(key, int) else json.dumps(key, ensure_ascii=False)
    return f"{{{name}: {written_out(value[key], tuple(rest), raw)}}}"


def misspelt(word: str, random: Random) -> str:
    at_ = random.randrange(len(word) + 1)
    drop = word[:at_] + word[at_ + 1 :]
    return random.choice(
        [drop, word[:at_] + "x" + word[at_:], word + "s", word.upper(), word[::-1]]
    )


def mutation(base: tuple[Path, ...], random: Random) -> str:
    """One line of YAML that changes something of the base."""
    config = merged(base)
    section = random.choice(list(config))
    below = [p for p in all_paths(base) if p[0] == section]
    path = random.choice(below)
    value = at(config, path)
    top, *rest = path
    kind = random.randrange(9)
    raw = json.dumps(value, default=str, ensure_ascii=False)
    if kind <= 2:
        raw = random.choice(RAW)
    elif kind == 3 and isinstance(path[-1], str):
        *rest_above, last = path
        holder = at(config, tuple(rest_above))
        word = json.dumps(misspelt(last, random), ensure_ascii=False)
        raw, path = f"{{{word}: {raw}}}", tuple(rest_above)
        if not path:
            return raw[1:-1]
        assert holder is not None
    elif kind == 4:
        raw = "null"
    elif kind == 5 and isinstance(path[-1], str):
        word = json.dumps(path[-1], ensure_ascii=False)
        raw, path = f"{{{word}: {raw}, {word}: {random.choice(RAW)}}}", path[:-1]
        if not path:
            return f"{word}: {raw[1:-1]}"
    elif kind == 6 and isinstance(value, dict):
        raw = f"{{{random.choice(BAD_KEYS)}: {random.choice([raw, *RAW])}}}"
    elif kind == 7 and isinstance(value, int | float) and not isinstance(value, bool):
        raw = repr(
            random.choice([value * 2, value + 1, value - 1, -value, value * 1000, value / 3])
        )
    else:  # another value of the same section
        raw = json.dumps(at(config, random.choice(below)), default=str, ensure_ascii=False)
    if not path:
        return raw
    top, *rest = path
    name = top if isinstance(top, int) else json.dumps(top)
    return f"{name}: {written_out(config[top], tuple(rest), raw)}"


def scrambled(text: str, random: Random) -> str:
    """Text with a few characters lost, doubled or put in."""
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(text) + 1)
        put_in = random.choice(["", text[place : place + 1] * 2, *":-{}[]#&*!|>'\"%@`,\t\n "])
        text = text[:place] + put_in + text[place + 1 :]
    return text


OVERLAYS = [
    path.read_text()
    for path in (MINI, REDUCED, CONFIG.parent / "profiles" / "pilot" / "study.yaml")
]


def case(number: int) -> Case:
    random = Random(number)
    base = random.choice([(CONFIG,), (CONFIG, MINI), (CONFIG, MINI, REDUCED)])
    lines = list(
        dict.fromkeys(mutation(base, random) for _ in range(random.choice([1, 1, 1, 2, 3])))
    )
    text, command = "\n".join(lines), ()
    if random.random() < 0.3:  # as a study of its own, the paper's setting may change
        text = f"study: fuzz\n{text}"
    if random.random() < 0.08:
        text = scrambled(random.choice([text, *OVERLAYS]), random)
    elif random.random() < 0.15:
        key = random.choice(list(merged(base)))
        words = [f"{key}={random.choice([*RAW, '0,1', '1,1', '0,,1', ''])}"]
        text, command = "study: fuzz", tuple(word for word in words if "\0" not in word)
    return Case(number, base, text, command)


# ------------------------------------------------------------------------------------ what is asked


def parts() -> set[str]:
    """The names of the classes of the configuration that no user writes."""
    found = {v.__name__ for m in (keys, methods) for v in vars(m).values() if isinstance(v, type)}
    return {name for name in found if re.search(r"[a-z][A-Z]", name)} | {"Study", "BaseModel"}


FORBIDDEN = re.compile(
    r"\b("
    + "|".join(sorted(parts()))
    + r")\b|Input should|instance of|pydantic|from_\b|\\w|\\d|\(\?|\^\[|function-after|NoneType"
    r"|datetime\.|Traceback|OrderedDict|object at 0x"
)
PLACE = re.compile(r" \(([^()]*:\d+|--config)\)|^[^ ]*\.yaml(:\d+)?: ")


def wrong_with(sentence: str) -> str | None:
    """What a fault's sentence lacks."""
    if "\n" in sentence:
        return "has several lines"
    if len(sentence) > 1500:
        return f"has {len(sentence)} characters"
    if found := FORBIDDEN.search(sentence):
        return f"shows {found[0]!r}"
    if not PLACE.search(sentence):
        return "has no place"
    if ": " not in sentence:
        return "has no key"
    if "; " not in sentence.partition(": ")[2]:
        return "has no remedy"
    return None


def check(made: Case, folder: Path) -> str:
    """What becomes of a case: "refused", "accepted" or "same" as without the overlay. Raises
    AssertionError where that is wrong, and whatever else goes wrong."""
    file = folder / "mutated.yaml"
    file.write_text(made.text, encoding="utf-8")
    try:
        command = parse_config(list(made.command))
    except (ValueError, AssertionError):  # Snakemake's own refusal
        return "no --config"
    try:
        layers = [*map(layer, made.base), written.file(file)]
        if command:
            layers.append(written.given(command, written.COMMAND_LINE))
        config: dict = {}
        for part in layers:
            config = overlay(config, part.content)
        study = checked(copy.deepcopy(config), layers, config)
    except ConfigError as error:
        assert error.problems
        for sentence in error.problems:
            reason = wrong_with(sentence)
            assert reason is None, f"{made}\n{sentence}\n{reason}"
        return "refused"
    plan = Plan(study)
    if study == base_study(made.base):
        return "same"
    enumerate_all(plan)
    return "accepted"


@cache
def base_study(base: tuple[Path, ...]):
    config = merged(base)
    return checked(config, [layer(path) for path in base], config)


def enumerate_all(plan: Plan) -> None:
    """Everything that the rules ask for before a job starts."""
    drawn = figures.inputs(plan)
    graph = Graph(plan, drawn)
    graph.archive()
    graph.pdf()
    graph.prefetch()
    for variant in plan.variants.values():
        if not plan.routes_rows(variant.origin):
            for seed in plan.seeds(variant):
                graph.export(variant.key, str(seed))
    for dataset in plan.datasets:
        plan.params.data(dataset)
    for name in plan.claims:
        plan.params.claim(name)
    plan.params.assumptions()
    plan.params.conditions()
    try:
        jobs(Costs(plan), drawn)
    except ConfigError as error:  # the size of a model that is not downloaded
        assert all("is not known before" in p or "config.json" in p for p in error.problems)


def run(numbers: Iterable[int], folder: Path) -> Counter:
    """The outcomes of cases."""
    outcomes: Counter = Counter()
    for number in numbers:
        made = case(number)
        try:
            outcomes[check(made, folder)] += 1
        except Exception as error:
            error.add_note(str(made)[:3000])
            raise
    return outcomes


CHUNKS = 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_mutated_configuration_is_refused_in_sentences_or_can_be_planned(chunk, tmp_path):
    outcomes = run(range(chunk, CASES, CHUNKS), tmp_path)
    print(dict(outcomes))
    assert outcomes["refused"] > CASES / CHUNKS / 2 and outcomes["accepted"] > CASES / CHUNKS / 50


# -------------------------------------------------------------------------------------- run as jobs

# What a study of one's own may set to another number or word, sound or not.
CHANGES: dict[tuple[str, ...], tuple] = {
    ("seeds",): ([0], [1], [4294967295], [0, 1], 7, [2**32], [-1], []),
    ("sampling_seed",): (0, 1, 4294967295, 2**32, -1),
    ("training", "learning_rate"): (1e-6, 3e-4, 1, 1e-12, 0, math.inf, 1e15, 1e16),
    ("training", "weight_decay"): (0, 0.5, 1, -0.1, math.nan),
    ("training", "warmup_steps"): (0, 1, 2, 3, 400),
    ("training", "max_grad_norm"): (0.1, 1e-9, 1e9, 0),
    ("training", "epochs"): (1, 2, 3, 0, 1.5),
    ("training", "global_batch"): (1, 7, 16, 48, 49, 1000, 0),
    ("training", "micro_batch"): (1, 3, 8, 64, "auto", 0),
    ("training", "max_length"): (32, 33, 128, 512, 2048),
    ("training", "router_aux_loss"): (0.0, 0.01, 1, 100, -1),
    ("training", "fold_duplicates"): (True, False),
    ("training", "record_router"): (1, 7, 400, 0, -1, 1.5),
    ("merge", "gate_mode"): ("hidden", "cheap_embed", "random", "uniform", "shuffled", "ridge"),
    ("merge", "prompts"): ("second", None, 3),
    ("merge", "ridge"): ({"rows": 1}, {"penalty": 1e-9}, {"penalty": 0}),
    ("merge", "experts_per_token"): (1, 2, 3, 4),
    ("merge", "dtype"): ("float32", "bfloat16", "float16"),
    ("scoring",): ("letter", "text"),
    ("shots",): (0, 1, 2),
    ("tasks", "quiz", "test_share"): (0.1, 0.2, 0.5, 0.9, 1.0, 0.0),
    ("data", "quiz", "rows"): ("full", 1, 5, 40, 0),
    ("mixtures", "mine", "experts"): ({"law": 1, "code": 1}, {"law": 1}, {"tuned": 2}, {"code": 0}),
    ("mixtures", "mine", "merge"): (
        {"experts_per_token": 1},
        {"gate_mode": "random"},
        {"gate_mode": "shuffled"},
        {"gate_mode": "uniform", "experts_per_token": 2},
    ),
    ("models", "tuned", "train"): ({"quiz": "mofe"}, {"quiz": "lora"}, {"quiz": "router"}),
    ("recipes", "mofe"): (
        {"frozen": 1},
        {"frozen": 3},
        {"frozen": 4},
        {"quantize": "nf4"},
        {"quantize": "fp8"},
    ),
    ("recipes", "expert"): ({"training": {"epochs": 2}}, {"training": {"warmup_steps": 9}}),
    ("tables", "8", "rows", "MoFE", "train"): (
        {"quiz": "full"},
        {"quiz": "lora"},
        {"quiz": "dora"},
        {"quiz": "lora_experts"},
        {"quiz": "router"},
        {"quiz": "attention"},
        {"quiz": "freeze2"},
        {"quiz": "freeze3"},
    ),
    ("recipes", "lora"): ({"rank": 1}, {"rank": 200}, {"alpha": 1}, {"dropout": 0.5}),
}


def changed(overlay: dict, random: Random) -> dict:
    """An overlay with one to three of CHANGES."""
    made = copy.deepcopy(overlay)
    for path in random.sample(sorted(CHANGES), random.choice([1, 2, 2, 3])):
        value = random.choice(CHANGES[path])
        if path[0] == "tables":
            made["tables"][8]["rows"]["MoFE"]["train"] = value
            continue
        part = made
        for key in path[:-1]:
            part = part.setdefault(key, {})
        part[path[-1]] = value
    return made


def accepted(overlay: dict, file: Path, random: Random) -> dict:
    """The first changed overlay that the configuration accepts. It is in the file too."""
    while True:
        made = changed(overlay, random)
        file.write_text(yaml.safe_dump(made, sort_keys=False))
        try:
            read_study(CONFIG, file)
        except ConfigError as error:
            assert not [told for told in error.problems if wrong_with(told)], error.problems
        else:
            return made


# the sentences of jobs about rows, which `rows: full` leaves to be counted
LATE = ("steps of warm-up leave none of", "usable rows, but", "tokens or fewer; raise max_length")


@pytest.fixture(scope="module")
def own(tiny, tmp_path_factory) -> Own:
    return Own(tmp_path_factory.mktemp("own"), load.tokenizer(tiny / "a"))


@pytest.mark.parametrize("number", range(RUNS))
def test_what_is_accepted_runs(number, own, tmp_path):
    """A configuration that is accepted makes its table, or is refused before its first job starts. What
    depends on the rows is known once they are counted."""
    file = tmp_path / "changed.yaml"
    results = str(tmp_path / "results")
    overlay = accepted({**own.overlay, "results": results}, file, Random(number))
    table = f"{results}/table8.csv"
    files = ["--configfile", str(CONFIG), str(file)]
    done = snakemake("--cores", "1", *files, "--", table, check=False)
    print(yaml.safe_dump({key: overlay.get(key) for key, *_ in CHANGES}))
    said = done.stdout + done.stderr
    if done.returncode == 0:
        values = pd.read_csv(table)["value"].dropna()
        assert len(values) >= 3 and (values >= 0).all() and (values < 1e9).all()
    elif not any(late in said for late in LATE):
        assert "rule " not in said and "Traceback" not in said, said[-3000:]
