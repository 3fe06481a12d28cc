"""The table metadata.csv: which images there are, their classes and splits."""

import csv
import io

from rankproof.data.text_table import PathCheck
from rankproof.errors import RankproofError

TABLE = "metadata.csv"
NEEDED = ("path", "class_id")
DELIMITERS = (",", ";", "\t")
SPLIT_OF = {"train": "train", "test": "test", "val": "train", "iconic": None}


def read_rows(raw: bytes, where: str) -> list[dict[str, str]]:
    """The checked rows; paths are written in one way, whatever the list writes.

    Args:
        raw: the file.
        where: what messages call it.
    """
    columns, lines = _parse(raw, where)
    missing = [column for column in NEEDED if column not in columns]
    if missing:
        raise RankproofError(f"{where} lacks the column {' and '.join(missing)}; add it")
    if twice := [column for column in columns if column and columns.count(column) > 1]:
        raise RankproofError(f"{where} has the column {twice[0]} twice; remove one")
    rows, check_path = [], PathCheck("archive")
    for number, line in enumerate(lines, start=1):
        place = f"{where}, row {number}"
        if len(line) > len(columns):
            raise RankproofError(
                f"{place}: {len(line)} values for {len(columns)} columns; put quotes around values that "
                f"hold the delimiter"
            )
        row = dict(zip(columns, line, strict=False))
        row["class_id"] = row.get("class_id", "").strip()
        if not row["path"] or not row["class_id"]:
            raise RankproofError(f"{place}: path or class_id is empty; fill it in")
        split = row.get("split", "").strip()
        if "split" in columns and split not in SPLIT_OF:
            raise RankproofError(f"{place}: split must be one of {', '.join(SPLIT_OF)}, got {split!r}")
        rows.append({**row, "split": split, "path": check_path(row["path"], place)})
    return rows


def _parse(raw: bytes, where: str) -> tuple[list[str], list[list[str]]]:
    """The names of the columns and the values of each line, with the delimiter that the first line uses."""
    try:
        text = raw.decode("utf-8-sig")
        if "\0" in text:
            raise RankproofError(f"{where} holds a NUL character; save it as CSV in UTF-8")
        head = text[: text.find("\n")] if "\n" in text else text
        delimiter = max(DELIMITERS, key=head.count)
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RankproofError(f"{where} is not a UTF-8 table ({error}); save it as CSV") from None
    head_line, *rows = lines or [[]]
    return [column.strip() for column in head_line], rows
