"""This workflow's files on a disk, where Snakemake reads the workflow from GitHub or GitLab.

Of a module with `github(...)` Snakemake has single files only, and the package is needed as a
whole. rules/where.smk loads this module by its file, so it imports nothing of the
package.
"""

import os
import shutil
import tempfile
from pathlib import Path

from git import Repo


def of(source, folder: Path) -> Path:
    """The folder with all files of the workflow that `source` belongs to, at its commit: a clone
    below `folder`, made once.

    source: a folder of the workflow, one level below its own, as Snakemake knows it
    (snakemake.sourcecache.HostingProviderFile).
    """
    repository = source.hosted_repo.repo
    commit = repository.commit(source.ref).hexsha
    there = folder / commit
    if not there.is_dir():
        _clone(repository, commit, there)
    return (there / source.path).parent


def _clone(repository: Repo, commit: str, there: Path) -> None:
    """Clone a repository that is on this machine. Runs that do so at once end with one clone."""
    there.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{commit}-", dir=there.parent))
    try:
        clone = Repo.clone_from(str(repository.common_dir), str(aside), no_checkout=True)
        clone.git.checkout("--quiet", "--detach", commit)
        os.rename(aside, there)
    except OSError:
        if not there.is_dir():  # else another run was faster
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
