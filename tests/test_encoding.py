"""Where an answer begins behind its prompt: lm-eval's border, for tokenizers of many kinds."""

import json
from pathlib import Path

import pytest
from conftest import save_llama
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from mofe.models import load, preflight, tokenizers
from mofe.models.files import IncompatibleModels
from mofe.training import encoding, tokens

TEXTS = [
    "The harbour lies north of the lighthouse.\nWhich way? (A) east (B) west\nAnswer: A",
    "Answer: B",
    "Answer: the lighthouse",
    "  two  spaces and a tab\tor  more",
    "Wo liegt der Hafen? östlich, 北",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>"]
PAIRS = [
    ("Which way?\nAnswer:", " A"),
    ("Which way?\nAnswer:", " the lighthouse"),
    ("Which way?\nAnswer: ", "B"),
    ("The harbour lies ", " north of the"),
    ("Two lines\n\n", "east"),
    ("<s>Which way?\nAnswer:", " B"),
    ("", "The harbour"),
    ("Wo liegt der Hafen?", " östlich"),
]


def llama() -> Tokenizer:
    """Like Llama's: unknown letters as bytes, spaces as ▁, one of them put before the text."""
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    spaced = ["▁" + text.replace(" ", "▁").replace("北", "") for text in TEXTS]
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=SPECIAL)
    learned.train_from_iterator(spaced, trainer)
    bpe = json.loads(learned.to_str())["model"]
    vocabulary = dict(bpe["vocab"])
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    merges = [tuple(pair) for pair in bpe["merges"]]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.add_special_tokens(SPECIAL)
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return made


def byte_level() -> Tokenizer:
    """Like GPT-2's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS, trainer)
    return made


def words() -> Tokenizer:
    """Whole words; what it does not know is one token."""
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=SPECIAL))
    return made


KINDS = {"llama": llama, "bytes": byte_level, "words": words}
TEMPLATES = {
    "begins": "<s> $A",
    "plain": None,
    "ends": "$A </s>",
    "begins and ends": "<s> $A </s>",
}


def put(folder: Path, made: Tokenizer, template: str | None, **names) -> PreTrainedTokenizerFast:
    """A folder with a tokenizer, and it as a model reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    if template:
        ids = [(token, made.token_to_id(token)) for token in SPECIAL if token in template]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load.tokenizer(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tokenizer by its kind and template."""
    root = tmp_path_factory.mktemp("tokenizers")

    def of(kind: str, template: str, bos: str | None = "<s>") -> PreTrainedTokenizerFast:
        names = {"bos_token": bos} if bos else {}
        return put(root / f"{kind} {template} {bos}", KINDS[kind](), TEMPLATES[template], **names)

    return of


@pytest.fixture(scope="module")
def hflms(made, tmp_path_factory):
    """What lm-eval's HFLM gives a model to read for PAIRS: (context, continuation) tokens."""
    folder = tmp_path_factory.mktemp("llama")
    save_llama(folder, made("words", "plain"))
    model = load.checkpoint(folder)

    def of(tokenizer, given=PAIRS, **options) -> list[tuple[list[int], list[int]]]:
        lm = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", **options)
        seen = []
        lm._loglikelihood_tokens = lambda requests, **_: seen.extend(requests) or [(0.0, False)]
        lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in given])
        return [(context, continuation) for _, context, continuation in seen]

    return of


@pytest.mark.parametrize("add_bos_token", [True, False])
@pytest.mark.parametrize("template", ["begins", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_border_is_lm_evals(made, hflms, kind, template, add_bos_token):
    tokenizer = made(kind, template)
    ours = encoding.pairs(tokenizer, PAIRS, "tasks.x", add_bos_token)
    theirs = hflms(tokenizer, add_bos_token=add_bos_token)
    assert [(ids[:start], ids[start:]) for ids, start in ours] == theirs
    if add_bos_token:  # lm-eval's own default
        assert theirs == hflms(tokenizer)
    alone = encoding.texts(tokenizer, [text for text, _ in PAIRS if text], add_bos_token)
    lm_texts = [tokenizer(t, add_special_tokens=add_bos_token)["input_ids"] for t, _ in PAIRS if t]
    plain = [tokenizer(t, add_special_tokens=False)["input_ids"] for t, _ in PAIRS if t]
    doubled = [text.startswith("<s>") for text, _ in PAIRS if text]
    expected = [p if d else w for w, p, d in zip(lm_texts, plain, doubled, strict=True)]
    assert alone == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_without_a_beginning_begins_empty_prompts_with_its_end(made, hflms, kind):
    tokenizer = made(kind, "plain", bos=None)
    ours = encoding.pairs(tokenizer, PAIRS, "tasks.x")
    assert [(ids[:start], ids[start:]) for ids, start in ours] == hflms(tokenizer)


@pytest.mark.parametrize("template, same", [("ends", "plain"), ("begins and ends", "begins")])
@pytest.mark.parametrize("kind", KINDS)
def test_what_ends_every_text_is_left_out(made, hflms, kind, template, same):
    """lm-eval would score the end alone; ours is what it scores with the tokenizer that has none."""
    tokenizer, without = made(kind, template), made(kind, same)
    ours = encoding.pairs(tokenizer, PAIRS, "tasks.x")
    assert ours == encoding.pairs(without, PAIRS, "tasks.x")
    assert [(ids[:start], ids[start:]) for ids, start in ours] == hflms(without)
    ends = [continuation for _, continuation in hflms(tokenizer, PAIRS[:1])]
    assert ends[0][-1:] == [tokenizer.eos_token_id], "or the test would show nothing"
    for (_, answer), (ids, start) in zip(PAIRS, ours, strict=True):
        if kind != "words":  # which do not know every word
            assert tokenizer.decode(ids[start:]).strip() == answer.strip()
    rows = tokens.tokenize([*PAIRS, ("", "The harbour lies north")], tokenizer, 64)
    assert not any(tokenizer.eos_token_id in ids for ids in rows.ids)


@pytest.mark.parametrize("add_bos_token", [True, False])
def test_training_has_the_evaluations_tokens(made, add_bos_token):
    tokenizer = made("llama", "begins")
    given = [pair for pair in PAIRS if pair[0]]
    rows = tokens.tokenize(given, tokenizer, 64, add_bos_token)
    asked = encoding.pairs(tokenizer, given, "tasks.x", add_bos_token)
    assert list(zip(rows.ids, rows.prompt, strict=True)) == asked


def test_an_answer_that_its_prompt_swallows_is_refused(made):
    """A tokenizer that joins prompt and answer in one token: lm-eval scores something else, or
    nothing."""
    vocabulary = {token: n for n, token in enumerate([*SPECIAL, *"(Ax)", "(A", "(A)"])}
    merged = Tokenizer(models.BPE(vocabulary, [("(", "A"), ("(A", ")")], unk_token="<unk>"))
    joining = PreTrainedTokenizerFast(tokenizer_object=merged, eos_token="</s>")
    assert joining("x(A)")["input_ids"] == [vocabulary["x"], vocabulary["(A)"]]
    for answer in ("A", "A)x"):
        with pytest.raises(ValueError, match=r"^(tasks.x|data): "):
            encoding.pairs(joining, [("x(", answer)], "tasks.x")
        with pytest.raises(ValueError, match=r"^data: "):
            tokens.tokenize([("x(", answer)], joining, 8)
    with pytest.raises(ValueError, match="joins the end of 'x\\(' with the beginning of 'A\\)x'"):
        encoding.pairs(joining, [("x(", "A)x")], "tasks.x")
    assert encoding.pairs(joining, [("x", "(A)")], "tasks.x") == [([5, 8], 1)]


def test_an_answer_without_a_token_is_refused(made):
    tokenizer = made("words", "begins")
    with pytest.raises(ValueError, match="adds no token after 'Which way'"):
        encoding.pairs(tokenizer, [("Which way", "  ")], "tasks.x")


letters = st.text(alphabet="Ae (\n", min_size=1, max_size=12)


@settings(max_examples=60)
@given(letters, letters)
def test_tokens_behind_the_border_come_from_the_answer(made, prompt, answer):
    tokenizer = made("llama", "begins and ends")
    try:
        ((ids, start),) = encoding.pairs(tokenizer, [(prompt, answer)], "tasks.x")
    except ValueError:
        reject()  # some joins have no border; hypothesis complains if they are the most
    assert 0 < start < len(ids)
    moved = prompt[len(prompt.rstrip()) :] + answer
    assert tokenizer.decode(ids[start:]).replace(" ", "") == moved.replace(" ", "")
    if prompt.rstrip():
        assert ids[:start] == encoding.texts(tokenizer, [prompt.rstrip()])[0]


# ----------------------------------------------------------------------- a folder's tokenizer


def test_a_tokenizer_model_alone_is_refused_and_its_json_asked_for(tmp_path, made):
    save_llama(tmp_path, made("words", "begins"))
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer.model")
    with pytest.raises(IncompatibleModels) as raised:
        preflight.check([(str(tmp_path), str(tmp_path))], {str(tmp_path): "mine"})
    (told,) = raised.value.problems
    assert told.startswith("models.mine: ") and "add the model's tokenizer.json" in told
    with pytest.raises(ValueError, match=r"tokenizer\.model without tokenizer\.json"):
        load.tokenizer(tmp_path)


@pytest.mark.parametrize("config", [None, "{}", '{"bos_token": "<s>"}'])
def test_a_tokenizer_without_a_named_end_is_refused(tmp_path, made, config):
    save_llama(tmp_path, made("words", "begins"))
    (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
    (tmp_path / "tokenizer_config.json").unlink()
    if config:
        (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(IncompatibleModels, match=r"names no end of text \(eos_token\).*add"):
        preflight.check([(str(tmp_path), str(tmp_path))], {})
    with pytest.raises(ValueError, match="names no end of text"):
        load.tokenizer(tmp_path)


def test_a_damaged_tokenizer_is_one_sentence(tmp_path, made):
    save_llama(tmp_path, made("words", "begins"))
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    (told,) = tokenizers.faults(tmp_path)
    assert "tokenizer.json cannot be read" in told and "\n" not in told
