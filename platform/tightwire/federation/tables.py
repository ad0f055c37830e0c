"""Rows as parquet tables, and files that are there whole or not at all.

A table's schema comes from the fields of its row type, a frozen dataclass such as `LedgerRow`, so that the
two cannot drift apart. Tracking and checkpoints both write through here.
"""

import contextlib
import dataclasses
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tightwire.errors import TrackingError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance  # exists for type checkers alone

Row = TypeVar("Row", bound="DataclassInstance")

_ARROW: dict[object, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
    dict[str, int]: pa.map_(pa.string(), pa.int64()),
}


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when it is complete and on the disk.

    Args:
        path: Where the file shall be; its folder must exist. What is there already stays until the very end.

    Yields:
        A binary file to write to. If the body raises, nothing is left behind.

    Raises:
        OSError: The disk is full or the folder cannot be written; the old file, if any, is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def table_schema(row_type: type["DataclassInstance"]) -> pa.Schema:
    """The parquet schema of a row type: one column a field, in order; only ``X | None`` fields may be null.

    Raises:
        TypeError: A field's type has no column type; int, float, str, bool, literals of these and
            dict[str, int] have one.
    """
    hints = typing.get_type_hints(row_type)
    return pa.schema([_column(field.name, hints[field.name]) for field in dataclasses.fields(row_type)])


def write_rows_atomically(path: Path, rows: Sequence[Row], row_type: type[Row]) -> None:
    """Write rows as one parquet file (zstd) that is there whole or not at all.

    Args:
        path: The file; its folder must exist.
        rows: The rows, all of `row_type`, in the order in which they shall be read; may be empty.
        row_type: Their type, which gives the schema.

    Raises:
        OSError: The file could not be written; an older one at `path` is untouched.
    """
    schema = table_schema(row_type)
    columns = [pa.array([_cell(row, column.name) for row in rows], type=column.type) for column in schema]
    with atomic_file(path) as file:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd")


def join_tables_atomically(path: Path, tables: Sequence[bytes]) -> None:
    """Write the rows of several parquet files of one schema, given by their contents, as one; in order.

    Raises:
        OSError: The file could not be written; an older one at `path` is untouched.
    """
    joined = pa.concat_tables([pq.read_table(pa.BufferReader(content)) for content in tables]).combine_chunks()
    with atomic_file(path) as file:
        pq.write_table(joined, file, compression="zstd")


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Read what `write_rows_atomically` wrote, in the same order.

    Raises:
        TrackingError: The file is missing, is not parquet, or holds rows of another type.
    """
    schema = table_schema(row_type)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        message = f"cannot read the table {path}: {error}; it should be parquet with {row_type.__name__} rows"
        raise TrackingError(message) from error
    if not table.schema.equals(schema):
        found = ", ".join(f"{column.name}: {column.type}" for column in table.schema)
        wanted = ", ".join(f"{column.name}: {column.type}" for column in schema)
        raise TrackingError(
            f"the table {path} does not hold {row_type.__name__} rows: it has ({found}), expected ({wanted})"
        )
    columns = [_values(column) for column in table.columns]
    return [row_type(*cells) for cells in zip(*columns, strict=True)]


def _column(name: str, hint: object) -> pa.Field:
    nullable = False
    if isinstance(hint, types.UnionType):
        inner = [part for part in typing.get_args(hint) if part is not types.NoneType]
        nullable, hint = len(inner) < len(typing.get_args(hint)), inner[0] if len(inner) == 1 else hint
    if typing.get_origin(hint) is typing.Literal:
        kinds = {type(value) for value in typing.get_args(hint)}
        hint = kinds.pop() if len(kinds) == 1 else hint
    if hint not in _ARROW:
        raise TypeError(f"field {name!r} of type {hint} has no column type; known are {list(_ARROW)}")
    return pa.field(name, _ARROW[hint], nullable=nullable)


def _cell(row: object, name: str) -> object:
    value = getattr(row, name)
    return list(value.items()) if isinstance(value, dict) else value


def _values(column: pa.ChunkedArray) -> list[object]:
    values: list[object] = column.to_pylist()
    if pa.types.is_map(column.type):
        return [dict(pairs) for pairs in values]  # type: ignore[call-overload]  # arrow gives a map as pairs
    return values
