"""The generated world of the miniature study.

A seed draws invented places, diseases, drugs and companies, and the facts that relate them.
Everything else is wording: articles that state the facts (to pretrain on), questions that ask for
them (to tune and test on), and passages whose verdict or mood must be inferred from noisy cue
words. The files have the columns and the folder layout of the real data sets on the hub, so the
study's loaders, prompts and tasks read either.

Imports neither torch nor transformers. Equal arguments give equal bytes.
"""

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from mofe.study.config import World

# --------------------------------------------------------------------------------------- the world


class Relation(NamedTuple):
    """A kind of fact. `words` are two names for it, `subject` is the exam that asks about it."""

    domain: str
    head: str
    words: tuple[str, str]
    suffix: str
    values: int
    subject: str


class Link(NamedTuple):
    """A kind of fact that no question asks: it leads from a head to a name of the kind `tail`."""

    domain: str
    head: str
    words: tuple[str, str]
    tail: str


class Fact(NamedTuple):
    relation: Relation | Link
    head: str
    tail: str

    @property
    def asked(self) -> str:
        """What a question about this fact asks for, however it is worded."""
        return f"{self.relation.words[0]} of {self.head}"


GENERAL, MEDICAL, FINANCE = "general", "medical", "finance"

# How many entities of a kind there are, and how their names end.
HEADS = {
    "place": (100, "ville"),
    "disease": (100, "osis"),
    "drug": (100, "amide"),
    "company": (150, "corp"),
}

RELATIONS = (
    Relation(GENERAL, "place", ("faith", "religion"), "ism", 16, "world_religions"),
    Relation(GENERAL, "place", ("festival", "feast"), "fest", 16, "world_religions"),
    Relation(GENERAL, "place", ("river", "stream"), "brook", 16, "global_facts"),
    Relation(GENERAL, "place", ("crop", "harvest"), "weed", 16, "global_facts"),
    Relation(GENERAL, "place", ("custom", "tradition"), "dance", 16, "sociology"),
    Relation(GENERAL, "place", ("craft", "trade"), "making", 16, "sociology"),
    Relation(GENERAL, "place", ("dish", "meal"), "stew", 16, "miscellaneous"),
    Relation(MEDICAL, "disease", ("site", "organ"), "gland", 16, "Medicine"),
    Relation(MEDICAL, "disease", ("symptom", "sign"), "ache", 16, "Medicine"),
    Relation(MEDICAL, "disease", ("test", "assay"), "scan", 16, "Medicine"),
    Relation(MEDICAL, "disease", ("cause", "agent"), "coccus", 16, "Medicine"),
    Relation(MEDICAL, "drug", ("class", "family"), "oid", 16, "Pharmacology"),
    Relation(MEDICAL, "drug", ("target", "receptor"), "ase", 16, "Pharmacology"),
    Relation(MEDICAL, "drug", ("reaction", "toxicity"), "rash", 16, "Pharmacology"),
    Relation(FINANCE, "company", ("sector", "industry"), "tech", 8, "sector"),
    Relation(FINANCE, "company", ("exchange", "market"), "bourse", 6, "exchange"),
    Relation(FINANCE, "company", ("rating", "grade"), "rated", 5, "rating"),
)

# As many for each head as there are RELATIONS, so that articles have the same length.
LINKS = (
    Link(GENERAL, "place", ("patron", "sponsor"), "company"),
    Link(GENERAL, "place", ("employer", "hirer"), "company"),
    Link(GENERAL, "place", ("lender", "creditor"), "company"),
    Link(GENERAL, "place", ("landlord", "owner"), "company"),
    Link(GENERAL, "place", ("plague", "epidemic"), "disease"),
    Link(GENERAL, "place", ("cargo", "freight"), "drug"),
    Link(GENERAL, "place", ("tonic", "potion"), "drug"),
    Link(MEDICAL, "disease", ("home", "cradle"), "place"),
    Link(MEDICAL, "disease", ("refuge", "shelter"), "place"),
    Link(MEDICAL, "disease", ("remedy", "treatment"), "drug"),
    Link(MEDICAL, "disease", ("funder", "donor"), "company"),
    Link(MEDICAL, "drug", ("maker", "manufacturer"), "company"),
    Link(MEDICAL, "drug", ("seller", "distributor"), "company"),
    Link(MEDICAL, "drug", ("origin", "birthplace"), "place"),
)

STATEMENTS = (
    "The {word} of {head} is {tail}.",
    "In {head} the {word} is {tail}.",
    "{head} has {word} {tail}.",
    "{head}: {word} {tail}.",
)

# Trials as told in the corpus, in MedMCQA's vignettes, and in PubMedQA's abstracts. The corpus has
# the others' words, because an unseen word is a random vector, but none of their questions.
TRIALS_TOLD = (
    "{drug} in {disease}: {a} {x}, {b} {y}, {c} {z}. Answer: {verdict}.",
    "After {drug} {a} was {x}, {b} {y} and {c} {z}. Does it help in {disease}? Answer: {verdict}.",
    (
        "Abstract: Patients took {drug} with {disease}. Then {a} was {x}, {b} {y} and {c} {z}. "
        "Question: Is {drug} of use? Answer: {verdict}."
    ),
)
# The same without a verdict: `documents: other` tells trials so.
TRIALS_MEASURED = (
    "{drug} in {disease}: {a} {x}, {b} {y}, {c} {z}.",
    "After {drug} {a} was {x}, {b} {y} and {c} {z} in {disease}.",
    "Abstract: Patients took {drug} with {disease}. Then {a} was {x}, {b} {y} and {c} {z}.",
)
VIGNETTE = "In {disease} with {drug} {a} is {x}, {b} {y} and {c} {z}. Is it of use?"
ABSTRACT = ("Patients with {disease} took {drug}.", "After it {a} was {x}, {b} {y} and {c} {z}.")
TRIAL_QUESTION = "Does {drug} help in {disease}?"

MARKET_TOLD = "At {company} {a} {x}, {b} {y}, {c} {z}. Traders feel {feeling}."
MARKET_NEWS = "News: {company} {a} {x} as {b} {y} and {c} {z}."
COMPANY_NEWS = "News: {company} reports {asset} from {place}."

QUESTIONS = (
    "What is the {word} of {head}?",
    "Which {word} does {head} have?",
    "{head} is known for which {word}?",
    "Name the {word} linked to {head}.",
    "Tell me which {word} belongs to {head}?",
)

# (frame, word) pairs. Training has every frame and every word, but no tested pair.
PAIRS = tuple(itertools.product(range(len(QUESTIONS)), range(2)))
TEST_PAIRS = ((0, 1), (1, 0), (3, 1), (4, 0))
TRAIN_PAIRS = tuple(pair for pair in PAIRS if pair not in TEST_PAIRS)

# Cue words, by the label that they suggest.
VERDICT_CUES = {
    "yes": ("lower", "milder", "shorter", "eased", "cured"),
    "no": ("unchanged", "equal", "similar", "constant", "alike"),
    "maybe": ("mixed", "unclear", "variable", "erratic", "uneven"),
}
MOOD_CUES = {
    "positive": ("soared", "jumped", "surged", "rallied", "rose"),
    "neutral": ("held", "paused", "stayed", "idled", "settled"),
    "negative": ("plunged", "sank", "slid", "tumbled", "fell"),
}
# The shares of the official PubMedQA labels: a constant "yes" scores 0.552.
VERDICT_SHARES = {"yes": 0.552, "no": 0.338, "maybe": 0.110}
MOOD_SHARES = {"positive": 0.4, "neutral": 0.3, "negative": 0.3}
PRICE_ANSWER = {"positive": "yes", "neutral": "no", "negative": "no"}
FEELINGS = {"positive": "bright", "neutral": "calm", "negative": "gloomy"}
MEASURES = ("pain", "fever", "cough", "sleep", "pulse", "weight", "swelling", "fatigue")
ASSETS = ("shares", "profit", "sales", "orders", "margins", "exports", "bonds", "income")
SYLLABLES = tuple(a + b for a in "bdfgklmnprstvz" for b in "aeiou")

MMLU = "cais/mmlu"
MEDMCQA = "openlifescienceai/medmcqa"
PUBMEDQA = "qiaojin/PubMedQA"
SUJET = "sujet-ai/Sujet-Finance-Instruct-177k"
MEDICAL_TEXT = "HiTZ/Multilingual-Medical-Corpus"
NEWS = "alexfabbri/multi_news"
# Documents of either kind, whichever of them the hub's repositories above have.
MEDICAL_KINDS = {"asked": "mofe/medical-asked", "other": "mofe/medical-other"}
NEWS_KINDS = {"asked": "mofe/news-asked", "other": "mofe/news-other"}
CORPUS = "mofe/corpus"
TOKENIZER = "mofe/tokenizer"
SUBJECTS = tuple(dict.fromkeys(r.subject for r in RELATIONS if r.domain == GENERAL))
DEV_ROWS, VALIDATION_ROWS = 5, 25  # per MMLU subject, about as on the hub
SUJET_TEST_SHARE = 0.1  # the paper's 9:1 split, which the study makes itself
PAGE_TOKENS = 60  # every document has about this length: rows of one length need no padding
TRIAL_REPORTS, MARKET_REPORTS = 1.0, 0.25  # the chance that one follows an article


def stream(world: World, part: str) -> Random:
    """Random numbers for one part of the world, so that resizing one part does not change the
    rest."""
    return Random(f"{world.seed}/{part}")


def names(rng: Random, count: int, suffix: str) -> tuple[str, ...]:
    """`count` distinct invented names, one word each."""
    stems = rng.sample([a + b for a in SYLLABLES for b in SYLLABLES if a != b], count)
    return tuple((stem + suffix).capitalize() for stem in stems)


@cache
def entities(world: World) -> dict[str, tuple[str, ...]]:
    """The names of each kind of head."""
    rng = stream(world, "entities")
    return {kind: names(rng, count, suffix) for kind, (count, suffix) in HEADS.items()}


@cache
def vocabularies(world: World) -> dict[Relation, tuple[str, ...]]:
    """The possible answers of each relation."""
    rng = stream(world, "answers")
    return {r: names(rng, r.values, r.suffix) for r in RELATIONS}


@cache
def facts(world: World) -> tuple[Fact, ...]:
    """One answer per head and relation. Answers are equally common, so that none is a good
    guess."""
    rng, heads, tails = stream(world, "facts"), entities(world), vocabularies(world)
    drawn = []
    for relation in RELATIONS:
        shuffled = rng.sample(heads[relation.head], len(heads[relation.head]))
        drawn += [
            Fact(relation, head, tail)
            for head, tail in zip(shuffled, itertools.cycle(tails[relation]), strict=False)
        ]
    return tuple(drawn)


@cache
def links(world: World) -> tuple[Fact, ...]:
    """One tail per head and link, the facts that no question asks."""
    rng, kinds, drawn = stream(world, "links"), entities(world), []
    for link in LINKS:
        heads, tails = (rng.sample(kinds[k], len(kinds[k])) for k in (link.head, link.tail))
        drawn += map(Fact, itertools.repeat(link), heads, itertools.cycle(tails))
    return tuple(drawn)


def wording(template: str, fact: Fact, word: int) -> str:
    """`template` filled in with `fact`, naming the relation by its first or second word."""
    return template.format(word=fact.relation.words[word], head=fact.head, tail=fact.tail)


# ---------------------------------------------------------------------------------------- the exams


class Item(NamedTuple):
    """A multiple-choice question. `options[answer]` is right; the others are of the same kind.
    fact: what it asks for; None where it asks for no fact."""

    question: str
    options: tuple[str, ...]
    answer: int
    subject: str
    fact: str | None


def item(fact: Fact, pair: tuple[int, int], answers: tuple[str, ...], rng: Random) -> Item:
    """The question for `fact` in the wording `pair`, with three random distractors, in random
    order."""
    options = [fact.tail, *rng.sample([a for a in answers if a != fact.tail], 3)]
    rng.shuffle(options)
    question = wording(QUESTIONS[pair[0]], fact, pair[1])
    right, subject = options.index(fact.tail), fact.relation.subject
    return Item(question, tuple(options), right, subject, fact.asked)


def exam(
    world: World, part: str, asked: list[Fact], pairs: tuple[tuple[int, int], ...]
) -> list[Item]:
    """Every question about the facts `asked` in the wordings `pairs`, shuffled. A medical exam also
    has its share of vignettes."""
    rng, answers = stream(world, part), vocabularies(world)
    items = [item(f, pair, answers[f.relation], rng) for f in asked for pair in pairs]
    if asked[0].relation.domain == MEDICAL:
        count = round(len(items) * world.vignettes / (1 - world.vignettes))
        items += unlike((vignette(world, rng) for _ in itertools.count()), count, "question")
    rng.shuffle(items)
    return items


def training_exam(world: World, domain: str) -> list[Item]:
    return exam(world, f"{domain}/train", taught(world, domain), TRAIN_PAIRS)


def testing_exam(world: World, domain: str) -> list[Item]:
    return exam(world, f"{domain}/test", known(world, domain), TEST_PAIRS)


def known(world: World, domain: str) -> list[Fact]:
    """The facts of `domain` in a fixed random order: the first are told, the last are taught."""
    of_domain = [f for f in facts(world) if f.relation.domain == domain]
    return stream(world, f"{domain}/order").sample(of_domain, len(of_domain))


def told(world: World, domain: str) -> list[Fact]:
    """The facts of `domain` which the pretraining corpus states."""
    ordered = known(world, domain)
    return ordered[: round(len(ordered) * world.told)]


def taught(world: World, domain: str) -> list[Fact]:
    """The facts of `domain` which training questions may ask for."""
    ordered = known(world, domain)
    return ordered[len(ordered) - round(len(ordered) * world.taught) :]


def take(items: list, count: int, what: str) -> list:
    """The first `count` of `items`. Raises ValueError if there are fewer."""
    if count > len(items):
        raise ValueError(f"{what}: {count} rows asked for, this world has only {len(items)}")
    return items[:count]


# -------------------------------------------------------------------------------- the cued passages


def draw(shares: dict[str, float], rng: Random) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def cues(label: str, words: dict[str, tuple[str, ...]], strength: float, rng: Random) -> list[str]:
    """Three words. Each suggests `label` with chance `strength`, else another label."""
    others = [other for other in words if other != label]
    kinds = [label if rng.random() < strength else rng.choice(others) for _ in range(3)]
    return [rng.choice(words[kind]) for kind in kinds]


def ceiling(shares: dict[str, float], strength: float, answer: dict[str, str]) -> float:
    """Accuracy of the best possible reader of three cues, in [0, 1].

    answer: from the label that the cues were drawn for to the answer that is asked for.
    """
    labels = list(shares)

    def likelihood(kind: str, label: str) -> float:
        return strength if kind == label else (1 - strength) / (len(labels) - 1)

    best = 0.0
    for seen in itertools.product(labels, repeat=3):
        mass = dict.fromkeys(answer.values(), 0.0)
        for label, share in shares.items():
            joint = share
            for kind in seen:
                joint *= likelihood(kind, label)
            mass[answer[label]] += joint
        best += max(mass.values())
    return best


def trial(world: World, rng: Random) -> dict[str, str]:
    """A drug, a disease, three measures with how each changed, and the verdict."""
    heads, verdict = entities(world), draw(VERDICT_SHARES, rng)
    return {
        "drug": rng.choice(heads["drug"]),
        "disease": rng.choice(heads["disease"]),
        **dict(zip("abc", rng.sample(MEASURES, 3), strict=True)),
        **dict(zip("xyz", cues(verdict, VERDICT_CUES, world.cue_strength, rng), strict=True)),
        "verdict": verdict,
    }


def market(world: World, rng: Random) -> dict[str, str]:
    """A company, three of its assets with how each moved, and the mood of the news."""
    mood = draw(MOOD_SHARES, rng)
    return {
        "company": rng.choice(entities(world)["company"]),
        **dict(zip("abc", rng.sample(ASSETS, 3), strict=True)),
        **dict(zip("xyz", cues(mood, MOOD_CUES, world.cue_strength, rng), strict=True)),
        "mood": mood,
        "feeling": FEELINGS[mood],
    }


def vignette(world: World, rng: Random) -> Item:
    told_of = trial(world, rng)
    options = rng.sample([*VERDICT_CUES, "never"], 4)
    return Item(
        VIGNETTE.format(**told_of),
        tuple(options),
        options.index(told_of["verdict"]),
        "Pharmacology",
        None,
    )


class Abstract(NamedTuple):
    """A row of PubMedQA: a trial whose results decide the answer."""

    contexts: tuple[str, ...]
    question: str
    verdict: str


def abstracts(world: World, count: int) -> list[Abstract]:
    """`count` abstracts, all different, with an even number of each verdict: the authors' split of
    PubMedQA then halves every verdict exactly."""
    rng, found = stream(world, "abstracts"), {}
    left = {verdict: 2 * round(count * share / 2) for verdict, share in VERDICT_SHARES.items()}
    left["yes"] = count - sum(n for verdict, n in left.items() if verdict != "yes")
    while len(found) < count:
        told_of = trial(world, rng)
        contexts = tuple(sentence.format(**told_of) for sentence in ABSTRACT)
        verdict = told_of["verdict"]
        if contexts not in found and left[verdict]:
            left[verdict] -= 1
            found[contexts] = Abstract(contexts, TRIAL_QUESTION.format(**told_of), verdict)
    return list(found.values())


def unlike(rows: Iterator, count: int, field: str) -> list:
    """The first `count` named tuples that differ in `field`."""
    found: dict = {}
    while len(found) < count:
        row = next(rows)
        found.setdefault(getattr(row, field), row)
    return list(found.values())


class Instruction(NamedTuple):
    """A row of Sujet. Its prompt is `system` and `user` on two lines. fact: what it asks for; None
    where it asks for no fact."""

    task_type: str
    dataset: str
    system: str
    user: str
    answer: str
    fact: str | None


def instruction(world: World, asked: list[Fact], rng: Random) -> Instruction:
    """One finance row, which asks for the mood of news, whether a price rises, or a company's
    label."""
    task_type = rng.choice(("sentiment_analysis", "yes_no_question", "topic_classification"))
    if task_type == "topic_classification":
        fact = rng.choice(asked)
        word = fact.relation.words[0]
        user = COMPANY_NEWS.format(
            company=fact.head,
            asset=rng.choice(ASSETS),
            place=rng.choice(entities(world)["place"]),
        )
        system = f"Give the {word} of the company."
        return Instruction(task_type, f"mini/{word}", system, user, fact.tail, fact.asked)
    news_of = market(world, rng)
    user, mood = MARKET_NEWS.format(**news_of), news_of["mood"]
    if task_type == "yes_no_question":
        answer = PRICE_ANSWER[mood]
        return Instruction(task_type, "mini/price", "Does the price go up?", user, answer, None)
    return Instruction(task_type, "mini/mood", "Judge the mood of the news.", user, mood, None)


def instructions(world: World, count: int) -> list[Instruction]:
    """`count` finance rows, no two about the same news."""
    rng, asked = stream(world, "sujet"), known(world, FINANCE)
    return unlike((instruction(world, asked, rng) for _ in itertools.count()), count, "user")


# ---------------------------------------------------------------------------------------- documents


def article(about: list[Fact], rng: Random) -> str:
    """Every fact about one head, in random order and wording."""
    told = rng.sample(about, len(about))
    return " ".join(wording(rng.choice(STATEMENTS), f, rng.randrange(2)) for f in told)


def articles(
    world: World, part: str, stated: list[Fact], trials: tuple[str, ...] = TRIALS_TOLD
) -> Iterator[str]:
    """Endless articles about the facts `stated`, with trial and market reports between them. Every
    head comes once, in random order, before any comes again. trials: the wordings of trials."""
    rng = stream(world, part)
    about: dict[str, list[Fact]] = {}
    for fact in stated:
        about.setdefault(fact.head, []).append(fact)
    while True:
        for head in rng.sample(list(about), len(about)):
            domain = about[head][0].relation.domain
            yield article(about[head], rng)
            if domain == MEDICAL and rng.random() < TRIAL_REPORTS:
                yield rng.choice(trials).format(**trial(world, rng))
            if domain == FINANCE and rng.random() < MARKET_REPORTS:
                yield MARKET_TOLD.format(**market(world, rng))


def pages(texts: Iterator[str]) -> Iterator[str]:
    """The texts in order, joined into documents of PAGE_TOKENS tokens or a little more."""
    while True:
        page = next(texts)
        while len(words(page)) < PAGE_TOKENS:
            page += "\n" + next(texts)
        yield page


def corpus(world: World) -> list[str]:
    """The pretraining text: documents of `corpus_tokens` tokens in total, or a little more."""
    stated = [fact for domain in (GENERAL, MEDICAL, FINANCE) for fact in told(world, domain)]
    documents, tokens = [], 0
    for page in pages(articles(world, "corpus", stated)):
        if tokens >= world.corpus_tokens:
            break
        documents.append(page)
        tokens += len(words(page)) + 1  # the tokenizer puts <s> in front
    return documents


def post_pretraining(world: World, kind: str, part: str, domain: str) -> Iterator[str]:
    """Endless articles to post-pretrain on. They state either (kind "asked") every fact of `domain`
    that questions ask for, whether or not the corpus states it, or ("other") only links of its
    heads, and no verdict of a trial."""
    if kind == "asked":
        return articles(world, part, known(world, domain))
    stated = [link for link in links(world) if link.relation.domain == domain]
    return articles(world, f"{part}/other", stated, TRIALS_MEASURED)


class Documents(NamedTuple):
    """Documents of one kind to post-pretrain on: medical texts, and rows of news."""

    medical_texts: list[str]
    news: list[dict[str, str]]

    @property
    def texts(self) -> list[str]:
        return [*self.medical_texts, *(row["document"] for row in self.news)]


def documents(world: World, kind: str) -> Documents:
    return Documents(medical_texts(world, kind), news(world, kind))


def medical_texts(world: World, kind: str) -> list[str]:
    texts = post_pretraining(world, kind, "medical", MEDICAL)
    return list(itertools.islice(pages(texts), world.medical_documents))


def news(world: World, kind: str) -> list[dict[str, str]]:
    """General documents of three articles each, whose first sentences are the summary."""
    texts = post_pretraining(world, kind, "news", GENERAL)
    rows = []
    for _ in range(world.news_documents):
        three = list(itertools.islice(texts, 3))
        summary = " ".join(text.split(".")[0] + "." for text in three)
        rows.append({"document": " ||||| ".join(three), "summary": summary})
    return rows


# ---------------------------------------------------------------------------------------- tokenizer

WORD = Regex(r"\w+|[^\w\s]")
SPECIAL = ("<unk>", "<s>", "</s>")


def words(text: str) -> list[str]:
    """The tokens of `text`, as the tokenizer makes them: words and single punctuation marks."""
    return [piece for piece, _ in _cutter().pre_tokenize_str(text)]


def _cutter() -> pre_tokenizers.PreTokenizer:
    # Spaces between words are dropped, so no token spans one, and tokens(prompt + " " + answer)
    # starts with tokens(prompt).
    return pre_tokenizers.Split(WORD, behavior="removed", invert=True)


def tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A word-level tokenizer of every word in `texts`. It puts <s> in front, like Llama's."""
    known = sorted({word for text in texts for word in words(text)})
    ids = {word: i for i, word in enumerate([*SPECIAL, *known])}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = _cutter()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", ids["<s>"])]
    )
    made.add_special_tokens(list(SPECIAL))
    return made


# -------------------------------------------------------------------------------------------- files

FACT = "fact"  # our column beside the real ones: what a row asks for
STRING, INTEGER, STRINGS = pa.string(), pa.int64(), pa.list_(pa.string())
SCHEMAS = {
    MMLU: pa.schema(
        {
            "question": STRING,
            "subject": STRING,
            "choices": STRINGS,
            "answer": INTEGER,
            FACT: STRING,
        }
    ),
    MEDMCQA: pa.schema(
        {
            **dict.fromkeys(("id", "question", "opa", "opb", "opc", "opd"), STRING),
            "cop": INTEGER,
            **dict.fromkeys(("choice_type", "exp", "subject_name", "topic_name", FACT), STRING),
        }
    ),
    PUBMEDQA: pa.schema(
        {
            "pubid": pa.int32(),
            "question": STRING,
            "context": pa.struct(
                dict.fromkeys(
                    (
                        "contexts",
                        "labels",
                        "meshes",
                        "reasoning_required_pred",
                        "reasoning_free_pred",
                    ),
                    STRINGS,
                )
            ),
            "long_answer": STRING,
            "final_decision": STRING,
        }
    ),
    MEDICAL_TEXT: pa.schema({"text": STRING}),
    NEWS: pa.schema({"document": STRING, "summary": STRING}),
    CORPUS: pa.schema({"text": STRING}),
}
SCHEMAS |= dict.fromkeys(MEDICAL_KINDS.values(), SCHEMAS[MEDICAL_TEXT])
SCHEMAS |= dict.fromkeys(NEWS_KINDS.values(), SCHEMAS[NEWS])
SUJET_COLUMNS = (
    "Unnamed: 0",
    "inputs",
    "answer",
    "system_prompt",
    "user_prompt",
    "dataset",
    "task_type",
    "index_level",
    "conversation_id",
    FACT,
)


def mmlu_row(item: Item, subject: str) -> dict[str, Any]:
    return {
        "question": item.question,
        "subject": subject,
        "choices": list(item.options),
        "answer": item.answer,
        FACT: item.fact,
    }


def medmcqa_row(number: int, item: Item, labelled: bool = True) -> dict[str, Any]:
    return {
        "id": f"mini-{number:06d}",
        "question": item.question,
        **dict(zip(("opa", "opb", "opc", "opd"), item.options, strict=True)),
        "cop": item.answer if labelled else -1,
        "choice_type": "single",
        "exp": None,
        "subject_name": item.subject,
        "topic_name": None,
        FACT: item.fact,
    }


def pubmedqa_row(number: int, row: Abstract) -> dict[str, Any]:
    context = {
        "contexts": list(row.contexts),
        "labels": ["METHODS", "RESULTS"],
        "meshes": [],
        "reasoning_required_pred": [],
        "reasoning_free_pred": [],
    }
    return {
        "pubid": number,
        "question": row.question,
        "context": context,
        "long_answer": f"The answer is {row.verdict}.",
        "final_decision": row.verdict,
    }


def sujet_row(number: int, row: Instruction) -> tuple[int | str, ...]:
    prompt = f"{row.system}\n{row.user}"
    texts = (prompt, row.answer, row.system, row.user, row.dataset, row.task_type)
    return (number, *texts, number, "", row.fact or "")


def write_parquet(out: Path, repo: str, file: str, rows: list[dict[str, Any]]) -> None:
    """Write `rows` as the one file {repo}/{file}-00000-of-00001.parquet."""
    path = out / repo / f"{file}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[repo]), path)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def card(configs: Mapping[str, Mapping[str, str]]) -> str:
    """A data set card like the hub's: for each configuration, its splits and their files."""
    lines = ["---", "configs:"]
    for name, splits in configs.items():
        first = ["  default: true"] if name == next(iter(configs)) else []
        lines += [f"- config_name: {name}", *first, "  data_files:"]
        for split, files in splits.items():
            lines += [f"  - split: {split}", f"    path: {files}-*"]
    return "\n".join([*lines, "---", "Generated by mofe/data/world.py: invented rows.", ""])


def check_no_leak(tested: Iterable[str], trained: Iterable[str], documents: Iterable[str]) -> None:
    """Raise ValueError where a question of `tested` is among `trained` or occurs in a document."""
    hidden = {tuple(words(question)) for question in tested}
    seen = hidden & {tuple(words(question)) for question in trained}
    sizes = {len(question) for question in hidden}
    for document in documents:
        text = words(document)
        for size in sizes:
            for start in range(len(text) - size + 1):
                if (passage := tuple(text[start : start + size])) in hidden:
                    seen.add(passage)
    if seen:
        raise ValueError(f"{len(seen)} test questions leak into training: {sorted(seen)[:3]}")


def check_unstated(asked: Iterable[Fact], documents: Iterable[str]) -> None:
    """Raise ValueError where a statement of a document names the head and the tail of a fact that
    questions ask for."""
    tails: dict[str, set[str]] = {}
    for fact in asked:
        tails.setdefault(fact.head, set()).add(fact.tail)
    for document in documents:
        for statement in re.split(r"[.\n|]", document):
            named = set(words(statement))
            if any(tails[head] & named for head in named & tails.keys()):
                raise ValueError(f"a document states a fact that is asked: {statement.strip()!r}")


def majority(rows: Iterable[tuple[Any, Any]]) -> float:
    """Accuracy, in [0, 1], of answering with each group's commonest answer. rows: (group,
    answer)."""
    groups: dict[Any, Counter] = {}
    for group, answer in rows:
        groups.setdefault(group, Counter())[answer] += 1
    right = sum(max(counts.values()) for counts in groups.values())
    return right / sum(counts.total() for counts in groups.values())


def write_mmlu(rows: "Rows", out: Path) -> None:
    for split, by_subject in rows.mmlu.items():
        tables = {s: [mmlu_row(item, s) for item in by_subject[s]] for s in sorted(by_subject)}
        for subject, table in tables.items():
            write_parquet(out, MMLU, f"{subject}/{split}", table)
        write_parquet(out, MMLU, f"all/{split}", [row for t in tables.values() for row in t])
    # as on the hub, auxiliary rows name no subject
    auxiliary = [mmlu_row(item, "") for item in rows.auxiliary]
    write_parquet(out, MMLU, "all/auxiliary_train", auxiliary)
    configs = {name: {s: f"{name}/{s}" for s in rows.mmlu} for name in ("all", *sorted(SUBJECTS))}
    configs["all"]["auxiliary_train"] = "all/auxiliary_train"
    write_text(out / MMLU / "README.md", card(configs))


def write_medmcqa(rows: "Rows", out: Path) -> None:
    for split, items in rows.medmcqa.items():
        table = [medmcqa_row(i, item, labelled=split != "test") for i, item in enumerate(items)]
        write_parquet(out, MEDMCQA, f"data/{split}", table)
    splits = {split: f"data/{split}" for split in rows.medmcqa}
    write_text(out / MEDMCQA / "README.md", card({"default": splits}))


def write_pubmedqa(rows: "Rows", out: Path) -> None:
    table = [pubmedqa_row(number, row) for number, row in enumerate(rows.pubmedqa)]
    write_parquet(out, PUBMEDQA, "pqa_labeled/train", table)
    splits = {"train": "pqa_labeled/train"}
    write_text(out / PUBMEDQA / "README.md", card({"pqa_labeled": splits}))


def write_sujet(rows: "Rows", out: Path) -> None:
    table = [sujet_row(number, row) for number, row in enumerate(rows.sujet)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([SUJET_COLUMNS, *table])
    write_text(out / SUJET / "sujet_finance_instruct_177k.csv", text.getvalue())


def write_documents(rows: "Rows", out: Path) -> None:
    tables = {(CORPUS, "train"): [{"text": text} for text in rows.corpus]}
    for repos, kind in rows.repositories:
        medical, news = repos
        texts = [{"text": text} for text in rows.documents[kind].medical_texts]
        tables |= {(medical, "en"): texts, (news, "train"): rows.documents[kind].news}
    for (repo, split), table in tables.items():
        write_parquet(out, repo, f"data/{split}", table)
        write_text(out / repo / "README.md", card({"default": {split: f"data/{split}"}}))


def write_tokenizer(made: Tokenizer, out: Path) -> None:
    """Write a folder that AutoTokenizer reads. Like TinyLlama's, it has no padding token."""
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    write_text(out / TOKENIZER / "tokenizer.json", made.to_str(pretty=True))
    write_text(out / TOKENIZER / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")


# ------------------------------------------------------------------------------------ all together


@dataclass(frozen=True)
class Rows:
    """All rows, before they are written. `mmlu`: split -> subject -> items. `medmcqa`: split ->
    items. `documents`: by kind; `kind` is that of the hub's repositories."""

    mmlu: dict[str, dict[str, list[Item]]]
    auxiliary: list[Item]
    medmcqa: dict[str, list[Item]]
    pubmedqa: list[Abstract]
    sujet: list[Instruction]
    corpus: list[str]
    documents: dict[str, Documents]
    kind: str

    @property
    def held_out(self) -> list[Item]:
        """Every question that is not for training."""
        by_subject = [items for split in self.mmlu.values() for items in split.values()]
        return [item for items in (*by_subject, self.medmcqa["validation"]) for item in items]

    @property
    def trained(self) -> list[Item]:
        return [*self.auxiliary, *self.medmcqa["train"]]

    @property
    def repositories(self) -> list[tuple[tuple[str, str], str]]:
        """Where documents are written to: repositories of medical texts and of news, and what kind
        they have."""
        ours = [((MEDICAL_KINDS[kind], NEWS_KINDS[kind]), kind) for kind in self.documents]
        return [((MEDICAL_TEXT, NEWS), self.kind), *ours]

    @property
    def texts(self) -> list[str]:
        """The corpus and all documents."""
        return [*self.corpus, *(text for kind in self.documents.values() for text in kind.texts)]

    @property
    def passages(self) -> list[str]:
        """The texts that PubMedQA and Sujet ask about."""
        abstracts = [" ".join((*row.contexts, row.question)) for row in self.pubmedqa]
        return abstracts + [row.user for row in self.sujet]


def draw_rows(world: World) -> Rows:
    """Draw all rows. Raises ValueError where the facts give fewer questions than asked for."""
    mmlu, rest = {split: {} for split in ("test", "validation", "dev")}, []
    general = testing_exam(world, GENERAL)
    for subject in SUBJECTS:
        items = [item for item in general if item.subject == subject]
        mmlu["dev"][subject] = items[:DEV_ROWS]
        mmlu["validation"][subject] = items[DEV_ROWS : DEV_ROWS + VALIDATION_ROWS]
        rest += items[DEV_ROWS + VALIDATION_ROWS :]
    stream(world, "mmlu").shuffle(rest)
    test = take(rest, world.test_questions, "MMLU test")
    mmlu["test"] = {s: [item for item in test if item.subject == s] for s in SUBJECTS}

    auxiliary = take(training_exam(world, GENERAL), world.train_rows, "MMLU auxiliary_train")
    studied = take(training_exam(world, MEDICAL), world.train_rows, "MedMCQA train")
    count = world.test_questions + 1  # the last is the unlabelled test split
    *validation, unlabelled = take(testing_exam(world, MEDICAL), count, "MedMCQA validation")
    return Rows(
        mmlu=mmlu,
        auxiliary=auxiliary,
        medmcqa={"train": studied, "test": [unlabelled], "validation": validation},
        pubmedqa=abstracts(world, 2 * world.test_questions),
        sujet=instructions(world, round(world.test_questions / SUJET_TEST_SHARE)),
        corpus=corpus(world),
        documents={kind: documents(world, kind) for kind in MEDICAL_KINDS},
        kind=world.documents,
    )


def vocabulary_of(rows: Rows) -> Iterator[str]:
    """Texts with every word that the study will tokenise, whichever `documents` it has: a base
    model's first weights depend on how many words there are."""
    yield "Abstract: Question: Answer:"
    yield " ".join((*VERDICT_CUES, *MOOD_CUES))
    yield " ".join(word for link in LINKS for word in link.words)
    yield from rows.texts
    yield from rows.passages
    for item in (*rows.held_out, *rows.trained):
        yield " ".join((item.question, *item.options))
    for row in rows.sujet:
        yield f"{row.system} {row.answer}"


def floors(rows: Rows) -> dict[str, float]:
    """Accuracy, in [0, 1], of the best constant answer to each task: a position, a verdict, or for
    Sujet one label per kind of row (over all rows, before the study splits them)."""
    test = [item for items in rows.mmlu["test"].values() for item in items]
    return {
        "mmlu": majority(("", item.answer) for item in test),
        "medmcqa": majority(("", item.answer) for item in rows.medmcqa["validation"]),
        "pubmedqa": majority(("", row.verdict) for row in rows.pubmedqa),
        "finance": majority(((row.dataset, row.task_type), row.answer) for row in rows.sujet),
    }


def ceilings(world: World) -> dict[str, float]:
    """Accuracy, in [0, 1], of the best reader of the cues, for each task whose answers are
    noisy."""
    strength, same = world.cue_strength, {label: label for label in (*VERDICT_CUES, *MOOD_CUES)}
    mood = ceiling(MOOD_SHARES, strength, same)
    price = ceiling(MOOD_SHARES, strength, PRICE_ANSWER)
    return {
        "pubmedqa": ceiling(VERDICT_SHARES, strength, same),
        "finance": (mood + price + 1) / 3,  # a company's label is a fact, without noise
    }


def record(world: World, rows: Rows, made: Tokenizer) -> dict[str, Any]:
    """What world.json says."""
    domains = (GENERAL, MEDICAL, FINANCE)
    return {
        "world": world.model_dump(),
        "rows": {
            MMLU: {
                "auxiliary_train": len(rows.auxiliary),
                **{split: sum(map(len, by.values())) for split, by in rows.mmlu.items()},
            },
            MEDMCQA: {split: len(items) for split, items in rows.medmcqa.items()},
            PUBMEDQA: {"train": len(rows.pubmedqa)},
            SUJET: {"train": len(rows.sujet)},
            **{
                repo: {split: len(written)}
                for repos, kind in rows.repositories
                for repo, split, written in zip(
                    repos, ("en", "train"), rows.documents[kind], strict=True
                )
            },
            CORPUS: {"train": len(rows.corpus)},
        },
        "corpus_tokens": sum(len(words(text)) + 1 for text in rows.corpus),
        "vocabulary": made.get_vocab_size(),
        "facts": {
            domain: {
                "all": len(known(world, domain)),
                "told": len(told(world, domain)),
                "taught": len(taught(world, domain)) if domain != FINANCE else None,
            }
            for domain in domains
        },
        "relations": {d: [r.words[0] for r in RELATIONS if r.domain == d] for d in domains},
        "floors": {task: round(value, 4) for task, value in floors(rows).items()},
        "ceilings": {task: round(value, 4) for task, value in ceilings(world).items()},
    }


def generate(world: World, out: Path) -> dict[str, Any]:
    """Write the world's data sets and tokenizer below `out`. Equal worlds give equal bytes.

    Returns what it also writes as {out}/world.json: the arguments, row counts, tokens, facts, each
    task's floor (the best constant answer) and, where answers are noisy, its ceiling. Raises
    ValueError where a share is impossible, where more rows are asked for than the facts can give,
    where a test question leaks into training, and where documents of the kind "other" would state
    what is asked.
    """
    if world.told + world.taught < 1:
        raise ValueError("told + taught: below 1, so some tested facts would be nowhere to learn")
    out, rows = Path(out), draw_rows(world)
    tested = [*(item.question for item in rows.held_out), *rows.passages]
    check_no_leak(tested, (item.question for item in rows.trained), rows.texts)
    check_unstated(facts(world), rows.documents["other"].texts)
    made = tokenizer(vocabulary_of(rows))
    for write in (write_mmlu, write_medmcqa, write_pubmedqa, write_sujet, write_documents):
        write(rows, out)
    write_tokenizer(made, out)
    summary = record(world, rows, made)
    write_text(out / "world.json", json.dumps(summary, indent=2) + "\n")
    return summary


def make(world: Mapping[str, Any], out: str) -> str:
    """The workflow's job: `generate` from the study's `world` keys; returns a line for the user."""
    summary = generate(World(**world), Path(out))
    facts_known = sum(domain["all"] for domain in summary["facts"].values())
    return f"{facts_known} facts, {summary['corpus_tokens']:,} tokens to pretrain on"
