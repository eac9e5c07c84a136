"""What YAML and the command line give: each fault says what stands there, where, and what to write."""

import pytest
import yaml
from conftest import CONFIG, LOOK, MINI, snakemake

from mofe.study.config import Study
from mofe.study.kinds import alternatives, entries, fields, is_part
from mofe.study.load import load_study, overlay, read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.study.written import file


def told(tmp_path, text: str, *base, command: dict | None = None) -> list[str]:
    """The faults of an overlay of config.yaml, and of --config, without the folder's name."""
    written = tmp_path / "mine.yaml"
    written.write_text(text)
    files = [CONFIG, *base, written]
    config = {}
    with pytest.raises(ConfigError) as raised:
        for each in files:
            config = overlay(config, file(each).content)
        load_study(overlay(config, command or {}), files, command)
    return [problem.replace(f"{tmp_path}/", "") for problem in raised.value.problems]


@pytest.mark.parametrize(
    "text, said",
    [
        ("notes: [yes]", "notes.0 (mine.yaml:1): `yes` is read as true; put it in quotes"),
        ("notes: [4]", "notes.0 (mine.yaml:1): `4` is read as a number; put it in quotes"),
        ("notes:\n- 12_000", "notes.0 (mine.yaml:2): `12_000` is read as 12000; put it in quotes"),
        (
            "sources: {mmlu: {revision: 0777}}",
            "sources.mmlu.revision (mine.yaml:1): `0777` is read as 511; put it in quotes, or write 511",
        ),
        (
            "sources:\n  mmlu:\n    revision: 2025-01-31",
            "sources.mmlu.revision (mine.yaml:3): `2025-01-31` is read as a date; put it in quotes",
        ),
        (
            "data: {mmlu: {split: null}}",
            "data.mmlu.split (mine.yaml:1): `null` is read as nothing; write a text, or put it in quotes",
        ),
        (
            "data: {mmlu: {split: }}",
            "data.mmlu.split (mine.yaml:1): a text is needed, but there is none; write one",
        ),
        (
            "tables: {1: {columns: {off: mmlu}}}",
            "tables.1.columns.False (mine.yaml:1): the key `off` is read as false; put it in quotes",
        ),
        (
            "tables: {1: {columns: {2024: mmlu}}}",
            "tables.1.columns.2024 (mine.yaml:1): the key `2024` is read as a number; put it in quotes",
        ),
        (
            "training: {epochs: 2:15}",
            "training.epochs (mine.yaml:1): `2:15` is read as 135; put it in quotes, or write 135",
        ),
        (
            "evidence: {margin: .NaN}",
            "evidence.margin (mine.yaml:1): a finite number is needed, but it is .NaN; write one",
        ),
        (
            "data: {mmlu: {tokens: 2.0e+300}}",
            "data.mmlu.tokens (mine.yaml:1): 2e+300 is too large; write a smaller number",
        ),
        (
            'export: {license: "MIT\\x07"}',
            "export.license (mine.yaml:1): 'MIT\\x07' has the control character '\\x07'; remove it",
        ),
        (
            "sampling_seed: 4294967296",
            "sampling_seed (mine.yaml:1): 4294967296 is too large; give at most 4294967295",
        ),
        ("seeds: [3, -3]", "seeds.1 (mine.yaml:1): -3 is too small; give at least 0"),
        (
            "tables: {1: {header: [7]}}",
            "tables.1.header.0 (mine.yaml:1): a list is needed, but it is 7; write it in [ ]",
        ),
        (
            "mixtures: {small: [1, 2]}",
            (
                "mixtures.small (mine.yaml:1): keys with values are needed, but it is a list of 2; write "
                "'key: value' lines"
            ),
        ),
        (
            "models: {tinyllama: {path: a}}",
            (
                "models.tinyllama (mine.yaml:1): needs exactly one of hub, path, scratch, from, has hub, "
                "path; give one of them"
            ),
        ),
        ("device: cpu\ndevice: cuda", "device (mine.yaml:2): this key stands twice; remove one"),
        ("? [a]\n: b", "mine.yaml:1: cannot be read as YAML: found unhashable key; correct it"),
        (
            "models: &m {x: *m}",
            (
                "mine.yaml:1: cannot be read as YAML: *m stands inside itself, write out what it stands "
                "for; correct it"
            ),
        ),
        (
            "notes: 2025-02-30",
            (
                "mine.yaml: has a value that YAML cannot read (day is out of range for month); put it in "
                "quotes"
            ),
        ),
        ("- a list", "mine.yaml: has no keys at its top; write lines such as 'study: name'"),
        (
            "world: null\nmodels: {tinyllama: {hub: null, revision: null, scratch: null}}",
            (
                "models.tinyllama (mine.yaml:2): needs exactly one of hub, path, scratch, from, has none; "
                "give one of them"
            ),
        ),
    ],
)
def test_what_stands_in_a_file_is_told_with_its_line(tmp_path, text, said):
    assert said in told(tmp_path, text)


def test_faults_of_sections_together_have_a_line_too(tmp_path):
    text = "study: mine\n\nmerge: {experts_per_token: 3}\nmodels:\n  tinyllama:\n    gates: {positive: []}"
    found = told(tmp_path, text)
    assert any(p.startswith(f"mixtures.small.experts ({CONFIG}:") for p in found), found
    assert any(p.startswith(f"mixtures.medium.experts.tinyllama ({CONFIG}:") for p in found), found
    cycle = told(
        tmp_path,
        "study: mine\nmodels:\n  general:\n    from: medical\n  medical:\n    from: general",
    )
    assert any(p.startswith("models.general.from (mine.yaml:4): ") for p in cycle)


@pytest.mark.parametrize(
    "command, said",
    [
        (
            {"study": 12},
            "study (--config): a text is needed, but --config reads it as 12; write it in ",
        ),
        ({"trainin": {}}, "trainin (--config): unknown key; did you mean 'training'?"),
        (
            {"training": {"epochs": "2"}},
            "training.epochs (--config): '2' is text, not a number; write 2 in a file",
        ),
        ({"seeds": "4294967296"}, "seeds.0 (--config): 4294967296 is too large; give at most"),
        ({"notes": ["ok", 3]}, "notes.1 (--config): a text is needed, but --config reads it as 3;"),
        (
            {"models": {"tinyllama": {"path": "x"}}},
            "models.tinyllama (--config): needs exactly one of",
        ),
    ],
)
def test_what_the_command_line_gives_is_told_as_such(tmp_path, command, said):
    # the file has the same keys, and is not to blame
    text = "study: mine\ntraining: {epochs: 3}\nseeds: [1]\nnotes: [a, b]"
    assert [p for p in told(tmp_path, text, command=command) if p.startswith(said)]


def test_a_missing_key_of_a_replaced_list_is_missing_where_the_list_stands(tmp_path):
    text = "study: mine\nassumptions:\n- {item: One, key: seeds, evidence: None.}\n- {item: Two}"
    found = told(tmp_path, text.replace("None", "none"))
    assert "assumptions.1.key (mine.yaml:4): this key is missing; add it" in found


def places(kind, value, path=()):
    """Every part of a configuration that has keys of its own: its path and its keys."""
    known = [k for a in alternatives(kind) for k in alternatives(a) if is_part(k)]
    if isinstance(value, dict) and known:
        yield path, known
    for key, inner in value.items() if isinstance(value, dict) else ():
        types = [fields(k)[key] for k in known if key in fields(k)]
        if not known:
            types = [k.__args__[1] for k in alternatives(kind) if hasattr(k, "__args__")]
        for each in types[:1]:
            yield from places(each, inner, (*path, key))


def test_an_unknown_key_is_told_with_the_keys_that_may_stand_there():
    """Below optional parts and alternatives too."""
    base = overlay(yaml.safe_load(CONFIG.read_text()), yaml.safe_load(MINI.read_text()))
    found = {
        tuple(sorted(k.__name__ for k in kinds)): (path, kinds)
        for path, kinds in places(Study, base)
    }
    assert len(found) >= 18
    for path, kinds in found.values():
        top = {"qqqq": 1}
        for key in reversed(path):
            top = {key: top}
        with pytest.raises(ConfigError) as raised:
            load_study(overlay(base, top))
        (said,) = [p for p in raised.value.problems if ".".join(map(str, (*path, "qqqq"))) in p]
        listed = set(said.partition("known are ")[2].split(", "))
        assert listed in [set(fields(k)) - {"method"} for k in kinds] + [
            set(fields(k)) for k in kinds
        ]


# ------------------------------------------------------------------------------------------- null


def test_null_takes_an_entry_out_of_every_mapping_of_names():
    base = overlay(yaml.safe_load(CONFIG.read_text()), yaml.safe_load(MINI.read_text()))
    several = [path for path, value in entries(Study, base) if value is not None]
    depths = {(path[0], len(path)) for path in several}
    assert {("mixtures", 4), ("tables", 4), ("models", 4), ("recipes", 2)} <= depths
    for path in several[::9]:
        top = None
        for key in reversed(path):
            top = {key: top}
        try:
            study = load_study(overlay(base, top))
        except ConfigError as error:  # what names it, or needs one more
            wrong = (
                "is taken out of",
                "of at least 1 entries",
                "read from",
                "has none",
                "there is no",
            )
            for problem in error.problems:
                assert any(
                    word in problem for word in (*wrong, "go together", "merge.", "spans")
                ), problem
        else:
            left = study.model_dump(by_alias=True)
            for key in path[:-1]:
                left = left[key]
            assert path[-1] not in left


def test_an_expert_is_taken_out_of_a_mixture(tmp_path):
    text = "study: mine\nmixtures: {finance_3_medical_1: {experts: {medical: null}}}"
    (tmp_path / "mine.yaml").write_text(text)
    assert read_study(CONFIG, tmp_path / "mine.yaml").mixtures["finance_3_medical_1"].experts == {
        "finance": 3
    }


@pytest.mark.parametrize(
    "text, where",
    [
        ("mixtures: {small: {experts: {tinylama: null}}}", "mixtures.small.experts.tinylama"),
        ("recipes: {lorra: null}", "recipes.lorra"),
        ("tables: {2: {columns: {MMLUU: null}}}", "tables.2.columns.MMLUU"),
        ("claims: {C99: null}", "claims.C99"),
    ],
)
def test_a_misspelt_name_takes_nothing_out(tmp_path, text, where):
    found = told(tmp_path, f"study: mine\n{text}")
    assert [p for p in found if p.startswith(f"{where} (mine.yaml:2): is not there, so null takes")]


def test_what_is_taken_out_takes_its_assumption_along(tmp_path):
    text = "study: mine\nrecipes: {dora: null, lora: null}\ntables: {2: null, C3: null, C4: null, C5: null}"
    (tmp_path / "mine.yaml").write_text(text)
    study = read_study(CONFIG, LOOK, tmp_path / "mine.yaml", claims={})
    assert "recipes.lora" not in [a.key for a in study.assumptions]
    assert "recipes.qlora" in [a.key for a in study.assumptions]


def test_what_nothing_shows_forbids_nothing(tmp_path):
    """Neither a model, nor a recipe, a search, a data set or a source."""
    text = """
    study: mine
    models:
      strange:
        scratch: {shape: {hidden_size: 7, intermediate_size: 1, num_hidden_layers: 1,
                          num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 9}}
      frozen: {from: tinyllama, train: {mmlu: freeze2}}
    mixtures: {lone: {base: strange, experts: {strange: 1}, merge: {experts_per_token: 7}}}
    sources: {other: {repo: cais/mmlu, revision: main}}
    data: {odd: {source: other, split: test, task: mmlu_held, rows: 9}}
    searches: {same: {learning_rate: [1.0e-3, 1.0e-3], tasks: [mmlu]}}
    """
    (tmp_path / "mine.yaml").write_text(text)
    plan = Plan(read_study(CONFIG, tmp_path / "mine.yaml"))
    assert "strange" not in plan.models and "odd" not in plan.datasets


# ---------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    "typed, read",
    [
        ("./out", "out"),
        ("out//deep/", "out/deep"),
        ("out/../other", "other"),
        ("~/out", "/home/me/out"),
        ("$WORK/out", "/scratch/out"),
        ("${WORK}/./out/", "/scratch/out"),
        ("//data/out", "/data/out"),
    ],
)
@pytest.mark.parametrize("key", ["results", "hub", "mirror", "path"])
def test_a_folder_is_read_as_it_is_meant(monkeypatch, key, typed, read):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("WORK", "/scratch")
    if key == "path":
        study = read_study(
            CONFIG, models={"tinyllama": {"hub": None, "revision": None, key: typed}}
        )
        assert study.models["tinyllama"].path == read
    else:
        assert getattr(read_study(CONFIG, **{key: typed}), key) == read


@pytest.mark.parametrize(
    "key, typed, said",
    [
        ("results", "$NO_SUCH_PLACE/out", "has the variable $NO_SUCH_PLACE, which is not set"),
        ("mirror", "${NO_SUCH_PLACE}/in", "has the variable ${NO_SUCH_PLACE}, which is not set"),
        ("hub", "~nobody-here/hub", "begins with ~, but there is no such user"),
        ("results", ".", "is no folder of its own"),
        ("results", "a/..", "is no folder of its own"),
        ("results", "/", "is no folder of its own"),
        ("results", "", "names no folder"),
        ("hub", "a b", "has a space"),
        ("mirror", "{here}", "has a brace"),
        ("hub", "a\u200bb", "has a character that cannot be seen"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused(monkeypatch, key, typed, said):
    monkeypatch.delenv("NO_SUCH_PLACE", raising=False)
    with pytest.raises(ConfigError) as raised:
        read_study(CONFIG, **{key: typed})
    (problem,) = raised.value.problems
    assert said in problem and problem.startswith(f"{key}: {typed!r} ")


def test_a_folder_whose_name_no_disk_takes_is_refused():
    with pytest.raises(ConfigError, match=r"mirror: 'é.*has a name of more than 255 bytes"):
        read_study(CONFIG, mirror="é" * 130)


def test_a_file_can_be_asked_for_however_its_folder_is_spelt(tmp_path):
    text = f"study: mine\nresults: {tmp_path}/a/..//b/./\n"
    (tmp_path / "mine.yaml").write_text(text)
    files = ["--configfile", str(CONFIG), str(MINI), str(tmp_path / "mine.yaml")]
    done = snakemake("-n", *files, "--", f"{tmp_path}/b/data/mmlu.parquet")
    assert "prepare_data" in done.stdout


# ---------------------------------------------------------------------------- the paper's setting


@pytest.mark.parametrize(
    "text, where",
    [
        ("shots: 5", "shots"),
        ("scoring: text", "scoring"),
        ("sampling_seed: 3", "sampling_seed"),
        ("add_bos_token: false", "add_bos_token"),
        ("training: {epochs: 1}", "training.epochs"),
        ("merge: {dtype: float32}", "merge.dtype"),
        ("data: {sujet: {rows: 17}}", "data.sujet.rows"),
        ("recipes: {lora: {rank: 16}}", "recipes.lora.rank"),
        ("recipes: {mofe: {training: {epochs: 9}}}", "recipes.mofe.training"),
        ("mixtures: {large: {experts: {tinyllama: 6}}}", "mixtures.large.experts.tinyllama"),
        ("mixes: {posttrain: {data: [medical_corpus]}}", "mixes.posttrain.data"),
        ("tasks: {mmlu: {harness: [mmlu_anatomy]}}", "tasks.mmlu.harness"),
        ("models: {finance: {gates: {negative: [x]}}}", "models.finance.gates.negative"),
        ("sources: {mmlu: {revision: main}}", "sources.mmlu.revision"),
        ("tables: {7: {rows: {4 | 0: {mixture: large}}}}", "tables.7.rows.4 | 0.mixture"),
        ("tables: {3: {columns: {MedMCQA: mmlu}}}", "tables.3.columns.MedMCQA"),
    ],
)
def test_the_papers_name_is_for_the_papers_setting(tmp_path, text, where):
    said = (
        "the study 'paper' has the paper's own setting, and this changes it; give the study another"
    )
    assert [p for p in told(tmp_path, text) if p.startswith(f"{where} (mine.yaml:1): {said}")]
    (tmp_path / "mine.yaml").write_text(f"study: mine\n{text}")
    read_study(CONFIG, tmp_path / "mine.yaml")


def test_the_command_line_may_not_change_it_either(tmp_path):
    (problem,) = told(tmp_path, "seeds: [0]", command={"shots": 2})
    assert problem.startswith("shots (--config): the study 'paper' has")


def test_under_the_papers_name_tables_go_and_names_come(tmp_path):
    text = """
    seeds: [0, 1, 2]
    results: elsewhere
    training: {micro_batch: 4}
    data: {mmlu: {tokens: 500.0}, mine: {source: mmlu, subset: all, split: dev, task: mmlu, rows: 9}}
    mixtures: {mine: {base: tinyllama, experts: {tinyllama: 3}}, medium: null}
    tables:
      3: {rows: {4 | 0: null, Mine | X: {mixture: mine}}}
      1: null
      2: null
      6: null
      7: null
      C1: null
      C2: null
      C3: null
      C4: null
      C5: null
      9: {caption: Mine., labels: [a], columns: {MMLU: mmlu}, rows: {b: {mixture: mine}}}
    """
    (tmp_path / "mine.yaml").write_text(text)
    study = read_study(CONFIG, tmp_path / "mine.yaml")
    assert study.scale == "paper" and "mine" in study.mixtures


# ------------------------------------------------------------------------------ rows as a list


def listed_rows(*labels) -> dict:
    rows = [{"labels": list(its), "mixture": "small"} for its in labels]
    columns = {"MMLU": "mmlu"}
    return {"X": {"caption": "c", "labels": ["Size"], "columns": columns, "rows": rows}}


def test_rows_may_be_a_list_with_labels():
    study = read_study(CONFIG, study="own", tables=listed_rows(["a"], [8]))
    assert list(study.tables["X"].rows) == ["a", "8"]
    with pytest.raises(ConfigError, match="keys with values are needed, but it is a list of 2"):
        read_study(CONFIG, study="own", tables=listed_rows(["a"], ["a"]))


def test_a_label_that_yaml_reads_as_another_type_is_told_where_it_stands(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "study: own\ntables:\n  X:\n    caption: c\n    labels: [Size]\n    columns: {MMLU: mmlu}\n"
        "    rows:\n      - {labels: [no], mixture: small}\n      - {labels: [b], mixture: smal}\n"
    )
    with pytest.raises(ConfigError) as raised:
        read_study(CONFIG, file)
    told = sorted(raised.value.problems)
    assert told[0] == (
        f"tables.X.rows.0.labels.0 ({file}:8): `no` is read as false; put it in quotes"
    )
    assert told[1].startswith(f"tables.X.rows.b.mixture ({file}:9): 'smal' is not declared")
    assert len(told) == 2
