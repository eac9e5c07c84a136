"""The files of a dense model's folder: safetensors, tokenizer, and links to those of a mirror."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mofe.data import mirror, weights
from mofe.models import finite
from mofe.study.plan import MODEL_FILES


class IncompatibleModels(ValueError):
    """Models that cannot be merged. `problems` has one sentence per fault."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__("\n".join(problems))


def weight_files(folder: Path, name: str) -> list[Path]:
    """The checkpoint's safetensors files (mofe/data/weights.py). Raises IncompatibleModels where
    one is missing; the sentence begins with `name`."""
    there = [file.name for file in folder.iterdir() if file.is_file()] if folder.is_dir() else []
    return [folder / file for file in _weights(folder, there, name)]


def _weights(folder: Path, there: Collection[str], name: str) -> list[str]:
    """The names of the safetensors files. there: the names of all files that are the
    checkpoint's."""
    try:
        listed = weights.of(there, lambda file: (folder / file).read_text())
    except ValueError as error:
        raise IncompatibleModels([f"{name}: {folder}: {error}"]) from error
    missing = [file for file in listed if file not in there]
    if listed and not missing:
        return listed
    pickled = [file for file in there if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickled and not any(file.endswith(".safetensors") for file in there):
        why = (
            f"has its weights as {min(pickled)}, and a pickled file can run code when it is "
            "read; save the model as safetensors (save_pretrained does)"
        )
    elif not listed:
        why = (
            f"{folder} has no weights as safetensors; save the model with save_pretrained, or "
            "choose a revision that has them"
        )
    else:
        why = f"{folder} lacks {missing[0]}; get the model again"
    raise IncompatibleModels([f"{name}: {why}"])


def link(params: Mapping[str, Any], out: Path) -> str:
    """Link a hub model's weights (safetensors only), configuration and tokenizer into `out`.

    params: Plan.params.model. Raises FileNotFoundError where the mirror lacks the model, or a file
    that was fetched, and IncompatibleModels where there are not all of its weights, or they are not
    safetensors, or not finite.
    """
    source = mirror.repository(params["mirror"], params["hub"], params["revision"])
    files = {
        path: file
        for path, file in mirror.files(source, MODEL_FILES).items()
        if weights.is_its(path)
    }
    used = _weights(
        source, [path for path in mirror.paths(source) if weights.is_its(path)], params["hub"]
    )
    _refuse_not_finite([files[name] for name in used], params["hub"])
    link_into(out, files, used)
    return f"{params['hub']} from {params['mirror']}"


def _refuse_not_finite(weights: Iterable[Path], name: str) -> None:
    for file in weights:
        try:
            told = finite.fault_in(file)
        except SafetensorError as error:
            told = f"it cannot be read ({error})"
        if told:
            raise IncompatibleModels([f"{name}: {file}: {told}; get the model again"])


def link_into(out: Path, files: Mapping[str, Path], used: Iterable[str]) -> None:
    """Link files by their names into `out`, without weights that are not among `used`. So a reader
    with another rule finds the same weights."""
    for name in files.keys() - weights.unused(files, list(used)):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to(files[name].resolve())
