"""What is refused before a run, each with its sentence, and what jobs ask of a machine."""

import os

import pytest
from conftest import CONFIG, MINI
from test_cost import LONG

from mofe.estimate.cost import Costs
from mofe.jobs import checks, downloads, resources
from mofe.jobs.checks import Waiting
from mofe.jobs.slurm.retries import Cause, Ends
from mofe.report.figures import inputs
from mofe.study.graph import Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.shapes import Shape

LARGE = {"variant": "tinyllama_8tinyllama/mmlu_medmcqa_full", "seed": "0"}
OWN_SIZES = {"max_position_embeddings": 512, "tie_word_embeddings": True}
SMALL = {"variant": "tinyllama_4tinyllama/medmcqa_mofe", "seed": "0"}


@pytest.fixture(scope="module")
def costs(paper_plan) -> Costs:
    return Costs(paper_plan)


def never() -> bool:
    raise AssertionError("nobody asks whether there is a GPU")


def test_a_models_folder_that_is_not_there():
    own = {"hub": None, "revision": None, "path": "models/ours"}
    plan = Plan(read_study(CONFIG, models={"tinyllama": own}))
    (told,) = checks.missing_folders(plan, lambda path: False)
    assert told.startswith(
        "models.tinyllama.path: there is no folder 'models/ours'; give the folder"
    )
    assert checks.missing_folders(plan, {"models/ours"}.__contains__) == []


@pytest.mark.parametrize("key, path", [("results", "notes.txt"), ("hub", "notes.txt/below/it")])
def test_a_folder_that_a_file_stands_in_the_way_of(tmp_path, key, path):
    (tmp_path / "notes.txt").write_text("a file")
    typed = f"{tmp_path}/{path}"
    told = checks.blocked_folders(
        Plan(read_study(CONFIG, **{key: typed})), os.path.isdir, os.path.lexists
    )
    there = f"{tmp_path}/notes.txt"
    assert told == [f"{key}: {typed!r} cannot be made, because {there!r} is a file; name another"]
    plan = Plan(read_study(CONFIG, **{key: f"{tmp_path}/new/deep"}))
    assert checks.blocked_folders(plan, os.path.isdir, os.path.lexists) == []


def test_a_folder_that_no_table_needs_is_not_asked_for():
    gates = {"positive": [["x"]], "negative": ["y"]}
    plan = Plan(read_study(CONFIG, models={"unused": {"path": "nowhere", "gates": gates}}))
    assert checks.missing_folders(plan, lambda path: False) == []


def test_a_site_that_is_not_known():
    unknown = "missing in profiles/site.yaml"
    given = {"slurm_account": unknown, "slurm_partition": unknown, "constraint": "a100"}
    jobs = [Waiting("train", SMALL, given), Waiting("evaluate", SMALL, {"constraint": unknown})]
    (told,) = checks.unknown_site(jobs)
    assert told == (
        "profiles/site.yaml: nothing is submitted without account, constraint, partition; write "
        "there what your cluster calls them, as docs/slurm.md shows"
    )
    assert checks.unknown_site([Waiting("train", SMALL, {"constraint": "a100"})]) == []
    assert checks.unknown_site([Waiting("fetch_repository", {}, given, local=True)]) == []


def test_what_its_gpus_cannot_hold(costs):
    evaluation = Waiting("evaluate", {**LARGE, "task": "mmlu"}, {"gpu": 1})
    alone = Waiting("train", LARGE, {"gpu": 1})
    (told,) = checks.misfits(costs, [evaluation, alone, alone, Waiting("merge", {"moe": "x"})])
    assert told.startswith(f"train {LARGE['variant']}: needs ") and "it fits 2 GPUs" in told
    assert checks.misfits(costs, [evaluation, Waiting("train", LARGE, {"gpu": 2})]) == []


def test_a_dense_expert_that_cannot_fit_is_called_by_its_name():
    wide = {"training": {"max_length": 2**20}}
    costs = Costs(Plan(read_study(CONFIG, recipes={"expert": wide}, models=LONG)))
    (told,) = checks.misfits(costs, [Waiting("train_expert", {"model": "general"}, {"gpu": 1})])
    assert told.startswith("train_expert general: needs ")


def test_a_mirror_that_lacks_what_waiting_jobs_read():
    plan = Plan(read_study(CONFIG, mirror="/shared/hub"))
    jobs = [
        Waiting("prepare_data", {"dataset": "mmlu"}),
        Waiting("questions", {"model": "tinyllama", "task": "mmlu"}),
        Waiting("questions", {"model": "tinyllama", "task": "medmcqa"}),
        Waiting("fetch_model", {"model": "tinyllama"}),
    ]
    here = "/shared/hub/openlifescienceai/medmcqa"
    (told,) = checks.incomplete_mirror(plan, jobs, {here}.__contains__)
    mmlu, model = plan.repositories["cais/mmlu"], plan.model_repositories("tinyllama")[0]
    lacks = f"cais/mmlu (revision {mmlu.revision}), {model.repo} (revision {model.revision})"
    assert told == (
        f"mirror: '/shared/hub' lacks {lacks}; add them there, or set 'mirror: null' and fetch "
        "them: snakemake --profile ... prefetch"
    )
    assert checks.incomplete_mirror(plan, jobs, lambda path: True) == []
    assert checks.incomplete_mirror(plan, [Waiting("train", SMALL)], lambda path: False) == []


def test_without_a_mirror_nothing_is_missing_from_it(paper_plan):
    jobs = [Waiting("prepare_data", {"dataset": "mmlu"})]
    assert checks.incomplete_mirror(paper_plan, jobs, lambda path: False) == []


def test_paper_scale_on_a_machine_without_a_gpu(costs):
    jobs = [Waiting("train", SMALL, local=True), Waiting("train", LARGE, local=True)]
    (told,) = checks.no_gpu(costs, jobs, lambda: False, lambda: None)
    variants = (costs.plan.variants[job.wildcards["variant"]] for job in jobs)
    hours = sum(costs.train(variant).gpu_hours for variant in variants)
    assert told.startswith("2 trainings and evaluations of the study 'paper' need a GPU, and this")
    assert f"they take about {hours:.1f} GPU-hours (a100-80gb)" in told and "add -n" in told
    assert checks.no_gpu(costs, jobs, lambda: True, never) == []
    assert checks.no_gpu(costs, jobs, lambda: False, lambda: "too old") == ["too old"]


def test_whether_there_is_a_gpu_is_asked_only_where_it_matters(costs):
    """The question imports torch."""
    on_a_cluster = [Waiting("train", SMALL)]
    evaluation = {"rule": "evaluate", "wildcards": {**SMALL, "task": "medmcqa"}, "local": True}
    without = Waiting(**evaluation, resources={"gpu": 0})
    table = Waiting("table", {"number": "1"}, {"gpu": 0}, local=True)
    assert checks.no_gpu(costs, on_a_cluster, never, never) == []
    assert checks.no_gpu(costs, [without, table], never, never) == []
    assert len(checks.no_gpu(costs, [Waiting(**evaluation)], lambda: False, lambda: None)) == 1
    mini = Costs(Plan(read_study(CONFIG, MINI)))
    assert checks.no_gpu(mini, [Waiting("train", SMALL, local=True)], never, never) == []


def test_the_pdf_without_latex_is_refused_before_its_tables_are_made():
    jobs = [Waiting("pdf", local=True), Waiting("train", SMALL)]
    (told,) = checks.no_latex(jobs, {}.get)
    assert told.startswith("tables.pdf: there is no program pdflatex") and "install it" in told
    assert checks.no_latex(jobs, {"pdflatex": "/usr/bin/pdflatex"}.get) == []
    assert checks.no_latex(jobs[1:], never) == []


def test_a_program_to_watch_with_that_is_missing_is_told_before_a_training():
    study = read_study(CONFIG, track="trackio")
    jobs = [Waiting("table"), Waiting("train", SMALL)]
    (told,) = checks.no_tracker(study, jobs, {}.get)
    assert told.startswith("track: trackio is not installed here; ") and "pip install" in told
    assert checks.no_tracker(study, jobs, {"trackio": True}.get) == []
    assert checks.no_tracker(study, jobs[:1], never) == []
    assert checks.no_tracker(read_study(CONFIG), jobs, never) == []


def test_all_reasons_are_told_at_once():
    plan = Plan(read_study(CONFIG, mirror="/shared/hub"))
    given = {"slurm_account": "missing in profiles/site.yaml", "gpu": 1}
    jobs = [Waiting("train", LARGE, given), Waiting("prepare_data", {"dataset": "mmlu"})]
    machine = checks.Machine(lambda path: False, never, never, never, never)
    told = checks.before_the_run(Costs(plan), jobs, machine)
    assert [sentence.split(":")[0].split()[0] for sentence in told] == [
        "profiles/site.yaml",
        "train",
        "mirror",
    ]


def test_downloads_are_those_of_the_waiting_fetches(paper_plan):
    jobs = [Waiting("fetch_repository", {"repo": "cais/mmlu"}), Waiting("train", SMALL)]
    assert checks.downloads(paper_plan, jobs) == [paper_plan.repositories["cais/mmlu"]]
    assert downloads.state("nowhere", []) == []


def test_a_hub_that_tells_nothing_ends_the_run(paper_plan, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    told = downloads.state(str(tmp_path / "hub"), [paper_plan.repositories["cais/mmlu"]])
    assert told == ["the hub did not tell what there is to download; see above"]
    assert "cais/mmlu" in capfd.readouterr().err


# --------------------------------------------------------------------------------- asked for


def test_a_job_asks_for_what_its_estimate_says(costs):
    needs = costs.train(costs.plan.variants[LARGE["variant"]]).needs
    asked = resources.asks(costs, Ends(), "train")
    assert resources.cpus(costs, "train")(LARGE) == needs.cpus
    assert asked["gpu"](LARGE) == 2 and asked["nodes"](LARGE) == 1
    assert asked["sharding"](LARGE) == "fsdp"


@pytest.mark.parametrize("what, cause", [("mem_mb", Cause.MEMORY), ("runtime", Cause.TIME)])
def test_another_attempt_asks_for_more_of_what_it_ran_out_of(costs, what, cause):
    ends = Ends()
    asked = resources.asks(costs, ends, "train")
    before = {name: asked[name](SMALL) for name in ("mem_mb", "runtime")}
    assert before[what] == getattr(costs.train(costs.plan.variants[SMALL["variant"]]).needs, what)
    for end in (cause, Cause.LOST, Cause.FAILED, cause):
        ends.note("train", SMALL, end)
    after = {name: asked[name](SMALL) for name in before}
    assert after == {**before, what: 3 * before[what]}
    assert resources.asks(costs, Ends(), "train")["mem_mb"](LARGE) == asked["mem_mb"](LARGE)


def test_a_rule_without_wildcards_asks_for_little(costs):
    assert resources.cpus(costs, "report")({}) == 1
    assert resources.asks(costs, Ends(), "report")["gpu"]({}) == 0


def test_a_training_on_several_nodes_starts_its_own_processes(paper_plan, costs):
    jobs = Graph(paper_plan, inputs(paper_plan)).jobs
    assert resources.spread(costs, "train", jobs) == {}
    narrow = Costs(paper_plan, gpu="a100-80gb", gpus_per_node=1)
    assert resources.spread(narrow, "train", jobs) == {"mpi": "srun", "tasks_per_node": 2}
    assert resources.spread(narrow, "train_expert", jobs) == {}


def test_before_a_download_tells_sizes_no_job_is_spread(tmp_path):
    plan = Plan(read_study(CONFIG, models={"tinyllama": {"shape": None}}, results=str(tmp_path)))
    assert resources.spread(Costs(plan), "train", Graph(plan, inputs(plan)).jobs) == {}


def test_what_only_a_models_own_files_tell_is_refused_by_the_key_that_set_it():
    """Sizes that the configuration does not state, as `Costs` reads them from config.json."""
    lora = {"training": {"max_length": 700}, "targets": ["q_proj", "lm_head"]}
    plan = Plan(read_study(CONFIG, training={"max_length": 600}, recipes={"lora": lora}))
    stated = plan.study.models["tinyllama"].shape.model_dump()
    costs = Costs(plan, bases={"tinyllama": Shape(**stated | OWN_SIZES)})
    trained = next(key for key in plan.trained if key.endswith("_lora"))
    waiting = [
        Waiting("train", {"variant": trained, "seed": "0"}),
        Waiting("train_expert", {"model": "medical", "seed": "0"}),
    ]
    assert checks.too_long_rows(costs, waiting) == [
        f"{key}: {length} is more than the 512 positions of models.tinyllama; lower it"
        for key, length in (("recipes.lora.training.max_length", 700), ("training.max_length", 600))
    ]
    (told,) = checks.tied_heads(costs, waiting)
    assert told.startswith(f"train of {trained}: its recipe has the target lm_head, which model ")
    assert "ties to its embeddings" in told
