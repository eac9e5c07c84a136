"""The files of a dense model's folder: safetensors, tokenizer, and links to those of a mirror."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofe.data import mirror
from mofe.study.plan import MODEL_FILES

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
TOKENIZER_FILES += ("special_tokens_map.json", "added_tokens.json")


class IncompatibleModels(ValueError):
    """Models that cannot be merged. `problems` has one sentence per fault."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


def weight_files(folder: Path, name: str) -> list[Path]:
    """The checkpoint's safetensors files, as its index lists them. Raises IncompatibleModels where
    one is missing; the sentence begins with `name`."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        files = [folder / file for file in listed]
    else:
        files = [folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    pickled = [f.name for p in ("*.bin", "*.pt", "*.pth", "*.ckpt") for f in folder.glob(p)]
    if pickled and not list(folder.glob("*.safetensors")):
        why = (
            f"has its weights as {min(pickled)}, and a pickled file can run code when it is "
            "read; save the model as safetensors (save_pretrained does)"
        )
    else:
        why = f"{folder} lacks {missing[0]}; get the model again"
    raise IncompatibleModels([f"{name}: {why}"])


def link(params: Mapping[str, Any], out: Path) -> str:
    """Link a hub model's weights (safetensors only), configuration and tokenizer into `out`.

    params: Plan.params.model. Raises FileNotFoundError where the mirror lacks the model or its
    weights are not safetensors.
    """
    source = mirror.repository(params["mirror"], params["hub"], params["revision"])
    if not any(source.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{source} has no weights as safetensors; convert them, or choose "
            "a revision that has them"
        )
    out.mkdir(parents=True, exist_ok=True)
    for pattern in MODEL_FILES:
        for file in source.glob(pattern):
            (out / file.name).symlink_to(file.resolve())
    return f"{params['hub']} from {params['mirror']}"
