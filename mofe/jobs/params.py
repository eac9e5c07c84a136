"""A rule's parameters as functions of the wildcards for Snakemake's directive `params`."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from mofe.jobs import made
from mofe.jobs.contents import Contents
from mofe.study.identity import Identities


def given(
    identities: Identities,
    contents: Contents,
    before: Callable[[], None],
    rule: str,
    *names: str,
) -> dict[str, Callable[..., Any]]:
    """A rule's `params`: these of its values (mofe.study.given), the hash of all that its jobs make
    something from (`config_hash`), what lies in the folders that its jobs read and no job makes
    (`contents`), and the hashes that its inputs should have (`read`). Snakemake does not compare
    the last between runs, because they are a function of `input`.

    before: called before the first hash is asked for, which is when Snakemake looks for jobs.
    """

    @cache
    def values(wildcards: tuple[tuple[str, str], ...]) -> dict[str, Any]:
        return identities.given.of(rule, dict(wildcards))

    def value(name: str) -> Callable[[Mapping[str, str]], Any]:
        return lambda wildcards: values(tuple(wildcards.items()))[name]

    def config_hash(wildcards: Mapping[str, str]) -> str:
        before()
        return identities.of(rule, wildcards)

    return {
        **{name: value(name) for name in names},
        "config_hash": config_hash,
        "contents": lambda wildcards: contents.of(rule, wildcards),
        "read": lambda wildcards, input: made.inputs(identities, rule, wildcards),
    }
