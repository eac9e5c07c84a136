"""A method is an object: what follows from it, and nothing else that knows it by its name."""

import re

import pytest
from conftest import CONFIG, ROOT
from hypothesis import given
from hypothesis import strategies as st
from test_cost import IN_DENSE, METHODS, TINYLLAMA

from mofe.estimate import memory
from mofe.estimate.cost import Costs
from mofe.estimate.schedule import jobs
from mofe.models.methods import APPLY
from mofe.report.figures import inputs
from mofe.study import methods
from mofe.study.load import read_study
from mofe.study.methods import Freeze, Full, Ia3, Lora, RsLora, Untuned, parse
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

NAMES = "|".join([*methods.METHODS, "untuned"])
NAME = rf"['\"](?:{NAMES})['\"]"
KEY = r"['\"](?:method|quantize|dora|frozen)['\"]"
ASKED = rf"(?:\[{KEY}\]|\.method\b|\.get\({KEY}[^)]*\))"
# A data set's `rows` may be the word "full", too.
COMPARISONS = [
    rf"(?<!rows) (?<!rows\"\] )(?:==|!=|is|is not) {NAME}",
    rf"{NAME} (?:==|!=|in|not in) ",
    rf"\bin [\[({{][^\])}}]*{NAME}",
    rf"{ASKED} (?:==|!=|in|not in|is) ",
    r"\.get\(['\"](?:quantize|dora|frozen)['\"]",
    r"(?<!self)\.quantize\b",
    rf"\bcase {NAME}",
    rf"startswith\({NAME}",
]


def compared(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in COMPARISONS)


def test_no_file_compares_a_methods_name():
    files = [f for d in ("mofe", "rules", "scripts") for f in (ROOT / d).rglob("*")]
    texts = [f for f in files if f.suffix in (".py", ".smk", ".jinja")]
    assert len(texts) > 80
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in texts
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if compared(line)
    ]
    assert not found


@pytest.mark.parametrize(
    "line, expected",
    [
        ('if settings["method"] == "lora":', True),
        ('lora = settings["method"] != name', True),
        ('if recipe.method == "freeze":', True),
        ('if method in ("full", "freeze"):', True),
        ('if "lora" == kind:', True),
        ('if settings.get("quantize"):', True),
        ("{% if params.chain[-1].quantize %}", True),
        ('if settings.get("method", "full") == "full":', True),
        ('    case "ia3":', True),
        ('wanted = len(pairs) if data["rows"] == "full" else data["rows"]', False),
        ('return GUESSED_ROWS if rows == "full" else rows', False),
        ("method = plan.method(variant)", False),
    ],
)
def test_comparisons_are_recognised(line, expected):
    assert compared(line) is expected


def test_every_method_of_a_recipe_has_its_own_function():
    """A subclass without one would be trained as what it derives from."""
    assert APPLY.keys() == {*methods.METHODS.values(), Untuned}
    assert len(set(APPLY.values())) == len(APPLY)


@given(st.sampled_from([*METHODS, *IN_DENSE]))
def test_a_jobs_parameters_hold_the_method(method):
    params = {"recipe": "mine", **method.settings(), "training": {"epochs": 1}, "dtype": "float32"}
    assert parse(params) == method
    assert None not in method.settings().values()


def test_what_is_not_given_is_in_no_jobs_parameters(paper_plan):
    """Their hash is in finished records: a default that is written out would change it."""
    settings = {name: recipe.settings() for name, recipe in paper_plan.study.recipes.items()}
    assert settings["mofe"] == {"method": "freeze", "frozen": "all"}
    keys = ["method", "rank", "alpha", "targets", "quantize"]
    assert list(settings["qlora"]) == keys, "in the order of their repr, which Snakemake compares"


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("method", [m for m in METHODS if not m.misfit(0, "it")], ids=repr)
def test_activations_are_the_sum_of_their_terms(experts, mixed, method):
    shape = TINYLLAMA.mixture(experts, 2) if experts else TINYLLAMA
    training = {"micro_batch": 4, "max_length": 1024}
    terms = memory.activations(shape, method, training, 0.5, mixed)
    per_layer = memory.kept_by_layer(shape, method, mixed)
    in_ffn = memory.kept_by_ffn(shape, method, mixed)
    assert terms.keys() == {*per_layer, *in_ffn, "last norm"}
    peak = memory.on_gpu if mixed else memory.on_cpu
    assert peak(shape, method, training, 0.5)["activations"] == memory.total(terms)
    assert all(amount >= 0 for amount in terms.values())


def test_what_is_not_trained_keeps_no_inputs():
    shape = TINYLLAMA.mixture(4, 2)
    kept = memory.kept_by_layer(shape, Untuned(), mixed=False)
    assert kept["inputs of linear layers"] == kept["adapters"] == 0
    assert memory.kept_by_layer(shape, Full(), mixed=False)["inputs of linear layers"] > 0


def test_ia3_keeps_what_it_scales_and_no_more():
    """Keys, values and, in float32, the input of o_proj: no layer's input for a weight's gradient."""
    method = Ia3(targets=["k_proj", "v_proj", "o_proj"], feedforward=["o_proj"])
    shape = TINYLLAMA.mixture(4, 2)
    for mixed, width in ((False, 4), (True, 2)):
        kept = memory.kept_by_layer(shape, method, mixed)
        assert kept["inputs of linear layers"] == 0
        assert kept["adapters"] == 2 * width * shape.key_size + 4 * shape.query_size


def test_rslora_costs_what_lora_does():
    settings = {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"], "quantize": "nf4"}
    shape, training = TINYLLAMA.mixture(4, 2), {"micro_batch": 4, "max_length": 1024}
    one, two = (memory.on_gpu(shape, kind(**settings), training, 0.5) for kind in (Lora, RsLora))
    assert one == two


@pytest.mark.parametrize("experts", [0, 4])
@pytest.mark.parametrize("quantize, per_weight", [("nf4", 0.5625), ("fp8", 1)])
def test_quantised_weights_take_their_bits_and_their_scales(experts, quantize, per_weight):
    shape = TINYLLAMA.mixture(experts, 2) if experts else TINYLLAMA
    training = {"micro_batch": 4, "max_length": 1024}
    method = Freeze(frozen="all", quantize=quantize)
    plain, held = (
        memory.on_gpu(shape, kind, training, 0.5) for kind in (method.unquantized(), method)
    )
    ffns = 22 * max(1, experts)
    scales = ffns * (5632 + 5632 + 2048) if quantize == "fp8" else 0
    saved = ffns * 3 * 2048 * 5632 * (2 - per_weight) - scales
    assert plain["weights"] - held["weights"] == pytest.approx(saved, rel=1e-12)
    assert held["backward"] > plain["backward"], "the expanded weights of a layer"


def test_adapters_have_no_fp8():
    recipe = {"method": "lora", "rank": 8, "alpha": 16, "targets": ["q_proj"]}
    with pytest.raises(ConfigError, match=r"recipes.lora.quantize.*'fp8' is for frozen experts"):
        read_study(CONFIG, recipes={"lora": {**recipe, "quantize": "fp8"}})
    with pytest.raises(ConfigError, match=r"recipes.lora.quantize"):
        read_study(CONFIG, recipes={"lora": {**recipe, "quantize": "int4"}})


def test_a_study_with_the_new_methods_is_planned_and_asked_for(tmp_path):
    """In the graph of jobs, in parameters and in what each job asks a cluster for."""
    recipes = {
        "ia3": {"method": "ia3", "targets": ["k_proj", "v_proj"]},
        "rslora": {"method": "rslora", "rank": 64, "alpha": 16, "targets": ["q_proj"]},
    }
    table = {
        "caption": "",
        "labels": ["Method"],
        "columns": {"MMLU": "mmlu"},
        "rows": {
            name: {"mixture": "medium", "train": {"mmlu_medmcqa": name}}
            for name in (*recipes, "lora", "mofe")
        },
    }
    study = read_study(CONFIG, recipes=recipes, tables={8: table}, results=str(tmp_path))
    costs = Costs(Plan(study))
    made = {
        job.label: job.estimate
        for job in jobs(costs, inputs(costs.plan)).values()
        if job.rule == "train"
    }
    of = {
        name: made[f"tinyllama_4tinyllama/mmlu_medmcqa_{name}/s0"]
        for name in (*recipes, "lora", "mofe")
    }
    assert of["ia3"].trainable == 22 * 2 * 256 and of["ia3"].scratch == 28 * of["ia3"].trainable
    assert of["rslora"].trainable == 22 * 64 * (2048 + 2048)
    total = {name: memory.total(estimate.memory) for name, estimate in of.items()}
    assert total["ia3"] < total["lora"] < total["mofe"]
    assert of["ia3"].flops < of["lora"].flops < of["mofe"].flops
    assert all(estimate.fits and estimate.needs.gpus == 1 for estimate in of.values())


def test_the_example_of_a_new_method_is_the_code():
    page = (ROOT / "CONTRIBUTING.md").read_text().split("## A new method")[1].split("\n## ")[0]
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)).splitlines()
    files = ("mofe/study/methods.py", "mofe/models/methods.py")
    lines = {line for file in files for line in (ROOT / file).read_text().splitlines()}
    assert len(code) > 20 and set(code) <= lines
