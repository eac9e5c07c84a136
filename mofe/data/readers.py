"""Files of rows as tables in which a text is the text of the file.

Nothing is guessed from how a cell looks. Cells of delimited files are texts, and an empty cell is
an empty text. Texts of JSON stay texts, also where they look like numbers or dates; its whole
numbers are integers, and its other numbers are the texts that the file has. What a column's values
mean is decided by the task that reads it (mofe/tasks/mcq.py, mofe/data/schema.py).
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mofe import units

csv.field_size_limit(sys.maxsize)  # a cell may hold a document

FORMATS = {
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".parquet", ".geoparquet", ".gpq"), "parquet"),
    ".arrow": "arrow",
}
COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
# What a repository's card may say about its files, by format, as for datasets' own readers.
SETTINGS = {
    "csv": {"sep", "delimiter", "quotechar", "encoding", "names", "column_names"},
    "json": {"field", "encoding"},
    "parquet": set(),
    "arrow": set(),
}


def format_of(path: str) -> str | None:
    """The format of a file (FORMATS) by its name; None for any other."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def read(kind: str, files: Mapping[str, Path], settings: Mapping[str, Any]) -> pa.Table:
    """The rows of files of one format, one file after the other.

    files: by the names that messages have. settings: keys of SETTINGS. Raises ValueError, with the
    file, the column and the row or line, where a file is damaged, where its rows do not fit its
    header, or where the files' columns differ.
    """
    if kind == "json":
        rows = [row for name, file in files.items() for row in _json(name, file, settings)]
        return _table_of(units.first(files), rows)
    reader = {"csv": _delimited, "parquet": _parquet, "arrow": _arrow}[kind]
    tables = {name: reader(name, file, settings) for name, file in files.items()}
    (first, expected), *others = ((name, table.column_names) for name, table in tables.items())
    for name, columns in others:
        if sorted(columns) != sorted(expected):
            differing = sorted(set(columns) ^ set(expected))
            raise ValueError(
                f"{name}: its columns are not those of {first}, they differ in "
                f"{', '.join(map(repr, differing))}; give the files of a split the same columns"
            )
    try:
        return pa.concat_tables(
            [table.select(expected) for table in tables.values()], promote_options="permissive"
        )
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{units.first(files)}: a column has another type in one file than in another "
            f"({error}); "
            "save them with the same types"
        ) from error


# --------------------------------------------------------------------------------- delimited files


def _delimited(name: str, file: Path, settings: Mapping[str, Any]) -> pa.Table:
    tabs = ".tsv" in [suffix.lower() for suffix in Path(name).suffixes]
    sep = settings.get("sep") or settings.get("delimiter") or ("\t" if tabs else ",")
    names = settings.get("names") or settings.get("column_names")
    quote = settings.get("quotechar") or '"'
    text = io.StringIO(_text(name, file, settings), newline="")
    reader = csv.reader(text, delimiter=sep, quotechar=quote, strict=True)
    rows, line = [], 0
    try:
        for row in reader:
            if row and names is None:
                names = _header(name, row, sep)
            elif row:
                if len(row) != len(names):
                    raise ValueError(
                        f"{name}: line {line + 1} has {len(row)} cells where the header has "
                        f"{len(names)}; mend that line, with quotes around a cell that holds "
                        f"{sep!r} or a line's end"
                    )
                rows.append(row)
            line = reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{name}: line {line + 1} cannot be parted into cells ({error}); put a cell that holds "
            "quotes in quotes, and double those in it"
        ) from error
    if names is None:
        raise ValueError(f"{name}: the file is empty; it needs a header and rows")
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pa.table(
        {
            column: pa.array(values, pa.string())
            for column, values in zip(names, columns, strict=True)
        }
    )


def _header(name: str, row: list[str], sep: str) -> list[str]:
    names = [cell.strip() or f"Unnamed: {number}" for number, cell in enumerate(row)]
    if twice := next((column for column in names if names.count(column) > 1), None):
        raise ValueError(
            f"{name}: the header has the column {twice!r} twice; rename one of the two"
        )
    if len(names) == 1 and (other := next((c for c in ";\t|," if c in names[0]), None)):
        raise ValueError(
            f"{name}: the header is one cell, {names[0]!r}, so its cells are not parted by "
            f"{sep!r}; "
            f"name the sign in the repository's README.md (configs: sep: {other!r}), or save the "
            "file with commas"
        )
    return names


# -------------------------------------------------------------------------------------------- JSON


class _Repeated(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Repeated(next(key for key in keys if keys.count(key) > 1))
    return found


def _whole(text: str) -> int | str:
    """A whole number as an integer, if that has the same text and fits 64 bits."""
    number = int(text) if len(text) < 20 else 2**63  # Python reads no number of 5,000 digits
    return number if -(2**63) <= number < 2**63 and str(number) == text else text


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_float=str,
    parse_int=_whole,
    parse_constant=lambda word: None if word == "NaN" else word,
)


def _json(name: str, file: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a file: one after the other, as in JSON lines, or in one list."""
    values = list(_values(name, _text(name, file, settings)))
    if field := settings.get("field"):
        if len(values) != 1 or not isinstance(values[0], dict) or field not in values[0]:
            raise ValueError(f"{name}: there is no field {field!r}; mend the README.md's 'field'")
        values = [values[0][field]]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    strange = next((n for n, value in enumerate(values) if not isinstance(value, dict)), None)
    if strange is not None:
        raise ValueError(
            f"{name}: row {strange} is {_shown(values[strange])}, not an object with a value for "
            "each column; write one object a row"
        )
    return values


def _values(name: str, text: str) -> Iterator[Any]:
    """The JSON values of a text."""
    place, end = 0, len(text)
    while True:
        while place < end and text[place] in " \t\r\n":
            place += 1
        if place == end:
            return
        try:
            value, after = _DECODER.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{name}: line {error.lineno} is no JSON ({error.msg}, column {error.colno}); mend "
                "that line"
            ) from error
        except _Repeated as error:
            raise ValueError(
                f"{name}: the row that begins in line {_line(text, place)} has the key "
                f"{str(error)!r} twice; remove one of the two"
            ) from error
        except RecursionError as error:
            raise ValueError(
                f"{name}: the row that begins in line {_line(text, place)} is nested too deeply; "
                "store it flat"
            ) from error
        yield value
        place = after


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _table_of(names: str, rows: list[dict[str, Any]]) -> pa.Table:
    """JSON objects as a table. A key that a row lacks is null."""
    columns = dict.fromkeys(key for row in rows for key in row)
    if not columns:
        raise ValueError(f"{names}: there is no row; write one object a row")
    arrays = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        try:
            arrays[column] = pa.array(_alike(values))
        except UnicodeEncodeError as error:
            number = next(i for i, v in enumerate(values) if _broken(v))
            raise ValueError(
                f"{names}: column {column!r} of row {number} has half a character (a lone "
                "surrogate); mend that text"
            ) from error
    return pa.table(arrays)


def _alike(values: list[Any]) -> list[Any]:
    """The values of a column in one type. Where they are of several, each is its JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {list}:
        flat = iter(_alike([item for value in values if value is not None for item in value]))
        return [None if v is None else [next(flat) for _ in v] for v in values]
    if kinds == {dict}:
        held = [value for value in values if value is not None]
        keys = dict.fromkeys(key for value in held for key in value)
        inner = {key: iter(_alike([value.get(key) for value in held])) for key in keys}
        return [None if v is None else {key: next(inner[key]) for key in keys} for v in values]
    if len(kinds) <= 1:
        return values
    return [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]


def _broken(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


# ------------------------------------------------------------------------------- parquet and Arrow


def _parquet(name: str, file: Path, settings: Mapping[str, Any]) -> pa.Table:
    try:
        with pq.ParquetFile(file) as opened:
            return plain(opened.read())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name}: it cannot be read as parquet ({reason}); get the file again"
        ) from error


def _arrow(name: str, file: Path, settings: Mapping[str, Any]) -> pa.Table:
    try:
        with pa.OSFile(str(file)) as opened:
            try:
                return plain(pa.ipc.open_file(opened).read_all())
            except pa.ArrowInvalid:  # Arrow has two kinds of files; datasets writes streams
                opened.seek(0)
                return plain(pa.ipc.open_stream(opened).read_all())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name}: it cannot be read as Arrow ({reason}); get the file again"
        ) from error


def plain(table: pa.Table) -> pa.Table:
    """A table without dictionaries and large or viewed types, which say the same in another way.
    Raises pa.ArrowInvalid for two columns with one name, and where a text is no UTF-8."""
    table.validate(full=True)
    names = table.column_names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise pa.ArrowInvalid(f"it has the column {twice!r} twice")
    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if any(
        is_list(kind) for is_list in (*lists, pa.types.is_list_view, pa.types.is_large_list_view)
    ):
        return pa.list_(_plain(kind.value_type))
    return kind


# ------------------------------------------------------------------------------------------- bytes


def _text(name: str, file: Path, settings: Mapping[str, Any]) -> str:
    """A file's text, unpacked, without a byte order mark."""
    packed = Path(name).suffix.lower()
    try:
        with COMPRESSED.get(packed, open)(file, "rb") as opened:
            content = opened.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{name}: it cannot be unpacked ({error}); get the file again") from error
    encoding = settings.get("encoding") or "utf-8"
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: byte {error.start} is no {encoding}; save the file as UTF-8"
        ) from error
    except LookupError as error:
        raise ValueError(
            f"{name}: README.md names the encoding {encoding!r}, which does not exist"
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
