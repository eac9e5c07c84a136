"""What lies in the folders that no job makes: a mirror's repositories, and the models of a `path`.

A job that reads such a folder has the identity of its files as a parameter (mofe/jobs/params.py),
so that other contents rerun it and all that is made from it. An identity is of names, sizes and
times of change: a copy that keeps times (`cp -a`) has the same, and a file that was touched has
another.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mofe.data import mirror
from mofe.files import write_atomic
from mofe.jobs.checks import Waiting, repositories
from mofe.study.graph import Graph


class Contents:
    """The identities of the folders that a study's jobs read.

    remembered: the file that keeps the identities of the last run. They stand in for those of a
    mirror that is not there any more, because what is made from it stays as it is.
    """

    def __init__(self, graph: Graph, remembered: str | Path):
        self.graph, self.remembered = graph, Path(remembered)
        self._seen: dict[str, str | None] = {}

    def of(self, rule: str, wildcards: Mapping[str, str]) -> dict[str, str | None]:
        """The identities of what a job reads, by repository and model."""
        plan, wildcards = self.graph.plan, dict(wildcards.items())
        read = repositories(plan, Waiting(rule, wildcards)) if plan.study.mirror else []
        found = {r.repo: f"{plan.paths.model_mirror}/{r.repo}" for r in read}
        inputs = self.graph.inputs(rule, wildcards) if self._models else ()
        found |= {name: folder for folder, name in self._models.items() if folder in inputs}
        return {name: self._identity(name, folder) for name, folder in sorted(found.items())}

    def remember(self) -> None:
        """Keep the identities that jobs were given, for a later run."""
        kept = {**self._earlier, **{name: found for name, found in self._seen.items() if found}}
        if kept != self._earlier:
            write_atomic(self.remembered, json.dumps(kept, indent=2, sort_keys=True) + "\n")

    @cached_property
    def _models(self) -> dict[str, str]:
        """The models of a `path`, by that path."""
        models = self.graph.plan.study.models
        return {models[n].path: n for n in self.graph.plan.models if models[n].path is not None}

    @cached_property
    def _earlier(self) -> dict[str, str]:
        """Raises ValueError where the file is damaged."""
        if not self.remembered.is_file():
            return {}
        try:
            return TypeAdapter(dict[str, str]).validate_json(self.remembered.read_bytes())
        except ValidationError as error:
            raise ValueError(
                f"{self.remembered}: the file is damaged; delete it, and what the folders hold now "
                "is noted anew"
            ) from error

    def _identity(self, name: str, folder: str) -> str | None:
        if name not in self._seen:
            self._seen[name] = mirror.identity(Path(folder)) or self._earlier.get(name)
        return self._seen[name]
