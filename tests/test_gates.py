"""What a router starts from: equal weights, other models' gates, other sets of prompts, and gates that are
fitted to training rows; and dense models whose FFNs are drawn anew."""

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CONFIG, LOOK, MINI, ROOT, TRAINING, merge_params
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_models import IDS, METHODS, SETTINGS, logits
from transformers import AutoModelForCausalLM, AutoTokenizer

from mofe.estimate.cost import Costs
from mofe.estimate.schedule import estimate
from mofe.layers import domains as by_domain
from mofe.layers import routers
from mofe.models import load, manifest, methods
from mofe.stages import train
from mofe.stages.merge import merge
from mofe.stages.reinitialise import reinitialise
from mofe.study.gates import GATES, shuffled
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.training import loop, tokens

ROUTING = ROOT / "tests" / "studies" / "routing.yaml"
MEDICAL = {"base": "tinyllama", "experts": {"medical": 2, "finance": 2}}
ALONE = {"base": "tinyllama", "experts": {"medical": 4}}
TABLE = {"caption": "", "labels": ["Row"], "columns": {"MMLU": "mmlu"}}


def with_row(mixture: dict, **changes) -> Plan:
    """The paper's study with one row, of this mixture."""
    own = {**TABLE, "rows": {"Row": {"mixture": "tried"}}}
    tables = {**dict.fromkeys(range(1, 8)), "own": own}
    return Plan(read_study(CONFIG, LOOK, mixtures={"tried": mixture}, tables=tables, **changes))


def rows(folder: Path) -> list[torch.Tensor]:
    """The router's weights, layer by layer."""
    stored = load_file(folder / manifest.ROUTER)
    return [stored[f"model.layers.{n}.mlp.gate.weight"] for n in range(len(stored))]


# ----------------------------------------------------------------------------------- shuffled


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_as_many_slots_as_possible_get_the_gates_of_another_model(models):
    order = shuffled(models)
    assert sorted(order) == list(range(len(models)))
    foreign = sum(models[slot] != models[gates] for slot, gates in enumerate(order))
    most = max(Counter(models).values())
    assert foreign == min(len(models), 2 * (len(models) - most))
    assert shuffled(models) == order


def test_shuffled_gates_are_those_of_prompts_in_the_slots_of_other_models(tiny, tmp_path):
    plans = [with_row({**MEDICAL, "merge": {"gate_mode": g}}) for g in ("hidden", "shuffled")]
    names = ["tinyllama_2finance-2medical", "tinyllama_2finance-2medical_shuffled"]
    params = [plan.params.merge(name, 0) for plan, name in zip(plans, names, strict=True)]
    assert [s["model"] for s in params[0]["slots"]] == [s["model"] for s in params[1]["slots"]]
    given = [[(s["positive"], s["negative"]) for s in found["slots"]] for found in params]
    assert given[1] == given[0][2:] + given[0][:2]
    assert params[0]["gate_mode"] == "hidden"
    own = merge_params(tiny, "a", "aabb")
    merge(own, tmp_path / "hidden")
    turned = [
        {**slot, "positive": gates["positive"]}
        for slot, gates in zip(own["slots"], own["slots"][2:] + own["slots"][:2], strict=True)
    ]
    merge({**own, "gate_mode": "shuffled", "slots": turned}, tmp_path / "shuffled")
    for ours, theirs in zip(rows(tmp_path / "shuffled"), rows(tmp_path / "hidden"), strict=True):
        assert torch.equal(ours, theirs[[2, 3, 0, 1]])
    assert manifest.read(tmp_path / "shuffled").gate_mode == "shuffled"


# ------------------------------------------------------------------------------------ uniform


def test_uniform_gates_give_every_expert_the_same_weight(tiny, tmp_path):
    """Equal to plain transformers: a layer's output is the mean of its experts'."""
    params = {**merge_params(tiny, "a", "ab"), "gate_mode": "uniform"}
    params["slots"] = [{**slot, "positive": [], "negative": []} for slot in params["slots"]]
    merge(params, tmp_path / "uniform")
    assert not any(layer.any() for layer in rows(tmp_path / "uniform"))
    model = load.checkpoint(tmp_path / "uniform")
    a, b = (AutoModelForCausalLM.from_pretrained(tiny / name) for name in "ab")
    for own, other in zip(a.model.layers, b.model.layers, strict=True):
        one, two = own.mlp.forward, other.mlp.forward
        own.mlp.forward = lambda x, one=one, two=two: (one(x) + two(x)) / 2
    assert torch.allclose(logits(model, IDS), logits(a, IDS), atol=1e-5)
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert all(layer.mlp.gate.weight.grad.any() for layer in model.model.layers), (
        "it can be trained"
    )


# -------------------------------------------------------------------------------------- ridge


@pytest.fixture(scope="module")
def domains(tiny) -> dict[str, list[str]]:
    """Training sets of two experts, by expert: questions, and raw text in two files."""
    folder = tiny / "domains"
    folder.mkdir()
    repositories = ("openlifescienceai/medmcqa", "alexfabbri/multi_news")
    read = [
        pq.read_table(next((tiny / "world" / repo).rglob("*train*.parquet")))
        for repo in repositories
    ]
    asked = read[0]["question"].to_pylist()[:30]
    texts = [text[:120] for text in read[1]["document"].to_pylist()[:8]]
    files = {"a": [("asked", asked, [" yes"] * 30)], "b": []}
    files["b"] = [(f"told{n}", [""] * 4, texts[4 * n : 4 * n + 4]) for n in (0, 1)]
    found = {}
    for expert, sets in files.items():
        for name, prompts, answers in sets:
            table = pa.table({"prompt": prompts, "answer": answers})
            pq.write_table(table, folder / f"{name}.parquet")
        found[expert] = [str(folder / f"{name}.parquet") for name, *_ in sets]
    return found


def ridge_params(tiny, domains, slots: str = "aabb", **changes) -> dict:
    own = merge_params(tiny, "a", slots)
    empty = [{**slot, "positive": [], "negative": []} for slot in own["slots"]]
    ridge = {"rows": 20, "penalty": 3.0, "seed": 5, "data": domains, **changes}
    names = {str(tiny / name): name for name in "ab"}
    return {**own, "slots": empty, "gate_mode": "ridge", "ridge": ridge, "names": names}


def samples(tiny, domains) -> tuple[list[np.ndarray], np.ndarray]:
    """By layer, the states (N, D) that plain transformers has behind the norm before the FFN, and the
    labels (N, 2)."""
    base = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    seen = [[] for _ in base.model.layers]
    for layer, states in zip(base.model.layers, seen, strict=True):
        layer.post_attention_layernorm.register_forward_hook(
            lambda _, __, out, states=states: states.append(out[0].double().numpy())
        )
    labels = []
    for label, files in enumerate(domains.values()):
        pairs = [tuple(row.values()) for f in files for row in pq.read_table(f).to_pylist()]
        for index in np.random.default_rng(5).permutation(len(pairs))[:20]:
            ids = tokenizer(pairs[index][0] or pairs[index][1], return_tensors="pt").input_ids
            with torch.no_grad():
                base(ids)
            labels += [label] * ids.shape[1]
    return [np.concatenate(states) for states in seen], np.eye(2)[labels]


def test_ridge_gates_solve_the_normal_equations(tiny, domains, tmp_path):
    merge(ridge_params(tiny, domains), tmp_path / "ridge")
    states, labels = samples(tiny, domains)
    found = rows(tmp_path / "ridge")
    assert len(found) == len(states) == 2
    for gates, x in zip(found, states, strict=True):
        solved = np.linalg.inv(x.T @ x + 3.0 * np.eye(x.shape[1])) @ x.T @ labels
        assert np.allclose(gates.numpy(), solved.T[[0, 0, 1, 1]], atol=1e-4)
        assert torch.equal(gates[0], gates[1]) and not torch.equal(gates[1], gates[2])
        right = ((x @ gates.numpy().T)[:, [0, 2]].argmax(1) == labels.argmax(1)).mean()
        assert right > 0.8, "most tokens go to the expert of their domain"
    merge(ridge_params(tiny, domains), tmp_path / "again")
    assert all(map(torch.equal, found, rows(tmp_path / "again")))
    assert manifest.read(tmp_path / "ridge").gate_mode == "ridge"
    other = ridge_params(tiny, domains, seed=6)
    merge(other, tmp_path / "other")
    assert not any(map(torch.equal, found, rows(tmp_path / "other"))), "other rows"


def test_ridge_gates_follow_the_slots_and_the_special_tokens(tiny, domains, tmp_path):
    merge(ridge_params(tiny, domains), tmp_path / "ridge")
    merge(ridge_params(tiny, domains, "abba"), tmp_path / "turned")
    merge(ridge_params(tiny, domains, add_bos_token=False), tmp_path / "bare")
    for one, two, bare in zip(
        *(rows(tmp_path / n) for n in ("ridge", "turned", "bare")), strict=True
    ):
        assert torch.equal(one[[0, 2, 2, 0]], two)
        assert not torch.equal(one, bare)


def test_experts_of_equal_rows_are_refused_by_the_merge(tiny, domains, tmp_path):
    same = {"a": domains["a"], "b": domains["a"]}
    with pytest.raises(ValueError, match=r"equal or empty gates of different experts in .*gate"):
        merge(ridge_params(tiny, same), tmp_path / "same")


def test_training_sets_are_inputs_of_the_merges_that_are_fitted_to_them_alone():
    plan = Plan(read_study(CONFIG, LOOK, ROUTING))
    graph = Graph(plan, {})
    fitted = "tinyllama_2finance-2medical_ridge"
    files = ["results/data/sujet.parquet", "results/data/medmcqa.parquet"]
    assert graph.merge(fitted, "0")["data"] == files
    assert graph.merge("tinyllama_2finance-2medical", "0")["data"] == []
    params = plan.params.merge(fitted, 0)
    by_expert = {"finance": files[:1], "medical": files[1:]}
    assert params["ridge"] == {"rows": 100, "penalty": 1.0, "seed": 0, "data": by_expert}
    assert params["slots"][0]["positive"] == []
    assert all("ridge" not in plan.params.merge(moe, 0) for moe in plan.moes if moe != fitted)
    costs = Costs(plan)
    plain, ridge = (costs.merge(n) for n in ("tinyllama_2finance-2medical", fitted))
    assert ridge.hours > plain.hours and ridge.needs.mem_mb > plain.needs.mem_mb
    # 27,510 tokens through a model of a billion parameters, but for its embeddings
    assert ridge.tokens == pytest.approx(100 * (204.0 + 71.1))
    assert ridge.flops > 2 * 0.96e9 * ridge.tokens
    twice = Costs(Plan(read_study(CONFIG, LOOK, ROUTING, merge={"ridge": {"rows": 200}})))
    assert twice.merge(fitted).tokens == 2 * ridge.tokens


# ------------------------------------------------------------------------------------- oracle


@pytest.fixture(scope="module")
def oracle(tiny) -> Path:
    """A mixture on a that routes rows of domain 0 to b, which fills two slots, and of 1 to a."""
    params = merge_params(tiny, "a", "bba") | {"gate_mode": "oracle", "experts_per_token": 3}
    empty = [{**slot, "positive": [], "negative": []} for slot in params["slots"]]
    merge({**params, "slots": empty}, tiny / "oracle")
    return tiny / "oracle"


def dense(tiny: Path, *ffns: str) -> torch.nn.Module:
    """a with the mean of these models' FFNs, in plain transformers."""
    base = AutoModelForCausalLM.from_pretrained(tiny / "a")
    others = [AutoModelForCausalLM.from_pretrained(tiny / name) for name in ffns]
    for number, layer in enumerate(base.model.layers):
        own = [other.model.layers[number].mlp for other in others]
        layer.mlp.forward = lambda x, own=own: sum(ffn(x) for ffn in own) / len(own)
    return base


def test_an_oracle_computes_each_row_by_the_experts_of_its_domain(tiny, oracle):
    assert not any(layer.any() for layer in rows(oracle))
    model = load.checkpoint(oracle)
    with pytest.raises(RuntimeError, match="was not told the rows' domains"):
        logits(model, IDS)
    for domain, ffns in ((0, "b"), (1, "a"), (-1, "bba")):
        by_domain.tell(model, domain)
        assert torch.allclose(logits(model, IDS), logits(dense(tiny, *ffns), IDS), atol=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.01])
@pytest.mark.parametrize("method", ["mofe", "full", "lora"])
def test_a_batch_of_several_domains_is_trained_on_row_by_row(tiny, oracle, data, balance, method):
    """The loss and a gradient are those of dense models, each on the rows of its domain."""
    pairs = tokens.read([data])[:6]
    of = [0, 1, -1, 0, 1, -1]
    sets = [domain % 3 for domain in of]
    batch = tokens.tokenize(pairs, load.tokenizer(oracle), 64, sets=sets)
    batch = replace(batch, domains=(0, 1, -1))
    assert batch.sets == sets and batch.digest != replace(batch, domains=None).digest
    inputs = tokens.collate(batch, range(6), 0)
    model = methods.apply(load.checkpoint(oracle), METHODS[method])
    loss = loop.AnswerLoss(model, balance)
    total = loss(**inputs)
    total.backward()
    found = (total - loss.auxiliary).item()
    expected, gradient = 0.0, 0.0
    for domain, ffns in ((0, "b"), (1, "a"), (-1, "bba")):
        mine = [row for row, d in enumerate(of) if d == domain]
        plain = dense(tiny, *ffns)
        own = {k: v[mine] for k, v in inputs.items() if k != "domains"}
        labels = own.pop("labels")
        part = torch.nn.functional.cross_entropy(
            plain(**own).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        )
        part.backward()
        expected += part.item()
        gradient = gradient + plain.model.norm.weight.grad
    assert found == pytest.approx(expected, rel=1e-5)
    routers = [layer.mlp.gate.weight.grad for layer in loss.plain.model.layers]
    if method == "lora":
        assert routers == [None, None]
    else:
        assert not any(grad.any() for grad in routers), "nothing is left to train"
        assert torch.allclose(loss.plain.model.norm.weight.grad, gradient, atol=1e-5)


def test_what_an_oracles_routers_do_is_recorded_of_the_experts_that_count(tiny, oracle):
    """Slots 0 and 1, of domain 0, share its row; slot 2 has that of domain 1."""
    decoder = load.checkpoint(oracle).model
    gates = routers.of(decoder)
    found = routers.Sums(len(gates), slots=3, sets=2, device=torch.device("cpu"))
    row = torch.arange(2).repeat_interleave(IDS.shape[1])  # the domains, here also the sets
    with (
        by_domain.told(decoder, row.view(2, -1)),
        routers.seeing(gates, lambda layer, *given: found.add(layer, *given, row)),
    ):
        decoder(input_ids=IDS[:1].repeat(2, 1))
    for layer in found.described(found.values):
        assert layer.chosen == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-6)
        assert layer.weight == pytest.approx((0.25, 0.25, 0.5))
        assert layer.entropy == pytest.approx(math.log(2) / 2, abs=1e-6)
        assert layer.entropy_of_mean == pytest.approx(1.5 * math.log(2), abs=1e-6)
        domain = math.log(3) - 2 / 3 * math.log(2)  # of a choice, which its slot tells
        assert layer.mutual_information == pytest.approx(domain, abs=1e-6)


def test_a_stage_is_trained_by_the_domains_of_its_files(tiny, oracle, data, tmp_path):
    """As the rule calls it. Rows of a's domain give the losses of a, on which all the rest is based."""

    def losses(merge: str, of: dict, experts: str) -> list[float]:
        out = tmp_path / f"{merge}{len(of)}{experts}"
        train.train_variant(
            merge=str(tiny / merge),
            data=[data],
            parents=[],
            chain=[],
            params={"recipe": "mofe", **SETTINGS["mofe"], "training": TRAINING, **of},
            names={"moe": merge, "stages": "mofe"},
            seed=0,
            trained=out / "trained.safetensors",
            record=out / "train.json",
            log=out / "log.jsonl",
            checkpoint=out / "checkpoint",
        )
        lines = (out / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    found = losses("oracle", {"domains": [1]}, "a")
    assert found == pytest.approx(losses("a", {}, ""), rel=1e-3)
    assert found != pytest.approx(losses("oracle", {"domains": [0]}, "b"), rel=1e-3)


def test_domains_follow_the_sources_of_data_and_tasks():
    plan = Plan(read_study(CONFIG, LOOK, ROUTING))
    graph, told = Graph(plan, {}), Given(plan, {})
    key = "tinyllama_2finance-2medical_oracle_top4/medmcqa_sujet_mofe"
    assert told.train(key, "0")["stage"]["domains"] == [1, 0]  # medmcqa, sujet; finance is first
    asked = {
        task: told.evaluate(key, "0", task)["task"]["domain"]
        for task in ("medmcqa", "finance", "pubmedqa", "medmcqa_held")
    }
    assert asked == {"medmcqa": 1, "finance": 0, "pubmedqa": -1, "medmcqa_held": 1}
    assert plan.domain(plan.variants[key].origin, "mmlu") == -1
    plain = "tinyllama_2finance-2medical_ridge/medmcqa_mofe"
    assert "domains" not in told.train(plain, "0")["stage"]
    assert "domain" not in told.evaluate(plain, "0", "medmcqa")["task"]
    with pytest.raises(ConfigError, match=r"'oracle' routes the rows of .*; export a variant of"):
        graph.export(key, "0")
    with pytest.raises(
        ConfigError, match=r"'oracle' routes whole rows of .*; ask for a variant of"
    ):
        graph.tokens(key, "0", "medmcqa")
    shown = [job for job in graph.on_demand if job.rule in ("export", "tokens")]
    found = {(job.rule, job.wildcards["variant"]) for job in shown}
    assert {("export", plain), ("tokens", plain)} < found and key not in {k for _, k in found}


# -------------------------------------------------------------------------- names and refusals


def test_every_way_to_make_gates_has_a_name_of_its_own():
    plan = Plan(read_study(CONFIG, LOOK, ROUTING))
    both = "tinyllama_2finance-2medical"
    ways = ["", "_second", "_third", "_random", "_shuffled", "_ridge", "_uniform_top4"]
    ways += ["_oracle_top4"]
    assert {both + way for way in ways} | {"tinyllama_2new_ffns"} <= set(plan.moes)
    first, second = (plan.params.merge(both + way, 0)["slots"] for way in ("", "_second"))
    assert [slot["model"] for slot in first] == [slot["model"] for slot in second]
    prompts = [[tuple(slot["positive"]) for slot in slots] for slots in (first, second)]
    assert not set(prompts[0]) & set(prompts[1])
    others = plan.study.models["finance"].gates.others["second"]
    assert second[0]["negative"] == others.negative
    everywhere = with_row({**MEDICAL, **SECOND}, **SECOND)
    assert list(everywhere.moes) == [both]
    assert everywhere.params.merge(both, 0)["slots"] == second


def prompts(*positive: list[str], **more) -> dict:
    """A change of the medical expert's second set of prompts."""
    sets = {"second": {"positive": list(positive), **more}}
    return {"models": {"medical": {"gates": {"others": sets}}}}


RIDGE, SECOND = {"merge": {"gate_mode": "ridge"}}, {"merge": {"prompts": "second"}}
OTHERS = "models.medical.gates.others.second"


@pytest.mark.parametrize(
    "mixture, changes, expected",
    [
        (
            {**MEDICAL, "merge": {"gate_mode": "uniform"}},
            {},
            (
                "mixtures.tried.merge.gate_mode: 'uniform' gives equal weights, of which only the first "
                "2 of the 4 in mixture 'tried' would count; set mixtures.tried.merge.experts_per_token "
                "to 4"
            ),
        ),
        (
            {**ALONE, "merge": {"gate_mode": "shuffled"}},
            {},
            (
                "mixtures.tried.merge.gate_mode: 'shuffled' tells models apart, and all experts of "
                "mixture 'tried' are of one, 'medical'; choose another gate_mode, or add experts of "
                "another model"
            ),
        ),
        (
            {"base": "tinyllama", "experts": {"medical": 2, "tinyllama": 2}},
            RIDGE,
            (
                "merge.gate_mode: 'ridge' reads which rows each expert of mixture 'tried' was fine-tuned "
                "on, and models.tinyllama has no 'train'; choose another gate_mode, or other experts"
            ),
        ),
        (
            {**MEDICAL, **RIDGE},
            {"models": {"finance": {"train": {"sujet": None, "medmcqa": "expert"}}}},
            (
                "mixtures.tried.merge.gate_mode: 'ridge' cannot tell models.finance from models.medical "
                "in mixture 'tried', because both were fine-tuned on the same data; choose another "
                "gate_mode, or other experts"
            ),
        ),
        (
            {**MEDICAL, "merge": {"gate_mode": "oracle", "experts_per_token": 4}},
            {
                "data": {"more": {"source": "medmcqa", "split": "train", "text": "exp", "rows": 9}},
                "models": {"finance": {"train": {"sujet": None, "more": "expert"}}},
            },
            (
                "mixtures.tried.merge.gate_mode: 'oracle' cannot tell models.finance from "
                "models.medical in mixture 'tried', because both were fine-tuned on the same source; "
                "choose another gate_mode, or other experts"
            ),
        ),
        (
            {**MEDICAL, "merge": {"prompts": "fourth"}},
            {
                "models": {
                    "medical": {"gates": {"others": {"fourth": {"positive": [["a"], ["b"]]}}}}
                }
            },
            (
                "mixtures.tried.merge.prompts: models.finance, an expert of mixture 'tried', has no set "
                "of prompts 'fourth'; write it under models.finance.gates.others.fourth, or choose "
                "another"
            ),
        ),
        (
            {**MEDICAL, "merge": {"gate_mode": "ridge", "prompts": "second"}},
            {},
            (
                "mixtures.tried.merge.prompts: 'second' would change nothing, because 'ridge' gates are "
                "made from no prompts; leave it out"
            ),
        ),
        (
            {**MEDICAL, **SECOND},
            prompts(["a"]),
            (
                f"mixtures.tried.experts.medical: 2 slots, but {OTHERS}.positive has prompts for 1; add 1 "
                "more list(s) of prompts"
            ),
        ),
        (
            {**MEDICAL, **SECOND},
            prompts(["a"], ["b"], negative=[" "]),
            (
                f"{OTHERS}.negative.0: ' ' is an empty prompt, from which no gate can be made; write "
                "words that the expert will be asked about"
            ),
        ),
        (
            {**MEDICAL, **SECOND},
            prompts(["a"], ["a"]),
            (
                f"{OTHERS}.positive.1: the same prompts as {OTHERS}.positive.0, so mixture 'tried' could "
                "not tell these experts apart; give each slot prompts that end in words of its own"
            ),
        ),
    ],
)
def test_gates_that_cannot_be_made_are_refused_before_any_job(mixture, changes, expected):
    with pytest.raises(ConfigError) as raised:
        with_row(mixture, **changes)
    assert raised.value.problems == [expected]


@pytest.mark.parametrize("mode", [mode for mode in GATES if mode != "none"])
def test_one_expert_takes_any_gate_mode(mode):
    one = {"base": "tinyllama", "experts": {"tinyllama": 1}, "merge": {"experts_per_token": 1}}
    plan = with_row(one, merge={"gate_mode": mode})
    params = plan.params.merge("tinyllama_1tinyllama_top1")
    assert params["gate_mode"] == "none" and "ridge" not in params


@pytest.mark.parametrize("own", [{"gate_mode": "oracle"}, {"prompts": "typo"}])
def test_one_expert_has_no_gates_of_its_own(own):
    merge = {"experts_per_token": 1, **own}
    (key,) = own
    with pytest.raises(ConfigError, match=rf"mixtures.tried.merge.{key}: .* would change nothing"):
        with_row({"base": "tinyllama", "experts": {"tinyllama": 1}, "merge": merge})


def test_prompts_that_no_gates_are_made_from_are_refused():
    with pytest.raises(ConfigError, match=r" merge.prompts: 'typo' would change nothing"):
        with_row(
            {**MEDICAL, "merge": {"experts_per_token": 4}},
            merge={"gate_mode": "uniform", "prompts": "typo"},
        )


def test_sets_of_prompts_may_not_be_named_as_another_merge():
    sets = {
        name: {"gates": {"others": {"shuffled": {"positive": [[f"{name} a"], [f"{name} b"]]}}}}
        for name in ("medical", "finance")
    }
    two = {"Gates": {"mixture": "tried"}, "Prompts": {"mixture": "other"}}
    with pytest.raises(ConfigError, match=r"two different models .*_shuffled; .*sets of prompts"):
        read_study(
            CONFIG,
            LOOK,
            models=sets,
            mixtures={
                "tried": {**MEDICAL, "merge": {"gate_mode": "shuffled"}},
                "other": {**MEDICAL, "merge": {"prompts": "shuffled"}},
            },
            tables={"own": {**TABLE, "rows": two}},
        )


# ----------------------------------------------------------------------------- one expert per token


def test_captions_say_which_routers_get_no_gradient(tiny, tmp_path):
    rows = {
        "Two": {"mixture": "two", "train": {"medmcqa": "mofe"}},
        "One": {"mixture": "top1", "train": {"medmcqa": "mofe"}},
        "Untuned": {"mixture": "top1"},
        "Balanced": {"mixture": "top1", "train": {"medmcqa": "mofe_balanced"}},
        "Balanced, frozen": {"mixture": "top1", "train": {"medmcqa": "balanced_frozen"}},
        "Alone": {"mixture": "alone", "train": {"medmcqa": "mofe"}},
        "Dense": {"model": "tinyllama", "train": {"medmcqa": "mofe"}},
    }
    loss = {"training": {"router_aux_loss": 0.02}}  # it moves a router that is trained
    balanced = {
        "mofe_balanced": {"method": "freeze", "frozen": "all", **loss},
        "balanced_frozen": {"method": "partial", "train": ["attention"], **loss},
    }
    top1 = {"merge": {"experts_per_token": 1}}
    mixtures = {
        "two": MEDICAL,
        "top1": {**MEDICAL, **top1},
        "alone": {"base": "tinyllama", "experts": {"tinyllama": 1}, **top1},
    }
    plan = Plan(
        read_study(
            CONFIG,
            LOOK,
            mixtures=mixtures,
            recipes=balanced,
            tables={"own": {**TABLE, "rows": rows}},
        )
    )
    assert plan.tables["own"].caption == (
        " With one expert per token (One; Balanced, frozen), its weight is always 1: the router gets no gradient, and "
        "chooses as it did before training."
    )
    params = merge_params(tiny, "a", "aabb")
    for top_k in (1, 2):
        merge({**params, "experts_per_token": top_k}, tmp_path / str(top_k))
        model = load.checkpoint(tmp_path / str(top_k)).train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        largest = max(layer.mlp.gate.weight.grad.abs().max() for layer in model.model.layers)
        assert (largest > 1e-6) == (top_k > 1), "up to rounding"


# ------------------------------------------------------------------------------------ new FFNs


def test_new_ffns_are_drawn_by_the_seed_and_all_else_stays(tiny, tmp_path):
    for name, seed in (("s0", 0), ("again", 0), ("s1", 1)):
        params = {"reinitialise": "ffn", "dtype": "float32"}
        reinitialise(origin=str(tiny / "a"), params=params, seed=seed, out=tmp_path / name)
    parent = load_file(tiny / "a" / "model.safetensors")
    drawn, again, other = (
        load_file(tmp_path / name / "model.safetensors") for name in ("s0", "again", "s1")
    )
    assert drawn.keys() == parent.keys()
    ffns = {name for name in parent if ".mlp." in name}
    assert len(ffns) == 2 * 3
    for name, tensor in drawn.items():
        assert torch.equal(tensor, again[name])
        assert torch.equal(tensor, parent[name]) == (name not in ffns), name
        assert torch.equal(tensor, other[name]) == (name not in ffns), name
    values = torch.cat([drawn[name].flatten() for name in ffns])
    spread = load.checkpoint(tiny / "a").config.initializer_range
    assert values.std().item() == pytest.approx(spread, rel=0.02)
    assert abs(values.mean().item()) < spread / 50
    tokenizers = [load.tokenizer(f).get_vocab() for f in (tmp_path / "s0", tiny / "a")]
    assert tokenizers[0] == tokenizers[1]
    params = merge_params(tiny, "a", "ab")
    slots = [{**slot, "model": str(tmp_path / "s0")} for slot in params["slots"]]
    merge({**params, "slots": slots}, tmp_path / "moe")
    dense, mixed = load.checkpoint(tmp_path / "s0"), load.checkpoint(tmp_path / "moe")
    assert torch.allclose(logits(dense, IDS), logits(mixed, IDS), atol=1e-5)


def test_new_ffns_of_two_models_differ(tiny, tmp_path):
    """Of the models of one study, whatever their parents, and of the seeds of each."""
    more = {"more_ffns": {"from": "new_ffns", "reinitialise": "ffn"}}
    plan = Plan(read_study(CONFIG, LOOK, ROUTING, models=more))
    drawn = []
    for model, origin in (("new_ffns", tiny / "a"), ("more_ffns", tmp_path / "new_ffns0")):
        for seed in (0, 1):
            params, out = plan.params.model(model), tmp_path / f"{model}{seed}"
            reinitialise(origin=str(origin), params=params, seed=seed, out=out)
            weights = load_file(out / "model.safetensors")
            drawn.append(weights["model.layers.0.mlp.up_proj.weight"])
    assert not any(torch.equal(one, two) for one, two in itertools.combinations(drawn, 2))


def test_new_ffns_are_made_for_each_seed_and_need_no_training():
    plan = Plan(read_study(CONFIG, LOOK, ROUTING, seeds=[3, 4]))
    jobs = Graph(plan, {}).jobs
    mine = [job for job in jobs if job.rule == "reinitialise"]
    assert [job.outputs for job in mine] == [
        (f"results/experts/new_ffns/s{seed}",) for seed in (3, 4)
    ]
    assert all(job.inputs == ("results/experts/tinyllama",) for job in mine)
    assert not [j for j in jobs if j.rule == "preflight" and j.wildcards["model"] == "new_ffns"]
    assert plan.params.model("new_ffns") == {"reinitialise": "ffn", "dtype": "bfloat16"}
    assert plan.seeds(plan.variants["new_ffns/none"]) == (3, 4)
    merged = plan.moes["tinyllama_2new_ffns"]
    assert plan.merge_seeds(merged) == (3, 4)
    assert plan.study.tokenizer("new_ffns") == "tinyllama"
    costs = Costs(plan)
    taken = estimate(costs, "reinitialise", mine[0].wildcards)
    parameters = costs.shape("tinyllama").parameters
    assert costs.shape("new_ffns") == costs.shape("tinyllama")
    assert taken.disk == 2 * parameters and taken.needs.gpus == 0
    assert taken.hours == pytest.approx(1 / 60 + 6 * parameters / 100e6 / 3600)
    card = plan.params.export(plan.variants["new_ffns/none"], 3)["models"]
    assert card["new_ffns"]["reinitialise"] == "ffn" and "reinitialise" not in card["tinyllama"]


@pytest.mark.parametrize(
    "keys",
    [
        {"from": "tinyllama"},
        {"from": "tinyllama", "train": {"mmlu": "expert"}, "reinitialise": "ffn"},
        {"path": "/models/x", "reinitialise": "ffn"},
    ],
)
def test_a_model_is_made_in_one_way(keys):
    with pytest.raises(ConfigError) as raised:
        read_study(CONFIG, LOOK, models={"mine": keys})
    expected = (
        "models.mine: 'from' goes together with one of 'train' and 'reinitialise'; give 'from' and "
        "one of them, or none of the three"
    )
    assert [told for told in raised.value.problems if "models.mine" in told] == [expected]


def test_every_set_of_prompts_of_the_shipped_studies_serves_every_mixture():
    """Prompts of slots end in words of their own, in every set."""
    for files in ([CONFIG], [CONFIG, MINI]):
        study = read_study(*files)
        for model in study.models.values():
            sets = [model.gates, *model.gates.others.values()]
            assert list(model.gates.others) == ["second", "third"]
            assert len({len(prompts.positive) for prompts in sets}) == 1
            words = [prompt.split()[-1] for p in sets for slot in p.positive for prompt in slot]
            assert len(set(words)) == len(words)
