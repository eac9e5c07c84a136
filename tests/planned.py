"""What Snakemake plans, job by job: `python tests/planned.py FOLDER CONFIGFILES -- TARGETS` prints one
JSON line per job of a dry run, with results in FOLDER. Snakemake runs in a process of its own, because
the Snakefile sets this process's environment."""

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    ResourceSettings,
)

ROOT = Path(__file__).parents[1]


def unplain(value: Any, where: str = "") -> list[str]:
    """The places in a parameter that Snakemake would not compare rightly."""
    if isinstance(value, Mapping):
        parts = [(f"{where}.{key}", part) for key, part in value.items()]
        odd = [where for key in value if type(key) not in (str, int)]
        return odd + [place for key, part in parts for place in unplain(part, key)]
    if type(value) in (list, tuple):
        return [p for n, part in enumerate(value) for p in unplain(part, f"{where}[{n}]")]
    plain = value is None or type(value) in (bool, int, float, str)
    return [] if plain and ast.literal_eval(repr(value)) == value else [f"{where}: {value!r}"]


def main(folder: str, files: list[str], targets: list[str]) -> None:
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(
                configfiles=[Path(file) for file in files],
                config={"results": folder, "hub": f"{folder}/hub", "export": {"push": "a/b"}},
            ),
            snakefile=ROOT / "Snakefile",
            workdir=ROOT,
        )
        dag = workflow.dag(dag_settings=DAGSettings(targets=targets, forceall=True))
        dag.execute_workflow(executor="dryrun")
        planned = workflow._workflow
        print(json.dumps({"rules": [rule.name for rule in planned.rules]}))
        for job in planned.dag.jobs:
            print(
                json.dumps(
                    {
                        "rule": job.rule.name,
                        "wildcards": dict(job.wildcards.items()),
                        "outputs": list(map(str, job.output)),
                        "log": list(map(str, job.log)),
                        "params": sorted(job.params.keys()),
                        "compared": len(job.non_derived_params),
                        "unplain": [
                            f"{job.rule.name}: {place}"
                            for name, value in job.params.items()
                            for place in unplain(value, name)
                        ],
                    }
                )
            )


if __name__ == "__main__":
    middle = sys.argv.index("--")
    main(sys.argv[1], sys.argv[2:middle], sys.argv[middle + 1 :])
