"""A JSONL or CSV table as raw data: its columns name files, or hold text."""

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_scale.errors import DataError

from .raw import (
    Listing,
    RawMember,
    RawSample,
    Rejected,
    Unfit,
    find_file,
    require_extension,
    require_key,
    require_name,
    split_name,
)

FORMATS = (".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class Column:
    """A column and the extension its values get; None takes that of the file."""

    name: str
    extension: str | None

    @classmethod
    def parse(cls, text: str, extension: str | None) -> "Column":
        """Read ``NAME`` or ``NAME=EXTENSION``.

        Raises:
            DataError: the extension is unfit.
        """
        name, equals, given = text.rpartition("=")
        if not equals:
            return cls(text, extension)
        try:
            return cls(name, require_extension(given.removeprefix(".")))
        except Unfit as unfit:
            raise DataError(f"column {text!r}: {unfit}") from None


def list_table(
    table: Path,
    root: Path,
    file_columns: Sequence[Column],
    text_columns: Sequence[Column],
    key_column: str | None = None,
) -> Listing:
    """All samples of a table, by row.

    Args:
        table: a .jsonl, .csv or .tsv file.
        root: the folder that paths in the table are relative to; resolved.
        file_columns: their values are paths.
        text_columns: their values are texts, numbers or JSON.
        key_column: its values are the keys; without one a key is the row's number.

    Raises:
        DataError: the table is no such table, or lacks a column.
    """
    if not file_columns and not text_columns:
        raise DataError(f"{table}: name its columns with --file-column or --text-column")
    listing = Listing()
    wanted = {column.name for column in (*file_columns, *text_columns)}
    wanted |= {key_column} if key_column is not None else set()
    seen: set[str] = set()
    keys: set[str] = set()
    for number, row in _read_rows(table):
        where = f"{table.name} row {number}"
        if isinstance(row, Unfit):
            listing.rejected.append(Rejected(where, str(row)))
            continue
        seen.update(row)
        try:
            key = f"{number:09d}" if key_column is None else _as_key(row.get(key_column), keys)
        except Unfit as unfit:
            listing.rejected.append(Rejected(where, str(unfit)))
            continue
        try:
            sample = _as_sample(key, row, root, file_columns, text_columns)
        except Unfit as unfit:
            listing.rejected.append(Rejected(where, str(unfit), key))
            continue
        listing.samples.append(sample)
    for name in sorted(wanted - seen) if seen else ():
        near = difflib.get_close_matches(name, sorted(seen), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{table}: must have a column {name!r}, but has {sorted(seen)}{hint}")
    return listing


def _read_rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any] | Unfit]]:
    suffix = table.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{table} must end in {', '.join(FORMATS)}, but does not")
    try:
        if suffix == ".jsonl":
            yield from _read_jsonl(table)
        else:
            yield from _read_csv(table, "\t" if suffix == ".tsv" else ",")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} must be UTF-8, but is not: {error}") from None
    except csv.Error as error:
        raise DataError(f"{table} must be a table, but is not: {error}") from None


def _read_jsonl(table: Path) -> Iterator[tuple[int, Mapping[str, Any] | Unfit]]:
    with open(table, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, Unfit(f"line must be JSON, but is not: {error}")
                continue
            yield number, row if isinstance(row, dict) else Unfit("line must be a JSON object")


def _read_csv(table: Path, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any] | Unfit]]:
    csv.field_size_limit(2**31 - 1)
    with open(table, encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines, delimiter=delimiter), 1):
            if None in row or None in row.values():
                yield number, Unfit("row must have as many cells as the header, but has not")
            else:
                yield number, row


def _as_key(value: Any, taken: set[str]) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise Unfit(f"key must be a text or a whole number, but is {value!r}")
    key = str(value)
    require_key(key)
    if key in taken:
        raise Unfit(f"key must be unique, but {key!r} stood in an earlier row")
    taken.add(key)
    return key


def _as_sample(
    key: str,
    row: Mapping[str, Any],
    root: Path,
    file_columns: Sequence[Column],
    text_columns: Sequence[Column],
) -> RawSample:
    members: dict[str, RawMember] = {}
    for column in file_columns:
        if row.get(column.name) not in (None, ""):
            _add(members, _as_file(row[column.name], root, column))
    for column in text_columns:
        if row.get(column.name) not in (None, ""):
            _add(members, _as_text(row[column.name], column))
    if not members:
        raise Unfit("row must fill one of the columns named, but all are empty")
    return RawSample(key, tuple(members[extension] for extension in sorted(members)))


def _add(members: dict[str, RawMember], member: RawMember) -> None:
    if members.setdefault(member.extension, member) is not member:
        raise Unfit(f"extension .{member.extension} must come from one column, but two give it")


def _as_file(value: Any, root: Path, column: Column) -> RawMember:
    if not isinstance(value, str):
        raise Unfit(f"{column.name} must be a path, but is {value!r}")
    try:
        require_name(value)
        extension = column.extension or split_name(value)[1]
        size, changed_ns = find_file(root, value)
    except Unfit as unfit:
        raise Unfit(f"{column.name} {value!r}: {unfit}") from None
    return RawMember(extension, size, path=value, changed_ns=changed_ns)


def _as_text(value: Any, column: Column) -> RawMember:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise Unfit(f"{column.name} must be valid Unicode, but has half a surrogate pair") from None
    return RawMember(column.extension or "txt", size, text=text)
