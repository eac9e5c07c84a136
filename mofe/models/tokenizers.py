"""A model's tokenizer: read in one way everywhere, from the one file that says all of it."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

FILE = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"


def faults(folder: str | Path) -> list[str]:
    """What keeps a model's tokenizer from being used, one sentence per fault."""
    folder = Path(folder)
    if not (folder / FILE).is_file():
        if not (folder / SENTENCEPIECE).is_file():
            how = f"add the files of the one it was trained with ({FILE}, tokenizer_config.json)"
            return [f"{folder} has no tokenizer; {how}"]
        how = f"add the model's {FILE}, which save_pretrained of transformers 4 writes"
        why = "which would be read in other tokens than the model's own"
        return [f"{folder} has {SENTENCEPIECE} without {FILE}, {why}; {how}"]
    try:
        json.loads((folder / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        return [f"{folder / FILE} cannot be read ({error}); get the model again"]
    if _loaded(folder).eos_token_id is None:
        why = "names no end of text (eos_token), which ends answers and fills up batches"
        return [f"the tokenizer of {folder} {why}; add the model's tokenizer_config.json"]
    return []


def read(folder: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the right. Without a padding token it pads with the end of text; no
    loss ever sees padding. Raises ValueError with its faults."""
    if found := faults(folder):
        raise ValueError("\n".join(found))
    loaded = _loaded(folder, padding_side="right")
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def save(source: str | Path, out: Path) -> None:
    """Write the tokenizer of one checkpoint into the folder of another, with all that belongs to
    it: added tokens, chat templates, settings. Raises as `read` does."""
    if found := faults(source):
        raise ValueError("\n".join(found))
    _loaded(source).save_pretrained(out)


def _loaded(folder: str | Path, **settings: str) -> PreTrainedTokenizerFast:
    """A tokenizer.json is used as it is, as transformers did when the paper was written.
    transformers 5 would build a tokenizer of the class that tokenizer_config.json names, and its
    LlamaTokenizer treats leading and double spaces differently."""
    return PreTrainedTokenizerFast.from_pretrained(folder, **settings)
