"""Why the hub gives nothing, in one sentence that says what to do."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mofe import disk
from mofe.data.mirror import FETCH


class Unreachable(ConnectionError):
    """Nothing answers at the hub's address, so that no repository can be had."""


@contextmanager
def one_sentence(
    repository: Mapping[str, Any], before: str, cut_off: str | None = None
) -> Iterator[None]:
    """Errors of the hub and of the way to it become a ConnectionError of one sentence, Unreachable
    where there is no way. before: its beginning. cut_off: the beginning where the hub does not
    refuse, but the way to it ended."""
    try:
        yield
    except (OSError, httpx2.HTTPError, json.JSONDecodeError) as error:
        ours = getattr(error, "errno", None) is not None and not isinstance(error, ConnectionError)
        if ours:
            raise  # of this machine: a full disk, a folder that cannot be written
        begin = before if _refused(error) or cut_off is None else cut_off
        no_way = _among(error, httpx2.ConnectError) or _among(error, httpx2.ConnectTimeout)
        kind = Unreachable if no_way else ConnectionError
        raise kind(begin + _reason(error, repository)) from error


def _status(error: Exception) -> int | None:
    """The hub's answer in numbers, as of the error or of one that it follows from."""
    answers = (getattr(one, "response", None) for one in disk.chain(error))
    return next((answer.status_code for answer in answers if answer is not None), None)


def _among(error: Exception, kind: type[Exception]) -> bool:
    """Whether an error, or one that it follows from, is of a kind."""
    return any(isinstance(one, kind) for one in disk.chain(error))


def _refused(error: Exception) -> bool:
    """Whether the hub knows the repository, or may know it, and does not give it."""
    return _among(error, GatedRepoError) or _status(error) in (401, 403)


def _reason(error: Exception, repository: Mapping[str, Any]) -> str:
    """Why the hub gives nothing, and what to do."""
    status, repo, kind = _status(error), repository["repo"], repository["kind"]
    if _refused(error):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        known = (
            "the repository is gated"
            if _among(error, GatedRepoError)
            else f"it answers {status}: the repository is private or gated, or there is none"
        )
        return (
            f"{known}; accept its licence on {page}, set the token of that account (`hf auth "
            f"login`, or HF_TOKEN), and run it again: {FETCH}"
        )
    if _among(error, RevisionNotFoundError):
        return "it has no such revision; mend 'revision'"
    if status == 429 or (status or 0) >= 500:
        return f"it is busy and answered {status}; run it again later: {FETCH}"
    if _among(error, RepositoryNotFoundError):
        return f"there is no such {kind}; mend the repository's name"
    if _among(error, json.JSONDecodeError) or _among(error, FileMetadataError):
        return (
            "what answers there is not the hub, such as a proxy's sign-in page; sign in, or set "
            f"HF_ENDPOINT to the hub's address, and run it again: {FETCH}"
        )
    if status == 404:
        return f"there is no such {kind} or file; mend its name, or run it again: {FETCH}"
    if _among(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set here; where there is internet, run: {FETCH}"
    while error.__cause__ is not None:
        error = error.__cause__
    told = (str(error).strip() or "it does not answer").splitlines()[0]
    return f"{told}; where there is internet, run: {FETCH}"
