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
    """An answer as a table, some rows at a time, and query by query."""

    rows: int
    columns: Callable[[slice], dict[str, np.ndarray]]
    records: Callable[[], Iterator[dict]]

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Columns of consecutive rows."""
        return (self.columns(slice(at, at + ROWS)) for at in range(0, self.rows, ROWS))


def report_answer(report: Report) -> Answer:
    """Ids in each half-space: columns query, id."""

    def columns(rows: slice) -> dict[str, np.ndarray]:
        ids = report.indices[rows]
        places = np.arange(rows.start, rows.start + len(ids))
        return {"query": np.searchsorted(report.indptr, places, "right") - 1, "id": ids}

    return Answer(
        len(report.indices),
        columns,
        lambda: ({"query": q, "ids": ids.tolist()} for q, ids in enumerate(report)),
    )


def count_answer(counts: np.ndarray) -> Answer:
    """Number of points in each half-space: columns query, count."""
    queries = np.arange(len(counts))
    return Answer(
        len(counts),
        lambda rows: {"query": queries[rows], "count": counts[rows]},
        lambda: ({"query": q, "count": n} for q, n in enumerate(counts.tolist())),
    )


def top_answer(top: Top) -> Answer:
    """Best points along each normal: columns query, rank, id, score."""
    queries, ranks = np.indices(top.ids.shape)
    table = {"query": queries, "rank": ranks, "id": top.ids, "score": top.scores}
    flat = {name: column.ravel() for name, column in table.items()}
    return Answer(
        top.ids.size,
        lambda rows: {name: column[rows] for name, column in flat.items()},
        lambda: (
            {"query": q, "ids": ids.tolist(), "scores": scores.tolist()}
            for q, (ids, scores) in enumerate(zip(top.ids, top.scores, strict=True))
        ),
    )


def _csv_lines(answer: Answer) -> Iterator[str]:
    yield ",".join(answer.columns(slice(0, 0))) + "\n"
    for block in answer.blocks():
        text = io.StringIO()
        rows = zip(*(column.tolist() for column in block.values()), strict=True)
        csv.writer(text, lineterminator="\n").writerows(rows)
        yield text.getvalue()


def _json_lines(answer: Answer) -> Iterator[str]:
    return (json.dumps(record) + "\n" for record in answer.records())


LINES = {"csv": _csv_lines, "jsonl": _json_lines}
"""Formats of text."""

SUFFIXES = {".npy": "npy", ".csv": "csv", ".jsonl": "jsonl"}
"""Formats by how the name ends."""


def _save_npy(answer: Answer, file: BinaryIO) -> None:
    dtype = np.dtype([(name, c.dtype) for name, c in answer.columns(slice(0, 0)).items()])
    header = {"descr": dtype.descr, "fortran_order": False, "shape": (answer.rows,)}
    np.lib.format.write_array_header_1_0(file, header)
    for block in answer.blocks():
        table = np.empty(len(next(iter(block.values()))), dtype)
        for name, column in block.items():
            table[name] = column
        file.write(table.tobytes())


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
