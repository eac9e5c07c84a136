"""What a file is made from, as one hash: of its job's parameters and, in turn, of all jobs before
it.

A record has this hash as `config_hash`. It is a function of the configuration alone: it changes
where a key changes that the file depends on in any way, and not with the places of results, of what
was fetched, or of a mirror. So results can be moved, and compared with a configuration, without
Snakemake's own notes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mofe.provenance import hash_config
from mofe.study.addresses import Addresses
from mofe.study.given import Given
from mofe.study.graph import Graph, Node

# Parameters that say where something lies, or how to call the workflow, and nothing of what is
# made.
PLACES = frozenset({"command", "config"})


@dataclass(frozen=True)
class Identities:
    """The hashes of a study's jobs."""

    graph: Graph
    given: Given

    def of(self, rule: str, wildcards: Mapping[str, str]) -> str:
        """The hash of what a job makes."""
        wildcards = dict(wildcards.items())
        key = (rule, *wildcards.values())
        if key not in self._known:
            values = self.given.of(rule, wildcards)
            made_with = {name: value for name, value in values.items() if name not in PLACES}
            inputs = self.graph.inputs(rule, wildcards)
            described = [rule, wildcards, made_with, [self._input(file) for file in inputs]]
            self._known[key] = hash_config(placeless(described, self.graph.plan.paths))
        return self._known[key]

    def inputs(self, rule: str, wildcards: Mapping[str, str]) -> dict[str, str]:
        """The hash that each of a job's inputs should have, by its address. Of what no job makes,
        such as a model's own folder, there is none."""
        files = self.graph.inputs(rule, dict(wildcards.items()))
        return {file: self._made(self.makers[file]) for file in files if file in self.makers}

    @property
    def makers(self) -> dict[str, Node]:
        """The job that makes each address."""
        return self.graph.makers

    def _made(self, job: Node) -> str:
        return self.of(job.rule, job.wildcards)

    def _input(self, file: str) -> str:
        return self._made(self.makers[file]) if file in self.makers else file

    @cached_property
    def _known(self) -> dict[tuple[str, ...], str]:
        return {}


def placeless(value: Any, paths: Addresses) -> Any:
    """Plain data in which every address says what it is an address in (results, or the hub or its
    mirror), not where that lies."""
    places = {os.path.normpath(paths.root): "{results}"}
    places |= {
        os.path.normpath(folder): "{hub}"
        for folder in (paths.study.hub, paths.study.mirror)
        if folder is not None
    }
    longest_first = sorted(places, key=len, reverse=True)

    def replaced(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {replaced(key): replaced(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [replaced(part) for part in value]
        return _in_place(value) if isinstance(value, str) else value

    def _in_place(text: str) -> str:
        for folder in longest_first:
            if text.rstrip("/") == folder or text.startswith(f"{folder}/"):
                return places[folder] + text.rstrip("/")[len(folder) :]
        return text

    return replaced(value)
