"""The configuration: every fault at once, each with its key, its value and a remedy."""

import copy

import pytest
import yaml
from conftest import CONFIG, LOOK, MINI, REDUCED
from hypothesis import given
from hypothesis import strategies as st

from mofe.study.config import Study
from mofe.study.load import load_study, overlay, read_study
from mofe.study.methods import Ia3
from mofe.study.plan import Plan
from mofe.study.values import NAME, TIMES, ConfigError


@pytest.fixture
def config() -> dict:
    return yaml.safe_load(CONFIG.read_text())


def problems(config: dict, files=()) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_study(config, files)
    return raised.value.problems


@pytest.mark.parametrize("overlays", [(), (MINI,), (MINI, REDUCED)])
def test_shipped_studies_are_valid(overlays):
    study = read_study(CONFIG, *overlays)
    controls = {"C3", "C5"} if REDUCED in overlays else {f"C{n}" for n in range(1, 6)}
    assert study.tables.keys() == {*range(1, 8), *controls}


def test_a_first_look_leaves_the_controls_out():
    assert read_study(CONFIG, MINI, LOOK).tables.keys() == set(range(1, 8))


SCRATCH = {
    "scratch": {
        "shape": {
            "hidden_size": 10,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        }
    },
    "gates": {"positive": [["a"]] * 8},
}
FAULTS = {
    "unknown key": (("training", "epochz"), 3, "training.epochz", "'epochs'"),
    "unknown key of a recipe": (("recipes", "lora", "rnak"), 4, "recipes.lora.rnak", "'rank'"),
    "unknown key of a row": (
        ("tables", 1, "rows", "Small | X", "mixtrue"),
        "small",
        "tables.1.rows.Small | X.mixtrue",
        "'mixture'",
    ),
    "unknown key of an override": (
        ("mixes", "posttrain", "training", "epoch"),
        1,
        "mixes.posttrain.training.epoch",
        "'epochs'",
    ),
    "unknown section": (("trainin",), {}, "trainin", "'training'"),
    "unknown mixture": (
        ("tables", 1, "rows", "Small | X", "mixture"),
        "smal",
        "tables.1.rows.Small | X.mixture",
        "'small'",
    ),
    "unknown recipe": (
        ("tables", 7, "rows", "4 | 0", "train"),
        {"medmcqa": "moffe"},
        "tables.7.rows.4 | 0.train.medmcqa",
        "'mofe'",
    ),
    "unknown expert": (
        ("mixtures", "small", "experts"),
        {"tinylama": 2},
        "mixtures.small.experts.tinylama",
        "'tinyllama'",
    ),
    "unknown task in a column": (
        ("tables", 3, "columns"),
        {"MedMCQA": "medmqa"},
        "tables.3.columns.MedMCQA",
        "'medmcqa'",
    ),
    "unknown task beside": (
        ("tables", 4, "beside"),
        {"F1": "finance_opn"},
        "tables.4.beside.F1",
        "'finance_open'",
    ),
    "our column under the paper's heading": (
        ("tables", 4, "beside"),
        {"Finance": "finance_open"},
        "tables.4.beside.Finance",
        "give ours another",
    ),
    "text that looks like a number": (
        ("training", "learning_rate"),
        "3e-5",
        "training.learning_rate",
        "write 3.0e-05",
    ),
    "wrong type": (("training", "epochs"), 1.5, "training.epochs", "a whole number"),
    "a word that is no count": (
        ("training", "micro_batch"),
        "automatic",
        "training.micro_batch",
        "a whole number from 1 or 'auto' is needed, but it is 'automatic'",
    ),
    "a count of nothing": (
        ("mixes", "posttrain", "training", "micro_batch"),
        0,
        "mixes.posttrain.training.micro_batch",
        "a whole number from 1 or 'auto' is needed, but it is 0",
    ),
    "a count in quotes": (("training", "micro_batch"), "8", "training.micro_batch", "write 8 in"),
    "wrong choice": (("device",), "gpu", "device", "'cuda' or 'cpu'"),
    "a name that leaves its folder": (
        ("recipes", "../../x"),
        {"method": "full"},
        "recipes.../../x",
        "cannot be a name",
    ),
    "settings of another method": (
        ("recipes", "full", "rank"),
        8,
        "recipes.full.rank",
        "method 'full' does not take it, only lora and rslora; remove it",
    ),
    "a missing setting": (
        ("recipes", "small"),
        {"method": "lora", "rank": 4, "targets": ["q_proj"]},
        "recipes.small.alpha",
        "this key is missing; add it",
    ),
    "a setting that is null": (
        ("recipes", "lora", "rank"),
        None,
        "recipes.lora.rank",
        "this key is missing; add it",
    ),
    "a misspelt method": (
        ("recipes", "full", "method"),
        "ful",
        "recipes.full.method",
        "'ful' is not one of the choices; did you mean 'full'?",
    ),
    "a method that no recipe may name": (
        ("recipes", "full", "method"),
        "untuned",
        "recipes.full.method",
        "known are freeze, full, ia3, lora, partial, rslora",
    ),
    "no method": (("recipes", "small"), {"rank": 4}, "recipes.small.method", "add it"),
    "a key of a recipe's training": (
        ("recipes", "lora", "training"),
        {"epoch": 1},
        "recipes.lora.training.epoch",
        "'epochs'",
    ),
    "inputs scaled of what is no target": (
        ("recipes", "small"),
        {"method": "ia3", "targets": ["k_proj"], "feedforward": ["down_proj"]},
        "recipes.small",
        "'feedforward' names down_proj, which 'targets' lacks",
    ),
    "two origins": (("models", "tinyllama", "path"), "x", "models.tinyllama", "exactly one of"),
    "too few prompts": (
        ("mixtures", "large", "experts"),
        {"tinyllama": 9},
        "mixtures.large.experts.tinyllama",
        "prompts for 8",
    ),
    "prompts twice in one mixture": (
        ("models", "tinyllama", "gates", "positive", 1),
        ["Which treaty ended the war", "A question about history"],
        "models.tinyllama.gates.positive.1",
        "end in words of its own",
    ),
    "no prompts at all": (
        ("models", "medical", "gates"),
        {"positive": []},
        "mixtures.medical_4.experts.medical",
        "add 4 more list(s) of prompts",
    ),
    "too many frozen": (
        ("recipes", "freeze3", "frozen"),
        5,
        "tables.7.rows.3 | 1.train",
        "freezes 5",
    ),
    "a circle of models": (("models", "general", "from"), "general", "models.general", "circle"),
    "an assumption without its key": (
        ("assumptions", 0, "key"),
        "models.tinylama",
        "assumptions.0.key",
        "not a key",
    ),
    "a base to pretrain on nothing": (
        ("models", "tinyllama"),
        SCRATCH,
        "models.tinyllama",
        "'world'",
    ),
    "heads that do not fit": (("models", "tinyllama"), SCRATCH, "models.tinyllama", "no multiple"),
    "a dense model with some frozen experts": (
        ("models", "general", "train"),
        {"mmlu": "freeze2"},
        "models.general.train",
        "freezes 2 experts, but the model is dense and has one FFN per layer; write 'frozen: all'",
    ),
    "a dense model's router": (
        ("models", "general", "train"),
        {"mmlu": "router"},
        "models.general.train",
        "trains the router, but the model is dense and has none; leave 'router' out of 'train'",
    ),
    "a part that no model has": (
        ("recipes", "attention", "train"),
        ["atention"],
        "recipes.attention.train.0",
        "'router', 'norms' or 'experts' is needed, but it is 'atention'; did you mean 'attention'?",
    ),
    "adapters that no expert can have": (
        ("recipes", "dora", "targets"),
        ["q_proj", "up_proj"],
        "tables.2.rows.Small | DoRA.train",
        "has targets (up_proj) in the experts of mixture 'small', which only LoRA and rsLoRA",
    ),
    "a target that no layer has": (
        ("recipes", "lora", "targets"),
        ["q_proj", "v_porj"],
        "recipes.lora.targets.1",
        "but it is 'v_porj'",
    ),
    "a module beside adapters that cannot be": (
        ("recipes", "lora_also", "also"),
        ["norm"],
        "recipes.lora_also.also.0",
        "'embed_tokens' or 'lm_head' is needed, but it is 'norm'",
    ),
    "one expert of two per token": (
        ("mixtures", "small", "experts"),
        {"tinyllama": 1},
        "mixtures.small.experts",
        "or lower mixtures.small.merge.experts_per_token",
    ),
    "a stage after a quantised one": (
        ("tables", 7, "rows", "4 | 0", "train"),
        {"mmlu": "qlora", "medmcqa": "mofe"},
        "tables.7.rows.4 | 0.train",
        "make it the last",
    ),
    "results with wildcards": (("results",), "{x}", "results", "{x}"),
    "a seed twice": (("seeds",), [1, 1], "seeds", "twice"),
    "labels that do not fit": (
        ("tables", 7, "rows", "4"),
        {"mixture": "medium"},
        "tables.7",
        "row '4' has 1 labels for 2",
    ),
    "a row of nothing": (
        ("tables", 7, "rows", "4 | 0"),
        {"train": {"medmcqa": "mofe"}},
        "tables.7.rows.4 | 0",
        "exactly one of mixture, model, constant, has none",
    ),
    "a row of two models": (
        ("tables", 7, "rows", "4 | 0", "model"),
        "tinyllama",
        "tables.7.rows.4 | 0",
        "exactly one of mixture, model",
    ),
    "unknown model of a row": (
        ("tables", 7, "rows", "5 | 0"),
        {"model": "tinylama"},
        "tables.7.rows.5 | 0.model",
        "'tinyllama'",
    ),
    "a dense row with some frozen experts": (
        ("tables", 7, "rows", "4 | 0"),
        {"model": "tinyllama", "train": {"medmcqa": "freeze3"}},
        "tables.7.rows.4 | 0.train",
        "'freeze3' freezes 3 experts, but model 'tinyllama' is dense",
    ),
    "unknown metric": (
        ("tables", 6, "columns"),
        {"MedMCQA": "medmcqa.acc_nrom"},
        "tables.6.columns.MedMCQA",
        "did you mean 'acc_norm'?",
    ),
    "a sample of one question": (
        ("tasks", "mmlu", "sample"),
        1,
        "tasks.mmlu.sample",
        "1 question has no standard error; ask two or more",
    ),
    "a sample of more questions than there are": (
        ("tasks", "finance_open", "sample"),
        20000,
        "tasks.finance_open.sample",
        "by tasks.finance_open.questions there are 9585; lower it, or set it to null to ask them all",
    ),
    "a sample for a column of the paper's": (
        ("tasks", "medmcqa", "sample"),
        500,
        "tasks.medmcqa.sample",
        "asks all questions for the paper's columns, not 500 of them",
    ),
    "a metric of an unknown task": (
        ("tables", 4, "beside"),
        {"F1": "finance_opn.f1"},
        "tables.4.beside.F1",
        "is not declared under tasks",
    ),
    "a table whose key is no name": (
        ("tables", "../x"),
        {},
        "tables.../x",
        "cannot be a name",
    ),
    "a table without a number": (("tables", 0), {}, "tables.0", "a number from 1 or a name"),
    "more experts per token than a mixture has": (
        ("mixtures", "small", "merge"),
        {"experts_per_token": 3},
        "mixtures.small.experts",
        "merge.experts_per_token is 3",
    ),
    "an unknown setting of a mixture's merge": (
        ("mixtures", "small", "merge"),
        {"gate": "random"},
        "mixtures.small.merge.gate",
        "'gate_mode'",
    ),
}


def put(config: dict, path: tuple, value) -> None:
    *parents, last = path
    for key in parents:
        config = config[key]
    config[last] = value


@pytest.mark.parametrize("fault", FAULTS, ids=FAULTS)
def test_a_fault_is_one_sentence_with_key_and_remedy(config, fault):
    path, value, where, remedy = FAULTS[fault]
    put(config, path, value)
    told = [p for p in problems(config) if p.startswith(where)]
    assert any(remedy in sentence for sentence in told), told
    assert all("\n" not in sentence for sentence in told)


@pytest.mark.parametrize(
    "path",
    [
        ("training", "micro_batch"),
        ("recipes", "lora", "training", "micro_batch"),
        ("data", "mmlu", "rows"),
        ("recipes", "freeze1", "frozen"),
    ],
    ids=".".join,
)
@pytest.mark.parametrize("value", ["automatic", 0, 1.5, True])
def test_what_is_neither_a_count_nor_its_word_is_told_once(config, path, value):
    config["recipes"]["lora"]["training"] = {}
    put(config, path, value)
    assert len(problems(config)) == 1


def test_a_recipe_becomes_another_method_where_an_overlay_takes_its_settings_away(config):
    settings = {"method": "ia3", "rank": None, "alpha": None}
    study = load_study(overlay(config, {"recipes": {"lora": settings}}))
    assert study.recipes["lora"] == Ia3(targets=["q_proj", "k_proj", "v_proj", "o_proj"])


def test_every_fault_of_a_recipe_is_told_at_once(config):
    config["recipes"]["lora"] = {"method": "lora", "rank": 0, "alfa": 1, "frozen": 2, "dora": "no"}
    where = {sentence.split(":")[0] for sentence in problems(config)}
    keys = ("rank", "alpha", "alfa", "targets", "frozen", "dora")
    assert where == {f"recipes.lora.{key}" for key in keys}


def test_every_fault_is_told_at_once(config):
    # faults of shape only: what the parts say together is checked once each part is sound
    names = [n for n in FAULTS if n.startswith(("unknown", "text", "wrong"))]
    for name in names:
        put(config, *FAULTS[name][:2])
    told = problems(config)
    for name in names:
        assert any(p.startswith(FAULTS[name][2]) for p in told), name


def test_line_numbers_and_keys_written_twice(tmp_path, config):
    text = CONFIG.read_text().replace("learning_rate: 3.0e-5", "learning_rate: 3e-5")
    file = tmp_path / "config.yaml"
    file.write_text(text + "seeds: [1]\n")
    line = text[: text.index("learning_rate: 3e-5")].count("\n") + 1
    told = problems(yaml.safe_load(file.read_text()), [file])
    assert any(p.startswith(f"training.learning_rate ({file}:{line})") for p in told)
    assert any(p.startswith("seeds (") and "stands twice" in p for p in told)


def study_of(tmp_path, *overlays: str) -> Study:
    """config.yaml under overlays, which are read as Snakemake reads them."""
    files = [tmp_path / f"{number}.yaml" for number in range(len(overlays))]
    for file, text in zip(files, overlays, strict=True):
        file.write_text(text)
    return read_study(CONFIG, *files)


ADDED = """
recipes: {lora2: {method: lora, rank: 2, alpha: 4, targets: [q_proj]}}
tables:
  2: {rows: {Small | LoRA 2: {mixture: small, train: {mmlu_medmcqa: lora2}}, Small | DoRA: null}}
"""


def test_an_overlay_adds_a_row_and_leaves_one_out(tmp_path, paper_plan):
    theirs = paper_plan.study.tables[2].rows
    rows = study_of(tmp_path, ADDED).tables[2].rows
    assert list(rows) == [name for name in theirs if name != "Small | DoRA"] + ["Small | LoRA 2"]
    assert all(rows[name] == theirs[name] for name in theirs.keys() & rows.keys())


def test_overlays_of_rows_add_up(tmp_path):
    again = """
    study: own
    tables:
      2:
        rows:
          Small | LoRA 2: null
          Small | LoRA: {train: {mmlu_medmcqa: mofe}}
          Tiny | X: {model: tinyllama}
    """
    rows = study_of(tmp_path, ADDED, again).tables[2].rows
    assert "Small | LoRA 2" not in rows and "Small | DoRA" not in rows
    assert rows["Small | LoRA"].train == {"mmlu_medmcqa": "mofe"}
    assert rows["Small | LoRA"].mixture == "small", "a row's keys are merged too"
    assert list(rows)[-1] == "Tiny | X"


def test_a_row_or_table_that_is_not_there_cannot_be_left_out(tmp_path):
    misspelt, near = "Small | LORA", "Small | LoRA"
    with pytest.raises(ConfigError) as raised:
        study_of(tmp_path, f"tables:\n  12: null\n  2: {{rows: {{{misspelt}: null}}}}\n")
    assert sorted(raised.value.problems) == [
        f"tables.12 ({tmp_path}/0.yaml:2): is not there, so null takes nothing out; did you mean '2'?",
        f"tables.2.rows.{misspelt} ({tmp_path}/0.yaml:3): is not there, so null takes nothing out; did you mean '{near}'?",
    ]


def test_tables_are_numbers_or_words(tmp_path):
    table = "{caption: x, labels: [a], columns: {T: time}, rows: {8: {mixture: small}}}"
    tables = study_of(tmp_path, f"tables: {{X1: {table}, '9': {table}, routing: {table}}}").tables
    assert list(tables)[-3:] == ["X1", 9, "routing"]
    assert list(tables["X1"].rows) == ["8"], "YAML reads a label of digits as a number"


def test_a_tasks_name_with_a_dot_is_no_metric(config):
    config["tasks"]["mmlu.acc"] = config["tasks"]["mmlu"]
    config["tables"][1]["columns"] = {"A": "mmlu.acc", "B": "mmlu.acc_norm"}
    shown = {c.column: c for c in Plan(load_study(config)).tables[1].rows[0].cells}
    assert (shown["A"].task, shown["A"].metric) == ("mmlu.acc", None)
    assert (shown["B"].task, shown["B"].metric) == ("mmlu", "acc_norm")


@pytest.mark.parametrize("shown", ["mmlu.f1", "finance_open.perplexity", "mmlu_held.exact"])
def test_a_column_shows_what_is_measured(config, shown):
    config["tables"][1]["columns"] = {"A": shown}
    config["tables"][1].pop("header", None)
    task = shown.partition(".")[0]
    told = rf"tables.1.*: column 'A' shows {shown}, but evaluations of tasks.{task} measure "
    with pytest.raises(ConfigError, match=told):
        load_study(config)


def test_a_claim_compares_no_perplexity(config):
    config["tables"][1]["columns"]["P"] = "mmlu.perplexity"
    config["tables"][1].pop("header", None)
    rows = list(config["tables"][1]["rows"])[:2]
    claim = {"says": "x", "place": "here", "section": "own", "table": 1, "kind": "all"}
    config["claims"] = {"mine": {**claim, "parts": {"P": [rows]}}}
    with pytest.raises(ConfigError, match=r"compares a score.* column 'P' shows mmlu.perplexity"):
        load_study(config)
    del config["claims"]
    table = Plan(load_study(config)).tables[1]
    assert {c.kind for row in table.rows for c in row.cells if c.column == "P"} == {"perplexity"}


@pytest.mark.parametrize("given, seeds", [(0, [0]), ("0,1,2", [0, 1, 2]), ([4], [4])])
def test_seeds_as_the_command_line_gives_them(config, given, seeds):
    assert load_study({**config, "seeds": given}).seeds == seeds


def test_a_missing_key_is_named(config):
    del config["training"]["epochs"]
    assert problems(config) == ["training.epochs: this key is missing; add it"]


values = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.text("abc", max_size=2), values, max_size=4)


def leaves(config: dict, path: tuple = ()) -> dict[tuple, object]:
    found = {}
    for key, value in config.items():
        inner = leaves(value, (*path, key)) if isinstance(value, dict) else {}
        found |= inner or {(*path, key): value}
    return found


@given(mappings, mappings)
def test_an_overlay_wins_where_it_speaks_and_nowhere_else(base, top):
    before = copy.deepcopy((base, top))
    merged = leaves(overlay(base, top))
    assert (base, top) == before
    above = leaves(top)
    for path, value in above.items():
        assert value == {} or merged[path] == value
    for path, value in leaves(base).items():
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in above):
            assert merged[path] == value
    assert set(merged) <= set(above) | set(leaves(base))
    assert overlay(base, {}) == base == overlay(base, base)


@given(st.from_regex(NAME, fullmatch=True))
def test_names_cannot_leave_their_folder(name):
    assert "/" not in name and not name.startswith((".", "-")) and name.strip() == name


@given(
    st.text("a/.;- $", min_size=1, max_size=6).filter(
        lambda t: set(t) & set("/;$ ") or t[0] in ".-"
    )
)
def test_what_is_no_name_is_refused(name):
    config = yaml.safe_load(CONFIG.read_text())
    config["recipes"][name] = {"method": "full"}
    assert any("cannot be a name" in problem for problem in problems(config))


def test_assumptions_hold_real_values(paper_plan):
    for assumption in paper_plan.study.assumptions:
        assert paper_plan.study.value_at(assumption.key) is not None


def test_the_ledger_lists_the_choices_that_are_made():
    """With another base there is no TinyLlama, and of untuned rows no training."""
    mine = {"path": "/models/mine", "gates": {"positive": [[word] for word in "abcd"]}}
    study = yaml.safe_load(CONFIG.read_text())
    study["models"]["mine"] = mine
    study["mixtures"]["medium"] = {"base": "mine", "experts": {"mine": 4}}
    study["tables"] = {7: study["tables"][7]}
    listed = {a["key"]: a for a in Plan(load_study(study)).params.assumptions()}
    assert "models.tinyllama" not in listed and "mixtures.medical_experts" not in listed
    assert {"recipes.mofe", "recipes.freeze2", "training.epochs", "tasks.medmcqa"} <= listed.keys()
    assert not {"recipes.lora", "tasks.pubmedqa", "data.mmlu"} & listed.keys()
    for row in study["tables"][7]["rows"].values():
        row.pop("train", None)
    study["tables"][7]["columns"] = {"MedMCQA": "medmcqa"}
    untuned = {a["key"] for a in Plan(load_study(study)).params.assumptions()}
    assert not any(key.startswith(("training.", "recipes.", "data.")) for key in untuned)
    assert {"merge.gate_mode", "shots", "tasks.medmcqa"} <= untuned


def test_what_the_ledger_says_of_a_key_is_the_keys_value(config):
    (told,) = (
        a["evidence"]
        for a in Plan(load_study(config)).params.assumptions()
        if a["key"] == "mixtures.medical_experts"
    )
    assert told.endswith("so the base stays tinyllama.")
    config["mixtures"]["medical_experts"]["base"] = "general"
    told = Plan(load_study(config)).params.assumptions()
    assert any(a["evidence"].endswith("so the base stays general.") for a in told)
    config["assumptions"][0]["evidence"] = "Because of {merge.dtpye}."
    with pytest.raises(ConfigError, match=r"assumptions.0.evidence: \{merge.dtpye\} is not a key"):
        load_study(config)


@pytest.mark.parametrize("kind", [*TIMES, "cpu_seconds", "tokens_per_second", "memory", "flops"])
def test_what_a_training_takes_is_not_shown_of_experts_that_are_computed_once(config, kind):
    table = config["tables"][7]
    table["columns"]["Takes"], table["header"] = kind, None
    with pytest.raises(ConfigError) as raised:
        load_study(config)
    rows = ["4 | 0", "3 | 1", "2 | 2"]  # of one frozen expert, and of none, nothing is equal
    assert [p.split(".train")[0] for p in raised.value.problems] == [
        f"tables.7.rows.{r}" for r in rows
    ]
    assert (
        "'Takes' would be of a smaller mixture, because recipe 'mofe'" in raised.value.problems[0]
    )
    assert "set recipes.mofe.training.fold_duplicates to false" in raised.value.problems[0]
    for recipe in ("mofe", "freeze3", "freeze2"):
        config["recipes"][recipe]["training"] = {"fold_duplicates": False}
    load_study(config)


def test_experts_that_a_stage_trains_are_not_computed_once(config):
    """Nor are those that adapters make different."""
    config["tables"][7] |= {"columns": {"T": "time"}, "header": None}
    rows = config["tables"][7]["rows"] = {
        "a | b": {"mixture": "medium", "train": {"posttrain": "full", "medmcqa": "mofe"}},
        "c | d": {"mixture": "medium", "train": {"medmcqa": "lora_experts"}},
        "e | f": {"model": "tinyllama", "train": {"medmcqa": "mofe"}},
    }
    load_study(config)
    rows["c | d"]["train"] = {"medmcqa": "lora"}
    with pytest.raises(ConfigError, match=r"1 fault.*\n.*tables\.7\.rows\.c \| d\.train"):
        load_study(config)


def test_overlay_of_the_mini_study_changes_no_table():
    paper, mini = read_study(CONFIG), read_study(CONFIG, MINI)
    ours = {"beside": None}  # the generated world has no rows for our own columns
    assert {n: t.model_copy(update=ours) for n, t in paper.tables.items()} == mini.tables
    assert paper.mixtures == mini.mixtures
    assert {n: r.method for n, r in paper.recipes.items()} == {
        n: r.method for n, r in mini.recipes.items()
    }


@pytest.mark.parametrize(
    "tables, said",
    [
        ({"3": None}, "tables: 3 and '3' name the same"),
        ({"01": {"caption": "Ours."}}, "tables: 1 and '01' name the same"),
        ({8: {"rows": {8: {"mixture": "small"}, "8": None}}}, r"tables.8.rows: 8 and '8' name"),
    ],
)
def test_a_key_in_quotes_is_no_second_key(tables, said):
    """Merging files takes a number and the same number in quotes for two keys."""
    with pytest.raises(ConfigError, match=said):
        read_study(CONFIG, tables=tables)
