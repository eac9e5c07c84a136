"""The generated world: equal bytes, real schemas, no leaks, one-token answers, working knobs."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CONFIG, MINI
from tokenizers import Tokenizer

from mofe.data import world as worlds
from mofe.data.world import generate
from mofe.study.config import World
from mofe.study.load import read_study

SMALL = World(
    test_questions=60,
    train_rows=80,
    corpus_tokens=6000,
    medical_documents=40,
    news_documents=20,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    return out, generate(SMALL, out)


@pytest.fixture(scope="module")
def tokenizer(made):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(made[0] / worlds.TOKENIZER)


def rows_of(out: Path, repo: str, file: str) -> list[dict]:
    return pq.read_table(out / repo / f"{file}-00000-of-00001.parquet").to_pylist()


def sujet_rows(out: Path) -> list[dict]:
    (file,) = (out / worlds.SUJET).glob("*.csv")
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def prompts_and_answers(out: Path):
    """(prompt, options) of every row of the four tasks, worded as the study does."""
    for split in ("auxiliary_train", "test", "dev"):
        for row in rows_of(out, worlds.MMLU, f"all/{split}"):
            yield f"{row['question']}\nAnswer:", row["choices"]
    for split in ("train", "validation", "test"):
        for row in rows_of(out, worlds.MEDMCQA, f"data/{split}"):
            yield f"{row['question']}\nAnswer:", [row[o] for o in ("opa", "opb", "opc", "opd")]
    for row in rows_of(out, worlds.PUBMEDQA, "pqa_labeled/train"):
        abstract = "\n".join(row["context"]["contexts"])
        prompt = f"Abstract: {abstract}\nQuestion: {row['question']}\nAnswer:"
        yield prompt, ["yes", "no", "maybe"]
    for row in sujet_rows(out):
        yield f"{row['inputs']}\nAnswer:", [row["answer"]]


# ------------------------------------------------------------------------------------ determinism


def test_equal_worlds_are_equal_byte_for_byte_in_another_process(made, tmp_path):
    # another hash seed, because the order of a set depends on it
    code = (
        "import sys; from pathlib import Path; from mofe.data.world import World, generate; "
        f"generate({SMALL!r}, Path(sys.argv[1])); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert contents(tmp_path) == contents(made[0])


def test_another_seed_gives_other_facts(made, tmp_path):
    generate(World(**{**made[1]["world"], "seed": 1}), tmp_path)
    changed, original = contents(tmp_path), contents(made[0])
    assert changed.keys() == original.keys()
    alike = {name for name in original if changed[name] == original[name]}
    cards = {name for name in original if name.endswith("README.md")}
    assert alike == cards | {"mofe/tokenizer/tokenizer_config.json"}


def test_more_test_questions_leave_training_rows_alone(made, tmp_path):
    generate(World(**{**made[1]["world"], "test_questions": 90}), tmp_path)
    for repo, file in ((worlds.MMLU, "all/auxiliary_train"), (worlds.MEDMCQA, "data/train")):
        assert rows_of(tmp_path, repo, file) == rows_of(made[0], repo, file)
    assert len(rows_of(tmp_path, worlds.MEDMCQA, "data/validation")) == 90


# ------------------------------------------------------------------------- schemas and row counts

STRINGS = pa.list_(pa.string())
OURS = ("fact", pa.string())  # what a row asks for: a column beside the real ones
REAL_SCHEMAS = {
    "cais/mmlu/all/test": [
        ("question", pa.string()),
        ("subject", pa.string()),
        ("choices", STRINGS),
        ("answer", pa.int64()),
        OURS,
    ],
    "openlifescienceai/medmcqa/data/train": [
        *((name, pa.string()) for name in ("id", "question", "opa", "opb", "opc", "opd")),
        ("cop", pa.int64()),
        *((n, pa.string()) for n in ("choice_type", "exp", "subject_name", "topic_name")),
        OURS,
    ],
    "qiaojin/PubMedQA/pqa_labeled/train": [
        ("pubid", pa.int32()),
        ("question", pa.string()),
        (
            "context",
            pa.struct(
                [
                    ("contexts", STRINGS),
                    ("labels", STRINGS),
                    ("meshes", STRINGS),
                    ("reasoning_required_pred", STRINGS),
                    ("reasoning_free_pred", STRINGS),
                ]
            ),
        ),
        ("long_answer", pa.string()),
        ("final_decision", pa.string()),
    ],
    "HiTZ/Multilingual-Medical-Corpus/data/en": [("text", pa.string())],
    "alexfabbri/multi_news/data/train": [("document", pa.string()), ("summary", pa.string())],
}


@pytest.mark.parametrize("file", REAL_SCHEMAS)
def test_columns_and_types_are_the_real_ones(made, file):
    schema = pq.read_schema(made[0] / f"{file}-00000-of-00001.parquet")
    assert schema.remove_metadata() == pa.schema(REAL_SCHEMAS[file])


def test_sujet_has_the_real_columns(made):
    (file,) = (made[0] / worlds.SUJET).glob("*.csv")
    with open(file, encoding="utf-8") as lines:
        assert next(lines) == (
            "Unnamed: 0,inputs,answer,system_prompt,user_prompt,dataset,task_type,index_level,"
            "conversation_id,fact\n"
        )


@pytest.mark.parametrize(
    ("repo", "subset", "split", "count"),
    [
        (worlds.MMLU, "all", "auxiliary_train", 80),
        (worlds.MMLU, "all", "test", 60),
        (worlds.MMLU, "sociology", "dev", 5),
        (worlds.MMLU, "miscellaneous", "validation", 25),
        (worlds.MEDMCQA, None, "train", 80),
        (worlds.MEDMCQA, None, "validation", 60),
        (worlds.MEDMCQA, None, "test", 1),
        (worlds.PUBMEDQA, "pqa_labeled", "train", 120),
        (worlds.SUJET, None, "train", 600),
        (worlds.MEDICAL_TEXT, None, "en", 40),
        (worlds.NEWS, None, "train", 20),
    ],
)
def test_datasets_reads_the_folder_as_it_reads_the_hub(made, tmp_path, repo, subset, split, count):
    from datasets import load_dataset

    folder = str(made[0] / repo)
    assert len(load_dataset(folder, subset, split=split, cache_dir=str(tmp_path))) == count


def test_answers_point_at_an_option(made):
    out, _ = made
    subjects = [row for s in worlds.SUBJECTS for row in rows_of(out, worlds.MMLU, f"{s}/test")]
    together = rows_of(out, worlds.MMLU, "all/test")
    assert sorted(map(str, subjects)) == sorted(map(str, together))
    assert all(len(set(row["choices"])) == 4 and 0 <= row["answer"] <= 3 for row in together)
    assert {r["subject"] for r in rows_of(out, worlds.MMLU, "all/auxiliary_train")} == {""}
    assert [r["cop"] for r in rows_of(out, worlds.MEDMCQA, "data/test")] == [-1]
    assert {r["cop"] for r in rows_of(out, worlds.MEDMCQA, "data/validation")} == {0, 1, 2, 3}


def test_right_answers_agree_with_the_facts(made):
    # an option is right because the world says so, whoever asks
    answer_of = {(f.head, f.relation.words[i]): f.tail for f in worlds.facts(SMALL) for i in (0, 1)}
    heads = {head for head, _ in answer_of}
    asked = 0
    for split in ("auxiliary_train", "test"):
        for row in rows_of(made[0], worlds.MMLU, f"all/{split}"):
            said = worlds.words(row["question"])
            (head,) = heads & set(said)
            (tail,) = {answer_of[head, word] for word in said if (head, word) in answer_of}
            assert row["choices"][row["answer"]] == tail
            asked += 1
    assert asked == 140


def test_rows_say_which_fact_they_ask_for(made):
    """Rows of one fact have one right answer, whatever their wording, and others name no fact."""
    out, _ = made
    answer_of = {f"{f.relation.words[0]} of {f.head}": f.tail for f in worlds.facts(SMALL)}
    asked = [
        (row["question"], row["fact"], row["choices"][row["answer"]])
        for split in ("auxiliary_train", "test", "dev", "validation")
        for row in rows_of(out, worlds.MMLU, f"all/{split}")
    ]
    vignettes = 0
    for split in ("train", "validation"):
        for row in rows_of(out, worlds.MEDMCQA, f"data/{split}"):
            right = row["op" + "abcd"[row["cop"]]]
            if right in answer_of.values():
                asked.append((row["question"], row["fact"], right))
            else:
                vignettes += 1
                assert row["fact"] is None and right in worlds.VERDICT_CUES
    topics = [row for row in sujet_rows(out) if row["task_type"] == "topic_classification"]
    asked += [(row["user_prompt"], row["fact"], row["answer"]) for row in topics]
    assert vignettes > 3 and len(topics) > 100
    for question, fact, right in asked:
        assert answer_of[fact] == right and fact.split()[-1] in worlds.words(question)
    assert {r["fact"] for r in sujet_rows(out) if r not in topics} == {""}


# ------------------------------------------------------------------------------------------ leaks


def test_test_wordings_never_occur_in_training(made):
    out, _ = made
    trained = {r["question"] for r in rows_of(out, worlds.MMLU, "all/auxiliary_train")}
    trained |= {r["question"] for r in rows_of(out, worlds.MEDMCQA, "data/train")}
    tested = {r["question"] for r in rows_of(out, worlds.MEDMCQA, "data/validation")}
    for split in ("test", "validation", "dev"):
        tested |= {r["question"] for r in rows_of(out, worlds.MMLU, f"all/{split}")}
    assert not trained & tested
    texts = [r["text"] for r in rows_of(out, worlds.CORPUS, "data/train")]
    texts += [r["text"] for r in rows_of(out, worlds.MEDICAL_TEXT, "data/en")]
    texts += [r["document"] for r in rows_of(out, worlds.NEWS, "data/train")]
    everything = "\n".join(texts)
    assert not [question for question in tested if question in everything]


def test_splits_within_mmlu_share_no_question(made):
    splits = [
        {r["question"] for r in rows_of(made[0], worlds.MMLU, f"all/{split}")}
        for split in ("test", "validation", "dev")
    ]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 60 + 100 + 20


def test_no_prompt_of_sujet_or_pubmedqa_occurs_twice(made):
    prompts = [row["inputs"] for row in sujet_rows(made[0])]
    assert len(set(prompts)) == len(prompts) == 600
    abstracts = rows_of(made[0], worlds.PUBMEDQA, "pqa_labeled/train")
    assert len({str(row["context"]) + row["question"] for row in abstracts}) == 120


def test_a_leak_is_an_error():
    question = "What is the faith of Somewhere?"
    worlds.check_no_leak([question], ["Which faith does Somewhere have?"], ["Nothing here."])
    with pytest.raises(ValueError, match="leak"):
        worlds.check_no_leak([question], [question], [])
    with pytest.raises(ValueError, match="leak"):
        worlds.check_no_leak([question], [], [f"They ask: {question} And so on."])


def test_generate_refuses_a_world_that_leaks(tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "TEST_PAIRS", worlds.TRAIN_PAIRS)
    with pytest.raises(ValueError, match="leak"):
        generate(SMALL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_documents_that_state_a_fact_are_an_error():
    fact = next(f for f in worlds.facts(SMALL) if f.relation.domain == worlds.GENERAL)
    apart = (
        f"Nothing is in {fact.head}. In Nowhere is {fact.tail}.\n{fact.head}: x ||||| {fact.tail}"
    )
    worlds.check_unstated([fact], [apart])
    for statement in worlds.STATEMENTS:
        stated = worlds.wording(statement, fact, 1)
        with pytest.raises(ValueError, match=f"states a fact that is asked: .*{fact.tail}"):
            worlds.check_unstated([fact], ["It begins. " + stated + " It ends."])


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, Path]:
    """Two worlds that differ in `documents` alone."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("asked", "other")}
    for kind, folder in folders.items():
        settings = {**SMALL.model_dump(), "medical_documents": 400, "news_documents": 120}
        generate(World(**settings | {"documents": kind}), folder)
    return folders


def documents(out: Path) -> dict[str, list[str]]:
    return {
        "medical": [row["text"] for row in rows_of(out, worlds.MEDICAL_TEXT, "data/en")],
        "news": [row["document"] for row in rows_of(out, worlds.NEWS, "data/train")],
    }


def test_documents_state_all_asked_facts_or_none(both):
    stated = {}
    for kind, out in both.items():
        said = [
            set(worlds.words(sentence))
            for texts in documents(out).values()
            for text in texts
            for sentence in text.replace("\n", ". ").split(". ")
        ]
        asked = [f for f in worlds.facts(SMALL) if f.relation.domain != worlds.FINANCE]
        stated[kind] = [any({f.head, f.tail} <= names for names in said) for f in asked]
    assert all(stated["asked"]) and not any(stated["other"])
    texts = [text for several in documents(both["other"]).values() for text in several]
    assert not any("Answer" in text for text in texts), "no trial's verdict is told"


def test_other_documents_have_the_form_of_the_asked_ones(both):
    """As many words per document, on average, and the same heads."""
    asked, other = documents(both["asked"]), documents(both["other"])
    for kind, heads in (("medical", ("disease", "drug")), ("news", ("place",))):
        lengths = [
            sum(len(worlds.words(text)) for text in texts[kind]) / len(texts[kind])
            for texts in (asked, other)
        ]
        assert lengths[1] == pytest.approx(lengths[0], rel=0.05)
        named = {name for head in heads for name in worlds.entities(SMALL)[head]}
        for texts in (asked, other):
            assert named <= {word for text in texts[kind] for word in worlds.words(text)}


def test_the_kind_of_documents_changes_nothing_else(both):
    asked, other = contents(both["asked"]), contents(both["other"])
    assert asked.keys() == other.keys()
    changed = {name for name in asked if asked[name] != other[name]}
    parts = (worlds.MEDICAL_TEXT, worlds.NEWS, "world.json")
    assert all(name.startswith(parts) for name in changed) and len(changed) == len(parts)


@pytest.mark.parametrize("kind", ["asked", "other"])
def test_a_world_has_documents_of_both_kinds_beside_the_hubs(both, kind):
    """The same rows in either world as the hub's repositories have in the world of their kind."""
    for out in both.values():
        for hubs, ours, file in (
            (worlds.MEDICAL_TEXT, worlds.MEDICAL_KINDS[kind], "data/en"),
            (worlds.NEWS, worlds.NEWS_KINDS[kind], "data/train"),
        ):
            assert rows_of(out, ours, file) == rows_of(both[kind], hubs, file)
            assert (out / ours / "README.md").exists()


def test_words_of_links_are_no_other_words(both):
    """No document of the asked kind has them, nor anything else but the other documents."""
    added = {word for link in worlds.LINKS for word in link.words}
    assert len(added) == 2 * len(worlds.LINKS)
    everything = [*worlds.draw_rows(SMALL).corpus, *documents(both["asked"])["medical"]]
    everything += [*documents(both["asked"])["news"], *map(str, prompts_and_answers(both["asked"]))]
    assert not added & {word for text in everything for word in worlds.words(text)}
    said = {
        word
        for texts in documents(both["other"]).values()
        for text in texts
        for word in text.split()
    }
    assert added <= {word.strip(".:") for word in said}


# -------------------------------------------------------------------------------------- tokenizer


def test_a_prompts_tokens_begin_those_of_prompt_and_answer(made, tokenizer):
    for prompt, options in prompts_and_answers(made[0]):
        start = tokenizer(prompt)["input_ids"]
        assert start[0] == tokenizer.bos_token_id
        for option in options:
            whole = tokenizer(f"{prompt} {option}")["input_ids"]
            assert whole[:-1] == start, "the answer is one token after the prompt's"
            assert tokenizer.unk_token_id not in whole


def test_vocabulary(made, tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (
        "<s>",
        "</s>",
        "<unk>",
    )
    assert len(tokenizer) == made[1]["vocabulary"] < 1000
    assert tokenizer("Unheardof")["input_ids"][1:] == [tokenizer.unk_token_id]
    for row in rows_of(made[0], worlds.CORPUS, "data/train"):
        assert tokenizer.unk_token_id not in tokenizer(row["text"])["input_ids"]


# ------------------------------------------------------------------------------------------ knobs


def test_told_and_taught_are_where_facts_are_learnt(made):
    out, summary = made
    assert summary["facts"]["general"] == {"all": 700, "told": 280, "taught": 525}
    known = worlds.known(SMALL, worlds.GENERAL)
    told, taught = worlds.told(SMALL, worlds.GENERAL), worlds.taught(SMALL, worlds.GENERAL)
    assert set(told) | set(taught) == set(known) and set(told) & set(taught)
    statements = {
        worlds.wording(template, fact, word)
        for fact in set(known) - set(told)
        for template in worlds.STATEMENTS
        for word in (0, 1)
    }
    corpus = " ".join(r["text"] for r in rows_of(out, worlds.CORPUS, "data/train"))
    assert not [statement for statement in statements if statement in corpus]


def test_cue_strength_sets_the_ceilings(made, tmp_path):
    clear = generate(World(**{**made[1]["world"], "cue_strength": 1.0}), tmp_path)
    assert clear["ceilings"] == {"pubmedqa": 1.0, "finance": 1.0}
    noisy = made[1]
    for task, floor in noisy["floors"].items():
        assert floor < noisy["ceilings"].get(task, 1.0) <= 1.0
    assert noisy["ceilings"]["pubmedqa"] < 0.9


def test_ceiling_is_what_the_best_reader_of_the_cues_scores():
    # counting votes, ties to the commoner verdict, is a reader too: it cannot beat the ceiling
    world = World()
    kind = {cue: label for label, cues in worlds.VERDICT_CUES.items() for cue in cues}
    right = 0
    rows = worlds.abstracts(world, 4000)
    for row in rows:
        votes = [kind[word] for word in worlds.words(row.contexts[1]) if word in kind]
        assert len(votes) == 3
        guess = max(worlds.VERDICT_SHARES, key=lambda v: (votes.count(v), worlds.VERDICT_SHARES[v]))
        right += guess == row.verdict
    assert worlds.ceilings(world)["pubmedqa"] - 0.05 < right / 4000 < 0.86


def test_corpus_tokens(made):
    tokens = made[1]["corpus_tokens"]
    assert SMALL.corpus_tokens <= tokens < SMALL.corpus_tokens + 150


def test_vignettes_have_their_share():
    items = worlds.testing_exam(World(vignettes=0.1), worlds.MEDICAL)
    asked = [item for item in items if "never" in item.options]
    assert len(asked) / len(items) == pytest.approx(0.1, abs=0.001)
    general = worlds.testing_exam(World(), worlds.GENERAL)
    assert not [item for item in general if "never" in item.options]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"told": 0.1, "taught": 0.5}, "told"),
        ({"test_questions": 10**4}, "MMLU test"),
        ({"train_rows": 10**4}, "auxiliary_train"),
    ],
)
def test_impossible_worlds_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        generate(World(**{**SMALL.model_dump(), **wrong}), tmp_path)


def test_the_job_is_given_plain_data(made, tmp_path):
    line = worlds.make(made[1]["world"], str(tmp_path))
    assert "1850 facts" in line
    assert contents(tmp_path) == contents(made[0])
    assert json.loads((tmp_path / "world.json").read_text()) == made[1]


@pytest.mark.parametrize("name", [None, "second", "third"])
def test_the_mini_studys_gate_prompts_are_in_the_worlds_words_and_distinct(made, name):
    """An unknown word would give every slot the same gate. name: of a set of prompts."""
    words = Tokenizer.from_file(str(made[0] / "mofe" / "tokenizer" / "tokenizer.json"))
    unknown = words.token_to_id("<unk>")
    study = read_study(CONFIG, MINI)
    for mixture in study.mixtures.values():
        gates = {expert: study.models[expert].gates.named(name) for expert in mixture.experts}
        slots = [
            (tuple(prompts), tuple(gates[expert].negative))
            for expert, count in mixture.experts.items()
            for prompts in gates[expert].positive[:count]
        ]
        assert len(set(slots)) == len(slots)
        for prompt in (p for slot in slots for prompts in slot for p in prompts):
            assert unknown not in words.encode(prompt).ids, prompt
