"""docs/benchmarks.md and its figure, from the JSON files in benchmarks/results/ alone.

python benchmarks/page.py
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS, ROOT, write_atomic
from training import FOLDED, MIXTURES, STOCK

from mofe import markdown, paper, units
from mofe.study.load import read_study
from mofe.study.plan import Plan

PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "images"
TITLES = {
    "mini": "the mini study's shape",
    "rows": "TinyLlama at a quarter of its width",
    "tinyllama": "TinyLlama's shape",
    "tinyllama_512": "TinyLlama's shape, 512 rows per step",
}
METHODS = {
    "full": "full",
    "mofe": "MoFE",
    FOLDED: "MoFE, folded",
    "freeze2": "freeze-2",
    "lora": "LoRA",
    "dora": "DoRA",
    "qlora": "QLoRA",
}
SYSTEMS = {"mofe": ("this project", "#D55E00"), "trainer": ("Trainer", "#0072B2")}
SYSTEMS |= {"trl": ("TRL", "#009E73")}
Entries = dict[tuple[str, str], dict[str, Any]]  # (system, method) -> a training's measurements


def read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


# -------------------------------------------------------------------------------- small parts


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table; all columns but the first are numbers."""
    yield markdown.table(head, rows, "l" + "r" * (len(head) - 1), padded=False)
    yield ""


def times(ratio: dict[str, Any] | None) -> str:
    """A ratio with its range: "2.51 (2.40-2.60)"; of one pair without."""
    if ratio is None:
        return ""
    if ratio["pairs"] == 1:
        return f"{ratio['median']:.2f}"
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"


def machine(record: dict[str, Any]) -> str:
    hardware = record["hardware"]
    what = ", ".join(hardware["gpus"]) or f"{hardware['cores']} cores of an {hardware['cpu']}"
    threads = f", {record['threads']} thread(s) each" if "threads" in record else ""
    load = (
        f", load average {hardware['load_average'][0]} at the end"
        if "load_average" in hardware
        else ""
    )
    commit, _, changes = record["git_revision"].partition("+")
    with_changes = " with changes that were not committed" if changes else ""
    return f"{what}{threads}{load}; revision `{commit[:12]}`{with_changes}{_versions(record)}"


def _versions(record: dict[str, Any]) -> str:
    """The packages that ran, and where they were not the lock's."""
    ran = record.get("versions", {})
    beside = "trl" if "trl" in ran else "lm-eval"
    shown = [package for package in (beside, "transformers", "torch") if package in ran]
    if not shown:
        return ""
    other = [
        f"{package} {locked}"
        for package in shown
        if (locked := _locked().get(package, ran[package])) != ran[package]
    ]
    lock = f"; not the lock's {', '.join(other)}" if other else ""
    return "; " + ", ".join(f"{package} {ran[package]}" for package in shown) + lock


@cache
def _locked() -> dict[str, str]:
    """The version of each package in requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = (line.split(" ")[0].split("==") for line in lines if "==" in line and line[0] != " ")
    return dict(pins)


def entries(size: dict[str, Any], mixture: str) -> Entries:
    return {
        (entry["system"], entry["method"]): entry for entry in size["mixtures"].get(mixture, [])
    }


def speed(entry: dict[str, Any]) -> float:
    return median(entry["tokens_per_second"])


# ----------------------------------------------------------------------------------- training


def training(record: dict[str, Any]) -> Iterator[str]:
    for name, size in record["sizes"].items():
        shape, settings = size["shape"], size["training"]
        yield f"### {TITLES[name][0].upper()}{TITLES[name][1:]}"
        yield ""
        yield f"{machine(size)}."
        yield ""
        yield (
            f"Hidden {shape['hidden_size']}, {shape['num_hidden_layers']} layers, FFN "
            f"{shape['intermediate_size']}, {shape['num_attention_heads']} heads, vocabulary "
            f"{shape['vocab_size']}; {size['rows']} rows of {size['mean_length']:.0f} tokens on average, "
            f"all of them in every step, {settings['epochs']} steps per run"
            f"{', the first unmeasured' if size['hardware']['gpus'] else ''}. A large matrix product "
            f"reaches {size['matmul_flops'] / 1e9:,.0f} GFLOP/s here." + _settings(size)
        )
        yield ""
        head = ["", "tokens/s", "of the ceiling", "rows at once", "peak MiB"]
        # a CPU's estimate is of a process of its own, not of a fork of one that has imported much
        memory = ["peak_bytes", "estimated_bytes"] if size["hardware"]["gpus"] else ["peak_bytes"]
        head += ["estimated"] * (len(memory) - 1)
        head += ["Trainer takes", "TRL takes", "time over MoFE's", "by FLOPs"]
        yield from table(head, _training_rows(size, memory))


def _settings(size: dict[str, Any]) -> str:
    """How the others ran, where they did."""
    if "trl_best" not in size:
        return ""
    tried = ", ".join(f"{how} {speed:,.0f}" for how, speed in size["trl_settings"].items())
    return (
        f" The Trainer takes {size['trainer_rows']} rows per forward pass. TRL's fastest setting was "
        f"{size['trl_best']} (tokens/s: {tried})."
    )


def _training_rows(size: dict[str, Any], memory: Sequence[str]) -> Iterator[list[str]]:
    for mixture in (m for m in MIXTURES if m in size["mixtures"]):
        found = entries(size, mixture)
        for (system, method), entry in found.items():
            if system != "mofe":
                continue
            name = f"{mixture}, {METHODS[method]}"
            if "failed" in entry:
                yield [name, entry["failed"], *[""] * (len(memory) + 6)]
                continue
            yield [
                name,
                f"{speed(entry):,.0f}",
                f"{entry['utilisation']:.0%}",
                str(entry["rows_at_once"]),
                *(units.mib(entry[what]) for what in memory),
                *(_theirs(found, other, method) for other in ("trainer", "trl")),
                times(entry.get("over_mofe")),
                f"{_by_flops(found, method):.2f}" if method != "mofe" else "",
            ]


def _theirs(found: Entries, system: str, method: str) -> str:
    entry = found.get((system, method))
    if entry is None:
        return "cannot" if method not in (*STOCK, FOLDED) else ""
    return entry.get("failed") or times(entry.get("over_ours"))


def _by_flops(found: Entries, method: str) -> float:
    ours = [found["mofe", m]["flops_per_token"] for m in (method, "mofe")]
    return ours[0] / ours[1]


def first_losses(record: dict[str, Any]) -> str:
    """How far the systems' first losses lie apart, where they are to be the same."""
    recipes = read_study(ROOT / "config.yaml").recipes
    quantized = {name for name, recipe in recipes.items() if recipe.is_quantized}
    apart = [
        abs(entry["losses"][0] - found["mofe", method]["losses"][0])
        for size in record["sizes"].values()
        for found in (entries(size, mixture) for mixture in size["mixtures"])
        for (system, method), entry in found.items()
        if system != "mofe" and method not in quantized and "over_ours" in entry
    ]
    return f"{max(apart):.1e}" if apart else "not compared"


def hours(record: dict[str, Any]) -> Iterator[str]:
    """Every trained row of Tables 1 and 2 at the measured speed, beside the paper's hours."""
    study = read_study(ROOT / "config.yaml")
    plan, size = Plan(study), record["sizes"].get("tinyllama_512")
    if size is None:
        return
    yield (
        f"Hours of Tables 1 and 2 on one such GPU, from tokens/s of steps of {size['rows']} rows (the "
        f"study's have {study.training.global_batch:,}) and the study's number of tokens, and how many "
        "times MoFE's they are. LoRA and DoRA need fewer FLOPs than MoFE, so a time of several times MoFE's, "
        "as the paper's Table 2 has it, is not the methods' own cost."
    )
    yield ""
    rows = []
    for number in (1, 2):
        taken, printed = {}, {}
        specs = {name: spec for name, spec in study.tables[number].rows.items() if spec.train}
        for label, spec in specs.items():
            ((mix, recipe),) = spec.train.items()
            tokens = sum(study.data[d].rows * study.data[d].tokens for d in plan.mix(mix))
            entry = entries(size, spec.mixture).get(("mofe", recipe), {})
            if "tokens_per_second" in entry:
                seconds = study.training.epochs * tokens / speed(entry)
                taken[spec.mixture, recipe] = seconds / 3600
            theirs = paper.printed(number, label, "Training Time(hr)")
            printed[spec.mixture, recipe] = float(theirs) if theirs else None
        for label, spec in specs.items():
            (recipe,) = spec.train.values()
            row = [f"Table {number}: {label.replace(paper.LABEL_SEPARATOR, ', ')}"]
            for its, digits in ((taken, 2), (printed, 0)):
                one, mofe = its.get((spec.mixture, recipe)), its.get((spec.mixture, "mofe"))
                row.append("not measured" if one is None else f"{one:.{digits}f}")
                row.append(f"{one / mofe:.1f}" if one and mofe and recipe != "mofe" else "")
            rows.append(row)
    yield from table(["", "hours", "over MoFE's", "the paper's", "over its MoFE's"], rows)


# ------------------------------------------------------------------------ the other benchmarks


def evaluation(record: dict[str, Any]) -> Iterator[str]:
    head = ["", "questions", "questions/s", "lm_eval takes", "its command takes"]
    head += [
        "for a further model",
        "peak MiB",
        "lm_eval's",
        "judged otherwise",
        "log-likelihoods within",
    ]
    rows = [
        [
            f"{name}, lm_eval in batches of {size['batch']}",
            f"{size['questions']}",
            f"{size['questions'] / median(size['call']['ours']):,.0f}",
            times(size["call"]["ratio"]),
            times(size["command"]["ratio"]),
            times(size["again"]["ratio"]),
            *(units.mib(size["peak_bytes"][side]) for side in ("ours", "lm_eval")),
            str(size["judged_otherwise"]),
            f"{size['largest_difference']:.0e}",
        ]
        for name, size in record["sizes"].items()
    ]
    yield from table(head, rows)


def decoding(record: dict[str, Any]) -> Iterator[str]:
    yield (
        "Greedy answers to the same prompts by a random model. On a GPU products are in bfloat16, whose "
        "rounding soon leads greedy texts apart, so texts can be compared on a CPU only."
    )
    yield ""
    head = ["", "prompts", "tokens/s", "lm_eval takes", "texts as lm_eval's"]
    rows = [
        [
            f"{TITLES[name]}, {system}",
            f"{size['prompts']}",
            f"{measured['tokens_per_second']:,.0f}",
            "" if system == "lm_eval" else times(measured["lm_eval_takes"]),
            f"{measured['same_texts']} of {size['prompts']}",
        ]
        for name, size in record["sizes"].items()
        for system, measured in size["systems"].items()
    ]
    yield from table(head, rows)


def loading(record: dict[str, Any]) -> Iterator[str]:
    yield (
        "Jobs compare the checksums of a model before they load it. How many times as long that takes "
        f"as loading alone, for {TITLES[record['size']]}; *cold* means that the files are not in the "
        "system's cache."
    )
    yield ""
    rows = [
        [f"{kind}, {state}", units.size(record["bytes"][kind]), times(found["seconds"]["ratio"])]
        for kind in record["bytes"]
        for state, found in record[kind].items()
    ]
    yield from table(["", "size", "takes"], rows)


def recording(record: dict[str, Any]) -> Iterator[str]:
    yield (
        "What `training.record_router` costs: CPU seconds of a recorded step beside the next one, which "
        "is not recorded, and of a training with every second step recorded beside one without. From "
        "the first follows what a training costs in which every n-th step is recorded. "
        f"{record['experts']} different experts, MoFE."
    )
    yield ""
    costs = {every: None for size in record["sizes"].values() for every in size["cost_of_every"]}
    head = ["", "rows a step", "a recorded step takes", "the training takes"]
    rows = [
        [
            *(TITLES[name], f"{size['rows']}", times(size["step"]), times(size["run"])),
            *(f"{100 * size['cost_of_every'][every]:+.2f}%" for every in costs),
        ]
        for name, size in record["sizes"].items()
    ]
    yield from table([*head, *(f"`record_router: {every}`" for every in costs)], rows)


def starts(record: dict[str, Any]) -> Iterator[str]:
    yield (
        "What it takes until a job on a cluster's node begins to read its model, without a GPU: two "
        "Snakemakes and the imports of one job; one Snakemake, and beside it the imports, for all tasks "
        "of a model; and the script of a further task. *Cold*: no file of the environment is in the "
        "system's cache. “Processor” is what a machine of its own would take, less reading."
    )
    yield ""
    seconds, cpu, read = record["seconds"], record["cpu_seconds"], record["bytes_read"]
    rows = []
    for what, title in (
        ("one", "one job"),
        ("together", "all tasks of a model: the first"),
        ("further", "a further task"),
    ):
        row = [title, *(f"{median(seconds[state][what]):.1f}" for state in ("warm", "cold"))]
        row.append(times(record["cold_over_warm"][what]))
        if what in read:
            row += [f"{median(cpu['cold'][what]):.1f}", units.size(median(read[what]))]
        rows.append([*row, *[""] * (6 - len(row))])
    head = ["", "warm s", "cold s", "cold takes", "processor s, cold", "read, cold"]
    yield from table(head, rows)
    yield (
        "All tasks' first start over one job's, in turns: "
        f"{times(record['together_over_one']['warm'])} warm, "
        f"{times(record['together_over_one']['cold'])} cold."
    )
    yield ""


def revisions(record: dict[str, Any]) -> Iterator[str]:
    yield (
        "The same small study by this revision and by one before, in turns "
        f"({record['before'][:12]}): how many times as long this one takes."
    )
    yield ""
    rows = [[what, times(found)] for what, found in record["ratios"].items()]
    yield from table(["", "takes"], rows)


def merging(record: dict[str, Any]) -> Iterator[str]:
    head = ["", "seconds", "mergekit takes", "its command takes"]
    head += ["peak MiB", "mergekit's", "MB written", "mergekit's"]
    rows = [
        [
            TITLES[name],
            f"{median(size['call']['ours']):.1f}",
            times(size["call"]["ratio"]),
            times(size["command"]["ratio"]),
            *(units.mib(size["peak_bytes"][side]) for side in ("ours", "mergekit")),
            *(f"{size['bytes_written'][side] / 1e6:,.1f}" for side in ("ours", "mergekit")),
        ]
        for name, size in record["sizes"].items()
    ]
    yield from table(head, rows)


def whole_study(record: dict[str, Any]) -> Iterator[str]:
    jobs, cores = record["jobs"]["all"], record["hardware"]["cores"]
    head = [
        "",
        "wall s",
        "computing s",
        "starting processes s",
        f"{cores} x wall / computing",
        "memory",
        "disk",
    ]
    row = [
        f"`{' '.join(record['arguments'])}`, {jobs['jobs']:.0f} jobs",
        f"{record['wall']:.0f}",
        f"{jobs['computing']:.0f}",
        f"{jobs['starting']:.0f}",
        f"{record['cores x wall / computing']:.2f}",
        units.size(record["memory"]),
        units.size(record["disk"]),
    ]
    yield from table(head, [row])


# ------------------------------------------------------------------------------------ targets


TARGETED = ("training-cpu", "training-gpu", "evaluation-cpu", "evaluation-gpu")  # their results


def targets(
    train: dict[str, Any] | None,
    gpu: dict[str, Any] | None,
    evaluate: dict[str, Any] | None,
    evaluate_gpu: dict[str, Any] | None,
) -> Iterator[list[str]]:
    """What was aimed at, what was measured, and whether every measurement reaches it."""

    def judged(what: str, values: dict[str, float], limit: float, least: bool) -> list[str]:
        bound = f"{'at least' if least else 'at most'} {limit:,g}"
        if not values:
            return [what, bound, "not measured", ""]
        reached = all(v >= limit if least else v <= limit for v in values.values())
        shown = ", ".join(
            f"{name} {value:,.0f}" if value > 1000 else f"{name} {value:.2f}"
            for name, value in values.items()
        )
        return [what, bound, shown, "yes" if reached else "**no**"]

    if train and (size := train["sizes"].get("rows")):
        for system, least in (("trainer", 2.5), ("trl", 1.3)):
            what = f"MoFE over {SYSTEMS[system][0]}"
            yield judged(what, over(size, system, "mofe", "over_ours"), least, True)
        for what, *target in methods_targets(size):
            yield judged(what, *target)
    if gpu and (size := gpu["sizes"].get("tinyllama_512")):
        where = ", ".join(size["hardware"]["gpus"])
        found = {mixture: entries(size, mixture)["mofe", "mofe"] for mixture in size["mixtures"]}
        speeds = {
            mixture: speed(entry) for mixture, entry in found.items() if "failed" not in entry
        }
        if "large" in speeds:
            what = f"{where}: MoFE's tokens/s"
            yield judged(what, {"large": speeds["large"]}, 35_000, True)
        if len(speeds) == len(MIXTURES):
            most = {"slowest over fastest": max(speeds.values()) / min(speeds.values())}
            yield judged(f"{where}: its time across 2, 4 and 8 experts", most, 1.1, False)
        for what, *target in methods_targets(size):
            yield judged(f"{where}: {what}", *target)
    for record in filter(None, (evaluate, evaluate_gpu)):
        sizes = record["sizes"]
        ratios = {name: size["call"]["ratio"]["median"] for name, size in sizes.items()}
        other = sum(size["judged_otherwise"] for size in sizes.values())
        asked = sum(size["questions"] for size in sizes.values())
        where = "".join(f"{gpu}: " for gpu in next(iter(sizes.values()))["hardware"]["gpus"])
        what = f"{where}evaluation over lm_eval ({other} of {asked:,} questions judged otherwise)"
        yield judged(what, ratios, 2.0, True)


def over(size: dict[str, Any], system: str, method: str, key: str) -> dict[str, float]:
    """A training's ratio of one of summarise's keys, by mixture, where it was measured."""
    its = {m: entries(size, m).get((system, method), {}).get(key) for m in MIXTURES}
    return {mixture: ratio["median"] for mixture, ratio in its.items() if ratio}


def methods_targets(size: dict[str, Any]) -> Iterator[tuple[str, dict[str, float], float, bool]]:
    """What is aimed at for this project's methods beside each other."""
    shares = {m: 1 / v for m, v in over(size, "mofe", "full", "over_mofe").items()}
    yield "MoFE's step over full's", shares, 0.78, False
    for method in ("lora", "dora"):
        measured = over(size, "mofe", method, "over_mofe")
        excess = {m: v / _by_flops(entries(size, m), method) for m, v in measured.items()}
        yield f"{METHODS[method]}'s time over MoFE's, by what FLOPs say", excess, 1.15, False
    if folded := over(size, "mofe", FOLDED, "over_mofe"):
        apart = max(
            abs(a - b)
            for found in (entries(size, mixture) for mixture in folded)
            for a, b in zip(
                found["mofe", FOLDED]["losses"], found["mofe", "mofe"]["losses"], strict=True
            )
        )
        gains = {m: 1 / v for m, v in folded.items()}
        yield f"folding (losses within {apart:.0e})", gains, 1.5, True


# ------------------------------------------------------------------------------------- figure


def figure(record: dict[str, Any], file: Path) -> None:
    """True tokens per second of every method and system, medium mixture: one panel per shape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        sizes, panels = record["sizes"], len(record["sizes"])
        whole, axes = plt.subplots(
            1, panels, figsize=(4.6 * panels, 3.4), squeeze=False, layout="constrained"
        )
        for axis, (name, size) in zip(axes[0], sizes.items(), strict=True):
            mixture = "medium" if "medium" in size["mixtures"] else next(iter(size["mixtures"]))
            _bars(axis, entries(size, mixture))
            axis.set_title(f"{TITLES[name]}, {MIXTURES[mixture]} experts", fontsize=9, loc="left")
            axis.set_xlabel("true tokens per second")
        keys = {
            label: bar
            for a in axes[0]
            for bar, label in zip(*a.get_legend_handles_labels(), strict=True)
        }
        whole.legend(
            keys.values(), keys, loc="outside lower center", ncols=len(SYSTEMS), frameon=False
        )
        file.parent.mkdir(exist_ok=True)
        whole.savefig(file, dpi=160, metadata={"Software": None})
        plt.close(whole)


def _bars(axis, found: Entries) -> None:
    methods = [m for m in METHODS if ("mofe", m) in found]
    measured = {key: entry for key, entry in found.items() if "tokens_per_second" in entry}
    systems = [system for system in SYSTEMS if any(system == s for s, _ in measured)]
    width = 0.8 / len(systems)
    for at, system in enumerate(systems):
        label, colour = SYSTEMS[system]
        have = [(i, measured[system, m]) for i, m in enumerate(methods) if (system, m) in measured]
        values = [speed(entry) for _, entry in have]
        spread = [
            [
                v - min(entry["tokens_per_second"])
                for v, (_, entry) in zip(values, have, strict=True)
            ],
            [
                max(entry["tokens_per_second"]) - v
                for v, (_, entry) in zip(values, have, strict=True)
            ],
        ]
        places = [place + (at - (len(systems) - 1) / 2) * width for place, _ in have]
        axis.barh(places, values, width, color=colour, label=label)
        axis.errorbar(values, places, xerr=spread, fmt="none", ecolor="#444444", elinewidth=0.8)
    axis.set_yticks(range(len(methods)), [METHODS[m] for m in methods])
    axis.set_ylim(max(len(methods), 3) - 0.5, -0.5)  # the first on top, and no bar too thick
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.locator_params(axis="x", nbins=5)


# --------------------------------------------------------------------------------------- page


def page() -> Iterator[str]:
    found = {
        name: read(name)
        for name in (
            *("training-cpu", "training-gpu", "evaluation-cpu", "evaluation-gpu"),
            *("decoding-cpu", "decoding-gpu", "merge", "loading", "router", "router-gpu", "starts"),
            *("revisions", "look", "mini"),
        )
    }
    yield "# Benchmarks"
    yield ""
    yield (
        "`make bench` measures all of this again and writes this page; nothing in it is typed by "
        "hand. Numbers are in [benchmarks/results](../benchmarks/results). Programs that are "
        "compared ran in turns on one machine. A ratio is the median over the turns, with the least and "
        "the greatest in parentheses; without parentheses there was one turn. “Trainer takes 2” means "
        "that it takes twice as long as this project for the same tokens."
    )
    yield ""
    rows = list(targets(*(found[name] for name in TARGETED)))
    if rows:
        yield from table(["target", "", "measured", "reached"], rows)
    for name, title in (
        ("training-cpu", "Training on a CPU"),
        ("training-gpu", "Training on a GPU"),
    ):
        if (record := found[name]) is None:
            continue
        yield f"## {title}"
        yield ""
        if any("trl_best" in size for size in record["sizes"].values()):
            figure(record, FIGURES / f"{name}.png")
            yield f"![True tokens per second by method](images/{name}.png)"
            yield ""
        yield (
            "All programs train the same identical experts on the same rows with the same loss. Their "
            f"first losses differ by at most {first_losses(record)}, except QLoRA's, because stock 4-bit "
            "loading does not quantise the experts. Speed counts the rows' own tokens, without padding. "
            "“Of the ceiling”: needed FLOPs per second (mofe/estimate/flops.py), divided by those "
            "of a large matrix product. “Rows at once”: rows of the greatest length per forward pass; of "
            "shorter rows there are more. “Estimated”: the plan's peak, with rows of the greatest length. "
            "“Cannot”: packed experts cannot be frozen in part."
        )
        yield ""
        if name == "training-gpu":
            yield (
                "A ratio here is from one run of each program: the median over the steps after the first. "
                "All programs compute products in bfloat16. The Trainer and TRL also hold frozen experts "
                "in bfloat16, because autocast leaves those products in the type of the weights."
            )
            yield ""
        yield from training(record)
        if name == "training-gpu":
            yield from hours(record)
    if found["training-gpu"] is None:
        yield (
            "Nothing has been measured on a GPU yet; `make bench` does it where there is one, with the "
            "hours of Tables 1 and 2 that follow."
        )
        yield ""
    for name, title, part in (
        ("evaluation-cpu", "Evaluation", evaluation),
        ("evaluation-gpu", "Evaluation on a GPU", evaluation),
        ("decoding-cpu", "Answers in words", decoding),
        ("decoding-gpu", "Answers in words on a GPU", decoding),
        ("merge", "Merging", merging),
        ("loading", "Loading with checksums", loading),
        ("router", "Recording routers", recording),
        ("router-gpu", "Recording routers on a GPU", recording),
        ("starts", "Starting a job", starts),
        ("revisions", "Beside an earlier revision", revisions),
        ("look", "A first look", whole_study),
        ("mini", "The whole study in miniature", whole_study),
    ):
        if (record := found[name]) is not None:
            yield f"## {title}"
            yield ""
            for whose, of in measured_as(record):
                yield f"{whose}{machine(of)}."
                yield ""
            yield from part(record)


def measured_as(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(whose measurements, what says where they were made): of all sizes at once where one line is
    true of them all."""
    if "hardware" in record:
        return [("", record)]
    sizes = record["sizes"]
    if len({machine(size) for size in sizes.values()}) == 1:
        return [("", next(iter(sizes.values())))]
    return [(f"{name}: ", size) for name, size in sizes.items()]


def main() -> None:
    write_atomic(PAGE, "\n".join(page()).rstrip() + "\n")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
