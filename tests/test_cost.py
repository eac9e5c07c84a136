"""What jobs cost: exact parameters, FLOPs, memory that is near what is measured, and placement."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import CONFIG, MINI, ROOT, overrides, snakemake
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_report import train_record

from mofe.estimate import flops, memory
from mofe.estimate.cost import DISK, Costs, fewest_gpus, sharding
from mofe.estimate.forecast import forecast
from mofe.estimate.page import markdown
from mofe.estimate.schedule import (
    critical_path,
    gpu_hours,
    jobs,
    makespan,
    sharing,
    submissions,
)
from mofe.report.figures import inputs
from mofe.stages.plan import check_counts, count_on_modules
from mofe.study.hardware import GPUS
from mofe.study.load import read_study
from mofe.study.methods import GROUPS, Freeze, Full, Ia3, Lora, Partial, RsLora, Untuned
from mofe.study.plan import Plan
from mofe.study.shapes import Shape
from mofe.study.values import ConfigError

TINYLLAMA = Shape(2048, 5632, 22, 32, 4, 32000)
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
FULL, MOFE, LORA = Full(), Freeze(frozen="all"), Lora(rank=8, alpha=16, targets=QKVO)
IA3 = Ia3(targets=["k_proj", "v_proj", "o_proj"], feedforward=["o_proj"])
METHODS = [FULL, MOFE, Freeze(frozen=1), LORA, Lora(rank=8, alpha=16, targets=QKVO, dora=True)]
METHODS += [Lora(rank=8, alpha=16, targets=QKVO, quantize="nf4"), IA3]
METHODS += [Freeze(frozen="all", quantize="nf4"), Freeze(frozen="all", quantize="fp8")]
METHODS += [
    Freeze(frozen=[1]),
    Freeze(frozen=[0, 1], quantize="nf4"),
    Freeze(frozen="all", unfreeze=[{"after": 0.5, "experts": "all"}]),
    Freeze(frozen=2, unfreeze=[{"after": 0.1, "experts": 1}, {"after": 0.5, "experts": [0]}]),
]
METHODS += [RsLora(rank=3, alpha=16, targets=["q_proj", "v_proj"])]
METHODS += [
    Lora(rank=8, alpha=16, targets=QKVO, also=["embed_tokens", "lm_head"]),
    Lora(rank=8, alpha=16, targets=["gate_proj", "down_proj"], also=["lm_head"]),
    Lora(rank=8, alpha=16, targets=["q_proj", "lm_head"], also=["embed_tokens"]),
    Lora(rank=8, alpha=16, targets=["lm_head"], dora=True),
    Ia3(targets=["v_proj"], also=["embed_tokens"]),
    *(Partial(train=[group]) for group in GROUPS),
    Partial(train=["attention", "embeddings", "router", "norms"]),
]
LONG = {"tinyllama": {"shape": {"max_position_embeddings": 2**20}}}
IN_DENSE = [  # what adapts FFNs, but cannot adapt a mixture's experts
    Lora(rank=8, alpha=16, targets=["gate_proj", "down_proj"], dora=True),
    Ia3(targets=["k_proj", "v_proj", "down_proj"], feedforward=["down_proj"]),
]


@pytest.fixture(scope="module")
def costs(paper_plan) -> Costs:
    return Costs(paper_plan)


@pytest.mark.parametrize(
    "experts, total, trained",
    [(2, 1861404672, 338872320), (4, 3384027136, 338962432), (8, 6429272064, 339142656)],
)
def test_the_papers_parameters(experts, total, trained):
    shape = TINYLLAMA.mixture(experts, 2)
    assert (shape.parameters, MOFE.trainable(shape)) == (total, trained)
    assert LORA.trainable(shape) == 2_252_800
    assert METHODS[4].trainable(shape) == 2_354_176, "DoRA"
    assert IA3.trainable(shape) == 56_320


shapes = st.builds(
    lambda groups, kv, head, ffn, layers, vocab, given, tied, bias: Shape(
        hidden_size=groups * kv * head,
        intermediate_size=8 * ffn,
        num_hidden_layers=layers,
        num_attention_heads=groups * kv,
        num_key_value_heads=kv,
        vocab_size=vocab,
        head_dim=given,
        tie_word_embeddings=tied,
        attention_bias=bias,
    ),
    *(st.integers(1, 4), st.integers(1, 3), st.sampled_from([4, 8, 16]), st.integers(1, 9)),
    *(st.integers(1, 3), st.integers(2, 50), st.sampled_from([None, 4, 32])),
    *(st.booleans(), st.booleans()),
)


@settings(max_examples=20)
@given(shapes, st.sampled_from([0, 2, 3, 5]), st.sampled_from([*METHODS, *IN_DENSE, Untuned()]))
def test_counts_are_those_of_the_real_modules(shape, experts, method):
    assume(not method.misfit(experts, "it", shape.tie_word_embeddings))
    shape = shape.mixture(experts, 2) if experts else shape
    assert count_on_modules(shape, method) == (method.total(shape), method.trainable(shape))


@settings(max_examples=10)
@given(shapes)
def test_a_mistral_has_the_parameters_of_its_configuration(shape):
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        **{
            name: getattr(shape, name)
            for name in Shape.__dataclass_fields__
            if not name.startswith("num_e") and name not in ("attention_bias", "num_local_experts")
        }
    )
    with torch.device("meta"):
        model = MistralForCausalLM(config)
    read = Shape.of(json.loads(config.to_json_string(use_diff=False)))
    assert read.parameters == sum(p.numel() for p in model.parameters())


def test_flops_have_the_known_ratios():
    shape = TINYLLAMA.mixture(4, 2)
    full, mofe, lora = (flops.step(shape, method, 512, 1.0) for method in (FULL, MOFE, LORA))
    assert mofe / full == pytest.approx(0.72, abs=0.005)
    assert lora / mofe == pytest.approx(0.93, abs=0.005)
    assert flops.step(TINYLLAMA, FULL, 512, 1.0) == 3 * flops.forward(TINYLLAMA, 512, 1.0)


def test_every_recipe_of_the_study_counts_as_its_modules(costs):
    assert check_counts(costs) == 19


def test_only_full_training_of_the_large_model_needs_two_gpus(costs):
    needs = {key: costs.train(v).needs for key, v in costs.plan.trained.items()}
    several = {key: n for key, n in needs.items() if n.gpus * n.nodes > 1}
    assert list(several) == ["tinyllama_8tinyllama/mmlu_medmcqa_full"]
    (large,) = several.values()
    assert (large.gpus, large.nodes, large.sharding) == (2, 1, "fsdp")


@given(st.sampled_from(METHODS[:5]), st.sampled_from([2, 4, 8]), st.integers(1, 8))
def test_a_sharded_training_gets_as_many_gpus_as_share_its_experts_evenly(method, experts, gpus):
    training = {"micro_batch": 64, "max_length": 1024}
    shape = TINYLLAMA.mixture(experts, 2)
    placed = fewest_gpus(shape, method, training, memory.CHOICES, "a100-40gb", gpus)
    assert shape.shared_evenly(placed.gpus * placed.nodes)


def test_experts_that_cannot_be_shared_evenly_lie_on_some_gpus_whole():
    """Of two experts on three GPUs, the last has none: the first hold half of them, not a third."""
    shape, training = TINYLLAMA.mixture(2, 2), {"micro_batch": 4, "max_length": 1024}
    held = {
        n: memory.on_gpu(shape, FULL, training, memory.CHOICES, n, "fsdp")["weights"]
        for n in (2, 3, 4)
    }
    assert held[3] == held[2] == 2 * held[4] == 4 * shape.parameters / 2


@pytest.mark.parametrize(
    "declared, processes, expected",
    [("none", 1, "none"), ("none", 4, "ddp"), ("fsdp", 4, "fsdp"), ("fsdp", 1, "none")],
)
def test_sharding_follows_the_gpus_that_a_job_got(declared, processes, expected):
    assert sharding(declared, processes) == expected


@given(st.sampled_from(METHODS[:5]), st.sampled_from([2, 4, 8]), st.sampled_from(sorted(GPUS)))
def test_a_placement_is_the_fewest_gpus_that_hold_it(method, experts, gpu):
    shape, training = TINYLLAMA.mixture(experts, 2), {"micro_batch": 4, "max_length": 1024}
    placed = fewest_gpus(shape, method, training, memory.CHOICES, gpu, 4)
    count = placed.gpus * placed.nodes
    assert placed.fits
    assert memory.total(placed.parts) <= GPUS[gpu].usable
    if count > 1:
        fewer = max(n for n in range(1, count) if shape.shared_evenly(n))
        parts = memory.on_gpu(
            shape, method, training, memory.CHOICES, fewer, sharding("fsdp", fewer)
        )
        assert count > 4 or memory.total(parts) > GPUS[gpu].usable


trainings = {
    "shape": st.sampled_from([2, 4, 8]).map(lambda n: TINYLLAMA.mixture(n, 2)),
    "method": st.sampled_from(METHODS),
    "labelled": st.sampled_from([memory.CHOICES, memory.WORDS, memory.TEXT]),
}
lengths = st.sampled_from([1, 60, 256, 1000, 1024, 4096, 20000])
gpus = st.sampled_from([(1, "none"), (2, "fsdp"), (4, "ddp"), (8, "fsdp")])


@given(st.fixed_dictionaries(trainings), lengths, st.floats(1e9, 200e9), gpus)
def test_auto_is_the_most_rows_that_fit(training, length, usable, gpus):
    def choice(rows):
        keys = {"micro_batch": rows, "max_length": length, "epochs": 3}
        fixed, parts = memory.choose_micro_batch(
            **training, training=keys, usable=usable, gpus=gpus[0], sharding=gpus[1]
        )
        assert fixed == keys | {"micro_batch": fixed["micro_batch"]}
        return fixed["micro_batch"], memory.total(parts)

    rows, peak = choice("auto")
    tokens = [16384, 8192, 4096, 2048, 1024]
    possible = sorted({max(1, rows // length) for rows in tokens})
    assert rows in possible and choice(rows) == (rows, peak), "a number stays"
    fitting = [rows for rows in possible if choice(rows)[1] <= usable]
    assert rows == max(fitting, default=possible[0])


@given(st.fixed_dictionaries(trainings), lengths)
def test_auto_on_a_cpu_is_1024_tokens_whatever_its_memory(training, length):
    keys = {"micro_batch": "auto", "max_length": length}
    fixed, parts = memory.choose_micro_batch(**training, training=keys, usable=None)
    assert fixed["micro_batch"] == max(1, 1024 // length)
    assert parts == memory.on_cpu(**training, training=fixed)


@given(st.fixed_dictionaries(trainings), lengths, st.sampled_from(sorted(GPUS)))
def test_fewer_gpus_go_before_more_rows(training, length, gpu):
    def placed(rows):
        keys = {"micro_batch": rows, "max_length": length}
        return fewest_gpus(**training, training=keys, gpu=gpu, gpus_per_node=4)

    auto, fewest, most = map(placed, ("auto", max(1, 1024 // length), max(1, 16384 // length)))
    assert placed(auto.micro_batch) == auto
    assert (auto.gpus, auto.nodes, auto.fits) == (fewest.gpus, fewest.nodes, fewest.fits)
    if most.fits and (most.gpus, most.nodes) == (auto.gpus, auto.nodes):
        assert auto == most


def test_the_papers_trainings_take_16_rows_at_once_but_where_memory_is_short(costs):
    rows = {key: costs.train(v).micro_batch for key, v in costs.plan.trained.items()}
    fewer = {key: n for key, n in rows.items() if n != 16}
    assert fewer == {
        "tinyllama_4tinyllama/mmlu_medmcqa_full": 8,
        "tinyllama_8tinyllama/mmlu_medmcqa_full": 8,  # on two GPUs
        "tinyllama_4tinyllama/medmcqa_freeze1": 8,
        "tinyllama_4tinyllama/medmcqa_full": 8,
    }


def test_auto_is_chosen_anew_for_other_gpus(costs):
    large = costs.train(costs.plan.trained["tinyllama_8tinyllama/mmlu_medmcqa_full"])
    assert costs.misfit("train", "it", large, 4) is None
    told = costs.misfit("train", "it", large, 1)
    assert "it fits 2 GPUs" in told and "micro_batch" not in told


def test_fewer_rows_are_advised_only_to_whom_asks_for_more(paper_plan):
    def told(rows):
        wide = {"training": {"max_length": 8192, "micro_batch": rows}}
        plan = Plan(read_study(CONFIG, recipes={"qlora": wide}, models=LONG))
        costs = Costs(plan, gpu="a100-40gb", gpus_per_node=1)
        variant = next(v for v in plan.trained.values() if v.stages[-1].recipe == "qlora")
        return costs.misfit("train", "it", costs.train(variant), 1)

    assert "training.micro_batch 2 with 1 GPU(s)" in told(64)
    assert told("auto") is None


def test_what_estimates_use_changes_no_job(paper_plan):
    change = {
        "data": {"mmlu": {"tokens": 5.0}},
        "tasks": {"mmlu": {"questions": 7, "tokens": 9.0}},
        "hardware": {"gpu": "h200", "gpus_per_node": 8},
        "models": {"tinyllama": {"shape": {"hidden_size": 64}}},
    }
    other = Plan(read_study(CONFIG, **change))
    assert [other.params.data(d) for d in other.datasets] == [
        paper_plan.params.data(d) for d in paper_plan.datasets
    ]
    assert other.params.task("mmlu") == paper_plan.params.task("mmlu")
    assert other.params.model("tinyllama") == paper_plan.params.model("tinyllama")
    assert other.params.assumptions() == paper_plan.params.assumptions()


def test_a_downloaded_configuration_must_be_the_stated_shape(tmp_path):
    folder = tmp_path / "TinyLlama" / "TinyLlama-1.1B-intermediate-step-1431k-3T"
    folder.mkdir(parents=True)
    sizes = {f: getattr(TINYLLAMA, f) for f in TINYLLAMA.__dataclass_fields__}
    sizes |= {"model_type": "llama", "intermediate_size": 5633}
    (folder / "config.json").write_text(json.dumps(sizes))
    plan = Plan(read_study(CONFIG, mirror=str(tmp_path), results=str(tmp_path / "results")))
    with pytest.raises(ConfigError, match=r"shape.intermediate_size: 5632, but .* says 5633"):
        Costs(plan).shape("general")


def test_an_unknown_shape_names_the_model_and_what_to_do(tmp_path):
    change = {"models": {"tinyllama": {"shape": None}}, "results": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"models.tinyllama: how large .* prefetch.*shape"):
        Costs(Plan(read_study(CONFIG, **change))).shape("medical")


def test_a_job_that_cannot_fit_is_told_what_would(costs):
    large = costs.plan.trained["tinyllama_8tinyllama/mmlu_medmcqa_full"]
    estimate = costs.train(large)
    assert costs.misfit("train", large.key, estimate, 2) is None
    assert "it fits 2 GPUs" in costs.misfit("train", large.key, estimate, 1)
    row = {"training": {"max_length": 32768}}
    plan = Plan(read_study(CONFIG, recipes={"full": row}, models=LONG))
    wide = Costs(plan, gpu="a100-40gb")
    told = wide.misfit("train", large.key, wide.train(large), 4)
    assert "hardware.gpu a100-40gb has 39 GiB" in told
    assert "would fit" in told or "no number of known GPUs" in told


def test_schedules_are_between_their_bounds(costs):
    made = jobs(costs, inputs(costs.plan))
    longest = sum(made[n].estimate.hours for n in critical_path(made))
    work = sum(job.estimate.gpu_hours for job in made.values())
    assert makespan(made, 1) is None, "full training of the large model has two GPUs"
    spans = [makespan(made, n) for n in (2, 3, 8, 24)]
    assert spans == sorted(spans, reverse=True)
    assert all(
        max(longest, work / n) <= s + 1e-9 for n, s in zip((2, 3, 8, 24), spans, strict=True)
    )
    assert makespan(made, 1000) == pytest.approx(longest)


def test_all_tasks_of_a_model_start_once(costs):
    """The plan counts the jobs that Slurm sees (tests/test_slurm.py), and one start for each."""
    alone = jobs(costs, inputs(costs.plan))
    made = dict(zip(alone, sharing(alone.values()), strict=True))
    seen = submissions(made)
    found = forecast(costs, inputs(costs.plan))
    on_gpus = [job for job in seen.values() if job.gpus]
    assert len(on_gpus) == 34 + 33 == found.totals.gpu_submissions
    assert sum(job.gpus > 0 for job in alone.values()) == 34 + 70
    assert gpu_hours(seen.values()) == pytest.approx(found.totals.gpu_hours)
    assert gpu_hours(seen.values()) == pytest.approx(gpu_hours(made.values()))
    assert {before for job in seen.values() for before in job.after} <= set(seen)
    later = costs.study.hardware.model_copy(update={"starting": 3660})
    slow = Costs(Plan(costs.study.model_copy(update={"hardware": later})))
    one_hour_more = forecast(slow, inputs(slow.plan)).totals.gpu_hours - found.totals.gpu_hours
    assert one_hour_more == pytest.approx(sum(job.gpus for job in on_gpus))
    # a table alone may need one task of a model that others ask more of
    assert found.tables["7"].gpu_submissions == 5 + 5
    assert found.further_seed.totals.gpu_hours < found.totals.gpu_hours


def test_a_start_reads_the_models_that_the_job_loads(costs):
    plan = costs.plan
    tuned = plan.trained["tinyllama_2tinyllama/mmlu_medmcqa_mofe"]
    untuned = replace(tuned, stages=())
    read = 4 * costs.shape("tinyllama").parameters
    assert costs.evaluate(untuned, "mmlu").starting == pytest.approx((60 + read / DISK) / 3600)
    assert costs.train(tuned).starting == costs.evaluate(untuned, "mmlu").starting
    assert costs.evaluate(tuned, "mmlu").starting > costs.evaluate(untuned, "mmlu").starting
    cpu = Costs(Plan(read_study(CONFIG, MINI)))
    assert all(job.estimate.starting == 0 for job in jobs(cpu, inputs(cpu.plan)).values())


def test_the_page_says_what_the_forecast_holds(costs):
    found = forecast(costs, inputs(costs.plan))
    page = markdown(found)
    assert found.totals.trainings == 34
    assert all(f"Table {n} " in page for n in range(1, 8))
    assert all(f"### {base}" in page for base in ("Mistral-7B", "Llama-2-7B", "Llama-2-70B"))
    assert not found.guesses
    trainings = [job for job in found.jobs if job.memory.terms]
    assert len(trainings) == found.totals.trainings
    for held in (job.memory for job in trainings):
        sums = {part: sum(terms.values()) for part, terms in held.terms.items()}
        assert sums == pytest.approx(
            {part: held.parts[part] for part in ("activations", "backward")}
        )
    assert "| gate and up " in page
    disk = found.disk
    assert disk.kept < 80e9, "the paper's study"
    merges = disk.by_rule["merge"] + disk.by_rule["merge_per_seed"]
    assert merges < 12 * 4e6 and f"**{disk.kept / 1e9:.0f} GB**" in page
    with_five = found.totals.gpu_hours + 4 * found.further_seed.totals.gpu_hours
    assert f"5 seeds are recommended ({with_five:.0f} GPU-hours in all)" in page
    tables = sum(table.gpu_hours for table in found.tables.values())
    assert found.totals.gpu_hours < tables, "shared jobs count once"


@pytest.mark.parametrize("overlays", [[], [MINI]], ids=["GPU", "CPU"])
def test_every_table_of_the_page_has_its_columns(overlays, tmp_path):
    plan = Plan(read_study(CONFIG, *overlays, results=str(tmp_path)))
    page = markdown(forecast(Costs(plan), inputs(plan)))
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(tables) == (9 if overlays else 12)
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "\n\n\n" not in page and "e+" not in page
    assert ("core-hours" in page, "GPU-hours" in page) == (bool(overlays), not overlays)


def test_finished_runs_correct_the_estimates(tmp_path):
    plan = Plan(read_study(CONFIG, results=str(tmp_path)))
    variant = plan.trained["tinyllama_4tinyllama/medmcqa_mofe"]
    before = Costs(plan).train(variant)
    file = tmp_path / "variants" / variant.key / "s0" / "train.json"
    file.parent.mkdir(parents=True)
    seconds = 2 * before.flops / (312e12 * 0.35)  # half as fast as estimated
    record = train_record(tokens=round(before.tokens), device_seconds=seconds)
    record["hardware"]["gpus"] = 4 * ["NVIDIA A100-SXM4-80GB"]  # that are there, used or not
    file.write_text(json.dumps(record))
    after = Costs(plan)
    assert after.measured.speed["mofe"] == pytest.approx(0.175)
    assert after.train(variant).measured
    assert not after.train(plan.trained["tinyllama_4tinyllama/medmcqa_full"]).measured


def test_records_of_another_version_are_left_out_of_estimates_and_told(tmp_path):
    plan = Plan(read_study(CONFIG, results=str(tmp_path)))
    variant = plan.trained["tinyllama_4tinyllama/medmcqa_mofe"]
    before = Costs(plan).train(variant)
    run = tmp_path / "variants" / variant.key / "s0" / "train.json"
    counts = tmp_path / "data" / "mmlu.json"
    for file in (run, counts):
        file.parent.mkdir(parents=True)
    run.write_text(json.dumps({k: v for k, v in train_record().items() if k != "tokens"}))
    counts.write_text("{}")
    costs = Costs(plan)
    assert costs.train(variant) == before
    first, second = sorted(costs.left_out())
    assert str(counts) in first and "is missing" in first
    assert f"{run}: tokens is missing" in second and "delete the file" in second
    page = markdown(forecast(costs, inputs(plan)))
    assert f"**Left out**: {run}: tokens is missing" in page


def test_memory_is_within_15_percent_of_the_measured_peak(tmp_path):
    out = tmp_path / "memory.json"
    command = [sys.executable, "benchmarks/memory.py", "tiny", "--out", str(out), "--methods"]
    subprocess.run([*command, "mofe", "ia3"], cwd=ROOT, check=True)
    recorded = json.loads((ROOT / "benchmarks" / "results" / "memory-cpu.json").read_text())
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "memory.py")
    spec.loader.exec_module(benchmark := importlib.util.module_from_spec(spec))
    for entry in json.loads(out.read_text())["trainings"] + recorded["trainings"]:
        dense, _, rows, length = benchmark.SIZES[entry["size"]]
        training = {"micro_batch": rows, "max_length": length}
        shape, method = dense.mixture(entry["experts"], 2), benchmark.MEASURED[entry["method"]]
        estimate = memory.total(memory.on_cpu(shape, method, training, memory.CHOICES, stored=2))
        assert estimate == pytest.approx(entry["measured"], rel=0.15), (
            entry["size"],
            entry["method"],
        )


def test_the_rule_plan_writes_page_and_json(tmp_path):
    done = snakemake("plan", "--cores", "1", *overrides(results=str(tmp_path)))
    assert "GPU-hours on A100-80GB" in done.stderr
    assert json.loads((tmp_path / "plan.json").read_text())["counted_models"] == 31
    assert (tmp_path / "plan.md").read_text().startswith("# Plan of the study")
