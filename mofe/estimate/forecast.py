"""The plan in print: what a study will take, before a GPU-hour is spent (rule `plan`).

`forecast` gathers the estimates of mofe/estimate/cost.py over the graph of jobs as plain data, `markdown` and
`summary` put it into words. Parameters are counted on the real modules too, without their weights
(on the meta device), and must be those of mofe/study/shapes.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mofe.estimate import memory
from mofe.estimate.cost import CPU_FLOPS, SLOWER, STARTING, Costs, Estimate, gib
from mofe.estimate.schedule import Job, critical_path, gpu_hours, jobs, makespan
from mofe.study.hardware import GPUS
from mofe.study.shapes import Shape

MACHINES = (1, 3, 8, 24)  # numbers of GPUs that makespans are given for

# What the paper's first open question, MoFE on larger models, would take.
OTHER_BASES = {
    "Mistral-7B": Shape(4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768),
    "Llama-2-7B": Shape(4096, 11008, 32, 32, 32, 32000, max_position_embeddings=4096),
    "Llama-2-70B": Shape(8192, 28672, 80, 64, 8, 32000, max_position_embeddings=4096),
}


# ----------------------------------------------------------------------------------- gathering


def forecast(costs: Costs) -> dict[str, Any]:
    """Everything that the plan says, as plain data: hours, bytes, counts."""
    study, made = costs.study, jobs(costs)
    path = critical_path(made)
    kept = sum(job.estimate.disk for job in made.values())
    scratch = max((job.estimate.scratch for job in made.values()), default=0)
    return {
        "study": study.study,
        "device": study.device,
        "hardware": study.hardware.model_dump(),
        "jobs": [_job(name, job) for name, job in made.items()],
        "totals": _totals(made.values()),
        "disk": {
            "kept": kept,
            "by_rule": _by_rule(made.values()),
            "largest_checkpoint": scratch,
            "peak_with_8": kept + sum(sorted(j.estimate.scratch for j in made.values())[-8:]),
        },
        "tables": {
            number: _totals(j for j in made.values() if number in j.tables)
            for number in costs.plan.tables
        },
        "critical_path": [
            {"rule": made[n].rule, "label": made[n].label, "hours": made[n].estimate.hours}
            for n in path
        ],
        "machines": _machines(costs),
        "other_bases": {} if costs.on_cpu else _other_bases(costs),
        "measured": {k: dict(v) for k, v in asdict(costs.measured).items()},
        "guesses": costs.guesses(),
    }


def _job(name: str, job: Job) -> dict[str, Any]:
    it = job.estimate
    return {
        "rule": job.rule,
        "label": job.label,
        "makes": name,
        "after": list(job.after),
        "tables": list(job.tables),
        "needs": asdict(it.needs),
        "hours": it.hours,
        "gpu_hours": it.gpu_hours,
        "parameters": it.parameters,
        "trainable": it.trainable,
        "tokens": it.tokens,
        "flops": it.flops,
        "micro_batch": it.micro_batch,
        "memory": {"bytes": memory.total(it.memory), "parts": it.memory},
        "disk": it.disk,
        "scratch": it.scratch,
        "fits": it.fits,
        "measured": it.measured,
    }


def _totals(made: Iterable[Job]) -> dict[str, float]:
    made = list(made)
    rules = {"trainings": ("train", "train_expert", "pretrain"), "evaluations": ("evaluate",)}
    totals: dict[str, float] = {"jobs": len(made)}
    for what, names in rules.items():
        these = [job for job in made if job.rule in names]
        totals |= {what: len(these), f"{what}_gpu_hours": gpu_hours(these)}
    return totals | {
        "gpu_hours": gpu_hours(made),
        "flops": sum(job.estimate.flops for job in made),
        "tokens": sum(job.estimate.tokens for job in made if job.rule != "evaluate"),
        "disk": sum(job.estimate.disk for job in made),
    }


def _by_rule(made: Iterable[Job]) -> dict[str, float]:
    disk: dict[str, float] = {}
    for job in made:
        disk[job.rule] = disk.get(job.rule, 0) + job.estimate.disk
    return disk


def _machines(costs: Costs) -> dict[str, dict[str, Any]]:
    """Hours in all and makespans, by kind of GPU (of a CPU study for this machine alone)."""
    kinds = [costs.study.hardware.gpu] if costs.on_cpu else list(GPUS)
    machines = {}
    for kind in kinds:
        made = jobs(Costs(costs.plan, gpu=kind))
        machines[kind] = {
            "gpu_hours": gpu_hours(made.values()),
            "most_gpus": max(job.gpus for job in made.values()),
            "does_not_fit": [j.label for j in made.values() if not j.estimate.fits],
            "makespan": {n: makespan(made, n) for n in MACHINES},
        }
    return machines


def _other_bases(costs: Costs) -> dict[str, list[dict[str, Any]]]:
    """Tables 1 and 2 on larger models: their distinct trainings, on the study's GPUs."""
    variants, found = [v for v in costs.plan.shown_in(1, 2) if v.stages], {}
    for base, shape in OTHER_BASES.items():
        other = Costs(costs.plan, bases=dict.fromkeys(costs.plan.models, shape))
        found[base] = [
            {
                "label": v.key,
                "experts": len(v.origin.experts),
                "recipe": v.stages[-1].recipe,
                **_other(other.train(v)),
            }
            for v in variants
        ]
        found[base].sort(key=lambda it: it["experts"])
    return found


def _other(it: Estimate) -> dict[str, Any]:
    """What the table of another base shows of a training there."""
    return {
        "micro_batch": it.micro_batch,
        "parameters": it.parameters,
        "trainable": it.trainable,
        "memory": memory.total(it.memory),
        "needs": asdict(it.needs),
        "gpu_hours": it.gpu_hours,
        "fits": it.fits,
        "disk": it.disk,
    }


# ------------------------------------------------------------------------------------ in words


def summary(found: Mapping[str, Any]) -> str:
    """The forecast in a few lines, for the terminal."""
    totals, hardware, disk = found["totals"], found["hardware"], found["disk"]
    cpu = found["device"] == "cpu"
    unit = "cores" if cpu else "GPUs"
    gpu = (
        ""
        if cpu
        else f" on {GPUS[hardware['gpu']].name} at {hardware['utilisation']:.0%} of its peak"
    )
    spans = [
        f"{_time(hours)} on {n}" if hours is not None else f"not on {n}"
        for n, hours in found["machines"][hardware["gpu"]]["makespan"].items()
    ]
    return (
        f"{found['study']}: {totals['jobs']} jobs, of them {totals['trainings']} trainings and "
        f"{totals['evaluations']} evaluations\n"
        f"  {totals['gpu_hours']:.1f} {'core' if cpu else 'GPU'}-hours{gpu}\n"
        f"  done in {', '.join(spans)} {unit}\n"
        f"  {_gb(disk['kept'])} of disk, and up to {_gb(disk['largest_checkpoint'])} for the checkpoint "
        "of a running training"
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The forecast as a page."""
    cpu = found["device"] == "cpu"
    sections = [
        _opening(found),
        _section("Machines", _machines_table(found)),
        _section("Tables", _tables_table(found, cpu)),
        _section("The longest chain", _chain(found)),
        _section("Trainings", _trainings(found, cpu)),
        _section("Evaluations", _evaluations(found, cpu)),
        _section("Disk", _disk(found)),
        _section("Other bases", _bases(found)) if found["other_bases"] else "",
        _section("What this assumes", _assumed(found, cpu)),
    ]
    return "\n".join(s for s in sections if s)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.rstrip()}\n"


def _opening(found) -> str:
    totals, hardware = found["totals"], found["hardware"]
    cpu = found["device"] == "cpu"
    where = (
        "on one thread each"
        if cpu
        else f"on {GPUS[hardware['gpu']].name} at {hardware['utilisation']:.0%} of its peak"
    )
    unit = "core-hours" if cpu else "GPU-hours"
    measured = sorted(found["measured"]["speed"])
    correction = (
        f"Trainings by {', '.join(measured)} (marked *) take the speed that finished runs had. "
        if measured
        else "No run has finished yet: nothing here is measured. "
    )
    return (
        f"# Plan of the study “{found['study']}”\n\n"
        f"**{totals['jobs']} jobs: {totals['gpu_hours']:.1f} {unit}** {where}, of which "
        f"{totals['trainings']} trainings take {totals['trainings_gpu_hours']:.1f} and "
        f"{totals['evaluations']} evaluations {totals['evaluations_gpu_hours']:.1f}. They train on "
        f"{totals['tokens'] / 1e6:,.0f} million tokens and leave {_gb(totals['disk'])} on disk. "
        f"{correction}Parameters are exact: {found.get('counted_models', 0)} kinds of trained models "
        "were counted on the real modules.\n"
    )


def _machines_table(found) -> str:
    cpu = found["device"] == "cpu"
    what = "core" if cpu else "GPU"
    rows = []
    for kind, it in found["machines"].items():
        spans = [
            _time(h) if h is not None else f"needs {it['most_gpus']}"
            for h in it["makespan"].values()
        ]
        name = "this machine" if cpu else GPUS[kind].name
        misfit = f"; {len(it['does_not_fit'])} jobs do not fit" if it["does_not_fit"] else ""
        rows.append([name, f"{it['gpu_hours']:.1f}{misfit}", *spans])
    heads = [f"{what}-hours", *(f"{n} {what}{'s' if n > 1 else ''}" for n in MACHINES)]
    note = (
        "Time until everything is done, from nothing, on so many of them. Jobs that need no GPU "
        "(data, merges, tables) never wait for a machine here.\n"
    )
    return f"{_table(['', *heads], rows)}\n{note}"


def _tables_table(found, cpu: bool) -> str:
    rows = [
        [
            f"Table {number}",
            it["jobs"],
            it["trainings"],
            it["evaluations"],
            f"{it['gpu_hours']:.1f}",
            _gb(it["disk"]),
        ]
        for number, it in found["tables"].items()
    ]
    all_ = found["totals"]
    rows.append(
        [
            "**All, each job once**",
            all_["jobs"],
            all_["trainings"],
            all_["evaluations"],
            f"**{all_['gpu_hours']:.1f}**",
            _gb(all_["disk"]),
        ]
    )
    unit = "core-hours" if cpu else "GPU-hours"
    heads = ["", "jobs", "trainings", "evaluations", unit, "disk"]
    return (
        f"{_table(heads, rows)}\nEach line is what the table takes alone, with the experts, merges and "
        "data that it needs. Jobs that several tables share are made once.\n"
    )


def _chain(found) -> str:
    path = found["critical_path"]
    rows = [[step["rule"], f"`{step['label']}`", _time(step["hours"])] for step in path]
    hours = sum(step["hours"] for step in path)
    return f"However many machines there are, it takes {_time(hours)}:\n\n" + _table(
        ["rule", "job", "time"], rows
    )


def _trainings(found, cpu: bool) -> str:
    rows, seen = [], {}
    for job in found["jobs"]:
        if job["rule"] not in ("train", "train_expert", "pretrain"):
            continue
        label = job["label"].rpartition("/s")[0] or job["label"]
        seen.setdefault(label, []).append(job)
    for label, runs in seen.items():
        it, needs = runs[0], runs[0]["needs"]
        count = needs["gpus"] * needs["nodes"]
        rows.append(
            [
                f"`{label}`" + (f" × {len(runs)}" if len(runs) > 1 else ""),
                f"{it['parameters'] / 1e9:.3f} B"
                if not cpu
                else f"{it['parameters'] / 1e3:,.0f} K",
                f"{it['trainable'] / 1e6:,.2f} M" if not cpu else f"{it['trainable'] / 1e3:,.0f} K",
                f"{it['tokens'] / 1e6:,.1f} M",
                f"{it['flops'] / 1e15:,.0f}" if not cpu else f"{it['flops'] / 1e15:.2g}",
                (f"{it['gpu_hours']:.2f}" if not cpu else _time(it["hours"]))
                + ("*" if it["measured"] else ""),
                it["micro_batch"],
                gib(it["memory"]["bytes"]) + ("" if it["fits"] else " **does not fit**"),
                *([] if cpu else [f"{count}" + (f" {needs['sharding']}" if count > 1 else "")]),
                _gb(it["disk"]),
                ", ".join(map(str, it["tables"])),
            ]
        )
    heads = ["training", "parameters", "trained", "tokens", "PFLOP"]
    heads += ["time each" if cpu else "GPU-hours", "rows at once"]
    heads += ["memory"] if cpu else ["memory a GPU", "GPUs"]
    heads += ["kept", "tables"]
    largest = max(
        (job for runs in seen.values() for job in runs),
        key=lambda j: j["memory"]["bytes"],
        default=None,
    )
    parts = ""
    if largest:
        shares = ", ".join(
            f"{name} {gib(amount)}"
            for name, amount in sorted(largest["memory"]["parts"].items(), key=lambda p: -p[1])
            if amount > 0.005 * largest["memory"]["bytes"]
        )
        parts = f"\nThe largest, `{largest['label']}`: {shares}.\n"
    return _table(heads, rows) + parts


def _evaluations(found, cpu: bool) -> str:
    tasks: dict[str, list] = {}
    for job in found["jobs"]:
        if job["rule"] == "evaluate":
            tasks.setdefault(job["label"].rsplit("/", 1)[-1], []).append(job)
    rows = [
        [
            task,
            len(runs),
            f"{runs[0]['tokens'] / 1e6:,.2f} M",
            f"{max(j['hours'] for j in runs) * 60:.1f} min",
            f"{sum(j['gpu_hours'] for j in runs):.1f}",
            gib(max(j["memory"]["bytes"] for j in runs)),
        ]
        for task, runs in tasks.items()
    ]
    unit = "core-hours" if cpu else "GPU-hours"
    return _table(["task", "evaluations", "tokens each", "longest", unit, "memory"], rows)


def _disk(found) -> str:
    names = {
        "fetch_model": "models from the hub",
        "pretrain": "pretrained models",
        "train_expert": "dense experts",
        "merge": "merges: routers and manifests",
        "train": "trained parts of variants",
        "prepare_data": "training sets",
        "questions": "what is asked, in tokens",
        "evaluate": "scores and answers",
    }
    disk = found["disk"]
    rows = [[label, _gb(disk["by_rule"][r])] for r, label in names.items() if r in disk["by_rule"]]
    rows.append(["**kept in all**", f"**{_gb(disk['kept'])}**"])
    rows.append(
        ["the largest checkpoint, while its training runs", _gb(disk["largest_checkpoint"])]
    )
    rows.append(["peak, if the eight largest trainings run at once", _gb(disk["peak_with_8"])])
    return _table(["", "disk"], rows)


def _bases(found) -> str:
    gpu, text = GPUS[found["hardware"]["gpu"]].name, []
    text.append(
        "The paper asks how MoFE does on larger models. Tables 1 and 2 on other bases, with the same "
        f"rows and tokens, on {gpu} with {found['hardware']['gpus_per_node']} GPUs a node:\n"
    )
    for base, rows in found["other_bases"].items():
        lines = []
        for it in rows:
            needs = it["needs"]
            count = needs["gpus"] * needs["nodes"]
            place = f"{count}" + (f" on {needs['nodes']} nodes" if needs["nodes"] > 1 else "")
            lines.append(
                [
                    it["experts"],
                    it["recipe"],
                    it["micro_batch"],
                    f"{it['parameters'] / 1e9:,.1f} B",
                    _count(it["trainable"]),
                    place if it["fits"] else "fits none",
                    gib(it["memory"]),
                    f"{it['gpu_hours']:,.0f}" if it["fits"] else "–",
                ]
            )
        fitting = [it for it in rows if it["fits"]]
        total = sum(it["gpu_hours"] for it in fitting)
        text.append(
            f"### {base}\n\n{total:,.0f} GPU-hours for the {len(fitting)} of {len(rows)} trainings that "
            f"fit; they keep {_gb(sum(it['disk'] for it in fitting))}.\n\n"
            + _table(
                [
                    "experts",
                    "recipe",
                    "rows at once",
                    "parameters",
                    "trained",
                    "GPUs",
                    "memory a GPU",
                    "GPU-hours",
                ],
                lines,
            )
        )
    text.append(
        "More than one GPU means FSDP2. Quantised experts cannot be sharded, so QLoRA has one GPU. "
        "Rows at once are what `training.micro_batch` says or, if that is `auto`, the most of at most "
        "16,384 tokens that fit: nothing is recomputed. Evaluating a mixture needs one GPU that holds it, which 70B mixtures do not "
        "find."
    )
    return "\n".join(text)


def _assumed(found, cpu: bool) -> str:
    lines = [
        "FLOPs are those of products: forward, the inputs' gradients, and those of trained weights. "
        + "Attention is causal; logits are computed for answers only.",
        f"A CPU's thread does {CPU_FLOPS / 1e9:.0f} GFLOP/s."
        if cpu
        else f"A GPU reaches {found['hardware']['utilisation']:.0%} of its peak in bfloat16 "
        f"(`hardware.utilisation`), on several GPUs too; every GPU job starts in "
        f"{STARTING * 60:.0f} minutes, which are counted.",
        "Memory is that of a micro-batch whose rows all have `max_length` tokens.",
        f"Jobs ask for {SLOWER:g} times their estimated time, and again as much at each retry.",
    ]
    if found["guesses"]:
        lines.append(
            "**Guessed, because nobody stated it**: "
            + "; ".join(f"`{g}`" for g in found["guesses"])
        )
    return "\n".join(f"- {line}" for line in lines) + "\n\ndocs/plan.md says more."


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, its columns padded so that it reads as text too."""
    cells = [[str(c) for c in row] for row in (heads, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    right = [i > 0 and heads[i] not in ("job", "recipe", "tables") for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = (
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = [("-" * (w - 1) + ":") if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return (
        "\n".join(
            [line(cells[0]), "|" + "|".join(f" {r} " for r in rule) + "|", *map(line, cells[1:])]
        )
        + "\n"
    )


def _time(hours: float) -> str:
    """Hours as people say them."""
    if hours * 60 < 1:
        return f"{hours * 3600:.0f} s"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h"


def _gb(amount: float) -> str:
    return (
        f"{amount / 1e9:,.0f} GB"
        if amount >= 10e9
        else f"{amount / 1e9:,.2g} GB"
        if amount >= 1e8
        else f"{amount / 1e6:,.2g} MB"
    )


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:,.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:,.1f} M"
