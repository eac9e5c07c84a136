"""How the workflow is called: in its own folder or another, or as a module of another workflow.

Paths of the code are relative to the workflow's own folder (`code`), and paths of a study to the
working directory. The configuration begins with the workflow's own config.yaml. Everything else is
an overlay of it: a config.yaml in the working directory, the files and settings of the command
line, and a module's `config:`. A module's `prefix:` stands before every path of the study.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, NamedTuple

from snakemake.common import SNAKEFILE_CHOICES
from snakemake.common.configfile import load_configfile
from snakemake.path_modifier import PathModifier

from mofe import provenance
from mofe.study.config import WATCHING
from mofe.study.load import overlay
from mofe.study.written import COMMAND_LINE

CONFIG = "config.yaml"
PLACES = ("results", "hub", "mirror")  # the keys that name a place of the study
MODULE = "the module's config"  # where a key stands that no file has
Hook = Callable[[Sequence[str]], None]  # what Snakemake calls before or after a run, with its logs


class Sources(NamedTuple):
    """What a configuration is merged from: files, the first one first, then `settings`, which stand
    at `where` (arguments of mofe.study.load.load_study)."""

    files: list[str]
    settings: Mapping[str, Any]
    where: str = COMMAND_LINE


@dataclass(frozen=True)
class Called:
    """A call of the workflow.

    code: the workflow's own folder. folder: the working directory. snakefile: the file that
    Snakemake was called with. typed: the configuration files of the command line; settings: what
    --config gives. is_module: another workflow uses this one. given: a module's `config:`, and
    files: the configuration files of the workflow that gives it, with `typed`. rename: from a
    rule's name here to its name there. move: from a path of the study to where a module's `prefix:`
    wants it.
    """

    code: Path
    folder: Path
    snakefile: Path
    typed: Sequence[Path] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_module: bool = False
    given: Mapping[str, Any] | None = None
    files: Sequence[Path] = ()
    rename: Callable[[str], str] = str
    move: Callable[[str], str] = str

    @classmethod
    def by(cls, workflow, code: Path) -> "Called":
        """As Snakemake's workflow tells while it reads the Snakefile. The prefix of a module is
        taken over: Snakemake would put it before the files of rules, but not before the same paths
        in parameters and records."""
        modifier = workflow.modifier
        move, modifier.path_modifier = modifier.path_modifier, PathModifier(None, None, workflow)
        return cls(
            code=code.resolve(),
            folder=Path.cwd(),
            snakefile=Path(workflow.main_snakefile).absolute(),
            typed=tuple(workflow.config_settings.configfiles),
            settings=dict(workflow.config_settings.config or {}),
            is_module=not modifier.is_main_snakefile(),
            given=dict(modifier.globals["config"]) if modifier.skip_configfile else None,
            files=tuple(map(Path, workflow.configfiles)),
            rename=modifier.modify_rulename,
            move=move.replace_prefix,
        )

    @property
    def own(self) -> str:
        """The workflow's own configuration."""
        return os.path.relpath(self.code / CONFIG, self.folder)

    @property
    def beside(self) -> str | None:
        """The configuration in the working directory, where that is another. A workflow that uses
        this one as a module reads its own."""
        there, own = self.folder / CONFIG, self.code / CONFIG
        if self.is_module or not there.is_file() or os.path.samefile(there, own):
            return None
        return CONFIG

    def merged(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The study's configuration. config: what Snakemake has merged, or a module's `config:`."""
        own = load_configfile(self.own)
        if self.given is not None:
            config = overlay(own, self.given)
        else:
            beside = load_configfile(self.beside) if self.beside else {}
            config = _in_order(config, overlay(own, beside))
        moved = {key: self._moved(config[key]) for key in PLACES if key in config}
        models = config.get("models")
        if isinstance(models, Mapping):
            moved["models"] = {
                name: {**model, "path": self._moved(model["path"])}
                if isinstance(model, Mapping) and "path" in model
                else model
                for name, model in models.items()
            }
        return {**config, **moved}

    def _moved(self, place: Any) -> Any:
        """A folder of the study, where a module's prefix wants it. A file in it is what is moved,
        because prefixes of paths may end in a slash."""
        if not isinstance(place, str) or not place:
            return place
        if os.path.isabs(os.path.expanduser(os.path.expandvars(place))):
            return place
        return self.move(os.path.join(place, "_")).removesuffix("/_")

    @cached_property
    def sources(self) -> Sources:
        """Where everything in the configuration comes from. A module's `config:` comes from the
        files of the other workflow if they have the same, else from its text."""
        beside = [self.beside] if self.beside else []
        if self.given is None:
            return Sources(self._named([self.own, *beside, *self.typed]), self.settings)
        files = self._named([self.own, *self.files])
        merged = reduce(overlay, map(load_configfile, files[1:]), {})
        if overlay(merged, self.settings) == self.given:
            return Sources(files, self.settings)
        return Sources([self.own], self.given, MODULE)

    @property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of everything that the configuration is merged from, by its name. Settings
        that only say how a run is watched, or where its results lie, are left out: equal studies
        have equal records."""
        files, settings, where = self.sources
        found = {file: provenance.hash_file(file) for file in files}
        left_out = (*WATCHING, "results")
        made_with = {key: value for key, value in settings.items() if key not in left_out}
        return {**found, **({where: provenance.hash_config(made_with)} if made_with else {})}

    def _named(self, files: Sequence[str | Path]) -> list[str]:
        named = (os.path.relpath(self.folder / file, self.folder) for file in files)
        return list(dict.fromkeys(named))

    def _seen(self, file: Path) -> str:
        """A file as seen from the workflow's own folder, where it is in there."""
        return str(file.relative_to(self.code) if file.is_relative_to(self.code) else file)

    @property
    def command(self) -> str:
        """The call of Snakemake that makes a file of this study, for people to copy; the file is
        added. In the workflow's own folder it is the same in every checkout. What only says how a
        run is watched is left out: a page that shows the command would be made again."""
        words = ["snakemake"]
        if self.folder == self.code and not self.is_module:
            files = (Path(self.folder, file).resolve() for file in (self.own, *self.typed))
            words += ["--cores", "all", "--configfile", *map(self._seen, dict.fromkeys(files))]
        else:
            if self.snakefile not in (self.folder / choice for choice in SNAKEFILE_CHOICES):
                words += ["--snakefile", str(self.snakefile)]
            words += ["--directory", str(self.folder), "--cores", "all"]
            words += ["--configfile", *map(str, self.typed)] if self.typed else []
        made_with = [f"{k}={value}" for k, value in self.settings.items() if k not in WATCHING]
        if made_with:
            words += ["--config", *made_with]
        return shlex.join([*words, "--"])

    def also_call(self, workflow, calls: Mapping[str, Hook]) -> None:
        """Have Snakemake make these calls before the first job and at the end of a run: of a module
        it heeds no such hooks. calls: by the name of the hook (`onstart`, `onsuccess`, `onerror`),
        each with the addresses of Snakemake's logs. A hook that the other workflow has above the
        module is called too."""
        for hook, call in calls.items():
            earlier = getattr(workflow, f"_{hook}")
            if getattr(earlier, "of", None) != self.code:  # else one `use rule` of several
                setattr(workflow, f"_{hook}", _both(call, earlier, self.code))


def _both(call: Hook, earlier: Hook, code: Path) -> Hook:
    def both(log: Sequence[str]) -> None:
        call(log)
        earlier(log)

    both.of = code
    return both


def _in_order(config: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its keys in the order of `first`, and then those that it lacks.
    Snakemake puts those of the command line's files before. Tables and rows are shown in this
    order."""
    keys = [*(key for key in first if key in config), *(key for key in config if key not in first)]
    parts = {key: (config[key], first.get(key)) for key in keys}
    return {
        key: _in_order(value, known)
        if isinstance(value, Mapping) and isinstance(known, Mapping)
        else value
        for key, (value, known) in parts.items()
    }
