"""A sample of a data set that is too large to read: some row groups of its parquet files.

Only the files' footers and the drawn row groups are read, from a disk or by ranges from the hub
(mofe/data/hub.py), so that a sample costs no more than its size. The rows of a group are neighbours
in the data set; groups are drawn from all files in turn, so that the sample is spread over all of
it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


class Piece(NamedTuple):
    """The first `rows` rows of a shard's row group."""

    shard: int
    group: int
    rows: int


def draw(groups: Sequence[Sequence[int]], rows: int, seed: int) -> list[Piece]:
    """Row groups with `rows` rows in all, in the order of shards and groups.

    groups: for every shard, the number of rows of each of its groups. Every shard gives one group
    before any gives its second. The seed decides the order of the shards, and of the groups in
    each. The group drawn last is cut to fit. Where there are no more rows than asked for, all are
    taken: drawing from a sample gives that sample.
    """
    random = np.random.default_rng(seed)
    shards = random.permutation(len(groups))
    orders = [random.permutation(len(groups[shard])) for shard in shards]
    turns = sorted(
        (turn, position, int(shard), int(group))
        for position, (shard, order) in enumerate(zip(shards, orders, strict=True))
        for turn, group in enumerate(order)
    )
    pieces, left = [], rows
    for _, _, shard, group in turns:
        taken = min(left, groups[shard][group])
        if taken:
            pieces.append(Piece(shard, group, taken))
            left -= taken
    return sorted(pieces)


class Shards:
    """Parquet files of one data set, opened together. Each is given as a path or as an open
    file."""

    def __init__(self, files: Sequence[Any]):
        self._stack = ExitStack()
        # pre_buffer would read columns ahead in threads, but a remote file has only one position
        self._files = [
            self._stack.enter_context(pq.ParquetFile(file, pre_buffer=False)) for file in files
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    @property
    def rows(self) -> int:
        return sum(file.metadata.num_rows for file in self._files)

    def draw(self, rows: int, seed: int) -> list[Piece]:
        footers = [file.metadata for file in self._files]
        groups = [[m.row_group(n).num_rows for n in range(m.num_row_groups)] for m in footers]
        return draw(groups, rows, seed)

    def read(self, piece: Piece) -> pa.Table:
        return self._files[piece.shard].read_row_group(piece.group).slice(0, piece.rows)
