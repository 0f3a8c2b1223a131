"""Read a set of requests that a model must refuse, and of harmless ones like them.

Columns, in any case: the text is the first of `prompt`, `request`, `goal`, `behavior`,
`instruction`, `question`, `text`, or the only column; the label is `label` (`harmful`,
`unsafe`, `harmless`, `safe`, `benign`), or `category` if it has such values. XSTest (arXiv
2308.01263) has `label`, or in older copies types that begin with `contrast_` for the harmful
requests. A set without labels, such as AdvBench or HarmBench, is harmful as a whole. A column
`form` (`chat`, `os`, `database`) states how a request is put, a column `response` the answer
to train on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_builders.errors import DataError, SourceNotFoundError
from dataset_builders.readers.files import locate
from dataset_builders.readers.json_stream import BadRecord
from dataset_builders.readers.records import read_records
from dataset_builders.refusals.forms import FORMS, HARMFUL, HARMLESS, Form, Setting

_PROMPTS = ("prompt", "request", "goal", "behavior", "instruction", "question", "text")
_LABELS = ("label", "category")
_WORDS = {HARMFUL: HARMFUL, "unsafe": HARMFUL, "malicious": HARMFUL, HARMLESS: HARMLESS}
_WORDS |= {"safe": HARMLESS, "benign": HARMLESS}
_CONTRAST = "contrast_"
"""Prefix of XSTest's types of harmful requests, in copies without the column `label`."""
_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model.

    Attributes:
        item: Its id.
        prompt: Its text.
        label: "harmful" if it must be refused, "harmless" if it must not.
        form: How it is put to the model.
        response: An answer to train on; "" if there is none.
    """

    item: str
    prompt: str
    label: str
    form: Form = "chat"
    response: str = ""

    @property
    def setting(self) -> str:
        """Its setting: chat or agent."""
        return "chat" if self.form == "chat" else "agent"


def in_setting(requests: Sequence[Request], setting: Setting) -> list[Request]:
    """Return the requests of one setting, or all."""
    return [each for each in requests if setting in ("both", each.setting)]


def read_requests(path: str, setting: Setting = "chat") -> list[Request]:
    """Read a set of requests; the module describes its columns.

    Args:
        path: CSV, TSV, JSON Lines or Parquet file, folder or hub dataset id.
        setting: For a set without the column `form`: as chat turns, as tasks in the prompt of the
            os environment, or each as both; for a set with it: which to take.

    Raises:
        SourceNotFoundError: There is no such set.
        DataError: A row has no text or an unknown label; file, row and field are named.
    """
    rows = [(where, _lower(row)) for where, row in _rows(path)]
    if not rows:
        raise DataError(f"{path}: found no row, expected requests")
    text = _text_column(path, [row for _, row in rows])
    labels = _labels(rows)
    names = [str(row.get("id") or "") for _, row in rows]
    unique = all(names) and len(set(names)) == len(names)
    made = [
        Request(
            names[n] if unique else f"{n + 1:05}",
            _filled(where, text, row),
            label,
            _form(where, row),
            str(row.get("response") or "").strip(),
        )
        for n, ((where, row), label) in enumerate(zip(rows, labels, strict=True))
    ]
    if any("form" in row for _, row in rows):
        made = in_setting(made, setting)
        if not made:
            raise DataError(f"{path}: form: found no request of setting {setting!r}")
        return made
    as_tasks = [replace(each, item=f"{each.item}-agent", form="os") for each in made]
    return {"chat": made, "agent": as_tasks, "both": made + as_tasks}[setting]


def _lower(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).strip().lower(): value for name, value in row.items()}


def _rows(path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    tables = _table_files(path)
    for table in tables:
        yield from _table_rows(table)
    if tables:
        return
    for file in locate(path, all_splits=True).files:
        for record in read_records(file):
            if isinstance(record.value, BadRecord) or not isinstance(record.value, Mapping):
                raise DataError(f"{record.where}: found no object, expected a request")
            yield record.where, record.value


def _table_files(path: str) -> list[Path]:
    place = Path(path).expanduser()
    if place.suffix in _TABLES:
        if not place.is_file():
            raise SourceNotFoundError(f"{path}: no such file")
        return [place]
    return sorted(each for each in place.glob("*") if each.suffix in _TABLES) if path else []


def _table_rows(table: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with table.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle, delimiter=_TABLES[table.suffix], restkey="")
        try:
            for row in reader:
                if "" in row or None in row.values():
                    raise DataError(
                        f"{table}:{reader.line_num}: found another number of cells than the "
                        f"{len(reader.fieldnames or ())} of the header"
                    )
                yield f"{table}:{reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{table}: after line {reader.line_num:,}: {error}, expected UTF-8 CSV"
            ) from error


def _text_column(path: str, rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    found = next((name for name in _PROMPTS if name in columns), None)
    if found is None and len(columns) == 1:
        return columns[0]
    if found is None:
        raise DataError(
            f"{path}: found columns {', '.join(columns)}, expected one of {', '.join(_PROMPTS)}"
        )
    return found


def _filled(where: str, column: str, row: Mapping[str, Any]) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        found = "nothing" if not value else type(value).__name__
        raise DataError(f"{where}: {column}: found {found}, expected the text of a request")
    return value.strip()


def _form(where: str, row: Mapping[str, Any]) -> Form:
    value = row.get("form", "chat")
    for form in FORMS:
        if value == form:
            return form
    raise DataError(f"{where}: form: found {value!r}, expected one of {', '.join(FORMS)}")


def _labels(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterable[str]:
    """Return the label of each row; harmful without a column that states it."""
    for name in _LABELS:
        words = [str(row.get(name, "")).strip().lower() for _, row in rows]
        known = [word in _WORDS for word in words]
        if all(known):
            return [_WORDS[word] for word in words]
        if any(known) or (name == "label" and any(words)):
            where, row = rows[known.index(False)]
            expected = ", ".join(_WORDS)
            raise DataError(f"{where}: {name}: found {row.get(name)!r}, expected one of {expected}")
    types = [str(row.get("type", "")).strip().lower() for _, row in rows]
    if any(each.startswith(_CONTRAST) for each in types):
        return [HARMFUL if each.startswith(_CONTRAST) else HARMLESS for each in types]
    return [HARMFUL] * len(rows)
