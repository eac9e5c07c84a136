"""Texts as tokens, and where an answer begins behind its prompt: one way for training, for
questions and for answers in words.

The border is lm-eval's (`LM._encode_pair`): the tokens of prompt and answer together, of which the
prompt's own come first. lm-eval counts them. Here it is also checked that they are the prompt's,
and that the others come from the answer: a tokenizer can join the prompt's end with the answer's
beginning.

Special tokens that a tokenizer puts before a text (`<s>`) are kept, or left out where the study
says so; those that it puts behind a text (`</s>`) are always left out, because nothing follows
them: an answer would stand behind the end of its prompt, and only the end would be scored.
"""

from collections.abc import Sequence
from typing import Any

Encoded = tuple[list[int], int]  # the tokens of prompt and answer, and where the answer's begin


def texts(tokenizer, given: Sequence[str], add_bos_token: bool = True) -> list[list[int]]:
    """The tokens of every text, with the special tokens that the tokenizer puts before it.

    A text that begins with the beginning-of-text token in words has it once, as in lm-eval.
    add_bos_token: false leaves all special tokens out.
    """
    return [list(ids) for ids in _tokenized(tokenizer, given, add_bos_token)[0]]


def pairs(
    tokenizer, given: Sequence[tuple[str, str]], where: str, add_bos_token: bool = True
) -> list[Encoded]:
    """The tokens of every prompt with its answer, and where the answer begins.

    White space at a prompt's end belongs to the answer's first token. A prompt of nothing else is
    the beginning-of-text token, or the end of text of a tokenizer that has none. where: the key
    that an error names.

    Raises ValueError for an answer that adds no token, for one whose first token begins in the
    prompt, and for a prompt without a token.
    """
    moved = [_moved(prompt, answer) for prompt, answer in given]
    contexts = list(dict.fromkeys(context for context, _ in moved))
    alone = dict(zip(contexts, _tokenized(tokenizer, contexts, add_bos_token)[0], strict=True))
    wholes, spans, before = _tokenized(
        tokenizer, [context + rest for context, rest in moved], add_bos_token
    )
    found = []
    for number, (context, rest) in enumerate(moved):
        whole = wholes[number]
        if not context:
            found.append(_without_context(tokenizer, whole[before[number] :], rest, where))
            continue
        head = alone[context]
        start = len(head)
        if not start:
            raise ValueError(f"{where}: the prompt {context[-40:]!r} has no token")
        if len(whole) <= start:
            raise ValueError(f"{where}: {rest!r} adds no token after {context[-40:]!r}")
        first = spans.token_to_chars(number, start - before[number])
        if whole[:start] != head or (first is not None and first.start < len(context)):
            raise ValueError(
                f"{where}: the tokenizer joins the end of {context[-40:]!r} with the beginning of "
                f"{rest!r} in one token, so no token begins the answer; let the prompt end in "
                "white space or a sign that the tokenizer keeps apart"
            )
        found.append((whole, start))
    return found


def _moved(prompt: str, answer: str) -> tuple[str, str]:
    """A prompt without white space at its end, and the answer with it."""
    context = prompt.rstrip()
    return context, prompt[len(context) :] + answer


def _without_context(tokenizer, ids: list[int], answer: str, where: str) -> Encoded:
    """lm-eval's `loglikelihood` of an empty context."""
    begin = _begin(tokenizer)
    whole = ids if ids[:1] == [begin] else [begin, *ids]
    if begin is None or len(whole) < 2:
        raise ValueError(f"{where}: {answer!r} has no token after an empty prompt")
    return whole, 1


def _begin(tokenizer) -> int | None:
    """The token that stands for an empty prompt."""
    begin = tokenizer.bos_token_id
    return tokenizer.eos_token_id if begin is None else begin


def _tokenized(
    tokenizer, given: Sequence[str], add_bos_token: bool
) -> tuple[list[list[int]], Any, list[int]]:
    """The tokens of every text; the tokenizer's own answer, which knows where each token comes
    from; and how many special tokens stand before each text's own."""
    if not given:
        return [], None, []
    plain = tokenizer(list(given), add_special_tokens=False)
    own = plain["input_ids"]
    begin = special_before(tokenizer) if add_bos_token else []
    marked = None if _begin(tokenizer) is None else tokenizer.decode(_begin(tokenizer))
    before = [0 if marked and text.startswith(marked) else len(begin) for text in given]
    return [begin[:n] + ids for n, ids in zip(before, own, strict=True)], plain, before


def special_before(tokenizer) -> list[int]:
    """The special tokens that a tokenizer puts before every text. A text that has tokens of its own
    tells them apart from those that it puts behind."""
    for text in ("a", *tokenizer.get_vocab()):
        whole = tokenizer(text, return_special_tokens_mask=True)
        mask = whole["special_tokens_mask"]
        if 0 in mask:
            return whole["input_ids"][: mask.index(0)]
    return []
