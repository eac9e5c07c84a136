"""The page of questions with the experts of each token, made by its rule, against plain transformers."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIG, MINI, REDUCED, snakemake
from hypothesis import given
from hypothesis import strategies as st

from mofe.models import load, methods
from mofe.report import router_drawing
from mofe.stages import questions as asking
from mofe.stages import tokens
from mofe.study.load import read_study
from mofe.study.methods import parse
from mofe.study.plan import Plan

STUDY = {
    "study": "own",
    "training": {"record_router": 1},
    "mixtures": {"mixed": {"base": "tinyllama", "experts": {"general": 1, "tinyllama": 2}}},
    "recipes": {"half": {"method": "freeze", "frozen": 2}},
    "tables": {
        **dict.fromkeys([*range(1, 8), "C1", "C2", "C3", "C4", "C5"]),
        "own": {
            "caption": "One row.",
            "labels": ["Model"],
            "columns": {"Score": "medmcqa", "Updated": "tokens_updated"},
            "rows": {"Tuned": {"mixture": "mixed", "train": {"mmlu_medmcqa": "half"}}},
        },
    },
}
VARIANT = "tinyllama_1general-2tinyllama/mmlu_medmcqa_half"
PAGE = f"tokens/{VARIANT}/s0/medmcqa.html"


class Reader(HTMLParser):
    """A page's tokens by question, its addresses, and the layers that can be chosen."""

    def __init__(self, page: str):
        super().__init__()
        self.questions: list[list[dict]] = []
        self.addresses: list[str] = []
        self.layers: list[bool] = []  # whether it is chosen first
        self.scripts = 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        classes = (found.get("class") or "").split()
        self.addresses += [found[name] for name in ("href", "src") if name in found]
        self.scripts += tag == "script"
        if tag == "input":
            self.layers.append("checked" in found)
        if tag == "p" and "question" in classes:
            self.questions.append([])
        self.inside = tag == "span" and "t" in classes
        if self.inside:
            self.questions[-1].append({"classes": classes, "title": found["title"], "text": ""})

    def handle_data(self, data):
        if getattr(self, "inside", False):
            self.questions[-1][-1]["text"] += data

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Plan]:
    """The results of the rule, of its training, and of a figure of it."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "own.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    files, results = [CONFIG, MINI, REDUCED, folder / "own.yaml"], folder / "results"
    targets = [results / name for name in (PAGE, "figures/router_load.png", "tableown.csv")]
    study = ["--configfile", *map(str, files), "--config", f"results={results}"]
    snakemake("--cores", "2", "--quiet", "rules", *study, "--", *map(str, targets))
    return results, Plan(read_study(*files, results=str(results)))


@pytest.fixture(scope="module")
def page(made) -> str:
    return (made[0] / PAGE).read_text()


def test_every_tokens_colours_and_weights_are_plain_transformers(made, page):
    results, plan = made
    variant = plan.variants[VARIANT]
    chain = [parse(stage) for stage in plan.params.chain(variant)]
    folder = plan.paths.origin_dir(variant, 0)
    model = load.variant(folder, chain, [results / f"variants/{VARIANT}/s0/trained.safetensors"])
    model = methods.merge_and_unload(model).eval()
    model.set_experts_implementation("eager")
    slots = variant.origin.experts
    assert slots == ("general", "tinyllama", "tinyllama")
    every = asking.read(results / "questions/tinyllama/medmcqa.parquet")
    shown = [every[number] for number in tokens.sample(len(every), 24, plan.study.sampling_seed)]
    read = Reader(page)
    assert len(read.questions) == len(shown) == 24
    seen = set()
    for question, spans in zip(shown, read.questions, strict=True):
        ids, start = question.ids[question.target], question.starts[question.target]
        with torch.no_grad():
            logits = model(torch.tensor([ids]), output_router_logits=True).router_logits
        assert ["a" in span["classes"] for span in spans] == [at >= start for at in range(len(ids))]
        for layer, of_layer in enumerate(logits):
            weights, chosen = of_layer.softmax(-1).topk(2)
            weights = weights / weights.sum(-1, keepdim=True)
            for at, span in enumerate(spans):
                first, second = chosen[at].tolist()
                assert {f"f{layer}-{first}", f"s{layer}-{second}"} <= set(span["classes"])
                seen.add((layer, first))
                line = span["title"].splitlines()[layer]
                found = re.findall(r"(\d+) (\w+) (\d\.\d\d)", line.partition(": ")[2])
                assert [(int(n), e) for n, e, _ in found] == [
                    (n, slots[n]) for n in (first, second)
                ]
                assert [float(w) for *_, w in found] == pytest.approx(
                    weights[at].tolist(), abs=0.006
                )
    assert len(seen) > len(logits), "else every token of a layer has one colour"


def test_every_colour_of_a_token_is_in_the_style_of_its_layer(page):
    for name in {c for q in Reader(page).questions for span in q for c in span["classes"]} - {
        "t",
        "a",
    }:
        kind, layer, slot = re.fullmatch(r"([fs])(\d+)-(\d+)", name).groups()
        what = "background" if kind == "f" else "border-bottom"
        rule = f"#layer{layer}:checked ~ main .{name} {{ {what}-color: var(--c{slot});"
        assert rule in page
        assert f"--c{slot}: {tokens.COLOURS[int(slot)][0]};" in page


def test_the_page_is_one_file_without_scripts_and_shows_its_first_layer(page):
    read = Reader(page)
    assert (
        (read.addresses, read.scripts) == ([], 0) and "url(" not in page and "@import" not in page
    )
    assert read.layers == [True, False, False]
    assert "miniature study “own”" in page and "24 of 100 test questions" in page


def test_the_texts_of_tokens_are_the_texts_of_questions(made, page):
    results, plan = made
    tokenizer = load.tokenizer(plan.paths.model_dir("tinyllama"))
    every = asking.read(results / "questions/tinyllama/medmcqa.parquet")
    shown = [every[number] for number in tokens.sample(len(every), 24, plan.study.sampling_seed)]
    for question, spans in zip(shown, Reader(page).questions, strict=True):
        whole = tokenizer.decode(question.ids[question.target], clean_up_tokenization_spaces=False)
        assert "".join(span["text"] for span in spans) == whole


def test_the_training_recorded_its_routers_and_the_table_shows_where_tokens_went(made):
    results, _ = made
    folder = results / f"variants/{VARIANT}/s0"
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert all(len(line["router"]) == 3 for line in lines)
    assert any(line["router"][0]["mutual_information"] > 0 for line in lines), "two training sets"
    share = json.loads((folder / "train.json").read_text())["token_share"]
    last = [slots[2] for slots in share["slots"]]  # the slot that is not frozen
    assert share["updated"] == pytest.approx(sum(last) / 3, abs=1e-6)
    assert f",Updated,,{share['updated']}," in (results / "tableown.csv").read_text()
    assert (results / "figures/router_load.png").read_bytes().startswith(b"\x89PNG")


def test_a_log_without_routers_is_refused_by_name(tmp_path):
    line = '{"step": 1, "loss": 1.0, "learning_rate": 0.1, "tokens": 5, "seconds": 0.1}\n'
    (tmp_path / "log.jsonl").write_text(line)
    with pytest.raises(ValueError, match=r"log\.jsonl: no step has its routers recorded"):
        router_drawing._steps(str(tmp_path / "log.jsonl"))


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 1000))
def test_a_larger_sample_holds_the_smaller(count, wanted, seed):
    one, two = tokens.sample(count, wanted, seed), tokens.sample(count, wanted + 1, seed)
    assert len(one) == min(count, wanted) == len(set(one)) and set(one) <= set(two)
    assert one == sorted(one) and all(0 <= number < count for number in one)
