"""What lm-eval's task files say, read without lm-eval, whose import takes seconds and needs torch:
so a name that no task has, or a task that cannot be scored here, is refused with the configuration.

A name stands for a task, for a group of tasks, or for a tag that tasks have. The study's own
families are looked through first, because reading all 14,000 files takes a second.
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mofe.study.values import suggest

OWN = Path(__file__).parents[1] / "tasks"
SHOTS_SEED = 1234  # what lm-eval draws few-shot examples by, unless told otherwise
# What lm-eval scores where a task file lists no metrics (lm_eval.api.registry).
DEFAULT_METRICS = {"multiple_choice": ("acc", "acc_norm"), "generate_until": ("exact_match",)}
# The tasks whose data set has one split, which the project divides into train and test.
DIVIDED = ("mofe_pubmedqa", "mofe_finance", "mofe_finance_open")
GENERIC = "mofe_mcq"  # reads the columns that the study names


@dataclass(frozen=True)
class Leaf:
    """A task of lm-eval's or of mofe/tasks: its file, and the file's keys with what it includes.
    Functions are texts."""

    path: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.config["task"]

    @property
    def kind(self) -> str:
        """lm-eval's `output_type`."""
        return self.config.get("output_type") or "generate_until"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of its metrics; one that is a function has that function's name."""
        if (listed := self.config.get("metric_list")) is None:
            return DEFAULT_METRICS.get(self.kind, ())
        return tuple(str(metric["metric"]) for metric in listed)

    @property
    def asked(self) -> str | None:
        """The split whose rows are asked."""
        return self.config.get("test_split") or self.config.get("validation_split")

    @property
    def examples(self) -> str | None:
        """The split of few-shot examples, as lm-eval chooses it; None where examples stand in the
        task's file (`samples`), or where there are none but the rows that are asked."""
        config, own = self.config, self.config.get("fewshot_config") or {}
        if named := own.get("split") or config.get("fewshot_split"):
            return named
        if self.samples:
            return None
        spare = config.get("validation_split") if config.get("test_split") else None
        return config.get("training_split") or spare

    @property
    def samples(self) -> Any:
        """Few-shot examples that stand in the task's file itself; None without such."""
        return (self.config.get("fewshot_config") or {}).get("samples")

    @property
    def has_examples(self) -> bool:
        """Whether there are rows for few-shot examples besides those that are asked."""
        divided = self.name in DIVIDED
        return divided or self.samples is not None or self.examples not in (None, self.asked)


def is_scored(kind: str, metrics: Iterable[str], own: bool) -> bool:
    """Whether answers to a task can be scored here: the likeliest of a question's options (`acc`),
    or an answer in words by `f1` and `exact`.

    kind: lm-eval's `output_type`. own: the task has a `process_results` of its own.
    """
    metrics = set(metrics)
    if kind == "multiple_choice":
        return "acc" in metrics and "acc_mutual_info" not in metrics and not own
    return kind == "generate_until" and own and {"f1", "exact"} <= metrics


def unscored(key: str, name: str, metrics: Iterable[str]) -> str:
    """A sentence on a task that cannot be scored. key: of the study's task."""
    return (
        f"tasks.{key}.harness: {name} is scored by {', '.join(sorted(metrics))} in a way of its "
        "own; what can be evaluated is the likeliest of a question's options (acc), of which one "
        "is right, and answers in words whose process_results give f1 and exact, as "
        "mofe/tasks/answers.py does"
    )


def faults(key: str, names: Iterable[str], shown: bool) -> Iterator[str]:
    """What is wrong with a task's `harness`. key: the task's name in the study. shown: whether it
    is evaluated; a task that is not may be of any kind."""
    found = []
    for name in names:
        try:
            found += leaves(key, name)
        except ValueError as error:
            yield str(error)
    if not shown:
        return
    for leaf in found:
        if not is_scored(leaf.kind, leaf.metrics, bool(leaf.config.get("process_results"))):
            yield unscored(key, leaf.name, leaf.metrics)
            return
    if len({leaf.kind for leaf in found}) > 1:
        yield mixed(key)


def mixed(key: str) -> str:
    """A sentence on a task of both kinds of questions."""
    return (
        f"tasks.{key}.harness: mixes questions that are answered by choice and in "
        "words, which have no score in common; make it two tasks"
    )


def leaves(key: str, name: str) -> tuple[Leaf, ...]:
    """The task of this name, or every task of the group or the tag. key: the task's name in the
    study, for messages. Raises ValueError for a name that is none of these, and for a task that is
    no file of keys."""
    for library in (_own(), _all()):
        if found := _named(key, name, library):
            return tuple(found)
    raise ValueError(
        f"tasks.{key}.harness: neither lm-eval nor mofe/tasks has a task named {name!r}"
        f"{_nearest(name)}"
    )


# ------------------------------------------------------------------------------------- reading

Library = Mapping[Path, str]  # files with their text, in lm-eval's order


@cache
def _stock() -> Path:
    spec = importlib.util.find_spec("lm_eval")  # finds it without importing it
    return Path(spec.submodule_search_locations[0]) / "tasks"


@cache
def _own() -> Library:
    return _read(OWN, _stock() / "mmlu" / "default", _stock() / "medmcqa")


@cache
def _all() -> Library:
    return _read(_stock())


def _read(*folders: Path) -> Library:
    """The task files of folders, and the templates that they include, which lack the ending."""
    files = [f for folder in folders for f in sorted(folder.rglob("*"), key=Path.as_posix)]
    kept = (f for f in files if f.suffix in ("", ".yaml") and f.is_file())
    return {file: file.read_text(errors="replace") for file in kept}


def _named(key: str, name: str, library: Library) -> list[Leaf]:
    """The leaves of a name, or none where the library lacks it."""
    said = rf"^[\"']?(task|group)[\"']? *: *[\"']?{re.escape(name)}[\"']? *(#.*)?\r?$"
    head = re.compile(said, re.MULTILINE)
    for file, text in library.items():
        if file.suffix != ".yaml" or not head.search(text):
            continue
        config = _load(file)
        if config.get("group") == name:
            return [leaf for child in config["task"] for leaf in _child(key, name, child, library)]
        if config.get("task") == name:
            if "class" in config:
                raise ValueError(
                    f"tasks.{key}.harness: lm-eval's {name!r} is a program of its own, not a file "
                    "of keys, so its prompts cannot be made from the study's source; name another "
                    "task"
                )
            return [Leaf(file, config)]
    return [Leaf(file, _load(file)) for file in _tagged(name, library)]


def _child(key: str, group: str, child: Any, library: Library) -> Iterator[Leaf]:
    """The leaves of a group's entry: a name, or a group inside the group."""
    if isinstance(child, Mapping) and child.keys() <= {"task", "task_alias"}:
        child = child["task"]
    if isinstance(child, str):
        yield from _named(key, child, library) or leaves(key, child)
    elif isinstance(child, Mapping) and "group" in child:
        for grandchild in child["task"]:
            yield from _child(key, group, grandchild, library)
    else:
        raise ValueError(
            f"tasks.{key}.harness: lm-eval's group {group!r} changes its tasks "
            f"({', '.join(child)}), "
            "which is not supported; name the tasks themselves"
        )


def _tagged(name: str, library: Library) -> list[Path]:
    """The files of the tasks with a tag, by the tasks' names."""
    tagged = re.compile(r"^[\"']?tag[\"']? *:", re.MULTILINE)
    texts = {file for file, text in library.items() if name in text and tagged.search(text)}
    fresh = texts
    while fresh:  # a tag may stand in a file that the tasks include
        templates = [file.name for file in fresh]
        fresh = {
            file
            for file, text in library.items()
            if "include" in text and any(template in text for template in templates)
        } - texts
        texts = texts | fresh
    found = {}
    for file in sorted(texts, key=Path.as_posix):
        if file.suffix != ".yaml":
            continue
        config = _load(file)
        tags = config.get("tag") or ()
        is_task = isinstance(config.get("task"), str) and not config.keys() & {"group", "class"}
        if is_task and name in ([tags] if isinstance(tags, str) else tags):
            found.setdefault(config["task"], file)
    return [found[task] for task in sorted(found)]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML with `!function module.name` as text."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@cache
def _load(file: Path) -> dict[str, Any]:
    """A file's keys over those of the files that it includes, as lm-eval merges them."""
    config = yaml.load(file.read_text(), Loader=_Loader)
    if not isinstance(config, dict):
        return {}
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for other in [included] if isinstance(included, str) else included:
        merged |= _load((file.parent / other).resolve())
    return merged | config


def _nearest(name: str) -> str:
    head = re.compile(r"^[\"']?(?:task|group)[\"']? *: *[\"']?([\w.-]+)", re.MULTILINE)
    known = {
        n for library in (_own(), _all()) for text in library.values() for n in head.findall(text)
    }
    told = suggest(name, known)
    return told if "did you mean" in told else "; its documentation lists the names"
