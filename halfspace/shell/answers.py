"""Answers of the command line, as .csv, .npy or JSON lines.

A .csv file and the fields of a .npy file have the same columns; of JSON lines, each is a query.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..atomic_file import replacing
from ..report import Report, Top

ROWS = 1 << 16
"""Rows that are made text at a time."""


class Answer(NamedTuple):
    """An answer as a table, and query by query."""

    columns: dict[str, np.ndarray]
    records: Callable[[], Iterator[dict]]


def report_answer(report: Report) -> Answer:
    """Ids in each half-space: columns query, id."""
    queries = np.repeat(np.arange(len(report)), np.diff(report.indptr))
    return Answer(
        {"query": queries, "id": report.indices},
        lambda: ({"query": q, "ids": ids.tolist()} for q, ids in enumerate(report)),
    )


def count_answer(counts: np.ndarray) -> Answer:
    """Number of points in each half-space: columns query, count."""
    return Answer(
        {"query": np.arange(len(counts)), "count": counts},
        lambda: ({"query": q, "count": n} for q, n in enumerate(counts.tolist())),
    )


def top_answer(top: Top) -> Answer:
    """Best points along each normal: columns query, rank, id, score."""
    m, k = top.ids.shape
    return Answer(
        {
            "query": np.repeat(np.arange(m), k),
            "rank": np.tile(np.arange(k), m),
            "id": top.ids.ravel(),
            "score": top.scores.ravel(),
        },
        lambda: (
            {"query": q, "ids": top.ids[q].tolist(), "scores": top.scores[q].tolist()}
            for q in range(m)
        ),
    )


def _csv_lines(answer: Answer) -> Iterator[str]:
    yield ",".join(answer.columns) + "\n"
    columns = list(answer.columns.values())
    for first in range(0, len(columns[0]), ROWS):
        text = io.StringIO()
        rows = zip(*(column[first : first + ROWS].tolist() for column in columns), strict=True)
        csv.writer(text, lineterminator="\n").writerows(rows)
        yield text.getvalue()


def _json_lines(answer: Answer) -> Iterator[str]:
    return (json.dumps(record) + "\n" for record in answer.records())


LINES = {"csv": _csv_lines, "jsonl": _json_lines}
"""Formats of text."""

SUFFIXES = {".npy": "npy", ".csv": "csv", ".jsonl": "jsonl"}
"""Formats by how the name ends."""


def _save_npy(answer: Answer, file: BinaryIO) -> None:
    columns = answer.columns
    table = np.empty(
        len(next(iter(columns.values()))), [(name, c.dtype) for name, c in columns.items()]
    )
    for name, column in columns.items():
        table[name] = column
    np.save(file, table)


def write_file(answer: Answer, path: Path, form: str) -> None:
    """Write the answer into a file, which is replaced whole or stays as it was."""
    with replacing(path) as file:
        if form == "npy":
            _save_npy(answer, file)
        else:
            file.writelines(line.encode() for line in LINES[form](answer))


def write_text(answer: Answer, form: str, write: Callable[[str], object]) -> None:
    """Write the answer as text, some lines at a time."""
    for lines in LINES[form](answer):
        write(lines)
