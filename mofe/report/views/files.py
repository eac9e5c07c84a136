"""The files that the page's numbers are read from, and their ids on the page."""

from __future__ import annotations

import os
from collections.abc import Iterable


class Files:
    """Gives each file an id, in the order in which the page first names it.

    An element of the page has the ids of its numbers' files in `data-from`; the list at the end of
    the page has each file under its id.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def __call__(self, paths: str | os.PathLike | Iterable[str | os.PathLike]) -> str:
        """The ids of one file or of several, with a space between them."""
        several = [paths] if isinstance(paths, str | os.PathLike) else paths
        known = (self._ids.setdefault(str(p), f"f{len(self._ids) + 1}") for p in several)
        return " ".join(dict.fromkeys(known))

    def listed(self) -> list[tuple[str, str]]:
        """(id, path) of every file that was named."""
        return [(id_, path) for path, id_ in self._ids.items()]
