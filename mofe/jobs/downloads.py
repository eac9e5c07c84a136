"""The sizes of what will be downloaded, stated before the first job starts."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from mofe.jobs import job
from mofe.study.plan import Repository


def state(hub: str, repositories: Sequence[Repository]) -> list[str]:
    """State sizes in the terminal and in {hub}/sizes.json (mofe/data/hub.py). Returns a sentence
    where the hub tells none of them; the terminal then has its reasons."""
    if not repositories:
        return []
    # in a process of its own, which may reach the hub
    stated = subprocess.run(
        [sys.executable, "-m", "mofe.data.hub", hub],
        input=json.dumps([asdict(r) for r in repositories]),
        text=True,
        env=job.online(),
        check=False,
    )
    told = "the hub did not tell what there is to download; see above"
    return [told] if stated.returncode else []
