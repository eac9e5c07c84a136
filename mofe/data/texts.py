"""Raw text: the documents of a source, cut into the pieces that are trained on or asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mofe.data import schema, sources


@dataclass(frozen=True)
class Texts:
    """The pieces of a set of raw text.

    read: the source's rows, which are its documents. pieces: (document's number, text) of every
    piece, in order; two may have the same text. distinct: each text once.
    """

    read: int
    pieces: list[tuple[int, str]]

    @property
    def distinct(self) -> list[str]:
        return list(dict.fromkeys(text for _, text in self.pieces))


def load(params: Mapping[str, Any]) -> Texts:
    """The pieces of a set of raw text. params: Plan.params.data. Raises ValueError where the source
    has no such column, or where a row has no text in it."""
    data, source = params["data"], params["source"]
    rows = sources.load(source, data["subset"], data["split"], params["mirror"])
    schema.check_text(data["text"], rows, source["repo"])
    return Texts(len(rows), list(_texts(rows[data["text"]], data)))


def _texts(column: list[str], data: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for number, document in enumerate(column):
        for text in document.split(data["separator"]) if data["separator"] else (document,):
            for piece in filter(None, _pieces(text.strip(), data["chunk_words"])):
                yield number, piece


def _pieces(text: str, size: int | None) -> list[str]:
    if size is None:
        return [text]
    words = text.split()
    return [" ".join(words[i : i + size]) for i in range(0, len(words), size)]
