"""Training sets: rows of a source become prompts and answers, sampled once for all variants."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mofe import records
from mofe.data import texts
from mofe.files import write_atomic
from mofe.tasks import training


def prepare(
    params: dict[str, Any], rows_file: Path, counts_file: Path, config_hash: str | None = None
) -> str:
    """Write a training set as parquet (`prompt`, `answer`: str) and the counts of its rows.

    params: Plan.params.data. A task's rows are those of mofe.tasks.training. Raw text has an empty
    prompt, and equal texts are used once. Equal parameters give equal rows. The
    counts are a TaskCounts, or for raw text a TextCounts. config_hash: of all that the rows depend
    on (mofe.study.identity), for the counts. Returns a line for the user. Raises ValueError where a
    row does not fit its schema, or where fewer rows are left than the study asks for.
    """
    data, source = params["data"], params["source"]
    if data["task"]:
        found = training.usable(params)
        counts, pairs = found.counts, [(row.prompt, row.answer) for row in found.rows]
    else:
        read = texts.load(params)
        pairs = [("", text) for text in read.distinct]
        counts = {"read": read.read, "pieces": len(read.pieces)}
        counts |= {"duplicate": len(read.pieces) - len(pairs)}
    counts["usable"] = len(pairs)
    if not pairs:
        raise ValueError(
            f"data: none of the {counts['read']} rows of {source['repo']} ({data['split']}) can be "
            "trained on; read a split that has labelled rows which no test set asks"
        )
    wanted = len(pairs) if data["rows"] == "full" else data["rows"]
    if wanted > len(pairs):
        raise ValueError(
            f"data: {source['repo']} ({data['split']}) has {len(pairs)} usable rows, but {wanted} "
            "are asked for; lower 'rows' or set it to 'full'"
        )
    drawn = training.order(params, len(pairs))[:wanted]
    prompts, answers = zip(*(pairs[i] for i in drawn), strict=True)
    counts["sampled"] = wanted
    counts["characters"] = sum(map(len, (*prompts, *answers)))
    kind = records.TaskCounts if data["task"] else records.TextCounts
    record = kind(**counts, **({"config_hash": config_hash} if config_hash else {}))

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": prompts, "answer": answers}), sink)
    write_atomic(rows_file, sink.getvalue().to_pybytes())
    records.write(counts_file, record)
    return f"{wanted} of {counts['read']} rows"
